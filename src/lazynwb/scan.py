"""`scan_nwb` and `read_nwb`: tables over many files as one Polars frame.

`scan_index`: the tables of an index as LazyFrames.
"""

from __future__ import annotations

import functools
import inspect
import logging
from itertools import chain
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias

import polars as pl
from polars import selectors
from polars.io.plugins import register_io_source

from lazynwb import interrupts
from lazynwb.catalog.dtypes import INTERNAL, ROWS, instance, is_array_dtype
from lazynwb.catalog.lengths import measured_name, shown_name, with_length_columns
from lazynwb.catalog.merge import conflict_message
from lazynwb.config import config
from lazynwb.engine.batches import import_readers, run
from lazynwb.engine.plan import ScanPlan
from lazynwb.errors import SchemaError
from lazynwb.formats.nwb.names import OTHER_PATHS
from lazynwb.index.scan_sources import sources_of
from lazynwb.lookup.names import match_tables, resolve_table
from lazynwb.lookup.schema import SchemaInference, is_pattern, normalize_table_path
from lazynwb.lookup.session_columns import SessionColumn, find_session_columns
from lazynwb.lookup.stored_tables import StoredTable
from lazynwb.profile import attributed
from lazynwb.shutdown import guard_shutdown
from lazynwb.terminal_text import visible

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from polars._typing import SchemaDict

    from lazynwb.distributed.worker_catalogs import WorkerCatalogs
    from lazynwb.distributed.workers import Workers
    from lazynwb.index.model import Kind
    from lazynwb.index.reader import Index
    from lazynwb.lookup.loader import TableFile
    from lazynwb.lookup.providers import CatalogProvider
    from lazynwb.lookup.regions import Region
    from lazynwb.storage.resolve import Sources
    from lazynwb.storage.source import Source

_LOGGER = logging.getLogger("lazynwb")
P = ParamSpec("P")
#: Generator of batches of rows for a projection, a predicate and a limit, each of which may be None.
Batches: TypeAlias = "Callable[[list[str] | None, pl.Expr | None, int | None], Iterator[pl.DataFrame]]"
#: Number of files up to which schemas are inferred faster in this process than on workers.
_FEW_FILES = 16
#: Remedy if the type of the first file suffices.
_IGNORED = "ignore_errors=True reads it as in the first file, and as null where values do not fit"
#: Maximum number of omitted columns whose reasons a query plan contains.
_NOTED = 3
_EXPLAINS = "explain_name" in inspect.signature(register_io_source).parameters


