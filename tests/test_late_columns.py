"""Late materialization: values of the rows of any frame, after any operations on it."""

import functools
import math
import pickle
import tempfile
import threading
from pathlib import Path

import h5py
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from polars.testing import assert_frame_equal

import lazynwb
from builders import GZIP, Column, Ragged, table
from checks import ENGINES, INTERNAL, assert_values, run_child
from lazynwb.errors import (
    ColumnNotFoundError,
    LazyNWBError,
    SchemaError,
    SourceNotFoundError,
    TableNotFoundError,
)
from range_server import RangeServer
from readers import hdf5_tables as oracle
from zarr_twins.make import ARCHIVE, unpack

ARRAYS = ["spike_times", "waveform_mean", "obs_intervals"]
read_table = functools.cache(oracle.read_table)


@pytest.fixture(scope="module")
def thin(cube):
    """The units of all sessions, without their arrays."""
    return lazynwb.read_nwb(cube, "/units").drop(ARRAYS)


def expected(frame, name):
    """The column for a frame's rows, as h5py gives it."""
    rows = frame.select(*INTERNAL).iter_rows()
    return [
        None if None in (path, where, row) else read_table(path, where).columns[name][row]
        for path, where, row in rows
    ]


def assert_late(added, before, *names):
    assert added.columns == [*before.columns, *names]
    assert_frame_equal(added.select(before.columns), before)
    for name in names:
        assert_values(added[name].to_list(), expected(before, name), name)


# -- any frame ---------------------------------------------------------------------------------------------


def test_columns_for_the_remaining_rows(thin):
    best = thin.sort("presence_ratio").tail(10)
    assert_late(best.nwb.with_columns(*ARRAYS), best, *ARRAYS)


def test_types_equal_those_of_a_scan(cube, thin):
    added = thin.head(1).nwb.with_columns(ARRAYS)
    schema = lazynwb.scan_nwb(cube, "/units").collect_schema()
    assert {name: added.schema[name] for name in ARRAYS} == {name: schema[name] for name in ARRAYS}


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.reverse(),
        lambda f: f.sample(300, with_replacement=True, seed=3),
        lambda f: f.sort("location", "unit_id").group_by("location", maintain_order=True).first(),
        lambda f: f.filter(pl.col("location") == "CA1").head(7),
        lambda f: f.group_by("_nwb_path").agg(
            pl.col("_table_path", "_table_index").sort_by("activity_drift").last()
        ),
        lambda f: pl.concat([f[5:9], f[100:104], f[5:7]], rechunk=False),
        lambda f: f.select("_table_index", "unit_id", "_table_path", "_nwb_path"),
        lambda f: f.cast({"_nwb_path": pl.Categorical, "_table_index": pl.Int64}),
        lambda f: f.with_columns(_table_path="/" + pl.col("_table_path") + "/"),
        lambda f: f.select(*INTERNAL),
    ],
)  # fmt: skip
@pytest.mark.parametrize("lazy", [False, True])
def test_rows_in_any_order_selection_and_repetition(thin, change, lazy):
    frame = change(thin)
    late = (frame.lazy().nwb if lazy else frame.nwb).with_columns("spike_times", "obs_intervals")
    before = frame.with_columns(pl.col("_table_path").str.strip_chars("/")).cast({"_nwb_path": pl.String})
    added = late.collect() if lazy else late
    for name in ("spike_times", "obs_intervals"):
        assert_values(added[name].to_list(), expected(before, name), name)
    assert_frame_equal(added.select(frame.columns), frame)


def test_rows_without_provenance_are_null(cube, thin):
    wanted = pl.DataFrame({"unit_id": ["s2_3", "none", "s0_1", None, "s2_3"]})
    joined = wanted.join(thin, on="unit_id", how="left", maintain_order="left")
    added = joined.nwb.with_columns("spike_times", "waveform_mean")
    assert_late(added, joined, "spike_times", "waveform_mean")
    assert added["spike_times"].is_null().to_list() == [False, True, False, True, False]
    for column in INTERNAL:
        partly = thin.head(3).with_columns(pl.when(pl.col("unit_id") != "s0_1").then(column).alias(column))
        assert partly.nwb.with_columns("spike_times")["spike_times"].is_null().to_list() == [
            False,
            True,
            False,
        ]


