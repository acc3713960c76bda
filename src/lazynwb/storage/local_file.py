"""Local files: identity and ranged reads."""

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
    # Not the device: machines that mount the same share number it differently, and share an index.
    return f"{status.st_size}-{status.st_mtime_ns:x}-{status.st_ctime_ns:x}-{status.st_ino:x}"


def identity(source: Source, *, known: bool | str) -> str:  # noqa: ARG001 - kinds share one signature
    """Return the identity of a local file; see `path_identity`."""
    return path_identity(source.path)


def path_identity(path: str) -> str:
    """Return a text that changes whenever the file is replaced or written to.

    Raises
    ------
    SourceNotFoundError
        If there is no such file.
    NotNWBError
        If it is no regular file (opening a pipe would wait for ever), or may not be looked at.
    """
    return _identity(_status_of(path))


def _status_of(path: str) -> os.stat_result:
    """Return the status of a regular file or a folder; see `path_identity` for what is raised."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise _not_readable(path, error) from None
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise NotNWBError(f"{path} is a device, a pipe or a socket, not a file")
    return status


def is_settled(source: Source, known: str, now_ns: int) -> bool:  # noqa: ARG001 - kinds share one signature
    """Return whether a write from now on is certain to change the identity; see `is_path_settled`."""
    return is_path_settled(source.path, now_ns)


def shows_change(source: Source, known: str) -> bool:  # noqa: ARG001 - kinds share one signature
    """Return False: nothing tells that a local file was changed but to look at it."""
    return False


def invalidate(source: Source) -> None:
    """Keep everything: local files are not damaged on their way."""


def open_file(source: Source, expected: str) -> LocalFile:
    """Open a local file."""
    return LocalFile(source.path, expected)


def is_path_settled(path: str, now_ns: int) -> bool:
    """Return whether a write from now on is certain to change the file's identity.

    Timestamps advance in ticks (4 ms on Linux, 1 or 2 s on some file systems and servers). A file that was
    written within the current tick could be written again without a trace, so what is read from it now
    must not be remembered.
    """
    status = os.stat(path)
    newest = max(status.st_mtime_ns, status.st_ctime_ns)
    whole_seconds = status.st_mtime_ns % 1_000_000_000 == 0
    return now_ns - newest > (2_500_000_000 if whole_seconds else 50_000_000)


class LocalFile:
    """A local file whose ranges can be read, from several threads at once.

    Nothing is open between reads: a scan may hold on to any number of these.

    Parameters
    ----------
    path : str
    expected : str
        The identity that the catalog was made for.

    Attributes
    ----------
    name : str
        Its path.
    size : int

    Raises
    ------
    SourceNotFoundError
        If the file is gone.
    SourceChangedError
        If the file is no longer the one that the catalog describes.
    """

    pool = DECODERS
    #: Copying a gap of this size costs less than another system call.
    gap = 16 * 1024
    #: A buffer of this size stays in the processor's cache.
    merged = 1024 * 1024
    #: Handing a smaller read to a thread costs more than reading.
    parallel = 64 * 1024

    def __init__(self, path: str, expected: str) -> None:
        self.name = path
        self._expected = expected
        status = _status_of(path)  # one, so that the size is that of the file that is expected
        if _identity(status) != expected:
            raise changed(path)
        self.size = status.st_size
        count(files_opened=1)

    def has(self, offset: int, size: int) -> bool:
        """Return False: what the system has cached is unknown."""
        del offset, size
        return False

    def keep(self, offset: int, data: memoryview) -> None:
        """Keep nothing: see `has`."""

    @contextmanager
    def reading(self) -> Iterator[Descriptor]:
        """Open the file for as long as the `with` block lasts; see the class for what is raised."""
        try:
            number = os.open(self.name, _READ_FLAGS)
        except OSError as error:
            raise _not_readable(self.name, error) from None
        try:
            if _identity(os.fstat(number)) != self._expected:
                raise changed(self.name)
            yield Descriptor(number, self.name, self.size)
        finally:
            os.close(number)


class Descriptor:
    """An open file: reads at positions, which threads may do at the same time."""

    __slots__ = ("_lock", "_number", "_path", "_size")

    def __init__(self, number: int, path: str, size: int) -> None:
        self._number = number
        self._path = path
        self._size = size
        self._lock = threading.Lock()

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a writable buffer of bytes with what the file holds from `offset` on.

        Raises
        ------
        CorruptDataError
            If the file ends before the buffer is full.
        """
        done, total = 0, len(buffer)
        if offset < 0 or offset + total > self._size:
            raise self._ends(offset, total)
        while done < total:
            try:
                if _HAS_PREAD:
                    got = os.preadv(self._number, [buffer[done:] if done else buffer], offset + done)
                else:
                    got = self._seek_and_read(offset + done, buffer[done:])
            except OSError as error:
                raise _not_readable(self._path, error) from None
            if not got:
                raise self._ends(offset, total)
            done += got
        count(requests=1, bytes_read=total)

    def read(self, offset: int, size: int) -> bytearray:
        """Return `size` bytes from `offset` on; see `read_into`."""
        if size < 0 or offset + size > self._size:
            raise self._ends(offset, size)  # before memory is taken for what a damaged size asks for
        buffer = bytearray(size)
        self.read_into(offset, memoryview(buffer))
        return buffer

    def _ends(self, offset: int, size: int) -> CorruptDataError:
        return CorruptDataError(
            f"the file has {self._size} bytes, but bytes {offset} to {offset + size} are needed: "
            "it is truncated or damaged"
        )

    def _seek_and_read(self, offset: int, buffer: memoryview) -> int:
        # Windows has no positioned read: the position is shared, so reads take turns.
        with self._lock:
            os.lseek(self._number, offset, os.SEEK_SET)
            data = os.read(self._number, len(buffer))
        buffer[: len(data)] = data
        return len(data)


def verify(source: Source, expected: str) -> None:
    """Make sure that a file is still the one that the catalog describes; see `verify_path`."""
    verify_path(source.path, expected)


def verify_path(path: str, expected: str) -> None:
    """Make sure that a file is still the one that the catalog describes.

    Raises
    ------
    SourceNotFoundError, SourceChangedError
        If it is gone or another one.
    """
    if path_identity(path) != expected:
        raise changed(path)


def placeholder(path: str) -> str:
    """Return what a placeholder stands for and what to do; nothing for any other file."""
    from lazynwb.storage.placeholders import MAX_BYTES, describe

    try:
        with open(path, "rb") as file:
            return describe(path, file.read(MAX_BYTES))
    except OSError:
        return ""


def changed(path: str) -> SourceChangedError:
    """Return the error of a file that is no longer what it was."""
    return SourceChangedError(f"{path} was changed or replaced while it was being read: run the query again")


def _not_readable(path: str, error: OSError) -> LazyNWBError:
    if isinstance(error, FileNotFoundError):
        if os.path.islink(path):
            from lazynwb.storage.placeholders import describe_link

            return SourceNotFoundError(describe_link(path, os.readlink(path)))
        return SourceNotFoundError(f"no such file: {path}: check its name, or whether it was moved")
    return NotNWBError(f"{path} cannot be read: {error.strerror}")
