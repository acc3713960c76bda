"""What Polars does with a scan: pushdown, engines, threads, pickling; and what a source may be."""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cloudpickle
import h5py
import numpy as np
import polars as pl
import pytest
from builders import Column, Ragged, table, write_session
from checks import ENGINES, assert_frames, run_child

import lazynwb

engines = pytest.mark.parametrize("engine", ENGINES)


@pytest.fixture(scope="module")
def units(cube):
    """The whole table, read once: every lazy result is compared with the same query on it."""
    return lazynwb.read_nwb(cube, "/units")


# --- the notebook ----------------------------------------------------------------------------------------------------

GOOD_UNITS = (
    pl.col("location").str.starts_with("CA1"),
    pl.col("activity_drift") <= 0.01,
    pl.col("amplitude_cutoff") <= 0.1,
    pl.col("presence_ratio") >= 0.7,
    pl.col("isi_violations_ratio") <= 0.5,
    pl.col("decoder_label") != "noise",
)


@engines
def test_the_units_query_of_the_notebook(cube, units, engine):
    names = ["unit_id", "location", "spike_times", "_nwb_path"]
    lf = lazynwb.scan_nwb(cube, table_path="/units", infer_schema_length=1)
    assert_frames(
        lf.filter(*GOOD_UNITS).select(names).collect(engine=engine), units.filter(*GOOD_UNITS).select(names)
    )


@engines
def test_the_performance_query_of_the_notebook(cube, engine):
    def query(scan):
        return (
            scan("/intervals/performance")
            .join(scan("/general").select("_nwb_path", "keywords", "session_id"), on="_nwb_path", how="left")
            .join(scan("/general/subject").select("_nwb_path", "subject_id"), on="_nwb_path", how="left")
            .filter(
                pl.col("keywords").list.contains("production"),
                pl.col("signed_cross_modality_dprime").drop_nans().mean().over("session_id") > 2.0,
            )
            .with_columns((pl.col("stop_time") - pl.col("start_time")).alias("block_duration"))
            .select(
                "block_index", "block_duration", "signed_cross_modality_dprime", "subject_id", "_nwb_path"
            )
            .sort("_nwb_path", "block_index")
        )

    lazy = query(lambda path: lazynwb.scan_nwb(cube, table_path=path, infer_schema_length=1)).collect(
        engine=engine
    )
    eager = query(lambda path: lazynwb.read_nwb(cube, path, infer_schema_length=1).lazy()).collect()
    assert_frames(lazy, eager)
    assert 0 < lazy.height < 30
    assert str(cube[3]) not in lazy["_nwb_path"]


# --- pushdown --------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::polars.exceptions.PolarsInefficientMapWarning")
@engines
@pytest.mark.parametrize(
    "predicate",
    [
        pl.col("presence_ratio") > 0.8,
        pl.col("amplitude_cutoff").is_nan(),
        (pl.col("presence_ratio") > 0.8) & (pl.col("location") == "CA1"),
        (pl.col("presence_ratio") > 0.9) | (pl.col("location") == "CA1"),
        pl.col("spike_times").list.len() > 100,
        (pl.col("spike_times").list.len() > 100) & (pl.col("location") == "CA1"),
        pl.col("location").is_in(["CA1", "LP"]) & ~(pl.col("decoder_label") == "noise"),
        pl.col("presence_ratio") > pl.col("isi_violations_ratio"),
        pl.col("presence_ratio") > pl.col("presence_ratio").mean(),
        pl.col("activity_drift") == pl.col("activity_drift").max(),
        pl.col("id").cum_sum() < 30,
        pl.col("activity_drift").rank() <= 5,
        pl.col("presence_ratio").mean().over("location") > 0.6,
        pl.col("id").shift(1) == 3,
        pl.col("unit_id").map_elements(lambda text: text.endswith("7"), return_dtype=pl.Boolean),
        pl.col("_table_index") % 7 == 0,
        pl.lit(True),
        pl.lit(False),
        pl.lit(None, dtype=pl.Boolean),
    ],
    ids=str,
)
def test_a_predicate_gives_what_it_gives_in_memory(cube, units, engine, predicate):
    lazy = lazynwb.scan_nwb(cube, "/units").filter(predicate).select("unit_id", "spike_times")
    assert_frames(lazy.collect(engine=engine), units.filter(predicate).select("unit_id", "spike_times"))


