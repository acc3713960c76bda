"""Descriptions of tables, groups, attributes and contents of a file: cached, or parsed now."""

from __future__ import annotations

import math
import os
import threading
from copy import copy
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import msgspec
import numpy as np

from lazynwb.catalog.dtypes import RESERVED
from lazynwb.catalog.model import (
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

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from lazynwb.catalog.model import SomeChunks
    from lazynwb.storage.source import Source

#: Chunk indices larger than this are looked up again by every process rather than kept on disk.
_MOST_INDEX_BYTES = 4 * 1024 * 1024
#: Of an array with no more chunks, or shards, all are looked up.
_FEW_CHUNKS, _FEW_SHARDS = 4096, 16
#: The same of a remote array of which it is known which chunks are wanted: their places in the index are
#: asked for all at once, but who lists an index gets to know of one part after the other.
_FEW_REMOTE_CHUNKS = 64
#: As many chunks of a local file are listed in the time that one takes to be looked up; of a remote file, of
#: which a listing gets to see one part after the other, at least so many.
_SINGLY, _SINGLY_REMOTE = 16, 4
#: An array and the numbers of the chunks of it that are wanted, in row-major order of the grid; None for all.
Wanted: TypeAlias = "tuple[Array, np.ndarray | None]"

K = TypeVar("K", bound=CacheEntry)


class Entry(CacheEntry):
    """What the cache keeps of one table of one source (or that the source has no such table)."""

    table: Table | None
    chunks: dict[str, ChunkIndex]
    zone_maps: dict[str, ZoneMap] = msgspec.field(default_factory=dict)

    @property
    def depends(self) -> tuple[tuple[str, str], ...]:
        """Other files that links of the table led to."""
        return self.table.depends if self.table is not None else ()

    def for_disk(self) -> Entry:
        """Leave out chunk indices that are too large to be worth it."""
        small = {
            name: index for name, index in self.chunks.items() if len(index.offsets) <= _MOST_INDEX_BYTES
        }
        return Entry(self.key, self.identity, self.table, small, self.zone_maps)


class ListingEntry(CacheEntry):
    """What the cache keeps of one source's contents."""

    listing: Listing

    @property
    def depends(self) -> tuple[tuple[str, str], ...]:
        """Other files that links led to."""
        return self.listing.depends


_lock = threading.Lock()


def _unlock() -> None:
    """Give a forked child a lock that no thread of its parent holds."""
    global _lock  # noqa: PLW0603 - there is nobody else in the child yet
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)


