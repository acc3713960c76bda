"""Observation times of units (NWB core, Units.obs_intervals): `insert_is_observed`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import polars as pl

from lazynwb.arrays.arrow import as_lists, offsets_of
from lazynwb.catalog.dtypes import NWB_PATH, TABLE_INDEX, TABLE_PATH
from lazynwb.errors import ColumnNotFoundError, SchemaError
from lazynwb.frames.coerce import as_lazy
from lazynwb.frames.late_frames import with_columns
from lazynwb.spikes.interval_join import IntervalUnions

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from lazynwb.frames.coerce import AnyFrame
    from lazynwb.spikes.interval_join import Bools, Floats, Ints

#: Columns of a result with the rows of the unit and of the interval.
UNITS_INDEX = "_units_table_index"
INTERVALS_INDEX = "_intervals_table_index"
OBS_INTERVALS = "obs_intervals"
IS_OBSERVED = "is_observed"
_UNITS_TABLE = "units"
_PAIR = 2


class Observations:
    """The times during which units were observed.

    Parameters
    ----------
    series : Series
        `obs_intervals` of each unit: lists of (start, stop) in seconds, or one pair per unit.

    Raises
    ------
    SchemaError
        If the type is another one.
    """

    def __init__(self, series: pl.Series) -> None:
        lists = _as_pairs(series)
        lengths = lists.list.len().fill_null(0).to_numpy().astype(np.int64)
        flat = lists.filter(lists.list.len() > 0).explode()
        #: Whether a unit has any observation times.
        self.has_times: Bools = lengths > 0
        self._ends = np.cumsum(lengths)
        bounds = [flat.arr.get(i).fill_null(float("nan")).to_numpy() for i in range(_PAIR)]
        self.starts: Floats = bounds[0]
        self.stops: Floats = bounds[1]
        self.owners: Ints = np.repeat(np.arange(len(lists)), lengths)

    def groups(self) -> Ints:
        """Return for each unit the first unit with the same observation times."""
        numbers: dict[bytes, int] = {}
        pairs = np.stack([self.starts, self.stops], axis=1)
        begins = np.append(0, self._ends[:-1])
        return np.array(
            [
                numbers.setdefault(pairs[begin:end].tobytes(), unit)
                for unit, (begin, end) in enumerate(zip(begins.tolist(), self._ends.tolist(), strict=True))
            ],
            np.int64,
        )

    def include(self, units: Ints, starts: Floats, stops: Floats) -> Bools:
        """Return whether intervals are within the union of their unit's observed intervals."""
        mentioned = np.isin(self.owners, units)
        covers = IntervalUnions.of(self.owners[mentioned], self.starts[mentioned], self.stops[mentioned])
        return ~self.has_times[units] | covers.contain(units, starts, stops)


def _as_pairs(series: pl.Series) -> pl.Series:
    expected = pl.List(pl.Array(pl.Float64, _PAIR))
    dtype = series.dtype
    if isinstance(dtype, pl.Null):
        return series.cast(expected)
    if isinstance(dtype, pl.Array) and dtype.shape == (_PAIR,) and not isinstance(dtype.inner, pl.List):
        present = series.is_not_null().to_numpy().astype(np.int64)
        flat = series.drop_nulls().cast(pl.Array(pl.Float64, _PAIR))
        return as_lists(flat.explode(), (_PAIR,), [offsets_of(present)])
    try:
        lists = series.arr.to_list() if isinstance(dtype, pl.Array) else series
        return lists.cast(expected)
    except pl.exceptions.PolarsError as error:
        raise SchemaError(
            f"{OBS_INTERVALS} is {dtype}, but must be lists of (start, stop) in seconds "
            "(NWB core, Units.obs_intervals)"
        ) from error


def late_observations(
    rows: pl.DataFrame, storage_options: Mapping[str, Any] | None, *, disable_progress: bool
) -> pl.Series:
    """Read `obs_intervals` of units from their files; null for files without them.

    Parameters
    ----------
    rows : DataFrame
        `_nwb_path`, `_table_path` and `_table_index` of the units.
    storage_options, disable_progress
        As for `scan_nwb`.
    """
    try:
        found = with_columns(
            rows, [OBS_INTERVALS], storage_options=storage_options, disable_progress=disable_progress
        )
    except ColumnNotFoundError:
        return pl.Series(OBS_INTERVALS, [None] * len(rows), dtype=pl.Null)
    return found[OBS_INTERVALS]


