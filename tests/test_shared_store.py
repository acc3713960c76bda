"""Small versions of the runs of `shared_store.py`: one column store, its users, bad disks, replaced files."""

import random
import sys
import threading

import pytest

import shared_store
from faulty_disk import DISKS

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(sys.platform == "win32", reason="replaces files that are open: run on Linux or macOS"),
]


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(shared_store, "SESSIONS", 4)
    with shared_store.quiet():
        yield


@pytest.mark.long
@pytest.mark.parametrize("role", ["usual", "small"])
def test_no_row_is_wrong_while_threads_share_a_store_and_files_are_replaced(tmp_path, role):
    history = shared_store.make(tmp_path / "nwb")
    stop = threading.Event()
    choose = random.Random(1)  # noqa: S311 - which file
    replacing = threading.Thread(target=shared_store.replace_files, args=(history, choose, stop.is_set, 0.3))
    replacing.start()
    try:
        found = shared_store.busy(
            history.folder, tmp_path / "cache", role, threads=2, seed=1, seconds=60, queries=12
        )
    finally:
        stop.set()
        replacing.join()
    assert found["wrong"] == []
    assert min(found["queries"], found["stored"]) > 0


@pytest.mark.long
def test_no_row_is_wrong_on_bad_disks():
    found = shared_store.disks(queries=4, seed=1)
    assert found["wrong"] == []
    assert found["disks"] >= len(DISKS) - 1  # of one, a twentieth of the calls fail
    assert found["stored"] > 10


def test_no_row_is_wrong_after_a_kill():
    found = shared_store.kills(times=1, seed=1)
    assert found["wrong"] == []
    assert found["kills"] == 1


def test_changed_bytes_are_detected_or_have_no_effect():
    found = shared_store.flipped(every=300, seed=1)
    assert found["wrong"] == []
    assert found["noticed"] > 3


@pytest.mark.slow
def test_no_row_is_wrong_after_many_kills():
    found = shared_store.kills(times=200, seed=2911)
    assert found["wrong"] == []
    assert found["kills"] == 200


@pytest.mark.slow
def test_all_changed_bytes_are_detected_or_have_no_effect():
    found = shared_store.flipped(every=1, seed=2911)
    assert found["wrong"] == []
    assert found["noticed"] > 1000


@pytest.mark.slow
def test_no_row_is_wrong_while_processes_share_a_store():
    found = shared_store.churn(processes=6, threads=2, seconds=20, seed=2)
    assert found["wrong"] == []
    assert min(found["queries"], found["stored"], found["replaced"]) > 0
