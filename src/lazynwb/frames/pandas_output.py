"""Output of frames as Polars or pandas."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from lazynwb.catalog.dtypes import instance
from lazynwb.config import config
from lazynwb.errors import MissingPackageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

#: The largest integer up to which all integers are exact as floating-point numbers.
_MAX_EXACT_INTEGER = 2**53
#: The first major version of pandas with a string type by default.
_PANDAS_WITH_TEXT = 3


def wants_polars(as_polars: bool | None) -> bool:  # noqa: FBT001 - passed on from the public functions
    """Return whether to return a Polars frame.

    Parameters
    ----------
    as_polars : bool or None
        None stands for `config.use_polars`, regardless of installed packages.

    Raises
    ------
    MissingPackageError
        If pandas is required and not installed.
    """
    if as_polars or (as_polars is None and config.use_polars):
        return True
    if importlib.util.find_spec("pandas") is not None:
        return False
    raise MissingPackageError(
        "pandas, which is the default output, is not installed: pass as_polars=True or set "
        "lazynwb.config.use_polars = True (LAZYNWB_USE_POLARS=1) for Polars, or pip install pandas"
    )


def as_frame(df: pl.DataFrame, as_polars: bool | None) -> pl.DataFrame | pd.DataFrame:  # noqa: FBT001
    """Return a frame as Polars or pandas; see `wants_polars` and `to_pandas`."""
    return df if wants_polars(as_polars) else to_pandas(df)


def to_pandas(df: pl.DataFrame) -> pd.DataFrame:
    """Convert a frame to pandas, with row numbers as the index and without pyarrow.

    Numbers keep their types. Integers with missing values become floating-point numbers with NaN, as usual in
    pandas, or nullable integers if they are too large for that. Lists and arrays of numbers become one
    read-only NumPy array per row, which shares its memory with the Polars frame. Arrays of several dimensions
    become lists of one-dimensional arrays, which `np.array(cell)` combines, and which Arrow, Parquet and
    `pl.DataFrame` accept. Other lists become Python lists, and structs dictionaries. Missing values are NaN
    or NaT, and None in columns of objects.
    """
    import pandas as pd

    columns = [pandas_values(series) for series in df.iter_columns()]
    frame = pd.DataFrame(dict(enumerate(columns)), index=pd.RangeIndex(len(df)), copy=False)
    frame.columns = pd.Index(df.columns)
    return frame


def pandas_values(series: pl.Series) -> Any:  # noqa: ANN401 - NumPy's or pandas' kind of array
    """Return a column as an array for a pandas frame; see `to_pandas`."""
    import pandas as pd

    dtype = series.dtype
    if dtype.is_numeric() and not dtype.is_decimal():
        if _would_round(series):
            return pd.array(
                series.to_list(), dtype=str(dtype)
            )  # the type names of Polars and pandas are equal
        return series.to_numpy(writable=True)
    if isinstance(dtype, pl.Boolean) and not series.null_count():
        return series.to_numpy(writable=True)
    if isinstance(dtype, pl.Enum):
        codes = series.to_physical().cast(pl.Int64).fill_null(-1).to_numpy()
        return pd.Categorical.from_codes(codes, dtype.categories.to_list())
    if (
        isinstance(dtype, pl.String | pl.Categorical)
        and int(pd.__version__.split(".")[0]) >= _PANDAS_WITH_TEXT
    ):
        return pd.array(series.to_list(), dtype="str")
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        utc = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None).to_numpy(writable=True)
        return pd.Series(utc).dt.tz_localize("UTC").dt.tz_convert(dtype.time_zone).array
    if isinstance(dtype, pl.Datetime | pl.Duration):
        return series.to_numpy(writable=True)
    if isinstance(dtype, pl.Date):
        return series.to_numpy(writable=True).astype("datetime64[ms]")
    return _objects(series)


def _would_round(series: pl.Series) -> bool:
    """Return whether a column has nulls and integers that are not exact as floating-point numbers."""
    if not series.dtype.is_integer() or not series.null_count():
        return False
    minimum, maximum = series.min(), series.max()
    return (
        isinstance(minimum, int) and isinstance(maximum, int) and max(-minimum, maximum) > _MAX_EXACT_INTEGER
    )


def _objects(series: pl.Series) -> np.ndarray:
    """Return an array with one object per row."""
    objects = np.empty(len(series), object)
    if _innermost_dtype(series.dtype).is_numeric() or isinstance(_innermost_dtype(series.dtype), pl.Boolean):
        present = series.is_not_null()
        rows = series.filter(present)
        objects[present.to_numpy()] = _arrays(rows)
    else:
        objects[:] = _object_array(series.to_list(), len(series))
    return objects


def _arrays(rows: pl.Series) -> np.ndarray:
    """Return an array of arrays; of Python lists if missing integers would turn the others into floats."""
    if not isinstance(rows.dtype, pl.List | pl.Array) or _has_missing_elements(rows):
        values = rows.to_list()
        return _object_array(values, len(values))
    return _object_array(map(_nested_lists, rows.to_numpy()), len(rows))


def _nested_lists(cell: Any) -> Any:  # noqa: ANN401 - a NumPy array
    """Convert an array of several dimensions to nested lists of one-dimensional arrays."""
    return list(map(_nested_lists, cell)) if cell.ndim > 1 or cell.dtype == object else cell


def _object_array(values: Iterable[Any], length: int) -> np.ndarray:
    """Return an array with one object per row; objects may have any shapes."""
    objects = np.empty(length, object)
    for i, value in enumerate(values):
        objects[i] = value
    return objects


def _innermost_dtype(dtype: pl.DataType) -> pl.DataType:
    while isinstance(dtype, pl.List | pl.Array):
        dtype = instance(dtype.inner)
    return dtype


def _has_missing_elements(series: pl.Series) -> bool:
    """Return whether lists contain nulls that cannot become NaN, because they are not floating-point."""
    while True:
        if isinstance(series.dtype, pl.Array):
            series = series.arr.to_list()
        dtype = series.dtype
        if not isinstance(dtype, pl.List) or instance(dtype.inner).is_float():
            return False
        series = series.filter(series.list.len() > 0).explode()
        if series.null_count():
            return True
