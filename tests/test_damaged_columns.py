"""`ignore_errors`: only unreadable values are null, consistently in all queries."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import h5py
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import lazynwb
import zarr_stores
from builders import GZIP, Column, nwb_root, series, table
from checks import ENGINES
from range_server import RangeServer
from test_bad_input import flip_chunk, warned

ROWS = 120
CHECKED = {"compression": "gzip", "fletcher32": True}
#: Datasets of which a chunk is damaged, and the column that it belongs to.
DAMAGED = {
    "x": "x",
    "matrix": "matrix",
    "text": "text",
    "ragged": "ragged",
    "ragged_index": "ragged",
    "nested": "nested",
    "nested_index": "nested",
    "nested_index_index": "nested",
}


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    path = tmp_path_factory.mktemp("intact") / "intact.nwb"
    random = np.random.default_rng(0)
    lengths = random.integers(0, 9, ROWS)
    ends = np.cumsum(lengths)
    inner = np.cumsum(random.integers(0, 4, ends[-1]))
    with h5py.File(path, "w") as file:
        nwb_root(file)
        group = table(
            file,
            "units",
            {
                "x": Column(random.normal(size=ROWS), {"chunks": (20,), **CHECKED}),
                "sound": np.arange(ROWS) * 1.5,
                "matrix": Column(random.normal(size=(ROWS, 4)), {"chunks": (20, 2), **CHECKED}),
                "text": Column([f"text {n} " * 5 for n in range(ROWS)], {"chunks": (20,), **GZIP}),
            },
        )
        for name, values in {
            "ragged": random.normal(size=ends[-1]),
            "nested": random.normal(size=inner[-1]),
        }.items():
            group.create_dataset(name, data=values, chunks=(50,), **CHECKED)
        for name, values in {"ragged_index": ends, "nested_index": inner, "nested_index_index": ends}.items():
            index = group.create_dataset(name, data=values, chunks=(25,), **CHECKED)
            index.attrs["neurodata_type"] = "VectorIndex"
            index.attrs["target"] = group[name.removesuffix("_index")].ref
        group.attrs["colnames"] = ["x", "sound", "matrix", "text", "ragged", "nested"]
    return path


def unreadable(path, column):
    """Return for each row whether h5py fails to read it."""
    found = []
    with h5py.File(path) as file:
        group = file["units"]
        names = [name for name in (f"{column}_index_index", f"{column}_index", column) if name in group]
        for row in range(ROWS):
            start, stop = row, row + 1
            try:
                for name in names[:-1]:
                    first = int(group[name][start - 1]) if start else 0
                    ends = group[name][start:stop]
                    start, stop = first, int(ends[-1]) if len(ends) else first
                group[names[-1]][start:stop]
            except OSError:
                found.append(True)
            else:
                found.append(False)
    return pl.Series(found)


def assert_same_everywhere(scan, expected, column):
    """Assert that filters, projections, limits and all batch sizes return the rows of `expected`."""
    null, positive = pl.col(column).is_null(), (pl.col("x") > 0) | (pl.col("sound") > 100)
    for engine in ENGINES:
        assert_frame_equal(scan.collect(engine=engine), expected)
    assert_frame_equal(scan.filter(null).collect(), expected.filter(null))
    assert_frame_equal(scan.filter(positive, ~null).collect(), expected.filter(positive, ~null))
    assert_frame_equal(scan.head(35).filter(positive).collect(), expected.head(35).filter(positive))
    one = pl.col("_table_index") == 25
    assert_frame_equal(scan.filter(one).select(column).collect(), expected.filter(one).select(column))


@pytest.mark.parametrize(
    ("dataset", "batch_bytes"),
    [
        pytest.param(dataset, size, marks=[pytest.mark.slow] * (number % 2 == place))
        for number, dataset in enumerate(DAMAGED)
        for place, size in enumerate((1 << 12, 1 << 25))
    ],
)
@pytest.mark.sample(4)
def test_only_unreadable_values_are_null(dataset, batch_bytes, intact, tmp_path, caplog):
    column = DAMAGED[dataset]
    bad = tmp_path / "bad.nwb"
    shutil.copy(intact, bad)
    flip_chunk(bad, f"units/{dataset}")
    null = unreadable(bad, column)
    assert 0 < null.sum() < ROWS
    whole = lazynwb.read_nwb(intact, "/units")
    damaged = whole.with_columns(
        pl.when(~null).then(column).alias(column), pl.lit(str(bad)).alias("_nwb_path")
    )
    lazynwb.config.batch_bytes = batch_bytes
    paths = [bad, intact]
    scan = lazynwb.scan_nwb(paths, "/units", ignore_errors=True)
    assert_same_everywhere(scan, pl.concat([damaged, whole]), column)
    caplog.clear()
    found = lazynwb.get_sql_context(paths).execute("SELECT * FROM units", eager=True)
    assert found.filter(pl.col(column).is_null())["_table_index"].to_list() == null.arg_true().to_list()
    assert warned(caplog).count(f"bad.nwb: /units: column '{column}' is null where it cannot be read: ") == 1
    with pytest.raises(lazynwb.LazyNWBError, match=rf"bad\.nwb.*units.*{column}"):
        lazynwb.scan_nwb(paths, "/units").select(column).collect()
    assert lazynwb.scan_nwb(paths, "/units").select("sound", "id").collect().height == 2 * ROWS


@pytest.mark.parametrize(
    "store",
    ["v2-zlib-consolidated", "v2-crc32c-apart", "v3-gzip-start_crc32c-apart"],
    ids=lambda name: name[:7],
)
def test_in_a_zarr_store(store, tmp_path, caplog):
    good = zarr_stores.corpus()[store](tmp_path / "good.nwb.zarr")
    bad = shutil.copytree(good, tmp_path / "bad.nwb.zarr")
    damaged = ["f", "name", "x"]  # numbers, text, a ragged column
    for column in damaged:
        chunks = [
            path
            for path in (bad / "units" / column).rglob("*")
            if path.name[0] not in ".z" and path.is_file()
        ]
        chunk = max(chunks, key=lambda path: path.stat().st_size)
        data = bytearray(chunk.read_bytes())
        middle = slice(len(data) // 2, len(data) // 2 + 3)
        data[middle] = bytes(byte ^ 0xFF for byte in data[middle])
        chunk.write_bytes(data)
    expected = lazynwb.read_nwb(good, "/units")
    scan = lazynwb.scan_nwb([bad, good], "/units", ignore_errors=True)
    found = scan.collect()
    assert all(warned(caplog).count(part) == 1 for part in ("column 'f' is null", "column 'name' is null"))
    assert_frame_equal(found[expected.height :], expected)
    for column in expected.columns[:-3]:
        ours, theirs = found[column][: expected.height], expected[column]
        assert bool(ours.null_count()) == (column in damaged or bool(theirs.null_count()))
        present = ours.is_not_null()
        assert ours.filter(present).equals(theirs.filter(present)), column
    for column in damaged:
        null = pl.col(column).is_null()
        assert_frame_equal(scan.filter(null).collect(), found.filter(null))


@pytest.fixture
def pair(intact, tmp_path):
    """A file with a damaged column of numbers, and one without."""
    bad, good = tmp_path / "files" / "bad.nwb", tmp_path / "files" / "good.nwb"
    bad.parent.mkdir()
    for path in (bad, good):
        shutil.copy(intact, path)
    flip_chunk(bad, "units/x")
    return [bad, good]


def indexed(paths, folder):
    lazynwb.build_index(paths, folder, values=True)
    return lazynwb.read_nwb(None, "/units", index=folder, ignore_errors=True)


def converted(paths, folder):
    (written,) = lazynwb.convert_nwb_tables(paths, folder, tables="units").values()
    return pl.read_parquet(written)


def converted_by_session(paths, folder):
    (written,) = lazynwb.convert_nwb_tables(paths, folder, tables="units", partition_by="session").values()
    return pl.concat(map(pl.read_parquet, sorted(written.rglob("*.parquet"))))


def converted_into_folders(paths, folder):
    written = lazynwb.convert_nwb_tables(paths, folder, tables="units", session_subdirs=True)
    return pl.concat(map(pl.read_parquet, written.values()))


@pytest.mark.parametrize(
    "read",
    [
        lambda paths, _: lazynwb.get_df(
            paths, "units", ignore_errors=True, as_polars=True, exclude_array_columns=False
        ),
        lambda paths, _: lazynwb.get_sql_context(paths).execute("SELECT * FROM units", eager=True),
        lambda paths, _: lazynwb.read_nwb(paths, "/un*s", ignore_errors=True),
        lambda paths, _: lazynwb.scan_nwb(
            paths, "/units", ignore_errors=True, executor=ThreadPoolExecutor(1)
        ).collect(),
        converted,
        converted_by_session,
        converted_into_folders,
        indexed,
    ],
    ids=["get_df", "sql", "pattern", "executor", "convert", "by session", "into folders", "index"],
)
@pytest.mark.sample(2)
def test_every_reading_function_returns_the_same_nulls(read, pair, tmp_path, caplog):
    expected = lazynwb.read_nwb(pair, "/units", ignore_errors=True)
    assert expected["x"].null_count() == 20
    for _ in range(2):  # the column store and the index hold no value that is not in a file
        found = read(pair, tmp_path / "out")
        assert_frame_equal(found.select(expected.columns[1:-3]), expected.select(expected.columns[1:-3]))
    assert "column 'x' is null where it cannot be read" in warned(caplog)


@pytest.mark.parametrize(
    "dataset", ["ragged", "ragged_index", "nested", "nested_index", "nested_index_index"]
)
@pytest.mark.sample(2)
def test_lengths_are_those_of_the_index_whether_or_not_elements_can_be_read(dataset, intact, tmp_path):
    """Lengths do not depend on the projection; they are null if the index is damaged."""
    column = DAMAGED[dataset]
    shutil.copy(intact, bad := tmp_path / "bad.nwb")
    outer = "ragged_index" if column == "ragged" else "nested_index_index"
    with h5py.File(bad) as file:
        lengths = np.diff(file[f"units/{outer}"][:], prepend=0)
    flip_chunk(bad, f"units/{dataset}")
    known = ~unreadable(bad, column) if dataset == outer else np.ones(ROWS, bool)
    expected = pl.Series(f"{column}_len", lengths, pl.UInt32).to_frame().select(pl.when(known).then(pl.all()))
    length = pl.col(f"{column}_len")
    scan = lazynwb.scan_nwb(bad, "/units", ignore_errors=True, length_columns=column)
    assert scan.select(column, length).collect()[column].null_count() > 0
    sql = lazynwb.get_sql_context(bad, length_columns=True)
    for _ in range(2):  # the second time from the column store
        assert_frame_equal(scan.select(length).collect(), expected)
        assert_frame_equal(scan.select(column, length).collect().select(length), expected)
        assert_frame_equal(scan.filter(length > 3).select(length).collect(), expected.filter(length > 3))
        assert_frame_equal(
            scan.filter(length.is_null()).collect().select(length), expected.filter(length.is_null())
        )
        assert_frame_equal(sql.execute("SELECT * FROM units", eager=True).select(length), expected)


@pytest.fixture
def damaged(request, pair, tmp_path):
    """A folder with `bad.nwb` and `good.nwb`, as HDF5 or as Zarr."""
    if request.param == "HDF5":
        return pair[0].parent
    good = zarr_stores.corpus()["v3-crc32c-consolidated"](tmp_path / "stores" / "good.nwb")
    bad = shutil.copytree(good, tmp_path / "stores" / "bad.nwb")
    chunk = max((bad / "units" / "x" / "c").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(chunk.read_bytes())
    data[len(data) // 3] ^= 0xFF
    chunk.write_bytes(data)
    return tmp_path / "stores"


@pytest.mark.parametrize(
    ("where", "damaged"),
    [("web server", "Zarr"), ("bucket", "HDF5")],
    indirect=["damaged"],
)
def test_in_a_remote_file(where, damaged, request, caplog):
    """The same values and nulls as in local files, cold and warm; the error names the URL."""
    columns = ["id", "x"]
    local = lazynwb.scan_nwb(damaged / "*.nwb", "/units", ignore_errors=True).select(columns).collect()
    assert 0 < local["x"].null_count() < local.height / 2
    objects = {str(p.relative_to(damaged)): p.read_bytes() for p in damaged.rglob("*") if p.is_file()}
    options = {}
    with ExitStack() as stack:
        if where == "bucket":
            cloud = request.getfixturevalue("s3")
            folder, options = f"private/damaged/{damaged.name}", cloud.options
            for key, data in objects.items():
                cloud.put(f"{folder}/{key}", data)
            base = f"s3://{folder}"
        else:
            server = stack.enter_context(RangeServer())
            server.objects.update(objects)
            base = server.url
        urls = [f"{base}/bad.nwb", f"{base}/good.nwb"]
        scan = lazynwb.scan_nwb(urls, "/units", ignore_errors=True, storage_options=options).select(columns)
        for _ in range(2):
            assert_frame_equal(scan.collect(), local)
        null = pl.col("x").is_null()
        assert_frame_equal(scan.filter(null).collect(), local.filter(null))
        assert f"{urls[0]}: /units: column 'x' is null where it cannot be read" in warned(caplog)
        strict = lazynwb.scan_nwb(urls, "/units", storage_options=options)
        with pytest.raises(lazynwb.CorruptDataError, match=rf"{urls[0]}: /units/x"):
            strict.select("x").collect()
        assert_frame_equal(strict.select("id").collect(), local.select("id"))


def test_a_series_with_damaged_timestamps(tmp_path):
    """A filter cannot use them to skip rows, and sees nulls."""
    path = tmp_path / "a.nwb"
    times = np.arange(400.0)
    with h5py.File(path, "w") as file:
        nwb_root(file)
        group = series(file, "acquisition/s", np.arange(400))
        group.create_dataset("timestamps", data=times, chunks=(50,), **CHECKED)
    flip_chunk(path, "acquisition/s/timestamps")
    scan = lazynwb.scan_nwb(path, "/acquisition/s", ignore_errors=True)
    expected = scan.collect()
    assert expected["timestamps"].null_count() == 50
    for condition in (pl.col("timestamps") > 300, pl.col("timestamps").is_null(), pl.col("timestamps") < 60):
        assert_frame_equal(scan.filter(condition).collect(), expected.filter(condition))


def test_values_that_do_not_fit_the_type_of_the_first_files(tmp_path, caplog):
    """A conflict between files is an error; under `ignore_errors` the column is null in the later file."""
    for name, values in {"a": [0, 1], "b": ["x", "y"], "c": [2, 3]}.items():
        with h5py.File(tmp_path / f"{name}.nwb", "w") as file:
            nwb_root(file)
            table(file, "units", {"odd": values, "rate": np.arange(2.0)})
    with pytest.raises(lazynwb.SchemaError, match=r"column 'odd' of /units is .*a\.nwb but .*b\.nwb"):
        lazynwb.read_nwb(tmp_path, "/units")
    odd = [0, 1, None, None, 2, 3]
    for options in ({}, {"infer_schema_length": 1}):
        caplog.clear()
        frame = lazynwb.read_nwb(tmp_path, "/units", ignore_errors=True, **options)
        assert frame["odd"].to_list() == odd
        assert warned(caplog).count("column 'odd' is null where it cannot be read: ") == 1
        assert "cannot be read: stored as String but the scan's type is Int64" in warned(caplog)
    assert converted(tmp_path, tmp_path / "out")["odd"].to_list() == odd
