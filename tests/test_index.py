"""An index of sessions: its tables, scans that are planned from it, and changes of files."""

import logging
import multiprocessing
import os
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import h5py
import msgspec
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import builders
import checks
import lazynwb
from lazynwb.errors import (
    CorruptDataError,
    LazyNWBError,
    NotNWBError,
    SchemaError,
    SourceNotFoundError,
    TableNotFoundError,
)
from lazynwb.index import build as updating
from lazynwb.index import model
from lazynwb.index import writer as writing
from lazynwb.index.build import build_index, update_index
from lazynwb.index.location import LocalFolder
from lazynwb.index.reader import Index, open_index
from lazynwb.lookup.loader import load_listing
from lazynwb.scan import scan_index
from lazynwb.storage.resolve import resolve

CUBE_TABLES = [
    "units",
    "intervals/trials",
    "intervals/performance",
    "acquisition/lick_sensor_events",
    "processing/behavior/running_speed",
    "general",
]


@pytest.fixture(scope="module")
def indexed(cube, tmp_path_factory):
    """An index of the cube. Not to be changed."""
    place = tmp_path_factory.mktemp("index")
    build_index(cube, place)
    return place


@pytest.fixture
def own(cube, tmp_path):
    """Copies of the cube's files, to be changed, and an index of them."""
    folder = tmp_path / "own"
    folder.mkdir()
    paths = [shutil.copy(path, folder) for path in cube]
    paths = [str(path) for path in paths]
    build_index(paths, tmp_path / "index")
    return paths, tmp_path / "index"


def touches(profile):
    return profile.requests, profile.files_opened, profile.files_parsed


def names_in(place):
    return [file.name for file in Path(place).iterdir()]


def in_force(place):
    return {Path(file).name for kind in model.KINDS for file in Index(place).files(kind)}


# -- equal to scans of the files --------------------------------------------------------------------------


@pytest.mark.parametrize("table", CUBE_TABLES)
def test_a_scan_with_an_index_equals_one_without(cube, indexed, table):
    live = lazynwb.scan_nwb(cube, table)
    planned = lazynwb.scan_nwb(None, table, index=indexed)
    assert planned.collect_schema() == live.collect_schema()
    assert_frame_equal(planned.collect(), live.collect())


@pytest.mark.parametrize(
    "options",
    [
        {"infer_schema_length": 1},
        {"exclude_array_columns": True},
        {"session_columns": ["session_id", "keywords", "subject_id"]},
        {"schema_overrides": {"presence_ratio": pl.Float32}},
    ],
)
def test_options_have_the_same_effect_with_an_index(cube, indexed, options):
    try:
        live = lazynwb.read_nwb(cube, "units", **options)
    except SchemaError as error:
        with pytest.raises(SchemaError, match=str(error)[:40]):
            lazynwb.read_nwb(None, "units", index=indexed, **options)
        return
    assert_frame_equal(lazynwb.read_nwb(None, "units", index=indexed, **options), live)


def test_filters_limits_and_sql_give_equal_results(cube, indexed):
    def queries(frame):
        good = frame.filter(pl.col("presence_ratio") > 0.7, pl.col("location") == "CA1")
        yield good.select("unit_id", "spike_times")
        yield frame.head(50).filter(pl.col("presence_ratio") > 0.7)
        yield frame.group_by("_nwb_path", maintain_order=True).len()
        yield frame.filter(pl.col("_nwb_path") == str(cube[2])).select("waveform_mean")

    pairs = zip(
        queries(lazynwb.scan_nwb(None, "units", index=indexed)),
        queries(lazynwb.scan_nwb(cube, "units")),
        strict=True,
    )
    for planned, live in pairs:
        assert_frame_equal(planned.collect(), live.collect())


@pytest.mark.long
def test_every_table_of_every_kind_of_file_is_equal(built, tmp_path):
    paths = [built(name) for name in checks.sample([*builders.CASES], 4)]
    done = build_index(paths, tmp_path / "index")
    index = open_index(tmp_path / "index")
    compared = 0
    for path in paths:
        own = scan_index(index, "tables").filter(pl.col("path") == str(path))
        for table in own.select("table").collect().to_series():
            try:
                live = lazynwb.scan_nwb(path, table)
                expected = live.collect()
            except LazyNWBError as error:
                with pytest.raises(type(error)):
                    lazynwb.scan_nwb(path, table, index=index).collect()
                continue
            planned = lazynwb.scan_nwb(path, table, index=index)
            assert planned.collect_schema() == live.collect_schema(), (path, table)
            assert_frame_equal(planned.collect(), expected)
            compared += 1
    assert compared > len(paths)
    assert done.sessions == len(paths)


