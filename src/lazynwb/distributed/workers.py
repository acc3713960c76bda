"""Executors as pools of workers: work items are submitted, and their results returned in order."""

from __future__ import annotations

import os
import platform
from collections import deque
from concurrent.futures import BrokenExecutor, CancelledError, Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

import polars as pl

from lazynwb._version import __version__
from lazynwb.config import config
from lazynwb.errors import LazyNWBError, MissingPackageError
from lazynwb.profile import count, measured
from lazynwb.threads import LOADERS, RELEASING, wait

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lazynwb.storage.source import Source

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")

#: Threads that an executor is taken to have if it does not say.
_WIDTH = 16
#: Units of work under way: enough for every worker to find the next one waiting, and no more than these.
_ITEMS_PER_WORKER, _MIN_ITEMS, _MAX_ITEMS = 2, 4, 512
#: Settings that are the same wherever a file is read.
_SETTINGS = (
    "external_links",
    "max_retries",
    "retry_seconds",
    "request_timeout",
    "recheck_seconds",
    "revalidate_seconds",
    "download_bytes",
    "dandi_api_url",
)


class Work(Protocol[T_co]):
    """A unit of work: a small value that can be pickled, without secrets in its repr.

    Attributes
    ----------
    sources : tuple of Source
        The files that it is about, for messages.
    """

    @property
    def sources(self) -> tuple[Source, ...]: ...  # noqa: D102

    def run(self) -> tuple[T_co, Work[T_co] | None]:
        """Return a result, and the remaining work if the result has reached its size limit."""
        ...

    def split(self) -> Sequence[Work[T_co]]:
        """Return the work on each of the sources."""
        ...


class Done(NamedTuple, Generic[T]):
    """The result of a work item.

    Attributes
    ----------
    value : object
    rest : Work or None
        Remaining work.
    process : str
        Process that executed it.
    counts : dict of str to int
        Its costs; see `lazynwb.profile.Counts`.
    """

    value: T
    rest: Work[T] | None
    process: str
    counts: dict[str, int]


Outcome: TypeAlias = "tuple[Work[T], T | LazyNWBError]"


def _process() -> str:
    return f"{_host()}/{os.getpid()}"


@cache
def _host() -> str:
    return f"{platform.node()}/{os.urandom(4).hex()}"


class WorkItem(NamedTuple, Generic[T]):
    """A unit of work with the settings that another process needs for it.

    Attributes
    ----------
    work : Work
    settings : dict
        Of `lazynwb.config`.
    versions : tuple of str
        Of this package and of Polars: expressions and frames travel in Polars' own encoding.
    process : str
        Process that submitted it.
    """

    work: Work[T]
    settings: dict[str, Any]
    versions: tuple[str, str]
    process: str


def work_item(work: Work[T]) -> WorkItem[T]:
    """Return a unit of work with the settings that another process needs for it."""
    return WorkItem(work, {name: getattr(config, name) for name in _SETTINGS}, _versions(), _process())


def execute(order: WorkItem[T]) -> Done[T]:
    """Execute a work item; called by workers."""
    if order.versions != _versions():
        raise LazyNWBError(
            f"the worker {platform.node()} has lazynwb {__version__} and polars {pl.__version__}, but the "
            f"query is from lazynwb {order.versions[0]} and polars {order.versions[1]}: install the same"
        )
    if order.process == _process():
        value, rest = order.work.run()
        return Done(value, rest, order.process, {})
    for name, setting in order.settings.items():
        setattr(config, name, setting)
    with measured() as counts:
        value, rest = order.work.run()
    return Done(value, rest, _process(), counts.amounts())


def _versions() -> tuple[str, str]:
    return __version__, pl.__version__