def test_frames_that_mix_tables_and_files(cube):
    frame = pl.concat(
        [
            lazynwb.scan_nwb(cube, "/intervals/trials").select(*INTERNAL),
            lazynwb.scan_nwb(cube, "/intervals/performance").select(*INTERNAL),
        ]
    ).collect().sample(fraction=1, shuffle=True, seed=1)  # fmt: skip
    added = frame.nwb.with_columns("block_index", "start_time", "rewarded_modality")
    assert_late(added.drop("rewarded_modality"), frame, "block_index", "start_time")
    performance = frame["_table_path"] == "intervals/performance"
    assert (added["rewarded_modality"].is_null() == ~performance).all()


def test_both_sides_of_a_join(cube, thin):
    trials = lazynwb.read_nwb(cube, "/intervals/trials").select("stim_name", *INTERNAL).head(40)
    both = thin.head(20).join(trials, on="_nwb_path")
    added = both.nwb.with_columns("spike_times").nwb.with_columns("stop_time", provenance_suffix="_right")
    right = both.select("_nwb_path", _table_path="_table_path_right", _table_index="_table_index_right")
    assert_values(added["stop_time"].to_list(), expected(right, "stop_time"), "stop_time")
    assert_values(added["spike_times"].to_list(), expected(both, "spike_times"), "spike_times")
    with pytest.raises(ColumnNotFoundError, match="_table_index_left"):
        both.nwb.with_columns("spike_times", provenance_suffix="_left")


def test_existing_columns_are_replaced_by_those_of_the_files(thin):
    frame = thin.head(5).with_columns(location=pl.lit(7))
    added = frame.nwb.with_columns("location")
    assert added.columns == frame.columns
    assert_values(added["location"].to_list(), expected(frame, "location"), "location")
    assert_frame_equal(frame.lazy().nwb.with_columns("location").collect(), added)


def test_an_empty_frame_gets_empty_columns(cube, thin):
    assert thin.clear().nwb.with_columns("spike_times").columns[-1] == "spike_times"
    none = lazynwb.scan_nwb(cube, "/units").filter(pl.col("unit_id") == "nobody").drop(ARRAYS)
    lazy = none.nwb.with_columns("spike_times", schema_overrides={"spike_times": pl.List(pl.Float64)})
    assert lazy.collect_schema()["spike_times"] == pl.List(pl.Float64)
    for engine in ENGINES:
        assert lazy.collect(engine=engine).schema == lazy.collect_schema()
        assert none.nwb.with_columns("spike_times").collect(engine=engine).is_empty()


def test_series_and_metadata(cube):
    frame = lazynwb.read_nwb(cube, "/processing/behavior/running_speed").select(*INTERNAL)[[70, 3, 3]]
    added = frame.nwb.with_columns("data", "timestamps")
    assert_late(added, frame, "data", "timestamps")
    subjects = lazynwb.read_nwb(cube, "/general/subject").select(*INTERNAL)
    assert subjects.nwb.with_columns("subject_id")["subject_id"].to_list() == [
        f"mouse-s{k}" for k in range(6)
    ]


# -- costs -------------------------------------------------------------------------------------------------


