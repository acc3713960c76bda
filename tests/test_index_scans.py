"""Scans that an index answers from its values: the same rows, and only required files are read."""

import pickle
import shutil
import subprocess
import sys

import h5py
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import builders
import lazynwb
from checks import child_environment
from lazynwb import scan_nwb
from lazynwb.errors import LazyNWBError, SchemaError, SourceChangedError
from test_executors import Recorder
from test_index_values import write

#: Files of the sessions: the second has no rows and one column, `other.nwb` has no units.
FILES = 4
PREDICATES = {
    "number": pl.col("amplitude") > 0.6,
    "text": pl.col("label").is_in(["ü1", "ü3"]),
    "file": pl.col("_nwb_path").str.ends_with("2.nwb"),
    "row": pl.col("_table_index") % 2 == 1,
    "null": pl.col("score").is_null(),
    "array": pl.col("spikes").list.len() > 2,
    "both": (pl.col("channel") < 5) & (pl.col("spikes").list.len() > 1),
    "none": pl.col("channel") > 100,
    "literal": pl.lit(value=True),
}
COLUMNS = [
    "amplitude",
    "channel",
    "corner",
    "label",
    "score",
    "spikes",
    "waveform",
    "_nwb_path",
    "_table_index",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sessions")
    for number in range(FILES):
        write(folder / f"{number}.nwb", number)
    with h5py.File(folder / "other.nwb", "w") as file:
        builders.nwb_root(file, "other")
        builders.table(file, "intervals/trials", {"start_time": [0.5]})
    return folder


@pytest.fixture(scope="module")
def paths(folder):
    return sorted(folder.glob("*.nwb"))


@pytest.fixture(scope="module")
def index(paths, tmp_path_factory):
    place = tmp_path_factory.mktemp("index") / "index"
    assert lazynwb.build_index(paths, place, values=True).failed == []
    return lazynwb.open_index(place)


FROM_VALUES = """
import sys, lazynwb, polars as pl
units = lazynwb.scan_nwb(None, "/units", index=sys.argv[1])
found = units.filter(pl.col("amplitude") > 0.6).select("label").collect()
print(found.height, units.select(pl.len()).collect().item(), *{"numpy", "h5py", "obstore"} & set(sys.modules))
"""


def test_a_query_on_values_imports_no_reader(paths, index, cache_dir):
    truth = lazynwb.read_nwb(paths, "/units")
    output = subprocess.run(  # noqa: S603
        [sys.executable, "-c", FROM_VALUES, index.name],
        capture_output=True,
        text=True,
        check=True,
        env=child_environment(LAZYNWB_CACHE_DIR=str(cache_dir)),
    ).stdout
    assert output.split() == [str(len(truth.filter(pl.col("amplitude") > 0.6))), str(len(truth))]


@st.composite
def queries(draw):
    """Sources, predicate, columns, limit and schema overrides of a query."""
    order = draw(st.permutations(range(FILES)))
    sources = [f"{number}.nwb" for number in order[: draw(st.integers(1, FILES))]]
    if draw(st.booleans()):
        sources = None
    columns = draw(st.lists(st.sampled_from(COLUMNS), unique=True))
    overrides = draw(st.sampled_from([None, {"channel": pl.Float64()}, {"amplitude": pl.Float32()}]))
    return (
        sources,
        draw(st.sampled_from(sorted(PREDICATES))),
        columns,
        draw(st.none() | st.integers(0, 15)),
        overrides,
    )


@given(queries(), st.sampled_from(["in-memory", "streaming"]), st.booleans())
def test_a_scan_is_the_same_with_the_values(folder, index, query, engine, on_workers):
    sources, predicate, columns, limit, overrides = query
    given_ones = None if sources is None else [folder / name for name in sources]

    def rows(**options):
        try:
            frame = scan_nwb(table_path="/units", schema_overrides=overrides, **options)
            schema = frame.collect_schema()
            frame = frame.head(limit) if limit is not None else frame
            roots = PREDICATES[predicate].meta.root_names()
            if set(roots) <= set(schema):
                frame = frame.filter(PREDICATES[predicate])
            return frame.select(name for name in columns if name in schema).collect(engine=engine)
        except LazyNWBError as error:
            return type(error)

    expected = rows(source=given_ones or sorted(folder.glob("*.nwb")))
    found = rows(source=given_ones, index=index, executor=Recorder() if on_workers else None)
    if isinstance(expected, type):
        assert found is expected
    else:
        assert_frame_equal(found, expected)


def test_small_columns_open_no_file(index, paths):
    lazynwb.clear_cache()
    with lazynwb.profile() as counts:
        units = scan_nwb(None, "/units", index=index)
        found = units.filter(pl.col("channel") > 0).select("label", "channel", "_nwb_path").collect()
        grouped = lazynwb.get_sql_context(None, index=index).execute(
            "SELECT good, count(*) AS n FROM units GROUP BY 1 ORDER BY 1", eager=True
        )
        session = scan_nwb(None, "/units", index=index, session_columns=["session_id"])
        of_one = session.filter(pl.col("session_id") == "s2").select("id", "score", "session_id").collect()
    assert (counts.files_opened, counts.requests, counts.bytes_read) == (0, 0, 0)
    assert counts.rows_stored > 0
    expected = scan_nwb(paths, "/units").collect()
    assert_frame_equal(found, expected.filter(pl.col("channel") > 0).select(found.columns))
    assert grouped.rows() == expected.group_by("good").len().sort("good").rows()
    assert of_one["session_id"].to_list() == ["s2"] * 7
    assert of_one["score"].to_list() == [number / 4 for number in range(7)]


def test_workers_do_not_read_what_the_values_contain(index, paths):
    recorder = Recorder()
    units = scan_nwb(None, "/units", index=index, executor=recorder, session_columns=["session_id"])
    expected = scan_nwb(paths, "/units", session_columns=["session_id"]).collect()
    with lazynwb.profile() as counts:
        found = units.filter(pl.col("channel") > 0).select("label", "session_id", "_nwb_path").collect()
        assert units.select(pl.len()).collect().item() == len(expected)
    assert (recorder.works, counts.files_opened) == ([], 0)
    assert_frame_equal(found, expected.filter(pl.col("channel") > 0).select(found.columns))
    # Of what has to be read, only files with rows that pass are tasks.
    some = units.filter(pl.col("label") == "ü5", pl.col("channel") >= 0).select("spikes").collect()
    assert some["spikes"].to_list() == [[0.5] * 5]
    assert [source.path for work in recorder.works for source in work.sources] == [str(paths[2])]


def test_daft_reads_values_in_one_task_without_files(index, paths):
    pytest.importorskip("daft", reason="pip install daft")
    import lazynwb.daft as daft_scans

    order = ["_nwb_path", "_table_index"]
    expected = scan_nwb(paths, "/units", length_columns=True).collect()
    frame = daft_scans.scan_nwb(None, "/units", index=index, length_columns=True)
    assert frame.column_names == expected.columns
    with lazynwb.profile() as counts:
        small = frame.where(frame["spikes_len"] > 2).select("label", "spikes_len", *order).sort(order)
        found = pl.from_arrow(small.to_arrow())
    assert counts.files_opened == 0
    truth = expected.filter(pl.col("spikes_len") > 2).select(found.columns)
    assert found.rows() == truth.sort(order).rows()
    with lazynwb.profile() as counts:
        one = frame.where(frame["label"] == "ü5").select("spikes").to_pydict()
    assert counts.files_opened == 1
    assert one == {"spikes": [[0.5] * 5]}


def test_a_daft_task_contains_the_location_of_the_index_and_not_its_paths(tmp_path):
    pytest.importorskip("daft", reason="pip install daft")
    from daft.io.pushdowns import Pushdowns

    import lazynwb.daft as daft_scans
    import lazynwb.daft.data_source as daft_source
    from lazynwb.distributed.workers import execute

    for number in (0, 2):
        write(tmp_path / f"{number}.nwb", number)
    place = tmp_path / "index"
    lazynwb.build_index(tmp_path, place, values=True)
    made = []
    with pytest.MonkeyPatch.context() as patch:
        real = daft_source.NWBSource
        patch.setattr(daft_source, "NWBSource", lambda *args: made.append(real(*args)) or made[-1])
        daft_scans.scan_nwb(None, "/units", index=place)
    (task,) = made[0].plan_tasks(Pushdowns(columns=["label"]))
    data = pickle.dumps(task)
    assert b"2.nwb" not in data  # the first file is the origin of the schema
    rows = execute(pickle.loads(data).item).value.frames(None)  # noqa: S301
    assert pl.concat(rows)["label"].to_list() == [f"ü{k}" for k in (*range(4), *range(7))]
    # Changed sessions do not matter, other sessions do: the plan has the columns of those that there were.
    write(tmp_path / "2.nwb", 3)
    lazynwb.update_index(place)
    assert sum(map(len, execute(pickle.loads(data).item).value.frames(None))) == 7  # noqa: S301
    write(tmp_path / "3.nwb", 3)
    lazynwb.update_index(place, tmp_path)
    with pytest.raises(LazyNWBError, match="added or removed"):
        pickle.loads(data)  # noqa: S301


def test_arrays_are_read_from_files_with_remaining_rows(index, paths):
    lazynwb.clear_cache()
    with lazynwb.profile() as counts:
        found = scan_nwb(None, "/units", index=index).filter(pl.col("label") == "ü5").collect()
    assert counts.files_opened <= 1
    assert found["spikes"].to_list() == [[0.5] * 5]
    assert found["_nwb_path"].to_list() == [str(paths[2])]
    assert_frame_equal(found, scan_nwb(paths, "/units").filter(pl.col("label") == "ü5").collect())


def test_rows_are_counted_without_reading_values(index):
    scan_nwb(None, "/units", index=index).select("label").collect()
    with lazynwb.profile() as counts:
        assert scan_nwb(None, "/units", index=index).select(pl.len()).collect().item() == 14
        assert lazynwb.scan_index(index, "/units").select(pl.len()).collect().item() == 14
    assert (counts.files_opened, counts.bytes_stored) == (0, 0)


def test_a_changed_session_is_detected_when_it_is_read(tmp_path):
    own = [tmp_path / f"{number}.nwb" for number in (0, 2)]
    for number, path in zip((0, 2), own, strict=True):
        write(path, number)
    place = tmp_path / "index"
    lazynwb.build_index(own, place, values=True)
    write(own[1], 3)
    units = scan_nwb(None, "/units", index=place)
    assert units.select("label").collect().height == 11  # as of the index
    with pytest.raises(SourceChangedError, match=r"2\.nwb has changed since.*lazynwb index update"):
        units.select("label", "spikes").collect()
    assert units.filter(pl.col("_nwb_path") == str(own[0])).select("label", "spikes").collect().height == 4
    lazynwb.update_index(place)
    assert_frame_equal(scan_nwb(None, "/units", index=place).collect(), scan_nwb(own, "/units").collect())


def test_a_column_that_would_lose_values_is_read_from_the_file(tmp_path):
    """A scan of all files raises an error; a scan of that file has the type of the file."""
    large = 2**60 + 1
    for name, values in {"a": [0.5, 1.5], "b": [1, large]}.items():
        with h5py.File(tmp_path / f"{name}.nwb", "w") as file:
            builders.nwb_root(file, name)
            builders.table(file, "units", {"x": np.array(values), "y": [1, 2]})
    place = tmp_path / "index"
    assert lazynwb.build_index(tmp_path, place, values=True).failed == []
    rows = lazynwb.scan_index(place, "/units").collect()
    assert rows["x"].to_list() == [0.5, 1.5, None, None]
    assert rows["y"].to_list() == [1, 2, 1, 2]
    units = scan_nwb(None, "/units", index=place)
    assert units.select("y").collect()["y"].to_list() == [1, 2, 1, 2]
    with pytest.raises(SchemaError, match=r"b\.nwb"):
        units.select("x").collect()
    one = scan_nwb(tmp_path / "b.nwb", "/units", index=place).select("x", "y").collect()
    assert one.rows() == [(1, 1), (large, 2)]


def test_files_that_the_index_lacks_are_read(index, paths, tmp_path):
    extra = shutil.copy(paths[2], tmp_path / "extra.nwb")
    sources = [paths[3], extra, paths[0]]
    found = scan_nwb(sources, "/units", index=index).select("label", "spikes", "_nwb_path").collect()
    assert_frame_equal(found, scan_nwb(sources, "/units").select("label", "spikes", "_nwb_path").collect())


def test_files_without_the_table_are_reported(index, caplog):
    scan_nwb(None, "/units", index=index).select("label").collect()
    assert "no table /units in 1 of 5 files" in caplog.text
    with pytest.raises(LazyNWBError, match=r"other\.nwb"):
        scan_nwb(None, "/units", index=index, raise_on_missing=True).select("label").collect()


def test_values_behind_forbidden_links_are_not_used(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "far.h5", "w") as file:
        file["x"] = [1.5, 2.5]
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        builders.nwb_root(file)
        table = builders.table(file, "units", {"y": [1, 2]})
        table.attrs["colnames"] = ["y", "x"]
        table["x"] = h5py.ExternalLink("far.h5", "x")
    place = tmp_path / "index"
    lazynwb.build_index(tmp_path / "a.nwb", place, values=True)
    assert scan_nwb(None, "/units", index=place).select("x").collect()["x"].to_list() == [1.5, 2.5]
    monkeypatch.setattr(lazynwb.config, "external_links", "never")
    found = scan_nwb(None, "/units", index=place, ignore_errors=True).collect()
    assert "x" not in found.columns or found["x"].null_count() == 2
