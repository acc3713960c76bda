"""A reader of pickled object arrays that cannot execute code.

hdmf-zarr up to 0.13 stores object references as arrays pickled by numcodecs. This reader implements the
opcodes that describe data (the format is documented in Python's `pickletools`) and none that import or call
anything: names of classes and functions are compared with a list of allowed names, and never looked up.
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

#: Modules by their names in different versions of NumPy.
_MODULES = {
    "numpy.core.multiarray": "numpy",
    "numpy._core.multiarray": "numpy",
    "hdmf_zarr.utils": "hdmf_zarr",
}
_ALLOWED = frozenset(
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
    """The name of a class or function in a pickle: an inert value on the stack."""

    def __init__(self, module: str, name: str) -> None:
        key = (_MODULES.get(module, module), name)
        if key not in _ALLOWED:
            _refuse(f"names {module}.{name}")
        self.name = name


class _Type:
    """A NumPy type under construction."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.order = "="

    def plain(self) -> np.dtype:
        """Return the NumPy type, if it is one of numbers or fixed-length text."""
        if not _PLAIN.fullmatch(self.code):
            raise UnsupportedTypeError(f"pickled elements of type {self.code!r}")
        return np.dtype((self.order if self.order in {"<", ">"} else "=") + self.code)


class PickledArray:
    """A NumPy array in a pickle.

    Attributes
    ----------
    values : ndarray
        Elements: objects or numbers.
    """

    def __init__(self) -> None:
        self.values: np.ndarray = np.zeros(0, object)

    def fill(self, state: Any) -> None:  # noqa: ANN401 - any pickled value
        """Set the state of a NumPy array."""
        _, shape, dtype, is_fortran, content = state
        if not isinstance(shape, tuple) or any(type(n) is not int or n < 0 for n in shape):
            raise CorruptDataError(f"a pickled array has the invalid shape {shape!r}")
        if isinstance(content, list):
            flat = np.fromiter(content, object, len(content))
            values = flat.reshape(shape)
            self.values = np.asfortranarray(values) if is_fortran else values
        else:
            numbers = np.frombuffer(content, dtype.plain(), math.prod(shape))
            self.values = numbers.reshape(shape, order="F" if is_fortran else "C")


def read_pickle(data: bytes) -> Any:  # noqa: ANN401 - any plain data
    """Return the data of a pickle: plain containers, text, bytes, numbers, None and NumPy arrays.

    Raises
    ------
    UnsupportedTypeError
        If it contains anything else; no code is executed.
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
    """The stack machine that executes the opcodes of a pickle."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:  # noqa: ANN401
        """Execute the opcodes and return the result."""
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

    # -- opcodes --------------------------------------------------------------------------------------

    def skip(self, size: int) -> None:
        """Skip an operand that is not needed, such as the protocol or the size of a frame."""
        self._take(size)

    def push(self, value: Any) -> None:  # noqa: ANN401
        """Push a value."""
        self._stack.append(value)

    def push_number(self, form: str) -> None:
        """Push a number."""
        self._stack.append(self._number(form))

    def push_long(self, form: str) -> None:
        """Push a long integer."""
        self._stack.append(int.from_bytes(self._take(self._number(form)), "little", signed=True))

    def push_bytes(self, form: str) -> None:
        """Push bytes."""
        self._stack.append(self._take(self._number(form)))

    def push_text(self, form: str) -> None:
        """Push text."""
        self._stack.append(self._take(self._number(form)).decode("utf-8", "replace"))

    def push_name(self) -> None:
        """Push a name that follows the opcode."""
        module = self._line()
        self._stack.append(_Name(module, self._line()))

    def push_name_from_stack(self) -> None:
        """Push a name whose parts are on the stack."""
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("a name is not text")
        self._stack.append(_Name(module, name))

    def mark(self) -> None:
        """Push a mark."""
        self._marks.append(len(self._stack))

    def drop(self) -> None:
        """Pop the top of the stack."""
        self._stack.pop()

    def memoize(self, form: str) -> None:
        """Store the top of the stack in the memo."""
        self._memo[self._number(form) if form else len(self._memo)] = self._stack[-1]

    def push_memo(self, form: str) -> None:
        """Push an entry of the memo."""
        self._stack.append(self._memo[self._number(form)])

    def make_tuple(self, size: int) -> None:
        """Replace the topmost items with a tuple of them."""
        if size > len(self._stack):
            raise ValueError("the stack is empty")
        found = tuple(self._stack[len(self._stack) - size :])
        del self._stack[len(self._stack) - size :]
        self._stack.append(found)

    def make_marked_tuple(self) -> None:
        """Replace the items above the mark with a tuple of them."""
        self._stack.append(tuple(self._marked()))

    def append(self) -> None:
        """Append the top of the stack to a list."""
        item = self._stack.pop()
        self._list().append(item)

    def extend(self) -> None:
        """Append the items above the mark to a list."""
        items = self._marked()
        self._list().extend(items)

    def _list(self) -> list[Any]:
        if type(self._stack[-1]) is not list:
            raise TypeError("there is no list to append to")
        found: list[Any] = self._stack[-1]
        return found

    def set_item(self) -> None:
        """Set an item of a dictionary."""
        value, key = self._stack.pop(), self._stack.pop()
        self._set([key, value])

    def set_items(self) -> None:
        """Set items of a dictionary to those above the mark."""
        self._set(self._marked())

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict:
            raise TypeError("there is no dictionary to set items in")
        target.update(zip(items[::2], items[1::2], strict=True))

    def reduce(self) -> None:
        """Emulate the call of one of NumPy's functions."""
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
        """Push an empty reference: the class of hdmf-zarr is a dictionary."""
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
    raise UnsupportedTypeError(f"its pickle {what}: only plain data is supported, and nothing is executed")


