"""Assembly of columns of a window of rows over many files.

The rows of a column with equal storage in consecutive files share one buffer, so that a Series is created per
column and not per column and file.
"""

from __future__ import annotations

import math
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

from lazynwb.arrays.arrow import (
    Context,
    Elements,
    as_array,
    as_lists,
    as_stored,
    build,
    from_buffer,
    offsets_of,
    variable_length,
)
from lazynwb.arrays.chunk_grid import row_bytes
from lazynwb.arrays.fetch import Request
from lazynwb.arrays.heap import Heap, referred_bytes
from lazynwb.arrays.ragged import (
    as_integers,
    chunks_for,
    count_rows,
    merge_spans,
    request_rows,
    spans,
    with_row_before,
)
from lazynwb.arrays.row_selection import IndirectRead, expand
from lazynwb.catalog.dtypes import column_dtype
from lazynwb.catalog.lengths import LENGTH, stored_name
from lazynwb.catalog.merge import conform, nulls
from lazynwb.engine.batching import check_size
from lazynwb.errors import CorruptDataError, LazyNWBError, UnsupportedTypeError
from lazynwb.lookup.loader import look_up_chunks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lazynwb.arrays.row_selection import Handles, Part
    from lazynwb.catalog.model import Array, Column, DType
    from lazynwb.engine.stored_columns import Decoded
    from lazynwb.lookup.loader import ChunkSelection, TableFile


#: Elements that a row may have for its length to be a `LENGTH`.
_MAX_ELEMENTS = 2**32 - 1


class StorageKey:
    """A key for grouping, which is equal for columns whose rows can share a buffer."""

    __slots__ = ("column",)

    def __init__(self, pair: tuple[Part, Column | None]) -> None:
        self.column = pair[1]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StorageKey) and _has_equal_storage(self.column, other.column)

    __hash__ = None  # type: ignore[assignment]


def _has_equal_storage(one: Column | None, other: Column | None) -> bool:
    if one is None or other is None:
        return one is other
    if one.lengths and other.lengths and one.indices and other.indices:
        return True
    if one.data is None or other.data is None:
        if one.data is not other.data or (one.regular is None) != (other.regular is None):
            return False
        mine, theirs = one.children or (), other.children or ()
        return len(mine) == len(theirs) and all(
            a.name == b.name and _has_equal_storage(a, b) for a, b in zip(mine, theirs, strict=True)
        )
    return (
        one.data.dtype == other.data.dtype
        and one.data.shape[1:] == other.data.shape[1:]
        and one.region == other.region
        and one.whole == other.whole
        and one.lengths == other.lengths
        and len(one.indices) == len(other.indices)
        and (one.data.layout == "indirect") == (other.data.layout == "indirect")
    )


class _Piece(NamedTuple):
    """The rows of one file in a run, without rows that the column lacks."""

    file: TableFile
    column: Column
    ranges: np.ndarray
    stored: int
    missing: int


def read_columns(  # noqa: PLR0913 - rows, columns and types
    handles: Handles,
    parts: list[Part],
    schema: dict[str, pl.DataType],
    overridden: frozenset[str],
    origin: str,
    *,
    bounded: bool = False,
    decoded: Decoded | None = None,
) -> list[pl.Series]:
    """Read columns of rows of files.

    Parameters
    ----------
    handles : Handles
        Open files.
    parts : list of Part
        Rows, in the order of the result.
    schema : dict of str to DataType
        Columns to read, with their types in the result.
    overridden : frozenset of str
        Columns whose type the user chose: values are cast even if the cast is not lossless.
    origin : str
        Origin of the types, for the message about a file with other types.
    bounded : bool
        Whether to limit the text and sequences that are read to the size of a batch, unless there is only one
        row. Their size is known after all other data is read.
    decoded : Decoded or None
        Receives the columns in the types of the files.

    Raises
    ------
    OversizedError
        If text and sequences exceed the limit.
    LazyNWBError
        If a file cannot be read; the message has the file, table and column.
    """
    runs = {name: _runs(name, parts) for name in schema}
    leaves = [leaf for listed in runs.values() for run in listed for leaf in run.leaves()]
    while True:
        requests: list[tuple[TableFile, Request]] = []
        indirect: list[IndirectRead] = []
        look_up_chunks(selection for leaf in leaves for selection in leaf.chunk_selections())
        for leaf in leaves:
            leaf.request(handles, requests, indirect)
        if not requests and not indirect and all(leaf.is_complete for leaf in leaves):
            break
        handles.read_indirect(indirect)
        handles.fetch(requests)
        for leaf in leaves:
            leaf.advance()
    elements = [found for leaf in leaves if (found := leaf.elements()) is not None]
    variable = [found for one in elements for found in variable_length(one)]
    if bounded and variable and sum(part.rows for part in parts) > 1:
        largest = max(file.size for file in handles.files)
        check_size(sum(referred_bytes(e.raw, _item_bytes(e.dtype), largest) for e in variable))
    heap = Heap(handles.files, handles.bases, [(e.owners, e.raw) for e in variable]) if variable else None
    context = Context(heap, handles.paths_of)
    return [
        _column(runs[name], context, dtype, None if name in overridden else origin, decoded).alias(name)
        for name, dtype in schema.items()
    ]


