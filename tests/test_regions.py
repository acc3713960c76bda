"""`resolve_regions`: target rows of DynamicTableRegions instead of their positions."""

import itertools
import logging
import os
import pickle
import time
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lazynwb
from builders import VLEN_TEXT, Column, Ragged, table
from checks import ENGINES, assert_frames, assert_values
from range_server import RangeServer
from readers import hdf5_tables as oracle
from readers import pynwb_session

FOLDER = os.environ.get("LAZYNWB_TEST_DATA")
FILES = sorted(path for path in Path(FOLDER).rglob("*.nwb") if path.is_file()) if FOLDER else []
FORMATS = (".nwb", ".v2.nwb.zarr", ".v3.nwb.zarr")
ELECTRODES = "general/extracellular_ephys/electrodes"
ICEPHYS = "/general/intracellular_ephys"


def electrodes(file, count, **more):
    """A table of electrodes, with an array and a text of each."""
    columns = {
        "location": [f"é{k}" for k in range(count)],
        "x": np.arange(count) / 4,
        "shape": np.arange(count * 2.0).reshape(count, 2),
        **more,
    }
    return table(file, ELECTRODES, columns)


def region(group, name, target):
    """Make a column a region of another table."""
    group[name].attrs["neurodata_type"] = "DynamicTableRegion"
    if target is not None:
        group[name].attrs["table"] = target.ref


def units(path, rows, count=6, **more):
    """A file with units whose electrodes are the given positions; gives its path."""
    with h5py.File(path, "w") as file:
        target = electrodes(file, count, **more)
        columns = {"electrodes": Ragged(rows, "i4"), "quality": np.arange(len(rows))}
        region(table(file, "units", columns, kind="Units"), "electrodes", target)
    return path


def expected_rows(path, table_path, name, target_path):
    """The expected rows by plain Python and h5py: dictionaries, or None for invalid positions."""
    target = oracle.read_table(path, target_path)
    shown = {n: v for n, v in target.columns.items() if not target.dtypes[n].startswith(("List", "Array"))}
    rows = [dict(zip(shown, row, strict=True)) for row in zip(*shown.values(), strict=True)]

    def resolved(value):
        if isinstance(value, list):
            return [resolved(item) for item in value]
        return rows[value] if value is not None and 0 <= value < len(rows) else None

    return [resolved(value) for value in oracle.read_table(path, table_path).columns[name]]


def regions_of(path):
    """Table, column, and the table that it refers to, of each region of an HDF5 file."""
    with h5py.File(path) as file:
        for table_path in oracle.tables(path):
            for name, dataset in oracle.datasets(file[table_path]).items():
                if oracle.is_region(dataset) and oracle.is_table(file[table_path]):
                    yield table_path, name, file[dataset.attrs["table"]].name


# --- types of resolved regions ------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.sample(2)
def test_electrodes_of_each_unit_equal_pynwb(suffix, engine, twins):
    with pynwb_session.reading(twins / "units.nwb") as session:
        columns = session.columns(session.nwb.electrodes)
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        column = session.nwb.units["electrodes"]
        ids = [column[unit].index.tolist() for unit in range(len(session.nwb.units))]
        expected = [[next(row for row in rows if row["id"] == i) for i in listed] for listed in ids]
        location = [column[unit]["location"].tolist() for unit in range(len(session.nwb.units))]
    lf = lazynwb.scan_nwb(twins / f"units{suffix}", "/units", resolve_regions=True)
    frame = lf.select("electrodes").collect(engine=engine)
    assert_values(frame["electrodes"].to_list(), expected, "electrodes")
    assert frame["electrodes"].list.eval(pl.element().struct.field("location")).to_list() == location
    assert frame.schema["electrodes"] == pl.List(
        pl.Struct(
            {
                "group": pl.String,
                "group_name": pl.String,
                "id": pl.Int64,
                "location": pl.String,
                "x": pl.Float64,
                "y": pl.Float64,
                "z": pl.Float64,
            }
        )
    )


