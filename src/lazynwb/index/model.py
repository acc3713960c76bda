"""The model of an index: manifest, parts, and the columns of its tables.

An index is a folder: `manifest.json`, and immutable files under names that are never used twice. The manifest
alone says which files are in force, so it is what is replaced when an index changes.
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

#: Format version: increased whenever readers of the version before cannot read a new index.
INDEX_VERSION = 1
FORMAT = "lazynwb-index"
MANIFEST = "manifest.json"
#: Sessions of one part.
MAX_SESSIONS = 4096

#: Tables that users read, and the catalogs' entries, which they do not.
Kind = Literal["sessions", "tables", "columns"]
KINDS: tuple[Kind, ...] = ("sessions", "tables", "columns")
ENTRIES = "entries"

#: The attribute of the root group that says which version of the schema a file follows.
VERSION = "nwb_version"
#: Values of the sessions that are attributes.
ATTRIBUTES = frozenset({*ATTRIBUTE_FIELDS, VERSION})

_Token = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
_ValueName = Annotated[str, msgspec.Meta(pattern=r"^tables=[A-Za-z0-9_.-]+/part-[0-9a-f]{32}\.parquet$")]
_ValueOrEntry = Annotated[
    str, msgspec.Meta(pattern=r"^tables=[A-Za-z0-9_.-]+/part-[0-9a-f]{32}\.(parquet|entry)$")
]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]

#: Columns of the tables on disk. What begins with an underscore is not for users.
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


class Value(msgspec.Struct, forbid_unknown_fields=True):
    """A column of the sessions that holds metadata.

    Attributes
    ----------
    column : str
        Name in the index.
    table, name : str
        Table of the file ("general" or "general/subject"), and the name there.
    dtype : Any
        See `dtype_of`.
    exact : bool
        Whether every session has it as its file does: what has no common type is text here, and what is
        large or cannot be read is missing.
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
        In the names of its files.
    sessions : int
    bytes : dict of str to int
        Sizes of its files, by kind.
    """

    token: _Token
    sessions: _Count
    bytes: dict[str, _Count]

    def file(self, kind: str) -> str:
        """Return the name of one of its files."""
        return file_of(kind, self.token)


class ValueFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A Parquet file with values of some sessions.

    Attributes
    ----------
    name : str
        Within the index.
    rows : int
    entry_bytes : int
        Size of its entry, which says whose rows these are: see `lazynwb.column_store.entries`.
    part : PartFile
        Where its column chunks are, with their checksums.
    """

    name: _ValueName
    rows: _Count
    entry_bytes: _Count
    part: PartFile

    @property
    def entry_name(self) -> str:
        """Name of its entry."""
        return self.name.removesuffix("parquet") + "entry"


