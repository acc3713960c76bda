"""Filters on timestamps of series: no row is lost in any order of timestamps, and the costs of reading."""

import itertools
import math
import operator
import warnings
from datetime import UTC, datetime
from time import sleep

import h5py
import numpy as np
import polars as pl
import pynwb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from pynwb.image import ImageSeries

import lazynwb
from builders import Column, series, table
from lazynwb.engine.comparisons import bounds_of
from lazynwb.lookup.catalog_cache import clear_memory
from range_server import RangeServer
from zarr_stores import Writer

time = pl.col("timestamps")
BLOCK = 16


# -- comparisons with literals -------------------------------------------------------------------------------

SIDES = {
    "lower": [time > 1.0, time >= 1.0, pl.lit(1.0) < time, pl.lit(1) <= time, time.cast(pl.Float64) > 1.0],
    "upper": [time < 1.0, time <= 1.0, pl.lit(1.0) > time, pl.lit(1) >= time, time.cast(pl.Float32) <= 1.0],
    "lower upper": [
        time == 1.0,
        pl.lit(1.0) == time,
        *(time.is_between(0.5, 1.0, closed=closed) for closed in ("both", "left", "right", "none")),
    ],
    "": [
        time != 1.0,
        ~(time > 1.0),
        time + 1.0 > 1.0,
        time.cast(pl.Int64) > 1,
        (time > 1.0) | (time < 0.0),
        time > pl.col("x"),
        pl.col("x") > 1.0,
        time > pl.Series([1.0, 2.0]),
        time.is_between(pl.col("x"), 2.0),
        time.is_in([1.0]),
        time.is_null(),
        time.eq_missing(1.0),
        pl.lit(1.0) > pl.lit(2.0),
        time.shift(1) > 1.0,
        time.max() > 1.0,
        pl.all_horizontal(time > 1.0, time < 2.0),
    ],
}


@pytest.mark.parametrize(
    ("sides", "expression"), [(sides, e) for sides, listed in SIDES.items() for e in listed], ids=str
)
def test_only_comparisons_with_literals_are_bounds(sides, expression):
    assert [bound.side for bound in bounds_of(expression, "timestamps")] == sides.split()


def test_bounds_are_no_narrower_than_the_comparison():
    frame = pl.DataFrame({"timestamps": [-math.inf, 0.0, 0.5, 0.75, 1.0, 1.5, math.inf]})
    for expression in itertools.chain(*SIDES.values()):
        bounds = bounds_of(expression, "timestamps")
        if bounds:
            kept = frame.filter(expression)
            assert_frame_equal(kept.filter(bound.expression for bound in bounds), kept)


# -- costs ------------------------------------------------------------------------------------------------


def write(path, stamps=None, *, rows=None, chunk=BLOCK, regular=(None, 1.0), **options):
    start, rate = regular
    rows = len(stamps) if rows is None else rows
    data = np.arange(rows * 2, dtype="i4").reshape(rows, 2)
    with h5py.File(path, "w") as file:
        group = series(
            file, "acquisition/s", data, start=start, rate=rate, chunks=(BLOCK, 2), maxshape=(None, 2)
        )
        if stamps is not None:
            if chunk:
                options |= {"chunks": (chunk,), "maxshape": (None,)}
            group.create_dataset("timestamps", data=stamps, **options)
    return path


def scan(path, **options):
    return lazynwb.scan_nwb(path, "/acquisition/s", **options)


def chunks_decoded(query):
    with lazynwb.profile() as cost:
        query.collect()
    return cost.chunks_decoded


def _all(predicates):
    whole = predicates[0]
    for predicate in predicates[1:]:
        whole &= predicate
    return whole


#: A clock that jumps back for a while: 100 chunks of 1,024 rows.
JUMPS = np.arange(102_400) / 100
JUMPS[50_000:50_010] = 3.0


