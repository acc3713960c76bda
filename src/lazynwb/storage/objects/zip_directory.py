"""The directory at the end of a zip file: which bytes of it are which file.

The names of the fields, and their places, are in sections 4.3.7 to 4.5.3 of PKWARE's APPNOTE.TXT.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from lazynwb.errors import NotNWBError
from lazynwb.storage.objects.key_validation import is_plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lazynwb.storage.file import File

_ENTRY = Struct("<4s4xHH4xLLLHHHH6xL")
_END = Struct("<4sHHHHLLH")
_LOCATOR = Struct("<4sLQL")
_END64 = Struct("<4sQ4xLLQQQQ")
_UTF8, _FULL, _FULL_64 = 0x800, 0xFFFF, 0xFFFFFFFF
_EXTRA_64 = 1
#: The end record has a comment behind it, which is short or missing; small directories lie before it.
_TAIL = 64 * 1024
#: More than any archive's directory: it is fetched and parsed as one.
_MOST_BYTES = 512 * 1024 * 1024
_ROOTS = ("zarr.json", ".zgroup", ".zmetadata", ".zarray")


class Member(NamedTuple):
    """One file in an archive.

    Attributes
    ----------
    offset : int
        Of its local header.
    stored : int
        Bytes that it takes in the archive.
    size : int
        Bytes that it has.
    method, flags, crc : int
    stop : int
        Where what follows it begins, at the latest.
    """

    offset: int
    stored: int
    size: int
    method: int
    flags: int
    crc: int
    stop: int


def read(file: File) -> dict[str, Member]:
    """Return the files of an archive by their keys in the store that it holds.

    Folders, and files whose names would lead out of the store, are left out. If there is a store in a folder
    of the archive rather than at its root, keys begin there.

    Raises
    ------
    NotNWBError
        If it is no zip file, or damaged.
    """
    try:
        with file.reading() as ranges:
            low = max(file.size - _TAIL, 0)
            tail = memoryview(ranges.read(low, file.size - low))
            start, size, begin = _place(bytes(tail), low, file.size)
            data = tail[start - low : start - low + size] if start >= low else ranges.read(start, size)
        found = dict(_members(bytes(data), begin, start))
    except (ValueError, OverflowError) as error:
        if isinstance(error, NotNWBError):
            raise
        message = f"{file.name}: the zip file is damaged or cut off: {error}"
        raise NotNWBError(message) from None
    return _from_root(found)


def _place(tail: bytes, low: int, total: int) -> tuple[int, int, int]:
    """Return where the directory is, its size, and where the archive begins in the file."""
    at = tail.rfind(b"PK\5\6")
    if at < 0 or at + _END.size > len(tail):
        message = "it has no end record"
        raise ValueError(message)
    _, disk, first, _, _, size, offset, _ = _END.unpack_from(tail, at)
    end = at
    locator = at - _LOCATOR.size
    if locator >= 0 and tail[locator : locator + 4] == b"PK\6\7":
        _, _, where, _ = _LOCATOR.unpack_from(tail, locator)
        end = tail.rfind(b"PK\6\6", 0, locator)
        if end < 0 or end + _END64.size > len(tail) or where > low + end:
            message = "its 64-bit end record is not where it should be"
            raise ValueError(message)
        _, _, disk, first, _, _, size, offset = _END64.unpack_from(tail, end)
    if disk or first:
        message = "it is one part of several"
        raise ValueError(message)
    begin = low + end - size - offset
    if begin < 0 or size > min(total, _MOST_BYTES):
        message = "its directory is not where it should be"
        raise ValueError(message)
    return begin + offset, size, begin


def _members(data: bytes, begin: int, stop: int) -> Iterator[tuple[str, Member]]:
    """Yield the files that a directory lists; of several of one name, the last one counts."""
    found = sorted(_entries(data, begin, stop), key=lambda pair: pair[1].offset)
    for i, (name, member) in enumerate(found):
        if not name.endswith("/") and is_plain(name) and "\\" not in name:
            following = found[i + 1][1].offset if i + 1 < len(found) else stop
            yield name, member._replace(stop=following)


def _entries(data: bytes, begin: int, stop: int) -> Iterator[tuple[str, Member]]:
    at = 0
    while at < len(data):
        if at + _ENTRY.size > len(data) or data[at : at + 4] != b"PK\1\2":
            message = "its directory is no list of files"
            raise ValueError(message)
        _, flags, method, crc, stored, size, names, extras, comments, disk, offset = _ENTRY.unpack_from(
            data, at
        )
        at += _ENTRY.size
        name, extra = data[at : at + names], data[at + names : at + names + extras]
        at += names + extras + comments
        if _FULL_64 in {stored, size, offset} or disk == _FULL:
            size, stored, offset = _widened(extra, (size, stored, offset))
        if begin + offset + stored > stop:
            message = f"{name[:80]!r} reaches beyond its end"
            raise ValueError(message)
        text = name.decode("utf-8" if flags & _UTF8 else "cp437")
        yield text, Member(begin + offset, stored, size, method, flags, crc, stop)


def _widened(extra: bytes, short: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return numbers of an entry that took more than 32 bits, of which its extra field has the others."""
    at = 0
    while at + 4 <= len(extra):
        kind, size = (
            int.from_bytes(extra[at : at + 2], "little"),
            int.from_bytes(extra[at + 2 : at + 4], "little"),
        )
        if kind == _EXTRA_64:
            body = extra[at + 4 : at + 4 + size]
            parts = (body[i : i + 8] for i in range(0, len(body) - 7, 8))
            wide = [int.from_bytes(next(parts), "little") if n == _FULL_64 else n for n in short]
            return wide[0], wide[1], wide[2]
        at += 4 + size
    return short


def _from_root(found: dict[str, Member]) -> dict[str, Member]:
    """Return keys as they are in the store, which may be in a folder of the archive."""
    if any(name in found for name in _ROOTS):
        return found
    tops = {name.partition("/")[0] for name in found if name.partition("/")[2] in _ROOTS}
    if len(tops) != 1:
        return found
    top = f"{tops.pop()}/"
    return {name.removeprefix(top): member for name, member in found.items() if name.startswith(top)}
