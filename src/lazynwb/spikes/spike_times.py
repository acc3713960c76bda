"""Spike times and counts of units in intervals of their sessions: `get_spike_times_in_intervals`."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

from lazynwb.arrays.arrow import as_lists, from_buffer, offsets_of
from lazynwb.catalog.dtypes import INTERNAL, NWB_PATH, ROWS, TABLE_INDEX
from lazynwb.config import config
from lazynwb.errors import ColumnNotFoundError, LazyNWBError, SchemaError
from lazynwb.frames.coerce import as_lazy, is_pandas
from lazynwb.frames.late_frames import with_columns
from lazynwb.scan import as_source, scan_nwb
from lazynwb.spikes.interval_join import SpikeTrains, UnitIntervalPairs, find, gather
from lazynwb.spikes.intervals import Intervals, Sessions, Times
from lazynwb.spikes.observation_times import (
    INTERVALS_INDEX,
    IS_OBSERVED,
    OBS_INTERVALS,
    UNITS_INDEX,
    Observations,
    index_column,
    late_observations,
    provenance,
)
from lazynwb.threads import raise_if_interrupted

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping

    from lazynwb.frames.coerce import AnyFrame
    from lazynwb.spikes.interval_join import Bools, Floats, Ints
    from lazynwb.spikes.intervals import Sessions

SPIKE_TIMES = "spike_times"
_ENDS = ("start", "stop")


class Options(NamedTuple):
    """Options of a query; see `get_spike_times_in_intervals`."""

    intervals: dict[str, tuple[Any, Any]]
    observed_only: bool
    counts: bool
    bare: bool
    align: bool
    align_to: str | pl.Expr | None

    @property
    def times(self) -> Times:
        """The bounds of all intervals, followed by the reference times."""
        named: dict[str, object] = {}
        for name, pair in self.intervals.items():
            if not isinstance(pair, tuple | list) or len(pair) != 2:  # noqa: PLR2004 - start and stop
                raise TypeError(f"the interval {name!r} must be a pair of start and stop, not {pair!r}")
            named |= {
                f"the {label} of the interval {name!r}": t for label, t in zip(_ENDS, pair, strict=True)
            }
        return Times.of(named if self.align_to is None else {**named, "align_to": self.align_to})


def find_spikes(
    block: pl.DataFrame, sessions: Sessions, pairs: UnitIntervalPairs, options: Options, finds: list[str]
) -> dict[str, pl.Series]:
    """Return the spikes of the pairs, and whether the pairs were observed."""
    bounds, names = sessions.times, list(options.intervals)
    proper = bounds[0 : 2 * len(names) : 2] <= bounds[1 : 2 * len(names) : 2]  # false for NaN
    intervals = pairs.intervals
    known = proper[:, intervals]
    inside = known
    columns: dict[str, pl.Series] = {}
    if options.observed_only:
        inside = known & _observed_intervals(block[OBS_INTERVALS], pairs, bounds, proper)
        unobserved = np.any(known & ~inside, axis=0)
        known_pairs = unobserved | np.all(known, axis=0)
        columns[IS_OBSERVED] = _nullable(pl.Series(~unobserved), known_pairs)
    if not finds:
        return columns
    try:
        trains = SpikeTrains(block[SPIKE_TIMES].cast(pl.List(pl.Float64)))
    except pl.exceptions.PolarsError as error:
        raise SchemaError(
            f"{SPIKE_TIMES} is {block.schema[SPIKE_TIMES]}, but must be lists of seconds"
        ) from error
    trains.sort()
    has_times = trains.known[pairs.units]
    for name in finds:
        i = names.index(name)
        begins, ends = find(trains, pairs, bounds[2 * i : 2 * i + 2])
        valid = inside[i] & has_times
        if options.counts:
            columns[name] = _nullable(pl.Series(ends - begins), valid)
            continue
        zeros = _reference_times(options, bounds, i)
        if zeros is not None:
            valid &= np.isfinite(zeros)[intervals]
        counts = np.where(valid, ends - begins, 0)
        flat = from_buffer(gather(trains, pairs, begins, counts, zeros))
        columns[name] = as_lists(flat, (), [offsets_of(counts)], None if valid.all() else valid)
    return columns


def _reference_times(options: Options, bounds: Floats, interval: int) -> Floats | None:
    """Return the reference time of each interval, which is subtracted from spike times."""
    if options.align_to is not None:
        zeros: Floats = bounds[-1]
        return zeros
    return bounds[2 * interval] if options.align else None


def _observed_intervals(series: pl.Series, pairs: UnitIntervalPairs, bounds: Floats, proper: Bools) -> Bools:
    """Return for each interval and pair whether it was observed; null for improper intervals."""
    observations = Observations(series)
    out = np.empty((len(proper), pairs.offsets[-1]), bool)
    groups = observations.groups()
    # Most units of a session share their observation times: these are looked up once.
    seen: dict[tuple[int, int], Bools] = {}
    for unit, rows, intervals in pairs.slices():
        key = int(groups[unit]), intervals.start
        if key not in seen:
            owners: Ints = np.full(intervals.stop - intervals.start, unit)
            seen[key] = np.stack(
                [
                    observations.include(owners, bounds[2 * i, intervals], bounds[2 * i + 1, intervals])
                    for i in range(len(proper))
                ]
            )
        out[:, rows] = seen[key]
    return out


def _nullable(series: pl.Series, valid: Bools) -> pl.Series:
    if valid.all():
        return series
    return pl.select(pl.when(pl.Series(valid)).then(series)).to_series()


#: Suffix of a unit column whose name is also that of an interval column, as in joins.
_SUFFIX = "_right"
#: Number of units whose spike times are in memory at the same time.
_BLOCK = 256
#: Bytes of a block of a lazy frame of units.
_BLOCK_BYTES = 32 * 1024 * 1024
#: Prefix of the provenance columns of a block of units, which no column of a file has.
_PREFIX = "\x00"


class Query:
    """An IO source for Polars: schema and batches; a class, so that a query can be pickled."""

    def __init__(  # noqa: PLR0913 - the options of the public function
        self,
        units: AnyFrame,
        intervals: str | AnyFrame,
        condition: str | pl.Expr | None,
        options: Options,
        storage_options: Mapping[str, Any] | None,
        *,
        disable_progress: bool,
    ) -> None:
        self._lazy = isinstance(units, pl.LazyFrame)
        self._units = as_lazy(units)
        self._unit_schema = self._units.collect_schema()
        index_column(self._unit_schema)
        self._given = intervals
        self._condition = condition
        self._options = options
        self._times = options.times
        self._storage_options = storage_options
        self._disable_progress = disable_progress
        if not isinstance(intervals, str):
            self.schema()  # raises errors of the frames early

    def __call__(
        self,
        with_columns: list[str] | None,
        predicate: pl.Expr | None,
        n_rows: int | None,
        batch_size: int | None,  # noqa: ARG002 - blocks are bounded by units
    ) -> Iterator[pl.DataFrame]:
        """Yield the batches of a query; called by Polars."""
        return as_source(self._batches(with_columns, predicate, n_rows), "spike times in intervals")

    def collect(self) -> pl.DataFrame:
        """Return all rows."""
        schema = self.schema()
        return pl.concat([schema.to_frame(), *self.batches(list(schema))])

    # -- columns --------------------------------------------------------------------------------------

    @cached_property
    def _paths(self) -> list[str]:
        """The sessions of the units."""
        path = pl.col(NWB_PATH).cast(pl.String)
        paths = self._units.select(path).unique(maintain_order=True).collect()
        return paths.to_series().drop_nulls().to_list()

    @cached_property
    def _intervals(self) -> Intervals | None:
        if not isinstance(self._given, str):
            return Intervals(as_lazy(self._given), self._condition, arrays=True)
        if not self._paths:
            return None  # no file has the columns of the table
        options = self._storage_options
        frame = scan_nwb(
            self._paths, self._given, disable_progress=self._disable_progress, storage_options=options
        )
        return Intervals(frame, self._condition, arrays=False)

    @cached_property
    def _shown(self) -> dict[str, pl.DataType]:
        """Return the columns of the intervals table that are part of the result."""
        return {} if self._options.bare or self._intervals is None else self._intervals.shown

    @cached_property
    def _unit_columns(self) -> dict[str, str]:
        """The columns of the units by their names in the result."""
        if self._options.bare:
            return {}
        hidden = {*INTERNAL, UNITS_INDEX, SPIKE_TIMES, OBS_INTERVALS}
        taken = {*self._head(), *self._shown}
        own = [name for name in self._unit_schema if name not in hidden]
        names = {}
        for name in own:
            new = name
            while new in taken or (new != name and new in own):
                new += _SUFFIX
            taken.add(new)
            names[new] = name
        return names

    def _head(self) -> dict[str, Any]:
        """Return the columns that are from neither table."""
        values = pl.Int64() if self._options.counts else pl.List(pl.Float64())
        observed = self._options.observed_only and not self._options.bare
        return {
            UNITS_INDEX: pl.UInt32(),
            INTERVALS_INDEX: pl.UInt32(),
            NWB_PATH: pl.String(),
            **dict.fromkeys(self._options.intervals, values),
            **({IS_OBSERVED: pl.Boolean()} if observed else {}),
        }

    def schema(self) -> pl.Schema:
        """Return the schema of the result.

        Raises
        ------
        SchemaError
            If two columns have the same name.
        """
        head = self._head()
        if len(head) < len(self._options.intervals) + (4 if IS_OBSERVED in head else 3):
            raise SchemaError(
                f"the name of an interval is reserved in the result: {', '.join(self._options.intervals)}"
            )
        clashing = next((name for name in head if name in self._shown), None)
        if clashing is not None:
            raise SchemaError(
                f"the intervals table has a column {clashing!r} already: choose another name, drop that "
                "column, or pass keep_only_necessary_cols=True"
            )
        units = {new: self._unit_schema[name] for new, name in self._unit_columns.items()}
        return pl.Schema({**head, **self._shown, **units})

    def schema_to_count(self) -> pl.Schema:
        """Return the schema with a hidden column, so that counting rows reads no other column."""
        return pl.Schema({ROWS: pl.Null(), **self.schema()})

    # -- rows -----------------------------------------------------------------------------------------

    def _batches(
        self, names: list[str] | None, predicate: pl.Expr | None, n_rows: int | None
    ) -> Generator[pl.DataFrame]:
        names = list(self.schema_to_count()) if names is None else names
        roots = [] if predicate is None else predicate.meta.root_names()
        has_yielded = False
        for rows in self.batches(list(dict.fromkeys([*names, *roots]))):
            batch = rows
            if n_rows is not None:
                batch = batch.head(n_rows)
                n_rows -= len(batch)
            batch = batch if predicate is None else batch.filter(predicate)
            has_yielded = True
            yield batch.select(names)
            if n_rows == 0:
                return
        if not has_yielded:
            yield self.schema_to_count().to_frame().select(names)

    def batches(self, names: list[str]) -> Iterator[pl.DataFrame]:
        """Yield the pairs of units and intervals with some columns, in blocks of units."""
        intervals = self._intervals
        if intervals is None:
            return
        times = self._times if {*self._options.intervals, IS_OBSERVED}.intersection(names) else Times((), ())
        shown = [name for name in names if name in self._shown or name == INTERVALS_INDEX]
        units = self._blocks(names)
        sessions = intervals.read(shown, times, None if self._lazy else self._paths)
        for block in units:
            raise_if_interrupted()
            yield self._pair(block, sessions, names)

    def _blocks(self, names: list[str]) -> Iterator[pl.DataFrame]:
        """Yield blocks of units with the required columns, including `spike_times` and `obs_intervals`."""
        finds = any(name in self._options.intervals for name in names)
        observes = self._options.observed_only and (finds or IS_OBSERVED in names)
        own = {self._unit_columns[name] for name in names if name in self._unit_columns}
        required = [name for name, needed in ((SPIKE_TIMES, finds), (OBS_INTERVALS, observes)) if needed]
        present = [name for name in required if name in self._unit_schema]
        late = [name for name in required if name not in self._unit_schema]
        place = provenance(self._unit_schema, _PREFIX)
        light = self._units.select(*place, *sorted(own), *present)
        whole = self._lazy and SPIKE_TIMES in present
        blocks = _streamed(light) if whole else _slices(light.collect(), reads_files=bool(late))
        absences: list[ColumnNotFoundError | None] = []
        for given in blocks:
            block = self._with_observations(given) if OBS_INTERVALS in late else given
            if SPIKE_TIMES in late:
                series, absence = self._spike_times(block)
                absences.append(absence)
                block = block.with_columns(series)
            yield block
        if absences and all(absences):
            raise next(absence for absence in absences if absence is not None)

    def _with_observations(self, block: pl.DataFrame) -> pl.DataFrame:
        rows = block.select(pl.col(_PREFIX + name).alias(name) for name in INTERNAL)
        try:
            series = late_observations(rows, self._storage_options, disable_progress=self._disable_progress)
        except LazyNWBError as error:
            error.add_note(f"apply_obs_intervals=False does not require {OBS_INTERVALS}")
            raise
        return block.with_columns(series.alias(OBS_INTERVALS))

    def _spike_times(self, block: pl.DataFrame) -> tuple[pl.Series, ColumnNotFoundError | None]:
        """Read spike times from the files; null for files without them, as in a scan of several files."""
        rows = block.select(pl.col(_PREFIX + name).alias(name) for name in INTERNAL)
        try:
            found = with_columns(
                rows,
                [SPIKE_TIMES],
                storage_options=self._storage_options,
                disable_progress=self._disable_progress,
            )
        except ColumnNotFoundError as error:
            return pl.Series(SPIKE_TIMES, [None] * len(block), dtype=pl.List(pl.Float64)), error
        return found[SPIKE_TIMES], None

    def _pair(self, block: pl.DataFrame, sessions: Sessions, names: list[str]) -> pl.DataFrame:
        paths = block[_PREFIX + NWB_PATH].to_list()
        places = np.array([sessions.places.get(path, (0, 0)) for path in paths], np.int64).reshape(-1, 2)
        pairs = UnitIntervalPairs.of(places[:, 0].copy(), places[:, 1].copy())
        units = pl.Series(pairs.units)
        columns: dict[str, pl.Series] = {
            UNITS_INDEX: block[_PREFIX + TABLE_INDEX].gather(units),
            NWB_PATH: block[_PREFIX + NWB_PATH].gather(units),
            ROWS: pl.Series([None], dtype=pl.Null).new_from_index(0, len(units)),
        }
        finds = [name for name in self._options.intervals if name in names]
        if finds or IS_OBSERVED in names:
            columns |= find_spikes(block, sessions, pairs, self._options, finds)
        rows = pl.Series(pairs.intervals)
        shown = sessions.rows[rows] if len(sessions.rows.columns) else sessions.rows
        for name in names:
            if name in self._unit_columns:
                columns[name] = block[self._unit_columns[name]].gather(units)
            elif name not in columns:
                columns[name] = shown[name]
        return pl.DataFrame([columns[name].alias(name) for name in names])


def _streamed(frame: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    """Yield the rows of a query in batches of a minimum size."""
    waiting: list[pl.DataFrame] = []
    size = 0
    for batch in frame.collect_batches(maintain_order=True, engine="streaming"):
        waiting.append(batch)
        size += int(batch.estimated_size())
        if size >= _BLOCK_BYTES:
            yield pl.concat(waiting)
            waiting, size = [], 0
    if waiting:
        yield pl.concat(waiting)


def _slices(frame: pl.DataFrame, *, reads_files: bool) -> Iterable[pl.DataFrame]:
    """Yield blocks of units; one block if sessions alternate, so that no file is read twice."""
    paths = frame[_PREFIX + NWB_PATH]
    turns = int((paths != paths.shift(1)).sum()) + 1
    if reads_files and turns > paths.n_unique():
        return [frame]
    return frame.iter_slices(_BLOCK)


def get_spike_times_in_intervals(  # noqa: PLR0913, PLR0917 - positional in existing code
    filtered_units_df: AnyFrame,
    intervals: Mapping[str, tuple[Any, Any]],
    intervals_df: str | AnyFrame = "/intervals/trials",
    intervals_df_filter: str | pl.Expr | None = None,
    apply_obs_intervals: bool = True,  # noqa: FBT001, FBT002
    as_counts: bool = False,  # noqa: FBT001, FBT002
    keep_only_necessary_cols: bool = False,  # noqa: FBT001, FBT002
    use_process_pool: bool = True,  # noqa: FBT001, FBT002, ARG001
    disable_progress: bool = False,  # noqa: FBT001, FBT002
    as_polars: bool | None = None,  # noqa: FBT001
    align_times: bool = False,  # noqa: FBT001, FBT002
    *,
    align_to: str | pl.Expr | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Any:  # noqa: ANN401 - the kind of the given frame, or as_polars
    """Find the spikes of units in intervals; return one row per unit and interval of its session.

    Units are joined with the intervals of their own session, by `_nwb_path`. An interval includes the spikes
    with start <= time < stop, so that adjacent intervals share none and an empty interval has none. The value
    is null for an interval that ends before it begins, or whose bounds are null or NaN, and for a unit
    without `spike_times`. A unit whose `spike_times` is an empty list has empty lists.

    Parameters
    ----------
    filtered_units_df : polars.DataFrame or polars.LazyFrame or pandas.DataFrame
        Units with `_nwb_path` and `_table_index` (or `_units_table_index`). `spike_times` (seconds) and
        `obs_intervals` are read from the files, for these units only, if the frame lacks them.
    intervals : dict of str to (start, stop)
        New columns, and the bounds of their intervals in seconds: each the name of a column of the intervals
        table, an expression of its columns (evaluated for each session separately), or a number.
    intervals_df : str or frame
        The path of a table in the files of the units, or a frame with `_nwb_path`.
    intervals_df_filter : str or Expr or None
        Filter of the intervals: an expression, or a condition in SQL.
    apply_obs_intervals : bool
        Whether values are null for intervals that are not within the union of the unit's `obs_intervals` (see
        `insert_is_observed`), and the column `is_observed` is added.
    as_counts : bool
        Whether to return the number of spikes instead of their times.
    keep_only_necessary_cols : bool
        Whether to leave out `is_observed` and the columns of the two tables.
    use_process_pool : bool
        Accepted for compatibility, without effect.
    disable_progress : bool
        Whether to hide progress bars.
    as_polars : bool or None
        True for Polars, False for pandas, None for the kind of the given frame.
    align_times : bool
        Whether times are relative to the start of their interval; null if that is not finite.
    align_to : str or Expr or None
        A time of the intervals table that times are relative to instead; null if it is null or not finite.
    storage_options : mapping or None
        As for `scan_nwb`.

    Returns
    -------
    frame
        Units in the given order, each with its intervals in their order. The columns are `_units_table_index`
        and `_intervals_table_index` (UInt32: the rows of the two tables; for a frame without `_table_index`,
        the row of the frame), `_nwb_path`, the new columns (List(Float64), ascending, in seconds; or Int64),
        `is_observed` (whether all intervals of the row were observed), the columns of the intervals table
        (lists and arrays only if a frame was given), and those of the units except `spike_times` and
        `obs_intervals`; a unit column whose name is taken has the suffix `_right`. For a LazyFrame of units,
        the result is a LazyFrame, which reads only the columns that the query needs, in blocks of units. Its
        columns depend on the intervals table: if that is a path, collecting the schema determines the files
        of the units.

    Raises
    ------
    ColumnNotFoundError
        If a frame lacks the column with the session of its rows, or the intervals table lacks a column.
    SchemaError
        If a bound is not numeric, or a name in `intervals` is that of another column.
    TableNotFoundError
        If no file has the intervals table.
    ValueError
        If aligned counts are requested, or `intervals` is empty.

    Notes
    -----
    NWB core, nwb.misc.yaml: Units.spike_times (seconds, ragged by spike_times_index) and Units.obs_intervals
    (pairs of start and stop in seconds). Spike times need not be sorted.

    Examples
    --------
    >>> good = lazynwb.scan_nwb(paths, "/units").filter(pl.col("location") == "CA1")  # doctest: +SKIP
    >>> lazynwb.get_spike_times_in_intervals(  # doctest: +SKIP
    ...     good,
    ...     {"response": ("stim_start_time", pl.col("stim_start_time") + 0.5)},
    ...     as_counts=True,
    ... ).group_by("_nwb_path", "_units_table_index").agg(pl.col("response").mean())
    """
    if as_counts and (align_times or align_to is not None):
        raise ValueError("counts cannot be aligned: leave out as_counts, or align_times and align_to")
    if not intervals:
        raise ValueError('intervals is empty: pass for example {"spikes": ("start_time", "stop_time")}')
    query = Query(
        filtered_units_df,
        intervals_df,
        intervals_df_filter,
        Options(
            dict(intervals), apply_obs_intervals, as_counts, keep_only_necessary_cols, align_times, align_to
        ),
        storage_options,
        disable_progress=disable_progress,
    )
    lazily = isinstance(filtered_units_df, pl.LazyFrame)
    if lazily and as_polars is not False:
        return register_io_source(query, schema=query.schema_to_count, is_pure=True).select(pl.exclude(ROWS))
    found = query.collect()
    from_pandas = is_pandas(filtered_units_df) and as_polars is None and not config.use_polars
    if as_polars is False or from_pandas:
        from lazynwb.frames.pandas_output import as_frame

        return as_frame(found, as_polars=False)
    return found