def test_an_index_lists_the_contents_of_the_files(cube, indexed):
    listed = scan_index(indexed, "tables").collect()
    found = {(path, table) for path, table in listed.select("path", "table").iter_rows()}
    assert found == {
        (str(path), entry.path.lstrip("/"))
        for path in cube
        for entry in load_listing(resolve(str(path))).entries
        if entry.role in {"table", "series", "metadata"} and entry.kind == "group"
    }
    rows = lazynwb.read_nwb(cube, "units").group_by("_nwb_path").len()
    units = listed.filter(pl.col("table") == "units").select(
        _nwb_path="path", len=pl.col("rows").cast(pl.UInt32)
    )
    assert_frame_equal(units.sort("_nwb_path"), rows.sort("_nwb_path"), check_column_order=False)
    columns = scan_index(indexed, "columns").filter(table="units", path=str(cube[0])).collect()
    schema = lazynwb.get_table_schema(cube[0], "units", exclude_internal_columns=True)
    assert dict(columns.select("column", "dtype").iter_rows()) == {n: str(d) for n, d in schema.items()}
    waveforms = columns.row(by_predicate=pl.col("column") == "waveform_mean", named=True)
    assert waveforms["shape"] == [40, 21, 8]
    assert waveforms["codecs"] == ["shuffle", "zlib"]
    speed = scan_index(indexed, "columns").filter(column="timestamps", rate=60.0).collect()
    assert speed["table"].unique().to_list() == ["processing/behavior/running_speed"]


# -- planning without access to files ---------------------------------------------------------------------


def test_planning_accesses_no_file(own):
    paths, place = own
    counts = lazynwb.read_nwb(paths, "units").height
    lazynwb.clear_cache()
    for path in paths:
        Path(path).unlink()
    with lazynwb.profile() as profile:
        frame = lazynwb.scan_nwb(None, "units", index=place, session_columns=["session_id"])
        assert "spike_times" in frame.collect_schema()
        assert frame.select(pl.len()).collect().item() == counts
        assert frame.select("session_id", "_nwb_path").unique().collect().height == len(paths)
        assert lazynwb.scan_nwb(paths, "units", index=place).select(pl.len()).collect().item() == counts
        context = lazynwb.get_sql_context(None, index=place, disable_progress=True)
        found = context.execute("SELECT COUNT(*) FROM units").collect()
    assert found.item() == counts
    assert touches(profile) == (0, 0, 0)


def test_a_filter_on_session_columns_skips_other_files(own):
    paths, place = own
    for path in paths[:3] + paths[4:]:
        Path(path).unlink()
    frame = lazynwb.scan_nwb(None, "units", index=place, session_columns="session_id")
    with lazynwb.profile() as profile:
        found = frame.filter(session_id="s3").select("presence_ratio").collect()
    assert len(found) == 40
    assert profile.files_skipped == len(paths) - 1
    assert profile.files_parsed == 0


def test_equal_schemas_are_looked_up_once(indexed):
    with lazynwb.profile() as profile:
        lazynwb.scan_nwb(None, "units", index=indexed)
    assert profile.cache_hits == 1


def test_a_missing_table_is_an_error_without_opening_files(own):
    paths, place = own
    for path in paths:
        Path(path).unlink()
    with pytest.raises(TableNotFoundError, match="did you mean /units"):
        lazynwb.scan_nwb(None, "unit", index=place)


def test_with_chunk_locations_no_structure_is_parsed_again(cube, tmp_path, monkeypatch):
    build_index(cube, tmp_path / "with", chunk_locations=["spike_times", "units/waveform_mean"])
    build_index(cube, tmp_path / "without")
    expected = lazynwb.read_nwb(cube, "units").select("spike_times", "waveform_mean")
    lazynwb.clear_cache()

    def never(*_):
        message = "opened"
        raise AssertionError(message)

    monkeypatch.setattr("lazynwb.lookup.loader.open_reader", never)
    scan = lazynwb.scan_nwb(None, "units", index=tmp_path / "with").select("spike_times", "waveform_mean")
    assert_frame_equal(scan.collect(), expected)
    with pytest.raises(AssertionError, match="opened"):
        lazynwb.scan_nwb(None, "units", index=tmp_path / "without").select("waveform_mean").collect()