def index_column(schema: Mapping[str, pl.DataType]) -> str:
    """Return the name of the column with the row numbers of units.

    Raises
    ------
    ColumnNotFoundError
        If that column or `_nwb_path` is missing.
    """
    index = UNITS_INDEX if UNITS_INDEX in schema else TABLE_INDEX
    for name in (NWB_PATH, index):
        if name not in schema:
            raise ColumnNotFoundError(
                f"the units have no column {name}: keep {NWB_PATH} and {TABLE_INDEX} through select, join "
                "and group_by, because each unit is joined with the intervals of its own session"
            )
    return index


def provenance(schema: Mapping[str, pl.DataType], prefix: str = "") -> list[pl.Expr]:
    """Return expressions for the three provenance columns of a frame of units."""
    path = pl.col(TABLE_PATH).cast(pl.String) if TABLE_PATH in schema else pl.lit(_UNITS_TABLE)
    return [
        pl.col(NWB_PATH).cast(pl.String).alias(prefix + NWB_PATH),
        path.alias(prefix + TABLE_PATH),
        pl.col(index_column(schema)).cast(pl.UInt32).alias(prefix + TABLE_INDEX),
    ]


Frame = TypeVar("Frame", "pl.DataFrame", "pl.LazyFrame", "pd.DataFrame")
START, STOP = "start_time", "stop_time"


def insert_is_observed(
    intervals_frame: Frame,
    units_frame: AnyFrame | None = None,
    col_name: str = IS_OBSERVED,
    *,
    storage_options: Mapping[str, Any] | None = None,
    disable_progress: bool = False,
) -> Frame:
    """Add a column with whether a unit was observed throughout an interval.

    An interval is observed if it is within the union of its unit's `obs_intervals` (NWB core,
    Units.obs_intervals), including bounds. A unit without observation times (no such column, null, or an
    empty list) counts as always observed. The value is null for an interval whose bounds are null or NaN or
    that ends before it begins, and for a unit that `units_frame` lacks.

    Parameters
    ----------
    intervals_frame : polars.DataFrame or polars.LazyFrame or pandas.DataFrame
        One row per interval and unit, with `start_time` and `stop_time` in seconds, and either with
        `_nwb_path` and `_units_table_index`, as in the result of `get_spike_times_in_intervals`, or with
        `obs_intervals`.
    units_frame : frame or None
        Units with `_nwb_path`, and `_table_index` or `_units_table_index`. Their `obs_intervals` are read
        from the files if the frame lacks them. None reads them for the units of `intervals_frame`, from
        `/units`.
    col_name : str
        Name of the new column; an existing column is replaced.
    storage_options : mapping or None
        As for `scan_nwb`.
    disable_progress : bool
        Whether to hide progress bars.

    Returns
    -------
    frame
        A frame of the same kind with the same rows in the same order. A LazyFrame computes the column when it
        is collected, unless a projection drops it.

    Raises
    ------
    ColumnNotFoundError
        If a frame lacks one of the columns above.
    SchemaError
        If times or `obs_intervals` have another type.
    """
    lazy = as_lazy(intervals_frame, [NWB_PATH, UNITS_INDEX, OBS_INTERVALS, START, STOP])
    schema = lazy.collect_schema()
    carried: bool = units_frame is None and OBS_INTERVALS in schema
    needed = [START, STOP, *([OBS_INTERVALS] if carried else [NWB_PATH, UNITS_INDEX])]
    lacking = [name for name in needed if name not in schema]
    if lacking:
        message = f"the intervals have no column {lacking[0]}; required are {', '.join(needed)}"
        if not carried:
            message += f", or {OBS_INTERVALS} instead of the last two and of units_frame"
        raise ColumnNotFoundError(message)
    for name in (START, STOP):
        if not (schema[name].is_numeric() or schema[name] == pl.Null()):
            raise SchemaError(f"{name} is {schema[name]}, but must be a number of seconds")
    units = None if units_frame is None else _Units(units_frame, storage_options, disable_progress)
    test = _ObservedTest(units, storage_options, disable_progress)
    column = pl.struct(needed).map_batches(test, return_dtype=pl.Boolean, is_elementwise=True).alias(col_name)
    if isinstance(intervals_frame, pl.DataFrame):
        return intervals_frame.with_columns(column)
    if isinstance(intervals_frame, pl.LazyFrame):
        return intervals_frame.with_columns(column)
    return cast("Frame", _add_to_pandas(intervals_frame, lazy.select(column).collect().to_series()))


