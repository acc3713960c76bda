"""Merging of schemas of many files: common types, and casts of files that differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import polars as pl

from lazynwb.catalog.dtypes import column_dtype, instance
from lazynwb.errors import SchemaError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from lazynwb.catalog.model import Column, Table


class NamedTable(Protocol):
    """A table of one file with its name in messages.

    Attributes
    ----------
    name : str
        Name of the file in messages.
    table : Table
        Catalog of the table.
    columns : mapping of str to Column
        Columns by name.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def table(self) -> Table: ...  # noqa: D102

    @property
    def columns(self) -> Mapping[str, Column]: ...  # noqa: D102


_TEXT = (pl.String, pl.Enum)
#: Bits of the integers that a floating-point type represents exactly.
_FLOAT_DIGITS: dict[type[pl.DataType], int] = {pl.Float32: 24, pl.Float64: 53}


def merge_schemas(  # noqa: C901, PLR0913 - inputs, and outputs for problems
    files: Iterable[NamedTable],
    overrides: Mapping[str, pl.DataType],
    names: Collection[str] | None = None,
    conflicts: dict[str, str] | None = None,
    *,
    keep_first: bool = False,
    broken: dict[str, str] | None = None,
) -> dict[str, pl.DataType]:
    """Return the union of the files' columns, each with a type that represents the values of every file.

    Columns with an override have that type, whatever their types in the files. With `names` only these
    columns are merged. With `conflicts`, columns without a common type are left out and added to it with the
    message of the error. With `keep_first` they have the type of the first file.

    A column that could not be opened has the type that it has in other files: reading it is an error. If no
    file has a type for it, it is left out and added to `broken` with the reason.

    Raises
    ------
    SchemaError
        If the types of a column in two files have no common type; the message names both files, the
        remedy, and all other such columns.
    """
    found = conflicts if conflicts is not None else {}
    merged: dict[str, pl.DataType] = {}
    origin: dict[str, NamedTable] = {}
    lost: dict[str, tuple[NamedTable, Column]] = {}
    for file in files:
        for name, column in file.columns.items():
            if (names is not None and name not in names) or name in found:
                continue
            if column.is_broken:
                lost.setdefault(name, (file, column))
                continue
            # A column whose stored type has no counterpart raises an error only when it is read.
            dtype = column_dtype(column) or pl.Null()
            known = merged.get(name)
            if name in overrides:
                merged[name] = overrides[name]
            elif known is None:
                merged[name], origin[name] = dtype, file
            elif known != dtype:
                common = _common_of_files(known, origin[name], dtype, file)
                if common is not None:
                    merged[name], origin[name] = common
                elif conflicts is not None or not keep_first:
                    found[name] = _conflict(name, known, origin[name], dtype, file)
                    del merged[name]
    if found and conflicts is None:
        raise SchemaError(conflict_message(found))
    if broken is not None:
        broken |= {name: why_broken(*one) for name, one in lost.items() if name not in {*merged, *found}}
    return dict(sorted(merged.items()))


def _common_of_files(
    one: pl.DataType, first: NamedTable, other: pl.DataType, second: NamedTable
) -> tuple[pl.DataType, NamedTable] | None:
    """Return the common type of a column in two files, and the file that messages name; None without one."""
    common = common_dtype(one, other)
    if common is None and second.table.kind == "metadata":
        common = _scalar_and_list(one, other)
    if common is not None:
        return common, first
    # The type of an empty column does not matter.
    if not second.table.rows:
        return one, first
    return None if first.table.rows else (other, second)


def why_broken(file: NamedTable, column: Column) -> str:
    """Return why a column could not be opened, with the file and its table."""
    reason = column.data.dtype.note if column.data is not None else ""
    return f"{file.name}: /{file.table.path}: column {column.name!r} was left out: {reason}"


def conflict_message(conflicts: Mapping[str, str]) -> str:
    """Return the message about columns without a common type, by name: that of the first, and other names."""
    first, *others = conflicts
    more = f"; the same applies to {', '.join(map(repr, others))}" if others else ""
    return conflicts[first] + more


