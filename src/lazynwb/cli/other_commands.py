"""Commands that are about more than looking at files: `convert`, `dandi`, `cache` and `demo`."""

from pathlib import Path
from typing import Annotated

import typer

from lazynwb.cli.exit_codes import NothingFoundError, UsageError
from lazynwb.cli.options import (
    ExcludeArraysOption,
    FormatOption,
    IgnoreErrorsOption,
    OutputOption,
    SourcesArgument,
    StorageOption,
    sources_of,
)
from lazynwb.cli.output import emit, target_of

dandi_app = typer.Typer(help="The DANDI archive.", no_args_is_help=True)
cache_app = typer.Typer(help="What is remembered of files.", no_args_is_help=True)


def convert(  # noqa: PLR0913 - the options of a command
    *,
    sources: SourcesArgument = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where to write.")],
    form: Annotated[
        str,
        typer.Option(
            "--format", "-f", help="parquet, arrow, feather, csv, json, ndjson, excel, delta or duckdb."
        ),
    ] = "parquet",
    tables: Annotated[
        list[str] | None,
        typer.Option("--table", "-t", metavar="TABLE", help="Only this one, also a series; repeatable."),
    ] = None,
    partition_by: Annotated[
        str | None, typer.Option("--partition-by", metavar="session|subject", help="As hive partitions.")
    ] = None,
    session_subdirs: Annotated[
        bool, typer.Option("--session-subdirs", help="Each session in a folder of its own.")
    ] = False,
    compression: Annotated[str | None, typer.Option(help="Of the format, such as zstd.")] = None,
    full_path: Annotated[
        bool, typer.Option("--full-path", help="Call outputs by the whole path of their table.")
    ] = False,
    min_file_count: Annotated[
        int, typer.Option("--min-file-count", min=1, help="Leave out tables that fewer files have.")
    ] = 1,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Convert again what has not changed.")
    ] = False,
    exclude_arrays: ExcludeArraysOption = False,
    ignore_errors: IgnoreErrorsOption = False,
    storage_option: StorageOption = None,
) -> None:
    """Write the tables of the files in another format.

    What has not changed since the last time is not converted again, and an interrupted run goes on.
    """
    given = sources_of(sources, storage_option)
    from lazynwb.cli.render import Column, count_text, say, show
    from lazynwb.convert.conversion import convert_nwb_tables
    from lazynwb.terminal_text import visible

    try:
        written = convert_nwb_tables(
            given.sources,
            output,
            output_format=form,
            full_path=full_path,
            min_file_count=min_file_count,
            exclude_array_columns=exclude_arrays,
            ignore_errors=ignore_errors,
            session_subdirs=session_subdirs,
            tables=tables,
            partition_by=partition_by,  # type: ignore[arg-type]
            compression=compression,
            overwrite=overwrite,
            storage_options=given.storage,
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
    say(count_text(len(written), "table"))


@dandi_app.command("ls")
def dandi_ls(  # noqa: PLR0913
    *,
    dandiset: Annotated[str, typer.Argument(metavar="ID", help="Such as 000363.")],
    version: Annotated[
        str | None, typer.Option(help="Such as 0.231012.2129, or draft. By default the newest.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=0, help="No more files.")] = None,
    order: Annotated[
        str, typer.Option(help="path, created or modified; -created has the newest first.")
    ] = "path",
    form: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """List the NWB files of a dandiset as URLs, which every other command takes.

    For example: lazynwb dandi ls 000363 -n 3 | lazynwb tables -
    """
    target = target_of(form, output)
    from lazynwb.cli.project_file import find

    project = find()
    if project is not None:
        project.apply()
    import polars as pl

    from lazynwb.storage.dandi.resolver import get_dandi_sources
    from lazynwb.terminal_text import visible

    try:
        found = get_dandi_sources(dandiset, version, max_assets=limit, order=order)
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        raise UsageError(str(error)) from error
    if not found and limit != 0:
        raise NothingFoundError(f"dandiset {dandiset} has no NWB file in this version")

    def lines() -> None:
        for url in found:
            typer.echo(visible(url, None))

    emit(pl.DataFrame({"source": found}, schema={"source": pl.String}), target, lines)


@cache_app.command("info")
def cache_info(*, form: FormatOption = None, output: OutputOption = None) -> None:
    """Show where the catalog cache and the column store are, and how large."""
    target = target_of(form, output)
    _apply_project()
    import polars as pl

    from lazynwb.catalog.disk_cache import usage
    from lazynwb.cli.render import Column, show, size_text
    from lazynwb.column_store.store import column_store
    from lazynwb.config import config
    from lazynwb.terminal_text import visible

    entries, size = usage()
    parts, stored = column_store().usage()
    frame = pl.DataFrame(
        {
            "folder": [str(config.cache_path)],
            "entries": [entries],
            "bytes": [size],
            "max_bytes": [config.cache_max_bytes],
            "column_parts": [parts],
            "column_bytes": [stored],
            "max_column_bytes": [config.column_cache_bytes],
            "disabled": [config.disable_cache],
        }
    )

    def lines() -> None:
        said = {
            "folder": visible(config.cache_path, None),
            "entries": f"{entries:,}",
            "size": f"{size_text(size)} of at most {size_text(config.cache_max_bytes)}",
            "small columns": f"{size_text(stored)} of at most {size_text(config.column_cache_bytes)}",
            "in use": "no (disable_cache)" if config.disable_cache else "yes",
        }
        show([Column("cache", list(said)), Column("", list(said.values()))])

    emit(frame, target, lines)


@cache_app.command("clear")
def cache_clear() -> None:
    """Forget what is remembered of files; no query needs it, but the next one takes longer."""
    _apply_project()
    from lazynwb.catalog.disk_cache import usage
    from lazynwb.cli.render import count_text, say, size_text
    from lazynwb.column_store.store import column_store
    from lazynwb.config import config
    from lazynwb.lookup.catalog_cache import clear_cache

    entries, size = usage()
    parts, stored = column_store().usage()
    entries, size = entries + parts, size + stored
    clear_cache()
    say(f"{count_text(entries, 'file')} removed ({size_text(size)}) from {config.cache_path}")


def _apply_project() -> None:
    from lazynwb.cli.project_file import find

    project = find()
    if project is not None:
        project.apply()


def demo(
    *,
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="SOURCE", help="Files, folders or patterns; without any, a cube is made."),
    ] = None,
) -> None:
    """Run the queries of a demonstration over a small cube that is made for it, or over your files."""
    from lazynwb.cli.output import harmless_stdout
    from lazynwb.demo.__main__ import main

    with harmless_stdout():
        code = main(sources or [])
    raise typer.Exit(code)
