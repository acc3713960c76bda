"""Loader of catalogs: tables, groups, attributes and listings of a file, from the cache or parsed."""

from __future__ import annotations

import logging
import math
from contextlib import contextmanager
from copy import copy
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import msgspec

from lazynwb.catalog.dtypes import RESERVED
from lazynwb.catalog.lengths import find_column
from lazynwb.catalog.model import (
    MISSING,
    Array,
    Attributes,
    ChunkIndex,
    Column,
    Listing,
    Table,
    arrays_of,
    grid_of,
)
from lazynwb.catalog.zone_map import ZoneMap  # noqa: TC001 - msgspec reads the types of fields
from lazynwb.config import config
from lazynwb.formats.registry import Reader, open_reader
from lazynwb.lookup.catalog_cache import (
    CacheEntry,
    get_entry,
    get_version,
    invalidate_on_corruption,
    is_valid,
    put_entry,
    remove_entries,
)
from lazynwb.storage.source import map_concurrently
from lazynwb.threads import ForkSafeLock

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from typing import Self

    import numpy as np

    from lazynwb.catalog.model import PartialChunkIndex
    from lazynwb.storage.source import Source

#: Larger chunk indices are not stored on disk: each process looks them up again.
_MAX_INDEX_BYTES = 4 * 1024 * 1024
#: Maximum numbers of chunks and of shards of an array whose chunk index is read completely.
_MAX_INDEXED_CHUNKS, _MAX_INDEXED_SHARDS = 4096, 16
#: The same for remote arrays if the required chunks are known: their entries of the index are fetched
#: concurrently, whereas a complete index takes one request after the other.
_MAX_INDEXED_REMOTE_CHUNKS = 64
#: Maximum number of chunks of an array whose index is read when its table is parsed.
_MAX_EAGER_CHUNKS = 16
#: Maximum size of a chunk with known location that is fetched while other chunks are looked up.
_MAX_EAGER_BYTES = 64 * 1024
#: Cost of a look-up of one chunk, in entries of a complete index, in local and in remote files.
_LOOKUP_COST, _REMOTE_LOOKUP_COST = 16, 4
#: An array and the numbers of its required chunks, in row-major order of the grid; None for all chunks.
ChunkSelection: TypeAlias = "tuple[Array, np.ndarray | None]"

K = TypeVar("K", bound=CacheEntry)


class Entry(CacheEntry):
    """Cache entry of one table of one source; `table` is None if the source has no such table."""

    table: Table | None
    chunks: dict[str, ChunkIndex]
    zone_maps: dict[str, ZoneMap] = msgspec.field(default_factory=dict)

    @property
    def depends(self) -> tuple[tuple[str, str], ...]:
        """Targets of external links of the table."""
        return self.table.depends if self.table is not None else ()

    def for_disk(self) -> Entry:
        """Return the entry without large chunk indices."""
        small = {name: index for name, index in self.chunks.items() if len(index.offsets) <= _MAX_INDEX_BYTES}
        return Entry(self.key, self.identity, self.table, small, self.zone_maps)


class ListingEntry(CacheEntry):
    """Cache entry of the listing of a source."""

    listing: Listing

    @property
    def depends(self) -> tuple[tuple[str, str], ...]:
        """Targets of external links."""
        return self.listing.depends


_lock = ForkSafeLock()