QUERIES_OF_A_FRAME = {
    "row index": lambda f: f.with_row_index().filter(pl.col("location") == "CA1"),
    "row index after": lambda f: f.filter(pl.col("location") == "CA1").with_row_index(),
    "sort head": lambda f: f.sort("activity_drift").head(4),
    "top k": lambda f: f.top_k(4, by="presence_ratio"),
    "reverse": lambda f: f.drop("waveform_mean", "obs_intervals").reverse().filter(pl.col("id") > 30),
    "every third": lambda f: f.gather_every(3),
    "unique": lambda f: f.unique("location", keep="first", maintain_order=True),
    "last": lambda f: f.last(),
    "explode": lambda f: f.filter(pl.col("id") < 3).explode("spike_times"),
    "rename then filter": lambda f: f.rename({"location": "area"}).filter(pl.col("area") == "LP"),
    "new column then filter": lambda f: f.with_columns(x=pl.col("id") * 2).filter(
        pl.col("x") > 50, pl.col("location") == "LP"
    ),
    "overwritten column": lambda f: f.with_columns(id=pl.col("id") + 1000).filter(pl.col("id") < 1010),
    "drop": lambda f: f.drop("waveform_mean", "spike_times", "_nwb_path").filter(pl.col("id") > 20),
    "two filters": lambda f: (
        f.filter(pl.col("id") > 5).head(40).filter(pl.col("location") != "CA1").slice(2, 9)
    ),
    "no columns": lambda f: f.filter(pl.col("id") > 5).select(pl.lit(1).alias("one")),
    "list to scalar": lambda f: f.select(pl.col("spike_times").list.first(), "id").filter(
        pl.col("spike_times") > 5
    ),
    "null rows": lambda f: f.filter(pl.col("unit_id").is_null()),
    "selectors": lambda f: f.select(pl.selectors.float() | pl.selectors.starts_with("_")),
}


@engines
@pytest.mark.parametrize("name", QUERIES_OF_A_FRAME)
def test_a_query_gives_what_it_gives_in_memory(cube, units, engine, name):
    query = QUERIES_OF_A_FRAME[name]
    assert_frames(
        query(lazynwb.scan_nwb(cube, "/units")).collect(engine=engine), query(units.lazy()).collect()
    )


@engines
def test_predicates_on_struct_fields(built, engine):
    frame = lazynwb.read_nwb(built("compounds"), "t")
    lf = lazynwb.scan_nwb(built("compounds"), "t")
    for predicate in (
        pl.col("one_reference").struct.field("count") > 2,
        pl.col("one_reference").struct.field("timeseries") == "/acquisition/raw",
        pl.col("pixel_mask").list.first().struct.field("weight") < 0.4,
    ):
        assert_frames(lf.filter(predicate).collect(engine=engine), frame.filter(predicate))
        assert frame.filter(predicate).height == 1


@engines
def test_an_error_in_a_predicate_keeps_its_type(cube, engine):
    with pytest.raises(pl.exceptions.InvalidOperationError):
        lazynwb.scan_nwb(cube, "/units").filter(pl.col("location").cast(pl.Int64) > 1).collect(engine=engine)
    with pytest.raises(pl.exceptions.ColumnNotFoundError):
        lazynwb.scan_nwb(cube, "/units").filter(pl.col("no_such_column") > 1).collect(engine=engine)


@engines
def test_a_limit_before_a_filter_limits_first(cube, units, engine):
    predicate = pl.col("location") == "CA1"
    lf = lazynwb.scan_nwb(cube, "/units").select("unit_id", "location", "spike_times")
    eager = units.select("unit_id", "location", "spike_times")
    assert_frames(lf.head(50).filter(predicate).collect(engine=engine), eager.head(50).filter(predicate))
    assert_frames(lf.filter(predicate).head(50).collect(engine=engine), eager.filter(predicate).head(50))
    assert_frames(
        lf.head(60).filter(predicate).head(3).collect(engine=engine), eager.head(60).filter(predicate).head(3)
    )
    assert_frames(
        lf.slice(35, 20).filter(predicate).collect(engine=engine), eager.slice(35, 20).filter(predicate)
    )
    assert_frames(lf.tail(7).collect(engine=engine), eager.tail(7))


@engines
def test_columns_come_in_the_order_that_was_asked_for(cube, units, engine):
    names = ["_table_index", "spike_times", "id", "_nwb_path", "activity_drift"]
    assert_frames(lazynwb.scan_nwb(cube, "/units").select(names).collect(engine=engine), units.select(names))


@engines
def test_rows_come_in_the_order_of_the_sources(cube, engine):
    backwards = cube[::-1]
    frame = lazynwb.scan_nwb(backwards, "/units").select("_nwb_path", "_table_index").collect(engine=engine)
    assert list(dict.fromkeys(frame["_nwb_path"])) == [str(path) for path in backwards]
    assert frame["_table_index"].to_list() == list(range(40)) * 6


@engines
def test_counting_rows_reads_no_data(cube, engine):
    lf = lazynwb.scan_nwb(cube, "/units")
    assert lf.select(pl.len()).collect(engine=engine).item() == 240
    with lazynwb.profile() as p:
        assert lf.select(pl.len()).collect(engine=engine).item() == 240
    assert p.bytes_read == 0


@engines
def test_counting_the_rows_of_a_filter_reads_its_columns_only(cube, units, engine):
    lf = lazynwb.scan_nwb(cube, "/units")
    predicate = pl.col("presence_ratio") > 0.8
    lf.select(pl.len()).collect()
    with lazynwb.profile() as p:
        assert (
            lf.filter(predicate).select(pl.len()).collect(engine=engine).item()
            == units.filter(predicate).height
        )
    assert p.bytes_read <= 6 * 16 * 1024


@engines
def test_a_filter_on_the_path_drops_files_unread(cube, engine):
    lf = lazynwb.scan_nwb(cube, "/units")
    lf.select(pl.len()).collect()
    for predicate in (
        pl.col("_nwb_path") == str(cube[2]),
        pl.col("_nwb_path").str.ends_with("session_02.nwb"),
        (pl.col("location") == "CA1") & pl.col("_nwb_path").str.contains("session_02"),
    ):
        with lazynwb.profile() as p:
            frame = lf.filter(predicate).select("unit_id", "_nwb_path").collect(engine=engine)
        assert set(frame["_nwb_path"]) == {str(cube[2])}
        assert p.files_skipped == 5


