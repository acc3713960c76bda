"""Conversion of units, series and frames to pynapple, xarray, DuckDB, pandas and pyarrow."""

import sys
import warnings
from datetime import datetime
from zoneinfo import ZoneInfo

import h5py
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import lazynwb
from builders import VLEN_TEXT, Ragged, series, table
from lazynwb.frames.pandas_output import to_pandas

INTERNAL = lazynwb.INTERNAL_COLUMN_NAMES


@pytest.fixture
def pynapple():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("pynapple")


@pytest.fixture
def xarray():
    return pytest.importorskip("xarray")


@pytest.fixture
def duckdb():
    return pytest.importorskip("duckdb", minversion="2.0")  # older ones collect the scan as a whole


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Units whose ids are not in order, one of them silent; and series."""
    path = tmp_path_factory.mktemp("interop") / "session.nwb"
    trains = [[0.5, 1.5, 2.5], [], [1.0], [0.25, 9.75]]
    with h5py.File(path, "w") as nwb:
        columns = {
            "spike_times": Ragged(trains),
            "location": ["CA1", "VISp", "CA1", "LP"],
            "rate": np.array([4.0, 3.0, 2.0, 1.0]),
            "good": np.array([True, False, True, True]),
            "waveform": np.zeros((4, 3)),
        }
        units = table(nwb, "units", columns, kind="Units")
        units["id"][:] = [30, 10, 20, 0]
        group = series(nwb, "acquisition/ap", np.arange(40, dtype="i2").reshape(20, 2), start=1.0, rate=10.0)
        group["data"].attrs["conversion"] = 0.5
        group["electrodes"] = [4, 7]
        series(nwb, "acquisition/one", np.arange(5.0), np.array([0, 1, 2, 4, 8.0]))
        series(nwb, "acquisition/movie", np.arange(24.0).reshape(4, 3, 2), start=0.0, rate=4.0)
        series(nwb, "acquisition/notes", ["a", "b"], np.arange(2.0), dtype=VLEN_TEXT)
        series(nwb, "acquisition/uneven", np.arange(5.0), np.arange(4.0))
    return path


def one(path, name):
    return lazynwb.get_timeseries(path, f"acquisition/{name}", exact_path=True)


# -- pynapple ---------------------------------------------------------------------------------------------

TRAINS = {30: [0.5, 1.5, 2.5], 10: [], 20: [1.0], 0: [0.25, 9.75]}
PLACES = {30: "CA1", 10: "VISp", 20: "CA1", 0: "LP"}


def assert_group(group):
    """Assert that spikes and metadata belong to the same ids in any order."""
    assert {key: group[key].times().tolist() for key in group} == TRAINS
    assert group.get_info("location").to_dict() == PLACES
    assert group.get_info("rate_").to_dict() == {30: 4, 10: 3, 20: 2, 0: 1}
    assert group.get_info("good").to_dict() == {30: True, 10: False, 20: True, 0: True}
    assert "waveform" not in group.metadata_columns
    assert not INTERNAL & set(group.metadata_columns)


@pytest.mark.parametrize("kind", ["LazyFrame", "DataFrame", "pandas"])
@pytest.mark.parametrize("with_spikes", [True, False])
def test_units_become_a_tsgroup_with_metadata(file, pynapple, kind, with_spikes):
    frame = lazynwb.scan_nwb(file, "units")
    if not with_spikes:
        frame = frame.drop("spike_times")
    if kind != "LazyFrame":
        frame = frame.collect()
    if kind == "pandas":
        pytest.importorskip("pandas")
        frame = to_pandas(frame)
    group = lazynwb.to_pynapple(frame)
    assert isinstance(group, pynapple.TsGroup)
    assert_group(group)


def test_spikes_are_fetched_for_the_rows_of_the_frame_only(cube, pynapple):
    units = lazynwb.scan_nwb(cube[0], "units").drop("spike_times")
    few = units.filter(pl.col("unit_id") == "s0_7").collect()
    with lazynwb.profile() as cost:
        group = lazynwb.to_pynapple(few)
    whole = lazynwb.scan_nwb(cube[0], "units").filter(pl.col("unit_id") == "s0_7").collect()
    (times,) = [group[key].times() for key in group]
    assert times == pytest.approx(whole["spike_times"][0].to_numpy(), abs=1e-9)  # pynapple rounds to that
    assert cost.chunks_decoded <= 2


def test_units_of_several_sessions_are_refused(cube, pynapple):
    units = lazynwb.scan_nwb(cube[:2], "units")
    with pytest.raises(lazynwb.LazyNWBError, match=r"units of 2 sessions .*_nwb_path"):
        lazynwb.to_pynapple(units)
    one_session = units.filter(pl.col("_nwb_path") == str(cube[1]))
    assert len(lazynwb.to_pynapple(one_session)) == 40


def test_ambiguous_units_are_errors(file, pynapple):
    units = lazynwb.scan_nwb(file, "units").collect()
    with pytest.raises(lazynwb.ColumnNotFoundError, match="spike_times"):
        lazynwb.to_pynapple(units.select("location"))
    with pytest.raises(lazynwb.LazyNWBError, match="none of the 1 units has spikes"):
        lazynwb.to_pynapple(units.filter(pl.col("id") == 10))


def test_rows_without_an_id_are_numbered_as_in_their_table(file, pynapple):
    units = lazynwb.scan_nwb(file, "units").select("spike_times", "_table_index").collect()
    assert sorted(lazynwb.to_pynapple(units[::-2])) == [1, 3]
    assert sorted(lazynwb.to_pynapple(units.select("spike_times")[:3])) == [0, 1, 2]


def test_series_become_tsds_frames_and_tensors(file, pynapple):
    for name, kind in [("one", pynapple.Tsd), ("ap", pynapple.TsdFrame), ("movie", pynapple.TsdTensor)]:
        ts = one(file, name)
        made = ts.to_pynapple()
        assert type(made) is kind
        np.testing.assert_array_equal(made.times(), ts.timestamps[:])
        np.testing.assert_array_equal(made.values, ts.data[:])
    window = one(file, "ap").between(1.5, 2.0, scaled=True)
    assert lazynwb.to_pynapple(window).values.tolist() == window.scaled[:].tolist() == [[5, 5.5]] + [
        [5.0 + k, 5.5 + k] for k in range(1, 5)
    ]  # fmt: skip
    with pytest.raises(lazynwb.UnsupportedTypeError, match="only supports numbers"):
        one(file, "notes").to_pynapple()


def test_samples_that_are_not_in_order_keep_their_times(tmp_path, pynapple):
    """pynapple itself sorts the times without their samples."""
    path = tmp_path / "a.nwb"
    stamps = np.array([3.0, 1.0, np.nan, 2.0])
    values = {
        "flat": np.array([30, 10, 99, 20]),
        "wide": np.array([[30, 3], [10, 1], [99, 9], [20, 2]]),
        "deep": np.arange(16.0).reshape(4, 2, 2),
    }
    with h5py.File(path, "w") as f:
        for name, data in values.items():
            series(f, f"acquisition/{name}", data, stamps)
    for name, data in values.items():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = lazynwb.to_pynapple(lazynwb.get_timeseries(path, name))
        np.testing.assert_array_equal(found.t, [1.0, 2.0, 3.0])
        np.testing.assert_array_equal(np.asarray(found.d), data[[1, 3, 0]])


def test_series_of_one_sample_or_none_cause_no_warning(tmp_path, pynapple):
    path = tmp_path / "a.nwb"
    with h5py.File(path, "w") as f:
        for name, stamps in {"one": [4.0], "same": [4.0, 4.0], "nan": [np.nan], "none": []}.items():
            series(f, f"acquisition/{name}", np.arange(float(len(stamps))), np.array(stamps))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lengths = {
            name: len(lazynwb.to_pynapple(lazynwb.get_timeseries(path, name)))
            for name in ("one", "same", "nan", "none")
        }
    assert lengths == {"one": 1, "same": 2, "nan": 0, "none": 0}


def test_spikes_that_are_not_in_order_or_have_no_time(pynapple):
    units = pl.DataFrame({"id": [0, 1], "spike_times": [[3.0, 1.0, float("nan"), 2.0], [5.0]]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = lazynwb.to_pynapple(units)
    np.testing.assert_array_equal(group[0].t, [1.0, 2.0, 3.0])
    assert group.time_support.values.tolist() == [[1.0, 5.0]]


def test_a_session_equals_the_one_that_pynapple_reads(tmp_path, pynapple):
    pynwb = pytest.importorskip("pynwb")
    nwb = pynwb.NWBFile("d", "i", datetime(2024, 1, 2, tzinfo=ZoneInfo("UTC")))
    for spikes in ([0.1, 0.2, 5.0], [1.0, 2.0]):
        nwb.add_unit(spike_times=spikes)
    nwb.add_acquisition(pynwb.TimeSeries(name="position", data=np.arange(9.0), unit="m", rate=2.0))
    with pynwb.NWBHDF5IO(tmp_path / "s.nwb", "w") as io:
        io.write(nwb)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = pynapple.load_file(str(tmp_path / "s.nwb"))
        units, position = theirs["units"], theirs["position"]
    ours = lazynwb.to_pynapple(lazynwb.scan_nwb(tmp_path / "s.nwb", "units"))
    assert {k: ours[k].times().tolist() for k in ours} == {k: units[k].times().tolist() for k in units}
    mine = one(tmp_path / "s.nwb", "position").to_pynapple()
    np.testing.assert_array_equal(mine.times(), position.times())
    np.testing.assert_array_equal(mine.values, position.values)
    theirs.io.close()


# -- xarray and Polars ------------------------------------------------------------------------------------


def test_a_series_becomes_a_data_array_with_times(file, xarray):
    ts = one(file, "ap").between(1.5, 2.5)
    array = lazynwb.to_xarray(ts)
    assert (array.dims, array.name) == (("time", "channel"), "ap")
    np.testing.assert_array_equal(array.values, ts.data[:])
    np.testing.assert_array_equal(array.time, ts.timestamps[:])
    assert array.electrodes.values.tolist() == [4, 7]
    assert (array.attrs["unit"], array.attrs["conversion"], array.attrs["rate"]) == ("V", 0.5, 10.0)
    nearest = array.sel(time=2.0, channel=1)
    assert nearest.item() == 21


def test_a_scaled_data_array_has_no_scale_attributes(file, xarray):
    array = one(file, "ap").between(0, 2, scaled=True).to_xarray()
    assert array.values[1].tolist() == [1.0, 1.5]
    assert not {"conversion", "offset", "channel_conversion"} & set(array.attrs)


def test_further_dimensions_are_numbered(file, xarray):
    assert one(file, "movie").to_xarray().dims == ("time", "dim_1", "dim_2")
    assert one(file, "one").to_xarray().dims == ("time",)
    assert one(file, "notes").to_xarray().values.tolist() == ["a", "b"]


@pytest.mark.parametrize("name", ["one", "ap", "movie", "notes"])
def test_a_series_as_a_frame_equals_its_scan(file, name):
    scanned = lazynwb.scan_nwb(file, f"acquisition/{name}").select("timestamps", "data").collect()
    assert_frame_equal(one(file, name).to_polars(), scanned)


def test_samples_without_known_times_are_not_paired(file, xarray):
    ts = one(file, "uneven")
    for convert in (ts.to_polars, ts.to_xarray):
        with pytest.raises(lazynwb.LazyNWBError, match="4 timestamps for 5 samples"):
            convert()


@pytest.mark.parametrize("package", ["pynapple", "xarray"])
def test_a_package_that_is_not_installed_is_named_with_its_extra(file, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    ts = one(file, "ap")
    with pytest.raises(lazynwb.MissingPackageError, match=rf"pip install 'lazynwb\[{package}\]'"):
        getattr(ts, f"to_{package}")()


# -- DuckDB -----------------------------------------------------------------------------------------------


def test_duckdb_reads_only_the_columns_of_the_query(cube, duckdb):
    scan = lazynwb.scan_nwb(cube, "units")
    with lazynwb.profile() as cost:
        rows = duckdb.sql("select unit_id, location from scan where location = 'CA1'").pl()
    expected = scan.filter(pl.col("location") == "CA1").select("unit_id", "location").collect()
    assert_frame_equal(rows, expected)
    assert cost.chunks_decoded == 0  # of spike times and waveforms, which are compressed


def test_duckdb_reads_arrays_of_remaining_rows_only(cube, duckdb):
    scan = lazynwb.scan_nwb(cube, "units")
    passing = pl.col("unit_id").is_in(["s0_7", "s4_3"]) & (pl.col("activity_drift") <= 0.5)
    with lazynwb.profile() as own:
        expected = scan.filter(passing).select("unit_id", "spike_times").collect()
    sql = "select unit_id, spike_times from scan where unit_id in ('s0_7', 's4_3') and activity_drift <= 0.5"
    with lazynwb.profile() as cost:
        rows = duckdb.sql(sql).pl()
    assert_frame_equal(rows, expected)
    assert cost.chunks_decoded == own.chunks_decoded <= 4


def test_duckdb_counts_rows_without_their_data(cube, duckdb):
    scan = lazynwb.scan_nwb(cube, "units")  # noqa: F841 - DuckDB finds it by its name
    with lazynwb.profile() as cost:
        assert duckdb.sql("select count(*) from scan").fetchall() == [(240,)]
    assert cost.chunks_decoded == 0
    assert cost.bytes_used <= 240 * 8


def test_duckdb_aggregates_and_joins_scans(cube, duckdb):
    units, trials = (lazynwb.scan_nwb(cube, name) for name in ("units", "trials"))
    sql = """
        select u.n, t.n from (select _nwb_path, count(*) n from units where location = 'LP' group by all) u
        join (select _nwb_path, sum(is_rewarded::int) n from trials group by all) t using (_nwb_path)
        order by _nwb_path
    """
    counted = units.filter(pl.col("location") == "LP").group_by("_nwb_path").len().collect()
    rewarded = trials.group_by("_nwb_path").agg(pl.col("is_rewarded").sum()).collect()
    expected = counted.join(rewarded, on="_nwb_path").sort("_nwb_path").select("len", "is_rewarded").rows()
    assert duckdb.sql(sql).fetchall() == expected


# -- pandas and pyarrow -----------------------------------------------------------------------------------


@pytest.fixture
def nested(tmp_path):
    """A table with text, an enum, lists, arrays, and lists of arrays."""
    with h5py.File(tmp_path / "nested.nwb", "w") as nwb:
        columns = {
            "text": ["a", "ü", ""],
            "spike_times": Ragged([[1.0, 2.0], [], [3.0]]),
            "intervals": Ragged([[(0.0, 1.0)], [], [(1.0, 2.0), (3.0, 4.0)]], inner=(2,)),
            "waveform": np.arange(18.0).reshape(3, 2, 3),
        }
        table(nwb, "units", columns, kind="Units")
        kinds = h5py.enum_dtype({"left": 0, "right": 1}, "u1")
        nwb["units"].create_dataset("side", data=np.array([1, 0, 1], "u1"), dtype=kinds)
        nwb["units"].attrs["colnames"] = [*columns, "side"]
    return lazynwb.scan_nwb(tmp_path / "nested.nwb", "units").collect()


def test_frames_round_trip_through_pyarrow(nested):
    pyarrow = pytest.importorskip("pyarrow")
    assert isinstance(nested.schema["side"], pl.Enum)
    arrow = pyarrow.table(nested)  # through __arrow_c_stream__
    assert arrow.num_rows == 3
    assert arrow["waveform"].to_pylist() == nested["waveform"].to_list()
    back = pl.DataFrame(arrow)
    assert back.drop("side").equals(nested.drop("side"))
    assert back["side"].cast(pl.String).to_list() == nested["side"].cast(pl.String).to_list()
    assert pl.from_arrow(nested.to_arrow()).drop("side").equals(nested.drop("side"))


def test_pandas_accepts_a_frame_as_polars_converts_it(nested):
    pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = nested.to_pandas()
    assert frame["text"].tolist() == ["a", "ü", ""]
    assert frame["side"].tolist() == ["right", "left", "right"]
    assert [row.tolist() for row in frame["spike_times"]] == [[1, 2], [], [3]]
    back = pl.from_pandas(frame.drop(columns=["waveform", "intervals"]))
    assert back["spike_times"].to_list() == nested["spike_times"].to_list()


def test_duckdb_keeps_nested_columns(nested, duckdb):
    rows = duckdb.sql("select * from nested").pl()
    for name in nested.columns:
        assert rows[name].to_list() == nested[name].to_list(), name
