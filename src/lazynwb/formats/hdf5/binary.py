"""Byte ranges of an HDF5 file for the structure reader: bounds, checksums, and how a read can fail.

The structure reader never does I/O of its own. It asks a `ByteSource` for ranges; one over a local file reads
them, one over a remote file raises `MissingRangesError` after it has noted the range, so that the caller can
fetch everything that was noted in one round and run the parse again.
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

#: The address that stands for nothing.
UNDEFINED = 2**64 - 1
SIGNATURE = b"\x89HDF\r\n\x1a\n"
U2, U4, U8 = struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<Q")
#: What a local file is read in.
_BLOCK_BITS = 14
_BLOCK = 1 << _BLOCK_BITS
#: Blocks of a local file that are kept: 64 MiB.
_MAX_BLOCKS = 4096


class UnsupportedStructureError(Exception):
    """The file uses something that the structure reader does not know; libhdf5 may read it."""


class DamagedStructureError(Exception):
    """The bytes contradict the file format, or lie outside of the file."""


class MissingRangesError(DamagedObjectError):
    """A range of a remote file has not been fetched yet; it was noted.

    As of an object that cannot be opened, a parse passes over it, so that it notes all that it misses.
    """


class ByteSource(Protocol):
    """Bytes of a file by absolute position.

    Attributes
    ----------
    size : int
        Bytes of the file.
    """

    size: int

    def get(self, start: int, size: int, ahead: int = 0) -> bytes:
        """Return `size` bytes from `start` on; `ahead` is how much is likely to be needed from there."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...


class LocalBytes:
    """Bytes of a local file, read in blocks (never mapped: a file cut while it is mapped kills the process).

    Parameters
    ----------
    path : str
        Of the file.
    """

    __slots__ = ("_blocks", "_descriptor", "size")

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(
            path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        )
        self.size = os.fstat(self._descriptor).st_size
        self._blocks: dict[int, bytes] = {}

    def get(self, start: int, size: int, ahead: int = 0) -> bytes:  # noqa: ARG002 - blocks are read whole
        """Return bytes; `DamagedStructureError` where they lie outside of the file."""
        stop = start + size
        if start < 0 or size < 0 or stop > self.size:
            raise DamagedStructureError(f"bytes {start} to {stop} lie outside of the file")
        number = start >> _BLOCK_BITS
        if stop <= (number + 1) << _BLOCK_BITS:
            block = self._blocks.get(number) or self._block(number)
            low = start - (number << _BLOCK_BITS)
            found = block[low : low + size]
        else:
            found = self._pread(start, size)
        if len(found) != size:
            raise DamagedStructureError(f"bytes {start} to {stop} cannot be read: the file was cut")
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
    """The fetched bytes of a remote file.

    Parameters
    ----------
    file : RemoteFile

    Attributes
    ----------
    missing : MissingRanges
        What to fetch before the parse is run again.
    """

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self.size = file.size
        self.missing = MissingRanges(file)

    def get(self, start: int, size: int, ahead: int = 0) -> bytes:
        """Return bytes; `MissingRangesError` where they have not been fetched."""
        stop = start + size
        if start < 0 or size < 0 or stop > self.size:
            raise DamagedStructureError(f"bytes {start} to {stop} lie outside of the file")
        found = self._file.peek(start, size)
        if found is None:
            self.missing.miss(start, max(stop, start + ahead))
            raise MissingRangesError(f"bytes {start} to {stop} have not been fetched")
        return bytes(found)

    def close(self) -> None:
        """Forget what was noted."""
        self.missing.ranges.clear()
