"""Spikes in intervals, and observed intervals, compared with loops over units, intervals and spikes."""

import importlib.util
import math
import pickle
import re
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import polars as pl
import pynwb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import lazynwb
from builders import Ragged, nwb_root, table
from checks import ENGINES, assert_values
from lazynwb.demo import write_cube
from lazynwb.errors import ColumnNotFoundError, SchemaError, SourceNotFoundError, TableNotFoundError
from range_server import RangeServer

NAN = float("nan")
INF = float("inf")
BOUNDS = {"spikes": ("start_time", "stop_time")}
KEYS = ["_units_table_index", "_intervals_table_index", "_nwb_path"]
OBS = pl.List(pl.Array(pl.Float64, 2))
PLACE = {"_nwb_path": pl.String, "_table_index": pl.UInt32}
UNITS = {**PLACE, "spike_times": pl.List(pl.Float64), "obs_intervals": OBS}
TRIALS = {**PLACE, "start_time": pl.Float64, "stop_time": pl.Float64, "zero": pl.Float64}

find = lazynwb.get_spike_times_in_intervals


# --- the oracle: one unit, one interval, one spike at a time --------------------------------------------


def number(value):
    return value is not None and not math.isnan(value)


def is_observed(obs, start, stop):
    """Return whether an interval is observed, by iteration over the observed intervals."""
    if not obs:
        return True
    here = start
    for _ in range(len(obs) + 1):
        reach = [b for a, b in obs if number(a) and number(b) and a <= here <= b]
        if not reach:
            return False
        if max(reach) >= stop:
            return True
        here = max(reach)
    return False


def spikes_of(times, start, stop):
    return sorted(time for time in times if number(time) and start <= time < stop)


def expected(units, trials, *, observed=True, kind="times"):
    """The expected rows."""
    rows = []
    for path, unit, times, obs in units:
        for own, trial, start, stop, zero in trials:
            if own != path:
                continue
            row = {"_units_table_index": unit, "_intervals_table_index": trial, "_nwb_path": path}
            proper = number(start) and number(stop) and start <= stop
            seen = is_observed(obs, start, stop) if proper else None
            if observed:
                row["is_observed"] = seen
            found = None
            if proper and times is not None and (seen or not observed):
                found = spikes_of(times, start, stop)
                if kind == "counts":
                    found = len(found)
                elif kind != "times":
                    origin = start if kind == "aligned" else zero
                    known = number(origin) and math.isfinite(origin)
                    found = [time - origin for time in found] if known else None
            rows.append({**row, "spikes": found})
    return rows


def assert_rows(frame, rows, names=("spikes", "is_observed")):
    assert len(frame) == len(rows)
    for name in [*KEYS, *names] if rows else ():
        if name in rows[0]:
            assert_values(frame[name].to_list(), [row[name] for row in rows], name)


def unit_frame(units):
    return pl.DataFrame(units, schema=UNITS, orient="row")


def trial_frame(trials):
    return pl.DataFrame(trials, schema=TRIALS, orient="row")


# A grid, so that spikes fall on bounds, and intervals touch.
ticks = st.integers(-4, 12).map(lambda n: n / 4)
odd = st.one_of(ticks, st.sampled_from([None, NAN, INF, -INF]))
pairs = st.tuples(st.one_of(ticks, st.just(NAN)), ticks)
units_of = st.lists(
    st.tuples(
        st.sampled_from("ab"),
        st.integers(0, 5),
        st.none() | st.lists(st.one_of(ticks, st.sampled_from([NAN, None])), max_size=8),
        st.none() | st.lists(pairs, max_size=4),
    ),
    max_size=6,
)
trials_of = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), odd, odd, odd), max_size=8)
kinds = st.sampled_from(["times", "counts", "aligned", "aligned to"])


def options_of(kind):
    return {"times": {}, "counts": {"as_counts": True}, "aligned": {"align_times": True}}.get(
        kind, {"align_to": "zero"}
    )


