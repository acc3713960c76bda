"""A store in LINDI's tar archive (`.nwb.lindi.tar`): a file of references, and chunks as members beside it.

The layout is published in LINDI's `docs/tar.md`: the first member, `.tar_entry.json`, has the place of
`.tar_index.json`, which has those of all others. So nothing is unpacked, and three reads open an archive.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from lazynwb.errors import NotNWBError
from lazynwb.storage.objects.reference_file import (
    MAX_BYTES,
    Document,
    Reference,
    ReferenceObjects,
    decode_document,
)
from lazynwb.struct_decoders import json_decoder

if TYPE_CHECKING:
    from lazynwb.storage.file import File, Ranges
    from lazynwb.storage.source import Source

#: Of a tar archive: members begin at multiples of it, each with a header of this size.
_BLOCK = 512
#: Bytes of `.tar_entry.json`, whitespace included.
_ENTRY_BYTES = 1024
#: What references to members begin with.
_MEMBER = "./"
#: Archives whose members are remembered.
_ARCHIVES = 8


class _Member(msgspec.Struct, rename={"name": "n", "start": "d", "size": "s"}, gc=False):
    name: str
    start: int
    size: int


class _Entry(msgspec.Struct):
    index: _Member


class _Index(msgspec.Struct):
    files: list[_Member]


class _Archive(NamedTuple):
    document: Document
    members: dict[str, _Member]


class LindiArchiveObjects(ReferenceObjects):
    """What the keys of the `lindi.json` in an archive stand for; see `ReferenceObjects`.

    References that begin with `./` are to members of the archive; others are those of a file of references.

    Raises
    ------
    SourceNotFoundError
        If there is no such file.
    NotNWBError
        If it is no archive that LINDI wrote, or damaged.
    """

    _archive_file: File | None = None

    def _references(self) -> Document:
        return _archive(self.source, self._identity).document

    def _refer(self, key: str, url: str, offset: int, size: int | None) -> Reference:
        url = self._substituted(key, url)
        if not url.startswith(_MEMBER):
            return super()._refer(key, url, offset, size)
        name = url.removeprefix(_MEMBER)
        member = _archive(self.source, self._identity).members.get(name)
        if member is None:
            raise self._error(key, f"is in {name!r}, which the archive does not have")
        wanted = member.size - offset if size is None else size
        if wanted < 0 or offset + wanted > member.size:
            raise self._error(
                key, f"is {wanted} bytes from {offset} on of {name!r}, which has {member.size} bytes"
            )
        if self._archive_file is None:
            self._archive_file = self.source.open(self._identity)
        return Reference(self._archive_file, self._identity, member.start + offset, wanted)


@lru_cache(maxsize=_ARCHIVES)
def _archive(source: Source, expected: str) -> _Archive:
    file = source.open(expected)
    with file.reading() as ranges:
        first = bytes(ranges.read(0, min(_BLOCK + _ENTRY_BYTES, file.size)))
        if _name(first) != ".tar_entry.json":
            raise NotNWBError(
                f"{file.name} is no archive that LINDI wrote: its first member is {_name(first)!r}, not "
                "'.tar_entry.json'"
            )
        try:
            index = json_decoder(_Entry).decode(first[_BLOCK:]).index
            listed = json_decoder(_Index).decode(_content(file, ranges, index)).files
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            raise _damaged(file, f"its index cannot be read: {error}") from None
        members: dict[str, _Member] = {}
        for member in listed:
            _check(file, member)
            members.setdefault(member.name, member)
        if "lindi.json" not in members:
            raise _damaged(file, "it has no lindi.json")
        document = decode_document(file.name, _content(file, ranges, members["lindi.json"]))
    return _Archive(document, members)


def _content(file: File, ranges: Ranges, member: _Member) -> bytes:
    """Read a member, of which the header is compared: an archive that was packed again has other places."""
    _check(file, member)
    if member.size > MAX_BYTES:
        raise _damaged(file, f"{member.name!r} has {member.size:,} bytes")
    data = bytes(ranges.read(member.start - _BLOCK, member.size + _BLOCK))
    if _name(data) != member.name:
        raise _damaged(file, f"{member.name!r} is not where the index says")
    return data[_BLOCK:]


def _check(file: File, member: _Member) -> None:
    if member.start < _BLOCK or member.size < 0 or member.start + member.size > file.size:
        raise _damaged(file, f"{member.name[:80]!r} reaches beyond its end")


def _name(header: bytes) -> str:
    return header[:100].rstrip(b"\0").decode("utf-8", "replace")


def _damaged(file: File, why: str) -> NotNWBError:
    return NotNWBError(
        f"{file.name}: the LINDI archive is damaged, cut off, or was packed again by another program: {why}"
    )


def forget() -> None:
    """Read the members of archives again."""
    _archive.cache_clear()
