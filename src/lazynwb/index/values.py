"""Small columns of all sessions of an index: one Parquet dataset for each table."""

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
from lazynwb.index.model import TableValues, ValueFile, described
from lazynwb.index.value_parts import packed, read_entry
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
    from lazynwb.index.snapshot import State
    from lazynwb.lookup.loader import TableFile
    from lazynwb.storage.source import Source

#: Metadata that are columns of every row, where the index has them: short, and what rows are told apart by.
METADATA = (
    *((GENERAL, name) for name in ("session_id", "session_start_time")),
    *((SUBJECT, name) for name in ("subject_id", "age", "sex", "species", "strain", "genotype")),
)
#: Sessions and rows that are read together.
SESSIONS_AT_ONCE, _ROWS = 256, 256 * 1024
#: Decoded bytes of a file, and of one that is written anew with rows that come to lie next to it.
MAX_FILE_BYTES, SMALL_FILE_BYTES = 64 * 1024 * 1024, 16 * 1024 * 1024
#: A column counts as small if it would be in a session of so many rows.
_MIN_ROWS = 1024
_STRANGE = re.compile(r"[^A-Za-z0-9_-]+")


def requested_tables(given: bool | str | Iterable[str]) -> bool | list[str]:  # noqa: FBT001 - as users say it
    """Return of which tables values are wanted: of all, of none, or paths without the leading slash."""
    if isinstance(given, bool) or given == "none":
        return given is True
    return [normalize_table_path(one) for one in ([given] if isinstance(given, str) else given)]


class _Kept(NamedTuple):
    """A file with values of the index before.

    Attributes
    ----------
    file : ValueFile
    values : TableValues
        Which it is of.
    entry : Entry
    """

    file: ValueFile
    values: TableValues
    entry: Entry


class _Row(NamedTuple):
    """A session whose rows are to be in a file with values.

    Attributes
    ----------
    file : TableFile
    kept : (_Kept, int) or None
        The file that has its rows already, and which of its sessions it is.
    """

    file: TableFile
    kept: tuple[_Kept, int] | None


class _Session(NamedTuple):
    """A session whose rows were read.

    Attributes
    ----------
    file : TableFile
    frame : DataFrame
        All columns but `SESSION`.
    stored : frozenset of str
        Columns whose values are those of a scan.
    """

    file: TableFile
    frame: pl.DataFrame
    stored: frozenset[str]


