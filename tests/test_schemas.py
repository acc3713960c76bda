"""Schemas of several files: unions, wider types, conflicts, and the options for them."""

import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import polars as pl
import pytest

import lazynwb
from builders import Ragged, table, write_session
from checks import ENGINES, assert_frames

engines = pytest.mark.parametrize("engine", ENGINES)


@pytest.fixture(scope="module")
def units(cube):
    """The whole table, read once: every lazy result is compared with the same query on it."""
    return lazynwb.read_nwb(cube, "/units")


@pytest.fixture
def files(tmp_path):
    """Write one file for each mapping of columns."""

    def write(*tables, path="t"):
        paths = []
        for number, columns in enumerate(tables):
            paths.append(tmp_path / f"file_{number}.nwb")
            with h5py.File(paths[-1], "w") as file:
                table(file, path, columns)
        return paths

    return write


def collected(paths, name="x", **options):
    """The column on both engines, which must agree with the schema."""
    lf = lazynwb.scan_nwb(paths, "t", **options)
    frames = [lf.collect(engine=engine) for engine in ENGINES]
    assert frames[0].schema == frames[1].schema == lf.collect_schema()
    assert frames[0].equals(frames[1], null_equal=True)
    return frames[0][name]


def test_the_schema_is_the_union(files):
    paths = files({"a": [1], "c": np.array([1.5])}, {"b": ["x", "y"]}, {"c": np.array([2.5]), "a": [3]})
    lf = lazynwb.scan_nwb(paths, "t")
    assert list(lf.collect_schema())[:4] == ["a", "b", "c", "id"]
    frame = lf.collect()
    assert frame["a"].to_list() == [1, None, None, 3]
    assert frame["b"].to_list() == [None, "x", "y", None]
    assert frame["c"].to_list() == [1.5, None, None, 2.5]


@pytest.mark.parametrize(
    ("first", "second", "dtype", "values"),
    [
        (np.array([1, 2], "i8"), np.array([1.5]), pl.Float64, [1.0, 2.0, 1.5]),
        (np.array([1, 2], "i4"), np.array([2**40], "i8"), pl.Int64, [1, 2, 2**40]),
        (np.array([1], "u1"), np.array([-1], "i1"), pl.Int16, [1, -1]),
        (np.array([1], "f4"), np.array([0.1], "f8"), pl.Float64, [1.0, 0.1]),
        (np.zeros((1, 2)), np.ones((1, 3)), pl.List(pl.Float64), [[0.0, 0.0], [1.0, 1.0, 1.0]]),
        (np.zeros((1, 2), "i4"), np.ones((1, 3)), pl.List(pl.Float64), [[0.0, 0.0], [1.0, 1.0, 1.0]]),
        (np.zeros((1, 2), "i4"), np.ones((1, 2)), pl.Array(pl.Float64, 2), [[0.0, 0.0], [1.0, 1.0]]),
        (np.zeros((1, 2)), Ragged([[1.0], []]), pl.List(pl.Float64), [[0.0, 0.0], [1.0], []]),
        (Ragged([[1], []], "i4"), Ragged([[1.5]]), pl.List(pl.Float64), [[1.0], [], [1.5]]),
        (["a"], np.array([b"bc"]), pl.String, ["a", "bc"]),
        (["a"], Ragged([["b", "c"], []], h5py.string_dtype()), pl.List(pl.String), [["a"], ["b", "c"], []]),
        (np.array([True]), np.array([False, True]), pl.Boolean, [True, False, True]),
    ],
    ids=["int-float", "narrow-wide", "signs", "f4-f8", "shapes", "shapes-types", "same-shape", "array-list",
         "lists", "texts", "text-texts", "bools"],
)  # fmt: skip
def test_types_widen(files, first, second, dtype, values):
    paths = files({"x": first}, {"x": second})
    column = collected(paths)
    assert column.dtype == dtype
    assert column.to_list() == values
    swapped = collected(paths[::-1])
    assert swapped.dtype == dtype
    assert sorted(map(str, swapped.to_list())) == sorted(map(str, values))