def test_a_streaming_head_stops_after_a_few_rows(tmp_path):
    """Polars asks for two or three batches before it stops, so the first ones have to be small."""
    paths = [write_session(tmp_path / f"{k:02}.nwb", k, units=100) for k in range(30)]
    lf = lazynwb.scan_nwb(paths, "/units", infer_schema_length=1).select(
        "unit_id", "presence_ratio", "spike_times", "waveform_mean"
    )
    with lazynwb.profile() as everything:
        lf.collect()
    for query in (
        lf,
        lf.filter(pl.col("presence_ratio") > 0.5),
        lf.filter(pl.col("spike_times").list.len() > 3),
    ):
        with lazynwb.profile() as p:
            frame = query.head(5).collect(engine="streaming")
        assert frame.height == 5
        assert p.bytes_read < everything.bytes_read / 3


def test_heavy_columns_are_read_for_the_survivors_only(cube):
    lf = lazynwb.scan_nwb(cube, "/units")
    lf.select("waveform_mean").head(1).collect()
    with lazynwb.profile() as everything:
        lf.select("waveform_mean", "unit_id").collect()
    with lazynwb.profile() as p:
        frame = lf.filter(pl.col("unit_id") == "s3_20").select("waveform_mean", "unit_id").collect()
    assert frame.height == 1
    assert p.chunks_decoded <= 1
    assert p.bytes_read < everything.bytes_read / 3


def test_a_predicate_is_evaluated_after_casts_and_after_missing_columns_are_filled(tmp_path):
    paths = [tmp_path / "a.nwb", tmp_path / "b.nwb"]
    for path, columns in zip(
        paths, ({"x": np.array([1, 2, 3])}, {"x": np.array([2.5]), "y": np.array([7])}), strict=True
    ):
        with h5py.File(path, "w") as file:
            table(file, "t", columns)
    lf = lazynwb.scan_nwb(paths, "t")
    for engine in ENGINES:
        assert lf.filter(pl.col("x") / 2 > 1.2).collect(engine=engine)["x"].to_list() == [3.0, 2.5]
        assert lf.filter(pl.col("y").is_null()).collect(engine=engine).height == 3
        assert lf.filter(pl.col("y").fill_null(9) == 9).collect(engine=engine).height == 3


# --- engines, threads, processes -------------------------------------------------------------------------------------


def test_the_engines_agree(cube, units):
    lf = lazynwb.scan_nwb(cube, "/units")
    assert_frames(lf.collect(engine="streaming"), units)
    assert_frames(lf.collect(engine="in-memory"), units)


@engines
def test_aggregations_and_sorts(cube, units, engine):
    def query(frame):
        return frame.group_by("location").agg(
            pl.len(), pl.col("presence_ratio").mean().round(9), pl.col("spike_times").list.len().sum().alias("n")
        ).sort("location")  # fmt: skip

    assert_frames(
        query(lazynwb.scan_nwb(cube, "/units")).collect(engine=engine), query(units.lazy()).collect()
    )


@engines
def test_two_scans_in_one_query(cube, engine):
    units = lazynwb.scan_nwb(cube, "/units").select("unit_id", "_nwb_path")
    trials = lazynwb.scan_nwb(cube, "/intervals/trials").group_by("_nwb_path").agg(pl.len().alias("trials"))
    frame = units.join(trials, on="_nwb_path", maintain_order="left").collect(engine=engine)
    assert frame["trials"].to_list() == [30] * 240
    twice = pl.concat([units, units]).collect(engine=engine)
    assert twice.height == 480
    itself = units.join(units, on=["unit_id", "_nwb_path"]).collect(engine=engine)
    assert itself.height == 240


def test_collect_all(cube, units):
    lf = lazynwb.scan_nwb(cube, "/units")
    first, second = pl.collect_all(
        [lf.select("unit_id"), lf.filter(pl.col("location") == "LP").select("spike_times")]
    )
    assert_frames(first, units.select("unit_id"))
    assert_frames(second, units.filter(pl.col("location") == "LP").select("spike_times"))


def test_threads(cube, units):
    def work(number):
        location = ("CA1", "LP", "VISp", "CA3")[number % 4]
        lf = (
            lazynwb.scan_nwb(cube, "/units")
            .filter(pl.col("location") == location)
            .select("unit_id", "spike_times")
        )
        return location, lf.collect(engine=ENGINES[number % 2])

    with ThreadPoolExecutor(8) as pool:
        for location, frame in pool.map(work, range(24)):
            assert_frames(
                frame, units.filter(pl.col("location") == location).select("unit_id", "spike_times")
            )


def test_one_frame_collected_by_many_threads(cube, units):
    lf = lazynwb.scan_nwb(cube, "/units")
    with ThreadPoolExecutor(6) as pool:
        for frame in pool.map(lambda _: lf.collect(), range(12)):
            assert_frames(frame, units)


