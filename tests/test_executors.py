"""`executor=`: equal frames on every executor."""

import multiprocessing
import os
import pickle
import shutil
import threading
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import builders
import lazynwb
from lazynwb.catalog import disk_cache
from lazynwb.distributed import catalog_serde
from lazynwb.distributed.workers import execute, work_item
from lazynwb.errors import LazyNWBError, NotNWBError, TableNotFoundError
from lazynwb.storage.source import Source
from range_server import RangeServer


class Recorder(Executor):
    """An executor that runs each task immediately; tasks and results are pickled.

    Attributes
    ----------
    works : list
        What was asked for.
    most : int
        The most futures whose results nobody had taken yet.
    """

    def __init__(self, width=2):
        self._max_workers = width
        self.works = []
        self.sizes = []
        self.texts = []
        self.most = self.open = 0
        self.cancelled = 0

    def submit(self, function, order):
        sent = pickle.dumps((function, order))
        self.works.append(order.work)
        self.sizes.append(len(sent))
        self.texts.append(repr(order))
        self.open += 1
        self.most = max(self.most, self.open)
        return Taken(self, sent)


class Taken(Future):
    def __init__(self, recorder, sent):
        super().__init__()
        self._recorder = recorder
        self._sent = sent

    def result(self, timeout=None):
        self._recorder.open -= 1
        function, order = pickle.loads(self._sent)  # noqa: S301 - written above
        order = order._replace(process="elsewhere")
        return pickle.loads(pickle.dumps(function(order)))  # noqa: S301

    def cancel(self):
        self._recorder.cancelled += 1
        return True


@pytest.fixture(scope="module")
def processes():
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


UNITS = pl.col("presence_ratio") > 0.5
QUERIES = {
    "everything": lambda frame: frame,
    "a filter, and arrays of what is left": lambda frame: frame.filter(UNITS).select(
        "spike_times", "unit_id"
    ),
    "a filter with a Python function": lambda frame: frame.filter(
        pl.col("unit_id")
        .cast(pl.String)
        .map_elements(lambda text: len(text) + int(text[-1:] in "13579") > 4, return_dtype=pl.Boolean)
    ),
    "the first rows": lambda frame: frame.head(7),
    "the first rows, then a filter": lambda frame: frame.head(25).filter(UNITS),
    "a filter, then the first rows": lambda frame: frame.filter(UNITS).head(5),
    "a slice": lambda frame: frame.slice(11, 6).select("unit_id", "_table_index"),
    "a count": lambda frame: frame.select(pl.len()),
    "nothing that passes": lambda frame: frame.filter(pl.col("presence_ratio") > 2),
    "groups": lambda frame: frame.group_by("_nwb_path", maintain_order=True).agg(
        pl.len(), pl.mean("activity_drift")
    ),
    "some files": lambda frame: frame.filter(pl.col("_nwb_path").str.ends_with("2.nwb")),
    "metadata of sessions": lambda frame: frame.filter(pl.col("session_id").is_not_null()).select(
        "session_id", "unit_id"
    ),
}


@pytest.fixture(params=["pickled", "threads", "processes"])
def executor(request):
    if request.param == "pickled":
        yield Recorder()
    elif request.param == "threads":
        with ThreadPoolExecutor(2) as pool:
            yield pool
    else:
        yield request.getfixturevalue("processes")


@pytest.mark.long
@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.sample(3)
def test_the_frame_is_the_same_as_without_an_executor(cube, executor, query):
    options = {"session_columns": "session_id"}
    alone = QUERIES[query](lazynwb.scan_nwb(cube, "/units", **options))
    spread = QUERIES[query](lazynwb.scan_nwb(cube, "/units", executor=executor, **options))
    assert spread.collect_schema() == alone.collect_schema()
    assert_frame_equal(spread.collect(), alone.collect())
    assert_frame_equal(spread.collect(engine="streaming"), alone.collect())


def test_array_enum_and_struct_types_round_trip(tmp_path, executor):
    import h5py

    for number in range(3):
        with h5py.File(tmp_path / f"{number}.nwb", "w") as file:
            table = builders.table(file, "t", {"id": np.arange(3)})
            table["shaped"] = np.arange(3 * 2 * 2, dtype="f4").reshape(3, 2, 2)
            table["kind"] = np.array([0, 1, 0], h5py.enum_dtype({"a": 0, "b": 1}, "i1"))
            table["pair"] = np.array([(1, 2.0)] * 3, [("x", "i2"), ("y", "f8")])
            table["text"] = np.array(["", "\u03b1", "x"], h5py.string_dtype())
            table.attrs["colnames"] = ["shaped", "kind", "pair", "text"]
    alone = lazynwb.read_nwb(tmp_path, "t")
    assert isinstance(alone.schema["kind"], pl.Enum)
    assert_frame_equal(lazynwb.read_nwb(tmp_path, "t", executor=executor), alone)


