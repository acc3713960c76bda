"""`executor=` on a scheduler of Dask with worker processes over TCP."""

import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import builders
import lazynwb
from checks import count
from lazynwb.errors import LazyNWBError
from lazynwb.index import checkpoint, writer

dask = pytest.importorskip("dask", reason="needs the extra dask")
distributed = pytest.importorskip("distributed", reason="needs the extra dask")

WORKERS = count(2, 4)


@pytest.fixture(scope="module")
def client():
    with (
        # A task that ends a worker is given up after that many other workers.
        dask.config.set({"distributed.scheduler.allowed-failures": WORKERS - 1}),
        distributed.LocalCluster(
            n_workers=WORKERS,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            protocol="tcp://",
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def many(cube):
    return cube * 8


UNITS = pl.col("presence_ratio") > 0.5


def pids(client):
    return set(client.run(os.getpid).values())


@pytest.mark.long
def test_frames_are_equal_and_files_are_read_by_the_workers(client, cube):
    executor = client.get_executor()
    query = lazynwb.scan_nwb(cube, "/units", executor=executor, session_columns="session_id")
    alone = lazynwb.scan_nwb(cube, "/units", session_columns="session_id")
    assert_frame_equal(query.collect(), alone.collect())
    with lazynwb.profile() as costs:
        found = query.filter(UNITS).select("unit_id", "spike_times").collect(engine="streaming")
    assert_frame_equal(found, alone.filter(UNITS).select("unit_id", "spike_times").collect())
    assert costs.bytes_used > 0
    assert_frame_equal(lazynwb.read_nwb(cube, "/units", executor=client), lazynwb.read_nwb(cube, "/units"))


def slow(seconds):
    """Return a condition that is always true and slow to evaluate."""

    def wait(values):
        time.sleep(seconds)
        return values.is_not_null()

    return pl.col("unit_id").map_batches(wait, return_dtype=pl.Boolean, is_elementwise=True)


@pytest.mark.long
def test_a_worker_killed_during_a_query_loses_no_rows(client, many):
    before = pids(client)
    scan = lazynwb.scan_nwb(many, "/units", executor=client, infer_schema_length=1)
    found = []

    def collect():
        found.append(scan.filter(slow(0.1)).select("unit_id", "spike_times", "_nwb_path").collect())

    thread = threading.Thread(target=collect)
    thread.start()
    time.sleep(0.7)
    for pid in sorted(before)[: WORKERS - 1]:
        os.kill(pid, signal.SIGKILL)
    thread.join(120)
    assert_frame_equal(
        found[0], lazynwb.scan_nwb(many, "/units").select("unit_id", "spike_times", "_nwb_path").collect()
    )
    assert pids(client) != before  # they were killed indeed, and replaced


def test_a_file_that_kills_every_worker_is_named(client, cube):
    bad = str(cube[2])

    def fatal(rows):
        if bad in rows.struct.field("_nwb_path"):
            os._exit(1)
        return rows.struct.field("unit_id").is_not_null()

    # Of two columns, one of them of the table: a condition on names alone is not the workers' business.
    condition = pl.struct("_nwb_path", "unit_id").map_batches(
        fatal, return_dtype=pl.Boolean, is_elementwise=True
    )
    scan = lazynwb.scan_nwb(cube, "/units", executor=client, infer_schema_length=1)
    with pytest.raises(LazyNWBError, match=r"KilledWorker") as caught:
        scan.filter(condition).select("unit_id").collect()
    assert Path(bad).name in str(caught.value)
    client.wait_for_workers(1, timeout=300)


def tasks_of(client):
    return set(client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.tasks)))


def test_tasks_are_cancelled_when_the_consumer_stops_early(client, many):
    before = tasks_of(client)
    scan = lazynwb.scan_nwb(many, "/units", executor=client, infer_schema_length=1)
    assert scan.filter(slow(0.3)).head(1).collect(engine="streaming").height == 1
    deadline = time.monotonic() + 30
    while (left := tasks_of(client) - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left  # the scheduler has forgotten them all, done or not


def test_the_rows_of_one_large_file_are_read_by_all_workers(client, tmp_path, monkeypatch):
    with h5py.File(tmp_path / "large.nwb", "w") as file:
        wide = builders.Column(np.arange(40_000.0).reshape(-1, 10), options={"chunks": (100, 10)})
        spikes = builders.Ragged([[n / 2] * (n % 3) for n in range(4000)])
        builders.table(file, "units", {"wide": wide, "spikes": spikes})
    alone = lazynwb.read_nwb(tmp_path, "units")
    client.wait_for_workers(2, timeout=300)  # earlier tests end workers
    monkeypatch.setattr(lazynwb.config, "batch_bytes", 40_000)
    scan = lazynwb.scan_nwb(tmp_path, "units", executor=client)
    before = {worker: len(ran) for worker, ran in transitions(client).items()}
    assert_frame_equal(scan.collect(), alone)
    busy = [worker for worker, ran in transitions(client).items() if len(ran) > before.get(worker, 0)]
    assert len(busy) > 1


def transitions(client):
    """Return the tasks that each worker has executed."""
    return client.run(
        lambda dask_worker: [key for key, _, end, *_ in dask_worker.state.log if end == "executing"]
    )


def test_an_index_is_built_by_workers_and_resumed(client, cube, tmp_path, monkeypatch):
    """A build is interrupted before it publishes the index; the next build reads no file."""
    monkeypatch.setattr(checkpoint, "INTERVAL_SECONDS", 0)
    monkeypatch.setattr(writer, "MIN_SESSIONS", 2)
    with monkeypatch.context() as patched:
        patched.setattr("lazynwb.index.build.publish", lambda *_: sys.exit(1))
        with pytest.raises(SystemExit):
            lazynwb.build_index(cube, tmp_path, values=["units"], executor=client.get_executor())
    tasks = sum(map(len, transitions(client).values()))
    done = lazynwb.build_index(cube, tmp_path, values=["units"], executor=client.get_executor())
    assert (done.sessions, done.failed) == (len(cube), [])
    assert sum(map(len, transitions(client).values())) == tasks
    found = lazynwb.scan_index(tmp_path, "/units").select("unit_id", "presence_ratio").collect()
    assert_frame_equal(found, lazynwb.read_nwb(cube, "units").select("unit_id", "presence_ratio"))
