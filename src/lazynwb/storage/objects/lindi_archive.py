"""LINDI tar archives (`.nwb.lindi.tar`): a reference file, and chunks as further members.

The layout is specified in LINDI's `docs/tar.md`: the first member, `.tar_entry.json`, contains the offset of
`.tar_index.json`, which contains the offsets of all members. Three reads open an archive.
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

#: Block size of tar: headers have this size, and members begin at multiples of it.
_TAR_BLOCK = 512
#: Size of `.tar_entry.json` including its padding.
_ENTRY_BYTES = 1024
#: Prefix of references to members.
_MEMBER = "./"
#: Maximum number of archives whose members are cached.
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
    """The objects of a LINDI archive, by the keys of its `lindi.json`; see `ReferenceObjects`.

    References that begin with `./` refer to members of the archive.

    Raises
    ------
    SourceNotFoundError
        If the file does not exist.
    NotNWBError
        If it is not a LINDI archive, or damaged.
    """

    _archive_file: File | None = None

    def _load_document(self) -> Document:
        return _open_archive(self.source, self._identity).document

    def _resolve_reference(self, key: str, url: str, offset: int, size: int | None) -> Reference:
        url = self._substitute_templates(key, url)
        if not url.startswith(_MEMBER):
            return super()._resolve_reference(key, url, offset, size)
        name = url.removeprefix(_MEMBER)
        member = _open_archive(self.source, self._identity).members.get(name)
        if member is None:
            raise self._error(key, f"is in {name!r}, which the archive does not have")
        length = member.size - offset if size is None else size
        if length < 0 or offset + length > member.size:
            raise self._error(
                key, f"is {length} bytes from {offset} on of {name!r}, which has {member.size} bytes"
            )
        if self._archive_file is None:
            self._archive_file = self.source.open(self._identity)
        return Reference(self._archive_file, self._identity, member.start + offset, length)


@lru_cache(maxsize=_ARCHIVES)
def _open_archive(source: Source, expected: str) -> _Archive:
    file = source.open(expected)
    with file.reading() as ranges:
        first = bytes(ranges.read(0, min(_TAR_BLOCK + _ENTRY_BYTES, file.size)))
        if _member_name(first) != ".tar_entry.json":
            raise NotNWBError(
                f"{file.name} is not a LINDI archive: its first member is {_member_name(first)!r}, not "
                "'.tar_entry.json'"
            )
        try:
            index = json_decoder(_Entry).decode(first[_TAR_BLOCK:]).index
            listed = json_decoder(_Index).decode(_read_member(file, ranges, index)).files
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            raise _damaged_error(file, f"its index cannot be read: {error}") from None
        members: dict[str, _Member] = {}
        for member in listed:
            _check_bounds(file, member)
            members.setdefault(member.name, member)
        if "lindi.json" not in members:
            raise _damaged_error(file, "it has no lindi.json")
        document = decode_document(file.name, _read_member(file, ranges, members["lindi.json"]))
    return _Archive(document, members)


def _read_member(file: File, ranges: Ranges, member: _Member) -> bytes:
    """Read a member and compare its header: a repacked archive has other offsets than its index."""
    _check_bounds(file, member)
    if member.size > MAX_BYTES:
        raise _damaged_error(file, f"{member.name!r} has {member.size:,} bytes")
    data = bytes(ranges.read(member.start - _TAR_BLOCK, member.size + _TAR_BLOCK))
    if _member_name(data) != member.name:
        raise _damaged_error(file, f"{member.name!r} is not at its offset in the index")
    return data[_TAR_BLOCK:]


def _check_bounds(file: File, member: _Member) -> None:
    if member.start < _TAR_BLOCK or member.size < 0 or member.start + member.size > file.size:
        raise _damaged_error(file, f"{member.name[:80]!r} reaches beyond its end")


def _member_name(header: bytes) -> str:
    return header[:100].rstrip(b"\0").decode("utf-8", "replace")


def _damaged_error(file: File, why: str) -> NotNWBError:
    return NotNWBError(
        f"{file.name}: the LINDI archive is damaged, truncated, or was repacked by another program: {why}"
    )


def forget() -> None:
    """Forget the members of archives."""
    _open_archive.cache_clear()