def _conflict(name: str, one: pl.DataType, first: NamedTable, other: pl.DataType, second: NamedTable) -> str:
    if first.table.path == second.table.path:
        where = f"of /{first.table.path} is {one} in {first.name} but {other} in {second.name}"
    else:
        where = (
            f"is {one} in /{first.table.path} of {first.name} but {other} in /{second.table.path} of "
            f"{second.name}"
        )
    return (
        f"column {name!r} {where}, and these have no common type: choose one with "
        f"schema_overrides={{{name!r}: ...}}, or leave out one of the files"
    )


def common_dtype(one: pl.DataType, other: pl.DataType) -> pl.DataType | None:
    """Return the narrowest type that represents the values of both types; None if there is none."""
    if one == other:
        return one
    if isinstance(one, pl.Null):
        return other
    if isinstance(other, pl.Null):
        return one
    if isinstance(one, _TEXT) and isinstance(other, _TEXT):
        return pl.String()
    if isinstance(one, pl.Struct) and isinstance(other, pl.Struct):
        return _common_struct(one, other)
    if isinstance(one, pl.List | pl.Array) and isinstance(other, pl.List | pl.Array):
        return _common_nested(one, other)
    for scalar, nested in ((one, other), (other, one)):
        if isinstance(scalar, _TEXT) and isinstance(nested, pl.List) and isinstance(nested.inner, _TEXT):
            return pl.List(pl.String())
    if one.is_numeric() and other.is_numeric():
        return _common_number(one, other)
    return None


def _scalar_and_list(one: pl.DataType, other: pl.DataType) -> pl.DataType | None:
    """Return the list type of a metadata field that is a scalar in some files and a list in others."""
    for scalar, nested in ((one, other), (other, one)):
        if isinstance(nested, pl.List) and not scalar.is_nested():
            inner = common_dtype(scalar, _element(nested))
            return None if inner is None else pl.List(inner)
    return None


def _common_struct(one: pl.Struct, other: pl.Struct) -> pl.DataType | None:
    fields = {field.name: field.dtype for field in one.fields}
    for field in other.fields:
        known = fields.get(field.name)
        common = common_dtype(instance(known), instance(field.dtype)) if known is not None else field.dtype
        if common is None:
            return None
        fields[field.name] = common
    return pl.Struct(fields)


def _common_nested(one: pl.List | pl.Array, other: pl.List | pl.Array) -> pl.DataType | None:
    if isinstance(one, pl.Array) and isinstance(other, pl.Array) and one.shape == other.shape:
        inner = common_dtype(_innermost(one), _innermost(other))
        return None if inner is None else pl.Array(inner, one.shape)
    inner = common_dtype(_element(one), _element(other))
    return None if inner is None else pl.List(inner)


def _element(dtype: pl.List | pl.Array) -> pl.DataType:
    return instance(dtype.inner)


def _innermost(dtype: pl.DataType) -> pl.DataType:
    while isinstance(dtype, pl.Array):
        dtype = instance(dtype.inner)
    return dtype


def _common_number(one: pl.DataType, other: pl.DataType) -> pl.DataType:
    series = pl.concat(
        [pl.Series([], dtype=one).to_frame("x"), pl.Series([], dtype=other).to_frame("x")],
        how="vertical_relaxed",
    )
    return series["x"].dtype


def conform(series: pl.Series, dtype: pl.DataType, origin: str | None) -> pl.Series:
    """Cast the rows of a file to the type in the schema of the scan.

    Parameters
    ----------
    series : Series
        Rows of one file.
    dtype : DataType
        Type in the schema.
    origin : str or None
        File that the type was taken from; None if the user chose the type, which permits any strict cast of
        Polars.

    Raises
    ------
    SchemaError
        If the cast would lose values.
    """
    if series.dtype == dtype:
        return series
    if isinstance(series.dtype, pl.Null):
        return nulls(series.name, dtype, len(series))
    if not len(series):
        return pl.Series(series.name, [], dtype=dtype)
    try:
        cast = _cast(series, dtype)
    except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
        reason = str(error).split("\n", 1)[0]
        raise SchemaError(_cast_error(series.dtype, dtype, origin, reason)) from None
    if origin is not None and not _is_lossless(series, cast):
        raise SchemaError(_cast_error(series.dtype, dtype, origin, "values would change"))
    return cast