class Workers:
    """A pool of workers on an executor.

    Parameters
    ----------
    executor : Executor
        Anything with the `submit` of `concurrent.futures.Executor`; or with the `get_executor` of a
        `dask.distributed.Client`.

    Raises
    ------
    TypeError
        If it is something else.
    ValueError
        If it forks processes, in which Polars would wait for ever.
    """

    def __init__(self, executor: Any) -> None:  # noqa: ANN401 - of any package
        get = getattr(executor, "get_executor", None)
        self._executor = get() if callable(get) else executor
        if not callable(getattr(self._executor, "submit", None)):
            raise TypeError(
                "executor is a concurrent.futures.Executor, such as ProcessPoolExecutor or dask's "
                f"Client.get_executor(), not {type(executor).__name__}"
            )
        if _forks(self._executor):
            raise ValueError(
                "executor: forked processes cannot use Polars, whose threads are not forked with them; use "
                'ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn"))'
            )

    @property
    def width(self) -> int:
        """Number of units executed at the same time, as far as the executor reports it."""
        client = getattr(self._executor, "_client", None)
        if client is not None and hasattr(client, "nthreads"):
            return sum(client.nthreads().values()) or _WIDTH
        for name in ("_max_workers", "num_workers"):
            number = getattr(self._executor, name, None)
            if isinstance(number, int) and number > 0:
                return number
        return _WIDTH

    @property
    def under_way(self) -> int:
        """Number of units submitted before the result of the first is awaited."""
        return min(max(_ITEMS_PER_WORKER * self.width, _MIN_ITEMS), _MAX_ITEMS)

    def in_order(self, units: Iterable[Work[T]], at_once: int) -> Iterator[Outcome[T]]:
        """Execute units of work, and yield the result or error of each, in order.

        Parameters
        ----------
        units : iterable of Work
            Taken as they are needed.
        at_once : int
            How many of them are under way at the same time.
        """
        coming = iter(units)
        waiting: deque[tuple[Work[T], Any]] = deque()
        with RELEASING, _cancelling(waiting):
            while True:
                room = max(at_once - len(waiting), 0)
                waiting.extend((unit, self._submit(unit)) for unit in islice(coming, room))
                if not waiting:
                    return
                unit, future = waiting.popleft()
                outcome = _outcome(unit, future)
                del future
                if isinstance(outcome, LazyNWBError):
                    yield unit, outcome
                elif isinstance(outcome, Done):
                    if outcome.rest is not None:
                        waiting.appendleft((outcome.rest, self._submit(outcome.rest)))
                    count(**outcome.counts)
                    yield unit, outcome.value
                else:
                    waiting.extendleft([(one, self._submit(one)) for one in outcome][::-1])
                del outcome

    def _submit(self, unit: Work[T]) -> Any:  # noqa: ANN401 - a future of any package
        try:
            return self._executor.submit(execute, work_item(unit))
        except (RuntimeError, BrokenExecutor) as error:
            raise _lost(unit, error) from None


@contextmanager
def _cancelling(waiting: Iterable[tuple[object, Any]]) -> Iterator[None]:
    """Cancel what is still under way at the end.

    On another thread: a dropped query may end on any thread, also on the one that does all communication of
    an executor and cannot wait for itself.
    """
    try:
        yield
    finally:
        for _, future in waiting:
            LOADERS.submit(future.cancel)


def _outcome(unit: Work[T], future: Any) -> Done[T] | LazyNWBError | Sequence[Work[T]]:  # noqa: ANN401
    """Return the result of a unit of work, its error, or the units to try instead."""
    try:
        done: Done[T] = wait(future) if isinstance(future, Future) else future.result()
    except LazyNWBError as error:
        return error
    except ImportError as error:
        return MissingPackageError(f"a worker lacks a package: {error}")
    except Exception as error:  # noqa: BLE001 - whatever an executor has to say
        if len(unit.sources) == 1 or isinstance(error, BrokenExecutor | CancelledError):
            return _lost(unit, error)
        # One at a time: the others can be read, and the error names the one that cannot.
        return unit.split()
    return done


def _forks(executor: object) -> bool:
    context: Any = getattr(executor, "_mp_context", None)
    return isinstance(executor, ProcessPoolExecutor) and context.get_start_method() == "fork"


def _lost(unit: Work[T], error: BaseException) -> LazyNWBError:
    first, *others = unit.sources
    names = first.name + (f" and {len(others)} more files" if others else "")
    reason = str(error).strip().split("\n", 1)[0]
    return LazyNWBError(
        f"{names}: the executor could not carry out the work on it ({type(error).__name__}"
        f"{f': {reason}' if reason else ''}): its worker's log says more, and a scan without executor may too"
    )
