"""Heap collections: unordered text in shared and in grown collections, compared with h5py."""

import h5py
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lazynwb
from builders import table

TEXT = st.lists(
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=60), max_size=80
)


@pytest.mark.integration
@settings(max_examples=25, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_text_that_was_written_in_any_order(tmp_path_factory, columns, random):
    """Columns of one length share collections when their elements are written in turns."""
    rows = max(map(len, columns))
    columns = [column + [""] * (rows - len(column)) for column in columns]
    path = tmp_path_factory.mktemp("heap") / "a.nwb"
    with h5py.File(path, "w") as file:
        group = table(file, "t", {"id": np.arange(rows)})
        group.attrs["colnames"] = [f"c{i}" for i in range(len(columns))]
        stored = [group.create_dataset(f"c{i}", (rows,), h5py.string_dtype()) for i in range(len(columns))]
        places = [(i, row) for i in range(len(columns)) for row in range(rows)]
        random.shuffle(places)
        for i, row in places:
            stored[i][row] = columns[i][row]
        for i, row in places[::7]:  # written again: the first object is left behind in the heap
            stored[i][row] = columns[i][row]
    frame = lazynwb.read_nwb(path, "t")
    for i, column in enumerate(columns):
        assert frame[f"c{i}"].to_list() == column
    odd = lazynwb.scan_nwb(path, "t").filter(pl.col("id") % 3 == 1).collect()
    for i, column in enumerate(columns):
        assert odd[f"c{i}"].to_list() == column[1::3]


def test_long_texts_have_collections_of_their_own(tmp_path):
    texts = ["x" * n for n in (0, 1, 4000, 4080, 4096, 70_000, 3, 1_000_000)]
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        table(file, "t", {"text": texts})
    assert lazynwb.read_nwb(tmp_path / "a.nwb", "t")["text"].to_list() == texts
