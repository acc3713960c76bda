"""Conversion of Polars and pandas frames to LazyFrames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

    AnyFrame: TypeAlias = pl.DataFrame | pl.LazyFrame | pd.DataFrame


def as_lazy(frame: AnyFrame, columns: Iterable[str] | None = None) -> pl.LazyFrame:
    """Return a frame as a LazyFrame, without copying a Polars one.

    Parameters
    ----------
    frame : polars.DataFrame or polars.LazyFrame or pandas.DataFrame
    columns : iterable of str or None
        Columns of a pandas frame to convert, if it has them; None converts all. The index is left out.

    Raises
    ------
    TypeError
        If the object is not a frame.
    """
    if isinstance(frame, pl.LazyFrame):
        return frame
    if isinstance(frame, pl.DataFrame):
        return frame.lazy()
    if not is_pandas(frame):
        raise TypeError(f"expected a Polars or a pandas frame, not {type(frame).__name__}")
    names = [str(name) for name in frame.columns]
    requested = set(names if columns is None else columns)
    return pl.DataFrame(
        [_series(name, frame.iloc[:, position]) for position, name in enumerate(names) if name in requested]
    ).lazy()


def is_pandas(frame: object) -> bool:
    """Return whether an object is a pandas frame, without importing pandas."""
    kind = type(frame)
    return kind.__name__ == "DataFrame" and kind.__module__.partition(".")[0] == "pandas"


def _series(name: str, column: pd.Series[Any]) -> pl.Series:
    """Convert a column without pyarrow: missing values become null, NaN of floating-point columns stays."""
    dtype = column.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "biufmM":
        return pl.Series(name, column.to_numpy())
    values = [_value(value) for value in column.to_list()]
    return pl.Series(name, values, strict=False)


def _value(value: Any) -> Any:  # noqa: ANN401 - any value of pandas
    if isinstance(value, np.ndarray):
        # Polars converts only one-dimensional arrays to lists.
        return value if value.ndim == 1 and value.dtype.kind in "biuf" else value.tolist()
    if isinstance(value, str | bytes | list | tuple | dict):
        return value
    return None if value is None or value != value or type(value).__name__ == "NAType" else value  # noqa: PLR0124
