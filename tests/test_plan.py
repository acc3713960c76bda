"""Splitting of predicates, order of their parts by cost, and growth of batches."""

import polars as pl
import pytest

from lazynwb.catalog.lengths import length_name
from lazynwb.engine.plan import Growth, conjuncts, plan_steps

SCHEMA = {"n": pl.Float64(), "m": pl.Int8(), "text": pl.String(), "list": pl.List(pl.Float64())}


@pytest.mark.parametrize(
    ("predicate", "parts"),
    [
        (pl.col("n") > 1, 1),
        ((pl.col("n") > 1) & (pl.col("m") == 2), 2),
        ((pl.col("n") > 1) & (pl.col("m") == 2) & pl.col("text").is_null() & (pl.col("n") < 9), 4),
        ((pl.col("n") > 1) & ((pl.col("m") == 2) | pl.col("text").is_null()), 2),
        ((pl.col("n") > 1) | (pl.col("m") == 2), 1),
        (~((pl.col("n") > 1) & (pl.col("m") == 2)), 1),
        (pl.lit(value=True), 1),
    ],
)
def test_only_conjunctions_are_split(predicate, parts):
    split = conjuncts(predicate)
    assert len(split) == parts
    frame = pl.DataFrame({"n": [0.0, 2.0, 5.0, None], "m": [2, 2, 0, 1], "text": ["a", None, None, "b"]})
    together = pl.all_horizontal(split) if parts > 1 else split[0]
    assert frame.filter(together).equals(frame.filter(predicate))


def test_cheap_predicates_run_first_and_equal_costs_together():
    predicate = (
        (pl.col("list").list.sum() > 3)
        & (pl.col("text") == "a")
        & (pl.col("n") > 1)
        & (pl.col("_nwb_path") != "x")
        & (pl.col("m") < 3)
    )
    steps = [set(step.columns) for step in plan_steps(predicate, SCHEMA)]
    assert steps == [{"_nwb_path"}, {"n", "m"}, {"text"}, {"list"}]


def test_lengths_of_lists_are_as_cheap_as_numbers():
    predicate = (pl.col("list").list.len() > 3) & (pl.col("n") > 1) & pl.col("list").list.first().is_null()
    steps = [set(step.columns) for step in plan_steps(predicate, SCHEMA)]
    assert steps == [{length_name("list"), "n"}, {"list"}]


def test_batches_grow_after_the_first_two():
    growth = Growth(1, 64)
    sizes = []
    for _ in range(6):
        sizes.append(growth.take())
        growth.used(1)
    assert sizes == [1, 1, 4, 16, 64, 64]


def test_batches_without_rows_grow_immediately():
    growth = Growth(1, 64)
    sizes = []
    for _ in range(4):
        sizes.append(growth.take())
        growth.used(0)
    assert sizes == [1, 4, 16, 64]
