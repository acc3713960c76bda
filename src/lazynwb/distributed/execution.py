"""Execution of scans on an executor, with the same rows in the same order as `lazynwb.engine.batches.run`."""

from __future__ import annotations

from functools import reduce
from itertools import compress
from operator import and_
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from lazynwb.catalog.dtypes import NWB_PATH
from lazynwb.config import config
from lazynwb.distributed.catalog_serde import ShippedCatalogs, pack_catalogs, pack_table
from lazynwb.distributed.row_ranges import row_ranges
from lazynwb.distributed.tasks import Read
from lazynwb.engine.batches import is_stored, run
from lazynwb.engine.plan import plan_steps
from lazynwb.engine.report import Report
from lazynwb.engine.row_masks import mask
from lazynwb.errors import LazyNWBError, may_skip
from lazynwb.lookup.prefetch import load_pairs
from lazynwb.lookup.providers import NOT_CATALOGUED
from lazynwb.lookup.session_columns import session_frame
from lazynwb.profile import count
from lazynwb.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from lazynwb.distributed.workers import Workers
    from lazynwb.engine.plan import ScanPlan, Step
    from lazynwb.lookup.loader import TableFile
    from lazynwb.storage.source import Source

#: Maximum size of all concurrent results, in batches.
_MAX_BATCHES_IN_FLIGHT = 16
#: Minimum size limit of a result in bytes, whatever the number of workers.
MIN_BYTES = 4 * 1024 * 1024
#: Maximum number of files of a task; number of tasks per worker into which the remaining files are divided.
_MAX_FILES, _TASKS_PER_WORKER = 64, 4


class DistributedQuery(NamedTuple):
    """The part of a query that is shared by its tasks."""

    plan: ScanPlan
    names: tuple[str, ...]
    predicate: pl.Expr | None
    steps: list[Step]

    @classmethod
    def of(cls, plan: ScanPlan, names: tuple[str, ...], predicate: pl.Expr | None) -> DistributedQuery:
        """Plan a query on all files of a scan.

        Raises
        ------
        SchemaError
            If the files disagree over the type of a column that it reads.
        """
        plan.check_types(names, predicate)
        steps = plan_steps(predicate, plan.schema, plan.per_table, ignore_errors=plan.ignore_errors)
        filtering = (name for step in steps for name in step.columns)
        return cls(plan.with_lengths(filtering), names, predicate, steps)

    def on(self, source: Source, table: str) -> DistributedQuery:
        """Return the query on one table of one file."""
        tables = None if self.plan.tables is None else {source: (table,)}
        return self._replace(plan=self.plan._replace(tables=tables))

    @property
    def needed(self) -> frozenset[str]:
        """The columns of the projection and of the predicate."""
        return frozenset({*self.names, *self.filtered})

    @property
    def filtered(self) -> frozenset[str]:
        """The columns of the predicate."""
        return frozenset(name for step in self.steps for name in step.columns)


def run_on(
    workers: Workers,
    plan: ScanPlan,
    with_columns: list[str] | None,
    predicate: pl.Expr | None,
    n_rows: int | None,
) -> Iterator[pl.DataFrame]:
    """Yield the rows of a scan in source order; for the other parameters see `run`.

    Raises
    ------
    LazyNWBError
        If a file cannot be read, or the executor cannot process it; the message has the file.
    """
    names = tuple(with_columns if with_columns is not None else plan.all_columns)
    query = DistributedQuery.of(plan, names, predicate)
    is_counting = plan.catalogs is not None and not query.needed & plan.schema.keys()
    stored = plan if is_counting else stored_plan(query.plan, query.needed)
    if stored is not None:
        yield from run(stored, with_columns, predicate, n_rows)  # no file is read
        return
    report = Report(plan.table, len(plan.sources))
    progress = Progress(f"Scanning NWB /{plan.table}", len(plan.sources), disabled=plan.disable_progress)
    is_empty = True
    last: tuple[Source, ...] = ()
    with progress:
        for task, rows in workers.in_order(_tasks(query, workers, n_rows), workers.max_in_flight):
            progress.update(len(task.sources) if task.sources != last else 0)  # or more rows of one file
            last = task.sources
            if isinstance(rows, LazyNWBError):
                if not may_skip(rows, ignore_errors=plan.ignore_errors):
                    raise rows
                for source in task.sources:
                    report.failed(source, plan.table, rows)
                continue
            report.add(rows.report)
            for frame in rows.frames:
                is_empty = False
                with progress.suspended():
                    yield frame
    report.log()
    if is_empty:
        yield pl.DataFrame(schema={name: plan.all_columns[name] for name in names})