def _bind(method: Callable[..., None], *arguments: Any) -> Callable[[_Machine], None]:  # noqa: ANN401
    return lambda machine: method(machine, *arguments)


_OPERATIONS: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": _bind(_Machine.skip, 1),
    b"\x95": _bind(_Machine.skip, 8),
    b"N": _bind(_Machine.push, None),
    b"\x88": _bind(_Machine.push, True),  # noqa: FBT003 - a value
    b"\x89": _bind(_Machine.push, False),  # noqa: FBT003
    b"J": _bind(_Machine.push_number, "<i"),
    b"K": _bind(_Machine.push_number, "<B"),
    b"M": _bind(_Machine.push_number, "<H"),
    b"G": _bind(_Machine.push_number, ">d"),
    b"\x8a": _bind(_Machine.push_long, "<B"),
    b"\x8b": _bind(_Machine.push_long, "<I"),
    b"\x8c": _bind(_Machine.push_text, "<B"),
    b"X": _bind(_Machine.push_text, "<I"),
    b"\x8d": _bind(_Machine.push_text, "<Q"),
    b"C": _bind(_Machine.push_bytes, "<B"),
    b"B": _bind(_Machine.push_bytes, "<I"),
    b"\x8e": _bind(_Machine.push_bytes, "<Q"),
    b"]": lambda machine: machine.push([]),
    b"}": lambda machine: machine.push({}),
    b")": _bind(_Machine.push, ()),
    b"\x85": _bind(_Machine.make_tuple, 1),
    b"\x86": _bind(_Machine.make_tuple, 2),
    b"\x87": _bind(_Machine.make_tuple, 3),
    b"t": _Machine.make_marked_tuple,
    b"a": _Machine.append,
    b"e": _Machine.extend,
    b"s": _Machine.set_item,
    b"u": _Machine.set_items,
    b"(": _Machine.mark,
    b"0": _Machine.drop,
    b"\x94": _bind(_Machine.memoize, ""),
    b"q": _bind(_Machine.memoize, "<B"),
    b"r": _bind(_Machine.memoize, "<I"),
    b"h": _bind(_Machine.push_memo, "<B"),
    b"j": _bind(_Machine.push_memo, "<I"),
    b"c": _Machine.push_name,
    b"\x93": _Machine.push_name_from_stack,
    b"R": _Machine.reduce,
    b"\x81": _Machine.make_object,
    b"b": _Machine.build,
}
