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

#: Seconds that exit waits for a batch that is being read.
_PATIENCE = 30.0
#: Seconds without any batch before the interpreter exits: handing over a batch, or releasing a scan that is
#: complete, takes less even on a busy machine.
_QUIET = 0.25


class _State:
    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.inside = 0
        self.last = 0.0
        self.leaving = False


_state = _State()

if hasattr(os, "register_at_fork"):
    # The threads that were inside do not exist in a forked child, and one of them may have held the lock.
    os.register_at_fork(after_in_child=_state.__init__)  # type: ignore[misc]


def is_leaving() -> bool:
    """Return whether the process is exiting: scans that are closed then do no further work."""
    return _state.leaving


def guard_shutdown(batches: Generator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Yield batches; end early once the process is exiting."""
    try:
        while True:
            with _state.condition:
                if _state.leaving:
                    return
                _state.inside += 1
            try:
                batch = next(batches, None)
            finally:
                with _state.condition:
                    _state.inside -= 1
                    _state.last = time.monotonic()
                    _state.condition.notify_all()
            if batch is None:
                return
            yield batch
    finally:
        with _state.condition:
            closes = not _state.leaving
            _state.inside += closes
        try:
            if closes:
                batches.close()  # explicitly, because closing may write to the column store
        finally:
            with _state.condition:
                _state.inside -= closes
                _state.last = time.monotonic()
                _state.condition.notify_all()


_gates: list[Callable[[], None]] = []


def on_exit(shut: Callable[[], None]) -> Callable[[], None]:
    """Register a function to call at exit, after the wait for scans.

    It keeps prefetching threads from running Python code while the interpreter is finalized.
    """
    _gates.append(shut)
    return shut


def wait_before_exit() -> None:
    """Register the wait last, so that it runs first: exit handlers run in reverse order of registration."""
    atexit.unregister(_leave)
    atexit.register(_leave)


def _leave() -> None:
    _wait()
    for shut in _gates:
        shut()


def _wait() -> None:
    with _state.condition:
        _state.leaving = True
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        with _state.condition:
            _state.condition.wait_for(lambda: not _state.inside, timeout=_PATIENCE)
        quiet = time.monotonic() - _state.last
        if not _state.inside and quiet >= _QUIET:
            return
        time.sleep(max(_QUIET - quiet, 0.001))


wait_before_exit()