def scan_nwb(  # noqa: PLR0913, PLR0917 - the options of a scan
    source: Sources | None,
    table_path: str,
    raise_on_missing: bool = False,  # noqa: FBT001, FBT002 - positional in existing code
    ignore_errors: bool = False,  # noqa: FBT001, FBT002
    infer_schema_length: int | None = None,
    exclude_array_columns: bool = False,  # noqa: FBT001, FBT002
    low_memory: bool = False,  # noqa: FBT001, FBT002, ARG001
    single_file_batches: bool = False,  # noqa: FBT001, FBT002, ARG001
    schema: SchemaDict | None = None,
    schema_overrides: SchemaDict | None = None,
    disable_progress: bool = False,  # noqa: FBT001, FBT002
    *,
    session_columns: str | Iterable[str] | Mapping[str, str] | None = None,
    resolve_regions: bool | str | Iterable[str] = False,
    length_columns: bool | str | Iterable[str] = False,
    storage_options: Mapping[str, Any] | None = None,
    executor: Any = None,  # noqa: ANN401 - of any package
    index: Index | str | os.PathLike[str] | None = None,
    assume_ascending: bool | None = None,
) -> pl.LazyFrame:
    """Scan one table of any number of NWB files as one LazyFrame.

    Until the query runs, only the structure of the files is read. The query reads the columns and rows that
    it needs: filters are evaluated on small columns first, arrays (spike times, waveforms) are read for the
    remaining rows, and a filter on `_nwb_path` skips files. Rows are in the order of the sources; those of
    several tables of a file are in the order of their paths.

    Parameters
    ----------
    source : path or URL, or iterable of these, or None
        An NWB file, a glob pattern, a folder (searched recursively), or several of them; as local paths,
        `file://`, `s3://`, `gs://`, `az://`, `abfs://`, `https://`, `http://` or `dandi://` URLs, or UPaths.
        With an index, None stands for all of its sessions.
    table_path : str
        A DynamicTable (`"/units"`, `"/intervals/trials"`), a TimeSeries or its `data`, `"/general"` (which
        includes the root group's values), `"/general/subject"` or `"/"` (the root group alone); one of the
        shortcuts `units`, `trials`, `epochs`, `electrodes`, `session`, `subject`; or the end of a path, as
        for `get_df`: `"performance"`, `"behavior/running_speed"`. Any other group is a table if its full path
        is given and all of its datasets have the same length. A glob pattern selects all matching tables and
        series: `"/intervals/*_presentations"`; `**` matches any number of parts of a path, as in
        `"/processing/**/position"`. Patterns require a listing of each file.
    raise_on_missing : bool
        Whether to raise if a file lacks the table; by default such files are skipped, with one warning at the
        end.
    ignore_errors : bool
        Whether to skip files that cannot be read, or whose table is behind a broken link, and to return null
        for unreadable columns of a file, with a warning that names them.
    infer_schema_length : int or None
        Number of files with the table that determine the schema; None for all.
    exclude_array_columns : bool
        Whether to leave out columns with an array or a list in each row, and columns that cannot be read in
        any file.
    low_memory : bool
        Accepted for compatibility, without effect: batches are always bounded (`config.batch_bytes`).
    single_file_batches : bool
        Accepted for compatibility, without effect.
    schema : dict or None
        Columns and types of the table, instead of inferring them.
    schema_overrides : dict or None
        Types of single columns; values are cast strictly. A column that no file has is null in all rows.
    disable_progress : bool
        Whether to hide progress bars.
    session_columns : str, iterable of str or mapping of str to str, or None
        Metadata of the files to add as columns: values of the root group and of `/general`
        (`"session_id"`, `"keywords"`, ...) and of `/general/subject` (`"subject_id"`, `"subject/age"`, ...).
        A mapping renames them: `{"mouse": "subject_id"}`. A filter on these columns skips whole
        files before their tables are opened. The value is null for a file without that metadata.
    resolve_regions : bool, str or iterable of str
        DynamicTableRegion columns (hdmf-common) whose row positions are replaced by the rows themselves, as
        structs: `True` for all such columns, or their names. `electrodes` of units becomes a list of
        electrodes with `location`, `x`, `y`, `z` and so on. Array columns of the other table are
        left out, its own regions remain positions, and invalid positions become null.
    length_columns : bool, str or iterable of str
        List columns for which `<name>_len` (UInt32) is added, `True` for all of them, or their names: the
        number of elements of each row, equal to `list.len()` of the column, and null where that is null. For
        ragged columns only the index is read: neither spike counts nor a filter on `spike_times_len` read
        spike times. Under `ignore_errors` the length is known even if the elements cannot be read. For nested
        lists it is the number of inner lists. Columns of type Array have no length.
    storage_options : mapping or None
        Options of remote sources, in addition to `config.storage_options`: credentials, region, endpoint and
        so on, with the names of obstore (`access_key_id`, `region`, `endpoint`, `skip_signature`,
        `request_payer`, ...) or fsspec (`key`, `secret`, `anon`, `endpoint_url`, `requester_pays`,
        `profile`, ...); `headers` and `timeout` for requests. By default, credentials come from the
        environment and the user's shared configuration; without credentials, requests are not signed.
    executor : Executor or None
        Executor that reads the files: any object with the `submit` of `concurrent.futures.Executor`, such as
        `dask.distributed.Client.get_executor()`, `mpi4py.futures.MPIPoolExecutor` or a `ProcessPoolExecutor`
        that does not fork. Rows are returned in the order of the sources, in bounded batches.
    index : path or URL or Index or None
        An index written by `build_index`: the scan is planned from it and opens only the files that it reads,
        whose identity is compared with the index. Small columns are read from its values, if it has any.
        Files that are not in the index are opened as usual.
    assume_ascending : bool or None
        For filters on `timestamps` of a series: use binary search in a few chunks instead of reading all
        timestamps once. Rows are missed if the timestamps do not ascend. None stands for
        `config.assume_ascending`, which is False.

    Returns
    -------
    LazyFrame
        The union of the files' columns in alphabetical order (a column that a file lacks is null there),
        then those of `session_columns`, then `_nwb_path` (String: the absolute path, or the URL as given),
        `_table_path` (String) and `_table_index` (UInt32, the row within its file's table). For several
        tables it is the union of their columns, and a filter on `_table_path` skips tables.

    Raises
    ------
    SourceNotFoundError
        If a source does not exist; it is a FileNotFoundError.
    TableNotFoundError
        If no file has the table, or a file has several tables of that name; it is a KeyError and lists the
        tables.
    SchemaError
        If a column of `length_columns` is not a list, or the table already has a column of the new name. A
        query raises it if it reads a column whose types in two files have no common supertype: the type of
        such a column in the schema is Null, and a warning names it.
    ColumnNotFoundError
        If no file has a column of `length_columns`.
    NotNWBError
        If a file cannot be read as NWB.

    Notes
    -----
    Ragged columns (VectorData with a VectorIndex, hdmf-common) are Lists, n-dimensional ones are Arrays of
    shape `shape[1:]`. Values are in the units of the file: times in seconds since the
    `timestamps_reference_time` of the session, waveforms in volts.

    A filter on `timestamps` of a series reads only the chunks that may contain matching rows. To find them,
    all timestamps are read once, and the minimum and maximum of each chunk are stored in the catalog
    cache. Timestamps need not be sorted: the result is that of the same filter after `collect()`.
    Timestamps of a constant rate are computed without reading.

    Examples
    --------
    >>> lazynwb.scan_nwb("sessions/*.nwb", "/units").filter(
    ...     pl.col("location") == "CA1", pl.col("presence_ratio") >= 0.7
    ... ).select("unit_id", "spike_times").collect()  # doctest: +SKIP
    """
    sources, catalogs = sources_of(source, index, storage_options)
    workers = workers_of(executor)
    plan = plan_scan(
        sources,
        table_path,
        infer_schema_length=infer_schema_length,
        exclude_array_columns=exclude_array_columns,
        schema=schema,
        schema_overrides=schema_overrides,
        session_columns=session_columns,
        resolve_regions=resolve_regions,
        length_columns=length_columns,
        raise_on_missing=raise_on_missing,
        ignore_errors=ignore_errors,
        disable_progress=disable_progress,
        catalogs=catalogs,
        workers=workers,
        assume_ascending=assume_ascending,
    )
    return lazy_frame(plan, workers)


