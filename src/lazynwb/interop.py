"""Units and series as objects of pynapple and xarray."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from lazynwb.catalog.dtypes import INTERNAL, NWB_PATH, TABLE_INDEX
from lazynwb.errors import ColumnNotFoundError, LazyNWBError
from lazynwb.series.conversion import require_package, time_order, time_support
from lazynwb.series.timeseries import TimeSeries

if TYPE_CHECKING:
    from types import ModuleType

    import pandas as pd
    import xarray as xr

_SPIKES = "spike_times"
#: A name that pynapple keeps for itself, and what a column of that name is called there.
_RENAMED = {"rate": "rate_"}


def to_pynapple(
    units_or_series: TimeSeries | pl.DataFrame | pl.LazyFrame | pd.DataFrame,
) -> Any:  # noqa: ANN401 - pynapple has no types
    """Return units as a pynapple TsGroup, or a series as a Tsd, TsdFrame or TsdTensor.

    Parameters
    ----------
    units_or_series : frame or TimeSeries
        Units of one session, from `scan_nwb(...)`, `get_df(...)` or a query on these. Without a column
        `spike_times` that is read from the file, for the rows that the frame has. Or a TimeSeries, whose
        samples are all read: take a window with `between`; values are those of its `data`, so in physical
        units after `between(..., scaled=True)`.

    Returns
    -------
    pynapple.TsGroup, pynapple.Tsd, pynapple.TsdFrame or pynapple.TsdTensor
        Times in seconds. A group's keys are the units' `id` where there is such a column and no two rows
        share one, else `_table_index`, else the frame's row numbers; every other column of numbers, bools or
        text is its metadata (one called `rate`, which is pynapple's own, as `rate_`). The group's time
        support is from the first to the last spike of all units. Spikes and samples come in the order of
        their times, whatever that in the file; those whose time is NaN are left out.

    Raises
    ------
    MissingPackageError
        If pynapple is not installed.
    LazyNWBError
        If the frame has units of several sessions, whose times do not belong together, or no spikes at all.
    ColumnNotFoundError
        If there are no spike times, in the frame or its file.
    UnsupportedTypeError
        If the series holds no numbers.
    """
    nap = require_package("pynapple")
    if isinstance(units_or_series, TimeSeries):
        return units_or_series.to_pynapple()
    if isinstance(units_or_series, pl.LazyFrame):
        units_or_series = units_or_series.collect()
    return _to_ts_group(nap, units_or_series)


def to_xarray(ts: TimeSeries) -> xr.DataArray:
    """Return all samples of a series as an xarray DataArray.

    Parameters
    ----------
    ts : TimeSeries
        Take a window with `between`: all of its data is read.

    Returns
    -------
    xarray.DataArray
        With the values of `ts.data` and its name; the first dimension is `time`, with the timestamps in
        seconds as its coordinate; the second of two is `channel`, with the rows of the electrodes table as
        the coordinate `electrodes` where the series has them; further ones are `dim_1`, `dim_2`, ...
        `attrs` has unit, description and so on; conversion and offset only where the values are as stored.

    Raises
    ------
    MissingPackageError
        If xarray is not installed.
    """
    return ts.to_xarray()


def _to_ts_group(nap: ModuleType, df: pl.DataFrame | pd.DataFrame) -> Any:  # noqa: ANN401
    _check_one_session(df)
    if _SPIKES not in df.columns:
        df = _with_spikes(df)
    trains = [_train(row) for row in df[_SPIKES]]
    if not any(map(len, trains)):
        raise LazyNWBError(f"none of the {len(trains)} units has a spike: pynapple needs at least one")
    keys = _keys(df)
    # pynapple sorts a group by its keys, but not the metadata.
    order = np.argsort(keys)
    metadata = {
        _RENAMED.get(name, name): values[order]
        for name in df.columns
        if name not in {_SPIKES, "id", *INTERNAL} and (values := _metadata(df[name])) is not None
    }
    start = min(train.min() for train in trains if len(train))
    stop = max(train.max() for train in trains if len(train))
    support = time_support(nap, start, stop)
    group = {int(keys[i]): nap.Ts(trains[i], time_support=support) for i in order.tolist()}
    return nap.TsGroup(group, time_support=support, metadata=metadata)


def _check_one_session(df: pl.DataFrame | pd.DataFrame) -> None:
    if NWB_PATH not in df.columns:
        return
    paths = list(dict.fromkeys(df[NWB_PATH]))
    if len(paths) > 1:
        raise LazyNWBError(
            f"the frame has units of {len(paths)} sessions ({paths[0]}, {paths[1]}, ...), whose times have "
            f"different origins: filter by {NWB_PATH}, or convert one session at a time"
        )


def _with_spikes(df: pl.DataFrame | pd.DataFrame) -> pl.DataFrame | pd.DataFrame:
    from lazynwb.frames.late_frames import merge_array_column

    if not set(INTERNAL) <= set(df.columns):
        raise ColumnNotFoundError(
            f"the frame has no column {_SPIKES!r}, and without {', '.join(INTERNAL)} it cannot be looked up: "
            "keep these columns, or select the spike times"
        )
    return merge_array_column(df, _SPIKES, missing_ok=False)


def _train(row: object) -> np.ndarray:
    """Return the spike times of one row, in order; none where they are missing."""
    if row is None or isinstance(row, float):
        return np.zeros(0)
    times = np.asarray(row, np.float64).reshape(-1)
    order = time_order(times)
    return times if order is None else times[order]


def _keys(df: pl.DataFrame | pd.DataFrame) -> np.ndarray:
    """Return a number for each row, no two alike."""
    for name in ("id", TABLE_INDEX):
        if name in df.columns:
            keys = df[name].to_numpy()
            if keys.dtype.kind in "iu" and len(np.unique(keys)) == len(keys):
                return keys
    return np.arange(len(df))


def _metadata(column: pl.Series | pd.Series) -> np.ndarray | None:
    """Return a column that has one number, bool or text in each row; None for any other."""
    if isinstance(column, pl.Series):
        if column.dtype.is_nested():
            return None
        if isinstance(column.dtype, pl.Enum | pl.Categorical):
            column = column.cast(pl.String)
    values = np.asarray(column.to_numpy())
    if values.dtype.kind in "iufb":
        return values
    texts = values.dtype.kind == "O" and all(isinstance(v, str | bool | None) or _is_nan(v) for v in values)
    return values if texts else None


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and np.isnan(value).item()