@pytest.mark.parametrize("suffix", FORMATS)
def test_regions_of_one_row_are_structs(suffix, twins):
    path = twins / f"regions{suffix}"
    frame = lazynwb.read_nwb(path, "/processing/ecephys/rows", resolve_regions=True)
    for name in ("electrode", "electrodes"):
        expected = expected_rows(twins / "regions.nwb", "/processing/ecephys/rows", name, f"/{ELECTRODES}")
        assert_values(frame[name].to_list(), expected, name)
    assert isinstance(frame.schema["electrode"], pl.Struct)


@pytest.mark.parametrize("suffix", FORMATS)
def test_rows_of_an_aligned_table_have_its_categories(suffix, twins):
    path = twins / f"intracellular{suffix}"
    recordings = lazynwb.read_nwb(path, f"{ICEPHYS}/intracellular_recordings").drop("^_.*$").to_dicts()
    frame = lazynwb.read_nwb(path, f"{ICEPHYS}/simultaneous_recordings", resolve_regions=True)
    assert frame["recordings"].to_list() == [recordings[:2], recordings[2:]]
    assert recordings[0]["responses"]["response"]["timeseries"] == "/acquisition/resp0"


@pytest.mark.long
@pytest.mark.parametrize("suffix", FORMATS)
def test_regions_of_every_session_are_resolved(suffix, twins):
    """Compared with plain Python and h5py on the HDF5 twin; other columns are unchanged."""
    found = 0
    for path in sorted(twins.glob("*.nwb")):
        regions = list(regions_of(path)) if path.is_file() else []
        for table_path, name, target in regions:
            store = path.with_name(path.stem + suffix)
            frame = lazynwb.read_nwb(store, table_path, resolve_regions=True)
            plain = lazynwb.read_nwb(store, table_path)
            assert_values(
                frame[name].to_list(), expected_rows(path, table_path, name, target), f"{store}: {name}"
            )
            others = pl.exclude([other for _, other, _ in regions])
            assert_frames(frame.select(others), plain.select(others))
            found += 1
    assert found >= 10


def test_regions_of_the_other_table_stay_positions(built):
    """Only regions of the scanned table are resolved; lists of positions are omitted like arrays."""
    path = built("icephys_hierarchy")
    lf = lazynwb.scan_nwb(path, f"{ICEPHYS}/sequential_recordings", resolve_regions=True)
    assert lf.collect_schema()["simultaneous_recordings"] == pl.List(pl.Struct({"id": pl.Int64}))
    assert lf.collect()["simultaneous_recordings"].to_list() == [[{"id": 1}, {"id": 2}], [{"id": 0}]]


def test_categories_with_arrays_are_excluded(built):
    path = built("icephys_hierarchy")
    schema = lazynwb.scan_nwb(
        path, f"{ICEPHYS}/simultaneous_recordings", resolve_regions=True
    ).collect_schema()
    assert [field.name for field in schema["recordings"].inner.fields] == ["electrodes", "id", "tag"]


def test_masks_are_excluded_and_labels_are_not(built):
    frame = lazynwb.read_nwb(built("plane_segmentations"), "/processing/ophys/chosen", resolve_regions=True)
    assert frame["roi"].to_list() == [{"id": k, "label": f"cell {k}"} for k in (4, 1, 1)]


def test_positions_are_unresolved_by_default(twins):
    frame = lazynwb.read_nwb(twins / "regions.nwb", "/processing/ecephys/rows")
    assert frame.schema["electrode"] == pl.Int64
    assert frame["electrode"].to_list() == [4, 0, 2]


def test_columns_can_be_chosen_by_name(twins):
    path, name = twins / "regions.nwb", "/processing/ecephys/rows"
    resolved = lazynwb.read_nwb(path, name, resolve_regions=True)
    plain = lazynwb.read_nwb(path, name)
    for wanted in ("electrode", ["electrode"], ("electrode",)):
        frame = lazynwb.read_nwb(path, name, resolve_regions=wanted)
        assert frame["electrode"].equals(resolved["electrode"])
        assert frame["electrodes"].equals(plain["electrodes"])
    assert lazynwb.read_nwb(path, name, resolve_regions=[]).equals(plain)