def plan_scan(  # noqa: PLR0913 - the options of a scan
    sources: tuple[Source, ...],
    table_path: str,
    *,
    infer_schema_length: int | None = None,
    exclude_array_columns: bool = False,
    schema: SchemaDict | None = None,
    schema_overrides: SchemaDict | None = None,
    session_columns: str | Iterable[str] | Mapping[str, str] | None = None,
    resolve_regions: bool | str | Iterable[str] = False,
    length_columns: bool | str | Iterable[str] = False,
    raise_on_missing: bool = False,
    ignore_errors: bool = False,
    disable_progress: bool = False,
    conflicts: dict[str, str] | None = None,
    catalogs: CatalogProvider | None = None,
    workers: Workers | None = None,
    assume_ascending: bool | None = None,
) -> ScanPlan:
    """Plan a scan: resolve its table and its schema.

    Parameters
    ----------
    conflicts : dict of str to str or None
        Receives the columns whose types in two files have no common type, which are then left out. If None,
        their type is Null, and reading them is an error.
    catalogs : CatalogProvider or None
        Provider of the catalogs of some files.
    workers : Workers or None
        Workers that read the catalogs of many files.
    **options
        The other parameters are those of `scan_nwb`.
    """
    if infer_schema_length is not None and infer_schema_length < 0:
        raise ValueError(f"infer_schema_length must not be negative: {infer_schema_length}")
    # Columns whose type in the schema is Null, with the reason.
    unread: dict[str, str] = {}
    unresolved = unread if conflicts is None else conflicts
    broken: dict[str, str] = {}
    worker_catalogs: WorkerCatalogs | None = None
    many = infer_schema_length is None or infer_schema_length > _FEW_FILES
    if workers is not None and catalogs is None and many:
        from lazynwb.distributed.worker_catalogs import WorkerCatalogs

        catalogs = worker_catalogs = WorkerCatalogs(workers)
    table, tables = _resolve_tables(
        sources,
        table_path,
        ignore_errors=ignore_errors,
        disable_progress=disable_progress,
        catalogs=catalogs,
    )
    overrides = _instances(schema_overrides or {})
    origin = "the schema argument"
    inferred: dict[str, pl.DataType] = {}
    files: list[TableFile | StoredTable] = []
    if schema is None or resolve_regions is not False:
        inference = SchemaInference(
            first=infer_schema_length if schema is None else 1,
            raise_on_missing=raise_on_missing,
            ignore_errors=ignore_errors,
            disable_progress=disable_progress,
            overrides=overrides,
            catalogs=catalogs,
            keep=resolve_regions is not False,
            conflicts=None if conflicts is None and ignore_errors else unresolved,
            broken=broken,
            while_waiting=import_readers,
        )
        if tables is None:
            inferred, files = inference.of_table(sources, table)
        else:
            inferred, files = inference.of_matches(sources, table, tables)
        if tables is None and table not in OTHER_PATHS:  # whose path depends on the file
            table = files[0].table.path
    if schema is None:
        origin = files[0].name
        # A column that only an override names is null in all rows.
        inferred |= dict.fromkeys(unread, pl.Null())
        inferred |= {name: dtype for name, dtype in overrides.items() if name not in {*inferred, *INTERNAL}}
        inferred = dict(sorted(inferred.items()))
    else:
        inferred = {name: instance(dtype) for name, dtype in schema.items() if name not in INTERNAL}
        unresolved.clear()
    columns = {name: overrides.get(name, dtype) for name, dtype in inferred.items()}
    chosen = frozenset(overrides) | frozenset(schema or ())
    lengths = length_columns if isinstance(length_columns, bool | str) else list(length_columns)
    requested = resolve_regions if isinstance(resolve_regions, bool | str) else list(resolve_regions)
    _check_named(unread, lengths, requested)
    regions = _find_regions(
        [file for file in files if not isinstance(file, StoredTable)],
        columns,
        requested,
        chosen,
        unread,
        ignore_errors=ignore_errors,
        disable_progress=disable_progress,
    )
    columns |= {region.name: region.dtype for region in regions}
    columns |= dict.fromkeys(unread, pl.Null())
    columns = with_length_columns(columns, lengths, table, is_lenient=conflicts is not None)
    unread = _with_remedy(unread)
    if exclude_array_columns:
        columns = without_unreadable(columns, table, with_arrays=False)
    session: tuple[SessionColumn, ...] = ()
    if session_columns is not None:
        session = find_session_columns(
            sources,
            session_columns,
            map(shown_name, columns),
            infer_schema_length,
            ignore_errors=ignore_errors,
            disable_progress=disable_progress,
            catalogs=catalogs,
        )
    if worker_catalogs is not None:
        worker_catalogs.stop_requests()
    return ScanPlan(
        sources,
        table,
        columns,
        origin,
        chosen,
        raise_on_missing,
        ignore_errors,
        disable_progress,
        session,
        regions=regions,
        catalogs=catalogs,
        assume_ascending=config.assume_ascending if assume_ascending is None else assume_ascending,
        tables=tables,
        conflicts=tuple(unread.items()),
        broken=tuple(broken.items()),
    )