def _column(
    runs: list[_Run], context: Context, dtype: pl.DataType, origin: str | None, decoded: Decoded | None
) -> pl.Series:
    parts = []
    for run in runs:
        try:
            series = run.series(context)
            if decoded is not None:
                decoded.add(run.name, series)
            parts.append(conform(series, dtype, origin))
        except LazyNWBError as error:
            raise type(error)(f"{run.where()}: {error}") from None
        except (ValueError, TypeError, AssertionError, pl.exceptions.PolarsError) as error:
            raise CorruptDataError(
                f"{run.where()}: the stored values cannot be converted to a column: {error}"
            ) from error
    if not parts:
        return pl.Series([], dtype=dtype)
    return parts[0] if len(parts) == 1 else pl.concat(parts)


class _Run:
    """A column in consecutive files with equal storage, or in files that lack it (no pieces)."""

    def __init__(self, name: str, pieces: list[_Piece], rows: int) -> None:
        self.name = name
        self._pieces = pieces
        self._rows = rows
        self._leaf: _Leaf | None = None
        self._children: list[_Run] = []
        if not pieces:
            return
        column = pieces[0].column
        if column_dtype(column) is None:
            note = (
                column.data.dtype.note if column.data is not None else "a category without readable columns"
            )
            raise UnsupportedTypeError(f"{self.where()} cannot be read: {note}; select only other columns")
        if column.children is not None:
            for position, child in enumerate(column.children):
                if column_dtype(child) is None:
                    continue
                inner = [
                    _piece(p.file, p.column.children[position], p.ranges, p.stored)
                    for p in pieces
                    if p.column.children
                ]
                self._children.append(_Run(child.name, inner, sum(p.stored for p in pieces)))
        elif column.lengths and column.indices:
            self._leaf = _Ends(pieces)
        elif column.regular is None and not (column.lengths and column.has_fixed_length):
            self._leaf = _Leaf(pieces)

    def where(self) -> str:
        """Return the file, table and column for an error message.

        The file is the first of several; the caller reads them one by one to identify the damaged file.
        """
        if not self._pieces:
            return f"column {stored_name(self.name)!r}"
        file = self._pieces[0].file
        return f"{file.name}: /{file.table.path}: column {stored_name(self.name)!r}"

    def leaves(self) -> Iterable[_Leaf]:
        """Yield the arrays to read."""
        if self._leaf is not None:
            yield self._leaf
        for child in self._children:
            yield from child.leaves()

    def series(self, context: Context) -> pl.Series:
        """Return the rows in the stored type."""
        if not self._pieces:
            return nulls("", pl.Null(), self._rows)
        stored = self._stored(context)
        if not any(piece.missing for piece in self._pieces):
            return stored
        places = np.full(self._rows, -1, np.int64)
        at = done = 0
        for piece in self._pieces:
            places[at : at + piece.stored] = np.arange(done, done + piece.stored)
            at += piece.stored + piece.missing
            done += piece.stored
        return stored.gather(from_buffer(places).replace(-1, None))

    def _stored(self, context: Context) -> pl.Series:
        """Return the rows that exist in the files."""
        column = self._pieces[0].column
        if self._leaf is not None:
            series = self._leaf.series(context)
            return series if not column.lengths or column.indices else _row_lengths(series)
        if self._children:
            return pl.DataFrame([c.series(context).alias(c.name) for c in self._children]).to_struct("")
        if column.lengths:
            return pl.repeat(column.dims[0], sum(p.stored for p in self._pieces), dtype=LENGTH, eager=True)
        return _regular(self._pieces)