def test_arrays_of_arrays_whose_shapes_differ(files):
    column = collected(files({"x": np.zeros((1, 2, 3))}, {"x": np.ones((1, 2, 4))}))
    assert column.to_list() == [[[0.0] * 3] * 2, [[1.0] * 4] * 2]
    column = collected(files({"x": np.zeros((1, 2, 3))}, {"x": np.ones((1, 1, 3))}))
    assert column.to_list() == [[[0.0] * 3] * 2, [[1.0] * 3]]


def test_an_empty_column_does_not_affect_the_type(files):
    """pynwb writes columns without rows as Float32."""
    column = collected(files({"x": np.zeros(0, "f4")}, {"x": np.array([2**40])}))
    assert column.to_list() == [2**40]


def test_enums(tmp_path):
    def write(name, members):
        with h5py.File(tmp_path / name, "w") as file:
            dtype = h5py.enum_dtype(members, basetype="i1")
            group = table(file, "t", {}, rows=2)
            group.create_dataset("x", data=np.array([0, 1]), dtype=dtype)
        return tmp_path / name

    same = [write("a.nwb", {"l": 0, "r": 1}), write("b.nwb", {"l": 0, "r": 1})]
    assert collected(same).dtype == pl.Enum(["l", "r"])
    other = collected([same[0], write("c.nwb", {"up": 0, "down": 1})])
    assert other.dtype == pl.String
    assert other.to_list() == ["l", "r", "up", "down"]
    swapped = collected([same[0], write("d.nwb", {"r": 0, "l": 1})])
    assert swapped.cast(pl.String).to_list() == ["l", "r", "r", "l"]


def test_keywords_as_text_and_as_list(tmp_path):
    for number, keywords in enumerate(("alone", ["a", "b"])):
        with h5py.File(tmp_path / f"{number}.nwb", "w") as file:
            file.create_group("general").create_dataset("keywords", data=keywords, dtype=h5py.string_dtype())
    column = lazynwb.read_nwb(tmp_path, "/general")["keywords"]
    assert column.dtype == pl.List(pl.String)
    assert column.to_list() == [["alone"], ["a", "b"]]


def test_a_conflict_names_both_files(files):
    paths = files({"x": np.array([1, 2])}, {"x": np.array([3])}, {"x": ["text"]})
    with pytest.raises(lazynwb.SchemaError) as caught:
        lazynwb.scan_nwb(paths, "t").collect()
    message = str(caught.value)
    assert isinstance(caught.value, TypeError)
    assert "x" in message
    assert "file_2.nwb" in message
    assert "file_0.nwb" in message or "file_1.nwb" in message
    assert "schema_overrides" in message


def test_a_conflict_names_all_columns_that_have_one(files):
    paths = files(
        {"a": np.array([1]), "b": ["text"], "c": np.array([True]), "d": np.array([1])},
        {"a": ["text"], "b": np.array([2]), "c": ["text"], "d": np.array([2.5])},
    )
    with pytest.raises(lazynwb.SchemaError, match=r"column 'a' .*; the same applies to 'b', 'c'$"):
        lazynwb.read_nwb(paths, "t")
    overrides = dict.fromkeys(["a", "b", "c"], pl.String)
    frame = lazynwb.scan_nwb(paths, "t", schema_overrides=overrides).select("a", "b", "d").collect()
    assert frame.rows() == [("1", "text", 1.0), ("text", "2", 2.5)]


@pytest.fixture
def conflicting(files):
    """Two files that agree over `y` and disagree over `x`."""
    time.sleep(0.02)
    return files(
        {"x": np.array([1, 2]), "y": np.array([1.5, 2.5]), "z": Ragged([[1], []])},
        {"x": ["a", "b"], "y": np.array([3.5, 4.5]), "z": Ragged([[2], [3]])},
    )


Y = [1.5, 2.5, 3.5, 4.5]


def scanned(paths, **options):
    return lazynwb.scan_nwb(paths, "t", **options)


def pickled(frame):
    return pickle.loads(pickle.dumps(frame))  # noqa: S301 - made here