def chunks_of(frame, name, length):
    """Return the number of chunks of `length` rows or elements that contain the rows of a frame."""
    chunks = set()
    for path, _, row in frame.select(*INTERNAL).iter_rows():
        with h5py.File(path) as file:
            ends = [0, *file[f"units/{name}_index"][:].astype(int)] if f"units/{name}_index" in file else None
        start, stop = (ends[row], ends[row + 1]) if ends else (row, row + 1)
        chunks |= {(path, number) for number in range(start // length, -(-stop // length)) if stop > start}
    return len(chunks)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(("name", "length"), [("spike_times", 256), ("waveform_mean", 4)])
def test_chunks_of_repeated_rows_are_decoded_once(thin, lazy, name, length):
    some = thin.sample(15, seed=2)
    frame = pl.concat([some, some.reverse(), some.sample(200, with_replacement=True, seed=1)], rechunk=False)
    some.nwb.with_columns(name)  # from now on the catalogs are known
    for engine in ENGINES if lazy else ENGINES[:1]:
        with lazynwb.profile() as p:
            if lazy:
                frame.lazy().nwb.with_columns(name).collect(engine=engine)
            else:
                frame.nwb.with_columns(name)
        assert p.chunks_decoded == chunks_of(some, name, length) > 0
        assert p.files_opened == some["_nwb_path"].n_unique()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_lazy_column_is_read_for_the_remaining_rows_of_the_query(cube, engine):
    thin = lazynwb.scan_nwb(cube, "/units").drop(ARRAYS)
    late = thin.nwb.with_columns(*ARRAYS)

    def cost(query):
        with lazynwb.profile() as p:
            frame = query.collect(engine=engine)
        return frame, p.chunks_decoded

    assert cost(late.select("unit_id", "location"))[1] == 0
    assert cost(late.select(pl.len()))[1] == 0
    assert cost(late.drop(ARRAYS).filter(pl.col("presence_ratio") > 0.9))[1] == 0
    chosen = pl.col("unit_id").is_in(["s1_0", "s4_39"])
    frame, chunks = cost(late.filter(chosen).select("unit_id", "waveform_mean"))
    assert (frame["unit_id"].to_list(), chunks) == (["s1_0", "s4_39"], 2)
    assert cost(late.select("waveform_mean").head(3))[1] == 1
    frame, chunks = cost(
        late.filter(pl.col("location") == "CA1", pl.col("spike_times").list.len() > 190).select(
            "waveform_mean"
        )
    )
    rows = lazynwb.read_nwb(cube, "/units").filter(pl.col("location") == "CA1")
    left = rows.filter(pl.col("spike_times").list.len() > 190)
    assert_frame_equal(frame, left.select("waveform_mean"))
    assert chunks == chunks_of(left, "spike_times", 256) + chunks_of(left, "waveform_mean", 4)


def test_with_columns_reads_only_the_predicate_columns_of_a_plan(cube):
    thin = lazynwb.scan_nwb(cube, "/units").filter(pl.col("location") == "CA1").drop(ARRAYS)
    thin.nwb.with_columns("waveform_mean")
    with lazynwb.profile() as p:
        thin.nwb.with_columns("waveform_mean")
    locations = sum(p.bytes_used for p in p.queries if "units" in p.label)
    assert p.chunks_decoded == 0
    with lazynwb.profile() as scanned:
        lazynwb.scan_nwb(cube, "/units").filter(pl.col("location") == "CA1").select(pl.len()).collect()
    assert locations == scanned.bytes_used
    with lazynwb.profile() as p:
        late = thin.nwb.with_columns(
            "waveform_mean", schema_overrides={"waveform_mean": pl.List(pl.List(pl.Float64))}
        )
    assert (p.bytes_used, p.files_parsed, p.cache_hits) == (0, 0, 0)
    assert late.collect()["waveform_mean"].dtype == pl.List(pl.List(pl.Float64))


def test_batches_of_rows_in_order_are_bounded_and_rows_out_of_order_stay_whole(cube, thin, monkeypatch):
    monkeypatch.setattr(lazynwb.config, "batch_bytes", 1)
    ordered = thin.lazy().nwb.with_columns("spike_times")
    mixed = thin.sample(fraction=1, shuffle=True, seed=4)
    assert_late(ordered.collect(), thin, "spike_times")
    with lazynwb.profile() as p:
        added = mixed.lazy().nwb.with_columns("waveform_mean").collect()
    assert_late(added, mixed, "waveform_mean")
    assert p.chunks_decoded == 60


# -- lazy frames in Polars ---------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "query",
    [
        lambda f: f.filter(pl.col("spike_times").list.len() > 50).sort("unit_id"),
        lambda f: f.head(20).filter(pl.col("spike_times").list.len() > 100),
        lambda f: f.filter(pl.col("location") == "CA1").head(5),
        lambda f: f.filter((pl.col("location") == "CA1") | (pl.col("spike_times").list.len() < 20)),
        lambda f: f.tail(7).select("spike_times"),
        lambda f: f.slice(30, 20).select("_table_index", "spike_times"),
        lambda f: f.group_by("location").agg(pl.col("spike_times").list.len().sum()).sort("location"),
        lambda f: f.join(f.select("unit_id", other="spike_times"), on="unit_id").sort("unit_id"),
        lambda f: f.filter(pl.lit(value=False)),
        lambda f: f.select(pl.len()),
        lambda f: f.filter(pl.col("spike_times").is_null()),
    ],
)  # fmt: skip
@pytest.mark.sample(2)
def test_queries_on_late_columns_equal_queries_on_the_scan(cube, engine, query):
    scan = lazynwb.scan_nwb(cube, "/units").select("unit_id", "location", *INTERNAL, "spike_times")
    late = (
        lazynwb.scan_nwb(cube, "/units")
        .select("unit_id", "location", *INTERNAL)
        .nwb.with_columns("spike_times")
    )
    assert_frame_equal(query(late).collect(engine=engine), query(scan).collect())


def test_a_lazy_frame_stays_lazy_and_can_be_sent_to_another_process(cube):
    late = lazynwb.scan_nwb(cube, "/units").drop(ARRAYS).nwb.with_columns("spike_times")
    assert isinstance(late, pl.LazyFrame)
    assert "spike_times of a query's rows" in late.explain()
    assert late.collect_schema().names()[-1] == "spike_times"
    assert_frame_equal(pickle.loads(pickle.dumps(late)).collect(), late.collect())  # noqa: S301 - just made


@pytest.mark.parametrize("engine", ENGINES)
def test_several_queries_at_once(thin, engine):
    frames = [
        thin.sample(100, with_replacement=True, seed=seed).lazy().nwb.with_columns(*ARRAYS)
        for seed in range(4)
    ]
    alone = [frame.collect(engine=engine) for frame in frames]
    together = pl.collect_all(frames * 2, engine=engine)
    found = {}
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: frames[i].collect(engine=engine)}))
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for number, frame in enumerate(alone):
        assert_frame_equal(found[number], frame)
        assert_frame_equal(together[number], frame)
        assert_frame_equal(together[number + 4], frame)


