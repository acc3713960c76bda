"""Units and series in the terms of other packages: pynapple, xarray, Polars."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from lazynwb.catalog.dtypes import INTERNAL, NWB_PATH, TABLE_INDEX
from lazynwb.errors import ColumnNotFoundError, LazyNWBError, MissingPackageError, UnsupportedTypeError
from lazynwb.series.timeseries import TimeSeries

if TYPE_CHECKING:
    from types import ModuleType

    import pandas as pd
    import xarray as xr

_SPIKES = "spike_times"
#: A name that pynapple keeps for itself, and what a column of that name is called there.
_RENAMED = {"rate": "rate_"}
#: pynapple's intervals have a duration: this one, in seconds, where there is a single time.
_SHORTEST = 1e-6


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
    nap = _required("pynapple")
    if isinstance(units_or_series, TimeSeries):
        return _to_tsd(nap, units_or_series)
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
    xarray = _required("xarray")
    data, stamps = _samples(ts)
    axes = ("channel",) if data.ndim == 2 else tuple(f"dim_{i}" for i in range(1, data.ndim))  # noqa: PLR2004
    coordinates: dict[str, Any] = {"time": stamps}
    electrodes = ts.electrodes if data.ndim > 1 else None
    if electrodes is not None and electrodes.shape == data.shape[1:2]:
        coordinates["electrodes"] = (axes[0], electrodes)
    attrs: dict[str, Any] = {
        "unit": ts.unit,
        "description": ts.description,
        "comments": ts.comments,
        "neurodata_type": ts.neurodata_type,
        "rate": ts.rate,
        "time_unit": ts.timestamps_unit,
        "path": ts.path,
        "file": ts.file,
    }
    if not ts.is_scaled:
        attrs |= {
            "conversion": ts.conversion,
            "offset": ts.offset,
            "channel_conversion": ts.channel_conversion,
        }
    known = {name: value for name, value in attrs.items() if value is not None}
    array: xr.DataArray = xarray.DataArray(data, coordinates, ("time", *axes), name=ts.name, attrs=known)
    return array


def to_polars(ts: TimeSeries) -> pl.DataFrame:
    """Return all samples of a series as a frame.

    Parameters
    ----------
    ts : TimeSeries
        Take a window with `between`: all of its data is read.

    Returns
    -------
    polars.DataFrame
        With the columns `timestamps`, in seconds, and `data`, an `Array` where a sample has several values.
    """
    data, stamps = _samples(ts)
    values = pl.Series("data", data.tolist(), dtype=pl.String) if data.dtype == object else pl.Series(data)
    return pl.DataFrame({"timestamps": stamps, "data": values})


def _required(package: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingPackageError(
            f"{package} cannot be imported ({error}): pip install 'lazynwb[{package}]'"
        ) from error


def _samples(ts: TimeSeries) -> tuple[np.ndarray, np.ndarray]:
    """Return all data and timestamps."""
    data, stamps = ts.data, ts.timestamps
    if len(data) != len(stamps):
        raise LazyNWBError(
            f"{ts.file}: {ts.path} has {len(stamps)} timestamps for {len(data)} samples: which belong "
            "together cannot be told; take slices of data and timestamps"
        )
    return np.asarray(data), np.asarray(stamps)


# -- pynapple ---------------------------------------------------------------------------------------------


def _to_tsd(nap: ModuleType, ts: TimeSeries) -> Any:  # noqa: ANN401
    if ts.data.dtype.kind not in "iufb":
        raise UnsupportedTypeError(
            f"{ts.file}: {ts.path} holds no numbers, which pynapple is for, but {ts.data.dtype}"
        )
    data, stamps = _samples(ts)
    order = _in_time(stamps)
    if order is not None:
        data, stamps = data[order], stamps[order]
    kind = {1: nap.Tsd, 2: nap.TsdFrame}.get(data.ndim, nap.TsdTensor)
    support = _support(nap, stamps[0], stamps[-1]) if len(stamps) else None
    return kind(t=stamps, d=data, time_support=support)


def _in_time(stamps: np.ndarray) -> np.ndarray | None:
    """Return positions that put times in order, and leave out NaN; None if they are in order already.

    pynapple sorts times, but leaves the samples as they are: they would belong to other times.
    """
    if (stamps[:-1] <= stamps[1:]).all() and not np.isnan(stamps[-1:]).any():
        return None
    order = np.argsort(stamps, kind="stable")
    return order[: np.count_nonzero(~np.isnan(stamps))]


def _support(nap: ModuleType, start: float, stop: float) -> Any:  # noqa: ANN401
    return nap.IntervalSet(start, stop if stop > start else start + _SHORTEST)


def _to_ts_group(nap: ModuleType, df: pl.DataFrame | pd.DataFrame) -> Any:  # noqa: ANN401
    _check_one_session(df)
    if _SPIKES not in df.columns:
        df = _with_spikes(df)
    trains = [_train(row) for row in df[_SPIKES]]
    if not any(map(len, trains)):
        raise LazyNWBError(f"none of the {len(trains)} units has a spike: pynapple needs the time of one")
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
    support = _support(nap, start, stop)
    group = {int(keys[i]): nap.Ts(trains[i], time_support=support) for i in order.tolist()}
    return nap.TsGroup(group, time_support=support, metadata=metadata)


def _check_one_session(df: pl.DataFrame | pd.DataFrame) -> None:
    if NWB_PATH not in df.columns:
        return
    paths = list(dict.fromkeys(df[NWB_PATH]))
    if len(paths) > 1:
        raise LazyNWBError(
            f"the frame has units of {len(paths)} sessions ({paths[0]}, {paths[1]}, ...), and the times of "
            f"one mean nothing in another: filter by {NWB_PATH}, or take them one by one"
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
    order = _in_time(times)
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