@pytest.mark.parametrize("name", ["id", "nothing"])
def test_a_column_that_is_not_a_region_is_an_error_that_lists_the_regions(name, twins):
    with pytest.raises(lazynwb.SchemaError, match=f"{name}.*available regions: electrode, electrodes"):
        lazynwb.scan_nwb(twins / "regions.nwb", "/processing/ecephys/rows", resolve_regions=name)


def test_a_table_without_regions_is_unchanged(cube):
    plain = lazynwb.read_nwb(cube, "/intervals/trials")
    assert lazynwb.read_nwb(cube, "/intervals/trials", resolve_regions=True).equals(plain, null_equal=True)


def test_array_columns_can_be_excluded(twins):
    schema = lazynwb.scan_nwb(
        twins / "regions.nwb", "/processing/ecephys/rows", resolve_regions=True, exclude_array_columns=True
    ).collect_schema()
    assert isinstance(schema["electrode"], pl.Struct)
    assert "electrodes" not in schema


# --- any positions ------------------------------------------------------------------------------------

POSITIONS = st.integers(-3, 9)
_number = itertools.count()


@given(
    rows=st.lists(st.lists(POSITIONS, max_size=4), max_size=12),
    singles=st.lists(POSITIONS, min_size=12, max_size=12),
    deep=st.lists(st.lists(st.lists(POSITIONS, max_size=3), max_size=3), min_size=12, max_size=12),
    count=st.integers(0, 7),
)
def test_any_regions_equal_plain_python(rows, singles, deep, count, tmp_path_factory):
    """One or several positions, or lists of positions, in each row; some are invalid."""
    path = tmp_path_factory.getbasetemp() / f"any_{next(_number)}.nwb"
    n = len(rows)
    with h5py.File(path, "w") as file:
        target = electrodes(file, count, kind=Column(np.arange(count, dtype=">i2") % 2, {}))
        columns = {
            "one": np.array(singles[:n], "i4"),
            "many": Ragged(rows, "i8"),
            "deep": Ragged(deep[:n], "i2", depth=2),
        }
        group = table(file, "t", columns)
        for name in columns:
            region(group, name, target)
    lf = lazynwb.scan_nwb(path, "t", resolve_regions=True)
    frame = lf.collect()
    for name in columns:
        assert_values(frame[name].to_list(), expected_rows(path, "t", name, ELECTRODES), name)
    keep = pl.col("one").struct.field("x") >= 0.5
    assert_frames(lf.filter(keep).collect(engine="streaming"), frame.filter(keep))


# --- queries ------------------------------------------------------------------------------------------


@pytest.fixture
def many(tmp_path):
    """Three sessions of different electrodes, whose units have spike times in chunks."""
    paths = []
    for k in range(3):
        path = tmp_path / f"{k}.nwb"
        rows = [[(i + j) % 5 for j in range(i % 3)] for i in range(40)]
        units(path, rows, 5, label=[f"file {k} electrode {i}" for i in range(5)])
        with h5py.File(path, "a") as file:
            spikes = file["units"].create_dataset(
                "spike_times", data=np.arange(40 * 500.0), chunks=(500,), compression="gzip"
            )
            index = file["units"].create_dataset("spike_times_index", data=(np.arange(40) + 1) * 500)
            index.attrs.update({"neurodata_type": "VectorIndex", "target": spikes.ref})
            names = np.array(["electrodes", "quality", "spike_times"], VLEN_TEXT)
            file["units"].attrs["colnames"] = names
        paths.append(path)
    time.sleep(0.1)  # what was just written is not remembered
    return paths


