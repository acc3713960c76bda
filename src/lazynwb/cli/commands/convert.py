"""`lazynwb convert`: the tables of the files in another format."""

from pathlib import Path
from typing import Annotated

import typer

from lazynwb.cli.base import UsageError
from lazynwb.cli.options import (
    ExcludeArraysOption,
    IgnoreErrorsOption,
    SourcesArgument,
    StorageOption,
    sources_of,
)


def convert(  # noqa: PLR0913 - the options of a command
    *,
    sources: SourcesArgument = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Output folder.")],
    output_format: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help="Output format: parquet, arrow, feather, csv, json, ndjson, excel, delta or duckdb.",
        ),
    ] = "parquet",
    tables: Annotated[
        list[str] | None,
        typer.Option("--table", "-t", metavar="TABLE", help="Convert this table or series only; repeatable."),
    ] = None,
    partition_by: Annotated[
        str | None, typer.Option("--partition-by", metavar="session|subject", help="Write hive partitions.")
    ] = None,
    session_subdirs: Annotated[
        bool, typer.Option("--session-subdirs", help="Write each session to its own folder.")
    ] = False,
    compression: Annotated[str | None, typer.Option(help="Compression of the format, such as zstd.")] = None,
    full_path: Annotated[
        bool, typer.Option("--full-path", help="Name outputs by the full path of their table.")
    ] = False,
    min_file_count: Annotated[
        int,
        typer.Option(
            "--min-file-count", metavar="COUNT", min=1, help="Omit tables that exist in fewer files."
        ),
    ] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Convert unchanged sessions again.")] = False,
    exclude_arrays: ExcludeArraysOption = False,
    ignore_errors: IgnoreErrorsOption = False,
    storage_option: StorageOption = None,
) -> None:
    """Write the tables of the files in another format.

    Unchanged outputs are not converted again, and an interrupted run can be continued by repeating it.
    """
    command_sources = sources_of(sources, storage_option)
    from lazynwb.cli.render import Column, count_text, show, write_remark
    from lazynwb.convert.conversion import convert_nwb_tables
    from lazynwb.terminal_text import visible

    try:
        written = convert_nwb_tables(
            command_sources.sources,
            output,
            output_format=output_format,
            full_path=full_path,
            min_file_count=min_file_count,
            exclude_array_columns=exclude_arrays,
            ignore_errors=ignore_errors,
            session_subdirs=session_subdirs,
            tables=tables,
            partition_by=partition_by,  # type: ignore[arg-type]
            compression=compression,
            overwrite=overwrite,
            storage_options=command_sources.storage,
        )
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        raise UsageError(str(error)) from error
    show(
        [
            Column("table", [visible(table, None) for table in written], whole=True),
            Column("written to", [visible(path, None) for path in written.values()], tail=True),
        ]
    )
    write_remark(count_text(len(written), "table"))
