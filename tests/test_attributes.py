"""Attributes of objects: plain values that equal those of h5py, and their cache."""

import inspect
import json
import math
import os
import shutil
import tarfile
import tempfile
from pathlib import Path

import h5py
import msgspec
import numpy as np
import pytest
from h5py import h5t
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import (
    array_shapes,
    arrays,
    boolean_dtypes,
    floating_dtypes,
    integer_dtypes,
    unsigned_integer_dtypes,
)

import checks
import lazynwb
from builders import Ragged, nwb_root, series, table
from checks import run_child
from lazynwb.catalog import disk_cache
from lazynwb.lookup.loader import load_attributes
from lazynwb.storage.resolve import expand
from range_server import RangeServer
from zarr_twins.make import ARCHIVE, session_names

FOLDER = os.environ.get("LAZYNWB_TEST_DATA")
REAL = sorted(str(file) for file in Path(FOLDER).rglob("*.nwb") if h5py.is_hdf5(file)) if FOLDER else []
ALL = {"exclude_private": False, "exclude_empty": False}

SESSIONS = session_names()


# --- the oracle ---------------------------------------------------------------------------------------


def plain(value, file):
    """Return attributes as plain values of h5py's high-level interface."""
    if isinstance(value, h5py.Empty):
        return None
    if isinstance(value, h5py.RegionReference):
        return "<unreadable: a region reference>"
    if isinstance(value, h5py.Reference):
        return file[value].name if value else None
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, np.ndarray):
        return [plain(item, file) for item in value]
    if isinstance(value, np.void):
        return {name: plain(value[name], file) for name in value.dtype.names}
    return value.item() if isinstance(value, np.generic) else value


def expected(path):
    """The attributes of every object that hard links lead to."""
    found = {}
    with h5py.File(path) as file:

        def record(name, item):
            found[f"/{name}"] = {key: plain(value, file) for key, value in item.attrs.items()}

        record("", file)
        file.visititems(record)
    return found


