"""`get_df` and `get`: the requested columns and rows, and nothing else is read."""

import functools

import h5py
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given

import lazynwb
from builders import Ragged, nwb_root, table
from checks import INTERNAL, assert_frames, assert_values, same
from lazynwb.errors import (
    ColumnNotFoundError,
    LazyNWBError,
    NotNWBError,
    SourceNotFoundError,
    TableNotFoundError,
)
from range_server import RangeServer
from readers import hdf5_tables as oracle

units = functools.cache(functools.partial(oracle.read_table, table_path="/units"))
ARRAYS = ["obs_intervals", "spike_times", "waveform_mean"]


def polars_df(*args, **kwargs):
    return lazynwb.get_df(*args, as_polars=True, **kwargs)


@pytest.mark.parametrize("term", ["/units", "units", "UNITS", "/intervals/trials", "trials", "performance"])
def test_a_table_equals_scan_nwb_in_the_order_of_the_sources(cube, term):
    sources = cube[::-1]
    frame = polars_df(sources, term, exclude_array_columns=False)
    path = {"UNITS": "units", "performance": "intervals/performance"}.get(term, term)
    assert_frames(frame, lazynwb.read_nwb(sources, path))


def test_values_equal_h5py(cube):
    frame = lazynwb.get_df(cube[:2], "units", exclude_array_columns=False)
    at = 0
    for path in cube[:2]:
        with h5py.File(path) as file:
            units = file["units"]
            ends = units["spike_times_index"][:].astype(int)
            for row, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
                np.testing.assert_array_equal(frame["spike_times"][at], units["spike_times"][start:end])
                np.testing.assert_array_equal(frame["waveform_mean"][at], units["waveform_mean"][row])
                assert frame["location"][at] == units["location"].asstr()[row]
                assert same(frame["amplitude_cutoff"][at], units["amplitude_cutoff"][row])
                assert (frame["_nwb_path"][at], frame["_table_index"][at]) == (str(path), row)
                at += 1
    assert len(frame) == at


def test_pandas_by_default_and_polars_on_request(cube):
    assert isinstance(lazynwb.get_df(cube[0], "units"), pd.DataFrame)
    assert isinstance(lazynwb.get_df(cube[0], "units", as_polars=True), pl.DataFrame)
    lazynwb.config.use_polars = True
    assert isinstance(lazynwb.get_df(cube[0], "units"), pl.DataFrame)
    assert isinstance(lazynwb.get_df(cube[0], "units", as_polars=False), pd.DataFrame)


def test_array_columns_are_excluded_and_not_read(cube):
    with lazynwb.profile() as p:
        frame = polars_df(cube, "units")
    assert set(ARRAYS).isdisjoint(frame.columns)
    assert "unit_id" in frame.columns
    assert frame.columns[-3:] == list(INTERNAL)
    assert p.chunks_decoded == 0  # only arrays are compressed in these files


def test_lists_of_metadata_are_included(cube):
    frame = polars_df(cube, "session")
    assert frame["keywords"].to_list()[1] == ["production", "ecephys"]
    assert frame["session_id"].to_list() == [f"s{k}" for k in range(6)]


@pytest.mark.parametrize("names", ["spike_times", ["spike_times"], ("spike_times",), {"spike_times"}])
def test_a_column_that_is_named_is_included_even_if_it_is_an_array(cube, names):
    with lazynwb.profile() as p:
        frame = polars_df(cube, "units", include_column_names=names)
    assert frame.columns == ["spike_times", *INTERNAL]
    with lazynwb.profile() as scanned:
        lazynwb.scan_nwb(cube, "/units").select("spike_times").collect()
    assert p.chunks_decoded == scanned.chunks_decoded > 0
    assert p.bytes_used == scanned.bytes_used


@pytest.mark.usefixtures("no_store")
def test_only_the_columns_that_are_named_are_read(cube):
    lazynwb.get_df(cube, "units")
    with lazynwb.profile() as p:
        polars_df(cube, "units", include_column_names=["presence_ratio", "activity_drift"])
    assert p.bytes_used == 6 * 40 * 2 * 8


@pytest.mark.parametrize("names", ["unit_id", ["unit_id", "spike_times", "no_such_column"]])
def test_columns_that_are_excluded(cube, names):
    frame = polars_df(cube, "units", exclude_column_names=names, exclude_array_columns=False)
    all_columns = lazynwb.read_nwb(cube, "/units")
    assert_frames(frame, all_columns.drop(names, strict=False))


