"""Each kind of NWB table compared with pynwb (hdmf-common 1.10, NWB core 2.10)."""

import datetime as dt
import itertools
import logging
import os
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lazynwb
from builders import VLEN_TEXT, Ragged, table
from checks import ENGINES, assert_values, check_file, same
from range_server import RangeServer
from readers import pynwb_session

FOLDER = os.environ.get("LAZYNWB_TEST_DATA")
FILES = sorted(path for path in Path(FOLDER).rglob("*.nwb") if path.is_file()) if FOLDER else []
FORMATS = (".nwb", ".v2.nwb.zarr", ".v3.nwb.zarr")
ICEPHYS = "/general/intracellular_ephys"
#: hdmf forgets the index of a ragged EnumData when it reads one.
NOT_READ_BY_HDMF = {("/events/stimuli", "tastes")}


def without_nothing(value):
    """Replace empty TimeSeriesReferences, which are negative numbers in files and None in pynwb."""
    if isinstance(value, dict) and value.keys() == {"idx_start", "count", "timeseries"}:
        return value if (value["count"] or 0) >= 0 and value["timeseries"] else None
    if isinstance(value, dict):
        return {name: without_nothing(part) for name, part in value.items()}
    return [without_nothing(item) for item in value] if isinstance(value, list) else value


def check_against_pynwb(path, **options):
    """Compare every DynamicTable with pynwb, by column; return the number of tables."""
    with pynwb_session.reading(path, **options) as session:
        for table_path, expected in session.tables.items():
            frame = lazynwb.read_nwb(path, table_path)
            assert frame.height == len(expected)
            for name, values in session.columns(expected).items():
                if (table_path, name) not in NOT_READ_BY_HDMF:
                    assert_values(
                        without_nothing(frame[name].to_list()),
                        without_nothing(values),
                        f"{table_path}: {name}",
                    )
        return len(session.tables)


# --- every table that pynwb knows ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tables"),
    [
        ("session", 9),
        ("intracellular", 8),
        ("icephys_hierarchy", 8),
        ("event_tables", 2),
        ("plane_segmentations", 4),
    ],
)
@pytest.mark.sample(3)
def test_every_table_equals_pynwb(name, tables, built):
    assert check_against_pynwb(built(name)) >= tables


@pytest.mark.parametrize("name", ["aligned", "enumerated", "events", "intracellular", "ophys", "regions"])
@pytest.mark.sample(3)
def test_every_table_of_a_zarr_store_equals_pynwb_on_its_twin(name, twins):
    """References of both versions of hdmf-zarr have the target paths of pynwb."""
    with pynwb_session.reading(twins / f"{name}.nwb") as session:
        for table_path, expected in session.tables.items():
            for suffix in FORMATS:
                frame = lazynwb.read_nwb(twins / (name + suffix), table_path)
                for column, values in session.columns(expected).items():
                    assert_values(
                        without_nothing(frame[column].to_list()),
                        without_nothing(values),
                        f"{suffix}: {column}",
                    )


@pytest.mark.slow
@pytest.mark.skipif(not FILES, reason="set LAZYNWB_TEST_DATA to a folder of NWB files")
def test_every_table_of_real_files_equals_pynwb():
    """Of the files that pynwb can read: `test_real_files` compares all of them with h5py."""
    read = 0
    for path in FILES:
        try:
            read += check_against_pynwb(path)
        except AssertionError:
            raise
        except Exception as error:  # noqa: BLE001 - pynwb refuses NWB 1.x and what breaks the schema
            assert not isinstance(error, lazynwb.LazyNWBError)  # noqa: PT017
    assert read >= 30


# --- intracellular recordings -------------------------------------------------------------------------


