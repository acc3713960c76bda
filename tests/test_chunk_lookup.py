"""Look-ups of single chunks in large indices, compared with h5py."""

import json
import struct
import threading
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pytest

import lazynwb
from builders import Column, Ragged, series, table
from lazynwb.catalog.model import MISSING, ChunkIndex, PartialChunkIndex
from lazynwb.codecs.checksums import crc32c
from lazynwb.errors import CorruptDataError
from lazynwb.formats.hdf5 import structure_file
from lazynwb.formats.hdf5.reader import Hdf5Reader
from lazynwb.formats.libhdf5 import block_stream, fallback
from lazynwb.formats.libhdf5.fallback import Libhdf5Reader
from lazynwb.formats.libhdf5.nodes import _CHUNKS_WITHOUT_BASE
from lazynwb.formats.zarr import shard_index
from lazynwb.lookup import loader
from lazynwb.storage.resolve import expand
from range_server import RangeServer

#: Shape, shape of a chunk, and the largest shape: what decides which kind of index the newer formats have.
SHAPES = {
    "single": ((50,), (50,), None),
    "fixed": ((43, 7), (4, 3), None),
    "fixed_paged": ((5000,), (2,), None),
    "extensible": ((43, 7), (4, 7), (None, 7)),
    "extensible_paged": ((5000,), (2,), (None,)),
    "btree": ((30, 20), (4, 7), (None, None)),
    "btree_deep": ((1600, 6), (2, 3), (None, None)),
    "cube": ((9, 5, 6), (2, 5, 4), (None, 5, 6)),
}


def write_kinds(path: Path, libver: str, userblock: int) -> Path:
    """Every kind of index, filtered or not; chunks that were never written; masks; a shrunk dataset."""
    with h5py.File(path, "w", libver=libver, userblock_size=userblock) as file:
        for filters in ({}, {"compression": "gzip", "shuffle": True}):
            for name, (shape, chunk, most) in SHAPES.items():
                label = f"{name}_{'gzip' if filters else 'plain'}"
                options = {"chunks": chunk, "maxshape": most, "dtype": "i4", **filters}
                data = file.create_dataset(label, shape, **options)
                values = np.arange(np.prod(shape), dtype="i4").reshape(shape)
                third = shape[0] // 3
                data[:third] = values[:third]
                data[2 * third :] = values[2 * third :]
                file.create_dataset(f"{label}_empty", shape, fillvalue=7, **options)
        for name in ("fixed_gzip", "extensible_gzip"):
            raw = np.full(SHAPES[name.partition("_")[0]][1], 5, "<i4")
            file[name].id.write_direct_chunk((4, 0), raw.tobytes(), filter_mask=3)
        early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        early.set_chunk((4,))
        early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        space = h5py.h5s.create_simple((103,))
        implicit = h5py.h5d.create(file.id, b"implicit", h5py.h5t.STD_I32BE, space, early)
        h5py.Dataset(implicit)[:] = np.arange(103)
        shrunk = file.create_dataset("shrunk", data=np.arange(100), chunks=(4,), maxshape=(None,))
        shrunk.resize((50,))
    return path


FORMATS = [("earliest", 0), ("earliest", 512), ("v110", 2048), ("latest", 0), ("latest", 4096)]


@pytest.fixture(scope="module", params=FORMATS, ids=lambda found: f"{found[0]}-{found[1]}")
def kinds(request, tmp_path_factory):
    if request.param[1] and _CHUNKS_WITHOUT_BASE:
        pytest.skip("libhdf5 before 1.14.4 says wrongly where chunks behind a user block are, and reads them")
    return write_kinds(tmp_path_factory.mktemp("kinds") / "kinds.h5", *request.param)


def listed(path, name):
    """The chunks of a dataset by their offsets, from h5py."""
    found = {}
    with h5py.File(path) as file:
        file[name].id.chunk_iter(
            lambda chunk: found.__setitem__(
                chunk.chunk_offset, (chunk.byte_offset, chunk.size, chunk.filter_mask)
            )
        )
    return found


