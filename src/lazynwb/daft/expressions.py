"""Translation of Daft filters to Polars expressions if both have the same semantics."""

from __future__ import annotations

import functools
import inspect
import math
import operator
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl
from daft import DataType, Expression, Schema
from daft.expressions import ExpressionsProjection, ExpressionVisitor

from lazynwb.engine.timestamps import TIMESTAMPS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NUMBERS: dict[DataType, pl.DataType] = {
    DataType.int8(): pl.Int8(),
    DataType.int16(): pl.Int16(),
    DataType.int32(): pl.Int32(),
    DataType.int64(): pl.Int64(),
    DataType.uint8(): pl.UInt8(),
    DataType.uint16(): pl.UInt16(),
    DataType.uint32(): pl.UInt32(),
    DataType.uint64(): pl.UInt64(),
    DataType.float32(): pl.Float32(),
    DataType.float64(): pl.Float64(),
}
_KNOWN = {**_NUMBERS, DataType.string(): pl.String(), DataType.bool(): pl.Boolean()}

_COMPARISONS: dict[str, Callable[[pl.Expr, pl.Expr], pl.Expr]] = {
    "equal": operator.eq,
    "not_equal": operator.ne,
    "less_than": operator.lt,
    "less_than_or_equal": operator.le,
    "greater_than": operator.gt,
    "greater_than_or_equal": operator.ge,
    "eq_null_safe": pl.Expr.eq_missing,
}
#: Whether this version of Polars can reinterpret floating-point numbers as integers.
_SEES_BITS = "dtype" in inspect.signature(pl.Expr.reinterpret).parameters
_EQUALITY = {"equal", "not_equal", "eq_null_safe"}
_ARITHMETIC: dict[str, Callable[[pl.Expr, pl.Expr], pl.Expr]] = {
    "plus": operator.add,
    "minus": operator.sub,
    "multiply": operator.mul,
    "true_divide": operator.truediv,
}


class _UntranslatableError(Exception):
    """An expression has no Polars counterpart with certainly the same semantics."""


class _Term(NamedTuple):
    """A Polars expression with its type in Daft.

    Attributes
    ----------
    expression : Expr
        For booleans, an upper bound: true wherever the Daft expression is true.
    dtype : DataType
        Type of the expression in Daft.
    lower : Expr or None
        For booleans, a lower bound: true only where the Daft expression is true; None if it equals the upper
        one.
    value : object
        Value of a literal; otherwise None.
    is_literal : bool
        Whether it is a literal.
    """

    expression: pl.Expr
    dtype: pl.DataType
    lower: pl.Expr | None = None
    value: Any = None
    is_literal: bool = False

    def to(self, dtype: pl.DataType) -> pl.Expr:
        """Return the expression cast to another type as in Daft."""
        if dtype == self.dtype:
            return self.expression
        if self.is_literal:
            return pl.lit(self.value, dtype=dtype)
        return self.expression.cast(dtype)

    @property
    def both(self) -> tuple[pl.Expr, pl.Expr]:
        """The upper and the lower bound of a boolean."""
        return self.expression, self.expression if self.lower is None else self.lower

    @property
    def is_exact(self) -> bool:
        """Whether both bounds are equal."""
        return self.lower is None


def translate_filters(
    filters: Expression,
    columns: Mapping[str, pl.DataType],
    schema: Schema,
    names: Mapping[str, str] = MappingProxyType({}),
) -> list[pl.Expr]:
    """Return the parts of a filter that can be expressed in Polars.

    Parameters
    ----------
    filters : Expression
        Filter of Daft.
    columns : mapping of str to DataType
        Columns with their Polars types.
    schema : Schema
        Columns with their Daft types.
    names : mapping of str to str
        Different names of columns in the result.

    Returns
    -------
    list of Expr
        Expressions that are true wherever the filter is true: Daft applies the complete filter again.
    """
    found: list[pl.Expr] = []
    pending = [filters]
    while pending:
        part = pending.pop()
        both = _sides(part)
        if both is not None:
            pending += reversed(both)
            continue
        try:
            term = _Translator(columns, schema, names).term(part)
        except _UntranslatableError:
            continue
        if isinstance(term.dtype, pl.Boolean):
            found.append(term.expression)
    return found


