"""`get_metadata_df`: one row per file, compared with pynwb."""

import datetime as dt
import logging
import os
import shutil
from pathlib import Path

import h5py
import polars as pl
import pytest

import lazynwb
from builders import VLEN_TEXT, nwb_root
from checks import run_child
from lazynwb.lookup import catalog_cache
from range_server import RangeServer

FOLDER = os.environ.get("LAZYNWB_TEST_DATA")
REAL = sorted(str(file) for file in Path(FOLDER).rglob("*.nwb") if h5py.is_hdf5(file)) if FOLDER else []
TEXTS = (
    "identifier", "session_id", "session_description", "experiment_description", "lab", "institution",
    "notes", "data_collection", "surgery", "pharmacology", "virus", "source_script",
    "source_script_file_name", "protocol", "slices",
)  # fmt: skip
LISTS = ("experimenter", "related_publications", "keywords")
SUBJECT = (
    "age", "age__reference", "description", "genotype", "sex", "species", "subject_id", "weight", "strain",
)  # fmt: skip


def write(path, number=0, **fields):
    """Write a session with given fields: `general__name`, `subject__name` or `name`."""
    with h5py.File(path, "w") as file:
        nwb_root(file, f"s{number}")
        for name, value in fields.items():
            where = name.replace("__", "/").replace("subject/", "general/subject/")
            if where in file:
                del file[where]
            if value is not None:
                file.create_dataset(where, data=value, dtype=VLEN_TEXT if isinstance(value, list) else None)
    return path


def metadata(*paths):
    return lazynwb.get_metadata_df(list(paths), as_polars=True)


@pytest.mark.parametrize("name", ["session", "described", "one_row", "bare", "with_subject"])
@pytest.mark.sample(2)
def test_a_row_equals_pynwb(name, twins):
    pynwb = pytest.importorskip("pynwb")
    path = twins / f"{name}.nwb"
    row = metadata(path).row(0, named=True)
    with pynwb.NWBHDF5IO(path, "r") as io:
        nwb = io.read()
        for field in TEXTS:
            if field in row or getattr(nwb, field) is not None:
                assert row[field] == getattr(nwb, field), field
        for field in LISTS:
            value = getattr(nwb, field)
            assert row[field] == (None if value is None else list(value[:])), field
        assert row["session_start_time"] == nwb.session_start_time
        assert row["timestamps_reference_time"] == nwb.timestamps_reference_time
        assert row["file_create_date"] == list(nwb.file_create_date)
        for field in SUBJECT:
            assert row[field] == (None if nwb.subject is None else getattr(nwb.subject, field)), field
        assert row["date_of_birth"] == (None if nwb.subject is None else nwb.subject.date_of_birth)


def test_stores_give_the_rows_of_their_twins(twins):
    names = sorted(path.stem for path in twins.glob("*.nwb"))
    hdf5 = metadata(*(twins / f"{name}.nwb" for name in names))
    assert hdf5["session_id"].n_unique() > 1
    for version in ("v2", "v3"):
        stores = metadata(*(twins / f"{name}.{version}.nwb.zarr" for name in names))
        assert stores.drop("_nwb_path").equals(hdf5.drop("_nwb_path"))
        assert stores.schema == hdf5.schema


def test_paths_equal_those_of_a_scan_in_the_order_of_the_files(cube):
    files = [cube[3], cube[0], cube[3]]
    found = metadata(*files)
    assert found["_nwb_path"].to_list() == list(map(str, files))
    assert found["session_id"].to_list() == ["s3", "s0", "s3"]
    assert found.columns[-1] == "_nwb_path"
    units = lazynwb.scan_nwb(cube, "/units").select("_nwb_path").unique().collect()
    assert set(found["_nwb_path"]) < set(units["_nwb_path"])


def test_values_keep_the_types_of_the_file(tmp_path):
    path = write(
        tmp_path / "a.nwb",
        general__session_id="20240102",
        general__notes="null",
        subject__weight=20.5,
        subject__age="P90D",
        general__custom=7,
    )
    row = metadata(path).row(0, named=True)
    assert (row["session_id"], row["notes"], row["weight"], row["custom"]) == ("20240102", "null", 20.5, 7)
    assert row["keywords"] == lazynwb.read_nwb(path, "session")["keywords"].to_list()[0]


