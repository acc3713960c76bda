"""Batches of a scan, from the column store if it has the columns of a session, else from the files.

The modules that read files are imported with the first file that must be read, because a query on stored
columns does not need them; for remote files while servers respond to the first requests.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from itertools import chain
from typing import TYPE_CHECKING

import polars as pl

from lazynwb.catalog.dtypes import NWB_PATH, ROWS
from lazynwb.catalog.merge import nulls
from lazynwb.column_store.parts import SESSION
from lazynwb.column_store.reading import PartLostError
from lazynwb.column_store.store import column_store
from lazynwb.engine.plan import plan_steps
from lazynwb.engine.report import Report
from lazynwb.engine.stored_scan import plan_runs, read_whole, read_window, windows_of
from lazynwb.errors import LazyNWBError
from lazynwb.lookup.session_columns import session_frame, split_by_catalog
from lazynwb.lookup.stored_tables import StoredTables
from lazynwb.profile import count
from lazynwb.shutdown import is_exiting

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterator, Sequence

    from lazynwb.column_store.entries import StoredPart
    from lazynwb.engine.plan import ScanPlan, Step
    from lazynwb.engine.scan import Query
    from lazynwb.engine.stored_columns import StoreWriter
    from lazynwb.engine.stored_patterns import StoredPattern
    from lazynwb.engine.stored_scan import Covered, Run
    from lazynwb.lookup.stored_tables import StoredTable, StoredValues
    from lazynwb.storage.source import Source

#: The column with the number of a file.
_FILE = "_lazynwb_file"
#: Modules that read and convert columns, in the order in which a query imports them.
_READERS = ("lazynwb.engine.scan", "nanoarrow")


def run(
    plan: ScanPlan, with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None
) -> Iterator[pl.DataFrame]:
    """Yield the rows of a scan in source order.

    Parameters
    ----------
    plan : ScanPlan
    with_columns : list of str or None
        Columns to return; None for all.
    predicate : Expr or None
        Row-wise predicate; only rows for which it is true are returned.
    n_rows : int or None
        Maximum number of rows to scan *before* the predicate is applied.

    Yields
    ------
    DataFrame
        With exactly the requested columns, in the published types. Nothing is open while it is out.

    Raises
    ------
    SchemaError
        If the files disagree over the type of a column that is read.
    """
    names = list(with_columns) if with_columns is not None else list(plan.all_columns)
    plan.check_types(names, predicate)
    steps = plan_steps(predicate, plan.schema, plan.per_table, ignore_errors=plan.ignore_errors)
    scan = _Scan(plan, names, steps)
    is_empty = True
    try:
        for frame in scan.frames(n_rows):
            is_empty = False
            yield frame
    finally:
        scan.close()
    scan.report.log()
    if is_empty:
        yield pl.DataFrame(schema={name: plan.all_columns[name] for name in names})


def import_readers(source: Source) -> None:
    """Import the modules that parse a file, and that read and convert its columns."""
    from lazynwb.formats.registry import import_reader

    import_reader(source)
    for name in _READERS:
        import_module(name)


def is_stored(plan: ScanPlan, names: Collection[str]) -> bool:
    """Return whether columns of all files of a scan are stored: a query on them opens no file.

    They are in the index that the scan is planned from, or, without catalogs, in the column store.
    """
    return _Scan(plan, list(names), []).is_stored()


def scan_metadata(
    plan: ScanPlan, sources: tuple[Source, ...], table: str, schema: dict[str, pl.DataType]
) -> Iterator[pl.DataFrame]:
    """Yield the rows of a metadata table of some files of a scan, with some columns and `_nwb_path`."""
    catalogs = plan.catalogs
    known = catalogs.metadata(sources, table, schema) if catalogs is not None else None
    if known is not None:
        return iter([known])
    known_ones, others = split_by_catalog(sources, table, catalogs)
    if known_ones and others:
        return chain(*(scan_metadata(plan, some, table, schema) for some in (known_ones, others)))
    plan = plan._replace(
        sources=sources,
        table=table,
        schema=schema,
        session=(),
        regions=(),
        raise_on_missing=False,
        optional=True,
        tables=None,
    )
    return run(plan, [*schema, NWB_PATH], None, None)


class _Scan:
    """One run of a scan.

    Parameters
    ----------
    plan : ScanPlan
    names : list of str
        Columns to return.
    steps : list of Step
        Steps of the predicate, in the order of their evaluation.

    Attributes
    ----------
    report : Report
        Nonfatal problems.
    """

    def __init__(self, plan: ScanPlan, names: list[str], steps: list[Step]) -> None:
        self._needed = {*names, *(name for step in steps for name in step.columns)}
        self._plan = plan = plan.with_lengths(self._needed)
        self._names = names
        self._steps = steps
        self._store = column_store()
        # An index provides its own values. The column store does not support patterns.
        is_one_table = plan.tables is None and SESSION not in plan.schema
        self._is_storing = self._store.limit > 0 and plan.catalogs is None and is_one_table
        self._stored: StoredValues | None = None
        if self._is_storing:
            self._stored = StoredTables(plan.table)
        elif plan.catalogs is not None and is_one_table:
            self._stored = plan.catalogs.stored_values(plan.table, plan.schema, plan.overridden)
        self._regions = {region.name for region in plan.regions}
        self._session = [column for column in plan.session if column.name in self._needed]
        self._known: frozenset[str] = frozenset()
        self._writer: StoreWriter | None = None
        self.report = Report(plan.table, len(plan.sources))
        self._pattern: StoredPattern | None = None
        if plan.catalogs is not None and plan.tables is not None and SESSION not in plan.schema:
            from lazynwb.engine.stored_patterns import StoredPattern

            self._pattern = StoredPattern(plan, names, steps, self.report)

    def frames(self, n_rows: int | None) -> Iterator[pl.DataFrame]:
        """Yield the rows, from the column store if it has the session."""
        if self._pattern is not None:
            return self._pattern_frames(self._pattern, n_rows)
        if self._stored is None:
            return self._query(self._plan.sources, self._steps).frames(n_rows)
        return self._frames_of(self._stored, n_rows)

    def _frames_of(self, stored: StoredValues, n_rows: int | None) -> Iterator[pl.DataFrame]:
        plan, steps = self._plan, self._steps
        needed = self._needed
        if not self._session and self._regions.isdisjoint(needed):
            parts = stored.whole(plan.sources, frozenset(needed))
            if parts is not None and self._has_all(parts):
                yield from self._whole_frames(parts, n_rows)
                return
        runs = self._runs(stored)
        # Metadata of all files is read together, unless it is available without opening them.
        if self._session and plan.catalogs is None and not all(run.covered for run in runs):
            yield from self._query(plan.sources, steps).frames(n_rows)
            return
        left = n_rows
        for run in runs:
            if left is not None and left <= 0:
                return
            if run.covered:
                for window in windows_of(run.covered):
                    left = yield from self._stored_frames(window, left)
                    if left is not None and left <= 0:
                        return
                continue
            query = self._query(run.sources, steps)
            yield from query.frames(left)
            left = query.rows_left

    def is_stored(self) -> bool:
        """Return whether all columns that are needed are stored; see the function of this name."""
        plan = self._plan
        if plan.catalogs is None:
            return (
                isinstance(self._stored, StoredTables)
                and not self._session
                and self._regions.isdisjoint(self._needed)
                and self._stored.has_all(plan.sources)
                and self._covers_all(self._stored)
            )
        tables: dict[str, dict[str, pl.DataType]] = {}
        for column in self._session:
            tables.setdefault(column.table, {})[column.column] = column.dtype
        sources = tuple(dict.fromkeys(plan.sources))
        if any(plan.catalogs.metadata(sources, table, schema) is None for table, schema in tables.items()):
            return False
        if self._pattern is not None:
            return self._pattern.is_whole()
        if self._stored is None or not self._regions.isdisjoint(self._needed):
            return False
        parts = self._stored.whole(plan.sources, frozenset(self._needed - {c.name for c in self._session}))
        return (parts is not None and self._has_all(parts)) or self._covers_all(self._stored)

    def _covers_all(self, stored: StoredValues) -> bool:
        return all(
            run.covered and not any(one.cover.absent for one in run.covered) for run in self._runs(stored)
        )

    def _pattern_frames(self, pattern: StoredPattern, n_rows: int | None) -> Iterator[pl.DataFrame]:
        """Yield the rows of several tables of each file, from the values of an index if possible."""
        left = n_rows
        for block in pattern.blocks():
            if left is not None and left <= 0:
                return
            found = pattern.rows(block, scan_metadata, left)
            if found is None:
                query = self._query(block, self._steps)
                yield from query.frames(left)
                left = query.rows_left
                continue
            frame, scanned_rows = found
            left = None if left is None else left - scanned_rows
            if len(frame):
                yield frame

    def _runs(self, stored: StoredValues) -> list[Run]:
        """Group consecutive sources that are read in the same way."""
        sources, found = self._holders(stored)
        if self._is_storing:
            self._known = frozenset(table.session.key for table in found if table is not None)
        needed = frozenset(self._needed.intersection(self._plan.schema).difference(self._regions))
        return plan_runs(stored, sources, found, needed)

    def _holders(self, stored: StoredValues) -> tuple[Sequence[Source], list[StoredTable | None]]:
        """Return the sources with the stored table of each.

        Sources without the table according to an index are left out and reported.
        """
        plan = self._plan
        found = stored.find(plan.sources)
        if plan.catalogs is None or plan.raise_on_missing:
            return plan.sources, found
        rest = [source for source, table in zip(plan.sources, found, strict=True) if table is None]
        known = zip(rest, plan.catalogs.schemas(rest, plan.table), strict=True)
        lacking = {source for source, columns in known if columns is None}
        if not lacking:
            return plan.sources, found
        if not plan.optional:
            for source in rest:
                if source in lacking:
                    self.report.missing(source.name)
        pairs = [pair for pair in zip(plan.sources, found, strict=True) if pair[0] not in lacking]
        return [source for source, _ in pairs], [table for _, table in pairs]

    def _has_all(self, parts: Sequence[StoredPart]) -> bool:
        """Return whether parts contain all rows of the scan; report the files that lack the table."""
        plan = self._plan
        if sum(len(part.entry.sessions) for part in parts) == len(plan.sources):
            return True
        if not plan.raise_on_missing and not plan.optional:
            keys = {session.key for part in parts for session in part.entry.sessions}
            for source in plan.sources:
                if source.public not in keys:
                    self.report.missing(source.name)
        return not plan.raise_on_missing

    def _whole_frames(self, parts: Sequence[StoredPart], n_rows: int | None) -> Iterator[pl.DataFrame]:
        """Yield the rows of parts whose sessions are exactly the sources."""
        left = n_rows
        for at, part in enumerate(parts):
            if left is not None and left <= 0:
                return
            try:
                frame = read_whole(part, self._plan, self._names, self._steps, left)
            except LazyNWBError as error:
                if isinstance(error, PartLostError):
                    self._drop_lost_part(error)
                keys = {session.key for one in parts[at:] for session in one.entry.sessions}
                rest = [source for source in self._plan.sources if source.public in keys]
                yield from self._query(rest, self._steps).frames(left)
                return
            if left is not None:
                left -= part.starts[-1]
            if len(frame):
                yield frame

    def _drop_lost_part(self, error: PartLostError) -> None:
        assert self._stored is not None  # noqa: S101 - the parts belong to it
        self._stored.lost(error)

    def close(self) -> None:
        """Store small columns that were decoded."""
        if self._writer is not None and not is_exiting():
            self._writer.flush()

    def _query(self, sources: Sequence[Source], steps: list[Step], *, filtered: bool = False) -> Query:
        """Return a query that reads files; `filtered` if other conjuncts have already been applied."""
        from lazynwb.engine.scan import Query

        if self._is_storing and self._writer is None:
            from lazynwb.engine.stored_columns import StoreWriter

            self._writer = StoreWriter(self._plan.table, self._known)
        return Query(
            self._plan._replace(sources=tuple(sources)),
            self._names,
            steps,
            filtered=filtered,
            report=self.report,
            writer=self._writer,
            scan_metadata=scan_metadata,
        )

    def _matching_sessions(self, window: list[Covered]) -> tuple[list[Covered], pl.DataFrame]:
        """Return the sessions that have the table and pass the conjuncts on per-file columns.

        Returns
        -------
        list of Covered
        DataFrame
            The per-file columns, with one row per session.
        """
        by_file = [step for step in self._steps if self._plan.per_file.issuperset(step.columns)]
        files = session_frame(
            [one.table.source for one in window], self._session, partial(scan_metadata, self._plan)
        )
        chosen = window
        if by_file:
            files = files.with_row_index(_FILE)
            for step in by_file:
                files = files.filter(step.expression)
            chosen = [window[number] for number in files[_FILE]]
            count(files_skipped=len(window) - len(chosen))
        having = [not one.table.is_absent for one in chosen]
        if not all(having):
            for one in chosen:
                if one.table.is_absent:
                    self.report.lacks_table(self._plan, one.table.source)
            files = files.filter(pl.Series(having, dtype=pl.Boolean))
            chosen = [one for one in chosen if not one.table.is_absent]
        return chosen, files

    def _stored_frames(
        self, covered: list[Covered], limit: int | None
    ) -> Generator[pl.DataFrame, None, int | None]:
        """Yield the rows of sessions, with small columns from the store and other columns from the files.

        Parameters
        ----------
        covered : list of Covered
        limit : int or None
            Maximum number of rows to scan.

        Returns
        -------
        int or None
            Remaining number of rows to scan, with the current row counts of files that had to be read.
        """
        plan = self._plan
        candidates = covered if limit is None else list(_limited(covered, limit))
        left = None if limit is None else limit - sum(one.rows for one in candidates)
        window, files = self._matching_sessions(candidates)
        if not window:
            return left
        steps = [step for step in self._steps if not plan.per_file.issuperset(step.columns)]
        if not steps and self._names == [ROWS]:
            self._note_problems(window)
            rows = sum(one.rows for one in window)
            count(rows_stored=rows)
            yield pl.DataFrame([nulls(ROWS, pl.Null(), rows)])
            return left
        absent = {name for one in window for name in one.cover.absent} | self._regions
        early = [step for step in steps if absent.isdisjoint(step.columns)]
        rest = [step for step in steps if not absent.isdisjoint(step.columns)]
        needed = {*self._names, *(name for step in rest for name in step.columns)}
        plain_columns = [name for name in needed if name not in self._regions]
        try:
            found = read_window(window, plan, plain_columns, early, files)
        except LazyNWBError as error:
            # A part is missing, or values do not fit: the file is read, which raises any error.
            if isinstance(error, PartLostError):
                self._drop_lost_part(error)
            sources = [one.table.source for one in covered if not one.table.is_absent]
            query = self._query(sources, self._steps)
            yield from query.frames(limit)
            return query.rows_left
        self._note_problems(window)
        if rest or not absent.isdisjoint(needed):
            yield from self._completed(window, found, rest, is_filtered=bool(steps))
        else:
            yield pl.DataFrame([found[name] for name in self._names])
        return left

    def _note_problems(self, window: list[Covered]) -> None:
        for one in window:
            if one.table.problems:
                self.report.problems(one.table, one.table.problems)

    def _completed(
        self, window: list[Covered], found: pl.DataFrame, steps: list[Step], *, is_filtered: bool
    ) -> Iterator[pl.DataFrame]:
        """Yield rows with known small columns, completed with the columns that are read from the files.

        Parameters
        ----------
        window : list of Covered
        found : DataFrame
            Rows with stored columns; see `read_window`.
        steps : list of Step
            Remaining steps of the predicate.
        is_filtered : bool
            Whether other steps have already been applied.
        """
        while steps and not any(
            _lacks(one.cover.absent | self._regions, steps[0]) for one in _present(window, found)
        ):
            found = found.filter(steps.pop(0).expression)
        needed = {*self._names, *(name for step in steps for name in step.columns)}
        query: Query | None = None
        for missing, some in _runs_with_equal_columns(window, found, needed, self._regions):
            if not missing and not steps:
                yield pl.DataFrame([some[name] for name in self._names])
                continue
            if query is None:
                query = self._query([one.table.source for one in window], steps, filtered=is_filtered)
            known = [name for name in needed if name not in missing and name not in self._regions]
            yield from query.resume(window, some, known)


def _limited(covered: list[Covered], left: int | None) -> Iterator[Covered]:
    """Yield sessions up to a total number of rows."""
    for one in covered:
        if left is None:
            yield one
            continue
        if left > 0:
            yield one._replace(rows=min(one.rows, left))
        left -= one.rows


def _present(window: list[Covered], found: pl.DataFrame) -> list[Covered]:
    """Return the sessions that have rows in a frame."""
    return [window[number] for number in found[SESSION].unique()]


def _lacks(absent: frozenset[str] | set[str], step: Step) -> bool:
    return not absent.isdisjoint(step.columns)


def _runs_with_equal_columns(
    window: list[Covered], found: pl.DataFrame, needed: set[str], regions: set[str]
) -> Iterator[tuple[frozenset[str], pl.DataFrame]]:
    """Yield consecutive sessions that require the same columns from the files.

    Remote files are grouped, so that they are read concurrently.
    """
    always = frozenset(regions & needed)
    absent = {name for one in _present(window, found) for name in one.cover.absent}
    if not absent or any(one.table.source.is_remote for one in window):
        if len(found):
            yield always | (absent & needed), found
        return
    counts = found.group_by(SESSION, maintain_order=True).len()
    start = stop = 0
    before: frozenset[str] | None = None
    for number, rows in counts.iter_rows():
        missing = (window[number].cover.absent & needed) | always
        if before is not None and missing != before:
            yield before, found[start:stop]
            start = stop
        before = missing
        stop += rows
    if before is not None:
        yield before, found[start:stop]
