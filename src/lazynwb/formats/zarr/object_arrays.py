"""Reads of arrays that the engine cannot decode: objects, text, scalars, other orders of dimensions."""

from __future__ import annotations

import itertools
import json
import math
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from lazynwb.catalog.model import MISSING
from lazynwb.codecs.chunk_codecs import decode
from lazynwb.codecs.object_codecs import decode_objects
from lazynwb.errors import CorruptDataError, UnsupportedTypeError
from lazynwb.formats.zarr.array_metadata import stored_array
from lazynwb.formats.zarr.codec_configuration import fixed_size_codecs, object_codecs
from lazynwb.formats.zarr.data_types import numpy_dtype
from lazynwb.formats.zarr.shard_index import shard_index
from lazynwb.profile import count
from lazynwb.storage.objects.sparsity import check_written
from lazynwb.storage.placeholders import describe

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazynwb.catalog.model import Array, DType
    from lazynwb.codecs import Buffer
    from lazynwb.formats.zarr.array_metadata import ArrayMetadata
    from lazynwb.storage.objects.object_store import Objects

    Place = tuple[int, ...]

#: The last code point, the range of surrogates, and the replacement character (Unicode 3.9).
_LAST, _SURROGATES, _REPLACEMENT = 0x10FFFF, (0xD800, 0xDFFF), 0xFFFD


class _Bytes(NamedTuple):
    """The stored bytes of a chunk (None if unwritten), and the key of its object."""

    key: str
    data: Buffer | None


