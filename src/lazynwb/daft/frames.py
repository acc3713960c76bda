"""Frames of Polars as Daft has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl
from daft import Schema
from daft.recordbatch import RecordBatch

from lazynwb.catalog.dtypes import instance
from lazynwb.errors import UnsupportedTypeError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Types that Arrow or Daft has no counterpart of.
_UNKNOWN = {"Object", "Unknown", "Int128", "UInt128"}


def daft_schema(columns: Mapping[str, pl.DataType]) -> Schema:
    """Return columns as Daft has them: in the types of `plain`, as Arrow has these.

    Raises
    ------
    UnsupportedTypeError
        If Daft has no such type; the message names the column.
    """
    for name, dtype in columns.items():
        if str(dtype.base_type()) in _UNKNOWN:
            message = f"column {name!r}: Daft has no type for {dtype}: choose another one in schema_overrides"
            raise UnsupportedTypeError(message)
    return Schema.from_pyarrow_schema(_arrow(pl.DataFrame(schema=dict(columns))).schema)


def record_batch(frame: pl.DataFrame) -> RecordBatch:
    """Return the rows of a frame as Daft has them."""
    return RecordBatch.from_arrow_table(_arrow(frame))


def _arrow(frame: pl.DataFrame) -> Any:  # noqa: ANN401 - pyarrow has no types
    casts = {name: plain(dtype) for name, dtype in frame.schema.items()}
    plainer = frame.cast({name: dtype for name, dtype in casts.items() if dtype != frame.schema[name]})
    # Of Arrow's younger types, such as views of text, Daft knows nothing.
    return plainer.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())


def plain(dtype: Any) -> pl.DataType:  # noqa: ANN401 - of Polars, which has classes and instances
    """Return the type that values have on their way to Daft, which has no enums and no arrays without width.

    Parameters
    ----------
    dtype : DataType
    """
    if isinstance(dtype, pl.Enum | pl.Categorical):
        return pl.String()
    if isinstance(dtype, pl.List):
        return pl.List(plain(dtype.inner))
    if isinstance(dtype, pl.Array):
        inner = plain(dtype.inner)
        return pl.Array(inner, dtype.size) if dtype.size else pl.List(inner)
    if isinstance(dtype, pl.Struct):
        return pl.Struct({field.name: plain(field.dtype) for field in dtype.fields})
    return instance(dtype)
