"""The Daft data source of tables, its tasks, and conversion of Polars frames to Daft record batches."""

from __future__ import annotations

import asyncio
import math
import threading
import weakref
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import polars as pl
from daft import Schema
from daft.expressions import ExpressionsProjection
from daft.io.source import DataSource, DataSourceTask
from daft.recordbatch import RecordBatch

from lazynwb.catalog.dtypes import ROWS, instance
from lazynwb.catalog.lengths import shown_name
from lazynwb.daft.expressions import translate_filters
from lazynwb.distributed.execution import (
    DistributedQuery,
    files_by_metadata,
    read_task,
    select_files,
    tasks_on,
)
from lazynwb.distributed.tasks import Read
from lazynwb.distributed.workers import execute, work_item
from lazynwb.engine.batches import is_stored, run, scan_metadata
from lazynwb.engine.plan import plan_steps
from lazynwb.engine.report import Report
from lazynwb.engine.scan import Query
from lazynwb.errors import LazyNWBError, UnsupportedTypeError
from lazynwb.profile import Query as Costs
from lazynwb.profile import working_for
from lazynwb.shutdown import guard_shutdown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator, Mapping

    from daft import Expression
    from daft.io.pushdowns import Pushdowns

    from lazynwb.distributed.workers import WorkItem
    from lazynwb.engine.plan import ScanPlan
    from lazynwb.storage.source import Source

#: Types without a counterpart in Arrow or Daft.
_UNKNOWN = {"Object", "Unknown", "Int128", "UInt128"}


def daft_schema(columns: Mapping[str, pl.DataType]) -> Schema:
    """Return a schema in Daft types; see `plain`.

    Raises
    ------
    UnsupportedTypeError
        If Daft lacks a type; the message names the column.
    """
    for name, dtype in columns.items():
        if str(dtype.base_type()) in _UNKNOWN:
            raise UnsupportedTypeError(
                f"column {name!r}: Daft has no type for {dtype}: choose another one in schema_overrides"
            )
    return Schema.from_pyarrow_schema(_arrow(pl.DataFrame(schema=dict(columns))).schema)


def record_batch(frame: pl.DataFrame) -> RecordBatch:
    """Return a frame as a Daft record batch with public column names."""
    return RecordBatch.from_arrow_table(_arrow(frame.rename(shown_name)))


def _arrow(frame: pl.DataFrame) -> Any:  # noqa: ANN401 - pyarrow has no types
    casts = {name: plain(dtype) for name, dtype in frame.schema.items()}
    plainer = frame.cast({name: dtype for name, dtype in casts.items() if dtype != frame.schema[name]})
    # Daft lacks newer types of Arrow, such as string views.
    return plainer.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())


def plain(dtype: Any) -> pl.DataType:  # noqa: ANN401 - of Polars, which has classes and instances
    """Return the type in which values are passed to Daft, which lacks enums and arrays of width 0.

    Parameters
    ----------
    dtype : DataType
    """
    if isinstance(dtype, pl.Enum | pl.Categorical):
        return pl.String()
    if isinstance(dtype, pl.List):
        return pl.List(plain(dtype.inner))
    if isinstance(dtype, pl.Array):
        inner = plain(dtype.inner)
        return pl.Array(inner, dtype.size) if dtype.size else pl.List(inner)
    if isinstance(dtype, pl.Struct):
        return pl.Struct({field.name: plain(field.dtype) for field in dtype.fields})
    return instance(dtype)


#: Number of tasks of a scan, up to a maximum number of files per task: each task must be planned, sent and
#: started, and files are only read concurrently within a task.
MAX_TASKS, _MAX_FILES = 32, 64
#: Limit up to which a query without filters is a single task that reads files sequentially.
_FEW_ROWS = 100_000
#: Number of prefetched batches, and seconds after which the next one is read although none was consumed.
_AHEAD, PATIENCE_SECONDS = 2, 10.0


class Frames(Protocol):
    """The rows of a task; see `lazynwb.engine.scan.Query`."""

    report: Report

    def frames(self, n_rows: int | None) -> Generator[pl.DataFrame]: ...  # noqa: D102


