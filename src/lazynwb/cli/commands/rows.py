"""Rows of tables: `head` and `query`."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

from lazynwb.cli.output import write
from lazynwb.cli.render import columns_of, count_text, show, show_vertically, write_remark

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars as pl

    from lazynwb.cli.options import CommandSources
    from lazynwb.cli.output import Target

#: Default number of rows in a printed table.
SHOWN = 20
#: Columns that identify a row, which are shown first.
_NAMING = (
    "id",
    "unit_id",
    "unit_name",
    "session_id",
    "subject_id",
    "start_time",
    "stop_time",
    "timestamps",
    "data",
)
#: Words of a query: identifiers in double quotes, in backticks, and without quotes.
_WORD = re.compile(r'"((?:[^"]|"")*)"|`([^`]*)`|([^\W\d][\w$]*)')
_FROM = re.compile(r"\b(from|join)\b", re.IGNORECASE)
_NO_SUCH_TABLE = re.compile(r"relation '(.*)' was not found")


def show_rows(frame: pl.DataFrame, rest: str, *, vertical: bool) -> None:
    """Print rows as a table, followed by the number of rows and columns."""
    words = [rest]
    if vertical:
        show_vertically(columns_of(frame))
    elif hidden := show(columns_of(frame)):
        words.append(f"{frame.width - len(hidden)} of {frame.width} columns fit: --vertical shows all")
    write_remark("; ".join(filter(None, words)))


# -- head -------------------------------------------------------------------------------------------------


def head(  # noqa: PLR0913 - the options of a command
    command_sources: CommandSources,
    table: str,
    rows: int,
    target: Target,
    *,
    columns: Sequence[str] | None,
    exclude_arrays: bool,
    lengths: bool,
    ignore_errors: bool,
) -> None:
    """Print or write the first rows of a table.

    Raises
    ------
    ColumnNotFoundError
        If the table lacks one of the columns.
    LazyNWBError
        As `scan_nwb` does.
    """
    import polars as pl
    from polars import selectors

    from lazynwb.cli.commands.tables import scan
    from lazynwb.scan import without_unreadable

    frame, _ = scan(
        command_sources,
        table,
        exclude_array_columns=exclude_arrays,
        length_columns=lengths,
        ignore_errors=ignore_errors,
    )
    chosen = _chosen(frame, table, columns) if columns else frame
    if not target.is_table:
        write(chosen.head(rows), target)
        return
    if not columns:
        readable = without_unreadable(frame.collect_schema(), table, with_arrays=True)
        chosen = frame.select(selectors.by_name(*_display_order(readable)))
    found = chosen.head(rows).collect(engine="streaming")
    total = found.height if found.height < rows else frame.select(pl.len()).collect().item()
    show_rows(found, f"{found.height:,} of {count_text(total, 'row')}", vertical=target.vertical)


def _display_order(schema: Mapping[str, pl.DataType]) -> list[str]:
    """Return column names in display order: identifiers and times, other columns with one value, arrays."""
    from lazynwb.catalog.dtypes import INTERNAL, is_array_dtype

    def place(name: str) -> int:
        if name in INTERNAL:
            return 2
        if name in _NAMING:
            return _NAMING.index(name) - len(_NAMING)
        return 3 if is_array_dtype(schema[name]) else 1

    return sorted(schema, key=place)


def _chosen(frame: pl.LazyFrame, table: str, columns: Sequence[str]) -> pl.LazyFrame:
    from polars import selectors

    from lazynwb.errors import ColumnNotFoundError
    from lazynwb.suggestions import similar_or_existing

    existing = list(frame.collect_schema())
    for name in columns:
        if name not in existing:
            raise ColumnNotFoundError(f"{table} has no column {name!r}{similar_or_existing(name, existing)}")
    return frame.select(selectors.by_name(*columns))


# -- query ------------------------------------------------------------------------------------------------


def query(  # noqa: PLR0913 - the options of a command
    sql: str,
    command_sources: CommandSources,
    rows: int | None,
    target: Target,
    *,
    full_path: bool,
    exclude_arrays: bool,
    lengths: bool,
    ignore_errors: bool,
) -> None:
    """Run a query, and print its first rows or write all of them in batches.

    Raises
    ------
    TableNotFoundError
        If no file has a table of the query.
    LazyNWBError
        If a file cannot be read, and errors are not ignored.
    PolarsError
        If the query is invalid, or a column does not exist.
    """
    from lazynwb.errors import TableNotFoundError
    from lazynwb.sql import get_sql_context
    from lazynwb.storage.resolve import expand

    sources = expand(command_sources.sources, command_sources.storage)
    named = _tables_in(sql)
    context_of = partial(
        get_sql_context,
        sources,
        full_path=full_path,
        exclude_array_columns=exclude_arrays,
        length_columns=lengths,
        ignore_errors=ignore_errors,
        storage_options=command_sources.storage,
    )
    try:
        frame = _lazy(context_of(table_names=named), sql)
    except TableNotFoundError:
        if named is None:
            raise
        frame = _lazy(context_of(), sql)  # with all tables, for an error that lists them
    if not target.is_table:
        write(frame if rows is None else frame.head(rows), target)
        return
    limit = SHOWN if rows is None else rows
    found = frame.head(limit + 1).collect(engine="streaming")
    more = found.height > limit
    rest = f"first {count_text(limit, 'row')}; -n shows more" if more else ""
    show_rows(found.head(limit), rest or count_text(found.height, "row"), vertical=target.vertical)


def _lazy(context: pl.SQLContext[Any], sql: str) -> pl.LazyFrame:
    """Return the LazyFrame of a query.

    Raises
    ------
    TableNotFoundError
        If a table does not exist; the message lists those that do.
    """
    import polars as pl

    from lazynwb.errors import TableNotFoundError
    from lazynwb.suggestions import similar_or_existing

    try:
        found: pl.LazyFrame = context.execute(sql, eager=False)
        found.collect_schema()  # resolves the query
    except pl.exceptions.PolarsError as error:
        absent = _NO_SUCH_TABLE.search(str(error))
        if absent is None:
            raise
        reason = str(error).partition("was not found")[2].partition("\n")[0]
        raise TableNotFoundError(
            f"no table {absent[1]!r}{reason or similar_or_existing(absent[1], context.tables())}"
        ) from error
    return found


def _tables_in(sql: str) -> set[str] | None:
    """Return the words of a query that may be names of tables; None if it may use any table.

    Schemas of other tables are not inferred.
    """
    if not _FROM.search(sql):
        return None
    return {(quoted or back or plain).replace('""', '"') for quoted, back, plain in _WORD.findall(sql)}