def read_indirect(objects: Objects, array: Array, ranges: np.ndarray) -> np.ndarray:
    """Read ranges of rows of an array that the engine cannot decode on its own.

    Parameters
    ----------
    objects : Objects
        Store of the array.
    array : Array
        Description of the array; other metadata of the store is not needed.
    ranges : ndarray of shape (n, 2)
        Half-open ranges of rows, in ascending order. A scalar has one row.

    Returns
    -------
    ndarray
        The concatenated rows. Text and sequences are objects, object references are paths of their targets
        (None for null references), and compounds are structured arrays of these.

    Raises
    ------
    UnsupportedTypeError
        If a codec is unknown, or a pickled array contains other than plain data.
    CorruptDataError
        If a chunk is damaged.
    """
    stored = stored_array(array)
    if len(stored.shape) > 1 and stored.shape != array.shape:
        return _read_as_list(objects, array, stored, ranges)
    shape = array.shape or (1,)
    chunk = stored.chunk or (1,)
    rows = int((ranges[:, 1] - ranges[:, 0]).sum()) if len(ranges) else 0
    out: np.ndarray | None = None
    bands = dict.fromkeys(
        band for start, stop in ranges.tolist() for band in range(start // chunk[0], -(-stop // chunk[0]))
    )
    cells = [range(-(-n // c)) for n, c in zip(shape[1:], chunk[1:], strict=True)]
    try:
        outer = [s // c for s, c in zip(stored.shard, stored.chunk, strict=True)] if stored.shard else [1]
        required = len(bands) * math.prod(map(len, cells)) // math.prod(outer)
        check_written(objects, stored.keys.prefix, stored.keys.depth(len(shape)), required)
    except CorruptDataError as error:
        raise CorruptDataError(f"{objects.source.name}: /{array.path}: {error}") from None
    places = list(itertools.product(bands, *cells))
    for place, found in _fetch(objects, array, stored, places).items():
        try:
            values = _elements(found.data, stored, array)
        except (TypeError, ValueError, OverflowError, MemoryError) as error:
            chunk_name = f"{objects.source.name}: /{array.path}: chunk {found.key}"
            message = describe(chunk_name, bytes(found.data or b"")) or f"{chunk_name}: {error}"
            kind = UnsupportedTypeError if isinstance(error, UnsupportedTypeError) else CorruptDataError
            raise kind(message) from None
        if out is None:  # allocate only after a chunk was found to match the metadata
            out = np.empty((rows, *shape[1:]), values.dtype)
        corner = [p * c for p, c in zip(place, chunk, strict=True)]
        room = [slice(0, min(c, n - s)) for c, n, s in zip(chunk, shape, corner, strict=True)]
        where = tuple(slice(s, s + r.stop) for s, r in zip(corner[1:], room[1:], strict=True))
        at = 0
        for start, stop in ranges.tolist():
            first, last = max(start, corner[0]), min(stop, corner[0] + chunk[0])
            if first < last:
                inside = (slice(first - corner[0], last - corner[0]), *room[1:])
                out[(slice(at + first - start, at + last - start), *where)] = values[inside]
            at += stop - start
    return np.empty((rows, *shape[1:]), _converted_dtype(array.dtype)) if out is None else out


def _read_as_list(objects: Objects, array: Array, stored: ArrayMetadata, ranges: np.ndarray) -> np.ndarray:
    """Read rows of an array whose stored shape has further dimensions of length 1."""
    whole = msgspec.structs.replace(array, shape=stored.shape)
    if array.shape == stored.shape[:1]:
        rows = read_indirect(objects, whole, ranges)
        return rows.reshape(rows.shape[0], *rows.shape[len(stored.shape) :])
    rows = read_indirect(objects, whole, np.array([[0, stored.shape[0]]]))
    rows = rows.reshape(array.rows, *rows.shape[len(stored.shape) :])
    return rows[[row for start, stop in ranges.tolist() for row in range(start, stop)]]


def read_scalar(stored: ArrayMetadata, array: Array, data: Buffer | None) -> Any:  # noqa: ANN401 - the element
    """Return the value of an array of one element from its only chunk."""
    return _elements(data, stored, array).flat[0]


# -- bytes ------------------------------------------------------------------------------------------------


def _fetch(objects: Objects, array: Array, stored: ArrayMetadata, places: list[Place]) -> dict[Place, _Bytes]:
    if not stored.shard:
        keys = {place: stored.keys.of(place if stored.shape else ()) for place in places}
        data = objects.get_many(keys.values())
        return {place: _Bytes(key, data[key]) for place, key in keys.items()}
    within = tuple(s // c for s, c in zip(stored.shard, stored.chunk, strict=True))
    shards = {place: tuple(p // w for p, w in zip(place, within, strict=True)) for place in places}
    keys = {shard: stored.keys.of(shard if stored.shape else ()) for shard in shards.values()}

    def look_up(key: str) -> np.ndarray:
        return shard_index(objects, array.path, key, math.prod(within), stored.index)

    found = _map_objects(objects, look_up, list(keys.values()))
    indices = dict(zip(keys, found, strict=True))

    def read(place: Place) -> _Bytes:
        shard = shards[place]
        number = 0
        for p, w in zip(place, within, strict=True):
            number = number * w + p % w
        start, size = indices[shard][number].tolist()
        if start == MISSING:
            return _Bytes(keys[shard], None)
        data = objects.get_range(keys[shard], start, size)
        if data is None:
            raise CorruptDataError(f"{objects.source.name}: /{array.path}: shard {keys[shard]} is missing")
        return _Bytes(keys[shard], data)

    return dict(zip(places, _map_objects(objects, read, places), strict=True))


def _map_objects(objects: Objects, work: Callable[[Any], Any], items: list[Any]) -> list[Any]:
    return objects.pool.map(work, items) if len(items) > 1 else list(map(work, items))


# -- elements ---------------------------------------------------------------------------------------------


def _elements(data: Buffer | None, stored: ArrayMetadata, array: Array) -> np.ndarray:
    """Return the elements of a chunk, in the shape of the chunk; a scalar has one dimension."""
    plain = numpy_dtype(stored.dtype)
    chunk = stored.chunk or (1,)
    size = math.prod(chunk)
    if data is None:
        one = np.frombuffer(array.fill or bytes(plain.itemsize), plain, 1) if not plain.hasobject else None
        one = one if one is not None else np.full(1, stored.fill, object)
        return np.broadcast_to(_converted(one, array.dtype).reshape([1] * len(chunk)), chunk)
    if plain.hasobject:
        codec, others = object_codecs(stored.codecs)
        flat = decode_objects(data, codec, others, size)
    else:
        raw = decode(data, fixed_size_codecs(stored.codecs), size * plain.itemsize)
        flat = np.frombuffer(raw, plain, size)
    count(chunks_decoded=1)
    if stored.order:
        flat = flat.reshape([chunk[i] for i in stored.order]).transpose(np.argsort(stored.order)).ravel()
    return _converted(flat, array.dtype).reshape(chunk)


def _converted_dtype(dtype: DType) -> np.dtype:
    if dtype.kind in {"number", "bool", "enum"}:
        return np.dtype(dtype.numpy)
    if dtype.kind == "text":
        return np.dtype(f"S{dtype.itemsize}")
    if dtype.kind == "compound":
        return np.dtype([(f.name, _converted_dtype(f.dtype), f.dtype.dims) for f in dtype.fields])
    return np.dtype(object)


def _converted(values: np.ndarray, dtype: DType) -> np.ndarray:
    """Return elements in the types that the engine expects."""
    kind = dtype.kind
    if kind == "compound":
        return _compound(values, dtype)
    if values.dtype != object:
        if kind not in {"vlen_text", "reference"}:
            return values.astype(_converted_dtype(dtype), copy=False)
        values = decode_utf32(values) if values.dtype.kind == "U" else values.astype(object)
    if kind == "vlen_text":
        return values if {*map(type, values.ravel())} <= {str, bytes} else _each(values, _text)
    if kind == "reference":
        return _each(values, _path)
    if kind == "vlen" and dtype.base is not None:
        base = np.dtype(dtype.base.numpy)
        return _each(values, lambda item: np.asarray(() if item is None else item, base).reshape(-1))
    return np.array(values.tolist(), _converted_dtype(dtype))


def _each(values: np.ndarray, convert: Callable[[Any], Any]) -> np.ndarray:
    return np.fromiter((convert(item) for item in values.ravel()), object, values.size).reshape(values.shape)


def _text(item: object) -> str | bytes:
    """Return an object as text; unwritten elements are empty strings, as in HDF5."""
    if isinstance(item, str | bytes):
        return item
    if item is None or (type(item) is int and not item):
        return ""
    if isinstance(item, dict) and "_REFERENCE" in item:  # LINDI does not mark arrays of references
        return _path(item) or ""
    raise UnsupportedTypeError(f"an object of type {type(item).__name__} where text should be")


def _path(item: object) -> str | None:
    """Return the target path of a reference: an object in version 2, text or JSON in version 3."""
    if isinstance(item, bytes):
        item = item.decode("utf-8", "replace")
    if isinstance(item, str) and item.startswith("{"):
        try:
            item = json.loads(item)
        except (ValueError, RecursionError):
            return None
    if isinstance(item, dict):
        item = item.get("_REFERENCE", item)
        item = item.get("path") if isinstance(item, dict) else None
    return f"/{item.strip('/')}" if isinstance(item, str) and item else None


def _compound(values: np.ndarray, dtype: DType) -> np.ndarray:
    """Return compounds, which are structured, or objects: tuples, lists or dictionaries."""
    out = np.zeros(values.shape, _converted_dtype(dtype))
    for i, field in enumerate(dtype.fields):
        if values.dtype.names is not None:
            part = values[field.name]
        else:
            part = _each(values, partial(_member, number=i, name=field.name, members=len(dtype.fields)))
        out[field.name] = _converted(part, field.dtype)
    return out


def _member(item: Any, number: int, name: str, members: int) -> Any:  # noqa: ANN401 - an object
    if isinstance(item, dict):
        return item.get(name)
    if isinstance(item, tuple | list) and len(item) == members:
        return item[number]
    if item is None or (type(item) is int and not item):
        return None
    raise UnsupportedTypeError(f"an object of type {type(item).__name__} where {members} members should be")


def decode_utf32(values: np.ndarray) -> np.ndarray:
    """Return fixed-length text (UTF-32) as objects, with invalid characters replaced."""
    codes = np.ascontiguousarray(values).reshape(-1, 1).view(f"{values.dtype.str[0]}u4")
    bad = (codes > _LAST) | ((codes >= _SURROGATES[0]) & (codes <= _SURROGATES[1]))
    if bad.any():
        values = (
            np.where(bad, _REPLACEMENT, codes).astype(codes.dtype).view(values.dtype).reshape(values.shape)
        )
    return values.astype(object)