def test_collect_async(cube, units):
    async def both():
        lf = lazynwb.scan_nwb(cube, "/units")
        return await asyncio.gather(
            lf.select("unit_id").collect_async(), lf.select("spike_times").collect_async()
        )

    first, second = asyncio.run(both())
    assert_frames(first, units.select("unit_id"))
    assert_frames(second, units.select("spike_times"))


def test_collect_inside_a_running_event_loop(cube):
    async def inside():
        return lazynwb.scan_nwb(cube, "/units").select("unit_id").collect()

    assert asyncio.run(inside()).height == 240


def test_collect_batches(cube, units):
    frames = list(lazynwb.scan_nwb(cube, "/units").select("unit_id", "spike_times").collect_batches())
    assert_frames(pl.concat(frames), units.select("unit_id", "spike_times"))


def test_sink_parquet(cube, units, tmp_path):
    names = ["unit_id", "spike_times", "obs_intervals", "_nwb_path"]
    lazynwb.scan_nwb(cube, "/units").select(names).sink_parquet(tmp_path / "x.parquet", row_group_size=512)
    assert_frames(pl.read_parquet(tmp_path / "x.parquet"), units.select(names))


@engines
def test_a_pickled_scan_gives_the_same(cube, units, engine):
    lf = lazynwb.scan_nwb(cube, "/units").filter(pl.col("location") == "CA1").select("unit_id", "spike_times")
    again = cloudpickle.loads(cloudpickle.dumps(lf))
    assert_frames(
        again.collect(engine=engine),
        units.filter(pl.col("location") == "CA1").select("unit_id", "spike_times"),
    )


def test_a_pickled_scan_works_in_another_process(cube, tmp_path):
    (tmp_path / "lf.pkl").write_bytes(cloudpickle.dumps(lazynwb.scan_nwb(cube, "/units").select("unit_id")))
    code = "import sys, pickle, pathlib; print(pickle.loads(pathlib.Path(sys.argv[1]).read_bytes()).collect().height)"
    assert run_child(code, tmp_path / "lf.pkl").strip() == "240"


def test_explain_names_the_table_and_the_number_of_files(cube):
    plan = lazynwb.scan_nwb(cube, "/intervals/trials").filter(pl.col("block_index") == 1).explain()
    assert "intervals/trials" in plan
    assert "6" in plan


def test_making_a_scan_reads_the_schema_of_few_files(cube):
    with lazynwb.profile() as p:
        schema = lazynwb.scan_nwb(cube, "/units", infer_schema_length=1).collect_schema()
    assert "spike_times" in schema
    assert p.files_opened <= 2


# --- nothing is held -------------------------------------------------------------------------------------------------

OPEN_FILES = """
import os, sys, time
import polars as pl, lazynwb

def nwb_files():
    links = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            pass
    return [link for link in links if link.endswith(".nwb")]

paths = sys.argv[1:]
lf = lazynwb.scan_nwb(paths, "/units")
"""


QUERIES = [
    "lf.filter(pl.col('presence_ratio') > 0.5).select('unit_id', 'spike_times').head(3).collect(engine='streaming')",
    "lf.head(3).collect(engine='streaming')",
    "lf.head(3).collect(engine='in-memory')",
    "lf.select('waveform_mean').collect()",
    "next(iter(lf.select('spike_times').collect_batches(chunk_size=3)))",
]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc")
@pytest.mark.parametrize("query", QUERIES)
def test_no_file_stays_open(cube, query):
    """After a query, and while Polars still holds the generator; the batch in hand may be finished first."""
    code = f"""{OPEN_FILES}
result = {query}
assert result.height > 0
deadline = time.monotonic() + 5
while nwb_files() and time.monotonic() < deadline:
    time.sleep(0.01)
assert nwb_files() == [], nwb_files()
print('ok')
"""
    assert run_child(code, *cube).strip() == "ok"


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("repeat", range(3))
def test_head_then_exit(cube, query, repeat):
    """The process exits cleanly, whatever Polars still holds or is still doing."""
    assert run_child(f"{OPEN_FILES}\nresult = {query}\nprint('ok')", *cube, timeout=30).strip() == "ok"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc")
def test_more_files_than_a_process_may_open(tmp_path):
    for number in range(150):
        with h5py.File(tmp_path / f"{number:03}.nwb", "w") as file:
            columns = {
                "x": Ragged([[1.0, 2.0]]),
                "n": Column(np.array([number]), {"chunks": (1,), "compression": 1}),
            }
            table(file, "t", columns)
    code = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))  # the default of macOS
import lazynwb, polars as pl
lf = lazynwb.scan_nwb(sys.argv[1], "t")
for engine in ("streaming", "in-memory"):
    for frame in pl.collect_all([lf.filter(pl.col("n") >= k) for k in range(8)] + [lf] * 8, engine=engine):
        assert frame.height >= 143
    assert lf.collect(engine=engine)["n"].to_list() == list(range(150))
print("ok")
"""
    assert run_child(code, tmp_path).strip() == "ok"


def test_a_file_that_is_open_elsewhere(cube, tmp_path):
    """The user's own h5py handle, for reading or for writing, does not change what is read."""
    path = tmp_path / "a.nwb"
    path.write_bytes(cube[0].read_bytes())
    for mode in ("r", "r+"):
        with h5py.File(path, mode) as file:
            assert file["units/id"].shape == (40,)
            assert lazynwb.read_nwb(path, "/units").height == 40
            lazynwb.clear_cache()
            assert file["units/id"].shape == (40,)