def by_rows(paths, **options):
    rows = {path: [0, 1] for path in paths}
    return lazynwb.get_df(paths, "t", nwb_path_to_row_indices=rows, as_polars=True, **options)


def late(paths, name):
    return scanned(paths).select("_nwb_path", "_table_path", "_table_index").nwb.with_columns(name).collect()


def converted(paths, folder, **options):
    made = lazynwb.convert_nwb_tables(paths, folder / "out", ignore_errors=False, **options)
    return pl.read_parquet(made["/t"])


def indexed(paths, folder, **options):
    lazynwb.build_index(paths, folder / "index", **options)
    return folder / "index"


#: Ways to read column `y` of files that disagree over the type of `x`.
OTHERS = {
    "projection": lambda paths, _: scanned(paths).select("y").collect(),
    "filter": lambda paths, _: scanned(paths).filter(pl.col("y") > 0).select("y").collect(),
    "streaming": lambda paths, _: scanned(paths).drop("x").collect(engine="streaming"),
    "pickle": lambda paths, _: pickled(scanned(paths).drop("x")).collect(),
    "pattern": lambda paths, _: lazynwb.scan_nwb(paths, "/t*").drop("x").collect(),
    "no arrays": lambda paths, _: scanned(paths, exclude_array_columns=True).collect(),
    "lengths": lambda paths, _: scanned(paths, length_columns=True).drop("x").collect(),
    "executor": lambda paths, _: scanned(paths, executor=ThreadPoolExecutor(2)).drop("x").collect(),
    "get_df": lambda paths, _: lazynwb.get_df(paths, "t", as_polars=True),
    "get_df without": lambda paths, _: lazynwb.get_df(
        paths, "t", as_polars=True, exclude_array_columns=False, exclude_column_names="x"
    ),
    "rows of get_df": lambda paths, _: by_rows(paths),
    "SQL": lambda paths, _: lazynwb.get_sql_context(paths).execute("SELECT * FROM t", eager=True),
    "index": lambda paths, folder: scanned(None, index=indexed(paths, folder)).drop("x").collect(),
    "values": lambda paths, folder: (
        scanned(None, index=indexed(paths, folder, values=True)).select("y").collect()
    ),
    "conversion": lambda paths, folder: converted(paths, folder, exclude_array_columns=True),
    "late columns": lambda paths, _: late(paths, "y"),
}
#: Ways to read `x`, or all columns.
CONFLICTS = {
    "projection": lambda paths, _: scanned(paths).select("x").collect(),
    "all": lambda paths, _: scanned(paths).collect(),
    "streaming": lambda paths, _: scanned(paths).collect(engine="streaming"),
    "filter": lambda paths, _: scanned(paths).filter(pl.col("x") == 1).select("y").collect(),
    "pickle": lambda paths, _: pickled(scanned(paths)).collect(),
    "pattern": lambda paths, _: lazynwb.read_nwb(paths, "/t*"),
    "executor": lambda paths, _: scanned(paths, executor=ThreadPoolExecutor(2)).collect(),
    "length": lambda paths, _: scanned(paths, length_columns="x"),
    "get_df": lambda paths, _: lazynwb.get_df(paths, "t", include_column_names="x", as_polars=True),
    "rows of get_df": lambda paths, _: by_rows(paths, include_column_names="x"),
    "index": lambda paths, folder: scanned(None, index=indexed(paths, folder)).collect(),
    "values": lambda paths, folder: (
        scanned(None, index=indexed(paths, folder, values=True)).select("x").collect()
    ),
    "conversion": converted,
    "late columns": lambda paths, _: late(paths, "x"),
}


@pytest.mark.parametrize("way", OTHERS)
def test_a_conflict_does_not_affect_other_columns(way, conflicting, tmp_path, caplog):
    found = OTHERS[way](conflicting, tmp_path)
    assert found["y"].to_list() == Y
    assert "x" not in found.columns
    if way not in {"late columns", "pickle"}:
        said = [r.getMessage() for r in caplog.records if "column 'x'" in r.getMessage()]
        assert len(said) == 1
        assert all(
            name in said[0] for name in ("file_0.nwb", "file_1.nwb", "Int64", "String", "schema_overrides")
        )