def _row_lengths(values: pl.Series) -> pl.Series:
    """Return the lengths of rows; a scalar value is a list of one, if the type of the scan is a list."""
    if isinstance(values.dtype, pl.List):
        return values.list.len().cast(LENGTH)
    return pl.repeat(1, len(values), dtype=LENGTH, eager=True).set(values.is_null(), None)


def _runs(name: str, parts: list[Part]) -> list[_Run]:
    runs = []
    pieces = [(part, part.file.columns.get(name)) for part in parts if part.rows]
    for column, group in groupby(pieces, key=StorageKey):
        listed = list(group)
        rows = sum(part.rows for part, _ in listed)
        if column.column is None:
            runs.append(_Run(name, [], rows))
        else:
            pieces_in_run = [
                _piece(part.file, found, part.ranges, part.rows)
                for part, found in listed
                if found is not None
            ]
            runs.append(_Run(name, pieces_in_run, rows))
    return runs


def _piece(file: TableFile, column: Column, ranges: np.ndarray, rows: int) -> _Piece:
    if column.length < file.table.rows and len(ranges) and ranges[-1, 1] > column.length:
        ranges = np.minimum(ranges, column.length)
        ranges = ranges[ranges[:, 1] > ranges[:, 0]]
        stored = count_rows(ranges)
        return _Piece(file, column, ranges, stored, rows - stored)
    return _Piece(file, column, ranges, rows, 0)


def _regular(pieces: list[_Piece]) -> pl.Series:
    stamps = []
    for piece in pieces:
        assert piece.column.regular is not None  # noqa: S101 - checked by the caller
        start, rate = piece.column.regular
        stamps.append(start + expand(piece.ranges) / rate)
    return from_buffer(np.concatenate(stamps))