class _Visitor(ExpressionVisitor[Any]):
    """Default for nodes without a translation."""

    def visit_col(self, name: str) -> Any:  # noqa: ANN401
        raise _UntranslatableError(name)

    def visit_lit(self, value: Any) -> Any:  # noqa: ANN401
        raise _UntranslatableError(value)

    def visit_alias(self, expr: Expression, alias: str) -> Any:  # noqa: ANN401, ARG002
        return self.visit(expr)

    def visit_cast(self, expr: Expression, dtype: DataType) -> Any:  # noqa: ANN401
        raise _UntranslatableError(expr, dtype)

    def visit_coalesce(self, args: list[Expression]) -> Any:  # noqa: ANN401
        raise _UntranslatableError(args)

    def visit_function(self, name: str, args: list[Expression]) -> Any:  # noqa: ANN401
        raise _UntranslatableError(name, args)


class _ConjunctionSides(_Visitor):
    def visit_and(self, left: Expression, right: Expression) -> list[Expression]:
        return [left, right]


def _sides(part: Expression) -> list[Expression] | None:
    """Return the two sides of a conjunction; None for other expressions."""
    try:
        sides: list[Expression] = _ConjunctionSides().visit(part)
    except (_UntranslatableError, ValueError):  # a ValueError: Daft does not expose every expression
        return None
    return sides