PREDICATES = [
    pl.col("electrodes").list.len() == 1,
    pl.col("electrodes").list.first().struct.field("location") == "é3",
    (pl.col("electrodes").list.first().struct.field("label") == "file 1 electrode 2")
    & (pl.col("quality") > 3),
    pl.col("quality").is_between(7, 9) | pl.col("electrodes").list.first().is_null(),
    (pl.col("_table_index") > 30) & (pl.col("electrodes").list.last().struct.field("x") > 0.5),
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("number", range(len(PREDICATES)))
@pytest.mark.sample(2)
def test_filters_and_projections_see_resolved_values(number, engine, many):
    lf = lazynwb.scan_nwb(many, "/units", resolve_regions=True)
    frame = lf.collect()
    keep = PREDICATES[number]
    assert 0 < frame.filter(keep).height < frame.height
    assert_frames(lf.filter(keep).collect(engine=engine), frame.filter(keep))
    names = ["quality", "_nwb_path"]
    assert_frames(lf.filter(keep).select(names).collect(engine=engine), frame.filter(keep).select(names))
    assert_frames(lf.head(50).filter(keep).collect(engine=engine), frame.head(50).filter(keep))
    assert_frames(lf.filter(keep).head(2).collect(engine=engine), frame.filter(keep).head(2))


def test_each_file_has_its_own_electrodes(many):
    frame = lazynwb.read_nwb(many, "/units", resolve_regions=True)
    for k, path in enumerate(many):
        own = frame.filter(pl.col("_nwb_path") == str(path))
        assert_values(
            own["electrodes"].to_list(), expected_rows(path, "units", "electrodes", ELECTRODES), "electrodes"
        )
        assert (
            own["electrodes"].explode().drop_nulls().struct.field("label").str.starts_with(f"file {k}").all()
        )


def test_a_filter_on_electrodes_reads_the_spike_times_of_survivors_only(many):
    lf = lazynwb.scan_nwb(many, "/units", resolve_regions=True)
    keep = pl.col("electrodes").list.last().struct.field("label") == "file 2 electrode 4"
    lf.filter(keep).collect()  # what is in the catalogs is known now
    with lazynwb.profile() as p:
        found = lf.filter(keep).select("spike_times").collect()
    assert 0 < found.height < 10
    assert p.chunks_decoded == found.height


@pytest.mark.usefixtures("no_store")
def test_the_target_table_is_only_read_if_required(many):
    lf = lazynwb.scan_nwb(many, "/units", resolve_regions=True)
    plain = lazynwb.scan_nwb(many, "/units")
    with lazynwb.profile() as with_regions:
        lf.filter(pl.col("quality") == 3).select("quality").collect()
    with lazynwb.profile() as without:
        plain.filter(pl.col("quality") == 3).select("quality").collect()
    assert with_regions.bytes_read == without.bytes_read


@pytest.mark.usefixtures("no_store")
def test_the_target_table_is_read_once_for_all_batches(tmp_path):
    """A filtered query starts with small batches; electrodes are read with the first."""
    path = units(tmp_path / "a.nwb", [[k % 6] for k in range(5_000)])
    extra = set()
    for size in (1 << 28, 1 << 12):
        lazynwb.config.batch_bytes = size
        read = []
        for resolve in (True, False):
            lf = lazynwb.scan_nwb(path, "/units", resolve_regions=resolve).filter(pl.col("quality") >= 0)
            with lazynwb.profile() as p:
                assert lf.select("electrodes").collect(engine="streaming").height == 5_000
            read.append(p.bytes_read)
        extra.add(read[0] - read[1])
    assert len(extra) == 1
    assert extra.pop() > 0


def test_a_scan_can_be_sent_to_another_process(many):
    lf = lazynwb.scan_nwb(many, "/units", resolve_regions=True)
    assert_frames(pickle.loads(pickle.dumps(lf)).collect(), lf.collect())  # noqa: S301 - our own


def test_sources_from_a_server(twins):
    with RangeServer(twins) as server:
        for suffix in FORMATS:
            url = f"{server.url}/units{suffix}"
            remote = lazynwb.read_nwb(url, "/units", resolve_regions=True)
            local = lazynwb.read_nwb(twins / f"units{suffix}", "/units", resolve_regions=True)
            assert_frames(remote.drop("_nwb_path"), local.drop("_nwb_path"))


def test_references_between_tables_are_cached(many):
    """A second query, or another process, parses no structure."""
    lazynwb.read_nwb(many, "/units", resolve_regions=True)
    with lazynwb.profile() as p:
        lazynwb.read_nwb(many, "/units", resolve_regions=True)
    assert p.files_parsed == 0


def test_unresolved_regions_cost_nothing(many):
    lazynwb.clear_cache()
    with lazynwb.profile() as p:
        lazynwb.scan_nwb(many, "/units").select("quality").collect()
    assert p.files_parsed == len(many)


# --- files that differ --------------------------------------------------------------------------------


def test_columns_of_target_tables_are_united(tmp_path):
    """Types are merged as in a scan, and columns that a file lacks are null."""
    one = units(tmp_path / "a.nwb", [[0], [1]], 2, own=["p", "q"], depth=np.array([1, 2], "i4"))
    other = units(
        tmp_path / "b.nwb", [[1], []], 2, depth=np.array([0.5, 1.5], "f4"), flag=np.array([True, False])
    )
    frame = lazynwb.read_nwb([one, other], "/units", resolve_regions=True)
    fields = {field.name: field.dtype for field in frame.schema["electrodes"].inner.fields}
    assert fields == {
        "depth": pl.Float64,
        "flag": pl.Boolean,
        "id": pl.Int64,
        "location": pl.String,
        "own": pl.String,
        "x": pl.Float64,
    }
    rows = frame["electrodes"].to_list()
    assert rows[1] == [{"depth": 2.0, "flag": None, "id": 1, "location": "é1", "own": "q", "x": 0.25}]
    assert rows[2] == [{"depth": 1.5, "flag": False, "id": 1, "location": "é1", "own": None, "x": 0.25}]
    assert rows[3] == []


def test_later_files_follow_the_schema_of_the_first(tmp_path):
    one = units(tmp_path / "a.nwb", [[0]], 2, own=["p", "q"])
    other = units(tmp_path / "b.nwb", [[1]], 2, extra=np.arange(2))
    frame = lazynwb.read_nwb([one, other], "/units", infer_schema_length=1, resolve_regions=True)
    assert [field.name for field in frame.schema["electrodes"].inner.fields] == ["id", "location", "own", "x"]
    assert frame["electrodes"][1].to_list() == [{"id": 1, "location": "é1", "own": None, "x": 0.25}]


def test_incompatible_types_are_an_error_that_names_both_files(tmp_path):
    paths = [
        units(tmp_path / "a.nwb", [[0]], 2, depth=np.arange(2)),
        units(tmp_path / "b.nwb", [[0]], 2, depth=["x", "y"]),
    ]
    with pytest.raises(lazynwb.SchemaError, match=r"electrodes.*depth.*a\.nwb.*b\.nwb.*schema_overrides"):
        lazynwb.read_nwb(paths, "/units", resolve_regions=True)
    others = lazynwb.scan_nwb(paths, "/units", resolve_regions=True).drop("electrodes").collect()
    assert others["_table_index"].to_list() == [0, 0]
    first = lazynwb.read_nwb(paths, "/units", resolve_regions=True, ignore_errors=True)
    assert first["electrodes"].to_list()[0][0]["depth"] == 0
    chosen = pl.List(pl.Struct({"location": pl.String, "x": pl.Float32}))
    frame = lazynwb.read_nwb(paths, "/units", resolve_regions=True, schema_overrides={"electrodes": chosen})
    assert frame.schema["electrodes"] == chosen
    assert frame["electrodes"].to_list() == [[{"location": "é0", "x": 0.0}]] * 2


def test_a_schema_may_select_the_fields_to_read(tmp_path):
    path = units(tmp_path / "a.nwb", [[1], [0, 1]], 2)
    schema = {"electrodes": pl.List(pl.Struct({"x": pl.Float64})), "quality": pl.Int64}
    frame = lazynwb.read_nwb(path, "/units", schema=schema, resolve_regions=True)
    assert frame["electrodes"].to_list() == [[{"x": 0.25}], [{"x": 0.0}, {"x": 0.25}]]
    plain = lazynwb.read_nwb(path, "/units", schema={"electrodes": pl.List(pl.Int64)}, resolve_regions=True)
    assert plain["electrodes"].to_list() == [[1], [0, 1]]


def test_a_file_without_the_column_has_nulls(tmp_path):
    one = units(tmp_path / "a.nwb", [[1], []], 2)
    with h5py.File(tmp_path / "b.nwb", "w") as file:
        table(file, "units", {"quality": np.arange(2)}, kind="Units")
    frame = lazynwb.read_nwb([one, tmp_path / "b.nwb"], "/units", resolve_regions=True)
    located = [{"id": 1, "location": "é1", "x": 0.25}]
    assert frame["electrodes"].to_list() == [located, [], None, None]


def test_a_column_that_is_not_a_region_in_one_file_is_an_error(tmp_path):
    one = units(tmp_path / "a.nwb", [[1]], 2)
    with h5py.File(tmp_path / "b.nwb", "w") as file:
        table(file, "units", {"electrodes": Ragged([[1]], "i4")}, kind="Units")
    paths = [one, tmp_path / "b.nwb"]
    lf = lazynwb.scan_nwb(paths, "/units", infer_schema_length=1, resolve_regions=True)
    with pytest.raises(
        lazynwb.SchemaError, match=r"b\.nwb: /units: column 'electrodes' is not a DynamicTableRegion"
    ):
        lf.collect()
    everywhere = lazynwb.read_nwb(paths, "/units", resolve_regions=True)
    assert everywhere["electrodes"].to_list() == [[1], [1]]  # not a region in each of them
    with pytest.raises(lazynwb.SchemaError, match="is not a DynamicTableRegion"):
        lazynwb.scan_nwb(paths, "/units", resolve_regions="electrodes")


# --- broken files -------------------------------------------------------------------------------------


def test_invalid_positions_are_null_with_one_warning(tmp_path, caplog):
    path = units(tmp_path / "a.nwb", [[0, 6], [-1], [5, -7, 2**31 - 1], []])
    with caplog.at_level(logging.WARNING, "lazynwb"):
        frame = (
            lazynwb.scan_nwb(path, "/units", resolve_regions=True).filter(pl.col("quality") >= 0).collect()
        )
    assert_values(
        frame["electrodes"].to_list(), expected_rows(path, "units", "electrodes", ELECTRODES), "electrodes"
    )
    assert [[row is None for row in listed] for listed in frame["electrodes"]] == [
        [False, True],
        [True],
        [False, True, True],
        [],
    ]
    assert caplog.text.count("a.nwb: /units: column 'electrodes'") == 1


def test_several_batches_cause_one_warning(tmp_path, caplog):
    path = units(tmp_path / "a.nwb", [[k % 9] for k in range(3_000)])
    lazynwb.config.batch_bytes = 4_096
    lf = lazynwb.scan_nwb(path, "/units", resolve_regions=True).filter(pl.col("quality") >= 0)
    with caplog.at_level(logging.WARNING, "lazynwb"):
        frame = lf.collect(engine="streaming")
    assert frame["electrodes"].list.first().is_null().to_list() == [k % 9 > 5 for k in range(3_000)]
    assert caplog.text.count("outside its target table") == 1


def without_target(path):
    """The same units, whose electrodes refer to no table."""
    units(path, [[1], [], [0, 1]], 2)
    with h5py.File(path, "a") as file:
        del file["units/electrodes"].attrs["table"]
    return path


def test_a_region_without_a_target_is_null_with_a_warning(tmp_path, caplog):
    paths = [units(tmp_path / "a.nwb", [[1]], 2), without_target(tmp_path / "b.nwb")]
    with caplog.at_level(logging.WARNING, "lazynwb"):
        frame = lazynwb.read_nwb(paths, "/units", resolve_regions=True)
    assert frame["electrodes"].to_list() == [
        [{"id": 1, "location": "é1", "x": 0.25}],
        [None],
        [],
        [None, None],
    ]
    assert "b.nwb: /units: column 'electrodes' is null, because its target table is missing" in caplog.text


def test_regions_of_two_dimensions_are_lists_of_rows(tmp_path):
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        target = electrodes(file, 4)
        group = table(file, "units", {"pair": np.array([[0, 3], [2, 1], [3, 9]])}, kind="Units")
        region(group, "pair", target)
    for regions in (True, "pair"):
        frame = lazynwb.scan_nwb(tmp_path / "a.nwb", "/units", resolve_regions=regions).collect()
        places = [[row and row["location"] for row in rows] for rows in frame["pair"].to_list()]
        assert places == [["é0", "é3"], ["é2", "é1"], ["é3", None]]


def test_regions_that_stay_positions_are_named_with_the_reason(tmp_path, caplog):
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        group = table(file, "units", {"lost": np.arange(3)}, kind="Units")
        region(group, "lost", None)
    frame = lazynwb.scan_nwb(tmp_path / "a.nwb", "/units", resolve_regions=True).collect()
    assert frame["lost"].to_list() == [0, 1, 2]
    assert "column 'lost' of /units cannot be resolved" in caplog.text
    caplog.clear()
    with h5py.File(tmp_path / "b.nwb", "w") as file:
        table(file, "units", {"lost": np.arange(3)}, kind="Units")
    lazynwb.scan_nwb([tmp_path / "a.nwb", tmp_path / "b.nwb"], "/units", resolve_regions=True).collect()
    assert "column 'lost' of /units has row positions: it is a DynamicTableRegion in only some" in caplog.text


def test_positions_are_shown_if_no_file_has_the_target_table(tmp_path):
    path = without_target(tmp_path / "a.nwb")
    assert lazynwb.read_nwb(path, "/units", resolve_regions=True)["electrodes"].to_list() == [[1], [], [0, 1]]
    with pytest.raises(lazynwb.SchemaError, match="cannot be resolved"):
        lazynwb.scan_nwb(path, "/units", resolve_regions="electrodes")


@pytest.mark.parametrize("target", ["units/quality", "general", "gone"])
def test_a_reference_to_another_object_than_a_table_has_no_target(target, tmp_path):
    path = units(tmp_path / "a.nwb", [[1]], 2)
    with h5py.File(path, "a") as file:
        referred = file.require_group("gone") if target == "gone" else file[target]
        file["units/electrodes"].attrs["table"] = referred.ref
        if target == "gone":
            del file["gone"]
    assert lazynwb.read_nwb(path, "/units", resolve_regions=True)["electrodes"].to_list() == [[1]]


def test_padded_rows_are_null(tmp_path):
    """A column that is too short is padded with nulls, which are not positions."""
    path = tmp_path / "a.nwb"
    with h5py.File(path, "w") as file:
        target = electrodes(file, 3)
        group = table(file, "t", {"one": np.array([2, 0]), "many": Ragged([[1, 2]], "i4")}, rows=3)
        region(group, "one", target)
        region(group, "many", target)
    frame = lazynwb.read_nwb(path, "t", resolve_regions=True)
    rows = [{"id": k, "location": f"é{k}", "x": k / 4} for k in range(3)]
    assert frame["one"].to_list() == [rows[2], rows[0], None]
    assert frame["many"].to_list() == [[rows[1], rows[2]], None, None]


def test_a_damaged_column_of_the_other_table_is_an_error_that_names_it_or_null(tmp_path, caplog):
    paths = [units(tmp_path / f"{k}.nwb", [[1], [0]], 600) for k in range(2)]
    with h5py.File(paths[1], "a") as file:
        del file[f"{ELECTRODES}/x"]
        broken = file[ELECTRODES].create_dataset(
            "x", data=np.arange(600.0), chunks=(600,), compression="gzip"
        )
        offset, size = broken.id.get_chunk_info(0).byte_offset, broken.id.get_chunk_info(0).size
    with paths[1].open("r+b") as raw:
        raw.seek(offset)
        raw.write(bytes(size))
    with pytest.raises(lazynwb.LazyNWBError, match=r"1\.nwb.*electrodes.*x"):
        lazynwb.read_nwb(paths, "/units", resolve_regions=True)
    with caplog.at_level(logging.WARNING, "lazynwb"):
        frame = lazynwb.read_nwb(paths, "/units", resolve_regions=True, ignore_errors=True)
    assert frame.height == 4
    for path, null in zip(paths, (0, 2), strict=True):
        rows = frame.filter(pl.col("_nwb_path") == str(path))["electrodes"].explode().struct
        assert rows.field("x").null_count() == null
        assert rows.field("id").null_count() == 0
    assert "1.nwb: /general/extracellular_ephys/electrodes: column 'x' is null" in caplog.text


def test_a_region_in_a_linked_file_refers_to_a_table_of_that_file(tmp_path):
    """References lead to objects of the file that holds them."""
    there = units(tmp_path / "there.nwb", [[1], [0, 1]], 2)
    with h5py.File(tmp_path / "here.nwb", "w") as file:
        electrodes(file, 4, wrong=np.arange(4))
        table(file, "units", {"quality": np.arange(2)}, kind="Units")
        for name in ("electrodes", "electrodes_index"):
            file["units"][name] = h5py.ExternalLink("there.nwb", f"/units/{name}")
    here = lazynwb.read_nwb(tmp_path / "here.nwb", "/units", resolve_regions=True)
    linked = lazynwb.read_nwb(there, "/units", resolve_regions=True)
    assert here["electrodes"].equals(linked["electrodes"])


@pytest.mark.long
@pytest.mark.skipif(not FILES, reason="set LAZYNWB_TEST_DATA to a folder of NWB files")
def test_every_region_of_the_real_files():
    """Each table with a region, compared with plain Python and h5py."""
    found = 0
    for path in FILES:
        for table_path, name, target in regions_of(path):
            frame = lazynwb.read_nwb(path, table_path, resolve_regions=True)
            expected = expected_rows(path, table_path, name, target)
            assert_values(frame[name].to_list(), expected, f"{path}: {table_path}: {name}")
            found += 1
    assert found >= 3


# --- costs --------------------------------------------------------------------------------------------


def test_resolving_regions_of_a_remote_file_only_requests_both_tables(tmp_path):
    """The target table is found without a walk through the file."""
    with h5py.File(tmp_path / "far.nwb", "w") as file:
        for k in range(300):
            file.create_dataset(f"processing/module{k % 7}/data{k}", data=np.arange(2_000))
        target = electrodes(file, 200)
        file.create_dataset("acquisition/raw", data=np.zeros(1_000_000))
        columns = {"electrodes": Ragged([[k % 200] for k in range(400)], "i4"), "quality": np.arange(400)}
        region(table(file, "units", columns, kind="Units"), "electrodes", target)
    with RangeServer(tmp_path) as server:
        url = server.url_of("far.nwb")
        with lazynwb.profile() as alone:
            lazynwb.read_nwb(url, "/units")
        with lazynwb.profile() as other:
            lazynwb.scan_nwb(url, "/electrodes").select(pl.exclude("shape")).collect()
        lazynwb.clear_cache()
        with lazynwb.profile() as both:
            frame = lazynwb.read_nwb(url, "/units", resolve_regions=True)
    assert frame["electrodes"][7][0]["location"] == "é7"
    assert alone.files_parsed == 1
    assert both.requests <= alone.requests + other.requests + 1
    assert both.bytes_read <= alone.bytes_read + other.bytes_read + 100_000
