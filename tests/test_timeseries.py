"""TimeSeries objects compared with pynwb, by slices and by windows in time, and the costs of reading them."""

import json
import zlib
from datetime import datetime
from zoneinfo import ZoneInfo

import h5py
import hypothesis.strategies as st
import numpy as np
import polars as pl
import pynwb
import pytest
from hypothesis import HealthCheck, given, settings

import lazynwb
from builders import VLEN_TEXT, nwb_root, series
from range_server import RangeServer
from test_times import stored, write, write_zarr
from zarr_twins.make import session_names

RNG = np.random.default_rng(5)
BLOCK = 16 * 1024  # of metadata, of a remote file


def open_series(source, path):
    return lazynwb.get_timeseries(source, path, exact_path=True)


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """A session that pynwb wrote."""
    nwb = pynwb.NWBFile("d", "id", datetime(2024, 1, 2, tzinfo=ZoneInfo("UTC")))
    device = nwb.create_device("probe")
    group = nwb.create_electrode_group("g", "d", "CA1", device)
    for _ in range(8):
        nwb.add_electrode(location="CA1", group=group)
    raw = pynwb.ecephys.ElectricalSeries(
        name="raw",
        data=pynwb.H5DataIO(
            RNG.integers(-999, 999, (3000, 4)).astype("i2"), compression="gzip", chunks=(250, 2), shuffle=True
        ),
        electrodes=nwb.create_electrode_table_region([7, 5, 3, 1], "every other one"),
        rate=30_000.0,
        starting_time=2.5,
        conversion=2e-6,
        offset=0.25,
        resolution=1e-7,
        channel_conversion=[1.0, 2.0, 3.0, 4.0],
        description="the raw signal",
        comments="of probe A",
    )
    stamps = pynwb.H5DataIO(np.cumsum(RNG.uniform(0.5, 1.5, 2000)), chunks=(64,), compression="gzip")
    speed = pynwb.TimeSeries(
        name="speed",
        data=RNG.normal(size=2000),
        unit="m/s",
        timestamps=stamps,
        control=(np.arange(2000) % 3).astype("u1"),
        control_description=["still", "walking", "running"],
    )
    behavior = nwb.create_processing_module("behavior", "d")
    behavior.add(speed)
    more = RNG.normal(size=(2000, 3))
    behavior.add(pynwb.TimeSeries(name="same_times", data=more, unit="a.u.", timestamps=speed))
    external = {"unit": "n.a.", "format": "external"}
    video = {"external_file": ["a.mp4", "b.mp4"], "starting_frame": [0, 4], "timestamps": np.arange(9) / 4}
    nwb.add_acquisition(raw)
    nwb.add_acquisition(pynwb.image.ImageSeries(name="video", **video, **external))
    nwb.add_acquisition(
        pynwb.image.ImageSeries(
            name="rated_video",
            external_file=["c.mp4"],
            num_samples=50,
            rate=25.0,
            starting_frame=[0],
            **external,
        )
    )
    path = tmp_path_factory.mktemp("series") / "session.nwb"
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(nwb)
    return path


@pytest.fixture(scope="module")
def read_by_pynwb(session):
    with pynwb.NWBHDF5IO(session, "r") as io:
        yield io.read()


PATHS = {
    "acquisition/raw": lambda nwb: nwb.acquisition["raw"],
    "processing/behavior/speed": lambda nwb: nwb.processing["behavior"]["speed"],
    "processing/behavior/same_times": lambda nwb: nwb.processing["behavior"]["same_times"],
}


# -- compared with pynwb ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_data_and_timestamps_equal_pynwb(session, read_by_pynwb, path):
    ts, oracle = open_series(session, path), PATHS[path](read_by_pynwb)
    assert len(ts) == len(oracle.data)
    assert ts.shape == oracle.data.shape
    np.testing.assert_array_equal(ts.data[:], oracle.data[:])
    np.testing.assert_array_equal(ts.data[10:50:7], oracle.data[10:50:7])
    stamps = oracle.get_timestamps()[:]
    np.testing.assert_array_equal(ts.timestamps[:], stamps)
    np.testing.assert_array_equal(ts.timestamps[-5:], stamps[-5:])


