"""Comparisons of a column with literals, recognised in the parts of a predicate.

Where a value is among ascending rows, found with as few chunks as can be.

Filters on the timestamps of a series, as ranges of its rows: only the chunks of that window are read.

Timestamps ascend (NWB specification, TimeSeries: "timestamps for samples"), so a comparison with a literal
is true from some row on, or up to one. Where that row is, is found by evaluating the comparison itself on
few rows. The filter as a whole is still evaluated on every row that is left.
"""

from __future__ import annotations

import math
import operator
from bisect import bisect_left
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import polars as pl

from lazynwb.engine.columns import read_columns
from lazynwb.engine.plan import conjuncts
from lazynwb.engine.ragged import merged, rows_in
from lazynwb.engine.row_masks import mask
from lazynwb.engine.row_selection import Handles, Part
from lazynwb.errors import LazyNWBError, NotAscendingError
from lazynwb.threads import LOADERS, wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from lazynwb.catalog.model import Array, Column
    from lazynwb.engine.plan import Step
    from lazynwb.lookup.loader import TableFile
    from lazynwb.storage.source import Source

Side = Literal["since", "until"]
_OPERATOR_SIDES: dict[object, Side] = {
    operator.gt: "since",
    operator.ge: "since",
    operator.lt: "until",
    operator.le: "until",
}
_MIRRORED: dict[Side, Side] = {"since": "until", "until": "since"}
_CLOSED: tuple[Literal["both", "left", "right", "none"], ...] = ("both", "left", "right", "none")


class Bound(NamedTuple):
    """A comparison that, of ascending values, is true from some on, or up to some.

    Attributes
    ----------
    side : str
        "since" or "until".
    expression : Expr
    value : float
        What is compared with, as far as it is a number; else NaN.
    """

    side: Side
    expression: pl.Expr
    value: float


def bounds_of(part: pl.Expr, name: str) -> list[Bound]:
    """Return what a part of a predicate says if it compares a column with literals; else nothing.

    Polars has no public way to look into an expression. What it is taken apart to is put together again in
    every way that is known here; only where that makes the same expression is it one of these.
    """
    try:
        parts = part.meta.pop()
        if len(parts) == 2:  # noqa: PLR2004 - the two sides, the right one first
            return _comparison(part, pl.col(name), parts[1], parts[0])
        if len(parts) == 3:  # noqa: PLR2004 - the column, and the two ends
            return _between(part, pl.col(name), *reversed(parts))
    except (pl.exceptions.PolarsError, TypeError, ValueError):
        pass
    return []


def _comparison(part: pl.Expr, column: pl.Expr, left: pl.Expr, right: pl.Expr) -> list[Bound]:
    mirrored = not _is_ordered_as(column, left)
    value = _literal(left if mirrored else right)
    if value is None or not _is_ordered_as(column, right if mirrored else left):
        return []
    for compare in (operator.gt, operator.ge, operator.lt, operator.le):
        side = _OPERATOR_SIDES[compare]
        if compare(left, right).meta.eq(part):
            return [Bound(_MIRRORED[side] if mirrored else side, part, value)]
    if (left == right).meta.eq(part):
        values, literal = (right, left) if mirrored else (left, right)
        return [Bound("since", values >= literal, value), Bound("until", values <= literal, value)]
    return []


def _between(part: pl.Expr, column: pl.Expr, values: pl.Expr, low: pl.Expr, high: pl.Expr) -> list[Bound]:
    first, last = _literal(low), _literal(high)
    if not _is_ordered_as(column, values) or first is None or last is None:
        return []
    if any(values.is_between(low, high, closed=closed).meta.eq(part) for closed in _CLOSED):
        return [Bound("since", values >= low, first), Bound("until", values <= high, last)]
    return []


def _is_ordered_as(column: pl.Expr, operand: pl.Expr) -> bool:
    """Tell whether an operand is a column, as it is or as floats: that keeps its order."""
    if operand.meta.eq(column):
        return True
    return any(
        operand.meta.eq(column.cast(dtype, strict=strict))
        for dtype in (pl.Float64, pl.Float32)
        for strict in (True, False)
    )


def _literal(operand: pl.Expr) -> float | None:
    """Return a literal's value as a number, NaN if it is none; None for what is not one literal."""
    if not operand.meta.is_literal():
        return None
    values = pl.select(operand).to_series()
    if len(values) != 1:
        return None
    try:
        return float(values[0])
    except (TypeError, ValueError, OverflowError):
        return math.nan


#: Probes that go where a constant rate would have the value, before each second one halves what is left.
_GUESSES = 4
#: Rows of a probe where the data has no chunks: 64 KiB of timestamps.
UNCHUNKED_ROWS = 8192


