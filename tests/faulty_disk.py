"""A disk that fails: calls of the file system below a folder are refused, put off, cut short or fatal.

In a test::

    with FaultyDisk(config.cache_path, "full", random.Random(0)):
        scan.collect()
"""

from __future__ import annotations

import errno
import io
import os
import signal
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from unittest.mock import patch

if TYPE_CHECKING:
    import random

_WRITES = frozenset({"create", "write", "replace", "unlink", "utime", "mkdir"})


class Disk(NamedTuple):
    """Faults of a disk.

    Attributes
    ----------
    calls : frozenset of str
        That may fail.
    codes : tuple of int
        Errors, one of which they fail with.
    share : float
        Of the calls that fail.
    """

    calls: frozenset[str] = frozenset()
    codes: tuple[int, ...] = ()
    share: float = 1.0


#: By name. "in use" is what Windows answers for files that others have open. On "late" disks a rename is
#: seen later, by its own process as well, and not in order; on "short" ones a file may be read that is not
#: all there yet: both are what network file systems do.
DISKS = {
    "full": Disk(frozenset({"write"}), (errno.ENOSPC,)),
    "quota": Disk(frozenset({"create", "write", "mkdir"}), (errno.EDQUOT,), 0.3),
    "read-only": Disk(_WRITES, (errno.EROFS,)),
    "flaky": Disk(_WRITES | {"read", "list"}, (errno.EIO, errno.EACCES, errno.ENOLCK, errno.EINTR), 0.05),
    "stale": Disk(frozenset({"read", "list", "utime"}), (errno.ESTALE, errno.ENOENT), 0.2),
    "in use": Disk(frozenset({"replace", "unlink"}), (errno.EACCES,), 0.5),
    "late": Disk(),
    "short": Disk(),
}


class FaultyDisk:
    """A folder on a failing disk, within a `with` block.

    Parameters
    ----------
    root : Path or str
        Calls below it are concerned.
    kind : str
        One of `DISKS`, or "killed": the process kills itself at one of these calls.
    choose : Random
    at : int, optional
        Number of the call at which the process is killed.

    Attributes
    ----------
    failed : int
        Calls that were refused, put off or cut short.
    """

    def __init__(
        self, root: os.PathLike[str] | str, kind: str, choose: random.Random, at: int | None = None
    ) -> None:
        self._root = str(root)
        self._kind = kind
        self._disk = DISKS.get(kind, Disk())
        self._choose = choose
        self._at = at
        self._calls = 0
        self._pending: list[tuple[Any, Any]] = []
        self._lock = threading.RLock()
        self._stack = ExitStack()
        self.failed = 0

    def __enter__(self) -> Self:
        self._open, self._io_open, self._fdopen, self._rename = os.open, io.open, os.fdopen, os.replace
        replaced: dict[str, Any] = {"open": self._opened, "fdopen": self._written, "replace": self._replaced}
        for name in ("unlink", "utime", "mkdir", "listdir"):
            replaced[name] = self._checked(getattr(os, name), "list" if name == "listdir" else name)
        for name, function in replaced.items():
            self._stack.enter_context(patch.object(os, name, function))
        self._stack.enter_context(patch.object(io, "open", self._read))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()  # what was put off is lost, as with the machine that had it

    # -- calls ----------------------------------------------------------------------------------------------

    def _concerns(self, path: object) -> bool:
        return isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(self._root)

    def _call(self, name: str, path: object) -> None:
        """Raise the error of a call, or end the process."""
        with self._lock:
            self._calls += 1
            if self._pending and self._choose.random() < 0.2:
                self._carry_out(self._choose.randrange(len(self._pending)))
            if self._at is not None and self._calls >= self._at:
                os.kill(os.getpid(), signal.SIGKILL)
            disk = self._disk
            if name in disk.calls and self._choose.random() < disk.share:
                self.failed += 1
                code = self._choose.choice(disk.codes)
                raise OSError(code, os.strerror(code), str(path))

    def _checked(self, function: Any, name: str) -> Any:
        def call(path: Any = ".", *args: Any, **options: Any) -> Any:
            if self._concerns(path):
                self._call(name, path)
            return function(path, *args, **options)

        return call

    def _opened(self, path: Any, flags: int, *args: Any, **options: Any) -> int:
        if self._concerns(path):
            self._call("create" if flags & os.O_CREAT else "read", path)
        return self._open(path, flags, *args, **options)

    def _read(self, file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        if not self._concerns(file):
            return self._io_open(file, mode, *args, **options)
        self._call("read" if mode.startswith("r") else "create", file)
        if self._kind == "short" and mode == "rb" and self._choose.random() < 0.1:
            self.failed += 1
            with self._io_open(file, mode) as stream:
                data = stream.read()
            return io.BytesIO(data[: self._choose.randrange(len(data) + 1)])
        return self._io_open(file, mode, *args, **options)

    def _written(self, number: int, *args: Any, **options: Any) -> Any:
        stream = self._fdopen(number, *args, **options)
        return _Writer(stream, self._write) if stream.writable() else stream

    def _write(self, stream: Any, data: bytes) -> int:
        try:
            self._call("write", self._root)
        except OSError:
            stream.write(data[: self._choose.randrange(len(data) + 1)])
            raise
        half = self._choose.randrange(len(data) + 1)
        stream.write(data[:half])
        if self._at is not None:
            stream.flush()
            self._call("write", self._root)
        return int(stream.write(data[half:])) + half

    def _replaced(self, source: Any, target: Any, **options: Any) -> None:
        if not self._concerns(target):
            self._rename(source, target, **options)
            return
        self._call("replace", target)
        if self._kind == "late":
            self.failed += 1
            with self._lock:
                self._pending.append((source, target))
            return
        self._rename(source, target, **options)

    def _carry_out(self, number: int) -> None:
        source, target = self._pending.pop(number)
        try:
            self._rename(source, target)
        except OSError:  # removed by others
            return


class _Writer:
    """A file whose writes go through a function."""

    def __init__(self, stream: Any, write: Any) -> None:
        self._stream, self._write = stream, write

    def write(self, data: bytes) -> int:
        return int(self._write(self._stream, data))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
