"""Sessions in Zarr equal the same sessions in HDF5: versions 2 and 3, folders and archives, local and remote.

The twins are those of `zarr_twins/make.py`, made anew where LAZYNWB_ZARR2_PYTHON and LAZYNWB_ZARR3_PYTHON
name interpreters that can, and else unpacked from its archive. The oracle reads the HDF5 file, which both
stores are exports of; that the exports are complete is tested as well, where zarr-python is installed.
"""

import base64
import io
import json
import os
import re
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import polars as pl
import pytest

import checks
import lazynwb
from checks import (
    ENGINES,
    assert_frames,
    assert_table,
    check_pushdown,
    check_table,
    same,
)
from range_server import RangeServer
from readers import hdf5_tables as oracle
from zarr_twins.make import ARCHIVE, make_twins, session_names, unpack

PYTHONS = [os.environ.get(f"LAZYNWB_ZARR{version}_PYTHON") for version in (2, 3)]
FOLDER = os.environ.get("LAZYNWB_TEST_DATA")
VERSIONS = ("v2", "v3")
DOCUMENTS = frozenset(["zarr.json", ".zgroup", ".zarray", ".zattrs", ".zmetadata"])
METADATA = {"/general", "/general/subject"}

SESSIONS = session_names()


def stores_below(folder):
    """The outermost folders that are Zarr groups."""
    groups = {mark.parent for name in (".zgroup", "zarr.json") for mark in Path(folder).rglob(name)}
    return sorted(store for store in groups if not groups.intersection(store.parents))


REAL = stores_below(FOLDER) if FOLDER else []

#: Of every kind of table and series there is one in these.
USUAL = frozenset(
    ["session", "one_row", "no_rows", "every_dtype", "linked_series", "compressed_table", "lfp"]
)

each_session = pytest.mark.parametrize("name", SESSIONS)
usual_sessions = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in USUAL else pytest.mark.slow) for name in SESSIONS]
)
each_version = pytest.mark.parametrize("version", VERSIONS)
#: Either version for every other session; with `--slow`, both for each.
each_store = pytest.mark.parametrize(
    ("name", "version"),
    [
        pytest.param(name, version, marks=[pytest.mark.slow] * (number % 2 != place))
        for number, name in enumerate(SESSIONS)
        for place, version in enumerate(VERSIONS)
    ],
)


@pytest.fixture(scope="session")
def twins(twins, tmp_path_factory):
    """The twins, written anew where interpreters are given that can do it. Not to be changed."""
    if not all(PYTHONS):
        return twins
    folder = tmp_path_factory.mktemp("twins")
    make_twins(folder, *PYTHONS)
    return folder


@pytest.fixture
def hdf5(name, twins):
    return twins / f"{name}.nwb"


@pytest.fixture
def store(name, version, twins):
    return store_of(twins, name, version)


def store_of(twins, name, version):
    return twins / f"{name}.{version}.nwb.zarr"


def unconsolidated(store, folder):
    """A copy without consolidated metadata."""
    copy = folder / store.name
    shutil.copytree(store, copy)
    (copy / ".zmetadata").unlink(missing_ok=True)
    root = copy / "zarr.json"
    if root.exists():
        document = json.loads(root.read_text("utf-8"))
        del document["consolidated_metadata"]
        root.write_text(json.dumps(document), "utf-8")
    return copy


def zipped(store, folder, compression=zipfile.ZIP_STORED):
    """The store as one file; its members have no common folder."""
    path = folder / f"{store.name}.zip"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for member in sorted(store.rglob("*")):
            if member.is_file():
                archive.write(member, member.relative_to(store).as_posix())
    return path