class AscendingRows:
    """Ascending numbers of which single blocks are read.

    Timestamps in NWB ascend, mostly at a nearly constant rate, so the search goes where the value would be
    at that rate; no worse than twice the steps of a binary search in any case. Each block is read once.

    Parameters
    ----------
    read : callable
        Gives the rows from a first one to the one past the last.
    rows : int
    block : int
        Rows that are read at a time: those of a chunk.
    """

    def __init__(self, read: Callable[[int, int], np.ndarray], rows: int, block: int) -> None:
        self._read = read
        self._rows = rows
        self._block = max(block, 1)
        self._known: dict[int, np.ndarray] = {}

    def first_at_least(self, value: float) -> int:
        """Return the first row whose value is not less; see `first_where`."""
        return self.first_where(lambda values: values >= value, value)

    def first_where(self, passed: Callable[[np.ndarray], np.ndarray], value: float) -> int:
        """Return the first row that passes a test; the number of rows if there is none.

        Parameters
        ----------
        passed : callable
            Tells of values, which ones pass; whatever is larger than one that does passes too.
        value : float
            About the smallest that passes; NaN where that is not known.

        Raises
        ------
        NotAscendingError
            If values that were read on the way do not ascend, or are not numbers.
        """
        low, high = self._between_known(passed)
        steps = 0
        while low < high:
            at = self._guess(value, low, high) if steps < _GUESSES or steps % 2 else (low + high) // 2
            values = self.values(at)
            steps += 1
            ends = passed(values[[0, -1]])
            if not ends[1]:
                low = at + 1
            elif ends[0]:
                high = at
            else:
                return at * self._block + int(np.argmax(passed(values)))
        return min(low * self._block, self._rows)

    def _between_known(self, passed: Callable[[np.ndarray], np.ndarray]) -> tuple[int, int]:
        """Return the first block that may hold the first row that passes, and the first that does not."""
        low, high = 0, -(-self._rows // self._block)
        known = sorted(self._known)
        if known:
            ends = passed(np.concatenate([self._known[at][[0, -1]] for at in known]))
            for at, first, last in zip(known, ends[::2], ends[1::2], strict=True):
                if not first:
                    low = at if last else at + 1
                if last:
                    high = min(high, at if first else at + 1)
        return low, high

    def _guess(self, value: float, low: int, high: int) -> int:
        """Return the block that would hold the value at a constant rate between those that are known."""
        for end in (0, -(-self._rows // self._block) - 1):
            if end not in self._known and low <= end < high:
                return end
        known = sorted(self._known)
        after = bisect_left(known, high)
        before = bisect_left(known, low) - 1
        if before < 0 or after >= len(known):
            return (low + high) // 2
        first, last = known[before], known[after]
        start, stop = float(self._known[first][-1]), float(self._known[last][0])
        if not start < value <= stop or not np.isfinite(stop - start):
            return (low + high) // 2
        share = (value - start) / (stop - start)
        return min(max(first + 1 + int(share * (last - first - 1)), low), high - 1)

    def values(self, at: int) -> np.ndarray:
        """Return the rows of a block; see `first_where` for what is raised."""
        if at not in self._known:
            start = at * self._block
            values = self._read(start, min(start + self._block, self._rows))
            if not (values[1:] >= values[:-1]).all() or values[0] != values[0]:
                message = f"values do not ascend from row {start} to row {start + len(values)}"
                raise NotAscendingError(message)
            known = sorted(self._known)
            place = bisect_left(known, at)
            before, after = known[place - 1 : place], known[place : place + 1]
            if place and self._known[before[0]][-1] > values[0]:
                message = f"row {start} has a smaller value than row {before[0] * self._block}"
                raise NotAscendingError(message)
            if after and self._known[after[0]][0] < values[-1]:
                message = f"row {start} has a larger value than row {after[0] * self._block}"
                raise NotAscendingError(message)
            self._known[at] = values
        return self._known[at]


def first_regular(value: float, start: float, rate: float, rows: int) -> int:
    """Return the first row of timestamps `start + row / rate` that is not less than a value.

    It is exact: rounding errors of the division are those that the timestamps themselves have.
    """
    return bisect_left(range(rows), value, key=lambda row: start + row / rate)


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
        See `lazynwb.engine.columns.read_columns`.
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
    blocks.fetch_blocks([blocks.near(value) for value in near if math.isfinite(value)])
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

    def fetch_blocks(self, wanted: Iterable[int]) -> None:
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
        self.fetch_blocks(
            [0, *inner, self._count - 1] if self._count > len(shares) + 2 else range(self._count)
        )

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return the rows of a block."""
        del stop
        at = start // self.size
        self.fetch_blocks([at])
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
