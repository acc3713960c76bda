"""Output of frames: Polars or pandas, with equal values."""

import datetime as dt
import math

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from polars.testing import assert_frame_equal
from polars.testing.parametric import column, dataframes

import lazynwb
from checks import run_child, same
from lazynwb.errors import MissingPackageError
from lazynwb.frames.coerce import as_lazy
from lazynwb.frames.pandas_output import as_frame, to_pandas, wants_polars

FRAME = pl.DataFrame({"a": [1, 2]})


def test_pandas_is_the_default():
    assert isinstance(as_frame(FRAME, None), pd.DataFrame)


@pytest.mark.parametrize("use_polars", [True, False])
def test_arguments_override_the_setting(use_polars):
    lazynwb.config.use_polars = use_polars
    assert as_frame(FRAME, as_polars=True) is FRAME
    assert isinstance(as_frame(FRAME, as_polars=False), pd.DataFrame)
    assert wants_polars(None) is use_polars


def test_output_does_not_depend_on_whether_pandas_is_installed():
    code = """
import sys
sys.modules["pandas"] = None
from lazynwb.errors import MissingPackageError
from lazynwb.frames.pandas_output import as_frame
import lazynwb
import polars as pl
for as_polars in (None, False):
    try:
        as_frame(pl.DataFrame({"a": [1]}), as_polars)
    except MissingPackageError as error:
        print(error)
lazynwb.config.use_polars = True
assert isinstance(as_frame(pl.DataFrame({"a": [1]}), None), pl.DataFrame)
"""
    messages = run_child(code).splitlines()
    assert len(messages) == 2
    for message in messages:
        assert "pip install pandas" in message
        assert "config.use_polars" in message
    assert issubclass(MissingPackageError, (ImportError,))


def test_pyarrow_is_not_needed():
    code = """
import sys
sys.modules["pyarrow"] = None
import datetime
import polars as pl
from lazynwb.frames.pandas_output import to_pandas
frame = to_pandas(pl.DataFrame({
    "text": ["a", None], "number": [1, None], "list": [[1.0], None],
    "stamp": [datetime.datetime(2024, 1, 1)] * 2,
    "enum": pl.Series(["x", None], dtype=pl.Enum(["x"])), "struct": [{"a": 1}, {"a": 2}],
    "array": pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Int8, 2)),
}))
for name in ("text", "number", "list", "enum", "struct"):
    print(frame[name][0], end=" ")
print(frame["array"][1])
"""
    assert run_child(code).split("\n")[0] == "a 1.0 [1.] x {'a': 1} [3 4]"


def test_the_index_is_the_row_number():
    frame = to_pandas(FRAME)
    assert isinstance(frame.index, pd.RangeIndex)
    assert frame.index.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (pl.Int8, "int8"), (pl.UInt32, "uint32"), (pl.UInt64, "uint64"), (pl.Float32, "float32"),
        (pl.Float64, "float64"), (pl.Boolean, "bool"), (pl.Enum(["a"]), "category"),
        (pl.List(pl.Int8), "object"),
        (pl.Datetime("us"), "datetime64[us]"), (pl.Datetime("us", "UTC"), "datetime64[us, UTC]"),
        (pl.Date, "datetime64[ms]"), (pl.Duration("ms"), "timedelta64[ms]"),
        (pl.Struct({"a": pl.Int8}), "object"),
    ],
)  # fmt: skip
def test_types_of_columns_with_rows_and_without(dtype, expected):
    empty = pl.DataFrame(schema={"x": dtype})
    assert str(to_pandas(empty)["x"].dtype) == expected
    assert len(to_pandas(empty)) == 0


def test_missing_numbers_are_nan_and_large_integers_stay_exact():
    frame = to_pandas(pl.DataFrame({"small": [1, None], "large": [2**62 + 1, None], "f": [None, 1.5]}))
    assert frame["small"].dtype == "float64"
    assert math.isnan(frame["small"][1])
    assert frame["large"][0] == 2**62 + 1
    assert frame["large"].isna().tolist() == [False, True]
    assert frame["f"].isna().tolist() == [True, False]


