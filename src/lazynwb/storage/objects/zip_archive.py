"""A store in a zip file, local or remote, of which only the parts that are needed are read."""

from __future__ import annotations

import zlib
from functools import cached_property, lru_cache
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from lazynwb.errors import CorruptDataError, UnsupportedTypeError
from lazynwb.storage.objects import zip_directory
from lazynwb.storage.objects.key_validation import bounds, checked, folder_of, tree
from lazynwb.storage.source import ABSENT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lazynwb.storage.file import Ranges
    from lazynwb.storage.objects.zip_directory import Member
    from lazynwb.storage.source import Source
    from lazynwb.threads import Pool

_LOCAL = Struct("<4s22xHH")
#: What a local header may have, besides the name, that the directory does not tell.
_SLACK = 64
_STORED, _DEFLATED = 0, 8
_ENCRYPTED = 0x1 | 0x40 | 0x2000
#: Deflate does not shrink anything further, and no chunk of an array gets as large.
_MAX_RATIO = 1032
_MAX_INFLATED = 2 * 1024**3
#: Archives whose directories are remembered: as many as a process reads in turns.
_ARCHIVES = 8


class _Span(NamedTuple):
    """Members that are read as one."""

    start: int
    stop: int
    keys: list[str]


class ArchiveObjects:
    """The members of a zip file; see `lazynwb.storage.objects.object_store.Objects`.

    The directory at its end costs one or two requests, each run of members that lie close together one more.
    The file's identity is that of every object: once it is another one, reading fails.

    Parameters
    ----------
    source : Source

    Raises
    ------
    SourceNotFoundError
        If there is no such file.
    NotNWBError
        If it is no zip file.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._identity = source.identity(known=True)
        self._file = source.open(self._identity)
        self._members = _directory(source, self._identity)
        self._starts: dict[str, int] = {}

    @property
    def pool(self) -> Pool:
        """The threads that read the file."""
        return self._file.pool

    def get(self, key: str) -> bytes | memoryview | None:
        """Return an object, whose checksum was compared; None if there is none."""
        return self.get_many([key])[key]

    def get_range(self, key: str, start: int, size: int) -> bytes | memoryview | None:
        """Return a part of an object; None if there is none.

        A compressed member is decompressed whole. Finding out where another begins takes a request of its
        own, once.
        """
        member = self._member(key)
        if member is None:
            return None
        begin = bounds(self.source, key, member.size, start, size)
        if member.method != _STORED:
            data = self.get(key)
            return None if data is None else memoryview(data)[begin : begin + size]
        self._check(key, member)
        with self._file.reading() as ranges:
            if key not in self._starts:
                header = ranges.read(member.offset, _LOCAL.size)
                self._starts[key] = member.offset + self._header_size(key, memoryview(header))
            if self._starts[key] + member.size > member.stop:
                raise self._damaged(key, "is longer than its place")
            return memoryview(ranges.read(self._starts[key] + begin, size))

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes | memoryview | None]:
        """Return several objects; what lies close together is read as one."""
        found: dict[str, bytes | memoryview | None] = dict.fromkeys(keys)
        spans = self._spans([key for key in found if self._member(key) is not None])
        read = self.pool.map(self._read, spans) if len(spans) > 1 else map(self._read, spans)
        for part in read:
            found.update(part)
        return found

    def members(self, prefix: str) -> list[str]:
        """Return the names right below a prefix, sorted."""
        return self._tree.get(folder_of(self.source, prefix), [])

    def version(self, key: str) -> str:
        """Return the identity of the archive; `ABSENT` if it has no such member."""
        return ABSENT if self._member(key) is None else self._identity

    @cached_property
    def _tree(self) -> dict[str, list[str]]:
        return tree(self._members)

    def _member(self, key: str) -> Member | None:
        return self._members.get(checked(self.source, key))

    # -- reading --------------------------------------------------------------------------------------

    def _spans(self, keys: list[str]) -> list[_Span]:
        """Return which members are read as one, in the order in which they lie."""
        spans: list[_Span] = []
        for member, key in sorted((self._members[key], key) for key in keys):
            self._check(key, member)
            stop = min(member.offset + _LOCAL.size + len(key) * 4 + _SLACK + member.stored, member.stop)
            last = spans[-1] if spans else None
            if (
                last is not None
                and member.offset - last.stop <= self._file.gap
                and stop - last.start <= self._file.merged
            ):
                spans[-1] = _Span(last.start, max(stop, last.stop), [*last.keys, key])
            else:
                spans.append(_Span(member.offset, stop, [key]))
        return spans

    def _read(self, span: _Span) -> dict[str, bytes | memoryview]:
        with self._file.reading() as ranges:
            data = memoryview(ranges.read(span.start, span.stop - span.start))
            return {key: self._cut(key, data, span.start, ranges) for key in span.keys}

    def _cut(self, key: str, data: memoryview, first: int, ranges: Ranges) -> bytes | memoryview:
        """Return a member out of what was read from the archive."""
        member = self._members[key]
        at = member.offset - first
        start = at + self._header_size(key, data[at : at + _LOCAL.size])
        self._starts[key] = first + start
        if first + start + member.stored > member.stop:
            raise self._damaged(key, "is longer than its place")
        if start + member.stored <= len(data):
            packed = data[start : start + member.stored]
        else:
            packed = memoryview(ranges.read(first + start, member.stored))
        return self._unpacked(key, member, packed)

    def _header_size(self, key: str, header: memoryview) -> int:
        if len(header) < _LOCAL.size or bytes(header[:4]) != b"PK\3\4":
            raise self._damaged(key, "is not where it should be")
        _, names, extras = _LOCAL.unpack(header)
        return int(_LOCAL.size + names + extras)

    def _check(self, key: str, member: Member) -> None:
        """Make sure that a member can be read, and that it is not larger than can be, before it is."""
        if member.flags & _ENCRYPTED:
            raise UnsupportedTypeError(
                f"{self.source.name}: {key} is encrypted: write the store without a password"
            )
        if member.method not in {_STORED, _DEFLATED}:
            raise UnsupportedTypeError(
                f"{self.source.name}: {key} is compressed by the zip method {member.method}: write the store "
                "without compression (zip -0), which Zarr's chunks do not need"
            )
        most = min(member.stored * _MAX_RATIO, _MAX_INFLATED) if member.method else member.stored
        if member.size > most or (not member.method and member.size != member.stored):
            raise self._damaged(key, f"cannot have {member.size:,} bytes in {member.stored:,}")

    def _unpacked(self, key: str, member: Member, packed: memoryview) -> bytes | memoryview:
        data: bytes | memoryview = packed
        if member.method == _DEFLATED:
            inflate = zlib.decompressobj(-zlib.MAX_WBITS)
            try:
                data = inflate.decompress(packed, member.size + 1)
            except zlib.error:
                raise self._damaged(key, "cannot be decompressed") from None
        if len(data) != member.size or zlib.crc32(data) != member.crc:
            raise self._damaged(key, "does not have the size and the checksum that the archive says")
        return data

    def _damaged(self, key: str, what: str) -> CorruptDataError:
        return CorruptDataError(f"{self.source.name}: {key} {what}: the archive is damaged")


@lru_cache(maxsize=_ARCHIVES)
def _directory(source: Source, expected: str) -> dict[str, Member]:
    return zip_directory.read(source.open(expected))


def forget() -> None:
    """Read the directories of archives again."""
    _directory.cache_clear()
