"""Interval joins: sorted times within intervals, and intervals within unions of intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lazynwb.arrays.arrow import offsets_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]


class SpikeTrains:
    """Ascending times of events, such as spikes, of many units.

    The memory is shared with the Series. Times of a unit that do not ascend, which NWB permits, are replaced
    by a sorted copy; NaN come last, where no interval includes them.

    Parameters
    ----------
    series : Series of List(Float64)
        One list per unit. Nulls in lists are left out.
    """

    def __init__(self, series: pl.Series) -> None:
        import nanoarrow as na

        self.known: Bools = series.is_not_null().to_numpy()
        self._values: Floats = np.zeros(0)
        self._offsets: Ints = np.zeros(len(series) + 1, np.int64)
        self._sorted: dict[int, Floats] = {}
        if not self.known.any():
            return
        array = na.c_array_stream(series.rechunk()).get_next()
        if array.child(0).null_count:
            array = na.c_array_stream(series.list.drop_nulls().rechunk()).get_next()
        lists, values = array.view(), array.child(0).view()
        self._offsets = np.asarray(lists.buffer(1))[lists.offset :]
        self._values = np.asarray(values.buffer(1))[values.offset :]

    def __getitem__(self, unit: int) -> Floats:
        """Return the ascending times of one unit."""
        if unit in self._sorted:
            return self._sorted[unit]
        return self._values[self._offsets[unit] : self._offsets[unit + 1]]

    def sort(self) -> None:
        """Sort the times of units that do not ascend."""
        for unit in np.flatnonzero(self.known).tolist():
            times = self[unit]
            # Comparisons with NaN are false, so times with NaN are sorted, too.
            if not (times[:-1] <= times[1:]).all():
                self._sorted[unit] = np.sort(times)


class UnitIntervalPairs(NamedTuple):
    """Pairs of units and the intervals of their sessions, which are the rows of a result.

    Attributes
    ----------
    firsts, counts : ndarray of int64, shape (units,)
        First interval and number of intervals of each unit's session.
    offsets : ndarray of int64, shape (units + 1,)
        Position of the first pair of each unit.
    """

    firsts: Ints
    counts: Ints
    offsets: Ints

    @classmethod
    def of(cls, firsts: Ints, counts: Ints) -> UnitIntervalPairs:
        """Return the pairs for the first interval and the number of intervals of each unit's session."""
        return cls(firsts, counts, offsets_of(counts))

    def slices(self) -> Iterator[tuple[int, slice, slice]]:
        """Yield the number of each unit with intervals, the slice of its pairs, and that of its intervals."""
        starts = zip(self.offsets.tolist(), self.firsts.tolist(), self.counts.tolist(), strict=False)
        for unit, (start, first, count) in enumerate(starts):
            if count:
                yield unit, slice(start, start + count), slice(first, first + count)

    @property
    def units(self) -> Ints:
        """The unit of each pair."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @property
    def intervals(self) -> Ints:
        """The interval of each pair."""
        return np.arange(self.offsets[-1]) + np.repeat(self.firsts - self.offsets[:-1], self.counts)


def find(trains: SpikeTrains, pairs: UnitIntervalPairs, bounds: Floats) -> Ints:
    """Return the position of the first time of a unit that is not less than each bound.

    Parameters
    ----------
    trains : SpikeTrains
        In order.
    pairs : UnitIntervalPairs
    bounds : ndarray, shape (bounds, intervals)

    Returns
    -------
    ndarray of int64, shape (bounds, pairs)
    """
    found = np.empty((len(bounds), pairs.offsets[-1]), np.int64)
    for unit, rows, intervals in pairs.slices():
        times = trains[unit]
        for positions, bound in zip(found, bounds, strict=True):
            positions[rows] = times.searchsorted(bound[intervals])
    return found


def gather(
    trains: SpikeTrains, pairs: UnitIntervalPairs, begins: Ints, counts: Ints, zeros: Floats | None
) -> Floats:
    """Return the concatenated times of all pairs.

    Parameters
    ----------
    trains : SpikeTrains
    pairs : UnitIntervalPairs
    begins, counts : ndarray of int64, shape (pairs,)
        First time and number of times of each pair.
    zeros : ndarray or None
        Reference time of each interval, which is subtracted from the times.
    """
    offsets = offsets_of(counts)
    out = np.empty(offsets[-1])
    # Unit by unit, so that temporary arrays fit into the processor's cache.
    for unit, rows, intervals in pairs.slices():
        start, stop = offsets[rows.start], offsets[rows.stop]
        if start == stop:
            continue
        index = np.arange(start, stop)
        index += np.repeat(begins[rows] - offsets[rows], counts[rows])
        part = out[start:stop]
        np.take(trains[unit], index, out=part, mode="clip")  # other modes copy
        if zeros is not None:
            part -= np.repeat(zeros[intervals], counts[rows])
    return out


class IntervalUnions(NamedTuple):
    """Unions of intervals of many owners, as disjoint and sorted intervals.

    Attributes
    ----------
    owners : ndarray of int64
        Ascending.
    starts, stops : ndarray of float64
    """

    owners: Ints
    starts: Floats
    stops: Floats

    @classmethod
    def of(cls, owners: Ints, starts: Floats, stops: Floats) -> IntervalUnions:
        """Return the union of each owner's intervals, which may be unsorted and overlap.

        Intervals that end before they begin, or whose bounds are NaN, are ignored.
        """
        proper = starts <= stops
        owners, starts, stops = owners[proper], starts[proper], stops[proper]
        order = np.lexsort((starts, owners))
        owners, starts, stops = owners[order], starts[order], stops[order]
        if not len(owners):
            return cls(owners, starts, stops)
        # The cumulative maximum of stops per owner: ranks of different owners do not overlap.
        ascending, ranks = np.unique(stops, return_inverse=True)
        ranks = ranks.reshape(-1) + owners * len(ascending)
        latest = ascending[np.maximum.accumulate(ranks) - owners * len(ascending)]
        new = np.ones(len(owners), bool)
        new[1:] = (owners[1:] != owners[:-1]) | (starts[1:] > latest[:-1])
        begins = np.flatnonzero(new)
        return cls(owners[begins], starts[begins], latest[np.append(begins[1:], len(owners)) - 1])

    def contain(self, owners: Ints, starts: Floats, stops: Floats) -> Bools:
        """Return whether each interval is within one interval of its owner, including bounds."""
        count = len(self.owners)
        if not count:
            return np.zeros(len(owners), bool)
        is_query = np.arange(count + len(owners)) >= count
        order = np.lexsort((is_query, np.append(self.starts, starts), np.append(self.owners, owners)))
        queries = is_query[order]
        # The last interval that starts before each query, in order of owners and starts.
        last = np.empty(len(owners), np.int64)
        last[order[queries] - count] = (np.cumsum(~queries) - 1)[queries]
        found = last.clip(min=0)
        contained: Bools = (last >= 0) & (self.owners[found] == owners) & (stops <= self.stops[found])
        return contained
