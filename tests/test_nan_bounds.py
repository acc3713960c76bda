"""Minima and maxima of Parquet files with NaN: DuckDB, Polars and the rows agree."""

import math
from io import BytesIO

import duckdb
import h5py
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import builders
import lazynwb
from lazynwb.column_store.footer import row_groups
from lazynwb.column_store.nan_bounds import drop_nan_bounds, drop_nan_bounds_of

#: In DuckDB's order, as in Polars', NaN is the greatest number.
CONDITIONS = {
    "x > 2": pl.col("x") > 2,
    "x >= 1e9": pl.col("x") >= 1e9,
    "x < 1": pl.col("x") < 1,
    "isnan(x)": pl.col("x").is_nan(),
    "x = 'nan'::DOUBLE": pl.col("x").eq(math.nan),
    "x IS NULL": pl.col("x").is_null(),
    "s.y > 2": pl.col("s").struct.field("y") > 2,
    "i > 10": pl.col("i") > 10,
}


def check(path, frame):
    for sql, expression in CONDITIONS.items():
        found = duckdb.sql(f"SELECT i FROM read_parquet('{path}') WHERE {sql} ORDER BY i").pl()  # noqa: S608
        truth = frame.filter(expression).select("i").sort("i")
        assert found["i"].to_list() == truth["i"].to_list(), sql
        assert_frame_equal(pl.scan_parquet(path).filter(expression).select("i").sort("i").collect(), truth)


values = st.lists(st.none() | st.sampled_from([0.0, 1.5, 3.0, 1e12, -1.0, math.nan]), max_size=30)


@given(numbers=values, size=st.integers(1, 9), dtype=st.sampled_from([pl.Float64, pl.Float32]))
@pytest.mark.integration
def test_engines_agree(tmp_path_factory, numbers, size, dtype):
    path = tmp_path_factory.mktemp("parquet") / "a.parquet"
    frame = pl.DataFrame(
        {
            "i": pl.Series(range(len(numbers)), dtype=pl.Int64),
            "x": pl.Series(numbers, dtype=dtype),
            "s": pl.Series([{"y": x} for x in numbers], dtype=pl.Struct({"y": dtype})),
            "l": pl.Series([[x] for x in numbers], dtype=pl.List(dtype)),
        }
    )
    frame.write_parquet(path, statistics=True, row_group_size=size)
    drop_nan_bounds(path)
    assert_frame_equal(pl.read_parquet(path), frame)
    check(path, frame)
    stream = BytesIO()
    frame.write_parquet(stream, statistics=True, row_group_size=size)
    drop_nan_bounds_of(stream, frame)
    assert stream.getvalue() == path.read_bytes()


def test_unchanged_bounds_of_polars_skip_matching_rows_in_duckdb(tmp_path):
    """If this fails, Polars or DuckDB treats NaN differently, and bounds may be kept."""
    frame = pl.DataFrame({"x": [1.0, math.nan, 1.0, 1.0]})
    frame.write_parquet(tmp_path / "a.parquet", statistics=True)
    query = f"SELECT count(*) FROM read_parquet('{tmp_path / 'a.parquet'}') WHERE x > 2"  # noqa: S608
    assert duckdb.sql(query).fetchall() == [(0,)]
    drop_nan_bounds(tmp_path / "a.parquet")
    assert duckdb.sql(query).fetchall() == [(1,)]


def test_bounds_of_other_row_groups_are_unchanged(tmp_path):
    path = tmp_path / "a.parquet"
    frame = pl.DataFrame({"x": [*range(100), math.nan, *range(99)], "i": range(200)}, strict=False)
    frame.write_parquet(path, statistics=True, row_group_size=100)
    size = path.stat().st_size
    drop_nan_bounds(path)
    assert size - 120 < path.stat().st_size < size
    found = duckdb.sql(
        f"SELECT path_in_schema, stats_max_value FROM parquet_metadata('{path}') ORDER BY row_group_id, 1"  # noqa: S608
    ).fetchall()
    assert found == [("i", "99"), ("x", "99.0"), ("i", "199"), ("x", None)]
    assert [group.rows for group in row_groups(path.read_bytes())] == [100, 100]


@pytest.mark.parametrize("partition", [None, "session"])
def test_nan_bounds_of_converted_tables(tmp_path, partition):
    rows = np.arange(2500, dtype="f8")
    rows[::5] = np.nan
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        builders.nwb_root(file)
        builders.table(file, "units", {"x": rows, "i": np.arange(2500)})
    lazynwb.convert_nwb_tables(tmp_path / "a.nwb", tmp_path / "out", partition_by=partition)
    files = [str(path) for path in (tmp_path / "out").rglob("*.parquet") if "units" in str(path)]
    query = f"SELECT count(*) FROM read_parquet({files})"  # noqa: S608
    assert duckdb.sql(f"{query} WHERE isnan(x)").fetchall() == [(500,)]
    assert duckdb.sql(f"{query} WHERE x > 1e9").fetchall() == [(500,)]
