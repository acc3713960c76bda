"""Mapping of stored types to Polars types, and the provenance columns of every scan."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import polars as pl

from lazynwb.catalog.lengths import LENGTH
from lazynwb.errors import UnsupportedTypeError

if TYPE_CHECKING:
    from lazynwb.catalog.model import Column, DType

NWB_PATH = "_nwb_path"
TABLE_PATH = "_table_path"
TABLE_INDEX = "_table_index"
INTERNAL: dict[str, pl.DataType] = {
    NWB_PATH: pl.String(),
    TABLE_PATH: pl.String(),
    TABLE_INDEX: pl.UInt32(),
}
INTERNAL_COLUMN_NAMES = frozenset(INTERNAL)
#: A hidden column for counting rows: Polars projects the first column of a source, or the one of the smallest
#: type. This column is both, and needs no file access.
ROWS = "_lazynwb_rows"
RESERVED = frozenset({*INTERNAL, ROWS})


_HALF: type[pl.DataType] = getattr(pl, "Float16", pl.Float32)
_NUMBERS: dict[str, type[pl.DataType]] = {
    "i1": pl.Int8,
    "i2": pl.Int16,
    "i4": pl.Int32,
    "i8": pl.Int64,
    "u1": pl.UInt8,
    "u2": pl.UInt16,
    "u4": pl.UInt32,
    "u8": pl.UInt64,
    "f2": _HALF,
    "f4": pl.Float32,
    "f8": pl.Float64,
}
_COMPLEX: dict[str, type[pl.DataType]] = {"c8": pl.Float32, "c16": pl.Float64}


def element_dtype(dtype: DType) -> pl.DataType:
    """Return the Polars type of one stored element, without the dimensions of an array type.

    Raises
    ------
    UnsupportedTypeError
        If the type has no counterpart; the message names the type.
    """
    kind = dtype.kind
    if kind == "number":
        code = dtype.numpy[1:]
        if code in _COMPLEX:
            return pl.Struct({"re": _COMPLEX[code](), "im": _COMPLEX[code]()})
        return _NUMBERS[code]()
    if kind == "bool":
        return pl.Boolean()
    if kind in {"text", "vlen_text", "reference"}:
        return pl.String()
    if kind == "enum":
        return pl.Enum(list(dict.fromkeys(name for name, _ in sorted(dtype.members, key=_value))))
    if kind == "compound":
        return pl.Struct(
            {field.name: array_dtype(element_dtype(field.dtype), field.dtype.dims) for field in dtype.fields}
        )
    if kind == "vlen" and dtype.base is not None:
        return pl.List(element_dtype(dtype.base))
    raise UnsupportedTypeError(f"stored as {dtype.note}")


def _value(member: tuple[str, int]) -> int:
    return member[1]


def array_dtype(inner: pl.DataType, dims: tuple[int, ...]) -> pl.DataType:
    """Wrap a type in an `Array` of the given dimensions."""
    return pl.Array(inner, dims) if dims else inner


@lru_cache(maxsize=8192)
def column_dtype(column: Column) -> pl.DataType | None:
    """Return the Polars type of a column; None if its stored type has no counterpart."""
    dtype = _stored_dtype(column)
    return LENGTH if column.lengths and dtype is not None else dtype


def _stored_dtype(column: Column) -> pl.DataType | None:
    if column.regular is not None:
        return pl.Float64()
    if column.children is not None:
        parts = {child.name: column_dtype(child) for child in column.children}
        known = {name: dtype for name, dtype in parts.items() if dtype is not None}
        return pl.Struct(known) if known else None
    data = column.data
    if data is None or data.dtype.kind in {"unsupported", "broken"}:
        return None
    inner = pl.Int64() if column.region else element_dtype(data.dtype)
    dtype = array_dtype(inner, column.dims)
    for _ in range(len(column.indices) + column.whole):
        dtype = pl.List(dtype)
    return dtype


def instance(dtype: object) -> pl.DataType:
    """Return a type as an instance: users write `pl.Int64`, schemas contain `pl.Int64()`."""
    return dtype() if isinstance(dtype, type) else dtype  # type: ignore[return-value]


def is_array_dtype(dtype: pl.DataType) -> bool:
    """Return whether each row of a column of this type is a list or an array."""
    return isinstance(dtype, pl.List | pl.Array)