def check_twin(path, hdf5, *, engines=ENGINES[:1], pushdown=False, tables=None):
    """Each table has the columns, types and values of its HDF5 twin; reports all that differ at once.

    Each table with one of the engines, in turn; with all of them if `--slow`.
    """
    problems = []
    for number, table_path in enumerate(oracle.tables(hdf5) if tables is None else tables):
        expected = oracle.read_table(hdf5, table_path)
        for engine in engines if checks.THOROUGH else engines[number % len(engines) :][:1]:
            try:
                frame = check_table(path, table_path, engine, expected)
                if pushdown:
                    check_pushdown(path, table_path, engine, frame)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next table is tried as well
                problems.append(f"{table_path}, {engine}: {type(error).__name__}: {str(error)[:600]}")
    assert not problems, f"{len(problems)} tables of {path}:\n" + "\n".join(problems)


# --- the same frames ----------------------------------------------------------------------------------


@pytest.mark.long
@each_store
@pytest.mark.sample(3)
def test_every_table_with_filters_and_limits(hdf5, store):
    check_twin(store, hdf5, engines=ENGINES, pushdown=True)


@each_version
@usual_sessions
@pytest.mark.sample(3)
def test_every_table_without_consolidated_metadata(hdf5, store, tmp_path):
    check_twin(unconsolidated(store, tmp_path), hdf5)


@each_version
@usual_sessions
@pytest.mark.sample(3)
def test_every_table_in_a_zip_file(hdf5, store, tmp_path):
    check_twin(zipped(store, tmp_path), hdf5)


@each_version
@pytest.mark.parametrize("name", ["session", "units_alone"])
@pytest.mark.sample(2)
def test_a_zip_file_without_consolidated_metadata(hdf5, store, tmp_path):
    check_twin(zipped(unconsolidated(store, tmp_path), tmp_path), hdf5, pushdown=True)


@each_version
@pytest.mark.parametrize("name", ["session", "units_alone"])
@pytest.mark.sample(2)
def test_a_zip_file_whose_members_are_compressed(hdf5, store, tmp_path):
    check_twin(zipped(store, tmp_path, zipfile.ZIP_DEFLATED), hdf5)


@each_version
@pytest.mark.parametrize("name", ["linked_series"])
def test_links_are_resolved_to_their_targets(store):
    """The timestamps of one series are those of another, under the path of the link (hdmf-zarr's links)."""
    first = lazynwb.read_nwb(store, "/acquisition/first")
    linked = lazynwb.read_nwb(store, "/stimulus/presentation/same_both")
    assert first["timestamps"].equals(linked["timestamps"])
    assert first["data"].equals(linked["data"], null_equal=True)
    assert set(linked["_table_path"]) == {"stimulus/presentation/same_both"}


@each_version
@pytest.mark.parametrize("name", ["units", "electrodes", "trials_with_references"])
def test_references_are_the_paths_that_they_name(name, store):
    """Stored as pickles, JSON, MessagePack or text."""
    expected = {
        "units": ("/units", pl.col("electrode_group"), "/general/extracellular_ephys/shank0"),
        "electrodes": (
            "/general/extracellular_ephys/electrodes",
            pl.col("group"),
            "/general/extracellular_ephys/shank",
        ),
        "trials_with_references": (
            "/intervals/trials",
            pl.col("timeseries").list.first().struct.field("timeseries"),
            "/acquisition/s0",
        ),
    }
    table, column, path = expected[name]
    assert lazynwb.scan_nwb(store, table).select(column).head(1).collect().item() == path


# --- metadata -----------------------------------------------------------------------------------------


@each_version
@pytest.mark.parametrize("name", ["described", "one_row", "session"])
def test_metadata_of_one_text_and_of_a_list_of_one(hdf5, store):
    """Scalars and lists of one element are distinguished, although version 2 stores both as arrays."""
    for table_path in sorted(METADATA.intersection(oracle.tables(hdf5))):
        expected = oracle.read_table(hdf5, table_path)
        assert_table(lazynwb.read_nwb(store, table_path), expected, store, table_path)
    general = lazynwb.scan_nwb(store, "/general").collect_schema()
    assert general["keywords"] == pl.List(pl.String)
    assert general["session_id"] == pl.String
    assert general["session_start_time"] == pl.String


# --- what a store contains ----------------------------------------------------------------------------

OPTIONS = (
    "include_child_datasets",
    "include_table_columns",
    "include_metadata",
    "include_specifications",
    "parents",
)


