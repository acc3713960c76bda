"""Interpreter exit while Polars holds a suspended scan.

The streaming engine requests a few batches more than a `head` needs, on its own threads. The process aborts
if the interpreter is finalized while such a thread runs Python code. Exit therefore waits for batches that
are being read, and scans end early from then on.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    import polars as pl

#: Maximum wait at exit, in seconds, for a batch that is being read.
_MAX_WAIT_SECONDS = 30.0
#: Seconds without any batch before the interpreter exits. To return a batch to Polars, or to release a
#: complete scan, takes less even on a busy machine.
_IDLE_SECONDS = 0.25


class _State:
    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.reading = 0
        self.last = 0.0
        self.exiting = False


_state = _State()

if hasattr(os, "register_at_fork"):
    # The reading threads do not exist in a forked child, and one of them may have held the lock.
    os.register_at_fork(after_in_child=_state.__init__)  # type: ignore[misc]


def is_exiting() -> bool:
    """Return whether the process is exiting, in which case closed scans do no further work."""
    return _state.exiting


def guard_shutdown(batches: Generator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Yield batches; end early once the process is exiting."""
    try:
        while True:
            with _state.condition:
                if _state.exiting:
                    return
                _state.reading += 1
            try:
                batch = next(batches, None)
            finally:
                with _state.condition:
                    _state.reading -= 1
                    _state.last = time.monotonic()
                    _state.condition.notify_all()
            if batch is None:
                return
            yield batch
    finally:
        with _state.condition:
            closes = not _state.exiting
            _state.reading += closes
        try:
            if closes:
                batches.close()  # explicitly, because closing may write to the column store
        finally:
            with _state.condition:
                _state.reading -= closes
                _state.last = time.monotonic()
                _state.condition.notify_all()


_callbacks: list[Callable[[], None]] = []


def on_exit(callback: Callable[[], None]) -> Callable[[], None]:
    """Register a function to call at exit, after the wait for scans; can be used as a decorator.

    Such functions stop prefetching threads, because no thread may run Python code while the interpreter is
    finalized.
    """
    _callbacks.append(callback)
    return callback


def wait_before_exit() -> None:
    """Register the wait last, so that it runs first: exit handlers run in reverse order of registration."""
    atexit.unregister(_exit)
    atexit.register(_exit)


def _exit() -> None:
    _wait()
    for callback in _callbacks:
        callback()


def _wait() -> None:
    with _state.condition:
        _state.exiting = True
    deadline = time.monotonic() + _MAX_WAIT_SECONDS
    while time.monotonic() < deadline:
        with _state.condition:
            _state.condition.wait_for(lambda: not _state.reading, timeout=_MAX_WAIT_SECONDS)
        idle = time.monotonic() - _state.last
        if not _state.reading and idle >= _IDLE_SECONDS:
            return
        time.sleep(max(_IDLE_SECONDS - idle, 0.001))


wait_before_exit()