def _instances(overrides: Mapping[str, object]) -> dict[str, pl.DataType]:
    """Return the types of `schema_overrides`; another object is a TypeError."""
    found = {name: instance(dtype) for name, dtype in overrides.items()}
    for name, dtype in found.items():
        if not isinstance(dtype, pl.DataType):
            raise TypeError(
                f"schema_overrides: the type of {name!r} must be a Polars data type, such as pl.Float64, "
                f"not {overrides[name]!r}"
            )
    return found


def without_unreadable(
    schema: Mapping[str, pl.DataType], table: str, *, with_arrays: bool
) -> dict[str, pl.DataType]:
    """Return a schema without unreadable columns, which are logged, and optionally without arrays."""
    unreadable = [name for name, dtype in schema.items() if isinstance(dtype, pl.Null)]
    if unreadable:
        _LOGGER.warning(
            "/%s: columns that cannot be read were left out: %s (select one for the reason)",
            table.lstrip("/"),
            ", ".join(map(repr, unreadable)),
        )
    return {
        name: dtype
        for name, dtype in schema.items()
        if name not in unreadable and (with_arrays or not is_array_dtype(dtype))
    }


def _check_named(conflicts: Mapping[str, str], *options: bool | str | list[str]) -> None:
    """Raise SchemaError if an option names a column without a common type."""
    lists = [[one] if isinstance(one, str) else one for one in options if not isinstance(one, bool)]
    found = {name: conflicts[name] for name in chain(*lists) if name in conflicts}
    if found:
        raise SchemaError(conflict_message(found))