@given(units_of, trials_of, kinds, st.booleans())
@settings(max_examples=150)
def test_spikes_in_intervals_equal_a_direct_search_for_random_sessions(units, trials, kind, observed):
    frame = find(
        unit_frame(units), BOUNDS, trial_frame(trials), apply_obs_intervals=observed, **options_of(kind)
    )
    assert_rows(frame, expected(units, trials, observed=observed, kind=kind))
    assert ("is_observed" in frame.columns) == observed


@given(units_of, trials_of, kinds, st.booleans(), st.sampled_from(ENGINES))
def test_lazy_eager_polars_and_pandas_results_are_equal(units, trials, kind, observed, engine):
    units, trials = unit_frame(units), trial_frame(trials)
    options = {"apply_obs_intervals": observed, **options_of(kind)}
    eager = find(units, BOUNDS, trials, **options)
    lazy = find(units.lazy(), BOUNDS, trials.lazy(), **options)
    assert isinstance(lazy, pl.LazyFrame)
    assert lazy.collect_schema() == eager.schema
    assert_frame_equal(lazy.collect(engine=engine), eager)
    some = pl.col("_intervals_table_index") > 2
    columns = ["start_time", "spikes", "_nwb_path"]
    assert_frame_equal(
        lazy.filter(some).select(columns).collect(engine=engine), eager.filter(some).select(columns)
    )
    assert_frame_equal(lazy.head(3).filter(some).collect(engine=engine), eager.head(3).filter(some))
    assert lazy.select(pl.len()).collect(engine=engine).item() == len(eager)
    if len(units) and len(trials):
        pandas = find(pandas_frame(units), BOUNDS, pandas_frame(trials), **options)
        assert isinstance(pandas, pd.DataFrame)
        assert list(pandas.columns) == eager.columns
        for mine, theirs in zip(pandas["spikes"], eager["spikes"].to_list(), strict=True):
            missing = mine is None or (np.ndim(mine) == 0 and math.isnan(mine))
            assert theirs is None if missing else np.array_equal(mine, theirs)


def pandas_frame(frame):
    columns = {}
    for name in frame.columns:
        values = frame[name].to_list()
        nested = frame[name].dtype.is_nested()
        columns[name] = pd.Series(values, dtype=object) if nested else frame[name].to_numpy()
    made = pd.DataFrame(columns)
    made.index += 7
    return made


@given(units_of, st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 6), odd, odd), max_size=12))
def test_observed_intervals_are_those_within_the_union(units, rows):
    known = {}
    for path, unit, _, obs in units:
        known.setdefault((path, unit), obs)
    expectation = [
        is_observed(known[path, unit], start, stop)
        if (path, unit) in known and number(start) and number(stop) and start <= stop
        else None
        for path, unit, start, stop in rows
    ]
    names = ["_nwb_path", lazynwb.UNITS_TABLE_INDEX_COLUMN_NAME, "start_time", "stop_time"]
    frame = pl.DataFrame(
        rows,
        schema=dict(zip(names, [pl.String, pl.Int64, pl.Float64, pl.Float64], strict=True)),
        orient="row",
    )
    units = unit_frame(units)
    told = lazynwb.insert_is_observed(frame, units, "told")
    assert told["told"].to_list() == expectation
    assert told.columns == [*names, "told"]
    assert_frame_equal(told.drop("told"), frame)
    for engine in ENGINES:
        lazy = lazynwb.insert_is_observed(frame.lazy(), units.lazy(), "told")
        assert_frame_equal(lazy.collect(engine=engine), told)
    pandas = lazynwb.insert_is_observed(frame.to_pandas(), units, "told")
    assert [None if pd.isna(value) else bool(value) for value in pandas["told"]] == expectation
    carried = frame.join(
        units.select(
            "_nwb_path", pl.col("_table_index").cast(pl.Int64).alias(names[1]), "obs_intervals"
        ).unique(["_nwb_path", names[1]], keep="first", maintain_order=True),
        on=names[:2],
        maintain_order="left",
    )
    known_rows = [row for row, key in zip(expectation, frame.rows(), strict=True) if key[:2] in known]
    assert lazynwb.insert_is_observed(carried)["is_observed"].to_list() == known_rows