class _Translator(_Visitor):
    def __init__(self, columns: Mapping[str, pl.DataType], schema: Schema, names: Mapping[str, str]) -> None:
        self._columns = columns
        self._schema = schema
        self._names = names

    def term(self, expr: Expression) -> _Term:
        """Translate an expression, or raise `_UntranslatableError`."""
        try:
            term: _Term = self.visit(expr)
            dtype = self._dtype(expr)
        except ValueError as error:  # Daft does not expose every expression
            raise _UntranslatableError(expr) from error
        if term.is_literal:
            return term._replace(expression=pl.lit(term.value, dtype=dtype), dtype=dtype)
        return term._replace(dtype=dtype)

    def _dtype(self, expr: Expression) -> pl.DataType:
        (field,) = ExpressionsProjection([expr]).resolve_schema(self._schema)
        if field.dtype not in _KNOWN:
            raise _UntranslatableError(expr)
        return _KNOWN[field.dtype]

    def visit_col(self, name: str) -> _Term:
        dtype = self._columns[name]
        column = pl.col(self._names.get(name, name))
        if isinstance(dtype, pl.Enum | pl.Categorical):
            column = column.cast(pl.String)  # Daft compares text, Polars orders an Enum by its members
        return _Term(column, dtype)

    def visit_lit(self, value: Any) -> _Term:  # noqa: ANN401
        if type(value) not in {int, float, str, bool}:
            raise _UntranslatableError(value)
        return _Term(pl.lit(value), pl.Null(), value=value, is_literal=True)

    def visit_cast(self, expr: Expression, dtype: DataType) -> _Term:
        term = self.term(expr)
        to = _KNOWN.get(dtype)
        if to is None or not _keeps_values(term.dtype, to):
            raise _UntranslatableError(expr)
        return _Term(term.to(to), to)

    def visit_function(self, name: str, args: list[Expression]) -> _Term:
        if name in _COMPARISONS:
            return self._comparison(name, *args)
        if name in _ARITHMETIC:
            return self._arithmetic(name, *args)
        raise _UntranslatableError(name)

    def visit_and(self, left: Expression, right: Expression) -> _Term:
        return self._joined(operator.and_, self._truth(left), self._truth(right))

    def visit_or(self, left: Expression, right: Expression) -> _Term:
        return self._joined(operator.or_, self._truth(left), self._truth(right))

    def visit_not(self, expr: Expression) -> _Term:
        upper, lower = self._truth(expr).both
        return _truth(~lower, ~upper)

    def visit_is_null(self, expr: Expression) -> _Term:
        return _truth(self._any(expr).is_null())

    def visit_not_null(self, expr: Expression) -> _Term:
        return _truth(self._any(expr).is_not_null())

    def visit_between(self, expr: Expression, lower: Expression, upper: Expression) -> _Term:
        since = self._comparison("greater_than_or_equal", expr, lower)
        return self._joined(operator.and_, since, self._comparison("less_than_or_equal", expr, upper))

    def visit_is_in(self, expr: Expression, items: list[Expression]) -> _Term:
        if not items:
            raise _UntranslatableError(expr)
        found = [self._comparison("equal", expr, item) for item in items]
        return functools.reduce(functools.partial(self._joined, operator.or_), found)

    def _truth(self, expr: Expression) -> _Term:
        term = self.term(expr)
        if not isinstance(term.dtype, pl.Boolean):
            raise _UntranslatableError(expr)
        return term

    @staticmethod
    def _joined(join: Callable[[pl.Expr, pl.Expr], pl.Expr], left: _Term, right: _Term) -> _Term:
        (upper, lower), (other_upper, other_lower) = left.both, right.both
        return _truth(join(upper, other_upper), join(lower, other_lower))

    def _any(self, expr: Expression) -> pl.Expr:
        """Return an expression; columns may have any type."""
        name = expr.column_name() if expr.is_column() else None
        if name is not None:
            return pl.col(self._names.get(name, name))
        term = self.term(expr)
        if not term.is_exact:
            raise _UntranslatableError(expr)
        return term.expression

    def _comparison(self, name: str, left: Expression, right: Expression) -> _Term:
        """Compare in the same type as Daft.

        In Daft, -0.0 sorts before 0.0, and NaN before or after all numbers depending on its sign. In Polars,
        the zeros are equal, and NaN is greater than all numbers.
        """
        first, second = self.term(left), self.term(right)
        if not (first.is_exact and second.is_exact):
            raise _UntranslatableError(left, right)
        dtype = first.dtype if first.dtype == second.dtype else self._common(left, right)
        one, other = first.to(dtype), second.to(dtype)
        found = _COMPARISONS[name](one, other)
        if not dtype.is_float():
            return _truth(found)
        unsure: list[pl.Expr] = []
        literal = next((term for term in (first, second) if term.is_literal), None)
        if literal is not None and math.isnan(literal.value):
            raise _UntranslatableError(left, right)
        if literal is None or not literal.value:
            unsure.append((one == 0) & (other == 0))
        if literal is None or name not in _EQUALITY:
            for expr, term, side in ((left, first, one), (right, second, other)):
                if not term.dtype.is_float() or term.is_literal or _ascends(side):
                    continue
                # The sign of a computed NaN depends on the implementation.
                has_sign = literal is not None and expr.is_column() and _SEES_BITS
                unsure.append(_is_negative_nan(side, dtype) if has_sign else side.is_nan())
        if not unsure:
            return _truth(found)
        differs = functools.reduce(operator.or_, unsure)
        return _truth(found | differs, found & ~differs)

    def _common(self, left: Expression, right: Expression) -> pl.DataType:
        dtype = self._dtype(left + right)
        if not dtype.is_numeric():
            raise _UntranslatableError(left, right)
        return dtype

    def _arithmetic(self, name: str, left: Expression, right: Expression) -> _Term:
        first, second = self.term(left), self.term(right)
        if not first.dtype.is_numeric() or not second.dtype.is_numeric():
            raise _UntranslatableError(left, right)
        dtype = pl.Float64() if name == "true_divide" else self._common(left, right)
        return _Term(_ARITHMETIC[name](first.to(dtype), second.to(dtype)), dtype)


def _truth(upper: pl.Expr, lower: pl.Expr | None = None) -> _Term:
    return _Term(upper, pl.Boolean(), None if lower is None or lower.meta.eq(upper) else lower)


def _is_negative_nan(values: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Return whether values are NaN with the sign bit set, such as quotients of zeros on many processors."""
    bits = values.reinterpret(dtype=pl.Int64() if dtype == pl.Float64 else pl.Int32())
    return values.is_nan() & (bits < 0)


def _ascends(column: pl.Expr) -> bool:
    """Return whether a column contains the timestamps of a series, which ascend and are not NaN."""
    return column.meta.root_names() == [TIMESTAMPS]


def _keeps_values(before: pl.DataType, after: pl.DataType) -> bool:
    """Return whether a cast preserves all values, because Polars widens one type to the other."""
    if before == after:
        return True
    both = pl.DataFrame(schema={"before": before, "after": after})
    return (
        before.is_numeric()
        and after.is_numeric()
        and both.select(pl.col("before") + pl.col("after")).schema["before"] == after
    )