class TableFile:
    """One table of one file, with the chunk locations that have been looked up.

    Attributes
    ----------
    source : Source
    name : str
        Name of the file in messages.
    identity : str
        Identity of the version of the file that the catalog describes.
    table : Table
    columns : dict of str to Column
    is_provided : bool
        Whether the catalog is from a provider and unverified; see `lazynwb.lookup.providers`.
    is_reloaded : bool
        Whether the file has changed since the provider's catalog was created.
    """

    __slots__ = (
        *("_entry", "_partial_indices", "columns", "identity", "is_provided", "is_reloaded"),
        *("name", "source", "table"),
    )

    def __init__(self, source: Source, entry: Entry, *, is_provided: bool = False) -> None:
        assert entry.table is not None  # noqa: S101 - checked by the one caller
        self.source = source
        self.name = source.name
        self.identity = entry.identity
        self.is_provided = is_provided
        self.is_reloaded = False
        self.table: Table = entry.table
        self.columns: dict[str, Column] = {c.name: c for c in entry.table.columns if c.name not in RESERVED}
        self._entry = entry
        self._partial_indices: dict[str, PartialChunkIndex] = {}

    def without(self, names: Collection[str]) -> TableFile:
        """Return the table without some columns, as if the file lacked them."""
        other = copy(self)
        other.columns = {name: column for name, column in self.columns.items() if name not in names}
        return other

    def with_lengths(self, names: Iterable[str]) -> TableFile:
        """Return the table with the length columns of these names whose list columns exist."""
        found = {name: find_column(self.columns, name) for name in names}
        other = copy(self)
        other.columns = self.columns | {name: column for name, column in found.items() if column is not None}
        return other

    @property
    def key(self) -> tuple[Source, str]:
        """Key among the tables of a query: the file and the path of the table."""
        return self.source, self.table.path

    @property
    def problems(self) -> tuple[str, ...]:
        """Problems of the table that were repaired or caused columns to be left out."""
        taken = [c.name for c in self.table.columns if c.name in RESERVED]
        return self.table.problems + tuple(
            f"column {name!r} was left out: its name is reserved" for name in taken
        )

    def chunks(self, array: Array) -> ChunkIndex | PartialChunkIndex | None:
        """Return the known chunk locations of an array; None if its layout has no chunks."""
        if not _has_index(array):
            return None
        with _lock:  # a complete index replaces the partial one
            return self._entry.chunks.get(array.path) or self._partial_indices.get(array.path)

    def zone_map(self, array: Array) -> ZoneMap | None:
        """Return the zone map of an array; None before the array is first read."""
        if array.path not in self._entry.zone_maps and self.is_provided and self._entry.key:
            self._merge_cached()
        found = self._entry.zone_maps.get(array.path)
        return found if found is not None and found.describes(array.rows) else None

    def zone_maps(self, paths: Collection[str]) -> dict[str, ZoneMap]:
        """Return the known zone maps of some arrays, by path."""
        return {path: zones for path, zones in self._entry.zone_maps.items() if path in paths}

    def put_zone_map(self, array: Array, zones: ZoneMap) -> None:
        """Store the zone map of an array, in memory and in the catalog cache."""
        with _lock:
            self._entry.zone_maps = {**self._entry.zone_maps, array.path: zones}
        self._store_entry()

    def needs_chunk_index(self, array: Array) -> bool:
        """Return whether chunks of an array may have to be looked up."""
        return _has_index(array) and array.path not in self._entry.chunks

    def look_up_chunks_of(self, array: Array, numbers: np.ndarray | None) -> None:
        """Look up the unknown chunks of an array; do nothing if its layout has no chunks.

        Parameters
        ----------
        array : Array
        numbers : ndarray of int64 or None
            Numbers of the required chunks, in row-major order of the chunk grid; None for all.
        """
        self.look_up([(array, numbers)])

    def look_up(self, selections: Iterable[ChunkSelection]) -> None:
        """Look up the chunks that are not known yet; open the file only if there are any."""
        selections = list(selections)
        missing = self.missing(selections)
        if missing and self.is_provided and self._entry.key:
            self._merge_cached()
            missing = self.missing(selections)
        if not missing:
            return
        arrays, numbers = [array for array, _ in missing], [some for _, some in missing]
        with invalidate_on_corruption(self.source), self.reader() as reader:
            indices = reader.chunk_indices(arrays, numbers, list(self._known_ranges(selections)))
        complete: dict[str, ChunkIndex] = {}
        with _lock:
            for (array, _), index in zip(missing, indices, strict=True):
                if isinstance(index, ChunkIndex):
                    complete[array.path] = index
                    self._partial_indices.pop(array.path, None)
                else:
                    before = self._partial_indices.get(array.path)
                    self._partial_indices[array.path] = index if before is None else before.union(index)
            self._entry.chunks = {**self._entry.chunks, **complete}
        if complete:
            self._store_entry()

    def _known_ranges(self, selections: Iterable[ChunkSelection]) -> Iterator[tuple[int, int]]:
        """Yield the byte ranges of a few small chunks of a remote file whose locations are known."""
        if not self.source.is_remote:
            return
        for array, numbers in selections:
            index = self._entry.chunks.get(array.path)
            if array.source is not None or array.layout != "chunked" or index is None:
                continue
            total = math.prod(grid_of(array))
            some = range(total) if numbers is None else numbers.tolist()
            if len(some) <= _MAX_EAGER_CHUNKS:
                for offset, size, _ in map(index.locate, some):
                    if offset != MISSING and size <= _MAX_EAGER_BYTES:
                        yield offset, offset + size

    def _store_entry(self) -> None:
        """Store the entry in the catalog cache; one that was shipped with a task may lack columns."""
        if self._entry.key:
            put_entry(self._entry, self.source)

    def _merge_cached(self) -> None:
        """Merge chunk indices and zone maps that other queries on this version of the file have cached."""
        stored = get_version(self._entry.key, self.identity, Entry)
        if stored is not None:
            with _lock:
                self._entry.chunks = {**stored.chunks, **self._entry.chunks}
                self._entry.zone_maps = {**stored.zone_maps, **self._entry.zone_maps}

    def missing(self, selections: Iterable[ChunkSelection]) -> list[ChunkSelection]:
        """Return the arrays and chunks that must be looked up."""
        import numpy as np  # late: a schema needs no NumPy

        by_path: dict[str, ChunkSelection] = {}
        for array, numbers in selections:
            if not self.needs_chunk_index(array):
                continue
            path = array.path
            _, others = by_path.get(path, (array, np.zeros(0, np.int64)))
            if numbers is None or others is None:
                by_path[path] = array, None
                continue
            some = self._partial_indices.get(path)
            lacking = some.missing(numbers) if some is not None else numbers
            if len(lacking):
                if len(others):  # NumPy imports all of numpy.ma for it
                    lacking = np.union1d(lacking, others)
                known = len(some) if some is not None else 0
                by_path[path] = (
                    array,
                    lacking if self.prefer_partial_lookup(array, known + len(lacking)) else None,
                )
        return [(array, some) for array, some in by_path.values() if some is None or len(some)]

    def prefer_partial_lookup(self, array: Array, some: int) -> bool:
        """Return whether looking up this many chunks is cheaper than reading the complete index."""
        total = math.prod(grid_of(array))
        if array.shard:
            return some < total
        if self.source.is_remote:
            return total > _MAX_INDEXED_REMOTE_CHUNKS and some * _REMOTE_LOOKUP_COST <= total
        return total > _MAX_INDEXED_CHUNKS and some * _LOOKUP_COST <= total

    def is_valid(self, now: str) -> bool:
        """Return whether the catalog describes the file with the identity `now` and its link targets."""
        return is_valid(self._entry, self.source, now)

    def reader(self) -> Reader:
        """Open the file with a reader of its format.

        Raises
        ------
        SourceChangedError
            If the file has changed since the catalog was created.
        """
        self.source.verify(self.identity)
        return open_reader(self.source, self.identity)

    def owning_file(self, array: Array) -> tuple[Source, str]:
        """Return the file that contains an array, which may be the target of a link, and its identity."""
        if array.source is None:
            return self.source, self.identity
        return self.source.with_path(array.source), dict(self.table.depends)[array.source]


