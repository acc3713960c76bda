"""Filter pipelines: the bytes of a chunk as stored to the bytes of its elements."""

from __future__ import annotations

import json
import struct
import zlib
from typing import TYPE_CHECKING

import deflate
import numpy as np

from lazynwb.codecs.checksums import crc32c, fletcher32_matches
from lazynwb.errors import CorruptDataError, UnsupportedTypeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazynwb.catalog.model import Codec
    from lazynwb.codecs import Buffer

#: A DEFLATE stream expands at most 1,032 times; what claims more is damaged, or a decompression bomb.
_MAX_DEFLATE_RATIO = 1032
#: The other codecs have no such bound (a run of zeros takes a few bytes), so their chunks are bounded.
_MAX_CHUNK_BYTES = 4 * 1024**3
#: Bytes of a checksum, and of what a Blosc frame begins with.
_CHECKSUM, _BLOSC_HEADER = 4, 16
#: What a block of Zstandard holds at most (RFC 8878, 3.1.1.2); it takes four bytes or more.
_ZSTD_BLOCK = 128 * 1024
#: What LZMA may take for its dictionary, of which a damaged stream claims up to 4 GiB; presets take 64 MiB.
LZMA_MEMORY = 256 * 1024**2
#: Below this many elements NumPy's transposed copy is faster than one copy per byte plane.
_FEW_ELEMENTS = 2048


def unfilter(data: Buffer, codecs: tuple[Codec, ...], mask: int, nbytes: int) -> tuple[Buffer, int]:
    """Undo every codec but a shuffle that was applied first.

    Parameters
    ----------
    data : buffer
        The chunk as stored.
    codecs : tuple of Codec
        In the order of writing.
    mask : int
        Bit i set: codec i was skipped for this chunk.
    nbytes : int
        Bytes of the decoded chunk.

    Returns
    -------
    data : buffer
        `nbytes` bytes.
    shuffled : int
        Element size of a shuffle that is still to be undone (`unshuffle` does it while copying); 0 if none.

    Raises
    ------
    CorruptDataError
        If a checksum or a size does not fit.
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
            wanted = nbytes
            compressed = False
            for k in range(i):
                if not mask >> k & 1:
                    wanted = _written(codecs[k], wanted)
                    compressed = compressed or codecs[k].name in _COMPRESSORS
            if compressed:
                data = _twice_compressed(codec, data, wanted)
            else:
                data = (
                    _configured(codec, data, wanted) if codec.config else _DECODERS[codec.name](data, wanted)
                )
    if len(data) != nbytes:
        raise CorruptDataError(f"a chunk decodes to {len(data)} bytes where {nbytes} are needed")
    return data, shuffled


def decode(data: Buffer, codecs: tuple[Codec, ...], nbytes: int) -> Buffer:
    """Return the `nbytes` bytes of a decoded chunk; see `unfilter`."""
    raw, shuffled = unfilter(data, codecs, 0, nbytes)
    return unshuffled(raw, shuffled) if shuffled else raw


def decode_into(data: Buffer, codecs: tuple[Codec, ...], mask: int, out: np.ndarray) -> bool:
    """Decode a whole chunk to where it belongs, without a copy in between; return whether that was possible.

    Parameters
    ----------
    data, codecs, mask
        As for `unfilter`.
    out : ndarray of uint8
        Contiguous, of the decoded chunk's size.

    Raises
    ------
    CorruptDataError
        If a size does not fit.
    """
    active = [codec for i, codec in enumerate(codecs) if not mask >> i & 1]
    if len(active) != 1 or active[0].name not in {"blosc", "zstd"} or not out.flags.c_contiguous:
        return False
    if len(data) < _BLOSC_HEADER or _declared_size(active[0], data) != out.nbytes:
        return False  # refused, or found to fit after all, by the ordinary way
    _bounded(data, out.nbytes)
    decompress = _numcodecs(active[0].name)
    _guarded(lambda stored: decompress(stored, out), data)
    return True


def _written(codec: Codec, nbytes: int) -> int:
    """Return how many bytes a step that does not compress makes of so many."""
    if codec.name in {"fletcher32", "crc32c"}:
        return nbytes + _CHECKSUM
    if codec.config:
        config = json.loads(codec.config)
        if config.get("id") == "packbits":
            return 1 + -(-nbytes // 8)  # how many bits are left over in the last byte, and the bits
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
        Whole shuffled chunk: all first bytes of its elements, then all second bytes, ...
    size : int
        Bytes of one element.
    out : ndarray of uint8, shape ((stop - first) * size,)
    """
    count = len(data) // size
    planes = np.frombuffer(data, np.uint8, count * size).reshape(size, count)[:, first:stop]
    target = out.reshape(stop - first, size)
    if stop - first < _FEW_ELEMENTS:
        target[...] = planes.T
    else:
        for k in range(size):
            target[:, k] = planes[k]