def same(left, right):
    """Equal values of equal types, where NaN equals NaN."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right or (isinstance(left, float) and math.isnan(left) and math.isnan(right))


def assert_same(actual, wanted):
    different = {
        name: (actual.get(name), value) for name, value in wanted.items() if not same(actual.get(name), value)
    }
    assert not different


# --- values -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["session", "intracellular"])
def test_attributes_of_a_file_equal_h5py(name, built):
    path = built(name)
    assert_same(lazynwb.get_sub_attrs(path, **ALL), expected(path))


@pytest.mark.skipif(not REAL, reason="set LAZYNWB_TEST_DATA to a folder of NWB files")
def in_schema_shape(attributes):
    """Lists of the NWB schema that some writers store as scalars."""
    return {
        name: [value] if name == "dimension" and isinstance(value, str) else value
        for name, value in attributes.items()
    }


def test_attributes_of_real_files_equal_h5py():
    for path in checks.sample(REAL, 2):
        assert_same(
            lazynwb.get_sub_attrs(path, **ALL), {p: in_schema_shape(a) for p, a in expected(path).items()}
        )


def test_stores_have_the_attributes_of_their_twins(twins):
    for name in SESSIONS:
        hdf5 = lazynwb.get_sub_attrs(twins / f"{name}.nwb", **ALL)
        hdf5 = {path: found for path, found in hdf5.items() if not path.startswith("/specifications")}
        # hdmf lists the columns of an empty table in Zarr only
        empty = [path for path, found in hdf5.items() if found.get("colnames") == []]
        for version in ("v2", "v3"):
            store = lazynwb.get_sub_attrs(twins / f"{name}.{version}.nwb.zarr", **ALL)
            for path in empty:
                store[path]["colnames"] = []
            assert_same(store, hdf5)
            assert {path for path in store if not path.startswith("/specifications")} == hdf5.keys()


def test_lindi_files_have_the_attributes_of_their_twins(twins, tmp_path):
    with tarfile.open(ARCHIVE.with_name("lindi.tar.xz")) as packed:
        packed.extractall(tmp_path, filter="data")
    files = sorted(tmp_path.rglob("*.lindi.json"))
    assert len(files) > 30
    for path in files:
        hdf5 = lazynwb.get_sub_attrs(twins / path.name.removesuffix(".lindi.json"), **ALL)
        assert_same(lazynwb.get_sub_attrs(path, **ALL), hdf5)


def test_attributes_of_every_type_are_plain(tmp_path):
    path = tmp_path / "a.nwb"
    with h5py.File(path, "w") as file:
        target = file.create_group("a/b")
        here = file.create_group("here")
        attrs = here.attrs
        attrs["text"] = "größer"
        attrs["bytes"] = np.bytes_(b"padded\0\0\0")
        attrs["not utf-8"] = np.bytes_(b"\xff!")
        attrs["texts"] = ["a", "", "c"]
        attrs["fixed texts"] = np.array([[b"a", b"bc"]], "S4")
        attrs["bool"] = True
        attrs["bools"] = np.array([True, False])
        attrs["int"] = np.int8(-3)
        attrs["large"] = np.uint64(2**64 - 1)
        attrs["big-endian"] = np.array([1, 2], ">i4")
        attrs["float"] = 0.5
        attrs["nan"] = np.float32("nan")
        attrs["half"] = np.float16(0.25)
        attrs["matrix"] = np.arange(6).reshape(2, 3)
        attrs["nothing"] = h5py.Empty("f8")
        attrs["none of them"] = np.zeros(0)
        attrs["reference"] = target.ref
        attrs["root"] = file.ref
        attrs["references"] = np.array([target.ref, h5py.Reference()], h5py.ref_dtype)
        attrs["compound"] = np.array((1, b"x", 2.5), [("n", "i4"), ("s", "S3"), ("f", "f8")])[()]
        attrs.create("sequence", np.array([np.arange(3), np.arange(1)], object), dtype=h5py.vlen_dtype("i4"))
        pair = h5t.array_create(h5t.STD_I32LE, (2,))
        scalar = h5py.h5s.create(h5py.h5s.SCALAR)
        h5py.h5a.create(here.id, b"pair", pair, scalar).write(np.array([1, 2], "i4"), mtype=pair)
        attrs["complex"] = 1 + 2j
    found = lazynwb.get_attrs(path, "/here")
    assert_same(
        found,
        {
            "big-endian": [1, 2], "bool": True, "bools": [True, False], "bytes": "padded",
            "complex": "(1+2j)", "compound": {"n": 1, "s": "x", "f": 2.5}, "fixed texts": [["a", "bc"]],
            "float": 0.5, "half": 0.25, "int": -3, "large": 2**64 - 1, "matrix": [[0, 1, 2], [3, 4, 5]],
            "nan": math.nan, "none of them": [], "not utf-8": "\N{REPLACEMENT CHARACTER}!", "nothing": None,
            "pair": [1, 2], "reference": "/a/b", "references": ["/a/b", None], "root": "/",
            "sequence": [[0, 1, 2], [0]], "text": "größer", "texts": ["a", "", "c"],
        },
    )  # fmt: skip
    msgspec.msgpack.encode(found)


SCALARS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
)
VALUES = st.one_of(
    SCALARS,
    st.lists(st.integers(-(2**31), 2**31), max_size=5),
    st.lists(st.floats(width=32), min_size=1, max_size=5),
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1, max_size=5
    ),
    arrays(
        st.one_of(integer_dtypes(), unsigned_integer_dtypes(), floating_dtypes(), boolean_dtypes()),
        array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
    ),
)


@given(st.dictionaries(st.sampled_from("abcdefgh"), VALUES, max_size=6))
def test_any_written_attributes_equal_h5py(values):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.nwb"
        with h5py.File(path, "w") as file:
            for name, value in values.items():
                file.attrs[name] = value
        assert_same(lazynwb.get_sub_attrs(path, **ALL), expected(path))


def test_unreadable_attributes_do_not_affect_others(tmp_path):
    path = tmp_path / "a.nwb"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", data=np.arange(9))
        data.attrs["unit"] = "V"
        data.attrs["region"] = data.regionref[2:4]
        data.attrs.create("opaque", np.void(b"abc"))
        data.attrs.create("huge", np.zeros(7_000), dtype="f8")
        h5py.h5a.create(data.id, b"time", h5t.UNIX_D32LE, h5py.h5s.create_simple((4,)))
        gone = file.create_group("gone")
        data.attrs["dangling"] = gone.ref
        del file["gone"]
    found = lazynwb.get_attrs(path, "/data")
    assert found["unit"] == "V"
    assert found["huge"] == [0.0] * 7_000
    assert found["dangling"] is None
    assert {name for name, value in found.items() if str(value).startswith("<unreadable: ")} == {
        "region",
        "opaque",
        "time",
    }


def test_sizes_are_checked_before_allocation(tmp_path):
    path = tmp_path / "a.nwb"
    with h5py.File(path, "w", libver="latest") as file:
        group = file.create_group("group")
        group.attrs["unit"] = "V"
        group.attrs.create("wide", np.zeros(9, "S3000000"))
        group.attrs.create("long", np.zeros(200_000, "i1"))
    found = lazynwb.get_attrs(path, "/group")
    assert found["unit"] == "V"
    assert found["wide"].startswith("<unreadable: ")
    assert found["long"].startswith("<unreadable: ")


def test_invalid_attributes_of_a_store_are_plain_values(tmp_path):
    store = tmp_path / "a.nwb.zarr"
    store.mkdir()
    deep = []
    for _ in range(60):
        deep = [deep]
    said = {
        "neurodata_type": "NWBFile",
        "large": 10**30,
        "larger": 10**400,
        "deep": deep,
        "other": {"a": [1, None]},
        "reference": {"_REFERENCE": {"path": "units", "source": "."}},
        "not a reference": {"_REFERENCE": 3},
        "zarr_dtype": "scalar",
        "_LINKS": 3,
    }
    document = {"zarr_format": 3, "node_type": "group", "attributes": said}
    (store / "zarr.json").write_text(json.dumps(document), "utf-8")
    found = lazynwb.get_attrs(store, "/", exclude_private=False)
    assert "<unreadable: nested too deeply>" in str(found.pop("deep"))
    assert found.pop("larger").startswith("<unreadable: ")
    assert found == {
        "neurodata_type": "NWBFile", "large": 1e30, "not a reference": {"_REFERENCE": 3},
        "other": {"a": [1, None]}, "reference": "/units",
    }  # fmt: skip


def test_hostile_names_and_values_are_returned_unchanged(tmp_path):
    name, value = "<b onclick='x'>\x1b[31m", "\x1b]0;title\x07<script>alert(1)</script>"
    path = tmp_path / "a.nwb"
    with h5py.File(path, "w") as file:
        file.create_group(f"units/{name}").attrs[name] = value
    assert lazynwb.get_attrs(path, f"/units/{name}") == {name: value}
    assert lazynwb.get_sub_attrs(path) == {f"/units/{name}": {name: value}}


# --- selection of attributes --------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "a.nwb"
    with h5py.File(made, "w") as file:
        nwb_root(file)
        group = table(file, "units", {"a": [1, 2], "b": ["x", "y"]})
        group.attrs.update({"namespace": "core", "object_id": "1", "_hidden": 1, "empty": ""})
        group["a"].attrs["description"] = "no description"
        series(file, "acquisition/licks", np.arange(5.0), np.arange(5.0))
        file["acquisition/linked"] = h5py.SoftLink("/acquisition/licks")
        file["acquisition/broken"] = h5py.SoftLink("/nowhere")
    return made


@pytest.fixture
def path_with_two_names(path):
    with h5py.File(path, "a") as file:
        file["analysis/again"] = file["units"]
    return path


def test_private_and_empty_attributes_can_be_excluded(path):
    all_attributes = lazynwb.get_attrs(path, "/units", exclude_private=False)
    assert {"_hidden", "namespace", "object_id", "empty", "colnames"} <= all_attributes.keys()
    public = lazynwb.get_attrs(path, "units")
    assert public == {
        name: value
        for name, value in all_attributes.items()
        if name not in {"_hidden", "namespace", "object_id", "id"}
    }
    assert "empty" not in lazynwb.get_attrs(path, "units", exclude_empty_fields=True)
    assert not lazynwb.get_attrs(path, "units/a", exclude_empty_fields=True).get("description")


def test_recursive_listings_have_paths_from_the_root(path):
    found = lazynwb.get_sub_attrs(path, "/units", exclude_empty=False)
    assert list(found) == ["/units", "/units/a", "/units/b", "/units/id"]
    assert found["/units/a"] == lazynwb.get_attrs(path, "/units/a")
    assert all(lazynwb.get_sub_attrs(path, "/units").values())


def test_links_have_the_attributes_of_their_targets_and_broken_links_have_none(path):
    found = lazynwb.get_sub_attrs(path, exclude_empty=False)
    assert found["/acquisition/linked"] == found["/acquisition/licks"]
    assert "/acquisition/linked/data" not in found
    assert "/acquisition/broken" not in found
    assert lazynwb.get_attrs(path, "/acquisition/linked/data") == found["/acquisition/licks/data"]
    assert list(lazynwb.get_sub_attrs(path, "/acquisition/linked", exclude_empty=False)) == [
        "/acquisition/linked",
        "/acquisition/linked/data",
        "/acquisition/linked/timestamps",
    ]


@pytest.mark.parametrize("before", ["/", "/units", None])
def test_results_do_not_depend_on_earlier_calls(path_with_two_names, before):
    path = path_with_two_names
    asked = ["/units", "/units/a", "/analysis/again/a", "/analysis", "/", "/acquisition/linked/data"]
    wanted = {internal: lazynwb.get_attrs(path, internal) for internal in asked}
    below = {
        internal: lazynwb.get_sub_attrs(path, internal)
        for internal in ("/analysis", "/acquisition", "/units")
    }
    lazynwb.clear_cache()
    if before is not None:
        lazynwb.get_sub_attrs(path, before)
    assert {internal: lazynwb.get_sub_attrs(path, internal) for internal in below} == below
    assert {internal: lazynwb.get_attrs(path, internal) for internal in asked} == wanted


@pytest.mark.parametrize("function", [lazynwb.get_attrs, lazynwb.consolidate_attrs])
def test_a_missing_object_is_an_error_with_suggestions(path, function):
    with pytest.raises(lazynwb.TableNotFoundError, match=r"/unit in .*did you mean /units"):
        function(path, "/unit")
    with pytest.raises(KeyError):
        function(path, "/acquisition/broken")


def test_a_missing_object_has_no_sub_attributes(path):
    assert lazynwb.get_sub_attrs(path, "/unit") == {}
    assert lazynwb.get_sub_attrs(path, "/acquisition/broken") == {}


def test_indices_and_the_schema_are_private(tmp_path):
    path = tmp_path / "a.nwb"
    with h5py.File(path, "w") as file:
        put = table(file, "units", {"spikes": Ragged([[1.0], [2.0, 3.0]])})
        put["spikes_index"].attrs["description"] = "an index"
        put.create_dataset("lone_index", data=[1, 2]).attrs["description"] = "of no column"
        file.create_group("specifications/core").attrs["version"] = "2.8.0"
    shown = lazynwb.get_sub_attrs(path)
    assert not [name for name in shown if name.startswith("/specifications")]
    assert "/units/spikes_index" not in shown
    assert shown["/units/lone_index"] == {"description": "of no column"}
    assert lazynwb.get_sub_attrs(path, "/specifications") == {"/specifications/core": {"version": "2.8.0"}}
    assert lazynwb.get_attrs(path, "/units/spikes_index") == {
        "description": "an index",
        "neurodata_type": "VectorIndex",
    }
    all_attributes = lazynwb.get_sub_attrs(path, exclude_private=False)
    assert all_attributes["/units/spikes_index"]["target"] == "/units/spikes"
    assert all_attributes["/specifications/core"] == {"version": "2.8.0"}


def test_results_may_be_modified(path):
    lazynwb.get_attrs(path, "/units")["colnames"].clear()
    lazynwb.get_sub_attrs(path, "/units")["/units"]["colnames"].clear()
    assert lazynwb.get_attrs(path, "/units")["colnames"] == ["a", "b"]


def test_changes_of_linked_files_are_detected(path, tmp_path):
    main = tmp_path / "main.nwb"
    with h5py.File(main, "w") as file:
        file["here"] = h5py.ExternalLink("a.nwb", "/units")
    assert lazynwb.get_attrs(main, "/here")["colnames"] == ["a", "b"]
    found = lazynwb.get_sub_attrs(main, exclude_empty=False)
    assert found == {"/": {}, "/here": lazynwb.get_attrs(path, "/units")}
    with h5py.File(path, "a") as file:
        file["units"].attrs["colnames"] = ["a"]
    assert lazynwb.get_attrs(main, "/here")["colnames"] == ["a"]
    assert lazynwb.get_sub_attrs(main)["/here"]["colnames"] == ["a"]
    lazynwb.config.external_links = "never"
    with pytest.raises(KeyError):
        lazynwb.get_attrs(main, "/here")


# --- many files ---------------------------------------------------------------------------------------


def test_consolidated_attributes_are_the_most_frequent_value_and_the_differing_files(path, tmp_path):
    with h5py.File(path, "a") as file:
        file["units"].attrs["description"] = "units"
    paths = [path, *(tmp_path / f"{name}.nwb" for name in "bcd")]
    for other in paths[1:]:
        shutil.copy(path, other)
    with h5py.File(paths[1], "a") as file:
        file["units"].attrs["description"] = "another"
        file["units"].attrs["extra"] = 1
    with h5py.File(paths[2], "a") as file:
        file["units"].attrs["extra"] = True
    with h5py.File(paths[3], "a") as file:
        del file["units"]
    before = lazynwb.get_attrs(path, "units")
    first, second, third, fourth = map(str, paths)
    assert lazynwb.consolidate_attrs(paths, "units") == {
        "/units": {
            "colnames": {"common": ["a", "b"], fourth: None},
            "description": {"common": "units", second: "another", fourth: None},
            "empty": {"common": "", fourth: None},
            "extra": {"common": 1, first: None, third: True, fourth: None},
            "neurodata_type": {"common": before["neurodata_type"], fourth: None},
        }
    }
    assert lazynwb.consolidate_attrs(str(path), "/units/a") == {
        "/units/a": {name: {"common": value} for name, value in lazynwb.get_attrs(path, "/units/a").items()}
    }


# --- costs --------------------------------------------------------------------------------------------


def test_all_members_of_a_group_are_parsed_at_once(built):
    path = built("session")
    with lazynwb.profile() as cold:
        for name in ("spike_times", "spike_times_index", "quality", "id", "waveforms"):
            lazynwb.get_attrs(path, f"/units/{name}")
    assert cold.files_parsed == 1
    with lazynwb.profile() as more:
        found = lazynwb.get_sub_attrs(path, **ALL)
    assert more.files_parsed == 1
    lazynwb.clear_attrs_cache()
    with lazynwb.profile() as warm:
        for internal, attributes in found.items():
            if internal.count("/") == 1 or internal.startswith("/processing/"):
                assert lazynwb.get_attrs(path, internal, exclude_private=False) == attributes
    assert warm.files_parsed == 0


def test_the_next_process_parses_no_file(built):
    script = """if True:
        import sys, lazynwb
        with lazynwb.profile() as counted:
            lazynwb.get_attrs(sys.argv[1], "/units/spike_times")
            lazynwb.get_sub_attrs(sys.argv[1])
        print(counted.files_parsed, "h5py" in sys.modules)"""
    assert run_child(script, built("session"), fresh=True).split() == ["2", "False"]
    assert run_child(script, built("session"), fresh=True).split() == ["0", "False"]


def test_a_changed_file_is_read_again(path):
    assert lazynwb.get_attrs(path, "/units")["empty"] == ""
    with h5py.File(path, "a") as file:
        file["units"].attrs["empty"] = "no more"
    assert lazynwb.get_attrs(path, "/units")["empty"] == "no more"


def test_the_cache_of_one_file_can_be_cleared(built, cube):
    for path in (built("session"), cube[0]):
        lazynwb.get_attrs(path, "/units")
    disk_cache.clear()  # attributes are in memory only

    def opened(path):
        with lazynwb.profile() as counts:
            lazynwb.get_attrs(path, "/units")
        disk_cache.clear()
        return counts.files_opened

    lazynwb.clear_attrs_cache(cube[0])
    assert [opened(cube[0]), opened(built("session"))] == [1, 0]
    lazynwb.clear_attrs_cache()
    assert [opened(cube[0]), opened(built("session"))] == [1, 1]


@pytest.mark.parametrize("version", ["nwb", "v2.nwb.zarr", "v3.nwb.zarr"])
def test_many_members_of_a_remote_file_are_fetched_in_one_round(version, twins):
    wanted = lazynwb.get_attrs(twins / "session.nwb", "/units/spike_times")
    with RangeServer(twins, latency=0.002) as server:
        url = server.url_of(f"session.{version}")
        with lazynwb.profile() as cold:
            assert lazynwb.get_attrs(url, "/units/spike_times") == wanted
        assert cold.files_parsed == 1
        assert cold.requests <= 12
        again = server.count
        lazynwb.get_attrs(url, "/units/waveforms")
        assert server.count == again


@pytest.mark.parametrize("name", ["session", "ophys", "intracellular"])
def test_attributes_of_remote_files_equal_those_of_local_files(name, twins):
    with RangeServer(twins) as server:
        remote = lazynwb.get_sub_attrs(server.url_of(f"{name}.nwb"), **ALL)
    assert_same(remote, expected(twins / f"{name}.nwb"))


def test_members_of_a_remote_group_are_fetched_together(tmp_path):
    path = tmp_path / "a.nwb"
    with h5py.File(path, "w") as file:
        for number in range(300):
            member = file.create_dataset(f"acquisition/s{number:03}", data=np.zeros(5_000))
            member.attrs["unit"] = f"unit {number}"
    with RangeServer(tmp_path) as server, lazynwb.profile() as counted:
        source = expand(server.url_of("a.nwb"))[0]
        found = load_attributes(source, "acquisition")
    assert {name: attributes["unit"] for name, attributes in found.items() if name} == {
        f"s{number:03}": f"unit {number}" for number in range(300)
    }
    assert counted.requests < 100


# --- get_internal_path_info ---------------------------------------------------------------------------


def test_paths_with_shapes_types_and_attributes(path):
    found = lazynwb.get_internal_path_info(path)
    assert list(found) == [
        "/acquisition/licks", "/acquisition/licks/data", "/acquisition/licks/timestamps",
        "/acquisition/linked", "/acquisition/linked/data", "/acquisition/linked/timestamps", "/units",
    ]  # fmt: skip
    assert found["/acquisition/licks/data"] == {
        "is_group": False, "is_dataset": True, "is_timeseries": False, "shape": (5,), "dtype": "<f8",
        "attrs": lazynwb.get_attrs(path, "/acquisition/licks/data", exclude_private=False),
    }  # fmt: skip
    assert found["/acquisition/licks"]["is_timeseries"]
    assert found["/units"]["attrs"]["colnames"] == ["a", "b"]
    assert (found["/units"]["shape"], found["/units"]["dtype"]) == (None, None)


@pytest.mark.parametrize(
    "option",
    [
        "include_child_datasets",
        "include_table_columns",
        "include_metadata",
        "include_specifications",
        "parents",
    ],
)
def test_the_same_paths_as_get_internal_paths_and_the_groups_of_series(option, built):
    path = built("session")
    listed = lazynwb.get_internal_paths(path, **{option: True})
    info = lazynwb.get_internal_path_info(path, **{option: True})
    assert [name for name in info if name in listed] == list(listed)
    assert all(info[name]["is_timeseries"] for name in info.keys() - listed.keys())
    with h5py.File(path) as file:
        for name, found in info.items():
            assert found["is_group"] == isinstance(file[name], h5py.Group)
            assert found["shape"] == getattr(file[name], "shape", None)
            assert found["attrs"].keys() == file[name].attrs.keys()


def test_the_signatures_of_the_pypi_package_bind():
    def bind(name, *args, **options):
        parameters = inspect.signature(getattr(lazynwb, name)).parameters
        inspect.signature(getattr(lazynwb, name)).bind(*args, *options.values())
        assert {key: parameters[key].default for key in options} == options

    bind("get_attrs", "a.nwb", "/units", exclude_private=True, exclude_empty_fields=False)
    bind("get_sub_attrs", "a.nwb", parent_path="/", exclude_private=True, exclude_empty=True)
    bind("consolidate_attrs", ["a.nwb"], "/units", exclude_private=True)
    bind("clear_attrs_cache", nwb_path=None)
    bind(
        "get_internal_path_info",
        "a.nwb",
        include_child_datasets=False,
        include_table_columns=False,
        include_metadata=False,
        include_specifications=False,
        parents=False,
    )
    bind("get_metadata_df", ["a.nwb"], disable_progress=False, as_polars=None)