def _chunked_arrays(columns: Iterable[Column]) -> list[Array]:
    return [array for column in columns for array in arrays_of(column) if _has_index(array)]


def _has_index(array: Array) -> bool:
    """Return whether an array has an index of chunks."""
    # Undecodable arrays are read by their library, which may support other kinds of shard indices.
    return array.layout == "chunked" or (array.layout == "objects" and bool(array.shard))


def reads_complete_index(array: Array) -> bool:
    """Return whether the chunk index of an array is read completely, however few chunks are required."""
    if array.shard:
        within = math.prod(s // c for s, c in zip(array.shard, array.chunk, strict=True))
        return math.prod(grid_of(array)) <= _MAX_INDEXED_SHARDS * within
    return math.prod(grid_of(array)) <= _MAX_INDEXED_CHUNKS


class SharedReader:
    """A reader that is shared by several tables of a file; a context manager that closes the file.

    The links of a group are read once for all its tables.
    """

    def __init__(self) -> None:
        self._reader: Reader | None = None
        self._opened: tuple[Source, str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        reader, self._reader, self._opened = self._reader, None, None
        if reader is not None:
            reader.__exit__(None, None, None)

    @contextmanager
    def open(self, source: Source, version: str) -> Iterator[Reader]:
        """Provide the open file; open it again after an error or a change of the file."""
        if self._reader is None or self._opened != (source, version):
            self.__exit__()
            self._reader, self._opened = open_reader(source, version).__enter__(), (source, version)
        try:
            yield self._reader
        except BaseException:
            self.__exit__()
            raise


def load_table(
    source: Source, table_path: str, columns: Collection[str] = (), shared: SharedReader | None = None
) -> TableFile | None:
    """Return a table's catalog; None if the file has no such table.

    Parameters
    ----------
    source : Source
    table_path : str
        Path without the leading slash.
    columns : collection of str
        Columns that will be read: if the file is parsed, small chunk indices of these are read with it.
    shared : SharedReader or None
        Reader to open the file with.

    Raises
    ------
    SourceNotFoundError or NotNWBError
        If the file cannot be read.
    """
    return load_description("table", source, table_path, partial(_table_and_chunks, columns), shared)


def _table_and_chunks(
    columns: Collection[str], reader: Reader, source: Source, path: str
) -> tuple[Table | None, dict[str, ChunkIndex]]:
    table = reader.describe_table(path)
    if table is None:
        return None, {}
    if source.is_remote:
        few = [array for array in _chunked_arrays(table.columns) if reads_complete_index(array)]
    else:
        few = _chunked_arrays(column for column in table.columns if column.name in columns)
        few = [array for array in few if math.prod(grid_of(array)) <= _MAX_EAGER_CHUNKS]
    return table, reader.chunk_indices_here(few) if few else {}


def entry_key(kind: str, source: Source, path: str = "") -> str:
    """Return the key of an entry in the cache.

    Parameters
    ----------
    kind : str
        Kind of entry: "table", "members", ...; a group may have several.
    source : Source
        Described file.
    path : str
        Path of the described group, without the leading slash.
    """
    return f"{kind}\0{source.key}\0{path}\0{config.external_links}"


def _load(
    key: str,
    source: Source,
    kind: type[K],
    describe: Callable[[Reader, str], K],
    shared: SharedReader | None = None,
) -> K:
    """Return an entry from memory, from the disk cache, or from `describe(reader, identity)`."""
    entry, now = get_entry(key, source, kind)
    if entry is None:
        opened = open_reader if shared is None else shared.open
        with invalidate_on_corruption(source), opened(source, now) as reader:
            entry = describe(reader, now)
            source.verify(now)
        put_entry(entry, source)
    return entry


def load_description(
    kind: str,
    source: Source,
    path: str,
    describe: Callable[[Reader, Source, str], tuple[Table | None, dict[str, ChunkIndex]]],
    shared: SharedReader | None = None,
) -> TableFile | None:
    """Return the description of a group, cached or parsed; None if the group does not exist.

    Parameters
    ----------
    kind : str
        Kind of entry; see `entry_key`.
    source : Source
        Described file.
    path : str
        Path of the group, without the leading slash.
    describe : callable
        Function that returns the description, and the chunk indices that were read with it.
    shared : SharedReader or None
        Reader to open the file with.
    """
    entry = _load_entry(kind, source, path, describe, shared)
    return TableFile(source, entry) if entry.table is not None else None


def identity_if_absent(source: Source, table_path: str) -> str | None:
    """Return the identity of a file that lacks a table; None if the file has it. See `load_table`."""
    entry = _load_entry("table", source, table_path, partial(_table_and_chunks, ()))
    return entry.identity if entry.table is None else None


def _load_entry(
    kind: str,
    source: Source,
    path: str,
    describe: Callable[[Reader, Source, str], tuple[Table | None, dict[str, ChunkIndex]]],
    shared: SharedReader | None = None,
) -> Entry:
    """Return the cache entry of a description, new if none is cached; see `load_description`."""
    key = entry_key(kind, source, path)
    return _load(
        key, source, Entry, lambda reader, now: Entry(key, now, *describe(reader, source, path)), shared
    )


def look_up_chunks(selections: Iterable[tuple[TableFile, ChunkSelection]]) -> None:
    """Look up unknown chunks, of several remote files concurrently."""
    files: dict[int, tuple[TableFile, list[ChunkSelection]]] = {}
    for file, one in selections:
        files.setdefault(id(file), (file, []))[1].append(one)
    lacking = [(file, listed) for file, listed in files.values() if file.missing(listed)]
    map_concurrently(lambda pair: pair[0].look_up(pair[1]), lacking, (file.source for file, _ in lacking))


def load_listing(source: Source) -> Listing:
    """Return the listing of all objects of a file; see `load_table`."""
    key = entry_key("listing", source)
    entry = _load(
        key, source, ListingEntry, lambda reader, now: ListingEntry(key, now, reader.list_objects())
    )
    if entry.listing.is_partial:
        _warn_about_partial_listing(source.name)
    return entry.listing


#: The reason for an incomplete listing, and its remedy.
PARTIAL_LISTING = (
    "its server does not list folders, and its metadata is not consolidated: only objects with standard NWB "
    "names and the columns in colnames are found (consolidate the metadata with zarr.consolidate_metadata, "
    "or pass the full paths of tables and series)"
)


@cache
def _warn_about_partial_listing(name: str) -> None:
    """Warn once per file and process."""
    logging.getLogger("lazynwb").warning("%s: %s", name, PARTIAL_LISTING)


def load_members(source: Source, path: str) -> TableFile | None:
    """Return a description of every dataset of a group as a column; None if the group does not exist.

    Parameters
    ----------
    source : Source
    path : str
        Path without the leading slash.

    Raises
    ------
    SourceNotFoundError or NotNWBError
        If the file cannot be read.
    """
    return load_description(
        "members", source, path, lambda reader, _, group: (reader.describe_members(group), {})
    )


_MEMBERS, _ALL = "attributes", "all attributes"


class AttributesEntry(CacheEntry):
    """Cache entry of the attributes of an object and its members; None if the object does not exist."""

    attributes: Attributes | None

    @property
    def depends(self) -> tuple[tuple[str, str], ...]:
        """Targets of external links."""
        return self.attributes.depends if self.attributes is not None else ()


def load_attributes(source: Source, path: str) -> dict[str, dict[str, Any]] | None:
    """Return the attributes of an object and of its direct members.

    Parameters
    ----------
    source : Source
    path : str
        Path without the leading slash; an empty string for the root group.

    Returns
    -------
    dict of str to dict, or None
        Attributes by the names of members, and those of the object itself under an empty string. Values are
        str, bool, int, float, None, lists of these, or dictionaries for compounds. Object references are
        paths. Unreadable values are strings that begin with "<unreadable". None if the object does not exist.

    Raises
    ------
    SourceNotFoundError or NotNWBError
        If the file cannot be read.
    """
    return _cached_attributes(source, path, deep=False) or _load_attributes(source, path, _MEMBERS)


def load_all_attributes(source: Source, path: str) -> dict[str, dict[str, Any]] | None:
    """Return the attributes of an object and of all objects below it, by relative path.

    The format is that of `load_attributes`. A group with several hard links is descended into once; other
    links have the attributes of their targets.
    """
    return _cached_attributes(source, path, deep=True) or _load_attributes(source, path, _ALL)


def forget_attributes(source: Source | None = None) -> None:
    """Remove the attributes of one source, or of all, from memory."""
    kinds = (_MEMBERS, _ALL)
    if source is None:
        remove_entries(lambda key: key.startswith(tuple(f"{kind}\0" for kind in kinds)))
    else:
        remove_entries(lambda key: key.startswith(tuple(f"{kind}\0{source.key}\0" for kind in kinds)))


def _load_attributes(source: Source, path: str, kind: str) -> dict[str, dict[str, Any]] | None:
    key = entry_key(kind, source, path)

    def describe(reader: Reader, now: str) -> AttributesEntry:
        found = reader.all_attributes(path) if kind == _ALL else reader.attributes(path)
        return AttributesEntry(key, now, found)

    entry = _load(key, source, AttributesEntry, describe)
    return entry.attributes.by_path if entry.attributes is not None else None


def _cached_attributes(source: Source, path: str, *, deep: bool) -> dict[str, dict[str, Any]] | None:
    """Return the attributes below a path from the cached attributes of the whole file; None if not cached."""
    entry = get_entry(entry_key(_ALL, source), source, AttributesEntry)[0]
    found = entry.attributes if entry is not None else None
    if found is None or not found.nested or path not in found.by_path:
        return None
    start = f"{path}/" if path else ""
    below = {
        name[len(start) :]: attributes
        for name, attributes in found.by_path.items()
        if name and name.startswith(start) and (deep or "/" not in name[len(start) :])
    }
    # No members: a dataset, or a group behind a link, whose members are not listed.
    return {"": found.by_path[path], **below} if below else None


def copy_values(value: Any) -> Any:  # noqa: ANN401 - an attribute, or a dictionary of them
    """Return a deep copy of plain values, so that callers cannot change cached ones."""
    if isinstance(value, dict):
        return {name: copy_values(item) for name, item in value.items()}
    return [copy_values(item) for item in value] if isinstance(value, list) else value
