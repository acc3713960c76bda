"""Search in ascending stored values, which reads single blocks only."""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import TYPE_CHECKING

import numpy as np

from lazynwb.arrays.ragged import merge_spans
from lazynwb.errors import NotAscendingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: Number of interpolated probes after which interpolation and bisection alternate.
_GUESSES = 4


class AscendingRows:
    """Ascending stored numbers, read in blocks on demand.

    Timestamps mostly have a nearly constant rate, so the search interpolates. It takes at most twice the
    steps of a binary search. Each block is read once.

    Parameters
    ----------
    read : callable
        Function that returns the values of ranges of rows.
    rows : int
        Number of rows.
    block_rows : int
        Number of rows of a block, which is a chunk.
    """

    def __init__(self, read: Callable[[np.ndarray], np.ndarray], rows: int, block_rows: int) -> None:
        self._read = read
        self._rows = rows
        self._size = max(block_rows, 1)
        self._count = -(-rows // self._size)
        self._blocks: dict[int, np.ndarray] = {}

    def prefetch(self, values: Iterable[float]) -> None:
        """Read the first and the last block, then the blocks in which values are expected, in one request."""
        self._fetch([0, self._count - 1] if self._count else [])
        places = sorted(self._blocks)
        firsts = [float(self._blocks[place][0]) for place in places]
        guesses = (
            [np.interp(value, firsts, places) for value in values if math.isfinite(value)] if places else []
        )
        self._fetch(min(int(place), self._count - 1) for place in guesses)

    def first_where(self, passed: Callable[[np.ndarray], np.ndarray], value: float) -> int:
        """Return the first row that passes a test; the number of rows if none passes.

        Parameters
        ----------
        passed : callable
            Function that returns the mask of values that pass; it must be monotonic.
        value : float
            Estimate of the least value that passes; NaN if unknown.

        Raises
        ------
        NotAscendingError
            If values are not ascending, or NaN.
        """
        low, high = self._between_known(passed)
        steps = 0
        while low < high:
            at = self._guess(value, low, high) if steps < _GUESSES or steps % 2 else (low + high) // 2
            self._fetch([at])
            values = self._blocks[at]
            steps += 1
            ends = passed(values[[0, -1]])
            if not ends[1]:
                low = at + 1
            elif ends[0]:
                high = at
            else:
                return at * self._size + int(np.argmax(passed(values)))
        return min(low * self._size, self._rows)

    def _fetch(self, numbers: Iterable[int]) -> None:
        """Read blocks in one request, and check that all values read so far are ascending."""
        new = np.array(sorted(set(numbers) - self._blocks.keys()), np.int64)
        if not len(new):
            return
        starts = new * self._size
        stops = np.minimum(starts + self._size, self._rows)
        values = self._read(merge_spans(starts, stops))
        self._blocks |= dict(zip(new.tolist(), np.split(values, np.cumsum(stops - starts)[:-1]), strict=True))
        before = None
        for place in sorted(self._blocks):
            block = self._blocks[place]
            in_order = place not in new or (block[1:] >= block[:-1]).all()
            if not in_order or block[0] != block[0] or (before is not None and before > block[0]):
                last = min((place + 1) * self._size, self._rows) - 1
                raise NotAscendingError(f"the values up to row {last} are not ascending, or are NaN")
            before = block[-1]

    def _between_known(self, passed: Callable[[np.ndarray], np.ndarray]) -> tuple[int, int]:
        """Return bounds of the block that contains the first row that passes."""
        low, high = 0, self._count
        known = sorted(self._blocks)
        if known:
            ends = passed(np.concatenate([self._blocks[at][[0, -1]] for at in known]))
            for at, first, last in zip(known, ends[::2], ends[1::2], strict=True):
                if not first:
                    low = at if last else at + 1
                if last:
                    high = min(high, at if first else at + 1)
        return low, high

    def _guess(self, value: float, low: int, high: int) -> int:
        """Return the block of a value by interpolation between the known blocks."""
        known = sorted(self._blocks)
        after = bisect_left(known, high)
        before = bisect_left(known, low) - 1
        if before < 0 or after >= len(known):
            return (low + high) // 2
        first, last = known[before], known[after]
        start, stop = float(self._blocks[first][-1]), float(self._blocks[last][0])
        if not start < value <= stop or not np.isfinite(stop - start):
            return (low + high) // 2
        share = (value - start) / (stop - start)
        return min(max(first + 1 + int(share * (last - first - 1)), low), high - 1)
