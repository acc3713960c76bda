"""Codecs compared with NumPy, zlib and h5py, and damaged or hostile chunks."""

import struct
import tracemalloc
import zlib

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lazynwb
from lazynwb.catalog.model import Codec
from lazynwb.codecs.checksums import crc32c, fletcher32
from lazynwb.codecs.chunk_codecs import unfilter, unshuffle
from readers import plain_zarr

ZLIB, SHUFFLE, FLETCHER = Codec("zlib", (4,)), Codec("shuffle", (8,)), Codec("fletcher32")


@given(st.integers(1, 16), st.integers(0, 5000), st.data())
def test_unshuffle_is_a_transposition(size, count, data):
    values = np.random.default_rng(count).integers(0, 256, (count, size), dtype=np.uint8)
    first = data.draw(st.integers(0, count))
    stop = data.draw(st.integers(first, count))
    out = np.empty((stop - first) * size, np.uint8)
    unshuffle(values.T.tobytes(), size, first, stop, out)
    assert out.tobytes() == values[first:stop].tobytes()


@given(st.binary(max_size=300).map(lambda piece: piece * 40))
def test_fletcher32_equals_the_checksum_of_hdf5(data):
    if not data:
        return
    with h5py.File("fletcher", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset(
            "x", data=np.frombuffer(data, "u1"), chunks=(len(data),), fletcher32=True
        )
        _, chunk = dataset.id.read_direct_chunk((0,))
    raw, shuffled = unfilter(chunk, (FLETCHER,), 0, len(data))
    assert (bytes(raw), shuffled) == (data, 0)


@pytest.mark.integration
def test_fletcher32_of_a_chunk_that_is_larger_than_a_block():
    words = np.random.default_rng(0).integers(0, 65536, 3_000_001).astype(">u2")
    first = second = 0
    for word in words.tolist():
        first = (first + word) % 65535
        second = (second + first) % 65535
    assert fletcher32(words.tobytes()) == second << 16 | first


@pytest.mark.parametrize("position", [0, 100, 401])
def test_a_flipped_bit_fails_the_checksum(position):
    with h5py.File("fletcher", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset("x", data=np.arange(100, dtype="i4"), chunks=(100,), fletcher32=True)
        chunk = bytearray(dataset.id.read_direct_chunk((0,))[1])
    chunk[position] ^= 4
    with pytest.raises(lazynwb.CorruptDataError, match="checksum"):
        unfilter(chunk, (FLETCHER,), 0, 400)


def test_filters_are_applied_in_any_order():
    """Some writers compute the checksum before the compression."""
    data = np.arange(50.0)
    shuffled = np.ascontiguousarray(data.view("u1").reshape(-1, 8).T).tobytes()
    checked = shuffled + struct.pack("<I", fletcher32(shuffled))
    raw, size = unfilter(zlib.compress(checked), (SHUFFLE, FLETCHER, ZLIB), 0, 400)
    assert (bytes(raw), size) == (shuffled, 8)


def test_a_masked_filter_was_skipped():
    assert unfilter(b"12345678", (SHUFFLE, ZLIB), 0b11, 8) == (b"12345678", 0)


@pytest.mark.parametrize("name", ["zlib", "blosc", "zstd", "lz4"])
@pytest.mark.parametrize("content", [b"", b"\0", bytes(64), b"\x28\xb5\x2f\xfd" + b"\xff" * 60])
def test_garbage_is_a_lazynwb_error(name, content):
    with pytest.raises(lazynwb.CorruptDataError):
        unfilter(content, (Codec(name),), 0, 4096)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("zlib", zlib.compress(bytes(1000))),
        ("blosc", struct.pack("<BBBBIII", 2, 1, 0, 1, 1 << 30, 1 << 30, 80) + bytes(64)),
        ("zstd", b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", 1 << 30) + bytes(60)),
        ("lz4", struct.pack(">QI", 1 << 30, 1 << 30) + bytes(64)),
    ],
)
def test_declared_sizes_are_checked_before_allocation(name, content):
    tracemalloc.start()
    try:
        with pytest.raises(lazynwb.CorruptDataError):
            unfilter(content, (Codec(name),), 0, 1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_more_than_deflate_can_expand_is_refused():
    with pytest.raises(lazynwb.CorruptDataError, match="cannot hold"):
        unfilter(zlib.compress(bytes(1000)), (ZLIB,), 0, 1 << 40)


@pytest.mark.parametrize("implementation", ["c", "python"])
@pytest.mark.parametrize("size", [0, 1, 9, 4_097])
def test_crc32c_of_any_buffer(size, implementation, monkeypatch):
    data = np.random.default_rng(size).integers(0, 256, size, np.uint8).tobytes()
    if implementation == "python":
        module = pytest.importorskip("google_crc32c.python")
        monkeypatch.setattr("google_crc32c.implementation", "python")
        monkeypatch.setattr("google_crc32c.value", module.value)
    wanted = plain_zarr.crc32c(data)
    for buffer in (data, bytearray(data), memoryview(data), memoryview(bytearray(b"x" + data))[1:]):
        assert crc32c(buffer) == wanted


def test_crc32c_of_the_specification():
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720, and the catalogue of parametrised CRC algorithms