def test_arrays_are_numpy_arrays_of_their_own_type_nested_in_lists():
    images = np.arange(24, dtype="u2").reshape(2, 3, 4)
    frame = to_pandas(
        pl.DataFrame(
            {
                "image": pl.Series(images, dtype=pl.Array(pl.UInt16, (3, 4))),
                "spikes": [[0.5, 1.5], []],
                "intervals": pl.Series([[[0, 1]], [[2, 3], [4, 5]]], dtype=pl.List(pl.Array(pl.Float64, 2))),
                "nothing": pl.Series([None, [1, 2]], dtype=pl.Array(pl.Int64, 2)),
                "gaps": [[1, None], [2**60 + 1]],
                "words": [["a", "b"], None],
            }
        )
    )
    assert {row.dtype for row in frame["image"][1]} == {np.dtype(np.uint16)}
    np.testing.assert_array_equal(frame["image"][1], images[1])
    assert frame["spikes"][1].shape == (0,)
    assert np.array(frame["intervals"][1]).shape == (2, 2)
    assert frame["nothing"][0] is None
    assert frame["nothing"][1].dtype == np.int64
    assert frame["gaps"].tolist() == [[1, None], [2**60 + 1]]
    assert frame["words"].tolist() == [["a", "b"], None]


def test_arrays_of_several_dimensions_convert_back_to_polars_and_parquet(tmp_path):
    frame = pl.DataFrame(
        {
            "image": pl.Series(np.arange(24.0).reshape(2, 2, 2, 3), dtype=pl.Array(pl.Float64, (2, 2, 3))),
            "pairs": pl.Series([[[0, 1]], [[2, 3], [4, 5]]], dtype=pl.List(pl.Array(pl.Float64, 2))),
            "ragged": [[[1.0], []], None],
        }
    )
    pairs = pl.List(pl.List(pl.Float64))
    lists = frame.cast({"image": pl.List(pairs), "pairs": pairs})
    assert_frame_equal(pl.DataFrame(to_pandas(frame)), lists)
    to_pandas(frame).to_parquet(tmp_path / "a.parquet")
    assert_frame_equal(pl.read_parquet(tmp_path / "a.parquet"), lists)
    assert_frame_equal(as_lazy(to_pandas(frame)).collect(), lists)


def test_lists_of_one_length_stay_one_value_per_row():
    frame = to_pandas(pl.DataFrame({"x": [[1.0, 2.0], [3.0, 4.0]], "n": [[1, 2], [3, None]]}))
    assert [row.tolist() for row in frame["x"]] == [[1.0, 2.0], [3.0, 4.0]]
    assert frame["n"].tolist() == [[1, 2], [3, None]]


def test_time_zones_are_preserved():
    stamp = dt.datetime(2024, 7, 1, 12, tzinfo=dt.UTC)
    series = pl.Series([stamp, None]).dt.convert_time_zone("Europe/Berlin")
    frame = to_pandas(pl.DataFrame({"when": series}))
    assert frame["when"][0] == stamp
    assert str(frame["when"].dt.tz) == "Europe/Berlin"


KINDS = [
    pl.Int8, pl.Int64, pl.UInt64, pl.Float32, pl.Float64, pl.Boolean, pl.String, pl.List(pl.Int64),
    pl.List(pl.Float64), pl.List(pl.String), pl.List(pl.List(pl.Int16)), pl.Array(pl.Int32, 2),
    pl.List(pl.Array(pl.Float64, 2)), pl.Array(pl.String, 2), pl.Struct({"a": pl.Int64, "b": pl.String}),
]  # fmt: skip


def plain(value):
    """A value of either frame as a Python object; NaN for missing values of pandas."""
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if value is None or value is pd.NA or value is pd.NaT:
        return math.nan
    return value.item() if isinstance(value, np.generic) else value


@given(dataframes([column(str(i), dtype=kind) for i, kind in enumerate(KINDS)], max_size=6, allow_null=True))
def test_every_value_is_the_same_in_pandas(frame):
    before = frame.clone()
    converted = to_pandas(frame)
    assert list(converted.columns) == frame.columns
    assert len(converted) == len(frame)
    for name in frame.columns:
        assert same(plain(converted[name].tolist()), plain(frame[name].to_list())), frame[name]
    assert_frame_equal(frame, before)


@given(st.lists(st.sampled_from(["a", "b", "c", None]), max_size=8))
def test_enums_are_categories_in_their_order(values):
    frame = to_pandas(pl.DataFrame({"x": pl.Series(values, dtype=pl.Enum(["c", "b", "a", "z"]))}))
    assert frame["x"].cat.categories.tolist() == ["c", "b", "a", "z"]
    assert [None if pd.isna(v) else v for v in frame["x"]] == values
