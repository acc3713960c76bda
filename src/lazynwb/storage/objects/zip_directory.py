"""Directories of zip archives: the byte range of each member.

`zipfile` only parses the directory: members are read as coalesced ranges.
"""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, NamedTuple

from lazynwb.errors import CorruptDataError, NotNWBError
from lazynwb.storage.objects.key_validation import is_valid_key

if TYPE_CHECKING:
    from lazynwb.storage.file import File, Ranges

#: Bytes at the end of the file that contain the end record, its comment, and a small directory.
_TAIL = 64 * 1024
#: Maximum size of a directory, which is fetched and parsed as a whole.
_MAX_BYTES = 512 * 1024 * 1024
_ROOTS = ("zarr.json", ".zgroup", ".zmetadata", ".zarray")


class Member(NamedTuple):
    """One file in an archive.

    Attributes
    ----------
    offset : int
        Offset of the local header.
    stored : int
        Size in the archive.
    size : int
        Size after decompression.
    method, flags, crc : int
        Compression method, flags and CRC-32 in the directory.
    stop : int
        Offset of the next member or of the directory.
    """

    offset: int
    stored: int
    size: int
    method: int
    flags: int
    crc: int
    stop: int


def read(file: File) -> dict[str, Member]:
    """Return the members of an archive by their keys in the store that it contains.

    Folders, and files whose names would lead out of the store, are left out. If the store is in a folder of
    the archive rather than at its root, keys are relative to that folder.

    Raises
    ------
    NotNWBError
        If the file is not a zip archive, or damaged.
    """
    try:
        with file.reading() as ranges, zipfile.ZipFile(_Tail(ranges, file.size)) as archive:
            found = _members(archive)
    except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError) as error:
        if isinstance(error, NotNWBError):
            raise
        raise NotNWBError(f"{file.name}: the zip file is damaged or truncated: {error}") from None
    return _from_root(found)


class _Tail(io.RawIOBase):
    """An open file for `zipfile`: reads the last bytes once, and limits the size of all other reads."""

    def __init__(self, ranges: Ranges, size: int) -> None:
        self._ranges = ranges
        self._size = size
        self._at = 0
        self._low = max(size - _TAIL, 0)
        self._tail = bytes(ranges.read(self._low, size - self._low))

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if at < 0:
            raise CorruptDataError("it has a negative offset")
        self._at = at
        return at

    def read(self, size: int = -1) -> bytes:
        rest = max(self._size - self._at, 0)
        length = rest if size < 0 else min(size, rest)
        if length > _MAX_BYTES:
            raise CorruptDataError(f"its directory has {length:,} bytes")
        start = self._at
        self._at += length
        if start >= self._low:
            return self._tail[start - self._low : start - self._low + length]
        return bytes(self._ranges.read(start, length))


def _members(archive: zipfile.ZipFile) -> dict[str, Member]:
    """Return the files in a directory; of several with the same name, the last one counts."""
    found: dict[str, Member] = {}
    stop = archive.start_dir
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset, reverse=True):
        if info.volume not in {0, 0xFFFF}:
            raise CorruptDataError("it is one part of a multi-part archive")
        begin = info.header_offset
        if begin < 0 or begin + info.compress_size > archive.start_dir:
            raise CorruptDataError(f"{info.orig_filename[:80]!r} reaches beyond its end")
        name = info.orig_filename
        if not name.endswith("/") and is_valid_key(name) and "\\" not in name and name not in found:
            found[name] = Member(
                begin,
                info.compress_size,
                info.file_size,
                info.compress_type,
                info.flag_bits,
                info.CRC,
                stop,
            )
        stop = begin
    return found


def _from_root(found: dict[str, Member]) -> dict[str, Member]:
    """Return members by keys relative to the store, which may be in a folder of the archive."""
    if any(name in found for name in _ROOTS):
        return found
    tops = {name.partition("/")[0] for name in found if name.partition("/")[2] in _ROOTS}
    if len(tops) != 1:
        return found
    top = f"{tops.pop()}/"
    return {name.removeprefix(top): member for name, member in found.items() if name.startswith(top)}
