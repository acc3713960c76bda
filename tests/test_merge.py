"""Casts of a file's rows to the schema: no value is lost, and null stays null."""

import h5py
import numpy as np
import polars as pl
import pytest

import lazynwb
from builders import Ragged, table
from lazynwb.catalog.merge import conform

LARGE = 2**53 + 1


@pytest.mark.parametrize(
    ("stored", "dtype"),
    [
        (pl.Series([1.75]), pl.Int64()),
        (pl.Series([LARGE]), pl.Float64()),
        (pl.Series([300]), pl.Int8()),
        (pl.Series([{"x": 1.75}]), pl.Struct({"x": pl.Int64()})),
        (pl.Series([{"x": LARGE}]), pl.Struct({"x": pl.Float64()})),
        (pl.Series([[{"x": 1.75}]]), pl.List(pl.Struct({"x": pl.Int64()}))),
        (pl.Series([{"x": 1, "y": 2}]), pl.Struct({"x": pl.Int64()})),
        (pl.Series([{"x": 1.5}]), pl.String()),
        (pl.Series([0.5, 1.5]), pl.List(pl.Int64())),
        (pl.Series([LARGE]), pl.List(pl.Float64())),
        (pl.Series([[0.5], []]), pl.List(pl.Int64())),
        (pl.Series(["a"]), pl.Int64()),
        (pl.Series([1]), pl.String()),
    ],
)
def test_lossy_casts_are_errors_that_name_the_origin(stored, dtype):
    with pytest.raises(lazynwb.SchemaError, match=r"first\.nwb"):
        conform(stored, dtype, "first.nwb")


@pytest.mark.parametrize(
    ("stored", "dtype", "expected"),
    [
        (pl.Series([1, None]), pl.Float64(), [1.0, None]),
        (
            pl.Series([1.0, float("nan")], dtype=pl.Float32),
            pl.Float64(),
            [1.0, pytest.approx(float("nan"), nan_ok=True)],
        ),
        (pl.Series(["a", None]), pl.List(pl.String()), [["a"], None]),
        (
            pl.Series([{"x": 1}, None]),
            pl.Struct({"x": pl.Float64(), "y": pl.Int8()}),
            [{"x": 1.0, "y": None}, None],
        ),
        (
            pl.Series([[{"x": 1}, None], None, []]),
            pl.List(pl.Struct({"x": pl.Float64(), "y": pl.Int8()})),
            [[{"x": 1.0, "y": None}, None], None, []],
        ),
        (
            pl.Series([{"a": [{"x": 1}]}, {"a": None}]),
            pl.Struct({"a": pl.List(pl.Struct({"x": pl.Int64(), "y": pl.String()}))}),
            [{"a": [{"x": 1, "y": None}]}, {"a": None}],
        ),
        (pl.Series([["a", None], []]), pl.List(pl.List(pl.String())), [[["a"], None], []]),
        (pl.Series([[1, 2], []]), pl.List(pl.Float64()), [[1.0, 2.0], []]),
        (pl.Series([[1, 2]], dtype=pl.Array(pl.Int64, 2)), pl.List(pl.Float64()), [[1.0, 2.0]]),
        (pl.Series(["a"], dtype=pl.Enum(["a"])), pl.String(), ["a"]),
    ],
)
def test_lossless_casts_are_allowed(stored, dtype, expected):
    cast = conform(stored, dtype, "first.nwb")
    assert cast.dtype == dtype
    assert cast.to_list() == expected


def test_casts_to_overridden_types_may_lose_values():
    assert conform(pl.Series([1.75]), pl.Int64(), None).to_list() == [1]


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_structs_with_different_fields_are_united(tmp_path, engine):
    paths = [tmp_path / "a.nwb", tmp_path / "b.nwb"]
    for path, value in zip(
        paths, (np.array([(1,)], [("x", "i8")]), np.array([(1.75,)], [("x", "f8")])), strict=True
    ):
        with h5py.File(path, "w") as file:
            table(file, "t", {"c": value})
    with pytest.raises(lazynwb.SchemaError, match="would change"):
        lazynwb.scan_nwb(paths, "t", infer_schema_length=1).collect(engine=engine)
    both = lazynwb.scan_nwb(paths, "t").select("c").collect(engine=engine)
    assert both["c"].to_list() == [{"x": 1.0}, {"x": 1.75}]


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_lists_of_structs_of_files_that_disagree_have_all_fields(tmp_path, engine):
    """Polars casts a struct to one with more fields only outside of lists."""
    paths = [tmp_path / "a.nwb", tmp_path / "b.nwb"]
    narrow, wide = [("x", "i4")], [("x", "f8"), ("y", "i2")]
    with h5py.File(paths[0], "w") as file:
        table(
            file, "t", {"c": Ragged([[(1,), (2,)], []], narrow), "d": Ragged([[[(1,)], []], []], narrow, 2)}
        )
    with h5py.File(paths[1], "w") as file:
        table(file, "t", {"c": Ragged([[], [(3.5, 4)]], wide), "d": Ragged([[], [[(3.5, 4)]]], wide, 2)})
    frame = lazynwb.scan_nwb(paths, "t").collect(engine=engine)
    assert frame.schema["c"] == pl.List(pl.Struct({"x": pl.Float64, "y": pl.Int16}))
    one, two, last = {"x": 1.0, "y": None}, {"x": 2.0, "y": None}, {"x": 3.5, "y": 4}
    assert frame["c"].to_list() == [[one, two], [], [], [last]]
    assert frame["d"].to_list() == [[[one], []], [], [], [[last]]]


def test_columns_of_unusual_layouts_are_read_by_libhdf5(tmp_path):
    path = tmp_path / "a.nwb"
    with h5py.File(path, "w") as file:
        group = table(file, "t", {"id": np.arange(2)})
        group.attrs["colnames"] = ["refs", "grid", "empty"]
        group.attrs["categories"] = ["empty"]
        empty = group.create_group("empty")
        empty.attrs["colnames"] = np.array([], h5py.string_dtype())
        refs = np.zeros(2, [("a", "f8"), ("r", h5py.ref_dtype)])
        refs["r"] = [group.ref, h5py.Reference()]
        group.create_dataset("refs", data=refs, compression="lzf")
        grid = group.create_dataset("grid", (2, 2), h5py.vlen_dtype("i4"))
        for place, items in {(0, 0): [], (0, 1): [1, 2], (1, 0): [3, 4], (1, 1): []}.items():
            grid[place] = np.array(items, "i4")
    frame = lazynwb.read_nwb(path, "t")
    assert frame["refs"].to_list() == [{"a": 0.0, "r": "/t"}, {"a": 0.0, "r": None}]
    assert frame["grid"].to_list() == [[[], [1, 2]], [[3, 4], []]]
    assert "empty" not in frame.columns


@pytest.mark.parametrize("lost", [False, True], ids=["set", "null"])
def test_references_of_scattered_rows_are_read_by_libhdf5(lost, tmp_path):
    """Concatenated NumPy arrays lose the metadata that marks references."""
    path = tmp_path / "a.nwb"
    with h5py.File(path, "w") as file:
        group = table(file, "t", {"id": np.arange(9)})
        references = [h5py.Reference() if lost else group.ref] * 9
        group.create_dataset("r", data=references, dtype=h5py.ref_dtype, chunks=(2,), compression="lzf")
    frame = lazynwb.scan_nwb(path, "t").filter(pl.col("_table_index").is_in([0, 3, 8])).collect()
    assert frame["r"].to_list() == [None if lost else "/t"] * 3
