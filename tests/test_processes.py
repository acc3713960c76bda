"""Engines, threads and processes, and resources that are released after a query."""

import asyncio
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cloudpickle
import h5py
import numpy as np
import polars as pl
import pytest

import lazynwb
from builders import Column, Ragged, table, write_session
from checks import ENGINES, assert_frames, run_child

engines = pytest.mark.parametrize("engine", ENGINES)


@pytest.fixture(scope="module")
def units(cube):
    """The whole table, read once: every lazy result is compared with the same query on it."""
    return lazynwb.read_nwb(cube, "/units")


# --- engines, threads, processes ----------------------------------------------------------------------


def test_the_engines_agree(cube, units):
    lf = lazynwb.scan_nwb(cube, "/units")
    assert_frames(lf.collect(engine="streaming"), units)
    assert_frames(lf.collect(engine="in-memory"), units)


@engines
def test_aggregations_and_sorts_on_both_engines(cube, units, engine):
    def query(frame):
        return frame.group_by("location").agg(
            pl.len(), pl.col("presence_ratio").mean().round(9), n=pl.col("spike_times").list.len().sum()
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


def test_scans_in_several_threads(cube, units):
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
def test_a_pickled_scan_returns_equal_rows(cube, units, engine):
    lf = lazynwb.scan_nwb(cube, "/units").filter(pl.col("location") == "CA1").select("unit_id", "spike_times")
    again = cloudpickle.loads(cloudpickle.dumps(lf))
    assert_frames(
        again.collect(engine=engine),
        units.filter(pl.col("location") == "CA1").select("unit_id", "spike_times"),
    )


def test_a_pickled_scan_works_in_another_process(cube, tmp_path):
    (tmp_path / "lf.pkl").write_bytes(cloudpickle.dumps(lazynwb.scan_nwb(cube, "/units").select("unit_id")))
    code = "import sys, pickle; print(pickle.load(open(sys.argv[1], 'rb')).collect().height)"
    assert run_child(code, tmp_path / "lf.pkl").strip() == "240"


def test_explain_names_the_table_and_the_number_of_files(cube):
    plan = lazynwb.scan_nwb(cube, "/intervals/trials").filter(pl.col("block_index") == 1).explain()
    assert "intervals/trials" in plan
    assert "6" in plan


def test_creating_a_scan_reads_the_schema_of_few_files(cube):
    with lazynwb.profile() as p:
        schema = lazynwb.scan_nwb(cube, "/units", infer_schema_length=1).collect_schema()
    assert "spike_times" in schema
    assert p.files_opened <= 2


# --- resources ----------------------------------------------------------------------------------------

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
    "lf.filter(pl.col('presence_ratio') > 0.5).select('spike_times').head(3).collect(engine='streaming')",
    "lf.head(3).collect(engine='streaming')",
    "lf.head(3).collect(engine='in-memory')",
    "lf.select('waveform_mean').collect()",
    "next(iter(lf.select('spike_times').collect_batches(chunk_size=3)))",
]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc: run on Linux")
@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.sample(3)
def test_no_file_stays_open(cube, query):
    """After a query, and while Polars holds the generator, once the current batch is finished."""
    code = f"""{OPEN_FILES}
result = {query}
assert result.height > 0
deadline = time.monotonic() + 30
while nwb_files() and time.monotonic() < deadline:
    time.sleep(0.01)
assert nwb_files() == [], nwb_files()
print('ok')
"""
    assert run_child(code, *cube).strip() == "ok"


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("repeat", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2))])
@pytest.mark.sample(3)
def test_head_then_exit(cube, query, repeat):
    """The process exits cleanly while Polars still holds a suspended scan."""
    assert run_child(f"{OPEN_FILES}\nresult = {query}\nprint('ok')", *cube, timeout=30).strip() == "ok"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc: run on Linux")
def test_more_files_than_the_limit_of_open_files(tmp_path):
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


