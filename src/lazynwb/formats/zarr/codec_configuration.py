"""Zarr's codecs: as the catalog's, and undone where only a chunk's bytes say how many it holds."""

from __future__ import annotations

import bz2
import json
import lzma
import struct
import zlib
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from lazynwb.catalog.model import Codec
from lazynwb.codecs.chunk_codecs import FILTERS, LZMA_MEMORY, unfilter, unshuffled, zstd_content_size
from lazynwb.codecs.restricted_pickle import PickledArray, read_pickle
from lazynwb.errors import CorruptDataError, UnsupportedTypeError
from lazynwb.formats.zarr.data_types import numpy_dtype
from lazynwb.formats.zarr.json_text import parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Buffer = bytes | bytearray | memoryview

#: Codecs that need no settings, under the engine's names.
_NAMES = {
    "zlib": "zlib",
    "gzip": "gzip",
    "zstd": "zstd",
    "blosc": "blosc",
    "lz4": "lz4block",
    "bz2": "bz2",
    "fletcher32": "fletcher32",
}
#: Codecs that make bytes of objects; always the first.
OBJECT_CODECS = frozenset({"vlen-utf8", "vlen-bytes", "vlen-array", "json2", "msgpack2", "pickle"})
#: Bytes that a chunk of objects may take: so many at all, and so many with those of each element. What claims
#: more is a decompression bomb.
_MOST_BYTES, _FEW_BYTES, _ELEMENT_BYTES = 2**28, 2**25, 2**20
_CHECKSUM = 4
#: Settings of filters that are types.
_FILTERED = ("dtype", "astype", "encode_dtype", "decode_dtype")
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def catalog_codecs(codecs: Sequence[dict[str, Any]]) -> tuple[Codec, ...] | None:
    """Return codecs of fixed-size elements in the catalog's terms; None if one of them is not known."""
    found = []
    for codec in codecs:
        name = codec["id"]
        if name in _NAMES:
            found.append(Codec(_NAMES[name]))
        elif name == "lzma" and codec.get("format", 1) == 1:
            found.append(Codec("lzma"))
        elif name == "shuffle" and (size := _shuffled(codec)) > 0:
            found.append(Codec("shuffle", (size,)))
        elif name == "crc32c" and codec.get("location", "end") == "end":
            found.append(Codec("crc32c"))
        elif name in FILTERS and _is_sound(codec):
            if name != "bitround":  # it rounds when writing; there is nothing to undo
                found.append(Codec("numcodecs", config=json.dumps(codec)))
        else:
            return None
    return tuple(found)


def _shuffled(codec: dict[str, Any]) -> int:
    """Return the size of the elements that were shuffled, 0 if the settings make no sense."""
    size = codec.get("elementsize", 4)
    return size if isinstance(size, int) and codec.keys() <= {"id", "elementsize"} else 0


def _is_sound(codec: dict[str, Any]) -> bool:
    """Tell whether a filter is of numbers, or names no types at all."""
    try:
        types = [numpy_dtype(codec[name]) for name in _FILTERED if name in codec]
    except ValueError:
        return False
    return all(dtype.kind in "biufc" for dtype in types)


def decode_fixed(data: Buffer, codecs: Sequence[dict[str, Any]], nbytes: int) -> Buffer:
    """Return the bytes of a chunk whose elements have a fixed size.

    Raises
    ------
    UnsupportedTypeError
        If a codec is not known.
    CorruptDataError
    """
    known = catalog_codecs(codecs)
    if known is None:
        raise _unknown(codecs)
    raw, shuffled = unfilter(data, known, 0, nbytes)
    return unshuffled(raw, shuffled) if shuffled else raw


def decode_objects(data: Buffer, codecs: Sequence[dict[str, Any]], count: int) -> np.ndarray:
    """Return the elements of a chunk of objects, in the order in which they are stored.

    Raises
    ------
    UnsupportedTypeError
        If a codec is not known, or a pickled array holds anything but plain data.
    CorruptDataError
        If the chunk holds another number of elements.
    """
    known = catalog_codecs(codecs[1:])
    if known is None or not codecs or codecs[0]["id"] not in OBJECT_CODECS:
        raise _unknown(codecs)
    most = min(_MOST_BYTES, _FEW_BYTES + count * _ELEMENT_BYTES)
    for codec in reversed(known):
        data = _opened(data, codec, most)
    name = codecs[0]["id"]
    try:
        values = (
            _OBJECTS[name](bytes(data), count) if name != "vlen-array" else _arrays(data, count, codecs[0])
        )
    except (ValueError, TypeError, LookupError, struct.error, RecursionError, MemoryError) as error:
        if isinstance(error, UnsupportedTypeError | CorruptDataError):
            raise
        message = f"its {name} elements are damaged ({error})"
        raise CorruptDataError(message) from None
    if len(values) != count:
        message = f"it holds {len(values)} elements where {count} are needed"
        raise CorruptDataError(message)
    return values


