"""Codecs of variable-length elements: text, bytes, arrays, JSON, MessagePack and pickles.

The size of a decoded chunk is not known beforehand, so every step is bounded by what the elements may take.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from lazynwb.codecs.chunk_codecs import LZMA_MEMORY, decode, zstd_content_size
from lazynwb.codecs.json_text import parse_json
from lazynwb.codecs.restricted_pickle import PickledArray, read_pickle
from lazynwb.errors import CorruptDataError, UnsupportedTypeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lazynwb.catalog.model import Codec
    from lazynwb.codecs import Buffer

#: Names of the codecs that make bytes of objects.
OBJECT_CODECS = frozenset({"vlen-utf8", "vlen-bytes", "vlen-array", "json2", "msgpack2", "pickle"})
#: The largest decoded chunk, and what it may hold at all and for each element. Anything beyond that is a
#: decompression bomb.
_MAX_BYTES, _FEW_BYTES, _ELEMENT_BYTES = 2**28, 2**25, 2**20
_CHECKSUM = 4
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class ObjectCodec(NamedTuple):
    """A codec that makes bytes of objects.

    Attributes
    ----------
    name : str
        One of `OBJECT_CODECS`.
    dtype : object
        The element type of `vlen-array`, as NumPy takes it.
    """

    name: str
    dtype: Any = None


def decode_objects(data: Buffer, codec: ObjectCodec, others: Sequence[Codec], count: int) -> np.ndarray:
    """Return the elements of a chunk of objects, in the order in which they are stored.

    Parameters
    ----------
    data : buffer
        The chunk as stored.
    codec : ObjectCodec
        The first codec of the array.
    others : sequence of Codec
        The codecs after it, in the order of writing.
    count : int
        Elements of the chunk.

    Raises
    ------
    UnsupportedTypeError
        If a pickled array holds anything but plain data, or a step does not declare its size.
    CorruptDataError
        If the chunk holds another number of elements, or is damaged.
    """
    most = min(_MAX_BYTES, _FEW_BYTES + count * _ELEMENT_BYTES)
    for step in reversed(others):
        data = _decode_bounded(data, step, most)
    try:
        values = _DECODERS[codec.name](bytes(data), count, codec.dtype)
    except (ValueError, TypeError, LookupError, struct.error, RecursionError, MemoryError) as error:
        if isinstance(error, UnsupportedTypeError | CorruptDataError):
            raise
        raise CorruptDataError(f"its {codec.name} elements are damaged ({error})") from None
    if len(values) != count:
        raise CorruptDataError(f"it holds {len(values)} elements where {count} are needed")
    return values


# -- steps whose decoded size only their own bytes declare --------------------------------------------


def _decode_bounded(data: Buffer, codec: Codec, most: int) -> Buffer:
    if codec.name in _STREAMS:
        try:
            found, rest = _STREAMS[codec.name](bytes(data), most)
        except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
            raise CorruptDataError(f"its {codec.name} stream is damaged ({error})") from None
        if rest:
            raise CorruptDataError(f"its {codec.name} stream ends early, or holds more than {most} bytes")
        return found
    if codec.config:
        raise UnsupportedTypeError("objects are filtered as if they were numbers")
    size = _declared(data, codec.name)
    if not 0 <= size <= most:
        raise CorruptDataError(f"it claims to hold {size} bytes")
    return decode(data, (codec,), size)


def _declared(data: Buffer, name: str) -> int:
    """Return the decoded size that a frame declares; -1 if it is cut off."""
    if name == "shuffle":
        return len(data)
    if name in {"crc32c", "fletcher32"}:
        return len(data) - _CHECKSUM
    if name == "zstd":
        return _zstd_size(data)
    at = 4 if name == "blosc" else 0
    return int.from_bytes(data[at : at + 4], "little") if len(data) >= at + 4 else -1


def _zstd_size(data: Buffer) -> int:
    """Return the size that a Zstandard frame declares (RFC 8878, 3.1.1.1).

    Raises
    ------
    UnsupportedTypeError
        If it declares none.
    CorruptDataError
        If it is no such frame.
    """
    if bytes(data[:4]) != _ZSTD_MAGIC:
        raise CorruptDataError("its bytes are no zstd frame")
    size = zstd_content_size(data)
    if size is None:
        raise UnsupportedTypeError("its zstd frame does not declare its size")
    return size


def _inflated(data: bytes, most: int, bits: int) -> tuple[bytes, bool]:
    stream = zlib.decompressobj(bits)
    return stream.decompress(data, most), not stream.eof


def _unbz2(data: bytes, most: int) -> tuple[bytes, bool]:
    stream = bz2.BZ2Decompressor()
    return stream.decompress(data, most), not stream.eof


def _unxz(data: bytes, most: int) -> tuple[bytes, bool]:
    stream = lzma.LZMADecompressor(memlimit=LZMA_MEMORY)
    return stream.decompress(data, most), not stream.eof


_STREAMS: dict[str, Callable[[bytes, int], tuple[bytes, bool]]] = {
    "zlib": lambda data, most: _inflated(data, most, 15),
    "gzip": lambda data, most: _inflated(data, most, 31),
    "bz2": _unbz2,
    "lzma": _unxz,
}


# -- elements -----------------------------------------------------------------------------------------


def _slices(data: Buffer, count: int) -> list[Buffer]:
    """Return the elements of numcodecs' variable-length codecs: their number, then each behind its size."""
    if len(data) < 4 or int.from_bytes(data[:4], "little") != count:  # noqa: PLR2004 - a number's size
        raise CorruptDataError(f"it does not hold {count} elements")
    found = []
    at = 4
    for _ in range(count):
        stop = at + 4 + struct.unpack_from("<I", data, at)[0]
        found.append(data[at + 4 : stop])
        at = stop
    if at > len(data):
        raise CorruptDataError("it ends early")
    return found