def _with_remedy(conflicts: Mapping[str, str]) -> dict[str, str]:
    """Log conflicts between types of columns; return the messages with the second remedy."""
    found = {name: f"{message}; {_IGNORED}" for name, message in conflicts.items()}
    if found:
        _LOGGER.warning("%s; other columns can be read", conflict_message(found))
    return found


def _resolve_tables(
    sources: tuple[Source, ...],
    table_path: str,
    *,
    ignore_errors: bool,
    disable_progress: bool,
    catalogs: CatalogProvider | None,
) -> tuple[str, Mapping[Source, tuple[str, ...]] | None]:
    """Return a table's path, or a pattern and the paths of the tables that match it in each file."""
    tables = None
    if is_pattern(table_path):
        tables = match_tables(
            sources,
            table_path,
            ignore_errors=ignore_errors,
            disable_progress=disable_progress,
            catalogs=catalogs,
        )
    if tables is None:
        return resolve_table(sources, table_path, ignore_errors=ignore_errors, catalogs=catalogs), None
    return normalize_table_path(table_path), tables


def _find_regions(  # noqa: PLR0913 - as `find_regions`
    files: Sequence[TableFile],
    columns: Mapping[str, pl.DataType],
    requested: bool | str | Iterable[str],  # noqa: FBT001 - as `find_regions`
    chosen: frozenset[str],
    conflicts: dict[str, str],
    *,
    ignore_errors: bool,
    disable_progress: bool,
) -> tuple[Region, ...]:
    """Return the resolved regions; see `lazynwb.lookup.regions.find_regions`."""
    if requested is False:
        return ()
    from lazynwb.lookup.regions import find_regions

    return find_regions(
        files,
        columns,
        requested,
        chosen,
        conflicts,
        ignore_errors=ignore_errors,
        disable_progress=disable_progress,
    )


def _collected(scan: Callable[P, pl.LazyFrame]) -> Callable[P, pl.DataFrame]:
    @functools.wraps(scan)
    def read(*args: P.args, **kwargs: P.kwargs) -> pl.DataFrame:
        return scan(*args, **kwargs).collect()

    read.__name__ = read.__qualname__ = "read_nwb"
    signature = inspect.signature(scan).replace(return_annotation="pl.DataFrame")
    read.__signature__ = signature  # type: ignore[attr-defined]
    read.__annotations__ = {**scan.__annotations__, "return": "pl.DataFrame"}
    details = inspect.cleandoc(scan.__doc__ or "").partition("\nParameters\n")[2].partition("\nNotes\n")[0]
    parameters = details.replace("\nLazyFrame\n", "\nDataFrame\n")
    read.__doc__ = (
        f"Read one table of any number of NWB files: `scan_nwb(...).collect()`.\n\nParameters\n{parameters}"
    )
    return read


read_nwb = _collected(scan_nwb)