def test_names_that_are_patterns_in_polars(tmp_path):
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        table(file, "t", {"*": [1, 2], "^x.*$": [3, 4], "xy": [5, 6]})
    frame = polars_df(tmp_path / "a.nwb", "t", include_column_names=["*", "^x.*$"])
    assert frame.columns == ["*", "^x.*$", *INTERNAL]
    rows = polars_df(tmp_path / "a.nwb", "t", include_column_names="*", nwb_path_to_row_indices={
        tmp_path / "a.nwb": [1]
    })  # fmt: skip
    assert rows["*"].to_list() == [2]


def test_an_unknown_column_is_an_error_with_the_closest_names(cube):
    with pytest.raises(ColumnNotFoundError, match=r"'spike_time' in /units; did you mean 'spike_times'\?"):
        lazynwb.get_df(cube, "units", include_column_names=["unit_id", "spike_time"])
    assert issubclass(ColumnNotFoundError, (KeyError,))


def test_a_column_cannot_be_included_and_excluded(cube):
    with pytest.raises(ValueError, match="unit_id"):
        lazynwb.get_df(cube, "units", include_column_names="unit_id", exclude_column_names=["unit_id"])


def test_a_column_of_one_file_is_null_in_the_others(tmp_path):
    for number, columns in enumerate(({"a": [1]}, {"a": [2], "b": Ragged([[1.5]])})):
        with h5py.File(tmp_path / f"{number}.nwb", "w") as file:
            table(file, "t", columns)
    frame = polars_df(tmp_path, "t", include_column_names="b")
    assert frame["b"].to_list() == [None, [1.5]]


def test_files_without_the_table_are_skipped_or_an_error(cube, caplog):
    frame = polars_df(cube, "performance")
    assert len(frame) == 5 * 6
    assert "session_03" in caplog.text
    with pytest.raises(TableNotFoundError, match="session_03"):
        lazynwb.get_df(cube, "performance", raise_on_missing=True)


def test_bad_files_are_an_error_or_skipped(tmp_path, cube):
    bad = tmp_path / "bad.nwb"
    bad.write_bytes(b"nothing")
    for term in ("units", "running_speed"):
        with pytest.raises(NotNWBError, match=r"bad\.nwb"):
            lazynwb.get_df([bad, cube[0]], term)
        assert set(polars_df([bad, cube[0]], term, ignore_errors=True)["_nwb_path"]) == {str(cube[0])}


def test_missing_files_and_tables_are_errors(cube):
    with pytest.raises(SourceNotFoundError):
        lazynwb.get_df([], "units")
    with pytest.raises(TableNotFoundError, match="did you mean /units"):
        lazynwb.get_df(cube, "unit")


# -- rows --------------------------------------------------------------------------------------------------


def test_only_the_given_rows_of_the_given_files_are_read(cube):
    rows = {cube[4]: [39, 0, 7, 7], str(cube[1]): (3,)}
    with lazynwb.profile() as p:
        frame = polars_df(
            cube, "units", include_column_names=["unit_id", "waveform_mean"], nwb_path_to_row_indices=rows
        )
    assert frame["unit_id"].to_list() == ["s1_3", "s4_39", "s4_0", "s4_7", "s4_7"]
    assert frame["_table_index"].to_list() == [3, 39, 0, 7, 7]
    assert frame["_nwb_path"].to_list() == [str(cube[1]), *[str(cube[4])] * 4]
    assert dict(frame.schema) == {
        "unit_id": pl.String,
        "waveform_mean": pl.Array(pl.Float64, (21, 8)),
        **INTERNAL,
    }
    assert p.chunks_decoded == 4  # four units of waveforms to a chunk
    assert p.files_parsed == 2


def test_rows_may_be_numpy_integers_or_empty(cube):
    frame = polars_df(cube[:2], "units", nwb_path_to_row_indices={cube[0]: np.array([2], "u1"), cube[1]: []})
    assert frame["unit_id"].to_list() == ["s0_2"]
    empty = polars_df(cube[:2], "units", nwb_path_to_row_indices={cube[1]: []})
    assert empty.is_empty()
    assert empty.schema == frame.schema


@pytest.mark.parametrize("wrong", [[40], [-1], [0, 99]])
def test_a_row_that_does_not_exist_is_an_error(cube, wrong):
    with pytest.raises(LazyNWBError, match=r"session_00\.nwb: /units has no row"):
        lazynwb.get_df(cube, "units", nwb_path_to_row_indices={cube[0]: wrong})


@pytest.mark.parametrize("wrong", [[0.5], ["a"], [[0]], [True]])
def test_row_numbers_of_other_types_are_an_error(cube, wrong):
    with pytest.raises(LazyNWBError, match="nwb_path_to_row_indices"):
        lazynwb.get_df(cube, "units", nwb_path_to_row_indices={cube[0]: wrong})


