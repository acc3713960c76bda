"""Small columns of a table, which are stored.

Filters, joins and group-bys use small columns, and reading stored values is faster than decoding them. Large
arrays (spike times, waveforms, samples) are decoded as fast as stored values could be read.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lazynwb.catalog.dtypes import RESERVED, column_dtype
from lazynwb.catalog.model import stored_size
from lazynwb.column_store.parts import SESSION

if TYPE_CHECKING:
    import polars as pl

    from lazynwb.catalog.model import Column

#: Maximum size of a row: an element of fixed size, or a short array.
MAX_ROW_BYTES = 256
#: Maximum size of a column of one session.
MAX_COLUMN_BYTES = 8 * 1024 * 1024
#: The same for timestamps of a series.
MAX_TIMESTAMPS_BYTES = 1024 * 1024
#: Size up to which a column is always small, such as long text of the metadata.
ALWAYS_SMALL_BYTES = 64 * 1024
_TIMESTAMPS = "timestamps"
_LENGTH_BYTES = 4


def is_small(column: Column, kind: str, rows: int) -> bool:
    """Return whether the values of a column are stored: scalars, text, enums, references, short fixed arrays.

    For ragged columns, the lengths of the rows are stored; see `lazynwb.catalog.lengths`.

    Parameters
    ----------
    column : Column
    kind : str
        Kind of the table; of a series, only few timestamps are stored.
    rows : int
        Number of rows of the table.
    """
    if column.name in RESERVED or column.name == SESSION or column_dtype(column) is None:
        return False
    if column.lengths:
        is_index = bool(column.indices) or column.has_fixed_length
        return is_index and rows * _LENGTH_BYTES <= MAX_COLUMN_BYTES
    if column.indices:
        return False
    if kind == "series":
        return column.name == _TIMESTAMPS and rows * 8 <= MAX_TIMESTAMPS_BYTES
    size = _row_bytes(column, kind)
    return size is not None and (
        (size <= MAX_ROW_BYTES and rows * size <= MAX_COLUMN_BYTES) or rows * size <= ALWAYS_SMALL_BYTES
    )


def _row_bytes(column: Column, kind: str) -> int | None:
    """Return the estimated size of a row; None if it is unknown before the read."""
    if column.children is not None:
        sizes = [_row_bytes(child, kind) for child in column.children if column_dtype(child) is not None]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None
    if column.indices:
        return None
    if column.regular is not None or column.data is None:
        return 8
    data = column.data
    if data.dtype.kind == "vlen" and kind != "metadata":
        return None
    elements = math.prod(data.shape if column.whole else data.shape[1:])
    return elements * stored_size(data.dtype)


def is_still_small(series: pl.Series, sessions: int = 1) -> bool:
    """Return whether a decoded column is as small as estimated, because text may be long.

    Parameters
    ----------
    series : Series
        Rows of some sessions.
    sessions : int
        Number of sessions.
    """
    size = series.estimated_size()
    return size <= sessions * ALWAYS_SMALL_BYTES or size <= min(
        sessions * MAX_COLUMN_BYTES, len(series) * MAX_ROW_BYTES
    )
