"""Interrupted builds of an index: the next build repeats nothing and produces the same index."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import builders
import lazynwb
from interruptions import CutOff, WriteLimit
from lazynwb.index import checkpoint, writer
from lazynwb.index import values as writing
from lazynwb.index.location import LocalFolder

COUNT = 12


def write(path, number):
    rows = 2 + number % 3
    with h5py.File(path, "w") as file:
        builders.nwb_root(file, f"s{number}")
        builders.table(file, "units", {"x": np.arange(rows) * 10 + number, "label": ["a"] * rows})
        builders.table(file, "intervals/trials", {"start_time": np.arange(rows + 1.0)})


@pytest.fixture
def sessions(tmp_path):
    folder = tmp_path / "sessions"
    folder.mkdir()
    paths = [folder / f"{number:02}.nwb" for number in range(COUNT)]
    for number, path in enumerate(paths):
        write(path, number)
    return paths


@pytest.fixture
def often(monkeypatch):
    """Write a checkpoint after every two sessions and every value file."""
    monkeypatch.setattr(checkpoint, "INTERVAL_SECONDS", 0)
    monkeypatch.setattr(writer, "MIN_SESSIONS", 2)
    monkeypatch.setattr(writing, "SESSIONS_AT_ONCE", 2)


@pytest.fixture
def cut_off(sessions, tmp_path, monkeypatch):
    """The folder of a build that was interrupted before publication."""
    place = tmp_path / "index"
    with monkeypatch.context() as patched:
        patched.setattr(LocalFolder, "remove", lambda *_: None)
        patched.setattr("lazynwb.index.build.publish", lambda *_: sys.exit(1))
        with pytest.raises(SystemExit):
            lazynwb.build_index(sessions, place, values=True)
    return place


def check(place, paths, *, is_clean=True):
    """Assert that the index is complete and its folder contains nothing else.

    Files that a process was writing when it was killed may be: nothing names them.
    """
    expected = lazynwb.scan_nwb(paths, "/units").collect()
    assert_frame_equal(lazynwb.scan_nwb(None, "/units", index=place).collect(), expected)
    values = lazynwb.scan_index(place, "/units").select("x", "label", "_nwb_path", "_table_index").collect()
    assert_frame_equal(values, expected.select(values.columns))
    assert lazynwb.scan_index(place).collect()["path"].to_list() == [str(path) for path in paths]
    lazynwb.update_index(place)
    lazynwb.update_index(place)
    if not is_clean:
        return
    index = lazynwb.open_index(place)
    kinds = ("sessions", "tables", "columns")
    named = {file for kind in kinds for file in index.files(kind)}
    named |= {str(place / f"entries-{part.token}.bin") for part in index.manifest.parts}
    for table in ("units", "intervals/trials"):
        named |= {name for file in index.value_files(table) for name in (file, file[:-7] + "entry")}
    there = {str(path) for path in place.rglob("*") if path.is_file() and not path.name.startswith(".")}
    assert there == named | {str(place / "manifest.json")}


@pytest.mark.usefixtures("often")
def test_interrupted_builds_resume_and_finish(sessions, tmp_path, monkeypatch):
    """Each build stops after a few writes; no build repeats work that a checkpoint records."""
    place = tmp_path / "index"
    with monkeypatch.context() as patched:
        writes = WriteLimit(patched)
        tries = described = 0
        while True:
            writes.left = 17
            tries += 1
            lazynwb.clear_cache()
            with lazynwb.profile() as counts:
                try:
                    lazynwb.build_index(sessions, place, values=True)
                except CutOff:
                    assert not (place / "manifest.json").exists()
                    continue
                finally:
                    described += counts.files_opened
            break
    assert tries > 3
    # Twice each, described and read, and what lay between a checkpoint and the end of a try.
    assert described <= 3 * COUNT + 8 * tries
    check(place, sessions, is_clean=False)


@pytest.mark.long
@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("on_workers", [False, True])
def test_finished_work_is_not_repeated(sessions, tmp_path, monkeypatch, on_workers):
    place = tmp_path / "index"
    publish = "lazynwb.index.build.publish"

    def cut(*_):
        raise CutOff

    with monkeypatch.context() as patched:
        patched.setattr(publish, cut)
        patched.setattr(LocalFolder, "remove", cut)
        with pytest.raises(CutOff):
            lazynwb.build_index(sessions, place, values=True)
    lazynwb.clear_cache()
    with ThreadPoolExecutor(2) as pool, lazynwb.profile() as counts:
        done = lazynwb.build_index(sessions, place, values=True, executor=pool if on_workers else None)
    assert (done.sessions, done.failed) == (COUNT, [])
    assert counts.files_opened <= 4  # the last two sessions, of which there was no checkpoint
    assert not (place / checkpoint.CHECKPOINT).exists()
    check(place, sessions)


@pytest.mark.long
@pytest.mark.usefixtures("often")
def test_changed_sessions_are_described_and_read_again(sessions, cut_off):
    write(sessions[3], 20)
    lazynwb.build_index(sessions, cut_off, values=True)
    check(cut_off, sessions)


@pytest.mark.long
@pytest.mark.usefixtures("often")
def test_other_sources_are_another_build(sessions, cut_off):
    """Files of the first build are superseded, and removed by the next update."""
    lazynwb.build_index(sessions[::-1], cut_off, values=True)
    check(cut_off, sessions[::-1])


@pytest.mark.long
@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("damage", ["no checkpoint", "a part is gone", "values are gone", "of two builds"])
@pytest.mark.sample(2)
def test_an_invalid_checkpoint_is_ignored(sessions, cut_off, monkeypatch, damage):
    if damage == "no checkpoint":
        (cut_off / checkpoint.CHECKPOINT).write_bytes(b"{")
    elif damage == "of two builds":  # another one goes on from the same checkpoint, and is done first
        replace = LocalFolder.replace
        others = []

        def slowly(folder, name, data, before):
            if name == "manifest.json" and not others:
                others.append(name)
                lazynwb.build_index(sessions, cut_off, values=True)
            replace(folder, name, data, before)

        monkeypatch.setattr(LocalFolder, "replace", slowly)
        with pytest.raises(lazynwb.errors.LazyNWBError, match="another process"):
            lazynwb.build_index(sessions, cut_off, values=True)
        assert lazynwb.scan_index(cut_off, "/units").collect().height > 0
    else:
        pattern = "sessions-*.parquet" if damage == "a part is gone" else "tables=units/*.parquet"
        next(iter(sorted(cut_off.glob(pattern)))).unlink()
    lazynwb.build_index(sessions, cut_off, values=True)
    found = lazynwb.scan_index(cut_off, "/units").select("x", "_nwb_path").collect()
    assert_frame_equal(found, lazynwb.scan_nwb(sessions, "/units").select("x", "_nwb_path").collect())


def test_a_build_in_a_process_that_is_killed(sessions, tmp_path):
    """After SIGKILL, the next build only reads the remaining sources."""
    place = tmp_path / "index"
    code = (
        "import os, signal, sys\n"
        "import lazynwb\n"
        "from lazynwb.index import checkpoint, writer\n"
        "checkpoint.INTERVAL_SECONDS = 0; writer.MIN_SESSIONS = 3\n"
        "index_source, calls = writer.index_source, []\n"
        "def counted(source, locations):\n"
        "    calls.append(source)\n"
        "    if len(calls) == 8: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return index_source(source, locations)\n"
        "writer.index_source = counted\n"
        "lazynwb.build_index(sys.argv[1], sys.argv[2])\n"
    )
    command = [sys.executable, "-c", code, str(sessions[0].parent), str(place)]
    killed = subprocess.run(command, check=False, env={**os.environ})  # noqa: S603
    assert killed.returncode < 0
    assert (place / checkpoint.CHECKPOINT).exists()
    opened = []
    for folder in (place, tmp_path / "other"):
        lazynwb.clear_cache()
        with lazynwb.profile() as counts:
            assert lazynwb.build_index(sessions, folder).sessions == COUNT
        opened.append(counts.files_opened)
    assert opened[0] * COUNT == opened[1] * (COUNT - 6)
    assert lazynwb.scan_nwb(None, "/units", index=place).select(pl.len()).collect().item() > 0
