"""Intervals by session: rows of tables such as `/intervals/trials`, and times computed from their columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

from lazynwb.catalog.dtypes import INTERNAL, NWB_PATH, TABLE_INDEX, is_array_dtype
from lazynwb.errors import ColumnNotFoundError, SchemaError
from lazynwb.spikes.observation_times import INTERVALS_INDEX, UNITS_INDEX
from lazynwb.suggestions import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lazynwb.spikes.interval_join import Floats

#: Names of temporary columns of bounds, which no column of a file has.
_BOUND = "\x00bound {}"
_NOT_OF_THE_INTERVALS = frozenset({*INTERNAL, INTERVALS_INDEX, UNITS_INDEX})


class Times(NamedTuple):
    """Expressions of times in seconds that are computed for each interval.

    Attributes
    ----------
    labels : tuple of str
        Descriptions in errors.
    expressions : tuple of Expr
        Expressions of columns of the intervals table.
    """

    labels: tuple[str, ...]
    expressions: tuple[pl.Expr, ...]

    @classmethod
    def of(cls, named: Mapping[str, object]) -> Times:
        """Return times for names of columns, expressions or numbers.

        Raises
        ------
        TypeError
            If one has another type.
        """
        for label, time in named.items():
            if isinstance(time, bool) or not isinstance(time, str | pl.Expr | int | float):
                raise TypeError(f"{label} must be a column name, an expression or a number, not {time!r}")
        return cls(
            tuple(named),
            tuple(
                time if isinstance(time, pl.Expr) else pl.col(time) if isinstance(time, str) else pl.lit(time)
                for time in named.values()
            ),
        )


class Sessions(NamedTuple):
    """Intervals, grouped by session.

    Attributes
    ----------
    rows : DataFrame
        The requested columns.
    times : ndarray of float64, shape (times, intervals)
        The computed times; NaN for null.
    places : dict of str to (int, int)
        First interval and number of intervals of each session.
    """

    rows: pl.DataFrame
    times: Floats
    places: dict[str, tuple[int, int]]


class Intervals:
    """A lazy table of intervals of many sessions.

    Parameters
    ----------
    frame : LazyFrame
        Intervals with the column `_nwb_path`.
    condition : str or Expr or None
        Filter of the rows; a str is a condition in SQL.
    arrays : bool
        Whether results include list and array columns.

    Raises
    ------
    ColumnNotFoundError
        If the frame has no column `_nwb_path`.
    """

    def __init__(self, frame: pl.LazyFrame, condition: str | pl.Expr | None, *, arrays: bool) -> None:
        schema = frame.collect_schema()
        if NWB_PATH not in schema:
            raise ColumnNotFoundError(
                f"the intervals have no column {NWB_PATH}: keep it, because each unit is joined with the "
                "intervals of its own session"
            )
        own = next((name for name in (INTERVALS_INDEX, TABLE_INDEX) if name in schema), None)
        if own is None:
            frame = frame.with_row_index(TABLE_INDEX)
        number = pl.col(own or TABLE_INDEX).cast(pl.UInt32).alias(INTERVALS_INDEX)
        # Casting an unchanged column would prevent the pushdown of predicates on the path.
        cast = [] if schema[NWB_PATH] == pl.String else [pl.col(NWB_PATH).cast(pl.String)]
        self._frame = frame.with_columns(number, *cast)
        self._schema = self._frame.collect_schema()
        self._condition = pl.sql_expr(condition) if isinstance(condition, str) else condition
        #: The columns of the table that are part of results.
        self.shown = {
            name: dtype
            for name, dtype in self._schema.items()
            if name not in _NOT_OF_THE_INTERVALS and (arrays or not _is_array_or_unreadable(dtype))
        }

    def read(self, columns: Iterable[str], times: Times, paths: Sequence[str] | None = None) -> Sessions:
        """Read the intervals of sessions, and compute times for each session separately.

        Parameters
        ----------
        columns : iterable of str
        times : Times
        paths : sequence of str or None
            The sessions; None for all.

        Raises
        ------
        ColumnNotFoundError
            If an expression uses a column that the table lacks.
        SchemaError
            If a time is not numeric.
        """
        frame = self._frame
        if paths is not None:
            frame = frame.filter(pl.col(NWB_PATH).is_in(paths))
        conditions = [] if self._condition is None else [self._condition]
        if conditions and _by_row(conditions):
            frame = frame.filter(*conditions)
            conditions = []
        selected = list(dict.fromkeys([*columns, NWB_PATH]))
        rows = frame.select(self._needed(selected, [*times.expressions, *conditions])).collect()
        parts = rows.partition_by(NWB_PATH, maintain_order=True) or [rows]
        if _by_row([*times.expressions, *conditions]):
            parts = [pl.concat(parts)]
        parts = [self._with_times(part.filter(*conditions), selected, times) for part in parts]
        rows = pl.concat(parts)
        grouped = rows.group_by(NWB_PATH, maintain_order=True).len().drop_nulls()
        counts = grouped["len"].to_list()
        firsts = np.cumsum([0, *counts]).tolist()
        if rows[NWB_PATH].null_count():
            rows = rows.drop_nulls(NWB_PATH)
        names = [_BOUND.format(i) for i in range(len(times.labels))]
        values = [rows[name].fill_null(float("nan")).to_numpy() for name in names]
        return Sessions(
            rows.drop(names),
            np.stack(values) if values else np.zeros((0, len(rows))),
            dict(zip(grouped[NWB_PATH].to_list(), zip(firsts, counts, strict=False), strict=True)),
        )

    def _needed(self, selected: list[str], expressions: list[pl.Expr]) -> list[str]:
        """Return the columns to read: those of the result and those of expressions."""
        if any(expression.meta.has_multiple_outputs() for expression in expressions):
            return list(self._schema)  # patterns and selectors may match any column
        roots = [name for expression in expressions for name in expression.meta.root_names()]
        for name in roots:
            if name not in self._schema:
                hint = did_you_mean(name, self._schema)
                available = ", ".join(self.shown)
                raise ColumnNotFoundError(
                    f"the intervals table has no column {name!r}{hint}; available columns: {available}"
                )
        return list(dict.fromkeys([*selected, *roots]))

    @staticmethod
    def _with_times(rows: pl.DataFrame, selected: list[str], times: Times) -> pl.DataFrame:
        names = [_BOUND.format(i) for i in range(len(times.labels))]
        found = rows.with_columns(
            expression.alias(name) for name, expression in zip(names, times.expressions, strict=True)
        )
        for name, label in zip(names, times.labels, strict=True):
            dtype = found.schema[name]
            if not (dtype.is_numeric() or isinstance(dtype, pl.Null)):
                raise SchemaError(f"{label} is {dtype}, but must be a number of seconds")
        return found.select(*selected, *(pl.col(name).cast(pl.Float64) for name in names))


def _by_row(expressions: list[pl.Expr]) -> bool:
    """Return whether all expressions are elementwise."""
    try:
        return all(map(_is_by_row, expressions))
    except (pl.exceptions.PolarsError, AttributeError):
        return False  # Python functions, patterns, or a version of Polars without this function


def _is_array_or_unreadable(dtype: pl.DataType) -> bool:
    return is_array_dtype(dtype) or isinstance(dtype, pl.Null)


def _is_by_row(expression: pl.Expr) -> bool:
    meta = expression.meta
    if meta.is_literal():
        return meta.is_scalar()
    # Polars only checks the topmost operation.
    return (
        meta.is_row_separable()
        and meta.is_length_preserving()
        and all(_is_by_row(part) for part in meta.pop())
    )