@each_store
@pytest.mark.parametrize("options", [(), OPTIONS], ids=["default", "all"])
def test_paths_equal_those_of_the_hdf5_file(options, hdf5, store):
    """In the same order, as groups or datasets, of the same shapes.

    HDF5 lists the members of a group by name, and a store has no order of its own. What hdmf-zarr 0.13 writes
    as an array of one element, for want of scalars, is listed as the scalar that it stands for. Only names of
    types may differ: text and references are "|O" in HDF5, and may have a fixed width in Zarr.
    """
    expected = lazynwb.get_internal_paths(hdf5, **dict.fromkeys(options, True))
    actual = lazynwb.get_internal_paths(store, **dict.fromkeys(options, True))
    assert list(actual) == list(expected)
    for path, info in expected.items():
        assert (path, actual[path].is_group, actual[path].shape) == (path, info.is_group, info.shape)
        assert (path, actual[path].members) == (path, info.members)


@each_version
@pytest.mark.parametrize("name", ["session", "linked_series", "modules"])
def test_the_same_paths_without_consolidated_metadata(store, tmp_path):
    all_options = dict.fromkeys(OPTIONS, True)
    copy = unconsolidated(store, tmp_path)
    assert dict(lazynwb.get_internal_paths(copy, **all_options)) == dict(
        lazynwb.get_internal_paths(store, **all_options)
    )


# --- several formats in one scan ----------------------------------------------------------------------


@pytest.mark.long
@usual_sessions
def test_one_schema_and_one_frame_over_all_formats(name, hdf5, twins):
    paths = [hdf5, *(store_of(twins, name, version) for version in VERSIONS)]
    for table_path in oracle.tables(hdf5):
        lf = lazynwb.scan_nwb(paths, table_path)
        alone = lazynwb.read_nwb(hdf5, table_path)
        assert lf.collect_schema() == alone.schema
        expected = pl.concat([alone.with_columns(_nwb_path=pl.lit(str(path))) for path in paths])
        assert_frames(lf.collect(), expected)
        some = pl.col("_table_index") % 2 == 1
        assert_frames(lf.filter(some).collect(), expected.filter(some))
        assert_frames(lf.head(alone.height + 1).collect(), expected.head(alone.height + 1))


def test_different_sessions_in_different_formats(twins):
    """Columns that one session lacks are null, in both formats."""
    kinds = {"units": ".nwb", "waveforms": ".v2.nwb.zarr", "units_alone": ".v3.nwb.zarr"}
    mixed = [twins / (name + suffix) for name, suffix in kinds.items()]
    plain = [twins / f"{name}.nwb" for name in kinds]
    actual = lazynwb.scan_nwb(mixed, "/units").collect()
    assert_frames(actual.drop("_nwb_path"), lazynwb.read_nwb(plain, "/units").drop("_nwb_path"))
    assert list(actual["_nwb_path"].unique(maintain_order=True)) == list(map(str, mixed))
    assert set(actual.filter(pl.col("waveforms").is_null())["_nwb_path"]) == {str(mixed[0]), str(mixed[2])}


def test_a_folder_of_files_and_stores(twins):
    """Each store is one source; its objects are not."""
    names = ("units", "waveforms", "units_alone", "one_row", "session")
    having = [store_of(twins, name, version) for name in names for version in VERSIONS]
    having += [twins / f"{name}.nwb" for name in names]
    found = lazynwb.scan_nwb(twins, "/units").select("_nwb_path").unique().collect()["_nwb_path"]
    assert sorted(found) == sorted(map(str, having))


@pytest.mark.parametrize("name", ["session", "one_row"])
def test_sql_over_all_formats(name, hdf5, twins):
    alone = lazynwb.get_sql_context(hdf5)
    context = lazynwb.get_sql_context([hdf5, *(store_of(twins, name, version) for version in VERSIONS)])
    assert context.tables() == alone.tables()
    query = "SELECT COUNT(*) AS n FROM units WHERE id >= 0"
    assert context.execute(query, eager=True).item() == 3 * alone.execute(query, eager=True).item()


