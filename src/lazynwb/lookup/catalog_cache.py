"""The catalog cache, in memory and on disk.

An entry is valid for one identity of its file, and one of each target of its external links.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Self, TypeVar

import msgspec

from lazynwb.catalog import disk_cache
from lazynwb.column_store.store import column_store
from lazynwb.errors import CorruptDataError, NotNWBError
from lazynwb.profile import count
from lazynwb.storage.remote_state import forget
from lazynwb.storage.source import ABSENT
from lazynwb.struct_decoders import msgpack_decoder
from lazynwb.threads import CACHE_WRITES, ForkSafeLock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lazynwb.storage.source import Source

#: Errors of damaged files.
DAMAGE = (CorruptDataError, NotNWBError)
#: Maximum number of entries in memory.
_MAX_ENTRIES = 2048


class CacheEntry(msgspec.Struct, array_like=True, gc=False):
    """A cache entry of one source.

    Attributes
    ----------
    key : str
        Kind of entry and source.
    identity : str
        Identity of the source that the entry describes.
    """

    key: str
    identity: str

    @property
    def depends(self) -> tuple[tuple[str, str], ...]:
        """Other files that the entry depends on, with their identities."""
        return ()

    def for_disk(self) -> Self:
        """Return the entry to store on disk."""
        return self


_ENCODER = msgspec.msgpack.Encoder()

K = TypeVar("K", bound=CacheEntry)

_memory: OrderedDict[str, CacheEntry] = OrderedDict()
_lock = ForkSafeLock()


def get_entry(key: str, source: Source, kind: type[K]) -> tuple[K | None, str]:
    """Return the valid entry of a file from memory or disk, or None, and the identity of the file."""
    with _lock:
        in_memory = _memory.get(key)
        if in_memory is not None:
            _memory.move_to_end(key)
    stored = in_memory if in_memory is not None else disk_cache.load(key, msgpack_decoder(kind))
    now = source.identity(known=stored.identity if stored is not None else False)
    if in_memory is not None and in_memory.identity != now:
        # Another process may have stored the current version.
        stored = disk_cache.load(key, msgpack_decoder(kind))
    if not isinstance(stored, kind) or stored.key != key or not is_valid(stored, source, now):
        return None, now
    if stored is not in_memory:
        _put_in_memory(stored)
    count(cache_hits=1)
    return stored, now


def get_version(key: str, version: str, kind: type[K]) -> K | None:
    """Return the entry of one version of a file, which need not be the current one."""
    with _lock:
        entry = _memory.get(key)
    if entry is None or entry.identity != version:
        entry = disk_cache.load(key, msgpack_decoder(kind))
    return entry if isinstance(entry, kind) and entry.key == key and entry.identity == version else None


def is_valid(entry: CacheEntry, source: Source, now: str) -> bool:
    """Return whether an entry is valid for the identity `now` of a file and the targets of its links."""
    return entry.identity == now and all(
        source.with_path(path).identity_or_absent(known) == known for path, known in entry.depends
    )


def _put_in_memory(entry: CacheEntry) -> None:
    with _lock:
        _memory[entry.key] = entry
        while len(_memory) > _MAX_ENTRIES:
            _memory.popitem(last=False)


def put_entry(entry: CacheEntry, source: Source) -> None:
    """Store an entry in memory, and on disk later, unless a change of the file might not be detected."""
    files = [(source, entry.identity)]
    files += [(source.with_path(other), known) for other, known in entry.depends if known != ABSENT]
    try:
        if not all(file.is_settled(known, time.time_ns()) for file, known in files):
            return
    except FileNotFoundError:
        return
    _put_in_memory(entry)
    CACHE_WRITES.submit(partial(disk_cache.save, entry.key, entry.for_disk(), _ENCODER))


@contextmanager
def invalidate_on_corruption(*sources: Source) -> Iterator[None]:
    """Remove all entries of remote files if they are damaged.

    A server or proxy may have sent an error page, a partial file or flipped bits. A cached copy would fail
    even after the server has recovered.
    """
    try:
        yield
    except DAMAGE:
        for source in sources:
            invalidate_source(source)
        raise


def invalidate_source(source: Source) -> None:
    """Remove all entries of a damaged remote file; see `invalidate_on_corruption`."""
    if not source.is_remote:
        return
    CACHE_WRITES.finish()  # so that none of them restores an entry
    source.invalidate()
    start = f"{source.key}\0"
    with _lock:
        keys = [key for key in _memory if key.partition("\0")[2].startswith(start)]
        for key in keys:
            del _memory[key]
    for key in keys:
        disk_cache.remove(key)


def remove_entries(is_unwanted: Callable[[str], bool]) -> None:
    """Remove entries from memory by their keys."""
    with _lock:
        for key in [key for key in _memory if is_unwanted(key)]:
            del _memory[key]


def clear_memory() -> None:
    """Remove all entries from memory; keep those on disk."""
    with _lock:
        _memory.clear()


def clear_cache() -> None:
    """Remove all catalogs and the column store, in memory and on disk.

    Other files in the folder of the cache (`lazynwb.config.cache_path`) are kept. Queries do not need the
    cache: they read the files again.
    """
    CACHE_WRITES.finish()  # so that none of them restores an entry
    clear_memory()
    forget()
    disk_cache.clear()
    column_store().clear()
