"""Pushdown of filters on the timestamps of a series: ranges of rows by zone maps or by search.

The clock of a recording may jump back, repeat or stop, so the order of timestamps is not assumed. They are
read completely once, and the minimum and maximum of each zone of chunks is stored in a zone map, by which
filters of later queries skip zones. With `assume_ascending`, timestamps are searched instead.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from lazynwb.arrays.arrow import from_buffer
from lazynwb.arrays.ragged import count_rows
from lazynwb.arrays.row_selection import Handles, Part, cut_ranges
from lazynwb.arrays.slicing import read_slice
from lazynwb.arrays.sorted_search import AscendingRows
from lazynwb.catalog.merge import conform
from lazynwb.catalog.zone_map import ZoneMap, zone_map_of
from lazynwb.engine.columns import read_columns
from lazynwb.engine.comparisons import Bound, Side, bounds_of
from lazynwb.engine.plan import conjuncts
from lazynwb.engine.row_masks import mask
from lazynwb.errors import LazyNWBError, NotAscendingError
from lazynwb.progress import Progress
from lazynwb.threads import LOADERS, is_worker, wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lazynwb.catalog.model import Array
    from lazynwb.engine.plan import ScanPlan, Step
    from lazynwb.lookup.loader import TableFile
    from lazynwb.storage.source import Source

TIMESTAMPS = "timestamps"
#: Rows of a block of the search, and minimum rows of a zone, of data without chunks: 64 KiB of timestamps.
UNCHUNKED_ROWS = 8192
#: Minimum number of rows of a zone, and maximum number of zones of an array.
_MIN_ZONE_ROWS, _MAX_ZONES = 1024, 65_536
#: Maximum number of zones for which no zone map is created, because all rows are read.
_FEW_ZONES = 2
#: Decoded size of a read during the creation of a zone map.
_BLOCK_BYTES = 32 * 1024 * 1024
#: Maximum number and size of remote files whose timestamps are read ahead.
_MAX_AHEAD, _MAX_AHEAD_BYTES = 16, 32 * 1024 * 1024
#: Maximum number of timestamps, of all files, that are kept for the query after a zone map was created.
_MAX_KEPT = 4_000_000


def first_regular(value: float, start: float, rate: float, rows: int) -> int:
    """Return the first row of timestamps `start + row / rate` that is not less than a value.

    The result is exact, with the rounding errors of the timestamps.
    """
    return bisect_left(range(rows), value, key=lambda row: start + row / rate)


def zone_rows_of(array: Array) -> int:
    """Return the number of rows of a zone of an array, which is a multiple of a chunk's rows."""
    unit = max(array.chunk[0], 1) if array.chunk else UNCHUNKED_ROWS
    least = max(_MIN_ZONE_ROWS, -(-array.rows // _MAX_ZONES))
    return unit * -(-least // unit)


def has_few_zones(array: Array) -> bool:
    """Return whether an array is too small, or has too few chunks, for a zone map."""
    return array.layout == "inline" or array.rows <= _FEW_ZONES * zone_rows_of(array)


def make_zone_map(
    file: TableFile, array: Array, *, disable_progress: bool = False, keep: list[np.ndarray] | None = None
) -> ZoneMap:
    """Read a whole array, and store its zone map in the catalog cache.

    Parameters
    ----------
    file : TableFile
    array : Array
        One-dimensional array of numbers.
    disable_progress : bool
    keep : list of ndarray or None
        Receives the values.

    Raises
    ------
    LazyNWBError
        If the array cannot be read.
    """
    zone_rows = zone_rows_of(array)
    width = max(array.dtype.itemsize, 1)
    step = zone_rows * max(_BLOCK_BYTES // (zone_rows * width), 1)
    starts = range(0, array.rows, step)

    def blocks() -> Iterator[np.ndarray]:
        label = f"Reading NWB /{array.path}"
        quiet = disable_progress or is_worker()  # the bar of a worker would remain while the query yields
        with Progress(label, len(starts), disabled=quiet, unit="block") as progress:
            for start in starts:
                values = read_slice(file, array, slice(start, start + step))
                if keep is not None:
                    keep.append(values)
                yield values
                progress.update()

    zones = zone_map_of(blocks(), array.rows, zone_rows)
    file.put_zone_map(array, zones)
    return zones


class TimestampFilter:
    """The bounds of the timestamps of a series in a predicate.

    Parameters
    ----------
    steps : iterable of Step
        Steps of the predicate.
    plan : ScanPlan
    """

    def __init__(self, steps: Iterable[Step], plan: ScanPlan) -> None:
        self._plan = plan
        self._dtype = plan.schema.get(TIMESTAMPS, pl.Null())
        self._bounds: list[Bound] = []
        self._kept: dict[tuple[Source, str], np.ndarray] = {}
        if self._dtype.is_float() or self._dtype.is_integer():
            parts = [
                part for step in steps if TIMESTAMPS in step.columns for part in conjuncts(step.expression)
            ]
            self._bounds = [bound for part in parts for bound in bounds_of(part, TIMESTAMPS)]

    def row_ranges(self, file: TableFile, rows: int) -> np.ndarray:
        """Return the rows of a file that may be within the bounds, as ranges of shape (n, 2).

        Parameters
        ----------
        file : TableFile
        rows : int
            Number of rows to scan, from the first.
        """
        everything = np.array([[0, rows]], np.int64)
        column = file.columns.get(TIMESTAMPS)
        if not self._bounds or file.table.kind != "series" or column is None or column.indices:
            return everything
        try:
            if column.regular is not None:
                return self._regular_ranges(rows, *column.regular)
            array = _numbers(file)
            if array is None or has_few_zones(array):
                return everything
            found = self._stored_ranges(file, array, rows)
            # Rows without a timestamp are null, for which comparisons are never true.
            return everything if found is None else cut_ranges(found, 0, min(rows, column.length))
        except (LazyNWBError, pl.exceptions.PolarsError):
            return everything  # the read of all rows raises the error

    def pruned(self, files: Iterable[tuple[TableFile, int]]) -> Iterator[tuple[TableFile, int, np.ndarray]]:
        """Yield files and their numbers of rows with the ranges, computed concurrently for remote files."""
        waiting: deque[tuple[TableFile, int, Callable[[], np.ndarray]]] = deque()
        for file, rows in files:
            is_concurrent = bool(self._bounds) and file.source.is_remote and not self._is_large(file)
            ranges: Callable[[], np.ndarray]
            if is_concurrent:
                ranges = partial(wait, LOADERS.submit(self.row_ranges, file, rows))
            else:
                ranges = partial(self.row_ranges, file, rows)
            waiting.append((file, rows, ranges))
            while waiting and (not is_concurrent or len(waiting) >= _MAX_AHEAD):
                first = waiting.popleft()
                yield first[0], first[1], first[2]()
        for file, rows, ranges in waiting:
            yield file, rows, ranges()

    def known(self, parts: Iterable[Part]) -> pl.Series | None:
        """Return the timestamps of rows, if all of them were read for zone maps."""
        found = []
        for part in parts:
            values = self._kept.get(part.file.key)
            if values is None or (part.rows and part.ranges[-1, 1] > len(values)):
                return None
            one = len(part.ranges) == 1
            found.append(values[slice(*part.ranges[0])] if one else values[part.indices()])
        try:
            return self._conformed(np.concatenate(found)) if found else None
        except LazyNWBError:
            return None  # the read of the column raises the error with the names of file and column

    def _conformed(self, values: np.ndarray) -> pl.Series:
        """Return stored values in the published type, as `read_columns` does."""
        origin = None if TIMESTAMPS in self._plan.overridden else self._plan.origin
        return conform(from_buffer(values, TIMESTAMPS), self._dtype, origin)

    def _is_large(self, file: TableFile) -> bool:
        array = _numbers(file)
        return array is not None and array.rows * array.dtype.itemsize > _MAX_AHEAD_BYTES

    def _regular_ranges(self, rows: int, start: float, rate: float) -> np.ndarray:
        def edge(side: Side) -> int:
            passed = self._passed(side)
            return bisect_left(range(rows), 1, key=lambda row: int(passed(np.array([start + row / rate]))[0]))

        return np.array([[edge("lower"), edge("upper")]], np.int64)

    def _stored_ranges(self, file: TableFile, array: Array, rows: int) -> np.ndarray | None:
        """Return ranges of stored timestamps; None if all rows are to be read."""
        zones = file.zone_map(array)
        if zones is None and self._plan.assume_ascending:
            try:
                return self._search_ranges(file, array)
            except NotAscendingError:
                pass
        if zones is None and rows < min(file.table.rows, array.rows):
            return None  # with a limit, the whole array may be much larger than the rows to scan
        if zones is None:
            blocks: list[np.ndarray] = []
            total = array.rows + sum(len(values) for values in list(self._kept.values()))
            fits = total <= _MAX_KEPT and array.dtype.numpy[1:] != "f2"
            quiet = self._plan.disable_progress
            zones = make_zone_map(file, array, disable_progress=quiet, keep=blocks if fits else None)
            if fits:
                self._kept[file.key] = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        keep: np.ndarray = np.ones(zones.count, np.bool_)
        # Bounds are monotonic in the order of Polars, in which NaN is the greatest number.
        extremes: dict[Side, np.ndarray] = {"lower": zones.maximum, "upper": zones.minimum}
        for side, values in extremes.items():
            frame = pl.DataFrame({TIMESTAMPS: self._conformed(values)})
            for bound in self._bounds:
                if bound.side == side:
                    keep = keep & mask(frame, bound.expression)
        return zones.ranges(keep)

    def _search_ranges(self, file: TableFile, array: Array) -> np.ndarray:
        blocks = AscendingRows(lambda ranges: self._read(file, ranges), array.rows, block_rows_of(array))
        blocks.prefetch(bound.value for bound in self._bounds)
        first, last = (
            blocks.first_where(self._passed(side), self._near(side)) for side in ("lower", "upper")
        )
        return np.array([[first, last]], np.int64)

    def _near(self, side: Side) -> float:
        values = [bound.value for bound in self._bounds if bound.side == side]
        return (max(values) if side == "lower" else min(values)) if values else math.nan

    def _passed(self, side: Side) -> Callable[[np.ndarray], np.ndarray]:
        """Return a function that tests whether values are past the lower, or past the upper bounds."""
        expressions = [bound.expression for bound in self._bounds if bound.side == side]

        def passed(values: np.ndarray) -> np.ndarray:
            if not expressions:
                return np.full(len(values), side == "lower")
            frame = pl.DataFrame({TIMESTAMPS: from_buffer(values).cast(self._dtype)})
            passes: np.ndarray = np.logical_and.reduce(
                [mask(frame, expression) for expression in expressions]
            )
            return passes if side == "lower" else ~passes

        return passed

    def _read(self, file: TableFile, ranges: np.ndarray) -> np.ndarray:
        """Read the timestamps of some rows in the type of the filter."""
        part = Part(file, ranges, count_rows(ranges))
        plan = self._plan
        with Handles() as handles:
            (series,) = read_columns(handles, [part], {TIMESTAMPS: self._dtype}, plan.overridden, plan.origin)
        if series.null_count():
            raise NotAscendingError("timestamps are null")
        values: np.ndarray = series.to_numpy()
        return values


def block_rows_of(array: Array) -> int:
    """Return the number of rows of a block of the search."""
    return array.chunk[0] if array.chunk else UNCHUNKED_ROWS


def _numbers(file: TableFile) -> Array | None:
    """Return the array of a series' stored timestamps, if it is one-dimensional and numeric."""
    column = file.columns.get(TIMESTAMPS)
    array = column.data if column is not None else None
    if array is None or array.dtype.kind != "number" or array.dtype.numpy[1:2] not in {"i", "u", "f"}:
        return None
    return array if len(array.shape) == 1 and not array.dtype.dims else None
