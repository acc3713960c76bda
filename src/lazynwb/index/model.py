"""The model of an index: manifest, parts, and the columns of its tables.

An index is a folder with `manifest.json` and immutable files whose names are never reused. The manifest lists
the current files. An update of the index replaces the manifest atomically.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import polars as pl

from lazynwb.catalog.dtypes import instance
from lazynwb.catalog.merge import common_dtype, conform
from lazynwb.catalog.model import CATALOG_VERSION
from lazynwb.column_store.parts import PartFile  # noqa: TC001 - decoded
from lazynwb.errors import CorruptDataError, LazyNWBError
from lazynwb.formats.nwb.names import ATTRIBUTE_FIELDS
from lazynwb.struct_decoders import json_decoder

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Format version, which is increased by changes that previous readers cannot read.
INDEX_VERSION = 1
FORMAT = "lazynwb-index"
MANIFEST = "manifest.json"
#: Maximum number of sessions in a part.
MAX_SESSIONS = 4096

#: Public tables, and the internal file of catalog entries.
Kind = Literal["sessions", "tables", "columns"]
KINDS: tuple[Kind, ...] = ("sessions", "tables", "columns")
ENTRIES = "entries"

#: The attribute of the root group with the version of the NWB schema.
VERSION = "nwb_version"
#: Metadata of sessions that are stored as attributes.
ATTRIBUTES = frozenset({*ATTRIBUTE_FIELDS, VERSION})

_Token = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
_ValueName = Annotated[str, msgspec.Meta(pattern=r"^tables=[A-Za-z0-9_.-]+/part-[0-9a-f]{32}\.parquet$")]
_ValueOrEntry = Annotated[
    str, msgspec.Meta(pattern=r"^tables=[A-Za-z0-9_.-]+/part-[0-9a-f]{32}\.(parquet|entry)$")
]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]

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


class MetadataColumn(msgspec.Struct, forbid_unknown_fields=True):
    """A column of session metadata.

    Attributes
    ----------
    column : str
        Name in the index.
    table, name : str
        Table of the file ("general" or "general/subject"), and the name in this table.
    dtype : Any
        Type as JSON; see `decode_dtype`.
    exact : bool
        Whether the values of all sessions equal those of the files. Values without a common type are
        converted to text, and large or unreadable values are missing.
    """

    column: str
    table: Literal["general", "general/subject"]
    name: str
    dtype: Any
    exact: bool = True


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Some sessions, with their catalogs.

    Attributes
    ----------
    token : str
        Unique part of the names of its files.
    sessions : int
        Number of sessions.
    bytes : dict of str to int
        Sizes of its files, by kind.
    """

    token: _Token
    sessions: _Count
    bytes: dict[str, _Count]

    def file(self, kind: str) -> str:
        """Return the name of the file of a kind."""
        return part_file_name(kind, self.token)


class ValueFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A Parquet file with values of some sessions.

    Attributes
    ----------
    name : str
        Path relative to the index.
    rows : int
        Number of rows.
    entry_bytes : int
        Size of its entry, which maps rows to sessions; see `lazynwb.column_store.entries`.
    part : PartFile
        Locations and checksums of its column chunks.
    """

    name: _ValueName
    rows: _Count
    entry_bytes: _Count
    part: PartFile

    @property
    def entry_name(self) -> str:
        """Name of the file of its entry."""
        return self.name.removesuffix("parquet") + "entry"


class TableValues(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The small columns of one table of all sessions that have it.

    Attributes
    ----------
    table : str
        Path without the leading slash.
    files : tuple of ValueFile
        Files in the order of the sessions.
    schema : tuple of (str, Any)
        Names and types of the columns, which are equal in all files; see `decode_dtype`.
    lacking : tuple of str
        Sessions whose rows are missing because they could not be read.
    """

    table: str
    files: tuple[ValueFile, ...]
    schema: tuple[tuple[str, Any], ...]
    lacking: tuple[str, ...] = ()

    @property
    def dtypes(self) -> dict[str, pl.DataType]:
        """The columns with their types."""
        return {name: decode_dtype(encode_dtype) for name, encode_dtype in self.schema}


