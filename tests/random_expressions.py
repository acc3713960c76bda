"""Random expressions for hypothesis: conditions and computed columns of a frame.

Literals are values that occur in the frame, so that a filter keeps some rows more often than none.
"""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import polars as pl

if TYPE_CHECKING:
    from collections.abc import Callable

INTERNAL = ("_nwb_path", "_table_path", "_table_index")


def is_scalar(dtype: pl.DataType) -> bool:
    return not dtype.is_nested()


@st.composite
def scalars(draw, frame: pl.DataFrame, names: list[str] | None = None) -> tuple[pl.Expr, pl.Series]:
    """An expression with one value per row, a column or a part of one, and its values."""
    name = draw(st.sampled_from(names or frame.columns))
    found, dtype = pl.col(name), frame.schema[name]
    while dtype.is_nested():
        if isinstance(dtype, pl.Struct):
            part = draw(st.sampled_from(dtype.fields))
            found, dtype = found.struct.field(part.name), part.dtype
        elif isinstance(dtype, pl.Array):
            found, dtype = found.arr.get(draw(st.integers(0, dtype.size - 1))), dtype.inner
        else:
            lists = found.list
            ways: list[pl.Expr] = [lists.len(), lists.first(), lists.last(), lists.get(1, null_on_oob=True)]
            if dtype.inner.is_integer():
                ways += [lists.max(), lists.min(), lists.sum(), lists.n_unique()]
            found = draw(st.sampled_from(ways))
            dtype = frame.select(found.alias("x")).schema["x"]
    return found, frame.select(found.alias("x"))["x"]


@st.composite
def conditions(draw, frame: pl.DataFrame) -> pl.Expr:
    """A condition on a column with one of its values."""
    one, values = draw(scalars(frame))
    dtype = values.dtype
    present = values.drop_nulls()
    if present.is_empty() or not draw(st.integers(0, 9)):
        return draw(st.sampled_from([one.is_null(), one.is_not_null()]))
    low, high = (present[draw(st.integers(0, len(present) - 1))] for _ in "ab")
    if dtype == pl.Boolean:
        return draw(st.sampled_from([one, ~one, one.fill_null(value=True), one == low, one.eq_missing(low)]))
    if isinstance(dtype, pl.Enum):
        ways = [one == low, one != low, one.is_in([low, high]), one.cast(pl.String) >= low]
        return draw(st.sampled_from([*ways, one.cast(pl.String).str.len_chars() > len(low)]))
    if dtype == pl.String:
        return draw(text_conditions(one, low, high))
    if dtype.is_numeric():
        return draw(number_conditions(one, dtype, low, high))
    return one.is_not_null()


@st.composite
def text_conditions(draw, one: pl.Expr, low: str, high: str) -> pl.Expr:
    start = low[:1]
    ways: list[Callable[[], pl.Expr]] = [
        lambda: one == low,
        lambda: one != low,
        lambda: one > low,
        lambda: one.is_in([low, high]),
        lambda: one.str.contains(start, literal=True),
        lambda: one.str.starts_with(start),
        lambda: one.str.ends_with(high[-1:]),
        lambda: one.str.len_chars() >= len(low),
        lambda: one.str.to_lowercase() == low.lower(),
        lambda: one.str.slice(0, 1) == start,
        lambda: pl.lit(low) <= one,
        lambda: one.map_elements(functools.partial(operator.le, low), return_dtype=pl.Boolean),
    ]
    return draw(st.sampled_from(ways))()


@st.composite
def number_conditions(draw, one: pl.Expr, dtype: pl.DataType, low: Any, high: Any) -> pl.Expr:
    value = pl.lit(low, dtype=dtype) if draw(st.booleans()) else low
    compare = draw(
        st.sampled_from([operator.lt, operator.le, operator.eq, operator.ne, operator.gt, operator.ge])
    )
    ways: list[Callable[[], pl.Expr]] = [
        lambda: compare(one, value),
        lambda: compare(one, value),
        lambda: compare(pl.lit(low, dtype=dtype), one),
        lambda: one.is_in(pl.Series([low, high], dtype=dtype).implode()),
        lambda: one.is_between(pl.lit(low, dtype=dtype), pl.lit(high, dtype=dtype)),
        lambda: one.eq_missing(pl.lit(low, dtype=dtype)),
        lambda: compare(one.cast(pl.Float64), float(low)),
        lambda: compare(one.cast(pl.Float64) * 2 - 1, float(high)),
        lambda: one.map_elements(functools.partial(operator.lt, low), return_dtype=pl.Boolean),
        lambda: one.map_batches(lambda numbers: numbers == low, return_dtype=pl.Boolean, is_elementwise=True),
    ]
    if dtype.is_float():
        ways += [one.is_nan, lambda: ~one.is_finite(), lambda: one.fill_nan(None) > 0]
    else:
        ways += [lambda: one % 3 == 1, lambda: one // 2 <= value, lambda: (one + one) != value]
    return draw(st.sampled_from(ways))()


@st.composite
def comparisons(draw, frame: pl.DataFrame) -> pl.Expr:
    """A condition on two columns."""
    numbers = [name for name, dtype in frame.schema.items() if dtype.is_numeric()]
    texts = [name for name, dtype in frame.schema.items() if dtype == pl.String]
    lists = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.List)]
    if lists and draw(st.booleans()):
        return draw(length_comparisons(lists, numbers))
    names = draw(st.sampled_from([group for group in (numbers, texts) if group] or [[]]))
    if not names:
        return draw(conditions(frame))
    one, other = (pl.col(draw(st.sampled_from(names))) for _ in "ab")
    ways = [one < other, one == other, one != other, one.eq_missing(other)]
    return draw(st.sampled_from(ways))


