"""A query for spikes in intervals: what it reads of the two tables, and in which order its rows come."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from lazynwb.catalog.provenance import INTERNAL, NWB_PATH, ROWS, TABLE_INDEX
from lazynwb.engine.within import Pairs
from lazynwb.errors import ColumnNotFoundError, LazyNWBError, SchemaError
from lazynwb.frames.given import as_lazy
from lazynwb.frames.late_columns import with_columns
from lazynwb.lifetime import unhurried
from lazynwb.scan import scan_nwb
from lazynwb.spikes.intervals import Intervals, Sessions, Times
from lazynwb.spikes.observations import (
    INTERVALS_INDEX,
    IS_OBSERVED,
    OBS_INTERVALS,
    UNITS_INDEX,
    index_column,
    late_observations,
    provenance,
)
from lazynwb.spikes.values import SPIKE_TIMES, Options, found

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from lazynwb.frames.given import AnyFrame

#: A column of a unit that has the name of one of the interval's gets this, as in joins.
_SUFFIX = "_right"
#: Units whose spike times are in memory at the same time.
_BLOCK = 256
#: Bytes of a lazy frame of units that are taken at a time.
_BLOCK_BYTES = 32 * 1024 * 1024
#: Columns of a block that say where its units are from have names that no column of a file has.
_PREFIX = "\x00"


class Query:
    """What Polars asks for batches, and for the schema; a class, so that a query can be pickled."""

    def __init__(  # noqa: PLR0913 - what the public function takes
        self,
        units: AnyFrame,
        intervals: str | AnyFrame,
        condition: str | pl.Expr | None,
        options: Options,
        storage_options: Mapping[str, Any] | None,
        *,
        disable_progress: bool,
    ) -> None:
        self._lazy = isinstance(units, pl.LazyFrame)
        self._units = as_lazy(units)
        self._unit_schema = self._units.collect_schema()
        index_column(self._unit_schema)
        self._given = intervals
        self._condition = condition
        self._options = options
        self._times = options.times
        self._storage_options = storage_options
        self._disable_progress = disable_progress
        if not isinstance(intervals, str):
            self.schema()  # what is wrong with the frames is better said now

    def __call__(
        self,
        with_columns: list[str] | None,
        predicate: pl.Expr | None,
        n_rows: int | None,
        batch_size: int | None,  # noqa: ARG002 - blocks are bounded by units
    ) -> Iterator[pl.DataFrame]:
        """Yield what Polars asks for."""
        return unhurried(self._batches(with_columns, predicate, n_rows))

    def collect(self) -> pl.DataFrame:
        """Return all rows."""
        schema = self.schema()
        return pl.concat([schema.to_frame(), *self.batches(list(schema))])

    # -- columns --------------------------------------------------------------------------------------

    @cached_property
    def _paths(self) -> list[str]:
        """The sessions of the units."""
        path = pl.col(NWB_PATH).cast(pl.String)
        paths = self._units.select(path).unique(maintain_order=True).collect()
        return paths.to_series().drop_nulls().to_list()

    @cached_property
    def _intervals(self) -> Intervals | None:
        if not isinstance(self._given, str):
            return Intervals(as_lazy(self._given), self._condition, arrays=True)
        if not self._paths:
            return None  # nobody to ask which columns the table has
        options = self._storage_options
        frame = scan_nwb(
            self._paths, self._given, disable_progress=self._disable_progress, storage_options=options
        )
        return Intervals(frame, self._condition, arrays=False)

    @cached_property
    def _shown(self) -> dict[str, pl.DataType]:
        """The columns of the intervals table in the result."""
        return {} if self._options.bare or self._intervals is None else self._intervals.shown

    @cached_property
    def _unit_columns(self) -> dict[str, str]:
        """The columns of the units in the result, by their names there."""
        if self._options.bare:
            return {}
        hidden = {*INTERNAL, UNITS_INDEX, SPIKE_TIMES, OBS_INTERVALS}
        taken = {*self._head(), *self._shown}
        own = [name for name in self._unit_schema if name not in hidden]
        names = {}
        for name in own:
            new = name
            while new in taken or (new != name and new in own):
                new += _SUFFIX
            taken.add(new)
            names[new] = name
        return names

    def _head(self) -> dict[str, Any]:
        """Return the columns that are of neither table."""
        values = pl.Int64() if self._options.counts else pl.List(pl.Float64())
        observed = self._options.observed_only and not self._options.bare
        return {
            UNITS_INDEX: pl.UInt32(),
            INTERVALS_INDEX: pl.UInt32(),
            NWB_PATH: pl.String(),
            **dict.fromkeys(self._options.intervals, values),
            **({IS_OBSERVED: pl.Boolean()} if observed else {}),
        }

    def schema(self) -> pl.Schema:
        """Return the columns of the result.

        Raises
        ------
        SchemaError
            If two would have the same name.
        """
        head = self._head()
        if len(head) < len(self._options.intervals) + (4 if IS_OBSERVED in head else 3):
            message = (
                f"an interval has a name that the result needs itself: {', '.join(self._options.intervals)}"
            )
            raise SchemaError(message)
        clashing = next((name for name in head if name in self._shown), None)
        if clashing is not None:
            message = (
                f"the intervals table has a column {clashing!r} already: choose another name, drop that "
                "column, or pass keep_only_necessary_cols=True"
            )
            raise SchemaError(message)
        units = {new: self._unit_schema[name] for new, name in self._unit_columns.items()}
        return pl.Schema({**head, **self._shown, **units})

    def schema_to_count(self) -> pl.Schema:
        """Return the columns with one that users never see, so that counting rows asks for no other."""
        return pl.Schema({ROWS: pl.Null(), **self.schema()})

    # -- rows -----------------------------------------------------------------------------------------

    def _batches(
        self, names: list[str] | None, predicate: pl.Expr | None, n_rows: int | None
    ) -> Iterator[pl.DataFrame]:
        names = list(self.schema_to_count()) if names is None else names
        roots = [] if predicate is None else predicate.meta.root_names()
        given = False
        for rows in self.batches(list(dict.fromkeys([*names, *roots]))):
            batch = rows
            if n_rows is not None:
                batch = batch.head(n_rows)
                n_rows -= len(batch)
            batch = batch if predicate is None else batch.filter(predicate)
            given = True
            yield batch.select(names)
            if n_rows == 0:
                return
        if not given:
            yield self.schema_to_count().to_frame().select(names)

    def batches(self, names: list[str]) -> Iterator[pl.DataFrame]:
        """Yield the pairs of units and intervals, a block of units at a time, with some of their columns."""
        intervals = self._intervals
        if intervals is None:
            return
        times = self._times if {*self._options.intervals, IS_OBSERVED}.intersection(names) else Times((), ())
        shown = [name for name in names if name in self._shown or name == INTERVALS_INDEX]
        units = self._blocks(names)
        sessions = intervals.read(shown, times, None if self._lazy else self._paths)
        for block in units:
            yield self._pair(block, sessions, names)

    def _blocks(self, names: list[str]) -> Iterator[pl.DataFrame]:
        """Yield units with the columns needed, `spike_times` and `obs_intervals` among them."""
        finds = any(name in self._options.intervals for name in names)
        observes = self._options.observed_only and (finds or IS_OBSERVED in names)
        own = {self._unit_columns[name] for name in names if name in self._unit_columns}
        wanted = [name for name, needed in ((SPIKE_TIMES, finds), (OBS_INTERVALS, observes)) if needed]
        present = [name for name in wanted if name in self._unit_schema]
        late = [name for name in wanted if name not in self._unit_schema]
        place = provenance(self._unit_schema, _PREFIX)
        light = self._units.select(*place, *sorted(own), *present)
        whole = self._lazy and SPIKE_TIMES in present
        blocks = _streamed(light) if whole else _slices(light.collect(), anew=bool(late))
        absences: list[ColumnNotFoundError | None] = []
        for given in blocks:
            block = self._with_observations(given) if OBS_INTERVALS in late else given
            if SPIKE_TIMES in late:
                series, absence = self._spike_times(block)
                absences.append(absence)
                block = block.with_columns(series)
            yield block
        if absences and all(absences):
            raise next(absence for absence in absences if absence is not None)

    def _with_observations(self, block: pl.DataFrame) -> pl.DataFrame:
        rows = block.select(pl.col(_PREFIX + name).alias(name) for name in INTERNAL)
        try:
            series = late_observations(rows, self._storage_options, disable_progress=self._disable_progress)
        except LazyNWBError as error:
            error.add_note(f"{OBS_INTERVALS} was looked for there: apply_obs_intervals=False does without")
            raise
        return block.with_columns(series.alias(OBS_INTERVALS))

    def _spike_times(self, block: pl.DataFrame) -> tuple[pl.Series, ColumnNotFoundError | None]:
        """Read spike times from the files: null where these have none, as in a scan of more files."""
        rows = block.select(pl.col(_PREFIX + name).alias(name) for name in INTERNAL)
        try:
            found = with_columns(
                rows,
                [SPIKE_TIMES],
                storage_options=self._storage_options,
                disable_progress=self._disable_progress,
            )
        except ColumnNotFoundError as error:
            return pl.Series(SPIKE_TIMES, [None] * len(block), dtype=pl.List(pl.Float64)), error
        return found[SPIKE_TIMES], None

    def _pair(self, block: pl.DataFrame, sessions: Sessions, names: list[str]) -> pl.DataFrame:
        paths = block[_PREFIX + NWB_PATH].to_list()
        places = np.array([sessions.places.get(path, (0, 0)) for path in paths], np.int64).reshape(-1, 2)
        pairs = Pairs.of(places[:, 0].copy(), places[:, 1].copy())
        units = pl.Series(pairs.units)
        columns: dict[str, pl.Series] = {
            UNITS_INDEX: block[_PREFIX + TABLE_INDEX].gather(units),
            NWB_PATH: block[_PREFIX + NWB_PATH].gather(units),
            ROWS: pl.Series([None], dtype=pl.Null).new_from_index(0, len(units)),
        }
        finds = [name for name in self._options.intervals if name in names]
        if finds or IS_OBSERVED in names:
            columns |= found(block, sessions, pairs, self._options, finds)
        rows = pl.Series(pairs.intervals)
        shown = sessions.rows[rows] if len(sessions.rows.columns) else sessions.rows
        for name in names:
            if name in self._unit_columns:
                columns[name] = block[self._unit_columns[name]].gather(units)
            elif name not in columns:
                columns[name] = shown[name]
        return pl.DataFrame([columns[name].alias(name) for name in names])


def _streamed(frame: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    """Yield the rows of a query as they come, many enough to be worth the while."""
    waiting: list[pl.DataFrame] = []
    size = 0
    for batch in frame.collect_batches(maintain_order=True, engine="streaming"):
        waiting.append(batch)
        size += int(batch.estimated_size())
        if size >= _BLOCK_BYTES:
            yield pl.concat(waiting)
            waiting, size = [], 0
    if waiting:
        yield pl.concat(waiting)


def _slices(frame: pl.DataFrame, *, anew: bool) -> Iterable[pl.DataFrame]:
    """Yield blocks of units; all at once if sessions take turns and files would be read anew for each."""
    paths = frame[_PREFIX + NWB_PATH]
    turns = int((paths != paths.shift(1)).sum()) + 1
    if anew and turns > paths.n_unique():
        return [frame]
    return frame.iter_slices(_BLOCK)
