"""`get_df` and `get`: eager reading of tables, by path or by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from polars import selectors

from lazynwb.catalog.dtypes import INTERNAL, NWB_PATH, TABLE_INDEX, TABLE_PATH
from lazynwb.catalog.lengths import length_name, shown_name
from lazynwb.engine.late_columns import gather_columns
from lazynwb.errors import ColumnNotFoundError, LazyNWBError, may_skip
from lazynwb.frames.pandas_output import as_frame, wants_polars
from lazynwb.lookup.loader import load_table
from lazynwb.lookup.names import find_table, match_tables
from lazynwb.lookup.prefetch import load_tables
from lazynwb.lookup.provenance import Origins
from lazynwb.lookup.schema import is_pattern
from lazynwb.lookup.session_columns import session_names
from lazynwb.scan import lazy_frame, plan_scan, without_unreadable
from lazynwb.storage.resolve import expand
from lazynwb.suggestions import did_you_mean, join_names

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import pandas as pd

    from lazynwb.lookup.loader import TableFile
    from lazynwb.series.timeseries import TimeSeries
    from lazynwb.storage.resolve import PathOrUrl, Sources
    from lazynwb.storage.source import Source

#: One-row metadata tables, whose list columns (keywords, experimenters) are small and always included.
_METADATA_TABLES = frozenset({"/", "general", "general/subject"})
#: Maximum number of names in an error.
_MAX_LISTED = 40


def get_df(  # noqa: PLR0913, PLR0917 - the options of a frame
    nwb_data_sources: Sources,
    search_term: str,
    exact_path: bool = False,  # noqa: FBT001, FBT002 - positional in existing code
    include_column_names: str | Iterable[str] | None = None,
    exclude_column_names: str | Iterable[str] | None = None,
    nwb_path_to_row_indices: Mapping[PathOrUrl, Sequence[int]] | None = None,
    exclude_array_columns: bool = True,  # noqa: FBT001, FBT002
    parallel: bool = True,  # noqa: FBT001, FBT002, ARG001
    use_process_pool: bool = False,  # noqa: FBT001, FBT002, ARG001
    disable_progress: bool = False,  # noqa: FBT001, FBT002
    raise_on_missing: bool = False,  # noqa: FBT001, FBT002
    ignore_errors: bool = False,  # noqa: FBT001, FBT002
    low_memory: bool = False,  # noqa: FBT001, FBT002, ARG001
    as_polars: bool | None = None,  # noqa: FBT001
    *,
    session_columns: str | Iterable[str] | Mapping[str, str] | None = None,
    length_columns: bool | str | Iterable[str] = False,
    storage_options: Mapping[str, Any] | None = None,
) -> pl.DataFrame | pd.DataFrame:
    """Read one table of any number of NWB files into a frame.

    Only the requested columns and rows are read. `scan_nwb` is the lazy equivalent, and better if rows are
    filtered. Columns that are left out here can be added later, for the remaining rows, with
    `merge_array_column`.

    Parameters
    ----------
    nwb_data_sources : path or URL, or iterable of these
        As for `scan_nwb`.
    search_term : str
        The path of a table or series, with or without the leading slash; a shortcut (`units`, `trials`,
        `epochs`, `electrodes`, `session`, `subject`); or the end of a path: `"running_speed"`,
        `"behavior/running_speed"`. Names are matched exactly. A glob pattern selects all matching tables and
        series, as for `scan_nwb`: `"/intervals/*_presentations"`.
    exact_path : bool
        Whether the term is always a path.
    include_column_names : str or iterable of str, or None
        Columns to read, which may be array columns.
    exclude_column_names : str or iterable of str, or None
        Columns to leave out; names that no file has are ignored.
    nwb_path_to_row_indices : mapping of path or URL to sequence of int, or None
        Rows to read, counted from 0, by file; files that it does not name are not read.
    exclude_array_columns : bool
        Whether to leave out columns with an array or a list in each row, unless they are included by name.
        Lists of metadata (`keywords`) are kept.
    parallel : bool
        Accepted for compatibility: reading is always parallel, in threads.
    use_process_pool : bool
        Accepted for compatibility, without effect.
    low_memory : bool
        Accepted for compatibility, without effect.
    disable_progress : bool
        Whether to hide progress bars.
    raise_on_missing : bool
        Whether to raise if a file lacks the table; by default such files are skipped with one warning.
    ignore_errors : bool
        Whether to skip files that cannot be read, with a warning.
    as_polars : bool or None
        True for Polars, False for pandas, None for `config.use_polars`, whose default is pandas, which then
        must be installed.
    session_columns : str, iterable of str or mapping of str to str, or None
        As for `scan_nwb`: metadata of the files as columns of every row. Lists are included unless they are
        excluded by name.
    length_columns : bool, str or iterable of str
        As for `scan_nwb`: for example `spike_times_len`, the number of spikes of each unit, whether or not
        `spike_times` is read.
    storage_options : mapping or None
        As for `scan_nwb`.

    Returns
    -------
    pandas.DataFrame or polars.DataFrame
        Columns and types as in `scan_nwb`, then those of `session_columns`, then `_nwb_path`, `_table_path`
        and `_table_index`. Rows are in the order of the sources, and within a file in the order of the table
        or of `nwb_path_to_row_indices`. In pandas, the index is the row number, and arrays and lists of
        numbers are NumPy arrays; arrays of several dimensions are lists of one-dimensional arrays, which
        `np.array(cell)` combines.

    Raises
    ------
    SourceNotFoundError or NotNWBError
        If a file does not exist, or is not an NWB file.
    TableNotFoundError
        If no file has the table, or several tables match the name.
    ColumnNotFoundError
        If no file has a column that is included by name.
    SchemaError
        If the types of a column that is read have no common type in two files; if a session column does not
        exist or is also a column of the table; or as `scan_nwb` does for `length_columns`.
    MissingPackageError
        If pandas is required and not installed.

    Notes
    -----
    Ragged columns (VectorData with a VectorIndex, hdmf-common) have a list in each row, n-dimensional ones an
    array of shape `shape[1:]`. Values are in the units of the file: times in seconds since the
    `timestamps_reference_time` of the session.

    Examples
    --------
    >>> lazynwb.get_df("sessions/*.nwb", "trials", as_polars=True)  # doctest: +SKIP
    >>> lazynwb.get_df("session.nwb", "units", include_column_names="spike_times")  # doctest: +SKIP
    """
    wants_polars(as_polars)  # raises before anything is read
    lengths = length_columns if isinstance(length_columns, bool) else _as_list(length_columns)
    session = session_names(session_columns)
    sources = expand(nwb_data_sources, storage_options)
    row_numbers = None
    if nwb_path_to_row_indices is not None:
        row_numbers = _rows_by_source(sources, nwb_path_to_row_indices, storage_options)
        sources = list(row_numbers)
    path = _find_path(sources, search_term, exact=exact_path, ignore_errors=ignore_errors)
    if row_numbers is not None and is_pattern(path):
        raise LazyNWBError(
            f"nwb_path_to_row_indices counts the rows of one table of each file: {search_term!r} may match "
            "several; use scan_nwb with a filter on _table_path and _table_index"
        )
    plan = plan_scan(
        tuple(sources),
        f"/{path.lstrip('/')}",
        raise_on_missing=raise_on_missing,
        ignore_errors=ignore_errors,
        disable_progress=disable_progress,
        session_columns=session or None,
        length_columns=lengths,
    )
    frame = lazy_frame(plan)
    schema = frame.collect_schema()
    names = _select_columns(
        schema,
        path,
        include_column_names,
        exclude_column_names,
        session,
        broken=dict(plan.broken),
        without_arrays=exclude_array_columns,
    )
    plan.check_types(names)
    if row_numbers is None:
        # By selector, because Polars interprets the names "*" and "^...$" as patterns.
        return as_frame(frame.select(selectors.by_name(*names)).collect(), as_polars)
    columns = {name: schema[name] for name in names if name not in session}
    if isinstance(lengths, bool):
        lengths = [name for name, dtype in schema.items() if lengths and isinstance(dtype, pl.List)]
    hidden = {shown_name(length): length for length in map(length_name, lengths)}
    columns = {hidden.get(name, name): dtype for name, dtype in columns.items()}
    found = _read_rows(
        row_numbers, path, columns, ignore_errors=ignore_errors, disable_progress=disable_progress
    )
    found = found.rename(shown_name)
    if len(columns) < len(names):
        own = [name for name in names if name in session]
        files = frame.select(selectors.by_name(NWB_PATH, *own)).unique(NWB_PATH).collect()
        found = found.join(files, on=NWB_PATH, how="left", maintain_order="left")
        found = found.select(selectors.by_name(*names))
    return as_frame(found, as_polars)


def get(  # noqa: PLR0913 - the options of a frame
    nwb_data_sources: Sources,
    search_term: str,
    *,
    as_df: bool = False,
    exact_path: bool = False,
    include_column_names: str | Iterable[str] | None = None,
    exclude_column_names: str | Iterable[str] | None = None,
    exclude_array_columns: bool = True,
    use_process_pool: bool = False,  # noqa: ARG001
    disable_progress: bool = False,
    raise_on_missing: bool = False,
    ignore_errors: bool = False,
    as_polars: bool | None = None,
    length_columns: bool | str | Iterable[str] = False,
    storage_options: Mapping[str, Any] | None = None,
) -> pl.DataFrame | pd.DataFrame | TimeSeries:
    """Return a table as a frame, or a series of one file as a `TimeSeries`.

    Parameters
    ----------
    nwb_data_sources : path or URL, or iterable of these
        As for `get_df`.
    search_term : str
        The path of a table or series, a shortcut or the end of a path.
    as_df : bool
        Whether to return a frame for a series, too; series of several files are always frames.
    exact_path : bool
        Whether the term is always a path.
    include_column_names : str or iterable of str, or None
        Columns to read, for frames.
    exclude_column_names : str or iterable of str, or None
        Columns to leave out, for frames.
    exclude_array_columns : bool
        Whether to leave out columns with an array or a list in each row, for frames.
    use_process_pool : bool
        Accepted for compatibility, without effect.
    disable_progress : bool
        Whether to hide progress bars.
    raise_on_missing : bool
        Whether to raise if a file lacks the table.
    ignore_errors : bool
        Whether to skip files that cannot be read, with a warning.
    as_polars : bool or None
        Whether to return a Polars frame.
    length_columns : bool, str or iterable of str
        As for `scan_nwb`, for frames.
    storage_options : mapping or None
        As for `scan_nwb`.

    Returns
    -------
    pandas.DataFrame or polars.DataFrame or TimeSeries
        A series if the term names one and there is one file; otherwise a frame.

    Raises
    ------
    LazyNWBError
        As `get_df` and `get_timeseries` do.
    """
    sources = expand(nwb_data_sources, storage_options)
    path = _find_path(sources, search_term, exact=exact_path, ignore_errors=ignore_errors)
    if not as_df and not is_pattern(path) and len(sources) == 1:
        file = load_table(sources[0], path)
        if file is not None and file.table.kind == "series":
            from lazynwb.series.timeseries import TimeSeries, get_timeseries

            series = get_timeseries(sources[0], path, exact_path=True)
            assert isinstance(series, TimeSeries)  # noqa: S101 - one path means one series
            return series
    return get_df(
        sources,
        path,
        exact_path=True,
        include_column_names=include_column_names,
        exclude_column_names=exclude_column_names,
        exclude_array_columns=exclude_array_columns,
        disable_progress=disable_progress,
        raise_on_missing=raise_on_missing,
        ignore_errors=ignore_errors,
        as_polars=as_polars,
        length_columns=length_columns,
    )


def _find_path(sources: Sequence[Source], term: str, *, exact: bool, ignore_errors: bool) -> str:
    """Return the path of a search term; glob patterns are returned unchanged."""
    if is_pattern(term):
        pattern = f"/{term.lstrip('/')}" if exact else term
        if match_tables(sources, pattern, ignore_errors=ignore_errors) is not None:
            return pattern
    return find_table(sources, term, exact=exact, ignore_errors=ignore_errors)


def _as_list(names: str | Iterable[str] | None) -> list[str]:
    if names is None:
        return []
    return [names] if isinstance(names, str) else list(names)


def _select_columns(  # noqa: PLR0913 - the options of a frame
    schema: Mapping[str, pl.DataType],
    path: str,
    include: str | Iterable[str] | None,
    exclude: str | Iterable[str] | None,
    session: Collection[str],
    *,
    broken: Mapping[str, str],
    without_arrays: bool,
) -> list[str]:
    """Return the names of the columns to read, in the order of the schema."""
    included, excluded = _as_list(include), set(_as_list(exclude))
    both = [name for name in included if name in excluded]
    if both:
        raise ValueError(f"column {both[0]!r} is both in include_column_names and in exclude_column_names")
    for name in included:
        if name not in schema:
            raise ColumnNotFoundError(broken.get(name) or _unknown_column_message(name, schema, path))
    if include is not None:
        chosen = {*included, *session, *INTERNAL}
    elif without_arrays:
        readable = without_unreadable(schema, path, with_arrays=path in _METADATA_TABLES)
        chosen = {name for name in schema if name in session or name in readable}
    else:
        chosen = set(schema)
    return [name for name in schema if name in chosen - excluded]


def _unknown_column_message(name: str, schema: Mapping[str, pl.DataType], path: str) -> str:
    existing = [column for column in schema if column not in INTERNAL]
    hint = did_you_mean(name, existing)
    known = join_names(existing, _MAX_LISTED)
    return f"no file has a column {name!r} in /{path.lstrip('/')}{hint}; available columns: {known}"


# -- single rows -----------------------------------------------------------------------------------------


def _rows_by_source(
    sources: Sequence[Source],
    given: Mapping[Any, Sequence[int]],
    storage_options: Mapping[str, Any] | None,
) -> dict[Source, np.ndarray]:
    """Return the row numbers by file, in the order of the sources.

    Raises
    ------
    LazyNWBError
        If a path is not among the sources, or two paths are the same file, or a row number is not an integer.
    """
    by_path: dict[str, np.ndarray] = {}
    known = {source.path for source in sources}
    for key, rows in given.items():
        named = [key] if key in known else [source.path for source in expand(key, storage_options)]
        numbers = np.asarray(rows)
        if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
            raise LazyNWBError(f"nwb_path_to_row_indices must have a list of row numbers for {key}: {rows!r}")
        for path in named:
            if path not in known:
                raise LazyNWBError(
                    f"nwb_path_to_row_indices names {path}, which is not among nwb_data_sources"
                )
            if path in by_path:
                raise LazyNWBError(
                    f"nwb_path_to_row_indices has {path} twice, once as {key}: combine the row numbers"
                )
            by_path[path] = numbers.astype(np.int64)
    return {source: by_path[source.path] for source in sources if source.path in by_path}


def _read_rows(
    row_numbers: Mapping[Source, np.ndarray],
    path: str,
    columns: Mapping[str, pl.DataType],
    *,
    ignore_errors: bool,
    disable_progress: bool,
) -> pl.DataFrame:
    files: list[TableFile] = []
    rows: list[np.ndarray] = []
    for numbers, load in zip(row_numbers.values(), load_tables(row_numbers, path), strict=True):
        try:
            file = load()
        except LazyNWBError as error:
            if not may_skip(error, ignore_errors=ignore_errors):
                raise
            continue
        if file is not None:
            files.append(file)
            rows.append(numbers)
    counts = [len(numbers) for numbers in rows]
    owners = np.repeat(np.arange(len(files)), counts)
    every = np.concatenate([*rows, np.zeros(0, np.int64)])
    origins = Origins(files, owners, every)
    stored = {name: dtype for name, dtype in columns.items() if name not in INTERNAL}
    found = {
        series.name: series
        for series in gather_columns(origins, stored, frozenset(), disable_progress=disable_progress)
    }
    paths = pl.Series(NWB_PATH, [file.source.path for file in files], dtype=pl.String)
    found[NWB_PATH] = paths.gather(owners)
    found[TABLE_PATH] = pl.repeat(path, len(every), dtype=pl.String, eager=True).alias(TABLE_PATH)
    found[TABLE_INDEX] = pl.Series(TABLE_INDEX, every).cast(pl.UInt32)
    return pl.DataFrame([found[name] for name in columns])
