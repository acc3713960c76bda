"""Catalogs of files: from memory, from the cache on disk, or parsed now."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict, deque
from concurrent.futures import CancelledError
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import msgspec

from lazynwb.catalog import cache
from lazynwb.catalog.listing import Listing  # noqa: TC001 - msgspec reads the annotations
from lazynwb.catalog.model import Array, ChunkIndex, Column, Table, arrays_of
from lazynwb.catalog.provenance import RESERVED
from lazynwb.config import config
from lazynwb.formats import Reader, open_reader, prepare
from lazynwb.profile import count
from lazynwb.sources.files import (
    ABSENT,
    announce,
    expect,
    forget,
    identity,
    identity_or_absent,
    is_settled,
    together,
)
from lazynwb.threads import LOADERS, wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

    from lazynwb.sources.source import Source

#: Remote files that are parsed ahead of the one that is waited for.
_MOST_AHEAD = 32
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
    _begun.clear()


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
    """

    __slots__ = ("_chunks", "_entry", "columns", "identity", "name", "source", "table")

    def __init__(self, source: Source, entry: Entry) -> None:
        assert entry.table is not None  # noqa: S101 - checked by the one caller
        self.source = source
        self.name = source.name
        self.identity = entry.identity
        self.table: Table = entry.table
        self.columns: dict[str, Column] = {c.name: c for c in entry.table.columns if c.name not in RESERVED}
        self._entry = entry
        self._chunks = entry.chunks

    @property
    def problems(self) -> tuple[str, ...]:
        """What was mended or left out in this table."""
        taken = [c.name for c in self.table.columns if c.name in RESERVED]
        return self.table.problems + tuple(
            f"column {name!r} was left out: its name is reserved" for name in taken
        )

    def chunks(self, array: Array) -> ChunkIndex | None:
        """Return where an array's chunks are; None where its layout has no chunks."""
        return self._chunks.get(array.path) if _has_index(array) else None

    def look_up_chunks(self, columns: Iterable[Column]) -> None:
        """Make sure that the chunks of the given columns are known; opens the file if they are not."""
        missing = self.unknown_chunks(columns)
        if missing:
            with self.reader() as reader:
                indices = reader.chunk_indices(missing)
            found = {array.path: index for array, index in zip(missing, indices, strict=True)}
            self._chunks = self._entry.chunks = {**self._chunks, **found}
            _remember(self._entry, self.source)

    def unknown_chunks(self, columns: Iterable[Column]) -> list[Array]:
        """Return the arrays of the given columns whose chunks have not been looked up."""
        return [array for array in _chunked(columns) if array.path not in self._chunks]

    def reader(self) -> Reader:
        """Open the file with its format's own library.

        Raises
        ------
        SourceChangedError
            If the file is no longer the one that the catalog describes.
        """
        expect(self.source, self.identity)
        return open_reader(self.source, self.identity)

    def holder(self, array: Array) -> tuple[Source, str]:
        """Return the file that holds an array, and its identity; external links lead to others."""
        if array.source is None:
            return self.source, self.identity
        return self.source.with_path(array.source), dict(self.table.depends)[array.source]


def _chunked(columns: Iterable[Column]) -> list[Array]:
    return [array for column in columns for array in arrays_of(column) if _has_index(array)]


def _has_index(array: Array) -> bool:
    """Tell whether the places of an array's chunks have to be looked up."""
    return array.layout == "chunked" or bool(array.shard)


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
    key = f"table\0{source.key}\0{table_path}\0{config.external_links}"
    entry, now = _recall(key, source, Entry)
    if entry is None:
        with open_reader(source, now) as reader:
            table = reader.describe_table(table_path)
            chunks = {}
            if table is not None and source.is_remote:
                chunks = reader.chunk_indices_here(_chunked(table.columns))
            entry = Entry(key, now, table, chunks)
            expect(source, now)
        _remember(entry, source)
    return TableFile(source, entry) if entry.table is not None else None


