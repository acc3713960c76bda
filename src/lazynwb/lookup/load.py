"""Catalogs of files: from memory, from the cache on disk, or parsed now."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, TypeVar

import msgspec

from lazynwb.catalog import cache
from lazynwb.catalog.listing import Listing  # noqa: TC001 - msgspec reads the annotations
from lazynwb.catalog.model import Array, ChunkIndex, Column, Table, arrays_of
from lazynwb.config import config
from lazynwb.formats import Reader, open_reader
from lazynwb.profile import count
from lazynwb.sources.local import ABSENT, expect, identity, identity_or_absent, is_settled

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Columns of every scan that no file can have.
RESERVED_NAMES = frozenset({"_nwb_path", "_table_path", "_table_index", "_lazynwb_rows"})
#: Entries kept in memory.
_MOST_KEPT = 2048
#: Chunk indices larger than this are looked up again by every process rather than kept on disk.
_MOST_INDEX_BYTES = 4 * 1024 * 1024


class Entry(msgspec.Struct, array_like=True, gc=False):
    """What the cache keeps of one table of one source (or that the source has no such table)."""

    key: str
    identity: str
    table: Table | None
    chunks: dict[str, ChunkIndex]


class ListingEntry(msgspec.Struct, array_like=True, gc=False):
    """What the cache keeps of one source's contents."""

    key: str
    identity: str
    listing: Listing


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Entry)
_LISTING_DECODER = msgspec.msgpack.Decoder(ListingEntry)

E = TypeVar("E", Entry, ListingEntry)

_memory: OrderedDict[str, Entry | ListingEntry] = OrderedDict()
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
    path : str
        Absolute path of the file.
    identity : str
        Of the file that the catalog describes.
    table : Table
    columns : dict of str to Column
    """

    __slots__ = ("_chunks", "_entry", "columns", "identity", "path", "table")

    def __init__(self, path: str, entry: Entry) -> None:
        assert entry.table is not None  # noqa: S101 - checked by the one caller
        self.path = path
        self.identity = entry.identity
        self.table: Table = entry.table
        self.columns: dict[str, Column] = {
            c.name: c for c in entry.table.columns if c.name not in RESERVED_NAMES
        }
        self._entry = entry
        self._chunks = entry.chunks

    @property
    def problems(self) -> tuple[str, ...]:
        """What was mended or left out in this table."""
        taken = [c.name for c in self.table.columns if c.name in RESERVED_NAMES]
        return self.table.problems + tuple(
            f"column {name!r} was left out: its name is reserved" for name in taken
        )

    def chunks(self, array: Array) -> ChunkIndex | None:
        """Return where an array's chunks are; None where its layout has no chunks."""
        return self._chunks.get(array.path) if array.layout == "chunked" else None

    def look_up_chunks(self, columns: Iterable[Column]) -> None:
        """Make sure that the chunks of the given columns are known; opens the file if they are not."""
        missing = [
            array
            for column in columns
            for array in arrays_of(column)
            if array.layout == "chunked" and array.path not in self._chunks
        ]
        if missing:
            with self.reader() as reader:
                found = {array.path: reader.chunk_index(array) for array in missing}
            self._chunks = self._entry.chunks = {**self._chunks, **found}
            _remember(self._entry, self.path)

    def reader(self) -> Reader:
        """Open the file with its format's own library.

        Raises
        ------
        SourceChangedError
            If the file is no longer the one that the catalog describes.
        """
        expect(self.path, self.identity)
        return open_reader(self.path)

    def identity_of(self, path: str) -> str:
        """Return the identity that this file, or one that an external link leads to, must have."""
        return self.identity if path == self.path else dict(self.table.depends)[path]


def load_table(path: str, table_path: str) -> TableFile | None:
    """Return a table's catalog; None if the file has no such table.

    Parameters
    ----------
    path : str
        Absolute path of a local file.
    table_path : str
        Without the leading slash.

    Raises
    ------
    SourceNotFoundError, NotNWBError
        If the file cannot be read.
    """
    key = f"table\0{path}\0{table_path}\0{config.external_links}"
    now = identity(path)
    entry = _recall(key, now, Entry)
    if entry is None:
        with open_reader(path) as reader:
            table = reader.describe_table(table_path)
            entry = Entry(key, now, table, {})
            expect(path, now)
        _remember(entry, path)
    return TableFile(path, entry) if entry.table is not None else None


def load_listing(path: str) -> Listing:
    """Return the description of everything that a file contains; see `load_table`."""
    key = f"listing\0{path}\0{config.external_links}"
    now = identity(path)
    entry = _recall(key, now, ListingEntry)
    if entry is None:
        with open_reader(path) as reader:
            entry = ListingEntry(key, now, reader.list_objects())
            expect(path, now)
        _remember(entry, path)
    return entry.listing


def _recall(key: str, now: str, kind: type[E]) -> E | None:
    with _lock:
        kept = _memory.get(key)
        if kept is not None:
            _memory.move_to_end(key)
    if not isinstance(kept, kind) or not _is_valid(kept, now):
        kept = cache.load(key, _DECODER) if kind is Entry else cache.load(key, _LISTING_DECODER)
        if not isinstance(kept, kind) or kept.key != key or not _is_valid(kept, now):
            return None
        _keep(kept)
    count(cache_hits=1)
    return kept


def _is_valid(entry: Entry | ListingEntry, now: str) -> bool:
    if entry.identity != now:
        return False
    described = entry.table if isinstance(entry, Entry) else entry.listing
    return all(identity_or_absent(path) == known for path, known in (described.depends if described else ()))


def _keep(entry: Entry | ListingEntry) -> None:
    with _lock:
        _memory[entry.key] = entry
        while len(_memory) > _MOST_KEPT:
            _memory.popitem(last=False)


def _remember(entry: Entry | ListingEntry, path: str) -> None:
    """Keep an entry in memory and on disk, unless the file is so new that a change could go unnoticed."""
    described = entry.table if isinstance(entry, Entry) else entry.listing
    linked = described.depends if described else ()
    files = [path, *(other for other, known in linked if known != ABSENT)]
    try:
        if not all(is_settled(file, time.time_ns()) for file in files):
            return
    except FileNotFoundError:
        return
    _keep(entry)
    if isinstance(entry, Entry):
        small = {
            name: index for name, index in entry.chunks.items() if len(index.offsets) <= _MOST_INDEX_BYTES
        }
        entry = Entry(entry.key, entry.identity, entry.table, small)
    cache.save(entry.key, entry, _ENCODER)


def clear_cache() -> None:
    """Forget every catalog, in memory and on disk.

    Nothing else is removed from the cache's folder (`lazynwb.config.cache_path`), and no query needs the
    cache: what is not there is read from the files again.
    """
    with _lock:
        _memory.clear()
    cache.clear()
