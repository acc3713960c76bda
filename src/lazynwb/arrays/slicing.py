"""Slices of stored arrays as NumPy arrays, with the indexing of NumPy.

Along each dimension, only the chunks or bytes that contain the selection are read.
"""

from __future__ import annotations

import math
import operator
import os
from types import EllipsisType
from typing import TYPE_CHECKING, NamedTuple, SupportsIndex

import numpy as np

from lazynwb.arrays.arrow import Context, Elements, as_stored, build, variable_length
from lazynwb.arrays.chunk_grid import chunk_numbers, indexer_length, row_bytes
from lazynwb.arrays.fetch import Request
from lazynwb.arrays.heap import Heap
from lazynwb.arrays.ragged import count_rows, merge_spans
from lazynwb.arrays.row_selection import Handles, expand
from lazynwb.catalog.model import stored_size
from lazynwb.errors import CorruptDataError, LazyNWBError, UnsupportedTypeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazynwb.arrays.chunk_grid import Indexer
    from lazynwb.catalog.model import Array, DType
    from lazynwb.lookup.loader import TableFile

Entry = SupportsIndex | slice | EllipsisType | np.ndarray | list[int] | list[bool]
Selection = Entry | tuple[Entry, ...]


class ResolvedSelection(NamedTuple):
    """A resolved selection of elements of an array.

    Attributes
    ----------
    spans : tuple of Indexer
        Positions to read along each dimension, in ascending order without duplicates.
    order : tuple of (slice or ndarray or int)
        Index of the result in the values read, along each dimension: it reverses, repeats or drops positions.
    shape : tuple of int
        Shape of the result.
    """

    spans: tuple[Indexer, ...]
    order: tuple[slice | np.ndarray | int, ...]
    shape: tuple[int, ...]


def resolve_selection(shape: Sequence[int], selection: Selection) -> ResolvedSelection:
    """Resolve a selection for an array of the given shape.

    Parameters
    ----------
    shape : sequence of int
    selection : int, slice, Ellipsis, array, or tuple of these
        Integers and slices as in NumPy; along at most one dimension, an integer array or a boolean mask.

    Raises
    ------
    IndexError
        If the selection is out of range, has too many dimensions, or is not supported; messages are those of
        NumPy.
    """
    spans: list[Indexer] = []
    order: list[slice | np.ndarray | int] = []
    result: list[int] = []
    arrays = 0
    for axis, (entry, n) in enumerate(zip(_one_per_dimension(selection, len(shape)), shape, strict=True)):
        if isinstance(entry, slice):
            start, stop, step = entry.indices(n)
            span: Indexer = _ascending(range(start, stop, step))
            taken: slice | np.ndarray | int = slice(None, None, -1 if step < 0 else 1)
            result.append(indexer_length(span))
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
        raise IndexError(
            "integer arrays along more than one dimension are not supported: index one dimension at a time"
        )
    return ResolvedSelection(tuple(spans), tuple(order), tuple(result))


def apply_order(values: np.ndarray, picked: ResolvedSelection) -> np.ndarray:
    """Return values read from `spans` in the order of the selection."""
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
        raise IndexError("an index can only have a single ellipsis ('...')")
    count = len(entries) - len(dots)
    if count > ndim:
        raise IndexError(f"too many indices for array: array is {ndim}-dimensional, but {count} were indexed")
    rest: list[Entry] = [slice(None)] * (ndim - count)
    at = dots[0] if dots else len(entries)
    return [*entries[:at], *rest, *entries[at + 1 :]]


def _ascending(positions: range) -> slice:
    if not len(positions):
        return slice(0, 0, 1)
    if positions.step < 0:
        positions = positions[::-1]
    return slice(positions.start, positions[-1] + 1, positions.step)


def _numbers(entry: np.ndarray, axis: int, n: int) -> np.ndarray:
    """Return nonnegative positions."""
    if entry.ndim != 1:
        raise IndexError(f"an index array must have one dimension, not {entry.ndim}")
    if entry.dtype == bool:
        if len(entry) != n:
            raise IndexError(
                f"boolean index did not match indexed array along axis {axis}; size of axis is {n} "
                f"but size of corresponding boolean axis is {len(entry)}"
            )
        return np.flatnonzero(entry)
    if not len(entry):
        return np.zeros(0, np.int64)
    if entry.dtype.kind not in "iu":
        raise IndexError("arrays used as indices must be of integer (or boolean) type")
    if entry.dtype.kind == "u" and int(entry.max()) >= n:
        raise _out_of_bounds(int(entry.max()), axis, n)
    numbers = entry.astype(np.int64)
    wrong = (numbers < -n) | (numbers >= n)
    if wrong.any():
        raise _out_of_bounds(int(numbers[wrong][0]), axis, n)
    return np.where(numbers < 0, numbers + n, numbers)