class TableValues(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The small columns of one table, of all sessions that have it.

    Attributes
    ----------
    table : str
        Path, without the leading slash.
    files : tuple of ValueFile
        In the order of the sessions.
    schema : tuple of (str, Any)
        The columns with their types, the same in all files: see `dtype_of`.
    lacking : tuple of str
        Sessions whose rows are not there because they could not be read.
    """

    table: str
    files: tuple[ValueFile, ...]
    schema: tuple[tuple[str, Any], ...]
    lacking: tuple[str, ...] = ()

    @property
    def dtypes(self) -> dict[str, pl.DataType]:
        """The columns with their types."""
        return {name: dtype_of(described) for name, described in self.schema}


class Manifest(msgspec.Struct, frozen=True):
    """The current state of an index.

    Attributes
    ----------
    token : str
        Of this manifest alone.
    generation : int
        One more than that of the manifest before.
    made : str
        When, in ISO 8601.
    made_by : str
        The version of this package.
    external_links : str
        The setting under which links were followed.
    chunk_locations : bool or list of str
        Of which columns they were asked for.
    parts : tuple of Part
    values : tuple of Value
    superseded : tuple of str
        Tokens of parts that readers of the manifest before may still need: removed by the next update.
    values_of : bool or list of str
        Of which tables values were asked for.
    table_values : tuple of TableValues
    superseded_files : tuple of str
        Files of values that are removed as `superseded` is.
    """

    token: _Token
    generation: _Count
    made: str
    made_by: str
    external_links: Literal["folder", "anywhere", "never"]
    chunk_locations: bool | list[str]
    parts: tuple[Part, ...]
    values: tuple[Value, ...] = ()
    superseded: tuple[_Token, ...] = ()
    values_of: bool | list[str] = False
    table_values: tuple[TableValues, ...] = ()
    superseded_files: tuple[_ValueOrEntry, ...] = ()
    format: str = FORMAT
    version: int = INDEX_VERSION
    catalog_version: int = CATALOG_VERSION

    @property
    def sessions(self) -> int:
        """How many sessions there are."""
        return sum(part.sessions for part in self.parts)


class _Head(msgspec.Struct):
    format: str = ""
    version: int = 0


def file_of(kind: str, token: str) -> str:
    """Return the name of a part's file; entries are several Parquet files in one."""
    return f"{kind}-{token}.{'bin' if kind == ENTRIES else 'parquet'}"


def value_names(tables: Iterable[TableValues]) -> dict[str, None]:
    """Return the names of all files with values, and of their entries."""
    names = ((file.name, file.entry_name) for table in tables for file in table.files)
    return dict.fromkeys(name for pair in names for name in pair)


def encode(manifest: Manifest) -> bytes:
    """Return a manifest as JSON."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1)


def decode(data: bytes | memoryview, name: str) -> Manifest:
    """Return the manifest of an index.

    Raises
    ------
    LazyNWBError
        If it is none, or of a later version.
    """
    try:
        head = json_decoder(_Head).decode(data)
        if head.format != FORMAT:
            raise msgspec.ValidationError("it is of another format")
        if head.version > INDEX_VERSION:
            raise LazyNWBError(
                f"index {name} was made by a later version of lazynwb: upgrade lazynwb to read it"
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
#: Types within types: more than files have.
_MAX_DEPTH = 16


def described(dtype: pl.DataType) -> Any:  # noqa: ANN401 - JSON
    """Return a type as JSON: a name, or a list of a name and what it is made of; see `dtype_of`."""
    if isinstance(dtype, pl.List):
        return ["List", described(instance(dtype.inner))]
    if isinstance(dtype, pl.Array):
        return ["Array", described(instance(dtype.inner)), dtype.size]
    if isinstance(dtype, pl.Enum):
        return ["Enum", dtype.categories.to_list()]
    if isinstance(dtype, pl.Struct):
        return ["Struct", [[field.name, described(instance(field.dtype))] for field in dtype.fields]]
    name = type(dtype).__name__
    return name if name in _SCALARS else "Float32" if name == "Float16" else "String"


def dtype_of(found: Any, depth: int = 0) -> pl.DataType:  # noqa: ANN401 - JSON
    """Return the type that JSON describes.

    Raises
    ------
    CorruptDataError
        If it describes none.
    """
    match found:
        case str() if found in _SCALARS:
            return _SCALARS[found]()
        case ["List", inner] if depth < _MAX_DEPTH:
            return pl.List(dtype_of(inner, depth + 1))
        case ["Array", inner, int(size)] if depth < _MAX_DEPTH and 0 <= size < 2**32:
            return pl.Array(dtype_of(inner, depth + 1), size)
        case ["Enum", [*names]] if all(isinstance(name, str) for name in names):
            return pl.Enum(list(dict.fromkeys(names)))
        case ["Struct", [*fields]] if depth < _MAX_DEPTH and all(map(_is_field, fields)):
            return pl.Struct({name: dtype_of(inner, depth + 1) for name, inner in fields})
    raise CorruptDataError(
        f"the index names a type of metadata that does not exist: {str(found)[:80]}: rebuild it"
    )


def _is_field(found: Any) -> bool:  # noqa: ANN401 - JSON
    return isinstance(found, list) and len(found) == 2 and isinstance(found[0], str)  # noqa: PLR2004 - a pair


# -- metadata ---------------------------------------------------------------------------------------------


class Values:
    """The metadata that an index has: which columns, and their types over all sessions.

    Parameters
    ----------
    known : iterable of Value
    """

    def __init__(self, known: Iterable[Value] = ()) -> None:
        self._known: dict[tuple[str, str], Value] = {}
        self._dtypes: dict[tuple[str, str], pl.DataType] = {}
        taken = {*SESSIONS}
        for value in known:
            if value.column in taken or value.column.startswith("_"):
                raise CorruptDataError(f"the index has two columns {value.column!r} of metadata: rebuild it")
            taken.add(value.column)
            self._known[value.table, value.name] = value
            self._dtypes[value.table, value.name] = dtype_of(value.dtype)

    def __iter__(self) -> Any:  # noqa: ANN401 - an iterator over Value
        return iter(self._known.values())

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """The columns, with their types."""
        return {value.column: self._dtypes[key] for key, value in self._known.items()}

    def find(self, table: str, name: str) -> Value | None:
        """Return a column; None if there is none."""
        return self._known.get((table, name))

    def add(self, table: Literal["general", "general/subject"], name: str, dtype: pl.DataType) -> Value:
        """Merge the type of a session's value."""
        key = table, name
        value = self._known.get(key)
        if value is None:
            taken = {*SESSIONS, *(known.column for known in self)}
            column = name
            while column in taken or column.startswith("_"):
                column = f"{'subject' if table == 'general/subject' else 'session'}_{column.lstrip('_')}"
            value = self._known[key] = Value(column, table, name, described(dtype))
            self._dtypes[key] = dtype
        elif self._dtypes[key] != dtype:
            common = common_dtype(self._dtypes[key], dtype)
            if common is None:
                common, value.exact = pl.String(), False
            self._dtypes[key], value.dtype = common, described(common)
        return value

    def mark_inexact(self, table: Literal["general", "general/subject"], name: str) -> None:
        """Mark a column as lacking the value of a session."""
        self.add(table, name, pl.Null()).exact = False

    def as_published(self, column: str, series: pl.Series) -> pl.Series:
        """Return a part's values in the type of the whole index; as text where there is no common type."""
        value = next(value for value in self if value.column == column)
        dtype = self._dtypes[value.table, value.name]
        try:
            return conform(series, dtype, "the index")
        except LazyNWBError:
            value.exact = False
        if dtype == pl.String():
            return pl.Series(series.name, [_text(one) for one in series], dtype=pl.String)
        return series.cast(dtype, strict=False)


def _text(value: Any) -> str | None:  # noqa: ANN401 - whatever a file has
    if value is None or isinstance(value, str):
        return value
    return str(value.to_list() if isinstance(value, pl.Series) else value)
