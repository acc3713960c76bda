"""Updates of the values of an index: reads and writes, and interrupted updates."""

import shutil

import h5py
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import builders
import lazynwb
from interruptions import CutOff, WriteLimit
from lazynwb.errors import LazyNWBError
from lazynwb.index import values as writing
from lazynwb.index.location import LocalFolder


def write(path, number, x=None):
    rows = 3 + number % 3
    x = np.arange(rows) * 10 + number if x is None else x
    with h5py.File(path, "w") as file:
        builders.nwb_root(file, f"s{number}")
        columns = {"x": x, "label": [f"{number} {row}" for row in range(len(x))]}
        columns["spikes"] = builders.Ragged([[0.5] * row for row in range(len(x))])
        builders.table(file, "units", columns)


@pytest.fixture
def small_files(monkeypatch):
    """Value files of two sessions that do not count as small."""
    monkeypatch.setattr(writing, "SESSIONS_AT_ONCE", 2)
    monkeypatch.setattr(writing, "MAX_FILE_BYTES", 1)
    monkeypatch.setattr(writing, "SMALL_FILE_BYTES", 0)


@pytest.fixture
def sessions(tmp_path):
    paths = [tmp_path / f"{number}.nwb" for number in range(6)]
    for number, path in enumerate(paths):
        write(path, number)
    return paths


def names(place):
    return [file.name for file in lazynwb.open_index(place).table_values("units").files]


def same(place, paths):
    """Assert that both ways of reading the values equal the files."""
    expected = lazynwb.scan_nwb(paths, "/units").collect()
    assert_frame_equal(lazynwb.scan_nwb(None, "/units", index=place).collect(), expected)
    found = lazynwb.scan_index(place, "/units").select("label", "x", "_nwb_path", "_table_index").collect()
    assert_frame_equal(found, expected.select(found.columns))
    with lazynwb.profile() as counts:
        lazynwb.scan_nwb(None, "/units", index=place).select("x", "label").collect()
    assert counts.files_opened == 0


@pytest.mark.usefixtures("small_files")
def test_only_files_with_sessions_that_changed_are_written(sessions, tmp_path):
    place = tmp_path / "index"
    lazynwb.build_index(sessions, place, values=["units"])
    before = names(place)
    assert len(before) == 3
    write(sessions[3], 13)
    lazynwb.update_index(place)
    after = names(place)
    assert set(before) - set(after) == {before[1]}
    same(place, sessions)
    # The next update removes what is no longer in force.
    assert (place / before[1]).exists()
    more = tmp_path / "7.nwb"
    write(more, 7)
    lazynwb.update_index(place, [more])
    assert not (place / before[1]).exists()
    assert names(place)[: len(after)] == after
    same(place, [*sessions, more])


@pytest.mark.usefixtures("small_files")
def test_unchanged_sessions_are_read_from_the_values(sessions, tmp_path):
    """Also if the type of a column widens, and all files are rewritten."""
    place = tmp_path / "index"
    lazynwb.build_index(sessions, place, values=True)
    sessions[2].unlink()
    write(sessions[4], 4, x=np.array([0.5, 1.5]))
    lazynwb.clear_cache()
    with lazynwb.profile() as counts:
        lazynwb.update_index(place)
    assert counts.files_opened <= 4  # the one that has changed, described and read
    left = [path for number, path in enumerate(sessions) if number != 2]
    same(place, left)
    assert lazynwb.scan_index(place, "/units").collect_schema()["x"] == pl.Float64


def test_small_files_are_merged(sessions, tmp_path):
    place = tmp_path / "index"
    lazynwb.build_index(sessions[:1], place, values=True)
    for path in sessions[1:]:
        lazynwb.update_index(place, [path])
    assert len(names(place)) == 1
    same(place, sessions)


@pytest.mark.long
@pytest.mark.usefixtures("small_files")
def test_updates_interrupted_at_any_write(sessions, tmp_path, monkeypatch):
    place = tmp_path / "index"
    lazynwb.build_index(sessions, place, values=True)
    for name in "abc":
        shutil.copytree(tmp_path, tmp_path / name, ignore=shutil.ignore_patterns("a", "b", "c"))
    before = lazynwb.scan_index(place, "/units").collect()
    write(sessions[1], 11)
    sessions[5].unlink()
    limit = 0
    writes = WriteLimit(monkeypatch)
    while True:
        writes.left = limit
        try:
            lazynwb.update_index(place)
        except CutOff:
            found = lazynwb.scan_index(place, "/units").collect()
            is_old = found.height == before.height and found.equals(before)
            if not is_old:  # the manifest was replaced
                same(place, sessions[:5])
            limit += 1
            continue
        break
    assert limit > 8
    same(place, sessions[:5])


@pytest.mark.usefixtures("small_files")
def test_readers_at_every_step_of_an_update_find_the_old_values_or_the_new_ones(
    sessions, tmp_path, monkeypatch
):
    place = tmp_path / "index"
    lazynwb.build_index(sessions, place, values=True)
    early = lazynwb.open_index(place)
    before = lazynwb.scan_index(place, "/units").collect()
    write(sessions[1], 11)
    sessions[5].unlink()
    seen = []

    def followed_by_readers(method):
        def call(self, *arguments):
            result = method(self, *arguments)
            seen.extend(lazynwb.scan_index(index, "/units").collect() for index in (early, place))
            return result

        return call

    with monkeypatch.context() as patch:
        for name in ("write", "replace", "remove"):
            patch.setattr(LocalFolder, name, followed_by_readers(getattr(LocalFolder, name)))
        lazynwb.update_index(place)
    same(place, sessions[:5])
    after = lazynwb.scan_index(place, "/units").collect()
    assert [found.equals(before) or found.equals(after) for found in seen] == [True] * len(seen)
    assert {found.equals(after) for found in seen} == {True, False}


def test_one_of_two_concurrent_updates_is_refused(sessions, tmp_path, monkeypatch):
    place = tmp_path / "index"
    lazynwb.build_index(sessions[:3], place, values=True)
    write_values = writing.ValueWriter.write

    def slowly(*arguments, **options):
        monkeypatch.setattr(writing.ValueWriter, "write", write_values)
        lazynwb.update_index(place, sessions[3:5])  # somebody else comes in between
        return write_values(*arguments, **options)

    monkeypatch.setattr(writing.ValueWriter, "write", slowly)
    with pytest.raises(LazyNWBError, match="another process"):
        lazynwb.update_index(place, sessions[5:])
    same(place, sessions[:5])
    published = {*names(place), *(name.replace("parquet", "entry") for name in names(place))}
    superseded = set(lazynwb.open_index(place).manifest.superseded_files)
    there = {path.relative_to(place).as_posix() for path in place.rglob("part-*")}
    assert there == published | superseded  # what the other one had written is gone