def test_files_without_a_subject_or_a_field_are_rows_with_nulls(tmp_path, caplog):
    paths = [write(tmp_path / "a.nwb", 1), tmp_path / "b.nwb", tmp_path / "c.nwb"]
    with h5py.File(paths[1], "w") as file:
        file["identifier"] = "bare"
    with h5py.File(paths[2], "w") as file:
        file.create_group("acquisition")
    with caplog.at_level(logging.WARNING):
        found = metadata(*paths)
    assert found["identifier"].to_list() == ["id-s1", "bare", None]
    assert found["subject_id"].to_list() == ["mouse-s1", None, None]
    assert found["session_start_time"].null_count() == 2
    assert not caplog.records


def test_the_fields_of_the_schema_are_always_columns(tmp_path):
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        file["identifier"] = "bare"
    found = metadata(tmp_path / "a.nwb")
    assert {*TEXTS, *SUBJECT, *LISTS} - set(found.columns) == {"protocol", "slices"}
    assert found.schema["session_start_time"] == found.schema["date_of_birth"] == pl.Datetime("us", "UTC")
    assert found.schema["experimenter"] == pl.List(pl.String)


def test_a_field_of_the_subject_that_the_session_has_too_gets_a_prefix(tmp_path):
    path = write(
        tmp_path / "a.nwb",
        general__description="of the session",
        subject__description="of the subject",
        general__id="1",
        subject__id="2",
    )
    row = metadata(path).row(0, named=True)
    assert (row["description"], row["subject_description"]) == ("of the session", "of the subject")
    assert (row["id"], row["subject_subject_id"], row["subject_id"]) == ("1", "2", "mouse-s0")


# --- times --------------------------------------------------------------------------------------------


def test_times_of_different_offsets_are_in_utc(tmp_path):
    texts = [
        "2024-01-02T03:04:05.678+02:00",
        "2024-01-02T03:04:05-0800",
        "2024-01-02T03:04:05Z",
        "2024-01-02",
    ]
    paths = [write(tmp_path / f"{k}.nwb", session_start_time=text) for k, text in enumerate(texts)]
    found = metadata(*paths)["session_start_time"]
    assert found.dtype == pl.Datetime("us", "UTC")
    assert found.to_list() == [
        dt.datetime(2024, 1, 2, 1, 4, 5, 678_000, dt.UTC),
        dt.datetime(2024, 1, 2, 11, 4, 5, 0, dt.UTC),
        dt.datetime(2024, 1, 2, 3, 4, 5, 0, dt.UTC),
        dt.datetime(2024, 1, 2, 0, 0, 0, 0, dt.UTC),
    ]


@pytest.mark.parametrize(
    "text", ["yesterday", "", "2024-13-01T00:00:00Z", "0001-01-01T00:00:00+10:00", 17.25]
)
def test_invalid_times_are_null_with_a_warning_that_names_the_file(text, tmp_path, caplog):
    good = write(tmp_path / "good.nwb")
    bad = write(tmp_path / "bad.nwb", session_start_time=text)
    with caplog.at_level(logging.WARNING):
        found = metadata(good, bad)
    assert found["session_start_time"].to_list() == [dt.datetime(2024, 1, 2, 3, 4, 5, tzinfo=dt.UTC), None]
    (message,) = [r.message for r in caplog.records if "becomes null" in r.message]
    assert "session_start_time" in message
    assert "bad.nwb" in message
    assert "good.nwb" not in message


def test_a_time_without_an_offset_is_utc_with_a_warning(tmp_path, caplog):
    path = write(tmp_path / "a.nwb", session_start_time="2024-01-02T03:04:05", subject__date_of_birth=None)
    with caplog.at_level(logging.WARNING):
        found = metadata(path)
    assert found["session_start_time"].to_list() == [dt.datetime(2024, 1, 2, 3, 4, 5, tzinfo=dt.UTC)]
    assert ["a.nwb" in r.message and "no offset" in r.message for r in caplog.records] == [True]


def test_lists_of_times_keep_their_length(tmp_path):
    path = write(tmp_path / "a.nwb", file_create_date=["2024-01-02T00:00:00+00:00", "soon"])
    assert metadata(path)["file_create_date"].to_list() == [[dt.datetime(2024, 1, 2, tzinfo=dt.UTC), None]]


# --- files that differ, and files that cannot be read -------------------------------------------------


def test_a_field_that_is_a_number_in_one_file_and_text_in_another_is_text(tmp_path, caplog):
    paths = [
        write(tmp_path / "a.nwb", subject__weight=20.5),
        write(tmp_path / "b.nwb", subject__weight="25 g"),
    ]
    with caplog.at_level(logging.WARNING):
        assert metadata(*paths)["weight"].to_list() == ["20.5", "25 g"]
    assert "weight" in caplog.text