def _number(entry: object, axis: int, n: int) -> int:
    if isinstance(entry, bool | np.bool_) or entry is None:
        raise IndexError(f"{entry!r} is not a supported index")
    try:
        number = operator.index(entry)  # type: ignore[arg-type]
    except TypeError:
        raise IndexError(
            "only integers, slices (`:`), ellipsis (`...`), and along one dimension an integer or boolean "
            f"array are valid indices, not {entry!r}"
        ) from None
    if not -n <= number < n:
        raise _out_of_bounds(number, axis, n)
    return number % n


def _out_of_bounds(number: int, axis: int, n: int) -> IndexError:
    return IndexError(f"index {number} is out of bounds for axis {axis} with size {n}")


#: Kinds of types whose values are their stored bytes.
_PLAIN = frozenset({"number", "bool"})


def value_dtype(dtype: DType) -> np.dtype:
    """Return the NumPy type of values, in native byte order; text, enums and references are objects."""
    if dtype.kind == "number":
        return np.dtype(dtype.numpy).newbyteorder("=")
    if dtype.kind == "bool":
        return np.dtype(bool)
    if dtype.kind == "compound":
        return np.dtype([(f.name, value_dtype(f.dtype), f.dtype.dims) for f in dtype.fields])
    return np.dtype(object)


def needs_context(dtype: DType) -> bool:
    """Return whether elements refer to heaps or objects of their file."""
    if dtype.kind == "compound":
        return any(needs_context(field.dtype) for field in dtype.fields)
    return dtype.kind in {"vlen_text", "vlen", "reference"}


def values_of(elements: Elements, context: Context) -> np.ndarray:
    """Return elements as a flat array of the type that `value_dtype` returns.

    Numbers in native byte order share the memory of the elements.
    """
    dtype, raw = elements.dtype, elements.raw
    target = value_dtype(dtype)
    if dtype.kind in _PLAIN:
        flat = np.ascontiguousarray(raw).reshape(-1)
        if dtype.kind == "bool":
            truth: np.ndarray = flat.view(np.dtype(dtype.numpy)) != 0
            return truth
        return flat.view(np.dtype(dtype.numpy)).astype(target, copy=False)
    if dtype.kind == "compound":
        out = np.empty(len(raw), target)
        for i, field in enumerate(dtype.fields):
            member = values_of(elements.member(i), context)
            out[field.name] = member.reshape(len(raw), *field.dtype.dims)
        return out
    series = build(elements, context)
    out = np.empty(len(series), object)
    for i, value in enumerate(series):
        out[i] = value.to_numpy() if dtype.kind == "vlen" else value
    return out


def value_bytes(dtype: DType) -> int:
    """Return the size of one value in memory, without the contents of Python objects."""
    return value_dtype(dtype).itemsize * math.prod(dtype.dims)


#: Maximum gap in bytes between selected rows that are read together.
_GAP = 4096
#: Size of the blocks in which rows are read if not all of them are selected.
BLOCK_BYTES = 64 * 1024 * 1024


def read_slice(file: TableFile, array: Array, selection: Selection) -> np.ndarray:
    """Read a selection of a stored array.

    Parameters
    ----------
    file : TableFile
        Table or series of the array.
    array : Array
    selection : int, slice, Ellipsis, array, or tuple of these
        As in NumPy; see `lazynwb.arrays.slicing.pick`.

    Returns
    -------
    ndarray
        Values in native byte order. Text, names of enum members and paths of references are `str` objects;
        compounds are structured arrays. The dimensions of array types follow those of the array. A single
        element is an array without dimensions.

    Raises
    ------
    IndexError
        If the selection is out of range.
    CorruptDataError or SourceChangedError
        If the file is damaged, or has changed since the catalog was created.
    UnsupportedTypeError
        If the type or a filter is not supported.
    LazyNWBError
        If the selection is larger than the memory of the machine.
    """
    picked = resolve_selection(array.shape, selection)
    return apply_order(read_spans(file, array, picked.spans), picked)


def read_spans(file: TableFile, array: Array, spans: tuple[Indexer, ...]) -> np.ndarray:
    """Read the spans of a selection; see `read_slice`."""
    if array.dtype.kind == "unsupported":
        raise UnsupportedTypeError(f"{file.name}: /{array.path} cannot be read: {array.dtype.note}")
    counts = tuple(map(indexer_length, spans))
    shape = (*counts, *array.dtype.dims)
    if not math.prod(shape):
        return np.empty(shape, value_dtype(array.dtype))
    _check_size(file, array, math.prod(counts))
    with Handles() as handles:
        return _read(handles, file, array, spans).reshape(shape)


def _check_size(file: TableFile, array: Array, elements: int) -> None:
    """Raise an error before allocation if the selection exceeds the file or the memory."""
    if array.layout == "contiguous" and array.offset >= 0:
        with Handles() as handles:
            size = handles.files[handles.number(file, array)].size
        last = array.offset + math.prod(array.shape) * stored_size(array.dtype)
        if last > size:
            raise CorruptDataError(
                f"{file.name}: /{array.path}: its data ends at byte {last}, but the file has {size} bytes"
            )
    needed = elements * max(value_bytes(array.dtype), stored_size(array.dtype))
    if needed > _memory():
        raise LazyNWBError(
            f"{file.name}: /{array.path}: the selection has {needed / 2**30:.0f} GiB, which exceeds the "
            "memory: read it in parts"
        )


