"""Cache of byte ranges of remote files: parsed structure and small columns.

A bounded number of bytes is kept in memory. Ranges that were actually used are also written to the catalog
cache on disk, so that the next process does not request them again.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from typing import TYPE_CHECKING

import msgspec

from lazynwb.catalog import disk_cache
from lazynwb.struct_decoders import msgpack_decoder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lazynwb.storage.source import Source

#: Maximum bytes of one file on disk, and of all files in memory.
_MAX_ON_DISK = 1024 * 1024
_MAX_IN_MEMORY = 256 * 1024 * 1024
#: Used ranges per file before they are merged.
_MAX_USED_RANGES = 50_000


class _Entry(msgspec.Struct, array_like=True, gc=False):
    """The cache entry on disk of one version of one file."""

    key: str
    identity: str
    starts: list[int]
    pieces: list[bytes]


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgpack_decoder(_Entry)


class BlockCache:
    """Cached byte ranges of one version of one file.

    Parameters
    ----------
    key : str
        Key of the cache entry on disk.
    identity : str
        Identity of the version.
    lasting : bool
        Whether the identity is certain to change with the file, so that ranges may be written to disk.
    """

    def __init__(self, key: str, identity: str, *, lasting: bool) -> None:
        self._key = key
        self._identity = identity
        self._lasting = lasting
        self._lock = threading.Lock()
        self._starts: list[int] = []
        self._pieces: list[memoryview] = []
        self._used: list[tuple[int, int]] = []
        self._column_bytes = 0
        self._is_full = False
        self._dirty = False
        self.size = 0
        stored = disk_cache.load(key, _DECODER) if lasting else None
        if stored is not None and stored.key == key and stored.identity == identity:
            for start, piece in zip(stored.starts, stored.pieces, strict=False):
                self.add(start, piece)
                self._used.append((start, start + len(piece)))

    def get(self, start: int, size: int) -> memoryview | None:
        """Return a range if all of it is cached."""
        with self._lock:
            at = bisect_right(self._starts, start) - 1
            if at < 0:
                return None
            first, piece = self._starts[at], self._pieces[at]
            if start + size <= first + len(piece):
                return piece[start - first : start - first + size]
            parts = list(self._overlaps(start, start + size))
        if sum(len(part) for _, part in parts) < size:
            return None
        return memoryview(b"".join(part for _, part in parts))

    def neighbors(self, position: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the cached pieces before and after a position as (start, stop); (-1, -1) for none."""
        with self._lock:
            at = bisect_right(self._starts, position)
            around = [
                (self._starts[i], self._starts[i] + len(self._pieces[i]))
                if 0 <= i < len(self._starts)
                else (-1, -1)
                for i in (at - 1, at)
            ]
        return around[0], around[1]

    def add(self, start: int, data: bytes | bytearray | memoryview) -> None:
        """Cache a range, and drop pieces that it covers."""
        piece = memoryview(data).toreadonly()
        if not len(piece) or self.get(start, len(piece)) is not None:
            return
        with self._lock:
            at = bisect_right(self._starts, start)
            if at and self._starts[at - 1] == start:
                at -= 1
            end = at
            while end < len(self._starts) and self._starts[end] + len(self._pieces[end]) <= start + len(
                piece
            ):
                self.size -= len(self._pieces[end])
                end += 1
            self._starts[at:end] = [start]
            self._pieces[at:end] = [piece]
            self.size += len(piece)

    def add_column_range(self, start: int, data: memoryview) -> None:
        """Cache a range of column data, until the columns of the file exceed the limit on disk."""
        if self._column_bytes + len(data) <= _MAX_ON_DISK and not self._is_full:
            self._column_bytes += len(data)
            self.add(start, bytes(data))
            self.mark_used(start, len(data))

    def drop(self, start: int, stop: int) -> None:
        """Drop the pieces that begin in a range."""
        with self._lock:
            low, high = bisect_left(self._starts, start), bisect_left(self._starts, stop)
            self.size -= sum(map(len, self._pieces[low:high]))
            del self._starts[low:high], self._pieces[low:high]

    def mark_used(self, start: int, size: int) -> None:
        """Mark a range to be written to disk."""
        if self._is_full:
            return
        with self._lock:
            self._used.append((start, start + size))
            self._dirty = True
            if len(self._used) > _MAX_USED_RANGES:
                self._used = merge_ranges(self._used)
                self._is_full = len(self._used) > _MAX_USED_RANGES // 2

    def save(self) -> None:
        """Write used ranges to disk if there are new ones since the last time."""
        if not (self._dirty and self._lasting):
            return
        entry = _Entry(self._key, self._identity, [], [])
        room = _MAX_ON_DISK
        with self._lock:
            self._dirty = False
            used = merge_ranges(self._used)
            self._used = used
            for start, stop in used:
                for first, piece in self._overlaps(start, stop):
                    room -= len(piece)
                    if room < 0:
                        break
                    entry.starts.append(first)
                    entry.pieces.append(bytes(piece))
        disk_cache.save(self._key, entry, _ENCODER)

    def _overlaps(self, start: int, stop: int) -> Iterator[tuple[int, memoryview]]:
        at = max(bisect_right(self._starts, start) - 1, 0)
        while at < len(self._starts) and self._starts[at] < stop:
            first, piece = self._starts[at], self._pieces[at]
            low, high = max(start, first), min(stop, first + len(piece))
            if low < high:
                yield low, piece[low - first : high - first]
                start = high
            at += 1


def merge_ranges(ranges: Iterable[tuple[int, int]], gap: int = 0) -> list[tuple[int, int]]:
    """Merge ranges that overlap or are at most some bytes apart, and return them in ascending order."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if merged and start - merged[-1][1] <= gap:
            merged[-1] = (merged[-1][0], max(merged[-1][1], stop))
        else:
            merged.append((start, stop))
    return merged


_caches: OrderedDict[tuple[str, str], BlockCache] = OrderedDict()
_lock = threading.Lock()


def block_cache_of(source: Source, identity: str, *, lasting: bool = False) -> BlockCache:
    """Return the block cache of one version of a file."""
    key = f"bytes\0{source.key}"
    with _lock:
        found = _caches.get((key, identity))
        if found is not None:
            _caches.move_to_end((key, identity))
            return found
    created = BlockCache(key, identity, lasting=lasting)
    with _lock:
        found = _caches.setdefault((key, identity), created)
        total = sum(cache.size for cache in _caches.values())
        while total > _MAX_IN_MEMORY and len(_caches) > 1:
            total -= _caches.popitem(last=False)[1].size
    return found


def clear_block_cache(source: Source, identity: str) -> None:
    """Drop the cached ranges of one version of a file from memory."""
    with _lock:
        _caches.pop((f"bytes\0{source.key}", identity), None)


def forget_file(source: Source) -> None:
    """Drop the cached ranges of all versions of a file from memory and disk."""
    key = f"bytes\0{source.key}"
    with _lock:
        for known in [known for known in _caches if known[0] == key]:
            del _caches[known]
    disk_cache.remove(key)


def save_all() -> None:
    """Write the newly used ranges of all files to disk."""
    with _lock:
        caches = list(_caches.values())
    for cache in caches:
        cache.save()


def forget_all() -> None:
    """Drop everything from memory."""
    with _lock:
        _caches.clear()