class TableFile:
    """One table of one file, with its chunk locations as far as they were looked up.

    Attributes
    ----------
    source : Source
    name : str
        Of the file, for messages.
    identity : str
        Of the file that the catalog describes.
    table : Table
    columns : dict of str to Column
    is_given : bool
        Nobody has looked whether the file still is as the catalog says: see `lazynwb.lookup.providers`.
    is_renewed : bool
        The file was no longer as a given catalog said.
    """

    __slots__ = (
        *("_entry", "_some", "columns", "identity", "is_given", "is_renewed"),
        *("name", "source", "table"),
    )

    def __init__(self, source: Source, entry: Entry, *, is_given: bool = False) -> None:
        assert entry.table is not None  # noqa: S101 - checked by the one caller
        self.source = source
        self.name = source.name
        self.identity = entry.identity
        self.is_given = is_given
        self.is_renewed = False
        self.table: Table = entry.table
        self.columns: dict[str, Column] = {c.name: c for c in entry.table.columns if c.name not in RESERVED}
        self._entry = entry
        self._some: dict[str, SomeChunks] = {}

    def without(self, names: Collection[str]) -> TableFile:
        """Return the same table without some columns, as if the file lacked them."""
        other = copy(self)
        other.columns = {name: column for name, column in self.columns.items() if name not in names}
        return other

    @property
    def key(self) -> tuple[Source, str]:
        """What tells it from the other tables of a query: its file, and its path there."""
        return self.source, self.table.path

    @property
    def problems(self) -> tuple[str, ...]:
        """What was mended or left out in this table."""
        taken = [c.name for c in self.table.columns if c.name in RESERVED]
        return self.table.problems + tuple(
            f"column {name!r} was left out: its name is reserved" for name in taken
        )

    def chunks(self, array: Array) -> ChunkIndex | SomeChunks | None:
        """Return where an array's chunks are, as far as is known; None where its layout has no chunks."""
        if not _has_index(array):
            return None
        with _lock:  # of what becomes complete, the part is let go of
            return self._entry.chunks.get(array.path) or self._some.get(array.path)

    def zone_map(self, array: Array) -> ZoneMap | None:
        """Return the zone map of an array; None where nobody has read the array yet."""
        if array.path not in self._entry.zone_maps and self.is_given and self._entry.key:
            self._merge_cached()
        found = self._entry.zone_maps.get(array.path)
        return found if found is not None and found.describes(array.rows) else None

    def zone_maps(self, paths: Collection[str]) -> dict[str, ZoneMap]:
        """Return the zone maps that are known of some arrays, by their paths."""
        return {path: zones for path, zones in self._entry.zone_maps.items() if path in paths}

    def put_zone_map(self, array: Array, zones: ZoneMap) -> None:
        """Keep the zone map of an array, in memory and in the catalog cache."""
        with _lock:
            self._entry.zone_maps = {**self._entry.zone_maps, array.path: zones}
        if self._entry.key:
            put_entry(self._entry, self.source)

    def needs_chunk_index(self, array: Array) -> bool:
        """Tell whether chunks of an array may have to be looked up."""
        return _has_index(array) and array.path not in self._entry.chunks

    def look_up_chunks_of(self, array: Array, numbers: np.ndarray | None) -> None:
        """Make sure that chunks of an array are known; nothing happens where its layout has no chunks.

        Parameters
        ----------
        array : Array
        numbers : ndarray of int64 or None
            Of the chunks that are wanted, in row-major order of the chunk grid; None for all.
        """
        self.look_up([(array, numbers)])

    def look_up(self, wanted: Iterable[Wanted]) -> None:
        """Make sure that chunks are known; opens the file if some are not."""
        wanted = list(wanted)
        missing = self.unknown(wanted)
        if missing and self.is_given and self._entry.key:
            self._merge_cached()
            missing = self.unknown(wanted)
        if not missing:
            return
        with invalidate_on_corruption(self.source), self.reader() as reader:
            indices = reader.chunk_indices([array for array, _ in missing], [some for _, some in missing])
        complete: dict[str, ChunkIndex] = {}
        with _lock:
            for (array, _), index in zip(missing, indices, strict=True):
                if isinstance(index, ChunkIndex):
                    complete[array.path] = index
                    self._some.pop(array.path, None)
                else:
                    before = self._some.get(array.path)
                    self._some[array.path] = index if before is None else before.with_more(index)
            self._entry.chunks = {**self._entry.chunks, **complete}
        if complete:
            put_entry(self._entry, self.source)

    def _merge_cached(self) -> None:
        """Take in what other queries on the same version of the file have looked up."""
        stored = get_version(self._entry.key, self.identity, Entry)
        if stored is not None:
            with _lock:
                self._entry.chunks = {**stored.chunks, **self._entry.chunks}
                self._entry.zone_maps = {**stored.zone_maps, **self._entry.zone_maps}

    def unknown(self, wanted: Iterable[Wanted]) -> list[Wanted]:
        """Return what has to be looked up for the given chunks to be known."""
        missing: dict[str, Wanted] = {}
        for array, numbers in wanted:
            if not self.needs_chunk_index(array):
                continue
            path = array.path
            _, others = missing.get(path, (array, np.zeros(0, np.int64)))
            if numbers is None or others is None:
                missing[path] = array, None
                continue
            some = self._some.get(path)
            lacking = some.unknown(numbers) if some is not None else numbers
            if len(lacking):
                lacking = np.union1d(lacking, others)
                known = len(some) if some is not None else 0
                missing[path] = (
                    array,
                    lacking if self.prefer_partial_lookup(array, known + len(lacking)) else None,
                )
        return [(array, some) for array, some in missing.values() if some is None or len(some)]

    def prefer_partial_lookup(self, array: Array, some: int) -> bool:
        """Tell whether looking up so many chunks takes less than listing all of them."""
        total = math.prod(grid_of(array))
        if array.shard:
            return some < total
        if self.source.is_remote:
            return total > _FEW_REMOTE_CHUNKS and some * _SINGLY_REMOTE <= total
        return total > _FEW_CHUNKS and some * _SINGLY <= total

    def is_valid(self, now: str) -> bool:
        """Tell whether this describes the file, given what it is now, and those that links of it lead to."""
        return is_valid(self._entry, self.source, now)

    def reader(self) -> Reader:
        """Open the file with its format's own library.

        Raises
        ------
        SourceChangedError
            If the file is no longer the one that the catalog describes.
        """
        self.source.verify(self.identity)
        return open_reader(self.source, self.identity)

    def owning_file(self, array: Array) -> tuple[Source, str]:
        """Return the file that holds an array, and its identity; external links lead to others."""
        if array.source is None:
            return self.source, self.identity
        return self.source.with_path(array.source), dict(self.table.depends)[array.source]