def test_one_thread_is_enough(cube):
    code = """
import sys
import polars as pl
import lazynwb
assert pl.thread_pool_size() == 1
late = lazynwb.scan_nwb(sys.argv[1:], "/units").drop("spike_times").nwb.with_columns("spike_times")
late = late.join(late.select("unit_id", "location"), on="unit_id").nwb.with_columns("waveform_mean")
print(*[late.collect(engine=engine).height for engine in ("in-memory", "streaming")])
"""
    assert run_child(code, *cube, POLARS_MAX_THREADS="1").split() == ["240", "240"]


@pytest.mark.parametrize("engine", ENGINES)
def test_an_error_in_a_lazy_query_keeps_its_type(tmp_path, engine):
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        table(file, "t", {"x": [1, 2], "y": Column(np.arange(2.0), {"chunks": (2,), **GZIP})})
        where = file["t/y"].id.get_chunk_info(0)
    late = lazynwb.scan_nwb(tmp_path / "a.nwb", "/t").select("x", *INTERNAL).nwb.with_columns("y")
    with (tmp_path / "a.nwb").open("r+b") as raw:
        raw.seek(where.byte_offset)
        raw.write(b"\xff" * where.size)
    with pytest.raises(LazyNWBError, match=r"a\.nwb.*'?y'?"):
        late.collect(engine=engine)