def test_chunks_are_looked_up_once_for_a_version_of_a_file(own, monkeypatch):
    _, place = own
    lazynwb.clear_cache()
    expected = lazynwb.read_nwb(None, "units", index=place)

    def never(*_):
        message = "opened"
        raise AssertionError(message)

    monkeypatch.setattr("lazynwb.lookup.loader.open_reader", never)
    assert_frame_equal(lazynwb.read_nwb(None, "units", index=place), expected)


# -- files that change ------------------------------------------------------------------------------------


def test_a_changed_file_is_parsed_again_and_named_in_a_warning(own, caplog):
    paths, place = own
    builders.write_session(paths[1], 17, units=13)
    frame = lazynwb.scan_nwb(None, "units", index=place)
    with caplog.at_level(logging.WARNING, "lazynwb"):
        found = frame.collect()
    assert_frame_equal(found, lazynwb.read_nwb(paths, "units"))
    assert found.height == 5 * 40 + 13
    assert "1 of 6 files have changed since they were cataloged" in caplog.text
    assert paths[1] in caplog.text


def test_a_missing_file_is_an_error_when_it_is_read(own):
    paths, place = own
    Path(paths[2]).unlink()
    frame = lazynwb.scan_nwb(None, "units", index=place)
    with pytest.raises(SourceNotFoundError, match="session_02"):
        frame.select("presence_ratio").collect()
    kept = lazynwb.scan_nwb(None, "units", index=place, ignore_errors=True)
    assert kept.select("presence_ratio").collect().height == 200


def test_the_device_is_not_part_of_the_identity(own, monkeypatch):
    """Machines number the same share differently."""
    paths, _ = own
    stat = os.stat

    def elsewhere(*arguments, **options):
        found = stat(*arguments, **options)
        return os.stat_result([*found[:2], found.st_dev + 1, *found[3:10]], _fields_of(found))

    def _fields_of(found):
        return {name: getattr(found, name) for name in ("st_mtime_ns", "st_ctime_ns", "st_atime_ns")}

    before = resolve(paths[0]).identity()
    monkeypatch.setattr(os, "stat", elsewhere)
    assert resolve(paths[0]).identity() == before


def test_sources_outside_the_index_are_parsed(cube, own, tmp_path):
    paths, place = own
    other = builders.write_session(tmp_path / "other.nwb", 9, units=7)
    both = [paths[0], other, paths[3]]
    assert_frame_equal(lazynwb.read_nwb(both, "units", index=place), lazynwb.read_nwb(both, "units"))
    scan = lazynwb.scan_nwb(both, "units", index=place, session_columns="session_id")
    live = lazynwb.scan_nwb(both, "units", session_columns="session_id")
    assert_frame_equal(scan.collect(), live.collect())


def test_a_file_that_could_not_be_read_is_in_the_index_with_the_reason(cube, tmp_path):
    broken = tmp_path / "broken.nwb"
    broken.write_bytes(b"not an NWB file" * 100)
    done = build_index([cube[0], broken, cube[1]], tmp_path / "index")
    assert len(done.failed) == 1
    noted = scan_index(tmp_path / "index").filter(pl.col("problem").is_not_null()).collect()
    assert noted["path"].to_list() == [str(broken)]
    assert noted["identity"].to_list() == [None]
    with pytest.raises(NotNWBError, match="broken"):
        lazynwb.read_nwb(None, "units", index=tmp_path / "index")
    found = lazynwb.read_nwb(None, "units", index=tmp_path / "index", ignore_errors=True)
    assert found.height == 80
    with pytest.raises(LazyNWBError, match="broken"):
        build_index([cube[0], broken], tmp_path / "strict", ignore_errors=False)
    assert not (tmp_path / "strict" / "manifest.json").exists()
    assert not list((tmp_path / "strict").glob("*")) if (tmp_path / "strict").exists() else True
    with pytest.raises(LazyNWBError, match="none of 1 sources"):
        build_index(broken, tmp_path / "none")


