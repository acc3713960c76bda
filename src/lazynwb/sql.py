"""`get_sql_context`: every table of the files in one SQL context."""

from __future__ import annotations

import logging
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import polars as pl

from lazynwb.catalog.lengths import shown_name
from lazynwb.engine.batches import run
from lazynwb.errors import LazyNWBError, TableNotFoundError
from lazynwb.formats.nwb.names import OTHER_PATHS
from lazynwb.index.scan_sources import sources_of
from lazynwb.lookup.schema import is_pattern
from lazynwb.lookup.session_columns import SessionColumn, find_session_columns
from lazynwb.lookup.table_listing import broken_link_hint, find_tables, no_tables_message, shortest_names
from lazynwb.scan import plan_scan, table_frame
from lazynwb.suggestions import similar_or_existing

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from lazynwb.engine.plan import ScanPlan
    from lazynwb.index.reader import Index
    from lazynwb.storage.resolve import Sources
    from lazynwb.storage.source import Source

_LOGGER = logging.getLogger("lazynwb")
#: Errors of Polars for a column that a table lacks.
_UNKNOWN_COLUMN = (pl.exceptions.ColumnNotFoundError, pl.exceptions.SQLInterfaceError)
#: Message of Polars for a table that a context lacks.
NO_SUCH_TABLE = re.compile(r"relation '(.+)' was not found")
#: Names of the one-row metadata tables; `general` is another name of `session`.
METADATA_NAMES = {"general": "session", "general/subject": "subject"}


class _Table:
    """A table of an SQL context, which is planned when the first query names it.

    Parameters
    ----------
    name : str
        Name in the context.
    sources : tuple of Source
        Files to scan, first those that are known to have the table.
    path : str
        Path with the leading slash.
    session : tuple of SessionColumn
        Metadata of the files as columns.
    **options
        Options of `plan_scan`.

    Attributes
    ----------
    error : BaseException or None
        Error of the last attempt to plan the scan.
    left_out : dict of str to str
        Omitted columns, with the reasons.
    """

    def __init__(
        self,
        name: str,
        sources: tuple[Source, ...],
        path: str,
        session: tuple[SessionColumn, ...],
        **options: Any,  # noqa: ANN401 - those of plan_scan
    ) -> None:
        self.error: BaseException | None = None
        self.left_out: dict[str, str] = {}
        self._name = name
        self._sources = sources
        self._path = path
        self._session = session
        self._options = options
        self._plan: ScanPlan | None = None

    def schema(self) -> pl.Schema:
        """Plan the scan, and return all columns, including internal ones."""
        return pl.Schema(self._planned().all_columns)

    def frame(self) -> pl.LazyFrame:
        """Return the LazyFrame of the table."""
        has_lengths = self._options["length_columns"] is not False
        return table_frame(self.run, self.schema, self._path, self._sources, has_lengths=has_lengths)

    def run(
        self, with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None
    ) -> Iterator[pl.DataFrame]:
        """Yield batches of rows."""
        return run(self._planned(), with_columns, predicate, n_rows)

    def _planned(self) -> ScanPlan:
        if self._plan is None:
            conflicts: dict[str, str] = {}
            try:
                plan = plan_scan(self._sources, self._path, conflicts=conflicts, **self._options)
            except BaseException as error:  # Polars replaces it by an error of its own
                self.error = error
                raise
            taken = set(map(shown_name, plan.schema))
            added = tuple(column for column in self._session if column.name not in taken)
            for column, message in conflicts.items():
                _LOGGER.warning("%s.%s was left out of the SQL context: %s", self._name, column, message)
            self.left_out = conflicts | dict(plan.broken)
            self.error = None
            self._plan = plan._replace(session=added)
        return self._plan


