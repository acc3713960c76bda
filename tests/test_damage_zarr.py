"""Damaged Zarr stores: correct values or a LazyNWBError; `damage.py` runs thousands of them."""

import json
import lzma
import shutil
from importlib.metadata import version

import numpy as np
import polars as pl
import pytest

import damage
import damage_zarr
import lazynwb
import zarr_stores
from checks import assert_frames, assert_values, count, sample
from lazynwb.catalog.model import Codec
from lazynwb.codecs import chunk_codecs
from lazynwb.errors import CorruptDataError
from lazynwb.formats.zarr.codec_configuration import catalog_codecs
from lazynwb.storage.objects.sparsity import check_written
from readers import plain_zarr

CASES = count(12, 100)
TAKES_FRAMES_WITHOUT_SIZE = tuple(map(int, version("numcodecs").split(".")[:2])) >= (0, 16)
STORES = zarr_stores.corpus()


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Undamaged stores, by name. Not to be changed."""
    folder = tmp_path_factory.mktemp("stores")
    return {name: make(folder / f"{name}.nwb.zarr") for name, make in STORES.items()}


@pytest.fixture
def copy(stores, tmp_path):
    def make(name):
        return shutil.copytree(stores[name], tmp_path / "damaged.nwb.zarr")

    return make


def edit(store, key, **changes):
    path = store / key
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}))


@pytest.mark.long
def test_damaged_stores_give_correct_values_or_a_lazynwb_error(monkeypatch):
    """Some cases; `python tests/damage.py --format zarr --cases 5000` runs more, on more stores."""
    monkeypatch.setattr(damage_zarr, "TWINS", {"units", "aligned"})
    monkeypatch.setattr(zarr_stores, "corpus", lambda: dict(sample([*STORES.items()], 5)))
    cases = damage.run("zarr", 0, range(CASES))
    assert len(cases) == CASES
    assert not [case for case in cases if case.faults], damage.summary("zarr", 0, cases)
    # A harness that damaged nothing, or read nothing, would find no fault either.
    assert {"right", "error", "changed"} <= {case.outcome for case in cases}


# --- the stores, and the reader that damaged ones are compared with -------------------------------------


@pytest.mark.parametrize("name", STORES)
@pytest.mark.sample(5)
def test_every_store_holds_the_same_session(name, stores):
    """With any codec, version, layout of metadata and kind of shard."""
    first = stores["v2-plain-consolidated"]
    for table in ("/units", "/intervals/trials", "/acquisition/rated", "/processing/linked", "/general"):
        actual, expected = (lazynwb.read_nwb(path, table).drop("_nwb_path") for path in (stores[name], first))
        assert_frames(actual, expected)


@pytest.mark.parametrize(
    "name", ["v2-shuffled-consolidated", "v2-blosc_lz4-apart", "v3-gzip-start_crc32c-apart"]
)
@pytest.mark.sample(2)
def test_the_independent_reader_reads_the_written_values(name, stores):
    frame = lazynwb.read_nwb(stores[name], "/units")
    for column in frame.columns[:-3]:
        values = damage_zarr.expected(stores[name], ("column", "/units", column))
        assert_values(frame[column].to_list(), values, column)
    assert damage_zarr.expected(stores[name], ("column", "/units", "no")) == damage.ABSENT


@pytest.mark.parametrize("name", STORES)
def test_the_independent_reader_equals_zarr_python(name, stores):
    zarr = pytest.importorskip("zarr", reason="pip install zarr")
    from readers import zarr_python

    if zarr_python.version_of(stores[name]) != zarr_python.VERSION or name == "v2-crc32c-apart":
        pytest.skip(f"zarr-python {zarr.__version__} does not read this store")
    ours, theirs = plain_zarr.open_root(stores[name]), zarr_python.open_root(stores[name])
    for path in ("units", "acquisition/rated", "general/extracellular_ephys/electrodes"):
        arrays = dict(ours.store.open(path).arrays())
        assert arrays.keys() == dict(theirs[path].arrays()).keys()
        for key, array in arrays.items():
            expected = np.asarray(theirs[path][key][...])
            assert np.asarray(array[...]).tolist() == expected.tolist(), key


def test_the_independent_reader_refuses_damage(copy):
    store = copy("v3-crc32c-consolidated")
    chunk = store / "units/f/c/0"
    content = bytearray(chunk.read_bytes())
    content[3] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(ValueError, match="CRC-32C"):
        damage_zarr.expected(store, ("column", "/units", "f"))
    assert damage_zarr.expected(store, ("column", "/units", "i")) == [k * 1000 for k in range(20)]


# --- implausible metadata -------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["units/f", "units/name", "units/fortran"])
def test_an_array_of_chunks_that_were_never_written_is_refused(key, copy):
    """The number of rows is that of the table, so only the missing chunks indicate damage."""
    store = copy("v2-gzip-apart")
    name = key.rpartition("/")[2]
    shape = [800_000, 4] if name == "fortran" else [800_000]
    for path in (key, "units/id"):
        edit(store, f"{path}/.zarray", shape=shape if path == key else shape[:1])
    lf = lazynwb.scan_nwb(store, "/units")
    assert lf.select(pl.len()).collect().item() == 800_000
    with pytest.raises(CorruptDataError, match=rf"/{key}.*only \d+ were written"):
        lf.select(name).collect()
    assert lf.select(name).head(10).collect().height == 10


def test_shards_that_were_never_written_are_refused(copy):
    store = copy("v3-crc32c-end_crc32c-apart")
    for name in ("f", "id"):
        edit(store, f"units/{name}/zarr.json", shape=[900_000])
    with pytest.raises(CorruptDataError, match=r"/units/f.*were written"):
        lazynwb.scan_nwb(store, "/units").select("f").collect()


class Listing:
    """A store that lists folders and records them."""

    def __init__(self, folders):
        self.folders, self.asked = folders, []

    def members(self, prefix):
        self.asked.append(prefix)
        return self.folders if self.folders is None else self.folders.get(prefix, [])


def test_sparse_arrays_are_read():
    """One chunk in a hundred is sufficient; stores that cannot list objects are not checked."""
    names = ["zarr.json", ".zarray", *map(str, range(1000))]
    check_written(Listing({"a": names}), "a/", 1, 100_000)
    with pytest.raises(CorruptDataError, match="100,100 chunks here, but only 1,000 were"):
        check_written(Listing({"a": names}), "a/", 1, 100_100)
    check_written(Listing(None), "a/", 1, 10**9)
    few = Listing({})
    check_written(few, "a/", 1, 50_000)
    assert few.asked == []


def test_folders_are_counted_up_to_a_limit():
    nested = Listing({"a/c": list("0123"), **{f"a/c/{k}": [str(n) for n in range(600)] for k in range(4)}})
    check_written(nested, "a/c/", 2, 100_000)
    assert nested.asked == ["a/c", "a/c/0", "a/c/1"]


def test_a_table_that_claims_far_more_rows_than_its_columns_have(copy):
    store = copy("v2-gzip-apart")
    edit(store, "units/id/.zarray", shape=[10**9], chunks=[10**8])
    with pytest.raises(
        CorruptDataError, match=r"damaged\.nwb\.zarr: /units: column .* 20 rows.*1,000,000,000.*`id`"
    ):
        lazynwb.scan_nwb(store, "/units").collect()
    assert lazynwb.read_nwb(store, "/intervals/trials").height == 20


def test_arrays_of_too_many_objects_are_refused(copy):
    store = copy("v2-gzip-apart")
    edit(store, "acquisition/rated/data/.zarray", shape=[10**8, 3])
    with pytest.raises(CorruptDataError, match="12500000 chunks"):
        lazynwb.scan_nwb(store, "/acquisition/rated").collect()


@pytest.mark.parametrize(
    "said", ["r999999992", {"name": "null_terminated_bytes", "configuration": {"length_bytes": 2**29}}]
)
def test_elements_that_are_too_large_are_refused(said, copy):
    """The fill value of one element would take as much memory."""
    store = copy("v3-gzip-apart")
    edit(store, "units/f/zarr.json", data_type=said)
    with pytest.raises(CorruptDataError, match=r"/units/f: .*elements of [\d,]+ bytes"):
        lazynwb.scan_nwb(store, "/units").select("f").collect()


@pytest.mark.parametrize("name", ["v2-plain-consolidated", "v3-plain-consolidated"])
def test_invalid_consolidated_metadata(name, copy):
    store = copy(name)
    if name.startswith("v2"):
        edit(store, ".zmetadata", metadata=[1])
    else:
        edit(store, "zarr.json", consolidated_metadata={"metadata": None})
    with pytest.raises(lazynwb.NotNWBError, match=r"damaged\.nwb\.zarr: .*metadata is not a JSON object"):
        lazynwb.get_internal_paths(store)


@pytest.mark.parametrize("link", ["", ".", "..", "a/b", "\0"])
def test_links_with_invalid_names_are_not_shown(link, copy):
    store = copy("v2-gzip-apart")
    attributes = json.loads((store / "units/.zattrs").read_bytes())
    attributes["zarr_link"] = [{"name": link, "path": "/", "source": "."}]
    (store / "units/.zattrs").write_text(json.dumps(attributes))
    listed = lazynwb.get_internal_paths(store, parents=True, include_child_datasets=True)
    assert f"/units/{link}" not in listed
    assert lazynwb.read_nwb(store, "/units").height == 20


# --- partial and inconsistent stores --------------------------------------------------------------------


@pytest.mark.parametrize("index", ["y_index_index", "y_index"])
def test_a_ragged_column_whose_index_holds_no_integers_is_not_shown_flat(index, copy):
    store = copy("v2-plain-consolidated")
    document = json.loads((store / ".zmetadata").read_bytes())
    document["metadata"][f"units/{index}/.zarray"]["dtype"] = "|S1"
    (store / ".zmetadata").write_text(json.dumps(document))
    lf = lazynwb.scan_nwb(store, "/units")
    with pytest.raises(lazynwb.UnsupportedTypeError, match=f"{index}"):
        lf.select("y").collect()
    assert lf.select("x").collect().height == 20


def test_attributes_of_objects_that_are_neither_group_nor_array(copy, caplog):
    """An array whose own document was lost is not silently absent."""
    store = copy("v2-gzip-apart")
    (store / "acquisition/rated/data/.zarray").unlink()
    with pytest.raises(lazynwb.LazyNWBError):
        lazynwb.scan_nwb(store, "/acquisition/rated/data").collect()
    caplog.clear()
    lazynwb.get_internal_paths(store)
    assert "acquisition/rated/data was left out: it has .zattrs, and none of" in caplog.text
    (store / "units/f/.zarray").unlink()
    caplog.clear()
    assert "f" not in lazynwb.read_nwb(store, "/units").columns
    assert "column 'f' was left out" in caplog.text


def test_a_scalar_of_several_elements(copy):
    store = copy("v2-gzip-apart")
    edit(store, "general/session_id/.zarray", shape=[5])
    with pytest.raises(lazynwb.LazyNWBError, match=r"damaged\.nwb.*scalar"):
        lazynwb.read_nwb(store, "/general")


def test_a_shuffle_with_a_misnamed_setting():
    """The default of four bytes would be a guess, so the codec counts as unknown."""
    assert catalog_codecs([{"id": "shuffle", "elementsize": 8}]) == (Codec("shuffle", (8,)),)
    assert catalog_codecs([{"id": "shuffle", "elementsi:e": 8}]) is None


def test_a_shard_index_entry_with_only_an_offset_or_a_size(copy):
    """Offset and size must both, or neither, mark an unwritten chunk (Zarr v3, sharding)."""
    store = copy("v3-zstd-end-apart")
    shard = store / "units/f/c/0"
    content = bytearray(shard.read_bytes())
    content[-16:-8] = b"\xff" * 8
    shard.write_bytes(content)
    with pytest.raises(CorruptDataError, match=r"no offset|no size"):
        lazynwb.scan_nwb(store, "/units").select("f").collect()


# --- codecs ---------------------------------------------------------------------------------------------


def undone(name, data, nbytes):
    return bytes(chunk_codecs.unfilter(data, (Codec(name),), 0, nbytes)[0])


@pytest.mark.skipif(not TAKES_FRAMES_WITHOUT_SIZE, reason="needs numcodecs 0.16 or later")
def test_a_zstd_frame_without_a_content_size():
    """Its output is limited to the size of the chunk, which four gigabytes of zeros exceed."""
    run = b"\x28\xb5\x2f\xfd\x00\x58" + ((1000 << 3) | 3).to_bytes(3, "little") + b"A"
    assert undone("zstd", run, 1000) == b"A" * 1000
    for data, nbytes in ((run, 999), (run, 1001), (damage_zarr.bombs()["zstd without a size"], 1000)):
        with pytest.raises(CorruptDataError):
            undone("zstd", data, nbytes)
    with pytest.raises(CorruptDataError, match="cannot hold"):
        undone("zstd", run, 2**31)


FILTERS = [
    {"id": "delta", "dtype": "|O"},
    {"id": "delta", "dtype": "<f8", "blocksize": 0},
    {"id": "delta"},
    {"id": "astype", "encode_dtype": "|S0", "decode_dtype": "<f8"},
    {"id": "astype", "encode_dtype": "no", "decode_dtype": 3},
    {"id": "fixedscaleoffset", "dtype": "<f8", "astype": "<f8", "scale": "x", "offset": 0},
]


@pytest.mark.parametrize("said", FILTERS, ids=str)
def test_filters_with_invalid_settings(said, copy):
    store = copy("v2-plain-consolidated")
    document = json.loads((store / ".zmetadata").read_bytes())
    document["metadata"]["units/f/.zarray"]["filters"] = [said]
    (store / ".zmetadata").write_text(json.dumps(document))
    with pytest.raises((CorruptDataError, lazynwb.UnsupportedTypeError), match=r"damaged\.nwb\.zarr.*f"):
        lazynwb.scan_nwb(store, "/units").select("f").collect()
    assert lazynwb.scan_nwb(store, "/units").select("i").collect().height == 20


def test_text_that_is_not_a_zstd_frame_is_damaged(copy):
    """It is not an unsupported codec, for which the codes of an enum would be shown instead of its texts."""
    store = copy("v2-zstd-apart")
    (store / "units/name/0").write_bytes(b"not a frame of zstd")
    with pytest.raises(CorruptDataError, match=r"units/name/0: .*not a zstd frame"):
        lazynwb.scan_nwb(store, "/units").select("name").collect()


def test_damaged_lzma(monkeypatch):
    data = bytearray(lzma.compress(bytes(1000)))
    assert undone("lzma", data, 1000) == bytes(1000)
    for at in (0, len(data) // 2, len(data) - 1):
        damaged = data.copy()
        damaged[at] ^= 0xFF
        with pytest.raises(CorruptDataError):
            undone("lzma", damaged, 1000)
    monkeypatch.setattr(chunk_codecs, "LZMA_MEMORY", 2**20)
    with pytest.raises(CorruptDataError, match=r"[Mm]emory"):
        undone("lzma", data, 1000)


def test_a_truncated_frame_of_blosc_is_not_read_beyond_its_end(copy):
    store = copy("v2-blosc_lz4-apart")
    chunk = store / "units/f/0"
    chunk.write_bytes(chunk.read_bytes()[:-8])
    with pytest.raises(CorruptDataError, match="units/f/0"):
        lazynwb.scan_nwb(store, "/units").select("f").collect()