def unshuffled(data: Buffer, size: int) -> Buffer:
    """Return byte-shuffled data in order; an incomplete element at the end was never shuffled."""
    whole = len(data) // size
    out = np.empty(len(data), np.uint8)
    unshuffle(data, size, 0, whole, out[: whole * size])
    out[whole * size :] = np.frombuffer(data, np.uint8)[whole * size :]
    return out.data


def _inflate(data: Buffer, nbytes: int) -> Buffer:
    return _inflated(deflate.zlib_decompress, "zlib", data, nbytes)


def _gunzip(data: Buffer, nbytes: int) -> Buffer:
    return _inflated(deflate.gzip_decompress, "gzip", data, nbytes)


def _inflated(decompress: Callable[[Buffer, int], Buffer], name: str, data: Buffer, nbytes: int) -> Buffer:
    if nbytes > _MAX_DEFLATE_RATIO * len(data) + 4096:
        raise CorruptDataError(f"{len(data)} compressed bytes cannot hold the {nbytes} bytes of a chunk")
    try:
        return decompress(data, nbytes)
    except deflate.DeflateError as error:
        raise CorruptDataError(f"a chunk's {name} stream is damaged ({error})") from None


def _crc_checked(data: Buffer, nbytes: int) -> Buffer:  # noqa: ARG001 - the codecs share one signature
    body, stored = data[:-_CHECKSUM], data[-_CHECKSUM:]
    value = int.from_bytes(stored, "little")
    if len(stored) < _CHECKSUM or crc32c(body) != value:
        raise CorruptDataError(f"a chunk's CRC-32C checksum is not the {value:08x} that is stored")
    return body


def _checked(data: Buffer, nbytes: int) -> Buffer:  # noqa: ARG001 - the codecs share one signature
    body, stored = data[:-_CHECKSUM], data[-_CHECKSUM:]
    if len(stored) < _CHECKSUM:
        raise CorruptDataError("a chunk is too short for its checksum")
    value = int.from_bytes(stored, "little")
    if not fletcher32_matches(body, value):
        raise CorruptDataError(f"a chunk's Fletcher-32 checksum is not the {value:08x} that is stored")
    return body


def _numcodecs(name: str) -> Callable[..., Buffer]:
    import numcodecs

    decompress: Callable[..., Buffer] = getattr(numcodecs, name).decompress
    return decompress


def _bounded(data: Buffer, nbytes: int) -> None:
    if nbytes > _MAX_CHUNK_BYTES or not data:
        raise CorruptDataError(f"{len(data)} compressed bytes for a chunk of {nbytes} bytes")


def _blosc(data: Buffer, nbytes: int) -> Buffer:
    _bounded(data, nbytes)
    if _blosc_content_size(data) != nbytes:
        raise CorruptDataError("a chunk's blosc header contradicts the chunk's size")
    return _guarded(_numcodecs("blosc"), data)


def _blosc_content_size(data: Buffer) -> int | None:
    """Return the size that a Blosc frame declares; None if it is cut off, past whose end Blosc would read."""
    whole = len(data) >= _BLOSC_HEADER and int.from_bytes(data[12:16], "little") <= len(data)
    return int.from_bytes(data[4:8], "little") if whole else None


