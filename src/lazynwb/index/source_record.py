"""The record of one source in an index: made near the source, passed on as bytes."""

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
from lazynwb.lookup.loader import PARTIAL_LISTING, Entry, TableFile, key_of
from lazynwb.storage.remote_state import prefetch
from lazynwb.storage.source import UNREACHABLE
from lazynwb.threads import Pool

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from lazynwb.catalog.model import Array, Column, Listing
    from lazynwb.catalog.zone_map import ZoneMap
    from lazynwb.formats.registry import Reader
    from lazynwb.storage.source import Source

#: Of an array with a larger index, readers look the chunks up themselves.
_MAX_INDEX_BYTES = 4 * 1024 * 1024
#: Metadata larger than this is left out: it is not searched.
_MAX_VALUE_BYTES = 16 * 1024
#: Seconds that a local file which has just been written is waited for, until a change could not go unnoticed.
_PATIENCE = 3.0
#: Sources that are described at the same time: mostly these wait for servers.
_AT_ONCE = 32
POOL = Pool("index", lambda: _AT_ONCE)

ENCODER = msgspec.msgpack.Encoder()


class Found(msgspec.Struct, array_like=True, gc=False):
    """One table of a source.

    Attributes
    ----------
    path, neurodata_type : str
    table : Table or None
        None if it cannot be described.
    problem : str
        Why not, or what was mended.
    entry : bytes
        Of the catalog, with chunk locations as far as they were asked for.
    """

    path: str
    neurodata_type: str = ""
    table: Table | None = None
    problem: str = ""
    entry: bytes = b""


class SourceRecord(msgspec.Struct, array_like=True, gc=False):
    """One source, as an index has it.

    Attributes
    ----------
    path : str
        Without credentials.
    identity : str or None
        None if what follows cannot be relied upon: it failed, or may change without a trace.
    size : int or None
    problem : str or None
    links : list of str
        Groups below which there may be more than what was listed.
    tables : list of Found
    values : dict of str to bytes
        A row of metadata for each of `METADATA_PATHS` that there is, as Arrow IPC.
    lost : list of (table, name)
        Metadata that the row lacks, because it is large or cannot be read.
    vanished : bool
        There is no such source.
    """

    path: str
    identity: str | None = None
    size: int | None = None
    problem: str | None = None
    links: list[str] = []
    tables: list[Found] = []
    values: dict[str, bytes] = {}
    lost: list[tuple[str, str]] = []
    vanished: bool = False


class ChunkLocationRequest(NamedTuple):
    """Columns whose chunk locations are stored: all, none, or by name ("spike_times", "units/id")."""

    everything: bool
    names: frozenset[str]

    @classmethod
    def of(cls, given: bool | Iterable[str]) -> ChunkLocationRequest:  # noqa: FBT001 - as users say it
        """Return the request for an argument `chunk_locations`."""
        if isinstance(given, bool):
            return cls(given, frozenset())
        return cls(everything=False, names=frozenset([given] if isinstance(given, str) else given))

    def takes(self, table: str, column: str) -> bool:
        """Return whether the chunk locations of a column are requested."""
        return (
            self.everything
            or column in self.names
            or f"{table}/{column}" in {name.strip("/") for name in self.names}
        )


def describe_all(sources: Collection[Source], wish: ChunkLocationRequest) -> list[SourceRecord]:
    """Describe sources; at the same time, if any of them is remote."""
    prefetch(sources)
    if any(source.is_remote for source in sources):
        return POOL.map(lambda source: describe(source, wish), sources)
    return [describe(source, wish) for source in sources]


def describe(source: Source, wish: ChunkLocationRequest) -> SourceRecord:
    """Describe one source; failures are part of the description."""
    path = source.public
    try:
        now = source.identity()
        found = _described(source, now, wish)
        source.verify(now)
        if found.identity is not None and not _settles(source, now):
            found.identity = None
            found.problem = (
                "its store tells no version, or it was only just written: changes could go unnoticed, so "
                "queries look at it anew"
            )
    except SourceNotFoundError as error:
        return SourceRecord(path, problem=str(error), vanished=True)
    except MissingPackageError:
        raise
    except LazyNWBError as error:
        return SourceRecord(path, problem=str(error))
    return found


def _settles(source: Source, now: str) -> bool:
    """Return whether a write from now on is certain to change the identity; wait for new local files."""
    deadline = time.monotonic() + _PATIENCE
    while not source.is_settled(now, time.time_ns()):
        if source.is_remote or time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    source.verify(now)
    return True


def _described(source: Source, now: str, wish: ChunkLocationRequest) -> SourceRecord:
    found = SourceRecord(source.public, now, size_of(now))
    kept: dict[str, TableFile] = {}
    with open_reader(source, now) as reader:
        listing = reader.list_objects()
        found.links = _opaque(source, listing)
        types = {e.path.lstrip("/"): e.neurodata_type for e in listing.entries if e.kind == "group"}
        for path in listing.tables():
            one, file = _table(reader, source, path, now, wish)
            one.neurodata_type = types.get(path, "")
            found.tables.append(one)
            if path in METADATA_PATHS and file is not None:
                kept[path] = file
        attributes = _attributes(reader, kept)
    if not found.tables:
        found.problem = "it has no tables"
    if listing.is_partial:
        found.problem = PARTIAL_LISTING
    depends = [listing.depends, *(one.table.depends for one in found.tables if one.table is not None)]
    if any(known == UNREACHABLE for pairs in depends for _, known in pairs):
        found.identity = None
        found.problem = "it has links to a file that cannot be read for now, so queries look at it anew"
    for path, file in kept.items():
        row, lost = _row(file)
        own = {name: value for (table, name), value in attributes.items() if table == path}
        more = [pl.Series(n, [v], dtype=pl.String) for n, v in own.items() if n not in row.columns]
        row = pl.DataFrame([*row.get_columns(), *more])
        found.lost += [(path, name) for name in lost]
        stream = BytesIO()
        row.write_ipc(stream)
        found.values[path] = stream.getvalue()
    return found


