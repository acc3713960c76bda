"""Tasks of workers: reads of rows of some files, and catalogs of their tables."""

from __future__ import annotations

from contextlib import closing
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from lazynwb.distributed.catalog_serde import Packed, pack_table
from lazynwb.engine.batches import scan_metadata
from lazynwb.engine.plan import plan_steps
from lazynwb.engine.scan import Query
from lazynwb.errors import LazyNWBError
from lazynwb.lookup.prefetch import load_tables

if TYPE_CHECKING:
    from lazynwb.engine.plan import ScanPlan
    from lazynwb.engine.report import Report
    from lazynwb.storage.source import Source


class Rows:
    """Rows that a worker has read; they are pickled as Arrow IPC streams.

    Parameters
    ----------
    frames : list of DataFrame
        The rows.
    report : Report
        Problems of the files.
    """

    def __init__(self, frames: list[pl.DataFrame], report: Report) -> None:
        self.frames = frames
        self.report = report

    def __getstate__(self) -> tuple[list[bytes], Report]:
        """Return the frames as Arrow IPC streams."""
        return [_to_ipc(frame) for frame in self.frames], self.report

    def __setstate__(self, state: tuple[list[bytes], Report]) -> None:
        """Restore the frames from Arrow IPC streams."""
        streams, self.report = state
        self.frames = [pl.read_ipc_stream(stream) for stream in streams]


def _to_ipc(frame: pl.DataFrame) -> bytes:
    stream = BytesIO()
    frame.write_ipc_stream(stream, compression="uncompressed")
    return stream.getvalue()


class Read(NamedTuple):
    """A task that reads the rows of some files that pass a predicate.

    Attributes
    ----------
    plan : ScanPlan
        Plan of a scan of these files, which are distinct.
    names : tuple of str
        Columns to return.
    predicate : Expr or None
    n_rows : int or None
        Maximum number of rows to scan before the predicate, including those before `first_row`.
    max_bytes : int
        Size of the rows at which the task returns its result; the rest is a new task.
    first_row : int
        First row of the first file to read.
    """

    plan: ScanPlan
    names: tuple[str, ...]
    predicate: pl.Expr | None
    n_rows: int | None
    max_bytes: int
    first_row: int = 0

    def __repr__(self) -> str:
        """Return a representation without secrets of the query or of storage options."""
        return _describe("rows", self.plan.table, self.sources)

    @property
    def sources(self) -> tuple[Source, ...]:
        """The files."""
        return self.plan.sources

    def run(self) -> tuple[Rows, Read | None]:
        """Read the rows; see `Work.run`."""
        plan = self.plan
        steps = plan_steps(self.predicate, plan.schema, plan.per_table, ignore_errors=plan.ignore_errors)
        query = Query(
            plan,
            list(self.names),
            steps,
            first_row=self.first_row,
            read_everything=True,
            scan_metadata=scan_metadata,
        )
        found: list[pl.DataFrame] = []
        room = self.max_bytes
        with closing(query.frames(self.n_rows)) as frames:
            for frame in frames:
                found.append(frame)
                room -= int(frame.estimated_size())
                if room <= 0:
                    return Rows(found, query.report), self._remaining(*query.reached)
        return Rows(found, query.report), None

    def split(self) -> list[Read]:
        """Return a task for each file; see `Work.split`."""
        return [
            self._replace(plan=self.plan._replace(sources=(source,)), first_row=0 if at else self.first_row)
            for at, source in enumerate(self.sources)
        ]

    def _remaining(self, source: Source, table: str, row: int) -> Read:
        left = self.sources[self.sources.index(source) :]
        tables = self.plan.tables
        if tables is not None:
            own = tables[source]
            tables = {**{one: tables[one] for one in left}, source: own[own.index(table) :]}
        return self._replace(plan=self.plan._replace(sources=left, tables=tables), first_row=row)


class Describe(NamedTuple):
    """A task that catalogs a table in some files.

    Attributes
    ----------
    sources : tuple of Source
        The files.
    table : str
        Path of the table.
    """

    sources: tuple[Source, ...]
    table: str

    def __repr__(self) -> str:
        """Return a representation without secrets."""
        return _describe("schema", self.table, self.sources)

    def run(self) -> tuple[list[tuple[Source, Packed]], None]:
        """Catalog the table; leave out unreadable files, whose errors are raised when they are read."""
        found: list[tuple[Source, Packed]] = []
        for source, load in zip(self.sources, load_tables(self.sources, self.table), strict=True):
            try:
                file = load()
            except LazyNWBError:
                continue
            found.append((source, None if file is None else pack_table(file)))
        return found, None

    def split(self) -> list[Describe]:
        """Return a task for each file; see `Work.split`."""
        return [self._replace(sources=(source,)) for source in self.sources]


def _describe(what: str, table: str, sources: tuple[Any, ...]) -> str:
    more = f" and {len(sources) - 1} more" if len(sources) > 1 else ""
    return f"<{what} of /{table} in {sources[0].name}{more}>"
