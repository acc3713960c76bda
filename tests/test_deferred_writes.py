"""Writes to the caches after the query: what waits for them; exit, forks and errors."""

import logging
import os
import sys
import threading
import time

import pytest

import lazynwb
from checks import run_child
from lazynwb import threads
from lazynwb.catalog import disk_cache
from lazynwb.column_store.store import COLUMN_WRITES
from lazynwb.lookup.catalog_cache import invalidate_source
from lazynwb.storage.resolve import resolve
from lazynwb.threads import CACHE_WRITES, DeferredWrites
from range_server import RangeServer

pytestmark = [pytest.mark.integration, pytest.mark.deferred]

#: One query, and what the column store gave it.
READ = """
import sys
import lazynwb
with lazynwb.profile() as profile:
    rows = lazynwb.scan_nwb(sys.argv[1:], "/intervals/trials").collect().height
print(rows, profile.rows_stored, profile.chunks_decoded)
"""


@pytest.fixture(autouse=True)
def _late(monkeypatch):
    """No write begins by itself during a test, and none is left after it."""
    monkeypatch.setattr(threads, "_WRITE_DELAY_SECONDS", 3600.0)
    writers = COLUMN_WRITES, CACHE_WRITES
    for writes in writers:
        monkeypatch.setattr(writes, "_pool", threads.Pool("test", lambda: 1))
        writes.finish()
        writes._is_scheduled = False
    yield
    for writes in writers:
        writes.finish()
        writes._is_scheduled = False


def parts(folder):
    return sorted(folder.glob("columns/v*/*/*.parquet"))


def collect(cube):
    with lazynwb.profile() as profile:
        frame = lazynwb.scan_nwb(cube, "/intervals/trials").collect()
    return frame, profile


# -- queries --------------------------------------------------------------------------------------------


def test_a_query_does_not_wait_for_the_column_store(cube, cache_dir):
    collect(cube)
    assert parts(cache_dir) == []
    COLUMN_WRITES.finish()
    assert len(parts(cache_dir)) == 1


def test_the_next_query_reads_the_columns_of_the_last_one(cube):
    first, _ = collect(cube)
    second, profile = collect(cube)
    assert second.equals(first)
    assert (profile.rows_stored, profile.chunks_decoded) == (first.height, 0)


def test_nothing_is_written_after_the_cache_was_cleared(cube, cache_dir):
    collect(cube)
    lazynwb.clear_cache()
    for writes in (COLUMN_WRITES, CACHE_WRITES):
        writes.finish()
    assert [path for path in cache_dir.rglob("*") if path.is_file()] == []


def test_no_write_restores_the_entries_of_a_damaged_remote_file(cube):
    with RangeServer("/") as server:
        url = server.url_of(str(cube[0]).lstrip("/"))
        lazynwb.scan_nwb(url, "/intervals/trials").collect()
        source = resolve(url)
        invalidate_source(source)
        for writes in (COLUMN_WRITES, CACHE_WRITES):
            writes.finish()
        assert [key for key, _ in disk_cache.all_entries() if url in key] == []


# -- processes ------------------------------------------------------------------------------------------


def test_the_exit_of_a_process_waits_for_its_writes(cube):
    rows = run_child(READ, *cube).split()[0]
    assert run_child(READ, *cube).split() == [rows, rows, "0"]


def test_a_process_that_is_killed_at_once_only_loses_its_writes(cube, cache_dir):
    killed = f"{READ}\nimport os, signal\nsys.stdout.flush()\nos.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(AssertionError, match="exit code -9"):
        run_child(killed, *cube)
    assert parts(cache_dir) == []
    rows, stored, _ = map(int, run_child(READ, *cube).split())
    assert rows > 0
    assert stored == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork: run on Linux or macOS")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_worker_of_multiprocessing_writes_at_once(cube):
    code = """
import multiprocessing, sys
import lazynwb

def work(path):
    lazynwb.scan_nwb(path, "/intervals/trials").collect()

process = multiprocessing.get_context(sys.argv[1]).Process(target=work, args=(sys.argv[2:],))
process.start()
process.join()
print(process.exitcode)
"""
    assert run_child(code, "fork", *cube, fresh=True).split() == ["0"]
    rows, stored, decoded = map(int, run_child(READ, *cube).split())
    assert (stored, decoded) == (rows, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork: run on Linux or macOS")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_leaves_the_writes_of_its_parent_to_it(cube, cache_dir):
    collect(cube)
    child = os.fork()
    if not child:
        COLUMN_WRITES.finish()
        os._exit(len(parts(cache_dir)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    COLUMN_WRITES.finish()
    assert len(parts(cache_dir)) == 1


# -- the mechanism --------------------------------------------------------------------------------------


def test_writes_run_in_order_after_the_delay(monkeypatch):
    monkeypatch.setattr(threads, "_WRITE_DELAY_SECONDS", 0.05)
    writes, done, last = DeferredWrites("test"), [], threading.Event()
    for number in range(3):
        writes.submit(lambda number=number: done.append((number, threading.current_thread().name)))
    writes.submit(last.set)
    assert last.wait(10)
    assert done == [(number, "lazynwb-test") for number in range(3)]


def test_writes_that_are_submitted_during_a_run_are_not_forgotten(monkeypatch):
    monkeypatch.setattr(threads, "_WRITE_DELAY_SECONDS", 0.0)
    writes, last = DeferredWrites("test"), threading.Event()
    done = []
    for number in range(2000):
        writes.submit(lambda number=number: done.append(number))
        if number % 100 == 0:
            time.sleep(0.001)
    writes.submit(last.set)
    assert last.wait(10)
    assert done == list(range(2000))


def test_finish_waits_for_the_write_that_is_running(monkeypatch):
    monkeypatch.setattr(threads, "_WRITE_DELAY_SECONDS", 0.0)
    writes, running, free, done = DeferredWrites("test"), threading.Event(), threading.Event(), []

    def slow():
        running.set()
        free.wait(10)
        done.append("slow")

    writes.submit(slow)
    assert running.wait(10)
    threading.Timer(0.05, free.set).start()
    writes.finish()
    assert done == ["slow"]


def test_an_unexpected_error_is_logged_and_later_writes_run(monkeypatch, caplog):
    monkeypatch.setattr(threads, "_WRITE_DELAY_SECONDS", 0.0)
    writes, last = DeferredWrites("test"), threading.Event()
    with caplog.at_level(logging.ERROR, "lazynwb"):
        writes.submit(lambda: 1 / 0)
        writes.submit(last.set)
        deadline = time.monotonic() + 10
        while not last.is_set() and time.monotonic() < deadline:
            writes.submit(int)
            time.sleep(0.01)
    assert last.is_set()
    assert "ZeroDivisionError" in caplog.text


def test_many_writes_do_not_accumulate():
    writes, done = DeferredWrites("test"), []
    for number in range(10 * threads._MAX_DEFERRED):
        writes.submit(lambda number=number: done.append(number))
        assert number - len(done) <= threads._MAX_DEFERRED
    assert done == list(range(len(done)))


def test_a_write_at_exit_runs_at_once(monkeypatch):
    monkeypatch.setattr(threads, "is_exiting", lambda: True)
    done = []
    DeferredWrites("test").submit(lambda: done.append(1))
    assert done == [1]


def test_a_query_does_not_import_multiprocessing(cube):
    code = f"{READ}\nprint('multiprocessing' in sys.modules)"
    assert run_child(code, *cube, fresh=True).split()[-1] == "False"
    assert sys.modules.get("multiprocessing") is None or threads._is_worker_process() is False
