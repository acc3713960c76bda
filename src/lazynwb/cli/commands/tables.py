"""`lazynwb tables` and `lazynwb schema`: the tables of many files, and the columns of one table."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

from lazynwb.cli.render import Column, count_text, show, type_name, write_remark
from lazynwb.terminal_text import visible

if TYPE_CHECKING:
    import polars as pl

    from lazynwb.cli.options import CommandSources
    from lazynwb.lookup.loader import TableFile
    from lazynwb.storage.source import Source

#: Maximum length of a column's description.
_DESCRIPTION = 200


def list_tables(command_sources: CommandSources, *, ignore_errors: bool) -> tuple[pl.DataFrame, int]:
    """Return one row for each table and series of the files, and the number of files.

    Raises
    ------
    LazyNWBError
        If a file cannot be read, and errors are not ignored.
    """
    import polars as pl

    from lazynwb.config import config
    from lazynwb.lookup.table_listing import find_tables, shortest_names, warn_of_broken_links
    from lazynwb.progress import Progress
    from lazynwb.sql import METADATA_NAMES
    from lazynwb.storage.remote_state import save
    from lazynwb.storage.resolve import expand

    sources = expand(command_sources.sources, command_sources.storage)
    broken: dict[str, str] = {}
    holders = find_tables(
        sources,
        series=True,
        ignore_errors=ignore_errors,
        disable_progress=config.disable_progress,
        broken=broken,
    )
    warn_of_broken_links(broken, holders)
    names = shortest_names(list(holders), METADATA_NAMES)
    rows = []
    tables_left = Counter(source for having in holders.values() for source in having)
    total = len(tables_left)
    with Progress("Counting rows", total, disabled=False) as progress:
        for path, having in holders.items():
            files = _load([(source, path) for source in having], ignore_errors=ignore_errors)
            rows.append(
                {
                    "table": f"/{path}",
                    "sql_name": names[path],
                    "kind": files[0].table.kind if files else None,
                    "rows": sum(file.table.rows for file in files),
                    "columns": len(
                        {name for file in files for name, c in file.columns.items() if not c.is_broken}
                    ),
                    "files": len(files),
                }
            )
            tables_left.subtract(having)
            progress.update(sum(tables_left[source] == 0 for source in having))
    save()
    counts = dict.fromkeys(("rows", "columns", "files"), pl.Int64)
    schema = {"table": pl.String, "sql_name": pl.String, "kind": pl.String, **counts}
    return pl.DataFrame(rows, schema=schema), total or len(sources)


def _load(pairs: list[tuple[Source, str]], *, ignore_errors: bool) -> list[TableFile]:
    from lazynwb.errors import BrokenTableLinkError, LazyNWBError, may_skip
    from lazynwb.lookup.prefetch import load_pairs

    found = []
    for load in load_pairs(pairs):
        try:
            file = load()
        except BrokenTableLinkError as error:
            logging.getLogger("lazynwb").warning("%s", error)
            continue
        except LazyNWBError as error:
            if not may_skip(error, ignore_errors=ignore_errors):
                raise
            continue  # the search for tables has logged a warning
        if file is not None:
            found.append(file)
    return found


def show_tables(frame: pl.DataFrame, files: int) -> None:
    """Print tables and series."""
    rows = frame.rows(named=True)
    columns = [
        Column("table", [visible(row["table"], None) for row in rows], whole=True),
        Column("rows", [f"{row['rows']:,}" for row in rows], right=True),
        Column("columns", [f"{row['columns']:,}" for row in rows], right=True),
        Column("files", [f"{row['files']:,}" for row in rows], right=True),
        Column("kind", [row["kind"] for row in rows], style="cyan"),
        Column("name in SQL", [_in_sql(row["sql_name"]) for row in rows]),
    ]
    if not rows:
        write_remark(f"no tables or series in {count_text(files, 'file')}")
        return
    hidden = show(columns)
    more = f"; not shown: {', '.join(hidden)}; see --format csv" if hidden else ""
    write_remark(f"{count_text(len(rows), 'table')} in {count_text(files, 'file')}{more}")


def _in_sql(name: str) -> str:
    plain = name.isascii() and name.replace("_", "a").isalnum() and not name[:1].isdigit()
    return visible(name if plain else '"' + name.replace('"', '""') + '"', None)


def scan(command_sources: CommandSources, table: str, **options: Any) -> tuple[pl.LazyFrame, str]:  # noqa: ANN401 - of scan_nwb
    """Return the LazyFrame and the path of a table, which is given by its path or by its name in SQL.

    Raises
    ------
    LazyNWBError
        As `scan_nwb` does.
    """
    from lazynwb.config import config
    from lazynwb.errors import TableNotFoundError
    from lazynwb.lookup.names import resolve_table
    from lazynwb.lookup.schema import is_pattern
    from lazynwb.lookup.table_listing import find_tables, shortest_names
    from lazynwb.scan import scan_nwb
    from lazynwb.sql import METADATA_NAMES
    from lazynwb.storage.resolve import expand

    sources = expand(command_sources.sources, command_sources.storage)
    try:
        if is_pattern(table):
            return scan_nwb(sources, table, **options), table
        path = resolve_table(sources, table, ignore_errors=options.get("ignore_errors", False))
        return scan_nwb(sources, f"/{path.lstrip('/')}", **options), path
    except TableNotFoundError:
        holders = find_tables(
            sources, series=True, ignore_errors=True, disable_progress=config.disable_progress
        )
        names = shortest_names(list(holders), METADATA_NAMES)
        found = next((path for path, name in names.items() if name == table), None)
        if found is None:
            raise
    return scan_nwb(sources, f"/{found}", **options), found


def list_columns(
    command_sources: CommandSources, table: str, *, ignore_errors: bool
) -> tuple[pl.DataFrame, pl.Schema]:
    """Return a row for each column of a table, and the table's schema.

    Rows have the type over all files, the number of files that have the column, and its description.

    Raises
    ------
    TableNotFoundError
        If no file has the table.
    LazyNWBError
        If a file cannot be read, and errors are not ignored.
    """
    import polars as pl

    from lazynwb.lookup.names import match_tables
    from lazynwb.lookup.schema import is_pattern
    from lazynwb.storage.resolve import expand

    frame, path = scan(command_sources, table, ignore_errors=ignore_errors)
    schema = frame.collect_schema()
    sources = expand(command_sources.sources, command_sources.storage)
    tables = match_tables(sources, path, ignore_errors=ignore_errors) if is_pattern(path) else None
    pairs = [(source, path) for source in sources]
    if tables is not None:
        pairs = [(source, one) for source in tables for one in tables[source]]
    files = _load(pairs, ignore_errors=ignore_errors)
    descriptions = _descriptions(files)
    holding = {name: len({file.source for file in files if name in file.columns}) for name in schema}
    columns = pl.DataFrame(
        {
            "column": list(schema),
            "dtype": [str(dtype) for dtype in schema.values()],
            "files": [holding[name] or None for name in schema],
            "description": [descriptions.get(name) for name in schema],
        },
        schema={"column": pl.String, "dtype": pl.String, "files": pl.Int64, "description": pl.String},
    )
    return columns, schema


def _descriptions(files: list[TableFile]) -> dict[str, str]:
    """Return the descriptions of columns in the first file (hdmf-common: VectorData.description)."""
    from lazynwb.errors import LazyNWBError
    from lazynwb.lookup.loader import load_attributes

    if not files:
        return {}
    try:
        attributes: dict[str, dict[str, Any]] = (
            load_attributes(files[0].source, files[0].table.path.rstrip("/")) or {}
        )
    except LazyNWBError:
        return {}  # columns are listed without descriptions
    texts = {name: one.get("description") for name, one in attributes.items() if name}
    return {name: text for name, text in texts.items() if isinstance(text, str) and text}


def show_columns(frame: pl.DataFrame, schema: pl.Schema, table: str) -> None:
    """Print the columns of a table."""
    rows = frame.rows(named=True)
    hidden = show(
        [
            Column("column", [visible(row["column"], None) for row in rows], whole=True),
            Column("type", [type_name(schema[row["column"]]) for row in rows], style="cyan"),
            Column("files", [f"{row['files']:,}" if row["files"] else None for row in rows], right=True),
            Column(
                "description",
                [visible(row["description"], _DESCRIPTION) if row["description"] else None for row in rows],
            ),
        ]
    )
    more = f"; not shown: {', '.join(hidden)}; see --format csv" if hidden else ""
    write_remark(f"{count_text(len(rows), 'column')} of {table}{more}")
