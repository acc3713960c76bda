"""Local files: identity and ranged reads."""

from __future__ import annotations

import os
import stat
import threading
from typing import TYPE_CHECKING, Self

from lazynwb.errors import CorruptDataError, NotNWBError, SourceChangedError, SourceNotFoundError
from lazynwb.profile import count

if TYPE_CHECKING:
    from types import TracebackType

_HAS_PREAD = hasattr(os, "preadv")
_READ_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


def _identity(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns:x}-{status.st_ctime_ns:x}-{status.st_ino:x}-{status.st_dev:x}"


def identity(path: str) -> str:
    """Return a text that changes whenever the file is replaced or written to.

    Raises
    ------
    SourceNotFoundError
        If there is no such file.
    NotNWBError
        If it is no regular file (opening a pipe would wait for ever), or may not be looked at.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 - called once per file and query: Path costs more
    except FileNotFoundError:
        message = f"no such file: {path}"
        raise SourceNotFoundError(message) from None
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}"
        raise NotNWBError(message) from None
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        message = f"{path} is a device, a pipe or a socket, not a file"
        raise NotNWBError(message)
    return _identity(status)


def is_settled(path: str, now_ns: int) -> bool:
    """Tell whether a write from now on is certain to change the file's identity.

    Timestamps advance in ticks (4 ms on Linux, 1 or 2 s on some file systems and servers). A file that was
    written within the current tick could be written again without a trace, so what is read from it now
    must not be remembered.
    """
    status = os.stat(path)  # noqa: PTH116
    newest = max(status.st_mtime_ns, status.st_ctime_ns)
    whole_seconds = status.st_mtime_ns % 1_000_000_000 == 0
    return now_ns - newest > (2_500_000_000 if whole_seconds else 50_000_000)


class LocalFile:
    """An open local file whose ranges can be read from several threads at once.

    Parameters
    ----------
    path : str
    expected : str or None
        The identity that the catalog was made for.

    Raises
    ------
    SourceNotFoundError
        If the file is gone.
    SourceChangedError
        If the file is no longer the one that the catalog describes.
    """

    def __init__(self, path: str, expected: str | None = None) -> None:
        try:
            self._descriptor = os.open(path, _READ_FLAGS)
        except FileNotFoundError:
            message = f"no such file: {path}"
            raise SourceNotFoundError(message) from None
        self.path = path
        self._lock = threading.Lock()
        status = os.fstat(self._descriptor)
        self.size = status.st_size
        if expected is not None and _identity(status) != expected:
            self.close()
            message = f"{path} was changed or replaced while it was being read: run the query again"
            raise SourceChangedError(message)
        count(files_opened=1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a writable buffer of bytes with what the file holds from `offset` on.

        Raises
        ------
        CorruptDataError
            If the file ends before the buffer is full.
        """
        done, total = 0, len(buffer)
        while done < total:
            if _HAS_PREAD:
                got = os.preadv(self._descriptor, [buffer[done:] if done else buffer], offset + done)
            else:
                got = self._seek_and_read(offset + done, buffer[done:])
            if not got:
                message = (
                    f"{self.path} ends at byte {self.size} but bytes {offset} to {offset + total} are "
                    "needed: the file is truncated"
                )
                raise CorruptDataError(message)
            done += got
        count(requests=1, bytes_read=total)

    def read(self, offset: int, size: int) -> bytearray:
        """Return `size` bytes from `offset` on; see `read_into`."""
        if offset < 0 or size < 0 or offset + size > self.size:
            message = (
                f"{self.path} has {self.size} bytes but bytes {offset} to {offset + size} are needed: "
                "the file is truncated or damaged"
            )
            raise CorruptDataError(message)
        buffer = bytearray(size)
        self.read_into(offset, memoryview(buffer))
        return buffer

    def _seek_and_read(self, offset: int, buffer: memoryview) -> int:
        # Windows has no positioned read: the position is shared, so reads take turns.
        with self._lock:
            os.lseek(self._descriptor, offset, os.SEEK_SET)
            data = os.read(self._descriptor, len(buffer))
        buffer[: len(data)] = data
        return len(data)