# -- updates ----------------------------------------------------------------------------------------------


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of two sessions that do not count as small."""
    monkeypatch.setattr(writing, "MAX_SESSIONS", 2)
    monkeypatch.setattr(updating, "MAX_SESSIONS", 2)
    monkeypatch.setattr(updating, "SMALL_PART", 1)


@pytest.mark.usefixtures("small_parts")
def test_an_update_only_rewrites_changed_parts(cube, tmp_path):
    paths = [str(shutil.copy(path, tmp_path)) for path in cube]
    place = tmp_path / "index"
    build_index(paths, place)
    before = in_force(place)
    assert len(before) == 9
    builders.write_session(paths[2], 21, units=3)
    Path(paths[5]).unlink()
    new = builders.write_session(tmp_path / "new.nwb", 30, units=5)
    with lazynwb.profile() as profile:
        done = update_index(place, new)
    assert (done.sessions, done.added, done.changed, done.removed, done.failed) == (6, 1, 1, 1, [])
    parsed = scan_index(place, "tables").filter(pl.col("path").is_in([paths[2], str(new)])).collect().height
    assert profile.files_parsed == parsed + 2 * 2  # and their listings, and the attributes of the root group
    after = in_force(place)
    assert len(before & after) == 3, "the first part is as it was"
    expected = [*paths[:5], str(new)]
    assert scan_index(place).select("path").collect().to_series().to_list() == expected
    assert_frame_equal(lazynwb.read_nwb(None, "units", index=place), lazynwb.read_nwb(expected, "units"))
    assert set(names_in(place)) > {"manifest.json", *before, *after}, "readers may need what was before"
    update_index(place)
    assert in_force(place) == after
    assert not (before - after) & set(names_in(place))


def test_an_update_without_changes_writes_nothing(own):
    _, place = own
    before = {name: (place / name).stat().st_mtime_ns for name in names_in(place)}
    done = update_index(place)
    assert (done.added, done.changed, done.removed) == (0, 0, 0)
    assert {name: (place / name).stat().st_mtime_ns for name in names_in(place)} == before


def test_small_parts_are_merged(cube, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "MAX_SESSIONS", 6)
    monkeypatch.setattr(updating, "MAX_SESSIONS", 6)
    monkeypatch.setattr(updating, "SMALL_PART", 3)
    build_index(cube[:1], tmp_path)
    for path in cube[1:]:
        update_index(tmp_path, path)
    assert [part.sessions for part in Index(tmp_path).manifest.parts] == [3, 3]
    assert Index(tmp_path).manifest.generation == 6
    found = lazynwb.read_nwb(None, "units", index=tmp_path)
    assert_frame_equal(found, lazynwb.read_nwb(cube, "units"))


@pytest.mark.usefixtures("small_parts")
def test_readers_are_not_disturbed_by_an_update(cube, tmp_path):
    paths = [str(shutil.copy(path, tmp_path)) for path in cube]
    place = tmp_path / "index"
    build_index(paths, place)
    early, late = open_index(place), open_index(place)
    frame = lazynwb.scan_nwb(None, "units", index=early)
    builders.write_session(paths[0], 40, units=3)
    update_index(place)
    assert lazynwb.read_nwb(None, "units", index=early).height == 5 * 40 + 3
    builders.write_session(paths[3], 41, units=4)
    update_index(place)
    assert not in_force(place) >= {Path(file).name for file in late.files("tables")}
    assert lazynwb.read_nwb(None, "units", index=late).height == 4 * 40 + 7
    assert frame.collect().height == 4 * 40 + 7
    assert scan_index(late, "tables").collect().height == scan_index(place, "tables").collect().height


def test_of_two_updates_at_the_same_time_one_is_refused(own, monkeypatch):
    paths, place = own
    builders.write_session(paths[0], 40, units=3)
    publish = updating.publish

    def publish_after_another_update(*arguments):
        monkeypatch.setattr(updating, "publish", publish)
        update_index(place)
        publish(*arguments)

    monkeypatch.setattr(updating, "publish", publish_after_another_update)
    with pytest.raises(LazyNWBError, match="another process"):
        update_index(place)
    assert lazynwb.read_nwb(None, "units", index=place).height == 5 * 40 + 3
    listed = {name for name in names_in(place) if name.endswith(".bin")}
    assert len(listed) == 2, "what the refused one wrote is removed"


def test_an_update_between_check_and_rename_of_another_is_refused(own, monkeypatch):
    paths, place = own
    builders.write_session(paths[0], 40, units=3)
    write = LocalFolder.write
    refused = []

    def slowly(folder, name, data):
        write(folder, name, data)
        if name.startswith("."):  # the new manifest under a temporary name
            monkeypatch.setattr(LocalFolder, "write", write)
            with pytest.raises(LazyNWBError, match="another process") as error:
                update_index(place)
            refused.append(error)

    monkeypatch.setattr(LocalFolder, "write", slowly)
    assert update_index(place).changed == 1
    assert refused
    assert update_index(place).changed == 0
    assert lazynwb.read_nwb(None, "units", index=place).height == 5 * 40 + 3


class Killed(BaseException):
    """The simulated end of a process."""


class Mortal(LocalFolder):
    """A folder whose process ends before or during a change; later changes have no effect."""

    left = 0

    def _step(self):
        Mortal.left -= 1
        if Mortal.left < 0:
            raise Killed

    def write(self, name, data):
        if Mortal.left == 0:
            super().write(name, data[: len(data) // 2])
        self._step()
        super().write(name, data)

    def replace(self, name, data, before):
        super().replace(name, data, before)
        self._step()  # after the rename

    def remove(self, names):
        for name in names:
            if Mortal.left > 0:
                super().remove([name])
            self._step()


@pytest.mark.long
@pytest.mark.usefixtures("small_parts")
def test_an_update_that_is_killed_at_any_step_leaves_the_old_index_or_the_new_one(own, tmp_path, monkeypatch):
    paths, place = own
    builders.write_session(paths[0], 40, units=3)
    update_index(place)  # so that there is something to remove
    builders.write_session(paths[3], 41, units=4)
    new = str(builders.write_session(tmp_path / "new.nwb", 42, units=5))
    expected = {count: lazynwb.read_nwb([*paths, new][:count], "units") for count in (6, 7)}
    steps = 0
    generations = set()
    while True:
        copy = tmp_path / f"copy{steps}"
        shutil.copytree(place, copy)
        monkeypatch.setattr(updating, "open_folder", lambda name, _: Mortal(str(name)))
        Mortal.left = steps
        try:
            update_index(copy, new)
        except Killed:
            killed = True
        else:
            killed = False
        monkeypatch.undo()
        found = Index(copy)
        generations.add(found.manifest.generation)
        assert_frame_equal(lazynwb.read_nwb(None, "units", index=copy), expected[len(found)])
        update_index(copy, new)  # the next one goes on
        assert len(Index(copy)) == 7
        assert in_force(copy) <= set(names_in(copy))
        assert_frame_equal(lazynwb.read_nwb(None, "units", index=copy), expected[7])
        if not killed:
            break
        steps += 1
    assert steps >= 8
    assert len(generations) == 2, "some were killed before the manifest, some after it"


def test_an_index_whose_files_are_all_missing_is_not_emptied(own):
    paths, place = own
    folder = Path(paths[0]).parent
    folder.rename(folder.with_name("unmounted"))
    with pytest.raises(SourceNotFoundError, match="check that their disk or network share is mounted"):
        update_index(place)
    assert len(Index(place)) == 6


def test_a_new_build_replaces_the_old_one(own):
    paths, place = own
    build_index(paths[:2], place)
    assert len(Index(place)) == 2
    assert Index(place).manifest.generation == 2
    update_index(place)
    assert len([name for name in names_in(place) if name.endswith(".bin")]) == 1


def test_new_metadata_add_a_column_for_all_sessions(tmp_path):
    paths = [str(tmp_path / f"{number}.nwb") for number in range(3)]
    values = [{"weight": 0.02}, {"weight": "20 g"}, {"weight": "21 g", "species": "mouse"}]
    for path, own in zip(paths, values, strict=True):
        with h5py.File(path, "w") as file:
            file["general/session_id"] = path[-5]
            for name, value in own.items():
                file[f"general/subject/{name}"] = value
    place = tmp_path / "index"
    build_index(paths[0], place)
    assert scan_index(place).collect_schema()["weight"] == pl.Float64
    update_index(place, paths)
    sessions = scan_index(place).select("session_id", "weight", "species").collect()
    assert sessions.rows() == [("0", "0.02", None), ("1", "20 g", None), ("2", "21 g", "mouse")]
    # What has no common type is text in the index, and what the files say in a scan.
    with pytest.raises(SchemaError, match="weight"):
        lazynwb.scan_nwb(None, "general", index=place, session_columns="weight")
    some = lazynwb.scan_nwb(paths[1:], "general", index=place, session_columns="weight")
    assert some.collect()["weight"].to_list() == ["20 g", "21 g"]


# -- updating elsewhere -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_workers_of_an_executor_build_an_equal_index(cube, indexed, tmp_path, kind):
    pool = (
        ThreadPoolExecutor(2)
        if kind == "threads"
        else ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    )
    with pool:
        build_index(cube, tmp_path, executor=pool)
    for table in model.KINDS:
        assert_frame_equal(scan_index(tmp_path, table).collect(), scan_index(indexed, table).collect())
    assert_frame_equal(
        lazynwb.read_nwb(None, "units", index=tmp_path), lazynwb.read_nwb(None, "units", index=indexed)
    )


# -- searching --------------------------------------------------------------------------------------------


def test_sql_finds_sessions_by_tables_columns_and_numbers_of_rows(cube, indexed):
    context = lazynwb.get_sql_context(None, index=indexed, disable_progress=True)
    with lazynwb.profile() as profile:
        found = context.execute(
            """SELECT s.session_id, c.rows FROM index_columns c JOIN index_sessions s ON c.path = s.path
            WHERE c."table" = 'intervals/performance' AND c."column" = 'rewarded_modality'
            ORDER BY s.session_id"""
        ).collect()
    assert found.rows() == [(f"s{number}", 6) for number in (0, 1, 2, 4, 5)]
    assert touches(profile) == (0, 0, 0)
    trials = context.execute("SELECT COUNT(*) FROM trials WHERE is_rewarded").collect().item()
    assert trials == lazynwb.read_nwb(cube, "trials")["is_rewarded"].sum()


def test_duckdb_reads_the_current_files(indexed):
    duckdb = pytest.importorskip("duckdb")
    files = open_index(indexed).files("tables")
    query = "SELECT count(*), sum(rows) FROM read_parquet($files) WHERE \"table\" = 'units'"
    found = duckdb.sql(query, params={"files": files})
    assert found.fetchall() == [(6, 240)]


def test_a_predicate_and_a_limit_on_an_index(indexed):
    tables = scan_index(indexed, "tables")
    every = tables.collect()
    assert_frame_equal(tables.filter(rows=40).select("path").collect(), every.filter(rows=40).select("path"))
    assert_frame_equal(
        tables.head(5).filter(pl.col("rows") > 40).collect(), every.head(5).filter(pl.col("rows") > 40)
    )
    assert tables.select(pl.len()).collect().item() == every.height
    with pytest.raises(ValueError, match="an index has the tables"):
        scan_index(indexed, "units")


def test_queries_and_indices_can_be_pickled(cube, indexed):
    frame = lazynwb.scan_nwb(None, "units", index=indexed).select("unit_id")
    again = pickle.loads(pickle.dumps(open_index(indexed)))  # noqa: S301 - our own
    assert len(again) == len(cube)
    copied = pl.LazyFrame.deserialize(frame.serialize())
    assert_frame_equal(copied.collect(), frame.collect())


# -- links ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_second_name", [False, True])
def test_links_have_the_same_targets_with_an_index(tmp_path, with_second_name):
    path = tmp_path / "links.nwb"
    with h5py.File(path, "w") as file:
        builders.nwb_root(file, "s")
        builders.table(file, "processing/ecephys/clusters", {"x": np.arange(3)})
        builders.series(file, "acquisition/lick", np.arange(4.0), np.arange(4.0))
        file["analysis"] = h5py.SoftLink("/processing/ecephys")
        file["scratch/hard"] = file["processing/ecephys"]
        if with_second_name:
            file["second"] = file["processing"]
        file["stimulus/other"] = h5py.ExternalLink("links-other.nwb", "/processing")
    with h5py.File(tmp_path / "links-other.nwb", "w") as file:
        builders.table(file, "processing/far", {"y": np.arange(5)})
    build_index(path, tmp_path / "index")
    for table in (
        "processing/ecephys/clusters",
        "analysis/clusters",
        "scratch/hard/clusters",
        "stimulus/other/far",
        "acquisition/lick",
        "acquisition/lick/data",
        *(["second/ecephys/clusters"] if with_second_name else []),
    ):
        live = lazynwb.read_nwb(path, table)
        assert_frame_equal(lazynwb.read_nwb(None, table, index=tmp_path / "index"), live)
    with pytest.raises(TableNotFoundError):
        lazynwb.read_nwb(None, "units", index=tmp_path / "index")


def test_links_to_other_files_are_followed_according_to_the_settings(tmp_path):
    (tmp_path / "other").mkdir()
    with h5py.File(tmp_path / "other" / "data.nwb", "w") as file:
        file["data"] = np.arange(6.0)
    path = tmp_path / "own" / "links.nwb"
    path.parent.mkdir()
    with h5py.File(path, "w") as file:
        builders.nwb_root(file, "s")
        builders.series(file, "acquisition/lick", np.arange(6.0), np.arange(6.0))
        del file["acquisition/lick/data"]
        file["acquisition/lick/data"] = h5py.ExternalLink("../other/data.nwb", "/data")
    lazynwb.config.external_links = "anywhere"
    build_index(path, tmp_path / "index")
    with_data = lazynwb.read_nwb(None, "acquisition/lick", index=tmp_path / "index")
    assert with_data["data"].to_list() == [0.0, 1, 2, 3, 4, 5]
    lazynwb.config.external_links = "folder"
    without = lazynwb.read_nwb(None, "acquisition/lick", index=tmp_path / "index")
    assert_frame_equal(without, lazynwb.read_nwb(path, "acquisition/lick"))
    assert "data" not in without.columns


# -- untrusted indexes ------------------------------------------------------------------------------------


def changed_manifest(place, **fields):
    file = place / "manifest.json"
    found = msgspec.json.decode(file.read_bytes())
    found.update(fields)
    file.write_bytes(msgspec.json.encode(found))


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b'{"format": "another"}', b'{"format": "lazynwb-index", "version": 1}', b"\xff" * 9],
)
def test_a_damaged_manifest_is_an_error(tmp_path, data):
    (tmp_path / "manifest.json").write_bytes(data)
    with pytest.raises(CorruptDataError, match="not an index of sessions, or is damaged"):
        lazynwb.scan_nwb(None, "units", index=tmp_path)


def test_a_missing_index_is_an_error(tmp_path):
    for call in (
        lambda: lazynwb.scan_nwb(None, "units", index=tmp_path / "none"),
        lambda: update_index(tmp_path / "none"),
    ):
        with pytest.raises(SourceNotFoundError, match=r"build it with lazynwb\.build_index"):
            call()
    with pytest.raises(TypeError, match="pass paths or URLs"):
        lazynwb.scan_nwb(None, "units")


def test_other_versions_of_the_format_are_refused(own):
    _, place = own
    changed_manifest(place, catalog_version=0)
    with pytest.raises(LazyNWBError, match="earlier version"):
        lazynwb.scan_nwb(None, "units", index=place)
    assert scan_index(place, "tables").collect().height > 0
    done = update_index(place)
    assert done.changed == 6
    assert lazynwb.read_nwb(None, "units", index=place).height == 240
    changed_manifest(place, version=99)
    with pytest.raises(LazyNWBError, match="upgrade lazynwb"):
        lazynwb.scan_nwb(None, "units", index=place)


@pytest.mark.parametrize("token", ["../../etc/passwd", "x" * 32, "A" * 32, ""])
def test_names_of_parts_cannot_leave_the_folder(own, token):
    _, place = own
    found = msgspec.json.decode((place / "manifest.json").read_bytes())
    changed_manifest(place, parts=[{**found["parts"][0], "token": token}])
    with pytest.raises(CorruptDataError):
        lazynwb.scan_nwb(None, "units", index=place)


@pytest.mark.parametrize("kind", ["sessions", "tables", "entries"])
@pytest.mark.parametrize("damage", ["cut", "garbage", "gone"])
def test_damaged_parts_are_errors(own, kind, damage):
    _, place = own
    file = next(place.glob(f"{kind}-*"))
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-40] if damage == "cut" else os.urandom(file.stat().st_size))
    with pytest.raises(CorruptDataError, match="rebuild it"):
        lazynwb.read_nwb(None, "units", index=place)


def test_blocks_of_entries_are_decoded_within_a_limit(own, monkeypatch):
    """A block that declares more is refused before Polars allocates it."""
    _, place = own
    monkeypatch.setattr(lazynwb.index.part_io, "MAX_BLOCK_BYTES", 1024 * 1024)
    assert lazynwb.read_nwb(None, "units", index=place).height == 240

    def bomb(folder, name, start, stop):
        data = read(folder, name, start, stop)
        if not name.startswith("entries"):
            return data
        stream = BytesIO()
        pl.DataFrame({"entry": [bytes(1024 * 1024)] * 2}).write_parquet(stream, compression="zstd")
        assert len(stream.getvalue()) < stop - start
        return stream.getvalue()

    read = lazynwb.index.location.LocalFolder.read
    monkeypatch.setattr(lazynwb.index.location.LocalFolder, "read", bomb)
    with pytest.raises(CorruptDataError, match="decoded bytes"):
        lazynwb.read_nwb(None, "units", index=place)


def tampered(**fields):
    """Replace fields of the first column's array."""

    def change(table):
        column = table.columns[0]
        data = msgspec.structs.replace(column.data, **fields)
        columns = (msgspec.structs.replace(column, data=data), *table.columns[1:])
        return msgspec.structs.replace(table, columns=columns)

    return change


