"""Bytes of remote files that are here already: what was parsed, and small columns.

They are kept in memory while they are few, and those that were really used on disk, in the catalog cache, so
that the next process need not ask for them again.
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
    from collections.abc import Iterator

    from lazynwb.storage.source import Source

#: Bytes of one file that go to disk, and of all files that stay in memory.
_MAX_ON_DISK = 1024 * 1024
_MAX_IN_MEMORY = 256 * 1024 * 1024
#: Notes of what was used, before they are summed up.
_MAX_NOTES = 50_000


class _Entry(msgspec.Struct, array_like=True, gc=False):
    """What the cache on disk has of one version of one file."""

    key: str
    identity: str
    starts: list[int]
    pieces: list[bytes]


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgpack_decoder(_Entry)


class BlockCache:
    """Byte ranges of one version of one file.

    Parameters
    ----------
    key : str
        Of the cache's entry.
    identity : str
        Of the version.
    lasting : bool
        Whether the identity is certain to change with the file, so that ranges may be kept on disk.
    """

    def __init__(self, key: str, identity: str, *, lasting: bool) -> None:
        self._key = key
        self._identity = identity
        self._lasting = lasting
        self._lock = threading.Lock()
        self._starts: list[int] = []
        self._pieces: list[memoryview] = []
        self._used: list[tuple[int, int]] = []
        self._small = 0
        self._notes_full = False
        self._fresh = False
        self.size = 0
        stored = disk_cache.load(key, _DECODER) if lasting else None
        if stored is not None and stored.key == key and stored.identity == identity:
            for start, piece in zip(stored.starts, stored.pieces, strict=False):
                self.add(start, piece)
                self._used.append((start, start + len(piece)))

    def get(self, start: int, size: int) -> memoryview | None:
        """Return a range if all of it is here."""
        with self._lock:
            at = bisect_right(self._starts, start) - 1
            if at < 0:
                return None
            first, piece = self._starts[at], self._pieces[at]
            if start + size <= first + len(piece):
                return piece[start - first : start - first + size]
            parts = list(self._cut(start, start + size))
        if sum(len(part) for _, part in parts) < size:
            return None
        return memoryview(b"".join(part for _, part in parts))

    def near(self, position: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the pieces before and behind a position, each as (start, stop); (-1, -1) for none."""
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
        """Keep a range; pieces that it covers are dropped."""
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

    def add_small(self, start: int, data: memoryview) -> None:
        """Keep a range that a column was read from, while what the columns read is little."""
        if self._small + len(data) <= _MAX_ON_DISK and not self._notes_full:
            self._small += len(data)
            self.add(start, bytes(data))
            self.use(start, len(data))

    def drop(self, start: int, stop: int) -> None:
        """Let go of the pieces that begin in a range."""
        with self._lock:
            low, high = bisect_left(self._starts, start), bisect_left(self._starts, stop)
            self.size -= sum(map(len, self._pieces[low:high]))
            del self._starts[low:high], self._pieces[low:high]

    def use(self, start: int, size: int) -> None:
        """Note that a range is worth keeping on disk."""
        if self._notes_full:
            return
        self._used.append((start, start + size))
        self._fresh = True
        if len(self._used) > _MAX_NOTES:
            self._used = _merged(self._used)
            self._notes_full = len(self._used) > _MAX_NOTES // 2

    def save(self) -> None:
        """Write what was used to the cache on disk, if anything was since the last time."""
        if not (self._fresh and self._lasting):
            return
        self._fresh = False
        entry = _Entry(self._key, self._identity, [], [])
        room = _MAX_ON_DISK
        with self._lock:
            used = _merged(self._used)
            self._used = used
            for start, stop in used:
                for first, piece in self._cut(start, stop):
                    room -= len(piece)
                    if room < 0:
                        break
                    entry.starts.append(first)
                    entry.pieces.append(bytes(piece))
        disk_cache.save(self._key, entry, _ENCODER)

    def _cut(self, start: int, stop: int) -> Iterator[tuple[int, memoryview]]:
        at = max(bisect_right(self._starts, start) - 1, 0)
        while at < len(self._starts) and self._starts[at] < stop:
            first, piece = self._starts[at], self._pieces[at]
            low, high = max(start, first), min(stop, first + len(piece))
            if low < high:
                yield low, piece[low - first : high - first]
                start = high
            at += 1


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], stop))
        else:
            merged.append((start, stop))
    return merged


_all: OrderedDict[tuple[str, str], BlockCache] = OrderedDict()
_lock = threading.Lock()


def block_cache_of(source: Source, identity: str, *, lasting: bool = False) -> BlockCache:
    """Return what is here of one version of a file; see `BlockCache`."""
    key = f"bytes\0{source.key}"
    with _lock:
        found = _all.get((key, identity))
        if found is not None:
            _all.move_to_end((key, identity))
            return found
    made = BlockCache(key, identity, lasting=lasting)
    with _lock:
        found = _all.setdefault((key, identity), made)
        total = sum(kept.size for kept in _all.values())
        while total > _MAX_IN_MEMORY and len(_all) > 1:
            total -= _all.popitem(last=False)[1].size
    return found


def clear_block_cache(source: Source, identity: str) -> None:
    """Drop what is here of a version from memory."""
    with _lock:
        _all.pop((f"bytes\0{source.key}", identity), None)


def forget_file(source: Source) -> None:
    """Drop what is here of any version of a file, from memory and from disk."""
    key = f"bytes\0{source.key}"
    with _lock:
        for known in [known for known in _all if known[0] == key]:
            del _all[known]
    disk_cache.remove(key)


def save_all() -> None:
    """Write what has been used since the last time to the cache on disk."""
    with _lock:
        everything = list(_all.values())
    for kept in everything:
        kept.save()


def forget_all() -> None:
    """Drop everything from memory."""
    with _lock:
        _all.clear()
