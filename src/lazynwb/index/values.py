"""Writer of the values of an index: small columns of all sessions, as one Parquet dataset per table."""

from __future__ import annotations

import re
import uuid
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import polars as pl

from lazynwb.catalog.dtypes import INTERNAL, RESERVED
from lazynwb.catalog.lengths import measured_name, with_length_columns
from lazynwb.catalog.merge import conform, nulls
from lazynwb.column_store.entries import Entry, Session
from lazynwb.column_store.parts import SESSION, write_part
from lazynwb.column_store.small_columns import is_small
from lazynwb.engine.batches import run, scan_metadata
from lazynwb.engine.plan import ScanPlan
from lazynwb.errors import LazyNWBError, SchemaError, SourceChangedError, TableNotFoundError, may_skip
from lazynwb.formats.nwb.names import GENERAL, SUBJECT
from lazynwb.index.manifest import TableValues, ValueFile, encode_dtype
from lazynwb.index.value_files import ValueFiles
from lazynwb.index.value_parts import encode_entry, read_entry
from lazynwb.lookup.prefetch import load_tables
from lazynwb.lookup.schema import SchemaInference, normalize_table_path
from lazynwb.lookup.session_columns import SessionColumn, session_frame
from lazynwb.lookup.stored_tables import layout_of, session_of
from lazynwb.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from lazynwb.column_store.entries import Layout
    from lazynwb.distributed.workers import Workers
    from lazynwb.index.checkpoint import Checkpoint
    from lazynwb.index.location import Folder
    from lazynwb.index.snapshot import Snapshot
    from lazynwb.lookup.loader import TableFile
    from lazynwb.storage.source import Source

#: Short metadata that identifies sessions, which is added to every row.
METADATA = (
    *((GENERAL, name) for name in ("session_id", "session_start_time")),
    *((SUBJECT, name) for name in ("subject_id", "age", "sex", "species", "strain", "genotype")),
)
#: Maximum numbers of sessions and rows that are read together.
SESSIONS_AT_ONCE, _ROWS = 256, 256 * 1024
#: Maximum decoded size of a file, and of a file that is merged with new neighboring rows.
MAX_FILE_BYTES, SMALL_FILE_BYTES = 64 * 1024 * 1024, 16 * 1024 * 1024
#: Number of rows for which a column of an empty or short table must be small.
_MIN_ROWS = 1024
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


def requested_tables(given: bool | str | Iterable[str]) -> bool | list[str]:  # noqa: FBT001 - a public parameter
    """Return the tables whose values are requested: all, none, or paths without the leading slash."""
    if isinstance(given, bool) or given == "none":
        return given is True
    return [normalize_table_path(one) for one in ([given] if isinstance(given, str) else given)]


class _PreviousFile(NamedTuple):
    """A value file of the previous index.

    Attributes
    ----------
    file : ValueFile
    values : TableValues
        Values of the table.
    entry : Entry
    """

    file: ValueFile
    values: TableValues
    entry: Entry


class _PlannedSession(NamedTuple):
    """A session to write to a value file.

    Attributes
    ----------
    file : TableFile
    previous : (_PreviousFile, int) or None
        The previous value file with its rows, and the position of the session in it.
    """

    file: TableFile
    previous: tuple[_PreviousFile, int] | None


class _ReadSession(NamedTuple):
    """The rows of one session.

    Attributes
    ----------
    file : TableFile
    frame : DataFrame
        All columns except `SESSION`.
    stored : frozenset of str
        Columns whose values equal those of a scan.
    """

    file: TableFile
    frame: pl.DataFrame
    stored: frozenset[str]