@pytest.mark.parametrize("path", PATHS)
def test_the_properties_of_a_series_equal_those_of_pynwb(session, read_by_pynwb, path):
    ts, oracle = open_series(session, path), PATHS[path](read_by_pynwb)
    for name in (
        "name",
        "neurodata_type",
        "rate",
        "starting_time",
        "unit",
        "conversion",
        "offset",
        "resolution",
    ):
        assert getattr(ts, name) == getattr(oracle, name), name
    for name in ("description", "comments"):
        assert getattr(ts, name) == getattr(oracle, name), name
    described = oracle.control_description
    assert ts.control_description == (None if described is None else list(described))
    assert ts.timestamps_unit == "seconds"
    assert ts.path == f"/{path}"
    control = None if ts.control is None else ts.control[:].tolist()
    assert control == (None if oracle.control is None else oracle.control[:].tolist())


def test_electrodes_are_rows_of_their_table(session, read_by_pynwb):
    ts = open_series(session, "acquisition/raw")
    assert (
        ts.electrodes.tolist() == read_by_pynwb.acquisition["raw"].electrodes.data[:].tolist() == [7, 5, 3, 1]
    )
    assert open_series(session, "processing/behavior/speed").electrodes is None


@pytest.mark.parametrize("path", PATHS)
def test_scaled_data_equal_those_of_pynwb(session, read_by_pynwb, path):
    ts, oracle = open_series(session, path), PATHS[path](read_by_pynwb)
    np.testing.assert_allclose(ts.scaled[:], oracle.get_data_in_units(), rtol=1e-12)
    assert ts.scaled.dtype == np.float64


def test_scaled_slices_have_the_factors_of_their_channels(session, read_by_pynwb):
    ts = open_series(session, "acquisition/raw")
    whole = np.asarray(read_by_pynwb.acquisition["raw"].get_data_in_units())
    for selection in [
        (slice(5, 9), slice(2, 4)),
        (7, 3),
        (slice(0, 3), [3, 0]),
        (slice(9, 0, -2), -1),
        ([5, 5, 2],),
    ]:
        np.testing.assert_allclose(ts.scaled[selection], whole[selection], rtol=1e-12)


def test_links_to_other_series_are_followed(session, tmp_path):
    ts = open_series(session, "processing/behavior/same_times")
    np.testing.assert_array_equal(
        ts.timestamps[:], open_series(session, "processing/behavior/speed").timestamps[:]
    )
    with h5py.File(tmp_path / "linking.nwb", "w") as file:
        group = series(file, "linked", start=1.0)
        group["data"] = h5py.ExternalLink(str(tmp_path / "data.h5"), "/far/data")
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file.create_dataset("far/data", data=np.arange(50.0), chunks=(5,), compression="gzip")
        file["far/data"].attrs["conversion"] = 3.0
    linked = open_series(tmp_path / "linking.nwb", "linked")
    assert linked.data[20:23].tolist() == [20, 21, 22]
    assert linked.conversion == 3.0
    assert linked.scaled[-1] == 147


def test_an_external_image_series_has_the_times_of_its_frames(session):
    ts = open_series(session, "acquisition/video")
    assert len(ts.data) == 0
    assert len(ts) == 9
    assert ts.timestamps[:].tolist() == (np.arange(9) / 4).tolist()
    assert ts.external_file == ["a.mp4", "b.mp4"]
    assert ts.starting_frame.tolist() == [0, 4]
    window = ts.between(1, 2)
    assert (len(window), len(window.data), window.timestamps[0]) == (4, 0, 1)
    rated = open_series(session, "acquisition/rated_video")
    assert (rated.rate, rated.external_file, len(rated.data)) == (25.0, ["c.mp4"], 0)
    assert rated.between(1, 1.2).timestamps[:].tolist() == [25 / 25, 26 / 25, 27 / 25, 28 / 25, 29 / 25]


def test_frames_without_numbers_have_no_times(tmp_path):
    with h5py.File(tmp_path / "old.nwb", "w") as file:  # before NWB 2.10
        series(file, "video", np.zeros((0, 0, 0)), start=0.0, rate=25.0, kind="ImageSeries")
        file["video/external_file"] = ["a.mp4"]
    ts = open_series(tmp_path / "old.nwb", "video")
    assert (len(ts), ts.timestamps.shape, ts.data.shape, ts.external_file) == (0, (0,), (0, 0, 0), ["a.mp4"])


