"""Interrupts of a notebook's kernel, for the threads that work for a query.

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


class _Notice:
    """The sockets that Python's handler writes to, and the number of interrupts that were read from them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sockets: tuple[socket.socket, socket.socket] | None = None
        self.count = 0


_notice = _Notice()


def watch() -> None:
    """Have interrupts counted from now on, if this is the main thread of IPython or of a notebook's kernel.

    A file descriptor that another library has set stays in place.
    """
    if "IPython" not in sys.modules or threading.current_thread() is not threading.main_thread():
        return
    if _notice.sockets is None:
        pair = socket.socketpair()
        for one in pair:
            one.settimeout(0)
        _notice.sockets = pair
    ours = _notice.sockets[1].fileno()
    before = signal.set_wakeup_fd(ours, warn_on_full_buffer=False)
    if before not in {-1, ours}:
        signal.set_wakeup_fd(before)


def count() -> int:
    """Return the number of interrupts so far."""
    if _notice.sockets is not None:
        with _notice.lock, suppress(BlockingIOError):
            _notice.count += _notice.sockets[0].recv(4096).count(signal.SIGINT)
    return _notice.count


def _forget() -> None:
    """Count nothing in a forked child, which shares the sockets with its parent."""
    if _notice.sockets is not None:
        _notice.__init__()  # type: ignore[misc]
        with suppress(ValueError):  # forked by another thread than the main one
            signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
