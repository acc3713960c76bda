"""The commands and their options; implementations are imported when they run, so that `--help` is fast."""

import shlex
from typing import Annotated

import typer

from lazynwb._version import __version__
from lazynwb.cli.base import Command, Group, UsageError
from lazynwb.cli.commands.cache import cache_app
from lazynwb.cli.commands.convert import convert
from lazynwb.cli.commands.dandi import dandi_app
from lazynwb.cli.commands.demo import demo
from lazynwb.cli.commands.index import index_app
from lazynwb.cli.options import (
    AndTableArgument,
    ExcludeArraysOption,
    FormatOption,
    IgnoreErrorsOption,
    LengthsOption,
    OutputOption,
    SourceArgument,
    SourcesArgument,
    StorageOption,
    VerticalOption,
    looks_like_a_source,
    source_of,
    sources_of,
    split_table,
)
from lazynwb.cli.output import target_of

_HELP = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    name="lazynwb",
    cls=Group,
    help="Query many NWB files at once: HDF5 or Zarr, local or remote.",
    epilog="Exit codes: 0 success; 1 failure; 2 wrong usage; 3 no such file or table; 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings=_HELP,
)


def _version(requested: bool) -> None:  # noqa: FBT001 - as typer calls it
    if requested:
        typer.echo(f"lazynwb {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[  # noqa: ARG001 - its callback acts
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[  # noqa: ARG001 - removed from the arguments before, at any position
        bool, typer.Option("--debug", help="Show the traceback of an error; accepted at any position.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print results and errors only: no progress or warnings.")
    ] = False,
) -> None:
    if quiet:
        import logging

        from lazynwb.config import config

        config.disable_progress = True
        logging.getLogger("lazynwb").setLevel(logging.ERROR)


_All = Annotated[bool, typer.Option("--all", "-a", help="List everything, not only tables and series.")]
_Stored = Annotated[
    bool | None,
    typer.Option(
        "--storage/--no-storage",
        help="Show sizes, chunks and compression. Default: for local files only.",
        show_default=False,
    ),
]


@app.command(cls=Command)
def tables(
    *,
    sources: SourcesArgument = None,
    output_format: FormatOption = None,
    output: OutputOption = None,
    ignore_errors: IgnoreErrorsOption = False,
    storage_option: StorageOption = None,
) -> None:
    """List the tables and series of the files, with numbers of rows, columns and files."""
    target = target_of(output_format, output)
    command_sources = sources_of(sources, storage_option)
    from lazynwb.cli.commands.tables import list_tables, show_tables
    from lazynwb.cli.output import emit

    frame, files = list_tables(command_sources, ignore_errors=ignore_errors)
    emit(frame, target, lambda: show_tables(frame, files))


@app.command(cls=Command)
def sessions(  # noqa: PLR0913 - the options of a command
    *,
    sources: SourcesArgument = None,
    index: Annotated[
        str | None,
        typer.Option(
            "--index",
            metavar="INDEX",
            help="Look up sessions in an index; without sources, all of its sessions.",
        ),
    ] = None,
    exclude_series: Annotated[
        bool, typer.Option("--exclude-series", help="Do not count the rows of series.")
    ] = False,
    output_format: FormatOption = None,
    output: OutputOption = None,
    vertical: VerticalOption = False,
    ignore_errors: IgnoreErrorsOption = False,
    storage_option: StorageOption = None,
) -> None:
    """List the sessions, with subject, start, duration, and number of rows of each table."""
    target = target_of(output_format, output, vertical=vertical)
    command_sources = sources_of(sources or ([index] if index else None), storage_option)
    from lazynwb.cli.commands.sessions import list_sessions, show_sessions

    frame = list_sessions(
        command_sources if sources else command_sources._replace(sources=[]),
        index,
        exclude_series=exclude_series,
        ignore_errors=ignore_errors,
    )
    show_sessions(frame, target)


@app.command(cls=Command)
def paths(  # noqa: PLR0913 - the options of a command
    *,
    source: SourceArgument = None,
    everything: _All = False,
    storage: _Stored = None,
    output_format: FormatOption = None,
    output: OutputOption = None,
    storage_option: StorageOption = None,
) -> None:
    """List the tables and series of a file, with shapes, types, sizes and chunks."""
    target = target_of(output_format, output)
    command_sources = source_of(source, storage_option)
    from lazynwb.cli.commands import structure
    from lazynwb.cli.output import emit

    found = structure.describe(command_sources, storage=storage)
    frame = structure.frame_of(found, everything=everything)
    emit(frame, target, lambda: structure.show_paths(found, everything=everything))


