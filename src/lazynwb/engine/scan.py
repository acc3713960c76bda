"""Scans of files: in each window, filter on cheap columns, then read the others for the remaining rows."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lazynwb.arrays.arrow import bool_series, from_buffer
from lazynwb.arrays.row_selection import Handles, Part, cut_ranges, to_ranges
from lazynwb.arrays.size_estimates import max_table_bytes
from lazynwb.catalog.dtypes import TABLE_INDEX
from lazynwb.catalog.lengths import measured_name, stored_name
from lazynwb.catalog.merge import nulls
from lazynwb.column_store.parts import SESSION
from lazynwb.config import config
from lazynwb.engine.batching import MAX_ROWS, OversizedError, batch_bounds
from lazynwb.engine.columns import read_columns
from lazynwb.engine.plan import Growth, Step
from lazynwb.engine.readable_rows import COLUMN_ERRORS, ReadableRows, unreadable_columns
from lazynwb.engine.regions import Regions
from lazynwb.engine.report import Report
from lazynwb.engine.row_masks import PerFile, assemble_frame, cut, mask, take
from lazynwb.engine.stored_columns import StoreWriter, WindowColumns, small_columns_of
from lazynwb.engine.timestamps import TIMESTAMPS, TimestampFilter
from lazynwb.errors import (
    LazyNWBError,
    SourceChangedError,
    may_skip,
)
from lazynwb.formats.nwb.names import OTHER_PATHS
from lazynwb.lookup.prefetch import load_pairs, load_tables
from lazynwb.lookup.session_columns import session_frame
from lazynwb.profile import count
from lazynwb.progress import Progress
from lazynwb.storage.remote_state import save

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    import polars as pl

    from lazynwb.engine.plan import ScanPlan
    from lazynwb.engine.stored_columns import Decoded
    from lazynwb.engine.stored_scan import Covered
    from lazynwb.lookup.loader import TableFile
    from lazynwb.lookup.stored_tables import StoredTable
    from lazynwb.storage.source import Source

#: Numbers of files of the first and of the largest window. Remote files are read concurrently.
_FIRST_FILES, _MAX_FILES = 1, 64
#: Number of rows of the first batch of a filtered query, whose consumer may stop early.
_FIRST_ROWS = 16
#: Size of the row number and mask of a row during filtering.
_MIN_ROW_BYTES = 16
_OUTDATED = (
    "{} has changed since it was cataloged: update the index (lazynwb index update) or scan without it; "
    "without an index, run the query again"
)


class Query:
    """One run of a scan.

    Parameters
    ----------
    plan : ScanPlan
    names : list of str
        Columns to return.
    steps : list of Step
        Steps of the predicate, in the order of their evaluation.
    first_row : int
        First row of the first table to read.
    read_everything : bool
        Whether the consumer reads all rows, so that the first batches have full size.
    filtered : bool
        Whether other conjuncts have already been applied to the rows.
    report : Report or None
        Report of nonfatal problems.
    writer : StoreWriter or None
        Writer of small columns to the column store.
    scan_metadata : callable
        `lazynwb.engine.batches.scan_metadata`, which is passed because its module imports this one.

    Attributes
    ----------
    rows_left : int or None
        Number of rows that may still be scanned.
    batches_yielded : int
        Number of yielded batches.
    reached : (Source, str, int)
        File and table of the last yielded row, and the number of the next row.
    report : Report
        Nonfatal problems.
    """

    def __init__(  # noqa: PLR0913 - parameters and outputs of a query
        self,
        plan: ScanPlan,
        names: list[str],
        steps: list[Step],
        *,
        first_row: int = 0,
        read_everything: bool = False,
        filtered: bool = False,
        report: Report | None = None,
        writer: StoreWriter | None = None,
        scan_metadata: Callable[..., Iterator[pl.DataFrame]],
    ) -> None:
        needed = self._needed = {*names, *(name for step in steps for name in step.columns)}
        self._plan = plan = plan.with_lengths(needed)
        self._lengths = [name for name in needed if measured_name(name) is not None]
        self._scan_metadata = scan_metadata
        self._writer = writer
        self.rows_left: int | None = None
        self._names = names
        self._per_file = PerFile(plan.table, is_pattern=plan.tables is not None)
        self._by_file = [step for step in steps if plan.per_file.issuperset(step.columns)]
        late = [step for step in steps if not plan.per_file.issuperset(step.columns)]
        self._by_table = [step for step in late if plan.per_table.issuperset(step.columns)]
        self._steps = [step for step in late if not plan.per_table.issuperset(step.columns)]
        self._skipped: dict[tuple[Source, str], set[str]] = {}
        self._damaged: set[tuple[Source, str]] = set()
        self._times = TimestampFilter(self._steps, plan)
        self._session = [column for column in plan.session if column.name in needed]
        self._reads = not needed.isdisjoint(plan.schema)
        self._first_row = first_row
        self._read_everything = read_everything
        self.batches_yielded = 0
        self._first = plan.sources[0], next(iter(plan.tables_of(plan.sources[0])), plan.table)
        self.reached = *self._first, first_row
        self.report = report if report is not None else Report(plan.table, len(plan.sources))
        self._rows = ReadableRows(self._note)
        self._regions = Regions(plan.regions, self.report.problems)
        self._rows_growth = (
            Growth(_FIRST_ROWS, MAX_ROWS) if (steps or filtered) and not read_everything else None
        )
        self._started = self._finished = 0
        self._positions: dict[Source, int] = {}
        self._progress = Progress(
            f"Scanning NWB /{plan.table}", len(plan.sources), disabled=plan.disable_progress
        )

    def frames(self, n_rows: int | None) -> Generator[pl.DataFrame]:
        """Yield the rows in nonempty batches; see `run`."""
        try:
            for parts in self.windows(n_rows):
                for frame in self.batches(parts):
                    if len(frame):
                        self.batches_yielded += 1
                        with self._progress.suspended():
                            yield frame
        finally:
            self._progress.close()
            save()

    # -- windows --------------------------------------------------------------------------------------

    def windows(self, n_rows: int | None) -> Iterator[list[Part]]:
        """Yield groups of rows to filter together, with growing numbers of files and limited size."""
        filtering = list(dict.fromkeys(name for step in self._steps for name in step.columns))
        growth = self._files_growth(is_filtered=bool(self._steps))
        parts = self._parts(n_rows, filtering)
        while True:
            window: list[Part] = []
            weight, room = 0, growth.take()
            for part, size in parts:
                window.append(part)
                weight += size
                if len(window) >= room or weight >= config.batch_bytes:
                    break
            if not window:
                return
            before = self.batches_yielded
            yield window
            self._count(finished=self._started)
            growth.used(self.batches_yielded - before)

    def _files_growth(self, *, is_filtered: bool) -> Growth:
        """Return the numbers of files that are read together, small at first if the query may stop early."""
        at_once = self._read_everything or not is_filtered or any(s.is_remote for s in self._plan.sources)
        return Growth(_MAX_FILES if at_once else _FIRST_FILES, _MAX_FILES)

    def _parts(self, n_rows: int | None, filtering: list[str]) -> Iterator[tuple[Part, int]]:
        """Yield the rows of each file that may pass, with the estimated size of their filter columns."""
        for file, limit, ranges in self._times.pruned(self._files(n_rows)):
            start = self._first_row if self._is_first(file) else 0
            part = Part.of_ranges(file, cut_ranges(ranges, start, limit))
            rows = part.rows
            if not rows:
                continue
            size = (
                max(max_table_bytes(file, filtering) * rows // limit, _MIN_ROW_BYTES * rows)
                if self._steps
                else 0
            )
            # A large table is filtered in slices.
            slices = max(1, min(rows, -(-size // config.batch_bytes)))
            for i in range(slices):
                yield part.cut(rows * i // slices, rows * (i + 1) // slices), size // slices

    def _files(self, n_rows: int | None) -> Iterator[tuple[TableFile, int]]:
        """Yield the files that may have matching rows, with their numbers of rows within the limit."""
        self.rows_left = left = n_rows
        for source, table, keep, load in self._loading(limited=n_rows is not None):
            if left is not None and left <= 0:
                return
            file = self._load(source, table, load)
            self._count(started=self._positions[source] + 1)
            if file is None:
                continue
            rows = file.table.rows if left is None else min(left, file.table.rows)
            self.rows_left = left = left if left is None else left - rows
            if not keep or not rows:
                continue
            yield file, rows

    def _is_first(self, file: TableFile) -> bool:
        source, table = self._first
        return file.source is source and (self._plan.tables is None or file.table.path == table)

    def _loading(
        self, *, limited: bool
    ) -> Iterator[tuple[Source, str, bool, Callable[[], TableFile | None]]]:
        """Yield the tables to scan, whether their rows may match, and a function that loads each."""
        sources = self._plan.sources
        # Metadata is read only some files ahead, because the consumer may stop early.
        size = _MAX_FILES if self._session else len(sources)
        start = passed_over = 0
        while start < len(sources):
            block = sources[start : start + size]
            start, size = start + size, size * 4
            selected = self._matches(block)
            count(files_skipped=selected.count(False))
            # With a limit, rows of skipped files are counted too, because the limit precedes the filter.
            remaining = [pair for pair in zip(block, selected, strict=True) if pair[1] or limited]
            passed_over += len(block) - len(remaining)
            tables = self._tables_in(remaining)
            tables = [one for one in tables if one[2] or limited]
            pairs = [(source, table) for source, table, _ in tables]
            loading = load_pairs(pairs, self._plan.catalogs, reading=self._reads, columns=self._needed)
            for (source, table, keep), load in zip(tables, loading, strict=True):
                self._positions.setdefault(source, len(self._positions) + passed_over)
                yield source, table, keep, load

    def _tables_in(self, files: Sequence[tuple[Source, bool]]) -> list[tuple[Source, str, bool]]:
        """Return the tables of files, each with whether its rows may match.

        Parameters
        ----------
        files : sequence of (Source, bool)
            Files, each with whether its rows may match.
        """
        if self._plan.tables is None:
            return [(source, self._plan.table, keep) for source, keep in files]
        for source, keep in files:
            if keep and not self._plan.tables_of(source):
                self.report.lacks_table(self._plan, source)
        pairs = [(source, table) for source, keep in files if keep for table in self._plan.tables_of(source)]
        selected = np.ones(len(pairs), bool)
        if pairs and self._by_table:
            frame = self._per_file.of_tables(pairs)
            for step in self._by_table:
                selected &= mask(frame, step.expression)
        count(tables_skipped=len(pairs) - int(selected.sum()))
        found = iter(selected.tolist())
        return [
            (source, table, keep and next(found))
            for source, keep in files
            for table in self._plan.tables_of(source)
        ]

    def _matches(self, block: tuple[Source, ...]) -> list[bool]:
        """Evaluate the conjuncts on paths and metadata of files.

        Other requested columns of the same metadata tables are read with them, the rest only for the
        remaining files.
        """
        names = {name for step in self._by_file for name in step.columns}
        tables = {column.table for column in self._session if column.name in names}
        deciding = [column for column in self._session if column.table in tables]
        files = session_frame(block, deciding, partial(self._scan_metadata, self._plan))
        selected = np.ones(len(block), bool)
        for step in self._by_file:
            selected &= mask(files, step.expression)
        keep: list[bool] = selected.tolist()
        left = tuple(source for source, is_selected in zip(block, keep, strict=True) if is_selected)
        if left:
            others = [column for column in self._session if column.table not in tables]
            rest = session_frame(left, others, partial(self._scan_metadata, self._plan))
            # From a list, because Polars imports numpy.ma for the first array.
            self._per_file.add(left, files.filter(keep), rest)
        return keep

    def _load(self, source: Source, table: str, load: Callable[[], TableFile | None]) -> TableFile | None:
        plan = self._plan
        try:
            file = load()
        except LazyNWBError as error:
            if not may_skip(error, ignore_errors=plan.ignore_errors):
                raise
            self.report.failed(source, table, error)
            return None
        if file is None:
            self.report.lacks_table(plan, source)
            if self._writer is not None:
                self._writer.note_without(source)
        else:
            if self._writer is not None and not self._reads:
                self._writer.note(file)
            if file.problems:
                self.report.problems(file, file.problems)
            if file.is_reloaded:
                self.report.outdated(source.name)
            if self._lengths:
                file = file.with_lengths(self._lengths)
        return file

    # -- batches --------------------------------------------------------------------------------------

    def batches(self, parts: list[Part], known: dict[str, pl.Series] | None = None) -> Iterator[pl.DataFrame]:
        """Yield the rows of a window that pass the predicate, in batches of limited size.

        Parameters
        ----------
        parts : list of Part
        known : dict of str to Series or None
            Known columns of these rows; None if the window has not been processed before.
        """
        if any(self.report.has_failed(part.file) for part in parts):
            for one, own in _part_by_part(parts, known):
                if not self.report.has_failed(one.file):
                    yield from self.batches([one], own)
            return
        if len(parts) > 1 and any(part.file.key in self._damaged for part in parts):
            for one, own in _part_by_part(parts, known):
                yield from self.batches([one], own)
            return
        parts = [self._readable(part) for part in parts]
        frames = self._filter_and_read(parts, known)
        try:
            first = next(frames, None)
        except OversizedError as error:
            for start, stop in error.bounds(sum(part.rows for part in parts)):
                yield from self.batches(cut(parts, start, stop), _sliced(known, start, stop))
            return
        except LazyNWBError as error:
            yield from self._without_failures(parts, known, error)
            return
        if first is not None:
            yield first
            yield from frames

    def _without_failures(
        self, parts: list[Part], known: dict[str, pl.Series] | None, error: LazyNWBError
    ) -> Iterator[pl.DataFrame]:
        """Yield the rows of a window that cannot be read as a whole."""
        if len(parts) > 1:
            # File by file, so that other files are read and the error identifies the file.
            for one, own in _part_by_part(parts, known):
                yield from self.batches([one], own)
        elif self._read_again(parts[0], error):
            yield from self.batches(parts, known)
        else:
            self._skip_file(parts[0], error)

    def _skip_file(self, part: Part, error: LazyNWBError) -> None:
        """Record a file that cannot be read with `ignore_errors`; else raise the error."""
        if isinstance(error, SourceChangedError) and part.file.is_provided:
            error = SourceChangedError(_OUTDATED.format(part.file.name))
        if not may_skip(error, ignore_errors=self._plan.ignore_errors):
            raise error from None
        first_row = int(part.ranges[0, 0]) if len(part.ranges) else 0
        self.report.failed(*part.file.key, error, first_row)

    def _readable(self, part: Part) -> Part:
        """Return a part without the columns of unsupported types, which are null."""
        skipped = self._skipped.get(part.file.key)
        return part._replace(file=part.file.without(skipped)) if skipped else part

    def _read_again(self, part: Part, error: LazyNWBError) -> bool:
        """Return whether to read a file again, with null in place of unreadable values (`ignore_errors`).

        The file is read again without columns of unsupported types, then column by column. If both fail, the
        error affects the whole file.
        """
        key = part.file.key
        if not self._plan.ignore_errors or not isinstance(error, COLUMN_ERRORS) or key in self._damaged:
            return False
        found = unreadable_columns(part, self._needed & self._plan.schema.keys())
        for name, reason in found.items():
            self.report.unreadable(part.file, stored_name(name), reason)
        if found:
            self._skipped.setdefault(key, set()).update(found)
        else:
            self._damaged.add(key)
        return True

    def resume(
        self, window: list[Covered], found: pl.DataFrame, columns: list[str]
    ) -> Iterator[pl.DataFrame]:
        """Yield the rows of a window with known small columns, completed with the columns to read.

        Parameters
        ----------
        window : list of Covered
        found : DataFrame
            Rows that have passed the predicate so far; see `read_window`.
        columns : list of str
            Columns of `found` that are still needed.
        """
        counts = found.group_by(SESSION, maintain_order=True).len()
        growth = self._files_growth(is_filtered=self._rows_growth is not None)
        numbers, rows = counts[SESSION].to_list(), counts["len"].to_list()
        start = at = 0
        try:
            while at < len(numbers):
                some = range(at, min(at + growth.take(), len(numbers)))
                stop = start + sum(rows[number] for number in some)
                chosen = [window[numbers[number]].table for number in some]
                parts = self._parts_of(chosen, found[TABLE_INDEX][start:stop], [rows[n] for n in some])
                known = {name: found[name][start:stop] for name in columns}
                before = self.batches_yielded
                self._count(started=numbers[some[-1]] + 1)
                for frame in self.batches(parts, known):
                    if len(frame):
                        self.batches_yielded += 1
                        with self._progress.suspended():
                            yield frame
                growth.used(self.batches_yielded - before)
                self._count(finished=numbers[some[-1]] + 1)
                start, at = stop, some.stop
        finally:
            self._progress.close()
            save()

    def _parts_of(self, tables: list[StoredTable], indices: pl.Series, counts: list[int]) -> list[Part]:
        """Return rows of stored tables as parts of their files."""
        parts = []
        start = 0
        loading = load_tables(
            [table.source for table in tables], self._plan.table, self._plan.catalogs, reading=True
        )
        for table, rows, load in zip(tables, counts, loading, strict=True):
            file = load()
            if file is not None and file.is_reloaded:
                raise SourceChangedError(_OUTDATED.format(file.name))
            if file is None or file.identity != table.session.identity:
                raise SourceChangedError(
                    f"{table.source.name} was changed during the query: run the query again"
                )
            if self._lengths:
                file = file.with_lengths(self._lengths)
            ranges = to_ranges(indices[start : start + rows].to_numpy().astype(np.int64))
            parts.append(Part(file, ranges, rows))
            start += rows
        return parts

    def _window_columns(self, parts: list[Part], *, is_stored: bool) -> WindowColumns:
        """Return the collector of a window's columns for the column store; see `WindowColumns`."""
        names: list[str] = []
        if (
            self._writer is not None
            and not any(part.file.key in self._skipped or part.file.key in self._damaged for part in parts)
            and len({part.file.source for part in parts}) == len(parts)
            # The column store does not support patterns.
            and all(
                part.file.table.path == self._plan.table for part in parts if self._plan.table in OTHER_PATHS
            )
        ):
            regions = self._regions.names
            names = [name for name in self._plan.schema if name in self._needed and name not in regions]
        return WindowColumns(parts, small_columns_of(parts, names), is_stored=is_stored)

    def _read_whole(
        self,
        handles: Handles,
        parts: list[Part],
        known: dict[str, pl.Series],
        names: Iterable[str],
        window_columns: WindowColumns,
    ) -> None:
        """Read all rows of small columns, for the column store and for the query.

        Parameters
        ----------
        handles : Handles
        parts : list of Part
            Rows of the query.
        known : dict of str to Series
            Known columns of these rows, to which the columns are added.
        names : iterable of str
            Columns to read.
        window_columns : WindowColumns
        """
        rest = [name for name in names if name not in known and name in self._plan.schema]
        names = window_columns.whole_columns(parts, rest)
        if not names:
            return
        whole, decoded = window_columns.all_rows(parts)
        found: dict[str, pl.Series] = {}
        try:
            self._add(handles, whole, names, found, decoded)
        except (LazyNWBError, OversizedError):
            decoded.drop(names)  # the rows of the query may be readable
            return
        if whole is not parts:
            starts = np.cumsum([0, *(part.rows for part in whole)])
            rows = np.concatenate(
                [part.indices() + start for part, start in zip(parts, starts[:-1], strict=True)]
            )
            # Not `gather`, which interprets names of Series as patterns.
            places = from_buffer(rows)
            found = {name: series[places] for name, series in found.items()}
        known.update(found)

    def _filter(
        self, handles: Handles, parts: list[Part], known: dict[str, pl.Series], window_columns: WindowColumns
    ) -> tuple[list[Part], dict[str, pl.Series]]:
        """Return the rows that pass the predicate, and the known columns of the result."""
        for step in self._steps:
            self._read_whole(handles, parts, known, step.columns, window_columns)
            self._add(handles, parts, step.columns, known, window_columns.decoded(parts))
            rows = sum(part.rows for part in parts)
            keep = mask(assemble_frame({name: known[name] for name in step.columns}, rows), step.expression)
            if not keep.all():
                parts = take(parts, keep)
                known = {name: series.filter(bool_series(keep)) for name, series in known.items()}
                if not parts:
                    break
        return parts, {name: series for name, series in known.items() if name in self._names}

    def _filter_and_read(
        self, parts: list[Part], known: dict[str, pl.Series] | None
    ) -> Iterator[pl.DataFrame]:
        window_columns = self._window_columns(parts, is_stored=known is not None)
        with Handles() as handles:
            parts, known = self._filter(handles, parts, dict(known or {}), window_columns)
            if parts:
                self._read_whole(handles, parts, known, self._names, window_columns)
                rest = [name for name in self._names if name not in known and name in self._plan.schema]
                bounds = self._bounds(handles, parts, rest)
                if len(bounds) == 1:
                    self._add(handles, parts, self._names, known)
        if self._writer is not None:
            self._writer.take(window_columns)
        del window_columns
        if not parts:
            return
        if len(bounds) == 1:
            self._record_position(parts)
            yield assemble_frame(
                {name: known[name] for name in self._names}, sum(part.rows for part in parts)
            )
            return
        for start, stop in bounds:
            yield from self._read(
                cut(parts, start, stop), {name: series[start:stop] for name, series in known.items()}
            )

    def _read(self, parts: list[Part], known: dict[str, pl.Series]) -> Iterator[pl.DataFrame]:
        """Yield one batch of known and newly read columns."""
        have = dict(known)
        if len(parts) == 1 and self.report.has_failed(parts[0].file):
            return
        try:
            with Handles() as handles:
                self._add(handles, parts, self._names, have)
        except OversizedError as error:
            for start, stop in error.bounds(sum(part.rows for part in parts)):
                some = {name: series[start:stop] for name, series in known.items()}
                yield from self._read(cut(parts, start, stop), some)
            return
        except LazyNWBError as error:
            if len(parts) == 1:
                if self._read_again(parts[0], error):
                    yield from self._read([self._readable(parts[0])], known)
                else:
                    self._skip_file(parts[0], error)
                return
            at = 0
            for part in parts:
                own = {name: series[at : at + part.rows] for name, series in known.items()}
                at += part.rows
                yield from self._read([part], own)
            return
        self._record_position(parts)
        yield assemble_frame({name: have[name] for name in self._names}, sum(part.rows for part in parts))

    def _bounds(self, handles: Handles, parts: list[Part], names: list[str]) -> list[tuple[int, int]]:
        """Divide rows into batches (see `batch_bounds`), or into equal ones if an index is damaged."""
        try:
            return batch_bounds(handles, parts, names, self._rows_growth)
        except COLUMN_ERRORS:
            if parts[0].file.key not in self._damaged:
                raise
        rows, file = parts[0].rows, parts[0].file
        size = max_table_bytes(file, names) * rows // file.table.rows
        return OversizedError(size).bounds(rows) if rows > 1 else [(0, rows)]

    def _record_position(self, parts: list[Part]) -> None:
        if parts:
            source = parts[-1].file.source
            self.reached = *parts[-1].file.key, int(parts[-1].ranges[-1, 1])
            self._count(finished=self._positions.get(source, 0))

    def _count(self, *, started: int = 0, finished: int = 0) -> None:
        """Update the progress: each of look-up and read counts as half a file."""
        self._started = max(self._started, started)
        self._finished = max(self._finished, finished)
        self._progress.update_to((self._started + self._finished) // 2)

    def _add(
        self,
        handles: Handles,
        parts: list[Part],
        names: tuple[str, ...] | list[str],
        known: dict[str, pl.Series],
        decoded: Decoded | None = None,
    ) -> None:
        """Read the unknown columns."""
        times = self._times.known(parts) if TIMESTAMPS in names and TIMESTAMPS not in known else None
        if times is not None:
            known[TIMESTAMPS] = times
        new = [name for name in names if name not in known]
        schema = {name: self._plan.schema[name] for name in new if name in self._plan.schema}
        stored = self._regions.stored(schema)
        if schema:
            origin, chosen = self._plan.origin, self._plan.overridden
            if parts and parts[0].file.key in self._damaged:
                for series in self._rows.read(handles, parts, stored, chosen, origin):
                    known[series.name] = self._resolved(handles, parts, series)
            else:
                for series in read_columns(
                    handles, parts, stored, chosen, origin, bounded=True, decoded=decoded
                ):
                    known[series.name] = self._regions.resolved(handles, parts, series)
                    self._count()
        for name in new:
            if name not in schema:
                known[name] = self._per_file.column(name, parts)

    def _note(self, file: TableFile, name: str, error: LazyNWBError) -> None:
        self.report.unreadable(file, stored_name(name), error)

    def _resolved(self, handles: Handles, parts: list[Part], series: pl.Series) -> pl.Series:
        """Return a column of a damaged file with resolved regions."""
        try:
            return self._regions.resolved(handles, parts, series, self._rows.read)
        except COLUMN_ERRORS as error:
            self.report.unreadable(parts[0].file, series.name, error)
            return nulls(series.name, self._plan.schema[series.name], len(series))


def _part_by_part(
    parts: list[Part], known: dict[str, pl.Series] | None
) -> Iterator[tuple[Part, dict[str, pl.Series] | None]]:
    """Yield each part with its rows of the known columns."""
    start = 0
    for part in parts:
        yield part, _sliced(known, start, start + part.rows)
        start += part.rows


def _sliced(known: dict[str, pl.Series] | None, start: int, stop: int) -> dict[str, pl.Series] | None:
    return None if known is None else {name: series[start:stop] for name, series in known.items()}