@pytest.mark.parametrize("way", CONFLICTS)
def test_reading_a_column_with_a_conflict_is_an_error(way, conflicting, tmp_path):
    with pytest.raises(lazynwb.SchemaError) as caught:
        CONFLICTS[way](conflicting, tmp_path)
    words = ["column 'x'", "/t", "Int64", "String", *map(str, conflicting), "schema_overrides={'x': ...}"]
    words += ["ignore_errors=True"] if way not in {"late columns", "length"} else []
    assert [word for word in words if word not in str(caught.value)] == []


def test_the_schema_has_a_column_with_a_conflict_as_null(conflicting):
    scan = lazynwb.scan_nwb(conflicting, "t")
    assert scan.collect_schema()["x"] == pl.Null
    assert lazynwb.get_table_schema(conflicting, "t")["x"] == pl.Null
    assert scan.select(pl.len()).collect().item() == 4
    read = lazynwb.read_nwb(conflicting, "t", ignore_errors=True)
    assert read["x"].to_list() == [1, 2, None, None]
    chosen = lazynwb.read_nwb(conflicting, "t", schema_overrides={"x": pl.String})
    assert chosen["x"].to_list() == ["1", "2", "a", "b"]


def test_schema_overrides(files):
    paths = files({"x": np.array([1, 2])}, {"x": ["text"]})
    assert collected(paths, schema_overrides={"x": pl.String}).to_list() == ["1", "2", "text"]
    assert collected(paths[:1], schema_overrides={"x": pl.Float32}).dtype == pl.Float32
    assert collected(files({"x": np.array([1, 2])}), schema_overrides={"x": pl.Int8}).to_list() == [1, 2]
    lf = lazynwb.scan_nwb(paths, "t", schema_overrides={"x": pl.String}).filter(pl.col("x") == "2")
    assert lf.collect()["_table_index"].to_list() == [1]


def test_infer_schema_length_looks_at_the_first_files_that_have_the_table(files, tmp_path):
    paths = files({"a": [1]}, {"a": [2], "later": ["x"]})
    with h5py.File(tmp_path / "before.nwb", "w") as file:
        table(file, "other", {"z": [1]})
    lf = lazynwb.scan_nwb([tmp_path / "before.nwb", *paths], "t", infer_schema_length=1)
    assert list(lf.collect_schema())[:2] == ["a", "id"]
    frame = lf.collect()
    assert frame["a"].to_list() == [1, 2]
    assert "later" not in frame.columns


def test_later_files_are_cast_losslessly_to_the_schema(files):
    paths = files({"x": np.array([1.5])}, {"x": np.array([2], "i4")}, {"x": np.array([2.5], "f4")})
    assert collected(paths, infer_schema_length=1).to_list() == [1.5, 2.0, 2.5]
    paths = files({"x": np.array([1])}, {"x": np.array([3.0])})
    assert collected(paths, infer_schema_length=1).to_list() == [1, 3]


@pytest.mark.parametrize("later", [np.array([2.5]), ["text"], np.zeros((1, 2)), np.array([2**63], "u8")])
def test_a_published_schema_is_not_broken_by_a_later_file(files, later):
    paths = files({"x": np.array([1])}, {"x": later})
    for engine in ENGINES:
        with pytest.raises(lazynwb.SchemaError) as caught:
            lazynwb.scan_nwb(paths, "t", infer_schema_length=1).collect(engine=engine)
        assert "file_0.nwb" in str(caught.value)
        assert "file_1.nwb" in str(caught.value)
        assert "infer_schema_length" in str(caught.value)


def test_a_column_that_a_later_file_lacks_is_null(files):
    assert collected(files({"x": [1]}, {"y": [2]}), infer_schema_length=1).to_list() == [1, None]


