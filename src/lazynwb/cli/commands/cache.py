"""`lazynwb cache`: the catalog cache and the column store on disk."""

from typing import Annotated

import typer

from lazynwb.cli.base import Command, Group
from lazynwb.cli.options import FormatOption, OutputOption
from lazynwb.cli.output import Target, emit, target_of
from lazynwb.cli.project_file import apply_project

cache_app = typer.Typer(cls=Group, help="Show or clear the cache on disk.", no_args_is_help=True)


@cache_app.command("info", cls=Command)
def cache_info(
    *,
    sources: Annotated[
        bool, typer.Option("--sources", help="List the cached sources with their sizes in bytes.")
    ] = False,
    output_format: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Show the folder and size of the catalog cache and the column store."""
    target = target_of(output_format, output)
    apply_project()
    if sources:
        _show_sources(target)
        return
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
        values = {
            "folder": visible(config.cache_path, None),
            "entries": f"{entries:,}",
            "size": f"{size_text(size)} of at most {size_text(config.cache_max_bytes)}",
            "small columns": f"{size_text(stored)} of at most {size_text(config.column_cache_bytes)}",
            "in use": "no (disable_cache)" if config.disable_cache else "yes",
            "sources": "lazynwb cache info --sources",
        }
        show([Column("cache", list(values)), Column("", list(values.values()))])

    emit(frame, target, lines)


def _show_sources(target: Target) -> None:
    import polars as pl

    from lazynwb.cli.render import Column, show, size_text
    from lazynwb.lookup.inventory import inventory
    from lazynwb.terminal_text import visible

    held = sorted(inventory(), key=lambda one: one.catalog_bytes + one.column_bytes, reverse=True)
    frame = pl.DataFrame(
        held,
        schema={
            "source": pl.String,
            "catalog_bytes": pl.Int64,
            "column_bytes": pl.Int64,
            "tables": pl.List(pl.String),
        },
        orient="row",
    )

    def lines() -> None:
        show(
            [
                Column("source", [visible(one.source, None) for one in held], tail=True),
                Column("structure", [size_text(one.catalog_bytes) for one in held], right=True),
                Column("small columns", [size_text(one.column_bytes) for one in held], right=True),
                Column("of tables", [visible(", ".join(f"/{t}" for t in one.tables), None) for one in held]),
            ]
        )

    emit(frame, target, lines)


@cache_app.command("clear", cls=Command)
def cache_clear() -> None:
    """Delete the cache. Results do not change, but the next queries take longer."""
    apply_project()
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
