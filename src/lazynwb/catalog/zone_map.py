"""Zone maps: the least and the greatest value of each run of rows, by which a filter skips whole runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable


class ZoneMap(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The statistics of a one-dimensional array of numbers, zone by zone: a zone is a number of whole chunks.

    NaN counts as greater than any number, as Polars compares it: `NaN >= x` is true. A zone has NaN where
    its maximum is NaN, and nothing else where its minimum is. Stored numbers are never null; rows past the
    end of a timestamps array that is too short are, and no zone covers them.

    Attributes
    ----------
    rows : int
        Of the array.
    zone_rows : int
        Of each zone but the last.
    dtype : str
        NumPy type string of the values, in native byte order.
    minima, maxima : bytes
        One value per zone.
    ascending : bytes
        One byte per zone: 1 where no value is less than the one before it in the zone, and none is NaN.
    """

    rows: int
    zone_rows: int
    dtype: str
    minima: bytes
    maxima: bytes
    ascending: bytes

    def describes(self, rows: int) -> bool:
        """Return whether this is consistent, and of an array of so many rows."""
        if self.rows != rows or self.zone_rows < 1 or self.dtype[1:2] not in {"i", "u", "f"}:
            return False
        try:
            width = self.count * np.dtype(self.dtype).itemsize
        except TypeError:
            return False
        return len(self.minima) == len(self.maxima) == width and len(self.ascending) == self.count

    @property
    def count(self) -> int:
        """The number of zones."""
        return -(-self.rows // self.zone_rows)

    @property
    def minimum(self) -> np.ndarray:
        """The least value of each zone; NaN where there is no number."""
        return np.frombuffer(self.minima, self.dtype)

    @property
    def maximum(self) -> np.ndarray:
        """The greatest value of each zone; NaN where there is any."""
        return np.frombuffer(self.maxima, self.dtype)

    @property
    def is_ascending(self) -> bool:
        """Whether no value of the array is less than the one before it, and none is NaN."""
        within = np.frombuffer(self.ascending, np.uint8).all()
        return bool(within) and bool((self.maximum[:-1] <= self.minimum[1:]).all())

    def ranges(self, keep: np.ndarray) -> np.ndarray:
        """Return the rows of the zones where a mask is true, as ranges of shape (n, 2)."""
        steps = np.diff(np.concatenate([[False], keep, [False]]).astype(np.int8))
        starts, stops = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
        return np.minimum(np.stack([starts, stops], axis=1) * self.zone_rows, self.rows)


def zone_map_of(blocks: Iterable[np.ndarray], rows: int, zone_rows: int) -> ZoneMap:
    """Return the zone map of an array.

    Parameters
    ----------
    blocks : iterable of ndarray
        The values in order; each block but the last holds whole zones.
    rows, zone_rows : int
        Of the array, and of a zone.
    """
    minima, maxima, ascending = [], [], []
    dtype = np.dtype(np.float64)
    for values in blocks:
        dtype = values.dtype
        whole = len(values) // zone_rows * zone_rows
        for zones in (values[:whole].reshape(-1, zone_rows), values[whole:].reshape(1, -1)):
            if zones.size:
                minima.append(np.fmin.reduce(zones, axis=1))
                maxima.append(np.maximum.reduce(zones, axis=1))
                in_order = (zones[:, 1:] >= zones[:, :-1]).all(axis=1)
                ascending.append(in_order & (maxima[-1] == maxima[-1]))
    joined = (b"".join(part.tobytes() for part in parts) for parts in (minima, maxima, ascending))
    return ZoneMap(rows, zone_rows, dtype.str, *joined)
