"""Byte ranges of an HDF5 file for the structure reader: local and remote sources, and their errors.

The structure reader requests ranges from a `ByteSource`. A local source reads them. A remote source records a
missing range and raises `MissingRangesError`, so that the caller can fetch all recorded ranges in one round
and repeat the parse.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Protocol

from lazynwb.formats.partial_file import MissingRanges
from lazynwb.formats.protocols import DamagedObjectError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazynwb.storage.remote_file import RemoteFile

#: The undefined address.
UNDEFINED = 2**64 - 1
SIGNATURE = b"\x89HDF\r\n\x1a\n"
U2, U4, U8 = struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<Q")
#: Block size of reads of a file, as a power of two.
_BLOCK_BITS = 14
_BLOCK = 1 << _BLOCK_BITS
#: Maximum number of cached blocks of a file: 64 MiB.
_MAX_BLOCKS = 4096


class UnsupportedStructureError(Exception):
    """A feature that the structure reader does not support; libhdf5 may."""


class DamagedStructureError(Exception):
    """Bytes that violate the file format, or are outside the file."""


class MissingRangesError(DamagedObjectError):
    """A range of a remote file has not been fetched; it was recorded as missing.

    A parse skips the object, as one that cannot be opened, and so records all missing ranges in one run.
    """


class ByteSource(Protocol):
    """Bytes of a file by absolute position.

    Attributes
    ----------
    size : int
        Size of the file in bytes.
    """

    size: int

    def get(self, start: int, size: int, ahead: int = 0) -> bytes:
        """Return `size` bytes at `start`; a remote source fetches at least `ahead` bytes from there."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...


class LocalBytes:
    """Bytes of a local file, read in blocks.

    The file is not memory-mapped, because truncating a mapped file kills the process.

    Parameters
    ----------
    path : str
        Path of the file.
    """

    __slots__ = ("_blocks", "_descriptor", "size")

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(
            path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        )
        self.size = os.fstat(self._descriptor).st_size
        self._blocks: dict[int, bytes] = {}

    def get(self, start: int, size: int, ahead: int = 0) -> bytes:  # noqa: ARG002 - blocks are read whole
        """Return bytes; raise `DamagedStructureError` if they are outside the file."""
        stop = start + size
        if start < 0 or size < 0 or stop > self.size:
            raise DamagedStructureError(f"bytes {start} to {stop} are outside the file")
        number = start >> _BLOCK_BITS
        if stop <= (number + 1) << _BLOCK_BITS:
            block = self._blocks.get(number) or self._block(number)
            low = start - (number << _BLOCK_BITS)
            found = block[low : low + size]
        else:
            found = self._pread(start, size)
        if len(found) != size:
            raise DamagedStructureError(f"bytes {start} to {stop} cannot be read: the file was truncated")
        return found

    def _block(self, number: int) -> bytes:
        if len(self._blocks) >= _MAX_BLOCKS:
            self._blocks.clear()
        block = self._blocks[number] = self._pread(number << _BLOCK_BITS, _BLOCK)
        return block

    def _pread(self, start: int, size: int) -> bytes:
        parts = []
        while size > 0:
            part = _pread(self._descriptor, size, start)
            if not part:
                break
            parts.append(part)
            start, size = start + len(part), size - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._blocks.clear()


def _seek_and_read(descriptor: int, size: int, start: int) -> bytes:
    os.lseek(descriptor, start, os.SEEK_SET)
    return os.read(descriptor, size)


_pread: Callable[[int, int, int], bytes] = getattr(os, "pread", _seek_and_read)


class RemoteBytes:
    """Fetched bytes of a remote file.

    Parameters
    ----------
    file : RemoteFile
        File that holds the fetched bytes.

    Attributes
    ----------
    missing : MissingRanges
        Ranges to fetch before the parse is repeated.
    """

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self.size = file.size
        self.missing = MissingRanges(file)
        self._blocks: dict[int, bytes] = {}
        self._used: dict[int, tuple[int, int]] = {}

    def get(self, start: int, size: int, ahead: int = 0) -> bytes:
        """Return bytes; raise `MissingRangesError` if they have not been fetched."""
        stop = start + size
        if start < 0 or size < 0 or stop > self.size:
            raise DamagedStructureError(f"bytes {start} to {stop} are outside the file")
        number = start >> _BLOCK_BITS
        if stop <= (number + 1) << _BLOCK_BITS:
            block = self._blocks.get(number) or self._block(number)
            if block:
                low = start - (number << _BLOCK_BITS)
                first, last = self._used.get(number, (start, stop))
                if start <= first or stop >= last:
                    self._used[number] = min(first, start), max(last, stop)
                return block[low : low + size]
        found = self._file.peek(start, size)
        if found is None:
            self.missing.miss(start, max(stop, start + ahead))
            raise MissingRangesError(f"bytes {start} to {stop} have not been fetched")
        return bytes(found)

    def _block(self, number: int) -> bytes:
        """Return a block if all of it has been fetched, else an empty string."""
        start = number << _BLOCK_BITS
        found = self._file.cached(start, min(_BLOCK, self.size - start))
        if found is None:
            return b""
        if len(self._blocks) >= _MAX_BLOCKS:
            self._mark_used()
        block = self._blocks[number] = bytes(found)
        return block

    def _mark_used(self) -> None:
        """Mark the used part of every block in the block cache, and drop the blocks."""
        for first, last in self._used.values():
            self._file.mark_used(first, last - first)
        self._blocks.clear()
        self._used.clear()

    def close(self) -> None:
        """Mark the used parts of blocks, and drop the recorded ranges."""
        self._mark_used()
        self.missing.ranges.clear()