def test_missing_attributes_have_the_defaults_of_the_schema(tmp_path):
    with h5py.File(tmp_path / "bare.nwb", "w") as file:
        series(file, "bare", np.arange(3.0), np.arange(3.0)).attrs.clear()
        del file["bare/data"].attrs["unit"]
    ts = open_series(tmp_path / "bare.nwb", "bare")
    assert (ts.conversion, ts.offset, ts.resolution) == (1.0, 0.0, -1.0)
    assert (ts.description, ts.comments, ts.timestamps_unit) == ("no description", "no comments", "seconds")
    assert ts.unit is ts.rate is ts.starting_time is ts.channel_conversion is ts.external_file is None
    assert ts.scaled[:].tolist() == [0, 1, 2]


SESSIONS = session_names()


@pytest.mark.integration
@pytest.mark.parametrize("version", ["v2", "v3"])
@pytest.mark.parametrize(
    "name", [s for s in SESSIONS if "series" in s or s in {"lfp", "video", "annotations"}]
)
@pytest.mark.sample(2)
def test_the_series_of_a_zarr_twin_are_those_of_the_hdf5_file(twins, name, version):
    every = lazynwb.get_timeseries(twins / f"{name}.nwb", match_all=True)
    twin = lazynwb.get_timeseries(twins / f"{name}.{version}.nwb.zarr", match_all=True)
    assert every
    assert sorted(twin) == sorted(every)
    for path, ts in every.items():
        other = twin[path]
        assert (len(other), other.rate, other.unit) == (len(ts), ts.rate, ts.unit)
        assert (other.conversion, other.offset, other.description) == (
            ts.conversion,
            ts.offset,
            ts.description,
        )
        np.testing.assert_array_equal(other.electrodes, ts.electrodes)
        np.testing.assert_array_equal(other.channel_conversion, ts.channel_conversion)
        np.testing.assert_array_equal(other.timestamps[:], ts.timestamps[:])
        np.testing.assert_array_equal(other.data[::-2], ts.data[::-2])


# -- look-up of series ------------------------------------------------------------------------------------


def test_a_series_is_found_by_path_or_unambiguous_name(session):
    for term in ("/processing/behavior/speed", "processing/behavior/speed/", "speed", "behavior/speed"):
        assert lazynwb.get_timeseries(session, term).path == "/processing/behavior/speed"
    assert lazynwb.get_timeseries(session, "/acquisition/raw/data").path == "/acquisition/raw"


def test_every_series_is_found_by_path(session):
    every = lazynwb.get_timeseries(session, match_all=True)
    assert {f"/{path}" for path in PATHS} < set(every)
    assert all(ts.path == path for path, ts in every.items())
    assert set(lazynwb.get_timeseries(session, "behavior", match_all=True)) == {
        "/processing/behavior/speed",
        "/processing/behavior/same_times",
    }
    assert lazynwb.get_timeseries(session, "nothing", match_all=True) == {}


def test_an_ambiguous_name_is_an_error_that_lists_the_candidates(tmp_path):
    with h5py.File(tmp_path / "two.nwb", "w") as file:
        series(file, "acquisition/lick", np.arange(3.0), start=0.0)
        series(file, "processing/behavior/lick", np.arange(4.0), start=0.0)
    with pytest.raises(lazynwb.TableNotFoundError, match=r"/acquisition/lick, /processing/behavior/lick"):
        lazynwb.get_timeseries(tmp_path / "two.nwb", "lick")
    assert len(lazynwb.get_timeseries(tmp_path / "two.nwb", "behavior/lick")) == 4


@pytest.mark.parametrize("term", ["spee", "acquisition/nothing", "units", "general"])
def test_an_unknown_name_is_an_error_that_lists_the_series(session, term):
    for exact in (False, True):
        with pytest.raises(
            lazynwb.TableNotFoundError, match=r"no series .* in .*session\.nwb.*acquisition/raw"
        ):
            lazynwb.get_timeseries(session, term, exact)


