"""Detection of interrupts of a notebook's kernel, on the threads of a query.

While Polars runs a query, the main thread is outside Python, which therefore handles no signal. Polars has a
handler of SIGINT of its own, but IPython and ipykernel replace it with Python's before every cell. Python's
handler, and `_thread.interrupt_main` (by which kernels are interrupted on Windows), also write to the file
descriptor of `signal.set_wakeup_fd`, which any thread can read.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from contextlib import suppress


class _Counter:
    """The sockets that Python's handler writes to, and the number of interrupts that were read from them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sockets: tuple[socket.socket, socket.socket] | None = None
        self.count = 0


_counter = _Counter()


def watch() -> None:
    """Start to count interrupts, if this is the main thread of IPython or of a notebook's kernel.

    A file descriptor that another library has set is not replaced.
    """
    if "IPython" not in sys.modules or threading.current_thread() is not threading.main_thread():
        return
    if _counter.sockets is None:
        pair = socket.socketpair()
        for one in pair:
            one.settimeout(0)
        _counter.sockets = pair
    ours = _counter.sockets[1].fileno()
    before = signal.set_wakeup_fd(ours, warn_on_full_buffer=False)
    if before not in {-1, ours}:
        signal.set_wakeup_fd(before)


def count() -> int:
    """Return the number of interrupts so far."""
    if _counter.sockets is not None:
        with _counter.lock, suppress(BlockingIOError):
            _counter.count += _counter.sockets[0].recv(4096).count(signal.SIGINT)
    return _counter.count


def _forget() -> None:
    """Stop counting in a forked child, which shares the sockets with its parent."""
    if _counter.sockets is not None:
        _counter.__init__()  # type: ignore[misc]
        with suppress(ValueError):  # forked by another thread than the main one
            signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