# --- rules, one by one ----------------------------------------------------------------------------------

ONE = unit_frame([("a", 0, [0.0, 1.0, 1.5, 2.0], [(0.0, 1.5), (1.5, 3.0)])])


def of_one(start, stop, units=ONE, **options):
    return find(units, BOUNDS, trial_frame([("a", 0, start, stop, 0.0)]), **options).row(0, named=True)


def test_intervals_exclude_their_stop():
    assert of_one(1.0, 2.0)["spikes"] == [1.0, 1.5]
    assert of_one(1.0, 1.0)["spikes"] == []


def test_an_interval_that_stops_before_its_start_is_null():
    assert of_one(2.0, 1.0)["spikes"] is None
    assert of_one(2.0, 1.0, as_counts=True)["spikes"] is None
    assert of_one(2.0, 1.0)["is_observed"] is None


def test_adjacent_observed_intervals_are_merged():
    assert of_one(1.0, 2.0)["is_observed"] is True
    assert of_one(1.0, 3.5)["is_observed"] is False
    assert of_one(1.0, 3.5)["spikes"] is None
    assert of_one(1.0, 3.5, apply_obs_intervals=False)["spikes"] == [1.0, 1.5, 2.0]


def test_adjacent_doubles_are_distinguished():
    here = 3600.123456789
    units = unit_frame([("a", 0, [np.nextafter(here, 0), here, np.nextafter(here, 4000)], None)])
    assert of_one(here, np.nextafter(here, 4000), units)["spikes"] == [here]
    units = unit_frame([("a", 0, [], [(0.0, np.nextafter(here, 0)), (here, 4000.0)])])
    assert of_one(1.0, 3700.0, units)["is_observed"] is False


def test_each_interval_is_checked_separately():
    units = unit_frame([("a", 0, [0.5, 2.5], [(0.0, 1.0)])])
    trials = trial_frame([("a", 0, 0.0, 1.0, None), ("a", 1, 0.0, 0.5, None)])
    late = (pl.col("start_time") + 2, pl.col("stop_time") + 2)
    frame = find(units, {"early": ("start_time", "stop_time"), "late": late}, trials)
    assert frame["early"].to_list() == [[0.5], []]
    assert frame["late"].to_list() == [None, None]
    assert frame["is_observed"].to_list() == [False, False]


def test_bounds_are_columns_expressions_or_numbers():
    trials = trial_frame([("a", 4, 1.0, 2.0, 0.5), ("a", 5, 2.0, 3.0, None)])
    bounds = {
        "column": ("start_time", "stop_time"),
        "expression": (pl.col("zero") - 0.5, pl.col("zero") + 0.75),
        "number": (0, 1.75),
    }
    frame = find(ONE, bounds, trials)
    assert frame["column"].to_list() == [[1.0, 1.5], [2.0]]
    assert frame["expression"].to_list() == [[0.0, 1.0], None]
    assert frame["number"].to_list() == [[0.0, 1.0, 1.5]] * 2
    assert frame["_intervals_table_index"].to_list() == [4, 5]


def test_expressions_and_conditions_see_one_session_at_a_time():
    units = unit_frame([("b", 0, [0.5, 5.0], None), ("a", 0, [0.5, 5.0], None)])
    trials = trial_frame([("a", 0, 0.0, 1.0, 0.0), ("b", 0, 5.0, 6.0, 0.0), ("a", 1, 2.0, 3.0, 0.0)])
    until_next = {"spikes": ("start_time", pl.col("start_time").shift(-1))}
    frame = find(units, until_next, trials)
    assert frame.select("_nwb_path", "spikes").rows() == [("b", None), ("a", [0.5]), ("a", None)]
    last = pl.col("start_time") == pl.col("start_time").max()
    frame = find(units, BOUNDS, trials, intervals_df_filter=last)
    assert frame.select("_nwb_path", "_intervals_table_index").rows() == [("b", 0), ("a", 1)]
    frame = find(units, BOUNDS, trials, "start_time >= 2 AND stop_time < 4")
    assert frame.select("_nwb_path", "_intervals_table_index").rows() == [("a", 1)]