def corners(array):
    grid = [-(-n // c) for n, c in zip(array.shape, array.chunk, strict=True)]
    return [tuple(map(int, np.multiply(place, array.chunk))) for place in np.ndindex(*grid)]


@contextmanager
def reading(source, kind=Hdf5Reader):
    (found,) = expand(source)
    with kind(found, found.identity()) as reader:
        yield reader


def describe(reader, name):
    return reader.run_parse(name, lambda file: file.find(name).describe(name, file))


def names_of(path):
    with h5py.File(path) as file:
        return sorted(file)


@pytest.fixture
def no_listing(monkeypatch):
    """Record the creation of complete chunk indices."""
    made = []
    original = fallback.chunk_index

    def noted(file, array):
        made.append(array.path)
        return original(file, array)

    monkeypatch.setattr("lazynwb.formats.libhdf5.fallback.chunk_index", noted)
    whole = structure_file.StructureFile.chunk_index
    monkeypatch.setattr(
        structure_file.StructureFile,
        "chunk_index",
        lambda file, array: (made.append(array.path), whole(file, array))[1],
    )
    return made


@pytest.mark.parametrize("kind", [Hdf5Reader, Libhdf5Reader])
@pytest.mark.sample(3)
def test_chunk_locations_of_every_index_type_equal_h5py(kinds, kind, no_listing):
    chunks = {name: listed(kinds, name) for name in names_of(kinds)}
    with reading(kinds, kind) as reader:
        for name, expected in chunks.items():
            array = describe(reader, name)
            places = corners(array)
            numbers = np.arange(len(places))
            (found,) = reader.chunk_indices([array], [numbers])
            assert [found.locate(number) for number in numbers] == [
                expected.get(corner, (MISSING, 0, 0)) for corner in places
            ], name
    # libhdf5 looks up no single chunk without going through all of them.
    assert sorted(no_listing) == ([] if kind is Hdf5Reader else sorted(chunks))


@pytest.mark.sample(2)
def test_chunk_locations_over_http_take_few_rounds(kinds, no_listing):
    with RangeServer(kinds.parent) as server:
        for name in names_of(kinds):
            lazynwb.clear_cache()
            with reading(server.url_of(kinds.name)) as reader:
                array = describe(reader, name)
                places = corners(array)
                numbers = np.unique(np.linspace(0, len(places) - 1, 7).astype(int))
                server.reset()
                (found,) = reader.chunk_indices([array], [numbers])
                assert server.count <= 16
            expected = listed(kinds, name)
            assert [found.locate(number) for number in numbers.tolist()] == [
                expected.get(places[number], (MISSING, 0, 0)) for number in numbers
            ], name
    assert not no_listing


def test_partial_and_complete_lookups_are_batched(kinds):
    with reading(kinds) as reader:
        arrays = [describe(reader, name) for name in ("fixed_gzip", "btree_plain", "single_gzip_empty")]
        wanted = [np.array([1, 4]), None, np.array([0])]
        some, complete, empty = reader.chunk_indices(arrays, wanted)
    assert isinstance(some, PartialChunkIndex)
    assert len(some) == 2
    assert isinstance(complete, ChunkIndex)
    assert empty.locate(0) == (MISSING, 0, 0)


def test_chunks_that_were_not_looked_up_raise_an_error():
    some = PartialChunkIndex({3: (10, 20, 0)})
    assert some.missing(np.array([2, 3, 4])).tolist() == [2, 4]
    more = some.union(PartialChunkIndex({4: (30, 20, 1)}))
    assert (more.locate(3), more.locate(4), len(more), len(some)) == ((10, 20, 0), (30, 20, 1), 2, 1)
    with pytest.raises(CorruptDataError, match="chunk 5 was not looked up"):
        more.locate(5)
    index = ChunkIndex(struct.pack("<2Q", 8, MISSING), struct.pack("<2Q", 4, 0))
    assert index.locate(1) == (MISSING, 0, 0)
    with pytest.raises(CorruptDataError, match="chunk 2 is past the end"):
        index.locate(2)


# -- tables ---------------------------------------------------------------------------------------------

ROWS = 20_000


@pytest.fixture(scope="module")
def long_tables(tmp_path_factory):
    """A series of 10,000 chunks; a ragged column of as many; the same data by an external link."""
    folder = tmp_path_factory.mktemp("long")
    values = np.arange(ROWS * 3, dtype="i2").reshape(ROWS, 3)
    with h5py.File(folder / "long.nwb", "w") as file:
        options = {"chunks": (2, 3), "compression": "gzip", "maxshape": (None, 3)}
        series(file, "acquisition/s", values, start=0.0, rate=100.0, **options)
        rows = [np.arange(k % 5, dtype="f8") + k for k in range(4500 * 3)]
        table(
            file,
            "units",
            {"spike_times": Ragged(rows, options={"chunks": (4,)}), "x": Column(np.arange(len(rows)))},
        )
    with h5py.File(folder / "linked.nwb", "w") as file:
        linked = file.require_group("acquisition/s")
        linked.attrs["neurodata_type"] = "TimeSeries"
        linked["data"] = h5py.ExternalLink("long.nwb", "acquisition/s/data")
        linked["starting_time"] = 0.0
        linked["starting_time"].attrs["rate"] = 100.0
    return folder


def known_of(file, name):
    array = file.columns[name].data
    return file.chunks(array)


@pytest.mark.parametrize("name", ["long.nwb", "linked.nwb"])
def test_a_slice_of_a_long_series_looks_up_its_chunks_only(long_tables, no_listing, name):
    index = pl.col("_table_index")
    frame = lazynwb.scan_nwb(long_tables / name, "/acquisition/s")
    with lazynwb.profile() as cost:
        found = frame.filter(pl.col("timestamps").is_between(50.0, 51.0, closed="left")).collect()
    assert found["data"].to_list() == [[3 * k, 3 * k + 1, 3 * k + 2] for k in range(5000, 5100)]
    assert found.select(index.min(), last=index.max()).row(0) == (5000, 5099)
    assert cost.chunks_decoded == 50
    assert no_listing == []


def test_the_whole_index_is_listed_if_a_large_part_of_it_is_needed(long_tables, no_listing):
    frame = lazynwb.scan_nwb(long_tables / "long.nwb", "/acquisition/s").select("data")
    assert len(frame.head(9000).collect()) == 9000
    assert no_listing == ["acquisition/s/data"]
    assert frame.collect()["data"].arr.get(2).to_list() == [
        x - 65536 if x > 32767 else x for x in (np.arange(2, 3 * ROWS, 3)).tolist()
    ]
    assert no_listing == ["acquisition/s/data"]


def test_a_long_ragged_column_is_looked_up_when_its_elements_are_known(long_tables, no_listing):
    units = lazynwb.scan_nwb(long_tables / "long.nwb", "/units")
    found = units.filter(pl.col("x").is_in([7, 7004, 13_499])).select("spike_times").collect()
    expected = [[float(k + j) for j in range(k % 5)] for k in (7, 7004, 13_499)]
    assert found["spike_times"].to_list() == expected
    assert "units/spike_times" not in no_listing


def test_concurrent_lookups_of_a_series_are_all_cached(long_tables, no_listing):
    (source,) = expand(long_tables / "long.nwb")
    file = loader.load_table(source, "acquisition/s")
    array = file.columns["data"].data
    expected = listed(long_tables / "long.nwb", "acquisition/s/data")
    wanted = [np.arange(start, start + 20) for start in range(0, 400, 10)]
    threads = [threading.Thread(target=file.look_up_chunks_of, args=(array, some)) for some in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    index = file.chunks(array)
    assert len(index) == 410
    assert all(index.locate(number) == expected[2 * number, 0] for number in range(410))
    file.look_up_chunks_of(array, np.array([7, 9]))
    assert file.chunks(array) is index  # nothing new, nothing done
    assert no_listing == []
    file.look_up_chunks_of(array, None)
    assert file.chunks(array).locate(9999) == expected[19998, 0]
    assert no_listing == ["acquisition/s/data"]


# -- Zarr: shards ---------------------------------------------------------------------------------------


def write_shards(folder: Path, count: int) -> np.ndarray:
    """A series in shards of four chunks of five rows, one of which was never written."""
    values = np.arange(count * 20 * 2, dtype="<i2").reshape(-1, 2)
    values[20:40] = -1
    group = {"zarr_format": 3, "node_type": "group", "attributes": {}}
    index = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    plain = [{"name": "bytes", "configuration": {"endian": "little"}}]
    inner = {"chunk_shape": [5, 2], "codecs": plain, "index_codecs": index}
    array = {
        "zarr_format": 3,
        "node_type": "array",
        "attributes": {},
        "shape": list(values.shape),
        "data_type": "int16",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [20, 2]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "codecs": [{"name": "sharding_indexed", "configuration": inner}],
        "fill_value": -1,
    }
    start = {
        **array,
        "shape": [],
        "data_type": "float64",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": []}},
        "codecs": plain,
        "fill_value": 0.0,
        "attributes": {"rate": 10.0},
    }
    nodes = {
        "": group
        | {"attributes": {"nwb_version": "2.7.0", "neurodata_type": "NWBFile", "namespace": "core"}},
        "acquisition": group,
        "acquisition/s": group | {"attributes": {"neurodata_type": "TimeSeries"}},
        "acquisition/s/data": array,
        "acquisition/s/starting_time": start,
    }
    for path, node in nodes.items():
        (folder / path).mkdir(parents=True, exist_ok=True)
        (folder / path / "zarr.json").write_text(json.dumps(node))
    for number in range(count):
        if number == 1:
            continue
        chunks = [values[at : at + 5].tobytes() for at in range(20 * number, 20 * number + 20, 5)]
        entries = struct.pack("<8Q", *(x for k in range(4) for x in (20 * k, 20)))
        target = folder / f"acquisition/s/data/c/{number}/0"
        target.parent.mkdir(parents=True)
        target.write_bytes(b"".join(chunks) + entries + struct.pack("<I", crc32c(entries)))
    return values


def test_only_indices_of_required_shards_are_read(tmp_path, monkeypatch):
    values = write_shards(tmp_path / "a.nwb.zarr", 40)
    asked = []
    original = shard_index.shard_index
    monkeypatch.setattr(
        "lazynwb.formats.zarr.shard_index.shard_index",
        lambda objects, path, key, *rest: asked.append(key) or original(objects, path, key, *rest),
    )
    frame = lazynwb.scan_nwb(tmp_path / "a.nwb.zarr", "/acquisition/s")
    found = frame.filter(pl.col("timestamps").is_between(1.5, 4.6)).select("data").collect()
    assert found["data"].to_list() == values[15:47].tolist()
    assert asked == [f"acquisition/s/data/c/{k}/0" for k in (0, 1, 2)]
    assert frame.select("data").collect()["data"].to_list() == values.tolist()


# -- the size of real recordings ------------------------------------------------------------------------

CHANNELS = 384


def write_recording(
    path: Path, chunks: int, *, stored: bool, libver: str = "earliest", rows: int = 1
) -> None:
    """A recording of 100 chunks in a second; every sample of chunk k is k % 97."""
    count = chunks * rows
    with h5py.File(path, "w", libver=libver) as file:
        group = file.require_group("acquisition/ElectricalSeries")
        group.attrs["neurodata_type"] = "ElectricalSeries"
        options = {"chunks": (rows, CHANNELS), "maxshape": (None, CHANNELS), "dtype": "<i2"}
        data = group.create_dataset("data", (count, CHANNELS), **options)
        raw = [np.full((rows, CHANNELS), k, "<i2").tobytes() for k in range(97)]
        write = data.id.write_direct_chunk
        for number in range(chunks):
            write((number * rows, 0), raw[number % 97])
        if stored:
            group.create_dataset(
                "timestamps", data=np.arange(count) / (100 * rows), chunks=(100 * rows,), maxshape=(None,)
            )
        else:
            group["starting_time"] = 0.0
            group["starting_time"].attrs["rate"] = 100.0 * rows


#: What parsing fetches at a time.
BLOCK = 16 * 1024


def one_second(path, start, no_listing):
    """Read a second of a recording, cold, over HTTP; check it, and return its costs."""
    with RangeServer(path.parent) as server:
        # A first filter otherwise reads all stored timestamps once; this budget is that of a search.
        frame = lazynwb.scan_nwb(
            server.url_of(path.name), "/acquisition/ElectricalSeries", assume_ascending=True
        )
        times = pl.col("timestamps")
        with lazynwb.profile() as cost:
            found = frame.filter(times >= start, times < start + 1).select("timestamps", "data").collect()
        assert server.count >= cost.requests
        requests, size = server.count, server.bytes
    first = round(start * 100)
    assert found["timestamps"].to_numpy() == pytest.approx(np.arange(first, first + 100) / 100)
    expected = np.repeat(np.arange(first, first + 100) % 97, CHANNELS).reshape(-1, CHANNELS)
    assert (found["data"].to_numpy() == expected).all()
    assert not any(path.endswith("/data") for path in no_listing)
    return requests, (size - 100 * CHANNELS * 2) / BLOCK


@pytest.mark.parametrize("stored", [False, True], ids=["rate", "stored"])
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_a_second_of_20_000_chunks_takes_at_most_40_blocks(tmp_path, no_listing, stored, libver):
    write_recording(tmp_path / "a.nwb", 20_000, stored=stored, libver=libver)
    requests, blocks = one_second(tmp_path / "a.nwb", 150.0, no_listing)
    assert blocks <= (40 if block_stream.MAY_FAIL else 44)
    assert requests <= 40


@pytest.mark.slow
@pytest.mark.parametrize("stored", [False, True], ids=["rate", "stored"])
@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("start", [0.0, 1234.0, 1999.0])
def test_a_second_of_200_000_chunks_takes_at_most_40_blocks(tmp_path, no_listing, stored, libver, start):
    write_recording(tmp_path / "a.nwb", 200_000, stored=stored, libver=libver)
    requests, blocks = one_second(tmp_path / "a.nwb", start, no_listing)
    assert blocks <= 40
    assert requests <= 40