class ValueWriter:
    """Writes files with values; they are removed if they are not published.

    Parameters
    ----------
    folder : Folder
    state : State
        Of the index whose sessions are read.
    before : State or None
        Of the index that it replaces: values of sessions that have not changed are taken from there.
    workers : Workers or None
        They read the files.
    checkpoint : Checkpoint or None
        Names the files from time to time.
    """

    def __init__(
        self,
        folder: Folder,
        state: State,
        before: State | None = None,
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
        wanted: bool | list[str],  # noqa: FBT001 - as in the manifest
        storage_options: Mapping[str, Any] | None,
        *,
        ignore_errors: bool,
        disable_progress: bool,
        is_update: bool,
    ) -> tuple[TableValues, ...]:
        """Write the small columns of tables.

        Parameters
        ----------
        wanted : bool or list of str
            See `requested_tables`.
        storage_options : mapping or None
        ignore_errors : bool
            Leave out sessions that cannot be read.
        disable_progress : bool
        is_update : bool
            Of an index whose tables were asked for earlier, and may be gone.

        Raises
        ------
        TableNotFoundError
            If no session has a table that was asked for.
        LazyNWBError
            If a session cannot be read, or the files cannot be written.
        """
        if wanted is False:
            return ()
        sources = self._state.sources(storage_options)
        holders, _ = self._state.sources_by_table(sources, series=False)
        tables = {path: having for path, having in holders.items() if path not in {GENERAL, SUBJECT}}
        if wanted is not True:
            absent = next((path for path in wanted if path not in tables), None)
            if absent is not None and not is_update:
                known = ", ".join(f"/{path}" for path in sorted(tables)[:20]) or "none"
                raise TableNotFoundError(f"values=: no session has a table /{absent}; tables there: {known}")
            tables = {path: tables[path] for path in dict.fromkeys(wanted) if path in tables}
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
        """Name the files that have been written: of the tables before, and those of one table so far."""
        if self.checkpoint is not None:
            begun = self._before.manifest.table_values if self._before is not None else ()
            tables = {one.table: one for one in (*begun, *self._done)}
            tables[table] = TableValues(table, tuple(files), schema)
            # Sessions that could not be read are tried again, and reported.
            named = tuple(msgspec.structs.replace(one, lacking=()) for one in tables.values())
            self.checkpoint.save(msgspec.structs.replace(self._state.manifest, table_values=named))

    def _write_table(
        self, path: str, sources: list[Source], place: str, progress: Progress, *, ignore_errors: bool
    ) -> TableValues:
        # Which sessions have a table is known by part: they are put in the order of the index.
        sources = sorted(sources, key=lambda source: self._state.numbers[source.public])
        before, known_lacking = self._before_of(path)
        plan, tables, lacking = self._plan(path, sources, ignore_errors=ignore_errors)
        lacking |= known_lacking & {file.source.public for file in tables}
        schema = tuple((name, described(dtype)) for name, dtype in _dtypes(plan).items())
        kept = {session.key: (one, at) for one in before for at, session in enumerate(one.entry.sessions)}
        rows = []
        for file in tables:
            if file.source.public not in lacking:
                was = kept.get(file.source.public)
                if was is not None and not _is_same(file, was[0].entry.sessions[was[1]]):
                    was = None
                rows.append(_Row(file, was))
        writing = _TableWriting(self, plan, place, lacking, ignore_errors=ignore_errors)
        files: list[ValueFile] = []
        for one, some in _runs(rows, schema):
            if one is not None:
                files.append(one.file)
                progress.update(len(some))
                continue
            for written, sessions in writing.write(some):
                files.append(written)
                progress.update(sessions)
                if self.checkpoint is not None and self.checkpoint.is_due:
                    self.save(path, files, schema)
        # A table of no rows has a file all the same: its columns are what the table has.
        return TableValues(
            path, tuple(files or [file for file, _ in writing.write([])]), schema, tuple(sorted(lacking))
        )

    def _before_of(self, path: str) -> tuple[list[_Kept], set[str]]:
        """Return the files with values of a table in the index before, and unreadable sessions."""
        if self._before is None:
            return [], set()
        values = next((one for one in self._before.manifest.table_values if one.table == path), None)
        if values is None:
            return [], set()
        found = []
        for file in values.files:
            entry = read_entry(self._folder, values, file)
            if entry is not None:
                found.append(_Kept(file, values, entry))
        was, now = self._before.identities, self._state.identities
        return found, {key for key in values.lacking if key in now and was.get(key) == now[key]}

    def _plan(
        self, path: str, sources: list[Source], *, ignore_errors: bool
    ) -> tuple[ScanPlan, list[TableFile], set[str]]:
        """Return the plan of a scan of the columns that are small in every session, and their tables."""
        inference = SchemaInference(
            ignore_errors=ignore_errors, disable_progress=True, catalogs=self._state, conflicts={}
        )
        schema, files = inference.of_table(sources, path)
        # Under their names within a scan, which no column of a file has.
        schema = with_length_columns(schema, True, path, is_lenient=True)  # noqa: FBT003 - of all lists
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
        """Yield the rows of the files of a plan, in order."""
        if self._workers is None:
            return run(plan, list(_dtypes(plan))[:-1], None, None)
        from lazynwb.distributed.execution import run_on

        return run_on(self._workers, plan, list(_dtypes(plan))[:-1], None, None)

    def write_file(
        self, place: str, table: str, sessions: list[Session], layouts: list[Layout], frame: pl.DataFrame
    ) -> ValueFile:
        """Write rows of sessions, and their entry."""
        data, part = write_part(frame, is_published=True)
        entry = packed(Entry(table, 0, tuple(sessions), tuple(layouts), part))
        name = f"tables={place}/part-{uuid.uuid4().hex}.parquet"
        file = ValueFile(name, len(frame), len(entry), part)
        self.written += [file.name, file.entry_name]
        self._folder.write(file.name, data)
        self._folder.write(file.entry_name, entry)
        return file

    def rows_before(self, kept: _Kept) -> pl.DataFrame:
        """Return all rows of a file of the index before."""
        assert self._before is not None  # noqa: S101 - there are files of it
        names = [name for name, _ in kept.values.schema]
        return self._before.values_in(kept.values, kept.file, names, kept.file.rows, None)