def _add_to_pandas(frame: pd.DataFrame, series: pl.Series) -> pd.DataFrame:
    from lazynwb.frames.pandas_output import pandas_values

    added = frame.copy(deep=False)
    added[series.name] = pandas_values(series)
    return added


class _Units:
    """Units of a frame, read once on first use."""

    def __init__(
        self,
        frame: AnyFrame,
        storage_options: Mapping[str, Any] | None,
        disable_progress: bool,  # noqa: FBT001
    ) -> None:
        self._frame = as_lazy(frame, [NWB_PATH, TABLE_PATH, TABLE_INDEX, UNITS_INDEX, OBS_INTERVALS])
        self._schema = self._frame.collect_schema()
        index_column(self._schema)
        self._options = storage_options
        self._disable_progress = disable_progress
        self._found: tuple[pl.DataFrame, Observations] | None = None

    def read(self) -> tuple[pl.DataFrame, Observations]:
        """Return the distinct units by path and row, and their observations."""
        if self._found is None:
            own = [OBS_INTERVALS] if OBS_INTERVALS in self._schema else []
            rows = self._frame.select(*provenance(self._schema), *own).collect()
            rows = rows.unique([NWB_PATH, TABLE_INDEX], keep="first", maintain_order=True)
            series = (
                rows[OBS_INTERVALS]
                if own
                else late_observations(rows, self._options, disable_progress=self._disable_progress)
            )
            keys = rows.select(NWB_PATH, pl.col(TABLE_INDEX).cast(pl.Int64).alias(UNITS_INDEX))
            self._found = keys, Observations(series)
        return self._found


class _ObservedTest:
    """Function that returns whether intervals of units were observed; a class, so that it can be pickled."""

    def __init__(
        self,
        units: _Units | None,
        storage_options: Mapping[str, Any] | None,
        disable_progress: bool,  # noqa: FBT001
    ) -> None:
        self._units = units
        self._options = storage_options
        self._disable_progress = disable_progress

    def __call__(self, batch: pl.Series) -> pl.Series:
        """Return a Boolean for each struct of an interval's bounds and its unit."""
        rows = batch.struct.unnest()
        if OBS_INTERVALS in rows.columns:
            return _is_observed(rows, Observations(rows[OBS_INTERVALS]), np.arange(len(rows)))
        keys = rows.select(pl.col(NWB_PATH).cast(pl.String), pl.col(UNITS_INDEX).cast(pl.Int64))
        units, observations = self._read(keys) if self._units is None else self._units.read()
        numbered = units.with_columns(pl.Series("unit", np.arange(len(units)), dtype=pl.Int64))
        matched = keys.join(numbered, on=[NWB_PATH, UNITS_INDEX], how="left", maintain_order="left")
        return _is_observed(rows, observations, matched["unit"].fill_null(-1).to_numpy())

    def _read(self, keys: pl.DataFrame) -> tuple[pl.DataFrame, Observations]:
        """Read the observed intervals of units from `/units` of their files."""
        units = keys.drop_nulls().unique(maintain_order=True)
        place = units.select(provenance(units.schema))
        series = late_observations(place, self._options, disable_progress=self._disable_progress)
        return units, Observations(series)


def _is_observed(rows: pl.DataFrame, observations: Observations, units: Ints) -> pl.Series:
    starts, stops = (rows[name].cast(pl.Float64).fill_null(float("nan")).to_numpy() for name in (START, STOP))
    known = (units >= 0) & (starts <= stops)
    observed = np.zeros(len(rows), bool)
    observed[known] = observations.include(units[known], starts[known], stops[known])
    return pl.select(pl.when(pl.Series(known)).then(pl.Series(observed))).to_series()