class _Context(pl.SQLContext[Any]):
    """An SQL context whose tables are planned when a query first uses them.

    Its errors about omitted columns contain the reason.
    """

    nwb_tables: tuple[_Table, ...] = ()
    broken_links: Mapping[str, str] = MappingProxyType({})

    def execute(self, query: str, *, eager: bool | None = None) -> Any:  # noqa: ANN401 - as Polars
        for table in self.nwb_tables:
            table.error = None
        try:
            found = super().execute(query)
            if isinstance(found, pl.LazyFrame):
                found.collect_schema()  # Polars resolves columns only here
        except pl.exceptions.PolarsError as error:
            if failures := [table.error for table in self.nwb_tables if table.error is not None]:
                raise failures[0] from None
            what = str(error).partition("\n")[0]
            missing = what.partition(";")[0]
            absent = NO_SUCH_TABLE.search(what)
            if absent is not None:
                reason = broken_link_hint(absent[1], self.broken_links)
                reason = reason or similar_or_existing(absent[1], self.tables())
                raise type(error)(what + reason) from None
            reasons = [
                reason
                for table in self.nwb_tables
                for name, reason in table.left_out.items()
                if f"'{name}'" in missing or f'"{name}"' in missing
            ]
            if not reasons or not isinstance(error, _UNKNOWN_COLUMN):
                raise
            raise type(error)(f"{what}; it was left out of the SQL context: {'; '.join(reasons)}") from None
        return found.collect() if eager and isinstance(found, pl.LazyFrame) else found


