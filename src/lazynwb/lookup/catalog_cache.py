"""What is known of files, in memory and on disk: kept while the files are as they were.

An entry is valid for one identity of its file, and of those that links of it led to.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from contextlib import contextmanager
from functools import cache as once
from typing import TYPE_CHECKING, Self, TypeVar

import msgspec

from lazynwb.catalog import disk_cache
from lazynwb.column_store.store import column_store
from lazynwb.errors import CorruptDataError, NotNWBError
from lazynwb.formats.registry import prepare
from lazynwb.profile import count
from lazynwb.storage.remote_state import forget
from lazynwb.storage.source import ABSENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lazynwb.storage.source import Source

#: What is raised when bytes of a file make no sense.
DAMAGE = (CorruptDataError, NotNWBError)
#: Entries kept in memory.
_MOST_KEPT = 2048


class CacheEntry(msgspec.Struct, array_like=True, gc=False):
    """Something that is known of one source.

    Attributes
    ----------
    key : str
        What it is, and of which source.
    identity : str
        Of the source as it was.
    """

    key: str
    identity: str

    @property
    def depends(self) -> tuple[tuple[str, str], ...]:
        """Other files that it says something of, with their identities."""
        return ()

    def for_disk(self) -> Self:
        """Return what is kept on disk of it."""
        return self


_ENCODER = msgspec.msgpack.Encoder()

K = TypeVar("K", bound=CacheEntry)

_memory: OrderedDict[str, CacheEntry] = OrderedDict()
_lock = threading.Lock()


def _unlock() -> None:
    """Give a forked child a lock that no thread of its parent holds."""
    global _lock  # noqa: PLW0603 - there is nobody else in the child yet
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)


@once
def _decoder(kind: type[K]) -> msgspec.msgpack.Decoder[K]:
    return msgspec.msgpack.Decoder(kind)


def get_entry(key: str, source: Source, kind: type[K]) -> tuple[K | None, str]:
    """Return what is known of a file as it is now, in memory or on disk, and its identity."""
    with _lock:
        kept = _memory.get(key)
        if kept is not None:
            _memory.move_to_end(key)
    stored = kept if kept is not None else disk_cache.load(key, _decoder(kind))
    if stored is None and source.is_remote:
        prepare(source)
    now = source.identity(known=stored is not None)
    if kept is not None and kept.identity != now:
        stored = disk_cache.load(key, _decoder(kind))  # another process may have seen the file as it is now
    if not isinstance(stored, kind) or stored.key != key or not is_valid(stored, source, now):
        return None, now
    if stored is not kept:
        _keep(stored)
    count(cache_hits=1)
    return stored, now


def get_version(key: str, version: str, kind: type[K]) -> K | None:
    """Return what is known of one version of a file, whether or not it still is that one."""
    with _lock:
        kept = _memory.get(key)
    if kept is None or kept.identity != version:
        kept = disk_cache.load(key, _decoder(kind))
    return kept if isinstance(kept, kind) and kept.key == key and kept.identity == version else None


def is_valid(entry: CacheEntry, source: Source, now: str) -> bool:
    """Tell whether an entry describes a file, given what it is now, and those that links of it lead to."""
    return entry.identity == now and all(
        source.with_path(path).identity_or_absent() == known for path, known in entry.depends
    )


def _keep(entry: CacheEntry) -> None:
    with _lock:
        _memory[entry.key] = entry
        while len(_memory) > _MOST_KEPT:
            _memory.popitem(last=False)


def put_entry(entry: CacheEntry, source: Source) -> None:
    """Keep an entry in memory and on disk, unless the file is so new that a change could go unnoticed."""
    files = [(source, entry.identity)]
    files += [(source.with_path(other), known) for other, known in entry.depends if known != ABSENT]
    try:
        if not all(file.is_settled(known, time.time_ns()) for file, known in files):
            return
    except FileNotFoundError:
        return
    _keep(entry)
    disk_cache.save(entry.key, entry.for_disk(), _ENCODER)


@contextmanager
def invalidate_on_corruption(*sources: Source) -> Iterator[None]:
    """Forget all that is known of remote files that turn out to be damaged.

    What a server or a proxy sent may be another thing than what is there: a page, a part, flipped bits. Who
    kept it would go on failing when the server no longer does.
    """
    try:
        yield
    except DAMAGE:
        for source in sources:
            invalidate_source(source)
        raise


def invalidate_source(source: Source) -> None:
    """Remove what is cached of a damaged remote file; see `invalidate_on_corruption`."""
    if not source.is_remote:
        return
    source.invalidate()
    start = f"{source.key}\0"
    with _lock:
        keys = [key for key in _memory if key.partition("\0")[2].startswith(start)]
        for key in keys:
            del _memory[key]
    for key in keys:
        disk_cache.remove(key)


def remove_entries(is_unwanted: Callable[[str], bool]) -> None:
    """Forget the entries of some keys, in this process."""
    with _lock:
        for key in [key for key in _memory if is_unwanted(key)]:
            del _memory[key]


def clear_memory() -> None:
    """Forget every entry in this process; those on disk stay."""
    with _lock:
        _memory.clear()


def clear_cache() -> None:
    """Forget every catalog and the column store, in memory and on disk.

    Nothing else is removed from the cache's folder (`lazynwb.config.cache_path`), and no query needs the
    cache: what is not there is read from the files again.
    """
    clear_memory()
    forget()
    disk_cache.clear()
    column_store().clear()
