"""Metadata of the files as columns of every row, known before anything else of a file is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from lazynwb.catalog.provenance import NWB_PATH
from lazynwb.lookup.given import UNKNOWN, Summaries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from lazynwb.lookup.given import Catalogs
    from lazynwb.lookup.sessions import SessionColumn
    from lazynwb.sources.source import Source


def session_frame(
    sources: Sequence[Source],
    columns: Iterable[SessionColumn],
    scan: Callable[[tuple[Source, ...], str, dict[str, pl.DataType]], Iterator[pl.DataFrame]],
) -> pl.DataFrame:
    """Read metadata of files.

    Parameters
    ----------
    sources : sequence of Source
    columns : iterable of SessionColumn
    scan : callable
        Yields the rows of a table of files: the given columns, and `_nwb_path`.

    Returns
    -------
    DataFrame
        A row for each source, with `_nwb_path` and the given columns; null where a file does not say.
    """
    found = pl.DataFrame({NWB_PATH: pl.Series([source.path for source in sources], dtype=pl.String)})
    distinct = tuple({source.path: source for source in sources}.values())
    wanted = list(columns)
    for table in dict.fromkeys(column.table for column in wanted):
        own = [column for column in wanted if column.table == table]
        rows = pl.concat(scan(distinct, table, {column.column: column.dtype for column in own}))
        named = [pl.col(column.column).alias(column.name) for column in own]
        found = found.join(rows.select(NWB_PATH, *named), on=NWB_PATH, how="left", maintain_order="left")
    return found


def parted(
    sources: tuple[Source, ...], table: str, catalogs: Catalogs | None
) -> tuple[tuple[Source, ...], tuple[Source, ...]]:
    """Part the files that catalogs know from the others: what is known is not read because of these."""
    if not isinstance(catalogs, Summaries):
        return (), sources
    found = list(zip(sources, catalogs.schemas(sources, table), strict=True))
    return tuple(s for s, one in found if one is not UNKNOWN), tuple(s for s, one in found if one is UNKNOWN)
