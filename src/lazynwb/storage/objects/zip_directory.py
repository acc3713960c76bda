"""The directory at the end of a zip file: which bytes of it are which file.

`zipfile` reads the directory, and nothing else: members are read as ranges, many at a time.
"""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, NamedTuple

from lazynwb.errors import CorruptDataError, NotNWBError
from lazynwb.storage.objects.key_validation import is_plain

if TYPE_CHECKING:
    from lazynwb.storage.file import File, Ranges

#: The end record has a comment behind it, which is short or missing; small directories lie before it.
_TAIL = 64 * 1024
#: More than any archive's directory: it is fetched and parsed as one.
_MAX_BYTES = 512 * 1024 * 1024
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
        with file.reading() as ranges, zipfile.ZipFile(_Tail(ranges, file.size)) as archive:
            found = _members(archive)
    except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError) as error:
        if isinstance(error, NotNWBError):
            raise
        raise NotNWBError(f"{file.name}: the zip file is damaged or cut off: {error}") from None
    return _from_root(found)


class _Tail(io.RawIOBase):
    """An open file as `zipfile` reads its end: the last bytes are read once, and nothing without bounds."""

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
            raise CorruptDataError("it points to before its beginning")
        self._at = at
        return at

    def read(self, size: int = -1) -> bytes:
        rest = max(self._size - self._at, 0)
        wanted = rest if size < 0 else min(size, rest)
        if wanted > _MAX_BYTES:
            raise CorruptDataError(f"its directory has {wanted:,} bytes")
        start = self._at
        self._at += wanted
        if start >= self._low:
            return self._tail[start - self._low : start - self._low + wanted]
        return bytes(self._ranges.read(start, wanted))


def _members(archive: zipfile.ZipFile) -> dict[str, Member]:
    """Return the files that a directory lists; of several of one name, the last one counts."""
    found: dict[str, Member] = {}
    stop = archive.start_dir
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset, reverse=True):
        if info.volume not in {0, 0xFFFF}:
            raise CorruptDataError("it is one part of several")
        begin = info.header_offset
        if begin < 0 or begin + info.compress_size > archive.start_dir:
            raise CorruptDataError(f"{info.orig_filename[:80]!r} reaches beyond its end")
        name = info.orig_filename
        if not name.endswith("/") and is_plain(name) and "\\" not in name and name not in found:
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
    """Return keys as they are in the store, which may be in a folder of the archive."""
    if any(name in found for name in _ROOTS):
        return found
    tops = {name.partition("/")[0] for name in found if name.partition("/")[2] in _ROOTS}
    if len(tops) != 1:
        return found
    top = f"{tops.pop()}/"
    return {name.removeprefix(top): member for name, member in found.items() if name.startswith(top)}