def get_table_schema(  # noqa: PLR0913, PLR0917
    file_paths: Sources | None,
    table_path: str,
    first_n_files_to_infer_schema: int | None = None,
    exclude_array_columns: bool = False,  # noqa: FBT001, FBT002
    exclude_internal_columns: bool = False,  # noqa: FBT001, FBT002
    raise_on_missing: bool = False,  # noqa: FBT001, FBT002
    *,
    session_columns: str | Iterable[str] | Mapping[str, str] | None = None,
    resolve_regions: bool | str | Iterable[str] = False,
    length_columns: bool | str | Iterable[str] = False,
    storage_options: Mapping[str, Any] | None = None,
    index: Index | str | os.PathLike[str] | None = None,
) -> pl.Schema:
    """Return the schema of `scan_nwb` for a table of the files.

    Parameters
    ----------
    file_paths : path or URL, or iterable of these, or None
        As for `scan_nwb`.
    table_path : str
        As for `scan_nwb`.
    first_n_files_to_infer_schema : int or None
        Number of files with the table that determine the schema; None for all.
    exclude_array_columns : bool
        Whether to leave out columns with an array or a list in each row.
    exclude_internal_columns : bool
        Whether to leave out `_nwb_path`, `_table_path` and `_table_index`.
    raise_on_missing : bool
        Whether to raise if a file lacks the table.
    session_columns : str, iterable of str or mapping of str to str, or None
        As for `scan_nwb`.
    resolve_regions : bool, str or iterable of str
        As for `scan_nwb`.
    length_columns : bool, str or iterable of str
        As for `scan_nwb`.
    storage_options : mapping or None
        As for `scan_nwb`.
    index : path or URL or Index or None
        As for `scan_nwb`.

    Returns
    -------
    Schema
        Names and types of the columns in their order.

    Raises
    ------
    LazyNWBError
        As `scan_nwb` does.
    """
    frame = scan_nwb(
        file_paths,
        table_path,
        raise_on_missing=raise_on_missing,
        infer_schema_length=first_n_files_to_infer_schema,
        exclude_array_columns=exclude_array_columns,
        session_columns=session_columns,
        resolve_regions=resolve_regions,
        length_columns=length_columns,
        storage_options=storage_options,
        index=index,
    )
    schema = frame.collect_schema()
    hidden = INTERNAL if exclude_internal_columns else {}
    return pl.Schema({name: dtype for name, dtype in schema.items() if name not in hidden})


class _Source:
    """The generator function of an IO source; a class, so that a query can be pickled."""

    def __init__(self, run: Batches, detail: str) -> None:
        self._run = run
        self._detail = detail

    def __call__(
        self,
        with_columns: list[str] | None,
        predicate: pl.Expr | None,
        n_rows: int | None,
        batch_size: int | None,  # noqa: ARG002 - batches are bounded by bytes
    ) -> Iterator[pl.DataFrame]:
        return as_source(self._run(with_columns, predicate, n_rows), self._detail)


def as_source(batches: Iterator[pl.DataFrame], detail: str) -> Iterator[pl.DataFrame]:
    """Yield the batches of a query to Polars.

    Parameters
    ----------
    batches : iterator of DataFrame
        Batches, of which none has been read.
    detail : str
        Label of the query in profiles.
    """
    interrupts.watch()
    return guard_shutdown(attributed(_separated(batches), detail))


