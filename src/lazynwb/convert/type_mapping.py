"""Mapping of column types to those of output formats.

| type | Parquet, Arrow | Delta Lake | DuckDB | CSV, Excel | JSON |
|---|---|---|---|---|---|
| integers | the same | unsigned ones widen; `UInt64` is `DECIMAL(20, 0)` | the same | text | numbers |
| `Float16` | the same | `float` | `FLOAT` | text | numbers |
| `Enum` | the same | `string` | `ENUM` | text | text |
| `Array` | the same | `array` | fixed-size `ARRAY`, lists beyond 2048 values | JSON text | lists |
| `List`, `Struct` | the same | `array`, `struct` | lists, `STRUCT` | JSON text | lists, objects |
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import polars as pl
from polars import selectors

from lazynwb.catalog.dtypes import instance

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_DELTA: dict[type[pl.DataType], pl.DataType] = {
    pl.UInt8: pl.Int16(),
    pl.UInt16: pl.Int32(),
    pl.UInt32: pl.Int64(),
    pl.UInt64: pl.Decimal(20, 0),
    pl.Enum: pl.String(),
}
_DUCKDB: dict[type[pl.DataType], pl.DataType] = {}
if hasattr(pl, "Float16"):
    _DELTA[pl.Float16] = _DUCKDB[pl.Float16] = pl.Float32()
_DUCKDB_NAMES: dict[type[pl.DataType], str] = {
    pl.Boolean: "BOOLEAN",
    pl.Int8: "TINYINT",
    pl.Int16: "SMALLINT",
    pl.Int32: "INTEGER",
    pl.Int64: "BIGINT",
    pl.UInt8: "UTINYINT",
    pl.UInt16: "USMALLINT",
    pl.UInt32: "UINTEGER",
    pl.UInt64: "UBIGINT",
    pl.Float32: "FLOAT",
    pl.Float64: "DOUBLE",
    pl.String: "VARCHAR",
}
#: Maximum size of a fixed-size array: DuckDB allocates 2048 of them, however few rows there are.
_DUCKDB_ARRAY = 2048
_KEY = "v"


def for_delta(dtype: pl.DataType) -> pl.DataType:
    """Return the type of a column in Delta Lake."""
    return _mapped(dtype, _DELTA, arrays=False)


def for_duckdb(dtype: pl.DataType) -> pl.DataType:
    """Return the type of the rows that DuckDB reads for a column."""
    return _mapped(dtype, _DUCKDB, arrays=True)


def _mapped(
    dtype: pl.DataType, scalars: Mapping[type[pl.DataType], pl.DataType], *, arrays: bool
) -> pl.DataType:
    if isinstance(dtype, pl.Array) and math.prod(dtype.shape) > _DUCKDB_ARRAY:
        arrays = False
    if isinstance(dtype, pl.List):
        return pl.List(_mapped(instance(dtype.inner), scalars, arrays=arrays))
    if isinstance(dtype, pl.Array):
        inner = _mapped(instance(dtype.inner), scalars, arrays=arrays)
        return pl.Array(inner, dtype.size) if arrays and dtype.size else pl.List(inner)
    if isinstance(dtype, pl.Struct):
        return pl.Struct({f.name: _mapped(instance(f.dtype), scalars, arrays=arrays) for f in dtype.fields})
    return scalars.get(type(dtype), dtype)


def duckdb_type(dtype: pl.DataType) -> str:
    """Return the type of a column in SQL of DuckDB."""
    if isinstance(dtype, pl.Enum):
        return f"ENUM({', '.join(map(literal, dtype.categories))})"
    if isinstance(dtype, pl.Array):
        return f"{duckdb_type(instance(dtype.inner))}[{dtype.size}]"
    if isinstance(dtype, pl.List):
        return f"{duckdb_type(instance(dtype.inner))}[]"
    if isinstance(dtype, pl.Struct):
        return (
            f"STRUCT({', '.join(f'{quoted(f.name)} {duckdb_type(instance(f.dtype))}' for f in dtype.fields)})"
        )
    return _DUCKDB_NAMES[type(dtype)]


def quoted(name: str) -> str:
    """Return a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a string as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def cast(
    frame: pl.LazyFrame, schema: Mapping[str, pl.DataType], to: Callable[[pl.DataType], pl.DataType]
) -> pl.LazyFrame:
    """Cast columns to the types of a format, without changing values."""
    # By selectors, because `pl.col` interprets "*" and "^...$" as patterns.
    return frame.with_columns(
        selectors.by_name(name).cast(to(dtype)) for name, dtype in schema.items() if to(dtype) != dtype
    )


def as_text(frame: pl.LazyFrame, schema: Mapping[str, pl.DataType]) -> pl.LazyFrame:
    """Convert arrays, lists and structs to JSON text; null stays null."""
    return frame.with_columns(_json(name) for name, dtype in schema.items() if dtype.is_nested())


def _json(name: str) -> pl.Expr:
    column = selectors.by_name(name).as_expr()
    wrapped = pl.struct(column.alias(_KEY)).struct.json_encode()
    text = wrapped.str.strip_prefix(f'{{"{_KEY}":').str.strip_suffix("}")
    return pl.when(column.is_not_null()).then(text).alias(name)


def distinct_ignoring_case(names: list[str]) -> dict[str, str]:
    """Return new names for names that differ from an earlier one only in case."""
    taken = {name.lower() for name in names}
    seen: set[str] = set()
    renamed = {}
    for name in names:
        if name.lower() in seen:
            number = 2
            while f"{name}_{number}".lower() in taken:
                number += 1
            renamed[name] = f"{name}_{number}"
            taken.add(renamed[name].lower())
        seen.add(name.lower())
    return renamed
