"""Codecs of variable-length elements: text, bytes, arrays, JSON, MessagePack and pickles.

The size of a decoded chunk is not known in advance, so every step is limited by the maximum size of the
elements.
"""

from __future__ import annotations

import bz2
import json
import lzma
import struct
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from lazynwb.codecs.chunk_codecs import LZMA_MEMORY, declared_size, decode
from lazynwb.codecs.restricted_pickle import PickledArray, read_pickle
from lazynwb.errors import CorruptDataError, UnsupportedTypeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lazynwb.catalog.model import Codec
    from lazynwb.codecs import Buffer

#: Names of codecs of objects.
OBJECT_CODECS = frozenset({"vlen-utf8", "vlen-bytes", "vlen-array", "json2", "msgpack2", "pickle"})
#: Maximum size of a decoded chunk: in total, and as a base plus an allowance per element. Beyond that it is a
#: decompression bomb.
_MAX_BYTES, _BASE_BYTES, _ELEMENT_BYTES = 2**28, 2**25, 2**20
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def parse_json(data: bytes | bytearray | memoryview) -> Any:  # noqa: ANN401 - JSON
    """Parse JSON, with NaN and infinities as zarr-python writes them.

    Raises
    ------
    ValueError
        If it is not valid JSON, or contains text that is not valid Unicode.
    RecursionError
        If it is nested too deeply.
    """
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        text = str(data, "utf-8")
        found = json.loads(text)
        if "\\ud" in text.lower():
            json.dumps(found, ensure_ascii=False).encode()
        return found


class ObjectCodec(NamedTuple):
    """A codec of objects.

    Attributes
    ----------
    name : str
        One of `OBJECT_CODECS`.
    dtype : object
        The element type of `vlen-array`, as an argument of `numpy.dtype`.
    """

    name: str
    dtype: Any = None


def decode_objects(data: Buffer, codec: ObjectCodec, others: Sequence[Codec], count: int) -> np.ndarray:
    """Return the elements of a chunk of objects in stored order.

    Parameters
    ----------
    data : buffer
        The stored chunk.
    codec : ObjectCodec
        The first codec of the array.
    others : sequence of Codec
        The codecs after it, in the order of writing.
    count : int
        Number of elements of the chunk.

    Raises
    ------
    UnsupportedTypeError
        If a pickled array contains anything but plain data, or a codec does not declare its size.
    CorruptDataError
        If the chunk has another number of elements, or is damaged.
    """
    limit = min(_MAX_BYTES, _BASE_BYTES + count * _ELEMENT_BYTES)
    for step in reversed(others):
        data = _decode_bounded(data, step, limit)
    try:
        values = _DECODERS[codec.name](bytes(data), count, codec.dtype)
    except (ValueError, TypeError, LookupError, struct.error, RecursionError, MemoryError) as error:
        if isinstance(error, UnsupportedTypeError | CorruptDataError):
            raise
        raise CorruptDataError(f"its {codec.name} elements are damaged ({error})") from None
    if len(values) != count:
        raise CorruptDataError(f"it has {len(values)} elements where {count} are needed")
    return values


# -- codecs that declare their decoded size -----------------------------------------------------------


def _decode_bounded(data: Buffer, codec: Codec, limit: int) -> Buffer:
    if codec.name in _STREAMS:
        try:
            found, rest = _STREAMS[codec.name](bytes(data), limit)
        except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
            raise CorruptDataError(f"its {codec.name} stream is damaged ({error})") from None
        if rest:
            raise CorruptDataError(f"its {codec.name} stream ends early, or has more than {limit} bytes")
        return found
    if codec.config:
        raise UnsupportedTypeError("filters of numbers are not supported for objects")
    if codec.name == "zstd" and bytes(data[:4]) != _ZSTD_MAGIC:
        raise CorruptDataError("its bytes are not a zstd frame")
    size = declared_size(codec, data)
    if size is None and codec.name == "zstd":
        raise UnsupportedTypeError("its zstd frame does not declare its size")
    if size is None or not 0 <= size <= limit:
        raise CorruptDataError(f"it declares a size of {size} bytes")
    return decode(data, (codec,), size)