def test_remote_files_are_read_by_the_workers(cube, processes):
    with RangeServer(Path(cube[0]).parent) as server:
        urls = [server.url_of(Path(path).name) for path in cube]
        alone = lazynwb.scan_nwb(cube, "/units").filter(UNITS).select("unit_id", "spike_times")
        spread = lazynwb.scan_nwb(urls, "/units", executor=processes).filter(UNITS)
        assert_frame_equal(spread.select("unit_id", "spike_times").collect(), alone.collect())


def test_a_dask_client_is_accepted_as_an_executor(cube):
    class Client:
        def get_executor(self):
            return Recorder()

    frame = lazynwb.read_nwb(cube, "/units", executor=Client())
    assert_frame_equal(frame, lazynwb.read_nwb(cube, "/units"))


# -- contents of tasks ----------------------------------------------------------------------------------


def test_tasks_are_small_and_workers_parse_no_catalogued_file(cube):
    recorder = Recorder()
    scan = lazynwb.scan_nwb(cube, "/units", executor=recorder)
    described = len(recorder.works)
    assert described  # the schema was the workers' work too
    lazynwb.clear_cache()
    with lazynwb.profile() as costs:
        scan.filter(UNITS).select("unit_id", "spike_times").collect()
    assert costs.files_parsed == 0
    assert costs.files_opened > 0
    assert max(recorder.sizes[described:]) < 6000


def test_a_worker_stores_no_catalog_that_was_shipped_to_it(cube, monkeypatch):
    monkeypatch.setattr(catalog_serde, "_MAX_CHUNK_INDEX_BYTES", 0)  # the worker has to look chunks up
    monkeypatch.setattr(Source, "is_settled", lambda *_: True)
    scan = lazynwb.scan_nwb(cube, "/units", executor=Recorder())
    lazynwb.clear_cache()
    scan.select("spike_times").collect()
    stored = {key for key, _ in disk_cache.all_entries()}
    assert not {key for key in stored if not key or "units" in key}  # it would lack columns


def test_representations_of_tasks_contain_no_secrets(cube):
    recorder = Recorder()
    with RangeServer(Path(cube[0]).parent) as server:
        urls = [server.url_of(Path(path).name) + "?X-Amz-Signature=planted" for path in cube[:2]]
        options = {"headers": {"authorization": "Bearer planted"}}
        scan = lazynwb.scan_nwb(urls, "/units", executor=recorder, storage_options=options)
        scan.filter(pl.col("unit_id").is_not_null()).select("unit_id").collect()
    assert recorder.texts
    assert all("planted" not in text for text in recorder.texts)
    assert any("cube" in text or ".nwb" in text for text in recorder.texts)


@pytest.mark.usefixtures("no_store")
def test_costs_are_counted_where_the_query_runs(cube, processes):
    def query(**options):
        with lazynwb.profile() as costs:
            scan = lazynwb.scan_nwb(cube, "/units", infer_schema_length=1, **options)
            scan.filter(UNITS).select("unit_id", "spike_times").collect()
        return costs

    query()
    alone, spread = query(), query(executor=processes)
    assert spread.bytes_used == alone.bytes_used
    assert spread.chunks_decoded == alone.chunks_decoded


def test_files_excluded_by_a_filter_on_their_path_need_no_task(cube):
    recorder = Recorder()
    scan = lazynwb.scan_nwb(cube, "/units", executor=recorder, infer_schema_length=1)
    scan.filter(pl.col("_nwb_path") == str(cube[3])).select("unit_id").collect()
    assert [[source.path for source in work.sources] for work in recorder.works] == [[str(cube[3])]]


