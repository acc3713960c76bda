"""File objects through which libhdf5 reads: remote bytes that have been fetched, and validated local files.

libhdf5 reads small ranges one after the other, and would wait for each request. Here a read of missing bytes
raises an error, the parse continues with the next object, and all missing ranges are fetched together before
the parse is run again. Results of a run with missing ranges are not used.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from h5py import version

from lazynwb.formats.libhdf5.heap_validation import SIGNATURE as HEAP
from lazynwb.formats.libhdf5.heap_validation import Collections
from lazynwb.formats.partial_file import MissingRanges

if TYPE_CHECKING:
    from lazynwb.storage.remote_file import RemoteFile

#: The first bytes of an HDF5 file, after the user block, if any.
SIGNATURE = b"\x89HDF\r\n\x1a\n"
#: Older libraries treat objects as absent after a failed read, or free unallocated memory. For these, missing
#: bytes are requested immediately, one range after the other.
MAY_FAIL = version.hdf5_version_tuple >= (2, 0, 0)


class MissingBytesError(OSError):
    """Bytes required by libhdf5 that have not been fetched."""


class CheckedStream(ABC):
    """A file object that validates heaps before libhdf5 loads them.

    Attributes
    ----------
    size : int
        Size of the file.
    """

    size: int

    def __init__(self) -> None:
        self._heaps = Collections(self.peek)

    @abstractmethod
    def peek(self, start: int, size: int) -> bytes:
        """Return bytes from a position, up to the end of the file."""

    def _check(self, start: int, passing: memoryview) -> None:
        """Raise DamagedHeapError before libhdf5 loads a collection on which it would loop forever."""
        read = bytes(passing)
        if HEAP in read:
            self._heaps.check_passing(start, read)


class LocalStream(CheckedStream):
    """A read-only file object over a local file.

    Parameters
    ----------
    path : str
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self._file = Path(path).open("rb", buffering=0)  # noqa: SIM115 - closed by the owner of this object
        self.size = self._file.seek(0, io.SEEK_END)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

    def flush(self) -> None:
        """Do nothing; libhdf5 calls it when it closes the file."""

    def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer, up to the end of the file.

        Raises
        ------
        DamagedHeapError
        """
        done, start = 0, self._file.tell()
        while done < len(buffer):
            got = self._file.readinto(buffer[done:])
            if not got:
                break
            done += got
        self._check(start, buffer[:done])
        return done

    def peek(self, start: int, size: int) -> bytes:
        """Return bytes from a position, up to the end of the file."""
        self._file.seek(start)
        return self._file.read(size)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class BlockStream(CheckedStream):
    """A read-only file object over the fetched bytes of a remote file.

    Parameters
    ----------
    file : RemoteFile

    Attributes
    ----------
    missing : MissingRanges
        Ranges to fetch before the parse is run again.
    """

    def __init__(self, file: RemoteFile) -> None:
        super().__init__()
        self._file = file
        self.size = file.size
        self._position = 0
        self.missing = MissingRanges(file)
        self._failure: Exception | None = None

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        self._position = (
            offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size}[whence]
        )
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def flush(self) -> None:
        """Do nothing; libhdf5 calls it when it closes the file."""

    def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer, up to the end of the file.

        Raises
        ------
        MissingBytesError
            If bytes are missing and the library supports failed reads; see `fetch_missing`.
        DamagedHeapError
        """
        start = self._position
        found = self.peek(start, len(buffer))
        buffer[: len(found)] = found
        self._check(start, memoryview(found))
        self._position += len(found)
        return len(found)

    def peek(self, start: int, size: int) -> bytes:
        """Return bytes from a position, up to the end of the file; see `readinto`."""
        size = min(size, max(self._file.size - start, 0))
        if not size:
            return b""
        found = self._file.peek(start, size)
        if found is None and not MAY_FAIL:
            try:
                self._file.fetch_blocks({(start, start + size)})
            except Exception as error:  # noqa: BLE001 - raised again outside of libhdf5, which rewords it
                self._failure = error
            found = self._file.peek(start, size)
        if found is None:
            self.missing.miss(start, start + size)
            raise MissingBytesError(f"bytes {start} to {start + size} have not been fetched")
        return bytes(found)

    def drop(self, ranges: list[tuple[int, int]]) -> None:
        """Release ranges that will not be read again."""
        for start, stop in ranges:
            self._file.drop(start, stop)

    def fetch_missing(self, *, ahead: bool = True) -> bool:
        """Fetch the missing ranges since the last call; return whether there were any."""
        if self._failure is not None:
            raise self._failure
        return self.missing.fetch(ahead=ahead)

    def has_signature(self) -> bool:
        """Return whether the file is HDF5: the signature may be at 0, 512, 1024, 2048, ..."""
        if self._begins_at(0):
            return True
        places = [0, *(512 << k for k in range(50) if (512 << k) + len(SIGNATURE) <= self._file.size)]
        absent = [(at, at + len(SIGNATURE)) for at in places if not self._file.has(at, len(SIGNATURE))]
        if absent:
            self._file.fetch_blocks(absent)
        return any(self._begins_at(place) for place in places)

    def _begins_at(self, place: int) -> bool:
        found = self._file.peek(place, len(SIGNATURE))
        return found is not None and bytes(found) == SIGNATURE
