"""Filters on the timestamps of a series, as ranges of its rows: only the chunks of that window are read.

Timestamps ascend (NWB specification, TimeSeries: "timestamps for samples"), so a comparison with a literal
is true from some row on, or up to one. Where that row is, is found by evaluating the comparison itself on
few rows. The filter as a whole is still evaluated on every row that is left.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from lazynwb.engine.assemble import read_columns
from lazynwb.engine.bounds import bounds_of
from lazynwb.engine.plan import conjuncts
from lazynwb.engine.ragged import merged, rows_in
from lazynwb.engine.rows import mask
from lazynwb.engine.search import UNCHUNKED_ROWS, AscendingRows
from lazynwb.engine.window import Handles, Part
from lazynwb.errors import LazyNWBError, NotAscendingError
from lazynwb.threads import LOADERS, wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from lazynwb.catalog.model import Array, Column
    from lazynwb.engine.bounds import Bound, Side
    from lazynwb.engine.plan import Step
    from lazynwb.lookup.load import TableFile
    from lazynwb.sources.source import Source

TIMESTAMPS = "timestamps"
#: So many rows are all read where those that were looked at are not at a constant rate: they may not ascend.
FEW_ROWS = 2_000_000
#: By how much, of the time that the series takes.
_DEVIATION = 0.01
#: Where else than at both ends blocks are looked at, whatever is asked for: clocks that begin anew show there
#: The fractions have no common measure, unlike the places where a clock may begin anew at regular times.
_SPREAD = (0.4142, 0.7321, 0.2361, 0.1416, 0.6458)
_SPREAD_OF_MANY = _SPREAD[:3]
#: Fewer blocks are not worth a search.
_FEW_BLOCKS = 2
#: Remote files that are searched ahead of the one that is waited for.
_MOST_AHEAD = 16
#: Timestamps that were read in a search are kept up to this many, of all files.
_MOST_KEPT = 4_000_000
_SIDES: tuple[Side, Side] = ("since", "until")


class TimeFilter:
    """What a predicate says about the timestamps of a series.

    Parameters
    ----------
    steps : iterable of Step
        The predicate's parts.
    schema : mapping of str to DataType
        The published types.
    overridden : frozenset of str
    origin : str
        See `lazynwb.engine.assemble.read_columns`.
    """

    def __init__(
        self,
        steps: Iterable[Step],
        schema: Mapping[str, pl.DataType],
        overridden: frozenset[str],
        origin: str,
    ) -> None:
        self._dtype = schema.get(TIMESTAMPS, pl.Null())
        self._overridden = overridden
        self._origin = origin
        self._bounds: list[Bound] = []
        self._kept: dict[Source, tuple[int, np.ndarray]] = {}
        if self._dtype.is_float() or self._dtype.is_integer():
            parts = [
                part for step in steps if TIMESTAMPS in step.columns for part in conjuncts(step.expression)
            ]
            self._bounds = [bound for part in parts for bound in bounds_of(part, TIMESTAMPS)]

    def narrow(self, file: TableFile, rows: int) -> tuple[int, int]:
        """Return the first row of a file that can be within the window, and the row past the last.

        Parameters
        ----------
        file : TableFile
        rows : int
            How many of its rows are looked at, the first ones.
        """
        column = file.columns.get(TIMESTAMPS)
        if not self._bounds or file.table.kind != "series" or column is None or column.indices:
            return 0, rows
        try:
            if column.regular is not None:
                return self._of_regular(rows, *column.regular)
            if column.data is not None and column.data.dtype.kind == "number":
                return self._of_stored(file, column, column.data, rows)
        except (LazyNWBError, pl.exceptions.PolarsError):
            pass  # whoever reads and filters all rows finds out what there is to be said
        return 0, rows

    def ahead(
        self, files: Iterable[tuple[TableFile, int]]
    ) -> Iterator[tuple[TableFile, int, tuple[int, int]]]:
        """Yield files and their number of rows again, with the window: remote ones are searched together."""
        waiting: deque[tuple[TableFile, int, Callable[[], tuple[int, int]]]] = deque()
        for file, rows in files:
            is_searched = bool(self._bounds) and file.source.is_remote
            if is_searched:
                waiting.append((file, rows, partial(wait, LOADERS.submit(self.narrow, file, rows))))
            else:
                waiting.append((file, rows, partial(self.narrow, file, rows)))
            while waiting and (not is_searched or len(waiting) >= _MOST_AHEAD):
                first = waiting.popleft()
                yield first[0], first[1], first[2]()
        for file, rows, window in waiting:
            yield file, rows, window()

    def known(self, parts: Iterable[Part]) -> pl.Series | None:
        """Return timestamps, if the search has read all of them already."""
        found = []
        for part in parts:
            first, values = self._kept.get(part.file.source, (0, np.zeros(0)))
            start, stop = (part.ranges[[0, -1], [0, 1]] - first).tolist()
            if len(part.ranges) != 1 or start < 0 or stop > len(values):
                return None
            found.append(values[start:stop])
        return pl.Series(TIMESTAMPS, np.concatenate(found)) if found else None

    def _keep(self, file: TableFile, blocks: Blocks, start: int, stop: int) -> None:
        """Keep the timestamps of a window, if there is none between those that the search has read."""
        within = range(start // blocks.size, -(-stop // blocks.size))
        if start >= stop or not all(at in blocks.known for at in within):
            return
        # A copy of the values: files are searched at the same time.
        if stop - start + sum(len(values) for _, values in list(self._kept.values())) <= _MOST_KEPT:
            values = np.concatenate([blocks.known[at] for at in within])
            at = start - within[0] * blocks.size
            self._kept[file.source] = start, values[at : at + stop - start].copy()

    def _of_regular(self, rows: int, start: float, rate: float) -> tuple[int, int]:
        def edge(side: Side) -> int:
            passed = self._passed(side)
            return bisect_left(range(rows), 1, key=lambda row: int(passed(np.array([start + row / rate]))[0]))

        return edge("since"), edge("until")

    def _of_stored(self, file: TableFile, column: Column, data: Array, limit: int) -> tuple[int, int]:
        rows = min(limit, column.length)  # rows without a timestamp pass no comparison
        block = data.chunk[0] if data.chunk else UNCHUNKED_ROWS
        count = -(-rows // max(block, 1))
        if count <= _FEW_BLOCKS or data.layout == "inline":
            return 0, limit
        if data.layout == "contiguous" and rows <= FEW_ROWS and not file.source.is_remote:
            return 0, limit  # a single read: no need to trust that they ascend
        blocks = Blocks(lambda ranges: self._read(file, ranges), rows, block)
        near = [bound.value for bound in self._bounds]
        edges = first_rows(blocks, [(self._passed(side), self._near(side)) for side in _SIDES], near)
        self._keep(file, blocks, *edges)
        return edges[0], edges[1]

    def _near(self, side: Side) -> float:
        values = [bound.value for bound in self._bounds if bound.side == side]
        return (max(values) if side == "since" else min(values)) if values else math.nan

    def _passed(self, side: Side) -> Callable[[np.ndarray], np.ndarray]:
        """Return what tells whether rows are past the first ("since") or past the last ("until")."""
        expressions = [bound.expression for bound in self._bounds if bound.side == side]

        def passed(values: np.ndarray) -> np.ndarray:
            if not expressions:
                return np.full(len(values), side == "since")
            frame = pl.DataFrame({TIMESTAMPS: pl.Series(values).cast(self._dtype)})
            kept: np.ndarray = np.logical_and.reduce([mask(frame, expression) for expression in expressions])
            return kept if side == "since" else ~kept

        return passed

    def _read(self, file: TableFile, ranges: np.ndarray) -> np.ndarray:
        """Read timestamps of some rows, as the filter sees them."""
        wanted = Part(file, ranges, rows_in(ranges))
        with Handles() as handles:
            (series,) = read_columns(
                handles, [wanted], {TIMESTAMPS: self._dtype}, self._overridden, self._origin
            )
        if series.null_count():
            message = "timestamps are missing"
            raise NotAscendingError(message)
        values: np.ndarray = series.to_numpy()
        return values


def first_rows(
    blocks: Blocks, tests: Iterable[tuple[Callable[[np.ndarray], np.ndarray], float]], near: Iterable[float]
) -> list[int]:
    """Return for each test the first row of ascending timestamps that passes it.

    Parameters
    ----------
    blocks : Blocks
    tests : iterable of (callable, float)
        See `AscendingRows.first_where`.
    near : iterable of float
        Times about which blocks are read first, together.

    Raises
    ------
    NotAscendingError
        If timestamps that were read do not ascend; or if those of few rows are not at a constant rate, so
        that all of them have to be looked at.
    """
    few = blocks.total <= FEW_ROWS
    blocks.bring_spread(_SPREAD if few else _SPREAD_OF_MANY)
    blocks.bring([blocks.near(value) for value in near if math.isfinite(value)])
    found = AscendingRows(blocks.rows, blocks.total, blocks.size)
    for at in sorted(blocks.known):
        found.values(at)  # all that was read has to ascend
    edges = [found.first_where(passed, value) for passed, value in tests]
    if few and not blocks.is_even():
        message = "timestamps are not at a constant rate"
        raise NotAscendingError(message)
    return edges


class Blocks:
    """Blocks of timestamps, read several at a time and kept.

    Parameters
    ----------
    read : callable
        Gives the timestamps in ranges of rows.
    rows : int
    block : int
        Rows of a block.
    """

    def __init__(self, read: Callable[[np.ndarray], np.ndarray], rows: int, block: int) -> None:
        self._read = read
        self.total = rows
        self.size = block
        self._count = -(-rows // block)
        self.known: dict[int, np.ndarray] = {}

    def bring(self, wanted: Iterable[int]) -> None:
        """Read blocks together."""
        new = np.array(sorted(set(wanted) - self.known.keys()), np.int64)
        if not len(new):
            return
        starts = new * self.size
        stops = np.minimum(starts + self.size, self.total)
        values = self._read(merged(starts, stops))
        ends = np.cumsum(stops - starts)
        self.known |= dict(zip(new.tolist(), np.split(values, ends[:-1]), strict=True))

    def bring_spread(self, shares: Sequence[float]) -> None:
        """Read the first block and the last, and some at given fractions of the rows; of few blocks all."""
        inner = [int(share * self._count) for share in shares]
        self.bring([0, *inner, self._count - 1] if self._count > len(shares) + 2 else range(self._count))

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return the rows of a block."""
        del stop
        at = start // self.size
        self.bring([at])
        return self.known[at]

    def near(self, value: float) -> int:
        """Return the block where a value would be at a constant rate between those that are known."""
        places = sorted(self.known)
        firsts = np.array([float(self.known[at][0]) for at in places])
        if not np.isfinite(firsts).all() or (firsts[1:] < firsts[:-1]).any():
            return 0
        return min(int(np.interp(value, firsts, places)), self._count - 1)

    def is_even(self) -> bool:
        """Tell whether what is known is about where a constant rate would have it."""
        places = np.array(sorted(self.known))
        firsts = np.array([float(self.known[at][0]) for at in places.tolist()])
        last = float(self.known[int(places[-1])][-1])
        slope = (last - firsts[0]) / (self.total - 1)
        with np.errstate(invalid="ignore", over="ignore"):
            off = np.abs(firsts - (firsts[0] + slope * self.size * places))
        return bool((off <= _DEVIATION * (last - firsts[0])).all())
