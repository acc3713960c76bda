"""Values of an index: small columns of all sessions as plain Parquet, equal to a scan of the files."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import h5py
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import builders
import lazynwb
from lazynwb import cli, scan_index
from lazynwb.errors import CorruptDataError, LazyNWBError, TableNotFoundError
from lazynwb.index import values as writing

INTERNAL = ["_nwb_path", "_table_path", "_table_index"]
METADATA = ["session_id", "session_start_time", "subject_id", "sex", "species"]
#: Columns of the sessions' units; `spikes` and `waveform` are not small, but how many spikes there are.
SMALL = ["amplitude", "channel", "corner", "good", "id", "label", "score", "spikes_len", "subject_id"]


def write(path, number):
    """Sessions whose columns differ in type, presence and size."""
    rows = [4, 0, 7, 3][number]
    with h5py.File(path, "w") as file:
        builders.nwb_root(file, f"s{number}")
        columns = {
            "amplitude": np.where(np.arange(rows) % 2, np.nan, np.arange(rows) / 2),
            "channel": np.arange(rows, dtype="i2" if number % 2 else "i4"),
            "corner": np.arange(rows * 3, dtype="f4").reshape(rows, 3),
            "good": np.arange(rows) % 3 == 0,
            "label": [f"ü{k}" for k in range(rows)],
            "subject_id": np.arange(rows),
            "spikes": builders.Ragged([[0.5] * k for k in range(rows)]),
            "waveform": np.zeros((rows, 100)),
        }
        if number == 2:
            columns["score"] = np.arange(rows) / 4
        if number == 1:
            columns = {"amplitude": np.zeros(0)}
        builders.table(file, "units", columns)
        if number != 1:
            builders.table(file, "intervals/trials", {"start_time": np.arange(rows + 1.0)})


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sessions")
    for number in range(4):
        write(folder / f"{number}.nwb", number)
    return sorted(folder.glob("*.nwb"))


@pytest.fixture(scope="module")
def place(paths, tmp_path_factory):
    found = tmp_path_factory.mktemp("index") / "index"
    done = lazynwb.build_index(paths, found, values=True)
    assert done.failed == []
    return found


def truth(paths, table="/units", names=SMALL):
    """The columns, read from the files."""
    taken = {name: f"session_{name}" if name in names else name for name in METADATA}
    columns = {new: name for name, new in taken.items()}
    frame = lazynwb.scan_nwb(paths, table, session_columns=columns, length_columns=True)
    return frame.select(*names, *columns, *INTERNAL).collect()


def test_values_equal_a_scan(place, paths):
    found = scan_index(place, "/units").collect()
    expected = truth(paths)
    assert_frame_equal(found, expected)
    with h5py.File(paths[2]) as file:
        own = found.filter(_nwb_path=str(paths[2]))
        assert own["score"].to_list() == file["units/score"][:].tolist()
        assert own["corner"].to_numpy().tolist() == file["units/corner"][:].tolist()
        assert own["subject_id"].to_list() == file["units/subject_id"][:].tolist()
        assert own["session_subject_id"].unique().to_list() == ["mouse-s2"]
    trials = scan_index(place, "/intervals/trials").collect()
    assert_frame_equal(trials, truth(paths, "/intervals/trials", ["id", "start_time"]))


def test_queries_on_values_open_no_file(place, paths):
    lazynwb.clear_cache()
    with lazynwb.profile() as counts:
        found = scan_index(place, "/units").group_by("good").len().sort("good").collect()
    assert (counts.files_opened, counts.requests) == (0, 0)
    assert found.rows() == truth(paths).group_by("good").len().sort("good").rows()


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_filters_and_limits(place, paths, engine):
    expected = truth(paths)
    for predicate in (pl.col("good"), pl.col("amplitude") > 1, pl.col("_nwb_path").str.contains("2.nwb")):
        found = scan_index(place, "/units").filter(predicate).select("label", "id").collect(engine=engine)
        assert_frame_equal(found, expected.filter(predicate).select("label", "id"))
        limited = scan_index(place, "/units").head(6).filter(predicate).collect(engine=engine)
        assert_frame_equal(limited, expected.head(6).filter(predicate))


def test_polars_and_duckdb_read_the_files_by_themselves(place, paths):
    expected = truth(paths)
    files = lazynwb.open_index(place).value_files("units")
    # The last column is the number of the session in its file.
    assert_frame_equal(pl.read_parquet(files)[:, :-1].rename({"spikes/len": "spikes_len"}), expected)
    for source in (f"{place}/tables=units/*.parquet", files):
        rows = duckdb.sql(
            "SELECT label, amplitude, corner FROM read_parquet($files) ORDER BY _nwb_path, _table_index",
            params={"files": source},
        ).pl()
        wanted = expected.sort("_nwb_path", "_table_index")
        assert rows["label"].to_list() == wanted["label"].to_list()
        assert rows["corner"].to_list() == wanted["corner"].to_list()
        assert rows["amplitude"].fill_nan(-1).to_list() == wanted["amplitude"].fill_nan(-1).to_list()
        counted = duckdb.sql(
            "SELECT count(*) FROM read_parquet($files) WHERE amplitude > 100 OR isnan(amplitude)",
            params={"files": source},
        ).fetchall()
        assert counted == [(expected["amplitude"].is_nan().sum(),)]


def test_tables_by_name(paths, tmp_path):
    lazynwb.build_index(paths, tmp_path / "some", values="trials")
    assert len(lazynwb.open_index(tmp_path / "some").value_files("/intervals/trials")) == 1
    with pytest.raises(
        TableNotFoundError, match="no values of table /units; tables with values: /intervals/trials"
    ):
        scan_index(tmp_path / "some", "/units")
    lazynwb.build_index(paths, tmp_path / "none", values="none")
    with pytest.raises(TableNotFoundError, match="no values of table /units; tables with values: none"):
        lazynwb.open_index(tmp_path / "none").value_files("units")
    with pytest.raises(
        TableNotFoundError, match="no session has a table /licks; available tables: /intervals"
    ):
        lazynwb.build_index(paths, tmp_path / "wrong", values=["licks"])
    assert not (tmp_path / "wrong" / "manifest.json").exists()


def test_a_column_that_is_large_in_one_session_has_no_values(tmp_path):
    for number, width in enumerate((2, 200)):
        with h5py.File(tmp_path / f"{number}.nwb", "w") as file:
            builders.nwb_root(file)
            builders.table(file, "units", {"wave": np.zeros((3, width)), "x": [1, 2, 3]})
    lazynwb.build_index(tmp_path, tmp_path / "index", values=True)
    assert list(scan_index(tmp_path / "index", "/units").collect_schema())[:3] == ["id", "wave_len", "x"]


def test_a_column_without_a_common_type_has_no_values(tmp_path):
    for number, value in enumerate((["a"], [1])):
        with h5py.File(tmp_path / f"{number}.nwb", "w") as file:
            builders.nwb_root(file)
            builders.table(file, "units", {"y": value, "x": [1]})
    lazynwb.build_index(tmp_path, tmp_path / "index", values=True)
    found = scan_index(tmp_path / "index", "/units").collect()
    assert found["x"].to_list() == [1, 1]
    assert "y" not in found.columns


def test_a_damaged_file_is_an_error(place, tmp_path):
    copy = shutil.copytree(place, tmp_path / "copy")
    (file,) = copy.glob("tables=units/*.parquet")
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    with pytest.raises(CorruptDataError, match="checksum"):
        scan_index(copy, "/units").collect()
    file.unlink()
    with pytest.raises(LazyNWBError):
        scan_index(copy, "/units").collect()


@pytest.fixture(scope="module")
def split(paths, tmp_path_factory):
    """An index with a value file for each session that has rows, or two."""
    found = tmp_path_factory.mktemp("split") / "index"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "SESSIONS_AT_ONCE", 1)
        patch.setattr(writing, "MAX_FILE_BYTES", 1)
        lazynwb.build_index(paths, found, values=["units"])
    assert len(lazynwb.open_index(found).value_files("units")) > 2
    return found


def test_several_value_files(split, paths):
    expected = truth(paths)
    units = scan_index(split, "/units")
    assert_frame_equal(units.collect(), expected)
    for predicate in (pl.col("good"), pl.col("amplitude") > 1, pl.col("label") == "none"):
        found = units.filter(predicate).select("score", "label").collect()
        assert_frame_equal(found, expected.filter(predicate).select("score", "label"))
        assert units.filter(predicate).select(pl.len()).collect().item() == len(expected.filter(predicate))
        limited = units.slice(3, 6).filter(predicate).collect()
        assert_frame_equal(limited, expected.slice(3, 6).filter(predicate))
    with pytest.raises(pl.exceptions.InvalidOperationError, match="conversion"):
        units.filter(pl.col("label").cast(pl.Int64) > 0).collect()


def test_an_error_names_the_damaged_value_file(split, tmp_path):
    copy = shutil.copytree(split, tmp_path / "copy")
    file = Path(lazynwb.open_index(copy).value_files("units")[1])
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    for units in (scan_index(copy, "/units"), scan_index(copy, "/units").filter(pl.col("score") > 0)):
        with pytest.raises(CorruptDataError, match=file.name):
            units.collect()


def test_a_count_reads_the_manifest_alone(split, paths):
    units = scan_index(split, "/units")
    with lazynwb.profile() as counts:
        assert units.select(pl.len()).collect().item() == len(truth(paths))
        assert units.head(3).select(pl.len()).collect().item() == 3
    assert not counts.bytes_stored


def test_an_update_refreshes_values(paths, tmp_path):
    own = [shutil.copy(path, tmp_path) for path in paths]
    place = tmp_path / "index"
    lazynwb.build_index(own, place, values=["units"])
    reader = lazynwb.open_index(place)
    before = reader.value_files("units")
    lazynwb.update_index(place)
    assert lazynwb.open_index(place).value_files("units") == before
    write(own[1], 2)
    Path(own[3]).unlink()
    lazynwb.update_index(place)
    after = lazynwb.open_index(place).value_files("units")
    assert set(after).isdisjoint(before)
    assert_frame_equal(scan_index(place, "/units").collect(), truth(own[:3]))
    # Who has opened it before goes on; the next update removes what is no longer in force.
    assert len(pl.read_parquet(before)) == 14
    write(own[0], 3)
    lazynwb.update_index(place)
    assert not any(Path(file).exists() for file in before)


def test_sessions_that_cannot_be_read_are_named(tmp_path):
    for number in range(3):
        with h5py.File(tmp_path / f"{number}.nwb", "w") as file:
            builders.nwb_root(file)
            values = np.arange(4000.0)
            column = builders.Column(values, {"compression": "gzip", "chunks": (4000,)})
            builders.table(file, "units", {"x": column})
            offset = file["units/x"].id.get_chunk_info(0).byte_offset
        if number == 1:
            with (tmp_path / "1.nwb").open("r+b") as raw:
                raw.seek(offset)
                raw.write(b"damaged in the middle")
    done = lazynwb.build_index(tmp_path, tmp_path / "index", values=True)
    assert len(done.failed) == 1
    assert "1.nwb" in done.failed[0]
    index = lazynwb.open_index(tmp_path / "index")
    assert index.table_values("units").lacking == (str(tmp_path / "1.nwb"),)
    assert scan_index(index, "/units").collect().height == 8000
    with pytest.raises(LazyNWBError):
        lazynwb.build_index(tmp_path, tmp_path / "strict", values=True, ignore_errors=False)
    assert not list((tmp_path / "strict").rglob("*.parquet"))


def test_on_the_command_line(paths, tmp_path, capsys):
    place = tmp_path / "index"
    assert cli.main(["index", "build", *map(str, paths), "-o", str(place), "--values", "all"]) == 0
    capsys.readouterr()
    assert len(lazynwb.open_index(place).value_files("units")) == 1


def test_an_executor_reads_the_values(paths, place, tmp_path):
    with ThreadPoolExecutor(2) as executor:
        lazynwb.build_index(paths, tmp_path / "index", values=True, executor=executor)
    for table in ("/units", "/intervals/trials"):
        assert_frame_equal(
            scan_index(tmp_path / "index", table).collect(), scan_index(place, table).collect()
        )