def test_repeated_units_have_repeated_rows():
    frame = find(pl.concat([ONE, ONE]), BOUNDS, trial_frame([("a", 0, 0.0, 1.0, 0.0)]))
    assert frame["spikes"].to_list() == [[0.0], [0.0]]


def test_columns_of_both_tables_are_included():
    units = ONE.with_columns(zero=pl.lit("unit"), quality=pl.lit(0.5), template=pl.lit([1, 2]))
    frame = find(units, BOUNDS, trial_frame([("a", 3, 0.0, 1.0, 0.25)]))
    head = ["_units_table_index", "_intervals_table_index", "_nwb_path", "spikes", "is_observed"]
    trials = ["start_time", "stop_time", "zero"]
    assert frame.columns == [*head, *trials, "zero_right", "quality", "template"]
    assert frame.row(0) == (0, 3, "a", [0.0], True, 0.0, 1.0, 0.25, "unit", 0.5, [1, 2])
    bare = find(units, BOUNDS, trial_frame([("a", 3, 0.0, 1.0, 0.25)]), keep_only_necessary_cols=True)
    assert bare.columns == head[:4]


def test_counts_can_be_subtracted():
    frame = find(
        ONE, {"before": (0, 1.6), "after": (1.6, 3)}, trial_frame([("a", 0, 0, 1, 0)]), as_counts=True
    )
    assert frame.schema["before"] == pl.Int64
    assert frame.select(pl.col("after") - pl.col("before")).item() == -2


def test_rows_of_frames_without_row_numbers_are_numbered():
    trials = trial_frame([("a", 7, 0.0, 1.0, 0.0), ("a", 7, 0.0, 1.0, 0.0)]).drop("_table_index")
    assert find(ONE, BOUNDS, trials)[lazynwb.INTERVALS_TABLE_INDEX_COLUMN_NAME].to_list() == [0, 1]


def test_integer_and_single_precision_spikes():
    for dtype in (pl.Float32, pl.Int32):
        units = ONE.with_columns(pl.col("spike_times").cast(pl.List(dtype)))
        assert of_one(0.0, 1.0, units)["spikes"] == [0.0]
    units = ONE.with_columns(pl.Series("spike_times", [[0.5, 1.5]], dtype=pl.Array(pl.Float64, 2)))
    assert of_one(0.0, 1.0, units)["spikes"] == [0.5]


@pytest.mark.parametrize(
    "dtype", [OBS, pl.List(pl.List(pl.Float64)), pl.Array(pl.Float64, (2, 2)), pl.List(pl.Array(pl.Int16, 2))]
)
def test_observed_intervals_of_every_type(dtype):
    units = ONE.with_columns(pl.Series("obs_intervals", [[[0, 1], [1, 2]]], dtype=dtype))
    assert [of_one(0.5, stop, units)["is_observed"] for stop in (1.5, 2.5)] == [True, False]


def test_one_observed_interval_for_each_unit():
    obs = pl.Series("obs_intervals", [[0, 1], None], dtype=pl.Array(pl.Float64, 2))
    units = pl.concat([ONE, ONE]).with_columns(obs)
    frame = find(units, BOUNDS, trial_frame([("a", 0, 0.5, 1.5, 0.0)]))
    assert frame["is_observed"].to_list() == [False, True]


def test_many_units_are_processed_in_blocks():
    rng = np.random.default_rng(0)
    units = [("ab"[k % 2], k, rng.uniform(0, 9, k % 7).tolist(), [(1.0, 8.0)]) for k in range(600)]
    trials = [("ab"[k % 3 == 0], k, k / 2, k / 2 + 3, 0.0) for k in range(12)]
    lazy = find(unit_frame(units).lazy(), BOUNDS, trial_frame(trials))
    assert_rows(lazy.collect(), expected(units, trials))
    assert_rows(find(unit_frame(units), BOUNDS, trial_frame(trials)), expected(units, trials))


