"""Columns of damaged files, with null in place of unreadable values.

A value is null if and only if it cannot be read alone. Nulls therefore do not depend on the projection, the
predicate or the batches of a query, and a predicate is evaluated on the same nulls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from lazynwb.arrays.arrow import from_buffer
from lazynwb.arrays.chunk_grid import chunk_numbers
from lazynwb.arrays.ragged import as_integers, merge_spans, request_rows, spans, with_row_before
from lazynwb.arrays.row_selection import Handles, expand, to_ranges
from lazynwb.catalog.dtypes import column_dtype
from lazynwb.catalog.merge import conform, nulls
from lazynwb.engine.columns import read_columns
from lazynwb.errors import CorruptDataError, NotNWBError, SchemaError, UnsupportedTypeError
from lazynwb.lookup.loader import look_up_chunks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from lazynwb.arrays.fetch import Request
    from lazynwb.arrays.row_selection import Part
    from lazynwb.catalog.model import Array, Column
    from lazynwb.errors import LazyNWBError
    from lazynwb.lookup.loader import TableFile
    from lazynwb.storage.source import Source

#: Errors of the data of a column. Other errors affect the whole file or the access to it.
COLUMN_ERRORS = (UnsupportedTypeError, CorruptDataError, NotNWBError, SchemaError)


class ReadableRows:
    """A reader of columns of damaged files.

    Parameters
    ----------
    note : callable
        Function that records a partly unreadable column of a file, with the error.
    """

    def __init__(self, note: Callable[[TableFile, str, LazyNWBError], None]) -> None:
        self._note = note
        self._bands: dict[tuple[Source, str], dict[int, bool]] = {}

    def read(
        self,
        handles: Handles,
        parts: list[Part],
        schema: dict[str, pl.DataType],
        overridden: frozenset[str],
        origin: str,
    ) -> list[pl.Series]:
        """Read columns of rows like `read_columns`, with null in place of unreadable values.

        Raises
        ------
        OversizedError
            If text and sequences exceed the limit of a batch.
        LazyNWBError
            If the file no longer exists, has changed, or needs a package that is not installed.
        """
        found = []
        for name, dtype in schema.items():
            chosen = None if name in overridden else origin
            pieces = [pl.Series(name, [], dtype=dtype)]
            pieces += [self._column(handles, part, name, dtype, chosen) for part in parts if part.rows]
            found.append(pl.concat(pieces))
        return found

    def _column(
        self, handles: Handles, part: Part, name: str, dtype: pl.DataType, origin: str | None
    ) -> pl.Series:
        column = part.file.columns.get(name)
        if column is None:
            return nulls(name, dtype, part.rows)
        stored = column_dtype(column)
        try:
            series = _read(handles, part, name, stored or pl.Null())
        except COLUMN_ERRORS as error:
            self._note(part.file, name, error)
            # Codecs and types apply to the whole dataset.
            whole = column.data is not None and _is_read_by_libhdf5(column.data)
            if stored is None or (whole and isinstance(error, UnsupportedTypeError)):
                return nulls(name, dtype, part.rows)
            series = self._decodable(handles, part, column, stored)
        try:
            return conform(series, dtype, origin)
        except SchemaError as error:
            where = f"{part.file.name}: /{part.file.table.path}: column {name!r}"
            self._note(part.file, name, SchemaError(f"{where}: {error}"))
            return _conform_each(series, dtype, origin)

    def _decodable(self, handles: Handles, part: Part, column: Column, dtype: pl.DataType) -> pl.Series:
        """Read a column with unreadable rows, first without the rows in undecodable chunks."""
        if part.rows == 1:
            return nulls(column.name, dtype, 1)
        keep = self._decodable_rows(handles, part, column)
        if keep.all():
            return _read_each(handles, part, column.name, dtype)
        if not keep.any():
            return nulls(column.name, dtype, part.rows)
        found = _read_each(handles, part.take(keep), column.name, dtype)
        places = np.where(keep, np.cumsum(keep) - 1, -1)
        return found.gather(from_buffer(places).replace(-1, None))

    def _decodable_rows(self, handles: Handles, part: Part, column: Column) -> np.ndarray:
        """Return a mask of the rows whose chunks can be decoded, judged by one row of each chunk."""
        data, file, rows = column.data, part.file, part.indices()
        if data is None or column.whole:
            return np.ones(len(rows), np.bool_)
        outer = column.indices[0] if column.indices else data
        # Rows past the end of a short column are null.
        keep = self._decodable_array_rows(handles, file, outer, rows) | (rows >= column.length)
        if not column.indices:
            return keep
        keep &= self._decodable_array_rows(handles, file, outer, np.maximum(rows - 1, 0)) | (
            rows > column.length
        )
        remaining = part.take(keep & (rows < column.length))
        if len(column.indices) > 1 or column.lengths or not remaining.rows:
            return keep
        try:
            starts, stops = _spans(handles, remaining, outer, data)
        except COLUMN_ERRORS:
            return keep  # rows are read one by one
        size = _rows_per_chunk(data)
        if size:
            first, last = starts // size, (np.maximum(stops, 1) - 1) // size
            full = stops > starts
            bands = expand(merge_spans(first[full], last[full] + 1))
            damaged = np.zeros(int(last.max()) + 2, np.int64)
            damaged[bands[~self._decodable_array_rows(handles, file, data, bands * size)] + 1] = 1
            before = np.cumsum(damaged)
            keep[keep & (rows < column.length)] = ~full | (before[last + 1] == before[first])
        return keep

    def _decodable_array_rows(
        self, handles: Handles, file: TableFile, array: Array, rows: np.ndarray
    ) -> np.ndarray:
        """Return a mask of the rows of an array whose chunks can be decoded; True without chunks."""
        size = _rows_per_chunk(array)
        known = self._bands.setdefault((file.source, array.path), {})
        within = rows < array.rows
        if not size or not len(rows):
            return np.ones(len(rows), np.bool_)
        bands = np.where(within, rows // size, -1)
        known[-1] = True
        distinct, inverse = np.unique(bands, return_inverse=True)
        _try_bands(handles, file, array, [band for band in distinct.tolist() if band not in known], known)
        sound: np.ndarray = np.array([known[band] for band in distinct.tolist()], np.bool_)[inverse]
        return sound


def unreadable_columns(part: Part, names: Iterable[str]) -> dict[str, LazyNWBError]:
    """Return the columns of a file with unsupported stored types, each with its error, without a read."""
    found: dict[str, LazyNWBError] = {}
    for name in names:
        column = part.file.columns.get(name)
        if column is None or column_dtype(column) is not None:
            continue
        try:
            with Handles() as handles:
                _read(handles, part, name, pl.Null())
        except UnsupportedTypeError as error:
            found[name] = error
    return found


def _try_bands(
    handles: Handles, file: TableFile, array: Array, bands: Sequence[int], known: dict[int, bool]
) -> None:
    """Find the row bands with undecodable chunks, by a read of the first row of each band."""
    if not bands:
        return
    rows = np.array(bands, np.int64) * _rows_per_chunk(array)
    try:
        _rows_of(handles, file, array, to_ranges(rows))
    except COLUMN_ERRORS:
        if len(bands) == 1:
            known[bands[0]] = False
            return
        middle = len(bands) // 2
        for some in (bands[:middle], bands[middle:]):
            _try_bands(handles, file, array, some, known)
    else:
        known.update(dict.fromkeys(bands, True))


def _rows_of(handles: Handles, file: TableFile, array: Array, ranges: np.ndarray) -> np.ndarray:
    """Return stored rows of an array."""
    if file.needs_chunk_index(array):
        look_up_chunks([(file, (array, chunk_numbers(array, ranges, ())))])
    requests: list[tuple[TableFile, Request]] = []
    rows = request_rows(handles, file, array, ranges, requests)
    handles.fetch(requests)
    return rows


def _spans(handles: Handles, part: Part, index: Array, data: Array) -> tuple[np.ndarray, np.ndarray]:
    """Return the first element, and the element past the last, of each row of a ragged column."""
    ends = as_integers(_rows_of(handles, part.file, index, with_row_before(part.ranges)), index)
    return spans(ends, part.ranges, index, data)


def _rows_per_chunk(array: Array) -> int:
    """Return the number of rows per chunk; 0 if unknown, or if there are no chunks."""
    if not array.shape or len(array.chunk) != len(array.shape) or array.chunk[0] < 1:
        return 0
    # Elements that libhdf5 reads may be damaged one by one.
    return 0 if _is_read_by_libhdf5(array) else array.chunk[0]


def _is_read_by_libhdf5(array: Array) -> bool:
    return array.layout == "indirect" and array.keys is None


def _read(handles: Handles, part: Part, name: str, dtype: pl.DataType) -> pl.Series:
    return read_columns(handles, [part], {name: dtype}, frozenset(), part.file.name, bounded=True)[0]


def _read_each(handles: Handles, part: Part, name: str, dtype: pl.DataType) -> pl.Series:
    """Read rows by bisection: each read has as many readable rows as possible."""
    try:
        return _read(handles, part, name, dtype)
    except COLUMN_ERRORS:
        if part.rows == 1:
            return nulls(name, dtype, 1)
    middle = part.rows // 2
    halves = part.cut(0, middle), part.cut(middle, part.rows)
    return pl.concat([_read_each(handles, half, name, dtype) for half in halves])


def _conform_each(series: pl.Series, dtype: pl.DataType, origin: str | None) -> pl.Series:
    """Cast values one by one, with null in place of values that do not fit."""
    try:
        return conform(series, dtype, origin)
    except SchemaError:
        if len(series) == 1:
            return nulls(series.name, dtype, 1)
    try:
        conform(nulls(series.name, series.dtype, 1), dtype, origin)
    except SchemaError:
        return nulls(series.name, dtype, len(series))  # no value of this type fits
    middle = len(series) // 2
    return pl.concat([_conform_each(half, dtype, origin) for half in (series[:middle], series[middle:])])