def _zstd(data: Buffer, nbytes: int) -> Buffer:
    _bounded(data, nbytes)
    size = zstd_content_size(data)
    if size not in {None, nbytes}:
        raise CorruptDataError("a chunk's zstd header contradicts the chunk's size")
    if nbytes > (len(data) // 4 + 1) * _ZSTD_BLOCK:
        raise CorruptDataError(f"{len(data)} bytes of zstd cannot hold the {nbytes} bytes of a chunk")
    decompress = _numcodecs("zstd")
    out = np.empty(nbytes, np.uint8)  # the room that there is for a frame that does not say how much it holds
    try:
        _guarded(lambda stored: decompress(stored, out), data)
    except CorruptDataError as error:
        if size is not None:
            raise
        raise CorruptDataError(
            f"{error}; a frame that does not say its size needs numcodecs 0.16 or later"
        ) from None
    return out.data


def zstd_content_size(data: Buffer) -> int | None:
    """Return the size that a Zstandard frame declares (RFC 8878, 3.1.1.1), None if it declares none."""
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
    """Undo HDF5 filter 32004: a big-endian header, then blocks that each have their size in front."""
    _bounded(data, nbytes)
    decode = _numcodecs("lz4")
    if len(data) < 12 or struct.unpack_from(">Q", data)[0] != nbytes:  # noqa: PLR2004
        raise CorruptDataError("a chunk's lz4 header contradicts the chunk's size")
    block = struct.unpack_from(">I", data, 8)[0] or nbytes
    position, out = 12, bytearray()
    while len(out) < nbytes:
        if position + 4 > len(data):
            raise CorruptDataError("a chunk's lz4 blocks end early")
        size = struct.unpack_from(">I", data, position)[0]
        body = data[position + 4 : position + 4 + size]
        position += 4 + size
        wanted = min(block, nbytes - len(out))
        out += body if size == wanted else _guarded(decode, struct.pack("<I", wanted) + bytes(body))
    return out


def _lz4_block(data: Buffer, nbytes: int) -> Buffer:
    """Undo numcodecs' LZ4: one block, with its decoded size in front."""
    _bounded(data, nbytes)
    if len(data) < _CHECKSUM or int.from_bytes(data[:4], "little") != nbytes:
        raise CorruptDataError("a chunk's lz4 header contradicts the chunk's size")
    return _guarded(_numcodecs("lz4"), data)


def _bz2(data: Buffer, nbytes: int) -> Buffer:
    import bz2

    return _guarded(lambda data: bz2.BZ2Decompressor().decompress(data, nbytes + 1), data)


def _lzma(data: Buffer, nbytes: int) -> Buffer:
    import lzma

    stream = lzma.LZMADecompressor(memlimit=LZMA_MEMORY)
    return _guarded(lambda data: stream.decompress(data, nbytes + 1), data, lzma.LZMAError)


def _configured(codec: Codec, data: Buffer, nbytes: int) -> Buffer:
    """Undo one of numcodecs' filters, which give back as many elements as they are given."""
    config = json.loads(codec.config)
    if config.get("id") not in FILTERS:
        raise UnsupportedTypeError(f"codec {config.get('id')!r} is not known")
    import numcodecs

    if len(data) != _written(codec, nbytes):
        raise CorruptDataError(
            f"a filtered chunk has {len(data)} bytes where {_written(codec, nbytes)} are needed"
        )
    decoded = _guarded(lambda stored: numcodecs.get_codec(config).decode(stored), data)
    return np.ascontiguousarray(decoded).reshape(-1).view(np.uint8).data


def _twice_compressed(codec: Codec, data: Buffer, nbytes: int) -> Buffer:
    """Undo a step that was given compressed bytes, of which there are about as many as `nbytes` at most."""
    most = nbytes + nbytes // 8 + _OVERHEAD
    if codec.name in {"zlib", "gzip"}:
        return _guarded(lambda data: zlib.decompressobj(_ANY_HEADER).decompress(data, most + 1), data)
    if codec.name in {"bz2", "lzma"}:
        return _DECODERS[codec.name](data, most)
    declared = _declared_size(codec, data)
    if declared is None or declared > most:
        raise CorruptDataError(
            f"a chunk's {codec.name} step gives back {declared} bytes, of {nbytes} at the end"
        )
    return _configured(codec, data, declared) if codec.config else _DECODERS[codec.name](data, declared)


def _declared_size(codec: Codec, data: Buffer) -> int | None:
    """Return how many bytes a compressed frame says that it holds, or a step must give back."""
    if codec.name == "blosc":
        return _blosc_content_size(data)
    if codec.name == "zstd":
        return zstd_content_size(data)
    if codec.name == "lz4":
        return int.from_bytes(data[:8], "big")
    if codec.name == "lz4block":
        return int.from_bytes(data[:4], "little")
    return len(data) - _CHECKSUM if codec.name in {"crc32c", "fletcher32"} else len(data)


def _guarded(decode: Callable[[Buffer], Buffer], data: Buffer, own: type[Exception] = RuntimeError) -> Buffer:
    try:
        return decode(data)
    except (RuntimeError, ValueError, TypeError, OSError, EOFError, zlib.error, own) as error:
        raise CorruptDataError(f"a chunk's compressed bytes are damaged ({error})") from None


_DECODERS: dict[str, Callable[[Buffer, int], Buffer]] = {
    "zlib": _inflate,
    "fletcher32": _checked,
    "blosc": _blosc,
    "zstd": _zstd,
    "lz4": _lz4,
    "gzip": _gunzip,
    "crc32c": _crc_checked,
    "lz4block": _lz4_block,
    "bz2": _bz2,
    "lzma": _lzma,
}

_COMPRESSORS = frozenset({"zlib", "gzip", "blosc", "zstd", "lz4", "lz4block", "bz2", "lzma"})
#: What headers add to bytes that do not get smaller; and zlib's word for: zlib or gzip, whichever it is.
_OVERHEAD, _ANY_HEADER = 65_536, 47

#: Codecs of numcodecs that are configured by more than integers, and hold no code.
FILTERS = frozenset({"delta", "fixedscaleoffset", "astype", "packbits", "quantize", "bitround"})
