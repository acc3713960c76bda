"""Where a value is among ascending rows, found with as few chunks as can be."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

import numpy as np

from lazynwb.errors import NotAscendingError

if TYPE_CHECKING:
    from collections.abc import Callable

#: Probes that go where a constant rate would have the value, before each second one halves what is left.
_GUESSES = 4
#: Rows of a probe where the data has no chunks: 64 KiB of timestamps.
UNCHUNKED_ROWS = 8192


class AscendingRows:
    """Ascending numbers of which single blocks are read.

    Timestamps in NWB ascend, mostly at a nearly constant rate, so the search goes where the value would be
    at that rate; no worse than twice the steps of a binary search in any case. Each block is read once.

    Parameters
    ----------
    read : callable
        Gives the rows from a first one to the one past the last.
    rows : int
    block : int
        Rows that are read at a time: those of a chunk.
    """

    def __init__(self, read: Callable[[int, int], np.ndarray], rows: int, block: int) -> None:
        self._read = read
        self._rows = rows
        self._block = max(block, 1)
        self._known: dict[int, np.ndarray] = {}

    def first_at_least(self, value: float) -> int:
        """Return the first row whose value is not less; see `first_where`."""
        return self.first_where(lambda values: values >= value, value)

    def first_where(self, passed: Callable[[np.ndarray], np.ndarray], value: float) -> int:
        """Return the first row that passes a test; the number of rows if there is none.

        Parameters
        ----------
        passed : callable
            Tells of values, which ones pass; whatever is larger than one that does passes too.
        value : float
            About the smallest that passes; NaN where that is not known.

        Raises
        ------
        NotAscendingError
            If values that were read on the way do not ascend, or are not numbers.
        """
        low, high = self._between_known(passed)
        steps = 0
        while low < high:
            at = self._guess(value, low, high) if steps < _GUESSES or steps % 2 else (low + high) // 2
            values = self.values(at)
            steps += 1
            ends = passed(values[[0, -1]])
            if not ends[1]:
                low = at + 1
            elif ends[0]:
                high = at
            else:
                return at * self._block + int(np.argmax(passed(values)))
        return min(low * self._block, self._rows)

    def _between_known(self, passed: Callable[[np.ndarray], np.ndarray]) -> tuple[int, int]:
        """Return the first block that may hold the first row that passes, and the first that does not."""
        low, high = 0, -(-self._rows // self._block)
        known = sorted(self._known)
        if known:
            ends = passed(np.concatenate([self._known[at][[0, -1]] for at in known]))
            for at, first, last in zip(known, ends[::2], ends[1::2], strict=True):
                if not first:
                    low = at if last else at + 1
                if last:
                    high = min(high, at if first else at + 1)
        return low, high

    def _guess(self, value: float, low: int, high: int) -> int:
        """Return the block that would hold the value at a constant rate between those that are known."""
        for end in (0, -(-self._rows // self._block) - 1):
            if end not in self._known and low <= end < high:
                return end
        known = sorted(self._known)
        after = bisect_left(known, high)
        before = bisect_left(known, low) - 1
        if before < 0 or after >= len(known):
            return (low + high) // 2
        first, last = known[before], known[after]
        start, stop = float(self._known[first][-1]), float(self._known[last][0])
        if not start < value <= stop or not np.isfinite(stop - start):
            return (low + high) // 2
        share = (value - start) / (stop - start)
        return min(max(first + 1 + int(share * (last - first - 1)), low), high - 1)

    def values(self, at: int) -> np.ndarray:
        """Return the rows of a block; see `first_where` for what is raised."""
        if at not in self._known:
            start = at * self._block
            values = self._read(start, min(start + self._block, self._rows))
            if not (values[1:] >= values[:-1]).all() or values[0] != values[0]:
                message = f"values do not ascend from row {start} to row {start + len(values)}"
                raise NotAscendingError(message)
            known = sorted(self._known)
            place = bisect_left(known, at)
            before, after = known[place - 1 : place], known[place : place + 1]
            if place and self._known[before[0]][-1] > values[0]:
                message = f"row {start} has a smaller value than row {before[0] * self._block}"
                raise NotAscendingError(message)
            if after and self._known[after[0]][0] < values[-1]:
                message = f"row {start} has a larger value than row {after[0] * self._block}"
                raise NotAscendingError(message)
            self._known[at] = values
        return self._known[at]


def first_regular(value: float, start: float, rate: float, rows: int) -> int:
    """Return the first row of timestamps `start + row / rate` that is not less than a value.

    It is exact: rounding errors of the division are those that the timestamps themselves have.
    """
    return bisect_left(range(rows), value, key=lambda row: start + row / rate)