def test_categories_of_an_aligned_table_are_structs(built):
    schema = lazynwb.scan_nwb(
        built("icephys_hierarchy"), f"{ICEPHYS}/intracellular_recordings"
    ).collect_schema()
    reference = pl.Struct({"idx_start": pl.Int32, "count": pl.Int32, "timeseries": pl.String})
    assert schema["electrodes"] == pl.Struct({"electrode": pl.String, "id": pl.Int64, "voltage": pl.Float64})
    assert schema["responses"] == pl.Struct(
        {"id": pl.Int64, "peaks": pl.List(pl.Float64), "response": reference}
    )
    assert schema["stimuli"] == pl.Struct(
        {"id": pl.Int64, "stimulus": reference, "words": pl.List(pl.String)}
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_a_field_of_a_category_can_be_filtered_on(engine, built):
    lf = lazynwb.scan_nwb(built("icephys_hierarchy"), f"{ICEPHYS}/intracellular_recordings")
    chosen = lf.filter(
        pl.col("electrodes").struct.field("electrode") == f"{ICEPHYS}/e1",
        pl.col("responses").struct.field("peaks").list.len() > 0,
    ).collect(engine=engine)
    assert chosen["tag"].to_list() == ["ü1", "ü3"]


def test_a_category_is_a_table_of_its_own_too(built):
    path = built("icephys_hierarchy")
    whole = lazynwb.read_nwb(path, f"{ICEPHYS}/intracellular_recordings")
    own = lazynwb.read_nwb(path, f"{ICEPHYS}/intracellular_recordings/responses")
    assert whole["responses"].struct.unnest().equals(own.select("id", "peaks", "response"))


def test_references_without_a_series_are_unchanged(built):
    """NWB writes -1 for the start and the count, and refers to the other series of the recording."""
    frame = lazynwb.read_nwb(built("icephys_hierarchy"), f"{ICEPHYS}/intracellular_recordings/stimuli")
    assert frame["stimulus"][3] == {"idx_start": -1, "count": -1, "timeseries": "/acquisition/resp3"}
    assert frame["stimulus"][2] == {"idx_start": 2, "count": 2, "timeseries": "/stimulus/presentation/stim2"}


def test_joins_follow_the_icephys_hierarchy(built):
    """Conditions, repetitions, sequences, recordings: each level has the positions of the one below."""
    path = built("icephys_hierarchy")
    levels = {
        "experimental_conditions": "repetitions",
        "repetitions": "sequential_recordings",
        "sequential_recordings": "simultaneous_recordings",
        "simultaneous_recordings": "recordings",
    }
    rows = pl.DataFrame({"position": pl.Series([0], dtype=pl.Int64)})
    for name, column in levels.items():
        frame = lazynwb.read_nwb(path, f"{ICEPHYS}/{name}").with_columns(
            pl.col("_table_index").cast(pl.Int64).alias("position")
        )
        assert frame.schema[column] == pl.List(pl.Int64)
        below = rows.join(frame, on="position", maintain_order="left").select(column).explode(column)
        rows = below.drop_nulls().rename({column: "position"})
    assert rows["position"].to_list() == [3, 4, 5, 6, 0, 1, 2]


# --- events and meanings ------------------------------------------------------------------------------


def test_events_have_times_in_seconds_and_values(built):
    frame = lazynwb.read_nwb(built("event_tables"), "/events/stimuli")
    assert frame["timestamp"].to_list() == [k / 3 for k in range(8)]
    assert frame["duration"].is_nan().to_list() == [k == 2 for k in range(8)]
    assert frame["kind"].dtype == pl.String
    assert "spout_elements" not in frame.columns


def test_meanings_are_a_table_that_can_be_joined(built):
    """The described column is unchanged."""
    path = built("event_tables")
    meanings = lazynwb.scan_nwb(path, "/events/stimuli/meanings_tables/kind_meanings")
    events = lazynwb.scan_nwb(path, "/events/stimuli")
    joined = events.join(meanings, left_on="kind", right_on="value", maintain_order="left").collect()
    assert joined["meaning"].to_list() == ["lick at once", "hold still"] * 4
    assert meanings.collect()["value"].to_list() == ["go", "nogo", "other"]


def write_extension(path):
    """An extension like ndx-events 0.4: meanings beside the columns, and a column type of its own."""
    from hdmf.common import VectorData
    from hdmf.spec import NamespaceBuilder
    from pynwb import NWBHDF5IO, NWBFile, get_class, load_namespaces
    from pynwb.spec import NWBAttributeSpec, NWBDatasetSpec, NWBGroupSpec, NWBRefSpec

    folder = path.parent
    builder = NamespaceBuilder("d", "lazynwb-test-events", version="0.1.0", author="a", contact="c")
    builder.include_type("VectorData", namespace="hdmf-common")
    builder.include_type("DynamicTable", namespace="hdmf-common")
    builder.include_namespace("core")
    text = NWBDatasetSpec("d", name="meaning", neurodata_type_inc="VectorData", dtype="text")
    meanings = NWBGroupSpec(
        "d",
        neurodata_type_def="OwnMeaningsTable",
        neurodata_type_inc="DynamicTable",
        datasets=[NWBDatasetSpec("d", name="value", neurodata_type_inc="VectorData"), text],
    )
    refers = NWBAttributeSpec("meanings", "d", NWBRefSpec("OwnMeaningsTable", "object"))
    kind = NWBDatasetSpec(
        "d", neurodata_type_def="OwnCategorical", neurodata_type_inc="VectorData", attributes=[refers]
    )
    own = NWBGroupSpec(
        "d",
        neurodata_type_def="OwnHappenings",
        neurodata_type_inc="DynamicTable",
        groups=[NWBGroupSpec("d", neurodata_type_inc="OwnMeaningsTable", quantity="*")],
    )
    for spec in (meanings, kind, own):
        builder.add_spec("own.extensions.yaml", spec)
    builder.export("own.namespace.yaml", outdir=str(folder))
    load_namespaces(str(folder / "own.namespace.yaml"))
    names = ("OwnMeaningsTable", "OwnCategorical", "OwnHappenings")
    types = {name: get_class(name, "lazynwb-test-events") for name in names}
    said = types["OwnMeaningsTable"](
        name="kind_meanings",
        description="d",
        columns=[
            VectorData(name="value", description="d", data=["a", "b"]),
            VectorData(name="meaning", description="d", data=["first", "zweite Möglichkeit"]),
        ],
    )
    happenings = types["OwnHappenings"](
        name="happenings",
        description="d",
        columns=[
            VectorData(name="timestamp", description="d", data=[0.5, 1.5, 2.5]),
            types["OwnCategorical"](name="kind", description="d", data=["a", "b", "a"], meanings=said),
        ],
        own_meanings_tables=[said],
    )
    nwb = NWBFile("d", "id", dt.datetime(2024, 1, 2, tzinfo=dt.UTC))
    nwb.create_processing_module("events", "d").add(happenings)
    with NWBHDF5IO(path, "w") as io:
        io.write(nwb)


def test_tables_of_an_extension_need_no_extension(tmp_path):
    """`colnames` identifies tables of unknown types."""
    path = tmp_path / "extension.nwb"
    write_extension(path)
    assert check_against_pynwb(path) == 2
    frame = lazynwb.read_nwb(path, "/processing/events/happenings")
    assert frame.drop("^_.*$").to_dict(as_series=False) == {
        "id": [0, 1, 2],
        "kind": ["a", "b", "a"],
        "timestamp": [0.5, 1.5, 2.5],
    }
    meanings = lazynwb.read_nwb(path, "/processing/events/happenings/kind_meanings")
    assert meanings["meaning"].to_list() == ["first", "zweite Möglichkeit"]


# --- enumerated columns -------------------------------------------------------------------------------


def enumerated(file, name, columns, **options):
    """A table with columns of codes: each is its codes, and what they mean (nothing, or a dataset's data)."""
    plain = {key: codes for key, (codes, _) in columns.items()}
    listed = np.array(list(plain), VLEN_TEXT)
    group = table(file, name, plain, colnames=options.get("colnames", listed))
    for key, (_, elements) in columns.items():
        group[key].attrs["neurodata_type"] = "EnumData"
        if elements is not None:
            stored = np.array(elements, VLEN_TEXT) if isinstance(elements, list) else elements
            group[f"{key}_elements"] = stored
            group[key].attrs["elements"] = group[f"{key}_elements"].ref
    return group


@pytest.mark.parametrize("suffix", FORMATS)
def test_codes_are_an_enum_of_their_meanings(suffix, twins):
    frame = lazynwb.read_nwb(twins / f"enumerated{suffix}", "/processing/enums/colors")
    assert frame.schema["color"] == pl.Enum(["red", "grün", "blue"])
    assert frame["color"].to_list() == ["red", "blue", "grün", "grün"]
    assert frame.columns == ["color", "id", "_nwb_path", "_table_path", "_table_index"]


def test_ragged_codes_are_lists_of_an_enum(built):
    frame = lazynwb.read_nwb(built("event_tables"), "/events/stimuli")
    assert frame.schema["tastes"] == pl.List(pl.Enum(["a", "b", "c"]))
    assert frame["tastes"].to_list() == [["a"], [], ["b", "a"], ["b"], [], ["c"], ["c", "c"], ["a"]]


@pytest.mark.parametrize("engine", ENGINES)
def test_an_enum_can_be_filtered_by_its_texts(engine, built):
    lf = lazynwb.scan_nwb(built("event_tables"), "/events/stimuli")
    assert lf.filter(pl.col("spout") == "ö").collect(engine=engine)["trial"].to_list() == [1, 4, 7]


@pytest.mark.parametrize("dtype", ["u1", "i2", "<u4", ">u2", ">i8"])
@pytest.mark.parametrize("options", [{}, {"chunks": (2, 1), "compression": "gzip"}], ids=["plain", "zipped"])
def test_codes_of_any_integer_type_and_byte_order(dtype, options, tmp_path):
    path = tmp_path / "a.nwb"
    with h5py.File(path, "w") as file:
        group = enumerated(file, "t", {"plain": (np.array([2, 0, 1, 2, 0], dtype), ["x", "", "ÿ"])})
        codes = group.create_dataset(
            "kind", data=np.array([[0, 1], [1, 1], [0, 0], [1, 0], [0, 1]], dtype), **options
        )
        codes.attrs.update({"neurodata_type": "EnumData", "elements": group["plain_elements"].ref})
    check_file(path, "in-memory")
    frame = lazynwb.read_nwb(path, "t")
    assert frame["plain"].to_list() == ["ÿ", "x", "", "ÿ", "x"]
    assert frame.schema["kind"] == pl.Array(pl.Enum(["x", "", "ÿ"]), 2)


TEXTS = st.lists(
    st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=5), min_size=1, max_size=9
)
_number = itertools.count()


