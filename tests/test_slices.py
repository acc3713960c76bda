"""Slices of stored arrays: values equal NumPy, and only required chunks or bytes are read."""

import json
import struct
import zlib
from contextlib import contextmanager

import h5py
import hypothesis.strategies as st
import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.extra import numpy as hnp
from msgspec.structs import replace

import lazynwb
from builders import VLEN_TEXT, series
from lazynwb.arrays import slicing
from lazynwb.arrays.fetch import Request, fetch
from lazynwb.arrays.slicing import read_slice
from lazynwb.catalog.model import Array, ChunkIndex, DType
from lazynwb.lookup.loader import load_table
from lazynwb.series.arrays import StoredArray
from lazynwb.storage.resolve import expand
from lazynwb.threads import DECODERS
from range_server import RangeServer

DATA = np.arange(5000 * 37, dtype="i4").reshape(5000, 37) % 9973
GZIP = {"compression": "gzip", "shuffle": True}
LAYOUTS = {
    "gzip": {"chunks": (100, 16), **GZIP},
    "unfiltered": {"chunks": (100, 16)},
    "contiguous": {},
    "lzf": {"chunks": (100, 16), "compression": "lzf"},
    "rows": {"chunks": (7, 37), **GZIP},
}


def stored(source, path="series", column="data"):
    file = load_table(expand(source)[0], path)
    return file, file.columns[column].data


def lazy(source, path="series"):
    return StoredArray(*stored(source, path))


def taken(data, selection):
    """The selection dimension by dimension, last one first: NumPy with arrays and integers apart."""
    selection = selection if isinstance(selection, tuple) else (selection,)
    if Ellipsis in [s for s in selection if not isinstance(s, np.ndarray | list)]:
        at = next(i for i, s in enumerate(selection) if s is Ellipsis)
        rest = (slice(None),) * (data.ndim - len(selection) + 1)
        selection = (*selection[:at], *rest, *selection[at + 1 :])
    for axis in range(len(selection) - 1, -1, -1):
        data = np.asarray(data[(slice(None),) * axis + (selection[axis],)])
    return data


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    path = tmp_path_factory.mktemp("slices") / "layouts.nwb"
    with h5py.File(path, "w") as file:
        for name, options in LAYOUTS.items():
            series(file, name, DATA, start=0.0, **options)
    return path


# -- values -----------------------------------------------------------------------------------------------