class NWBSource(DataSource):
    """One table of many files.

    Parameters
    ----------
    plan : ScanPlan
        Plan of the scan.
    predicate : Expr or None
        Filter that is applied before those of Daft.
    files_per_task : int or None
        Number of files per task; None depends on the number of files.

    Raises
    ------
    UnsupportedTypeError
        If Daft has no type for a column.
    """

    def __init__(
        self, plan: ScanPlan, predicate: pl.Expr | None = None, files_per_task: int | None = None
    ) -> None:
        self._plan = plan
        self._predicate = predicate
        self._files_per_task = files_per_task
        # By public names; a scan has internal names of length columns.
        self._names = {shown_name(name): name for name in plan.all_columns if name != ROWS}
        self._columns = {shown: plan.all_columns[name] for shown, name in self._names.items()}
        self._schema = daft_schema(self._columns)

    @property
    def name(self) -> str:
        """Name in query plans."""
        return f"NWB /{self._plan.table}"

    @property
    def schema(self) -> Schema:
        """The columns of `scan_nwb`, in its order."""
        return self._schema

    async def get_tasks(self, pushdowns: Pushdowns) -> AsyncIterator[DataSourceTask]:
        """Yield tasks of some files each."""
        for task in self.plan_tasks(pushdowns):
            yield task

    def plan_tasks(self, pushdowns: Pushdowns) -> list[NWBTask]:
        """Return the tasks of a query."""
        filters, limit = pushdowns.filters, pushdowns.limit
        parts = [self._predicate] if self._predicate is not None else []
        projection = set(self._columns if pushdowns.columns is None else pushdowns.columns)
        if filters is not None:
            parts += translate_filters(filters, self._columns, self._schema, self._names)
            # Daft applies its filters again, and needs their columns.
            projection |= pushdowns.filter_required_column_names()
        predicate = None
        for part in parts:
            predicate = part if predicate is None else predicate & part
        names = tuple(name for shown, name in self._names.items() if shown in projection)
        plan = self._plan
        query = DistributedQuery.of(plan, names, predicate)
        n_rows = limit if filters is None and predicate is None else None
        # A task may run on another machine, which has the index but not the column store of this one.
        if plan.catalogs is not None and is_stored(query.plan, query.needed):
            shared = _Shared(f"/{plan.table}", Report(plan.table, len(plan.sources)), 1)
            own = files_by_metadata(query) or plan.sources[:1]
            tables = None if plan.tables is None else {source: plan.tables[source] for source in own}
            whole = query.plan._replace(sources=own, tables=tables, disable_progress=True)
            read = Read(whole, names, predicate, n_rows, 0)
            return [NWBTask(self._schema, _Rows(read, is_stored=True), filters, limit, shared)]
        files = select_files(query)
        if n_rows is not None and n_rows <= _FEW_ROWS:  # one task reads the first files
            reads = [read_task(query, files, 0, n_rows)] if files else []
        else:
            max_files = self._files_per_task or min(math.ceil(len(files) / MAX_TASKS), _MAX_FILES)
            groups = _groups(files, 1 if limit is not None else max_files, max_files)
            reads = [read for group in groups for read in tasks_on(query, group, 0, n_rows)]
        shared = _Shared(f"/{plan.table}", Report(plan.table, len(plan.sources)), len(reads))
        works = [_Rows(read, whole=limit is None) for read in reads]
        return [NWBTask(self._schema, work, filters, limit, shared) for work in works]


def _groups(files: tuple[Source, ...], size: int, max_files: int) -> Iterator[tuple[Source, ...]]:
    """Yield the files of each task, doubling their number up to a maximum."""
    start = 0
    while start < len(files):
        yield files[start : start + size]
        start, size = start + size, min(size * 2, max_files)


class _Shared:
    """State shared by the tasks of one query within a process.

    Parameters
    ----------
    label : str
        Name of the query in profiles.
    report : Report
        Merged report of the tasks.
    left : int
        Number of unfinished tasks.
    """

    def __init__(self, label: str, report: Report, left: int) -> None:
        self.costs = Costs(label)
        self._report = report
        self._left = left
        self._lock = threading.Lock()

    def done(self, report: Report) -> None:
        """Merge the report of a task; log it after the last task."""
        with self._lock:
            self._report.add(report)
            self._left -= 1
            if not self._left:
                self._report.log()


