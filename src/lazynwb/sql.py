"""`get_sql_context`: every table of the files in one SQL context."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import polars as pl

from lazynwb.errors import LazyNWBError, TableNotFoundError
from lazynwb.lookup.load import load_listing
from lazynwb.progress import Progress
from lazynwb.scan import scan_nwb
from lazynwb.sources.discover import expand

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lazynwb.sources.discover import Sources
    from lazynwb.sources.source import Source

_LOGGER = logging.getLogger("lazynwb")
#: What the one-row tables of the metadata are called; `general` stays as a second name of the session's.
_METADATA_NAMES = {"general": "session", "general/subject": "subject"}


def get_sql_context(  # noqa: PLR0913 - the options of a context
    nwb_sources: Sources,
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
    storage_options: Mapping[str, Any] | None = None,
    **sqlcontext_kwargs: Any,  # noqa: ANN401 - passed on to Polars
) -> pl.SQLContext[Any]:
    """Make an SQL context with every table and series of the files, under its last path part.

    Queries run with the same pushdown as `scan_nwb`: only the columns and rows that they need are read.

    Parameters
    ----------
    nwb_sources : path or iterable of paths
        As for `scan_nwb`.
    full_path : bool
        Name tables by their whole path (`"intervals/trials"`, to be quoted in SQL).
    min_file_count : int
        Leave out tables that fewer of the files looked at have.
    exclude_array_columns, exclude_timeseries : bool
        Leave out columns with an array in each row; series altogether.
    ignore_errors : bool
        Skip files that cannot be read, in the search for tables and in queries.
    disable_progress : bool
        Show no progress bars.
    infer_schema_length : int or None
        Look at the first n files for tables and their schemas; None looks at all.
    table_names : iterable of str or None
        Only these tables, by name or path.
    rename_general_metadata : bool
        Call `/general` `session` (it stays reachable as `general`).
    storage_options : mapping or None
        As for `scan_nwb`.
    **sqlcontext_kwargs
        For `polars.SQLContext`, such as `eager=True`.

    Returns
    -------
    SQLContext
        Tables that share their last path part have as much of their path as tells them apart
        (`"behavior/position"`, to be quoted). A table whose schema cannot be had is left out, with a
        warning.

    Raises
    ------
    TableNotFoundError
        If the files have no table at all, or none that was asked for.
    """
    sources = expand(nwb_sources, storage_options)
    looked_at = sources[:infer_schema_length]
    holders = _find_tables(
        looked_at,
        series=not exclude_timeseries,
        ignore_errors=ignore_errors,
        disable_progress=disable_progress,
    )
    tables = [path for path, having in holders.items() if len(having) >= min_file_count]
    names = {path: path for path in tables} if full_path else _names(tables, rename_general_metadata)
    if table_names is not None:
        wanted = {
            name.strip("/") for name in ([table_names] if isinstance(table_names, str) else table_names)
        }
        names = {p: name for p, name in names.items() if wanted & {p, name, p.rsplit("/", 1)[-1]}}
    if not names:
        message = f"no tables were found in {sources[0].name}" + (
            f" and {len(sources) - 1} more files" if len(sources) > 1 else ""
        )
        raise TableNotFoundError(message)
    frames: dict[str, pl.LazyFrame] = {}
    for path, name in names.items():
        try:
            frames[name] = scan_nwb(
                # Files that are known to lack the table need not be asked again.
                holders[path] + sources[len(looked_at) :],
                path,
                infer_schema_length=len(holders[path]),
                exclude_array_columns=exclude_array_columns,
                ignore_errors=ignore_errors,
                disable_progress=disable_progress,
            )
        except LazyNWBError as error:
            _LOGGER.warning("table /%s was left out of the SQL context: %s", path, error)
    if "session" in frames and "general" not in frames:
        frames["general"] = frames["session"]
    return pl.SQLContext(frames, **sqlcontext_kwargs)


def _find_tables(
    sources: Sequence[Source], *, series: bool, ignore_errors: bool, disable_progress: bool
) -> dict[str, list[Source]]:
    """Return every table's path, with the files that have it."""
    holders: dict[str, list[Source]] = {}
    with Progress("Finding tables in NWB", len(sources), disabled=disable_progress) as progress:
        for source in sources:
            try:
                for table in load_listing(source).tables(series=series):
                    holders.setdefault(table, []).append(source)
            except LazyNWBError as error:
                if not ignore_errors:
                    raise
                _LOGGER.warning("skipped in the search for tables: %s", error)
            progress.update()
    return holders


def _names(tables: Sequence[str], rename: bool) -> dict[str, str]:  # noqa: FBT001
    """Give each table the shortest end of its path that no other table's path has."""
    fixed = {path: _METADATA_NAMES[path] for path in tables if rename and path in _METADATA_NAMES}
    reserved = {*fixed.values(), *fixed}
    names = {}
    for path in tables:
        parts = path.split("/")
        ends = ["/".join(parts[-depth:]) for depth in range(1, len(parts) + 1)]
        free = (end for end in ends if end not in reserved and _is_unique(end, path, tables))
        names[path] = fixed.get(path) or next(free, path)
    return names


def _is_unique(end: str, path: str, tables: Sequence[str]) -> bool:
    return not any(other != path and (other == end or other.endswith("/" + end)) for other in tables)
