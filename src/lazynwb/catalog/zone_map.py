"""Zone maps: minimum and maximum of each zone of rows, by which predicates skip whole zones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np


class ZoneMap(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Statistics of the zones of a one-dimensional array of numbers; a zone consists of whole chunks.

    NaN is greater than any number, as in Polars: `NaN >= x` is true. A zone contains NaN if its maximum is
    NaN, and only NaN if its minimum is NaN. Stored numbers are never null. Rows past the end of a timestamps
    array that is too short are null, and not covered by any zone.

    Attributes
    ----------
    rows : int
        Number of rows of the array.
    zone_rows : int
        Number of rows of each zone except the last.
    dtype : str
        NumPy type string of the values, in native byte order.
    minima, maxima : bytes
        One value per zone.
    """

    rows: int
    zone_rows: int
    dtype: str
    minima: bytes
    maxima: bytes

    def describes(self, rows: int) -> bool:
        """Return whether the zone map is consistent and belongs to an array with this number of rows."""
        if self.rows != rows or self.zone_rows < 1 or self.dtype[1:2] not in {"i", "u", "f"}:
            return False
        import numpy as np  # late, here and below: a schema needs no NumPy

        try:
            width = self.count * np.dtype(self.dtype).itemsize
        except TypeError:
            return False
        return len(self.minima) == len(self.maxima) == width

    @property
    def count(self) -> int:
        """The number of zones."""
        return -(-self.rows // self.zone_rows)

    @property
    def minimum(self) -> np.ndarray:
        """The minimum of each zone; NaN if the zone contains only NaN."""
        import numpy as np

        return np.frombuffer(self.minima, self.dtype)

    @property
    def maximum(self) -> np.ndarray:
        """The maximum of each zone; NaN if the zone contains NaN."""
        import numpy as np

        return np.frombuffer(self.maxima, self.dtype)

    def ranges(self, keep: np.ndarray) -> np.ndarray:
        """Return the rows of the zones that a mask selects, as ranges of shape (n, 2)."""
        import numpy as np

        steps = np.diff(np.concatenate([[False], keep, [False]]).astype(np.int8))
        starts, stops = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
        return np.minimum(np.stack([starts, stops], axis=1) * self.zone_rows, self.rows)


def zone_map_of(blocks: Iterable[np.ndarray], rows: int, zone_rows: int) -> ZoneMap:
    """Return the zone map of an array.

    Parameters
    ----------
    blocks : iterable of ndarray
        The values in order; each block except the last consists of whole zones.
    rows, zone_rows : int
        Number of rows of the array and of a zone.
    """
    import numpy as np

    minima, maxima = [], []
    dtype = np.dtype(np.float64)
    for values in blocks:
        dtype = values.dtype
        whole = len(values) // zone_rows * zone_rows
        for zones in (values[:whole].reshape(-1, zone_rows), values[whole:].reshape(1, -1)):
            if zones.size:
                minima.append(np.fmin.reduce(zones, axis=1))
                maxima.append(np.maximum.reduce(zones, axis=1))
    joined = (b"".join(part.tobytes() for part in parts) for parts in (minima, maxima))
    return ZoneMap(rows, zone_rows, dtype.str, *joined)
