"""Pickled object arrays, read without unpickling.

hdmf-zarr up to 0.13 stores object references as arrays that numcodecs pickled. What is here reads the opcodes
that describe data (the format is documented in Python's `pickletools`) and has none that could import or call
anything: names of classes and functions are compared with those that such arrays have, and never looked up.
"""

from __future__ import annotations

import math
import re
import struct
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from lazynwb.errors import CorruptDataError, UnsupportedTypeError

if TYPE_CHECKING:
    from collections.abc import Callable

#: Modules have moved between versions of NumPy.
_MODULES = {
    "numpy.core.multiarray": "numpy",
    "numpy._core.multiarray": "numpy",
    "hdmf_zarr.utils": "hdmf_zarr",
}
_KNOWN = frozenset(
    {
        ("numpy", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("numpy", "scalar"),
        ("hdmf_zarr", "ZarrReference"),
    }
)
_PLAIN = re.compile(r"[biufcSU]\d{1,9}")


class _Name:
    """A class or function that a pickle names: a mark on the stack that nothing can be done with."""

    def __init__(self, module: str, name: str) -> None:
        key = (_MODULES.get(module, module), name)
        if key not in _KNOWN:
            _refuse(f"names {module}.{name}")
        self.name = name


class _Type:
    """A NumPy type as far as a pickle has described it."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.order = "="

    def plain(self) -> np.dtype:
        """Return the type of numbers or text of fixed length."""
        if not _PLAIN.fullmatch(self.code):
            raise UnsupportedTypeError(f"pickled elements of type {self.code!r}")
        return np.dtype((self.order if self.order in {"<", ">"} else "=") + self.code)


class PickledArray:
    """A NumPy array in a pickle.

    Attributes
    ----------
    values : ndarray
        Objects, or numbers.
    """

    def __init__(self) -> None:
        self.values: np.ndarray = np.zeros(0, object)

    def fill(self, state: Any) -> None:  # noqa: ANN401 - what the pickle says
        """Set the state of a NumPy array."""
        _, shape, dtype, is_fortran, content = state
        if not isinstance(shape, tuple) or any(type(n) is not int or n < 0 for n in shape):
            raise CorruptDataError(f"a pickled array of shape {shape!r}")
        if isinstance(content, list):
            flat = np.fromiter(content, object, len(content))
            values = flat.reshape(shape)
            self.values = np.asfortranarray(values) if is_fortran else values
        else:
            numbers = np.frombuffer(content, dtype.plain(), math.prod(shape))
            self.values = numbers.reshape(shape, order="F" if is_fortran else "C")


def read_pickle(data: bytes) -> Any:  # noqa: ANN401 - whatever plain data it holds
    """Return the data of a pickle: plain containers, text, bytes, numbers, None and NumPy arrays.

    Raises
    ------
    UnsupportedTypeError
        If it has anything else. Nothing has happened then.
    CorruptDataError
        If it is damaged.
    """
    try:
        return _Machine(data).run()
    except (UnsupportedTypeError, CorruptDataError):
        raise
    except (ValueError, TypeError, LookupError, AttributeError, struct.error, MemoryError) as error:
        raise CorruptDataError(f"a pickled array is damaged ({error})") from None


class _Machine:
    """The stack that a pickle's opcodes work on."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:  # noqa: ANN401
        """Follow the opcodes to the end."""
        while (code := self._take(1)) != b".":
            operation = _OPERATIONS.get(code)
            if operation is None:
                _refuse(f"has the opcode {code!r}")
            operation(self)
        return self._stack.pop()

    def _take(self, size: int) -> bytes:
        found = self._data[self._at : self._at + size]
        if len(found) < size:
            raise ValueError("it ends early")
        self._at += size
        return found

    def _number(self, form: str) -> Any:  # noqa: ANN401 - an int or a float
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _line(self) -> str:
        stop = self._data.index(b"\n", self._at)
        return self._take(stop + 1 - self._at)[:-1].decode()

    def _marked(self) -> list[Any]:
        start = self._marks.pop()
        found = self._stack[start:]
        del self._stack[start:]
        return found

    # -- what opcodes do ------------------------------------------------------------------------------

    def skip(self, size: int) -> None:
        """Skip an operand that is not needed: the protocol, the size of a frame."""
        self._take(size)

    def push(self, value: Any) -> None:  # noqa: ANN401
        """Put a value on the stack."""
        self._stack.append(value)

    def push_number(self, form: str) -> None:
        """Put a number on the stack."""
        self._stack.append(self._number(form))

    def push_long(self, form: str) -> None:
        """Put a long integer on the stack."""
        self._stack.append(int.from_bytes(self._take(self._number(form)), "little", signed=True))

    def push_bytes(self, form: str) -> None:
        """Put bytes on the stack."""
        self._stack.append(self._take(self._number(form)))

    def push_text(self, form: str) -> None:
        """Put text on the stack."""
        self._stack.append(self._take(self._number(form)).decode("utf-8", "replace"))

    def push_name(self) -> None:
        """Put a name on the stack that is in the pickle itself."""
        module = self._line()
        self._stack.append(_Name(module, self._line()))

    def take_name(self) -> None:
        """Push a name whose parts are on the stack."""
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("a name is no text")
        self._stack.append(_Name(module, name))

    def mark(self) -> None:
        """Note how high the stack is."""
        self._marks.append(len(self._stack))

    def drop(self) -> None:
        """Pop the top of the stack."""
        self._stack.pop()

    def remember(self, form: str) -> None:
        """Store the top of the stack in the memo."""
        self._memo[self._number(form) if form else len(self._memo)] = self._stack[-1]

    def recall(self, form: str) -> None:
        """Push an entry of the memo."""
        self._stack.append(self._memo[self._number(form)])

    def make_tuple(self, size: int) -> None:
        """Replace the topmost items by a tuple of them."""
        if size > len(self._stack):
            raise ValueError("the stack is empty")
        found = tuple(self._stack[len(self._stack) - size :])
        del self._stack[len(self._stack) - size :]
        self._stack.append(found)

    def make_marked_tuple(self) -> None:
        """Replace the items above the mark by a tuple of them."""
        self._stack.append(tuple(self._marked()))

    def append(self) -> None:
        """Add to a list."""
        item = self._stack.pop()
        self._list().append(item)

    def extend(self) -> None:
        """Append the items above the mark to a list."""
        items = self._marked()
        self._list().extend(items)

    def _list(self) -> list[Any]:
        if type(self._stack[-1]) is not list:
            raise TypeError("there is no list to add to")
        found: list[Any] = self._stack[-1]
        return found

    def set_item(self) -> None:
        """Set an item of a dictionary."""
        value, key = self._stack.pop(), self._stack.pop()
        self._set([key, value])

    def set_items(self) -> None:
        """Set the items of a dictionary that are above the mark."""
        self._set(self._marked())

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict:
            raise TypeError("there is no dictionary to set items of")
        target.update(zip(items[::2], items[1::2], strict=True))

    def reduce(self) -> None:
        """Apply one of NumPy's functions to its arguments."""
        arguments, function = self._stack.pop(), self._stack.pop()
        name = function.name if isinstance(function, _Name) else ""
        if name == "_reconstruct":
            self._stack.append(PickledArray())
        elif name == "dtype":
            self._stack.append(_Type(str(arguments[0])))
        elif name == "scalar":
            dtype, content = arguments
            plain = isinstance(content, bytes)
            self._stack.append(np.frombuffer(content, dtype.plain(), 1)[0].item() if plain else content)
        else:
            _refuse(f"would call {name!r}")

    def make_object(self) -> None:
        """Make an empty reference: hdmf-zarr's class is a dictionary."""
        arguments, kind = self._stack.pop(), self._stack.pop()
        name = kind.name if isinstance(kind, _Name) else ""
        if name != "ZarrReference" or arguments != ():
            _refuse(f"would call {name!r}")
        self._stack.append({})

    def build(self) -> None:
        """Set the state of an array or of a type."""
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, PickledArray):
            target.fill(state)
        elif isinstance(target, _Type):
            target.order = str(state[1])
        else:
            _refuse(f"sets the state of a {type(target).__name__}")


