"""Selection of the tables to convert: their files, schemas over all files, and output names."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

import polars as pl
from polars import selectors

from lazynwb.catalog.dtypes import NWB_PATH
from lazynwb.convert.output_names import distinct_names, names_of
from lazynwb.errors import LazyNWBError, TableNotFoundError, may_skip
from lazynwb.lookup.prefetch import load_tables
from lazynwb.lookup.schema import normalize_table_path
from lazynwb.lookup.table_listing import (
    broken_link_hint,
    find_tables,
    no_tables_message,
    shortest_names,
    warn_of_broken_links,
)
from lazynwb.scan import lazy_frame, plan_scan
from lazynwb.suggestions import did_you_mean, join_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from lazynwb.lookup.loader import TableFile
    from lazynwb.storage.source import Source

_LOGGER = logging.getLogger("lazynwb")


class Request(NamedTuple):
    """Options of a conversion.

    Attributes
    ----------
    full_path, exclude_array_columns, ignore_errors, disable_progress : bool
    min_file_count : int
    tables : tuple of str or None
        Names or paths; None for all tables.
    layout : str
        "table", "subdirectories" (of sessions), "session" or "subject" (partitions).
    partition_by : str or None
        "session" or "subject", by which a Delta table is partitioned; it is also added as a column.
    """

    full_path: bool
    exclude_array_columns: bool
    ignore_errors: bool
    disable_progress: bool
    min_file_count: int
    tables: tuple[str, ...] | None
    layout: str
    partition_by: str | None


class Table(NamedTuple):
    """One table of all files: a lazy frame, its schema, and the name of the output."""

    path: str
    name: str
    frame: pl.LazyFrame
    schema: dict[str, pl.DataType]
    files: tuple[TableFile, ...]
    partitions: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Name in messages."""
        return f"/{self.path}"


def find(sources: Sequence[Source], request: Request) -> dict[str, list[Source]]:
    """Return the tables to convert, with the files that have them.

    Raises
    ------
    TableNotFoundError
        If no table exists, or a requested table does not exist.
    """
    failures: list[str] = []
    broken: dict[str, str] = {}
    holders = find_tables(
        sources,
        broken=broken,
        failures=failures,
        series=request.tables is not None,
        ignore_errors=request.ignore_errors,
        disable_progress=request.disable_progress,
    )
    if request.tables is None:
        warn_of_broken_links(broken, holders)
    else:
        chosen: list[str] = []
        for name in request.tables:
            path = normalize_table_path(name)
            found = [t for t in holders if t == path] or [
                t for t in holders if t.rsplit("/", 1)[-1] == name.strip("/")
            ]
            if not found:
                raise TableNotFoundError(_not_found(name, holders, sources) + broken_link_hint(name, broken))
            chosen += found
        holders = {path: having for path, having in holders.items() if path in chosen}
    holders = {path: having for path, having in holders.items() if len(having) >= request.min_file_count}
    if not holders:
        message = no_tables_message(sources, failures)
        if request.min_file_count > 1:
            message += f" in at least {request.min_file_count} files (min_file_count)"
        if request.tables is None:
            message += "; to convert a TimeSeries, pass its name in `tables`"
        raise TableNotFoundError(message)
    return holders


def _not_found(name: str, holders: Mapping[str, object], sources: Sequence[Source]) -> str:
    hint = did_you_mean(name, holders, "/")
    shown = join_names(holders, prefix="/")
    return f"no table {name!r} in any of {len(sources)} files{hint}; available tables: {shown or 'none'}"


def open_tables(
    holders: Mapping[str, list[Source]], request: Request, failures: list[str]
) -> Iterator[Table]:
    """Yield each table with its schema over all files; record and skip tables that cannot be read.

    Raises
    ------
    LazyNWBError
        If a table cannot be read, unless errors are ignored.
    """
    short = {path: path for path in holders} if request.full_path else shortest_names(list(holders), {})
    names = distinct_names({path: short[path].replace("/", "_") for path in holders})
    for path, sources in holders.items():
        try:
            files = tuple(_load(sources, path, request, failures))
            if not files:
                continue
            scan = plan_scan(
                tuple(file.source for file in files),
                f"/{path}",
                exclude_array_columns=request.exclude_array_columns,
                ignore_errors=request.ignore_errors,
                disable_progress=request.disable_progress or request.layout != "table",
            )
            scan.check_types(scan.schema)
            frame = lazy_frame(scan)
        except LazyNWBError as error:
            if not may_skip(error, ignore_errors=request.ignore_errors):
                raise
            failures.append(f"/{path}: {error}")
            continue
        schema = dict(frame.collect_schema())
        unknown = [name for name, dtype in schema.items() if isinstance(dtype, pl.Null)]
        if unknown:
            _LOGGER.warning(
                "/%s is converted without %s: their stored types are not supported (first file: %s)",
                path,
                ", ".join(map(repr, unknown)),
                next((f.name for f in files if unknown[0] in f.columns), files[0].name),
            )
            schema = {name: dtype for name, dtype in schema.items() if name not in unknown}
            frame = frame.select(selectors.by_name(*schema))
        table = Table(path, names[path], frame, schema, files)
        yield _labelled(table, request) if request.partition_by else table


def _labelled(table: Table, request: Request) -> Table:
    """Add the column of the session or subject by which a Delta table is partitioned."""
    kind = request.partition_by or ""
    values = names_of([file.source for file in table.files], kind, disable_progress=request.disable_progress)
    column = partition_column(table.schema, kind)
    label = pl.col(NWB_PATH).replace_strict(list(values), list(values.values()), return_dtype=pl.String)
    return table._replace(
        frame=table.frame.with_columns(label.alias(column)),
        schema={**table.schema, column: pl.String()},
        partitions=(column,),
    )


def _load(sources: Sequence[Source], path: str, request: Request, failures: list[str]) -> Iterator[TableFile]:
    for source, load in zip(sources, load_tables(sources, path), strict=True):
        try:
            file = load()
        except LazyNWBError as error:
            if not may_skip(error, ignore_errors=request.ignore_errors):
                raise
            failures.append(f"/{path} of {source.name}: {error}")
            continue
        if file is not None:
            yield file


def partition_column(schema: Iterable[str], kind: str) -> str:
    """Return the name of a partition column, which differs from all columns of the table."""
    taken = {name.lower() for name in schema}
    return kind if kind not in taken else f"nwb_{kind}"