def _unknown(codecs: Sequence[dict[str, Any]]) -> UnsupportedTypeError:
    names = ", ".join(repr(codec["id"]) for codec in codecs) or "no codec at all"
    return UnsupportedTypeError(f"its codecs ({names}) are not all known")


# -- bytes of which only they themselves say how many they give -----------------------------------------


def _opened(data: Buffer, codec: Codec, most: int) -> Buffer:
    if codec.name in _STREAMS:
        try:
            found, rest = _STREAMS[codec.name](bytes(data), most)
        except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
            message = f"its {codec.name} stream is damaged ({error})"
            raise CorruptDataError(message) from None
        if rest:
            message = f"its {codec.name} stream ends early, or holds more than {most} bytes"
            raise CorruptDataError(message)
        return found
    if codec.config:
        message = "objects are filtered as if they were numbers"
        raise UnsupportedTypeError(message)
    size = _declared(data, codec.name)
    if not 0 <= size <= most:
        message = f"it claims to hold {size} bytes"
        raise CorruptDataError(message)
    raw, shuffled = unfilter(data, (codec,), 0, size)
    return unshuffled(raw, shuffled) if shuffled else raw


def _declared(data: Buffer, name: str) -> int:
    """Return how many bytes a frame says that it holds."""
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
        message = "its bytes are no zstd frame"
        raise CorruptDataError(message)
    size = zstd_content_size(data)
    if size is None:
        message = "its zstd frame does not declare its size"
        raise UnsupportedTypeError(message)
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


# -- objects ----------------------------------------------------------------------------------------------


def _slices(data: Buffer, count: int) -> list[Buffer]:
    """Return the elements of numcodecs' variable-length codecs: their number, then each behind its size."""
    if len(data) < 4 or int.from_bytes(data[:4], "little") != count:  # noqa: PLR2004 - a number's size
        message = f"it does not hold {count} elements"
        raise CorruptDataError(message)
    found = []
    at = 4
    for _ in range(count):
        stop = at + 4 + struct.unpack_from("<I", data, at)[0]
        found.append(data[at + 4 : stop])
        at = stop
    if at > len(data):
        message = "it ends early"
        raise CorruptDataError(message)
    return found


def _texts(data: bytes, count: int) -> np.ndarray:
    """Return text, or bytes where it is not UTF-8."""
    try:
        from numcodecs.vlen import VLenUTF8
    except ImportError:
        VLenUTF8 = None  # noqa: N806 - a class that is not there
    # Its decoder allocates what the number of elements says before it looks at them.
    if VLenUTF8 is not None and data[:4] == count.to_bytes(4, "little") and 4 * count + 4 <= len(data):
        try:
            decoded: np.ndarray = VLenUTF8().decode(data)
        except UnicodeDecodeError:
            pass
        else:
            return decoded.reshape(-1)
    return _objects(_slices(data, count))


def _arrays(data: Buffer, count: int, codec: dict[str, Any]) -> np.ndarray:
    dtype = np.dtype(codec["dtype"])
    return _objects([np.frombuffer(item, dtype) for item in _slices(data, count)])


def _listed(items: Any, count: int) -> np.ndarray:  # noqa: ANN401 - JSON or MessagePack
    """Return what JSON2 and MsgPack2 hold: items, in nested lists if need be, then a type and a shape."""
    *found, _, shape = items
    for _ in range(len(shape) - 1):
        found = [item for part in found for item in part]
    if len(found) > count:
        message = f"it holds {len(found)} elements where {count} are needed"
        raise CorruptDataError(message)
    return _objects(found)


def _unpickled(data: bytes, count: int) -> np.ndarray:
    found = read_pickle(data)
    if not isinstance(found, PickledArray) or found.values.size != count:
        message = f"a pickle that is no array of {count} elements"
        raise CorruptDataError(message)
    return found.values.reshape(-1, order="A")


def _objects(items: list[Any]) -> np.ndarray:
    return np.fromiter(items, object, len(items))


_OBJECTS: dict[str, Callable[[bytes, int], np.ndarray]] = {
    "vlen-utf8": _texts,
    "vlen-bytes": _texts,
    "json2": lambda data, count: _listed(parse_json(data), count),
    "msgpack2": lambda data, count: _listed(msgspec.msgpack.decode(data), count),
    "pickle": _unpickled,
}