@given(texts=TEXTS, data=st.data(), fixed=st.booleans())
def test_any_codes_and_elements_equal_plain_python(texts, data, fixed, tmp_path_factory):
    """As scalars and in lists, with elements of variable and of fixed length."""
    path = tmp_path_factory.getbasetemp() / f"enum_{next(_number)}.nwb"
    code = st.integers(0, len(texts) - 1)
    rows = data.draw(st.lists(st.lists(code, max_size=3), max_size=6))
    single = np.array([data.draw(code) for _ in rows], "u2")
    elements = np.array([text.encode() for text in texts], "S") if fixed else texts
    if fixed and not elements.dtype.itemsize:
        elements = elements.astype("S1")
    with h5py.File(path, "w") as file:
        columns = {"one": (single, elements), "many": (Ragged(rows, "u1"), elements)}
        enumerated(file, "t", columns)
    check_file(path, "in-memory")
    frame = lazynwb.read_nwb(path, "t")
    assert frame["one"].to_list() == [texts[code] for code in single]
    assert frame["many"].to_list() == [[texts[code] for code in row] for row in rows]


def test_datasets_of_elements_are_not_columns(tmp_path):
    """A dataset as long as the table is a column of it, unless it contains the elements of another."""
    path = tmp_path / "a.nwb"
    with h5py.File(path, "w") as file:
        enumerated(file, "hidden", {"kind": (np.array([1, 0], "u1"), ["a", "b"])})
        listed = np.array(["kind", "kind_elements"], VLEN_TEXT)
        enumerated(file, "listed", {"kind": (np.array([1, 0], "u1"), ["a", "b"])}, colnames=listed)
    check_file(path, "in-memory")
    assert lazynwb.read_nwb(path, "hidden").columns[:2] == ["id", "kind"]
    assert lazynwb.read_nwb(path, "listed").columns[:3] == ["id", "kind", "kind_elements"]


