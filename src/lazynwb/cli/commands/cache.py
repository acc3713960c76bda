"""`lazynwb cache`: the catalog cache and the column store on disk."""

import typer

from lazynwb.cli.options import FormatOption, OutputOption
from lazynwb.cli.output import emit, target_of
from lazynwb.cli.project_file import apply_project

cache_app = typer.Typer(help="The catalog cache and the column store.", no_args_is_help=True)


@cache_app.command("info")
def cache_info(*, form: FormatOption = None, output: OutputOption = None) -> None:
    """Show where the catalog cache and the column store are, and how large."""
    target = target_of(form, output)
    apply_project()
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