def test_invalid_calls_are_errors(session, tmp_path):
    with pytest.raises(ValueError, match="search_term"):
        lazynwb.get_timeseries(session)
    with pytest.raises(lazynwb.LazyNWBError, match="a single file"):
        lazynwb.get_timeseries([session, session], "speed")
    with pytest.raises(lazynwb.SourceNotFoundError):
        lazynwb.get_timeseries(tmp_path / "none.nwb", "speed")


# -- windows of time --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("scaled", [False, True])
def test_a_window_has_the_samples_since_its_start_and_before_its_end(session, read_by_pynwb, path, scaled):
    ts, oracle = open_series(session, path), PATHS[path](read_by_pynwb)
    stamps = np.asarray(oracle.get_timestamps())
    values = oracle.get_data_in_units() if scaled else oracle.data[:]
    for start, stop in [
        (stamps[100], stamps[200]),
        (np.nextafter(stamps[100], np.inf), np.nextafter(stamps[200], np.inf)),
        (-np.inf, stamps[3]),
        (stamps[-2], np.inf),
        (stamps[7], stamps[7]),
        (1e9, 2e9),
        (-5, -1),
    ]:
        inside = (stamps >= start) & (stamps < stop)
        window = ts.between(start, stop, scaled=scaled)
        np.testing.assert_array_equal(window.timestamps[:], stamps[inside])
        np.testing.assert_allclose(window.data[:], values[inside], rtol=1e-12)
        assert len(window) == inside.sum()


def test_a_window_of_a_window_is_one_of_the_series(session):
    ts = open_series(session, "processing/behavior/speed")
    stamps = ts.timestamps[:]
    outer = ts.between(stamps[100], stamps[500], scaled=True)
    inner = outer.between(stamps[50], stamps[200])
    assert inner.is_scaled
    np.testing.assert_array_equal(inner.timestamps[:], stamps[100:200])
    np.testing.assert_array_equal(inner.data[:], ts.scaled[100:200])
    assert inner.control[:].tolist() == (np.arange(100, 200) % 3).tolist()
    assert "samples 100 to 200" in repr(inner)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.floats(-1e6, 1e9),
    rate=st.floats(1e-3, 1e6),
    rows=st.integers(0, 500),
    window=st.tuples(st.integers(-3, 503), st.integers(0, 503), st.sampled_from([-1, 0, 1])),
)
def test_windows_of_a_constant_rate_are_exact(tmp_path, start, rate, rows, window):
    with h5py.File(tmp_path / "rate.nwb", "w") as file:
        series(file, "series", np.arange(rows), start=start, rate=rate)
    ts = open_series(tmp_path / "rate.nwb", "series")
    stamps = start + np.arange(rows) / rate
    first = start + window[0] / rate
    stop = start + (window[0] + window[1]) / rate
    first = np.nextafter(first, np.inf * window[2]) if window[2] else first
    stop = max(first, stop)
    found = ts.between(first, stop)
    np.testing.assert_array_equal(found.timestamps[:], stamps[(stamps >= first) & (stamps < stop)])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_windows_of_stored_timestamps_are_exact(tmp_path, data):
    gaps = data.draw(st.lists(st.sampled_from([0.0, 0.0, 0.5, 1.0, 1.0, 1.0, 1e6]), max_size=120))
    gaps *= data.draw(st.sampled_from([1, 40]))
    stamps = np.cumsum([data.draw(st.sampled_from([0.0, -3.0, 1e9])), *gaps])
    with h5py.File(tmp_path / "stored.nwb", "w") as file:
        group = series(file, "series", np.arange(len(stamps)))
        chunk = data.draw(st.integers(1, 9) | st.just(1024))
        group.create_dataset("timestamps", data=stamps, maxshape=(None,), chunks=(chunk,))
    pool = st.sampled_from(stamps.tolist()) | st.floats(-10, 200)
    start, stop = sorted((data.draw(pool), data.draw(pool)))
    inside = (stamps >= start) & (stamps < stop)
    for search in (False, True):
        window = open_series(tmp_path / "stored.nwb", "series").between(start, stop, assume_ascending=search)
        assert window.data[:].tolist() == np.flatnonzero(inside).tolist()