# --- remote stores ------------------------------------------------------------------------------------


@pytest.fixture
def server(twins):
    with RangeServer(twins) as running:
        yield running


def asked(server):
    """Requests for metadata, and for chunks."""
    names = [seen.path.rpartition("/")[2] for seen in server.log]
    return (
        [seen for seen, name in zip(server.log, names, strict=True) if name in DOCUMENTS],
        [seen for seen, name in zip(server.log, names, strict=True) if name not in DOCUMENTS],
    )


@each_version
@usual_sessions
@pytest.mark.sample(3)
def test_every_table_from_a_web_server(hdf5, store, server):
    check_twin(server.url_of(store.name), hdf5)


@each_version
@pytest.mark.parametrize("name", ["session", "units"])
def test_a_consolidated_store_is_described_by_one_request(store, server):
    """A second request may be needed to find out that the store is of version 2."""
    lazynwb.scan_nwb(server.url_of(store.name), "/units").collect_schema()
    documents, chunks = asked(server)
    assert [seen.path for seen in documents if seen.status == 200] == [
        f"{store.name}/{'zarr.json' if store.suffixes[-3] == '.v3' else '.zmetadata'}"
    ]
    assert len(documents) <= 2
    assert chunks == []


@each_version
@pytest.mark.parametrize("name", ["trials"])
def test_a_query_requests_only_the_chunks_of_its_columns(store, server):
    lf = lazynwb.scan_nwb(server.url_of(store.name), "/intervals/trials")
    lf.collect_schema()
    server.reset()
    frame = lf.filter(pl.col("count") > 0).select("kind").collect()
    assert frame.height == 5
    documents, chunks = asked(server)
    columns = [seen.path.removeprefix(f"{store.name}/intervals/trials/").split("/")[0] for seen in chunks]
    assert sorted(columns) == ["count", "kind"]
    assert documents == []


@each_version
@pytest.mark.parametrize("name", ["compressed_series"])
def test_each_chunk_is_fetched_once(store, server):
    lazynwb.scan_nwb(server.url_of(store.name), "/acquisition/zipped").select("data").collect()
    _, chunks = asked(server)
    paths = [seen.path for seen in chunks]
    assert len(paths) == len(set(paths))
    assert all("/acquisition/zipped/data/" in path for path in paths)


@each_version
@pytest.mark.parametrize("name", ["session", "units_alone", "compressed_series", "linked_series", "aligned"])
@pytest.mark.sample(2)
def test_a_web_server_without_listings(hdf5, store, tmp_path):
    """Without consolidated metadata, required documents are requested one by one."""
    with RangeServer(tmp_path) as server:
        url = server.url_of(unconsolidated(store, tmp_path).name)
        check_twin(url, hdf5, tables=[t for t in oracle.tables(hdf5) if t not in METADATA])


@each_version
@pytest.mark.parametrize("name", ["session", "units_alone"])
def test_a_zip_file_on_a_web_server(hdf5, store, tmp_path):
    """The directory and the members that a query needs are read as ranges of one file."""
    with RangeServer(tmp_path) as server:
        url = server.url_of(zipped(store, tmp_path).name)
        check_twin(url, hdf5)
        assert {seen.path for seen in server.log} == {f"{store.name}.zip"}


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "version", "consolidated"),
    [
        ("every_dtype", "v2", True),
        ("units_alone", "v2", False),
        ("units_alone", "v3", True),
        ("linked_series", "v3", False),
        *(
            pytest.param("session", version, whole, marks=pytest.mark.slow)
            for version in VERSIONS
            for whole in (True, False)
        ),
    ],
)
def test_an_object_store(consolidated, hdf5, store, s3, tmp_path):
    """Object stores list their objects, so consolidated metadata is not required."""
    local = store if consolidated else unconsolidated(store, tmp_path)
    place = f"private/{'whole' if consolidated else 'parts'}/{store.name}"
    for member in local.rglob("*"):
        if member.is_file():
            s3.put(f"{place}/{member.relative_to(local).as_posix()}", member.read_bytes())
    lazynwb.config.storage_options = s3.options
    check_twin(s3.url_of(place), hdf5)


