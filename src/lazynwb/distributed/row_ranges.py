"""Ranges of rows of a large table, each of which is a task of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from lazynwb.arrays.size_estimates import most_bytes
from lazynwb.catalog.model import grid_of
from lazynwb.config import config
from lazynwb.engine.timestamps import TIMESTAMPS

if TYPE_CHECKING:
    from collections.abc import Collection

    from lazynwb.lookup.loader import TableFile

#: The first row, and the one behind the last: None for all that the file has when it is read.
RowRange: TypeAlias = tuple[int, int | None]


def row_ranges(
    file: TableFile | None, names: Collection[str], filtered: Collection[str], rows: int | None
) -> list[RowRange]:
    """Return the ranges into which the rows of a table are divided, in order.

    Each takes about one batch (`config.batch_bytes`) of decoded values, and begins where a chunk of the
    largest array does, so that no chunk is decoded twice.

    Parameters
    ----------
    file : TableFile or None
        None where nothing is known of it: one range.
    names : collection of str
        Columns that are needed.
    filtered : collection of str
        Columns that are filtered by. A filter on timestamps reads few rows of a series, and divides none.
    rows : int or None
        Rows that are looked at, the first ones.
    """
    whole: list[RowRange] = [(0, rows)]
    if file is None or (file.table.kind == "series" and TIMESTAMPS in filtered):
        return whole
    total = file.table.rows
    stop = total if rows is None else min(rows, total)
    pieces = most_bytes(file, names) * stop // max(total, 1) // config.batch_bytes
    if pieces < 2:  # noqa: PLR2004 - nothing to divide
        return whole
    chunks, unit = _chunks(file, names)
    units = -(-stop // unit)
    pieces = min(pieces, chunks, units)
    edges = [unit * (units * n // pieces) for n in range(pieces)]
    return list(zip(edges, [*edges[1:], rows], strict=True))


def _chunks(file: TableFile, names: Collection[str]) -> tuple[int, int]:
    """Return how many chunks the largest array has along its rows, and the rows of a chunk.

    Those of a ragged column have no certain number of rows: it counts as one.
    """
    size, found = 0, (file.table.rows, 1)
    for name in names:
        column = file.columns.get(name)
        for child in () if column is None else (column.children or (column,)):
            array = child.data
            if array is None or child.lengths or (own := most_bytes(file, [name])) <= size:
                continue
            size = own
            if array.chunk:
                found = grid_of(array)[0], 1 if child.indices else max(array.chunk[0], 1)
            elif array.layout == "inline":
                found = 1, 1
            else:
                found = max(array.rows, 1), 1
    return found
