"""`scan_sessions`: one row per session, from catalogs or an index, and the costs of columns."""

import logging

import h5py
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import builders
import lazynwb
from lazynwb import cli
from lazynwb.errors import LazyNWBError
from zarr_stores import CODECS, Writer, session

UNITS = [3, None, 0, 5]


def write(path, number):
    with h5py.File(path, "w") as file:
        builders.nwb_root(file, f"s{number}")
        file.attrs["nwb_version"] = f"2.{number}.0"
        del file["general/subject/sex"]
        if number % 2:
            file["general/subject/sex"] = "M"
            file["general/subject/age"] = "P90D"
            file["general/subject/age"].attrs["reference"] = "birth"
            file["general/lab"] = "ours"
        if UNITS[number] is not None:
            builders.table(file, "units", {"rate": np.arange(UNITS[number]) / 2})
        if number == 1:
            builders.series(file, "processing/behavior/running_speed", np.arange(50), start=2.0, rate=10.0)
            builders.series(file, "processing/eye/position", np.arange(3), [1.5, 2.0, 30.0])
            builders.series(file, "processing/behavior/position", np.arange(2), [3.0, 4.0])
        if number == 3:
            builders.table(
                file, "intervals/trials", {"start_time": [4.0, 7.0, 9.0], "stop_time": [5.0, 8.5, np.nan]}
            )


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sessions")
    found = [folder / f"{number}.nwb" for number in range(4)]
    for number, path in enumerate(found):
        write(path, number)
    return found


@pytest.fixture(scope="module")
def index(paths, tmp_path_factory):
    place = tmp_path_factory.mktemp("index") / "index"
    lazynwb.build_index(paths, place)
    return place


@pytest.fixture(params=["files", "index"])
def scan(request, paths, index):
    """Scan the files, and an index of them."""
    return lambda **options: lazynwb.scan_sessions(
        paths, index=index if request.param == "index" else None, **options
    )


def test_metadata_equal_get_metadata_df(scan, paths):
    metadata = lazynwb.get_metadata_df(paths, as_polars=True)
    found = scan().collect()
    assert_frame_equal(found.select(metadata.columns), metadata)
    assert found.columns[-1] == "_nwb_path"
    assert found["age__reference"].to_list() == [None, "birth", None, "birth"]


def test_tables_are_counted(scan):
    found = scan().collect()
    assert found["n_units"].to_list() == UNITS
    assert found["n_trials"].to_list() == [None, None, None, 3]
    assert found["n_running_speed"].to_list() == [None, 50, None, None]
    assert found["n_eye/position"].to_list() == [None, 3, None, None]
    assert found["n_behavior/position"].to_list() == [None, 2, None, None]
    assert found["tables"][2].to_list() == [{"path": "units", "kind": "table", "rows": 0, "columns": 2}]
    assert [one["path"] for one in found["tables"][1]] == [
        *("processing/behavior/position", "processing/behavior/running_speed", "processing/eye/position")
    ]
    assert found.schema["n_units"] == pl.Int64


def test_series_can_be_excluded(scan):
    found = scan(exclude_timeseries=True).collect()
    assert [name for name in found.columns if name.startswith("n_")] == ["n_trials", "n_units"]
    assert found["tables"].list.len().to_list() == [1, 0, 1, 2]


def test_the_file_and_its_version(scan, paths):
    found = scan().select("nwb_version", "size").collect()
    assert found["nwb_version"].to_list() == [f"2.{number}.0" for number in range(4)]
    assert found["size"].to_list() == [path.stat().st_size for path in paths]


def test_the_duration_is_from_the_first_to_the_last_time_in_the_file(scan):
    # 1.5 to 30; 4 to 9, where the last stop is missing; and none.
    assert scan().select("duration").collect()["duration"].to_list() == [None, 28.5, None, 5.0]


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
@pytest.mark.parametrize(
    "predicate",
    [
        pl.col("n_units") > 2,
        pl.col("n_units").is_not_null() & pl.col("n_trials").is_null(),
        pl.col("subject_id") == "mouse-s1",
        (pl.col("sex") == "M") & (pl.col("duration") > 10) & (pl.col("nwb_version") > "2.0"),
        pl.col("session_start_time").dt.year() == 2024,
        pl.col("tables").list.len() > 1,
        pl.col("_nwb_path").str.ends_with("2.nwb") | (pl.col("size") < 0),
        pl.col("lab").is_null() & (pl.col("n_units") + pl.col("duration").is_null() > 0),
    ],
)
@pytest.mark.sample(3)
def test_a_lazy_filter_equals_the_filter_after_collect(scan, predicate, engine):
    whole = scan().collect()
    assert_frame_equal(scan().filter(predicate).collect(engine=engine), whole.filter(predicate))
    limited = scan().head(2).filter(predicate).select("n_units", "session_id").collect(engine=engine)
    assert_frame_equal(limited, whole.head(2).filter(predicate).select("n_units", "session_id"))