# --- zarr-python as oracle ----------------------------------------------------------------------------


def through_zarr_python(store, folder):
    """Write the data that zarr-python reads as an HDF5 file for the oracle."""
    pytest.importorskip("zarr", reason="pip install zarr")
    from readers import zarr_python

    if zarr_python.version_of(store) != zarr_python.VERSION:
        pytest.skip(f"zarr-python {zarr_python.VERSION} does not read this store of hdmf-zarr's")
    path = folder / f"{store.name}.h5"
    zarr_python.to_hdf5(store, path)
    return path


@each_version
@each_session
def test_twins_of_both_versions_are_equal(hdf5, store, tmp_path):
    """The export has lost no data: differences between the frames are due to lazynwb."""
    copy = through_zarr_python(store, tmp_path)
    assert oracle.tables(copy) == oracle.tables(hdf5)
    for table_path in oracle.tables(hdf5):
        actual, expected = oracle.read_table(copy, table_path), oracle.read_table(hdf5, table_path)
        assert actual.dtypes == expected.dtypes
        assert same(actual.columns, expected.columns), table_path


@pytest.mark.skipif(not REAL, reason="set LAZYNWB_TEST_DATA to a folder with Zarr stores")
@pytest.mark.parametrize("path", REAL, ids=lambda path: str(path.relative_to(FOLDER)))
def test_every_table_of_a_real_store(path, tmp_path):
    copy = through_zarr_python(path, tmp_path)
    check_twin(path, copy, engines=ENGINES, pushdown=True)


@pytest.mark.skipif(not REAL, reason="set LAZYNWB_TEST_DATA to a folder with Zarr stores")
@pytest.mark.parametrize("path", REAL, ids=lambda path: str(path.relative_to(FOLDER)))
def test_every_path_of_a_real_store(path, tmp_path):
    copy = through_zarr_python(path, tmp_path)
    all_options = dict.fromkeys(OPTIONS, True)
    assert list(lazynwb.get_internal_paths(path, **all_options)) == list(
        lazynwb.get_internal_paths(copy, **all_options)
    )


@pytest.fixture(scope="session")
def referring(twins, tmp_path_factory):
    """LINDI reference files next to the HDF5 files of their chunks."""
    folder = tmp_path_factory.mktemp("lindi")
    for path in twins.glob("*.nwb"):
        shutil.copy2(path, folder)
    unpack(ARCHIVE.with_name("lindi.tar.xz"), folder)
    return folder


@each_session
@pytest.mark.sample(5)
def test_every_table_of_a_file_of_references(name, referring):
    check_twin(referring / f"{name}.nwb.lindi.json", referring / f"{name}.nwb", engines=ENGINES[:1])


def _padded(value, size):
    return json.dumps(value).encode().ljust(size)


def write_lindi_archive(path, document, blobs):
    """Write a `.lindi.tar` in the published layout: an entry, an index, references, and blobs."""
    members = {".tar_entry.json": bytes(1024), ".tar_index.json": bytes(1024 * 256), **blobs}
    members["lindi.json"] = _padded(document, 1024 * 256)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    with tarfile.open(path) as archive:
        places = [
            {"n": info.name, "o": info.offset, "d": info.offset_data, "s": info.size} for info in archive
        ]
    with path.open("r+b") as file:
        for place, content in zip(places[:2], ({"index": places[1]}, {"files": places}), strict=True):
            file.seek(place["d"])
            file.write(_padded(content, place["s"]))
    return path