def _cast_error(stored: pl.DataType, dtype: pl.DataType, origin: str | None, reason: str) -> str:
    if origin is None:
        return (
            f"stored as {stored}, which cannot be cast to the chosen {dtype} ({reason}): choose another type"
        )
    return (
        f"stored as {stored} but the scan's type is {dtype}, taken from {origin} ({reason}): infer the "
        "schema from all files (infer_schema_length=None), or choose a type with schema_overrides"
    )


def _cast(series: pl.Series, dtype: pl.DataType) -> pl.Series:
    # As an expression, because values inside of lists can only be cast by expressions.
    frame = series.rename("x").to_frame()
    return frame.select(_cast_expression(pl.col("x"), series.dtype, dtype)).to_series().alias(series.name)


def _cast_expression(value: pl.Expr, stored: pl.DataType, dtype: pl.DataType) -> pl.Expr:
    if stored == dtype:
        return value
    if isinstance(stored, pl.Struct) and isinstance(dtype, pl.Struct):
        own = {field.name: instance(field.dtype) for field in stored.fields}
        lost = own.keys() - {field.name for field in dtype.fields}
        if lost:
            raise ValueError(f"its fields {sorted(lost)} are not in the scan's type")
        parts = [
            _cast_expression(value.struct.field(field.name), own[field.name], instance(field.dtype)).alias(
                field.name
            )
            if field.name in own
            else pl.lit(None, dtype=field.dtype).alias(field.name)
            for field in dtype.fields
        ]
        # A struct of nulls is not null, and neither is a list of a null.
        return pl.when(value.is_not_null()).then(pl.struct(parts))
    if isinstance(dtype, pl.List) and isinstance(stored, pl.Array):
        value, stored = value.arr.to_list(), pl.List(_element(stored))
    if isinstance(dtype, pl.List) and isinstance(stored, pl.List) and instance(dtype.inner).is_nested():
        return value.list.eval(_cast_expression(pl.element(), instance(stored.inner), instance(dtype.inner)))
    if isinstance(dtype, pl.List) and not isinstance(stored, pl.List):
        return pl.when(value.is_not_null()).then(
            pl.concat_list(_cast_expression(value, stored, instance(dtype.inner)))
        )
    return value.cast(dtype)


def with_nulls_of(series: pl.Series, cast: pl.Series) -> pl.Series:
    """Restore nulls that a cast turned into lists of a null or structs of nulls."""
    if not series.null_count():
        return cast
    return pl.select(pl.when(series.is_not_null()).then(cast).alias(series.name)).to_series()


def nulls(name: str, dtype: pl.DataType, rows: int) -> pl.Series:
    """Return a column of nulls."""
    return pl.Series(name, [], dtype=dtype).clear(rows)


def _is_lossless(stored: pl.Series, cast: pl.Series) -> bool:
    """Return whether casting back restores every value."""
    one, other = stored.dtype, cast.dtype
    if one == other:
        return True
    if isinstance(one, pl.Struct):
        return isinstance(other, pl.Struct) and all(
            _is_lossless(stored.struct.field(field.name), cast.struct.field(field.name))
            for field in one.fields
        )
    if isinstance(other, pl.List | pl.Array):
        inner = stored.explode() if isinstance(one, pl.List | pl.Array) else stored
        return _is_lossless(inner, cast.explode())
    if isinstance(one, _TEXT):
        return isinstance(other, pl.String)
    if one == pl.Boolean:
        return other.is_numeric()
    if not (one.is_numeric() and other.is_numeric()):
        return False
    if _always_fits(one, other):
        return True
    back = cast.cast(one, strict=False)
    return bool(back.eq_missing(stored).all()) and cast.null_count() == stored.null_count()


def _always_fits(stored: pl.DataType, dtype: pl.DataType) -> bool:
    digits = _FLOAT_DIGITS.get(type(dtype))
    if stored.is_integer():
        bits = 8 * int(pl.Series([0], dtype=stored).to_numpy().itemsize)
        if digits:
            return bits - stored.is_signed_integer() <= digits
        return False
    return dtype == pl.Float64
