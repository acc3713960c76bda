"""Small columns of all sessions of an index: one Parquet dataset for each table."""

from __future__ import annotations

import re
import uuid
from hashlib import blake2b
from io import BytesIO
from typing import TYPE_CHECKING

import deflate
import polars as pl

from lazynwb.catalog.dtypes import INTERNAL, RESERVED
from lazynwb.column_store.nan_bounds import drop_nan_bounds_of
from lazynwb.column_store.parts import ROW_GROUP_ROWS
from lazynwb.column_store.small_columns import is_small
from lazynwb.engine.batches import run
from lazynwb.engine.plan import ScanPlan
from lazynwb.errors import LazyNWBError, TableNotFoundError, may_skip
from lazynwb.formats.nwb.names import GENERAL, SUBJECT
from lazynwb.index.model import TableValues, ValueFile
from lazynwb.lookup.prefetch import load_tables
from lazynwb.lookup.schema import collect_schema, normalize_table_path
from lazynwb.lookup.session_columns import SessionColumn
from lazynwb.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from lazynwb.index.location import Folder
    from lazynwb.index.snapshot import State
    from lazynwb.storage.source import Source

#: Metadata that are columns of every row, where the index has them: short, and what rows are told apart by.
METADATA = (
    *((GENERAL, name) for name in ("session_id", "session_start_time")),
    *((SUBJECT, name) for name in ("subject_id", "age", "sex", "species", "strain", "genotype")),
)
#: Sessions that are read together, and decoded bytes of a file.
_SESSIONS, _FILE_BYTES = 256, 64 * 1024 * 1024
#: A column counts as small if it would be in a session of so many rows.
_MIN_ROWS = 1024
_STRANGE = re.compile(r"[^A-Za-z0-9_-]+")


def requested_tables(given: bool | str | Iterable[str]) -> bool | list[str]:  # noqa: FBT001 - as users say it
    """Return of which tables values are wanted: of all, of none, or paths without the leading slash."""
    if isinstance(given, bool) or given == "none":
        return given is True
    return [normalize_table_path(one) for one in ([given] if isinstance(given, str) else given)]


class ValueWriter:
    """Writes files with values; they are removed if they are not published.

    Parameters
    ----------
    folder : Folder
    state : State
        Of the index whose sessions are read.
    """

    def __init__(self, folder: Folder, state: State) -> None:
        self._folder = folder
        self._state = state
        self.written: list[str] = []
        self.failed: list[str] = []

    def write(
        self,
        wanted: bool | list[str],  # noqa: FBT001 - as in the manifest
        storage_options: Mapping[str, Any] | None,
        *,
        ignore_errors: bool,
        disable_progress: bool,
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
            if absent is not None:
                known = ", ".join(f"/{path}" for path in sorted(tables)[:20]) or "none"
                raise TableNotFoundError(f"values=: no session has a table /{absent}; tables there: {known}")
            tables = {path: tables[path] for path in dict.fromkeys(wanted)}
        total = sum(map(len, tables.values()))
        folders: dict[str, str] = {}
        with Progress("Reading NWB values", total, disabled=disable_progress) as progress:
            return tuple(
                self._write_table(
                    path, having, _folder_of(path, folders), progress, ignore_errors=ignore_errors
                )
                for path, having in sorted(tables.items())
            )

    def _write_table(
        self, path: str, sources: list[Source], place: str, progress: Progress, *, ignore_errors: bool
    ) -> TableValues:
        plan, lacking = self._plan(path, sources, ignore_errors=ignore_errors)
        files: list[ValueFile] = []
        frames: list[pl.DataFrame] = []
        size = 0
        for start in range(0, len(sources), _SESSIONS):
            block = sources[start : start + _SESSIONS]
            for frame in self._rows(plan, block, lacking, ignore_errors=ignore_errors):
                frames.append(frame)
                size += int(frame.estimated_size())
                if size >= _FILE_BYTES:
                    files.append(self._write_file(place, frames))
                    frames, size = [], 0
            progress.update(len(block))
        # A table of no rows has a file all the same: its columns are what the table has.
        if frames or not files:
            empty = pl.DataFrame(schema={name: plan.all_columns[name] for name in _names(plan)})
            files.append(self._write_file(place, [empty, *frames]))
        return TableValues(path, tuple(files), tuple(sorted(lacking)))

    def _plan(self, path: str, sources: list[Source], *, ignore_errors: bool) -> tuple[ScanPlan, set[str]]:
        """Return the plan of a scan of the columns that are small in every session."""
        schema, files = collect_schema(
            sources,
            path,
            None,
            raise_on_missing=False,
            ignore_errors=ignore_errors,
            disable_progress=True,
            overrides={},
            catalogs=self._state,
            conflicts={},
        )
        large: set[str] = set()
        lacking: set[str] = set()
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
            table = file.table
            rows = max(table.rows, _MIN_ROWS)
            large |= {name for name, c in file.columns.items() if not is_small(c, table.kind, rows)}
        columns = {
            name: dtype
            for name, dtype in schema.items()
            if name not in large and name not in RESERVED and not isinstance(dtype, pl.Null)
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
        return plan, lacking

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

    def _rows(
        self, plan: ScanPlan, sources: Sequence[Source], lacking: set[str], *, ignore_errors: bool
    ) -> Iterator[pl.DataFrame]:
        """Yield the rows of sessions; those that cannot be read are left out under `ignore_errors`."""
        wanted = tuple(source for source in sources if source.public not in lacking)
        if not wanted:
            return
        try:
            frames = list(run(plan._replace(sources=wanted), _names(plan), None, None))
        except LazyNWBError as error:
            if not may_skip(error, ignore_errors=ignore_errors):
                raise
            if len(wanted) > 1:
                for source in wanted:
                    yield from self._rows(plan, [source], lacking, ignore_errors=True)
                return
            lacking.add(wanted[0].public)
            text = str(error)
            self.failed.append(text if wanted[0].name in text else f"{wanted[0].name}: {text}")
            return
        yield from frames

    def _write_file(self, place: str, frames: Sequence[pl.DataFrame]) -> ValueFile:
        frame = pl.concat(frames)
        stream = BytesIO()
        frame.write_parquet(stream, compression="zstd", statistics=True, row_group_size=ROW_GROUP_ROWS)
        drop_nan_bounds_of(stream, frame)
        data = stream.getvalue()
        name = f"tables={place}/part-{uuid.uuid4().hex}.parquet"
        self._folder.write(name, data)
        self.written.append(name)
        return ValueFile(name, len(data), len(frame), deflate.crc32(data))


def _names(plan: ScanPlan) -> list[str]:
    """Return the columns of a file."""
    return [*plan.schema, *(column.name for column in plan.session), *INTERNAL]


def _folder_of(path: str, taken: dict[str, str]) -> str:
    """Return the name of the folder of a table, which no other table has and every store takes."""
    name = _STRANGE.sub(".", path).strip(".") or "table"
    if taken.setdefault(name, path) != path:
        name = f"{name}-{blake2b(path.encode(), digest_size=4).hexdigest()}"
        taken[name] = path
    return name
