"""Decoding of chunks by their filter pipelines."""

from __future__ import annotations

import json
import struct
import zlib
from typing import TYPE_CHECKING, Any

import deflate
import numpy as np

from lazynwb.codecs.checksums import crc32c, fletcher32_matches
from lazynwb.errors import CorruptDataError, UnsupportedTypeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazynwb.catalog.model import Codec
    from lazynwb.codecs import Buffer

#: The maximum compression ratio of DEFLATE; beyond it, a stream is damaged or a decompression bomb.
_MAX_DEFLATE_RATIO = 1032
#: Maximum size of chunks of the other codecs, whose compression ratio is not bounded.
_MAX_CHUNK_BYTES = 4 * 1024**3
#: Size of a checksum and of the header of a Blosc frame.
_CHECKSUM_BYTES, _BLOSC_HEADER = 4, 16
#: Maximum decoded size of a Zstandard block (RFC 8878, 3.1.1.2), which has at least four bytes.
_ZSTD_BLOCK = 128 * 1024
#: Memory limit of LZMA: presets need up to 64 MiB, a damaged stream may claim a dictionary of 4 GiB.
LZMA_MEMORY = 256 * 1024**2
#: Below this number of elements, a transposed copy is faster than one copy per byte plane.
_TRANSPOSE_LIMIT = 2048


def unfilter(data: Buffer, codecs: tuple[Codec, ...], mask: int, nbytes: int) -> tuple[Buffer, int]:
    """Decode a chunk, except for a shuffle that was applied first.

    Parameters
    ----------
    data : buffer
        The stored chunk.
    codecs : tuple of Codec
        Filter pipeline in the order of writing.
    mask : int
        Bit i is set if codec i was skipped for this chunk.
    nbytes : int
        Size of the decoded chunk.

    Returns
    -------
    data : buffer
        `nbytes` bytes.
    shuffled : int
        Element size of a remaining shuffle, which `unshuffle` undoes while copying; 0 if there is none.

    Raises
    ------
    CorruptDataError
        If a checksum or a size does not match.
    """
    shuffled = 0
    for i in range(len(codecs) - 1, -1, -1):
        if mask >> i & 1:
            continue
        codec = codecs[i]
        if codec.name == "shuffle":
            size = codec.args[0] if codec.args else 1
            if i == 0:
                shuffled = size if size > 1 else 0
            elif size > 1:
                data = unshuffled(data, size)
        else:
            expected = nbytes
            compressed = False
            for k in range(i):
                if not mask >> k & 1:
                    expected = _encoded_size(codecs[k], expected)
                    compressed = compressed or _is_compressor(codecs[k])
            if compressed:
                data = _decode_nested(codec, data, expected)
            else:
                data = (
                    _decode_numcodecs_filter(codec, data, expected)
                    if codec.config
                    else _DECODERS[codec.name](data, expected)
                )
    if len(data) != nbytes:
        raise CorruptDataError(f"a chunk decodes to {len(data)} bytes where {nbytes} are needed")
    return data, shuffled


def decode(data: Buffer, codecs: tuple[Codec, ...], nbytes: int) -> Buffer:
    """Return the `nbytes` bytes of a decoded chunk; see `unfilter`."""
    raw, shuffled = unfilter(data, codecs, 0, nbytes)
    return unshuffled(raw, shuffled) if shuffled else raw


def decode_into(data: Buffer, codecs: tuple[Codec, ...], mask: int, out: np.ndarray) -> bool:
    """Decode a whole chunk into an output array without a copy, if possible; return whether it was decoded.

    Parameters
    ----------
    data, codecs, mask
        As for `unfilter`.
    out : ndarray of uint8
        Contiguous array with the size of the decoded chunk.

    Raises
    ------
    CorruptDataError
        If a size does not match.
    """
    active = [codec for i, codec in enumerate(codecs) if not mask >> i & 1]
    if len(active) != 1 or active[0].name not in {"blosc", "zstd"} or not out.flags.c_contiguous:
        return False
    if len(data) < _BLOSC_HEADER or declared_size(active[0], data) != out.nbytes:
        return False  # the regular path decodes or refuses it
    _check_size(data, out.nbytes)
    decompress = _numcodecs(active[0].name)
    _map_errors(lambda stored: decompress(stored, out), data)
    return True


