"""Every layout, filter, data type and table shape of `builders`, compared with the oracle."""

import pickle
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pytest

import lazynwb
from builders import CASES, PYNWB_CASES, VLEN_TEXT, Ragged, table
from cases_storage import plugin_filters
from checks import ENGINES, PEAK_MIB, check_file, run_child
from readers import hdf5_tables as oracle

NAMES = [*CASES, *PYNWB_CASES]
#: Every other kind of file with either engine; with `--slow`, both engines.
#: Each name on one engine, half of them in a default run.
MARKS = ((), pytest.mark.slow, pytest.mark.slow, pytest.mark.long)
NAMES_AND_ENGINES = [
    pytest.param(name, engine, marks=MARKS[(number + shift + 1) % 2 + 2 * (number // 2 % 2)])
    for shift, engine in enumerate(ENGINES)
    for number, name in enumerate(NAMES)
]


@pytest.mark.parametrize(("name", "engine"), NAMES_AND_ENGINES)
def test_all_tables_equal_the_oracle(name, engine, built):
    if name == "plugins" and not plugin_filters():
        pytest.skip("pip install hdf5plugin")
    check_file(built(name), engine)


@pytest.mark.parametrize("name", ["opaque", "datetime", "bitfield"])
def test_unsupported_columns_are_an_error_only_when_selected(name, built):
    lf = lazynwb.scan_nwb(built("unsupported_types"), "t")
    assert lf.select("fine", "text").collect().height == 3
    with pytest.raises(lazynwb.UnsupportedTypeError, match=name) as caught:
        lf.select("fine", name).collect()
    assert "unsupported_types.nwb" in str(caught.value)
    assert "t" in str(caught.value)


@pytest.mark.parametrize("name", ["region_reference", "longdouble"])
def test_rare_unsupported_columns_are_an_error_too(name, built):
    lf = lazynwb.scan_nwb(built("unsupported_types"), "t")
    if name not in lf.collect_schema():
        pytest.skip("no such type on this machine")
    with pytest.raises(lazynwb.UnsupportedTypeError, match=name):
        lf.select(name).collect()


def test_notebook_dtypes(cube):
    """The dtypes that the notebook shows, for a column of each kind."""
    schema = lazynwb.scan_nwb(cube, "/units", infer_schema_length=1).collect_schema()
    assert schema["obs_intervals"] == pl.List(pl.Array(pl.Float64, 2))
    assert schema["spike_times"] == pl.List(pl.Float64)
    assert schema["waveform_mean"] == pl.Array(pl.Float64, (21, 8))
    assert list(schema)[-3:] == ["_nwb_path", "_table_path", "_table_index"]
    assert list(schema)[:-3] == sorted(list(schema)[:-3])


def test_a_million_rows(tmp_path):
    """Values at the boundaries of all batches are correct."""
    n = 1_000_000
    path = tmp_path / "long.nwb"
    with h5py.File(path, "w") as file:
        group = table(file, "t", {"x": np.arange(n, dtype="i4")})
        group.create_dataset("zipped", data=np.arange(n) * 2, chunks=(65_536,), compression=1, shuffle=True)
        group.create_dataset("spikes", data=np.arange(2 * n, dtype="f4"), chunks=(50_000,), compression=1)
        group.create_dataset("spikes_index", data=np.arange(1, n + 1, dtype="u4") * 2)
    lf = lazynwb.scan_nwb(path, "t")
    for engine in ENGINES:
        frame = lf.select("x", "zipped", "spikes", "_table_index").collect(engine=engine)
        assert frame["x"].equals(pl.Series("x", np.arange(n, dtype="i4")))
        assert frame["zipped"].equals(pl.Series("zipped", np.arange(n) * 2))
        assert frame["_table_index"].equals(pl.Series("_table_index", np.arange(n, dtype="u4")))
        assert frame["spikes"].list.len().eq(2).all()
        assert frame["spikes"].explode().equals(pl.Series("spikes", np.arange(2 * n, dtype="f4")))
        some = lf.filter(pl.col("x") % 99_991 == 7).select("spikes", "x").collect(engine=engine)
        assert some["spikes"].list.first().to_list() == [2.0 * x for x in some["x"]]
        assert some.height == 11


def test_a_series_is_found_by_its_group_and_by_its_data(built):
    by_group = lazynwb.scan_nwb(built("time_series"), "/acquisition/multi").collect()
    by_data = lazynwb.scan_nwb(built("time_series"), "/acquisition/multi/data").collect()
    assert by_group.drop("_table_path").equals(by_data.drop("_table_path"), null_equal=True)


@pytest.mark.parametrize(
    ("shortcut", "path"),
    [
        ("units", "/units"),
        ("trials", "/intervals/trials"),
        ("electrodes", "/general/extracellular_ephys/electrodes"),
        ("subject", "/general/subject"),
        ("session", "/general"),
    ],
)
def test_shortcuts(shortcut, path, built):
    assert lazynwb.read_nwb(built("session"), shortcut).equals(lazynwb.read_nwb(built("session"), path))


@pytest.mark.parametrize(
    "spelling", ["/intervals/trials", "intervals/trials", "/intervals/trials/", "intervals//trials"]
)
def test_spellings_of_a_table_path(spelling, built):
    frame = lazynwb.read_nwb(built("session"), spelling)
    assert frame["_table_path"].unique().to_list() == ["intervals/trials"]


def test_a_linked_table_has_the_path_of_the_link(built):
    frame = lazynwb.read_nwb(built("links"), "/linked_table")
    assert frame["_table_path"].unique().to_list() == ["linked_table"]
    assert frame["a"].to_list() == [0, 1, 2]


def test_a_scan_through_a_linked_folder(built):
    assert lazynwb.read_nwb(built("links"), "/linked_home/trials")["a"].to_list() == [0, 1, 2]


@pytest.mark.parametrize("name", ["*", "^a.*$", "^", "$"])
def test_a_name_that_is_a_pattern_to_polars(name, tmp_path):
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        table(file, "t", {name: np.arange(3), "ab": np.arange(3), "ac": np.arange(3.0)})
    lf = lazynwb.scan_nwb(tmp_path / "a.nwb", "t")
    assert lf.collect()[name].to_list() == [0, 1, 2]
    assert lf.filter(pl.col("ab") > 1).collect().height == 1
    assert lf.select("ab").collect().width == 1


def test_read_nwb_returns_a_frame(built):
    assert isinstance(lazynwb.read_nwb(built("session"), "/units"), pl.DataFrame)


def test_unselected_columns_are_not_read(built):
    """Columns outside the projection are not read, even if damaged."""
    path = built("session")
    with lazynwb.profile() as few:
        lazynwb.scan_nwb(path, "/units").select("id").collect()
    with lazynwb.profile() as all_columns:
        lazynwb.scan_nwb(path, "/units").collect()
    assert few.bytes_read < all_columns.bytes_read


def test_ragged_rows_are_read_for_remaining_rows_only(tmp_path):
    """One row of a ragged column reads the chunks of that row."""
    path = tmp_path / "ragged.nwb"
    rows = [np.full(1000, k, "f8") for k in range(200)]
    with h5py.File(path, "w") as file:
        options = {"chunks": (2000,), "compression": "gzip", "shuffle": True}
        table(file, "units", {"x": Ragged(rows, options=options), "n": np.arange(200)})
        file["units"].create_dataset("label", data=["a", "b"] * 100, dtype=VLEN_TEXT)
    lf = lazynwb.scan_nwb(path, "units")
    lf.select("x").head(1).collect()  # the catalog is in the cache now
    with lazynwb.profile() as p:
        frame = lf.filter(pl.col("n") == 100).select("x").collect()
    assert frame["x"].to_list() == [[100.0] * 1000]
    assert 1 <= p.chunks_decoded <= 2


def test_uncompressed_rows_are_read_one_by_one(tmp_path):
    path = tmp_path / "raw.nwb"
    with h5py.File(path, "w") as file:
        table(file, "units", {"w": np.random.default_rng(0).normal(size=(500, 50, 20)), "n": np.arange(500)})
    lf = lazynwb.scan_nwb(path, "units")
    lf.select("n").collect()
    with lazynwb.profile() as p:
        frame = lf.filter(pl.col("n").is_in([3, 400])).select("n", "w").collect()
    assert frame["n"].to_list() == [3, 400]
    assert p.bytes_read < 500 * 50 * 20 * 8 / 10


def test_common_filters_need_no_plugin(built):
    """Blosc and zstd chunks are decoded without hdf5plugin; errors of other filters name it."""
    if not plugin_filters():
        pytest.skip("pip install hdf5plugin")
    path = built("plugins")
    expected = {name: oracle.read_table(path, name) for name in plugin_filters()}
    code = """
import sys, pickle, lazynwb, checks
for name, table in pickle.load(sys.stdin.buffer).items():
    try:
        checks.assert_table(lazynwb.read_nwb(sys.argv[1], name), table, sys.argv[1], name)
    except lazynwb.errors.MissingPackageError as error:
        assert "hdf5plugin" in str(error) and name in str(error), error
        print(name)
assert "hdf5plugin" not in sys.modules
"""
    missing = run_child(code, path, stdin=pickle.dumps(expected)).split()
    assert {"blosc_lz4", "blosc_zstd", "zstd", "shuffle_zstd"}.isdisjoint(missing)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc: run on Linux")
def test_a_large_column_is_written_in_little_memory(tmp_path):
    """One gigabyte of waveforms, written by `sink_parquet` in less than 600 MiB."""
    path = tmp_path / "large.nwb"
    with h5py.File(path, "w") as file:
        group = table(file, "units", {}, rows=16_000, colnames=np.array(["w"], VLEN_TEXT))
        waveforms = group.create_dataset("w", (16_000, 80, 100), "f8", chunks=(20, 80, 100), compression=1)
        block = np.random.default_rng(0).integers(0, 9, (1000, 80, 100)).astype("f8")
        for start in range(0, 16_000, 1000):
            waveforms[start : start + 1000] = block
    code = """
import sys, lazynwb
lazynwb.scan_nwb(sys.argv[1], "units").select("w").sink_parquet(sys.argv[2], row_group_size=512)
print(peak_mib())
"""
    assert int(run_child(PEAK_MIB + code, path, tmp_path / "out.parquet", timeout=300)) < 600
    assert pl.scan_parquet(tmp_path / "out.parquet").select(pl.len()).collect().item() == 16_000
