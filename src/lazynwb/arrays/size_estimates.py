"""Estimates of the decoded size of rows before they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lazynwb.arrays.chunk_grid import row_bytes
from lazynwb.arrays.ragged import as_integers, chunks_for, request_rows, whole
from lazynwb.lookup.loader import look_up_chunks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lazynwb.arrays.fetch import Request
    from lazynwb.arrays.row_selection import Handles, Part
    from lazynwb.catalog.model import Array, Column
    from lazynwb.lookup.loader import TableFile

#: Assumed size of a value of text or a sequence, in addition to its reference.
_VARIABLE_BYTES = 64
#: Size of the provenance columns of a row.
_MIN_BYTES = 16
#: Size of a generated timestamp, and of the index value from which a length is computed.
_REGULAR_BYTES = _LENGTH_BYTES = 8


def max_table_bytes(file: TableFile, names: Iterable[str]) -> int:
    """Return an upper bound of the decoded size of columns of a whole table, with text estimated."""
    total = 0
    for name in names:
        column = file.columns.get(name)
        if column is None:
            continue
        for child in column.children or (column,):
            if child.lengths:
                total += child.length * _LENGTH_BYTES
            elif child.regular is not None:
                total += child.length * _REGULAR_BYTES
            elif child.data is not None:
                total += child.data.rows * _bytes_of(child.data)
    return total


def _bytes_of(array: Array) -> int:
    return row_bytes(array) + (_VARIABLE_BYTES if array.dtype.kind in {"vlen_text", "vlen"} else 0)


def measure_rows(handles: Handles, parts: list[Part], names: Iterable[str]) -> list[np.ndarray | int]:
    """Return the estimated decoded size of rows; read the outer indices of ragged columns.

    Returns
    -------
    list of ndarray or int
        For each part, the size of each row; one number if all rows have the same size.
    """
    listed = list(names)
    sizes: list[np.ndarray | int] = [_MIN_BYTES] * len(parts)
    requests: list[tuple[TableFile, Request]] = []
    ragged: list[tuple[int, Column, np.ndarray]] = []
    columns_of_parts = [
        [part.file.columns[name] for name in listed if name in part.file.columns] for part in parts
    ]
    look_up_chunks(
        request
        for part, columns in zip(parts, columns_of_parts, strict=True)
        for column in columns
        for child in column.children or (column,)
        if child.indices and child.data is not None and not child.lengths
        for request in chunks_for(part.file, (*child.indices, child.data), whole(child.indices[0]))
    )
    for i, (part, columns) in enumerate(zip(parts, columns_of_parts, strict=True)):
        for column in columns:
            for child in column.children or (column,):
                if child.data is None:
                    sizes[i] += _REGULAR_BYTES
                elif child.lengths:
                    sizes[i] += _LENGTH_BYTES
                elif child.indices:
                    index = child.indices[0]
                    ragged.append((i, child, request_rows(handles, part.file, index, whole(index), requests)))
                else:
                    sizes[i] += _bytes_of(child.data)
    handles.fetch(requests)
    for i, column, raw in ragged:
        index, data = column.indices[0], column.data
        if data is None:
            continue
        ends = as_integers(raw, index)
        handles.index_columns[parts[i].file.source, index.path] = ends
        rows = parts[i].indices()
        inside = rows < len(ends)
        elements = np.diff(ends, prepend=0).clip(min=0)[rows[inside]]
        below = (*column.indices, data)[1]
        per_element = data.shape[0] * _bytes_of(data) / max(below.shape[0], 1) if data.shape else 0
        before = sizes[i]
        measured = np.full(len(rows), before, np.int64) if isinstance(before, int) else before
        measured[inside] += (elements * per_element).astype(np.int64)
        sizes[i] = measured
    return sizes
