"""Columns of damaged files: the values that can be read, and null for the others.

A value is null exactly where it cannot be read by itself, whatever is read with it. So the nulls do not
depend on the projection, the predicate or the batches of a query, and a filter sees those of the result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from lazynwb.arrays.arrow import from_buffer
from lazynwb.arrays.chunk_grid import chunk_numbers
from lazynwb.arrays.ragged import as_integers, merged, request_rows, spans, with_row_before
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

#: Errors of what is stored in a column. Others are of the file, or of the way to it.
COLUMN_ERRORS = (UnsupportedTypeError, CorruptDataError, NotNWBError, SchemaError)


class ReadableRows:
    """Reads columns of damaged files.

    Parameters
    ----------
    note : callable
        Takes note of a column of a file, and of why it cannot be read everywhere.
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
        """Read columns of rows as `read_columns` does, with null where a value cannot be read.

        Raises
        ------
        OversizedError
            As `read_columns` does.
        LazyNWBError
            If the file is not there any more, has changed, or takes a package that is not installed.
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
            # Codecs and types are those of a whole HDF5 dataset.
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
        """Read a column whose rows cannot all be read: first without those whose chunks cannot be decoded."""
        if part.rows == 1:
            return nulls(column.name, dtype, 1)
        keep = self._in_sound_chunks(handles, part, column)
        if keep.all():
            return _read_each(handles, part, column.name, dtype)
        if not keep.any():
            return nulls(column.name, dtype, part.rows)
        found = _read_each(handles, part.take(keep), column.name, dtype)
        places = np.where(keep, np.cumsum(keep) - 1, -1)
        return found.gather(from_buffer(places).replace(-1, None))

    def _in_sound_chunks(self, handles: Handles, part: Part, column: Column) -> np.ndarray:
        """Return of each row whether its chunks can be decoded, as far as a row of each chunk tells."""
        data, file, rows = column.data, part.file, part.indices()
        if data is None or column.whole:
            return np.ones(len(rows), np.bool_)
        outer = column.indices[0] if column.indices else data
        # Rows behind the end of a short column are null anyway.
        keep = self._sound(handles, file, outer, rows) | (rows >= column.length)
        if not column.indices:
            return keep
        keep &= self._sound(handles, file, outer, np.maximum(rows - 1, 0)) | (rows > column.length)
        kept = part.take(keep & (rows < column.length))
        if len(column.indices) > 1 or column.lengths or not kept.rows:
            return keep
        try:
            starts, stops = _spans(handles, kept, outer, data)
        except COLUMN_ERRORS:
            return keep  # single rows are tried
        size = _rows_per_chunk(data)
        if size:
            first, last = starts // size, (np.maximum(stops, 1) - 1) // size
            full = stops > starts
            bands = expand(merged(first[full], last[full] + 1))
            damaged = np.zeros(int(last.max()) + 2, np.int64)
            damaged[bands[~self._sound(handles, file, data, bands * size)] + 1] = 1
            before = np.cumsum(damaged)
            keep[keep & (rows < column.length)] = ~full | (before[last + 1] == before[first])
        return keep

    def _sound(self, handles: Handles, file: TableFile, array: Array, rows: np.ndarray) -> np.ndarray:
        """Return of each row of an array whether its chunks can be decoded; True where it has none."""
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
    """Return the columns of a file whose stored type cannot be read, each with the error: nothing is read."""
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
    """Find the bands of chunks that cannot be decoded, by reading the first row of each."""
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
    """Return rows of an array as they are stored."""
    if file.needs_chunk_index(array):
        look_up_chunks([(file, (array, chunk_numbers(array, ranges, ())))])
    requests: list[tuple[TableFile, Request]] = []
    rows = request_rows(handles, file, array, ranges, requests)
    handles.fetch(requests)
    return rows


def _spans(handles: Handles, part: Part, index: Array, data: Array) -> tuple[np.ndarray, np.ndarray]:
    """Return the first element and the element past the last of each row of a ragged column."""
    ends = as_integers(_rows_of(handles, part.file, index, with_row_before(part.ranges)), index)
    return spans(ends, part.ranges, index, data)


def _rows_per_chunk(array: Array) -> int:
    """Return how many rows share their chunks; 0 where that is not known, or there are no chunks."""
    if not array.shape or len(array.chunk) != len(array.shape) or array.chunk[0] < 1:
        return 0
    # Elements of HDF5 that libhdf5 reads may be damaged one by one.
    return 0 if _is_read_by_libhdf5(array) else array.chunk[0]


def _is_read_by_libhdf5(array: Array) -> bool:
    return array.layout == "indirect" and array.keys is None


def _read(handles: Handles, part: Part, name: str, dtype: pl.DataType) -> pl.Series:
    return read_columns(handles, [part], {name: dtype}, frozenset(), part.file.name, bounded=True)[0]


def _read_each(handles: Handles, part: Part, name: str, dtype: pl.DataType) -> pl.Series:
    """Read as many rows at once as can be read."""
    try:
        return _read(handles, part, name, dtype)
    except COLUMN_ERRORS:
        if part.rows == 1:
            return nulls(name, dtype, 1)
    middle = part.rows // 2
    halves = part.cut(0, middle), part.cut(middle, part.rows)
    return pl.concat([_read_each(handles, half, name, dtype) for half in halves])


def _conform_each(series: pl.Series, dtype: pl.DataType, origin: str | None) -> pl.Series:
    """Cast the values that fit."""
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
