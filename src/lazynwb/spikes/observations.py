"""In which intervals units were observed (NWB core, Units.obs_intervals), and which rows units are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from lazynwb.catalog.provenance import NWB_PATH, TABLE_INDEX, TABLE_PATH
from lazynwb.engine.build import as_lists, offsets_of
from lazynwb.engine.within import Covers
from lazynwb.errors import ColumnNotFoundError, SchemaError
from lazynwb.frames.late_columns import with_columns

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazynwb.engine.within import Bools, Floats, Ints

#: The columns that say which unit, and which interval, a row of a result is about.
UNITS_INDEX = "_units_table_index"
INTERVALS_INDEX = "_intervals_table_index"

OBS_INTERVALS = "obs_intervals"
IS_OBSERVED = "is_observed"
_UNITS_TABLE = "units"
_PAIR = 2


class Observations:
    """The times in which units were observed.

    Parameters
    ----------
    series : Series
        `obs_intervals` of each unit: lists of (start, stop) in seconds; or one such pair for each unit.

    Raises
    ------
    SchemaError
        If it is anything else.
    """

    def __init__(self, series: pl.Series) -> None:
        lists = _as_pairs(series)
        lengths = lists.list.len().fill_null(0).to_numpy().astype(np.int64)
        flat = lists.filter(lists.list.len() > 0).explode()
        #: Whether anything is stated about a unit.
        self.stated: Bools = lengths > 0
        self._ends = np.cumsum(lengths)
        bounds = [flat.arr.get(i).fill_null(float("nan")).to_numpy() for i in range(_PAIR)]
        self.starts: Floats = bounds[0]
        self.stops: Floats = bounds[1]
        self.owners: Ints = np.repeat(np.arange(len(lists)), lengths)

    def groups(self) -> Ints:
        """Return for each unit the number of the first one that was observed in the same intervals."""
        numbers: dict[bytes, int] = {}
        pairs = np.stack([self.starts, self.stops], axis=1)
        begins = np.append(0, self._ends[:-1])
        return np.array(
            [
                numbers.setdefault(pairs[begin:end].tobytes(), unit)
                for unit, (begin, end) in enumerate(zip(begins.tolist(), self._ends.tolist(), strict=True))
            ],
            np.int64,
        )

    def include(self, units: Ints, starts: Floats, stops: Floats) -> Bools:
        """Tell whether intervals lie within the union of their units' ones; bounds must be numbers."""
        mentioned = np.isin(self.owners, units)
        covers = Covers.of(self.owners[mentioned], self.starts[mentioned], self.stops[mentioned])
        return ~self.stated[units] | covers.contain(units, starts, stops)


def _as_pairs(series: pl.Series) -> pl.Series:
    wanted = pl.List(pl.Array(pl.Float64, _PAIR))
    dtype = series.dtype
    if isinstance(dtype, pl.Null):
        return series.cast(wanted)
    if isinstance(dtype, pl.Array) and dtype.shape == (_PAIR,) and not isinstance(dtype.inner, pl.List):
        present = series.is_not_null().to_numpy().astype(np.int64)
        flat = series.drop_nulls().cast(pl.Array(pl.Float64, _PAIR))
        return as_lists(flat.explode(), (_PAIR,), [offsets_of(present)])
    try:
        lists = series.arr.to_list() if isinstance(dtype, pl.Array) else series
        return lists.cast(wanted)
    except pl.exceptions.PolarsError as error:
        message = (
            f"{OBS_INTERVALS} is {dtype}, but must be lists of (start, stop) in seconds "
            "(NWB core, Units.obs_intervals)"
        )
        raise SchemaError(message) from error


def late_observations(
    rows: pl.DataFrame, storage_options: Mapping[str, Any] | None, *, disable_progress: bool
) -> pl.Series:
    """Read `obs_intervals` of units from their files: null where a file has none.

    Parameters
    ----------
    rows : DataFrame
        `_nwb_path`, `_table_path` and `_table_index` of the units.
    storage_options, disable_progress
        As for `scan_nwb`.
    """
    try:
        found = with_columns(
            rows, [OBS_INTERVALS], storage_options=storage_options, disable_progress=disable_progress
        )
    except ColumnNotFoundError:
        return pl.Series(OBS_INTERVALS, [None] * len(rows), dtype=pl.Null)
    return found[OBS_INTERVALS]


def index_column(schema: Mapping[str, pl.DataType]) -> str:
    """Return the column of a units table that numbers its rows.

    Raises
    ------
    ColumnNotFoundError
        If there is none, or no `_nwb_path`.
    """
    index = UNITS_INDEX if UNITS_INDEX in schema else TABLE_INDEX
    for name in (NWB_PATH, index):
        if name not in schema:
            message = (
                f"the units have no column {name}: keep {NWB_PATH} and {TABLE_INDEX} through select, join "
                "and group_by, so that each unit meets the intervals of its own session only"
            )
            raise ColumnNotFoundError(message)
    return index


def provenance(schema: Mapping[str, pl.DataType], prefix: str = "") -> list[pl.Expr]:
    """Return expressions for the three columns that say where the units of a frame are from."""
    path = pl.col(TABLE_PATH).cast(pl.String) if TABLE_PATH in schema else pl.lit(_UNITS_TABLE)
    return [
        pl.col(NWB_PATH).cast(pl.String).alias(prefix + NWB_PATH),
        path.alias(prefix + TABLE_PATH),
        pl.col(index_column(schema)).cast(pl.UInt32).alias(prefix + TABLE_INDEX),
    ]