def test_columns_in_the_column_store_need_no_task(cube):
    alone = lazynwb.scan_nwb(cube, "/units", infer_schema_length=1)
    columns = ["unit_id", "presence_ratio", "_nwb_path"]
    expected = alone.select(columns).collect()  # which stores them
    recorder = Recorder()
    scan = lazynwb.scan_nwb(cube, "/units", executor=recorder, infer_schema_length=1)
    with lazynwb.profile() as costs:
        assert_frame_equal(scan.select(columns).collect(), expected)
        assert_frame_equal(
            scan.filter(UNITS).head(5).select(columns).collect(), expected.filter(UNITS).head(5)
        )
    assert (costs.rows_stored, costs.bytes_read) == (2 * len(expected), 0)
    assert recorder.works == []


def test_a_filter_on_stored_columns_creates_tasks_only_for_files_with_rows(cube):
    alone = lazynwb.scan_nwb(cube, "/units", infer_schema_length=1)
    ratios = alone.select("presence_ratio", "_nwb_path").collect()
    best = pl.col("presence_ratio") >= ratios["presence_ratio"].top_k(2).min()
    files = ratios.filter(best)["_nwb_path"].unique(maintain_order=True).to_list()
    recorder = Recorder()
    scan = lazynwb.scan_nwb(cube, "/units", executor=recorder, infer_schema_length=1)
    found = scan.filter(best).select("unit_id", "spike_times").collect()
    assert_frame_equal(found, alone.filter(best).select("unit_id", "spike_times").collect())
    assert 0 < len(files) < len(cube)
    assert [source.path for work in recorder.works for source in work.sources] == files


def test_a_stored_file_that_has_changed_needs_a_task(cube, tmp_path):
    paths = [shutil.copy(path, tmp_path) for path in cube[:2]]
    time.sleep(0.1)  # a file that was just written is not stored
    query = lazynwb.scan_nwb(paths, "/units").select("unit_id")
    before = query.collect()
    os.utime(paths[1])
    recorder = Recorder()
    scan = lazynwb.scan_nwb(paths, "/units", executor=recorder, infer_schema_length=1).select("unit_id")
    assert_frame_equal(scan.collect(), before)
    assert recorder.works != []


def test_a_worker_of_another_version_is_an_error(cube):
    recorder = Recorder()
    lazynwb.scan_nwb(cube[:1], "/units", executor=recorder, infer_schema_length=1).collect()
    order = work_item(recorder.works[0])
    with pytest.raises(LazyNWBError, match=r"install the same"):
        execute(order._replace(versions=("0", "0")))


# -- numbers and sizes of tasks -------------------------------------------------------------------------


def test_the_number_of_pending_tasks_is_bounded_by_the_workers(tmp_path):
    import h5py

    for number in range(40):
        with h5py.File(tmp_path / f"{number:02}.nwb", "w") as file:
            builders.table(file, "t", {"x": np.arange(3) + number})
    recorder = Recorder(width=2)
    scan = lazynwb.scan_nwb(tmp_path, "t", executor=recorder, infer_schema_length=1)
    assert scan.select("x").collect().to_series().to_list() == [n + k for n in range(40) for k in range(3)]
    assert recorder.most <= 4
    assert 8 <= len(recorder.works) <= 30  # few files a task at first, then more