@pytest.mark.integration
@pytest.mark.parametrize("form", ["hdf5", "zarr"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_windows_include_all_samples_in_any_order_or_are_an_error(tmp_path_factory, form, data):
    stamps, chunk = data.draw(stored())
    folder = tmp_path_factory.mktemp("t")
    if form == "hdf5":
        path = write(folder / "a.nwb", stamps, chunk=chunk)
    else:
        path = write_zarr(folder / "a.nwb.zarr", stamps, chunk)
    ts = open_series(path, "acquisition/s")
    for _ in range(3):
        pool = st.sampled_from(stamps[np.isfinite(stamps)].tolist() or [0.0]) | st.sampled_from(
            [-np.inf, np.inf]
        )
        start, stop = sorted((data.draw(pool), data.draw(pool)))
        rows = np.flatnonzero((stamps >= start) & (stamps < stop))
        if len(rows) and rows[-1] - rows[0] + 1 > len(rows):
            with pytest.raises(lazynwb.NotAscendingError, match=r"/acquisition/s/timestamps: .*scan_nwb"):
                ts.between(start, stop)
        else:
            window = ts.between(start, stop)
            assert window.timestamps[:].tolist() == stamps[rows].tolist()
            assert window.data[:].tolist() == np.stack([rows * 2, rows * 2 + 1], axis=1).tolist()


def test_samples_that_are_not_consecutive_are_an_error_and_others_are_found_in_spite_of_them(tmp_path):
    stamps = np.arange(5000.0)
    stamps[2000:2010] = 500 + np.arange(10.0)
    with h5py.File(tmp_path / "odd.nwb", "w") as file:
        group = series(file, "series", np.arange(5000))
        group.create_dataset("timestamps", data=stamps, chunks=(10,))
    ts = open_series(tmp_path / "odd.nwb", "series")
    with pytest.raises(lazynwb.NotAscendingError, match=r"odd\.nwb: /series/timestamps: .*scan_nwb"):
        ts.between(495, 515)
    assert ts.between(600, 700).data[:].tolist() == list(range(600, 700))
    with h5py.File(tmp_path / "reset.nwb", "w") as file:
        group = series(file, "series", np.arange(5000))
        group.create_dataset("timestamps", data=np.arange(5000) % 4995, chunks=(10,))
    with pytest.raises(lazynwb.NotAscendingError, match=r"not ascending.*assume_ascending"):
        open_series(tmp_path / "reset.nwb", "series").between(0, 1, assume_ascending=True)


def test_very_many_timestamps_are_read_by_a_scan_or_searched_but_not_by_between(tmp_path):
    rows = 5_000_000
    with h5py.File(tmp_path / "long.nwb", "w") as file:
        group = series(file, "series", np.zeros((rows, 0), "u1"))
        stamps = group.create_dataset("timestamps", (rows,), "f8", chunks=(500_000,), compression="gzip")
        for first in range(0, rows, 500_000):
            stamps[first : first + 500_000] = np.arange(first, first + 500_000) // 1000
    with RangeServer(tmp_path) as server:
        url = server.url_of("long.nwb")
        ts = open_series(url, "series")
        with pytest.raises(
            lazynwb.NotAscendingError, match=r"long\.nwb: .*38 MiB.*assume_ascending=True.*scan_nwb"
        ):
            ts.between(100, 101)
        with lazynwb.profile() as cost:
            assert len(ts.between(100, 101, assume_ascending=True)) == 1000
        assert cost.chunks_decoded <= 4
        lazynwb.scan_nwb(url, "/series").filter(pl.col("timestamps") < 0).collect()
        with lazynwb.profile() as cost:
            assert len(open_series(url, "series").between(100, 101)) == 1000
        assert cost.chunks_decoded == 1


def test_timestamps_of_single_precision_are_compared_exactly(tmp_path):
    stamps = np.array([0.1, 0.2, 0.3], "f4")
    with h5py.File(tmp_path / "single.nwb", "w") as file:
        series(file, "series", np.arange(3), stamps)
    ts = open_series(tmp_path / "single.nwb", "series")
    assert ts.timestamps.dtype == np.float32
    assert float(stamps[1]) > 0.2
    assert ts.between(float(stamps[0]), 0.2).data[:].tolist() == [0]
    assert ts.between(np.nextafter(float(stamps[0]), 1), 0.25).data[:].tolist() == [1]


def test_timestamps_that_are_text_are_refused(tmp_path):
    with h5py.File(tmp_path / "text.nwb", "w") as file:
        series(file, "series", np.arange(2))
        file["series"].create_dataset("timestamps", data=["1", "2"], dtype=VLEN_TEXT)
    with pytest.raises(lazynwb.UnsupportedTypeError, match=r"text\.nwb: /series/timestamps cannot be times"):
        open_series(tmp_path / "text.nwb", "series").between(0, 1)


def test_a_window_that_ends_before_it_starts_is_refused(session):
    ts = open_series(session, "acquisition/raw")
    for window in [(2, 1), (float("nan"), 1), (0, float("nan"))]:
        with pytest.raises(ValueError, match="between"):
            ts.between(*window)
    with pytest.raises(TypeError, match="numbers of seconds, not 'a' and 1"):
        ts.between("a", 1)


# -- costs ------------------------------------------------------------------------------------------------

CHANNELS, PER_CHUNK, RATE = 384, 8, 2500


def write_long(path, chunks, libver="earliest", stamps_per_chunk=1000):
    """Write a recording of many chunks, some of which are equal, quickly."""
    rows = chunks * PER_CHUNK
    kinds = []
    for k in range(7):
        values = np.full((PER_CHUNK, CHANNELS), k, "<i2")
        values[:, 0] = np.arange(PER_CHUNK)
        kinds.append((values, zlib.compress(values.view("u1").reshape(-1, 2).T.tobytes(), 1)))
    stamps = 5 + np.arange(rows) / RATE
    stamps *= 1 + 1e-7 * np.sin(np.arange(rows) / 1e5)
    with h5py.File(path, "w", libver=libver) as file:
        nwb_root(file)
        group = series(file, "acquisition/ap", kind="ElectricalSeries")
        data = group.create_dataset(
            "data", (rows, CHANNELS), "<i2", chunks=(PER_CHUNK, CHANNELS), compression="gzip", shuffle=True
        )
        data.attrs.update({"unit": "volts", "conversion": 1e-6})
        for i in range(chunks):
            data.id.write_direct_chunk((i * PER_CHUNK, 0), kinds[i % 7][1])
        group.create_dataset("timestamps", data=stamps, chunks=(stamps_per_chunk,), compression="gzip")
        group["channel_conversion"] = np.linspace(1, 2, CHANNELS)
    return stamps


LONG = [
    pytest.param(20_000, "earliest"),
    pytest.param(20_000, "latest"),
    pytest.param(200_000, "earliest", marks=pytest.mark.slow),
    pytest.param(200_000, "latest", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("chunks", "libver"), LONG)
@pytest.mark.integration
def test_one_second_of_a_long_recording_costs_its_chunks_and_forty_blocks(tmp_path, chunks, libver):
    stamps = write_long(tmp_path / "long.nwb", chunks, libver)
    first = stamps[len(stamps) // 2]
    inside = (stamps >= first) & (stamps < first + 1)
    bands = np.unique(np.flatnonzero(inside) // PER_CHUNK)
    with h5py.File(tmp_path / "long.nwb") as file:
        values = file["acquisition/ap/data"][inside]
    with RangeServer(tmp_path) as server:
        with lazynwb.profile() as cost:
            ts = open_series(server.url_of("long.nwb"), "acquisition/ap")
            window = ts.between(first, first + 1, assume_ascending=True)
            searched = cost.chunks_decoded
            data = window.data[:]
        assert server.bytes == cost.bytes_read
        assert server.count <= 40
        np.testing.assert_array_equal(window.timestamps[:], stamps[inside])
    np.testing.assert_array_equal(data, values)
    assert cost.chunks_decoded == searched + len(bands)
    assert searched <= 16
    assert cost.bytes_read - cost.bytes_used <= 40 * BLOCK


def test_times_of_a_constant_rate_read_nothing(session):
    ts = open_series(session, "acquisition/raw")
    with lazynwb.profile() as cost:
        assert ts.timestamps[100] == 2.5 + 100 / 30_000
        assert len(ts.between(2.51, 2.52)) == 300
        assert ts.rate == 30_000
    assert cost.bytes_read == cost.files_opened == 0


def test_opening_a_series_by_its_path_does_not_list_the_file(session):
    with RangeServer(session.parent) as server:
        with lazynwb.profile() as cost:
            open_series(server.url_of(session.name), "acquisition/raw")
        assert cost.files_parsed == 1
        with lazynwb.profile() as cost:
            open_series(server.url_of(session.name), "acquisition/raw")
        assert cost.files_parsed == cost.requests == 0


def test_attributes_are_parsed_once_for_all_windows(session):
    ts = open_series(session, "acquisition/raw")
    assert ts.unit == "volts"
    assert ts.channel_conversion[-1] == 4
    with lazynwb.profile() as cost:
        window = ts.between(2.5, 2.6)
        assert (window.unit, window.conversion, window.description) == ("volts", 2e-6, "the raw signal")
        assert window.scaled.shape == (3000, 4)
    assert cost.files_parsed == 0


def test_returned_attributes_can_be_modified_safely(session):
    ts = open_series(session, "acquisition/raw")
    ts.attributes["data"]["conversion"] = 7
    assert ts.conversion == 2e-6


# -- unusual series ---------------------------------------------------------------------------------------


def test_a_series_without_data_is_an_error(tmp_path):
    with h5py.File(tmp_path / "odd.nwb", "w") as file:
        series(file, "times_only", None, np.arange(4.0))
        series(file, "data_only", np.arange(4.0))
        group = series(file, "broken", None, np.arange(4.0))
        group["data"] = h5py.SoftLink("/nowhere")
    path = tmp_path / "odd.nwb"
    times_only = open_series(path, "times_only")
    assert times_only.timestamps[:].tolist() == [0, 1, 2, 3]
    with pytest.raises(lazynwb.ColumnNotFoundError, match=r"odd\.nwb: the series /times_only has no data"):
        _ = times_only.data
    assert "times_only" in repr(times_only)
    data_only = open_series(path, "data_only")
    assert data_only.data[-1] == 3
    with pytest.raises(lazynwb.ColumnNotFoundError, match="has no timestamps"):
        data_only.between(0, 1)
    with pytest.raises(lazynwb.ColumnNotFoundError, match=r"/broken has no data .*nowhere"):
        _ = open_series(path, "broken").data


def test_series_of_text_cannot_be_scaled(tmp_path):
    with h5py.File(tmp_path / "text.nwb", "w") as file:
        series(file, "notes", ["a", "ü"], np.arange(2.0), dtype=VLEN_TEXT)
    notes = open_series(tmp_path / "text.nwb", "notes")
    assert notes.between(1, 2).data[:].tolist() == ["ü"]
    with pytest.raises(lazynwb.UnsupportedTypeError, match="not numbers"):
        _ = notes.scaled


@pytest.mark.parametrize(("name", "value"), [("conversion", "1e-6 V"), ("offset", [1.0, 2.0])])
def test_an_attribute_of_the_wrong_kind_is_an_error(tmp_path, name, value):
    with h5py.File(tmp_path / "odd.nwb", "w") as file:
        series(file, "odd", np.arange(4.0), start=0.0)["data"].attrs[name] = value
    with pytest.raises(lazynwb.CorruptDataError, match=rf"odd\.nwb: /odd/data: .*{name}"):
        _ = open_series(tmp_path / "odd.nwb", "odd").scaled


def test_a_conversion_of_nan_is_nan_as_in_the_file(tmp_path):
    with h5py.File(tmp_path / "odd.nwb", "w") as file:
        series(file, "odd", np.arange(4.0), start=0.0)["data"].attrs["conversion"] = np.nan
    ts = open_series(tmp_path / "odd.nwb", "odd")
    assert np.isnan(ts.conversion)
    assert np.isnan(ts.scaled[:]).all()


@pytest.mark.parametrize(("samples", "times"), [(3, 10), (10, 3)])
def test_timestamps_that_differ_in_number_from_samples_are_complete(tmp_path, samples, times):
    with h5py.File(tmp_path / "odd.nwb", "w") as file:
        series(file, "odd", np.arange(samples), np.arange(times) / 2)
    ts = open_series(tmp_path / "odd.nwb", "odd")
    assert (len(ts), len(ts.data), len(ts.timestamps)) == (samples, samples, times)
    window = ts.between(0.5, 99)
    assert window.timestamps[:].tolist() == [k / 2 for k in range(1, times)]
    assert window.data[:].tolist() == list(range(1, min(samples, times)))
    assert window.between(1, 1.5).timestamps[:].tolist() == [1]


def test_a_single_sample_that_is_stored_as_a_scalar_is_an_array_of_one_row(tmp_path):
    with h5py.File(tmp_path / "one.nwb", "w") as file:
        group = series(file, "one", np.float64(3.5), np.float64(2.0))
        group["data"].attrs["conversion"] = 2.0
        group["control"] = np.uint8(1)
    ts = open_series(tmp_path / "one.nwb", "one")
    assert (len(ts), ts.data.shape, ts.timestamps.shape) == (1, (1,), (1,))
    assert ts.data[:].tolist() == list(ts.data) == [3.5]
    assert (ts.data[-1], ts.scaled[0], ts.timestamps[0]) == (3.5, 7.0, 2.0)
    for window, count in [((0, 3), 1), ((2, 2.5), 1), ((0, 2), 0), ((2.5, 9), 0)]:
        found = ts.between(*window)
        assert found.data[:].tolist() == [3.5] * count
        assert found.timestamps[:].tolist() == [2.0] * count
        assert found.control[:].tolist() == [1] * count
        assert found.to_polars()["data"].to_list() == [3.5] * count
    frame = lazynwb.scan_nwb(tmp_path / "one.nwb", "/one").filter(pl.col("timestamps") >= 2).collect()
    assert frame["data"].to_list() == [3.5]


def test_channel_conversions_of_another_number_are_an_error(tmp_path):
    with h5py.File(tmp_path / "odd.nwb", "w") as file:
        series(file, "odd", np.ones((4, 3)), start=0.0)["channel_conversion"] = np.ones(2)
    ts = open_series(tmp_path / "odd.nwb", "odd")
    assert ts.data.shape == (4, 3)
    with pytest.raises(lazynwb.CorruptDataError, match="channel_conversion has the shape"):
        _ = ts.scaled


def test_a_zarr_series_by_hand_has_its_attributes(tmp_path):
    store = tmp_path / "hand.nwb.zarr"
    documents = {
        ".zgroup": {"zarr_format": 2},
        "ts/.zgroup": {"zarr_format": 2},
        "ts/.zattrs": {"neurodata_type": "TimeSeries", "description": "by hand"},
        "ts/data/.zattrs": {"unit": "V", "conversion": 0.5},
        "ts/starting_time/.zattrs": {"rate": 4.0, "unit": "seconds"},
    }
    array = {"zarr_format": 2, "compressor": None, "fill_value": 0, "order": "C", "filters": None}
    documents["ts/data/.zarray"] = {**array, "shape": [6, 2], "chunks": [4, 1], "dtype": "<i4"}
    documents["ts/starting_time/.zarray"] = {**array, "shape": [], "chunks": [], "dtype": "<f8"}
    for name, document in documents.items():
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_text(json.dumps(document))
    (store / "ts/starting_time/0").write_bytes(np.float64(10).tobytes())
    (store / "ts/data/1.1").write_bytes(np.array([8, 9, 0, 0], "<i4").tobytes())
    ts = open_series(store, "ts")
    assert (ts.rate, ts.starting_time, ts.unit, ts.description) == (4.0, 10.0, "V", "by hand")
    assert ts.between(11, 99, scaled=True).data[:].tolist() == [[0, 4], [0, 4.5]]


def test_no_file_stays_open(session, tmp_path):
    path = tmp_path / "copy.nwb"
    path.write_bytes(session.read_bytes())
    ts = open_series(path, "acquisition/raw")
    window = ts.between(2.5, 2.6)
    assert (ts.unit, window.data[0].shape, ts.scaled[0].shape) == ("volts", (4,), (4,))
    with h5py.File(path, "a") as file:  # HDF5 refuses to write what is open
        file["acquisition/raw"].attrs["description"] = "changed"
