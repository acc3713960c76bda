"""Filters on the timestamps of a series: what they say, which chunks they read, and that nothing is lost."""

import itertools
import math
import operator
import warnings
from datetime import UTC, datetime

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
from lazynwb.engine import timestamps
from lazynwb.engine.plan import plan_steps
from lazynwb.engine.timestamps import TimeFilter, bounds_of
from lazynwb.lookup.loader import load_table
from lazynwb.storage.resolve import expand
from range_server import RangeServer

time = pl.col("timestamps")
BLOCK = 16


# -- what a comparison says -------------------------------------------------------------------------------

SIDES = {
    "since": [time > 1.0, time >= 1.0, pl.lit(1.0) < time, pl.lit(1) <= time, time.cast(pl.Float64) > 1.0],
    "until": [time < 1.0, time <= 1.0, pl.lit(1.0) > time, pl.lit(1) >= time, time.cast(pl.Float32) <= 1.0],
    "since until": [
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
def test_only_comparisons_with_literals_bound_a_window(sides, expression):
    assert [bound.side for bound in bounds_of(expression, "timestamps")] == sides.split()


def test_bounds_are_no_narrower_than_the_comparison():
    frame = pl.DataFrame({"timestamps": [-math.inf, 0.0, 0.5, 0.75, 1.0, 1.5, math.inf]})
    for expression in itertools.chain(*SIDES.values()):
        bounds = bounds_of(expression, "timestamps")
        if bounds:
            kept = frame.filter(expression)
            assert_frame_equal(kept.filter(bound.expression for bound in bounds), kept)


# -- which rows and chunks are read -----------------------------------------------------------------------


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


def window(path, *predicates, rows=None):
    (source,) = expand(path)
    file = load_table(source, "acquisition/s")
    schema = lazynwb.get_table_schema(path, "/acquisition/s")
    steps = plan_steps(pl.all_horizontal(*predicates) if not predicates else _all(predicates), schema)
    return TimeFilter(steps, schema, frozenset(), path.name).narrow(file, rows or file.table.rows)


def _all(predicates):
    whole = predicates[0]
    for predicate in predicates[1:]:
        whole &= predicate
    return whole


@pytest.mark.parametrize("stored", [False, True], ids=["rate", "stored"])
def test_the_window_is_exact(tmp_path, stored):
    stamps = 5 + np.arange(1000) / 10
    path = write(
        tmp_path / "a.nwb", *([stamps] if stored else []), regular=(None if stored else 5.0, 10.0), rows=1000
    )
    x = pl.col("data").arr.get(0)
    assert window(path, time >= stamps[300], time < stamps[310]) == (300, 310)
    assert window(path, time > stamps[300], time <= stamps[310]) == (301, 311)
    assert window(path, time.is_between(stamps[7], stamps[9]), x > 3) == (7, 10)
    assert window(path, time == stamps[500]) == (500, 501)
    assert window(path, pl.lit(stamps[998]) < time) == (999, 1000)
    assert window(path, time < stamps[500], rows=100) == (0, 100)
    assert window(path, time > 1e9) == (1000, 1000)
    start, stop = window(path, time < 50.0, time > 60.0)
    assert start >= stop
    assert window(path, x > 3) == (0, 1000)
    assert window(path, (time > 50.0) | (x > 3)) == (0, 1000)


def test_stored_timestamps_cost_the_chunks_of_the_window_and_a_few_more(tmp_path):
    rng = np.random.default_rng(0)
    stamps = np.arange(100_000) / 100 + rng.normal(0, 1e-4, 100_000)
    path = write(tmp_path / "a.nwb", stamps, chunk=100, compression="gzip")
    scan = lazynwb.scan_nwb(path, "/acquisition/s")
    with lazynwb.profile() as cost:
        found = scan.filter(time.is_between(400.0, 402.0)).select("timestamps").collect()
    assert found["timestamps"].to_list() == stamps[(stamps >= 400) & (stamps <= 402)].tolist()
    assert cost.chunks_decoded <= 3 + 7 + 4  # the window; both ends and five between; guesses beside it
    with lazynwb.profile() as cost:
        assert scan.filter(time > 1e6).select("data").collect().is_empty()
    assert cost.chunks_decoded <= 9


def test_what_the_search_has_decoded_is_not_decoded_again(tmp_path):
    path = write(tmp_path / "a.nwb", np.arange(1000) / 10, chunk=100, compression="gzip")
    with lazynwb.profile() as cost:
        lazynwb.scan_nwb(path, "/acquisition/s").filter(time.is_between(0.5, 3.0)).select(
            "timestamps"
        ).collect()
    assert cost.chunks_decoded <= 9


@pytest.mark.parametrize("odd", [np.nan, 500.0], ids=str)
def test_one_odd_timestamp_in_a_local_contiguous_array_is_never_missed(tmp_path, odd):
    stamps = np.arange(200_000) / 1000
    stamps[77_777] = odd
    path = write(tmp_path / "a.nwb", stamps, chunk=0)
    found = lazynwb.scan_nwb(path, "/acquisition/s").filter(time >= 190.0).select("_table_index").collect()
    assert found["_table_index"].to_list() == [77_777, *range(190_000, 200_000)]


def test_generated_timestamps_cost_nothing(tmp_path):
    path = write(tmp_path / "a.nwb", regular=(5.0, 10.0), rows=50_000)
    with lazynwb.profile() as cost:
        found = lazynwb.scan_nwb(path, "/acquisition/s").filter(time >= 4000.0, time < 4001.0).collect()
    assert found["_table_index"].to_list() == list(range(39_950, 39_960))
    assert cost.bytes_used == 2 * BLOCK * 8 or cost.bytes_used == 10 * 8


def test_a_limit_comes_before_the_filter(tmp_path):
    path = write(tmp_path / "a.nwb", np.arange(1000) / 10)
    scan = lazynwb.scan_nwb(path, "/acquisition/s")
    assert scan.head(50).filter(time >= 4.5).collect()["_table_index"].to_list() == [45, 46, 47, 48, 49]
    assert scan.filter(time >= 4.5).head(2).collect()["_table_index"].to_list() == [45, 46]


def test_a_table_that_is_no_series_is_filtered_as_any_column(tmp_path):
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        stamps = np.r_[np.arange(500.0), np.arange(500.0)]
        table(file, "t", {"timestamps": Column(stamps, {"chunks": (10,)})})
    found = lazynwb.scan_nwb(tmp_path / "a.nwb", "/t").filter(time < 2).collect()
    assert found["timestamps"].to_list() == [0.0, 1.0, 0.0, 1.0]


def test_files_behind_a_server_are_searched_at_the_same_time(tmp_path):
    for number in range(6):
        write(tmp_path / f"{number}.nwb", number + np.arange(20_000) / 100, chunk=100)
    with RangeServer(tmp_path, latency=0.02) as server:
        urls = [server.url_of(f"{number}.nwb") for number in range(6)]
        scan = lazynwb.scan_nwb(urls, "/acquisition/s")
        found = scan.filter(time.is_between(100.0, 100.1)).select("timestamps", "_nwb_path").collect()
        assert server.most_at_once >= 6
    assert found["_nwb_path"].unique(maintain_order=True).to_list() == urls
    assert len(found) == 66


# -- nothing is lost --------------------------------------------------------------------------------------


#: Timestamps in the order that NWB asks for, or out of it by less than a block, and others.
ORDERED = ["even", "even", "gaps", "equal", "swapped"]
DISORDERED = ["anew", "shuffled", "nan"]


@st.composite
def stored(draw, kinds):
    """Timestamps as they should be, and as they are: with gaps, out of order, begun anew, with NaN."""
    rows = draw(st.one_of(st.integers(150, 700), st.integers(1, 60)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(kinds))
    stamps = draw(st.sampled_from([0.0, -5.0, 1e6])) + np.arange(rows) / 8
    if kind in {"even", "swapped"}:
        stamps = np.sort(stamps + rng.normal(0, 0.01, rows))
    if kind == "gaps":
        stamps = stamps[0] + np.cumsum(rng.exponential(1, rows) ** 4)
    elif kind == "equal":
        stamps = np.repeat(stamps, 5)[:rows]
    elif kind == "swapped":  # as jitter of a clock does it
        for at in rng.integers(0, rows, 3):
            part = stamps[at : at + 4]
            part[...] = part[::-1].copy()
    elif kind == "anew":
        stamps = stamps[0] + np.arange(rows) % max(rows // draw(st.integers(2, 6)), 1) / 8
    elif kind == "shuffled":
        rng.shuffle(stamps)
    elif kind == "nan":
        first = draw(st.integers(0, rows - 1))
        stamps[first : first + rows // 3 + 1] = np.nan
    whole = ["<i8", "u4"] if kind != "nan" and stamps.min() >= 0 else []
    dtype = draw(st.sampled_from(["<f8", "<f8", ">f8", "<f4", *whole]))
    return stamps.astype(dtype), draw(st.sampled_from([16, 16, 7, 40, 0]))


def value_near(draw, stamps):
    """A time that is there, nearly there, or far off."""
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


@pytest.mark.parametrize("trusted", [False, True], ids=["few", "many"])
@given(st.data())
def test_a_window_over_stored_timestamps_has_what_a_filter_of_all_rows_has(tmp_path_factory, trusted, data):
    stamps, chunk = data.draw(stored(ORDERED if trusted else ORDERED + DISORDERED))
    predicate = data.draw(windows(stamps))
    path = write(tmp_path_factory.mktemp("t") / "a.nwb", stamps, chunk=chunk)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timestamps, "UNCHUNKED_ROWS", BLOCK)
        if trusted:  # as of millions of rows
            patch.setattr(timestamps, "FEW_ROWS", 0)
        compare(path, predicate, data.draw(st.integers(0, len(stamps) + 3)))


@pytest.mark.parametrize("share", [0.04, 0.3, 0.5, 0.8, 0.96])
def test_a_clock_that_began_anew_shows_even_where_nothing_that_was_read_is_out_of_order(tmp_path, share):
    first = int(3000 * share)
    stamps = np.r_[np.arange(first), np.arange(3000 - first)] / 10
    path = write(tmp_path / "a.nwb", stamps)
    scan = lazynwb.scan_nwb(path, "/acquisition/s")
    for at in (0.0, 5.0, 11.5, 250.0):
        found = scan.filter(time.is_between(at, at + 2.0)).collect()
        assert found["_table_index"].to_list() == np.flatnonzero((stamps >= at) & (stamps <= at + 2)).tolist()


def test_of_many_rows_what_is_read_must_ascend_all_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(timestamps, "FEW_ROWS", 0)
    stamps = np.r_[np.arange(1500), np.arange(1500)] / 10
    scan = lazynwb.scan_nwb(write(tmp_path / "a.nwb", stamps), "/acquisition/s")
    assert scan.filter(time < 0.15).collect()["_table_index"].to_list() == [0, 1, 1500, 1501]


@pytest.mark.parametrize("few", [0, 10**6])
def test_samples_in_the_wrong_order_are_found_where_the_window_ends_among_them(tmp_path, monkeypatch, few):
    monkeypatch.setattr(timestamps, "FEW_ROWS", few)
    stamps = np.arange(2000) / 10
    stamps[804:808] = stamps[804:808][::-1].copy()
    scan = lazynwb.scan_nwb(write(tmp_path / "a.nwb", stamps), "/acquisition/s")
    for value in stamps[802:810]:
        for predicate, expected in ((time < value, stamps < value), (time >= value, stamps >= value)):
            assert (
                scan.filter(predicate).collect()["_table_index"].to_list()
                == np.flatnonzero(expected).tolist()
            )


@given(st.data())
def test_a_window_over_generated_timestamps_has_what_a_filter_of_all_rows_has(tmp_path_factory, data):
    rows = data.draw(st.integers(0, 300))
    start = data.draw(st.sampled_from([0.0, -3.7, 0.1, 1e9, 1e300]))
    rate = data.draw(st.sampled_from([1.0, 3.0, 0.1, 29.97, 30_000.0, 1e-300, 1e300]))
    predicate = data.draw(windows(np.r_[start + np.arange(rows) / rate, start]))
    path = write(tmp_path_factory.mktemp("t") / "a.nwb", regular=(start, rate), rows=rows)
    compare(path, predicate, data.draw(st.integers(0, rows + 3)))


def compare(path, predicate, limit):
    scan = lazynwb.scan_nwb(path, "/acquisition/s")
    everything = scan.collect()
    assert_frame_equal(scan.filter(predicate).collect(), everything.filter(predicate))
    assert_frame_equal(scan.head(limit).filter(predicate).collect(), everything.head(limit).filter(predicate))


@pytest.mark.parametrize("share", [0.0, 0.25, 0.9, 1.0])
@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_types_that_a_schema_asks_for_are_those_that_are_compared(tmp_path, dtype, share):
    stamps = (np.arange(3000) * 0.1 + 0.3).astype(dtype)
    path = write(tmp_path / "a.nwb", stamps)
    for asked in (pl.Float32, pl.Float64, pl.Int32):
        scan = lazynwb.scan_nwb(path, "/acquisition/s", schema_overrides={"timestamps": asked})
        everything = scan.collect()
        value = float(np.quantile(stamps, share))
        for predicate in (
            time >= value,
            time > value,
            time <= value,
            time == value,
            time >= 0.7,
            time.is_between(0.7, 99.3),
        ):
            assert_frame_equal(scan.filter(predicate).collect(), everything.filter(predicate))


def test_fewer_timestamps_than_data_end_the_window(tmp_path):
    path = write(tmp_path / "a.nwb", np.arange(100) / 10, rows=200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = lazynwb.scan_nwb(path, "/acquisition/s").filter(time >= 9.8).collect()
    assert found["_table_index"].to_list() == [98, 99]


def test_a_damaged_file_fails_as_without_the_filter(tmp_path):
    path = write(tmp_path / "a.nwb", np.arange(1000) / 10, chunk=100, compression="gzip")
    with h5py.File(path) as file:
        where = file["acquisition/s/timestamps"].id.get_chunk_info(9)
    raw = bytearray(path.read_bytes())
    raw[where.byte_offset : where.byte_offset + where.size] = bytes(where.size)
    path.write_bytes(raw)
    scan = lazynwb.scan_nwb(path, "/acquisition/s").filter(time > 50.0)
    with pytest.raises(lazynwb.LazyNWBError, match="timestamps"):
        scan.collect()
    with pytest.raises(lazynwb.LazyNWBError, match="timestamps"):
        lazynwb.scan_nwb(path, "/acquisition/s").select("timestamps").collect()


# -- which rows a series has ------------------------------------------------------------------------------


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


def test_without_a_number_of_frames_a_rate_alone_gives_no_rows(tmp_path):
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        group = series(file, "acquisition/s", np.zeros((0, 0, 0), "u1"), start=1.0, rate=30.0)
        group["external_file"] = ["a.mp4"]
    scan = lazynwb.scan_nwb(tmp_path / "a.nwb", "/acquisition/s")
    assert scan.filter(time > 0).collect().is_empty()
    assert scan.collect().is_empty()


def test_multi_dimensional_data_has_all_its_rows_whatever_else_the_series_holds(tmp_path):
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        group = series(file, "acquisition/s", np.zeros((50, 4, 3)), start=0.0, rate=10.0)
        group["electrodes"] = np.arange(4)
        group["channel_conversion"] = np.ones(4)
    scan = lazynwb.scan_nwb(tmp_path / "a.nwb", "/acquisition/s")
    assert len(scan.collect()) == 50
    assert len(scan.filter(time >= 4.5).collect()) == 5