def test_a_field_that_is_text_or_a_list_is_a_list(tmp_path):
    paths = [
        write(tmp_path / "a.nwb", general__experimenter="Doe, Jane"),
        write(tmp_path / "b.nwb", general__experimenter=["A", "B"]),
    ]
    assert metadata(*paths)["experimenter"].to_list() == [["Doe, Jane"], ["A", "B"]]
    # As in files of pynwb 1.0, without another file that has a list.
    assert metadata(paths[0])["experimenter"].to_list() == [["Doe, Jane"]]
    assert lazynwb.LazyNWB(paths[0]).experimenter == ["Doe, Jane"]
    bare = write(tmp_path / "c.nwb", general__experimenter=None)
    assert metadata(paths[0], bare)["experimenter"].to_list() == [["Doe, Jane"], None]


def test_a_field_of_an_unsupported_type_is_excluded_with_a_warning(tmp_path, caplog):
    path = write(tmp_path / "a.nwb")
    with h5py.File(path, "a") as file:
        file["general/strange"] = file["general/keywords"].regionref[:1]
    with caplog.at_level(logging.WARNING):
        found = metadata(path)
    assert "strange" not in found.columns
    assert found["session_id"].to_list() == ["s0"]
    assert "strange was left out" in caplog.text
    other = write(tmp_path / "b.nwb", general__strange="fine")
    with caplog.at_level(logging.WARNING):
        assert metadata(path, other)["strange"].to_list() == [None, "fine"]
    assert "strange is null in files where it cannot be read (region references)" in caplog.text
    assert str(path) in caplog.text


def test_a_file_that_cannot_be_read_is_an_error_that_names_it(tmp_path, cube):
    (tmp_path / "bad.nwb").write_bytes(b"nothing")
    with pytest.raises(lazynwb.NotNWBError, match=r"bad\.nwb"):
        metadata(cube[0], tmp_path / "bad.nwb")
    with pytest.raises(FileNotFoundError):
        metadata(tmp_path / "absent.nwb")


def test_file_names_that_look_like_patterns_are_names(tmp_path):
    path = write(tmp_path / "a.nwb")
    with h5py.File(path, "a") as file:
        file["general/^s.*$"] = "a pattern"
        file["general/*"] = "all"
    row = metadata(path).row(0, named=True)
    assert (row["^s.*$"], row["*"]) == ("a pattern", "all")


@pytest.mark.skipif(not REAL, reason="set LAZYNWB_TEST_DATA to a folder of NWB files")
def test_every_real_file_has_its_row():
    found = metadata(*REAL)
    assert found["_nwb_path"].to_list() == REAL
    for path, identifier in zip(REAL, found["identifier"], strict=True):
        with h5py.File(path) as file:
            stored = file["identifier"][()] if "identifier" in file else None
        stored = stored.decode() if isinstance(stored, bytes) else stored
        assert identifier == stored, path


# --- kinds of frames, and costs -----------------------------------------------------------------------


def test_pandas_by_default_and_polars_on_request(cube):
    pandas = pytest.importorskip("pandas")
    found = lazynwb.get_metadata_df(cube)
    assert isinstance(found, pandas.DataFrame)
    assert list(found["session_id"]) == [f"s{k}" for k in range(6)]
    assert str(found["session_start_time"].dt.tz) == "UTC"
    lazynwb.config.use_polars = True
    assert lazynwb.get_metadata_df(cube).equals(lazynwb.get_metadata_df(cube, as_polars=True))


def test_the_next_process_parses_no_file(cube):
    script = """if True:
        import sys, lazynwb
        with lazynwb.profile() as counted:
            lazynwb.get_metadata_df(sys.argv[1:], as_polars=True)
        print(counted.files_parsed)"""
    first = int(run_child(script, *cube))
    assert first <= 2 * len(cube)
    assert int(run_child(script, *cube)) == 0


def test_remote_files_are_loaded_together(cube, tmp_path):
    for path in cube:
        shutil.copy(path, tmp_path)
    wanted = metadata(*cube).drop("_nwb_path")
    with RangeServer(tmp_path, latency=0.02) as server:
        urls = [server.url_of(path.name) for path in cube]
        with lazynwb.profile() as cold:
            found = metadata(*urls)
        assert server.most_at_once > 2
        assert cold.requests <= 12 * len(cube)
        catalog_cache.clear_memory()
        server.reset()
        metadata(*urls)
        assert server.bytes < 10_000
    assert found["_nwb_path"].to_list() == urls
    assert found.drop("_nwb_path").equals(wanted)