# -- files that differ -------------------------------------------------------------------------------------


def write(path, **columns):
    with h5py.File(path, "w") as file:
        table(file, "t", columns)
    return path


def rows_of(*paths):
    return pl.DataFrame(
        {"_nwb_path": [str(path) for path in paths], "_table_path": "t", "_table_index": 0},
        schema_overrides=INTERNAL,
    )


def test_types_that_differ_widen(tmp_path):
    one = write(tmp_path / "1.nwb", x=np.array([3], "i4"), y=np.zeros((1, 2)), k=["a"])
    two = write(tmp_path / "2.nwb", x=np.array([0.5]), y=np.ones((1, 3)), k=np.array([1]))
    frame = rows_of(two, one).nwb.with_columns("x", "y")
    assert dict(frame.schema) == {**INTERNAL, "x": pl.Float64, "y": pl.List(pl.Float64)}
    assert frame["x"].to_list() == [0.5, 3.0]
    assert frame["y"].to_list() == [[1.0] * 3, [0.0] * 2]
    for kind in (rows_of(one, two), rows_of(one, two).lazy()):
        with pytest.raises(SchemaError, match=r"(?s)'k'.*1\.nwb.*2\.nwb"):
            kind.nwb.with_columns("k")
    chosen = rows_of(one, two).nwb.with_columns("x", "k", schema_overrides={"k": pl.String})
    assert chosen["k"].to_list() == ["a", "1"]


def test_a_missing_column_is_null_or_an_error(tmp_path):
    one, two = write(tmp_path / "1.nwb", x=[1]), write(tmp_path / "2.nwb", x=[2], extra=[5])
    frame = rows_of(one, two, one)
    for kind in (frame, frame.lazy()):
        added = kind.nwb.with_columns("extra").lazy().collect()
        assert added["extra"].to_list() == [None, 5, None]
        assert lazynwb.merge_array_column(kind, "extra").lazy().collect()["extra"].to_list() == [
            None,
            5,
            None,
        ]
        with pytest.raises(ColumnNotFoundError, match=r"'extra' in /t of .*1\.nwb"):
            kind.nwb.with_columns("extra", missing_ok=False)
        with pytest.raises(ColumnNotFoundError, match=r"'extra' in /t of .*1\.nwb"):
            lazynwb.merge_array_column(kind, "extra", missing_ok=False)
    unlooked = frame.lazy().nwb.with_columns("extra", missing_ok=False, schema_overrides={"extra": pl.Int64})
    with pytest.raises(ColumnNotFoundError, match=r"1\.nwb"):
        unlooked.collect()
    assert unlooked.filter(pl.col("_nwb_path") == str(two)).collect()["extra"].to_list() == [5]


@pytest.mark.parametrize("lazy", [False, True])
def test_a_column_that_no_file_has_is_an_error_with_the_closest_names(thin, lazy):
    frame = thin.lazy() if lazy else thin
    with pytest.raises(ColumnNotFoundError, match=r"no column 'spike_time' .* did you mean 'spike_times'"):
        frame.nwb.with_columns("spike_time")


@pytest.mark.parametrize("lazy", [False, True])
def test_merge_array_column_returns_the_frame_unchanged_with_a_warning(thin, lazy, caplog):
    frame = thin.lazy() if lazy else thin
    assert_frame_equal(lazynwb.merge_array_column(frame, "spike_time").lazy().collect(), thin)
    assert "spike_times" in caplog.text
    with pytest.raises(ColumnNotFoundError, match="spike_times"):
        lazynwb.merge_array_column(frame, "spike_time", False)  # noqa: FBT003 - positional in existing code


