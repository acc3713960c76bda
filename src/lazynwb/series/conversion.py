"""Conversion of series to Polars, xarray and pynapple."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from lazynwb.errors import LazyNWBError, MissingPackageError, UnsupportedTypeError

if TYPE_CHECKING:
    from types import ModuleType

    import xarray as xr

    from lazynwb.series.arrays import LazyArray
    from lazynwb.series.info import SeriesInfo

#: Duration in seconds of the pynapple interval of a single time, which must not be empty.
_MIN_DURATION = 1e-6


def to_polars(series: SeriesInfo, data: LazyArray, stamps: LazyArray) -> pl.DataFrame:
    """Return samples as a frame with the columns `timestamps` and `data`.

    The type of `data` is `Array` if samples have several values.
    """
    values, times = _read(series, data, stamps)
    column = (
        pl.Series("data", values.tolist(), dtype=pl.String)
        if values.dtype == object
        else pl.Series("data", values)
    )
    return pl.DataFrame({"timestamps": times, "data": column})


def to_xarray(series: SeriesInfo, data: LazyArray, stamps: LazyArray, *, is_scaled: bool) -> xr.DataArray:
    """Return samples as an xarray DataArray; see `lazynwb.to_xarray`."""
    xarray = require_package("xarray")
    values, times = _read(series, data, stamps)
    axes = ("channel",) if values.ndim == 2 else tuple(f"dim_{i}" for i in range(1, values.ndim))  # noqa: PLR2004
    coordinates: dict[str, Any] = {"time": times}
    electrodes = series.electrodes if values.ndim > 1 else None
    if electrodes is not None and electrodes.shape == values.shape[1:2]:
        coordinates["electrodes"] = (axes[0], electrodes)
    attrs: dict[str, Any] = {
        "unit": series.unit,
        "description": series.description,
        "comments": series.comments,
        "neurodata_type": series.neurodata_type,
        "rate": series.rate,
        "time_unit": series.timestamps_unit,
        "path": series.path,
        "file": series.file,
    }
    if not is_scaled:
        attrs |= {
            "conversion": series.conversion,
            "offset": series.offset,
            "channel_conversion": series.channel_conversion,
        }
    known = {name: value for name, value in attrs.items() if value is not None}
    array: xr.DataArray = xarray.DataArray(
        values, coordinates, ("time", *axes), name=series.name, attrs=known
    )
    return array


def to_pynapple(series: SeriesInfo, data: LazyArray, stamps: LazyArray) -> Any:  # noqa: ANN401 - pynapple has no types
    """Return samples as a pynapple Tsd, TsdFrame or TsdTensor, in the order of their times."""
    nap = require_package("pynapple")
    if data.dtype.kind not in "iufb":
        raise UnsupportedTypeError(
            f"{series.file}: {series.path} has the dtype {data.dtype}: pynapple only supports numbers"
        )
    values, times = _read(series, data, stamps)
    order = time_order(times)
    if order is not None:
        values, times = values[order], times[order]
    kind = {1: nap.Tsd, 2: nap.TsdFrame}.get(values.ndim, nap.TsdTensor)
    support = time_support(nap, times[0], times[-1]) if len(times) else None
    return kind(t=times, d=values, time_support=support)


def _read(series: SeriesInfo, data: LazyArray, stamps: LazyArray) -> tuple[np.ndarray, np.ndarray]:
    """Return all data and timestamps."""
    if len(data) != len(stamps):
        raise LazyNWBError(
            f"{series.file}: {series.path} has {len(stamps)} timestamps for {len(data)} samples, which "
            "cannot be matched: slice data and timestamps instead"
        )
    return np.asarray(data), np.asarray(stamps)


def require_package(package: str) -> ModuleType:
    """Import an optional package; raise MissingPackageError with the name of its extra."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingPackageError(
            f"{package} cannot be imported ({error}): pip install 'lazynwb[{package}]'"
        ) from error


def time_order(stamps: np.ndarray) -> np.ndarray | None:
    """Return the positions that sort times and leave out NaN; None if they are sorted already.

    pynapple sorts times without sorting the samples, which would then belong to other times.
    """
    if (stamps[:-1] <= stamps[1:]).all() and not np.isnan(stamps[-1:]).any():
        return None
    order = np.argsort(stamps, kind="stable")
    return order[: np.count_nonzero(~np.isnan(stamps))]


def time_support(nap: ModuleType, start: float, stop: float) -> Any:  # noqa: ANN401
    """Return a pynapple IntervalSet of one interval, which may be a single time."""
    return nap.IntervalSet(start, stop if stop > start else start + _MIN_DURATION)