def _encoded_size(codec: Codec, nbytes: int) -> int:
    """Return the encoded size of `nbytes` bytes by a codec that does not compress."""
    if codec.name in {"fletcher32", "crc32c"}:
        return nbytes + _CHECKSUM_BYTES
    if codec.config:
        config = json.loads(codec.config)
        if config.get("id") == "packbits":
            return 1 + -(-nbytes // 8)  # a byte with the number of unused bits, and the bits
        decoded = config.get("decode_dtype", config.get("dtype"))
        encoded = config.get("encode_dtype", config.get("astype"))
        if decoded and encoded:
            return int(nbytes // np.dtype(decoded).itemsize * np.dtype(encoded).itemsize)
    return nbytes


def unshuffle(data: Buffer, size: int, first: int, stop: int, out: np.ndarray) -> None:
    """Copy elements `first` to `stop` of byte-shuffled data to `out`, a contiguous array of bytes.

    Parameters
    ----------
    data : buffer
        Whole shuffled chunk: the first bytes of all elements, then the second bytes, and so on.
    size : int
        Size of one element in bytes.
    first, stop : int
        Range of elements.
    out : ndarray of uint8
        Output of shape ((stop - first) * size,).
    """
    count = len(data) // size
    planes = np.frombuffer(data, np.uint8, count * size).reshape(size, count)[:, first:stop]
    target = out.reshape(stop - first, size)
    if stop - first < _TRANSPOSE_LIMIT:
        target[...] = planes.T
    else:
        for k in range(size):
            target[:, k] = planes[k]


def unshuffled(data: Buffer, size: int) -> Buffer:
    """Return unshuffled data; an incomplete element at the end is not shuffled."""
    whole = len(data) // size
    out = np.empty(len(data), np.uint8)
    unshuffle(data, size, 0, whole, out[: whole * size])
    out[whole * size :] = np.frombuffer(data, np.uint8)[whole * size :]
    return out.data


def _inflate(data: Buffer, nbytes: int) -> Buffer:
    return _decompress_deflate(deflate.zlib_decompress, "zlib", data, nbytes)


def _gunzip(data: Buffer, nbytes: int) -> Buffer:
    return _decompress_deflate(deflate.gzip_decompress, "gzip", data, nbytes)


def _decompress_deflate(
    decompress: Callable[[Buffer, int], Buffer], name: str, data: Buffer, nbytes: int
) -> Buffer:
    if nbytes > _MAX_DEFLATE_RATIO * len(data) + 4096:
        raise CorruptDataError(f"{len(data)} compressed bytes cannot hold the {nbytes} bytes of a chunk")
    try:
        return decompress(data, nbytes)
    except deflate.DeflateError as error:
        raise CorruptDataError(f"a chunk's {name} stream is damaged ({error})") from None


def _verify_crc32c(data: Buffer, nbytes: int) -> Buffer:  # noqa: ARG001 - the codecs share one signature
    body, stored = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    value = int.from_bytes(stored, "little")
    if len(stored) < _CHECKSUM_BYTES or crc32c(body) != value:
        raise CorruptDataError(f"a chunk does not match its CRC-32C checksum ({value:08x})")
    return body


def _verify_fletcher32(data: Buffer, nbytes: int) -> Buffer:  # noqa: ARG001 - the codecs share one signature
    body, stored = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if len(stored) < _CHECKSUM_BYTES:
        raise CorruptDataError("a chunk is too short to contain its checksum")
    value = int.from_bytes(stored, "little")
    if not fletcher32_matches(body, value):
        raise CorruptDataError(f"a chunk does not match its Fletcher-32 checksum ({value:08x})")
    return body


def _numcodecs(name: str) -> Callable[..., Buffer]:
    import numcodecs

    decompress: Callable[..., Buffer] = getattr(numcodecs, name).decompress
    return decompress


def _check_size(data: Buffer, nbytes: int) -> None:
    if nbytes > _MAX_CHUNK_BYTES or not data:
        raise CorruptDataError(f"{len(data)} compressed bytes for a chunk of {nbytes} bytes")


def _blosc(data: Buffer, nbytes: int) -> Buffer:
    _check_size(data, nbytes)
    if _blosc_content_size(data) != nbytes:
        raise CorruptDataError("the size in a chunk's blosc header does not match the chunk")
    return _map_errors(_numcodecs("blosc"), data)


def _blosc_content_size(data: Buffer) -> int | None:
    """Return the decoded size of a Blosc frame; None if it is truncated, because Blosc reads past its end."""
    whole = len(data) >= _BLOSC_HEADER and int.from_bytes(data[12:16], "little") <= len(data)
    return int.from_bytes(data[4:8], "little") if whole else None


def _zstd(data: Buffer, nbytes: int) -> Buffer:
    _check_size(data, nbytes)
    size = _zstd_content_size(data)
    if size not in {None, nbytes}:
        raise CorruptDataError("the size in a chunk's zstd header does not match the chunk")
    if nbytes > (len(data) // 4 + 1) * _ZSTD_BLOCK:
        raise CorruptDataError(f"{len(data)} bytes of zstd cannot hold the {nbytes} bytes of a chunk")
    decompress = _numcodecs("zstd")
    out = np.empty(nbytes, np.uint8)  # limits a frame without a declared size
    try:
        _map_errors(lambda stored: decompress(stored, out), data)
    except CorruptDataError as error:
        if size is not None:
            raise
        raise CorruptDataError(
            f"{error}; a frame without a declared size requires numcodecs 0.16 or later"
        ) from None
    return out.data


def _zstd_content_size(data: Buffer) -> int | None:
    """Return the decoded size that a Zstandard frame declares (RFC 8878, 3.1.1.1); None if it has none."""
    if len(data) < 6:  # noqa: PLR2004
        return None
    descriptor = data[4]
    single_segment = descriptor >> 5 & 1
    position = 5 + (1 - single_segment) + (0, 1, 2, 4)[descriptor & 3]
    width = (single_segment, 2, 4, 8)[descriptor >> 6]
    if not width or position + width > len(data):
        return None
    return int.from_bytes(data[position : position + width], "little") + (256 if width == 2 else 0)  # noqa: PLR2004


def _lz4(data: Buffer, nbytes: int) -> Buffer:
    """Decode HDF5 filter 32004: a big-endian header, then blocks with their sizes in front."""
    _check_size(data, nbytes)
    decode = _numcodecs("lz4")
    if len(data) < 12 or struct.unpack_from(">Q", data)[0] != nbytes:  # noqa: PLR2004
        raise CorruptDataError("the size in a chunk's lz4 header does not match the chunk")
    block = struct.unpack_from(">I", data, 8)[0] or nbytes
    position, out = 12, bytearray()
    while len(out) < nbytes:
        if position + 4 > len(data):
            raise CorruptDataError("a chunk's lz4 blocks end early")
        size = struct.unpack_from(">I", data, position)[0]
        body = data[position + 4 : position + 4 + size]
        position += 4 + size
        expected = min(block, nbytes - len(out))
        out += body if size == expected else _map_errors(decode, struct.pack("<I", expected) + bytes(body))
    return out


def _lz4_block(data: Buffer, nbytes: int) -> Buffer:
    """Decode LZ4 of numcodecs: one block with its decoded size in front."""
    _check_size(data, nbytes)
    if len(data) < _CHECKSUM_BYTES or int.from_bytes(data[:4], "little") != nbytes:
        raise CorruptDataError("the size in a chunk's lz4 header does not match the chunk")
    return _map_errors(_numcodecs("lz4"), data)


def _bz2(data: Buffer, nbytes: int) -> Buffer:
    import bz2

    return _map_errors(lambda data: bz2.BZ2Decompressor().decompress(data, nbytes + 1), data)


def _lzma(data: Buffer, nbytes: int) -> Buffer:
    import lzma

    stream = lzma.LZMADecompressor(memlimit=LZMA_MEMORY)
    return _map_errors(lambda data: stream.decompress(data, nbytes + 1), data, lzma.LZMAError)


def _decode_numcodecs_filter(codec: Codec, data: Buffer, nbytes: int) -> Buffer:
    """Decode a filter of numcodecs, which preserves the number of elements, or a codec of another package."""
    config = json.loads(codec.config)
    if config.get("id") in PACKAGE_CODECS:
        return _decode_with_package(config, data, nbytes)
    if config.get("id") not in FILTERS:
        raise UnsupportedTypeError(f"codec {config.get('id')!r} is not supported")
    import numcodecs

    if len(data) != _encoded_size(codec, nbytes):
        raise CorruptDataError(
            f"a filtered chunk has {len(data)} bytes where {_encoded_size(codec, nbytes)} are needed"
        )
    decoded = _map_errors(lambda stored: numcodecs.get_codec(config).decode(stored), data)
    return np.ascontiguousarray(decoded).reshape(-1).view(np.uint8).data


def _decode_with_package(config: dict[str, Any], data: Buffer, nbytes: int) -> Buffer:
    """Decode a codec of an installed package, whose decoded size is checked only afterwards."""
    import numcodecs
    from numcodecs.compat import ensure_contiguous_ndarray

    _check_size(data, nbytes)
    try:
        codec = numcodecs.get_codec(config)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UnsupportedTypeError(f"codec {config['id']!r} cannot be loaded ({error})") from None
    decoded = _map_errors(lambda stored: ensure_contiguous_ndarray(codec.decode(stored)), data)
    return np.asarray(decoded).view(np.uint8).data


def is_installed(name: str) -> bool:
    """Return whether an installed package decodes a codec of `PACKAGE_CODECS`."""
    from numcodecs import registry

    return name in PACKAGE_CODECS and (name in registry.codec_registry or name in registry.entries)


def _is_compressor(codec: Codec) -> bool:
    return codec.name in _COMPRESSORS or _is_of_package(codec)


def _is_of_package(codec: Codec) -> bool:
    return bool(codec.config) and json.loads(codec.config).get("id") in PACKAGE_CODECS


def _decode_nested(codec: Codec, data: Buffer, nbytes: int) -> Buffer:
    """Decode a codec whose input was compressed already, to at most about `nbytes` bytes."""
    limit = nbytes + nbytes // 8 + _MAX_OVERHEAD
    if codec.name in {"zlib", "gzip"}:
        return _map_errors(lambda data: zlib.decompressobj(_ANY_HEADER).decompress(data, limit + 1), data)
    if codec.name in {"bz2", "lzma"}:
        return _DECODERS[codec.name](data, limit)
    declared = declared_size(codec, data)
    if declared is None or declared > limit:
        raise CorruptDataError(
            f"a chunk's {codec.name} codec declares {declared} bytes, too many for {nbytes} decoded bytes"
        )
    return (
        _decode_numcodecs_filter(codec, data, declared)
        if codec.config
        else _DECODERS[codec.name](data, declared)
    )


def declared_size(codec: Codec, data: Buffer) -> int | None:
    """Return the decoded size that a frame declares or that follows from its size; None if unknown."""
    if codec.name == "blosc":
        return _blosc_content_size(data)
    if codec.name == "zstd":
        return _zstd_content_size(data)
    if codec.name == "lz4":
        return int.from_bytes(data[:8], "big")
    if codec.name == "lz4block":
        return int.from_bytes(data[:4], "little")
    if _is_of_package(codec):
        return None
    return len(data) - _CHECKSUM_BYTES if codec.name in {"crc32c", "fletcher32"} else len(data)


def _map_errors(
    decode: Callable[[Buffer], Buffer], data: Buffer, own: type[Exception] = RuntimeError
) -> Buffer:
    try:
        return decode(data)
    except (RuntimeError, ValueError, TypeError, OSError, EOFError, zlib.error, own) as error:
        raise CorruptDataError(f"a chunk's compressed bytes are damaged ({error})") from None


_DECODERS: dict[str, Callable[[Buffer, int], Buffer]] = {
    "zlib": _inflate,
    "fletcher32": _verify_fletcher32,
    "blosc": _blosc,
    "zstd": _zstd,
    "lz4": _lz4,
    "gzip": _gunzip,
    "crc32c": _verify_crc32c,
    "lz4block": _lz4_block,
    "bz2": _bz2,
    "lzma": _lzma,
}

_COMPRESSORS = frozenset({"zlib", "gzip", "blosc", "zstd", "lz4", "lz4block", "bz2", "lzma"})
#: Maximum overhead of headers on incompressible bytes, and zlib's window size for zlib or gzip headers.
_MAX_OVERHEAD, _ANY_HEADER = 65_536, 47

#: Filters of numcodecs with a JSON configuration, none of which execute code from it.
FILTERS = frozenset({"delta", "fixedscaleoffset", "astype", "packbits", "quantize", "bitround"})
#: Codecs that other packages register with numcodecs, by package. A file cannot import any other codec.
PACKAGE_CODECS = {
    "flac": "flac-numcodecs",
    "pcodec": "pcodec",
    "wavpack": "wavpack-numcodecs",
    "zfpy": "zfpy",
}
