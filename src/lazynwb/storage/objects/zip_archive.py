"""Stores in zip archives, local or remote, whose members are read as coalesced ranges."""

from __future__ import annotations

import zlib
from functools import cached_property, lru_cache
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from lazynwb.errors import CorruptDataError, UnsupportedTypeError
from lazynwb.storage.objects import zip_directory
from lazynwb.storage.objects.key_validation import build_tree, normalize_prefix, resolve_start, validate_key
from lazynwb.storage.source import ABSENT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lazynwb.storage.file import Ranges
    from lazynwb.storage.objects.zip_directory import Member
    from lazynwb.storage.source import Source
    from lazynwb.threads import Pool

_LOCAL = Struct("<4s22xHH")
#: Allowance for extra fields of a local header, whose size is not in the directory.
_EXTRA_FIELD_BYTES = 64
_STORED, _DEFLATED = 0, 8
_ENCRYPTED = 0x1 | 0x40 | 0x2000
#: The maximum compression ratio of deflate, and the maximum size of a chunk.
_MAX_RATIO = 1032
_MAX_INFLATED = 2 * 1024**3
#: Maximum number of archives whose directories are cached.
_ARCHIVES = 8


class _Span(NamedTuple):
    """A coalesced range of members."""

    start: int
    stop: int
    keys: list[str]