def test_a_given_schema_is_used_unchanged(files, cube):
    schema = lazynwb.scan_nwb(cube, "/units").collect_schema()
    with lazynwb.profile() as p:
        lf = lazynwb.scan_nwb(cube, "/units", schema=schema)
        assert lf.collect_schema() == schema
    assert p.files_opened == 0
    assert_frames(lf.collect(), lazynwb.read_nwb(cube, "/units"))
    lf = lazynwb.scan_nwb(files({"x": [1], "y": [2]}), "t", schema={"x": pl.Float64, "z": pl.String})
    assert lf.collect()["x"].to_list() == [1.0]
    assert lf.collect()["z"].to_list() == [None]


def test_exclude_array_columns(cube):
    schema = lazynwb.scan_nwb(cube, "/units", exclude_array_columns=True).collect_schema()
    assert {"spike_times", "obs_intervals", "waveform_mean"}.isdisjoint(schema)
    assert {"unit_id", "location", "_nwb_path"} <= set(schema)


def test_the_options_of_the_other_package_bind(cube, units):
    positional = (False, False, None, False)
    frame = lazynwb.scan_nwb(
        cube, "/units", *positional, low_memory=True, single_file_batches=True, disable_progress=True
    ).collect()
    assert_frames(frame, units)


def test_ignore_errors_skips_and_names_unreadable_files(cube, tmp_path, caplog):
    bad = tmp_path / "bad.nwb"
    bad.write_bytes(b"no HDF5 in here")
    with pytest.raises(lazynwb.NotNWBError, match=r"bad\.nwb"):
        lazynwb.scan_nwb([*cube[:2], bad], "/units").collect()
    for engine in ENGINES:
        caplog.clear()
        frame = lazynwb.scan_nwb([bad, *cube[:2]], "/units", ignore_errors=True).collect(engine=engine)
        assert frame.height == 80
        assert "bad.nwb" in caplog.text


def test_get_table_schema(cube):
    expected = lazynwb.scan_nwb(cube, "/units").collect_schema()
    assert lazynwb.get_table_schema(cube, "/units") == expected
    assert lazynwb.get_table_schema(cube[0], "/units", first_n_files_to_infer_schema=1) == expected
    assert not {"_nwb_path", "_table_path", "_table_index"} & set(
        lazynwb.get_table_schema(cube, "/units", exclude_internal_columns=True)
    )
    assert "spike_times" not in lazynwb.get_table_schema(cube, "/units", exclude_array_columns=True)
    options = {"session_columns": {"mouse": "subject_id"}, "resolve_regions": True}
    expected = lazynwb.scan_nwb(cube, "/units", **options).collect_schema()
    assert lazynwb.get_table_schema(cube, "/units", **options) == expected
    assert "mouse" in expected
    with pytest.raises(lazynwb.TableNotFoundError):
        lazynwb.get_table_schema(cube, "/intervals/performance", raise_on_missing=True)


@pytest.mark.integration
def test_concurrent_first_use(tmp_path):
    """Many threads scan the same new files with an empty cache."""
    paths = [write_session(tmp_path / f"{k}.nwb", k, units=5) for k in range(8)]
    barrier = threading.Barrier(6)

    def work(_):
        barrier.wait()
        return lazynwb.read_nwb(paths, "/units")

    with ThreadPoolExecutor(6) as pool:
        first, *others = pool.map(work, range(6))
    for frame in others:
        assert_frames(frame, first)


def test_spikes_in_intervals_of_files_with_conflicting_types(tmp_path):
    """Unreadable columns are omitted from the result, like arrays."""
    for name, values in {"a": [1, 2], "b": ["one", "two"]}.items():
        with h5py.File(tmp_path / f"{name}.nwb", "w") as file:
            table(file, "units", {"spike_times": Ragged([[0.5, 1.5]])}, kind="Units")
            times = {"start_time": np.arange(2.0), "stop_time": np.arange(2.0) + 1}
            table(file, "intervals/trials", {**times, "x": values}, kind="TimeIntervals")
    units = lazynwb.get_df(tmp_path, "units", as_polars=True)
    found = lazynwb.get_spike_times_in_intervals(units, {"spikes": ("start_time", "stop_time")})
    assert found["spikes"].to_list() == [[0.5], [1.5]] * 2
    assert "x" not in found.columns