class _TableWriting:
    """Reads the rows of sessions for one table, and writes them.

    Parameters
    ----------
    writer : ValueWriter
    plan : ScanPlan
        Of all sessions.
    place : str
        Folder of the table.
    lacking : set of str
        Sessions that cannot be read: more are added.
    ignore_errors : bool
        Leave them out; else they are an error.
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

    def write(self, rows: Sequence[_Row]) -> Iterator[tuple[ValueFile, int]]:
        """Write the rows of sessions, and yield the files that they fill, with the sessions of each.

        There is one if there are no rows.
        """
        waiting: list[_Session] = []
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

    def _write_file(self, read: Sequence[_Session]) -> ValueFile:
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
        dtypes = _dtypes(self._plan)
        empty = pl.DataFrame(schema={name: dtype for name, dtype in dtypes.items() if name != SESSION})
        frame = pl.concat([empty, *(one.frame for one in read)])
        return self._writer.write_file(
            self._place, self._plan.table, sessions, list(layouts), frame.hstack(numbers).rechunk()
        )

    def _read(self, block: list[_Row]) -> Iterator[_Session]:
        """Read sessions that are all in the same file with values, or all in none."""
        kept = block[0].kept
        if kept is None:
            yield from self._of_files([row.file for row in block])
            return
        name = kept[0].file.name
        if self._last[0] != name:
            self._last = name, self._writer.rows_before(kept[0])
        for row in block:
            found = self._of_kept(row, self._last[1])
            if found is None:
                yield from self._of_files([row.file])
            else:
                yield found

    def _of_kept(self, row: _Row, frame: pl.DataFrame) -> _Session | None:
        """Return the rows of a session out of a file with values; None if it does not have all of them."""
        assert row.kept is not None  # noqa: S101 - of the one caller
        one, at = row.kept
        stored = one.entry.layouts[one.entry.sessions[at].layout].stored
        wanted = [name for name in self._plan.schema if name in row.file.columns]
        if not set(wanted) <= set(stored):
            return None
        start = sum(session.rows for session in one.entry.sessions[:at])
        own = frame[start : start + row.file.table.rows]
        try:
            columns = [
                conform(own[name], dtype, "the index") if name in wanted else nulls(name, dtype, len(own))
                for name, dtype in self._plan.schema.items()
            ]
        except LazyNWBError:
            return None
        metadata = session_frame([row.file.source], self._plan.session, partial(scan_metadata, self._plan))
        columns += [metadata[c.name].new_from_index(0, len(own)) for c in self._plan.session]
        return _Session(row.file, pl.DataFrame([*columns, *own.select(*INTERNAL)]), frozenset(wanted))

    def _of_files(self, files: Sequence[TableFile]) -> Iterator[_Session]:
        """Read sessions from their files; those that cannot be read are left out under `ignore_errors`."""
        plan = self._plan._replace(sources=tuple(file.source for file in files))
        try:
            found = pl.concat(self._writer.rows_of(plan))
        except LazyNWBError as error:
            if not may_skip(error, ignore_errors=self._ignore_errors) and not isinstance(error, SchemaError):
                raise
            if len(files) > 1:
                for file in files:
                    yield from self._of_files([file])
            else:
                yield from self._of_columns(files[0], plan, error)
            return
        if len(found) != sum(file.table.rows for file in files):
            raise SourceChangedError(
                f"{files[0].name} or another session was changed while the index was built: build it again"
            )
        start = 0
        for file in files:
            stop = start + file.table.rows
            yield _Session(file, found[start:stop], frozenset(plan.schema) & file.columns.keys())
            start = stop

    def _of_columns(self, file: TableFile, plan: ScanPlan, error: LazyNWBError) -> Iterator[_Session]:
        """Read those columns of a session that lose no value as they are cast to the type of the table."""
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
                for name, dtype in _dtypes(plan).items()
                if name != SESSION
            )
            yield _Session(file, found, frozenset(fitting) & file.columns.keys())
            return
        if not may_skip(error, ignore_errors=self._ignore_errors):
            raise error
        self._lacking.add(file.source.public)
        text = str(error)
        self._writer.failed.append(text if file.name in text else f"{file.name}: {text}")


def _dtypes(plan: ScanPlan) -> dict[str, pl.DataType]:
    """Return the columns of a file with values, in order."""
    session = {column.name: column.dtype for column in plan.session}
    return {**plan.schema, **session, **INTERNAL, SESSION: pl.UInt32()}


def _is_same(file: TableFile, session: Session) -> bool:
    """Return whether a table is the one whose rows were written."""
    return (
        file.identity == session.identity
        and file.table.depends == session.depends
        and file.table.rows == session.rows
    )


def _runs(
    rows: Sequence[_Row], schema: tuple[tuple[str, Any], ...]
) -> Iterator[tuple[_Kept | None, Sequence[_Row]]]:
    """Yield files that stay as they are, with their rows, and between them rows that have to be written."""
    runs: list[tuple[_Kept | None, int, int]] = []
    at = 0
    while at < len(rows):
        one = rows[at].kept
        stop = at + (len(one[0].entry.sessions) if one is not None else 0)
        if (
            one is not None
            and one[1] == 0
            and one[0].values.schema == schema
            and stop <= len(rows)
            and all(
                row.kept is not None and row.kept[0] is one[0] and row.kept[1] == number
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
    # Small files next to rows that are written are written with them: else there would be ever more of these.
    merged: list[tuple[_Kept | None, int, int]] = []
    for number, (one_kept, start, stop) in enumerate(runs):
        is_next_to_new = any(
            runs[other][0] is None for other in (number - 1, number + 1) if 0 <= other < len(runs)
        )
        kept = one_kept
        if kept is not None and is_next_to_new and kept.file.part.decoded < SMALL_FILE_BYTES:
            kept = None
        if kept is None and merged and merged[-1][0] is None:
            merged[-1] = None, merged[-1][1], stop
        else:
            merged.append((kept, start, stop))
    for kept, start, stop in merged:
        yield kept, rows[start:stop]


def _blocks(rows: Sequence[_Row]) -> Iterator[list[_Row]]:
    """Yield rows that are read together."""
    block: list[_Row] = []
    total = 0
    for row in rows:
        own = row.kept[0] if row.kept is not None else None
        if block and (
            len(block) >= SESSIONS_AT_ONCE
            or total + row.file.table.rows > _ROWS
            or own is not (block[0].kept[0] if block[0].kept is not None else None)
        ):
            yield block
            block, total = [], 0
        block.append(row)
        total += row.file.table.rows
    if block:
        yield block


def _folder_of(path: str, taken: dict[str, str]) -> str:
    """Return the name of the folder of a table, which no other table has and every store takes."""
    name = _STRANGE.sub(".", path).strip(".") or "table"
    if taken.setdefault(name, path) != path:
        name = f"{name}-{blake2b(path.encode(), digest_size=4).hexdigest()}"
        taken[name] = path
    return name
