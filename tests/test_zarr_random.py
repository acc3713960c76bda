"""Random arrays in every kind of chunk, compared with zarr-python.

zarr-python writes them: version 2 of it in Zarr v2, version 3 in both. Hypothesis chooses shapes, chunks and
shards, types, orders, codecs, fill values and chunks that are not there; the columns of a table are stored in
as many ways as there are columns.
"""

import itertools
import tempfile
import warnings
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings

import lazynwb
from checks import assert_frames, assert_values
from random_files import INTEGERS, arrays
from readers import hdf5_tables as oracle

zarr = pytest.importorskip("zarr", reason="pip install zarr")
numcodecs = pytest.importorskip("numcodecs", reason="pip install numcodecs")

VERSION = int(zarr.__version__.partition(".")[0])

random = settings(
    phases=set(Phase) - {Phase.explain},  # takes longer than all the rest
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
needs_version_3 = pytest.mark.skipif(VERSION < 3, reason="zarr-python 2 does not write Zarr v3")


# --- shapes and values --------------------------------------------------------------------------------


@st.composite
def chunkings(draw, shape):
    """Chunks of any shape, also larger than the array."""
    return tuple(draw(st.integers(1, max(1, length + 2))) for length in shape)


@st.composite
def fills(draw, dtype):
    """Return a fill value; None for the default of the format."""
    kind = np.dtype("O" if dtype == "text" else dtype).kind
    if kind in "OUS":
        return None
    if kind == "b":
        return draw(st.sampled_from([False, True]))
    if kind == "f":
        return draw(st.sampled_from([0.0, np.nan, np.inf, -np.inf, -1.5, 1e-30]))
    limits = np.iinfo(dtype)
    return int(draw(st.sampled_from([0, 1, limits.min, limits.max])))


@st.composite
def layouts(draw, shape, dtype):
    """Return options of both format versions. Without a fill value, no chunk is missing."""
    fill = draw(fills(dtype))
    missing = draw(st.sets(st.integers(0, 40), max_size=8)) if fill is not None else set()
    return {
        "chunks": draw(chunkings(shape)),
        "fill_value": fill,
        "missing": missing,
        "separator": draw(st.sampled_from("./")),
        "write_empty_chunks": draw(st.booleans()),
    }


def fill_chunks(array, data, missing):
    """Write all chunks except the missing ones, one by one or all at once."""
    if not missing:
        array[...] = data
        return
    starts = [range(0, length, chunk) for length, chunk in zip(array.shape, array.chunks, strict=True)]
    for number, corner in enumerate(itertools.product(*starts)):
        if number not in missing:
            part = tuple(slice(a, a + n) for a, n in zip(corner, array.chunks, strict=True))
            array[part] = data[part]


# --- version 2 ----------------------------------------------------------------------------------------


def blosc():
    return st.builds(
        numcodecs.Blosc,
        cname=st.sampled_from(["blosclz", "lz4", "lz4hc", "zlib", "zstd"]),
        clevel=st.integers(0, 9),
        shuffle=st.sampled_from([0, 1, 2]),
        blocksize=st.sampled_from([0, 16, 64]),
    )


@st.composite
def compressors(draw):
    return draw(
        st.one_of(
            st.none(),
            st.builds(numcodecs.GZip, st.integers(0, 9)),
            st.builds(numcodecs.Zlib, st.integers(0, 9)),
            st.builds(numcodecs.Zstd, st.integers(-3, 9)),
            st.builds(numcodecs.LZ4, st.integers(1, 9)),
            blosc(),
        )
    )


@st.composite
def filters(draw, dtype):
    """None, or one or two filters that support the type."""
    kind = np.dtype(dtype).kind
    found = []
    if kind in "iu" and draw(st.booleans()):
        found.append(numcodecs.Delta(dtype))
    if draw(st.booleans()):
        found.append(numcodecs.Shuffle(np.dtype(dtype).itemsize))
    if hasattr(numcodecs, "CRC32C") and draw(st.booleans()):
        found.append(numcodecs.CRC32C())
    return found or None


def write_v2(group, name, data, layout):
    """Write an array as zarr-python of either version does."""
    keep = {"shape": data.shape, **{key: layout[key] for key in ("chunks", "fill_value", "order")}}
    chain = layout["filters"]
    if VERSION < 3:
        text = {"object_codec": layout.get("object_codec")} if data.dtype == "O" else {}
        array = group.create_dataset(
            name,
            dtype=object if data.dtype == "O" else data.dtype,
            compressor=layout["compressor"],
            filters=chain,
            dimension_separator=layout["separator"],
            write_empty_chunks=layout["write_empty_chunks"],
            **keep,
            **text,
        )
    else:
        array = group.create_array(
            name,
            dtype=str if data.dtype == "O" else data.dtype,
            compressors=layout["compressor"],
            filters="auto" if chain is None else chain,
            chunk_key_encoding={"name": "v2", "separator": layout["separator"]},
            config={"write_empty_chunks": layout["write_empty_chunks"]},
            **keep,
        )
    fill_chunks(array, data, layout["missing"])
    return array


@st.composite
def columns_v2(draw, rows, dtype, inner):
    """A function that writes the column into a group."""
    data = draw(arrays(rows, dtype, inner))
    layout = draw(layouts(data.shape, dtype))
    layout |= {"order": draw(st.sampled_from("CF")), "compressor": draw(compressors()), "filters": None}
    if dtype == "text":
        codecs = [numcodecs.VLenUTF8(), numcodecs.JSON(), numcodecs.Pickle()]
        if hasattr(numcodecs, "MsgPack"):
            codecs.append(numcodecs.MsgPack())
        layout["object_codec"] = draw(st.sampled_from(codecs))
        layout["order"] = "C"  # zarr-python itself mixes up objects in the other
    elif dtype not in {"U5", "S5"}:
        layout["filters"] = draw(filters(dtype))
    note(f"{dtype} {data.shape} {layout}")
    return lambda group, name: write_v2(group, name, data, layout)


# --- version 3 ----------------------------------------------------------------------------------------


@st.composite
def compressors_v3(draw, dtype):
    """Up to two bytes-to-bytes codecs, with an optional shuffle before."""
    from zarr import codecs

    one = st.one_of(
        st.builds(codecs.GzipCodec, level=st.integers(0, 9)),
        st.builds(codecs.ZstdCodec, level=st.integers(-3, 9), checksum=st.booleans()),
        st.builds(
            codecs.BloscCodec,
            typesize=st.sampled_from([1, 4, 8]),
            cname=st.sampled_from(["blosclz", "lz4", "lz4hc", "zlib", "zstd"]),
            clevel=st.integers(0, 9),
            shuffle=st.sampled_from(["noshuffle", "shuffle", "bitshuffle"]),
            blocksize=st.sampled_from([0, 16]),
        ),
        st.just(codecs.Crc32cCodec()),
        st.builds(codecs.numcodecs.LZ4, acceleration=st.integers(1, 9)),
        st.builds(codecs.numcodecs.Zlib, level=st.integers(0, 9)),
    )
    chain = draw(st.lists(one, max_size=2))
    if dtype != "text" and draw(st.booleans()):
        chain.insert(0, codecs.numcodecs.Shuffle(elementsize=np.dtype(dtype).itemsize))
    return chain


@st.composite
def serializers(draw, dtype, rank):
    """Array-to-array and array-to-bytes codecs."""
    from zarr import codecs

    chain = []
    if draw(st.booleans()):
        chain.append(codecs.TransposeCodec(order=tuple(draw(st.permutations(range(rank))))))
    if np.dtype(dtype).kind in "iu" and draw(st.booleans()):
        chain.append(codecs.numcodecs.Delta(dtype=f"<{dtype}"))  # gives one dimension, so it comes last
    filtered = any(not isinstance(step, codecs.TransposeCodec) for step in chain)
    orders = ["little"] if filtered else ["little", "big"]  # see test_byte_order_behind_a_filter
    return chain, codecs.BytesCodec(endian=draw(st.sampled_from(orders)))


@st.composite
def columns_v3(draw, rows, dtype, inner):
    data = draw(arrays(rows, dtype, inner))
    layout = draw(layouts(data.shape, dtype))
    shards = None
    if draw(st.booleans()):
        shards = tuple(chunk * draw(st.integers(1, 3)) for chunk in layout["chunks"])
    options = {"compressors": draw(compressors_v3(dtype))}
    if dtype != "text":
        options["filters"], options["serializer"] = draw(serializers(dtype, data.ndim))
    note(f"{dtype} {data.shape} {layout} {shards} {options}")

    def write(group, name):
        array = group.create_array(
            name,
            shape=data.shape,
            chunks=layout["chunks"],
            shards=shards,
            dtype=str if dtype == "text" else dtype,
            fill_value="" if layout["fill_value"] is None else layout["fill_value"],
            chunk_key_encoding={
                "name": draw(st.sampled_from(["default", "v2"])),
                "separator": layout["separator"],
            },
            config={"write_empty_chunks": layout["write_empty_chunks"]},
            **options,
        )
        fill_chunks(array, data, layout["missing"])
        return array

    return write


# --- tables of such columns ---------------------------------------------------------------------------


def open_root(folder, version):
    options = {"zarr_version" if VERSION < 3 else "zarr_format": version}
    root = zarr.open_group(str(folder), mode="w", **options)
    root.attrs.update({"neurodata_type": "NWBFile", "namespace": "core", "nwb_version": "2.8.0"})
    return root


def reference(path, version):
    found = {"source": ".", "path": path}
    return {"_REFERENCE": found} if version == 3 else {"value": found, "zarr_dtype": "object"}


def read(array):
    """Python values of each row."""
    data = np.asarray(array[...])
    if data.dtype.kind == "S":
        return [nested_text(row) for row in data.tolist()]
    return data.astype("O").tolist() if data.dtype.kind in "TU" else data.tolist()


def nested_text(value):
    return value.decode() if isinstance(value, bytes) else [nested_text(part) for part in value]


def dtype_of(array, depth):
    name = "String" if np.dtype(array.dtype).kind in "OSTU" else oracle.dtype_name(np.dtype(array.dtype))
    if array.shape[1:]:
        name = f"Array({name}, shape={array.shape[1:]})"
    return f"List({name})" if depth else name


def check(draw, folder, version, column):
    """Write a table of up to four columns, some ragged; read it whole and in parts."""
    rows = draw(st.integers(0, 12))
    inner = st.sampled_from([(), (), (2,), (2, 3)])
    kinds = ["?", *INTEGERS, "f4", "f8", "text"]
    if version == 2:
        kinds += [">i4", ">f8", ">u2", "U5", "S5"]
    root = open_root(folder, version)
    group = root.create_group("t")
    expected, dtypes = {}, {}
    for name in "abcd"[: draw(st.integers(1, 4))]:
        dtype, shape = draw(st.sampled_from(kinds)), draw(inner)
        if not draw(st.integers(0, 2)):
            lengths = draw(st.lists(st.integers(0, 4), min_size=rows, max_size=rows))
            ends = np.cumsum(lengths, dtype="u4")
            array = draw(column(sum(lengths), dtype, shape))(group, name)
            index = draw(column(rows, "u4", ()))(group, f"{name}_index")
            index[...] = ends
            index.attrs.update({"neurodata_type": "VectorIndex", "target": reference(f"/t/{name}", version)})
            flat = read(array)
            expected[name] = [flat[end - size : end] for size, end in zip(lengths, ends, strict=True)]
            dtypes[name] = dtype_of(array, 1)
        else:
            array = draw(column(rows, dtype, shape))(group, name)
            expected[name], dtypes[name] = read(array), dtype_of(array, 0)
    ids = draw(column(rows, "i8", ()))(group, "id")
    expected["id"], dtypes["id"] = read(ids), "Int64"
    ids.attrs["neurodata_type"] = "ElementIdentifiers"
    names = [name for name in expected if name != "id"]
    group.attrs.update({"neurodata_type": "DynamicTable", "colnames": names})
    if draw(st.booleans()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that version 3 of the format does not specify it
            zarr.consolidate_metadata(str(folder))

    lf = lazynwb.scan_nwb(folder, "t")
    assert {name: str(lf.collect_schema()[name]) for name in expected} == dtypes
    frame = lf.collect()
    for name, values in expected.items():
        assert_values(frame[name].to_list(), values, name)
    some = draw(st.sets(st.integers(0, 12), max_size=3))
    for part in (
        pl.col("_table_index").is_in(sorted(some)),
        pl.col("_table_index") >= draw(st.integers(0, 12)),
    ):
        assert_frames(lf.filter(part).collect(), frame.filter(part))
    count = draw(st.integers(0, 12))
    assert_frames(lf.head(count).collect(), frame.head(count))


@pytest.fixture(scope="module", autouse=True)
def _own_pickles():
    """zarr-python may unpickle the pickles of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("numcodecs.pickles.ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)
        yield


@random
@given(st.data())
def test_version_2(data):
    with tempfile.TemporaryDirectory() as folder:
        check(data.draw, Path(folder) / "random.nwb.zarr", 2, columns_v2)


@needs_version_3
@random
@given(st.data())
def test_version_3(data):
    with tempfile.TemporaryDirectory() as folder:
        check(data.draw, Path(folder) / "random.nwb.zarr", 3, columns_v3)


# --- lossy codecs -------------------------------------------------------------------------------------


def lossy_v2(group, data):
    layout = {
        "chunks": (4,),
        "fill_value": 0.25,
        "missing": {1},
        "separator": ".",
        "write_empty_chunks": True,
        "order": "C",
        "compressor": numcodecs.Zstd(),
        "filters": [numcodecs.FixedScaleOffset(offset=-2.5, scale=100, dtype="<f8", astype="<i4")],
    }
    return write_v2(group, "a", data, layout)


def lossy_v3(group, data):
    from zarr.codecs.numcodecs import FixedScaleOffset

    array = group.create_array(
        "a",
        shape=data.shape,
        chunks=(4,),
        dtype="f8",
        fill_value=0.25,
        filters=[FixedScaleOffset(offset=-2.5, scale=100, dtype="<f8", astype="<i4")],
    )
    fill_chunks(array, data, {1})
    return array


@pytest.mark.parametrize(
    ("version", "write"), [(2, lossy_v2), pytest.param(3, lossy_v3, marks=needs_version_3)]
)
def test_fixed_scale_and_offset(version, write, tmp_path):
    """The codec is lossy, so the oracle is zarr-python."""
    data = np.linspace(-7, 9, 14)
    root = open_root(tmp_path / "a.nwb.zarr", version)
    group = root.create_group("t")
    array = write(group, data)
    group.attrs.update({"neurodata_type": "DynamicTable", "colnames": ["a"]})
    actual = lazynwb.read_nwb(tmp_path / "a.nwb.zarr", "t")["a"].to_list()
    assert_values(actual, array[...].tolist(), "a")
    assert actual[4:8] == [0.25] * 4


@needs_version_3
@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("shape", [(6,), (6, 2, 3)])
def test_byte_order_behind_a_filter(order, shape, tmp_path):
    """A filter comes before the codec `bytes`, whose byte order is therefore not that of what it gives.

    In the other order than the machine's it is refused: nobody writes it.
    """
    from zarr import codecs

    data = (np.arange(np.prod(shape)) * 300).reshape(shape)
    group = open_root(tmp_path / "a.nwb.zarr", 3).create_group("t")
    array = group.create_array(
        "a",
        shape=shape,
        chunks=(4, *shape[1:]),
        dtype="i8",
        filters=[codecs.numcodecs.Delta(dtype="<i8")],
        serializer=codecs.BytesCodec(endian=order),
    )
    array[...] = data
    group.attrs.update({"neurodata_type": "DynamicTable", "colnames": ["a"]})
    if order == "big":
        with pytest.raises(lazynwb.UnsupportedTypeError, match="big-endian bytes behind a filter"):
            lazynwb.read_nwb(tmp_path / "a.nwb.zarr", "t")
    else:
        assert lazynwb.read_nwb(tmp_path / "a.nwb.zarr", "t")["a"].to_list() == data.tolist()