class Manifest(msgspec.Struct, frozen=True):
    """The current state of an index.

    Attributes
    ----------
    token : str
        Unique identifier of the manifest.
    generation : int
        Number of the manifest: one more than that of the previous manifest.
    made : str
        Time of creation, in ISO 8601.
    made_by : str
        Version of this package.
    external_links : str
        Value of `config.external_links` during the build.
    chunk_locations : bool or list of str
        Columns whose chunk locations were requested.
    parts : tuple of Part
    values : tuple of MetadataColumn
    superseded : tuple of str
        Tokens of parts that readers of the previous manifest may still need, which the next update removes.
    values_of : bool or list of str
        Tables whose values were requested.
    table_values : tuple of TableValues
    superseded_files : tuple of str
        Value files that are removed together with `superseded`.
    """

    token: _Token
    generation: _Count
    made: str
    made_by: str
    external_links: Literal["folder", "anywhere", "never"]
    chunk_locations: bool | list[str]
    parts: tuple[Part, ...]
    values: tuple[MetadataColumn, ...] = ()
    superseded: tuple[_Token, ...] = ()
    values_of: bool | list[str] = False
    table_values: tuple[TableValues, ...] = ()
    superseded_files: tuple[_ValueOrEntry, ...] = ()
    format: str = FORMAT
    version: int = INDEX_VERSION
    catalog_version: int = CATALOG_VERSION

    @property
    def sessions(self) -> int:
        """The number of sessions."""
        return sum(part.sessions for part in self.parts)


class _Head(msgspec.Struct):
    format: str = ""
    version: int = 0


def part_file_name(kind: str, token: str) -> str:
    """Return the name of a file of a part; the file of entries contains several Parquet files."""
    return f"{kind}-{token}.{'bin' if kind == ENTRIES else 'parquet'}"


def value_names(tables: Iterable[TableValues]) -> dict[str, None]:
    """Return the names of all value files, and of their entries."""
    names = ((file.name, file.entry_name) for table in tables for file in table.files)
    return dict.fromkeys(name for pair in names for name in pair)


def encode_manifest(manifest: Manifest) -> bytes:
    """Return a manifest as JSON."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1)


def decode_manifest(data: bytes | memoryview, name: str) -> Manifest:
    """Decode the manifest of an index.

    Raises
    ------
    LazyNWBError
        If the manifest is invalid, or of a later version.
    """
    try:
        head = json_decoder(_Head).decode(data)
        if head.format != FORMAT:
            raise msgspec.ValidationError("unknown format")
        if head.version > INDEX_VERSION:
            raise LazyNWBError(
                f"index {name} was built by a later version of lazynwb: upgrade lazynwb to read it"
            )
        return json_decoder(Manifest).decode(data)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise CorruptDataError(
            f"{name} is not an index of sessions, or is damaged ({MANIFEST}: {error}): pass the folder that "
            "lazynwb.build_index wrote, or rebuild it"
        ) from None


# -- types ------------------------------------------------------------------------------------------------

_SCALARS: dict[str, type[pl.DataType]] = {
    kind.__name__: kind
    for kind in (
        *(pl.String, pl.Boolean, pl.Null, pl.Float32, pl.Float64, pl.Int8, pl.Int16, pl.Int32, pl.Int64),
        *(pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64),
    )
}
#: Maximum nesting of types.
_MAX_DEPTH = 16


def encode_dtype(dtype: pl.DataType) -> Any:  # noqa: ANN401 - JSON
    """Encode a type as JSON: a name, or a list of a name and inner types; see `decode_dtype`."""
    if isinstance(dtype, pl.List):
        return ["List", encode_dtype(instance(dtype.inner))]
    if isinstance(dtype, pl.Array):
        return ["Array", encode_dtype(instance(dtype.inner)), dtype.size]
    if isinstance(dtype, pl.Enum):
        return ["Enum", dtype.categories.to_list()]
    if isinstance(dtype, pl.Struct):
        return ["Struct", [[field.name, encode_dtype(instance(field.dtype))] for field in dtype.fields]]
    name = type(dtype).__name__
    return name if name in _SCALARS else "Float32" if name == "Float16" else "String"


def decode_dtype(found: Any, depth: int = 0) -> pl.DataType:  # noqa: ANN401 - JSON
    """Decode a type from JSON.

    Raises
    ------
    CorruptDataError
        If the JSON is not a valid type.
    """
    match found:
        case str() if found in _SCALARS:
            return _SCALARS[found]()
        case ["List", inner] if depth < _MAX_DEPTH:
            return pl.List(decode_dtype(inner, depth + 1))
        case ["Array", inner, int(size)] if depth < _MAX_DEPTH and 0 <= size < 2**32:
            return pl.Array(decode_dtype(inner, depth + 1), size)
        case ["Enum", [*names]] if all(isinstance(name, str) for name in names):
            return pl.Enum(list(dict.fromkeys(names)))
        case ["Struct", [*fields]] if depth < _MAX_DEPTH and all(map(_is_field, fields)):
            return pl.Struct({name: decode_dtype(inner, depth + 1) for name, inner in fields})
    raise CorruptDataError(
        f"the index has an unknown type of metadata {str(found)[:80]}: rebuild it with lazynwb.build_index"
    )


def _is_field(found: Any) -> bool:  # noqa: ANN401 - JSON
    return isinstance(found, list) and len(found) == 2 and isinstance(found[0], str)  # noqa: PLR2004 - a pair


# -- metadata ---------------------------------------------------------------------------------------------


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
