"""Predicates on the lengths and nulls of list columns, rewritten to predicates on length columns.

`pl.col("spike_times").list.len() > 5` does not need spike times. Polars has no public API to inspect
expressions: an expression is split into operands, and recognized if these, combined in a known way, equal it.
Other expressions are evaluated on the values.
"""

from __future__ import annotations

import operator
from functools import partial
from itertools import permutations
from typing import TYPE_CHECKING, Literal, TypeAlias

import polars as pl

from lazynwb.catalog.lengths import LENGTH, length_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    #: Function from operands to an expression.
    Combine: TypeAlias = "Callable[..., pl.Expr]"

_CLOSED: tuple[Literal["both", "left", "right", "none"], ...] = ("both", "left", "right", "none")
_CASTS = tuple(
    partial(pl.Expr.cast, dtype=dtype, strict=strict)
    for dtype in (
        *(pl.Int64, pl.Float64, pl.UInt32, pl.UInt64, pl.Int32, pl.Float32, pl.Boolean),
        *(pl.Int8, pl.Int16, pl.UInt8, pl.UInt16, getattr(pl, "Int128", pl.Int64)),
    )
    for strict in (True, False)
)
_OF_ONE: tuple[Combine, ...] = (
    *(operator.invert, pl.Expr.is_null, pl.Expr.is_not_null, operator.neg, pl.Expr.abs),
    *_CASTS,
)
_OF_TWO: tuple[Combine, ...] = (
    *(operator.and_, operator.or_, operator.gt, operator.ge, operator.lt, operator.le),
    *(operator.eq, operator.ne, pl.Expr.eq_missing, pl.Expr.ne_missing, operator.xor),
    *(operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod),
    *(partial(pl.Expr.is_in, nulls_equal=equal) for equal in (False, True)),
    pl.Expr.fill_null,
)
_OF_THREE: tuple[Combine, ...] = (
    *(partial(pl.Expr.is_between, closed=closed) for closed in _CLOSED),
    *(
        (
            lambda *parts, _order=order: (
                pl.when(parts[_order[0]]).then(parts[_order[1]]).otherwise(parts[_order[2]])
            )
        )
        for order in permutations(range(3))
    ),
)
_OF_ANY: tuple[Combine, ...] = (pl.all_horizontal, pl.any_horizontal)
_BY_COUNT = {1: _OF_ONE, 2: _OF_TWO, 3: _OF_THREE}


def on_lengths(predicate: pl.Expr, can_measure: Callable[[str], bool]) -> pl.Expr | None:
    """Return a predicate on length columns that is equal to one on list columns.

    Parameters
    ----------
    predicate : Expr
    can_measure : callable
        Function that returns whether a column has a length column.

    Returns
    -------
    Expr or None
        None if the predicate needs values of a list column, or is not recognized.
    """
    if not any(map(can_measure, predicate.meta.root_names())):
        return None
    try:
        return _rewritten(predicate, can_measure)
    except (pl.exceptions.PolarsError, TypeError, ValueError):
        return None


def _rewritten(part: pl.Expr, can_measure: Callable[[str], bool]) -> pl.Expr | None:
    names = [name for name in part.meta.root_names() if can_measure(name)]
    if not names:
        return part
    operands = part.meta.pop()[::-1]
    if len(operands) == 1 and len(names) == 1 and _is_column(operands[0], names[0]):
        return _on_length(part, operands[0], pl.col(length_name(names[0])))
    combine = next((one for one in _combinations(len(operands)) if _equals(one, operands, part)), None)
    if combine is None:
        return None
    rewritten = [_rewritten(operand, can_measure) for operand in operands]
    known = [operand for operand in rewritten if operand is not None]
    return combine(*known) if len(known) == len(operands) else None


def _on_length(part: pl.Expr, values: pl.Expr, length: pl.Expr) -> pl.Expr | None:
    """Return the equivalent of an expression of a list column on its length column; None if unknown."""
    if values.list.len().meta.eq(part):
        index_type = pl.get_index_type()
        return length if index_type == LENGTH else length.cast(index_type)
    if values.is_null().meta.eq(part):
        return length.is_null()
    if values.is_not_null().meta.eq(part):
        return length.is_not_null()
    return None


def _is_column(operand: pl.Expr, name: str) -> bool:
    """Return whether an expression is a column, possibly with an alias."""
    if operand.meta.eq(pl.col(name)):
        return True
    inner = operand.meta.pop()
    return (
        len(inner) == 1
        and inner[0].alias(operand.meta.output_name()).meta.eq(operand)
        and _is_column(inner[0], name)
    )


def _combinations(operands: int) -> Iterator[Combine]:
    yield from _BY_COUNT.get(operands, ())
    yield from _OF_ANY


def _equals(combine: Combine, operands: Sequence[pl.Expr], part: pl.Expr) -> bool:
    try:
        return combine(*operands).meta.eq(part)
    except (pl.exceptions.PolarsError, TypeError, ValueError):
        return False