def test_a_large_result_is_returned_in_parts_by_several_tasks(tmp_path, monkeypatch):
    import h5py

    monkeypatch.setattr(lazynwb.config, "batch_bytes", 100_000)
    monkeypatch.setattr("lazynwb.distributed.execution.MIN_BYTES", 200_000)
    for number in range(3):
        with h5py.File(tmp_path / f"{number}.nwb", "w") as file:
            builders.table(file, "t", {"x": np.arange(40_000) + number, "y": np.arange(40_000) % 7})
    recorder = Recorder()
    scan = lazynwb.scan_nwb(tmp_path, "t", executor=recorder, infer_schema_length=1)
    tasks = len(recorder.works)
    alone = lazynwb.scan_nwb(tmp_path, "t")
    for query in (lambda frame: frame, lambda frame: frame.filter(pl.col("y") < 5).select("x")):
        assert_frame_equal(query(scan).collect(), query(alone).collect())
    assert len(recorder.works) - tasks > 2 * 3
    assert any(getattr(work, "first_row", 0) for work in recorder.works)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A file with a table of 3,000 rows in chunks of 100, and a small one; and a small file."""
    import h5py

    folder = tmp_path_factory.mktemp("large")
    for name, rows in {"0": 5, "1": 3000, "2": 7}.items():
        with h5py.File(folder / f"{name}.nwb", "w") as file:
            columns = {
                "x": np.arange(rows),
                "label": [f"ü{n % 7}" for n in range(rows)],
                "wide": builders.Column(
                    np.arange(rows * 5.0).reshape(rows, 5),
                    options={"chunks": (min(rows, 100), 5), "compression": "gzip"},
                ),
                "spikes": builders.Ragged([[n / 2] * (n % 4) for n in range(rows)]),
            }
            builders.table(file, "intervals/large", columns)
            builders.table(file, "intervals/small", {"x": np.arange(10)})
    return folder


LARGE = {
    "all": lambda frame: frame,
    "array": lambda frame: frame.select("wide", "_table_index"),
    "filter": lambda frame: frame.filter(pl.col("label") == "ü3").select("x", "wide"),
    "ragged": lambda frame: frame.filter(pl.col("spikes").list.len() > 2).select("spikes", "wide"),
    "head": lambda frame: frame.head(1777).select("wide"),
    "slice": lambda frame: frame.slice(1234, 1000).select("x", "wide"),
    "streaming": lambda frame: frame.filter(pl.col("x") % 5 == 1).select("wide", "_nwb_path"),
}


@pytest.mark.parametrize("table", ["intervals/large", "/intervals/*"])
@pytest.mark.parametrize("query", LARGE)
@pytest.mark.sample(2)
def test_a_large_table_is_divided_by_rows(large, monkeypatch, query, table):
    monkeypatch.setattr(lazynwb.config, "batch_bytes", 20_000)
    recorder = Recorder(width=4)
    engine = "streaming" if query == "streaming" else "in-memory"
    found = LARGE[query](lazynwb.scan_nwb(large, table, executor=recorder)).collect(engine=engine)
    assert_frame_equal(found, LARGE[query](lazynwb.scan_nwb(large, table)).collect())
    ranges = [(work.first_row, work.n_rows) for work in recorder.works if getattr(work, "first_row", 0)]
    assert len(set(ranges)) == len(ranges) >= 2
    assert recorder.most >= 4  # at the same time


@pytest.mark.usefixtures("no_store")
def test_no_chunk_of_a_divided_table_is_decoded_twice(large, monkeypatch, processes):
    monkeypatch.setattr(lazynwb.config, "batch_bytes", 20_000)

    def decoded(**options):
        with lazynwb.profile() as costs:
            lazynwb.scan_nwb(large, "intervals/large", **options).select("wide").collect()
        return costs.chunks_decoded

    assert decoded(executor=processes) == decoded() == 32


def test_a_column_in_one_chunk_is_read_by_one_worker(tmp_path, monkeypatch):
    import h5py

    monkeypatch.setattr(lazynwb.config, "batch_bytes", 1000)
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        builders.table(file, "t", {"x": builders.Column(np.arange(1000), options={"chunks": (1000,)})})
    recorder = Recorder()
    scan = lazynwb.scan_nwb(tmp_path, "t", executor=recorder, infer_schema_length=1)
    assert scan.select("x").collect()["x"].to_list() == list(range(1000))
    assert len(recorder.works) == 1


def test_rows_that_are_appended_to_a_large_table_are_read(tmp_path, monkeypatch):
    import h5py

    monkeypatch.setattr(lazynwb.config, "batch_bytes", 10_000)
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        options = {"chunks": (100,), "maxshape": (None,)}
        columns = {name: builders.Column(np.arange(3000), options=options) for name in ("id", "x")}
        builders.table(file, "t", columns, colnames=["x"])
    scan = lazynwb.scan_nwb(tmp_path, "t", executor=Recorder())
    with h5py.File(tmp_path / "a.nwb", "a") as file:
        for name in ("id", "x"):
            file["t"][name].resize((4000,))
            file["t"][name][:] = np.arange(4000)
    assert scan.select("x").collect()["x"].to_list() == list(range(4000))


def test_tasks_are_cancelled_when_enough_rows_have_arrived(cube):
    recorder = Recorder()
    scan = lazynwb.scan_nwb(cube * 10, "/units", executor=recorder, infer_schema_length=1)
    scan.filter(UNITS).head(1).collect(engine="streaming")
    deadline = time.monotonic() + 20
    while not 0 < recorder.cancelled == recorder.open and time.monotonic() < deadline:
        time.sleep(0.01)  # Polars closes a source, which cancels its tasks one by one, on another thread
    assert recorder.cancelled == recorder.open > 0
    assert len(recorder.works) < 20


def test_the_same_file_twice_gives_its_rows_twice(cube):
    sources = [cube[0], cube[0], cube[1], cube[0]] * 4
    frame = lazynwb.read_nwb(sources, "/units", executor=Recorder())
    assert_frame_equal(frame, lazynwb.read_nwb(sources, "/units"))


# -- errors ---------------------------------------------------------------------------------------------


class Failing(Recorder):
    """An executor that fails for tasks on one of the files."""

    def __init__(self, bad, error=MemoryError):
        super().__init__()
        self.bad = str(bad)
        self.error = error

    def submit(self, function, order):
        future = super().submit(function, order)
        if any(source.path == self.bad for source in order.work.sources):
            future = Future()
            future.set_exception(self.error("lost the worker"))
        return future


def test_a_task_that_keeps_failing_names_its_file(cube):
    scan = lazynwb.scan_nwb(cube, "/units", executor=Failing(cube[4]), infer_schema_length=1)
    with pytest.raises(LazyNWBError, match=r"MemoryError: lost the worker") as caught:
        scan.collect()
    assert str(cube[4]) in str(caught.value)
    assert str(cube[3]) not in str(caught.value)


def test_ignore_errors_skips_the_file_of_a_failing_task(cube, caplog):
    options = {"executor": Failing(cube[4]), "ignore_errors": True, "infer_schema_length": 1}
    frame = lazynwb.read_nwb(cube, "/units", **options)
    others = [path for number, path in enumerate(cube) if number != 4]
    assert_frame_equal(frame, lazynwb.read_nwb(others, "/units"))
    (record,) = caplog.records
    assert "1 of 6 files" in record.getMessage()
    assert str(cube[4]) in record.getMessage()


def test_an_executor_that_is_shut_down_is_an_error_that_names_the_file(cube):
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(LazyNWBError, match=r"after shutdown"):
        lazynwb.scan_nwb(cube, "/units", executor=pool)


def test_errors_and_warnings_are_those_of_a_scan_without_executor(cube, tmp_path, caplog):
    damaged = tmp_path / "damaged.nwb"
    damaged.write_bytes(b"not HDF5")
    with pytest.raises(NotNWBError, match=r"damaged\.nwb"):
        lazynwb.scan_nwb([*cube, damaged], "/units", executor=Recorder())
    with pytest.raises(NotNWBError, match=r"damaged\.nwb"):
        lazynwb.scan_nwb([*cube, damaged], "/units", executor=Recorder(), infer_schema_length=1).collect()
    with pytest.raises(TableNotFoundError, match=r"did you mean"):
        lazynwb.scan_nwb(cube, "/unit", executor=Recorder())
    caplog.clear()
    lazynwb.read_nwb([*cube, damaged], "intervals/performance", ignore_errors=True)
    expected = sorted(record.getMessage() for record in caplog.records)
    caplog.clear()
    lazynwb.read_nwb([*cube, damaged], "intervals/performance", ignore_errors=True, executor=Recorder())
    assert sorted(record.getMessage() for record in caplog.records) == expected
    assert len(expected) == 2


def test_a_file_that_changed_since_the_scan_was_planned_is_read_as_it_is_now(tmp_path):
    import h5py

    path = tmp_path / "a.nwb"

    def write(rows):
        with h5py.File(path, "w") as file:
            builders.table(file, "t", {"x": np.arange(rows)})

    write(5)
    scan = lazynwb.scan_nwb(path, "t", executor=Recorder())
    write(9)
    assert scan.select("x").collect()["x"].to_list() == list(range(9))


def test_an_invalid_executor_is_an_error(cube):
    with pytest.raises(TypeError, match=r"concurrent\.futures\.Executor"):
        lazynwb.scan_nwb(cube, "/units", executor=4)


@pytest.mark.skipif(os.name == "nt", reason="needs os.fork: run on Linux or macOS")
def test_forked_processes_are_refused(cube):
    with (
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool,
        pytest.raises(ValueError, match=r"get_context\(\"spawn\"\)"),
    ):
        lazynwb.scan_nwb(cube, "/units", executor=pool)


def test_an_abandoned_query_leaks_no_thread(cube):
    before = set(threading.enumerate())
    scan = lazynwb.scan_nwb(cube, "/units", executor=Recorder())
    scan.head(1).collect()
    left = {thread for thread in set(threading.enumerate()) - before if not thread.daemon}
    assert not left
