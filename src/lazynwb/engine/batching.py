"""Batches of a window's rows: bounded in bytes, and cut so that no chunk is decoded twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lazynwb.arrays.chunk_grid import row_bytes
from lazynwb.arrays.size_estimates import measure_rows, most_bytes
from lazynwb.config import config

if TYPE_CHECKING:
    from lazynwb.arrays.row_selection import Handles, Part
    from lazynwb.engine.plan import Growth

#: Rows of the largest batch.
MAX_ROWS = 1_000_000
#: Layouts of which whole chunks are decoded.
_IN_CHUNKS = frozenset({"chunked", "objects"})
#: Bytes per row, in columns that are not decoded by chunks, that may be read before they are needed.
_LIGHT = 256


#: The text of a batch may exceed the limit of a batch by this factor before the batch is cut.
_TOLERANCE = 2


class OversizedError(Exception):
    """The text or the sequences of some rows take more bytes than was estimated, and than a batch may have.

    Parameters
    ----------
    size : int
        Bytes that they take.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._size = size

    def bounds(self, rows: int) -> list[tuple[int, int]]:
        """Cut rows, more than one, into pieces to read one after the other; each may be cut again."""
        count = min(max(-(-self._size // config.batch_bytes), 2), rows)
        return [(rows * i // count, rows * (i + 1) // count) for i in range(count)]


def check_size(size: int) -> None:
    """Raise if text and sequences of so many bytes are too much for a batch.

    Raises
    ------
    OversizedError
    """
    if size > _TOLERANCE * config.batch_bytes:
        raise OversizedError(size)


def batch_bounds(
    handles: Handles, parts: list[Part], rest: list[str], growth: Growth | None
) -> list[tuple[int, int]]:
    """Cut rows into batches, at files' and chunks' borders where that is possible.

    Parameters
    ----------
    handles : Handles
    parts : list of Part
        The rows; the bounds count them through.
    rest : list of str
        Columns that are yet to be read of them.
    growth : Growth or None
        How many rows at a time, where the consumer may be satisfied with a few.

    Returns
    -------
    list of (start, stop)
        At least one; a single (0, 0) where there are no rows.
    """
    rows = sum(part.rows for part in parts)
    limit = config.batch_bytes
    if not rest:
        starts = range(0, rows, MAX_ROWS)
        return [(start, min(start + MAX_ROWS, rows)) for start in starts] or [(0, 0)]
    few = growth.take() if growth is not None else MAX_ROWS
    heavy = sum(most_bytes(part.file, rest) for part in parts)
    if heavy <= limit // 16 or (heavy <= limit and rows <= few):
        return [(0, rows)]
    sizes = measure_rows(handles, parts, rest)
    weights = _Weights(sizes, [part.rows for part in parts])
    if weights.total <= limit and rows <= few:
        return [(0, rows)]
    borders = _Borders(parts, rest)
    bounds = []
    start = 0
    while start < rows:
        most = min(max(weights.reach(start, limit), start + 1), rows)
        stop = borders.near(start, min(most, start + few), most)
        bounds.append((start, stop))
        start = stop
        if growth is not None:
            growth.used(1)
            few = growth.take()
    return bounds


class _Weights:
    """How many bytes rows take, of all parts one after the other.

    Parameters
    ----------
    sizes : list of ndarray or int
        Of each part's rows: see `measure_rows`.
    counts : list of int
        How many rows each part has.
    """

    def __init__(self, sizes: list[np.ndarray | int], counts: list[int]) -> None:
        self._each = sizes[0] if isinstance(sizes[0], int) and len(sizes) == 1 else 0
        if self._each:
            self.total = self._each * counts[0]
            return
        pairs = zip(sizes, counts, strict=True)
        self._cumulative = np.cumsum(np.concatenate([np.broadcast_to(size, n) for size, n in pairs]))
        self.total = int(self._cumulative[-1])

    def reach(self, start: int, limit: int) -> int:
        """Return where the rows from `start` on have taken so many bytes."""
        if self._each:
            return start + limit // self._each
        base = int(self._cumulative[start - 1]) if start else 0
        return int(np.searchsorted(self._cumulative, base + limit, side="right"))


class _Borders:
    """Where batches may end so that no chunk is decoded for two of them: at the borders of chunks and files.

    Parameters
    ----------
    parts : list of Part
    rest : list of str
        Columns that are to be read.
    """

    def __init__(self, parts: list[Part], rest: list[str]) -> None:
        self._parts = parts
        self._rest = rest
        self._ends = np.cumsum([part.rows for part in parts])
        self._rows: tuple[int, np.ndarray] = -1, np.zeros(0, np.int64)

    def near(self, start: int, stop: int, most: int) -> int:
        """Return a good end for a batch from `start` on.

        Parameters
        ----------
        start, stop : int
            As many rows as are wanted.
        most : int
            Where it has to end.
        """
        if stop >= int(self._ends[-1]):
            return stop
        number = int(np.searchsorted(self._ends, stop - 1, side="right"))
        begin = int(self._ends[number - 1]) if number else 0
        if stop == most and begin > start + (stop - start) // 2:
            return begin
        band, is_all = self._band(number)
        if not band:
            return stop
        rows = self._numbers(number)
        last = int(rows[stop - 1 - begin])
        after = begin + int(np.searchsorted(rows, (last // band + 1) * band))
        if after <= most and (stop == most or is_all):
            return after  # what is decoded for the rows that are wanted holds these too
        before = begin + int(np.searchsorted(rows, last // band * band))
        return before if stop == most and before > start else stop

    def _numbers(self, number: int) -> np.ndarray:
        if self._rows[0] != number:
            self._rows = number, self._parts[number].indices()
        return self._rows[1]

    def _band(self, number: int) -> tuple[int, bool]:
        """Return the rows of the largest chunks of a part; and whether more of its rows cost no more."""
        file = self._parts[number].file
        columns = [file.columns[name] for name in self._rest if name in file.columns]
        bands = [0]
        apart = 0
        for column in columns:
            data = column.data
            if data is not None and data.layout in _IN_CHUNKS and not column.indices and data.codecs:
                bands.append(data.chunk[0])
            elif column.indices or column.children:
                apart += _LIGHT + 1
            elif data is not None:
                apart += row_bytes(data)
        return max(bands), apart <= _LIGHT