def test_a_file_that_is_given_twice_has_two_rows(scan, paths):
    again = lazynwb.scan_sessions([*paths, paths[0]]).collect()
    assert_frame_equal(again, scan().collect()[[0, 1, 2, 3, 0]])


def test_with_an_index_only_the_duration_opens_files(paths, index):
    truth = lazynwb.scan_sessions(paths).drop("duration").collect()
    lazynwb.clear_cache()
    with lazynwb.profile() as counts:
        found = lazynwb.scan_sessions(index=index).drop("duration").collect()
    assert_frame_equal(found, truth)
    assert (counts.files_opened, counts.requests) == (0, 0)


@pytest.mark.usefixtures("no_store")
def test_only_requested_columns_are_read(paths):
    query = lazynwb.scan_sessions(paths)
    lazynwb.clear_cache()
    with lazynwb.profile() as counts:
        query.select("subject_id").collect()
    # The subject of each file; and its name, a reference and the text that it leads to.
    assert (counts.files_parsed, counts.requests) == (4, 8)
    lazynwb.clear_cache()
    with lazynwb.profile() as counts:
        assert query.select(pl.len()).collect().item() == 4
    assert counts.files_opened == 0
    lazynwb.clear_cache()
    with lazynwb.profile() as counts:
        query.filter(pl.col("subject_id") == "mouse-s1").select("n_units").collect()
    assert counts.files_parsed == 4 + 1  # units of one file


def test_zarr(tmp_path):
    for version in (2, 3):
        writer = Writer(version, CODECS["plain"])
        session(writer, np.random.default_rng(1))
        writer.write(tmp_path / f"{version}.nwb.zarr")
    found = lazynwb.scan_sessions(tmp_path).collect()
    assert found["n_rated"].to_list() == [60, 60]
    assert found["nwb_version"].to_list() == ["2.7.0", "2.7.0"]
    assert found["size"].to_list() == [None, None]
    starts = lazynwb.read_nwb(tmp_path / "2.nwb.zarr", "/intervals/trials")
    assert (
        found["duration"].to_list()
        == [
            max(9.75, 1.5 + 59 / 10, starts["start_time"][-1], starts["stop_time"][-1])
            - min(0.0, starts["stop_time"][0])
        ]
        * 2
    )
    lazynwb.build_index(tmp_path, tmp_path / "index")
    indexed = lazynwb.scan_sessions(index=tmp_path / "index").collect()
    assert_frame_equal(indexed, found)


def test_metadata_with_a_reserved_name(tmp_path):
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        builders.nwb_root(file)
        file["general/size"] = "large"
        file["general/n_units"] = "many"
        builders.table(file, "units", {"x": [1]})
    found = lazynwb.scan_sessions(tmp_path).select("session_size", "session_n_units", "n_units").collect()
    assert found.rows() == [("large", "many", 1)]


def test_metadata_of_different_types_are_text_as_in_get_metadata_df(tmp_path):
    for number, value in enumerate(["3", 4]):
        with h5py.File(tmp_path / f"{number}.nwb", "w") as file:
            builders.nwb_root(file)
            file["general/dose"] = value
    expected = lazynwb.get_metadata_df(tmp_path, as_polars=True)
    assert_frame_equal(lazynwb.scan_sessions(tmp_path).select(expected.columns).collect(), expected)


def test_unreadable_sessions_are_errors_or_skipped(paths, tmp_path, caplog):
    broken = tmp_path / "broken.nwb"
    broken.write_bytes(b"nothing of NWB" * 100)
    with pytest.raises(LazyNWBError):
        lazynwb.scan_sessions([*paths, broken])
    with caplog.at_level(logging.WARNING, "lazynwb"):
        found = lazynwb.scan_sessions([*paths, broken], ignore_errors=True).collect()
    assert_frame_equal(found.head(4), lazynwb.scan_sessions(paths).collect())
    assert found.row(4, named=True) == {
        **dict.fromkeys(found.columns), "size": broken.stat().st_size, "_nwb_path": str(broken)
    }  # fmt: skip
    assert any("broken.nwb" in record.getMessage() for record in caplog.records)


def test_on_the_command_line(paths, index, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sessions", *map(str, paths), "--format", "ndjson"]) == 0
    found = pl.read_ndjson(capsys.readouterr().out.encode())
    assert found["n_units"].to_list() == UNITS
    assert cli.main(["sessions", *map(str, paths)]) == 0
    shown = capsys.readouterr().out
    assert "mouse-s3" in shown
    assert "28.5 s" in shown
    assert cli.main(["sessions", "--index", str(index), "--format", "csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5