def _inflate(data: bytes, limit: int, bits: int) -> tuple[bytes, bool]:
    stream = zlib.decompressobj(bits)
    return stream.decompress(data, limit), not stream.eof


def _decompress_bz2(data: bytes, limit: int) -> tuple[bytes, bool]:
    stream = bz2.BZ2Decompressor()
    return stream.decompress(data, limit), not stream.eof


def _decompress_lzma(data: bytes, limit: int) -> tuple[bytes, bool]:
    stream = lzma.LZMADecompressor(memlimit=LZMA_MEMORY)
    return stream.decompress(data, limit), not stream.eof


_STREAMS: dict[str, Callable[[bytes, int], tuple[bytes, bool]]] = {
    "zlib": lambda data, limit: _inflate(data, limit, 15),
    "gzip": lambda data, limit: _inflate(data, limit, 31),
    "bz2": _decompress_bz2,
    "lzma": _decompress_lzma,
}


# -- elements -----------------------------------------------------------------------------------------


def _split_elements(data: Buffer, count: int) -> list[Buffer]:
    """Split the encoding of numcodecs' variable-length codecs: a count, then each element after its size."""
    if len(data) < 4 or int.from_bytes(data[:4], "little") != count:  # noqa: PLR2004 - a number's size
        raise CorruptDataError(f"it does not have {count} elements")
    found = []
    at = 4
    for _ in range(count):
        stop = at + 4 + struct.unpack_from("<I", data, at)[0]
        found.append(data[at + 4 : stop])
        at = stop
    if at > len(data):
        raise CorruptDataError("it ends early")
    return found


def _decode_text(data: bytes, count: int, _: object) -> np.ndarray:
    """Return text, or bytes for elements that are not UTF-8."""
    from numcodecs.vlen import VLenUTF8

    # The decoder allocates memory for the number of elements before it checks them.
    if data[:4] == count.to_bytes(4, "little") and 4 * count + 4 <= len(data):
        try:
            decoded: np.ndarray = VLenUTF8().decode(data)
        except UnicodeDecodeError:
            pass
        else:
            return decoded.reshape(-1)
    return _object_array(_split_elements(data, count))


def _decode_arrays(data: bytes, count: int, dtype: Any) -> np.ndarray:  # noqa: ANN401 - as NumPy takes it
    if dtype is None:
        raise ValueError("no element type is given")
    return _object_array([np.frombuffer(item, np.dtype(dtype)) for item in _split_elements(data, count)])


def _decode_items(items: Any, count: int) -> np.ndarray:  # noqa: ANN401 - JSON or MessagePack
    """Return the items of JSON2 and MsgPack2, which are in nested lists, followed by a type and a shape."""
    *found, _, shape = items
    for _ in range(len(shape) - 1):
        found = [item for part in found for item in part]
    if len(found) > count:
        raise CorruptDataError(f"it has {len(found)} elements where {count} are needed")
    return _object_array(found)


def _decode_pickle(data: bytes, count: int, _: object) -> np.ndarray:
    found = read_pickle(data)
    if not isinstance(found, PickledArray) or found.values.size != count:
        raise CorruptDataError(f"its pickle is not an array of {count} elements")
    return found.values.reshape(-1, order="A")


def _object_array(items: list[Any]) -> np.ndarray:
    return np.fromiter(items, object, len(items))


_DECODERS: dict[str, Callable[[bytes, int, Any], np.ndarray]] = {
    "vlen-utf8": _decode_text,
    "vlen-bytes": _decode_text,
    "vlen-array": _decode_arrays,
    "json2": lambda data, count, _: _decode_items(parse_json(data), count),
    "msgpack2": lambda data, count, _: _decode_items(msgspec.msgpack.decode(data), count),
    "pickle": _decode_pickle,
}
