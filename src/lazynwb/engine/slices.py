"""Slices of stored arrays: along every dimension, only the chunks or bytes that hold them are read."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

import numpy as np

from lazynwb.catalog.model import stored_size
from lazynwb.engine.build import Context, Elements, as_stored, variable_length
from lazynwb.engine.cells import chunk_numbers, length_of, row_bytes
from lazynwb.engine.fetch import Request
from lazynwb.engine.heap import Heap
from lazynwb.engine.ragged import merged, rows_in
from lazynwb.engine.selection import ordered, pick
from lazynwb.engine.values import needs_context, value_bytes, value_dtype, values_of
from lazynwb.engine.window import Handles, expand
from lazynwb.errors import CorruptDataError, LazyNWBError, UnsupportedTypeError

if TYPE_CHECKING:
    from lazynwb.catalog.model import Array
    from lazynwb.engine.cells import Span
    from lazynwb.engine.selection import Selection
    from lazynwb.lookup.load import TableFile

#: Wanted rows closer than this, in bytes, are read with those between them.
_GAP = 4096
#: Rows of which not all are wanted are read in blocks of this size.
_BLOCK = 64 * 1024 * 1024


def read_slice(file: TableFile, array: Array, selection: Selection) -> np.ndarray:
    """Read a selection of a stored array.

    Parameters
    ----------
    file : TableFile
        Of the table or series that the array belongs to.
    array : Array
    selection : int, slice, Ellipsis, array, or tuple of these
        As in NumPy, see `lazynwb.engine.selection.pick`.

    Returns
    -------
    ndarray
        In native byte order; text, the names of enums and the paths behind references as Python's `str`;
        compounds as structured arrays. Elements of array types bring their dimensions behind the array's.
        A single element comes as an array without dimensions.

    Raises
    ------
    IndexError
        If the selection is out of range.
    CorruptDataError, SourceChangedError
        If the bytes contradict the array's description, or are another file's by now.
    UnsupportedTypeError
        If the type or a filter is not supported.
    LazyNWBError
        If the selection is larger than this machine's memory.
    """
    picked = pick(array.shape, selection)
    return ordered(read_picked(file, array, picked.spans), picked)


def read_picked(file: TableFile, array: Array, spans: tuple[Span, ...]) -> np.ndarray:
    """Read what a selection's spans name; see `read_slice`."""
    if array.dtype.kind == "unsupported":
        message = f"{file.name}: /{array.path}: {array.dtype.note} cannot be read"
        raise UnsupportedTypeError(message)
    counts = tuple(map(length_of, spans))
    kept = (*counts, *array.dtype.dims)
    if not math.prod(kept):
        return np.empty(kept, value_dtype(array.dtype))
    _check_size(file, array, math.prod(counts))
    with Handles() as handles:
        return _read(handles, file, array, spans).reshape(kept)


def _check_size(file: TableFile, array: Array, elements: int) -> None:
    """Refuse sizes that cannot be true, or cannot be held, before memory is taken for them."""
    if array.layout == "contiguous" and array.offset >= 0:
        with Handles() as handles:
            size = handles.files[handles.number(file, array)].size
        last = array.offset + math.prod(array.shape) * stored_size(array.dtype)
        if last > size:
            message = f"{file.name}: /{array.path}: {last} bytes are needed where the file has {size}"
            raise CorruptDataError(message)
    needed = elements * max(value_bytes(array.dtype), stored_size(array.dtype))
    if needed > _memory():
        message = (
            f"{file.name}: /{array.path}: the selection takes {needed / 2**30:.0f} GiB, more than there is "
            "memory: take it in parts"
        )
        raise LazyNWBError(message)


def _memory() -> float:
    """Return the bytes of memory that this machine has; no bound where the system does not say."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return math.inf


def _read(handles: Handles, file: TableFile, array: Array, spans: tuple[Span, ...]) -> np.ndarray:
    """Return the values of the spans, row after row."""
    rows: Span = spans[0] if spans else slice(0, 1, 1)
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
        message = f"{file.name}: /{array.path}: {error}"
        raise CorruptDataError(message) from None


def _stored(handles: Handles, file: TableFile, array: Array, rows: Span, box: tuple[Span, ...]) -> np.ndarray:
    """Return elements as stored: uint8 of shape (n, itemsize), or what the format's reader makes of them."""
    indirect = array.layout == "indirect"
    width = max(row_bytes(array, () if indirect else box), 1)
    count = length_of(rows)
    if isinstance(rows, slice) and rows.step == 1 and not (indirect and count * width > _BLOCK):
        ranges = np.array([[rows.start, rows.stop]], np.int64)
        blocks: list[tuple[np.ndarray, np.ndarray | None]] = [(ranges, None)]
    else:
        numbers = np.arange(rows.start, rows.stop, rows.step) if isinstance(rows, slice) else rows
        ranges = _near(numbers, width, array)
        blocks = _blocks(numbers, ranges, width, array, always=indirect)
    if indirect:
        reader = handles.reader(file)
        parts = []
        for wanted, kept in blocks:
            found = reader.read_indirect(array, wanted)
            found = found if kept is None else found[kept]
            parts.append(as_stored(found[:, *box] if box else found, array.dtype))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
    if array.chunk and len(array.chunk) == len(array.shape) and min(array.chunk) > 0:
        file.look_up_chunks_of(array, chunk_numbers(array, ranges, box))
    chunks = file.chunks(array)
    out = np.empty((count, row_bytes(array, box)), np.uint8)
    done = 0
    for wanted, kept in blocks:
        if kept is None:
            part = out[done : done + rows_in(wanted)]
            handles.fetch([(file, Request(array, chunks, wanted, part, box))])
        else:
            read = np.empty((rows_in(wanted), out.shape[1]), np.uint8)
            handles.fetch([(file, Request(array, chunks, wanted, read, box))])
            part = out[done : done + len(kept)]
            part[...] = read[kept]
        done += len(part)
    return out.reshape(-1, array.dtype.itemsize)


def _near(numbers: np.ndarray, width: int, array: Array) -> np.ndarray:
    """Return ascending row numbers as ranges that take in the few rows between them, but no whole chunks."""
    following = numbers[1:]
    is_near = following - numbers[:-1] - 1 <= _GAP // width
    if array.chunk:
        is_near &= following // array.chunk[0] - numbers[:-1] // array.chunk[0] <= 1
    stops = np.where(is_near, following, numbers[:-1] + 1)
    return merged(numbers, np.append(stops, numbers[-1:] + 1))


def _blocks(
    numbers: np.ndarray, ranges: np.ndarray, width: int, array: Array, *, always: bool
) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """Cut ranges of rows into blocks of bounded size; with the positions that are wanted, if not all are.

    Rows that are all wanted are cut only if `always` says so: they can be read to where they belong.
    """
    if rows_in(ranges) == len(numbers) and not always:
        return [(ranges, None)]
    ends = np.cumsum(ranges[:, 1] - ranges[:, 0])
    which = np.searchsorted(ranges[:, 1], numbers, side="right")
    place = numbers - ranges[which, 1] + ends[which]
    band = (array.shard or array.chunk or (1,))[0]
    at_once = max(_BLOCK // width // band, 1) * band
    cuts = np.flatnonzero(np.diff((place + numbers[0] % band) // at_once)) + 1
    blocks: list[tuple[np.ndarray, np.ndarray | None]] = []
    for part in np.split(numbers, cuts):
        wanted = _near(part, width, array)
        every = expand(wanted)
        blocks.append((wanted, None if len(every) == len(part) else np.searchsorted(every, part)))
    return blocks
