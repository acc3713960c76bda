"""Where a window's rows are cut into batches: bounded in bytes, and so that no chunk is decoded twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lazynwb.config import config
from lazynwb.engine.sizes import measure_rows, most_bytes

if TYPE_CHECKING:
    from lazynwb.engine.plan import Growth
    from lazynwb.engine.window import Handles, Part

#: Rows of the largest batch.
MOST_ROWS = 1_000_000
#: Layouts of which whole chunks are decoded.
_IN_CHUNKS = frozenset({"chunked", "objects"})


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
        starts = range(0, rows, MOST_ROWS)
        return [(start, min(start + MOST_ROWS, rows)) for start in starts] or [(0, 0)]
    few = growth.take() if growth is not None else MOST_ROWS
    heavy = sum(most_bytes(part.file, rest) for part in parts)
    if heavy <= limit // 16 or (heavy <= limit and rows <= few):
        return [(0, rows)]
    sizes = measure_rows(handles, parts, rest)
    total = np.concatenate(sizes)
    if int(total.sum()) <= limit and rows <= few:
        return [(0, rows)]
    ends = np.cumsum([part.rows for part in parts])
    cumulative = np.cumsum(total)
    bounds = []
    start = 0
    while start < rows:
        base = int(cumulative[start - 1]) if start else 0
        stop = int(np.searchsorted(cumulative, base + limit, side="right"))
        stop = min(max(stop, start + 1), start + few, rows)
        if stop < rows and few >= MOST_ROWS:
            stop = _rounded(start, stop, ends, parts, rest)
        bounds.append((start, stop))
        start = stop
        if growth is not None:
            growth.used(1)
            few = growth.take()
    return bounds


def _rounded(start: int, stop: int, ends: np.ndarray, parts: list[Part], rest: list[str]) -> int:
    """Move the end of a batch back to a border, so that no chunk is decoded for two batches."""
    number = int(np.searchsorted(ends, stop, side="right"))
    begin = int(ends[number - 1]) if number else 0
    if begin > start + (stop - start) // 2:
        return begin
    part = parts[number]
    columns = [part.file.columns[name] for name in rest if name in part.file.columns]
    bands = [
        c.data.chunk[0]
        for c in columns
        if c.data is not None and c.data.layout in _IN_CHUNKS and not c.indices and c.data.codecs
    ]
    if not bands or len(part.ranges) != 1:
        return stop
    first = int(part.ranges[0, 0])
    band = max(bands)
    border = (first + stop - begin) // band * band - first + begin
    return border if border > start else stop
