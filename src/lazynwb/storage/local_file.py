"""Local files: identities and ranged reads."""

from __future__ import annotations

import os
import stat
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lazynwb.errors import (
    CorruptDataError,
    LazyNWBError,
    NotNWBError,
    SourceChangedError,
    SourceNotFoundError,
)
from lazynwb.profile import count
from lazynwb.threads import DECODERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lazynwb.storage.source import Source

IS_STORE = False

_HAS_PREAD = hasattr(os, "preadv")
_READ_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


def _identity(status: os.stat_result) -> str:
    # The device is left out: machines that mount the same share number it differently and share an index.
    return f"{status.st_size}-{status.st_mtime_ns:x}-{status.st_ctime_ns:x}-{status.st_ino:x}"


def identity(source: Source, *, known: bool | str) -> str:  # noqa: ARG001 - signature of `Kind`
    """Return the identity of a local file; see `path_identity`."""
    return path_identity(source.path)


def path_identity(path: str) -> str:
    """Return a string that changes whenever the file is replaced or written to.

    Raises
    ------
    SourceNotFoundError
        If the file does not exist.
    NotNWBError
        If it is not a regular file (opening a pipe would block forever), or `stat` is not permitted.
    """
    return _identity(_status_of(path))


def _status_of(path: str) -> os.stat_result:
    """Return the status of a regular file or a folder; see `path_identity` for the errors."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise _open_error(path, error) from None
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise NotNWBError(f"{path} is a device, a pipe or a socket, not a file")
    return status


def is_settled(source: Source, known: str, now_ns: int) -> bool:  # noqa: ARG001 - signature of `Kind`
    """Return whether any later write is certain to change the identity; see `is_path_settled`."""
    return is_path_settled(source.path, now_ns)


def read_reveals_change(source: Source, known: str) -> bool:  # noqa: ARG001 - signature of `Kind`
    """Return False: a change of a local file only shows in its identity, not in its bytes."""
    return False


def invalidate(source: Source) -> None:
    """Do nothing: bytes of local files are not cached."""


def open_file(source: Source, expected: str) -> LocalFile:
    """Open a local file."""
    return LocalFile(source.path, expected)


def is_path_settled(path: str, now_ns: int) -> bool:
    """Return whether any later write is certain to change the file's identity.

    Timestamps advance in ticks (4 ms on Linux, 1 or 2 s on some file systems and servers). A file that was
    written within the current tick can be written again with the same timestamps, so its contents must not
    be cached yet.
    """
    status = os.stat(path)
    newest = max(status.st_mtime_ns, status.st_ctime_ns)
    whole_seconds = status.st_mtime_ns % 1_000_000_000 == 0
    return now_ns - newest > (2_500_000_000 if whole_seconds else 50_000_000)


class LocalFile:
    """A local file for ranged reads from several threads at once.

    The file is only open while it is read: a scan may hold any number of these objects.

    Parameters
    ----------
    path : str
    expected : str
        Identity that the catalog was built for.

    Attributes
    ----------
    name : str
        Path of the file.
    size : int
        Number of bytes.

    Raises
    ------
    SourceNotFoundError
        If the file no longer exists.
    SourceChangedError
        If the file has changed since the catalog was built.
    """

    pool = DECODERS
    #: Reading a gap of this size costs less than another system call.
    coalesce_gap = 16 * 1024
    #: A buffer of this size fits into the processor's cache.
    coalesce_limit = 1024 * 1024
    #: Below this size, handing a read to a thread costs more than the read.
    thread_threshold = 64 * 1024

    def __init__(self, path: str, expected: str) -> None:
        self.name = path
        self._expected = expected
        status = _status_of(path)  # one, so that the size is that of the file that is expected
        if _identity(status) != expected:
            raise changed_error(path)
        self.size = status.st_size
        count(files_opened=1)

    def has(self, offset: int, size: int) -> bool:
        """Return False: whether the page cache has a range is unknown."""
        del offset, size
        return False

    def keep(self, offset: int, data: memoryview) -> None:
        """Do nothing: the operating system caches local files."""

    @contextmanager
    def reading(self) -> Iterator[Descriptor]:
        """Open the file for the duration of the `with` block; raise as the class does."""
        try:
            number = os.open(self.name, _READ_FLAGS)
        except OSError as error:
            raise _open_error(self.name, error) from None
        try:
            if _identity(os.fstat(number)) != self._expected:
                raise changed_error(self.name)
            yield Descriptor(number, self.name, self.size)
        finally:
            os.close(number)


class Descriptor:
    """An open file descriptor for positioned reads from several threads at once."""

    __slots__ = ("_lock", "_number", "_path", "_size")

    def __init__(self, number: int, path: str, size: int) -> None:
        self._number = number
        self._path = path
        self._size = size
        self._lock = threading.Lock()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a writable buffer with the bytes that start at `offset`.

        Raises
        ------
        CorruptDataError
            If the file ends before the buffer is full.
        """
        done, total = 0, len(buffer)
        if offset < 0 or offset + total > self._size:
            raise self._truncated_error(offset, total)
        while done < total:
            try:
                if _HAS_PREAD:
                    got = os.preadv(self._number, [buffer[done:] if done else buffer], offset + done)
                else:
                    got = self._seek_and_read(offset + done, buffer[done:])
            except OSError as error:
                raise _open_error(self._path, error) from None
            if not got:
                raise self._truncated_error(offset, total)
            done += got
        count(requests=1, bytes_read=total)

    def read(self, offset: int, size: int) -> bytearray:
        """Return the `size` bytes that start at `offset`; see `read_into`."""
        if size < 0 or offset + size > self._size:
            raise self._truncated_error(offset, size)  # a damaged size must not allocate memory
        buffer = bytearray(size)
        self.read_into(offset, memoryview(buffer))
        return buffer

    def _truncated_error(self, offset: int, size: int) -> CorruptDataError:
        return CorruptDataError(
            f"the file has {self._size} bytes, but bytes {offset} to {offset + size} are needed: "
            "it is truncated or damaged"
        )

    def _seek_and_read(self, offset: int, buffer: memoryview) -> int:
        # Windows has no positioned read; the file position is shared, so a lock serializes the reads.
        with self._lock:
            os.lseek(self._number, offset, os.SEEK_SET)
            data = os.read(self._number, len(buffer))
        buffer[: len(data)] = data
        return len(data)


