"""The samples of a series that lie within a window of time."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lazynwb.engine.search import UNCHUNKED_ROWS
from lazynwb.engine.times import FEW_ROWS, Blocks, first_rows
from lazynwb.engine.window import expand
from lazynwb.errors import NotAscendingError, UnsupportedTypeError

if TYPE_CHECKING:
    from lazynwb.series.arrays import StoredArray

#: Of no more timestamps all are read, rather than searched.
_MOST_READ_WHOLE = UNCHUNKED_ROWS
#: So many timestamps at the beginning of a window are read, to be sure of them: some seconds of a recording.
_MOST_CHECKED = 250_000


def rows_between(times: StoredArray, start: float, stop: float) -> tuple[int, int]:
    """Return the first row of stored timestamps at or after a time, and at or after a later one.

    They are searched as the filters of a scan search them: of many, single chunks are read. Of up to two
    million that are not at a constant rate, all are read, and have to ascend; and of a window, the first
    250,000.

    Parameters
    ----------
    times : StoredArray
        All timestamps of a series, in seconds.
    start, stop : float

    Raises
    ------
    NotAscendingError
        If timestamps that were read do not ascend, or are not numbers.
    UnsupportedTypeError
        If they are of a type that cannot be times.
    """

    def read(ranges: np.ndarray) -> np.ndarray:
        parts = times[expand(ranges)] if len(ranges) > 1 else times[ranges[0, 0] : ranges[0, 1]]
        return np.asarray(parts)

    if times.dtype.kind not in "iuf" or times.ndim != 1:
        message = f"{times.file}: {times.path} cannot be times: {times.ndim}-dimensional {times.dtype}"
        raise UnsupportedTypeError(message)
    rows, block = len(times), times.chunks[0] if times.chunks else UNCHUNKED_ROWS
    wanted = (np.float64(start), np.float64(stop))  # no Python numbers, which NumPy would round to float32
    try:
        if rows > _MOST_READ_WHOLE and rows > 2 * block:
            tests = [(partial(np.less_equal, t), t) for t in wanted]
            first, last = first_rows(Blocks(read, rows, block), tests, wanted)
            _check(times, first, min(last, first + _MOST_CHECKED), wanted)
            return first, last
        error = NotAscendingError("values do not ascend")
    except NotAscendingError as found:
        error = found
        if rows > FEW_ROWS:
            raise _unsorted(times, error) from None
    values = times[:]
    if not (values[1:] >= values[:-1]).all() or np.isnan(values).any():
        raise _unsorted(times, error)
    first, last = np.searchsorted(values, wanted, side="left").tolist()
    return first, last


def _check(times: StoredArray, first: int, last: int, window: tuple[float, float]) -> None:
    """Make sure of timestamps that the search did not come by: who asks for data alone never sees them."""
    values = times[first:last]
    if not ((values >= window[0]) & (values < window[1])).all() or (values[1:] < values[:-1]).any():
        message = f"values do not ascend from row {first} to row {last}"
        raise NotAscendingError(message)


def _unsorted(times: StoredArray, error: NotAscendingError) -> NotAscendingError:
    message = (
        f"{times.file}: {times.path}: {error}: between() needs them to ascend; filter "
        "lazynwb.scan_nwb(...) by timestamps instead, which looks at all of them"
    )
    return NotAscendingError(message)