@pytest.mark.parametrize(
    "change",
    [
        tampered(source="/etc/passwd"),
        tampered(shape=(2**63 - 1, 2**63 - 1)),
        tampered(shape=(-1,)),
        tampered(shape=(1,) * 33),
        tampered(base=-8),
        tampered(layout="chunked", chunk=(0,)),
        tampered(layout="chunked", chunk=(2**40,)),
        tampered(layout="chunked", chunk=()),
        tampered(layout="objects", chunk=(1,), keys=None),
        lambda table: msgspec.structs.replace(table, rows=-1),
        lambda table: msgspec.structs.replace(table, rows=2**40),
        lambda table: msgspec.structs.replace(table, rows="many"),
        lambda table: msgspec.structs.replace(table, columns=(None,)),
        lambda _: {"rows": 1},
    ],
)
@pytest.mark.sample(2)
def test_impossible_entries_are_refused(own, monkeypatch, change):
    _, place = own
    decode = lazynwb.index.snapshot.entry_decoder().decode

    class Tampering:
        @staticmethod
        def decode(data):
            entry = decode(data)
            entry.table = change(entry.table)
            return decode(msgspec.msgpack.encode(entry))

    monkeypatch.setattr(lazynwb.index.snapshot, "entry_decoder", lambda: Tampering)
    with pytest.raises(CorruptDataError, match=r"cannot be|rebuild it"):
        lazynwb.read_nwb(None, "units", index=place)


