"""Source records: the catalog and metadata of one source in an index, created near the source."""

from __future__ import annotations

import math
import time
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import polars as pl

from lazynwb.arrays.row_selection import Handles, Part
from lazynwb.catalog.dtypes import RESERVED, column_dtype
from lazynwb.catalog.model import ChunkIndex, DType, Table, arrays_of, stored_size
from lazynwb.engine.columns import read_columns
from lazynwb.errors import LazyNWBError, MissingPackageError, SourceNotFoundError
from lazynwb.formats.nwb.names import ATTRIBUTE_FIELDS, GENERAL
from lazynwb.formats.nwb.tables import METADATA_PATHS
from lazynwb.formats.registry import is_zarr, open_reader
from lazynwb.index.model import VERSION
from lazynwb.lookup.catalog_cache import get_version
from lazynwb.lookup.loader import PARTIAL_LISTING, Entry, TableFile, entry_key
from lazynwb.storage.remote_state import prefetch
from lazynwb.storage.source import UNREACHABLE
from lazynwb.threads import Pool

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from lazynwb.catalog.model import Array, Column, Listing
    from lazynwb.catalog.zone_map import ZoneMap
    from lazynwb.formats.registry import Reader
    from lazynwb.storage.source import Source

#: Larger chunk indices are not stored: scans look up the chunks in the file.
_MAX_INDEX_BYTES = 4 * 1024 * 1024
#: Larger metadata values are left out, because they are not searched.
_MAX_VALUE_BYTES = 16 * 1024
#: Maximum wait, in seconds, until a change of a recently written local file is certain to be detected.
_MAX_WAIT = 3.0
#: Number of sources that are described concurrently; most of the time is spent waiting for servers.
_CONCURRENT_SOURCES = 32
POOL = Pool("index", lambda: _CONCURRENT_SOURCES)

ENCODER = msgspec.msgpack.Encoder()


class TableRecord(msgspec.Struct, array_like=True, gc=False):
    """One table of a source.

    Attributes
    ----------
    path, neurodata_type : str
    table : Table or None
        None if the table cannot be read.
    problem : str
        The error, or repaired problems.
    entry : bytes
        Catalog entry, with the requested chunk locations.
    """

    path: str
    neurodata_type: str = ""
    table: Table | None = None
    problem: str = ""
    entry: bytes = b""


class SourceRecord(msgspec.Struct, array_like=True, gc=False):
    """The record of one source in an index.

    Attributes
    ----------
    path : str
        Path or URL without credentials.
    identity : str or None
        None if the record is not a valid catalog: the source cannot be read, or changes may be undetected.
    size : int or None
        Size of the file.
    problem : str or None
        The error, or the reason why the record is not a valid catalog.
    links : list of str
        Groups that may contain unlisted objects.
    tables : list of TableRecord
    values : dict of str to bytes
        A row of metadata for each existing table of `METADATA_PATHS`, as Arrow IPC.
    lost : list of (table, name)
        Metadata that is left out because it is large or unreadable.
    vanished : bool
        Whether the source does not exist.
    """

    path: str
    identity: str | None = None
    size: int | None = None
    problem: str | None = None
    links: list[str] = []
    tables: list[TableRecord] = []
    values: dict[str, bytes] = {}
    lost: list[tuple[str, str]] = []
    vanished: bool = False


class ChunkLocationRequest(NamedTuple):
    """Columns whose chunk locations are stored: all, none, or by name ("spike_times", "units/id")."""

    everything: bool
    names: frozenset[str]

    @classmethod
    def of(cls, given: bool | Iterable[str]) -> ChunkLocationRequest:  # noqa: FBT001 - a public parameter
        """Return the request for the parameter `chunk_locations` of `build_index`."""
        if isinstance(given, bool):
            return cls(given, frozenset())
        return cls(everything=False, names=frozenset([given] if isinstance(given, str) else given))

    def includes(self, table: str, column: str) -> bool:
        """Return whether the chunk locations of a column are requested."""
        return (
            self.everything
            or column in self.names
            or f"{table}/{column}" in {name.strip("/") for name in self.names}
        )


def index_sources(sources: Collection[Source], locations: ChunkLocationRequest) -> list[SourceRecord]:
    """Return the records of sources; if any of them is remote, they are read concurrently."""
    prefetch(sources)
    if any(source.is_remote for source in sources):
        return POOL.map(lambda source: index_source(source, locations), sources)
    return [index_source(source, locations) for source in sources]


