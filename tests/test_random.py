"""Random sessions and random queries (`random_truth`), and files without a common schema.

Some hundred examples with the suite; `python tests/random_truth.py` runs thousands.
"""

import itertools
import tempfile
from pathlib import Path

import h5py
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import lazynwb
from builders import VLEN_TEXT, Column, Ragged, table
from checks import ENGINES, assert_values, count
from random_files import INTEGERS, number_values
from random_truth import SHARES, as_test

EXAMPLES = {
    name: max(1, round(share * count(2, 14) / 2 * settings().max_examples)) for name, share in SHARES.items()
}

test_tables = as_test("tables", max_examples=EXAMPLES["tables"])
test_series = as_test("series", max_examples=EXAMPLES["series"])
test_sql = as_test("sql", max_examples=EXAMPLES["sql"])
test_columns_that_are_read_late = as_test("late", max_examples=EXAMPLES["late"])
test_metadata = as_test("metadata", max_examples=EXAMPLES["metadata"])
test_sessions = as_test("sessions", max_examples=EXAMPLES["sessions"])
test_attributes = as_test("attributes", max_examples=EXAMPLES["attributes"])
test_tables_that_match_a_pattern = as_test("patterns", max_examples=EXAMPLES["patterns"])


@st.composite
def numbers(draw):
    dtype = draw(st.sampled_from([*INTEGERS, "f4", "f8"]))
    return np.array(draw(st.lists(number_values(dtype), max_size=4)), dtype)


@given(st.lists(numbers(), min_size=1, max_size=4))
def test_numbers_of_any_type_keep_their_values_or_are_an_error(files):
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, content in enumerate(files):
            paths.append(Path(folder) / f"{number}.nwb")
            with h5py.File(paths[-1], "w") as file:
                table(file, "t", {"x": content})
        lf = lazynwb.scan_nwb(paths, "t")
        for engine in ENGINES:
            try:
                found = lf.collect(engine=engine)["x"].to_list()
            except lazynwb.SchemaError as error:
                assert "'x'" in str(error)  # noqa: PT017 - one of two outcomes
                assert "schema_overrides" in str(error)  # noqa: PT017
                whole = [int(v) for content in files if content.dtype.kind in "iu" for v in content]
                assert any(abs(value) > 2**24 for value in whole)
            else:
                assert_values(found, [v for content in files for v in content.tolist()], "x")


UNLIKE = {
    "numbers": np.arange(3.0),
    "truths": np.array([True, False, True]),
    "texts": Column(np.array(["a", "b", "c"], "O"), {"dtype": VLEN_TEXT}),
    "lists": Ragged([[1.0], [], [2.0]]),
    "structs": np.zeros(3, [("x", "i4")]),
}


@pytest.mark.parametrize(("one", "other"), [*itertools.permutations(UNLIKE, 2)])
def test_types_without_a_common_type_are_an_error_that_names_both_files(one, other, tmp_path):
    for name in (one, other):
        with h5py.File(tmp_path / f"{name}.nwb", "w") as file:
            table(file, "t", {"y": np.arange(3), "x": UNLIKE[name]})
    with pytest.raises(lazynwb.SchemaError, match="column 'x' of /t") as caught:
        lazynwb.read_nwb([tmp_path / f"{one}.nwb", tmp_path / f"{other}.nwb"], "t")
    assert all(f"{name}.nwb" in str(caught.value) for name in (one, other))
    assert "schema_overrides" in str(caught.value)
