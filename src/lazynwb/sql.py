"""`get_sql_context`: every table of the files in one SQL context."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import polars as pl

from lazynwb.errors import LazyNWBError, TableNotFoundError
from lazynwb.index.scan_sources import sources_of
from lazynwb.lookup.schema import is_pattern
from lazynwb.lookup.session_columns import SessionColumn, find_session_columns
from lazynwb.lookup.table_listing import find_tables, shortest_names
from lazynwb.scan import lazy_frame, plan_scan

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Iterable, Mapping

    from lazynwb.index.reader import Index
    from lazynwb.storage.resolve import Sources
    from lazynwb.storage.source import Source

_LOGGER = logging.getLogger("lazynwb")
#: What the one-row tables of the metadata are called; `general` stays as a second name of the session's.
METADATA_NAMES = {"general": "session", "general/subject": "subject"}


class _Context(pl.SQLContext[Any]):
    """An SQL context whose errors about columns that were left out give the reason."""

    left_out: Mapping[str, Collection[str]] = {}

    def execute(self, query: str, *, eager: bool | None = None) -> Any:  # noqa: ANN401 - as Polars
        try:
            found = super().execute(query, eager=eager)
            if self.left_out and isinstance(found, pl.LazyFrame):
                found.collect_schema()  # Polars looks for columns only when it resolves the query
        except (pl.exceptions.ColumnNotFoundError, pl.exceptions.SQLInterfaceError) as error:
            what = str(error).partition("\n")[0]
            missing = what.partition(";")[0]
            reasons = [
                reason
                for name, found_reasons in self.left_out.items()
                if f"'{name}'" in missing or f'"{name}"' in missing
                for reason in found_reasons
            ]
            if not reasons:
                raise
            raise type(error)(f"{what}; it was left out of the SQL context: {'; '.join(reasons)}") from None
        return found


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
    storage_options: Mapping[str, Any] | None = None,
    index: Index | str | os.PathLike[str] | None = None,
    **sqlcontext_kwargs: Any,  # noqa: ANN401 - passed on to Polars
) -> pl.SQLContext[Any]:
    """Make an SQL context with every table and series of the files, under its last path part.

    Queries run with the same pushdown as `scan_nwb`: only the columns and rows that they need are read.

    Parameters
    ----------
    nwb_sources : path or iterable of paths, or None
        As for `scan_nwb`.
    full_path : bool
        Name tables by their whole path (`"intervals/trials"`, to be quoted in SQL), but for the session's.
    min_file_count : int
        Leave out tables that fewer of the files looked at have.
    exclude_array_columns : bool
        Leave out columns with an array in each row.
    exclude_timeseries : bool
        Leave out series.
    ignore_errors : bool
        Skip files that cannot be read, in the search for tables and in queries.
    disable_progress : bool
        Show no progress bars.
    infer_schema_length : int or None
        Look at the first n files for tables and their schemas; None looks at all.
    table_names : iterable of str or None
        Only these tables, by name or path. A glob pattern makes one table of all that match, as for
        `scan_nwb`, under the pattern's own name: `FROM "/intervals/*_presentations"`, in quotation marks.
    rename_general_metadata : bool
        Call `/general` `session` (without `full_path` it stays reachable as `general`).
    session_columns : str, iterable of str or mapping of str to str, or None
        As for `scan_nwb`: metadata of the files as columns of every table, on which conditions skip whole
        files. A table that has a column of that name keeps its own.
    storage_options : mapping or None
        As for `scan_nwb`.
    index : path or URL, Index or None
        As for `scan_nwb`. Its own tables (see `scan_index`) are in the context as `index_sessions`,
        `index_tables` and `index_columns`.
    **sqlcontext_kwargs
        For `polars.SQLContext`, such as `eager=True`.

    Returns
    -------
    SQLContext
        Tables that share their last path part have as much of their path as tells them apart
        (`"behavior/position"`, to be quoted). Columns on whose types the files disagree, and
        tables whose schema cannot be inferred, are left out with a warning; a query that selects such a
        column fails with the reason.

    Raises
    ------
    TableNotFoundError
        If the files have no table at all, or none that was asked for.
    SchemaError
        If there is no such session column.
    """
    sources, catalogs = sources_of(nwb_sources, index, storage_options)
    looked_at = sources[:infer_schema_length]
    holders = find_tables(
        looked_at,
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
        given = [table_names] if isinstance(table_names, str) else list(table_names)
        wanted = {name.strip("/") for name in given}
        patterns = [
            name for name in given if is_pattern(name) and name.strip("/") not in {*names, *names.values()}
        ]
        names = {p: name for p, name in names.items() if wanted & {p, name, p.rsplit("/", 1)[-1]}}
    if not names and not patterns:
        raise TableNotFoundError(
            f"no tables were found in {sources[0].name}"
            + (f" and {len(sources) - 1} more files" if len(sources) > 1 else "")
        )
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
    frames: dict[str, pl.LazyFrame] = {}
    left_out: dict[str, list[str]] = {}
    # Files that are known to lack a table need not be asked again.
    scans: dict[str, tuple[str, tuple[Source, ...], int | None]] = {
        name: (path, (*holders[path], *sources[len(looked_at) :]), len(holders[path]))
        for path, name in names.items()
    }
    scans |= {pattern: (pattern, sources, infer_schema_length) for pattern in patterns}
    for name, (path, files, first) in scans.items():
        conflicts: dict[str, str] = {}
        try:
            plan = plan_scan(
                files,
                path,
                infer_schema_length=first,
                exclude_array_columns=exclude_array_columns,
                ignore_errors=ignore_errors,
                disable_progress=disable_progress,
                conflicts=conflicts,
                catalogs=catalogs,
            )
            added = tuple(column for column in session if column.name not in plan.schema)
            frames[name] = lazy_frame(plan._replace(session=added))
        except LazyNWBError as error:
            if patterns and len(scans) == 1:
                raise
            conflicts = {}
            _LOGGER.warning("table /%s was left out of the SQL context: %s", path.lstrip("/"), error)
        for column, message in conflicts.items():
            left_out.setdefault(column, []).append(message)
            _LOGGER.warning("%s.%s was left out of the SQL context: %s", name, column, message)
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
    context.left_out = left_out
    return context
