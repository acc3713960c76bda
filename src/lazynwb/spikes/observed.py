"""`insert_is_observed`: which intervals lie within the times in which a unit was observed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import polars as pl

from lazynwb.catalog.provenance import NWB_PATH, TABLE_INDEX, TABLE_PATH
from lazynwb.errors import ColumnNotFoundError, SchemaError
from lazynwb.frames.given import as_lazy
from lazynwb.spikes.observations import (
    IS_OBSERVED,
    OBS_INTERVALS,
    UNITS_INDEX,
    Observations,
    index_column,
    late_observations,
    provenance,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from lazynwb.engine.within import Ints
    from lazynwb.frames.given import AnyFrame

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
    """Add a column that tells whether a unit was observed throughout an interval.

    An interval is observed if it lies within the union of its unit's `obs_intervals` (NWB core,
    Units.obs_intervals), bounds included: two that touch or overlap are as good as one. Where nothing is
    stated for a unit (no such column, null, or no interval), it counts as observed all the time. An interval
    whose bounds are null or NaN, or that ends before it begins, gives null; so does a unit that
    `units_frame` does not have.

    Parameters
    ----------
    intervals_frame : polars.DataFrame, polars.LazyFrame or pandas.DataFrame
        One row for each interval of each unit, with `start_time` and `stop_time` in seconds, and with
        `_nwb_path` and `_units_table_index`, as `get_spike_times_in_intervals` gives them; or with the unit's
        `obs_intervals` themselves.
    units_frame : frame or None
        Units with `_nwb_path`, and `_table_index` or `_units_table_index`. Their `obs_intervals` are read
        from the files if the frame lacks them. None reads them for the units of `intervals_frame`, from
        `/units`.
    col_name : str
        Name of the new column; one that exists is replaced.
    storage_options : mapping or None
        As for `scan_nwb`.
    disable_progress : bool
        Show no progress bars.

    Returns
    -------
    frame
        Of the same kind, with the same rows in the same order. A LazyFrame computes nothing until it is
        collected, and nothing at all where nobody asks for the column.

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
        message = f"the intervals have no column {lacking[0]}; needed are {', '.join(needed)}"
        if not carried:
            message += f", or {OBS_INTERVALS} instead of the last two and of units_frame"
        raise ColumnNotFoundError(message)
    for name in (START, STOP):
        if not (schema[name].is_numeric() or schema[name] == pl.Null()):
            message = f"{name} is {schema[name]}, but must be a number of seconds"
            raise SchemaError(message)
    units = None if units_frame is None else _Units(units_frame, storage_options, disable_progress)
    teller = _Teller(units, storage_options, disable_progress)
    column = (
        pl.struct(needed).map_batches(teller, return_dtype=pl.Boolean, is_elementwise=True).alias(col_name)
    )
    if isinstance(intervals_frame, pl.DataFrame):
        return intervals_frame.with_columns(column)
    if isinstance(intervals_frame, pl.LazyFrame):
        return intervals_frame.with_columns(column)
    return cast("Frame", _add_to_pandas(intervals_frame, lazy.select(column).collect().to_series()))


def _add_to_pandas(frame: pd.DataFrame, series: pl.Series) -> pd.DataFrame:
    from lazynwb.frames.returning import pandas_values

    added = frame.copy(deep=False)
    added[series.name] = pandas_values(series)
    return added


class _Units:
    """The units given, read once, when they are first needed."""

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
        """Return the units' paths and numbers, each once, and their observations."""
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


class _Teller:
    """Tells for intervals of units whether they were observed; a class, so that it can be pickled."""

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
        """Return a Boolean for each struct of an interval's bounds, and of its unit."""
        rows = batch.struct.unnest()
        if OBS_INTERVALS in rows.columns:
            return _tell(rows, Observations(rows[OBS_INTERVALS]), np.arange(len(rows)))
        keys = rows.select(pl.col(NWB_PATH).cast(pl.String), pl.col(UNITS_INDEX).cast(pl.Int64))
        units, observations = self._read(keys) if self._units is None else self._units.read()
        numbered = units.with_columns(pl.Series("unit", np.arange(len(units)), dtype=pl.Int64))
        matched = keys.join(numbered, on=[NWB_PATH, UNITS_INDEX], how="left", maintain_order="left")
        return _tell(rows, observations, matched["unit"].fill_null(-1).to_numpy())

    def _read(self, keys: pl.DataFrame) -> tuple[pl.DataFrame, Observations]:
        """Read the observed intervals of units from `/units` of their files."""
        units = keys.drop_nulls().unique(maintain_order=True)
        place = units.select(provenance(units.schema))
        series = late_observations(place, self._options, disable_progress=self._disable_progress)
        return units, Observations(series)


def _tell(rows: pl.DataFrame, observations: Observations, units: Ints) -> pl.Series:
    starts, stops = (rows[name].cast(pl.Float64).fill_null(float("nan")).to_numpy() for name in (START, STOP))
    known = (units >= 0) & (starts <= stops)
    told = np.zeros(len(rows), bool)
    told[known] = observations.include(units[known], starts[known], stops[known])
    return pl.select(pl.when(pl.Series(known)).then(pl.Series(told))).to_series()