def test_no_threads_keep_the_process_alive(cube):
    assert run_child(f"{OPEN_FILES}\nlf.collect()\nprint('done')", *cube, timeout=30).strip() == "done"


def test_nothing_is_printed(cube):
    code = (
        f"{OPEN_FILES}\nlf.collect()\nlazynwb.get_sql_context(paths).execute('SELECT * FROM units').collect()"
    )
    assert run_child(code, *cube) == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_after_a_fork(cube):
    """Multiprocessing by fork, as PyTorch's data loaders do it: the child scans without hanging."""
    code = f"""{OPEN_FILES}
import multiprocessing
def work(path):
    return lazynwb.get_table_schema(path, "/units").len(), len(list(lazynwb.get_internal_paths(path)))
work(paths[0])
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(len(pool.map(work, paths)))
"""
    assert run_child(code, *cube, timeout=60).strip() == "6"


def test_spawned_processes(cube):
    code = """
import sys, multiprocessing, functools
import lazynwb
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        frames = pool.map(functools.partial(lazynwb.read_nwb, table_path="/units", disable_progress=True), sys.argv[1:])
    print(sum(frame.height for frame in frames))
"""
    assert run_child(code, *cube, timeout=120).strip() == "240"


def test_importing_leaves_heavy_packages_alone():
    code = """
import sys, lazynwb
print(sorted({"pandas", "pyarrow", "pynwb", "hdmf", "zarr", "h5py", "matplotlib"} & set(sys.modules)))
"""
    assert run_child(code).strip() == "[]"


def test_an_exception_keeps_its_type(cube, tmp_path):
    path = write_session(tmp_path / "soon gone.nwb", 1)
    lf = lazynwb.scan_nwb([cube[0], path], "/units")
    lf.collect_schema()
    path.unlink()
    for engine in ENGINES:
        with pytest.raises(FileNotFoundError, match="soon gone"):
            lf.collect(engine=engine)


# --- sources ---------------------------------------------------------------------------------------------------------


def heights(source, **options):
    return lazynwb.scan_nwb(source, "/units", **options).select(pl.len()).collect().item()


def test_one_path_in_every_form(cube):
    path = cube[0]
    for source in (path, str(path), [path], (str(path),), path.as_uri(), [path.as_uri()], iter([path])):
        assert heights(source) == 40


def test_many_paths_in_every_form(cube):
    assert heights(cube) == 240
    assert heights(tuple(map(str, cube))) == 240
    assert heights(path for path in cube) == 240
    assert heights({str(path): None for path in cube}.keys()) == 240
    assert heights(pl.Series([str(path) for path in cube])) == 240
    assert heights(np.array([str(path) for path in cube])) == 240
    assert heights([cube[0], str(cube[1]), cube[2].as_uri()]) == 120
    assert heights([cube[0], cube[0]]) == 80


def test_a_glob(cube):
    assert heights(str(cube[0].parent / "*.nwb")) == 240
    assert heights(str(cube[0].parent / "session_0[0-2].nwb")) == 120
    assert heights(cube[0].parent / "session_?4.nwb") == 40


