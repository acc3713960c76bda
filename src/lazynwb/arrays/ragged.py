"""Ragged columns: spans of elements of each row, from the cumulative ends in a VectorIndex."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lazynwb.arrays.arrow import as_stored
from lazynwb.arrays.chunk_grid import chunk_numbers, row_bytes
from lazynwb.arrays.fetch import Request
from lazynwb.arrays.row_selection import expand
from lazynwb.errors import CorruptDataError
from lazynwb.lookup.loader import reads_complete_index

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lazynwb.arrays.row_selection import Handles
    from lazynwb.catalog.model import Array
    from lazynwb.lookup.loader import ChunkSelection, TableFile


def request_rows(
    handles: Handles,
    file: TableFile,
    array: Array,
    ranges: np.ndarray,
    requests: list[tuple[TableFile, Request]],
) -> np.ndarray:
    """Append a request for rows of a one-dimensional array; return its output buffer."""
    rows = count_rows(ranges)
    if array.layout == "indirect":
        return as_stored(handles.reader(file).read_indirect(array, ranges), array.dtype)
    out = np.empty((rows, row_bytes(array)), np.uint8)
    if rows:
        requests.append((file, Request(array, file.chunks(array), ranges, out)))
    return out


def chunks_for(
    file: TableFile, arrays: Sequence[Array], ranges: np.ndarray
) -> Iterator[tuple[TableFile, ChunkSelection]]:
    """Yield the chunks that must be looked up before rows are read; for remote files, also those read next.

    Parameters
    ----------
    file : TableFile
    arrays : sequence of Array
        The array to read, and the arrays that it indexes, which are looked up together if they are small.
    ranges : ndarray of shape (n, 2)
        Rows of the first array.
    """
    array = arrays[0]
    is_read_meanwhile = file.source.is_remote and array.layout == "chunked" and len(arrays) > 1
    if file.needs_chunk_index(array) or is_read_meanwhile:
        fits = len(array.chunk) == len(array.shape) and min(array.chunk, default=0) > 0
        yield file, (array, chunk_numbers(array, ranges, ()) if fits else None)
    for below in arrays[1:]:
        if file.needs_chunk_index(below) and reads_complete_index(below):
            yield file, (below, None)


def whole(array: Array) -> np.ndarray:
    """Return all rows of an array as ranges."""
    return np.array([[0, array.shape[0]]], np.int64)[: array.shape[0] > 0]


def count_rows(ranges: np.ndarray) -> int:
    """Return the number of rows in ranges; for a single range, Python is faster than NumPy."""
    if len(ranges) == 1:
        start, stop = ranges.tolist()[0]
        return int(stop - start)
    return int((ranges[:, 1] - ranges[:, 0]).sum())


def with_row_before(ranges: np.ndarray) -> np.ndarray:
    """Extend each range by the row before it, and merge adjacent ranges."""
    starts = np.maximum(ranges[:, 0] - 1, 0)
    if len(starts) < 2:  # noqa: PLR2004
        return np.stack([starts, ranges[:, 1]], axis=1)
    return merge_spans(starts, ranges[:, 1])


def merge_spans(starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Return ascending spans as ranges: drop empty spans, merge adjacent and overlapping ones."""
    full = stops > starts
    starts, stops = starts[full], stops[full]
    if not len(starts):
        return np.zeros((0, 2), np.int64)
    gap = starts[1:] > stops[:-1]
    first = np.concatenate([[True], gap])
    last = np.concatenate([gap, [True]])
    return np.stack([starts[first], stops[last]], axis=1)


def as_integers(raw: np.ndarray, array: Array) -> np.ndarray:
    """Return stored index values as int64.

    Raises
    ------
    CorruptDataError
        If the index does not contain integers, or contains larger ones than any file has elements.
    """
    if raw.dtype == np.int64:
        return raw
    code = array.dtype.numpy
    if array.dtype.kind != "number" or code[1:2] not in {"i", "u"}:
        raise CorruptDataError(f"its index /{array.path} does not contain integers")
    values = np.ascontiguousarray(raw).reshape(-1).view(np.dtype(code))
    if code[1:] == "u8" and len(values) and int(values.max()) >= 2**63:
        raise CorruptDataError(f"its index /{array.path} has an invalid end {int(values.max())}")
    return values.astype(np.int64)


def spans(ends: np.ndarray, ranges: np.ndarray, array: Array, below: Array) -> tuple[np.ndarray, np.ndarray]:
    """Return the first element, and the element past the last, of each row.

    Parameters
    ----------
    ends : ndarray of int64
        Cumulative ends of `with_row_before(ranges)`, or of the whole index.
    ranges : ndarray of shape (n, 2)
        Rows.
    array, below : Array
        The index, and the array that it indexes.

    Raises
    ------
    CorruptDataError
        If the ends are not ascending, or exceed the indexed array.
    """
    if not len(ranges):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    length = array.rows
    known = np.array([[0, length]]) if len(ends) == length else with_row_before(ranges)
    rows = expand(ranges)
    # Position of the end of each row in `ends`.
    base = np.concatenate([[0], np.cumsum(known[:, 1] - known[:, 0])])
    block = np.searchsorted(known[:, 0], rows, side="right") - 1
    at = base[block] + rows - known[block, 0]
    stops = ends[at]
    starts = np.where(rows > 0, ends[np.maximum(at - 1, 0)], 0)
    bad = (stops < starts) | (starts < 0) | (stops > below.rows)
    if bad.any():
        row = int(rows[bad][0])
        raise CorruptDataError(
            f"its index /{array.path} is damaged: row {row} spans elements {int(starts[bad][0])} to "
            f"{int(stops[bad][0])} of {below.rows}"
        )
    if len(starts) > 1 and (starts[1:] < stops[:-1]).any():
        raise CorruptDataError(f"its index /{array.path} is damaged: its ends are not ascending")
    return starts, stops