def test_the_first_filter_reads_all_timestamps_once_and_later_ones_the_chunks_that_may_match(tmp_path):
    path = write(tmp_path / "a.nwb", JUMPS, chunk=1024, compression="gzip")
    sleep(0.1)  # what a file that was written this moment holds is not cached
    query = scan(path).filter(time.is_between(400.0, 402.0)).select("timestamps")
    assert query.collect()["timestamps"].to_list() == JUMPS[(JUMPS >= 400) & (JUMPS <= 402)].tolist()
    lazynwb.clear_cache()
    assert chunks_decoded(query) == 100  # once: the rows that match are not decoded again
    assert chunks_decoded(query) == 2  # where 400 is, and where the clock jumps from 500 to 3
    assert chunks_decoded(scan(path).filter(time < 3.005).select("timestamps")) == 2
    assert chunks_decoded(scan(path).filter(time > 1e6).select("data")) == 0


def test_zone_maps_are_cached_on_disk_and_kept_for_other_processes(tmp_path):
    path = write(tmp_path / "a.nwb", JUMPS, chunk=1024, compression="gzip")
    sleep(0.1)
    query = scan(path).filter(time.is_between(400.0, 402.0)).select("timestamps")
    assert chunks_decoded(query) == 100
    clear_memory()
    assert chunks_decoded(query) == 2


def test_an_index_contains_known_zone_maps(tmp_path):
    path = write(tmp_path / "a.nwb", JUMPS, chunk=1024, compression="gzip")
    sleep(0.1)
    scan(path).filter(time < 0).collect()
    lazynwb.build_index(path, tmp_path / "index")
    lazynwb.clear_cache()
    query = scan(None, index=tmp_path / "index").filter(time.is_between(400.0, 402.0)).select("timestamps")
    assert chunks_decoded(query) == 2
    assert query.collect()["timestamps"].to_list() == JUMPS[(JUMPS >= 400) & (JUMPS <= 402)].tolist()


def test_a_changed_file_has_no_zone_map(tmp_path):
    path = write(tmp_path / "a.nwb", JUMPS, chunk=1024)
    sleep(0.1)
    assert scan(path).filter(time > 2000).collect().is_empty()
    write(path, JUMPS + 3000, chunk=1024)
    assert len(scan(path).filter(time > 2000).collect()) == len(JUMPS)


@pytest.mark.parametrize("by", ["argument", "setting"])
def test_ascending_timestamps_can_be_searched_instead(tmp_path, monkeypatch, by):
    rng = np.random.default_rng(0)
    stamps = np.sort(np.arange(100_000) / 100 + rng.normal(0, 1e-4, 100_000))
    path = write(tmp_path / "a.nwb", stamps, chunk=100, compression="gzip")
    options = {"assume_ascending": True} if by == "argument" else {}
    monkeypatch.setattr(lazynwb.config, "assume_ascending", by == "setting")
    with lazynwb.profile() as cost:
        found = scan(path, **options).filter(time.is_between(400.0, 402.0)).select("timestamps").collect()
    assert found["timestamps"].to_list() == stamps[(stamps >= 400) & (stamps <= 402)].tolist()
    assert cost.chunks_decoded <= 3 + 3 + 6  # the window, both ends and near the window, the search
    assert chunks_decoded(scan(path, **options).filter(time > 1e6).select("data")) <= 4


def test_a_search_in_unsorted_timestamps_reads_all_rows(tmp_path):
    stamps = np.r_[np.arange(20_000.0), np.arange(1000.0)]
    path = write(tmp_path / "a.nwb", stamps, chunk=1000)
    found = scan(path, assume_ascending=True).filter(time < 2).collect()
    assert found["_table_index"].to_list() == [0, 1, 20_000, 20_001]


def test_generated_timestamps_cost_nothing(tmp_path):
    path = write(tmp_path / "a.nwb", regular=(5.0, 10.0), rows=50_000)
    with lazynwb.profile() as cost:
        found = scan(path).filter(time >= 4000.0, time < 4001.0).collect()
    assert found["_table_index"].to_list() == list(range(39_950, 39_960))
    assert cost.bytes_used == 2 * BLOCK * 8 or cost.bytes_used == 10 * 8


def test_a_limit_precedes_the_filter_and_limits_reads(tmp_path):
    path = write(tmp_path / "a.nwb", JUMPS, chunk=1024, compression="gzip")
    assert scan(path).head(50).filter(time >= 0.45).collect()["_table_index"].to_list() == [*range(45, 50)]
    assert scan(path).filter(time >= 0.45).head(2).collect()["_table_index"].to_list() == [45, 46]
    lazynwb.clear_cache()
    assert chunks_decoded(scan(path).head(50).filter(time >= 0.45).select("timestamps")) == 1


