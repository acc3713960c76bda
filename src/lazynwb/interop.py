"""Conversion of units and series to objects of pynapple and xarray."""

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
#: Names of columns that pynapple reserves, and their replacements.
_RENAMED = {"rate": "rate_"}


def to_pynapple(
    units_or_series: TimeSeries | pl.DataFrame | pl.LazyFrame | pd.DataFrame,
) -> Any:  # noqa: ANN401 - pynapple has no types
    """Return units as a pynapple TsGroup, or a series as a Tsd, TsdFrame or TsdTensor.

    Parameters
    ----------
    units_or_series : frame or TimeSeries
        Units of one session from `scan_nwb(...)`, `get_df(...)` or a query; if the frame lacks the column
        `spike_times`, it is read from the file for its rows. Or a TimeSeries, of which all samples are read:
        select a window with `between`. Values are those of its `data`, in physical units after
        `between(..., scaled=True)`.

    Returns
    -------
    pynapple.TsGroup or pynapple.Tsd or pynapple.TsdFrame or pynapple.TsdTensor
        Times are in seconds. The keys of a group are the values of `id` if they are unique, else
        `_table_index`, else the row numbers of the frame. Other columns of numbers, bools or text become
        metadata (`rate`, which pynapple reserves, is renamed to `rate_`). The time support of the group is
        from the first to the last spike of all units. Spikes and samples are sorted by time; those whose time
        is NaN are left out.

    Raises
    ------
    MissingPackageError
        If pynapple is not installed.
    LazyNWBError
        If the frame has units of several sessions, whose times have different origins, or has no spikes.
    ColumnNotFoundError
        If neither the frame nor the file has spike times.
    UnsupportedTypeError
        If the data of the series is not numeric.
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
        The series, of which all data is read: select a window with `between`.

    Returns
    -------
    xarray.DataArray
        The values of `ts.data`, with the name of the series. The first dimension is `time`, with the
        timestamps in seconds as coordinate. The second of two dimensions is `channel`, with the rows of the
        electrodes table as coordinate `electrodes`, if the series has them; further dimensions are `dim_1`,
        `dim_2`, ... `attrs` has the unit, the description and other attributes; it has conversion and offset
        only if the values are not scaled.

    Raises
    ------
    MissingPackageError
        If xarray is not installed.
    """
    if not hasattr(ts, "to_xarray"):
        raise TypeError(f"to_xarray takes a TimeSeries of lazynwb.get_timeseries, not {type(ts).__name__}")
    return ts.to_xarray()


def _to_ts_group(nap: ModuleType, df: pl.DataFrame | pd.DataFrame) -> Any:  # noqa: ANN401
    _check_one_session(df)
    if _SPIKES not in df.columns:
        df = _with_spikes(df)
    trains = [_train(row) for row in df[_SPIKES]]
    if not any(map(len, trains)):
        raise LazyNWBError(f"none of the {len(trains)} units has spikes: pynapple requires at least one")
    keys = _keys(df)
    # pynapple sorts a group by its keys, but not its metadata.
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
            f"the frame has no column {_SPIKES!r}, and it cannot be read from the files without "
            f"{', '.join(INTERNAL)}: keep these columns, or select {_SPIKES!r}"
        )
    return merge_array_column(df, _SPIKES, missing_ok=False)


def _train(row: object) -> np.ndarray:
    """Return the sorted spike times of one row; empty if they are missing."""
    if row is None or isinstance(row, float):
        return np.zeros(0)
    times = np.asarray(row, np.float64).reshape(-1)
    order = time_order(times)
    return times if order is None else times[order]


def _keys(df: pl.DataFrame | pd.DataFrame) -> np.ndarray:
    """Return a unique number for each row."""
    for name in ("id", TABLE_INDEX):
        if name in df.columns:
            keys = df[name].to_numpy()
            if keys.dtype.kind in "iu" and len(np.unique(keys)) == len(keys):
                return keys
    return np.arange(len(df))


def _metadata(column: pl.Series | pd.Series) -> np.ndarray | None:
    """Return a column of numbers, bools or text as an array; None for a column of another type."""
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