def verify(source: Source, expected: str) -> None:
    """Verify that a file has not changed; see `verify_path`."""
    verify_path(source.path, expected)


def verify_path(path: str, expected: str) -> None:
    """Verify that a file still has the identity that the catalog was built for.

    Raises
    ------
    SourceNotFoundError
        If the file no longer exists.
    SourceChangedError
        If the file has changed.
    """
    if path_identity(path) != expected:
        raise changed_error(path)


def describe_placeholder(path: str) -> str:
    """Return a description of a Git LFS or git-annex placeholder; an empty string for any other file."""
    from lazynwb.storage.placeholders import MAX_BYTES, describe

    try:
        with open(path, "rb") as file:
            return describe(path, file.read(MAX_BYTES))
    except OSError:
        return ""


def changed_error(path: str) -> SourceChangedError:
    """Return the error for a file that changed while it was read."""
    return SourceChangedError(f"{path} was changed or replaced while it was being read: run the query again")


def _open_error(path: str, error: OSError) -> LazyNWBError:
    if isinstance(error, FileNotFoundError):
        if os.path.islink(path):
            from lazynwb.storage.placeholders import describe_link

            return SourceNotFoundError(describe_link(path, os.readlink(path)))
        return SourceNotFoundError(f"no such file: {path}: check the path, and whether the file was moved")
    remedy = ": check its permissions" if isinstance(error, PermissionError) else ""
    return NotNWBError(f"{path} cannot be read: {error.strerror}{remedy}")
