"""A query with columns added to its rows, which are read for those rows that the rest of the query leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
from polars import selectors

from lazynwb.catalog.provenance import INTERNAL, NWB_PATH, TABLE_PATH
from lazynwb.engine.gather import cut_rows, gather_columns
from lazynwb.engine.plan import conjuncts
from lazynwb.engine.rows import mask
from lazynwb.lookup.origins import (
    LateOptions,
    check_present,
    distinct_tables,
    find_origins,
    late_schema,
    load_distinct,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lazynwb.lookup.origins import Origins

#: Of the names under which the three columns are asked for, beside what the query selects.
_PREFIX = "_lazynwb_of"


class LateColumns:
    """What is added to a query's rows.

    An expression for each column would be simpler, but Polars evaluates it on many slices of a frame; where
    rows are in no order, each slice would decode most chunks of all files again.

    Parameters
    ----------
    frame : LazyFrame
    own : dict of str to str
        What the three columns that say where a row is from are called in it.
    names : list of str
    options : LateOptions
    """

    def __init__(
        self, frame: pl.LazyFrame, own: Mapping[str, str], names: list[str], options: LateOptions
    ) -> None:
        self._frame = frame
        self._own = own
        self._options = options
        self._columns = dict(frame.collect_schema())
        self.added = self._types(names)

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """The columns of the result."""
        return {**self._columns, **self.added}

    @property
    def detail(self) -> str:
        """What is read, in a few words."""
        return f"{', '.join(self.added)} of a query's rows"

    def _types(self, names: list[str]) -> dict[str, pl.DataType]:
        """Return the types of the new columns; of those that the user did not choose, from the files."""
        overrides = self._options.overrides
        if all(name in overrides for name in names):
            return {name: overrides[name] for name in names}
        paths = self._frame.select(
            pl.col(self._own[column]).cast(pl.String).alias(column) for column in (NWB_PATH, TABLE_PATH)
        )
        # In the order of their names: Polars gives distinct rows in any.
        tables = distinct_tables(paths.unique().collect()).sort(NWB_PATH, TABLE_PATH)
        return late_schema(load_distinct(tables, self._options), names, self._options)

    def run(
        self, with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None
    ) -> Iterator[pl.DataFrame]:
        """Yield the rows; the parameters are those of `lazynwb.engine.run.run`."""
        names = list(self.schema) if with_columns is None else with_columns
        frame = self._frame if n_rows is None else self._frame.head(n_rows)
        late: list[pl.Expr] = []
        for part in conjuncts(predicate) if predicate is not None else []:
            if self.added.keys().isdisjoint(part.meta.root_names()):
                frame = frame.filter(part)
            else:
                late.append(part)
        filtering = [name for part in late for name in part.meta.root_names()]
        needed = dict.fromkeys([*filtering, *names])
        stored = selectors.by_name(*[name for name in needed if name not in self.added])
        if self.added.keys().isdisjoint(needed):
            yield _in_order(frame.select(stored).collect(), names)
            return
        provenance = [pl.col(own).alias(_PREFIX + column) for column, own in self._own.items()]
        rows = frame.select(stored, *provenance).collect()
        origins = find_origins(rows.select(pl.col(_PREFIX + c).alias(c) for c in INTERNAL), self._options)
        check_present(origins.files, self.added, self._options)
        for cut in cut_rows(origins, [name for name in needed if name in self.added]):
            batch, of_batch = rows[cut], origins.take(cut)
            if late:
                batch = batch.with_columns(self._read(of_batch, filtering))
                keep = mask(batch, pl.all_horizontal(late))
                batch, of_batch = batch.filter(pl.Series(keep)), of_batch.take(keep)
            rest = [name for name in names if name not in batch.columns]
            yield _in_order(batch.with_columns(self._read(of_batch, rest)), names)

    def _read(self, origins: Origins, names: list[str]) -> list[pl.Series]:
        schema = {name: self.added[name] for name in names if name in self.added}
        return gather_columns(
            origins,
            schema,
            frozenset(self._options.overrides),
            disable_progress=self._options.disable_progress,
        )


def _in_order(frame: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    # Not by plain names: Polars takes "*" and "^...$" for patterns.
    return pl.DataFrame([frame.get_column(name) for name in names])
