"""The tables of an index, and the columns of session metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from lazynwb.catalog.merge import common_dtype, conform
from lazynwb.errors import CorruptDataError, LazyNWBError
from lazynwb.formats.nwb.names import ATTRIBUTE_FIELDS
from lazynwb.index.manifest import MetadataColumn, decode_dtype, encode_dtype

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Maximum number of sessions in a part.
MAX_SESSIONS = 4096

#: Public tables.
Kind = Literal["sessions", "tables", "columns"]
KINDS: tuple[Kind, ...] = ("sessions", "tables", "columns")

#: The attribute of the root group with the version of the NWB schema.
VERSION = "nwb_version"
#: Metadata of sessions that are stored as attributes.
ATTRIBUTES = frozenset({*ATTRIBUTE_FIELDS, VERSION})

#: Columns of the tables on disk. A leading underscore marks internal columns.
SESSIONS: dict[str, pl.DataType] = {
    "path": pl.String(),
    "identity": pl.String(),
    "size": pl.Int64(),
    "tables": pl.UInt32(),
    "problem": pl.String(),
    "_links": pl.List(pl.String()),
}
TABLES: dict[str, pl.DataType] = {
    "path": pl.String(),
    "table": pl.String(),
    "kind": pl.String(),
    "neurodata_type": pl.String(),
    "rows": pl.Int64(),
    "columns": pl.UInt32(),
    "problem": pl.String(),
    "_fingerprint": pl.UInt64(),
    "_offset": pl.Int64(),
    "_size": pl.Int64(),
    "_row": pl.Int64(),
}
COLUMNS: dict[str, pl.DataType] = {
    "path": pl.String(),
    "table": pl.String(),
    "column": pl.String(),
    "dtype": pl.String(),
    "ragged": pl.UInt8(),
    "rows": pl.Int64(),
    "shape": pl.List(pl.Int64()),
    "bytes": pl.Int64(),
    "layout": pl.String(),
    "codecs": pl.List(pl.String()),
    "start": pl.Float64(),
    "rate": pl.Float64(),
}
SCHEMAS: dict[Kind, dict[str, pl.DataType]] = {"sessions": SESSIONS, "tables": TABLES, "columns": COLUMNS}


class MetadataColumns:
    """The columns of session metadata of an index, with their types over all sessions.

    Parameters
    ----------
    known : iterable of MetadataColumn
    """

    def __init__(self, known: Iterable[MetadataColumn] = ()) -> None:
        self._known: dict[tuple[str, str], MetadataColumn] = {}
        self._dtypes: dict[tuple[str, str], pl.DataType] = {}
        taken = {*SESSIONS}
        for value in known:
            if value.column in taken or value.column.startswith("_"):
                raise CorruptDataError(
                    f"the index has two columns {value.column!r} of metadata: rebuild it with "
                    "lazynwb.build_index"
                )
            taken.add(value.column)
            self._known[value.table, value.name] = value
            self._dtypes[value.table, value.name] = decode_dtype(value.dtype)

    def __iter__(self) -> Any:  # noqa: ANN401 - an iterator over MetadataColumn
        return iter(self._known.values())

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """The columns, with their types."""
        return {value.column: self._dtypes[key] for key, value in self._known.items()}

    def find(self, table: str, name: str) -> MetadataColumn | None:
        """Return a column; None if it does not exist."""
        return self._known.get((table, name))

    def add(
        self, table: Literal["general", "general/subject"], name: str, dtype: pl.DataType
    ) -> MetadataColumn:
        """Merge the type of a session's value."""
        key = table, name
        value = self._known.get(key)
        if value is None:
            taken = {*SESSIONS, *(known.column for known in self)}
            column = name
            while column in taken or column.startswith("_"):
                column = f"{'subject' if table == 'general/subject' else 'session'}_{column.lstrip('_')}"
            value = self._known[key] = MetadataColumn(column, table, name, encode_dtype(dtype))
            self._dtypes[key] = dtype
        elif self._dtypes[key] != dtype:
            common = common_dtype(self._dtypes[key], dtype)
            if common is None:
                common, value.exact = pl.String(), False
            self._dtypes[key], value.dtype = common, encode_dtype(common)
        return value

    def mark_inexact(self, table: Literal["general", "general/subject"], name: str) -> None:
        """Mark a column that lacks the value of a session."""
        self.add(table, name, pl.Null()).exact = False

    def as_published(self, column: str, series: pl.Series) -> pl.Series:
        """Return a part's values in the merged type of the index (text, if types have no common type)."""
        value = next(value for value in self if value.column == column)
        dtype = self._dtypes[value.table, value.name]
        try:
            return conform(series, dtype, "the index")
        except LazyNWBError:
            value.exact = False
        if dtype == pl.String():
            return pl.Series(series.name, [_value_as_text(one) for one in series], dtype=pl.String)
        return series.cast(dtype, strict=False)


def _value_as_text(value: Any) -> str | None:  # noqa: ANN401 - any stored value
    if value is None or isinstance(value, str):
        return value
    return str(value.to_list() if isinstance(value, pl.Series) else value)