# --- errors ---------------------------------------------------------------------------------------------

TRIAL = trial_frame([("a", 0, 0.0, 1.0, 0.0)])


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: find(ONE, BOUNDS, TRIAL, as_counts=True, align_times=True), ValueError, "aligned"),
        (lambda: find(ONE, {}, TRIAL), ValueError, "intervals is empty"),
        (lambda: find(ONE.drop("_nwb_path"), BOUNDS, TRIAL), ColumnNotFoundError, "units.*_nwb_path"),
        (lambda: find(ONE.drop("_table_index"), BOUNDS, TRIAL), ColumnNotFoundError, "_table_index"),
        (lambda: find(ONE, BOUNDS, TRIAL.drop("_nwb_path")), ColumnNotFoundError, "intervals.*_nwb_path"),
        (lambda: find(ONE, {"zero": ("start_time", 1)}, TRIAL), SchemaError, "column 'zero' already"),
        (lambda: find(ONE, {"_nwb_path": ("start_time", 1)}, TRIAL), SchemaError, "_nwb_path"),
        (
            lambda: find(ONE, {"x": ("_nwb_path", 1)}, TRIAL),
            SchemaError,
            "start of the interval 'x' is String",
        ),
        (lambda: find(ONE, {"x": (None, 1)}, TRIAL), TypeError, "start of the interval 'x'"),
        (lambda: find([1], BOUNDS, TRIAL), TypeError, "frame"),
        (
            lambda: find(ONE, {"x": ("start_tim", 1)}, TRIAL),
            ColumnNotFoundError,
            "'start_tim'; did you mean 'start_time'",
        ),
        (lambda: find(ONE, {"x": "ab"}, TRIAL), TypeError, "'x' must be a pair"),
        (
            lambda: find(ONE.with_columns(obs_intervals=pl.lit([1.0])), BOUNDS, TRIAL),
            SchemaError,
            "obs_intervals is List",
        ),
        (
            lambda: find(ONE.with_columns(spike_times=pl.lit("x")), BOUNDS, TRIAL),
            SchemaError,
            "spike_times is String",
        ),
        (lambda: lazynwb.insert_is_observed(TRIAL, ONE), ColumnNotFoundError, "_units_table_index"),
        (lambda: lazynwb.insert_is_observed(TRIAL.drop("stop_time"), ONE), ColumnNotFoundError, "stop_time"),
    ],
)
def test_errors_name_the_problem(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_calls_without_a_file_suggest_alternatives():
    moved = pl.lit("/nowhere.nwb").alias("_nwb_path")
    with pytest.raises(SourceNotFoundError) as caught:
        find(ONE.drop("obs_intervals").with_columns(moved), BOUNDS, TRIAL.with_columns(moved))
    assert "apply_obs_intervals=False" in caught.value.__notes__[0]


# --- files ----------------------------------------------------------------------------------------------


def write_pynwb(path, number):
    """A session as pynwb writes it; returns its units and trials for the oracle."""
    rng = np.random.default_rng(number)
    file = pynwb.NWBFile("a session", f"id{number}", pd.Timestamp("2024-01-01", tz="UTC").to_pydatetime())
    file.add_unit_column("location", "where")
    units, trials = [], []
    for unit in range(9):
        times = np.sort(rng.uniform(0, 20, rng.integers(0, 80)))
        times = rng.permutation(times) if unit == 4 else times
        obs = [[0.0, 8.0], [8.0, 16.0]] if unit % 2 else [[2.0, 20.0]]
        file.add_unit(spike_times=times, obs_intervals=np.array(obs), location=["CA1", "VISp"][unit % 2])
        units.append((str(path), unit, times.tolist(), obs))
    file.add_trial_column("stim_time", "when")
    file.add_trial_column("note", "text that no query here asks for")
    for trial in range(15 + number):
        start = float(rng.uniform(0, 18))
        stim = NAN if trial == 3 else start + 0.5
        file.add_trial(start_time=start, stop_time=start + 1.5, stim_time=stim, note="x" * 50)
        trials.append((str(path), trial, start, start + 1.5, stim))
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(file)
    return units, trials


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spikes")
    paths = [folder / f"{k}.nwb" for k in range(3)]
    written = [write_pynwb(path, k) for k, path in enumerate(paths)]
    return (
        paths,
        [unit for units, _ in written for unit in units],
        [t for _, trials in written for t in trials],
    )


@pytest.mark.long
@pytest.mark.parametrize("kind", ["times", "counts", "aligned"])
def test_files_that_pynwb_wrote(sessions, kind):
    paths, units, trials = sessions
    rows = expected(units, trials, kind=kind)
    scan = lazynwb.scan_nwb(paths, "/units")
    light = scan.select("location", "_nwb_path", "_table_path", "_table_index").collect()
    for given_units in (
        scan,
        scan.collect(),
        light,
        light.drop("_table_path"),
        light.lazy(),
        light.to_pandas(),
    ):
        for given_trials in ("/intervals/trials", "trials", lazynwb.scan_nwb(paths, "trials")):
            found = find(given_units, BOUNDS, given_trials, as_polars=True, **options_of(kind))
            frame = found.lazy().collect()
            assert_rows(frame, rows)
            assert {"location", "stim_time", "note"} < set(frame.columns)
    few = light.filter(location="CA1").sample(fraction=1, shuffle=True, seed=1)
    order = few.select("_nwb_path", "_table_index").rows()
    chosen = [next(unit for unit in units if unit[:2] == key) for key in order]
    assert_rows(find(few, BOUNDS, **options_of(kind)), expected(chosen, trials, kind=kind))


def test_observed_intervals_are_read_from_the_files(sessions):
    paths, units, trials = sessions
    light = lazynwb.scan_nwb(paths, "/units").select("_nwb_path", "_table_path", "_table_index")
    frame = find(light.collect(), BOUNDS)
    bare = frame.drop("is_observed")
    for more in ((), (light,), (light.collect(),)):
        assert_frame_equal(lazynwb.insert_is_observed(bare, *more), bare.with_columns(frame["is_observed"]))
    assert_rows(lazynwb.insert_is_observed(bare), expected(units, trials))


def test_the_kind_of_frame_is_kept_unless_another_is_requested(sessions):
    light = lazynwb.scan_nwb(sessions[0], "/units").select("_nwb_path", "_table_path", "_table_index")
    frame = light.collect()
    assert isinstance(find(frame, BOUNDS), pl.DataFrame)
    assert isinstance(find(light, BOUNDS), pl.LazyFrame)
    assert isinstance(find(light, BOUNDS, as_polars=False), pd.DataFrame)
    assert isinstance(find(frame, BOUNDS, as_polars=False), pd.DataFrame)
    assert isinstance(find(frame.to_pandas(), BOUNDS), pd.DataFrame)
    assert isinstance(find(frame.to_pandas(), BOUNDS, as_polars=True), pl.DataFrame)
    lazynwb.config.use_polars = True
    assert isinstance(find(frame.to_pandas(), BOUNDS), pl.DataFrame)


def test_a_session_without_the_table_or_columns(sessions, tmp_path):
    path = tmp_path / "other.nwb"
    with h5py.File(path, "w") as file:
        nwb_root(file)
        table(file, "units", {"spike_times": Ragged([[1.0], [2.0]])}, kind="Units")
    alone = lazynwb.read_nwb(path, "/units").drop("spike_times")
    with pytest.raises(TableNotFoundError, match="no table /intervals/trials"):
        find(alone, BOUNDS)
    both = lazynwb.read_nwb([*sessions[0], path], "/units").select(alone.columns)
    assert set(find(both, BOUNDS)["_nwb_path"]) == {str(path) for path in sessions[0]}
    trials = pl.DataFrame({"_nwb_path": [str(path)], "start_time": [0.0], "stop_time": [1.5]})
    frame = find(alone, BOUNDS, trials)
    assert frame.select("spikes", "is_observed").rows() == [([1.0], True), ([], True)]
    nobody = both.clear()
    assert find(nobody, BOUNDS).is_empty()
    assert find(nobody.lazy(), BOUNDS).collect().columns == find(nobody, BOUNDS).columns


def test_a_remote_session(sessions):
    paths, units, trials = sessions
    with RangeServer(paths[0].parent) as server:
        url = server.url_of(paths[0].name)
        scan = lazynwb.scan_nwb(url, "/units")
        rows = expected(units[:9], trials[:15])
        for given_units in (scan, scan.select("_nwb_path", "_table_path", "_table_index").collect()):
            frame = find(given_units, BOUNDS).lazy().collect()
            assert frame["spikes"].to_list() == [row["spikes"] for row in rows]
            assert frame["is_observed"].to_list() == [row["is_observed"] for row in rows]


def test_a_query_can_be_pickled(sessions):
    units = lazynwb.scan_nwb(sessions[0], "/units")
    lazy = find(units, BOUNDS).drop("is_observed")
    for query in (lazy, lazynwb.insert_is_observed(lazy), lazynwb.insert_is_observed(lazy, units)):
        again = pickle.loads(pickle.dumps(query))  # noqa: S301 - its own
        assert_frame_equal(again.collect(), query.collect())


def test_a_file_without_spike_times_has_nulls(sessions, tmp_path):
    path = tmp_path / "no_spikes.nwb"
    with h5py.File(path, "w") as file:
        nwb_root(file)
        table(file, "units", {"quality": np.arange(300.0)}, kind="Units")
        table(file, "intervals/trials", {"start_time": [0.0], "stop_time": [1.0]}, kind="TimeIntervals")
    columns = ["_nwb_path", "_table_path", "_table_index"]
    alone = lazynwb.read_nwb(path, "/units").select(columns)
    with pytest.raises(ColumnNotFoundError, match="spike_times"):
        find(alone, BOUNDS)
    for paths in ([*sessions[0], path], [path, *sessions[0]]):
        units = lazynwb.scan_nwb(paths, "/units")
        for given_units in (units, units.select(columns).collect()):
            frame = find(given_units, BOUNDS).lazy().collect()
            without = pl.col("_nwb_path") == str(path)
            assert frame.filter(without)["spikes"].to_list() == [None] * 300
            rows = expected(*sessions[1:])
            assert frame.filter(~without)["spikes"].to_list() == [row["spikes"] for row in rows]


# --- costs ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def heavy(tmp_path_factory):
    """A session of contiguous columns, so that the bytes read can be counted."""
    path = tmp_path_factory.mktemp("heavy") / "heavy.nwb"
    rng = np.random.default_rng(0)
    spikes = [np.sort(rng.uniform(0, 100, 1000 + unit)) for unit in range(40)]
    with h5py.File(path, "w") as file:
        nwb_root(file)
        units = {
            "spike_times": Ragged(spikes, index_dtype="u4"),
            "obs_intervals": Ragged([[(0.0, 100.0)]] * 40, inner=(2,), index_dtype="u4"),
            "waveform_mean": rng.normal(size=(40, 50, 20)),
            "quality": np.arange(40.0),
        }
        table(file, "units", units, kind="Units")
        trials = {f"c{k}": rng.normal(size=200) for k in range(20)}
        starts = np.linspace(0, 99, 200)
        table(
            file,
            "intervals/trials",
            {"start_time": starts, "stop_time": starts + 1, **trials},
            kind="TimeIntervals",
        )
    return path


def bytes_used(run):
    run()  # the catalog is known
    with lazynwb.profile() as profile:
        run()
    return profile.bytes_used


SPIKES_OF_TWO = 8 * (1007 + 1030)
INDEX = 40 * 4
TIMES = 2 * 200 * 8


@pytest.mark.usefixtures("no_store")
def test_only_the_spikes_of_the_units_given_are_read(heavy):
    columns = ["_nwb_path", "_table_path", "_table_index"]
    units = (
        lazynwb.scan_nwb(heavy, "/units")
        .filter(pl.col("quality").is_in([7.0, 30.0]))
        .select(columns)
        .collect()
    )
    bare = {"keep_only_necessary_cols": True, "apply_obs_intervals": False}
    used = bytes_used(lambda: find(units, BOUNDS, **bare))
    assert SPIKES_OF_TWO + TIMES < used <= SPIKES_OF_TWO + TIMES + INDEX
    used = bytes_used(lambda: find(units, BOUNDS, keep_only_necessary_cols=True))
    assert used <= SPIKES_OF_TWO + TIMES + 2 * (INDEX + 16) + INDEX


@pytest.mark.usefixtures("no_store")
def test_a_lazy_query_reads_only_its_columns(heavy):
    units = lazynwb.scan_nwb(heavy, "/units").filter(pl.col("quality").is_in([7.0, 30.0]))
    lazy = find(units, BOUNDS, lazynwb.scan_nwb(heavy, "trials"))
    with lazynwb.profile() as nothing:
        find(units, BOUNDS, lazynwb.scan_nwb(heavy, "trials")).select("spikes").filter(pl.len() > 0)
    assert nothing.bytes_used == 0
    quality = 40 * 8
    used = bytes_used(lambda: lazy.select("spikes").collect())
    assert used <= SPIKES_OF_TWO + TIMES + quality + 2 * INDEX + 2 * 16 + INDEX
    assert bytes_used(lambda: lazy.select("is_observed").collect()) <= TIMES + quality + INDEX + 2 * 16
    assert bytes_used(lambda: lazy.select("c3").collect()) == 200 * 8 + quality
    assert bytes_used(lambda: lazy.select(pl.len()).collect()) == quality


@pytest.mark.usefixtures("no_store")
def test_unrequested_observed_intervals_are_not_read(heavy):
    frame = find(lazynwb.scan_nwb(heavy, "/units"), BOUNDS).drop("is_observed")
    added = lazynwb.insert_is_observed(frame.collect().lazy())
    assert bytes_used(lambda: added.select("start_time").collect()) == 0
    assert bytes_used(lambda: added.select("is_observed").collect()) <= 40 * 16 + INDEX + 8


# --- the page of the documentation ----------------------------------------------------------------------


def test_the_examples_of_the_documentation(tmp_path, monkeypatch):
    write_cube(tmp_path / "data", 2, 40, trials=50, waveform_shape=(4, 2))
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parent.parent / "docs" / "spikes.md").read_text()
    names = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        if "matplotlib" not in block or importlib.util.find_spec("matplotlib"):
            exec(block, names)  # noqa: S102 - what readers do
    with h5py.File(tmp_path / "data" / "700000_2024-01-02.nwb") as file:
        units, trials = file["units"], file["intervals/trials"]
        quality = (units["presence_ratio"][:] >= 0.7) & (units["isi_violations_ratio"][:] <= 0.5)
        chosen = np.flatnonzero((units["location"].asstr()[:] == "CA1") & quality)
        assert len(chosen)
        stimuli = trials["stim_start_time"][:]
        ends = units["spike_times_index"][:].astype(int)
        times = [
            units["spike_times"][end - n : end] for end, n in zip(ends, np.diff(ends, prepend=0), strict=True)
        ]
        shown = stimuli[trials["is_vis_stim"][:]]
    bins = np.linspace(-0.5, 1, 31)
    counts = sum(np.histogram(times[unit] - stimulus, bins)[0] for unit in chosen for stimulus in shown)
    # Trials whose window ends after the session are not observed; the last one may be.
    inside = sum(stimulus >= 0.5 and stimulus + 1 <= 3600 for stimulus in shown)
    assert len(names["raster"]) == inside
    assert len(names["pairs"]) == inside * len(chosen)
    if inside == len(shown):
        assert abs(names["counts"] - counts).sum() <= 2  # a spike on a bin's edge
    assert names["rate"].shape == (30,)
    assert len(names["responses"]) == len(chosen) * len(set(names["responses"]["stim_name"]))
    observed = names["observed"].sort("start_time")
    assert observed["is_observed"].to_list() == [True] * len(chosen) + [False] * len(chosen)