def _tasks(query: DistributedQuery, workers: Workers, n_rows: int | None) -> Iterator[Read]:
    """Yield the tasks of a query, with growing numbers of files, as in a local scan."""
    at_once = workers.max_in_flight
    max_bytes = max(
        MIN_BYTES, min(config.batch_bytes, _MAX_BATCHES_IN_FLIGHT * config.batch_bytes // at_once)
    )
    if n_rows is not None:
        for source, table, rows in _files_of_first_rows(query.plan, n_rows):
            yield from tasks_on(
                query if table is None else query.on(source, table), (source,), max_bytes, rows
            )
        return
    left = select_files(query)
    if query.plan.catalogs is None and len(left) < workers.width:
        # With fewer files than workers, large files are divided.
        query = query._replace(plan=described(query.plan, left, query.needed))
    task_count = 0
    while left:
        size = min(len(left) // (_TASKS_PER_WORKER * workers.width), _MAX_FILES, 4 ** (task_count // at_once))
        block = tuple(dict.fromkeys(left[: max(size, 1)]))
        if len(block) < size:  # duplicate files are separated: the position within a task is recorded by file
            block = block[:1]
        left = left[len(block) :]
        for task in tasks_on(query, block, max_bytes):
            task_count += 1
            yield task


def tasks_on(
    query: DistributedQuery, sources: tuple[Source, ...], max_bytes: int, n_rows: int | None = None
) -> Iterator[Read]:
    """Yield the tasks on some files: one on all small files, and several on each large file.

    Parameters
    ----------
    query : DistributedQuery
    sources : tuple of Source
    max_bytes : int
        Size of the rows at which a task returns its result.
    n_rows : int or None
        Maximum number of rows that each task scans.
    """
    plan = query.plan
    known = _catalogs_of(plan, sources)
    small: list[Source] = []
    for source in sources:
        ranges = {
            table: row_ranges(known.get((source, table)), query.needed, query.filtered, n_rows)
            for table in plan.tables_of(source)
        }
        if all(len(found) == 1 for found in ranges.values()):
            small.append(source)
            continue
        if small:
            yield read_task(query, tuple(small), max_bytes, n_rows, known=known)
            small = []
        for table, found in ranges.items():
            whole = read_task(query.on(source, table), (source,), max_bytes, None, known=known)
            yield from (whole._replace(first_row=first, n_rows=stop) for first, stop in found)
    if small:
        yield read_task(query, tuple(small), max_bytes, n_rows, known=known)


def read_task(
    query: DistributedQuery,
    sources: tuple[Source, ...],
    max_bytes: int,
    n_rows: int | None,
    *,
    known: Mapping[tuple[Source, str], TableFile | None] | None = None,
) -> Read:
    """Return the task on some files, with the catalogs and columns that it needs; see `Read`.

    `known` are catalogs of these files and of others, if they have been looked up.
    """
    needed = query.needed
    whole = query.plan
    session = tuple(column for column in whole.session if column.name in needed)
    catalogs = None
    if whole.catalogs is not None:
        metadata: dict[str, dict[str, pl.DataType]] = {}
        for column in session:
            metadata.setdefault(column.table, {})[column.column] = column.dtype
        known = _catalogs_of(whole, sources) if known is None else known
        own = {pair: known[pair] for pair in _pairs(whole, sources) if pair in known}
        catalogs = pack_catalogs(whole.catalogs, sources, own, needed, metadata)
    plan = whole._replace(
        sources=sources,
        schema={name: dtype for name, dtype in whole.schema.items() if name in needed},
        overridden=whole.overridden & needed,
        session=session,
        regions=tuple(region for region in whole.regions if region.name in needed),
        disable_progress=True,
        catalogs=catalogs,
        tables=None if whole.tables is None else {source: whole.tables[source] for source in sources},
    )
    return Read(plan, query.names, query.predicate, n_rows, max_bytes)


def _pairs(plan: ScanPlan, sources: Sequence[Source]) -> list[tuple[Source, str]]:
    """Return the requested tables of some files."""
    return [(source, table) for source in sources for table in plan.tables_of(source)]


def _catalogs_of(plan: ScanPlan, sources: Sequence[Source]) -> dict[tuple[Source, str], TableFile | None]:
    """Return the catalogs of the tables of some files that are available without opening files."""
    found: dict[tuple[Source, str], TableFile | None] = {}
    if plan.catalogs is None:
        return found
    pairs = _pairs(plan, sources)
    for table in dict.fromkeys(table for _, table in pairs):
        own = [source for source, one in pairs if one == table]
        for source, file in zip(own, plan.catalogs.tables(own, table), strict=True):
            if file is not NOT_CATALOGUED:
                found[source, table] = file
    return found


def described(plan: ScanPlan, sources: Sequence[Source], columns: Collection[str] | None = None) -> ScanPlan:
    """Return a plan with catalogs of some files, which are loaded, for some columns or all."""
    pairs = _pairs(plan, sources)
    entries = {}
    for pair, load in zip(pairs, load_pairs(pairs, None), strict=True):
        try:
            file = load()
        except LazyNWBError:
            continue  # its task raises the error
        entries[pair] = None if file is None else pack_table(file, columns)
    return plan._replace(catalogs=ShippedCatalogs(entries))


def select_files(query: DistributedQuery) -> tuple[Source, ...]:
    """Return the files that remain after predicates on paths, on known session metadata, and on values.

    If an index or the column store has the columns of the predicate, their values are filtered in this
    process, so that files without matching rows do not become tasks.
    """
    return _with_survivors(query, files_by_metadata(query))


def files_by_metadata(query: DistributedQuery) -> tuple[Source, ...]:
    """Return the files that remain after predicates on paths and on known session metadata."""
    plan = query.plan
    sources = plan.sources
    for step in query.steps:
        known = _file_values(plan, sources, step.columns) if plan.per_file.issuperset(step.columns) else None
        if known is not None:
            keep = mask(known, step.expression).tolist()
            count(files_skipped=keep.count(False))
            sources = tuple(compress(sources, keep))
    return sources


def stored_plan(plan: ScanPlan, names: Collection[str]) -> ScanPlan | None:
    """Return a plan that reads columns from an index or from the column store; None if files are read.

    The column store replaces catalogs that workers have built for this scan, but not an index, whose rows are
    those of the indexed versions of the files.
    """
    if plan.catalogs is None or isinstance(plan.catalogs, ShippedCatalogs):
        plan = plan._replace(catalogs=None)
    return plan if is_stored(plan, names) else None


def _with_survivors(query: DistributedQuery, sources: tuple[Source, ...]) -> tuple[Source, ...]:
    """Return the files with rows that pass the conjuncts of a predicate on stored columns."""
    if not sources:
        return sources
    plan = query.plan._replace(sources=sources)
    parts: list[pl.Expr] = []
    stored = plan
    for step in query.steps:
        if not plan.per_table.issuperset(step.columns):
            found_plan = stored_plan(plan, step.columns)
            if found_plan is not None:
                stored = found_plan
                parts.append(step.expression)
    if not parts:
        return sources
    found: set[str] = set()
    for frame in run(stored, [NWB_PATH], reduce(and_, parts), None):
        found.update(frame[NWB_PATH].unique().to_list())
    remaining = tuple(source for source in sources if source.path in found)
    count(files_skipped=len(sources) - len(remaining))
    return remaining


def _file_values(plan: ScanPlan, sources: tuple[Source, ...], names: tuple[str, ...]) -> pl.DataFrame | None:
    """Return per-file columns; None if they are not available without opening files."""
    columns = [column for column in plan.session if column.name in names]
    frames: dict[str, pl.DataFrame] = {}
    distinct = tuple(dict.fromkeys(sources))
    for table in dict.fromkeys(column.table for column in columns):
        schema = {column.column: column.dtype for column in columns if column.table == table}
        frame = plan.catalogs.metadata(distinct, table, schema) if plan.catalogs is not None else None
        if frame is None:
            return None
        frames[table] = frame
    return session_frame(sources, columns, lambda _, table, __: iter([frames[table]]))


def _files_of_first_rows(plan: ScanPlan, n_rows: int) -> Iterator[tuple[Source, str | None, int | None]]:
    """Yield the tables with the first rows, and the number of these rows in each.

    Rows are counted here and not by workers, because the number for a table depends on the previous ones. A
    file without tables, which may have to be reported, has None for both.
    """
    loading = load_pairs(_pairs(plan, plan.sources), plan.catalogs)
    for source in plan.sources:
        tables = plan.tables_of(source)
        if not tables and n_rows > 0:
            yield source, None, None
        for table in tables:
            if n_rows <= 0:
                return
            try:
                file = next(loading)()
            except LazyNWBError as error:
                if not may_skip(error, ignore_errors=plan.ignore_errors):
                    raise
                file = None
            rows = min(n_rows, file.table.rows if file is not None else 0)
            n_rows -= rows
            yield source, table, max(rows, 1)  # a table without rows is read too, as it may be reported
