"""What is between the brackets of an array: one entry per dimension, as NumPy understands it."""

from __future__ import annotations

import operator
from types import EllipsisType
from typing import TYPE_CHECKING, NamedTuple, SupportsIndex

import numpy as np

from lazynwb.engine.cells import length_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazynwb.engine.cells import Span

Entry = SupportsIndex | slice | EllipsisType | np.ndarray | list[int] | list[bool]
Selection = Entry | tuple[Entry, ...]


class Picked(NamedTuple):
    """A selection of an array's elements.

    Attributes
    ----------
    spans : tuple of Span
        What is read along each dimension: ascending, without repeats.
    order : tuple of (slice or ndarray or int)
        What is then taken of what was read, along each dimension: turned round, repeated, or dropped.
    shape : tuple of int
        Of the result.
    """

    spans: tuple[Span, ...]
    order: tuple[slice | np.ndarray | int, ...]
    shape: tuple[int, ...]


def pick(shape: Sequence[int], selection: Selection) -> Picked:
    """Return what a selection means for an array of the given shape.

    Parameters
    ----------
    shape : sequence of int
    selection : int, slice, Ellipsis, array, or tuple of these
        Integers and slices as in NumPy; and along at most one dimension, numbers or a boolean mask.

    Raises
    ------
    IndexError
        If it is out of range, of too many dimensions, or of a kind that is not supported; as NumPy says it.
    """
    spans: list[Span] = []
    order: list[slice | np.ndarray | int] = []
    result: list[int] = []
    arrays = 0
    for axis, (entry, n) in enumerate(zip(_one_per_dimension(selection, len(shape)), shape, strict=True)):
        if isinstance(entry, slice):
            start, stop, step = entry.indices(n)
            span: Span = _ascending(range(start, stop, step))
            taken: slice | np.ndarray | int = slice(None, None, -1 if step < 0 else 1)
            result.append(length_of(span))
        elif isinstance(entry, np.ndarray | list):
            arrays += 1
            numbers = _numbers(np.asarray(entry), axis, n)
            span, taken = np.unique(numbers, return_inverse=True)
            if len(span) == len(numbers) and (taken == np.arange(len(taken))).all():
                taken = slice(None)
            result.append(len(numbers))
        else:
            number = _number(entry, axis, n)
            span, taken = slice(number, number + 1, 1), 0
        spans.append(span)
        order.append(taken)
    if arrays > 1:
        message = "arrays of numbers along more than one dimension are not supported: take them one by one"
        raise IndexError(message)
    return Picked(tuple(spans), tuple(order), tuple(result))


def ordered(values: np.ndarray, picked: Picked) -> np.ndarray:
    """Return what was read of a selection's spans in the order that was asked for."""
    for axis, taken in enumerate(picked.order):
        if isinstance(taken, np.ndarray):
            values = values.take(taken, axis=axis)
    rest = tuple(slice(None) if isinstance(taken, np.ndarray) else taken for taken in picked.order)
    result: np.ndarray = np.asarray(values[rest])
    return result


def _one_per_dimension(selection: Selection, ndim: int) -> list[Entry]:
    entries = list(selection) if isinstance(selection, tuple) else [selection]
    dots = [i for i, entry in enumerate(entries) if entry is Ellipsis]
    if len(dots) > 1:
        message = "an index can only have a single ellipsis ('...')"
        raise IndexError(message)
    given = len(entries) - len(dots)
    if given > ndim:
        message = f"too many indices for array: array is {ndim}-dimensional, but {given} were indexed"
        raise IndexError(message)
    rest: list[Entry] = [slice(None)] * (ndim - given)
    at = dots[0] if dots else len(entries)
    return [*entries[:at], *rest, *entries[at + 1 :]]


def _ascending(positions: range) -> slice:
    if not len(positions):
        return slice(0, 0, 1)
    if positions.step < 0:
        positions = positions[::-1]
    return slice(positions.start, positions[-1] + 1, positions.step)


def _numbers(entry: np.ndarray, axis: int, n: int) -> np.ndarray:
    """Return positions, none of them negative."""
    if entry.ndim != 1:
        message = f"an index along one dimension has one dimension itself, not {entry.ndim}"
        raise IndexError(message)
    if entry.dtype == bool:
        if len(entry) != n:
            message = (
                f"boolean index did not match indexed array along axis {axis}; size of axis is {n} "
                f"but size of corresponding boolean axis is {len(entry)}"
            )
            raise IndexError(message)
        return np.flatnonzero(entry)
    if not len(entry):
        return np.zeros(0, np.int64)
    if entry.dtype.kind not in "iu":
        message = "arrays used as indices must be of integer (or boolean) type"
        raise IndexError(message)
    if entry.dtype.kind == "u" and int(entry.max()) >= n:
        raise _out_of_bounds(int(entry.max()), axis, n)
    numbers = entry.astype(np.int64)
    wrong = (numbers < -n) | (numbers >= n)
    if wrong.any():
        raise _out_of_bounds(int(numbers[wrong][0]), axis, n)
    return np.where(numbers < 0, numbers + n, numbers)


def _number(entry: object, axis: int, n: int) -> int:
    if isinstance(entry, bool | np.bool_) or entry is None:
        message = f"{entry!r} is not an index that is supported here"
        raise IndexError(message)
    try:
        number = operator.index(entry)  # type: ignore[arg-type]
    except TypeError:
        message = (
            "only integers, slices (`:`), ellipsis (`...`), and along one dimension integer or boolean "
            f"arrays are valid indices, not {entry!r}"
        )
        raise IndexError(message) from None
    if not -n <= number < n:
        raise _out_of_bounds(number, axis, n)
    return number % n


def _out_of_bounds(number: int, axis: int, n: int) -> IndexError:
    return IndexError(f"index {number} is out of bounds for axis {axis} with size {n}")
