"""`lazynwb demo`: queries over a small cube of sessions, or over given files."""

from typing import Annotated

import typer


def demo(
    *,
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="SOURCE", help="Files, folders or patterns. Default: synthetic sessions."),
    ] = None,
) -> None:
    """Run demonstration queries on synthetic sessions or on your files."""
    from lazynwb.cli.output import escaped_stdout
    from lazynwb.demo.__main__ import show_demo

    with escaped_stdout():
        show_demo(sources or [])
