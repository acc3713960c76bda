"""The manifest of an index, which lists its files.

An index is a folder with `manifest.json` and immutable files whose names are never reused. An update of the
index replaces the manifest atomically.
"""

# The annotations are evaluated here, once: msgspec would compile each of them for a decoder.

from collections.abc import Container, Iterable
from typing import Annotated, Any, Literal

import msgspec
import polars as pl

from lazynwb.catalog.dtypes import instance
from lazynwb.catalog.model import CATALOG_VERSION
from lazynwb.column_store.parts import PartFile
from lazynwb.errors import CorruptDataError, LazyNWBError, SourceNotFoundError
from lazynwb.index.location import Folder
from lazynwb.struct_decoders import json_decoder

#: Format version, which is increased by changes that previous readers cannot read.
INDEX_VERSION = 1
FORMAT: Literal["lazynwb-index"] = "lazynwb-index"
MANIFEST = "manifest.json"
#: The internal file of catalog entries of a part.
ENTRIES = "entries"

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
#: Tokens, and the characters of folders of values: checked without regular expressions, which take longer to
#: compile than a manifest to decode.
_TOKEN_CHARACTERS = 32
_HEXADECIMAL = "0123456789abcdef"
_PLACE = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-"


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

    token: str
    sessions: _Count
    bytes: dict[str, _Count]

    def __post_init__(self) -> None:
        """Raise ValueError if a name is invalid."""
        _check_names(self.token)

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

    name: str
    rows: _Count
    entry_bytes: _Count
    part: PartFile

    def __post_init__(self) -> None:
        """Raise ValueError if the name is invalid."""
        _check_value_name(self.name, ("parquet",))

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
        return {name: decode_dtype(encoded) for name, encoded in self.schema}


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

    token: str
    generation: _Count
    made: str
    made_by: str
    external_links: Literal["folder", "anywhere", "never"]
    chunk_locations: bool | list[str]
    parts: tuple[Part, ...]
    values: tuple[MetadataColumn, ...] = ()
    superseded: tuple[str, ...] = ()
    values_of: bool | list[str] = False
    table_values: tuple[TableValues, ...] = ()
    superseded_files: tuple[str, ...] = ()
    format: Literal["lazynwb-index"] = FORMAT
    version: int = INDEX_VERSION
    catalog_version: int = CATALOG_VERSION

    def __post_init__(self) -> None:
        """Raise ValueError if a name is invalid."""
        _check_names(self.token, *self.superseded)
        for name in self.superseded_files:
            _check_value_name(name, ("parquet", "entry"))

    @property
    def sessions(self) -> int:
        """The number of sessions."""
        return sum(part.sessions for part in self.parts)


class _Head(msgspec.Struct):
    format: Literal["lazynwb-index"]
    version: int


def _check_names(*tokens: str) -> None:
    """Raise ValueError unless tokens can be parts of names of files."""
    for token in tokens:
        if len(token) != _TOKEN_CHARACTERS or token.strip(_HEXADECIMAL):
            raise ValueError(f"{token[:80]!r} is not a token")


def _check_value_name(name: str, suffixes: Container[str]) -> None:
    """Raise ValueError unless a name is that of a value file or of its entry, inside the folder."""
    folder, _, file = name.partition("/")
    kind, _, place = folder.partition("=")
    part, _, token_and_suffix = file.partition("-")
    token, _, suffix = token_and_suffix.partition(".")
    if kind != "tables" or part != "part" or not place or suffix not in suffixes or place.strip(_PLACE):
        raise ValueError(f"{name[:80]!r} is not the name of a value file")
    _check_names(token)


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


def read_manifest(folder: Folder) -> Manifest:
    """Read the manifest of an index.

    Raises
    ------
    SourceNotFoundError
        If there is none.
    LazyNWBError
        If it is invalid, or of a later version.
    """
    found = folder.find(MANIFEST)
    if found is None:
        raise SourceNotFoundError(
            f"no index of sessions in {folder.name}: build it with lazynwb.build_index or lazynwb index build"
        )
    return decode_manifest(found.data, folder.name)


def decode_manifest(data: bytes | memoryview, name: str) -> Manifest:
    """Decode the manifest of an index.

    Raises
    ------
    LazyNWBError
        If the manifest is invalid, or of a later version.
    """
    try:
        manifest = json_decoder(Manifest).decode(data)
        if manifest.version <= INDEX_VERSION:
            return manifest
    except (msgspec.MsgspecError, RecursionError) as error:
        reason = str(error)
        try:
            is_later = json_decoder(_Head).decode(data).version > INDEX_VERSION
        except (msgspec.MsgspecError, RecursionError):
            is_later = False
        if not is_later:
            raise CorruptDataError(
                f"{name} is not an index of sessions, or is damaged ({MANIFEST}: {reason}): pass the folder "
                "that lazynwb.build_index wrote, or rebuild it"
            ) from None
    raise LazyNWBError(f"index {name} was built by a later version of lazynwb: upgrade lazynwb to read it")


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