SELECTIONS = [
    (slice(1000, 2000), slice(None, 4)),
    (slice(None), 20),
    -1,
    (-1, -1),
    (slice(None, None, -1), slice(30, 2, -3)),
    (slice(7, 4000, 611),),
    (Ellipsis, slice(3, 5)),
    (slice(20, 20),),
    (slice(100, 90), slice(None)),
    (slice(-10, 10**9), slice(-5, None)),
    ([4000, 3, 3, -1],),
    (DATA[:, 0] % 5 == 0, slice(0, 3)),
    (slice(10, 60), [36, 0, 17, 17]),
    (np.zeros(5000, bool),),
    ([], slice(None)),
    (),
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("selection", SELECTIONS, ids=str)
def test_a_selection_has_the_values_and_shape_of_numpy(layouts, layout, selection):
    expected = taken(DATA, selection)
    got = lazy(layouts, layout)[selection]
    assert np.shape(got) == expected.shape
    assert got.dtype == expected.dtype
    assert (got == expected).all()


@pytest.mark.parametrize(
    "selection",
    [
        *(5000, -5001, (0, 37), (0, 0, 0), (slice(None), [0, 37]), ([5000],), [-5001], 1.5, None, "data"),
        *(True, (..., ...), np.zeros(3, bool), np.zeros((2, 2), int), [0.5], (np.array([2**64 - 1], "u8"),)),
    ],
    ids=repr,
)
def test_invalid_selections_are_index_errors(layouts, selection):
    with pytest.raises(IndexError):
        lazy(layouts, "gzip")[selection]


def test_integer_lists_along_two_dimensions_are_refused(layouts):
    with pytest.raises(IndexError, match="more than one dimension"):
        lazy(layouts, "gzip")[[1, 2], [3, 4]]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.integration
@pytest.mark.sample(2)
def test_many_rows_are_read_in_blocks(layouts, layout, monkeypatch):
    monkeypatch.setattr(slicing, "BLOCK_BYTES", 20_000)
    array = lazy(layouts, layout)
    for selection in (slice(None), slice(None, None, 2), slice(4990, 3, -7), DATA[:, 0] % 2 == 0):
        assert (array[selection] == DATA[selection]).all()
        assert (array[selection, 3:9:2] == DATA[selection, 3:9:2]).all()


@st.composite
def selections(draw, shape):
    """Integers and slices along all dimensions, and an array along at most one."""
    whole, with_array = [], draw(st.integers(-2, len(shape) - 1))
    for axis, n in enumerate(shape):
        choices = [st.slices(n)]
        if n:
            choices.append(st.integers(-n, n - 1))
        if axis == with_array:
            numbers = st.lists(st.integers(-n, n - 1), max_size=6) if n else st.just([])
            choices = [numbers.map(lambda found: np.array(found, int)), hnp.arrays(bool, n)]
        whole.append(draw(st.one_of(choices)))
    return tuple(whole[: draw(st.integers(1, len(shape)))])


DTYPES = ["i2", ">i4", "u8", "f4", ">f8", "?", "c16"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_any_selection_of_any_layout_equals_numpy(tmp_path, data):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=9))
    values = data.draw(hnp.arrays(np.dtype(data.draw(st.sampled_from(DTYPES))), shape))
    options = data.draw(
        st.sampled_from([{}, {"chunks": True}, GZIP, {"fletcher32": True}, {"compression": "lzf"}])
    )
    if options:
        options = {**options, "chunks": tuple(data.draw(st.integers(1, n)) for n in shape)}
    path = tmp_path / "random.nwb"
    with h5py.File(path, "w") as file:
        group = series(file, "series", start=0.0)
        dataset = group.create_dataset("data", shape, values.dtype, **options)
        kept = data.draw(st.integers(0, shape[0]))  # the rest is fill values
        dataset[:kept] = values[:kept]
        values[kept:] = np.zeros((), values.dtype)
    store = tmp_path / "random.nwb.zarr"
    write_zarr(store, values, options.get("chunks", shape), compressed=data.draw(st.booleans()))
    sources = [stored(path), stored(store)]
    for _ in range(4):
        selection = data.draw(selections(shape))
        expected = taken(values, selection)
        for file, array in sources:
            got = read_slice(file, array, selection)
            assert got.shape == expected.shape
            assert got.dtype == values.dtype.newbyteorder("=")
            np.testing.assert_array_equal(got, expected)