class NWBTask(DataSourceTask):
    """The rows of some files.

    Parameters
    ----------
    schema : Schema
        Schema of the whole source: Daft selects the columns of each batch.
    work : _Rows
        Rows to read.
    filters : Expression or None
        Filters of Daft.
    limit : int or None
        Number of rows after the filters at which the task ends.
    shared : _Shared or None
        State of the query in this process.
    """

    def __init__(
        self,
        schema: Schema,
        work: _Rows,
        filters: Expression | None,
        limit: int | None,
        shared: _Shared | None,
    ) -> None:
        self._schema = schema
        self.item: WorkItem[Frames] = work_item(work)
        self._n_rows = work.read.n_rows
        self._filters = filters
        self._limit = limit
        self._shared = shared

    def __repr__(self) -> str:
        """Return the table and the files, for query plans."""
        return repr(self.item.work)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without that of this process."""
        return {**self.__dict__, "_shared": None}

    @property
    def schema(self) -> Schema:
        """The columns of the whole source."""
        return self._schema

    def read(self) -> AsyncIterator[RecordBatch]:
        """Yield the rows in source order."""
        batches = _batches(self.item, self._n_rows, self._filters, self._limit, self._shared)
        return _throttled(batches, weakref.ref(self))  # a strong reference would keep the task alive


class _Rows(NamedTuple):
    """The rows of a task, which are streamed from files or read from the values of an index.

    Attributes
    ----------
    read : Read
        Rows to read.
    whole : bool
        Whether the consumer reads all rows.
    is_stored : bool
        Whether an index has the values; the task then contains the location of the index, not catalogs.
    """

    read: Read
    whole: bool = True
    is_stored: bool = False

    def __repr__(self) -> str:
        return repr(self.read)

    @property
    def sources(self) -> tuple[Source, ...]:
        return self.read.sources

    def run(self) -> tuple[Frames, None]:
        if self.is_stored:
            return _StoredRows(self.read), None
        plan, names, predicate, _, _, first_row = self.read
        steps = plan_steps(predicate, plan.schema, plan.per_table, ignore_errors=plan.ignore_errors)
        query = Query(
            plan,
            list(names),
            steps,
            first_row=first_row,
            read_everything=self.whole,
            scan_metadata=scan_metadata,
        )
        return query, None

    def split(self) -> list[_Rows]:
        return [self] if self.is_stored else [self._replace(read=read) for read in self.read.split()]


class _StoredRows:
    """Rows in the values of an index; see `Query` for the attributes."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self.report = Report(read.plan.table, len(read.plan.sources))

    def frames(self, n_rows: int | None) -> Generator[pl.DataFrame]:
        plan, names, predicate, *_ = self._read
        yield from run(plan, list(names), predicate, n_rows)


def _batches(
    order: WorkItem[Frames],
    n_rows: int | None,
    filters: Expression | None,
    limit: int | None,
    shared: _Shared | None,
) -> Generator[RecordBatch]:
    """Yield batches up to the limit."""
    left = limit
    query = execute(order).value
    frames = guard_shutdown(query.frames(n_rows))
    costs = shared.costs if shared is not None else None
    while left is None or left > 0:
        with working_for(costs):
            frame = next(frames, None)
        if frame is None:
            break
        batch = record_batch(frame)
        if left is not None:
            if filters is not None:
                batch = batch.filter(ExpressionsProjection([filters]))
            left -= len(batch)
        yield batch
    if shared is None:
        query.report.log()
    else:
        shared.done(query.report)


async def _throttled(
    batches: Generator[RecordBatch], task: weakref.ref[NWBTask]
) -> AsyncIterator[RecordBatch]:
    """Yield batches no faster than they are consumed.

    Daft puts batches on an unbounded queue and reads all tasks of a process on one event loop. It does not
    signal that it needs no more: it drops the task.
    """
    out: deque[asyncio.Event] = deque()
    loop = asyncio.get_running_loop()
    try:
        while True:
            if task() is None:  # users only see it if rows are missing
                raise LazyNWBError("a task was dropped before all of its rows were consumed")
            batch = await asyncio.to_thread(next, batches, None)
            if batch is None:
                return
            taken = asyncio.Event()
            weakref.finalize(batch, _signal, loop, taken).atexit = False
            out.append(taken)
            yield batch
            del batch
            while len(out) >= _AHEAD and task() is not None:
                try:
                    await asyncio.wait_for(out[0].wait(), PATIENCE_SECONDS)
                except TimeoutError:
                    break  # a slow consumer gets the next one early
                out.popleft()
    finally:
        batches.close()


def _signal(loop: asyncio.AbstractEventLoop, taken: asyncio.Event) -> None:
    """Signal from any thread that a batch was consumed."""
    with suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(taken.set)