def test_duplicate_texts_of_an_enumeration_are_merged(tmp_path):
    path = tmp_path / "a.nwb"
    with h5py.File(path, "w") as file:
        enumerated(file, "t", {"kind": (np.array([0, 1, 2, 3], "u1"), ["a", "b", "a", "b"])})
    check_file(path, "in-memory")
    frame = lazynwb.read_nwb(path, "t")
    assert frame["kind"].to_list() == ["a", "b", "a", "b"]
    assert frame.schema["kind"] == pl.Enum(["a", "b"])


@pytest.mark.parametrize(
    "elements",
    [None, np.array([10.0, 20.0]), np.array([["a", "b"]], dtype="S1"), "dangling"],
    ids=["none", "numbers", "two dimensions", "dangling"],
)
def test_codes_without_texts_are_shown_as_codes_with_a_warning(elements, tmp_path, caplog):
    path = tmp_path / "a.nwb"
    with h5py.File(path, "w") as file:
        stored = ["x", "y"] if isinstance(elements, str) else elements
        group = enumerated(file, "t", {"kind": (np.array([1, 0, 1], "u1"), stored)})
        if isinstance(elements, str):
            del group["kind_elements"]
    with caplog.at_level(logging.WARNING, "lazynwb"):
        frame = lazynwb.read_nwb(path, "t")
    assert frame["kind"].to_list() == [1, 0, 1]
    assert frame.schema["kind"] == pl.UInt8
    assert "column 'kind' has codes as values" in caplog.text