def _attributes(reader: Reader, kept: Mapping[str, TableFile]) -> dict[tuple[str, str], str | None]:
    """Return the metadata that are attributes, by the table that they are columns of and their name."""
    found: dict[tuple[str, str], str | None] = {}
    # Those of the root group go with its values, which are columns of /general.
    for name, (table, field, attribute) in {**ATTRIBUTE_FIELDS, VERSION: (GENERAL, "", VERSION)}.items():
        described = None
        if table in kept and (not field or field in kept[table].columns):
            described = reader.attributes(table if field else "")
        value = described.by_path.get(field, {}).get(attribute) if described is not None else None
        found[table, name] = value if isinstance(value, str) else None
    return found


def size_of(identity: str) -> int | None:
    """Return the size of a file, which its identity begins with; None of a store of objects."""
    head = identity.partition("\t")[0].partition("-")[0]
    return int(head) if head.isdecimal() else None


def _table(
    reader: Reader, source: Source, path: str, now: str, wish: ChunkLocationRequest
) -> tuple[Found, TableFile | None]:
    try:
        table = reader.describe_table(path)
        if table is None:
            return Found(path, problem="it is listed, but cannot be described"), None
        file = TableFile(source, Entry("", now, table, {}))
        chunks = _chunks(reader, file, wish)
    except MissingPackageError:
        raise
    except LazyNWBError as error:
        return Found(path, problem=str(error)), None
    # Key and identity are those of the source; they are not repeated in each of its tables.
    zone_maps = _zone_maps(source, path, now) if table.kind == "series" else {}
    entry = ENCODER.encode(Entry("", "", table, chunks, zone_maps))
    return Found(path, table=table, problem="; ".join(file.problems), entry=entry), file


def _zone_maps(source: Source, path: str, now: str) -> dict[str, ZoneMap]:
    """Return the zone maps that queries have left in the catalog cache."""
    cached = get_version(key_of("table", source, path), now, Entry)
    return cached.zone_maps if cached is not None else {}


def _chunks(reader: Reader, file: TableFile, wish: ChunkLocationRequest) -> dict[str, ChunkIndex]:
    wanted: dict[str, Array] = {}
    for column in file.table.columns:
        if wish.takes(file.table.path, column.name):
            wanted.update((array.path, array) for array in arrays_of(column) if file.needs_chunk_index(array))
    if not wanted:
        return {}
    indices = dict(zip(wanted, reader.chunk_indices(list(wanted.values())), strict=True))
    return {
        path: index
        for path, index in indices.items()
        if isinstance(index, ChunkIndex) and len(index.offsets) <= _MAX_INDEX_BYTES
    }


def _opaque(source: Source, listing: Listing) -> list[str]:
    """Return the groups below which there may be objects that the listing does not have.

    A group that two links lead to is listed below one of them only, a broken link may lead somewhere under
    other settings, and a server may not say what there is.
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


def _row(file: TableFile) -> tuple[pl.DataFrame, list[str]]:
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
        series = _read(file, schema)
    except LazyNWBError:
        series = []
        for name, dtype in schema.items():  # one that cannot be read does not keep the others out
            try:
                series += _read(file, {name: dtype})
            except LazyNWBError:
                lost.append(name)
    large = [one.name for one in series if one.estimated_size() > _MAX_VALUE_BYTES]
    return pl.DataFrame([one for one in series if one.name not in large]), lost + large


def _read(file: TableFile, schema: dict[str, pl.DataType]) -> list[pl.Series]:
    if not schema:
        return []
    with Handles() as handles:
        return read_columns(handles, [Part.of_range(file, 0, 1)], schema, frozenset(), file.name)


def _is_large(column: Column) -> bool:
    return any(
        math.prod(array.shape) * stored_size(array.dtype) > _MAX_VALUE_BYTES for array in arrays_of(column)
    )


# -- what is searched -----------------------------------------------------------------------------------


def fingerprint(table: Table) -> int:
    """Return a number that is the same for tables whose columns have the same names and types.

    Whether there are rows is part of it: the types of an empty table's columns say nothing.
    """
    from hashlib import blake2b

    shapes = [_shape_of(column) for column in table.columns]
    data = ENCODER.encode((table.rows > 0, shapes))
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little")


def _shape_of(column: Column) -> tuple[object, ...]:
    """Return what a column's type depends on; see `lazynwb.catalog.dtypes.column_dtype`."""
    data = column.data
    return (
        column.name,
        (*data.shape[1:],) if data is not None else None,
        _plain(data.dtype) if data is not None else None,
        len(column.indices),
        column.region,
        column.whole,
        column.regular is not None,
        [_shape_of(child) for child in column.children] if column.children is not None else None,
    )


def _plain(dtype: DType) -> DType:
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
            _bytes(column),
            column.data.layout if column.data is not None else None,
            [codec.name for codec in column.data.codecs] if column.data is not None else None,
            *(column.regular or (None, None)),
        )
        for column in table.columns
    ]


def _bytes(column: Column) -> int:
    return sum(math.prod(array.shape) * stored_size(array.dtype) for array in arrays_of(column))
