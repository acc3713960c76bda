"""Boundaries of batches: limited in bytes and aligned with chunks, so that no chunk is decoded twice."""

import itertools
import os
import threading

import h5py
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lazynwb
from builders import table
from lazynwb.arrays.row_selection import Handles, Part, to_ranges
from lazynwb.engine.batches import run
from lazynwb.engine.batching import MAX_ROWS, batch_bounds
from lazynwb.engine.plan import Growth, ScanPlan
from lazynwb.lookup.loader import load_table
from lazynwb.scan import source_frame
from lazynwb.storage.resolve import expand

pytestmark = pytest.mark.usefixtures("no_store")
ROWS, CHUNK = 20_000, 1_000


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A table in gzip chunks of 1,000 rows, with a column in chunks of 250 and a contiguous one."""
    path = tmp_path_factory.mktemp("batches") / "table.nwb"
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        group = file.create_group("table")
        group.attrs["colnames"] = ["a", "b", "fine", "plain"]
        group.attrs["neurodata_type"] = "DynamicTable"
        for name, chunk in (("a", CHUNK), ("b", CHUNK), ("fine", 250), ("id", CHUNK)):
            data = np.arange(ROWS) if name == "id" else rng.random(ROWS).round(2)
            group.create_dataset(name, data=data, chunks=(chunk,), compression="gzip")
        group["plain"] = np.arange(ROWS)
        wide = group.create_dataset(
            "wide", (ROWS, 64), "f8", chunks=(CHUNK, 64), compression="gzip", compression_opts=1
        )
        wide[...] = rng.random((ROWS, 1))
    return path


def counts_of(query):
    with lazynwb.profile() as counts:
        frame = query.collect(engine="streaming")
    return frame, counts.chunks_decoded


def test_survivors_in_one_chunk_are_decoded_once(path):
    scan = lazynwb.scan_nwb(path, "/table")
    found, decoded = counts_of(scan.filter(pl.col("id").is_between(5_000, 5_899)))
    assert found["id"].to_list() == list(range(5_000, 5_900))
    # The whole of the column that is filtered on; then one chunk of three columns, and four of the fine one.
    assert decoded == ROWS // CHUNK + 3 + 4


def test_scattered_survivors_are_decoded_once(path):
    scan = lazynwb.scan_nwb(path, "/table")
    found, decoded = counts_of(scan.filter(pl.col("id") % 100 == 7))
    assert len(found) == ROWS // 100
    assert decoded <= 4 * (ROWS // CHUNK) + ROWS // 250


def test_the_first_rows_require_few_decoded_chunks(path):
    sources = tuple(expand(path))
    schema = lazynwb.get_table_schema(path, "/table", exclude_internal_columns=True)
    batches = run(ScanPlan(sources, "table", dict(schema), "here"), None, pl.col("plain") % 100 == 7, None)
    with lazynwb.profile() as counts:
        first = next(batches)
    # Sixteen rows were to be given; they lie in two bands of chunks, which hold four more.
    assert first["id"].to_list() == list(range(7, 2_000, 100))
    assert counts.chunks_decoded == 2 * (4 + 4)


@given(
    rows=st.sets(st.integers(0, ROWS - 1), min_size=1, max_size=400) | st.just(set(range(3_000, 9_500))),
    few=st.none() | st.integers(1, 200),
    limit=st.integers(1_000, 3_000_000),
    names=st.sets(st.sampled_from(["a", "fine", "plain", "wide"]), min_size=1),
)
def test_batches_contain_every_row_once_within_the_limit_of_bytes(path, rows, few, limit, names):
    file = load_table(expand(path)[0], "table")
    chosen = np.array(sorted(rows))
    parts = [Part(file, to_ranges(chosen), len(chosen))] * 2
    before = lazynwb.config.batch_bytes
    lazynwb.config.batch_bytes = limit
    try:
        with Handles() as handles:
            growth = Growth(few, MAX_ROWS) if few else None
            bounds = batch_bounds(handles, parts, sorted(names), growth)
    finally:
        lazynwb.config.batch_bytes = before
    assert bounds[0][0] == 0
    assert bounds[-1][1] == 2 * len(chosen)
    assert all(one[1] == other[0] for one, other in itertools.pairwise(bounds))
    row = 16 + sum(512 if name == "wide" else 8 for name in names)
    assert all(
        start < stop and (stop - start == 1 or (stop - start) * row <= limit) for start, stop in bounds
    )


def test_a_file_that_cannot_be_opened_does_not_shift_the_numbers_of_others(tmp_path):
    """Otherwise the next file would be read in its place."""
    paths = [tmp_path / f"{number}.nwb" for number in range(2)]
    for number, path in enumerate(paths):
        with h5py.File(path, "w") as file:
            table(file, "t", {"x": np.arange(3) + number})
    files = [load_table(source, "t") for source in expand(paths)]
    arrays = [next(one.data for one in file.table.columns if one.name == "x") for file in files]
    os.utime(paths[0], (1, 1))
    with Handles() as handles:
        for _ in range(2):
            with pytest.raises(lazynwb.SourceChangedError):
                handles.number(files[0], arrays[0])
        number = handles.number(files[1], arrays[1])
        assert handles.files[number].name == str(paths[1])


def test_head_does_not_wait_for_the_batch_after_its_rows():
    first = pl.DataFrame({"x": range(10)})
    ended = threading.Event()

    def run(with_columns, predicate, n_rows):
        yield first.filter(predicate)
        assert ended.wait(30), "the engine waited for the second batch"
        yield first.filter(predicate)

    frame = source_frame(run, first.schema, "test").filter(pl.col("x") > 2)
    assert frame.head(5).collect(engine="streaming")["x"].to_list() == [3, 4, 5, 6, 7]
    ended.set()


@pytest.mark.parametrize("engine", ["streaming", "in-memory"])
def test_batches_for_users_are_not_empty(cube, engine):
    frame = lazynwb.scan_nwb(cube, "/units").filter(pl.col("presence_ratio") > 0.5)
    heights = [batch.height for batch in frame.collect_batches(chunk_size=7, engine=engine)]
    assert sum(heights) == frame.collect().height
    assert min(heights) > 0