def load_tables(sources: Iterable[Source], table_path: str) -> Iterator[Callable[[], TableFile | None]]:
    """Yield for each source, in order, a function that returns its table as `load_table` does.

    Remote files are parsed while those before them are still looked at: their answers take long to come.
    Those that have begun when the iterator is closed go on, for whoever asks next: a schema that is taken
    from the first file is mostly followed by a query on all.
    """
    sources = list(sources)
    announce(sources)
    ahead: deque[Callable[[], TableFile | None]] = deque()
    begun: list[Future[TableFile | None]] = []
    try:
        for source in sources:
            if source.is_remote:
                begun.append(_begin(source, table_path))
                ahead.append(partial(_finish, begun[-1], source, table_path))
            else:
                ahead.append(partial(load_table, source, table_path))
            while ahead and (not source.is_remote or len(ahead) >= _MOST_AHEAD):
                yield ahead.popleft()
        while ahead:
            yield ahead.popleft()
    finally:
        for future in begun:
            future.cancel()


_begun: dict[tuple[Source, str, str], Future[TableFile | None]] = {}


def _begin(source: Source, table_path: str) -> Future[TableFile | None]:
    """Have a table loaded by another thread, if it is not being loaded already."""
    key = (source, table_path, config.external_links)
    with _lock:
        future = _begun.get(key)
        if future is None or future.done():
            future = _begun[key] = LOADERS.submit(load_table, source, table_path)
            future.add_done_callback(lambda _: _begun.pop(key, None))
    return future


def _finish(future: Future[TableFile | None], source: Source, table_path: str) -> TableFile | None:
    try:
        return wait(future)
    except CancelledError:  # by another query, which had enough
        return load_table(source, table_path)
    except KeyboardInterrupt:
        _begun.clear()  # whoever asks next does not wait for what was waited for in vain
        raise


def look_up_chunks(wanted: Iterable[tuple[TableFile, Iterable[Column]]]) -> None:
    """Make sure that the chunks of columns are known, of several files at the same time where that helps."""
    lacking = [(file, columns) for file, columns in wanted if file.unknown_chunks(columns)]
    together(lambda pair: pair[0].look_up_chunks(pair[1]), lacking, (file.source for file, _ in lacking))


def load_listing(source: Source) -> Listing:
    """Return the description of everything that a file contains; see `load_table`."""
    key = f"listing\0{source.key}\0{config.external_links}"
    entry, now = _recall(key, source, ListingEntry)
    if entry is None:
        with open_reader(source, now) as reader:
            entry = ListingEntry(key, now, reader.list_objects())
            expect(source, now)
        _remember(entry, source)
    return entry.listing


def _recall(key: str, source: Source, kind: type[E]) -> tuple[E | None, str]:
    """Return what is known of a file as it is now, in memory or on disk, and its identity."""
    with _lock:
        kept = _memory.get(key)
        if kept is not None:
            _memory.move_to_end(key)
    stored = kept if kept is not None else _stored(key, kind)
    if stored is None and source.is_remote:
        prepare(source)
    now = identity(source, known=stored is not None)
    if kept is not None and kept.identity != now:
        stored = _stored(key, kind)  # another process may have seen the file as it is now
    if not isinstance(stored, kind) or stored.key != key or not _is_valid(stored, source, now):
        return None, now
    if stored is not kept:
        _keep(stored)
    count(cache_hits=1)
    return stored, now


def _stored(key: str, kind: type[E]) -> Entry | ListingEntry | None:
    return cache.load(key, _DECODER) if kind is Entry else cache.load(key, _LISTING_DECODER)


def _is_valid(entry: Entry | ListingEntry, source: Source, now: str) -> bool:
    if entry.identity != now:
        return False
    described = entry.table if isinstance(entry, Entry) else entry.listing
    depends = described.depends if described else ()
    return all(identity_or_absent(source.with_path(path)) == known for path, known in depends)


def _keep(entry: Entry | ListingEntry) -> None:
    with _lock:
        _memory[entry.key] = entry
        while len(_memory) > _MOST_KEPT:
            _memory.popitem(last=False)


def _remember(entry: Entry | ListingEntry, source: Source) -> None:
    """Keep an entry in memory and on disk, unless the file is so new that a change could go unnoticed."""
    described = entry.table if isinstance(entry, Entry) else entry.listing
    linked = described.depends if described else ()
    files = [(source, entry.identity)]
    files += [(source.with_path(other), known) for other, known in linked if known != ABSENT]
    try:
        if not all(is_settled(file, known, time.time_ns()) for file, known in files):
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
    forget()
    cache.clear()