def _separated(batches: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Yield batches, each followed by an empty one.

    The streaming engine requests the next batch before it knows whether a `head` has enough rows, and waits
    for it. With an empty batch it does not wait until more files are read, although their read may begin.
    """
    empty: pl.DataFrame | None = None
    for batch in batches:
        yield batch
        if empty is None:
            empty = batch.clear()
        yield empty


def source_frame(
    run: Batches, schema: Mapping[str, pl.DataType] | Callable[[], pl.Schema], detail: str, note: str = ""
) -> pl.LazyFrame:
    """Return a LazyFrame over a generator of batches.

    Parameters
    ----------
    run : callable
        Function of columns, predicate and limit, as `lazynwb.engine.batches.run`; can be pickled.
    schema : mapping of str to DataType, or callable
        Schema, or a function that returns it when Polars first needs it.
    detail : str
        Name in query plans and profiles.
    note : str
        Additional text in query plans, which error messages of Polars contain.
    """
    labels: dict[str, Any] = {}
    if _EXPLAINS:
        labels = {"explain_name": "NWB", "explain_detail": f"{detail}; {note}" if note else detail}
    return register_io_source(_Source(run, detail), schema=schema, is_pure=True, **labels)


def table_frame(  # noqa: PLR0913 - as `source_frame`
    run: Batches,
    schema: Mapping[str, pl.DataType] | Callable[[], pl.Schema],
    table: str,
    sources: Sequence[Source],
    *,
    has_lengths: bool = False,
    note: str = "",
) -> pl.LazyFrame:
    """Return a LazyFrame of a table of some files; the parameters are those of `source_frame`.

    With `has_lengths`, length columns are renamed to their public names; predicates are pushed down through
    the renaming.
    """
    count = len(sources)
    detail = f"/{visible(table.strip('/'), None)} of {count} file{'s' if count != 1 else ''}"
    shown = selectors.exclude(ROWS)
    return source_frame(run, schema, detail, note).select(
        shown.name.map(shown_name) if has_lengths else shown
    )


def workers_of(executor: Any) -> Workers | None:  # noqa: ANN401 - of any package
    """Return an executor as workers; see `lazynwb.distributed.workers.Workers` for the errors."""
    if executor is None:
        return None
    from lazynwb.distributed.workers import Workers

    return Workers(executor)


def lazy_frame(plan: ScanPlan, workers: Workers | None = None) -> pl.LazyFrame:
    """Return the LazyFrame of a planned scan, which runs on workers if any are given."""
    batches = functools.partial(run, plan)
    if workers is not None:
        from lazynwb.distributed.execution import run_on

        batches = functools.partial(run_on, workers, plan)
    has_lengths = any(measured_name(name) is not None for name in plan.schema)
    note = "; ".join(visible(reason, None) for _, reason in plan.broken[:_NOTED])
    return table_frame(
        batches, plan.all_columns, plan.table, plan.sources, has_lengths=has_lengths, note=note
    )


def scan_index(
    index: Index | str | os.PathLike[str],
    table: Kind | str = "sessions",
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> pl.LazyFrame:
    """Scan a table of an index of sessions, without opening session files.

    Parameters
    ----------
    index : path or URL, or Index
        An index written by `build_index`.
    table : {"sessions", "tables", "columns"} or str
        A table of the index; or the path of a table of the sessions, with its leading slash (`"/units"`),
        whose small columns `build_index(values=...)` has stored.
    storage_options : mapping or None
        As for `scan_nwb`.

    Returns
    -------
    LazyFrame
        - `"sessions"` has a row for each file: `path`, `identity` (null if the file has none that detects all
          changes), `size` in bytes, the number of `tables`, `problem` (null if there is none), and the
          metadata of the session and its subject.
        - `"tables"` has a row for each table and series of each file: `table` (its path), `kind` ("table",
          "series" or "metadata"), `neurodata_type`, `rows`, the number of `columns`, and repaired problems.
        - `"columns"` has a row for each of their columns: `dtype` (name of the Polars type), `ragged` (number
          of nested lists), `rows`, stored `shape`, decoded `bytes`, `layout` and `codecs`; `start` (seconds)
          and `rate` (Hz) of timestamps that are not stored.
        - A path has the rows of `scan_nwb(..., length_columns=True)` in the same order, with the small
          columns, the lengths of lists, and some metadata of the sessions.

    Raises
    ------
    SourceNotFoundError
        If the index does not exist.
    ValueError
        If the index has no such table.
    TableNotFoundError
        If the index has no values of the table.
    CorruptDataError
        If a file of the index is damaged: the checksums of files with values are compared.
    """
    from lazynwb.index.model import KINDS
    from lazynwb.index.reader import open_index

    opened = open_index(index, storage_options)
    if table.startswith("/"):
        frame = source_frame(
            functools.partial(opened.value_batches, table), opened.value_schema(table), f"values of {table}"
        )
        return frame.select(selectors.exclude(ROWS).name.map(shown_name))
    if table not in KINDS:
        raise ValueError(f"an index has the tables {', '.join(map(repr, KINDS))}, not {table!r}")
    detail = f"{table} of an index of {len(opened)} sessions"
    return source_frame(functools.partial(opened.batches, table), opened.schema(table), detail)