def _chunked(columns: Iterable[Column]) -> list[Array]:
    return [array for column in columns for array in arrays_of(column) if _has_index(array)]


def _has_index(array: Array) -> bool:
    """Tell whether the places of an array's chunks have to be looked up."""
    # What the engine cannot decode is read with the shards' indices, which may be of other kinds than these.
    return array.layout == "chunked" or (array.layout == "objects" and bool(array.shard))


def is_listed_at_once(array: Array) -> bool:
    """Tell whether all the chunks of an array are looked up, however few are wanted."""
    if array.shard:
        within = math.prod(s // c for s, c in zip(array.shard, array.chunk, strict=True))
        return math.prod(grid_of(array)) <= _FEW_SHARDS * within
    return math.prod(grid_of(array)) <= _FEW_CHUNKS


def load_table(source: Source, table_path: str) -> TableFile | None:
    """Return a table's catalog; None if the file has no such table.

    Parameters
    ----------
    source : Source
    table_path : str
        Without the leading slash.

    Raises
    ------
    SourceNotFoundError, NotNWBError
        If the file cannot be read.
    """
    return load_described("table", source, table_path, _table_and_chunks)


def _table_and_chunks(
    reader: Reader, source: Source, path: str
) -> tuple[Table | None, dict[str, ChunkIndex]]:
    table = reader.describe_table(path)
    if table is None or not source.is_remote:
        return table, {}
    few = [array for array in _chunked(table.columns) if is_listed_at_once(array)]
    return table, reader.chunk_indices_here(few)


def key_of(kind: str, source: Source, path: str = "") -> str:
    """Return the key of an entry in the cache.

    Parameters
    ----------
    kind : str
        Kind of description, of which a group may have several: "table", "members", ...
    source : Source
        File that is described.
    path : str
        Path of the described group, without the leading slash.
    """
    return f"{kind}\0{source.key}\0{path}\0{config.external_links}"


def _load(key: str, source: Source, kind: type[K], describe: Callable[[Reader, str], K]) -> K:
    """Return an entry: from memory, from the disk cache, or made now by `describe(reader, identity)`."""
    entry, now = get_entry(key, source, kind)
    if entry is None:
        with invalidate_on_corruption(source), open_reader(source, now) as reader:
            entry = describe(reader, now)
            source.verify(now)
        put_entry(entry, source)
    return entry


def load_described(
    kind: str,
    source: Source,
    path: str,
    describe: Callable[[Reader, Source, str], tuple[Table | None, dict[str, ChunkIndex]]],
) -> TableFile | None:
    """Return a description of a group: from memory, from the cache, or made now; None if there is none.

    Parameters
    ----------
    kind : str
        Kind of description; see `key_of`.
    source : Source
        File that is described.
    path : str
        Path of the group, without the leading slash.
    describe : callable
        Returns the description, and the chunk indices that making it has brought.
    """
    key = key_of(kind, source, path)
    entry = _load(key, source, Entry, lambda reader, now: Entry(key, now, *describe(reader, source, path)))
    return TableFile(source, entry) if entry.table is not None else None


def look_up_chunks(wanted: Iterable[tuple[TableFile, Wanted]]) -> None:
    """Make sure that chunks are known, of several files at the same time where that helps."""
    files: dict[int, tuple[TableFile, list[Wanted]]] = {}
    for file, one in wanted:
        files.setdefault(id(file), (file, []))[1].append(one)
    lacking = [(file, listed) for file, listed in files.values() if file.unknown(listed)]
    map_concurrently(lambda pair: pair[0].look_up(pair[1]), lacking, (file.source for file, _ in lacking))


def load_listing(source: Source) -> Listing:
    """Return the description of everything that a file contains; see `load_table`."""
    key = key_of("listing", source)
    entry = _load(
        key, source, ListingEntry, lambda reader, now: ListingEntry(key, now, reader.list_objects())
    )
    return entry.listing


def load_members(source: Source, path: str) -> TableFile | None:
    """Return a description of every dataset of a group, each a column; None if there is no such group.

    Parameters
    ----------
    source : Source
    path : str
        Without the leading slash.

    Raises
    ------
    SourceNotFoundError, NotNWBError
        If the file cannot be read.
    """
    return load_described(
        "members", source, path, lambda reader, _, group: (reader.describe_members(group), {})
    )


_MEMBERS, _ALL = "attributes", "all attributes"


class AttributesEntry(CacheEntry):
    """What the cache keeps of an object's attributes and its members' (None: there is no such object)."""

    attributes: Attributes | None

    @property
    def depends(self) -> tuple[tuple[str, str], ...]:
        """Other files that links led to."""
        return self.attributes.depends if self.attributes is not None else ()


def load_attributes(source: Source, path: str) -> dict[str, dict[str, Any]] | None:
    """Return the attributes of an object and of its direct members.

    Parameters
    ----------
    source : Source
    path : str
        Without the leading slash; an empty text is the root group.

    Returns
    -------
    dict of str to dict, or None
        By the members' names; the object's own under an empty text. Values are text, bool, int, float,
        None, lists of these, or dictionaries for compounds; object references are paths, and what cannot
        be read is a text that begins with "<unreadable". None if nothing is at the path.

    Raises
    ------
    SourceNotFoundError, NotNWBError
        If the file cannot be read.
    """
    return _from_all(source, path, deep=False) or _load_attributes(source, path, _MEMBERS)


def load_all_attributes(source: Source, path: str) -> dict[str, dict[str, Any]] | None:
    """Return the attributes of an object and of everything below it, by the paths below it.

    They are as `load_attributes` gives them. A group that several hard links lead to is descended into
    once; other links have the attributes of what they lead to.
    """
    return _from_all(source, path, deep=True) or _load_attributes(source, path, _ALL)


def forget_attributes(source: Source | None = None) -> None:
    """Forget attributes in this process, of one source or of all."""
    kinds = (_MEMBERS, _ALL)
    if source is None:
        remove_entries(lambda key: key.startswith(tuple(f"{kind}\0" for kind in kinds)))
    else:
        remove_entries(lambda key: key.startswith(tuple(f"{kind}\0{source.key}\0" for kind in kinds)))


def _load_attributes(source: Source, path: str, kind: str) -> dict[str, dict[str, Any]] | None:
    key = key_of(kind, source, path)

    def describe(reader: Reader, now: str) -> AttributesEntry:
        found = reader.all_attributes(path) if kind == _ALL else reader.attributes(path)
        return AttributesEntry(key, now, found)

    entry = _load(key, source, AttributesEntry, describe)
    return entry.attributes.by_path if entry.attributes is not None else None


def _from_all(source: Source, path: str, *, deep: bool) -> dict[str, dict[str, Any]] | None:
    """Return what is below a path, if all of the file's attributes are known and say so."""
    entry = get_entry(key_of(_ALL, source), source, AttributesEntry)[0]
    found = entry.attributes if entry is not None else None
    if found is None or not found.nested or path not in found.by_path:
        return None
    start = f"{path}/" if path else ""
    below = {
        name[len(start) :]: attributes
        for name, attributes in found.by_path.items()
        if name and name.startswith(start) and (deep or "/" not in name[len(start) :])
    }
    # Nothing below: a dataset, or a group that only a link leads to, whose members are not listed.
    return {"": found.by_path[path], **below} if below else None


def copied(value: Any) -> Any:  # noqa: ANN401 - an attribute, or a dictionary of them
    """Return plain values that the caller may change: what is kept in memory is not handed out."""
    if isinstance(value, dict):
        return {name: copied(item) for name, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value