@pytest.mark.parametrize("lazy", [False, True])
def test_invalid_provenance_is_an_error(thin, lazy):
    frame = thin.head(2)

    def add(**columns):
        changed = frame.with_columns(**{name: pl.lit(value) for name, value in columns.items()})
        return (changed.lazy() if lazy else changed).nwb.with_columns("spike_times").lazy().collect()

    with pytest.raises(LazyNWBError, match=r"session_00\.nwb: /units has no row 40"):
        add(_table_index=40)
    with pytest.raises(LazyNWBError, match="no row -1"):
        add(_table_index=-1)
    with pytest.raises(LazyNWBError, match="fractions"):
        add(_table_index=0.5)
    with pytest.raises(TableNotFoundError, match="did you mean /units"):
        add(_table_path="unit")
    with pytest.raises(SourceNotFoundError, match="nowhere"):
        add(_nwb_path="/nowhere/a.nwb")


@pytest.mark.parametrize("column", INTERNAL)
def test_a_frame_without_one_of_the_three_columns_is_an_error(thin, column):
    for frame in (thin, thin.lazy(), thin.to_pandas()):
        cut = frame.drop(columns=column) if isinstance(frame, pd.DataFrame) else frame.drop(column)
        with pytest.raises(ColumnNotFoundError, match=f"no column {column}: keep"):
            lazynwb.merge_array_column(cut, "spike_times")
        with pytest.raises(ColumnNotFoundError, match=column):
            lazynwb.merge_array_column(frame, column)


def test_other_objects_than_frames_are_type_errors():
    with pytest.raises(TypeError, match="list"):
        lazynwb.merge_array_column([], "x")


# -- pandas ------------------------------------------------------------------------------------------------


def test_a_pandas_frame_keeps_its_index(cube, thin):
    frame = lazynwb.get_df(cube, "units").set_index("unit_id").iloc[[70, 3, 3, 200]]
    before = frame.copy()
    added = lazynwb.merge_array_column(frame, "spike_times")
    assert isinstance(added, pd.DataFrame)
    assert added.index.tolist() == ["s1_30", "s0_3", "s0_3", "s5_0"]
    rows = thin[[70, 3, 3, 200]]
    assert_values(
        [row.tolist() for row in added["spike_times"]], expected(rows, "spike_times"), "spike_times"
    )
    pd.testing.assert_frame_equal(frame, before)
    pd.testing.assert_frame_equal(added.drop(columns="spike_times"), before)
    waveforms = lazynwb.merge_array_column(added, "waveform_mean")["waveform_mean"]
    assert np.array(waveforms.iloc[0]).shape == (21, 8)
    assert_values(
        [np.array(row).tolist() for row in waveforms], expected(rows, "waveform_mean"), "waveform_mean"
    )


def test_rows_of_a_pandas_join_without_provenance(cube):
    frame = pd.DataFrame({"unit_id": ["none", "s2_3"]}).merge(lazynwb.get_df(cube, "units"), how="left")
    assert frame["_table_index"].dtype.kind == "f"
    added = lazynwb.merge_array_column(frame, "spike_times")
    assert added["spike_times"].isna().tolist() == [True, False]
    assert added["spike_times"][1].tolist() == read_table(cube[2], "units").columns["spike_times"][3]
    assert math.isnan(lazynwb.merge_array_column(frame, "activity_drift")["activity_drift"][0])


def test_an_empty_pandas_frame(cube):
    frame = lazynwb.get_df(cube, "units").iloc[:0]
    assert lazynwb.merge_array_column(frame, "spike_times").columns[-1] == "spike_times"


# -- other sources -----------------------------------------------------------------------------------------


def test_remote_files(cube, thin):
    with RangeServer(cube[0].parent) as server:
        urls = {str(path): server.url_of(path.name) for path in cube}
        frame = thin.sample(30, seed=5).with_columns(pl.col("_nwb_path").replace(urls))
        local = {url: path for path, url in urls.items()}
        for kind in (frame, frame.lazy()):
            added = (
                kind.nwb.with_columns("spike_times", storage_options={"headers": {"x": "y"}}).lazy().collect()
            )
            here = frame.with_columns(pl.col("_nwb_path").replace(local))
            assert_values(added["spike_times"].to_list(), expected(here, "spike_times"), "spike_times")
        with lazynwb.profile() as p:
            frame.filter(pl.col("unit_id") == frame["unit_id"][0]).nwb.with_columns("waveform_mean")
        assert p.chunks_decoded == 1


