"""Lazy arrays, which are read when they are sliced."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from lazynwb.arrays.slicing import apply_order, read_spans, resolve_selection, value_dtype
from lazynwb.errors import UnsupportedTypeError
from lazynwb.storage.remote_state import save
from lazynwb.terminal_text import visible

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from numpy.typing import DTypeLike

    from lazynwb.arrays.chunk_grid import Indexer
    from lazynwb.arrays.slicing import Selection
    from lazynwb.catalog.model import Array
    from lazynwb.lookup.loader import TableFile

#: Bytes per block when iterating over an array.
_BLOCK_BYTES = 16 * 1024 * 1024


class LazyArray(ABC):
    """An array whose elements are read, or computed, on access.

    `array[1000:2000, :4]`, `array[-1]`, `array[::2]`, `array[mask]` and `array[[3, 1, 1]]` return NumPy
    arrays or single values, as NumPy does: integers, slices and an ellipsis are supported along all
    dimensions, and a boolean mask or integers in any order along one of them. `np.asarray(array)` and
    `array[:]` read the whole array. No file is kept open, and no values are cached.

    Attributes
    ----------
    shape : tuple of int
        Shape, as in NumPy.
    dtype : numpy.dtype
        Type in native byte order; `object` for text (`str`), names of enums, and paths of references.
    chunks : tuple of int or None
        Shape of the chunks, which are read and decoded as a whole; None if any part can be read.
    path : str
        Path of the dataset, with the leading slash.
    file : str
        Path or URL of the file, without secrets.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    chunks: tuple[int, ...] | None
    path: str
    file: str

    @abstractmethod
    def read(self, spans: tuple[Indexer, ...]) -> np.ndarray:
        """Return the values selected by one indexer per dimension."""

    @abstractmethod
    def rows(self, start: int, stop: int) -> Self:
        """Return consecutive rows as a lazy array; `0 <= start <= stop <= len(array)`."""

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The size of all elements in memory; of objects, only the size of the references."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    def __getitem__(self, selection: Selection) -> Any:  # noqa: ANN401 - an array or an element, as NumPy
        """Read a selection.

        Raises
        ------
        IndexError
            If the selection is out of range or not supported.
        CorruptDataError, SourceChangedError, UnsupportedTypeError
            If the values cannot be read.
        """
        picked = resolve_selection(self.shape, selection)
        values = apply_order(self.read(picked.spans), picked)
        return values if values.ndim else values[()]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:  # noqa: FBT001 - NumPy's
        """Read the whole array.

        Raises
        ------
        ValueError
            If `copy` is false, because the values are not in memory.
        """
        if copy is False:
            raise ValueError("a lazy array cannot become a NumPy array without a copy: leave out copy=False")
        values = np.asarray(self[...])
        return values if dtype is None else values.astype(dtype, copy=False)

    def __iter__(self) -> Iterator[Any]:
        """Yield the rows, which are read in blocks."""
        for start, stop in self.blocks():
            yield from self[start:stop]

    def blocks(self, size: int = _BLOCK_BYTES) -> Iterator[tuple[int, int]]:
        """Yield the ranges of rows (start, stop) of blocks of whole chunks.

        Parameters
        ----------
        size : int
            Approximate size of a block in bytes.
        """
        band = self.chunks[0] if self.chunks else 1
        width = max(math.prod(self.shape[1:]) * self.dtype.itemsize, 1)
        step = max(size // width // band, 1) * band
        for start in range(0, len(self), step):
            yield start, min(start + step, len(self))

    def __repr__(self) -> str:
        path, file = visible(self.path, None), visible(self.file, None)
        return f"<{type(self).__name__} {path}: shape {self.shape}, dtype {self.dtype}, in {file}>"


class StoredArray(LazyArray):
    """A dataset of a file, or a range of its rows.

    Parameters
    ----------
    table : TableFile
        Table or series of the dataset.
    array : Array
        Catalog of the dataset.
    start, stop : int or None
        Range of rows; None for all.
    """

    def __init__(self, table: TableFile, array: Array, start: int = 0, stop: int | None = None) -> None:
        self._table = table
        self._array = array
        self._start = start
        rows = () if not array.shape else (array.shape[0] - start if stop is None else stop - start,)
        self.shape = (*rows, *array.shape[1:])
        self.dtype = value_dtype(array.dtype)
        self.chunks = array.chunk or None
        self.path = f"/{array.path}"
        self.file = table.name
        if array.dtype.dims:
            # The dimensions of an array type are the last ones.
            self._element = array.dtype.dims
            self.shape += array.dtype.dims
        else:
            self._element = ()

    def rows(self, start: int, stop: int) -> StoredArray:
        """Return consecutive rows as a lazy array."""
        return StoredArray(self._table, self._array, self._start + start, self._start + stop)

    def read(self, spans: tuple[Indexer, ...]) -> np.ndarray:
        """Read the chunks or byte ranges of a selection."""
        within = spans[len(self._array.shape) :]
        spans = spans[: len(self._array.shape)]
        if spans and self._start:
            first = spans[0]
            if isinstance(first, slice):
                first = slice(first.start + self._start, first.stop + self._start, first.step)
            else:
                first = first + self._start
            spans = (first, *spans[1:])
        values = read_spans(self._table, self._array, spans)
        save()
        return values[(..., *within)] if within else values


class SingleSample(LazyArray):
    """A scalar dataset as an array of one row, or of none in an empty window.

    Parameters
    ----------
    scalar : StoredArray
        The dataset.
    start, stop : int
        Range of rows: 0 to 1, or empty.
    """

    def __init__(self, scalar: StoredArray, start: int = 0, stop: int = 1) -> None:
        self._scalar = scalar
        self._start = start
        self._stop = stop
        self.shape = (stop - start, *scalar.shape)
        self.dtype = scalar.dtype
        self.chunks = None
        self.path = scalar.path
        self.file = scalar.file

    def rows(self, start: int, stop: int) -> SingleSample:
        """Return the row, or none, as a lazy array."""
        return SingleSample(self._scalar, self._start + start, self._start + stop)

    def read(self, spans: tuple[Indexer, ...]) -> np.ndarray:
        """Read the scalar."""
        values = np.asarray(self._scalar.read(spans[1:]))[np.newaxis]
        selected: np.ndarray = values[self._start : self._stop][spans[0]]
        return selected


def samples_of(table: TableFile, array: Array) -> StoredArray | SingleSample:
    """Return a dataset of a series with samples along the first dimension."""
    stored = StoredArray(table, array)
    return stored if array.shape else SingleSample(stored)


class RegularTimes(LazyArray):
    """Timestamps in seconds of a series with a constant sampling rate: `start + row / rate`.

    Parameters
    ----------
    table : TableFile
        The series.
    start, rate : float
        Start in seconds, and rate in hertz.
    first, stop : int
        Range of rows of the series.
    """

    def __init__(self, table: TableFile, start: float, rate: float, first: int, stop: int) -> None:
        self._table = table
        self._regular = start, rate
        self._first = first
        self.shape = (stop - first,)
        self.dtype = np.dtype(np.float64)
        self.chunks = None
        self.path = f"/{table.table.path}/starting_time"
        self.file = table.name

    def rows(self, start: int, stop: int) -> RegularTimes:
        """Return consecutive rows as a lazy array."""
        return RegularTimes(self._table, *self._regular, self._first + start, self._first + stop)

    def read(self, spans: tuple[Indexer, ...]) -> np.ndarray:
        """Compute timestamps without file access."""
        span = spans[0]
        rows = np.arange(span.start, span.stop, span.step) if isinstance(span, slice) else span
        start, rate = self._regular
        stamps: np.ndarray = start + (rows + self._first) / rate
        return stamps


class ScaledArray(LazyArray):
    """An array in physical units as float64: `value * factor * factors[column] + offset`.

    Parameters
    ----------
    raw : LazyArray
        Stored numbers.
    factor, offset : float
        Scale and offset of all values.
    factors : ndarray or None
        One more factor for each position along the second dimension.

    Raises
    ------
    UnsupportedTypeError
        If the array does not contain numbers.
    """

    def __init__(self, raw: LazyArray, factor: float, offset: float, factors: np.ndarray | None) -> None:
        if raw.dtype.kind not in "iufb":
            raise UnsupportedTypeError(
                f"{raw.file}: {raw.path} cannot be scaled: it contains {raw.dtype}, not numbers"
            )
        self._raw = raw
        self._factor = factor
        self._offset = offset
        self._factors = factors
        self.shape = raw.shape
        self.dtype = np.dtype(np.float64)
        self.chunks = raw.chunks
        self.path = raw.path
        self.file = raw.file

    def rows(self, start: int, stop: int) -> ScaledArray:
        """Return consecutive rows as a lazy array."""
        return ScaledArray(self._raw.rows(start, stop), self._factor, self._offset, self._factors)

    def read(self, spans: tuple[Indexer, ...]) -> np.ndarray:
        """Read the stored values and scale them."""
        values = self._raw.read(spans).astype(np.float64)
        values *= self._factor
        if self._factors is not None:
            along = self._factors[spans[1]]
            values *= along.reshape(-1, *[1] * (values.ndim - 2))
        values += self._offset
        return values
