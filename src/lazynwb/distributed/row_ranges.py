"""Row ranges of a large table, each of which is a separate task."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from lazynwb.arrays.size_estimates import max_table_bytes
from lazynwb.catalog.model import grid_of
from lazynwb.config import config
from lazynwb.engine.timestamps import TIMESTAMPS

if TYPE_CHECKING:
    from collections.abc import Collection

    from lazynwb.lookup.loader import TableFile

#: A half-open range of rows; an end of None includes all rows of the file at the time of the read.
RowRange: TypeAlias = tuple[int, int | None]


def row_ranges(
    file: TableFile | None, names: Collection[str], filtered: Collection[str], rows: int | None
) -> list[RowRange]:
    """Return the ranges into which the rows of a table are divided, in order.

    A range has about one batch (`config.batch_bytes`) of decoded values. It starts at a chunk boundary of the
    largest array, so that no chunk is decoded twice.

    Parameters
    ----------
    file : TableFile or None
        The table; None if it is unknown, which results in one range.
    names : collection of str
        Columns to read.
    filtered : collection of str
        Columns of the predicate. A series with a predicate on timestamps, of which few rows are read, is not
        divided.
    rows : int or None
        Number of rows to scan, from the first; None for all.
    """
    whole: list[RowRange] = [(0, rows)]
    if file is None or (file.table.kind == "series" and TIMESTAMPS in filtered):
        return whole
    total = file.table.rows
    stop = total if rows is None else min(rows, total)
    pieces = max_table_bytes(file, names) * stop // max(total, 1) // config.batch_bytes
    if pieces < 2:  # noqa: PLR2004 - nothing to divide
        return whole
    chunks, unit = _chunks(file, names)
    units = -(-stop // unit)
    pieces = min(pieces, chunks, units)
    edges = [unit * (units * n // pieces) for n in range(pieces)]
    return list(zip(edges, [*edges[1:], rows], strict=True))


def _chunks(file: TableFile, names: Collection[str]) -> tuple[int, int]:
    """Return the number of chunks of the largest array along its rows, and the rows of a chunk.

    Chunks of a ragged column have no fixed number of rows: they count as one chunk.
    """
    size, found = 0, (file.table.rows, 1)
    for name in names:
        column = file.columns.get(name)
        for child in () if column is None else (column.children or (column,)):
            array = child.data
            if array is None or child.lengths or (own := max_table_bytes(file, [name])) <= size:
                continue
            size = own
            if array.chunk:
                found = grid_of(array)[0], 1 if child.indices else max(array.chunk[0], 1)
            elif array.layout == "inline":
                found = 1, 1
            else:
                found = max(array.rows, 1), 1
    return found