def test_zarr_stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("twins")
    unpack(ARCHIVE, folder, ["compressed_table."])
    original = next(folder.rglob("compressed_table.nwb"))
    path = next(name for name in oracle.tables(original) if oracle.read_table(original, name).rows > 1)
    columns = oracle.read_table(original, path).columns
    names = list(columns)[:6]
    stores = [store for store in folder.rglob("compressed_table*.zarr") if store.is_dir()]
    assert stores
    for store in [original, *stores]:
        rows = lazynwb.read_nwb(store, path).select(*INTERNAL).reverse()
        added = rows.nwb.with_columns(names)
        for name in names:
            assert_values(added[name].to_list(), columns[name][::-1], name)


def test_names_of_files_that_look_like_patterns(tmp_path):
    odd = write(tmp_path / "a[1]?.nwb", x=[7])
    write(tmp_path / "a1b.nwb", x=[8])
    assert rows_of(odd).nwb.with_columns("x")["x"].to_list() == [7]


# -- random frames -----------------------------------------------------------------------------------------


@st.composite
def tables(draw):
    """Up to three files of one table; each column may be missing from some."""
    made = []
    for _ in range(draw(st.integers(1, 3))):
        rows = draw(st.integers(1, 9))
        lengths = draw(st.lists(st.integers(0, 5), min_size=rows, max_size=rows))
        options = draw(
            st.sampled_from(
                [{}, {"chunks": (3,), "maxshape": (None,), **GZIP}, {"chunks": (1,), "maxshape": (None,)}]
            )
        )
        columns = {
            "flat": Column(np.arange(rows) * draw(st.integers(1, 9)), options),
            "ragged": Ragged([np.arange(n) / 2 + n for n in lengths], options=options),
            "deep": Ragged([[np.arange(m) for m in range(n)] for n in lengths], dtype="i4", depth=2),
            "text": [f"{n}ü" for n in lengths],
        }
        kept = draw(st.sets(st.sampled_from(sorted(columns)), min_size=1))
        made.append((rows, {name: column for name, column in columns.items() if name in kept}))
    return made


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(tables(), st.data())
def test_rows_in_any_order_with_repeats_and_nulls_over_files_with_ragged_columns(made, data):
    with tempfile.TemporaryDirectory() as folder:
        paths = [write(Path(folder) / f"{number}.nwb", **columns) for number, (_, columns) in enumerate(made)]
        chosen = [
            (number, data.draw(st.integers(0, made[number][0] - 1)))
            for number in data.draw(st.lists(st.integers(0, len(made) - 1), max_size=12))
        ]
        absent = data.draw(st.sets(st.integers(0, 11), max_size=4))
        frame = pl.DataFrame(
            {
                "_nwb_path": [None if i in absent else str(paths[n]) for i, (n, _) in enumerate(chosen)],
                "_table_path": ["t"] * len(chosen),
                "_table_index": [row for _, row in chosen],
            },
            schema=INTERNAL,
        )
        present = {n for i, (n, _) in enumerate(chosen) if i not in absent}
        names = [
            name for name in ("ragged", "deep", "flat", "text") if any(name in made[n][1] for n in present)
        ]
        stored = [oracle.read_table(path, "/t").columns for path in paths]
        added = frame.nwb.with_columns(names)
        lazy = frame.lazy().nwb.with_columns(names)
        for engine in ENGINES:
            assert_frame_equal(lazy.collect(engine=engine), added)
        for name in names:
            wanted = [
                None if i in absent or name not in stored[n] else stored[n][name][row]
                for i, (n, row) in enumerate(chosen)
            ]
            assert_values(added[name].to_list(), wanted, name)
