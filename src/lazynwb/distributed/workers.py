"""Pools of workers on executors: submission of work items, and their results in order."""

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
from lazynwb.threads import FINALIZER, LOADERS, wait

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lazynwb.storage.source import Source

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")

#: Assumed number of workers of an executor that does not report it.
_DEFAULT_WIDTH = 16
#: Numbers of units of work in flight: per worker, so that each has another one queued, and limits.
_ITEMS_PER_WORKER, _MIN_ITEMS, _MAX_ITEMS = 2, 4, 512
#: Settings that are shipped to workers.
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
    """A unit of work: a small picklable value without secrets in its repr.

    Attributes
    ----------
    sources : tuple of Source
        Files that are processed, for messages.
    """

    @property
    def sources(self) -> tuple[Source, ...]: ...  # noqa: D102

    def run(self) -> tuple[T_co, Work[T_co] | None]:
        """Return a result, and the remaining work if the result reached its size limit."""
        ...

    def split(self) -> Sequence[Work[T_co]]:
        """Return a unit of work for each source."""
        ...


class Result(NamedTuple, Generic[T]):
    """The result of a work item.

    Attributes
    ----------
    value : object
        The result.
    rest : Work or None
        Remaining work.
    process : str
        Process that executed the item.
    counts : dict of str to int
        Costs of the execution; see `lazynwb.profile.Counts`.
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
        The unit of work.
    settings : dict
        Values of `lazynwb.config`.
    versions : tuple of str
        Versions of this package and of Polars, whose encoding of expressions and frames depends on them.
    process : str
        Process that submitted the item.
    """

    work: Work[T]
    settings: dict[str, Any]
    versions: tuple[str, str]
    process: str


def work_item(work: Work[T]) -> WorkItem[T]:
    """Return a unit of work with the settings that another process needs for it."""
    return WorkItem(work, {name: getattr(config, name) for name in _SETTINGS}, _versions(), _process())


def execute(order: WorkItem[T]) -> Result[T]:
    """Execute a work item; called by workers."""
    if order.versions != _versions():
        raise LazyNWBError(
            f"the worker {platform.node()} has lazynwb {__version__} and polars {pl.__version__}, but the "
            f"query is from lazynwb {order.versions[0]} and polars {order.versions[1]}: install the same"
        )
    if order.process == _process():
        value, rest = order.work.run()
        return Result(value, rest, order.process, {})
    for name, setting in order.settings.items():
        setattr(config, name, setting)
    with measured() as counts:
        value, rest = order.work.run()
    return Result(value, rest, _process(), counts.amounts())


def _versions() -> tuple[str, str]:
    return __version__, pl.__version__


class Workers:
    """A pool of workers on an executor.

    Parameters
    ----------
    executor : Executor
        An object with the `submit` method of `concurrent.futures.Executor`, or with the `get_executor` method
        of a `dask.distributed.Client`.

    Raises
    ------
    TypeError
        If it has neither method.
    ValueError
        If it forks processes, in which Polars deadlocks.
    """

    def __init__(self, executor: Any) -> None:  # noqa: ANN401 - of any package
        get = getattr(executor, "get_executor", None)
        self._executor = get() if callable(get) else executor
        if not callable(getattr(self._executor, "submit", None)):
            raise TypeError(
                "executor must be a concurrent.futures.Executor, such as ProcessPoolExecutor or dask's "
                f"Client.get_executor(), not {type(executor).__name__}"
            )
        if _forks(self._executor):
            raise ValueError(
                "executor: forked processes cannot use Polars, whose threads are not forked with them; use "
                'ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn"))'
            )

    @property
    def width(self) -> int:
        """The number of workers, as far as the executor reports it."""
        client = getattr(self._executor, "_client", None)
        if client is not None and hasattr(client, "nthreads"):
            return sum(client.nthreads().values()) or _DEFAULT_WIDTH
        for name in ("_max_workers", "num_workers"):
            number = getattr(self._executor, name, None)
            if isinstance(number, int) and number > 0:
                return number
        return _DEFAULT_WIDTH

    @property
    def max_in_flight(self) -> int:
        """The number of units that are submitted before the first result is awaited."""
        return min(max(_ITEMS_PER_WORKER * self.width, _MIN_ITEMS), _MAX_ITEMS)

    def in_order(self, units: Iterable[Work[T]], at_once: int) -> Iterator[Outcome[T]]:
        """Execute units of work, and yield the result or error of each, in order.

        Parameters
        ----------
        units : iterable of Work
            Units of work, consumed lazily.
        at_once : int
            Maximum number of units in flight.
        """
        coming = iter(units)
        waiting: deque[tuple[Work[T], Any]] = deque()
        with FINALIZER, _cancel_at_exit(waiting):
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
                elif isinstance(outcome, Result):
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
            raise _execution_error(unit, error) from None


@contextmanager
def _cancel_at_exit(waiting: Iterable[tuple[object, Any]]) -> Iterator[None]:
    """Cancel the remaining futures on exit.

    This happens on another thread: a dropped query may end on any thread, including the communication thread
    of an executor, which cannot wait for itself.
    """
    try:
        yield
    finally:
        for _, future in waiting:
            LOADERS.submit(future.cancel)


def _outcome(unit: Work[T], future: Any) -> Result[T] | LazyNWBError | Sequence[Work[T]]:  # noqa: ANN401
    """Return the result of a unit of work, its error, or the units to try instead."""
    try:
        done: Result[T] = wait(future) if isinstance(future, Future) else future.result()
    except LazyNWBError as error:
        return error
    except ImportError as error:
        return MissingPackageError(f"a worker lacks a package: {error}")
    except Exception as error:  # noqa: BLE001 - any error of an executor
        if len(unit.sources) == 1 or isinstance(error, BrokenExecutor | CancelledError):
            return _execution_error(unit, error)
        # Retry file by file: the others can be read, and the error names the one that cannot.
        return unit.split()
    return done


def _forks(executor: object) -> bool:
    context: Any = getattr(executor, "_mp_context", None)
    return isinstance(executor, ProcessPoolExecutor) and context.get_start_method() == "fork"


def _execution_error(unit: Work[T], error: BaseException) -> LazyNWBError:
    first, *others = unit.sources
    names = first.name + (f" and {len(others)} more files" if others else "")
    reason = str(error).strip().split("\n", 1)[0]
    return LazyNWBError(
        f"{names}: the executor failed to process it ({type(error).__name__}"
        f"{f': {reason}' if reason else ''}): see the log of the worker, or scan without an executor"
    )