def test_a_code_without_a_meaning_is_an_error_with_its_location(tmp_path):
    path = tmp_path / "a.nwb"
    with h5py.File(path, "w") as file:
        enumerated(file, "t", {"kind": (np.array([1, 0, 7], "u1"), ["a", "b"]), "fine": (np.arange(3), None)})
    with pytest.raises(lazynwb.LazyNWBError, match=r"a\.nwb: /t: column 'kind': .* 7 "):
        lazynwb.read_nwb(path, "t")
    assert lazynwb.scan_nwb(path, "t").select("id").collect().height == 3


def test_an_enumeration_without_elements_and_rows(tmp_path):
    """An empty column has the type of other files."""
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        enumerated(file, "t", {"kind": (np.zeros(0, "u1"), [])})
    with h5py.File(tmp_path / "b.nwb", "w") as file:
        enumerated(file, "t", {"kind": (np.array([1, 0], "u1"), ["a", "b"])})
    for paths in (["a.nwb", "b.nwb"], ["b.nwb", "a.nwb"]):
        frame = lazynwb.read_nwb([tmp_path / name for name in paths], "t")
        assert frame["kind"].to_list() == ["b", "a"]
        assert frame.schema["kind"] == pl.Enum(["a", "b"])


def test_elements_that_differ_between_files_are_text(tmp_path):
    paths = [tmp_path / f"{k}.nwb" for k in range(3)]
    for path, elements in zip(paths, (["a", "b"], ["b", "a"], ["a", "b", "c"]), strict=True):
        with h5py.File(path, "w") as file:
            ragged = Ragged([[0, 1], [1]], "u1")
            group = enumerated(
                file, "t", {"kind": (np.array([1, 0], "u1"), elements), "many": (ragged, elements)}
            )
            del group
    frame = lazynwb.read_nwb(paths, "t")
    assert frame.schema["kind"] == pl.String
    assert frame["kind"].to_list() == ["b", "a", "a", "b", "b", "a"]
    assert frame["many"].to_list() == [["a", "b"], ["b"], ["b", "a"], ["a"], ["a", "b"], ["b"]]
    alike = lazynwb.read_nwb([paths[0], paths[0]], "t")
    assert alike.schema["kind"] == pl.Enum(["a", "b"])


def test_a_category_may_have_enumerated_columns(tmp_path):
    path = tmp_path / "a.nwb"
    with h5py.File(path, "w") as file:
        group = table(file, "t", {"own": np.arange(3)}, kind="AlignedDynamicTable")
        group.attrs["categories"] = np.array(["about"], VLEN_TEXT)
        enumerated(group, "about", {"kind": (np.array([1, 0, 1], "u1"), ["a", "b", "c"])})
    check_file(path, "in-memory")
    assert lazynwb.read_nwb(path, "t")["about"].struct.field("kind").to_list() == ["b", "a", "b"]