def _memory() -> float:
    """Return the memory of the machine in bytes; infinity if the system does not report it."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return math.inf


def _read(handles: Handles, file: TableFile, array: Array, spans: tuple[Indexer, ...]) -> np.ndarray:
    """Return the values of the spans, row by row."""
    rows: Indexer = spans[0] if spans else slice(0, 1, 1)
    box = spans[1:]
    if all(isinstance(s, slice) and s == slice(0, n, 1) for s, n in zip(box, array.shape[1:], strict=True)):
        box = ()
    raw = _stored(handles, file, array, rows, box)
    number = 0
    heap = None
    dtype = array.dtype
    if needs_context(dtype) and array.layout not in {"objects", "indirect"}:
        number = handles.number(file, array)
    elements = Elements(dtype, raw, np.broadcast_to(np.int64(number), (len(raw),)))
    variable = list(variable_length(elements))
    if variable:
        heap = Heap(handles.files, handles.bases, [(e.owners, e.raw) for e in variable])
    try:
        return values_of(elements, Context(heap, handles.paths_of))
    except CorruptDataError as error:
        raise CorruptDataError(f"{file.name}: /{array.path}: {error}") from None


def _stored(
    handles: Handles, file: TableFile, array: Array, rows: Indexer, box: tuple[Indexer, ...]
) -> np.ndarray:
    """Return stored elements: uint8 of shape (n, itemsize), or objects of the reader of the format."""
    indirect = array.layout == "indirect"
    width = max(row_bytes(array, () if indirect else box), 1)
    count = indexer_length(rows)
    if isinstance(rows, slice) and rows.step == 1 and not (indirect and count * width > BLOCK_BYTES):
        ranges = np.array([[rows.start, rows.stop]], np.int64)
        blocks: list[tuple[np.ndarray, np.ndarray | None]] = [(ranges, None)]
    else:
        numbers = np.arange(rows.start, rows.stop, rows.step) if isinstance(rows, slice) else rows
        ranges = _merge_near(numbers, width, array)
        blocks = _blocks(numbers, ranges, width, array, always=indirect)
    if indirect:
        reader = handles.reader(file)
        parts = []
        for block, picks in blocks:
            found = reader.read_indirect(array, block)
            found = found if picks is None else found[picks]
            parts.append(as_stored(found[:, *box] if box else found, array.dtype))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
    if array.chunk and len(array.chunk) == len(array.shape) and min(array.chunk) > 0:
        file.look_up_chunks_of(array, chunk_numbers(array, ranges, box))
    chunks = file.chunks(array)
    out = np.empty((count, row_bytes(array, box)), np.uint8)
    done = 0
    for block, picks in blocks:
        if picks is None:
            part = out[done : done + count_rows(block)]
            handles.fetch([(file, Request(array, chunks, block, part, box))])
        else:
            read = np.empty((count_rows(block), out.shape[1]), np.uint8)
            handles.fetch([(file, Request(array, chunks, block, read, box))])
            part = out[done : done + len(picks)]
            part[...] = read[picks]
        done += len(part)
    return out.reshape(-1, array.dtype.itemsize)


def _merge_near(numbers: np.ndarray, width: int, array: Array) -> np.ndarray:
    """Return ascending row numbers as ranges that include small gaps, but no complete chunks in gaps."""
    following = numbers[1:]
    is_near = following - numbers[:-1] - 1 <= _GAP // width
    if array.chunk:
        is_near &= following // array.chunk[0] - numbers[:-1] // array.chunk[0] <= 1
    stops = np.where(is_near, following, numbers[:-1] + 1)
    return merge_spans(numbers, np.append(stops, numbers[-1:] + 1))


def _blocks(
    numbers: np.ndarray, ranges: np.ndarray, width: int, array: Array, *, always: bool
) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """Yield blocks of limited size of ranges of rows, with the selected positions if not all are selected.

    Rows that are all selected are split only if `always` is set: they are read to their destination.
    """
    if count_rows(ranges) == len(numbers) and not always:
        return [(ranges, None)]
    ends = np.cumsum(ranges[:, 1] - ranges[:, 0])
    which = np.searchsorted(ranges[:, 1], numbers, side="right")
    place = numbers - ranges[which, 1] + ends[which]
    band = (array.shard or array.chunk or (1,))[0]
    at_once = max(BLOCK_BYTES // width // band, 1) * band
    cuts = np.flatnonzero(np.diff((place + numbers[0] % band) // at_once)) + 1
    blocks: list[tuple[np.ndarray, np.ndarray | None]] = []
    for part in np.split(numbers, cuts):
        merged = _merge_near(part, width, array)
        every = expand(merged)
        blocks.append((merged, None if len(every) == len(part) else np.searchsorted(every, part)))
    return blocks
