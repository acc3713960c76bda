"""Lazy arrays: read when they are sliced."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from lazynwb.arrays.slicing import ordered, pick, read_picked, value_dtype
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

#: Bytes that are read at a time where an array is gone through from its beginning to its end.
_BLOCK = 16 * 1024 * 1024


class LazyArray(ABC):
    """An array whose elements are read, or made, when they are asked for.

    `array[1000:2000, :4]`, `array[-1]`, `array[::2]`, `array[mask]` and `array[[3, 1, 1]]` give NumPy
    arrays, or single values, as NumPy would: integers, slices and an ellipsis along all dimensions, and
    along one of them a boolean mask or numbers in any order. `np.asarray(array)` and `array[:]` read all of
    it. Nothing is kept open, and nothing that was read is kept.

    Attributes
    ----------
    shape : tuple of int
        As NumPy's.
    dtype : numpy.dtype
        In native byte order; `object` for text (`str`), names of enums, and the paths behind references.
    chunks : tuple of int or None
        The shape of what is read and decoded at once; None where any part can be read.
    path : str
        Of the dataset, with the leading slash.
    file : str
        Path or URL, without secrets.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    chunks: tuple[int, ...] | None
    path: str
    file: str

    @abstractmethod
    def read(self, spans: tuple[Indexer, ...]) -> np.ndarray:
        """Return the values of spans along all dimensions."""

    @abstractmethod
    def rows(self, start: int, stop: int) -> Self:
        """Return some consecutive rows, again lazily: `0 <= start <= stop <= len(array)`."""

    @property
    def ndim(self) -> int:
        """How many dimensions it has."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all elements in memory; of those that are objects, without what these refer to."""
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
            If it is out of range, or of a kind that is not supported.
        CorruptDataError, SourceChangedError, UnsupportedTypeError
            If it cannot be read.
        """
        picked = pick(self.shape, selection)
        values = ordered(self.read(picked.spans), picked)
        return values if values.ndim else values[()]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:  # noqa: FBT001 - NumPy's
        """Read all of it.

        Raises
        ------
        ValueError
            If `copy` is false: there is nothing that could be shared.
        """
        if copy is False:
            raise ValueError(
                "a lazy array cannot be made a NumPy array without reading it: leave out copy=False"
            )
        values = np.asarray(self[...])
        return values if dtype is None else values.astype(dtype, copy=False)

    def __iter__(self) -> Iterator[Any]:
        """Yield row after row, reading many at a time."""
        for start, stop in self.blocks():
            yield from self[start:stop]

    def blocks(self, size: int = _BLOCK) -> Iterator[tuple[int, int]]:
        """Yield the first row and the row past the last of blocks of whole chunks.

        Parameters
        ----------
        size : int
            About how many bytes a block has; whole chunks in any case.
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
    """A dataset of a file, or some rows of it.

    Parameters
    ----------
    table : TableFile
        The table or series that it belongs to.
    array : Array
    start, stop : int or None
        The rows; None for all.
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
            # An element that is an array itself: its dimensions are the last ones.
            self._element = array.dtype.dims
            self.shape += array.dtype.dims
        else:
            self._element = ()

    def rows(self, start: int, stop: int) -> StoredArray:
        """Return some consecutive rows, again lazily."""
        return StoredArray(self._table, self._array, self._start + start, self._start + stop)

    def read(self, spans: tuple[Indexer, ...]) -> np.ndarray:
        """Read the chunks, or ranges of bytes, that hold the spans."""
        within = spans[len(self._array.shape) :]
        spans = spans[: len(self._array.shape)]
        if spans and self._start:
            first = spans[0]
            if isinstance(first, slice):
                first = slice(first.start + self._start, first.stop + self._start, first.step)
            else:
                first = first + self._start
            spans = (first, *spans[1:])
        values = read_picked(self._table, self._array, spans)
        save()
        return values[(..., *within)] if within else values


class SingleSample(LazyArray):
    """The one sample of a series that stores it as a scalar: an array of one row, or of none in a window.

    Parameters
    ----------
    scalar : StoredArray
        The dataset.
    start, stop : int
        The rows: 0 to 1, or none.
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
        """Return the row, or none, again lazily."""
        return SingleSample(self._scalar, self._start + start, self._start + stop)

    def read(self, spans: tuple[Indexer, ...]) -> np.ndarray:
        """Read the scalar."""
        values = np.asarray(self._scalar.read(spans[1:]))[np.newaxis]
        kept: np.ndarray = values[self._start : self._stop][spans[0]]
        return kept


def samples_of(table: TableFile, array: Array) -> StoredArray | SingleSample:
    """Return a dataset of a series with the samples along its first dimension."""
    stored = StoredArray(table, array)
    return stored if array.shape else SingleSample(stored)


class RegularTimes(LazyArray):
    """Timestamps in seconds of a series that was sampled at a constant rate: `start + row / rate`.

    Parameters
    ----------
    table : TableFile
        The series.
    start, rate : float
        In seconds, and in hertz.
    first, stop : int
        Rows of the series.
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
        """Return some consecutive rows, again lazily."""
        return RegularTimes(self._table, *self._regular, self._first + start, self._first + stop)

    def read(self, spans: tuple[Indexer, ...]) -> np.ndarray:
        """Compute timestamps; nothing is read."""
        span = spans[0]
        rows = np.arange(span.start, span.stop, span.step) if isinstance(span, slice) else span
        start, rate = self._regular
        stamps: np.ndarray = start + (rows + self._first) / rate
        return stamps


class ScaledArray(LazyArray):
    """Another array's values in physical units, as float64: `value * factor * factors[column] + offset`.

    Parameters
    ----------
    raw : LazyArray
        Numbers.
    factor, offset : float
    factors : ndarray or None
        One for each position along the second dimension.

    Raises
    ------
    UnsupportedTypeError
        If the array does not hold numbers.
    """

    def __init__(self, raw: LazyArray, factor: float, offset: float, factors: np.ndarray | None) -> None:
        if raw.dtype.kind not in "iufb":
            raise UnsupportedTypeError(
                f"{raw.file}: {raw.path} holds no numbers that could be scaled, but {raw.dtype}"
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
        """Return some consecutive rows, again lazily."""
        return ScaledArray(self._raw.rows(start, stop), self._factor, self._offset, self._factors)

    def read(self, spans: tuple[Indexer, ...]) -> np.ndarray:
        """Read the stored values, and scale them."""
        values = self._raw.read(spans).astype(np.float64)
        values *= self._factor
        if self._factors is not None:
            along = self._factors[spans[1]]
            values *= along.reshape(-1, *[1] * (values.ndim - 2))
        values += self._offset
        return values
