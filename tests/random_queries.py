"""Random queries for hypothesis: steps that apply to a DataFrame and to a LazyFrame.

A step is drawn for the frame that the steps before it have left. Steps that Polars refuses on the frame
itself are not taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import polars as pl
from hypothesis import event

from random_expressions import INTERNAL, computed, is_scalar, keeping, keys_of

Frame = Any  # a DataFrame or a LazyFrame
Step = Callable[[Frame, dict[str, Frame]], Frame]
#: Rows of the largest join.
MAX_ROWS = 20_000


@dataclass
class Query:
    """Steps, their descriptions, and the resulting frame.

    Attributes
    ----------
    steps : list of (str, str, callable)
        What each is called, what it is in full, and what does it, given the frame and the other tables.
    expected : DataFrame
    ordered : bool
        Whether the query says in which order its rows come.
    """

    expected: pl.DataFrame
    steps: list[tuple[str, str, Step]] = field(default_factory=list)
    ordered: bool = True
    refused: int = 0

    def __call__(self, frame: Frame, others: dict[str, Frame]) -> Frame:
        for _, _, step in self.steps:
            frame = step(frame, others)
        return frame

    def __str__(self) -> str:
        return "".join(f"\n    .{said}" for _, said, _ in self.steps)


@st.composite
def filters(draw, frame):
    predicate = draw(keeping(frame, 2))
    return "filter", f"filter({predicate})", lambda one, _: one.filter(predicate)


@st.composite
def several_filters(draw, frame):
    some = [draw(keeping(frame, 1)) for _ in range(2)]
    return "filter", f"filter({some})", lambda one, _: one.filter(*some)


@st.composite
def projections(draw, frame):
    names = draw(st.lists(st.sampled_from(frame.columns), min_size=1, unique=True))
    return "select", f"select({names})", lambda one, _: one.select(names)


@st.composite
def selections(draw, frame):
    names = draw(st.lists(st.sampled_from(frame.columns), max_size=3, unique=True))
    some = [*map(pl.col, names), draw(computed(frame, "new"))]
    return "select", f"select({[*map(str, some)]})", lambda one, _: one.select(some)


@st.composite
def additions(draw, frame):
    new = draw(computed(frame, draw(st.sampled_from(["new", "newer", *frame.columns[:2]]))))
    return "with_columns", f"with_columns({new})", lambda one, _: one.with_columns(new)


@st.composite
def limits(draw, frame):
    count = draw(st.integers(0, frame.height + 2))
    start = draw(st.integers(-frame.height - 1, frame.height + 1))
    ways: list[tuple[str, str, Step]] = [
        ("head", f"head({count})", lambda one, _: one.head(count)),
        ("head", f"limit({count})", lambda one, _: one.limit(count)),
        ("tail", f"tail({count})", lambda one, _: one.tail(count)),
        ("slice", f"slice({start}, {count})", lambda one, _: one.slice(start, count)),
        ("slice", f"slice({start})", lambda one, _: one.slice(start)),
    ]
    return draw(st.sampled_from(ways))


@st.composite
def sorts(draw, frame):
    by = draw(
        st.lists(
            st.sampled_from([n for n, d in frame.schema.items() if is_scalar(d)]),
            min_size=1,
            max_size=3,
            unique=True,
        )
    )
    down = [draw(st.booleans()) for _ in by]
    last = draw(st.booleans())
    said = f"sort({by}, descending={down}, nulls_last={last}, maintain_order=True)"
    return "sort", said, lambda one, _: one.sort(by, descending=down, nulls_last=last, maintain_order=True)


@st.composite
def uniques(draw, frame):
    by = draw(st.lists(st.sampled_from(keys_of(frame)), min_size=1, max_size=3, unique=True))
    keep = draw(st.sampled_from(["first", "last", "none"]))
    return (
        "unique",
        f"unique({by}, keep={keep!r}, maintain_order=True)",
        lambda one, _: one.unique(by, keep=keep, maintain_order=True),
    )


@st.composite
def groups(draw, frame):
    by = draw(st.lists(st.sampled_from(keys_of(frame)), min_size=1, max_size=2, unique=True))
    rest = [name for name in frame.columns if name not in by]
    some = [pl.len().alias("rows")]
    for number in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from(rest or by))
        dtype, one = frame.schema[name], pl.col(name)
        ways = [
            one.first(),
            one.last(),
            one.count(),
            one.implode() if draw(st.booleans()) else one.null_count(),
        ]
        if dtype.is_integer():
            small = one.cast(pl.Float64).clip(-1000, 1000).cast(pl.Int64)
            ways += [small.sum(), small.mean(), one.max(), one.min(), one.n_unique()]
        if dtype == pl.String:
            ways += [one.max(), one.str.len_chars().sum(), one.n_unique()]
        if dtype == pl.Boolean:
            ways += [one.any(), one.all(), one.sum()]
        if dtype.is_float():
            ways += [one.is_nan().sum(), (one.fill_nan(None) > 0).any()]
        some.append(draw(st.sampled_from(ways)).alias(f"agg{number}"))
    said = f"group_by({by}, maintain_order=True).agg({[*map(str, some)]})"
    return "group_by", said, lambda one, _: one.group_by(by, maintain_order=True).agg(some)


@st.composite
def joins(draw, frame, others):
    table = draw(st.sampled_from(sorted(others)))
    right = others[table]
    how = draw(st.sampled_from(["inner", "left", "semi", "anti", "full"]))
    wanted = [name for name in right.columns if name not in INTERNAL]
    names = (
        [*INTERNAL, *draw(st.lists(st.sampled_from(wanted), max_size=2, unique=True))]
        if wanted
        else [*INTERNAL]
    )
    positions = [n for n, d in frame.schema.items() if d.is_integer()]
    if "_nwb_path" not in frame.columns or (positions and draw(st.booleans())):
        one = draw(st.sampled_from(positions or ["?"]))
        kind = frame.schema.get(one, pl.Int64())
        left_on = ["_nwb_path", one] if "_nwb_path" in frame.columns else [one]
        right_on = ["_nwb_path", "position"] if "_nwb_path" in frame.columns else ["position"]
    else:
        left_on = right_on = ["_nwb_path"]
        kind = pl.Int64()
    order = "left_right" if how in {"inner", "left", "full"} else "left"

    def step(left: Frame, tables: dict[str, Frame]) -> Frame:
        side = (
            tables[table].select(names).with_columns(position=pl.col("_table_index").cast(kind, strict=False))
        )
        return left.join(
            side, left_on=left_on, right_on=right_on, how=how, suffix="_right", maintain_order=order
        )

    said = f"join({table}.select({names}), left_on={left_on}, right_on={right_on}, how={how!r})"
    return "join", said, step


@st.composite
def concats(draw, frame):
    part = draw(st.one_of(filters(frame), limits(frame)))
    return (
        "concat",
        f"pipe(lambda one: pl.concat([one, one.{part[1]}]))",
        lambda one, others: pl.concat([one, part[2](one, others)]),
    )


@st.composite
def explosions(draw, frame):
    lists = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.List)]
    name = draw(st.sampled_from(lists or frame.columns))
    return "explode", f"explode({name!r})", lambda one, _: one.explode(name)


@st.composite
def small_steps(draw, frame):
    name = draw(st.sampled_from(frame.columns))
    ways: list[tuple[str, str, Step]] = [
        ("drop_nulls", f"drop_nulls({name!r})", lambda one, _: one.drop_nulls(name)),
        ("with_row_index", "with_row_index()", lambda one, _: one.with_row_index("nr")),
        ("rename", f"rename({name!r})", lambda one, _: one.rename({name: "renamed"})),
        ("drop", f"drop({name!r})", lambda one, _: one.drop(name)),
        ("gather_every", "gather_every(3, 1)", lambda one, _: one.gather_every(3, 1)),
        ("count", "select(pl.len())", lambda one, _: one.select(pl.len())),
    ]
    if not any(
        isinstance(dtype, pl.Array) for dtype in frame.schema.values()
    ):  # Polars has it for arrays of numbers only, and panics
        ways.append(("reverse", "reverse()", lambda one, _: one.reverse()))
    return draw(st.sampled_from(ways))


@st.composite
def steps(draw, frame: pl.DataFrame, others: dict[str, pl.DataFrame]):
    kinds = [filters(frame)] * 6 + [
        several_filters(frame),
        projections(frame),
        projections(frame),
        selections(frame),
    ]
    kinds += [additions(frame), additions(frame), limits(frame), limits(frame), limits(frame)]
    kinds += [small_steps(frame), concats(frame)]
    if any(map(is_scalar, frame.schema.values())):
        kinds += [sorts(frame)]
    if keys_of(frame):
        kinds += [uniques(frame), groups(frame), groups(frame)]
    if others:
        kinds += [joins(frame, others), joins(frame, others)]
    if any(isinstance(dtype, pl.List) for dtype in frame.schema.values()):
        kinds += [explosions(frame)]
    return draw(kinds[draw(st.integers(0, len(kinds) - 1))])


#: What leaves each row as it is.
def row_steps(frame: pl.DataFrame) -> st.SearchStrategy:
    return st.one_of(filters(frame), filters(frame), limits(frame), sorts(frame))


@st.composite
def queries(draw, frame: pl.DataFrame, others: dict[str, pl.DataFrame], *, rows_only: bool = False) -> Query:
    """One to five steps over a table, which may be joined with others."""
    query = Query(frame)
    for _ in range(draw(st.integers(1, 5))):
        before = query.expected
        if not before.width or before.height > MAX_ROWS:
            break
        step = draw(row_steps(before) if rows_only else steps(before, others))
        if step[0] == "join" and before.height * max(other.height for other in others.values()) > MAX_ROWS:
            continue
        try:
            query.expected = step[2](before, others)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            query.refused += 1
            event(f"refused: {step[0]}", type(error).__name__)
            continue
        query.steps.append(step)
        if step[0] == "filter":
            left = query.expected.height
            event("filter keeps " + ("nothing" if not left else "all" if left == before.height else "some"))
    return query