class _Leaf:
    """One stored column of a run, which is read level by level: first its indices, then its values."""

    def __init__(self, pieces: list[_Piece]) -> None:
        self._pieces = pieces
        self._first = pieces[0].column
        self._level = 0
        self._ranges = [piece.ranges for piece in pieces]
        self._lengths: list[list[np.ndarray]] = []
        self._pending: list[np.ndarray] = []
        self._raw: np.ndarray | None = None
        self._indirect: list[IndirectRead] = []
        self._owners: list[int] = []
        self._elements: Elements | None = None
        if self._first.whole:
            # The only row contains the whole array.
            self._lengths.append([])
            for i, piece in enumerate(pieces):
                length = _data(piece.column).shape[0]
                self._lengths[0].append(np.array([length] * piece.stored, np.int64))
                self._ranges[i] = np.array(
                    [[0, length]] if length and piece.stored else [], np.int64
                ).reshape(-1, 2)

    @property
    def is_complete(self) -> bool:
        """Whether all data except heap contents has been read."""
        return self._raw is not None

    def chunk_selections(self) -> Iterator[tuple[TableFile, ChunkSelection]]:
        """Yield the chunks that must be looked up for the next requests."""
        if not self.is_complete:
            for piece, ranges in zip(self._pieces, self._ranges, strict=True):
                arrays = (*piece.column.indices, _data(piece.column))[self._level :]
                yield from chunks_for(
                    piece.file, arrays, ranges if len(arrays) == 1 else with_row_before(ranges)
                )

    def request(
        self, handles: Handles, requests: list[tuple[TableFile, Request]], indirect: list[IndirectRead]
    ) -> None:
        """Append the next requests."""
        if self.is_complete:
            return
        self._pending = []
        if self._level < len(self._first.indices):
            for piece, ranges in zip(self._pieces, self._ranges, strict=True):
                self._pending.append(self._request_index(handles, piece, ranges, requests))
            return
        self._request_values(handles, requests, indirect)

    def _request_index(
        self, handles: Handles, piece: _Piece, ranges: np.ndarray, requests: list[tuple[TableFile, Request]]
    ) -> np.ndarray:
        array = piece.column.indices[self._level]
        known = handles.index_columns.get((piece.file.source, array.path)) if self._level == 0 else None
        if known is not None:
            return known
        # The first element of a row is the end of the previous row.
        return request_rows(handles, piece.file, array, with_row_before(ranges), requests)

    def _request_values(
        self, handles: Handles, requests: list[tuple[TableFile, Request]], indirect: list[IndirectRead]
    ) -> None:
        first = _data(self._first)
        counts = [count_rows(ranges) for ranges in self._ranges]
        width = row_bytes(first)
        if first.layout == "indirect":
            for piece, ranges in zip(self._pieces, self._ranges, strict=True):
                array = _data(piece.column)
                self._indirect.append(IndirectRead(piece.file, array, ranges))
                self._owners.append(0)  # references are resolved by the caller
            indirect += self._indirect
        else:
            out = np.empty((sum(counts), width), np.uint8)
            at = 0
            for piece, ranges, count in zip(self._pieces, self._ranges, counts, strict=True):
                array = _data(piece.column)
                request = Request(array, piece.file.chunks(array), ranges, out[at : at + count])
                if count:
                    requests.append((piece.file, request))
                at += count
                self._owners.append(handles.number(piece.file, array) if _needs_owner(array) else 0)
            self._raw = out.reshape(-1, first.dtype.itemsize) if width else out
        per_row = math.prod(first.shape[1:]) * math.prod(first.dtype.dims)
        self._counts = np.array(counts) * per_row

    def advance(self) -> None:
        """Process the rows that were read: an index determines the ranges of the next level."""
        if self._indirect:
            dtype = _data(self._first).dtype
            self._raw = np.concatenate([as_stored(read.rows, dtype) for read in self._indirect])
            self._indirect = []
        if self._level >= len(self._first.indices) or self._raw is not None or not self._pending:
            return
        lengths = []
        for i, (piece, read) in enumerate(zip(self._pieces, self._pending, strict=True)):
            array = piece.column.indices[self._level]
            ranges = self._ranges[i]
            below = (*piece.column.indices, _data(piece.column))[self._level + 1]
            try:
                starts, stops = spans(as_integers(read, array), ranges, array, below)
            except CorruptDataError as error:
                name = stored_name(piece.column.name)
                raise CorruptDataError(
                    f"{piece.file.name}: /{piece.file.table.path}: column {name!r}: {error}"
                ) from None
            lengths.append(stops - starts)
            self._ranges[i] = merge_spans(starts, stops)
        self._lengths.append(lengths)
        self._level += 1
        self._pending = []

    def elements(self) -> Elements | None:
        """Return the elements that were read; None if only the lengths of rows were."""
        return self._values()

    def _values(self) -> Elements:
        if self._elements is None:
            assert self._raw is not None  # noqa: S101 - called when complete
            one = np.broadcast_to(np.int64(0), (int(self._counts.sum()),))
            owners = np.repeat(self._owners, self._counts) if any(self._owners) else one
            self._elements = Elements(_data(self._first).dtype, self._raw, owners)
        return self._elements

    def series(self, context: Context) -> pl.Series:
        """Return the rows."""
        data = _data(self._first)
        series = build(self._values(), context)
        if self._first.region:
            series = series.cast(pl.Int64)
        dims = (*data.shape[1:], *data.dtype.dims)
        levels = [offsets_of(np.concatenate(lengths)) for lengths in self._lengths]
        if levels:
            return as_lists(series, dims, levels)
        return as_array(series, dims, sum(count_rows(ranges) for ranges in self._ranges))


class _Ends(_Leaf):
    """The index of a ragged column in a run, for the lengths of rows."""

    @property
    def is_complete(self) -> bool:
        return self._level > 0

    def chunk_selections(self) -> Iterator[tuple[TableFile, ChunkSelection]]:
        if not self.is_complete:
            for piece, ranges in zip(self._pieces, self._ranges, strict=True):
                yield from chunks_for(piece.file, piece.column.indices[:1], with_row_before(ranges))

    def elements(self) -> None:
        return None

    def series(self, context: Context) -> pl.Series:
        del context
        lengths = np.concatenate(self._lengths[0])
        if len(lengths) and int(lengths.max()) > _MAX_ELEMENTS:
            raise CorruptDataError(f"a row has {int(lengths.max())} elements, more than supported")
        return from_buffer(lengths.astype(np.uint32))


def _item_bytes(dtype: DType) -> int:
    return dtype.base.itemsize if dtype.base is not None else 1


def _data(column: Column) -> Array:
    assert column.data is not None  # noqa: S101 - leaves have data
    return column.data


def _needs_owner(array: Array) -> bool:
    # Only elements of HDF5 refer to heaps or objects of their file.
    return array.layout != "objects" and array.dtype.kind in {"vlen_text", "vlen", "reference", "compound"}