def _refuse(what: str) -> NoReturn:
    raise UnsupportedTypeError(f"its pickle {what}: only plain data is read, and nothing is unpickled")


def _with(method: Callable[..., None], *arguments: Any) -> Callable[[_Machine], None]:  # noqa: ANN401
    return lambda machine: method(machine, *arguments)


_OPERATIONS: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": _with(_Machine.skip, 1),
    b"\x95": _with(_Machine.skip, 8),
    b"N": _with(_Machine.push, None),
    b"\x88": _with(_Machine.push, True),  # noqa: FBT003 - a value
    b"\x89": _with(_Machine.push, False),  # noqa: FBT003
    b"J": _with(_Machine.push_number, "<i"),
    b"K": _with(_Machine.push_number, "<B"),
    b"M": _with(_Machine.push_number, "<H"),
    b"G": _with(_Machine.push_number, ">d"),
    b"\x8a": _with(_Machine.push_long, "<B"),
    b"\x8b": _with(_Machine.push_long, "<I"),
    b"\x8c": _with(_Machine.push_text, "<B"),
    b"X": _with(_Machine.push_text, "<I"),
    b"\x8d": _with(_Machine.push_text, "<Q"),
    b"C": _with(_Machine.push_bytes, "<B"),
    b"B": _with(_Machine.push_bytes, "<I"),
    b"\x8e": _with(_Machine.push_bytes, "<Q"),
    b"]": lambda machine: machine.push([]),
    b"}": lambda machine: machine.push({}),
    b")": _with(_Machine.push, ()),
    b"\x85": _with(_Machine.make_tuple, 1),
    b"\x86": _with(_Machine.make_tuple, 2),
    b"\x87": _with(_Machine.make_tuple, 3),
    b"t": _Machine.make_marked_tuple,
    b"a": _Machine.append,
    b"e": _Machine.extend,
    b"s": _Machine.set_item,
    b"u": _Machine.set_items,
    b"(": _Machine.mark,
    b"0": _Machine.drop,
    b"\x94": _with(_Machine.remember, ""),
    b"q": _with(_Machine.remember, "<B"),
    b"r": _with(_Machine.remember, "<I"),
    b"h": _with(_Machine.recall, "<B"),
    b"j": _with(_Machine.recall, "<I"),
    b"c": _Machine.push_name,
    b"\x93": _Machine.take_name,
    b"R": _Machine.reduce,
    b"\x81": _Machine.make_object,
    b"b": _Machine.build,
}
