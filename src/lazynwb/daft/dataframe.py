"""`lazynwb.daft.scan_nwb`: scans of tables as Daft data frames, on one machine or on a Ray cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazynwb.errors import MissingPackageError
from lazynwb.index.scan_sources import IndexSources, sources_of
from lazynwb.scan import plan_scan

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    import polars as pl
    from daft import DataFrame
    from polars._typing import SchemaDict

    from lazynwb.index.reader import Index
    from lazynwb.storage.resolve import Sources

__all__ = ["scan_nwb"]

#: Maximum number of files that are inspected for large tables without an index.
_FEW_FILES = 4


def scan_nwb(  # noqa: PLR0913 - the options of a scan
    source: Sources | None,
    table_path: str,
    *,
    predicate: pl.Expr | None = None,
    files_per_task: int | None = None,
    raise_on_missing: bool = False,
    ignore_errors: bool = False,
    infer_schema_length: int | None = None,
    exclude_array_columns: bool = False,
    schema: SchemaDict | None = None,
    schema_overrides: SchemaDict | None = None,
    disable_progress: bool = False,
    session_columns: str | Iterable[str] | Mapping[str, str] | None = None,
    resolve_regions: bool | str | Iterable[str] = False,
    length_columns: bool | str | Iterable[str] = False,
    storage_options: Mapping[str, Any] | None = None,
    index: Index | str | os.PathLike[str] | None = None,
) -> DataFrame:
    """Scan one table of any number of NWB files as one Daft data frame.

    Daft runs the query, on this machine or, after `daft.set_runner_ray()`, on a Ray cluster. Each task reads
    some of the files: only the columns that the query needs, cheap ones first, and arrays only for the rows
    that pass the filters. A condition on `_nwb_path` skips files before tasks are created.

    Parameters
    ----------
    source : path or URL, or iterable of these, or None
        As for `lazynwb.scan_nwb`; all machines of a cluster must be able to open the sources.
    table_path : str
        As for `lazynwb.scan_nwb`.
    predicate : Expr or None
        A Polars filter that is applied while files are read, for conditions that Daft does not push down: all
        conditions with a function (`startswith`, `contains`, `is_nan`, functions of lists, ...).
    files_per_task : int or None
        Number of files per task; None for a thirty-second of all files, but at most 64.
    raise_on_missing, ignore_errors : bool
        As for `lazynwb.scan_nwb`.
    infer_schema_length : int or None
        As for `lazynwb.scan_nwb`. None reads the schemas of all files immediately; set it for many files.
    exclude_array_columns : bool
        As for `lazynwb.scan_nwb`.
    schema, schema_overrides : dict or None
        As for `lazynwb.scan_nwb`, in types of Polars.
    disable_progress : bool
        As for `lazynwb.scan_nwb`.
    session_columns, resolve_regions, length_columns
        As for `lazynwb.scan_nwb`.
    storage_options : mapping or None
        As for `lazynwb.scan_nwb`. They are sent to the machines of a cluster with the tasks.
    index : path or URL or Index or None
        As for `lazynwb.scan_nwb`. Catalogs of the files of a task are sent with the task. A query that the
        values of the index answer is a single task, which opens the index: workers must reach it by the same
        path or URL.

    Returns
    -------
    daft.DataFrame
        The columns of `lazynwb.scan_nwb`. Arrays are nested fixed-size lists, and enumerations are strings.
        Rows of one file are in its order, those of a pattern by table. Daft does not guarantee an order of
        files: sort by `_nwb_path`, `_table_path` and `_table_index`.

    Raises
    ------
    ValueError
        If `files_per_task` is less than one.
    MissingPackageError
        If Daft is not installed.
    UnsupportedTypeError
        If Daft has no type for a column.
    LazyNWBError
        As `lazynwb.scan_nwb` does. For errors in tasks, Daft and Ray raise their own errors, which contain
        the message of this package.

    Notes
    -----
    Daft applies filters again, so that its own semantics hold: NaN sorts before or after all numbers
    depending on its sign, and -0.0 before 0.0. `timestamps` are assumed to ascend, as NWB requires.

    Examples
    --------
    >>> import lazynwb.daft  # doctest: +SKIP
    >>> lazynwb.daft.scan_nwb("sessions/*.nwb", "/units").where(
    ...     (daft.col("location") == "CA1") & (daft.col("presence_ratio") >= 0.7)
    ... ).select("unit_id", "spike_times").write_parquet("ca1")  # doctest: +SKIP
    """
    if files_per_task is not None and files_per_task < 1:
        raise ValueError(f"files_per_task must be at least 1, not {files_per_task}")
    try:
        from lazynwb.daft.data_source import NWBSource
    except ImportError as error:
        raise MissingPackageError(
            f"daft cannot be imported ({error}): pip install 'lazynwb[daft]'"
        ) from error
    sources, catalogs = sources_of(source, index, storage_options)
    if catalogs is not None and source is None:
        # Tasks do not contain the paths of all sessions.
        sources = IndexSources(sources, catalogs, storage_options)
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
    )
    if catalogs is None and len(sources) <= _FEW_FILES:
        from lazynwb.distributed.execution import described

        plan = described(plan, sources)  # a large one is several tasks
    return NWBSource(plan, predicate, files_per_task).read()
