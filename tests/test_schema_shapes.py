"""Scalars and lists of the NWB schema keep their dimensions in any stored shape."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pytest

import lazynwb
from lazynwb.cli import main
from lazynwb.errors import CorruptDataError, SchemaError
from range_server import RangeServer
from zarr_stores import Writer

TEXT = h5py.string_dtype()


def write(path, datasets, attributes=None):
    """Write datasets, then attributes, by path, as MATLAB or MIES might store them."""
    with h5py.File(path, "w") as file:
        file.attrs["neurodata_type"] = "NWBFile"
        for name, value in datasets.items():
            file[name] = value
        for name, found in (attributes or {}).items():
            for key, value in found.items():
                file[name].attrs[key] = value
    return str(path)


def as_zarr(path, source):
    """Write a Zarr store with the groups and the numeric datasets of an HDF5 file."""
    writer = Writer(2, [])

    def visit(name, item):
        attributes = {key: np.asarray(value).tolist() for key, value in item.attrs.items()}
        if isinstance(item, h5py.Group):
            writer.group(name, **attributes)
        else:
            writer.array(name, item[()], tuple(max(n, 1) for n in item.shape), **attributes)

    with h5py.File(source) as file:
        writer.group("", neurodata_type="NWBFile")
        file.visititems(visit)
    return str(writer.write(path))


@pytest.fixture(params=[(1,), (1, 1)], ids=str)
def one_element(request, tmp_path):
    """Two sessions: one stores scalars with one element and a list as a scalar, the other neither."""
    datasets = {
        "identifier": "a",
        "session_start_time": "2024-01-01T00:00:00+00:00",
        "general/session_id": "s",
        "general/subject/sex": "F",
        "general/subject/subject_id": "m",
    }
    odd = {name: np.full(request.param, value, TEXT) for name, value in datasets.items()}
    keywords = np.array(["x", "y"], TEXT)
    return [
        write(tmp_path / "odd.nwb", {**odd, "general/keywords": "x"}),
        write(tmp_path / "plain.nwb", {**datasets, "general/keywords": keywords}),
    ]


def test_scalars_of_one_element_are_scalars_in_every_file(one_element):
    session = lazynwb.scan_nwb(one_element, "/general").collect()
    assert session["session_id"].to_list() == ["s", "s"]
    assert session["identifier"].to_list() == ["a", "a"]
    subject = lazynwb.scan_nwb(one_element, "/general/subject").filter(pl.col("sex") == "F").collect()
    assert subject["subject_id"].to_list() == ["m", "m"]


def test_lists_stored_as_scalars_are_lists(one_element):
    assert lazynwb.scan_nwb(one_element, "session").collect()["keywords"].to_list() == [["x"], ["x", "y"]]


def test_other_readers_of_metadata_agree(one_element):
    frame = lazynwb.get_metadata_df(one_element, as_polars=True)
    assert frame["sex"].to_list() == ["F", "F"]
    assert frame["session_start_time"].dtype == pl.Datetime("us", "UTC")
    assert frame["keywords"].to_list() == [["x"], ["x", "y"]]
    sql = lazynwb.get_sql_context(one_element)
    assert sql.execute("SELECT sex FROM subject", eager=True)["sex"].to_list() == ["F", "F"]
    assert lazynwb.LazyNWB(one_element[0]).subject.sex == "F"
    assert lazynwb.LazyNWB(one_element[0]).identifier == "a"


def test_several_elements_are_never_truncated_and_none_is_null(tmp_path):
    several = write(tmp_path / "several.nwb", {"general/subject/sex": np.array(["F", "M"], TEXT)})
    none = write(tmp_path / "none.nwb", {"general/subject/sex": np.array([], TEXT)})
    assert lazynwb.scan_nwb(several, "subject").collect()["sex"].to_list() == [["F", "M"]]
    assert lazynwb.scan_nwb(none, "subject").collect()["sex"].to_list() == [None]


@pytest.fixture(params=["hdf5", "zarr"])
def matlab(request, tmp_path):
    datasets = {
        "units/id": np.arange(3).reshape(3, 1),
        "units/spike_times": np.arange(6.0).reshape(1, 6),
        "units/spike_times_index": np.array([[1], [3], [6]]),
        "units/quality": np.arange(3.0),
        "units/own": np.arange(3.0).reshape(3, 1),
    }
    attributes = {
        "units": {"neurodata_type": "Units", "colnames": ["spike_times", "quality", "own"]},
        "units/spike_times_index": {"neurodata_type": "VectorIndex"},
        "units/spike_times": {"neurodata_type": "VectorData"},
    }
    path = write(tmp_path / "m.nwb", datasets, attributes)
    return path if request.param == "hdf5" else as_zarr(tmp_path / "m.nwb.zarr", path)


def test_lists_of_the_schema_stored_as_columns_or_rows_are_lists(matlab):
    frame = lazynwb.scan_nwb(matlab, "/units").collect()
    assert frame["id"].to_list() == [0, 1, 2]
    assert frame["spike_times"].to_list() == [[0.0], [1.0, 2.0], [3.0, 4.0, 5.0]]
    # A column of the user keeps its shape: pynwb writes (n, 1) on purpose.
    assert frame["own"].dtype == pl.Array(pl.Float64, 1)


def test_a_filter_reads_the_same_rows(matlab):
    filtered = lazynwb.scan_nwb(matlab, "/units").filter(pl.col("quality") == 2)
    assert filtered.select("id", "spike_times").collect().rows() == [(2, [3.0, 4.0, 5.0])]


def test_a_chunked_list_stored_as_a_row_is_a_list(tmp_path):
    path = tmp_path / "chunked.nwb"
    with h5py.File(path, "w") as file:
        group = file.create_group("acquisition/s")
        group.attrs["neurodata_type"] = "TimeSeries"
        group["data"] = np.arange(10.0)
        times = np.arange(10.0).reshape(1, 10)
        group.create_dataset("timestamps", data=times, chunks=(1, 4), compression="gzip")
    frame = lazynwb.scan_nwb(str(path), "/acquisition/s")
    assert frame.collect()["timestamps"].to_list() == list(range(10))
    assert frame.filter(pl.col("timestamps") > 6).collect()["data"].to_list() == [7, 8, 9]
    assert lazynwb.get_timeseries(str(path), "s").timestamps[2:5].tolist() == [2, 3, 4]


def test_a_table_of_one_row_whose_index_is_a_scalar_has_one_row(tmp_path):
    attributes = {
        "t": {"neurodata_type": "DynamicTable", "colnames": ["v"]},
        "t/v_index": {"neurodata_type": "VectorIndex"},
    }
    path = write(tmp_path / "one.nwb", {"t/id": 0, "t/v": np.arange(3), "t/v_index": 3}, attributes)
    assert lazynwb.scan_nwb(path, "/t").collect()["v"].to_list() == [[0, 1, 2]]


def test_attributes_of_one_element_are_scalars(tmp_path):
    attributes = {
        "acquisition/s": {"neurodata_type": np.array(["TimeSeries"], TEXT)},
        "acquisition/s/data": {"unit": np.array(["mV"], TEXT), "conversion": np.array([2.0])},
    }
    path = write(tmp_path / "a.nwb", {"acquisition/s/data": np.arange(3.0)}, attributes)
    series = lazynwb.get_timeseries(path, "s")
    assert (series.unit, series.conversion, series.neurodata_type) == ("mV", 2.0, "TimeSeries")
    assert lazynwb.get_attrs(path, "/acquisition/s/data")["unit"] == "mV"


@pytest.fixture
def disagreeing(tmp_path):
    """Two sessions with text in one and a number in the other as the weight of the subject."""
    datasets = {"general/subject/subject_id": "m", "intervals/trials/id": np.arange(2)}
    attributes = {"intervals/trials": {"neurodata_type": "TimeIntervals", "colnames": np.array([], TEXT)}}
    return [
        write(tmp_path / f"{i}.nwb", {**datasets, "general/subject/weight": weight}, attributes)
        for i, weight in enumerate(("20 g", 20.0))
    ]


def test_a_conflict_only_affects_queries_of_the_column(disagreeing):
    trials = lazynwb.scan_nwb(disagreeing, "trials", session_columns="subject_id").collect()
    assert trials["subject_id"].to_list() == ["m"] * 4
    with pytest.raises(SchemaError, match=r"'weight'.*0\.nwb.*1\.nwb.*schema_overrides"):
        lazynwb.scan_nwb(disagreeing, "trials", session_columns="weight")


@pytest.mark.parametrize("version", [2, 3])
def test_a_conflict_of_zarr_stores_only_affects_queries_of_the_column(version, tmp_path, caplog):
    paths = []
    for number, weight in enumerate((True, 20.0)):
        store = Writer(version, [])
        store.group("", neurodata_type="NWBFile")
        store.group("general")
        store.group("general/subject", neurodata_type="Subject")
        store.group("intervals")
        store.array("general/subject/weight", np.array(weight), ())
        store.array("general/subject/age", np.array(number), ())
        store.group("intervals/trials", neurodata_type="TimeIntervals", colnames=["odd", "even"])
        for name, values in {"id": [0, 1], "odd": [weight] * 2, "even": [0.5, 1.5]}.items():
            store.array(f"intervals/trials/{name}", np.array(values), (2,))
        paths.append(str(store.write(tmp_path / f"{number}.nwb")))
    message = r"'(weight|odd)'.*0\.nwb.*1\.nwb.*schema_overrides"
    trials = lazynwb.scan_nwb(paths, "trials", session_columns="age")
    assert trials.select("even", "age").collect().rows() == [(0.5, 0), (1.5, 0), (0.5, 1), (1.5, 1)]
    for scan in (trials, lazynwb.scan_nwb(paths, "/general/subject")):
        with pytest.raises(SchemaError, match=message):
            scan.collect()
    with pytest.raises(SchemaError, match=message):
        lazynwb.scan_nwb(paths, "trials", session_columns="weight")
    assert lazynwb.get_df(paths, "trials", include_column_names="even", as_polars=True).height == 4
    caplog.clear()
    sql = lazynwb.get_sql_context(paths)
    assert sql.execute("SELECT * FROM subject", eager=True)["age"].to_list() == [0, 1]
    assert sql.execute("SELECT even FROM trials", eager=True).height == 4
    assert "subject.weight was left out" in caplog.text
    assert "trials.odd was left out" in caplog.text


def test_sql_excludes_the_column_rather_than_the_table(disagreeing, caplog):
    sql = lazynwb.get_sql_context(disagreeing)
    assert sql.execute("SELECT * FROM subject", eager=True)["subject_id"].to_list() == ["m", "m"]
    assert "subject.weight was left out" in caplog.text
    assert "0.nwb" in caplog.text
    assert "schema_overrides" in caplog.text


def test_sql_explains_a_missing_column(disagreeing):
    sql = lazynwb.get_sql_context(disagreeing)
    for query in (
        "SELECT weight FROM subject",
        "SELECT s.weight FROM subject s",
        "SELECT subject_id FROM subject WHERE weight > 3",
    ):
        with pytest.raises(pl.exceptions.PolarsError, match=r"weight.*0\.nwb.*1\.nwb.*schema_overrides"):
            sql.execute(query)
    with pytest.raises(pl.exceptions.ColumnNotFoundError) as error:
        sql.execute("SELECT height FROM subject", eager=True)
    assert "left out" not in str(error.value)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("chunk", [(1,), (5,)], ids=str)
def test_numbers_of_one_element_in_zarr_are_scalars(tmp_path, version, chunk):
    writer = Writer(version, [])
    for path in ("", "general", "general/subject", "acquisition"):
        writer.group(path)
    writer.array("general/subject/weight", np.array([20.0]), chunk)
    writer.group("acquisition/s", neurodata_type=["TimeSeries"])
    writer.array("acquisition/s/data", np.arange(3.0), (3,), unit=["mV"])
    writer.array("acquisition/s/starting_time", np.array([1.0]), chunk, rate=[10.0])
    store = str(writer.write(tmp_path / "s.nwb.zarr"))
    plain = write(tmp_path / "plain.nwb", {"general/subject/weight": 21.0})
    assert lazynwb.scan_nwb([store, plain], "subject").collect()["weight"].to_list() == [20.0, 21.0]
    assert lazynwb.LazyNWB(store).subject.weight == 20.0
    assert lazynwb.scan_nwb(store, "/acquisition/s").collect()["timestamps"].to_list() == [1.0, 1.1, 1.2]
    assert lazynwb.get_timeseries(store, "s").unit == "mV"


@pytest.mark.parametrize("shape", [(7, 1), (1, 7)], ids=str)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shards", ["", "end", "end+crc32c"])
@pytest.mark.parametrize("chunk", [(3, 1), (1, 3), (4, 4)], ids=str)
@pytest.mark.sample(3)
def test_lists_with_any_chunks_in_zarr_are_lists(tmp_path, shape, order, shards, chunk):
    writer = Writer(3, [], shards)
    electrodes = "general/extracellular_ephys/electrodes"
    for path in ("", "general", "general/extracellular_ephys"):
        writer.group(path)
    writer.group(electrodes, neurodata_type="DynamicTable", colnames=["x"])
    writer.array(f"{electrodes}/id", np.arange(7).reshape(shape), chunk, order=order)
    writer.array(f"{electrodes}/x", np.arange(7.0).reshape(shape), chunk, order=order)
    frame = lazynwb.scan_nwb(str(writer.write(tmp_path / "s.nwb.zarr")), "electrodes")
    assert frame.select("id", "x").collect().rows() == [(i, float(i)) for i in range(7)]
    assert frame.filter(pl.col("x") > 4).collect()["id"].to_list() == [5, 6]
    assert frame.slice(2, 3).collect()["x"].to_list() == [2.0, 3.0, 4.0]


@pytest.mark.parametrize("shape", [(7, 1), (1, 7)], ids=str)
@pytest.mark.parametrize("chunks", [None, (1, 1), True])
def test_lists_of_any_type_in_hdf5_are_lists(tmp_path, shape, chunks):
    path = tmp_path / "a.nwb"
    with h5py.File(path, "w") as file:
        group = file.create_group("general/extracellular_ephys/electrodes")
        group.attrs.update({"neurodata_type": "DynamicTable", "colnames": ["x", "location", "group"]})
        target = file.create_group("general/extracellular_ephys/g")
        columns = {
            "id": np.arange(7),
            "x": np.arange(7.0),
            "location": np.array([f"t{i}" for i in range(7)], TEXT),
            "group": np.array([target.ref] * 7, h5py.ref_dtype),
        }
        for name, values in columns.items():
            group.create_dataset(name, data=values.reshape(shape), chunks=chunks, dtype=values.dtype)
    frame = lazynwb.scan_nwb(str(path), "electrodes").select("id", "x", "location", "group")
    assert frame.collect().rows() == [(i, i, f"t{i}", "/general/extracellular_ephys/g") for i in range(7)]
    assert frame.filter(pl.col("x").is_in([1.0, 5.0])).collect()["location"].to_list() == ["t1", "t5"]


def test_several_elements_of_a_scalar_are_a_list_for_that_field(tmp_path):
    paths = [
        write(tmp_path / "two.nwb", {"general/subject/sex": np.array([["F"], ["M"]], TEXT)}),
        write(tmp_path / "one.nwb", {"general/subject/sex": "M"}),
    ]
    wanted = [["F", "M"], ["M"]]
    assert lazynwb.scan_nwb(paths, "subject").collect()["sex"].to_list() == wanted
    assert lazynwb.get_metadata_df(paths, as_polars=True)["sex"].to_list() == wanted


@pytest.mark.parametrize("in_order", [True, False])
def test_fields_outside_the_schema_have_a_common_type(tmp_path, in_order):
    paths = [
        write(tmp_path / "list.nwb", {"general/mine": np.array([5]), "general/note": np.array(["x"], TEXT)}),
        write(tmp_path / "scalar.nwb", {"general/mine": 6, "general/note": "y"}),
    ]
    rows = [([5], ["x"]), ([6], ["y"])]
    if not in_order:
        paths, rows = paths[::-1], rows[::-1]
    assert lazynwb.scan_nwb(paths, "session").collect().select("mine", "note").rows() == rows
    frame = lazynwb.get_metadata_df(paths, as_polars=True)
    assert frame.select("mine", "note").rows() == rows


def test_metadata_without_a_common_type_is_text(tmp_path):
    paths = [
        write(tmp_path / "numbers.nwb", {"general/subject/weight": np.array([20.0, 21.0])}),
        write(tmp_path / "text.nwb", {"general/subject/weight": "20 g"}),
    ]
    weights = lazynwb.get_metadata_df(paths, as_polars=True)["weight"].to_list()
    assert weights == [["20.0", "21.0"], ["20 g"]]


@pytest.mark.parametrize("kind", ["DynamicTable", "MyIntervals"])
def test_tables_at_fixed_paths_follow_the_schema_regardless_of_their_type(tmp_path, kind):
    starts = np.arange(3.0).reshape(3, 1)
    datasets = {"intervals/trials/id": np.arange(3), "intervals/trials/start_time": starts}
    attributes = {"intervals/trials": {"neurodata_type": kind, "colnames": ["start_time"]}}
    path = write(tmp_path / "a.nwb", datasets, attributes)
    assert lazynwb.scan_nwb(path, "trials").collect()["start_time"].to_list() == [0.0, 1.0, 2.0]


def test_small_datasets_of_series_are_lists(tmp_path):
    datasets = {
        "acquisition/s/data": np.zeros((2, 2)),
        "acquisition/s/timestamps": np.arange(2.0),
        "acquisition/s/electrodes": np.array([[0], [1]]),
        "acquisition/s/channel_conversion": np.array([[2.0, 3.0]]),
    }
    path = write(tmp_path / "a.nwb", datasets, {"acquisition/s": {"neurodata_type": "ElectricalSeries"}})
    series = lazynwb.get_timeseries(path, "s")
    assert series.electrodes.tolist() == [0, 1]
    assert series.channel_conversion.tolist() == [2.0, 3.0]


RESOLVED = [[{"id": 0, "x": 0.0}], [{"id": 2, "x": 20.0}]]


def test_references_of_one_element_are_followed(tmp_path):
    path = tmp_path / "a.nwb"
    with h5py.File(path, "w") as file:
        electrodes = file.create_group("general/extracellular_ephys/electrodes")
        electrodes.attrs.update({"neurodata_type": ["DynamicTable"], "colnames": [["x"]]})
        electrodes["id"], electrodes["x"] = np.arange(3), np.arange(3) * 10.0
        units = file.create_group("units")
        units.attrs.update({"neurodata_type": [["Units"]], "colnames": "electrodes"})
        units["id"], units["electrodes"], units["ends"] = np.arange(2), np.array([[0], [2]]), np.array([1, 2])
        references = {"table": electrodes.ref, "target": units["electrodes"].ref}
        for name, kind, key in (
            ("electrodes", "DynamicTableRegion", "table"),
            ("ends", "VectorIndex", "target"),
        ):
            units[name].attrs["neurodata_type"] = [kind]
            units[name].attrs[key] = np.array([references[key]], h5py.ref_dtype)
    frame = lazynwb.scan_nwb(str(path), "/units", resolve_regions=True).collect()
    assert frame["electrodes"].to_list() == RESOLVED


@pytest.mark.parametrize("form", [".", "own.zarr", "./own.zarr", "own.zarr/", "../own.zarr", "absolute"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_references_that_name_their_own_store_are_followed(tmp_path, form, wrapped):
    source = str(tmp_path / "own.zarr") if form == "absolute" else form

    def reference(path):
        found = {"zarr_dtype": "object", "value": {"source": source, "path": path}}
        return [found] if wrapped else found

    electrodes = "general/extracellular_ephys/electrodes"
    writer = Writer(2, [])
    for path in ("", "general", "general/extracellular_ephys"):
        writer.group(path)
    writer.group(electrodes, neurodata_type="DynamicTable", colnames=["x"])
    writer.array(f"{electrodes}/id", np.arange(3), (3,))
    writer.array(f"{electrodes}/x", np.arange(3) * 10.0, (3,))
    writer.group("units", neurodata_type="Units", colnames=["electrodes"])
    writer.array("units/id", np.arange(2), (2,))
    region = {"neurodata_type": "DynamicTableRegion", "table": reference(f"/{electrodes}")}
    writer.array("units/electrodes", np.array([0, 2]), (2,), **region)
    index = {"neurodata_type": "VectorIndex", "target": reference("/units/electrodes")}
    writer.array("units/ends", np.array([1, 2]), (2,), **index)
    store = str(writer.write(tmp_path / "own.zarr"))
    frame = lazynwb.scan_nwb(store, "/units", resolve_regions=True).collect()
    assert frame["electrodes"].to_list() == RESOLVED


def test_an_empty_column_of_several_dimensions_keeps_them(tmp_path):
    datasets = {
        "t/id": np.arange(3),
        "t/block_index": np.zeros((0, 2), "i1"),
        "t/block_index_index": np.zeros(3, "u1"),
        "t/none_index": np.zeros((0, 0), "u1"),
        "t/none": np.zeros((0, 0)),
    }
    attributes = {
        "t": {"neurodata_type": "DynamicTable", "colnames": ["none"]},
        "t/block_index_index": {"neurodata_type": "VectorIndex"},
    }
    path = write(tmp_path / "a.nwb", datasets, attributes)
    found = {p: lazynwb.scan_nwb(p, "t") for p in (path, as_zarr(tmp_path / "b.nwb.zarr", path))}
    for lf in found.values():
        assert lf.collect_schema()["block_index"] == pl.List(pl.Array(pl.Int8, 2))
        assert lf.collect()["block_index"].to_list() == [[]] * 3


def test_a_listed_column_whose_name_ends_in_index_keeps_its_shape(tmp_path):
    attributes = {"t": {"neurodata_type": "DynamicTable", "colnames": ["block_index"]}}
    paths = [
        write(
            tmp_path / f"{n}.nwb", {"t/id": np.arange(n), "t/block_index": np.ones((n, 2), "i4")}, attributes
        )
        for n in (1, 3)
    ]
    frame = lazynwb.scan_nwb(paths, "/t").collect()
    assert frame["block_index"].dtype == pl.Array(pl.Int32, 2)
    assert frame["block_index"].to_list() == [[1, 1]] * 4


@pytest.mark.parametrize("values", [np.zeros((1, 3), bool), np.arange(3).reshape(1, 3)], ids=["bool", "int"])
@pytest.mark.parametrize("table", ["", "units"], ids=["group", "table"])
def test_a_column_named_like_an_index_that_indexes_nothing_keeps_its_shape(table, values, tmp_path):
    attributes = {"t": {"neurodata_type": "Units", "colnames": ["a"]}} if table else {}
    datasets = {"t/id": np.arange(1), "t/a": np.arange(1.0), "t/block_index": values}
    path = write(tmp_path / "a.nwb", datasets, attributes)
    for source in (path, as_zarr(tmp_path / "b.nwb.zarr", path)):
        column = lazynwb.scan_nwb(source, "/t").collect()["block_index"]
        assert column.to_list() == values.tolist()


def test_a_ragged_column_whose_name_ends_in_index_has_all_its_values(tmp_path):
    elements = np.array([[True, False, True]])
    attributes = {
        "t": {"neurodata_type": "Units", "colnames": ["a"]},
        "t/block_index_index": {"neurodata_type": "VectorIndex"},
    }
    datasets = {
        "t/id": np.arange(1),
        "t/a": np.arange(1.0),
        "t/block_index": elements,
        "t/block_index_index": np.array([1], "u1"),
    }
    path = write(tmp_path / "a.nwb", datasets, attributes)
    for source in (path, as_zarr(tmp_path / "b.nwb.zarr", path)):
        assert lazynwb.scan_nwb(source, "/t").collect()["block_index"].to_list() == [elements.tolist()]


def test_regions_of_two_dimensions_in_a_table_of_one_row_keep_their_shape(tmp_path):
    attributes = {
        "t": {"neurodata_type": "DynamicTable", "colnames": ["r"]},
        "t/r": {"neurodata_type": "DynamicTableRegion"},
    }
    path = write(tmp_path / "r.nwb", {"t/id": np.arange(1), "t/r": np.array([[4, 5]])}, attributes)
    assert lazynwb.scan_nwb(path, "/t").collect()["r"].to_list() == [[4, 5]]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["older first", "newer first"])
@pytest.mark.parametrize("store", ["hdf5", "zarr"])
@pytest.mark.integration
def test_tables_of_older_files_are_found_where_they_are(order, store, tmp_path):
    paths = []
    for number, place in enumerate(("trials", "intervals/trials")):
        datasets = {f"{place}/id": np.arange(2), f"{place}/start_time": np.arange(2.0) + number}
        attributes = {place: {"neurodata_type": "TimeIntervals", "colnames": ["start_time"]}}
        path = write(tmp_path / f"{number}.nwb", datasets, attributes)
        paths.append(path if store == "hdf5" else as_zarr(tmp_path / f"{number}.nwb.zarr", path))
    paths = [paths[number] for number in order]
    expected = [[0.0, 1.0], [1.0, 2.0]]
    rows = [value for number in order for value in expected[number]]
    for name in ("trials", "/trials", "/intervals/trials"):
        frame = lazynwb.scan_nwb(paths, name).collect()
        assert frame["start_time"].to_list() == rows, name
        assert frame["_table_path"].unique().sort().to_list() == ["intervals/trials", "trials"]
        late = frame.select("_nwb_path", "_table_path", "_table_index").nwb.with_columns("start_time")
        assert late["start_time"].to_list() == rows
    assert lazynwb.get_df(paths, "trials", as_polars=True)["start_time"].to_list() == rows
    for number, path in zip(order, paths, strict=True):
        found = pl.DataFrame(lazynwb.LazyNWB(path).trials)  # of pandas, or Polars
        assert found["start_time"].to_list() == expected[number]
    context = lazynwb.get_sql_context(paths)
    for name in ("trials", "intervals/trials"):
        found = context.execute(f'SELECT start_time FROM "{name}"', eager=True)  # noqa: S608 - of this test
        assert found["start_time"].to_list() == rows
    lazynwb.build_index(paths, tmp_path / "index")
    for name in ("trials", "/trials", "/intervals/trials"):
        with lazynwb.profile() as profile:
            frame = lazynwb.read_nwb(paths, name, index=tmp_path / "index")
        assert frame["start_time"].to_list() == rows
        assert profile.files_parsed == 0


@pytest.mark.parametrize("store", ["hdf5", "zarr"])
def test_an_exact_path_is_preferred_in_each_file(store, tmp_path):
    """Of `/trials` and `/intervals/trials`, the requested path is used in files that have it."""
    paths = []
    for number, places in enumerate((["trials", "intervals/trials"], ["intervals/trials"], ["trials"])):
        datasets, attributes = {}, {}
        for place in places:
            value = 10.0 * number + (place == "trials")
            datasets |= {f"{place}/id": np.arange(1), f"{place}/x": np.array([value])}
            attributes[place] = {"neurodata_type": "TimeIntervals", "colnames": ["x"]}
        path = write(tmp_path / f"{number}.nwb", datasets, attributes)
        paths.append(path if store == "hdf5" else as_zarr(tmp_path / f"{number}.nwb.zarr", path))
    older = {"_table_path": ["trials", "intervals/trials", "trials"], "x": [1.0, 10.0, 21.0]}
    newer = {"_table_path": ["intervals/trials", "intervals/trials", "trials"], "x": [0.0, 10.0, 21.0]}
    index = tmp_path / "index"
    lazynwb.build_index(paths, index)
    for name, expected in {"/trials": older, "/intervals/trials": newer, "trials": newer}.items():
        for options in ({}, {"index": index}):
            frame = lazynwb.scan_nwb(paths, name, **options).select("_table_path", "x").collect()
            assert frame.to_dict(as_series=False) == expected, name
        frame = lazynwb.get_df(paths, name, as_polars=True)
        assert frame.select("_table_path", "x").to_dict(as_series=False) == expected
        rows = frame.select("_nwb_path", "_table_path", "_table_index")
        assert rows.nwb.with_columns("x")["x"].to_list() == expected["x"]
        filtered = lazynwb.scan_nwb(paths, name).filter(pl.col("_table_path") == "trials").collect()
        assert filtered["x"].to_list() == [
            x for place, x in zip(*expected.values(), strict=True) if place == "trials"
        ]
    sql = lazynwb.get_sql_context(paths[0], full_path=True)
    assert sql.execute("SELECT x FROM trials", eager=True)["x"].to_list() == [1.0]
    assert sql.execute('SELECT x FROM "intervals/trials"', eager=True)["x"].to_list() == [0.0]
    lazynwb.convert_nwb_tables(paths[0], tmp_path / "out", output_format="parquet", full_path=True)
    converted = {
        path.stem: pl.read_parquet(path)["x"].to_list() for path in (tmp_path / "out").rglob("*.parquet")
    }
    assert sorted(converted.values()) == [[0.0], [1.0]]
    assert lazynwb.LazyNWB(paths[0]).get("/trials")["x"].to_list() == [1.0]


INDEX = {"neurodata_type": "VectorIndex"}
TRANSPOSED = {
    "a custom ragged column": (
        {"t/id": np.arange(2), "t/x": np.arange(5.0)[None], "t/x_index": np.array([[2, 5]])},
        {"t": {"neurodata_type": "DynamicTable", "colnames": ["x"]}, "t/x_index": INDEX},
    ),
    "obs_intervals": (
        {
            "units/id": np.arange(2),
            "units/obs_intervals": np.arange(8.0).reshape(2, 4),
            "units/obs_intervals_index": np.array([1, 4]),
        },
        {
            "units": {"neurodata_type": "Units", "colnames": ["obs_intervals"]},
            "units/obs_intervals_index": INDEX,
        },
    ),
    "waveforms": (
        {
            "units/id": np.arange(2),
            "units/waveforms": np.arange(12.0).reshape(3, 4),
            "units/waveforms_index": np.array([2, 4]),
            "units/waveforms_index_index": np.array([1, 2]),
        },
        {
            "units": {"neurodata_type": "Units", "colnames": ["waveforms"]},
            "units/waveforms_index": INDEX,
            "units/waveforms_index_index": INDEX,
        },
    ),
}


@pytest.mark.parametrize("what", TRANSPOSED)
@pytest.mark.parametrize("store", ["hdf5", "zarr"])
def test_ragged_data_without_a_shape_in_the_schema_is_never_transposed(what, store, tmp_path):
    """The schema allows two dimensions, so data that does not fit its index is an error that names both."""
    path = write(tmp_path / "t.nwb", *TRANSPOSED[what])
    path = path if store == "hdf5" else as_zarr(tmp_path / "t.nwb.zarr", path)
    table = next(iter(TRANSPOSED[what][1]))
    with pytest.raises(CorruptDataError, match=rf"t\.nwb.*: /{table}: column .*_index.* of [123]\b"):
        lazynwb.scan_nwb(path, f"/{table}").collect()


#: Datasets as MATLAB stores them, and what they are by the schema.
SHAPES = {
    "units/id": (np.arange(3).reshape(3, 1), [0, 1, 2]),
    "units/spike_times": (np.arange(6.0).reshape(1, 6), [[0.0], [1.0, 2.0], [3.0, 4.0, 5.0]]),
    "units/spike_times_index": (np.array([[1], [3], [6]]), None),
    "units/own": (np.arange(3.0).reshape(3, 1), [[0.0], [1.0], [2.0]]),
    "acquisition/s/data": (np.arange(4.0), [0.0, 1.0, 2.0, 3.0]),
    "acquisition/s/timestamps": (np.arange(4.0).reshape(1, 4), [0.0, 1.0, 2.0, 3.0]),
    "general/subject/weight": (np.array([[20.0]]), [20.0]),
}
SHAPE_ATTRIBUTES = {
    "units": {"neurodata_type": "Units", "colnames": ["spike_times", "own"]},
    "units/spike_times_index": INDEX,
    "units/spike_times": {"neurodata_type": "VectorData"},
    "acquisition/s": {"neurodata_type": "TimeSeries"},
}


@pytest.fixture(scope="module")
def ways(tmp_path_factory):
    """The same content in HDF5, Zarr and LINDI, each on disk and behind a web server."""
    folder = tmp_path_factory.mktemp("ways")
    path = write(folder / "m.nwb", {name: value for name, (value, _) in SHAPES.items()}, SHAPE_ATTRIBUTES)
    store = Path(as_zarr(folder / "m.nwb.zarr", path))
    objects = {str(file.relative_to(store)): file.read_bytes() for file in store.rglob("*") if file.is_file()}
    documents = {k: json.loads(v) for k, v in objects.items() if k.rpartition("/")[2].startswith(".z")}
    # A web server does not list what a store has.
    whole = {"zarr_consolidated_format": 1, "metadata": documents}
    (store / ".zmetadata").write_text(json.dumps(whole))
    refs = {key: f"base64:{base64.b64encode(data).decode()}" for key, data in objects.items()}
    lindi = folder / "m.nwb.lindi.json"
    lindi.write_text(json.dumps({"refs": refs}))
    with RangeServer(folder) as server:
        yield {
            **{name: str(folder / name) for name in ("m.nwb", "m.nwb.zarr", "m.nwb.lindi.json")},
            **{f"web {name}": server.url_of(name) for name in ("m.nwb", "m.nwb.zarr", "m.nwb.lindi.json")},
        }


@pytest.mark.parametrize("table", ["units", "acquisition/s", "general/subject"])
@pytest.mark.parametrize(
    "way", [f"{web}m.nwb{end}" for web in ("", "web ") for end in ("", ".zarr", ".lindi.json")]
)
@pytest.mark.sample(2)
def test_shapes_follow_the_schema_in_any_storage_layout(way, table, ways, monkeypatch, capsysbinary):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    expected = {
        name.rpartition("/")[2]: value
        for name, (_, value) in SHAPES.items()
        if name.rpartition("/")[0] == table and value is not None
    }
    path = ways[way]
    frame = lazynwb.scan_nwb(path, f"/{table}").collect()
    assert {name: frame[name].to_list() for name in expected} == expected
    by_sql = lazynwb.get_sql_context(path, full_path=True).execute(f'SELECT * FROM "{table}"', eager=True)  # noqa: S608
    assert {name: by_sql[name].to_list() for name in expected} == expected
    late = frame.select("_nwb_path", "_table_path", "_table_index").nwb.with_columns(*expected)
    assert {name: late[name].to_list() for name in expected} == expected
    assert main(["head", path, table, "--format", "json"]) == 0
    rows = json.loads(capsysbinary.readouterr().out)
    assert {name: [row[name] for row in rows] for name in expected} == expected