class ArchiveObjects:
    """The members of a zip archive; see `lazynwb.storage.objects.object_store.Objects`.

    The directory at the end of the file costs one or two requests, and each coalesced range of members
    another one. The identity of the file is that of every member: reading fails once the file has changed.

    Parameters
    ----------
    source : Source

    Raises
    ------
    SourceNotFoundError
        If the file does not exist.
    NotNWBError
        If it is not a zip file.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._identity = source.identity(known=True)
        self._file = source.open(self._identity)
        self._members = _directory(source, self._identity)
        self._starts: dict[str, int] = {}

    @property
    def pool(self) -> Pool:
        """Threads that read the file."""
        return self._file.pool

    def get(self, key: str) -> bytes | memoryview | None:
        """Return an object after comparing its checksum; None if it does not exist."""
        return self.get_many([key])[key]

    def get_range(self, key: str, start: int, size: int) -> bytes | memoryview | None:
        """Return a range of an object; None if it does not exist.

        A compressed member is decompressed as a whole. For other members, the local header, which determines
        the offset of the data, costs one request.
        """
        member = self._member(key)
        if member is None:
            return None
        begin = resolve_start(self.source, key, member.size, start, size)
        if member.method != _STORED:
            data = self.get(key)
            return None if data is None else memoryview(data)[begin : begin + size]
        self._check_member(key, member)
        with self._file.reading() as ranges:
            if key not in self._starts:
                header = ranges.read(member.offset, _LOCAL.size)
                self._starts[key] = member.offset + self._header_size(key, memoryview(header))
            if self._starts[key] + member.size > member.stop:
                raise self._damaged_error(key, "overlaps the next member")
            return memoryview(ranges.read(self._starts[key] + begin, size))

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes | memoryview | None]:
        """Return several objects, read in coalesced ranges."""
        found: dict[str, bytes | memoryview | None] = dict.fromkeys(keys)
        spans = self._spans([key for key in found if self._member(key) is not None])
        read = self.pool.map(self._read, spans) if len(spans) > 1 else map(self._read, spans)
        for part in read:
            found.update(part)
        return found

    def members(self, prefix: str) -> list[str]:
        """Return the sorted names of the direct members of a prefix."""
        return self._tree.get(normalize_prefix(self.source, prefix), [])

    def version(self, key: str) -> str:
        """Return the identity of the archive; `ABSENT` if it has no such member."""
        return ABSENT if self._member(key) is None else self._identity

    @cached_property
    def _tree(self) -> dict[str, list[str]]:
        return build_tree(self._members)

    def _member(self, key: str) -> Member | None:
        return self._members.get(validate_key(self.source, key))

    # -- reading --------------------------------------------------------------------------------------

    def _spans(self, keys: list[str]) -> list[_Span]:
        """Return the coalesced ranges of some members, in order of offsets."""
        spans: list[_Span] = []
        for member, key in sorted((self._members[key], key) for key in keys):
            self._check_member(key, member)
            stop = min(
                member.offset + _LOCAL.size + len(key) * 4 + _EXTRA_FIELD_BYTES + member.stored, member.stop
            )
            last = spans[-1] if spans else None
            if (
                last is not None
                and member.offset - last.stop <= self._file.coalesce_gap
                and stop - last.start <= self._file.coalesce_limit
            ):
                spans[-1] = _Span(last.start, max(stop, last.stop), [*last.keys, key])
            else:
                spans.append(_Span(member.offset, stop, [key]))
        return spans

    def _read(self, span: _Span) -> dict[str, bytes | memoryview]:
        with self._file.reading() as ranges:
            data = memoryview(ranges.read(span.start, span.stop - span.start))
            return {key: self._extract(key, data, span.start, ranges) for key in span.keys}

    def _extract(self, key: str, data: memoryview, first: int, ranges: Ranges) -> bytes | memoryview:
        """Extract a member from a range of the archive."""
        member = self._members[key]
        at = member.offset - first
        start = at + self._header_size(key, data[at : at + _LOCAL.size])
        self._starts[key] = first + start
        if first + start + member.stored > member.stop:
            raise self._damaged_error(key, "overlaps the next member")
        if start + member.stored <= len(data):
            packed = data[start : start + member.stored]
        else:
            packed = memoryview(ranges.read(first + start, member.stored))
        return self._decompress(key, member, packed)

    def _header_size(self, key: str, header: memoryview) -> int:
        if len(header) < _LOCAL.size or bytes(header[:4]) != b"PK\3\4":
            raise self._damaged_error(key, "is not at its offset in the directory")
        _, names, extras = _LOCAL.unpack(header)
        return int(_LOCAL.size + names + extras)

    def _check_member(self, key: str, member: Member) -> None:
        """Check that the method of a member is supported and its size is possible, before reading it."""
        if member.flags & _ENCRYPTED:
            raise UnsupportedTypeError(
                f"{self.source.name}: {key} is encrypted: write the store without a password"
            )
        if member.method not in {_STORED, _DEFLATED}:
            raise UnsupportedTypeError(
                f"{self.source.name}: {key} is compressed by zip method {member.method}, which is not "
                "supported: write the archive without compression (zip -0)"
            )
        limit = min(member.stored * _MAX_RATIO, _MAX_INFLATED) if member.method else member.stored
        if member.size > limit or (not member.method and member.size != member.stored):
            raise self._damaged_error(
                key, f"cannot have {member.size:,} bytes compressed to {member.stored:,}"
            )

    def _decompress(self, key: str, member: Member, packed: memoryview) -> bytes | memoryview:
        data: bytes | memoryview = packed
        if member.method == _DEFLATED:
            inflate = zlib.decompressobj(-zlib.MAX_WBITS)
            try:
                data = inflate.decompress(packed, member.size + 1)
            except zlib.error:
                raise self._damaged_error(key, "cannot be decompressed") from None
        if len(data) != member.size or zlib.crc32(data) != member.crc:
            raise self._damaged_error(key, "does not match its size and checksum in the directory")
        return data

    def _damaged_error(self, key: str, what: str) -> CorruptDataError:
        return CorruptDataError(f"{self.source.name}: {key} {what}: the archive is damaged")


@lru_cache(maxsize=_ARCHIVES)
def _directory(source: Source, expected: str) -> dict[str, Member]:
    return zip_directory.read(source.open(expected))


def forget() -> None:
    """Forget the directories of archives."""
    _directory.cache_clear()