def test_a_file_that_is_open_in_another_process(cube, tmp_path):
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
        OPEN_FILES  # noqa: S608
        + """
lf.collect()
lazynwb.get_sql_context(paths).execute("SELECT * FROM units").collect()
"""
    )
    assert run_child(code, *cube) == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork: run on Linux or macOS")
def test_queries_in_a_forked_process(cube):
    """Multiprocessing by fork, as in PyTorch's data loaders: scans of the child do not hang."""
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
        frames = pool.map(functools.partial(lazynwb.read_nwb, table_path="/units"), sys.argv[1:])
    print(sum(frame.height for frame in frames))
"""
    assert run_child(code, *cube, timeout=120).strip() == "240"


IMPORTED = """
import sys, polars
before = set(sys.modules)
import lazynwb
print(*sorted(set(sys.modules) - before))
"""


def test_the_import_only_loads_modules_of_every_query():
    added = set(run_child(IMPORTED, fresh=True).split())
    late = ("h5py", "obstore", "nanoarrow", "numcodecs", "pandas", "pyarrow", "tqdm", "typer", "rich")
    late += ("numpy", "http.client", "urllib.request", "platformdirs", "difflib")
    assert added.isdisjoint(late), added.intersection(late)
    assert added.isdisjoint(
        {f"lazynwb.{name}" for name in ("convert.conversion", "session", "spikes", "sql", "engine.scan")}
        | {f"lazynwb.{name}" for name in ("lookup.loader", "formats.registry", "index.reader", "codecs")}
    )


def test_importing_registers_the_namespace_of_frames():
    code = "import lazynwb, polars; print(hasattr(polars.LazyFrame, 'nwb'), hasattr(polars.DataFrame, 'nwb'))"
    assert run_child(code).split() == ["True", "True"]


def test_all_public_names_exist_without_an_import():
    code = """
import lazynwb
listed = dir(lazynwb)
assert set(lazynwb.__all__) <= set(listed), set(lazynwb.__all__) - set(listed)
from lazynwb import *
missing = [name for name in lazynwb.__all__ if globals().get(name) is not getattr(lazynwb, name)]
print(missing)
"""
    assert run_child(code).strip() == "[]"


def test_a_cold_scan_of_ordinary_files_imports_neither_h5py_nor_masked_arrays(cube, units):
    code = """
import sys, lazynwb, polars as pl
frame = lazynwb.scan_nwb(sys.argv[1:], "/units").filter(pl.col("location") == "CA1").collect()
trials = lazynwb.scan_nwb(sys.argv[1:], "/intervals/trials").select(pl.len()).collect().item()
late = {"h5py", "numpy.ma"}.intersection(sys.modules)
print(frame.height, frame["spike_times"].list.len().sum(), trials, *late)
"""
    expected = units.filter(pl.col("location") == "CA1")
    spikes = expected["spike_times"].list.len().sum()
    assert run_child(code, *cube, fresh=True).split() == [str(expected.height), str(spikes), "180"]


def test_a_cold_schema_imports_no_numpy(cube):
    code = """
import sys, lazynwb
schema = lazynwb.scan_nwb(sys.argv[1:], "/units").collect_schema()
lazynwb.scan_nwb(sys.argv[1:], "/intervals/trials").collect_schema()
print("spike_times" in schema, *{"h5py", "numpy", "asyncio"}.intersection(sys.modules))
"""
    assert run_child(code, *cube, fresh=True).split() == ["True"]


def test_a_cold_remote_scan_imports_the_readers_while_the_server_responds(cube):
    """Before the query runs; a scan of local files has nothing to wait for."""
    from range_server import RangeServer

    code = """