def test_a_folder_is_searched_recursively_in_sorted_order(tmp_path):
    for name in ("b.nwb", "a/z.nwb", "a/b/c.nwb", "C.nwb"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_session(tmp_path / name, 1, units=3)
    (tmp_path / "notes.txt").write_text("not an NWB file")
    (tmp_path / "a" / "data.csv").write_text("1,2")
    frame = lazynwb.read_nwb(tmp_path, "/units")
    assert frame.height == 12
    assert list(dict.fromkeys(frame["_nwb_path"])) == sorted(
        str(tmp_path / name) for name in ("b.nwb", "a/z.nwb", "a/b/c.nwb", "C.nwb")
    )
    assert lazynwb.read_nwb(str(tmp_path), "/units").height == 12


def test_a_universal_path(cube):
    upath = pytest.importorskip("upath")
    assert heights(upath.UPath(cube[0])) == 40
    assert heights([upath.UPath(path) for path in cube]) == 240
    assert heights(upath.UPath(cube[0].as_uri())) == 40


def test_paths_that_need_quoting(tmp_path):
    names = [
        "with space.nwb",
        "100%.nwb",
        "per%20cent.nwb",
        "hash#1.nwb",
        "ünï.nwb",
        "q?.nwb",
        "[1].nwb",
        "a'b\".nwb",
    ]
    paths = [write_session(tmp_path / name, k, units=2) for k, name in enumerate(names)]
    frame = lazynwb.read_nwb(paths, "/units")
    assert list(dict.fromkeys(frame["_nwb_path"])) == [str(path) for path in paths]
    assert lazynwb.read_nwb([path.as_uri() for path in paths], "/units")["unit_id"].equals(frame["unit_id"])
    assert [heights(str(path)) for path in paths] == [2] * len(paths)


def test_relative_paths_become_absolute(cube, monkeypatch):
    monkeypatch.chdir(cube[0].parent)
    frame = lazynwb.read_nwb(cube[0].name, "/units")
    assert frame["_nwb_path"].unique().to_list() == [str(cube[0])]
    lf = lazynwb.scan_nwb(["session_00.nwb", "./session_01.nwb"], "/units")
    monkeypatch.chdir("/")
    assert lf.collect().height == 80


def test_home_is_expanded(cube, monkeypatch):
    monkeypatch.setenv("HOME", str(cube[0].parent))
    monkeypatch.setenv("USERPROFILE", str(cube[0].parent))
    assert heights("~/session_00.nwb") == 40


def test_any_suffix_is_read_when_it_is_named(cube, tmp_path):
    for name in ("session.h5", "session", "session.NWB"):
        (tmp_path / name).write_bytes(cube[0].read_bytes())
        assert heights(tmp_path / name) == 40


@pytest.mark.parametrize("source", ["gone.nwb", "*.nwb", "no_folder/", "file:///no/such/file.nwb"])
def test_a_missing_source(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        lazynwb.scan_nwb(source, "/units").collect()
    assert isinstance(caught.value, lazynwb.SourceNotFoundError)
    assert source.removeprefix("file://").rstrip("/") in str(caught.value)


def test_a_missing_file_among_others(cube, tmp_path, caplog):
    gone = tmp_path / "gone.nwb"
    with pytest.raises(FileNotFoundError, match="gone"):
        lazynwb.scan_nwb([*cube, gone], "/units").collect()
    assert lazynwb.scan_nwb([*cube, gone], "/units", ignore_errors=True).collect().height == 240
    assert "gone.nwb" in caplog.text


def test_no_source_at_all(tmp_path):
    with pytest.raises((ValueError, FileNotFoundError)):
        lazynwb.scan_nwb([], "/units").collect()
    with pytest.raises(FileNotFoundError):
        lazynwb.scan_nwb(tmp_path, "/units").collect()


@pytest.mark.parametrize("source", [5, None, [None], b"bytes"])
def test_what_is_not_a_path(source):
    with pytest.raises((TypeError, ValueError, FileNotFoundError)):
        lazynwb.scan_nwb(source, "/units").collect()


# --- missing tables --------------------------------------------------------------------------------------------------


def test_a_table_that_no_file_has(cube):
    with pytest.raises(KeyError) as caught:
        lazynwb.scan_nwb(cube, "/intervals/trails").collect()
    assert isinstance(caught.value, lazynwb.TableNotFoundError)
    assert "/intervals/trails" in str(caught.value)
    assert "intervals/trials" in str(caught.value)
    assert "units" in str(caught.value)


def test_a_table_that_some_files_lack_is_reported_once(cube, caplog):
    frame = lazynwb.scan_nwb(cube, "/intervals/performance").collect()
    assert frame.height == 30
    warnings = [
        r.getMessage() for r in caplog.records if r.name.startswith("lazynwb") and r.levelname == "WARNING"
    ]
    assert len(warnings) == 1
    assert "performance" in warnings[0]
    assert "session_03.nwb" in warnings[0]
    assert "1" in warnings[0]


def test_the_warning_about_many_files_names_a_few(tmp_path, caplog):
    paths = [write_session(tmp_path / f"{k:02}.nwb", k, units=1, performance=k == 0) for k in range(30)]
    assert lazynwb.scan_nwb(paths, "/intervals/performance").collect().height == 6
    warnings = [
        r.getMessage() for r in caplog.records if r.name.startswith("lazynwb") and r.levelname == "WARNING"
    ]
    assert len(warnings) == 1
    assert "29" in warnings[0]
    assert len(warnings[0]) < 2000


def test_raise_on_missing(cube):
    with pytest.raises(lazynwb.TableNotFoundError, match="session_03"):
        lazynwb.scan_nwb(cube, "/intervals/performance", raise_on_missing=True).collect()
    assert lazynwb.scan_nwb(cube, "/units", raise_on_missing=True).collect().height == 240


# --- schemas across files --------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    """Write one file for each mapping of columns."""

    def write(*tables, path="t"):
        paths = []
        for number, columns in enumerate(tables):
            paths.append(tmp_path / f"file_{number}.nwb")
            with h5py.File(paths[-1], "w") as file:
                table(file, path, columns)
        return paths

    return write


def collected(paths, name="x", **options):
    """The column on both engines, which must agree with the schema."""
    lf = lazynwb.scan_nwb(paths, "t", **options)
    frames = [lf.collect(engine=engine) for engine in ENGINES]
    assert frames[0].schema == frames[1].schema == lf.collect_schema()
    assert frames[0].equals(frames[1], null_equal=True)
    return frames[0][name]


def test_the_schema_is_the_union(files):
    paths = files({"a": [1], "c": np.array([1.5])}, {"b": ["x", "y"]}, {"c": np.array([2.5]), "a": [3]})
    lf = lazynwb.scan_nwb(paths, "t")
    assert list(lf.collect_schema())[:4] == ["a", "b", "c", "id"]
    frame = lf.collect()
    assert frame["a"].to_list() == [1, None, None, 3]
    assert frame["b"].to_list() == [None, "x", "y", None]
    assert frame["c"].to_list() == [1.5, None, None, 2.5]


I, F, A, L = np.array([1, 2]), np.array([1.5, 2.5]), "Array", "List"


@pytest.mark.parametrize(
    ("first", "second", "dtype", "values"),
    [
        (np.array([1, 2], "i8"), np.array([1.5]), pl.Float64, [1.0, 2.0, 1.5]),
        (np.array([1, 2], "i4"), np.array([2**40], "i8"), pl.Int64, [1, 2, 2**40]),
        (np.array([1], "u1"), np.array([-1], "i1"), pl.Int16, [1, -1]),
        (np.array([1], "f4"), np.array([0.1], "f8"), pl.Float64, [1.0, 0.1]),
        (np.zeros((1, 2)), np.ones((1, 3)), pl.List(pl.Float64), [[0.0, 0.0], [1.0, 1.0, 1.0]]),
        (np.zeros((1, 2), "i4"), np.ones((1, 3)), pl.List(pl.Float64), [[0.0, 0.0], [1.0, 1.0, 1.0]]),
        (np.zeros((1, 2), "i4"), np.ones((1, 2)), pl.Array(pl.Float64, 2), [[0.0, 0.0], [1.0, 1.0]]),
        (np.zeros((1, 2)), Ragged([[1.0], []]), pl.List(pl.Float64), [[0.0, 0.0], [1.0], []]),
        (Ragged([[1], []], "i4"), Ragged([[1.5]]), pl.List(pl.Float64), [[1.0], [], [1.5]]),
        (["a"], np.array([b"bc"]), pl.String, ["a", "bc"]),
        (["a"], Ragged([["b", "c"], []], h5py.string_dtype()), pl.List(pl.String), [["a"], ["b", "c"], []]),
        (np.array([True]), np.array([False, True]), pl.Boolean, [True, False, True]),
    ],
    ids=["int-float", "narrow-wide", "signs", "f4-f8", "shapes", "shapes-types", "same-shape", "array-list", "lists",
         "texts", "text-texts", "bools"],
)  # fmt: skip
def test_types_widen(files, first, second, dtype, values):
    paths = files({"x": first}, {"x": second})
    column = collected(paths)
    assert column.dtype == dtype
    assert column.to_list() == values
    swapped = collected(paths[::-1])
    assert swapped.dtype == dtype
    assert sorted(map(str, swapped.to_list())) == sorted(map(str, values))


def test_arrays_of_arrays_whose_shapes_differ(files):
    column = collected(files({"x": np.zeros((1, 2, 3))}, {"x": np.ones((1, 2, 4))}))
    assert column.to_list() == [[[0.0] * 3] * 2, [[1.0] * 4] * 2]
    column = collected(files({"x": np.zeros((1, 2, 3))}, {"x": np.ones((1, 1, 3))}))
    assert column.to_list() == [[[0.0] * 3] * 2, [[1.0] * 3]]


def test_an_empty_column_does_not_spoil_the_type(files):
    """pynwb writes columns without rows as Float32, whatever they are to hold."""
    column = collected(files({"x": np.zeros(0, "f4")}, {"x": np.array([2**40])}))
    assert column.to_list() == [2**40]


def test_enums(tmp_path):
    def write(name, members):
        with h5py.File(tmp_path / name, "w") as file:
            dtype = h5py.enum_dtype(members, basetype="i1")
            group = table(file, "t", {}, rows=2)
            group.create_dataset("x", data=np.array([0, 1]), dtype=dtype)
        return tmp_path / name

    same = [write("a.nwb", {"l": 0, "r": 1}), write("b.nwb", {"l": 0, "r": 1})]
    assert collected(same).dtype == pl.Enum(["l", "r"])
    other = collected([same[0], write("c.nwb", {"up": 0, "down": 1})])
    assert other.dtype == pl.String
    assert other.to_list() == ["l", "r", "up", "down"]
    swapped = collected([same[0], write("d.nwb", {"r": 0, "l": 1})])
    assert swapped.cast(pl.String).to_list() == ["l", "r", "r", "l"]


def test_keywords_as_text_and_as_list(tmp_path):
    for number, keywords in enumerate(("alone", ["a", "b"])):
        with h5py.File(tmp_path / f"{number}.nwb", "w") as file:
            file.create_group("general").create_dataset("keywords", data=keywords, dtype=h5py.string_dtype())
    column = lazynwb.read_nwb(tmp_path, "/general")["keywords"]
    assert column.dtype == pl.List(pl.String)
    assert column.to_list() == [["alone"], ["a", "b"]]


def test_a_conflict_names_both_files(files):
    paths = files({"x": np.array([1, 2])}, {"x": np.array([3])}, {"x": ["text"]})
    with pytest.raises(lazynwb.SchemaError) as caught:
        lazynwb.scan_nwb(paths, "t").collect()
    message = str(caught.value)
    assert isinstance(caught.value, TypeError)
    assert "x" in message
    assert "file_2.nwb" in message
    assert "file_0.nwb" in message or "file_1.nwb" in message
    assert "schema_overrides" in message


def test_schema_overrides(files):
    paths = files({"x": np.array([1, 2])}, {"x": ["text"]})
    assert collected(paths, schema_overrides={"x": pl.String}).to_list() == ["1", "2", "text"]
    assert collected(paths[:1], schema_overrides={"x": pl.Float32}).dtype == pl.Float32
    assert collected(files({"x": np.array([1, 2])}), schema_overrides={"x": pl.Int8}).to_list() == [1, 2]
    lf = lazynwb.scan_nwb(paths, "t", schema_overrides={"x": pl.String}).filter(pl.col("x") == "2")
    assert lf.collect()["_table_index"].to_list() == [1]


def test_infer_schema_length_looks_at_the_first_files_that_have_the_table(files, tmp_path):
    paths = files({"a": [1]}, {"a": [2], "later": ["x"]})
    with h5py.File(tmp_path / "before.nwb", "w") as file:
        table(file, "other", {"z": [1]})
    lf = lazynwb.scan_nwb([tmp_path / "before.nwb", *paths], "t", infer_schema_length=1)
    assert list(lf.collect_schema())[:2] == ["a", "id"]
    frame = lf.collect()
    assert frame["a"].to_list() == [1, 2]
    assert "later" not in frame.columns


def test_a_published_schema_casts_later_files_where_that_loses_nothing(files):
    paths = files({"x": np.array([1.5])}, {"x": np.array([2], "i4")}, {"x": np.array([2.5], "f4")})
    assert collected(paths, infer_schema_length=1).to_list() == [1.5, 2.0, 2.5]
    paths = files({"x": np.array([1])}, {"x": np.array([3.0])})
    assert collected(paths, infer_schema_length=1).to_list() == [1, 3]


@pytest.mark.parametrize("later", [np.array([2.5]), ["text"], np.zeros((1, 2)), np.array([2**63], "u8")])
def test_a_published_schema_is_not_broken_by_a_later_file(files, later):
    paths = files({"x": np.array([1])}, {"x": later})
    for engine in ENGINES:
        with pytest.raises(lazynwb.SchemaError) as caught:
            lazynwb.scan_nwb(paths, "t", infer_schema_length=1).collect(engine=engine)
        assert "file_0.nwb" in str(caught.value)
        assert "file_1.nwb" in str(caught.value)
        assert "infer_schema_length" in str(caught.value)


def test_a_column_that_a_later_file_lacks_is_null(files):
    assert collected(files({"x": [1]}, {"y": [2]}), infer_schema_length=1).to_list() == [1, None]


def test_a_given_schema_is_used_as_it_is(files, cube):
    schema = lazynwb.scan_nwb(cube, "/units").collect_schema()
    with lazynwb.profile() as p:
        lf = lazynwb.scan_nwb(cube, "/units", schema=schema)
        assert lf.collect_schema() == schema
    assert p.files_opened == 0
    assert_frames(lf.collect(), lazynwb.read_nwb(cube, "/units"))
    lf = lazynwb.scan_nwb(files({"x": [1], "y": [2]}), "t", schema={"x": pl.Float64, "z": pl.String})
    assert lf.collect()["x"].to_list() == [1.0]
    assert lf.collect()["z"].to_list() == [None]


def test_exclude_array_columns(cube):
    schema = lazynwb.scan_nwb(cube, "/units", exclude_array_columns=True).collect_schema()
    assert {"spike_times", "obs_intervals", "waveform_mean"}.isdisjoint(schema)
    assert {"unit_id", "location", "_nwb_path"} <= set(schema)


def test_the_options_of_the_other_package_bind(cube, units):
    frame = lazynwb.scan_nwb(
        cube,
        "/units",
        False,
        False,
        None,
        False,
        low_memory=True,
        single_file_batches=True,
        disable_progress=True,
    ).collect()
    assert_frames(frame, units)


def test_ignore_errors_skips_and_names_what_cannot_be_read(cube, tmp_path, caplog):
    bad = tmp_path / "bad.nwb"
    bad.write_bytes(b"no HDF5 in here")
    with pytest.raises(lazynwb.NotNWBError, match="bad.nwb"):
        lazynwb.scan_nwb([*cube[:2], bad], "/units").collect()
    for engine in ENGINES:
        caplog.clear()
        frame = lazynwb.scan_nwb([bad, *cube[:2]], "/units", ignore_errors=True).collect(engine=engine)
        assert frame.height == 80
        assert "bad.nwb" in caplog.text


def test_get_table_schema(cube):
    expected = lazynwb.scan_nwb(cube, "/units").collect_schema()
    assert lazynwb.get_table_schema(cube, "/units") == expected
    assert lazynwb.get_table_schema(cube[0], "/units", first_n_files_to_infer_schema=1) == expected
    assert not {"_nwb_path", "_table_path", "_table_index"} & set(
        lazynwb.get_table_schema(cube, "/units", exclude_internal_columns=True)
    )
    assert "spike_times" not in lazynwb.get_table_schema(cube, "/units", exclude_array_columns=True)
    with pytest.raises(lazynwb.TableNotFoundError):
        lazynwb.get_table_schema(cube, "/intervals/performance", raise_on_missing=True)


def test_concurrent_first_use(tmp_path):
    """Many threads that scan the same new files at once, with nothing in the cache."""
    paths = [write_session(tmp_path / f"{k}.nwb", k, units=5) for k in range(8)]
    barrier = threading.Barrier(6)

    def work(_):
        barrier.wait()
        return lazynwb.read_nwb(paths, "/units")

    with ThreadPoolExecutor(6) as pool:
        first, *others = pool.map(work, range(6))
    for frame in others:
        assert_frames(frame, first)
