"""`lazynwb dandi`: the files of the DANDI archive."""

from typing import Annotated

import typer

from lazynwb.cli.base import Command, Group, NothingFoundError, UsageError
from lazynwb.cli.options import FormatOption, OutputOption
from lazynwb.cli.output import emit, target_of
from lazynwb.cli.project_file import apply_project

dandi_app = typer.Typer(cls=Group, help="List files of the DANDI archive.", no_args_is_help=True)


@dandi_app.command("ls", cls=Command)
def dandi_ls(  # noqa: PLR0913
    *,
    dandiset: Annotated[str, typer.Argument(metavar="ID", help="Identifier of a dandiset, such as 000363.")],
    version: Annotated[
        str | None,
        typer.Option(
            help="Version, such as 0.231012.2129 or draft. Default: the newest published one, or the draft."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=0, help="Maximum number of files.")
    ] = None,
    order: Annotated[
        str, typer.Option(help="Sort by path, created or modified; a leading minus reverses the order.")
    ] = "path",
    output_format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """List the URLs of the NWB files of a dandiset, for use with other commands.

    For example: lazynwb dandi ls 000363 -n 3 | lazynwb tables -
    """
    target = target_of(output_format, output)
    apply_project()
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