@app.command(cls=Command)
def tree(  # noqa: PLR0913
    *,
    source: SourceArgument = None,
    depth: Annotated[int | None, typer.Option("--depth", "-d", min=1, help="Number of levels.")] = None,
    columns: Annotated[
        bool, typer.Option("--columns/--no-columns", help="Show the members of tables and series.")
    ] = True,
    storage: _Stored = None,
    output_format: FormatOption = None,
    output: OutputOption = None,
    storage_option: StorageOption = None,
) -> None:
    """Show the contents of a file as a tree, with shapes, types, sizes and chunks."""
    target = target_of(output_format, output)
    command_sources = source_of(source, storage_option)
    from lazynwb.cli.commands import structure
    from lazynwb.cli.output import emit

    found = structure.describe(command_sources, storage=storage)
    frame = structure.frame_of(found, everything=True)
    emit(frame, target, lambda: structure.show_tree(found, depth=depth, columns=columns))


@app.command(cls=Command)
def schema(
    *,
    arguments: AndTableArgument,
    output_format: FormatOption = None,
    output: OutputOption = None,
    ignore_errors: IgnoreErrorsOption = False,
    storage_option: StorageOption = None,
) -> None:
    """List the columns of a table over all files, with types and numbers of files."""
    target = target_of(output_format, output)
    sources, table = split_table(arguments, "schema")
    command_sources = sources_of(sources, storage_option)
    from lazynwb.cli.commands.tables import list_columns, show_columns
    from lazynwb.cli.output import emit

    frame, types = list_columns(command_sources, table, ignore_errors=ignore_errors)
    emit(frame, target, lambda: show_columns(frame, types, table))


@app.command(cls=Command)
def head(  # noqa: PLR0913
    *,
    arguments: AndTableArgument,
    rows: Annotated[int, typer.Option("--rows", "-n", min=0, help="Number of rows.")] = 10,
    columns: Annotated[
        list[str] | None, typer.Option("--column", "-c", metavar="NAME", help="Select a column; repeatable.")
    ] = None,
    output_format: FormatOption = None,
    output: OutputOption = None,
    vertical: VerticalOption = False,
    exclude_arrays: ExcludeArraysOption = False,
    lengths: LengthsOption = False,
    ignore_errors: IgnoreErrorsOption = False,
    storage_option: StorageOption = None,
) -> None:
    """Show the first rows of a table."""
    target = target_of(output_format, output, vertical=vertical)
    sources, table = split_table(arguments, "head")
    command_sources = sources_of(sources, storage_option)
    from lazynwb.cli.commands import rows as run

    run.head(
        command_sources,
        table,
        rows,
        target,
        columns=columns,
        exclude_arrays=exclude_arrays,
        lengths=lengths,
        ignore_errors=ignore_errors,
    )


@app.command(cls=Command)
def query(  # noqa: PLR0913
    *,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="For example: 'SELECT * FROM units LIMIT 5'.")],
    sources: SourcesArgument = None,
    rows: Annotated[
        int | None,
        typer.Option(
            "--rows", "-n", min=0, help="Maximum number of rows. Default: 20 in a table, all in a file."
        ),
    ] = None,
    output_format: FormatOption = None,
    output: OutputOption = None,
    vertical: VerticalOption = False,
    full_path: Annotated[
        bool, typer.Option("--full-path", help='Name tables by their full path: "intervals/trials".')
    ] = False,
    exclude_arrays: ExcludeArraysOption = False,
    lengths: LengthsOption = False,
    ignore_errors: IgnoreErrorsOption = False,
    storage_option: StorageOption = None,
) -> None:
    """Run an SQL query over the tables of all files.

    `lazynwb tables` lists the names of tables. Results are streamed to files and pipes.
    """
    target = target_of(output_format, output, vertical=vertical)
    if looks_like_a_source(sql):
        raise UsageError("the SQL query comes first: lazynwb query 'SELECT ...' " + shlex.join([sql]))
    command_sources = sources_of(sources, storage_option)
    from lazynwb.cli.commands import rows as run

    run.query(
        sql,
        command_sources,
        rows,
        target,
        full_path=full_path,
        exclude_arrays=exclude_arrays,
        lengths=lengths,
        ignore_errors=ignore_errors,
    )


app.command(cls=Command)(convert)
app.add_typer(dandi_app, name="dandi")
app.add_typer(cache_app, name="cache")
app.add_typer(index_app, name="index")
app.command(cls=Command)(demo)
