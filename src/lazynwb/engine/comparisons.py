"""Comparisons of a column with literals in the conjuncts of a predicate."""

from __future__ import annotations

import math
import operator
from typing import Literal, NamedTuple

import polars as pl

Side = Literal["lower", "upper"]
_OPERATOR_SIDES: dict[object, Side] = {
    operator.gt: "lower",
    operator.ge: "lower",
    operator.lt: "upper",
    operator.le: "upper",
}
_MIRRORED: dict[Side, Side] = {"lower": "upper", "upper": "lower"}
_CLOSED: tuple[Literal["both", "left", "right", "none"], ...] = ("both", "left", "right", "none")


class Bound(NamedTuple):
    """A lower or upper bound of a column.

    Attributes
    ----------
    side : str
        "lower" or "upper".
    expression : Expr
        The comparison, which Polars evaluates with its own rules for NaN and other types.
    value : float
        The literal as a number; NaN if it is not a number.
    """

    side: Side
    expression: pl.Expr
    value: float


def bounds_of(part: pl.Expr, name: str) -> list[Bound]:
    """Return the bounds of a column in a conjunct; none if it is not a comparison with literals.

    Polars has no public API to inspect expressions. The operands are combined in each known way, and the
    conjunct is recognized if one of the combinations equals it.
    """
    try:
        parts = part.meta.pop()
        if len(parts) == 2:  # noqa: PLR2004 - right and left operand
            return _comparison(part, pl.col(name), parts[1], parts[0])
        if len(parts) == 3:  # noqa: PLR2004 - the column and two bounds
            return _between(part, pl.col(name), *reversed(parts))
    except (pl.exceptions.PolarsError, TypeError, ValueError):
        pass
    return []


def _comparison(part: pl.Expr, column: pl.Expr, left: pl.Expr, right: pl.Expr) -> list[Bound]:
    mirrored = not _is_ordered_as(column, left)
    value = _literal(left if mirrored else right)
    if value is None or not _is_ordered_as(column, right if mirrored else left):
        return []
    for compare in (operator.gt, operator.ge, operator.lt, operator.le):
        side = _OPERATOR_SIDES[compare]
        if compare(left, right).meta.eq(part):
            return [Bound(_MIRRORED[side] if mirrored else side, part, value)]
    if (left == right).meta.eq(part):
        values, literal = (right, left) if mirrored else (left, right)
        return [Bound("lower", values >= literal, value), Bound("upper", values <= literal, value)]
    return []


def _between(part: pl.Expr, column: pl.Expr, values: pl.Expr, low: pl.Expr, high: pl.Expr) -> list[Bound]:
    first, last = _literal(low), _literal(high)
    if not _is_ordered_as(column, values) or first is None or last is None:
        return []
    if any(values.is_between(low, high, closed=closed).meta.eq(part) for closed in _CLOSED):
        return [Bound("lower", values >= low, first), Bound("upper", values <= high, last)]
    return []


def _is_ordered_as(column: pl.Expr, operand: pl.Expr) -> bool:
    """Return whether an operand is a column or its cast to floats, which preserves the order."""
    if operand.meta.eq(column):
        return True
    return any(
        operand.meta.eq(column.cast(dtype, strict=strict))
        for dtype in (pl.Float64, pl.Float32)
        for strict in (True, False)
    )


def _literal(operand: pl.Expr) -> float | None:
    """Return a literal as a number, NaN if it is not a number; None if the operand is not a literal."""
    if not operand.meta.is_literal():
        return None
    values = pl.select(operand).to_series()
    if len(values) != 1:
        return None
    try:
        return float(values[0])
    except (TypeError, ValueError, OverflowError):
        return math.nan
