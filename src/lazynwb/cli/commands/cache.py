"""`lazynwb cache`: the catalog cache and the column store on disk."""

from collections import Counter
from itertools import accumulate, pairwise
from typing import Annotated, NamedTuple

import typer

from lazynwb.cli.base import Command, Group
from lazynwb.cli.options import FormatOption, OutputOption
from lazynwb.cli.output import Target, emit, target_of
from lazynwb.cli.project_file import apply_project

cache_app = typer.Typer(cls=Group, help="Show or clear the cache on disk.", no_args_is_help=True)


class CachedSource(NamedTuple):
    """Cached data of one source, in all of its versions.

    Attributes
    ----------
    source : str
        Absolute path, or URL without a query.
    catalog_bytes : int
        Size of the cached structure, and of the cached bytes of a remote file.
    column_bytes : int
        Size of the stored columns: the source's share of the parts that hold them, by rows.
    tables : tuple of str
        Tables with columns or rows in the column store.
    """

    source: str
    catalog_bytes: int
    column_bytes: int
    tables: tuple[str, ...]


def cached_sources() -> list[CachedSource]:
    """Return the cached data of each source, sorted by the name of the source."""
    from lazynwb.catalog.disk_cache import all_entries
    from lazynwb.column_store.store import column_store

    catalog: Counter[str] = Counter()
    columns: Counter[str] = Counter()
    tables: dict[str, set[str]] = {}
    for key, size in all_entries():
        kind, _, rest = key.partition("\0")
        if kind:  # earlier versions stored entries without a key
            catalog[rest.partition("\0")[0]] += size
    for part, size in column_store().all_parts():
        weights = [session.rows + 1 for session in part.entry.sessions]
        bounds = [size * end // sum(weights) for end in accumulate(weights, initial=0)]
        table = part.entry.table.partition("\0")[0]
        for session, (start, stop) in zip(part.entry.sessions, pairwise(bounds), strict=True):
            source = session.key.partition("\0")[0]
            columns[source] += stop - start
            tables.setdefault(source, set()).add(table)
    return [
        CachedSource(source, catalog[source], columns[source], tuple(sorted(tables.get(source, ()))))
        for source in sorted(catalog.keys() | columns.keys())
    ]


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
    from lazynwb.terminal_text import visible

    cached = sorted(cached_sources(), key=lambda one: one.catalog_bytes + one.column_bytes, reverse=True)
    frame = pl.DataFrame(
        cached,
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
                Column("source", [visible(one.source, None) for one in cached], tail=True),
                Column("structure", [size_text(one.catalog_bytes) for one in cached], right=True),
                Column("small columns", [size_text(one.column_bytes) for one in cached], right=True),
                Column(
                    "of tables", [visible(", ".join(f"/{t}" for t in one.tables), None) for one in cached]
                ),
            ]
        )

    emit(frame, target, lines)


@cache_app.command("clear", cls=Command)
def cache_clear() -> None:
    """Delete the cache. Results do not change, but the next queries take longer."""
    apply_project()
    from lazynwb.catalog.disk_cache import usage
    from lazynwb.cli.render import count_text, size_text, write_remark
    from lazynwb.column_store.store import column_store
    from lazynwb.config import config
    from lazynwb.lookup.catalog_cache import clear_cache

    entries, size = usage()
    parts, stored = column_store().usage()
    entries, size = entries + parts, size + stored
    clear_cache()
    write_remark(f"{count_text(entries, 'file')} removed ({size_text(size)}) from {config.cache_path}")
