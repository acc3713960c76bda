"""Threads of queries: pools, interruptible waits, and deferred writes to the caches.

The threads of pools do not delay the exit of the process.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl

from lazynwb import interrupts
from lazynwb.config import config
from lazynwb.profile import Query, current, working_for
from lazynwb.shutdown import is_exiting, on_exit

if TYPE_CHECKING:
    from collections.abc import Iterable

_Task = tuple[Future[Any], Callable[..., Any], tuple[Any, ...], Query | None]
T = TypeVar("T")
A = TypeVar("A")

_LOGGER = logging.getLogger("lazynwb")
#: Seconds between checks for Ctrl-C.
_CHECK_SECONDS = 0.1
#: Seconds without a new deferred write after which they begin, so that they do not compete with their query.
_WRITE_DELAY_SECONDS = 0.25
#: Number of deferred writes above which they are done at once, because they need memory.
_MAX_DEFERRED = 256
_NOTHING = pl.Series([], dtype=pl.UInt8)


def wait(future: Future[T]) -> T:
    """Return the result of a future; Ctrl-C ends the wait on any thread.

    Python only interrupts its main thread, and once Polars is imported, only waits with a timeout. During a
    query the main thread is inside Polars, which records Ctrl-C; its functions then raise KeyboardInterrupt
    on any thread.
    """
    while True:
        try:
            return future.result(_CHECK_SECONDS)
        except TimeoutError:
            if future.done():
                return future.result()
        raise_if_interrupted()


def raise_if_interrupted() -> None:
    """Raise KeyboardInterrupt on any thread of a query that was interrupted; see `wait` and `interrupts`."""
    _NOTHING.rechunk()
    query = current()
    if query is not None and interrupts.count() > query.interrupts:
        raise KeyboardInterrupt


class ForkSafeLock:
    """A lock that is free in a forked child, even if a thread of the parent held it.

    Parameters
    ----------
    after_fork : callable or None
        Called in the child to drop state of the parent's threads.
    """

    def __init__(self, after_fork: Callable[[], object] | None = None) -> None:
        self._lock = threading.Lock()
        self._after_fork = after_fork
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        if self._after_fork is not None:
            self._after_fork()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class _Worker(threading.Thread):
    """A thread of a pool."""


class _Finalizer:
    """Finalization of Python objects that Polars has dropped on its own threads.

    Such objects, including generators of scans, are only released by the next call of Polars from Python,
    which may be hours later. Until then, workers would continue to process a query that has ended.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = 0

    def __enter__(self) -> None:
        with self._lock:
            self._open += 1
            if self._open == 1:
                threading.Thread(target=self._run, name="lazynwb-release", daemon=True).start()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._open -= 1

    def _run(self) -> None:
        while self._open:
            time.sleep(_CHECK_SECONDS)
            with suppress(KeyboardInterrupt):  # also raised on the thread that runs the query
                raise_if_interrupted()


FINALIZER = _Finalizer()


def is_worker() -> bool:
    """Return whether the current thread belongs to a pool."""
    return isinstance(threading.current_thread(), _Worker)