def test_timestamps_of_other_tables_are_ordinary_columns(tmp_path):
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        stamps = np.r_[np.arange(5000.0), np.arange(5000.0)]
        table(file, "t", {"timestamps": Column(stamps, {"chunks": (10,)})})
    found = lazynwb.scan_nwb(tmp_path / "a.nwb", "/t").filter(time < 2).collect()
    assert found["timestamps"].to_list() == [0.0, 1.0, 0.0, 1.0]


def test_remote_files_are_read_concurrently(tmp_path):
    for number in range(6):
        write(tmp_path / f"{number}.nwb", number + np.arange(20_000) / 100, chunk=100)
    with RangeServer(tmp_path, latency=0.02) as server:
        urls = [server.url_of(f"{number}.nwb") for number in range(6)]
        found = scan(urls).filter(time.is_between(100.0, 100.1)).select("timestamps", "_nwb_path").collect()
        assert server.most_at_once >= 6
    assert found["_nwb_path"].unique(maintain_order=True).to_list() == urls
    assert len(found) == 66


# -- no row is lost ---------------------------------------------------------------------------------------


def write_zarr(folder, stamps, chunk):
    writer = Writer(2, [{"id": "zlib", "level": 1}])
    writer.group("")
    writer.group("acquisition")
    writer.group("acquisition/s", neurodata_type="TimeSeries")
    data = np.arange(len(stamps) * 2, dtype="i4").reshape(-1, 2)
    writer.array("acquisition/s/data", data, (4096, 2), unit="V")
    writer.array("acquisition/s/timestamps", stamps, (chunk or len(stamps),))
    return writer.write(folder)


KINDS = ["even", "gaps", "equal", "jump", "resets", "descending", "shuffled", "nan", "all nan"]