@pytest.mark.parametrize("rows", [-1, 2**40])
def test_invalid_numbers_of_rows_are_ignored(own, rows):
    _, place = own
    rewrite_rows(place, rows)
    assert lazynwb.scan_nwb(None, "units", index=place).select(pl.len()).collect().item() == 240


def test_a_column_of_another_type_is_an_error(own):
    _, place = own
    rewrite_rows(place, "many")
    with pytest.raises(CorruptDataError, match="rebuild it"):
        lazynwb.scan_nwb(None, "units", index=place).select(pl.len()).collect()


def rewrite_rows(place, rows):
    file = next(place.glob("tables-*"))
    changed = pl.when(path="units").then(pl.lit(rows)).otherwise("rows")
    pl.read_parquet(file).with_columns(rows=changed).write_parquet(file)


def test_credentials_are_not_written(cube, tmp_path):
    from range_server import RangeServer

    with RangeServer(cube[0].parent) as server:
        signed = f"{server.url_of(cube[0].name)}?X-Amz-Signature=topsecret&versionId=7"
        login = server.url_of(cube[1].name).replace("http://", "http://user:topsecret@")
        options = {"headers": {"X-Key": "topsecret"}}
        build_index([signed, login], tmp_path, storage_options=options)
        content = b"".join(file.read_bytes() for file in tmp_path.iterdir())
        listed = scan_index(tmp_path).select("path").collect().to_series().to_list()
        assert listed == [f"{server.url_of(cube[0].name)}?versionId=7", server.url_of(cube[1].name)]
        with lazynwb.profile() as profile:
            frame = lazynwb.scan_nwb([signed, login], "units", index=tmp_path)
            assert frame.select(pl.len()).collect().item() == 80
        assert profile.requests == 0
    assert b"topsecret" not in content
    assert b"topsecret" not in scan_index(tmp_path).collect().write_json().encode()
    with pytest.raises(LazyNWBError, match=r"api_key.*may be a secret"):
        build_index("https://lab.org/a.nwb?api_key=topsecret", tmp_path)


def test_a_file_without_tables_is_recorded(cube, tmp_path):
    with h5py.File(tmp_path / "bare.nwb", "w") as file:
        file["identifier"] = "x"
    build_index([tmp_path / "bare.nwb"], tmp_path / "index")
    noted = scan_index(tmp_path / "index").collect()
    assert noted["problem"].to_list() == ["it has no tables"]
    with pytest.raises(TableNotFoundError):
        lazynwb.scan_nwb(None, "units", index=tmp_path / "index")
