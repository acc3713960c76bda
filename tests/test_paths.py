"""Contents of a file: `get_internal_paths`."""

import re

import h5py
import numpy as np
import pytest

import lazynwb
from builders import nwb_root, series, table
from readers import hdf5_tables as oracle


@pytest.fixture
def path(tmp_path):
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        nwb_root(file)
        table(file, "units", {"a": [1], "b": ["x"]})
        table(file, "intervals/trials", {"start_time": [1.0]})
        series(file, "acquisition/licks", np.arange(5.0), np.arange(5.0))
        series(file, "acquisition/video", np.zeros((3, 4, 2), "u1"), start=0)
        table(file, "processing/behavior/empty", {})
        file.create_group("specifications/core/2.8.0")["namespace"] = "{}"
        file.create_group("processing/nothing")
    return tmp_path / "a.nwb"


def test_tables_by_their_group_and_series_by_their_datasets(path):
    assert list(lazynwb.get_internal_paths(path)) == [
        "/acquisition/licks/data",
        "/acquisition/licks/timestamps",
        "/acquisition/video/data",
        "/intervals/trials",
        "/processing/behavior/empty",
        "/units",
    ]


def test_representations_are_similar_to_h5py(path):
    found = lazynwb.get_internal_paths(path)
    assert repr(found["/acquisition/licks/data"]) == '<HDF5 dataset "data": shape (5,), type "<f8">'
    assert repr(found["/acquisition/video/data"]) == '<HDF5 dataset "data": shape (3, 4, 2), type "|u1">'
    assert repr(found["/units"]) == '<HDF5 group "/units" (3 members)>'
    assert re.fullmatch(r"\{'/acquisition/licks/data': <HDF5 dataset .*\}", repr(dict(found)))


def test_the_result_is_a_mapping(path):
    found = lazynwb.get_internal_paths(path)
    assert "/units" in found
    assert len(found) == 6
    assert dict(found.items()).keys() == set(found)
    with pytest.raises(KeyError):
        found["/nowhere"]


@pytest.mark.integration
def test_tables_and_series_can_be_scanned_by_their_listed_path(path, built):
    for file in (path, built("session"), built("time_series")):
        known = set(oracle.tables(file))
        for internal in lazynwb.get_internal_paths(file):
            home, _, name = internal.rpartition("/")
            if internal in known or (home in known and name in {"data", "timestamps"}):
                assert lazynwb.read_nwb(file, internal).width >= 3, internal


@pytest.mark.parametrize(
    ("option", "more"),
    [
        ("include_metadata", {"/general"}),
        ("include_metadata", {"/general/subject"}),
        ("include_table_columns", {"/units/a", "/units/b", "/intervals/trials/start_time"}),
        ("include_specifications", {"/specifications/core/2.8.0/namespace"}),
    ],
)
def test_options_list_further_objects(path, option, more):
    default = set(lazynwb.get_internal_paths(path))
    found = set(lazynwb.get_internal_paths(path, **{option: True}))
    assert default <= found
    assert any(p in more or p.startswith(tuple(more)) for p in found - default)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.nwb"):
        lazynwb.get_internal_paths(tmp_path / "gone.nwb")
    (tmp_path / "bad.nwb").write_bytes(b"x" * 5000)
    with pytest.raises(lazynwb.NotNWBError, match=r"bad\.nwb"):
        lazynwb.get_internal_paths(tmp_path / "bad.nwb")


def test_linked_tables_are_listed_under_the_path_of_the_link(built):
    found = list(lazynwb.get_internal_paths(built("links")))
    assert "/linked_table" in found
    assert "/intervals/trials" in found
    assert len(found) < 20


def test_an_empty_file(tmp_path):
    h5py.File(tmp_path / "empty.nwb", "w").close()
    assert list(lazynwb.get_internal_paths(tmp_path / "empty.nwb")) == []