class ValueWriter:
    """A writer of value files, which are removed if no manifest is published.

    Parameters
    ----------
    folder : Folder
        Folder of the index.
    state : Snapshot
        Snapshot of the new index, whose sessions are read.
    before : Snapshot or None
        Snapshot of the previous index, from which values of unchanged sessions are reused.
    workers : Workers or None
        Workers that read the files.
    checkpoint : Checkpoint or None
        Checkpoint that lists the written files.
    """

    def __init__(
        self,
        folder: Folder,
        state: Snapshot,
        before: Snapshot | None = None,
        workers: Workers | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self._folder = folder
        self._state = state
        self._before = before
        self._workers = workers
        self.checkpoint = checkpoint
        self._done: list[TableValues] = []
        self.written: list[str] = []
        self.failed: list[str] = []

    def write(
        self,
        requested: bool | list[str],  # noqa: FBT001 - as in the manifest
        storage_options: Mapping[str, Any] | None,
        *,
        ignore_errors: bool,
        disable_progress: bool,
        is_update: bool,
    ) -> tuple[TableValues, ...]:
        """Write the small columns of tables.

        Parameters
        ----------
        requested : bool or list of str
            See `requested_tables`.
        storage_options : mapping or None
        ignore_errors : bool
            Whether to leave out sessions that cannot be read.
        disable_progress : bool
        is_update : bool
            Whether an existing index is updated, in which case requested tables may no longer exist.

        Raises
        ------
        TableNotFoundError
            If no session has a requested table.
        LazyNWBError
            If a session cannot be read, or the files cannot be written.
        """
        if requested is False:
            return ()
        sources = self._state.sources(storage_options)
        holders, _ = self._state.sources_by_table(sources, series=False)
        tables = {path: having for path, having in holders.items() if path not in {GENERAL, SUBJECT}}
        if requested is not True:
            absent = next((path for path in requested if path not in tables), None)
            if absent is not None and not is_update:
                known = ", ".join(f"/{path}" for path in sorted(tables)[:20]) or "none"
                raise TableNotFoundError(
                    f"values=: no session has a table /{absent}; available tables: {known}"
                )
            tables = {path: tables[path] for path in dict.fromkeys(requested) if path in tables}
        total = sum(map(len, tables.values()))
        folders: dict[str, str] = {}
        with Progress("Reading NWB values", total, disabled=disable_progress) as progress:
            for path, having in sorted(tables.items()):
                self._done.append(
                    self._write_table(
                        path, having, _folder_of(path, folders), progress, ignore_errors=ignore_errors
                    )
                )
        return tuple(self._done)

    def save(self, table: str, files: Sequence[ValueFile], schema: tuple[tuple[str, Any], ...]) -> None:
        """Save a checkpoint with the files of complete tables, and those of the current table."""
        if self.checkpoint is not None:
            begun = self._before.manifest.table_values if self._before is not None else ()
            tables = {one.table: one for one in (*begun, *self._done)}
            tables[table] = TableValues(table, tuple(files), schema)
            # The resumed build reads unreadable sessions again, and reports them.
            named = tuple(msgspec.structs.replace(one, lacking=()) for one in tables.values())
            self.checkpoint.save(msgspec.structs.replace(self._state.manifest, table_values=named))

    def _write_table(
        self, path: str, sources: list[Source], place: str, progress: Progress, *, ignore_errors: bool
    ) -> TableValues:
        # `sources` are grouped by part: restore the order of the index.
        sources = sorted(sources, key=lambda source: self._state.numbers[source.public])
        before, known_lacking = self._previous_files(path)
        plan, tables, lacking = self._plan(path, sources, ignore_errors=ignore_errors)
        lacking |= known_lacking & {file.source.public for file in tables}
        schema = tuple((name, encode_dtype(dtype)) for name, dtype in _file_schema(plan).items())
        previous = {session.key: (one, at) for one in before for at, session in enumerate(one.entry.sessions)}
        rows = []
        for file in tables:
            if file.source.public not in lacking:
                stored = previous.get(file.source.public)
                if stored is not None and not _is_same(file, stored[0].entry.sessions[stored[1]]):
                    stored = None
                rows.append(_PlannedSession(file, stored))
        writing = _TableWriting(self, plan, place, lacking, ignore_errors=ignore_errors)
        files: list[ValueFile] = []
        for one, some in _group_by_file(rows, schema):
            if one is not None:
                files.append(one.file)
                progress.update(len(some))
                continue
            for written, sessions in writing.write(some):
                files.append(written)
                progress.update(sessions)
                if self.checkpoint is not None and self.checkpoint.is_due:
                    self.save(path, files, schema)
        # A table without rows has a file too, which defines its columns.
        return TableValues(
            path, tuple(files or [file for file, _ in writing.write([])]), schema, tuple(sorted(lacking))
        )

    def _previous_files(self, path: str) -> tuple[list[_PreviousFile], set[str]]:
        """Return the value files of a table in the previous index, and its unreadable sessions."""
        if self._before is None:
            return [], set()
        values = next((one for one in self._before.manifest.table_values if one.table == path), None)
        if values is None:
            return [], set()
        found = []
        for file in values.files:
            entry = read_entry(self._folder, values, file)
            if entry is not None:
                found.append(_PreviousFile(file, values, entry))
        was, now = self._before.identities, self._state.identities
        return found, {key for key in values.lacking if key in now and was.get(key) == now[key]}

    def _plan(
        self, path: str, sources: list[Source], *, ignore_errors: bool
    ) -> tuple[ScanPlan, list[TableFile], set[str]]:
        """Return the plan of a scan of the columns that are small in all sessions, and the tables."""
        inference = SchemaInference(
            ignore_errors=ignore_errors, disable_progress=True, catalogs=self._state, conflicts={}
        )
        schema, files = inference.of_table(sources, path)
        # Length columns are stored under their internal names, which no column of a file has.
        schema = with_length_columns(schema, True, path, is_lenient=True)  # noqa: FBT003 - all lists
        lengths = [name for name in schema if measured_name(name) is not None]
        large: set[str] = set()
        lacking: set[str] = set()
        tables: list[TableFile] = []
        for source, load in zip(sources, load_tables(sources, path, self._state), strict=True):
            try:
                file = load()
            except LazyNWBError as error:
                if not may_skip(error, ignore_errors=ignore_errors):
                    raise
                file = None
            if file is None:
                lacking.add(source.public)
                continue
            file = file.with_lengths(lengths)
            tables.append(file)
            table = file.table
            rows = max(table.rows, _MIN_ROWS)
            large |= {name for name, c in file.columns.items() if not is_small(c, table.kind, rows)}
        columns = {
            name: dtype
            for name, dtype in schema.items()
            if name not in large and name not in {*RESERVED, SESSION} and not isinstance(dtype, pl.Null)
        }
        plan = ScanPlan(
            tuple(sources),
            path,
            columns,
            files[0].name,
            disable_progress=True,
            session=self._session_columns(columns),
            optional=True,
            catalogs=self._state,
        )
        return plan, tables, lacking

    def _session_columns(self, taken: Mapping[str, pl.DataType]) -> tuple[SessionColumn, ...]:
        found = []
        for table, name in METADATA:
            value = self._state.values.find(table, name)
            if value is None or not value.exact:
                continue
            dtype = self._state.values.schema[value.column]
            if dtype.is_nested() or isinstance(dtype, pl.Null):
                continue
            column = name
            while column in taken:
                column = f"session_{column}"
            found.append(SessionColumn(column, table, name, dtype))
        return tuple(found)

    def rows_of(self, plan: ScanPlan) -> Iterator[pl.DataFrame]:
        """Yield the rows of a plan, in order."""
        if self._workers is None:
            return run(plan, list(_file_schema(plan))[:-1], None, None)
        from lazynwb.distributed.execution import run_on

        return run_on(self._workers, plan, list(_file_schema(plan))[:-1], None, None)

    def write_file(
        self, place: str, table: str, sessions: list[Session], layouts: list[Layout], frame: pl.DataFrame
    ) -> ValueFile:
        """Write a value file with rows of sessions, and its entry."""
        data, part = write_part(frame, is_published=True)
        entry = encode_entry(Entry(table, 0, tuple(sessions), tuple(layouts), part))
        name = f"tables={place}/part-{uuid.uuid4().hex}.parquet"
        file = ValueFile(name, len(frame), len(entry), part)
        self.written += [file.name, file.entry_name]
        self._folder.write(file.name, data)
        self._folder.write(file.entry_name, entry)
        return file

    def previous_rows(self, previous: _PreviousFile) -> pl.DataFrame:
        """Return all rows of a value file of the previous index."""
        names = [name for name, _ in previous.values.schema]
        return ValueFiles(self._folder, previous.values).rows(previous.file, names, previous.file.rows)


class _TableWriting:
    """A writer of the values of one table, which are read from files or reused from the previous index.

    Parameters
    ----------
    writer : ValueWriter
    plan : ScanPlan
        Plan of a scan of all sessions.
    place : str
        Folder of the table.
    lacking : set of str
        Unreadable sessions, to which more are added.
    ignore_errors : bool
        Whether to leave out unreadable sessions instead of raising their errors.
    """

    def __init__(
        self, writer: ValueWriter, plan: ScanPlan, place: str, lacking: set[str], *, ignore_errors: bool
    ) -> None:
        self._writer = writer
        self._plan = plan
        self._place = place
        self._lacking = lacking
        self._ignore_errors = ignore_errors
        self._last: tuple[str, pl.DataFrame] = "", pl.DataFrame()

    def write(self, rows: Sequence[_PlannedSession]) -> Iterator[tuple[ValueFile, int]]:
        """Write the rows of sessions; yield each file with its number of sessions.

        One file is written if there are no rows.
        """
        waiting: list[_ReadSession] = []
        size = sessions = 0
        is_empty = True
        for block in _blocks(rows):
            for one in self._read(block):
                waiting.append(one)
                size += int(one.frame.estimated_size())
            sessions += len(block)
            checkpoint = self._writer.checkpoint
            if size >= MAX_FILE_BYTES or (checkpoint is not None and checkpoint.is_due and waiting):
                yield self._write_file(waiting), sessions
                waiting, size, sessions = [], 0, 0
                is_empty = False
        if waiting or is_empty:
            yield self._write_file(waiting), sessions

    def _write_file(self, read: Sequence[_ReadSession]) -> ValueFile:
        layouts: dict[Layout, int] = {}
        sessions = []
        for one in read:
            layout = layouts.setdefault(layout_of(one.file, one.stored), len(layouts))
            sessions.append(msgspec.structs.replace(session_of(one.file, layout), key=one.file.source.public))
        numbers = pl.DataFrame(
            {SESSION: range(len(read)), "rows": [len(one.frame) for one in read]},
            schema={SESSION: pl.UInt32, "rows": pl.UInt32},
        ).filter(pl.col("rows") > 0)
        numbers = numbers.select(pl.col(SESSION).repeat_by("rows").explode())
        dtypes = _file_schema(self._plan)
        empty = pl.DataFrame(schema={name: dtype for name, dtype in dtypes.items() if name != SESSION})
        frame = pl.concat([empty, *(one.frame for one in read)])
        return self._writer.write_file(
            self._place, self._plan.table, sessions, list(layouts), frame.hstack(numbers).rechunk()
        )

    def _read(self, block: list[_PlannedSession]) -> Iterator[_ReadSession]:
        """Read sessions that are all in the same previous value file, or all in none."""
        previous = block[0].previous
        if previous is None:
            yield from self._from_files([row.file for row in block])
            return
        name = previous[0].file.name
        if self._last[0] != name:
            self._last = name, self._writer.previous_rows(previous[0])
        for row in block:
            found = self._from_previous(row, self._last[1])
            if found is None:
                yield from self._from_files([row.file])
            else:
                yield found

    def _from_previous(self, row: _PlannedSession, frame: pl.DataFrame) -> _ReadSession | None:
        """Return the rows of a session from a previous value file; None if columns are missing."""
        assert row.previous is not None  # noqa: S101 - checked by the only caller
        one, at = row.previous
        stored = one.entry.layouts[one.entry.sessions[at].layout].stored
        names = [name for name in self._plan.schema if name in row.file.columns]
        if not set(names) <= set(stored):
            return None
        start = sum(session.rows for session in one.entry.sessions[:at])
        own = frame[start : start + row.file.table.rows]
        try:
            columns = [
                conform(own[name], dtype, "the index") if name in names else nulls(name, dtype, len(own))
                for name, dtype in self._plan.schema.items()
            ]
        except LazyNWBError:
            return None
        metadata = session_frame([row.file.source], self._plan.session, partial(scan_metadata, self._plan))
        columns += [metadata[c.name].new_from_index(0, len(own)) for c in self._plan.session]
        return _ReadSession(row.file, pl.DataFrame([*columns, *own.select(*INTERNAL)]), frozenset(names))

    def _from_files(self, files: Sequence[TableFile]) -> Iterator[_ReadSession]:
        """Read sessions from their files; leave out unreadable ones if errors are ignored."""
        plan = self._plan._replace(sources=tuple(file.source for file in files))
        try:
            found = pl.concat(self._writer.rows_of(plan))
        except LazyNWBError as error:
            if not may_skip(error, ignore_errors=self._ignore_errors) and not isinstance(error, SchemaError):
                raise
            if len(files) > 1:
                for file in files:
                    yield from self._from_files([file])
            else:
                yield from self._from_castable_columns(files[0], plan, error)
            return
        if len(found) != sum(file.table.rows for file in files):
            raise SourceChangedError(
                f"{files[0].name} or another session was changed while the index was built: "
                "build the index again"
            )
        start = 0
        for file in files:
            stop = start + file.table.rows
            yield _ReadSession(file, found[start:stop], frozenset(plan.schema) & file.columns.keys())
            start = stop

    def _from_castable_columns(
        self, file: TableFile, plan: ScanPlan, error: LazyNWBError
    ) -> Iterator[_ReadSession]:
        """Read the columns of a session that can be cast to the types of the table without loss."""
        fitting: dict[str, pl.DataType] = {}
        if isinstance(error, SchemaError):
            for name, dtype in plan.schema.items():
                try:
                    for _ in self._writer.rows_of(plan._replace(schema={name: dtype}, session=())):
                        pass
                except SchemaError:
                    continue
                fitting[name] = dtype
        if fitting:
            found = pl.concat(self._writer.rows_of(plan._replace(schema=fitting)))
            found = found.select(
                pl.col(name) if name in found.columns else nulls(name, dtype, len(found)).alias(name)
                for name, dtype in _file_schema(plan).items()
                if name != SESSION
            )
            yield _ReadSession(file, found, frozenset(fitting) & file.columns.keys())
            return
        if not may_skip(error, ignore_errors=self._ignore_errors):
            raise error
        self._lacking.add(file.source.public)
        text = str(error)
        self._writer.failed.append(text if file.name in text else f"{file.name}: {text}")


def _file_schema(plan: ScanPlan) -> dict[str, pl.DataType]:
    """Return the columns of a value file, in order."""
    session = {column.name: column.dtype for column in plan.session}
    return {**plan.schema, **session, **INTERNAL, SESSION: pl.UInt32()}


def _is_same(file: TableFile, session: Session) -> bool:
    """Return whether a table has not changed since its rows were written."""
    return (
        file.identity == session.identity
        and file.table.depends == session.depends
        and file.table.rows == session.rows
    )


def _group_by_file(
    rows: Sequence[_PlannedSession], schema: tuple[tuple[str, Any], ...]
) -> Iterator[tuple[_PreviousFile | None, Sequence[_PlannedSession]]]:
    """Yield reusable value files with their rows, and in between None with the rows to write."""
    runs: list[tuple[_PreviousFile | None, int, int]] = []
    at = 0
    while at < len(rows):
        one = rows[at].previous
        stop = at + (len(one[0].entry.sessions) if one is not None else 0)
        if (
            one is not None
            and one[1] == 0
            and one[0].values.schema == schema
            and stop <= len(rows)
            and all(
                row.previous is not None and row.previous[0] is one[0] and row.previous[1] == number
                for number, row in enumerate(rows[at:stop])
            )
        ):
            runs.append((one[0], at, stop))
        else:
            stop = at + 1
            if runs and runs[-1][0] is None:
                runs[-1] = None, runs[-1][1], stop
            else:
                runs.append((None, at, stop))
        at = stop
    # Small files next to new rows are merged with them, which limits the number of small files.
    merged: list[tuple[_PreviousFile | None, int, int]] = []
    for number, (candidate, start, stop) in enumerate(runs):
        is_next_to_new = any(
            runs[other][0] is None for other in (number - 1, number + 1) if 0 <= other < len(runs)
        )
        reused = candidate
        if reused is not None and is_next_to_new and reused.file.part.decoded < SMALL_FILE_BYTES:
            reused = None
        if reused is None and merged and merged[-1][0] is None:
            merged[-1] = None, merged[-1][1], stop
        else:
            merged.append((reused, start, stop))
    for reused, start, stop in merged:
        yield reused, rows[start:stop]


def _blocks(rows: Sequence[_PlannedSession]) -> Iterator[list[_PlannedSession]]:
    """Yield blocks of sessions that are read together."""
    block: list[_PlannedSession] = []
    total = 0
    for row in rows:
        own = row.previous[0] if row.previous is not None else None
        if block and (
            len(block) >= SESSIONS_AT_ONCE
            or total + row.file.table.rows > _ROWS
            or own is not (block[0].previous[0] if block[0].previous is not None else None)
        ):
            yield block
            block, total = [], 0
        block.append(row)
        total += row.file.table.rows
    if block:
        yield block


def _folder_of(path: str, taken: dict[str, str]) -> str:
    """Return a unique folder name for a table that is valid in all stores."""
    name = _UNSAFE.sub(".", path).strip(".") or "table"
    if taken.setdefault(name, path) != path:
        name = f"{name}-{blake2b(path.encode(), digest_size=4).hexdigest()}"
        taken[name] = path
    return name