@st.composite
def stored(draw, kinds=KINDS):
    """Timestamps with gaps, repeats, jumps, several resets, descending stretches, NaN; and their chunks."""
    rows = draw(st.sampled_from([1, 40, 3000, 5000, 9000, 30_000]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    stamps = draw(st.sampled_from([0.0, -5.0, 1e6])) + np.arange(rows) / 8
    whole = True
    for kind in draw(st.lists(st.sampled_from(kinds), max_size=3)):
        at, length = int(rng.integers(0, rows)), int(rng.integers(1, 50 if rng.integers(2) else rows + 1))
        part = stamps[at : at + length]
        if kind == "gaps":
            stamps = np.nanmin([stamps[0], 0]) + np.cumsum(rng.exponential(1, rows) ** 4)
        elif kind == "equal":
            stamps = np.repeat(stamps, 5)[:rows]
        elif kind == "jump":
            part -= rng.choice([0.5, 100.0, 1e4])
        elif kind == "resets":
            stamps = stamps[np.arange(rows) % max(rows // int(rng.integers(2, 6)), 1)]
        elif kind == "descending":
            part[...] = part[::-1].copy()
        elif kind == "shuffled":
            rng.shuffle(part)
        elif kind != "even":
            part[...] = np.nan
            stamps = np.full(rows, np.nan) if kind == "all nan" else stamps
            whole = False
    dtypes = ["<f8", "<f8", ">f8", "<f4"] + (["<i8", "u4"] if whole and stamps.min() >= 0 else [])
    return stamps.astype(draw(st.sampled_from(dtypes))), draw(st.sampled_from([1024, 256, 1000, 5000, 0]))


def value_near(draw, stamps):
    """A time that equals a timestamp, is close to one, or far from all."""
    one = stamps[draw(st.integers(0, len(stamps) - 1))].item()
    far = st.sampled_from([-math.inf, math.inf, math.nan, 0, 3, -1e12, 1e12])
    return draw(st.one_of(st.sampled_from([one, one, one + 0.03, one - 1e-9]), st.just(one), far))


@st.composite
def windows(draw, stamps):
    """Comparisons in every form, and combinations of them."""
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        a, b = value_near(draw, stamps), value_near(draw, stamps)
        compare = draw(st.sampled_from([operator.lt, operator.le, operator.gt, operator.ge, operator.eq]))
        closed = draw(st.sampled_from(["both", "left", "right", "none"]))
        forms = [
            compare(time, a),
            compare(pl.lit(a), time),
            time.is_between(min(a, b), max(a, b), closed=closed),
            time.is_between(min(a, b), max(a, b), closed=closed),
            compare(time.cast(pl.Float64), a),
            ~compare(time, a),
            compare(time, a) | (time == b),
            pl.col("_table_index") % 3 != 1,
            pl.col("data").arr.get(0) >= 20,
        ]
        parts.append(draw(st.sampled_from(forms)))
    return _all(parts)


@pytest.mark.long
@pytest.mark.integration
@pytest.mark.parametrize("form", ["hdf5", "zarr"])
@given(st.data())
def test_a_filter_before_collect_equals_one_after_it(tmp_path_factory, form, data):
    stamps, chunk = data.draw(stored())
    folder = tmp_path_factory.mktemp("t")
    if form == "hdf5":
        path = write(folder / "a.nwb", stamps, chunk=chunk)
    else:
        path = write_zarr(folder / "a.nwb.zarr", stamps, chunk)
    limit = data.draw(st.integers(0, len(stamps) + 3))
    for _ in range(2):  # by the second time the zone map may be known
        compare(path, data.draw(windows(stamps)), limit)
        sleep(0.06)


@given(st.data())
def test_sql_returns_the_rows_of_a_filter_after_collect(tmp_path_factory, data):
    stamps, chunk = data.draw(stored())
    stamps = stamps.astype("f8")
    path = write(tmp_path_factory.mktemp("t") / "a.nwb", stamps, chunk=chunk)
    low = value_near(data.draw, stamps[np.isfinite(stamps)]) if np.isfinite(stamps).any() else 0.0
    low = low if math.isfinite(low) else 1.5
    found = lazynwb.get_sql_context(path).execute(
        f"SELECT _table_index FROM s WHERE timestamps >= {low!r} AND timestamps < {low + 20!r}",  # noqa: S608
        eager=True,
    )
    assert found["_table_index"].to_list() == np.flatnonzero((stamps >= low) & (stamps < low + 20)).tolist()


@pytest.mark.integration
@given(st.data())
def test_a_search_finds_every_row_of_ascending_timestamps(tmp_path_factory, data):
    stamps, chunk = data.draw(stored(["gaps", "equal"]))
    predicate = data.draw(windows(stamps))
    path = write(tmp_path_factory.mktemp("t") / "a.nwb", stamps, chunk=chunk)
    found = scan(path, assume_ascending=True).filter(predicate).collect()
    assert_frame_equal(found, scan(path).collect().filter(predicate))


@given(st.data())
def test_a_window_over_generated_timestamps_equals_a_filter_of_all_rows(tmp_path_factory, data):
    rows = data.draw(st.integers(0, 300))
    start = data.draw(st.sampled_from([0.0, -3.7, 0.1, 1e9, 1e300]))
    rate = data.draw(st.sampled_from([1.0, 3.0, 0.1, 29.97, 30_000.0, 1e-300, 1e300]))
    predicate = data.draw(windows(np.r_[start + np.arange(rows) / rate, start]))
    path = write(tmp_path_factory.mktemp("t") / "a.nwb", regular=(start, rate), rows=rows)
    compare(path, predicate, data.draw(st.integers(0, rows + 3)))


def compare(path, predicate, limit):
    all_rows = scan(path).collect()
    assert_frame_equal(scan(path).filter(predicate).collect(), all_rows.filter(predicate))
    limited = scan(path).head(limit).filter(predicate).collect()
    assert_frame_equal(limited, all_rows.head(limit).filter(predicate))


@pytest.mark.parametrize("share", [0.0, 0.25, 0.9, 1.0])
@pytest.mark.parametrize("dtype", ["f8", "f4"])
@pytest.mark.sample(2)
def test_predicates_use_the_types_of_the_requested_schema(tmp_path, dtype, share):
    stamps = (np.arange(6000) * 0.1 + 0.3).astype(dtype)
    path = write(tmp_path / "a.nwb", stamps)
    for asked in (pl.Float32, pl.Float64, pl.Int32):
        frame = scan(path, schema_overrides={"timestamps": asked})
        all_rows = frame.collect()
        value = float(np.quantile(stamps, share))
        for predicate in (
            time >= value,
            time > value,
            time <= value,
            time == value,
            time >= 0.7,
            time.is_between(0.7, 99.3),
        ):
            assert_frame_equal(frame.filter(predicate).collect(), all_rows.filter(predicate))


def test_fewer_timestamps_than_data_end_the_window(tmp_path):
    path = write(tmp_path / "a.nwb", np.arange(100) / 10, rows=200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = lazynwb.scan_nwb(path, "/acquisition/s").filter(time >= 9.8).collect()
    assert found["_table_index"].to_list() == [98, 99]


def test_a_damaged_file_fails_as_without_the_filter(tmp_path):
    path = write(tmp_path / "a.nwb", np.arange(10_000) / 10, chunk=100, compression="gzip")
    with h5py.File(path) as file:
        where = file["acquisition/s/timestamps"].id.get_chunk_info(9)
    raw = bytearray(path.read_bytes())
    raw[where.byte_offset : where.byte_offset + where.size] = bytes(where.size)
    path.write_bytes(raw)
    with pytest.raises(lazynwb.LazyNWBError, match="timestamps"):
        scan(path).filter(time > 50.0).collect()
    with pytest.raises(lazynwb.LazyNWBError, match="timestamps"):
        lazynwb.scan_nwb(path, "/acquisition/s").select("timestamps").collect()


# -- number of rows ---------------------------------------------------------------------------------------


def test_frames_in_video_files_have_their_times(tmp_path):
    nwb = pynwb.NWBFile("session", "id", datetime(2024, 1, 2, tzinfo=UTC))
    outside = {
        "external_file": ["a.mp4", "b.mp4"],
        "format": "external",
        "starting_frame": [0, 5],
        "unit": "n.a.",
    }
    stamps = np.arange(9) / 3
    nwb.add_acquisition(ImageSeries(name="stamped", timestamps=stamps, **outside))
    counted = "num_samples" in {argument["name"] for argument in ImageSeries.__init__.__docval__["args"]}
    number = {"num_samples": 12} if counted else {}
    nwb.add_acquisition(ImageSeries(name="rated", rate=30.0, starting_time=2.0, **outside, **number))
    with pynwb.NWBHDF5IO(tmp_path / "a.nwb", "w") as io:
        io.write(nwb)
    scan = lazynwb.scan_nwb(tmp_path / "a.nwb", "/acquisition/stamped")
    assert scan.collect()["timestamps"].to_list() == stamps.tolist()
    assert scan.filter(time > 1.0).collect()["timestamps"].to_list() == stamps[stamps > 1].tolist()
    assert scan.collect()["data"].null_count() == 9
    rated = lazynwb.scan_nwb(tmp_path / "a.nwb", "/acquisition/rated")
    assert rated.collect()["timestamps"].to_list() == (2.0 + np.arange(12 * counted) / 30).tolist()
    assert len(rated.filter(time >= 2.3).collect()) == 3 * counted


def test_a_rate_without_a_number_of_frames_has_no_rows(tmp_path):
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        group = series(file, "acquisition/s", np.zeros((0, 0, 0), "u1"), start=1.0, rate=30.0)
        group["external_file"] = ["a.mp4"]
    scan = lazynwb.scan_nwb(tmp_path / "a.nwb", "/acquisition/s")
    assert scan.filter(time > 0).collect().is_empty()
    assert scan.collect().is_empty()


def test_multi_dimensional_data_has_all_rows_regardless_of_other_members(tmp_path):
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        group = series(file, "acquisition/s", np.zeros((50, 4, 3)), start=0.0, rate=10.0)
        group["electrodes"] = np.arange(4)
        group["channel_conversion"] = np.ones(4)
    scan = lazynwb.scan_nwb(tmp_path / "a.nwb", "/acquisition/s")
    assert len(scan.collect()) == 50
    assert len(scan.filter(time >= 4.5).collect()) == 5
