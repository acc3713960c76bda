"""Validation of catalog entries from an untrusted index."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from lazynwb.catalog.model import arrays_of, grid_of, stored_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazynwb.catalog.model import Array, ChunkIndex, Column, DType, Table

_NUMBER = re.compile(r"[<>|=]([biufc])(1|2|4|8|16)")
_SIZES = {"b": {1}, "i": {1, 2, 4, 8}, "u": {1, 2, 4, 8}, "f": {2, 4, 8}, "c": {8, 16}}
#: Limits of HDF5 chunks and of 32-bit row numbers.
_MAX_CHUNK_BYTES = _MAX_ROWS = 2**32
#: Maximum size of an array.
_MAX_BYTES = 2**62
_MAX_DIMENSIONS, _MAX_DEPTH = 32, 8
_OFFSET_BYTES = 8
_MASK_BYTES = 4


def is_row_count(rows: int) -> bool:
    """Return whether a number of rows is valid."""
    return 0 <= rows <= _MAX_ROWS


def is_valid_table(table: Table, chunks: Mapping[str, ChunkIndex]) -> bool:
    """Return whether the description of a table is consistent.

    Addresses in the file are checked when they are read, as for a damaged file.
    """
    linked = {path for path, _ in table.depends}
    if not is_row_count(table.rows) or not all(_is_valid_column(one, linked, 0) for one in table.columns):
        return False
    arrays = {array.path: array for column in table.columns for array in arrays_of(column)}
    return all(path in arrays and _is_valid_index(arrays[path], index) for path, index in chunks.items())


def _is_valid_column(column: Column, linked: set[str], depth: int) -> bool:
    arrays = [*column.indices, *([column.data] if column.data is not None else [])]
    return (
        depth < _MAX_DEPTH
        and 0 <= column.length <= _MAX_ROWS
        and all(_is_valid_array(array, linked) for array in arrays)
        and all(len(index.shape) == 1 and index.dtype.is_integer for index in column.indices)
        and (column.data is not None or not column.indices)
        and (column.regular is None or column.regular[1] != 0)
        and all(_is_valid_column(child, linked, depth + 1) for child in column.children or ())
    )


def _is_valid_array(array: Array, linked: set[str]) -> bool:
    if len(array.shape) > _MAX_DIMENSIONS or min(array.shape, default=0) < 0:
        return False
    if not _is_valid_dtype(array.dtype, 0) or (array.source is not None and array.source not in linked):
        return False
    size = stored_size(array.dtype)
    if math.prod(array.shape) * max(size, 1) > _MAX_BYTES or array.offset < -1 or array.base < 0:
        return False
    if array.layout in {"chunked", "objects"}:
        grids = [array.chunk, *([array.shard] if array.shard else [])]
        return (
            all(len(grid) == len(array.shape) and min(grid, default=1) > 0 for grid in grids)
            and math.prod(array.chunk) * size <= _MAX_CHUNK_BYTES
            and (array.layout == "chunked" or array.keys is not None)
            and all(s % c == 0 for s, c in zip(array.shard, array.chunk, strict=False))
        )
    return True


def _is_valid_dtype(dtype: DType, depth: int) -> bool:
    if depth > _MAX_DEPTH or dtype.itemsize < 0 or min(dtype.dims, default=1) < 0:
        return False
    if dtype.kind in {"number", "bool", "enum"}:
        found = _NUMBER.fullmatch(dtype.numpy)
        if found is None or int(found[2]) not in _SIZES[found[1]] or int(found[2]) != dtype.itemsize:
            return False
    if dtype.kind == "vlen" and dtype.base is None:
        return False
    return all(
        _is_valid_dtype(field.dtype, depth + 1)
        and field.offset >= 0
        and field.offset + stored_size(field.dtype) <= dtype.itemsize
        for field in dtype.fields
    ) and (dtype.base is None or _is_valid_dtype(dtype.base, depth + 1))


def _is_valid_index(array: Array, index: ChunkIndex) -> bool:
    if array.layout != "chunked" and not array.shard:
        return False
    size = _OFFSET_BYTES * math.prod(grid_of(array))
    return len(index.offsets) == len(index.sizes) == size and len(index.masks) in {
        0,
        size * _MASK_BYTES // _OFFSET_BYTES,
    }