import sys, lazynwb
lazynwb.scan_nwb(sys.argv[1], "/intervals/trials")
print(*sorted({"numpy", "nanoarrow", "lazynwb.engine.scan", "h5py"}.intersection(sys.modules)))
"""
    path = Path(cube[0])
    with RangeServer(path.parent) as server:
        found = run_child(code, server.url_of(path.name), fresh=True).split()
    assert found == ["lazynwb.engine.scan", "nanoarrow", "numpy"]
    assert run_child(code, path, fresh=True).split() == []


def test_a_remote_scan_does_not_import_the_http_client_of_python(cube):
    from range_server import RangeServer

    code = """
import sys, lazynwb
frame = lazynwb.scan_nwb(sys.argv[1], "/intervals/trials").collect()
print(frame.height, *{"h5py", "http.client", "ssl"}.intersection(sys.modules))
"""
    path = Path(cube[0])
    expected = lazynwb.scan_nwb(path, "/intervals/trials").collect().height
    with RangeServer(path.parent) as server:
        assert run_child(code, server.url_of(path.name), fresh=True).split() == [str(expected)]


def test_submodules_do_not_hide_the_settings_and_the_profile():
    code = """
import lazynwb.config, lazynwb.profile, lazynwb.scan, lazynwb
from lazynwb.config import Config
assert isinstance(lazynwb.config, Config)
lazynwb.config.batch_bytes = 12_345
from lazynwb.config import config
with lazynwb.profile():
    print(config.batch_bytes)
"""
    assert run_child(code).strip() == "12345"


def test_late_names_pickle_by_reference():
    for name in ("LazyNWB", "TimeSeries", "TableNotFoundError", "scan_nwb", "get_df"):
        one = getattr(lazynwb, name)
        assert pickle.loads(pickle.dumps(one)) is one  # noqa: S301 - made here


INTERRUPTED = """
import os, signal, sys, threading, time, lazynwb
call, folder, *paths = sys.argv[1:]
read, reads, sent = os.preadv, [], []

def interrupt():
    time.sleep(0.1)
    sent.append(len(reads))
    os.kill(os.getpid(), signal.SIGINT)

def slow(*arguments):
    reads.append(arguments)
    if len(reads) == 3:
        threading.Thread(target=interrupt, daemon=True).start()
    time.sleep(0.25)
    return read(*arguments)

lazynwb.config.disable_cache = True
tables = lazynwb.scan_nwb(paths, "/units")
os.preadv = slow
try:
    try:
        if call == "get_df":
            lazynwb.get_df(paths, "/units", exclude_array_columns=False, as_polars=True)
        elif call == "collect":
            tables.collect()
        elif call == "convert":
            lazynwb.convert_nwb_tables(paths, folder)
        else:
            lazynwb.build_index(paths, folder)
        print("finished", len(reads))
    except KeyboardInterrupt:
        print("interrupted", len(reads) - sent[0], flush=True)
except KeyboardInterrupt:  # Python's own, after that of Polars
    print("interrupted", len(reads) - sent[0], flush=True)
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "preadv"), reason="needs os.preadv and SIGINT, which Windows lacks")
@pytest.mark.parametrize("call", ["get_df", "collect", "convert", "index"])
@pytest.mark.sample(2)
def test_ctrl_c_ends_a_call_after_the_current_reads(call, cube, tmp_path):
    threads = {"LAZYNWB_MAX_THREADS": "2", "LAZYNWB_COLUMN_CACHE_BYTES": "0", "LAZYNWB_MAX_REQUESTS": "4"}
    said = run_child(INTERRUPTED, call, tmp_path / "out", *cube, **threads).split()
    assert said[0] == "interrupted"
    assert int(said[1]) <= 12


def test_an_exception_keeps_its_type(cube, tmp_path):
    path = write_session(tmp_path / "soon gone.nwb", 1)
    lf = lazynwb.scan_nwb([cube[0], path], "/units")
    lf.collect_schema()
    path.unlink()
    for engine in ENGINES:
        with pytest.raises(FileNotFoundError, match="soon gone"):
            lf.collect(engine=engine)
