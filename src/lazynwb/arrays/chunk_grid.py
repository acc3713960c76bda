"""Chunk grids: the chunks, or ranges of contiguous bytes, that contain a selection within rows."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lazynwb.catalog.model import stored_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lazynwb.catalog.model import Array
    from lazynwb.codecs import Buffer

#: Selection along one dimension: a slice with ascending, explicit bounds, or ascending numbers (int64).
Indexer = slice | np.ndarray

#: Maximum gap between selected bytes of contiguous data that are read together.
_GAP = 16 * 1024
#: Size of a read of contiguous rows of which only parts are selected.
_BLOCK = 1024 * 1024


class ChunkSlice(NamedTuple):
    """The part of a selection that is in one chunk of a row band.

    Attributes
    ----------
    number : int
        Number of the chunk in the band, in row-major order.
    inside : tuple of Indexer
        Selection within the chunk, along all dimensions except the first.
    where : tuple of slice
        Position of the selected elements in the output.
    """

    number: int
    inside: tuple[Indexer, ...]
    where: tuple[slice, ...]


def indexer_length(span: Indexer) -> int:
    """Return the number of positions of an indexer."""
    return len(range(span.start, span.stop, span.step)) if isinstance(span, slice) else len(span)


def selection_shape(array: Array, box: tuple[Indexer, ...]) -> tuple[int, ...]:
    """Return the shape of a selection within one row."""
    return tuple(map(indexer_length, box)) if box else array.shape[1:]


def row_bytes(array: Array, box: tuple[Indexer, ...] = ()) -> int:
    """Return the stored size of one row of an array, or of a selection within it."""
    return math.prod(selection_shape(array, box)) * stored_size(array.dtype)


def chunks_in_selection(array: Array, box: tuple[Indexer, ...]) -> list[ChunkSlice]:
    """Return the chunks of a row band that contain a selection."""
    if len(array.shape) == 1:
        return [ChunkSlice(0, (), ())]
    spans = box or tuple(slice(0, n, 1) for n in array.shape[1:])
    grid = [-(-n // c) for n, c in zip(array.shape[1:], array.chunk[1:], strict=True)]
    along = [_split_at_chunks(span, c, n) for span, c, n in zip(spans, array.chunk[1:], grid, strict=True)]
    cells = []
    for parts in itertools.product(*along):
        number = 0
        for (at, _, _), n in zip(parts, grid, strict=True):
            number = number * n + at
        cells.append(ChunkSlice(number, tuple(part[1] for part in parts), tuple(part[2] for part in parts)))
    return cells


def chunk_count(array: Array) -> int:
    """Return the number of chunks in a row band."""
    return math.prod(-(-n // c) for n, c in zip(array.shape[1:], array.chunk[1:], strict=True))


def _split_at_chunks(span: Indexer, chunk: int, count: int) -> list[tuple[int, Indexer, slice]]:
    """Split a selection along one dimension at chunk boundaries."""
    if not isinstance(span, slice):
        found = []
        for at in dict.fromkeys((span // chunk).tolist()):
            first, last = np.searchsorted(span, (at * chunk, (at + 1) * chunk)).tolist()
            found.append((at, span[first:last] - at * chunk, slice(first, last)))
        return found
    cut: list[tuple[int, Indexer, slice]] = []
    done = 0
    for at in range(span.start // chunk, min(-(-span.stop // chunk), count)):
        corner = at * chunk
        start = span.start + done * span.step - corner
        stop = min(span.stop - corner, chunk)
        if start < stop:
            here = -(-(stop - start) // span.step)
            cut.append((at, slice(start, stop, span.step), slice(done, done + here)))
            done += here
    return cut


def chunk_numbers(array: Array, ranges: np.ndarray, box: tuple[Indexer, ...]) -> np.ndarray | None:
    """Return the numbers of the chunks that contain a selection, in ascending order; None for all chunks."""
    bands = -(-array.shape[0] // array.chunk[0])
    first, last = ranges[:, 0] // array.chunk[0], (ranges[:, 1] - 1) // array.chunk[0]
    if len(ranges) > 1:
        first[1:] = np.maximum(first[1:], last[:-1] + 1)  # a band may hold the rows of many ranges
    lengths = (last - first + 1).clip(min=0)
    touched = np.repeat(first - (np.cumsum(lengths) - lengths), lengths) + np.arange(int(lengths.sum()))
    cells = np.array([cell.number for cell in chunks_in_selection(array, box)], np.int64)
    per_band = chunk_count(array)
    if len(touched) == bands and len(cells) == per_band:
        return None
    numbers: np.ndarray = (touched[:, None] * per_band + np.sort(cells)).reshape(-1)
    return numbers


class Run(NamedTuple):
    """A byte range of contiguous data, and the function that processes it."""

    start: int
    size: int
    handle: Callable[[Buffer], None]


def contiguous_runs(
    array: Array, ranges: np.ndarray, box: tuple[Indexer, ...], out: np.ndarray
) -> Iterator[Run]:
    """Yield the byte ranges of contiguous data that contain a selection within rows.

    Parameters
    ----------
    array : Array
    ranges : ndarray of shape (n, 2)
        Ranges of rows; see `lazynwb.arrays.fetch.Request`.
    box : tuple of Indexer
        Selection within a row, which is not empty.
    out : ndarray of uint8, shape (rows, bytes per row)
        Output of the selection.
    """
    size = stored_size(array.dtype)
    target = out.reshape(len(out), *selection_shape(array, box), size)
    bounds = [s if isinstance(s, slice) else slice(int(s[0]), int(s[-1]) + 1, 1) for s in box]
    picks = tuple(slice(None) if isinstance(s, slice) else s - s[0] for s in box)
    strides = [math.prod(array.shape[axis + 2 :]) * size for axis in range(len(box))]
    width = math.prod(array.shape[1:]) * size
    outer_dims, reach = _split(box, bounds, strides, size)
    rows_apart = outer_dims > 0 or width - reach > _GAP
    at_once = 1 if rows_apart else max(_BLOCK // width, 1)
    inner = bounds[outer_dims:]
    shape = tuple(map(indexer_length, inner))
    steps = tuple(s.step * stride for s, stride in zip(inner, strides[outer_dims:], strict=True))
    corner = sum(s.start * stride for s, stride in zip(inner, strides[outer_dims:], strict=True))
    positions = [
        list(range(b.start, b.stop, b.step)) if isinstance(s, slice) else s.tolist()
        for b, s in zip(bounds[:outer_dims], box[:outer_dims], strict=True)
    ]
    outer = list(itertools.product(*map(enumerate, positions)))
    done = 0
    for first, last in ranges.tolist():
        for row in range(first, last, at_once):
            rows = min(at_once, last - row)
            here = target[done : done + rows]
            done += rows
            for places in outer:
                start = row * width + corner
                for (_, position), stride in zip(places, strides[:outer_dims], strict=True):
                    start += position * stride
                within: tuple[slice | int, ...] = (slice(None), *(place for place, _ in places))
                part = here[within]
                view = _View(
                    (rows, *shape, size), (width, *steps, 1), (slice(None), *picks[outer_dims:]), part
                )
                yield Run(start, (rows - 1) * width + reach, view.copy)


def _split(box: tuple[Indexer, ...], bounds: list[slice], strides: list[int], size: int) -> tuple[int, int]:
    """Return the number of dimensions that are read position by position, and the byte extent of the rest."""
    reach = size
    for axis in range(len(box) - 1, -1, -1):
        span, stride = box[axis], strides[axis]
        step = span.step if isinstance(span, slice) else int(np.diff(span).max(initial=1))
        if indexer_length(span) > 1 and step * stride - reach > _GAP:
            return axis + 1, reach
        last = range(bounds[axis].start, bounds[axis].stop, bounds[axis].step)[-1]
        reach += (last - bounds[axis].start) * stride
    return 0, reach


class _View(NamedTuple):
    """Elements within a byte range, and their destination."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    picks: tuple[Indexer, ...]
    out: np.ndarray

    def copy(self, data: Buffer) -> None:
        """Copy the elements from the bytes that were read."""
        # NumPy raises an error if the strides exceed the buffer.
        self.out[...] = np.ndarray(self.shape, np.uint8, data, strides=self.strides)[self.picks]