def index_source(source: Source, locations: ChunkLocationRequest) -> SourceRecord:
    """Return the record of one source, or of the error if it cannot be read."""
    path = source.public
    try:
        now = source.identity()
        found = _create_record(source, now, locations)
        source.verify(now)
        if found.identity is not None and not _wait_until_settled(source, now):
            found.identity = None
            found.problem = (
                "changes could be undetected, because its store has no versions or it was just written; "
                "queries read its structure again"
            )
    except SourceNotFoundError as error:
        return SourceRecord(path, problem=str(error), vanished=True)
    except MissingPackageError:
        raise
    except LazyNWBError as error:
        return SourceRecord(path, problem=str(error))
    return found


def _wait_until_settled(source: Source, now: str) -> bool:
    """Return whether any later write is certain to change the identity, after a wait for new local files."""
    deadline = time.monotonic() + _MAX_WAIT
    while not source.is_settled(now, time.time_ns()):
        if source.is_remote or time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    source.verify(now)
    return True


def _create_record(source: Source, now: str, locations: ChunkLocationRequest) -> SourceRecord:
    found = SourceRecord(source.public, now, file_size(now))
    metadata_tables: dict[str, TableFile] = {}
    with open_reader(source, now) as reader:
        listing = reader.list_objects()
        found.links = _incompletely_listed(source, listing)
        types = {e.path.lstrip("/"): e.neurodata_type for e in listing.entries if e.kind == "group"}
        for path in listing.tables():
            one, file = _table_record(reader, source, path, now, locations)
            one.neurodata_type = types.get(path, "")
            found.tables.append(one)
            if path in METADATA_PATHS and file is not None:
                metadata_tables[path] = file
        attributes = _attributes(reader, metadata_tables)
    if not found.tables:
        found.problem = "it has no tables"
    if listing.is_partial:
        found.problem = PARTIAL_LISTING
    depends = [listing.depends, *(one.table.depends for one in found.tables if one.table is not None)]
    if any(known == UNREACHABLE for pairs in depends for _, known in pairs):
        found.identity = None
        found.problem = "the target file of a link cannot be read; queries read the structure again"
    for path, file in metadata_tables.items():
        row, lost = _metadata_row(file)
        own = {name: value for (table, name), value in attributes.items() if table == path}
        more = [pl.Series(n, [v], dtype=pl.String) for n, v in own.items() if n not in row.columns]
        row = pl.DataFrame([*row.get_columns(), *more])
        found.lost += [(path, name) for name in lost]
        stream = BytesIO()
        row.write_ipc(stream)
        found.values[path] = stream.getvalue()
    return found


def _attributes(reader: Reader, tables: Mapping[str, TableFile]) -> dict[tuple[str, str], str | None]:
    """Return the metadata that are stored as attributes, by table and name of the column."""
    found: dict[tuple[str, str], str | None] = {}
    # Attributes of the root group are columns of /general, as its values are.
    for name, (table, field, attribute) in {**ATTRIBUTE_FIELDS, VERSION: (GENERAL, "", VERSION)}.items():
        described = None
        if table in tables and (not field or field in tables[table].columns):
            described = reader.attributes(table if field else "")
        value = described.by_path.get(field, {}).get(attribute) if described is not None else None
        found[table, name] = value if isinstance(value, str) else None
    return found


def file_size(identity: str) -> int | None:
    """Return the size of a file, which is the start of its identity; None for object stores."""
    head = identity.partition("\t")[0].partition("-")[0]
    return int(head) if head.isdecimal() else None


def _table_record(
    reader: Reader, source: Source, path: str, now: str, locations: ChunkLocationRequest
) -> tuple[TableRecord, TableFile | None]:
    try:
        table = reader.describe_table(path)
        if table is None:
            return TableRecord(path, problem="it is listed but is not a table"), None
        file = TableFile(source, Entry("", now, table, {}))
        chunks = _chunks(reader, file, locations)
    except MissingPackageError:
        raise
    except LazyNWBError as error:
        return TableRecord(path, problem=str(error)), None
    # The key and identity are those of the source, so they are not repeated in each table.
    zone_maps = _zone_maps(source, path, now) if table.kind == "series" else {}
    entry = ENCODER.encode(Entry("", "", table, chunks, zone_maps))
    return TableRecord(path, table=table, problem="; ".join(file.problems), entry=entry), file


def _zone_maps(source: Source, path: str, now: str) -> dict[str, ZoneMap]:
    """Return the zone maps of a series in the catalog cache."""
    cached = get_version(entry_key("table", source, path), now, Entry)
    return cached.zone_maps if cached is not None else {}