def write_zarr(store, values, chunks, *, compressed):
    """A series in Zarr version 2, by hand; chunks of zeros are left out."""
    folder = store / "series" / "data"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for group, attributes in ((store, {}), (store / "series", {"neurodata_type": "TimeSeries"})):
        (group / ".zgroup").write_text(json.dumps({"zarr_format": 2}))
        (group / ".zattrs").write_text(json.dumps(attributes))
    document = {
        "zarr_format": 2,
        "shape": values.shape,
        "chunks": chunks,
        "dtype": values.dtype.str,
        "compressor": {"id": "zlib", "level": 1} if compressed else None,
        "fill_value": [0.0, 0.0] if values.dtype.kind == "c" else 0,
        "order": "C",
        "filters": None,
    }
    (folder / ".zarray").write_text(json.dumps(document))
    for place in np.ndindex(*(-(-n // c) for n, c in zip(values.shape, chunks, strict=True))):
        part = values[tuple(slice(p * c, (p + 1) * c) for p, c in zip(place, chunks, strict=True))]
        if part.any() or part.dtype.kind in "fc":
            chunk = np.zeros(chunks, values.dtype)
            chunk[tuple(map(slice, part.shape))] = part
            raw = chunk.tobytes()
            (folder / ".".join(map(str, place))).write_bytes(zlib.compress(raw) if compressed else raw)


# -- types ------------------------------------------------------------------------------------------------


def test_text_is_str_and_bools_are_bools(tmp_path):
    words = np.array([[f"ü{i}", "" if i % 3 else "ends"] for i in range(50)], object)
    with h5py.File(tmp_path / "types.nwb", "w") as file:
        series(file, "text", words, start=0.0, dtype=VLEN_TEXT)
        series(file, "fixed", np.char.encode(words.astype("U"), "utf-8"), start=0.0)
        series(file, "bools", np.arange(50) % 3 == 0, start=0.0)
    for name in ("text", "fixed"):
        array = lazy(tmp_path / "types.nwb", name)
        assert array.dtype == object
        assert array[4:9, ::-1].tolist() == words[4:9, ::-1].tolist()
        assert array[0, 0] == "ü0"
    assert lazy(tmp_path / "types.nwb", "bools")[1:7].tolist() == [False, False, True, False, False, True]


def test_enums_are_names_and_compounds_are_structured(tmp_path):
    kinds = h5py.enum_dtype({"left": 1, "right": 7}, "u1")
    pairs = np.array([(1.5, 2, "a"), (2.5, 3, "bc")], [("x", "<f4"), ("n", ">i8"), ("t", VLEN_TEXT)])
    with h5py.File(tmp_path / "types.nwb", "w") as file:
        series(file, "enum", np.array([7, 1, 7], "u1"), start=0.0, dtype=kinds)
        series(file, "compound", pairs, start=0.0)
        series(file, "lists", start=0.0).create_dataset("data", (2,), h5py.vlen_dtype("i4"))
        file["lists/data"][0], file["lists/data"][1] = [1, 2, 3], []
        references = np.array([file["enum"].ref, h5py.Reference()], h5py.ref_dtype)
        series(file, "references", references, start=0.0, dtype=h5py.ref_dtype)
    path = tmp_path / "types.nwb"
    assert lazy(path, "enum")[:].tolist() == ["right", "left", "right"]
    found = lazy(path, "compound")[::-1]
    assert (found["x"].tolist(), found["n"].tolist(), found["t"].tolist()) == (
        [2.5, 1.5],
        [3, 2],
        ["bc", "a"],
    )
    assert [row.tolist() for row in lazy(path, "lists")[:]] == [[1, 2, 3], []]
    assert lazy(path, "references")[:].tolist() == ["/enum", None]


def test_unwritten_chunks_are_fill_values(tmp_path):
    with h5py.File(tmp_path / "fill.nwb", "w") as file:
        group = series(file, "series", start=0.0)
        group.create_dataset("data", (1000, 8), "f4", chunks=(10, 4), fillvalue=-1.5)[500:505] = 2
    array = lazy(tmp_path / "fill.nwb")
    assert array[499:506, 3:5].tolist() == [[-1.5, -1.5]] + [[2, 2]] * 5 + [[-1.5, -1.5]]
    assert (array[:][600:] == -1.5).all()


# -- costs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("userblock", [0, 512])
@pytest.mark.parametrize("dtype", ["<f8", np.dtype(("<i2", (2,)))], ids=["numbers", "arrays"])
def test_contiguous_data_that_was_never_written_is_zeros_behind_a_user_block_too(tmp_path, userblock, dtype):
    with h5py.File(tmp_path / "a.nwb", "w", userblock_size=userblock) as file:
        series(file, "series").create_dataset("data", (3, 1), dtype)
    assert not lazy(tmp_path / "a.nwb")[:].any()
    assert lazy(tmp_path / "a.nwb").shape[:2] == (3, 1)


@pytest.mark.parametrize("libver", ["earliest", "v110", "latest"])
@pytest.mark.parametrize("limits", [(40, None, 7), (40, 5, None), (None, 5, 7), (None, None, 7)], ids=str)
def test_chunks_are_located_for_any_unlimited_dimension(tmp_path, libver, limits):
    values = np.arange(40 * 5 * 7, dtype="f4").reshape(40, 5, 7)
    with h5py.File(tmp_path / "a.nwb", "w", libver=libver) as file:
        group = series(file, "series")
        group.create_dataset("data", data=values, chunks=(3, 2, 4), maxshape=limits)
        group["timestamps"] = np.arange(40.0)
    np.testing.assert_array_equal(lazy(tmp_path / "a.nwb")[:], values)
    np.testing.assert_array_equal(lazy(tmp_path / "a.nwb")[5:31:3, 1:], values[5:31:3, 1:])
    scanned = lazynwb.read_nwb(tmp_path / "a.nwb", "/series")
    np.testing.assert_array_equal(scanned["data"].to_numpy(), values)


@pytest.mark.parametrize("layout", ["contiguous", "chunked", "gzip", "compact"])
def test_rows_of_zero_elements(tmp_path, layout):
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        group = series(file, "series")
        group["timestamps"] = np.arange(3.0)
        if layout == "compact":
            properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            properties.set_layout(h5py.h5d.COMPACT)
            space = h5py.h5s.create_simple((3, 0))
            h5py.h5d.create(group.id, b"data", h5py.h5t.STD_I32LE, space, properties)
        else:
            chunks = {"chunked": {"chunks": (1, 1)}, "gzip": {"chunks": (1, 1), **GZIP}}.get(layout, {})
            group.create_dataset("data", (3, 0), "<i4", maxshape=(None, None) if chunks else None, **chunks)
    assert lazy(tmp_path / "a.nwb")[:].shape == (3, 0)
    scanned = lazynwb.read_nwb(tmp_path / "a.nwb", "/series")
    assert scanned["timestamps"].to_list() == [0, 1, 2]
    assert scanned["data"].to_list() == [[], [], []]
    late = lazynwb.scan_nwb(tmp_path / "a.nwb", "/series").filter(pl.col("timestamps") > 0).select("data")
    assert late.collect()["data"].to_list() == [[], []]


def test_only_the_chunks_of_the_columns_are_decoded(layouts):
    array = lazy(layouts, "gzip")
    with lazynwb.profile() as cost:
        array[1000:2000, :4]
    assert cost.chunks_decoded == 10  # of 30
    with lazynwb.profile() as cost:
        array[150:151, ::20]  # columns 0 and 20
    assert cost.chunks_decoded == 2
    with lazynwb.profile() as cost:
        array[[4999, 0, 4998], 36]
    assert cost.chunks_decoded == 2


def test_each_chunk_is_decoded_once_in_any_order(layouts):
    array = lazy(layouts, "gzip")
    for selection in (slice(None, None, -3), np.random.default_rng(0).permutation(5000)):
        with lazynwb.profile() as cost:
            array[selection]
        assert cost.chunks_decoded == 150


def test_an_empty_selection_reads_nothing(layouts):
    with lazynwb.profile() as cost:
        assert lazy(layouts, "gzip")[10:10, :3].shape == (0, 3)
        assert lazy(layouts, "contiguous")[:, 5:5].shape == (5000, 0)
    assert cost.bytes_read == cost.chunks_decoded == 0


def test_contiguous_data_is_read_with_small_gaps_only(tmp_path):
    images = np.arange(40 * 64 * 512, dtype="i4").reshape(40, 64, 512)
    with h5py.File(tmp_path / "images.nwb", "w") as file:
        series(file, "series", images, start=0.0)
    array = lazy(tmp_path / "images.nwb")
    for selection, most in [
        ((slice(10, 12),), 2 * images[0].nbytes),
        ((slice(None), 5, slice(0, 4)), 40 * 16),  # 128 KiB apart: each by itself
        (
            (slice(None), slice(5, 8), slice(0, 4)),
            40 * (2 * 512 + 4) * 4,
        ),  # rows of an image with what is between
        (([30, 1], slice(None, None, 20)), 2 * (60 * 512 + 512) * 4),
        ((3, [63, 0], 511), 2 * 4),
    ]:
        with lazynwb.profile() as cost:
            got = array[selection]
        assert (got == taken(images, selection)).all()
        assert cost.bytes_used <= most


class Memory:
    """Bytes as a file that records its reads; see `lazynwb.storage.file.File`."""

    name = "memory"
    pool = DECODERS
    coalesce_gap = 0
    coalesce_limit = 1 << 30
    thread_threshold = 1 << 30

    def __init__(self, content):
        self._content = content
        self.size = len(content)
        self.reads = []

    @contextmanager
    def reading(self):
        yield self

    def has(self, offset, size):
        return False

    def keep(self, offset, data):
        pass

    def read(self, offset, size):
        self.reads.append((offset, offset + size))
        return memoryview(self._content)[offset : offset + size]

    def read_into(self, offset, buffer):
        buffer[:] = self.read(offset, len(buffer))


def read_rows(width, ranges, layout="contiguous"):
    """Read rows of an array of `width` bytes each, with the ranges of bytes that were read."""
    rows = ranges[-1][1] + 3
    content = np.random.default_rng(width).integers(0, 256, (rows, width), dtype=np.uint8)
    memory = Memory(b"head" + content.tobytes())
    array = Array("x", (rows, width), DType("number", 1, "|u1"), layout, offset=4, chunk=(rows, width))
    index = None
    if layout == "chunked":
        index = ChunkIndex(struct.pack("<Q", 4), struct.pack("<Q", rows * width))
    selected = np.concatenate([np.arange(*one) for one in ranges])
    out = np.zeros((len(selected), width), np.uint8)
    fetch([(memory, [Request(array, index, np.array(ranges, np.int64), out)])])
    assert (out == content[selected]).all()
    return [((start - 4) // width, (stop - 4) // width) for start, stop in memory.reads]


@given(st.sampled_from([1, 16, 200, 3000]), st.lists(st.integers(1, 60), min_size=2, max_size=40), st.data())
def test_rows_of_undecoded_data_equal_numpy(width, steps, data):
    bounds = np.cumsum(steps).tolist()
    ranges = list(zip(bounds[::2], bounds[1::2], strict=False))
    read_rows(width, ranges, data.draw(st.sampled_from(["contiguous", "chunked"])))


@pytest.mark.parametrize("layout", ["contiguous", "chunked"])
@pytest.mark.parametrize(
    ("width", "ranges", "reads"),
    [
        (16, [(2, 3), (5, 9), (200, 201)], [(2, 201)]),
        (16, [(2, 3), (5, 9), (300, 301)], [(2, 9), (300, 301)]),  # a gap of more than 4 KiB
        (1024, [(0, 100), (101, 200), (201, 300)], [(0, 200), (201, 300)]),  # of at most 256 KiB
        (1024, [(0, 300), (301, 302)], [(0, 300), (301, 302)]),
    ],
)
def test_close_rows_of_undecoded_data_are_read_at_once(layout, width, ranges, reads):
    assert read_rows(width, ranges, layout) == reads


def test_only_selected_rows_of_unfiltered_chunks_are_read(layouts):
    with lazynwb.profile() as cost:
        got = lazy(layouts, "unfiltered")[205, 20]
    assert got == DATA[205, 20]
    assert cost.bytes_used == 16 * 4


def test_remote_slices_request_only_their_chunks(layouts):
    with RangeServer(layouts.parent) as server:
        array = lazy(server.url_of(layouts.name), "gzip")
        array[0, 0]  # where the chunks are
        server.reset()
        with lazynwb.profile() as cost:
            got = array[1000:2000, :4]
        assert (got == DATA[1000:2000, :4]).all()
        assert cost.chunks_decoded == 10
        assert server.count <= 2
        assert server.bytes == cost.bytes_read <= cost.bytes_used + 64 * 1024  # of 350 KiB


@pytest.mark.integration
@pytest.mark.parametrize("version", ["v2", "v3"])
def test_slices_of_a_zarr_twin_equal_those_of_the_hdf5_file(twins, version):
    stores = [path for path in twins.rglob("compressed_series*") if version in str(path) and path.is_dir()]
    with h5py.File(next(twins.rglob("compressed_series.nwb"))) as file:
        data = file["acquisition/zipped/data"][:]
    assert stores
    for store in stores:
        array = lazy(store, "acquisition/zipped")
        if len(array.chunks) and array.chunks[1] == 2:
            with lazynwb.profile() as cost:
                array[64:192, 2]
            assert cost.chunks_decoded == 2
        for selection in ((slice(60, 70),), (slice(None, None, -50), 1), ([499, 0, 499], slice(1, 3))):
            np.testing.assert_array_equal(array[selection], taken(data, selection))


@pytest.mark.parametrize("shards", [None, (40, 12)])
def test_slices_of_sharded_zarr_arrays_look_up_their_chunks_only(tmp_path, shards):
    zarr = pytest.importorskip("zarr", minversion="3")
    values = np.arange(100 * 30, dtype="f4").reshape(100, 30)
    root = zarr.open_group(tmp_path / "v3.nwb.zarr", mode="w", zarr_format=3)
    group = root.create_group("series", attributes={"neurodata_type": "TimeSeries"})
    group.create_array("data", data=values, chunks=(10, 4), shards=shards)
    array = lazy(tmp_path / "v3.nwb.zarr")
    with lazynwb.profile() as cost:
        got = array[35:45, 5:9]
    assert (got == values[35:45, 5:9]).all()
    assert cost.chunks_decoded == 4
    for selection in (
        (slice(None, None, -3), 29),
        ([99, 0, 0], slice(2, 20, 7)),
        (slice(7, 93), [0, 29, 13]),
    ):
        np.testing.assert_array_equal(array[selection], taken(values, selection))


# -- sizes in metadata ------------------------------------------------------------------------------------


def test_contiguous_data_larger_than_the_file_are_refused_before_allocation(layouts):
    file, array = stored(layouts, "contiguous")
    claimed = replace(array, shape=(10**8, 37))
    with pytest.raises(
        lazynwb.CorruptDataError, match=r"layouts\.nwb: /contiguous/data: .* data ends at byte"
    ):
        read_slice(file, claimed, slice(None))


def test_a_selection_larger_than_memory_is_an_error(tmp_path):
    with h5py.File(tmp_path / "huge.nwb", "w") as file:
        series(file, "series", start=0.0).create_dataset("data", (10**9, 10**5), "f8", chunks=(10, 100))
    array = lazy(tmp_path / "huge.nwb")
    assert array.shape == (10**9, 10**5)
    with pytest.raises(lazynwb.LazyNWBError, match="read it in parts"):
        array[:]


def test_a_damaged_chunk_is_an_error_that_names_file_and_dataset(layouts, tmp_path):
    path = tmp_path / "damaged.nwb"
    path.write_bytes(layouts.read_bytes())
    with h5py.File(path) as file:
        place = file["gzip/data"].id.get_chunk_info_by_coord((1000, 0))
    raw = bytearray(path.read_bytes())
    raw[place.byte_offset + 10 : place.byte_offset + 40] = bytes(30)
    path.write_bytes(raw)
    array = lazy(path, "gzip")
    assert (array[1000:1100, 16:] == DATA[1000:1100, 16:]).all()  # its neighbours are whole
    with pytest.raises(lazynwb.CorruptDataError, match=r"damaged\.nwb: /gzip/data"):
        array[1000:1100, :16]
    assert (array[1100:1200] == DATA[1100:1200]).all()


def test_a_file_that_was_replaced_is_an_error(layouts, tmp_path):
    path = tmp_path / "replaced.nwb"
    path.write_bytes(layouts.read_bytes())
    array = lazy(path, "contiguous")
    array[0]
    path.unlink()
    with h5py.File(path, "w") as file:
        series(file, "contiguous", DATA[::-1], start=0.0)
    with pytest.raises(lazynwb.SourceChangedError):
        array[0]


# -- array protocol ---------------------------------------------------------------------------------------


def test_representation_of_a_lazy_array(layouts):
    array = lazy(layouts, "gzip")
    assert (array.shape, array.dtype, array.ndim, array.size) == ((5000, 37), np.dtype("i4"), 2, 185_000)
    assert (len(array), array.nbytes, array.chunks) == (5000, 740_000, (100, 16))
    assert lazy(layouts, "contiguous").chunks is None
    for part in ("(5000, 37)", "int32", "/gzip/data", str(layouts)):
        assert part in repr(array)


def test_numpy_functions_accept_lazy_arrays(layouts):
    array = lazy(layouts, "gzip")
    assert (np.asarray(array) == DATA).all()
    assert np.asarray(array, "f4").dtype == np.float32
    assert np.mean(array) == DATA.mean()
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
        with pytest.raises(ValueError, match="copy=False"):
            np.asarray(array, copy=False)


def test_iteration_reads_each_chunk_once(layouts):
    array = lazy(layouts, "gzip")
    with lazynwb.profile() as cost:
        rows = list(array)
    assert (np.array(rows) == DATA).all()
    assert cost.chunks_decoded == 150
    assert list(array.blocks(1000))[:2] == [(0, 100), (100, 200)]


def test_rows_are_a_window(layouts):
    window = lazy(layouts, "gzip").rows(950, 1050).rows(10, 100)
    assert window.shape == (90, 37)
    assert (window[:] == DATA[960:1050]).all()
    assert (window[[-1, 0], 3] == DATA[[1049, 960], 3]).all()
    with pytest.raises(IndexError):
        window[90]