def _texts(data: bytes, count: int, _: object) -> np.ndarray:
    """Return text, or bytes where it is not UTF-8."""
    from numcodecs.vlen import VLenUTF8

    # Its decoder allocates what the number of elements says before it looks at them.
    if data[:4] == count.to_bytes(4, "little") and 4 * count + 4 <= len(data):
        try:
            decoded: np.ndarray = VLenUTF8().decode(data)
        except UnicodeDecodeError:
            pass
        else:
            return decoded.reshape(-1)
    return _objects(_slices(data, count))


def _arrays(data: bytes, count: int, dtype: Any) -> np.ndarray:  # noqa: ANN401 - as NumPy takes it
    if dtype is None:
        raise ValueError("no element type is given")
    return _objects([np.frombuffer(item, np.dtype(dtype)) for item in _slices(data, count)])


def _listed(items: Any, count: int) -> np.ndarray:  # noqa: ANN401 - JSON or MessagePack
    """Return what JSON2 and MsgPack2 hold: items, in nested lists if need be, then a type and a shape."""
    *found, _, shape = items
    for _ in range(len(shape) - 1):
        found = [item for part in found for item in part]
    if len(found) > count:
        raise CorruptDataError(f"it holds {len(found)} elements where {count} are needed")
    return _objects(found)


def _unpickled(data: bytes, count: int, _: object) -> np.ndarray:
    found = read_pickle(data)
    if not isinstance(found, PickledArray) or found.values.size != count:
        raise CorruptDataError(f"a pickle that is no array of {count} elements")
    return found.values.reshape(-1, order="A")


def _objects(items: list[Any]) -> np.ndarray:
    return np.fromiter(items, object, len(items))


_DECODERS: dict[str, Callable[[bytes, int, Any], np.ndarray]] = {
    "vlen-utf8": _texts,
    "vlen-bytes": _texts,
    "vlen-array": _arrays,
    "json2": lambda data, count, _: _listed(parse_json(data), count),
    "msgpack2": lambda data, count, _: _listed(msgspec.msgpack.decode(data), count),
    "pickle": _unpickled,
}
