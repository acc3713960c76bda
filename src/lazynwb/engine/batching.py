"""Batch boundaries of a window's rows: limited in bytes, and aligned so that no chunk is decoded twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lazynwb.arrays.chunk_grid import row_bytes
from lazynwb.arrays.size_estimates import max_table_bytes, measure_rows
from lazynwb.config import config

if TYPE_CHECKING:
    from lazynwb.arrays.row_selection import Handles, Part
    from lazynwb.engine.plan import Growth

#: Maximum number of rows of a batch.
MAX_ROWS = 1_000_000
#: Layouts whose chunks are decoded as a whole.
_IN_CHUNKS = frozenset({"chunked", "objects"})
#: Maximum size of the unchunked columns of a row for which rows may be read before they are requested.
_LIGHT = 256


#: Factor by which the text of a batch may exceed the size limit before the batch is split.
_TOLERANCE = 2


class OversizedError(Exception):
    """Text or sequences of some rows that exceed the estimate and the size limit of a batch.

    Parameters
    ----------
    size : int
        Size of the text and sequences in bytes.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._size = size

    def bounds(self, rows: int) -> list[tuple[int, int]]:
        """Split two or more rows into pieces that are read one by one; each may be split again."""
        count = min(max(-(-self._size // config.batch_bytes), 2), rows)
        return [(rows * i // count, rows * (i + 1) // count) for i in range(count)]


def check_size(size: int) -> None:
    """Raise OversizedError if text and sequences of this size exceed the limit of a batch."""
    if size > _TOLERANCE * config.batch_bytes:
        raise OversizedError(size)


def batch_bounds(
    handles: Handles, parts: list[Part], rest: list[str], growth: Growth | None
) -> list[tuple[int, int]]:
    """Divide rows into batches, at boundaries of files and chunks if possible.

    Parameters
    ----------
    handles : Handles
    parts : list of Part
        Rows, which are numbered consecutively over all parts.
    rest : list of str
        Columns that are still to be read.
    growth : Growth or None
        Numbers of rows of the batches, if the consumer may stop early.

    Returns
    -------
    list of (start, stop)
        Bounds of at least one batch; a single (0, 0) if there are no rows.
    """
    rows = sum(part.rows for part in parts)
    limit = config.batch_bytes
    if not rest:
        starts = range(0, rows, MAX_ROWS)
        return [(start, min(start + MAX_ROWS, rows)) for start in starts] or [(0, 0)]
    few = growth.take() if growth is not None else MAX_ROWS
    heavy = sum(max_table_bytes(part.file, rest) for part in parts)
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
        max_stop = min(max(weights.reach(start, limit), start + 1), rows)
        stop = borders.near(start, min(max_stop, start + few), max_stop)
        bounds.append((start, stop))
        start = stop
        if growth is not None:
            growth.used(1)
            few = growth.take()
    return bounds


class _Weights:
    """Sizes of rows, numbered consecutively over all parts.

    Parameters
    ----------
    sizes : list of ndarray or int
        Sizes of the rows of each part; see `measure_rows`.
    counts : list of int
        Number of rows of each part.
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
        """Return the row at which the total size from `start` reaches a limit."""
        if self._each:
            return start + limit // self._each
        base = int(self._cumulative[start - 1]) if start else 0
        return int(np.searchsorted(self._cumulative, base + limit, side="right"))


class _Borders:
    """Boundaries of chunks and files, at which batches end so that no chunk is decoded twice.

    Parameters
    ----------
    parts : list of Part
    rest : list of str
        Columns to read.
    """

    def __init__(self, parts: list[Part], rest: list[str]) -> None:
        self._parts = parts
        self._rest = rest
        self._ends = np.cumsum([part.rows for part in parts])
        self._rows: tuple[int, np.ndarray] = -1, np.zeros(0, np.int64)

    def near(self, start: int, stop: int, max_stop: int) -> int:
        """Return the end of a batch, at a boundary if possible.

        Parameters
        ----------
        start, stop : int
            Requested rows.
        max_stop : int
            Maximum end.
        """
        if stop >= int(self._ends[-1]):
            return stop
        number = int(np.searchsorted(self._ends, stop - 1, side="right"))
        begin = int(self._ends[number - 1]) if number else 0
        if stop == max_stop and begin > start + (stop - start) // 2:
            return begin
        band, is_all = self._band(number)
        if not band:
            return stop
        rows = self._numbers(number)
        last = int(rows[stop - 1 - begin])
        after = begin + int(np.searchsorted(rows, (last // band + 1) * band))
        if after <= max_stop and (stop == max_stop or is_all):
            return after  # the rows up to the boundary are decoded anyway
        before = begin + int(np.searchsorted(rows, last // band * band))
        return before if stop == max_stop and before > start else stop

    def _numbers(self, number: int) -> np.ndarray:
        if self._rows[0] != number:
            self._rows = number, self._parts[number].indices()
        return self._rows[1]

    def _band(self, number: int) -> tuple[int, bool]:
        """Return the rows of the largest chunks of a part, and whether rows may be read ahead."""
        file = self._parts[number].file
        columns = [file.columns[name] for name in self._rest if name in file.columns]
        bands = [0]
        scattered_bytes = 0
        for column in columns:
            data = column.data
            if data is not None and data.layout in _IN_CHUNKS and not column.indices and data.codecs:
                bands.append(data.chunk[0])
            elif column.indices or column.children:
                scattered_bytes += _LIGHT + 1
            elif data is not None:
                scattered_bytes += row_bytes(data)
        return max(bands), scattered_bytes <= _LIGHT