@pytest.fixture(scope="session")
def archived(referring):
    """LINDI's tar archives: two of three chunks are members, the others are as in the file of references."""
    for path in sorted(referring.glob("*.nwb.lindi.json")):
        document, blobs = json.loads(path.read_text()), {}
        for number, (key, value) in enumerate(document["refs"].items()):
            if not number % 3 or not re.fullmatch(r"[\d.]+", key.rpartition("/")[2]):
                continue
            if isinstance(value, list):
                url, offset, size = value
                file = referring / url.replace("{{u1}}", document["templates"]["u1"])
                data = file.read_bytes()[offset : offset + size]
            else:
                text = value.removeprefix("base64:")
                data = text.encode() if text == value else base64.b64decode(text)
            blobs[f"blobs/{key}"] = data
            document["refs"][key] = [f"./blobs/{key}", 0, len(data)]
        write_lindi_archive(path.with_suffix(".tar"), document, blobs)
    return referring


@pytest.mark.parametrize(
    "name",
    ["compressed_series", "compressed_table", "every_dtype", "ragged_trials", "trials_with_references"],
)
def test_every_table_of_a_lindi_archive(name, archived):
    check_twin(archived / f"{name}.nwb.lindi.tar", archived / f"{name}.nwb")


def test_a_lindi_archive_in_a_folder_and_behind_a_web_server(archived, tmp_path):
    (tmp_path / "sessions").mkdir()
    shutil.copy(archived / "units.nwb.lindi.tar", tmp_path / "sessions" / "a.lindi.tar")
    found = lazynwb.read_nwb(tmp_path / "sessions", "/units")
    assert_table(found, oracle.read_table(archived / "units.nwb", "/units"), found["_nwb_path"][0], "/units")
    assert found["_nwb_path"][0].endswith("a.lindi.tar")
    with RangeServer() as server:
        for name in ("compressed_table.nwb.lindi.tar", "compressed_table.nwb"):
            server.objects[f"lab/{name}"] = (archived / name).read_bytes()
        url = f"{server.url}/lab/compressed_table.nwb.lindi.tar"
        check_twin(url, archived / "compressed_table.nwb")
        opened = [seen.path for seen in server.log].count("lab/compressed_table.nwb.lindi.tar")
        assert opened < 20


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("repacked", "repacked by another program: '.tar_index.json' is not at its offset in the index"),
        ("plain", "not a LINDI archive: its first member is 'lindi.json'"),
        ("cut off", "reaches beyond its end"),
        ("no member", "'blobs/nowhere', which the archive does not have"),
        ("too long", "1000000 bytes from 0 on of 'blobs/x', which has 3 bytes"),
    ],
)
def test_a_damaged_lindi_archive(damage, said, tmp_path):
    refs = {".zgroup": '{"zarr_format": 2}', "t/.zgroup": '{"zarr_format": 2}'}
    refs["t/.zattrs"] = json.dumps({"colnames": ["x"], "neurodata_type": "DynamicTable"})
    array = {"shape": [3], "chunks": [3], "dtype": "|u1", "compressor": None, "fill_value": 0}
    refs["t/x/.zarray"] = json.dumps({"zarr_format": 2, "order": "C", "filters": None, **array})
    url, size = ("./blobs/nowhere", 3) if damage == "no member" else ("./blobs/x", 3)
    refs["t/x/0"] = [url, 0, 1_000_000 if damage == "too long" else size]
    path = write_lindi_archive(tmp_path / "a.nwb.lindi.tar", {"refs": refs}, {"blobs/x": b"abc"})
    if damage in {"repacked", "plain"}:
        with tarfile.open(path) as archive:
            members = [(info, archive.extractfile(info).read()) for info in archive]
        order = [0, 2, 3, 1] if damage == "repacked" else [3]
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
            for info, data in (members[number] for number in order):
                archive.addfile(info, io.BytesIO(data))
    if damage == "cut off":
        path.write_bytes(path.read_bytes()[: 300 * 1024])
    with pytest.raises(lazynwb.LazyNWBError, match=re.escape(said)) as error:
        lazynwb.read_nwb(path, "/t")
    assert "a.nwb.lindi.tar" in str(error.value)


def test_zarr_python_is_not_loaded(twins):
    """The package does not use zarr-python and works with any installed version of it."""
    before = "zarr" in sys.modules
    for version in VERSIONS:
        lazynwb.read_nwb(store_of(twins, "units", version), "/units")
    assert ("zarr" in sys.modules) == before
