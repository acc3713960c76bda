"""Conversion of tables of many files to other formats: `convert_nwb_tables`."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lazynwb.convert.databases import delta_arguments
from lazynwb.convert.file_formats import FORMATS, Options, is_installed
from lazynwb.convert.job_runner import Run, Target
from lazynwb.convert.jobs import plan
from lazynwb.convert.manifest import locked
from lazynwb.convert.table_selection import Request, find, open_tables
from lazynwb.storage.resolve import expand

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lazynwb.storage.resolve import Sources
    from lazynwb.storage.source import Source

_LOGGER = logging.getLogger("lazynwb")
#: Databases, with supported compressions and required packages.
_DATABASES: dict[str, tuple[frozenset[str], tuple[str, ...]]] = {
    "delta": (frozenset({"zstd", "snappy", "lz4", "uncompressed"}), ("deltalake",)),
    "duckdb": (frozenset(), ("duckdb", "pyarrow")),
}
#: Wait in seconds, longer than the resolution of timestamps of file systems.
_TICK = 0.06
#: Maximum number of failures in the warning at the end.
_LISTED = 5


def convert_nwb_tables(  # noqa: PLR0913 - the options of a conversion
    nwb_sources: Sources,
    output_dir: str | Path,
    *,
    output_format: str = "parquet",
    full_path: bool = False,
    min_file_count: int = 1,
    exclude_array_columns: bool = False,
    ignore_errors: bool = True,
    disable_progress: bool = False,
    session_subdirs: bool = False,
    tables: str | Iterable[str] | None = None,
    partition_by: Literal["session", "subject"] | None = None,
    compression: str | None = None,
    row_group_bytes: int = 48 * 1024 * 1024,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    **write_kwargs: Any,  # noqa: ANN401 - passed on to Polars
) -> dict[str, Path]:
    """Write tables of any number of NWB files in another format, one output for each table.

    Outputs have the rows and columns of `scan_nwb`, and are written in batches with bounded memory. An output
    is complete or absent: it is renamed at the end. A manifest in the folder (`.lazynwb-manifest`) records
    the sources of each output: a later call writes only outputs that are missing, or whose sources, schema or
    options have changed, and an interrupted call can be continued by repeating it.

    Parameters
    ----------
    nwb_sources : path or iterable of paths
        As for `scan_nwb`; if it is empty, nothing is written.
    output_dir : path
        A local folder, which is created if it does not exist. Files with the names of outputs are replaced.
    output_format : str
        "parquet", "arrow" (Arrow IPC; "feather" differs in the suffix only), "csv", "json" (an array of
        objects), "ndjson" (one object per line), "excel" (one worksheet per table, within the limits of
        Excel), "delta" (a Delta table), or "duckdb" (one database, `tables.duckdb`).
    full_path : bool
        Whether to name outputs by the full path of the table (`intervals_trials`) instead of its shortest
        unambiguous end (`trials`).
    min_file_count : int
        Minimum number of files with a table; tables of fewer files are left out.
    exclude_array_columns : bool
        Whether to leave out columns with an array or a list in each row.
    ignore_errors : bool
        Whether to skip files and tables that cannot be read, with one warning at the end.
    disable_progress : bool
        Whether to hide progress bars.
    session_subdirs : bool
        Whether to write the tables of each session to a folder of its own, named by `session_id`, or by
        `identifier` if it has none. The schema of a table is that over all files.
    tables : str, iterable of str or None
        Tables to convert, by path, last part of the path or shortcut (`"trials"`). None converts all tables
        and the metadata; TimeSeries are only converted if they are named.
    partition_by : {"session", "subject"} or None
        Write each table as a folder of hive partitions (`units/session=abc/….parquet`) with one file for
        each session, so that later calls convert only new and changed sessions. A Delta table gets a
        partition column of that name and is always replaced as a whole.
    compression : str or None
        Compression of the format; None stands for zstd in Parquet and for no compression otherwise.
    row_group_bytes : int
        Approximate decoded size of a Parquet row group or an Arrow record batch, in bytes. The number of rows
        follows from their mean size. A conversion needs a few times this much memory.
    overwrite : bool
        Whether to convert unchanged outputs again.
    storage_options : mapping or None
        As for `scan_nwb`.
    **write_kwargs
        Options of the writer: of `sink_parquet`, `sink_ipc`, `write_csv`, `write_ndjson` or `write_excel`
        of Polars, or of `deltalake.write_deltalake`.

    Returns
    -------
    dict of str to Path
        Outputs by the path of their table (`"/intervals/trials"`); with `session_subdirs` by session and
        table (`"abc/intervals/trials"`).

    Raises
    ------
    ValueError
        If the format does not exist, or does not support an option.
    ImportError
        If the format needs a package that is not installed; the message names it.
    TableNotFoundError
        If the files have no tables, or none of `tables`.
    LazyNWBError
        If a file or table cannot be read, or its values do not fit the format, unless errors are ignored; if
        another conversion is writing to the folder.
    OSError
        If the disk is full or rejects a write; it names the file.

    Notes
    -----
    Parquet and Arrow preserve all types of `scan_nwb`. Columns without a type (region references and opaque
    data; the HDMF specification language allows any HDF5 type in an extension) are left out with a warning.
    In CSV and Excel, arrays, lists and structs are JSON text. NaN and infinity are null in JSON, including
    JSON text in CSV. `lazynwb.convert.type_mapping` describes the types of Delta Lake and DuckDB.

    Memory does not grow with the tables, except for worksheets, which are built in memory. Delta Lake gets
    one file for about 64 MiB of values, all in one commit. DuckDB processes 2048 rows at a time and may use
    512 MiB, or twice the size of these rows if that is more.

    Examples
    --------
    >>> lazynwb.convert_nwb_tables("sessions/", "parquet/", partition_by="session")  # doctest: +SKIP
    """
    _check(output_format, compression, partition_by, write_kwargs, session_subdirs=session_subdirs)
    sources = list(dict.fromkeys(expand(nwb_sources, storage_options, allow_none=True)))
    if not sources:
        return {}
    _wait_until_settled(sources)
    started = time.time_ns()
    as_files = output_format in FORMATS
    layout = "subdirectories" if session_subdirs else (partition_by if as_files else None) or "table"
    request = Request(
        full_path,
        exclude_array_columns,
        ignore_errors,
        disable_progress,
        min_file_count,
        (tables,) if isinstance(tables, str) else None if tables is None else tuple(tables),
        layout,
        None if as_files else partition_by,
    )
    target = Target(output_format, layout, Options(compression, write_kwargs), row_group_bytes)
    folder = Path(output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise FileExistsError(
            f"the output folder {folder} is a file: pass the path of a folder, which may not exist yet"
        ) from None
    failures: list[str] = []
    with locked(folder):
        try:
            opened = open_tables(find(sources, request), request, failures)
            planned = plan(opened, sources, request)
            run = Run(planned, folder, target, failures, ignore_errors, started)
            return run.run(overwrite=overwrite, disable_progress=disable_progress)
        finally:
            _warn(failures)


def _check(
    output_format: str,
    compression: str | None,
    partition_by: str | None,
    write_kwargs: Mapping[str, Any],
    *,
    session_subdirs: bool,
) -> None:
    """Raise ValueError for options that the format does not support, before files are read."""
    if output_format not in FORMATS and output_format not in _DATABASES:
        raise ValueError(
            f"output_format must be one of {', '.join([*FORMATS, *_DATABASES])}, not {output_format!r}"
        )
    if output_format in FORMATS:
        compressions, needed = FORMATS[output_format].compressions, FORMATS[output_format].needs
        packages: tuple[str, ...] = () if needed is None else (needed,)
    else:
        compressions, packages = _DATABASES[output_format]
    if compression is not None and compression not in compressions:
        raise ValueError(
            f"compression of {output_format} must be one of {', '.join(sorted(compressions))}, not "
            f"{compression!r}"
        )
    if partition_by not in {None, "session", "subject"}:
        raise ValueError(f"partition_by must be 'session', 'subject' or None, not {partition_by!r}")
    if partition_by and session_subdirs:
        raise ValueError("session_subdirs and partition_by cannot be combined")
    if output_format == "duckdb" and (partition_by or write_kwargs):
        raise ValueError(
            f"output_format='duckdb' does not support "
            f"{', '.join(['partition_by'] if partition_by else write_kwargs)}: leave it out"
        )
    if output_format == "delta":
        delta_arguments(write_kwargs)
    package = next((name for name in packages if not is_installed(name)), None)
    if package is not None:
        raise ImportError(
            f"output_format={output_format!r} needs {package}: pip install 'lazynwb[{output_format}]'"
        )


def _wait_until_settled(sources: list[Source]) -> None:
    """Wait for recently written files to settle, because outputs of unsettled files are converted again."""
    now = time.time_ns()
    for source in sources:
        try:
            if not source.is_remote and not source.is_store and not source.is_settled("", now):
                time.sleep(_TICK)
                return
        except OSError:
            continue


def _warn(failures: list[str]) -> None:
    if failures:
        _LOGGER.warning(
            "%d tables or parts of tables were left out of the conversion:\n  %s%s",
            len(failures),
            "\n  ".join(failures[:_LISTED]),
            "\n  ..." if len(failures) > _LISTED else "",
        )
