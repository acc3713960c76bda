"""`executor=` on a real scheduler of Dask with four worker processes over TCP."""

import logging
import os
import signal
import threading
import time
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import lazynwb
from lazynwb.errors import LazyNWBError

distributed = pytest.importorskip("distributed", reason="needs the extra dask")


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=4,
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


def test_frames_are_the_same_and_it_is_the_workers_that_read(client, cube):
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
    """Return a condition that is always true and takes its time, wherever it is evaluated."""

    def wait(values):
        time.sleep(seconds)
        return values.is_not_null()

    return pl.col("unit_id").map_batches(wait, return_dtype=pl.Boolean, is_elementwise=True)


def test_a_worker_killed_in_the_middle_of_a_query_loses_nothing(client, many):
    before = pids(client)
    scan = lazynwb.scan_nwb(many, "/units", executor=client, infer_schema_length=1)
    found = []

    def collect():
        found.append(scan.filter(slow(0.1)).select("unit_id", "spike_times", "_nwb_path").collect())

    thread = threading.Thread(target=collect)
    thread.start()
    time.sleep(0.7)
    for pid in sorted(before)[:2]:
        os.kill(pid, signal.SIGKILL)
    thread.join(120)
    assert_frame_equal(
        found[0], lazynwb.scan_nwb(many, "/units").select("unit_id", "spike_times", "_nwb_path").collect()
    )
    assert pids(client) != before  # they were killed indeed, and replaced


def test_what_kills_every_worker_that_tries_it_is_named(client, cube):
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
    client.wait_for_workers(1, timeout=120)


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
