"""What is found of each unit in each interval: times, counts, and whether it was observed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from lazynwb.engine.build import as_lists, from_buffer, offsets_of
from lazynwb.engine.within import Trains, find, gather
from lazynwb.errors import SchemaError
from lazynwb.spikes.intervals import Times
from lazynwb.spikes.observations import IS_OBSERVED, OBS_INTERVALS, Observations

if TYPE_CHECKING:
    from lazynwb.engine.within import Bools, Floats, Ints, Pairs
    from lazynwb.spikes.intervals import Sessions

SPIKE_TIMES = "spike_times"
_ENDS = ("start", "stop")


class Options(NamedTuple):
    """What to find; see `get_spike_times_in_intervals`."""

    intervals: dict[str, tuple[Any, Any]]
    observed_only: bool
    counts: bool
    bare: bool
    align: bool
    align_to: str | pl.Expr | None

    @property
    def times(self) -> Times:
        """The bounds of all intervals, then what their times are relative to."""
        asked: dict[str, object] = {}
        for name, pair in self.intervals.items():
            if not isinstance(pair, tuple | list) or len(pair) != 2:  # noqa: PLR2004 - start and stop
                message = f"the interval {name!r} must be a pair of its start and its stop, not {pair!r}"
                raise TypeError(message)
            asked |= {
                f"the {label} of the interval {name!r}": t for label, t in zip(_ENDS, pair, strict=True)
            }
        return Times.of(asked if self.align_to is None else {**asked, "align_to": self.align_to})


def found(
    block: pl.DataFrame, sessions: Sessions, pairs: Pairs, options: Options, finds: list[str]
) -> dict[str, pl.Series]:
    """Return the spikes of the pairs, and whether these were observed."""
    bounds, names = sessions.times, list(options.intervals)
    proper = bounds[0 : 2 * len(names) : 2] <= bounds[1 : 2 * len(names) : 2]  # false for NaN
    intervals = pairs.intervals
    known = proper[:, intervals]
    inside = known
    columns: dict[str, pl.Series] = {}
    if options.observed_only:
        inside = known & _inside(block[OBS_INTERVALS], pairs, bounds, proper)
        unobserved = np.any(known & ~inside, axis=0)
        told = unobserved | np.all(known, axis=0)
        columns[IS_OBSERVED] = _nullable(pl.Series(~unobserved), told)
    if not finds:
        return columns
    try:
        trains = Trains(block[SPIKE_TIMES].cast(pl.List(pl.Float64)))
    except pl.exceptions.PolarsError as error:
        message = f"{SPIKE_TIMES} is {block.schema[SPIKE_TIMES]}, but must be lists of seconds"
        raise SchemaError(message) from error
    trains.put_in_order()
    has_times = trains.known[pairs.units]
    for name in finds:
        i = names.index(name)
        begins, ends = find(trains, pairs, bounds[2 * i : 2 * i + 2])
        valid = inside[i] & has_times
        if options.counts:
            columns[name] = _nullable(pl.Series(ends - begins), valid)
            continue
        zeros = _zeros(options, bounds, i)
        if zeros is not None:
            valid &= np.isfinite(zeros)[intervals]
        counts = np.where(valid, ends - begins, 0)
        flat = from_buffer(gather(trains, pairs, begins, counts, zeros))
        columns[name] = as_lists(flat, (), [offsets_of(counts)], None if valid.all() else valid)
    return columns


def _zeros(options: Options, bounds: Floats, interval: int) -> Floats | None:
    """Return what the times of an interval are relative to."""
    if options.align_to is not None:
        zeros: Floats = bounds[-1]
        return zeros
    return bounds[2 * interval] if options.align else None


def _inside(series: pl.Series, pairs: Pairs, bounds: Floats, proper: Bools) -> Bools:
    """Tell for each interval and pair whether it was observed; of improper ones nothing is told."""
    observations = Observations(series)
    out = np.empty((len(proper), pairs.offsets[-1]), bool)
    groups = observations.groups()
    # Most units of a session are observed at the same times: that is looked up once.
    seen: dict[tuple[int, int], Bools] = {}
    for unit, rows, intervals in pairs.slices():
        key = int(groups[unit]), intervals.start
        if key not in seen:
            owners: Ints = np.full(intervals.stop - intervals.start, unit)
            seen[key] = np.stack(
                [
                    observations.include(owners, bounds[2 * i, intervals], bounds[2 * i + 1, intervals])
                    for i in range(len(proper))
                ]
            )
        out[:, rows] = seen[key]
    return out


def _nullable(series: pl.Series, valid: Bools) -> pl.Series:
    if valid.all():
        return series
    return pl.select(pl.when(pl.Series(valid)).then(series)).to_series()