def _chunks(reader: Reader, file: TableFile, locations: ChunkLocationRequest) -> dict[str, ChunkIndex]:
    arrays: dict[str, Array] = {}
    for column in file.table.columns:
        if locations.includes(file.table.path, column.name):
            arrays.update((array.path, array) for array in arrays_of(column) if file.needs_chunk_index(array))
    if not arrays:
        return {}
    indices = dict(zip(arrays, reader.chunk_indices(list(arrays.values())), strict=True))
    return {
        path: index
        for path, index in indices.items()
        if isinstance(index, ChunkIndex) and len(index.offsets) <= _MAX_INDEX_BYTES
    }


def _incompletely_listed(source: Source, listing: Listing) -> list[str]:
    """Return the groups that may contain unlisted objects.

    A group with two links is listed below one of them only, a broken link may have a target under other
    settings, and some servers do not list folders.
    """
    if is_zarr(source):
        from lazynwb.storage.objects.object_store import open_objects

        if open_objects(source).members("") is None:
            return [""]
    members: dict[str, int] = {}
    for entry in listing.entries:
        parent = entry.path.rpartition("/")[0].lstrip("/")
        members[parent] = members.get(parent, 0) + 1
    if members.get("", 0) < listing.members:
        return [""]
    found = []
    for entry in listing.entries:
        path = entry.path.lstrip("/")
        if entry.kind == "broken" or (entry.kind == "group" and members.get(path, 0) < entry.members):
            found.append(path)
    return found


def _metadata_row(file: TableFile) -> tuple[pl.DataFrame, list[str]]:
    """Read the metadata of a table; return it with the names of fields that are unreadable or too large."""
    schema: dict[str, pl.DataType] = {}
    lost: list[str] = []
    for name, column in file.columns.items():
        if name in RESERVED:
            continue
        dtype = column_dtype(column)
        if dtype is None or _is_large(column):
            lost.append(name)
        else:
            schema[name] = dtype
    try:
        series = _read_columns(file, schema)
    except LazyNWBError:
        series = []
        for name, dtype in schema.items():  # read one by one, to leave out unreadable fields only
            try:
                series += _read_columns(file, {name: dtype})
            except LazyNWBError:
                lost.append(name)
    large = [one.name for one in series if one.estimated_size() > _MAX_VALUE_BYTES]
    return pl.DataFrame([one for one in series if one.name not in large]), lost + large


def _read_columns(file: TableFile, schema: dict[str, pl.DataType]) -> list[pl.Series]:
    if not schema:
        return []
    with Handles() as handles:
        return read_columns(handles, [Part.of_range(file, 0, 1)], schema, frozenset(), file.name)


def _is_large(column: Column) -> bool:
    return any(
        math.prod(array.shape) * stored_size(array.dtype) > _MAX_VALUE_BYTES for array in arrays_of(column)
    )


# -- searchable columns ---------------------------------------------------------------------------------


def fingerprint(table: Table) -> int:
    """Return a number that is equal for tables whose columns have equal names and types.

    Empty tables have other numbers, because the types of their columns are not reliable.
    """
    from hashlib import blake2b

    shapes = [_type_properties(column) for column in table.columns]
    data = ENCODER.encode((table.rows > 0, shapes))
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little")


def _type_properties(column: Column) -> tuple[object, ...]:
    """Return the properties that determine a column's type; see `lazynwb.catalog.dtypes.column_dtype`."""
    data = column.data
    return (
        column.name,
        (*data.shape[1:],) if data is not None else None,
        _without_text_width(data.dtype) if data is not None else None,
        len(column.indices),
        column.region,
        column.whole,
        column.regular is not None,
        [_type_properties(child) for child in column.children] if column.children is not None else None,
    )


def _without_text_width(dtype: DType) -> DType:
    """Return a type without the width of fixed-width text."""
    if dtype.kind == "text":
        return DType("text", 0, dims=dtype.dims)
    return dtype


def column_rows(table: Table) -> list[tuple[object, ...]]:
    """Return the rows of the index's `columns` table; see `lazynwb.index.model.COLUMNS`."""
    return [
        (
            column.name,
            str(column_dtype(column) or "unsupported"),
            len(column.indices) + column.whole,
            column.length,
            list(column.data.shape) if column.data is not None else None,
            _stored_bytes(column),
            column.data.layout if column.data is not None else None,
            [codec.name for codec in column.data.codecs] if column.data is not None else None,
            *(column.regular or (None, None)),
        )
        for column in table.columns
    ]


def _stored_bytes(column: Column) -> int:
    return sum(math.prod(array.shape) * stored_size(array.dtype) for array in arrays_of(column))