def test_elements_behind_a_forbidden_link_are_not_read(tmp_path):
    """`config.external_links` applies to the texts of enumerations as to data."""
    path, other = tmp_path / "a.nwb", tmp_path / "elsewhere.bin"
    other.write_bytes(b"secret" + b"public")
    with h5py.File(path, "w") as file:
        group = enumerated(file, "t", {"kind": (np.array([1, 0], "u1"), None)})
        there = group.create_dataset("names", (2,), "S6", external=[(str(other), 0, 12)])
        group["kind"].attrs["elements"] = there.ref
    assert lazynwb.read_nwb(path, "t")["kind"].to_list() == ["public", "secret"]
    lazynwb.config.external_links = "never"
    assert lazynwb.read_nwb(path, "t")["kind"].to_list() == [1, 0]


def test_a_large_set_of_elements_is_an_enum_and_a_huge_one_is_not(tmp_path, caplog):
    path = tmp_path / "a.nwb"
    with h5py.File(path, "w") as file:
        large, huge = ([f"element {k}" for k in range(n)] for n in (10_000, 10_001))
        enumerated(file, "large", {"kind": (np.array([9_999, 3], "u2"), large)})
        enumerated(file, "huge", {"kind": (np.array([10_000, 3], "u2"), huge)})
    assert lazynwb.read_nwb(path, "large")["kind"].to_list() == ["element 9999", "element 3"]
    with caplog.at_level(logging.WARNING, "lazynwb"):
        assert lazynwb.read_nwb(path, "huge")["kind"].to_list() == [10_000, 3]
    assert "has codes as values" in caplog.text


@pytest.mark.parametrize("suffix", FORMATS)
def test_enumerated_columns_from_a_server(suffix, twins):
    name = f"enumerated{suffix}"
    with RangeServer(twins) as server:
        remote = lazynwb.read_nwb(f"{server.url}/{name}", "/processing/enums/colors")
    local = lazynwb.read_nwb(twins / name, "/processing/enums/colors")
    assert remote.drop("_nwb_path").equals(local.drop("_nwb_path"))


def test_a_cached_catalog_contains_the_elements(built):
    path = built("event_tables")
    first = lazynwb.read_nwb(path, "/events/stimuli")
    with lazynwb.profile() as again:
        second = lazynwb.read_nwb(path, "/events/stimuli")
    assert again.files_parsed == 0
    assert second.equals(first, null_equal=True)


# --- plane segmentations ------------------------------------------------------------------------------


def test_masks_of_regions_of_interest(built):
    path, folder = built("plane_segmentations"), "/processing/ophys/ImageSegmentation"
    pixels = lazynwb.read_nwb(path, f"{folder}/pixels")
    voxels = lazynwb.read_nwb(path, f"{folder}/voxels")
    images = lazynwb.read_nwb(path, f"{folder}/images")
    assert pixels.schema["pixel_mask"] == pl.List(
        pl.Struct({"x": pl.UInt32, "y": pl.UInt32, "weight": pl.Float32})
    )
    assert voxels.schema["voxel_mask"] == pl.List(
        pl.Struct({"x": pl.UInt32, "y": pl.UInt32, "z": pl.UInt32, "weight": pl.Float32})
    )
    assert images.schema["image_mask"] == pl.Array(pl.Float64, (4, 6))
    assert pixels["pixel_mask"].list.len().to_list() == [1, 2, 3, 4, 5]
    assert voxels["voxel_mask"].list.len().to_list() == [1, 1, 3, 1, 1]


@pytest.mark.parametrize("engine", ENGINES)
def test_masks_of_filtered_rows(engine, built):
    lf = lazynwb.scan_nwb(built("plane_segmentations"), "/processing/ophys/ImageSegmentation/pixels")
    found = lf.filter(pl.col("label") == "cell 3").select("pixel_mask").collect(engine=engine)
    expected = [{"x": i, "y": i + 3, "weight": 0.5 * i} for i in range(4)]
    assert same(found["pixel_mask"].to_list(), [expected])