class Pool:
    """A pool of daemon threads, which are started on demand.

    The exit of a process waits for pools of the standard library, however long a server blocks one of their
    threads, so that Ctrl-C has no effect.

    Parameters
    ----------
    name : str
        Name of the threads.
    size : callable
        Returns the maximum number of threads; called for each submission, so that settings may change.
    """

    def __init__(self, name: str, size: Callable[[], int]) -> None:
        self._name = name
        self.size = size
        self._reset()
        if hasattr(os, "register_at_fork"):
            # The threads do not exist in a forked child, and one of them may have held the lock.
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._condition = threading.Condition()
        self._tasks: deque[_Task] = deque()
        self._threads = 0
        self._idle = 0

    def submit(self, work: Callable[..., T], *arguments: Any) -> Future[T]:  # noqa: ANN401 - as for `Executor.submit`
        """Call a function on one of the threads."""
        future: Future[T] = Future()
        with self._condition:
            self._tasks.append((future, work, arguments, current()))
            if self._idle >= len(self._tasks):
                self._condition.notify()
            elif self._threads < max(self.size(), 1):
                self._threads += 1
                _Worker(target=self._work, name=f"lazynwb-{self._name}", daemon=True).start()
        return future

    def begin(self, work: Callable[[A], T], items: Iterable[A]) -> Callable[[], list[T]]:
        """Call a function for each item; return a function that waits and returns the results in order.

        The first error is raised immediately, and cancels the calls that have not started.
        """
        futures = [self.submit(work, item) for item in items]

        def finish() -> list[T]:
            try:
                return [wait(future) for future in futures]
            except BaseException:
                for future in futures:
                    future.cancel()
                raise

        return finish

    def map(self, work: Callable[[A], T], items: Iterable[A]) -> list[T]:
        """Call a function for each item and return the results in order; see `begin`."""
        return self.begin(work, items)()

    def _work(self) -> None:
        condition = self._condition
        while True:
            with condition:
                while not self._tasks:
                    self._idle += 1
                    condition.wait()
                    self._idle -= 1
                future, work, arguments, query = self._tasks.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                with working_for(query):
                    result = work(*arguments)
            except BaseException as error:  # noqa: BLE001 - raised by `Future.result`
                future.set_exception(error)
            else:
                future.set_result(result)
                del result
            # Drop the references to a finished task before the wait for the next one.
            del future, work, arguments, query


#: Threads that read and decode local files.
DECODERS = Pool("decode", lambda: config.max_threads or min(16, os.cpu_count() or 1))
#: Threads that send requests to servers, and decode the responses.
REQUESTS = Pool("request", lambda: config.max_requests)
#: Threads that parse remote files, each one file at a time, mostly waiting for requests.
LOADERS = Pool("load", lambda: min(config.max_requests, 32))


def _is_worker_process() -> bool:
    """Return whether this process was started by `multiprocessing`."""
    multiprocessing = sys.modules.get("multiprocessing")
    return multiprocessing is not None and multiprocessing.parent_process() is not None


class DeferredWrites:
    """Writes to a cache that run after the query that submits them, in order, on one thread.

    They are complete after `finish`, and when the process has exited. A process that is killed loses those of
    its last quarter of a second. Worker processes of `multiprocessing`, which may exit without calling the
    handlers of `atexit`, write at once.

    Parameters
    ----------
    name : str
        Name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._pool = Pool(name, lambda: 1)
        self._lock = ForkSafeLock(self._reset)
        self._reset()
        on_exit(self.finish)

    def _reset(self) -> None:
        self._writes: deque[tuple[Callable[[], object], Query | None]] = deque()
        self._is_scheduled = False
        self._last = 0.0

    def submit(self, write: Callable[[], object]) -> None:
        """Call a function later, or now if the process is exiting or a worker."""
        if is_exiting() or _is_worker_process():
            write()
            return
        self._writes.append((write, current()))
        self._last = time.monotonic()
        if not self._is_scheduled:
            self._is_scheduled = True
            self._pool.submit(self._run)
        elif len(self._writes) > _MAX_DEFERRED:
            self.finish()

    def finish(self) -> None:
        """Wait for the write that is running, and call the others on this thread."""
        with self._lock:
            while self._writes:
                write, query = self._writes.popleft()
                with working_for(query):
                    write()

    def _run(self) -> None:
        while (left := self._last + _WRITE_DELAY_SECONDS - time.monotonic()) > 0:
            time.sleep(left)
        self._is_scheduled = False  # before `finish`, which sees all writes that were submitted until now
        try:
            self.finish()
        except Exception:
            _LOGGER.exception("a cache could not be written; queries run without what it lacks")


#: Writes to the catalog cache, and of layouts to the column store, which no query of this process waits for.
CACHE_WRITES = DeferredWrites("cache")