@st.composite
def length_comparisons(draw, lists: list[str], numbers: list[str]) -> pl.Expr:
    """A condition on the lengths and nulls of lists, which needs no elements."""
    one, other = (pl.col(draw(st.sampled_from(lists))) for _ in "ab")
    length = one.list.len()
    number = pl.col(draw(st.sampled_from(numbers))) if numbers else pl.lit(2)
    ways = [
        length > other.list.len(),
        length.eq_missing(other.list.len()),
        length < number,
        (length > 1) & other.is_not_null() | number.is_null(),
        pl.when(other.is_null()).then(0).otherwise(length) >= 1,
        ~(length.is_in([0, 2]) | other.is_null()),
        one.is_null() ^ (number > 1),
    ]
    return draw(st.sampled_from(ways))


@st.composite
def whole_conditions(draw, frame: pl.DataFrame) -> pl.Expr:
    """A condition that depends on other rows, and must not be evaluated without them."""
    one, values = draw(scalars(frame))
    ways = [
        pl.len() > frame.height // 2,
        pl.int_range(pl.len()) % 3 != 1,
        pl.len().over("_nwb_path") > 2 if "_nwb_path" in frame.columns else pl.len() > 2,
        one.is_not_null().cum_sum() > 2,
        one.shift(1).is_not_null(),
    ]
    if values.dtype.is_integer() or values.dtype == pl.String:
        ways += [
            one == one.max(),
            one == one.first(),
            one.is_first_distinct(),
            one.is_duplicated(),
            one != one.shift(1),
        ]
    return draw(st.sampled_from(ways))


@st.composite
def predicates(draw, frame: pl.DataFrame, depth: int = 2) -> pl.Expr:
    """Conditions combined with and, or, xor and not."""
    how = draw(st.integers(0, 9)) if depth else 9
    if how <= 2:
        return draw(predicates(frame, depth - 1)) & draw(predicates(frame, depth - 1))
    if how <= 4:
        return draw(predicates(frame, depth - 1)) | draw(predicates(frame, depth - 1))
    if how == 5:
        return ~draw(predicates(frame, depth - 1))
    if how == 6:
        return draw(predicates(frame, depth - 1)) ^ draw(conditions(frame))
    kind = draw(st.integers(0, 11))
    if kind == 0:
        return draw(whole_conditions(frame))
    return draw(comparisons(frame) if kind == 1 else conditions(frame))


@st.composite
def computed(draw, frame: pl.DataFrame, name: str) -> pl.Expr:
    """A new column."""
    if not draw(st.integers(0, 4)):
        return draw(predicates(frame, 1)).alias(name)
    one, values = draw(scalars(frame))
    dtype = values.dtype
    ways = [one, one.is_null(), pl.when(draw(conditions(frame))).then(one)]
    if dtype.is_numeric():
        # Not a third: of a single row Polars divides, of several it multiplies, and the last bit differs.
        ways += [one + 1, one.cast(pl.Float64) / 4, -one.cast(pl.Float64), one.cast(pl.String)]
    if dtype == pl.String:
        ways += [one.str.to_uppercase(), one + pl.lit("!"), one.str.len_bytes(), pl.concat_str(one, one)]
    if dtype == pl.Boolean:
        ways += [~one, one.cast(pl.Int8)]
    return draw(st.sampled_from(ways)).alias(name)


@st.composite
def keeping(draw, frame: pl.DataFrame, depth: int) -> pl.Expr:
    """A predicate; most of those that no row passes are negated."""
    predicate = draw(predicates(frame, depth))
    try:
        empty = frame.height and not frame.select(predicate.alias("x").sum()).item()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return predicate  # whoever filters finds out
    return ~predicate if empty and draw(st.integers(0, 3)) else predicate


def keys_of(frame: pl.DataFrame) -> list[str]:
    """Columns to group by; no floats, because either 0.0 or -0.0 may represent a group of both."""
    return [n for n, dtype in frame.schema.items() if is_scalar(dtype) and not dtype.is_float()]