def test_rows_of_a_file_outside_the_sources_are_an_error(cube):
    with pytest.raises(LazyNWBError, match=r"session_05\.nwb"):
        lazynwb.get_df(cube[:2], "units", nwb_path_to_row_indices={cube[5]: [0]})


def test_rows_of_a_repeated_file_are_an_error(cube, monkeypatch):
    monkeypatch.chdir(cube[0].parent)
    rows = {cube[0]: [0], cube[0].name: [1]}
    with pytest.raises(LazyNWBError, match=r"session_00\.nwb twice"):
        lazynwb.get_df(cube, "units", nwb_path_to_row_indices=rows)


def test_session_columns_equal_those_of_a_scan(cube):
    options = {"session_columns": {"mouse": "subject_id", "words": "keywords"}}
    every = lazynwb.scan_nwb(cube, "units", **options).collect()
    found = polars_df(cube, "units", **options)
    assert found.columns[-5:] == ["mouse", "words", *INTERNAL]
    assert_frames(found, every.select(found.columns))
    named = polars_df(cube, "units", include_column_names="id", exclude_column_names="words", **options)
    assert named.columns == ["id", "mouse", *INTERNAL]
    rows = {cube[3]: [7, 2], cube[1]: [5]}
    few = polars_df(cube, "units", nwb_path_to_row_indices=rows, **options)
    taken = pl.concat([every.filter(pl.col("_nwb_path") == str(p))[r] for p, r in sorted(rows.items())])
    assert_frames(few, taken.select(few.columns))
    assert few.columns == found.columns


@given(data=st.data())
def test_any_rows_of_any_files(cube, data):
    rows = {
        path: data.draw(st.lists(st.integers(0, 39), max_size=8))
        for path in data.draw(st.lists(st.sampled_from(cube), min_size=1, unique=True))
    }
    names = ["spike_times", "location", "obs_intervals"]
    frame = polars_df(cube, "units", include_column_names=names, nwb_path_to_row_indices=rows)
    for name in names:
        stored = {path: units(path).columns[name] for path in rows}
        expected = [stored[path][row] for path in cube if path in rows for row in rows[path]]
        assert_values(frame[name].to_list(), expected, name)


# -- remote files, and series ------------------------------------------------------------------------------


def test_remote_files(cube):
    with RangeServer(cube[0].parent) as server:
        urls = [server.url_of(path.name) for path in cube]
        frame = polars_df(urls, "units", include_column_names=["unit_id", "spike_times"])
        local = polars_df(cube, "units", include_column_names=["unit_id", "spike_times"])
        assert frame["_nwb_path"].unique(maintain_order=True).to_list() == urls
        assert_frames(frame.drop("_nwb_path"), local.drop("_nwb_path"))
        rows = {urls[3]: [5, 2]}
        frame = polars_df(
            urls, "units", nwb_path_to_row_indices=rows, storage_options={"headers": {"x": "y"}}
        )
        assert frame["unit_id"].to_list() == ["s3_5", "s3_2"]


def test_get_returns_a_frame_for_a_table(cube):
    assert_frames(lazynwb.get(cube, "trials", as_polars=True), polars_df(cube, "trials"))
    frame = lazynwb.get(cube[0], "trials", include_column_names="start_time")
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns) == ["start_time", *INTERNAL]


@pytest.mark.parametrize(
    "term", ["running_speed", "/processing/behavior/running_speed", "behavior/running_speed"]
)
def test_get_returns_a_series_for_a_series_of_one_file(cube, term):
    found = lazynwb.get(cube[0], term)
    assert isinstance(found, lazynwb.TimeSeries)
    with h5py.File(cube[0]) as file:
        np.testing.assert_array_equal(found.data[:], file["processing/behavior/running_speed/data"][:])
    assert found.rate == 60.0


def test_get_returns_a_frame_for_a_series_on_request_and_for_several_files(cube):
    one = lazynwb.get(cube[0], "running_speed", as_df=True, as_polars=True)
    assert_frames(one, lazynwb.read_nwb(cube[0], "/processing/behavior/running_speed"))
    many = lazynwb.get(cube, "running_speed", as_polars=True)
    assert_frames(many, lazynwb.read_nwb(cube, "/processing/behavior/running_speed"))


def test_get_raises_the_errors_of_get_df(cube, tmp_path):
    with h5py.File(tmp_path / "twins.nwb", "w") as file:
        nwb_root(file)
        for side in ("left", "right"):
            table(file, f"processing/{side}/events", {"x": [1]})
    with pytest.raises(TableNotFoundError, match="/processing/left/events, /processing/right/events"):
        lazynwb.get(tmp_path / "twins.nwb", "events")
    with pytest.raises(TableNotFoundError):
        lazynwb.get(cube, "running_speed", exact_path=True)