def get_sql_context(  # noqa: C901, PLR0913 - the options of a context
    nwb_sources: Sources | None,
    *,
    full_path: bool = False,
    min_file_count: int = 1,
    exclude_array_columns: bool = False,
    exclude_timeseries: bool = False,
    ignore_errors: bool = True,
    disable_progress: bool = False,
    infer_schema_length: int | None = None,
    table_names: Iterable[str] | None = None,
    rename_general_metadata: bool = True,
    session_columns: str | Iterable[str] | Mapping[str, str] | None = None,
    length_columns: bool | str | Iterable[str] = False,
    storage_options: Mapping[str, Any] | None = None,
    index: Index | str | os.PathLike[str] | None = None,
    **sqlcontext_kwargs: Any,  # noqa: ANN401 - passed on to Polars
) -> pl.SQLContext[Any]:
    """Create an SQL context with all tables and series of the files, named by the last part of their paths.

    Queries run with the same pushdown as `scan_nwb`: only the columns and rows that they need are read.

    Parameters
    ----------
    nwb_sources : path or iterable of paths, or None
        As for `scan_nwb`.
    full_path : bool
        Whether to name tables by their full path (`"intervals/trials"`, which must be quoted in SQL); the
        metadata table remains `session`.
    min_file_count : int
        Minimum number of inspected files with a table; tables of fewer files are left out.
    exclude_array_columns : bool
        Whether to leave out columns with an array or a list in each row.
    exclude_timeseries : bool
        Whether to leave out series.
    ignore_errors : bool
        Whether to skip files that cannot be read, in the search for tables and in queries.
    disable_progress : bool
        Whether to hide progress bars.
    infer_schema_length : int or None
        Number of files that are inspected for tables and schemas; None for all.
    table_names : iterable of str or None
        Tables to register, by name or path. A glob pattern registers all matching tables as one table, as for
        `scan_nwb`, named like the pattern: `FROM "/intervals/*_presentations"`, in quotation marks.
    rename_general_metadata : bool
        Whether to register `/general` as `session` (without `full_path` also as `general`).
    session_columns : str, iterable of str or mapping of str to str, or None
        As for `scan_nwb`: metadata of the files as columns of every table; conditions on them skip whole
        files. A column of the same name in a table takes precedence.
    length_columns : bool, str or iterable of str
        As for `scan_nwb`, in each table with such list columns. A column of the same name takes precedence.
    storage_options : mapping or None
        As for `scan_nwb`.
    index : path or URL or Index or None
        As for `scan_nwb`. The tables of the index (see `scan_index`) are registered as `index_sessions`,
        `index_tables` and `index_columns`.
    **sqlcontext_kwargs
        Options of `polars.SQLContext`, such as `eager=True`.

    Returns
    -------
    SQLContext
        A context whose `execute` returns LazyFrames (DataFrames with `eager=True`) and raises the errors of
        `scan_nwb`. If the last part of a path is ambiguous, the name has further parts
        (`"behavior/position"`, which must be quoted). The schema of a table is inferred when a query first
        uses the table. Columns whose types differ between files are left out with a warning; a query that
        selects one fails with the reason.

    Raises
    ------
    TableNotFoundError
        If the files have no tables, or none of `table_names`.
    SchemaError
        If a session column does not exist.

    Examples
    --------
    >>> context = lazynwb.get_sql_context("sessions/*.nwb")  # doctest: +SKIP
    >>> context.execute(  # doctest: +SKIP
    ...     "SELECT location, count(*) AS n FROM units WHERE presence_ratio > 0.9 GROUP BY location"
    ... ).collect()
    """
    sources, catalogs = sources_of(nwb_sources, index, storage_options)
    sampled = sources[:infer_schema_length]
    failures: list[str] = []
    broken: dict[str, str] = {}
    holders = find_tables(
        sampled,
        failures=failures,
        broken=broken,
        series=not exclude_timeseries,
        ignore_errors=ignore_errors,
        disable_progress=disable_progress,
        catalogs=catalogs,
    )
    tables = [path for path, having in holders.items() if len(having) >= min_file_count]
    fixed = METADATA_NAMES if rename_general_metadata else {}
    session_name = fixed.get("general", "general")
    by_path = {path: session_name if path == "general" else path for path in tables}
    names = by_path if full_path else shortest_names(tables, fixed)
    patterns: list[str] = []
    if table_names is not None:
        selected = [table_names] if isinstance(table_names, str) else list(table_names)
        requested = {name.strip("/") for name in selected}
        patterns = [
            name for name in selected if is_pattern(name) and name.strip("/") not in {*names, *names.values()}
        ]
        names = {p: name for p, name in names.items() if requested & {p, name, p.rsplit("/", 1)[-1]}}
    if not names and not patterns:
        reasons = [broken_link_hint(name, broken) for name in (broken if table_names is None else selected)]
        message = (
            f"no table {selected[0]!r} in the files{similar_or_existing(selected[0], tables)}"
            if table_names and tables
            else no_tables_message(sources, failures)
        )
        raise TableNotFoundError(message + next(filter(None, reasons), ""))
    session: tuple[SessionColumn, ...] = ()
    if session_columns is not None:
        session = find_session_columns(
            sources,
            session_columns,
            (),
            infer_schema_length,
            ignore_errors=ignore_errors,
            disable_progress=disable_progress,
            catalogs=catalogs,
        )
    lengths = length_columns if isinstance(length_columns, bool | str) else list(length_columns)
    # Files that are known to lack a table are left out.
    having = {path: _sources_with_table(path, holders, sampled) for path in names}
    scans: dict[str, tuple[str, tuple[Source, ...], int | None]] = {
        name: (f"/{path}", (*having[path], *sources[len(sampled) :]), len(having[path]))
        for path, name in names.items()
    }
    scans |= {pattern: (pattern, sources, infer_schema_length) for pattern in patterns}
    registered = {
        name: _Table(
            name,
            files,
            path,
            session,
            infer_schema_length=first,
            exclude_array_columns=exclude_array_columns,
            length_columns=lengths,
            ignore_errors=ignore_errors,
            disable_progress=disable_progress,
            catalogs=catalogs,
        )
        for name, (path, files, first) in scans.items()
    }
    for pattern in patterns:  # a listing does not resolve patterns
        try:
            registered[pattern].schema()
        except LazyNWBError as error:
            if len(registered) == 1:
                raise
            del registered[pattern]
            _LOGGER.warning("table %s was left out of the SQL context: %s", pattern, error)
    frames = {name: table.frame() for name, table in registered.items()}
    if not full_path and "session" in frames and "general" not in frames:
        frames["general"] = frames["session"]
    if catalogs is not None:
        from lazynwb.index.model import KINDS
        from lazynwb.scan import scan_index

        for kind in KINDS:
            name = f"index_{kind}"
            if name in frames:  # a table of the files
                frames[f"/{name}"] = frames[name]
            frames[name] = scan_index(catalogs, kind)
    context = _Context(frames, **sqlcontext_kwargs)
    context.nwb_tables = tuple(registered.values())
    context.broken_links = broken
    return context


def _sources_with_table(
    path: str, holders: Mapping[str, list[Source]], sources: Sequence[Source]
) -> list[Source]:
    """Return the files with a table, also under the path that it has in older or newer files."""
    other = holders.get(OTHER_PATHS.get(path, ""), [])
    if not other:
        return holders[path]
    holders_of_either = {*holders[path], *other}
    return [source for source in sources if source in holders_of_either]
