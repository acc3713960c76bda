"""Advisory locks on files, which end with the process that holds them at the latest."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LOGGER = logging.getLogger("lazynwb")


@contextlib.contextmanager
def exclusive_lock(file: Path) -> Iterator[None]:
    """Hold the lock of a file, which is created and never removed.

    File systems without locks are not supported: there, this has no effect.

    Raises
    ------
    BlockingIOError
        If the lock is held already, by this process or another one.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            _lock(descriptor)
        except BlockingIOError:
            raise
        except OSError as error:
            _LOGGER.debug("%s cannot be locked: %s", file, error)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    try:
        import fcntl
    except ImportError:  # Windows, where a lock that is taken is a PermissionError
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except PermissionError as error:
            raise BlockingIOError from error
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
