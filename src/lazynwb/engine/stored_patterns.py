"""Scans of several tables of each file from the values of an index."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import polars as pl

from lazynwb.catalog.dtypes import TABLE_INDEX, TABLE_PATH
from lazynwb.column_store.parts import SESSION
from lazynwb.column_store.reading import PartLostError
from lazynwb.engine.row_masks import mask
from lazynwb.engine.stored_scan import Covered, read_window, windows_of
from lazynwb.errors import LazyNWBError
from lazynwb.lookup.session_columns import session_frame
from lazynwb.profile import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lazynwb.engine.plan import ScanPlan, Step
    from lazynwb.engine.report import Report
    from lazynwb.lookup.stored_tables import StoredValues
    from lazynwb.storage.source import Source

#: Number of files whose tables are read together.
_MAX_FILES = 64
#: Columns with the position of the file, and of the table in it.
_FILE, _TABLE = "_lazynwb_file", "_lazynwb_table"


class StoredPattern:
    """The tables of a pattern in the values of an index.

    Parameters
    ----------
    plan : ScanPlan
        Plan of a pattern, with catalogs.
    names : list of str
        Columns to return.
    steps : list of Step
        Steps of the predicate.
    report : Report
        Report of files without a table.
    """

    def __init__(self, plan: ScanPlan, names: list[str], steps: list[Step], report: Report) -> None:
        self._plan = plan
        self._names = names
        self._steps = steps
        self._report = report
        self._needed = {*names, *(name for step in steps for name in step.columns)}
        self._session = [column for column in plan.session if column.name in self._needed]
        self._values: dict[str, StoredValues | None] = {}

    def blocks(self) -> Iterator[Sequence[Source]]:
        """Yield groups of files that are read together."""
        sources = self._plan.sources
        for start in range(0, len(sources), _MAX_FILES):
            yield sources[start : start + _MAX_FILES]

    def is_whole(self) -> bool:
        """Return whether the index has all values, so that no file is opened."""
        return all(self._covered(block) is not None for block in self.blocks())

    def rows(
        self,
        block: Sequence[Source],
        scan_metadata: Callable[..., Iterator[pl.DataFrame]],
        limit: int | None,
    ) -> tuple[pl.DataFrame, int] | None:
        """Return the rows of some files that pass the predicate; None if the files must be opened.

        Parameters
        ----------
        block : sequence of Source
        scan_metadata : callable
            See `lazynwb.engine.batches.scan_metadata`.
        limit : int or None
            Maximum number of rows to scan before the predicate is applied.

        Returns
        -------
        DataFrame
        int
            Number of scanned rows.
        """
        tables = self._first_rows(block, limit)
        if tables is None:
            return None
        scanned_rows = sum(one.rows for stored in tables.values() for one in stored.values())
        plan = self._plan
        files = session_frame(block, self._session, partial(scan_metadata, plan)).with_row_index(_FILE)
        for step in self._steps:
            if plan.per_file.issuperset(step.columns):
                files = files.filter(step.expression)
        count(files_skipped=len(block) - len(files))
        positions = files[_FILE].to_list()
        lacking = [block[at] for at in positions if not plan.tables_of(block[at])]
        steps = [step for step in self._steps if not plan.per_file.issuperset(step.columns)]
        try:
            frames = [
                frame
                for table, stored in tables.items()
                for frame in self._rows_of(
                    table, {at: stored[at] for at in positions if at in stored}, files, steps
                )
            ]
        except LazyNWBError as error:
            if isinstance(error, PartLostError):
                for values in self._values.values():
                    if values is not None:
                        values.lost(error)
            return None
        for source in lacking:
            self._report.lacks_table(plan, source)
        return self._in_order(frames), scanned_rows

    def _in_order(self, frames: list[pl.DataFrame]) -> pl.DataFrame:
        """Return the rows of several tables as a scan has them: by file, then table."""
        if not frames:
            return pl.DataFrame(schema={name: self._plan.all_columns[name] for name in self._names})
        found = pl.concat(frames).sort(_FILE, _TABLE, TABLE_INDEX)
        return pl.DataFrame([found[name] for name in self._names])

    def _first_rows(self, block: Sequence[Source], limit: int | None) -> dict[str, dict[int, Covered]] | None:
        """Return the tables that hold the first rows, in the order of a scan; see `_covered`."""
        tables = self._covered(block)
        if tables is None or limit is None:
            return tables
        selected: dict[str, dict[int, Covered]] = {}
        for at, source in enumerate(block):
            for table in self._plan.tables_of(source):
                one = tables[table][at]
                if limit > 0:
                    selected.setdefault(table, {})[at] = one._replace(rows=min(one.rows, limit))
                limit -= one.rows
        return selected

    def _covered(self, block: Sequence[Source]) -> dict[str, dict[int, Covered]] | None:
        """Return the locations of the columns of all tables, by table and position of the file."""
        plan = self._plan
        if len(set(block)) < len(block) or not self._needed.isdisjoint(
            region.name for region in plan.regions
        ):
            return None
        holders: dict[str, list[int]] = {}
        for at, source in enumerate(block):
            for table in plan.tables_of(source):
                holders.setdefault(table, []).append(at)
        found: dict[str, dict[int, Covered]] = {}
        needed = frozenset(self._needed & plan.schema.keys())
        for table, positions in holders.items():
            values = self._values_of(table)
            if values is None:
                return None
            own = found[table] = {}
            for at, stored in zip(positions, values.find([block[at] for at in positions]), strict=True):
                cover = None if stored is None else values.cover(stored, needed)
                if stored is None or cover is None or cover.absent or stored.is_absent:
                    return None
                own[at] = Covered(stored, cover, stored.session.rows)
        return found

    def _values_of(self, table: str) -> StoredValues | None:
        plan = self._plan
        if table not in self._values:
            catalogs = plan.catalogs
            self._values[table] = (
                None if catalogs is None else catalogs.stored_values(table, plan.schema, plan.overridden)
            )
        return self._values[table]

    def _rows_of(
        self, table: str, stored: dict[int, Covered], files: pl.DataFrame, steps: list[Step]
    ) -> Iterator[pl.DataFrame]:
        """Yield the rows of one table in some files, with the positions of the file and the table."""
        by_table = [step for step in steps if set(step.columns) == {TABLE_PATH}]
        path = pl.DataFrame({TABLE_PATH: [table]})
        if not all(mask(path, step.expression)[0] for step in by_table):
            count(tables_skipped=len(stored))
            return
        plan = self._plan._replace(table=table, tables=None)
        positions = iter(stored)
        for window in windows_of(list(stored.values())):
            own = [next(positions) for _ in window]
            places = pl.DataFrame(
                {
                    _FILE: pl.Series(own, dtype=pl.UInt32),
                    _TABLE: [self._plan.tables_of(one.table.source).index(table) for one in window],
                }
            )
            known = files.filter(pl.col(_FILE).is_in(own)).drop(_FILE)
            found = read_window(window, plan, list(self._needed), steps, known)
            for one in window:
                if one.table.problems:
                    self._report.problems(one.table, one.table.problems)
            columns = [found[name] for name in dict.fromkeys((*self._names, TABLE_INDEX))]
            yield pl.DataFrame([*columns, *places[found[SESSION]]])
