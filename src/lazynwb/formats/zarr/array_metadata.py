"""Array metadata of Zarr versions 2 and 3 as one struct, and translation to the `Array` of the catalog."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from lazynwb.catalog.model import Array, ChunkKeys, Codec
from lazynwb.errors import CorruptDataError
from lazynwb.formats.zarr.codec_configuration import catalog_codecs
from lazynwb.formats.zarr.data_types import catalog_dtype, describe_v3, fill_bytes, is_fixed_size, numpy_dtype
from lazynwb.struct_decoders import json_decoder

#: Limits far beyond real arrays; metadata beyond them are damaged, and must not lead to allocations.
_MAX_DIMENSIONS = 32
_MAX_BYTES = 2**62
_MAX_CHUNK_BYTES = 2**40
_MAX_ELEMENT_BYTES = 2**24
_MAX_CHUNKS, _MAX_OBJECTS = 100_000_000, 10_000_000
#: Codecs of version 3 that have the same names in numcodecs.
_V3_CODECS = frozenset({"gzip", "zstd", "blosc", "crc32c", "vlen-utf8", "vlen-bytes"})
#: Codecs whose settings are not needed for decoding.
_WITHOUT_SETTINGS = _V3_CODECS | {"zlib", "lz4", "bz2", "bitround", "json2", "msgpack2", "pickle"}


class ArrayMetadata(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Metadata of an array, including those that are required for reading it without the engine.

    Attributes
    ----------
    shape, chunk : tuple of int
        Shapes of the array and of a chunk.
    dtype : str or list
        Type description of NumPy: "<f8", "|O", or a list of fields.
    codecs : tuple of dict
        Configurations of codecs in the order of writing, under the names of numcodecs.
    keys : ChunkKeys
        Keys of chunks or shards.
    fill : Any
        Fill value as JSON.
    order : tuple of int
        Order of the dimensions in a chunk; empty if it is that of the array.
    shard : tuple of int
        Shape of a shard; empty without shards.
    index : str
        Location of the index of a shard, "start" or "end", with "+crc32c" if it has a checksum.
    """

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: Any
    codecs: tuple[dict[str, Any], ...]
    keys: ChunkKeys
    fill: Any = None
    order: tuple[int, ...] = ()
    shard: tuple[int, ...] = ()
    index: str = ""


def parse_array_metadata(document: dict[str, Any], path: str) -> ArrayMetadata:
    """Parse the metadata of an array in `.zarray` or `zarr.json`.

    Raises
    ------
    ValueError
        If it is invalid; the message names the problem.
    """
    stored = _version_3(document, path) if "node_type" in document else _version_2(document, path)
    itemsize = numpy_dtype(stored.dtype).itemsize
    if itemsize > _MAX_ELEMENT_BYTES:
        raise ValueError(f"it claims elements of {itemsize:,} bytes")
    chunks = math.prod(-(-n // c) for n, c in zip(stored.shape, stored.chunk, strict=True))
    objects = math.prod(-(-n // c) for n, c in zip(stored.shape, stored.shard or stored.chunk, strict=True))
    too_many = chunks > _MAX_CHUNKS or objects > _MAX_OBJECTS
    if math.prod(stored.shape) * itemsize > _MAX_BYTES or too_many:
        raise ValueError(f"it claims a shape of {stored.shape} in {chunks} chunks")
    if math.prod(stored.shard or stored.chunk) * itemsize > _MAX_CHUNK_BYTES:
        raise ValueError(f"it claims chunks of shape {stored.shard or stored.chunk}")
    return stored


def _version_2(document: dict[str, Any], path: str) -> ArrayMetadata:
    shape = _sizes(document, "shape", 0)
    chunk = _sizes(document, "chunks", 0)
    if document.get("zarr_format") != 2 or len(chunk) != len(shape):  # noqa: PLR2004 - the version
        raise ValueError(
            f"a shape of {shape} in chunks of {chunk}, in version {document.get('zarr_format')!r}"
        )
    filters, compressor = document.get("filters") or [], document.get("compressor")
    if not isinstance(filters, list):
        raise TypeError(f"filters {filters!r}")
    codecs = tuple(_settings(codec) for codec in [*filters, *([compressor] if compressor else [])])
    separator = document.get("dimension_separator", ".")
    order = document.get("order", "C")
    if separator not in {".", "/"} or order not in {"C", "F"}:
        raise ValueError(f"order {order!r} with separator {separator!r}")
    return ArrayMetadata(
        shape,
        tuple(max(n, 1) for n in chunk),  # empty arrays may claim empty chunks
        document.get("dtype"),
        codecs,
        _keys(path, "", separator, bool(shape)),
        document.get("fill_value"),
        tuple(reversed(range(len(shape)))) if order == "F" and len(shape) > 1 else (),
    )


def _version_3(document: dict[str, Any], path: str) -> ArrayMetadata:
    if document.get("zarr_format") != 3 or document.get("storage_transformers"):  # noqa: PLR2004
        raise ValueError("its version or its storage transformers are not supported")
    shape = _sizes(document, "shape", 0)
    grid, settings = _named(document.get("chunk_grid"))
    chunk = _sizes(settings, "chunk_shape", 1)
    if grid != "regular" or len(chunk) != len(shape):
        raise ValueError(f"a shape of {shape} in a grid {grid!r} of chunks of {chunk}")
    encoding, settings = _named(document.get("chunk_key_encoding"))
    separator = settings.get("separator", "." if encoding == "v2" else "/")
    if encoding not in {"default", "v2"} or separator not in {".", "/"}:
        raise ValueError(f"chunk keys of encoding {encoding!r} with separator {separator!r}")
    keys = _keys(path, "c" if encoding == "default" else "", separator, bool(shape))
    chain = _list(document, "codecs")
    first, settings = _named(chain[0]) if chain else ("", {})
    if first != "sharding_indexed":
        codecs, order, dtype = _chain(chain, document, len(shape))
        return ArrayMetadata(shape, chunk, dtype, codecs, keys, document.get("fill_value"), order)
    inner = _sizes(settings, "chunk_shape", 1)
    if len(inner) != len(chunk) or any(s % c for s, c in zip(chunk, inner, strict=True)) or len(chain) > 1:
        raise ValueError(f"shards of {chunk} with chunks of {inner}")
    codecs, order, dtype = _chain(_list(settings, "codecs"), document, len(shape))
    index = _index(settings)
    return ArrayMetadata(shape, inner, dtype, codecs, keys, document.get("fill_value"), order, chunk, index)


def _index(settings: dict[str, Any]) -> str:
    """Return the location of the index of a shard, and whether it has a checksum."""
    location = settings.get("index_location", "end")
    codecs = [_named(codec) for codec in _list(settings, "index_codecs")]
    names = [name for name, _ in codecs]
    little = bool(codecs) and codecs[0][1].get("endian", "little") == "little"
    if location not in {"start", "end"} or names not in (["bytes"], ["bytes", "crc32c"]) or not little:
        raise ValueError(f"an index of shards at {location!r} with the codecs {names}")
    return str(location) + "".join(f"+{name}" for name in names[1:])


def _chain(
    chain: list[Any], document: dict[str, Any], dimensions: int
) -> tuple[tuple[dict[str, Any], ...], tuple[int, ...], Any]:
    """Return the codecs without transpositions and byte order, which are part of the order and the type."""
    order = tuple(range(dimensions))
    codecs: list[dict[str, Any]] = []
    endian = "little"
    for codec in chain:
        name, settings = _named(codec)
        if name == "transpose" and not codecs:
            step = _sizes(settings, "order", 0)
            if sorted(step) != list(range(dimensions)):
                raise ValueError(f"a transposition of {dimensions} dimensions to {step}")
            order = tuple(order[i] for i in step)
        elif name == "bytes":
            endian = settings.get("endian", "little")
            if endian == "big" and codecs:
                # Filters return native byte order; other orders do not occur in practice, and are an error.
                codecs.append({"id": "big-endian bytes behind a filter"})
        elif name in _V3_CODECS or name.startswith("numcodecs."):
            codecs.append(_settings({**settings, "id": name.removeprefix("numcodecs.")}))
        else:
            codecs.append({"id": name})
    is_identity = order == tuple(range(dimensions))
    return tuple(codecs), () if is_identity else order, describe_v3(document.get("data_type"), endian)


def _settings(codec: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return a codec with the settings that decoding requires."""
    if not isinstance(codec, dict) or not isinstance(codec.get("id"), str):
        raise TypeError(f"a codec {codec!r}")
    return {"id": codec["id"]} if codec["id"] in _WITHOUT_SETTINGS else codec


def _keys(path: str, mark: str, separator: str, has_dimensions: bool) -> ChunkKeys:  # noqa: FBT001
    """Return the keys of chunks; that of a scalar has no coordinates."""
    folder = f"{path}/" if path else ""
    if not has_dimensions:
        return ChunkKeys(folder + (mark or "0"), "")
    return ChunkKeys(folder + (mark + separator if mark else ""), separator)


def _named(value: Any) -> tuple[str, dict[str, Any]]:  # noqa: ANN401 - JSON
    """Return the name and configuration of an extension (Zarr v3 core, extension definition)."""
    if isinstance(value, str):
        return value, {}
    if isinstance(value, dict):
        name, settings = value.get("name"), value.get("configuration") or {}
        if isinstance(name, str) and isinstance(settings, dict):
            return name, settings
    raise ValueError(f"{value!r} is not a name with a configuration")


def _list(document: dict[str, Any], name: str) -> list[Any]:
    found = document.get(name)
    if not isinstance(found, list):
        raise TypeError(f"{name} is {found!r}")
    return found


def _sizes(document: dict[str, Any], name: str, least: int) -> tuple[int, ...]:
    found = _list(document, name)
    if len(found) > _MAX_DIMENSIONS or any(type(n) is not int or not least <= n < 2**62 for n in found):
        raise ValueError(f"{name} is {found!r}")
    return tuple(found)


#: The default index of shards in zarr-python, which the engine supports.
_USUAL_INDEX = "end+crc32c"
#: The codec of arrays that the engine cannot decode; its settings are the metadata of the array.
_INDIRECT = "zarr"


def describe_array(stored: ArrayMetadata, attributes: dict[str, Any], path: str, source: str | None) -> Array:
    """Translate the metadata of an array to the catalog.

    Parameters
    ----------
    stored : ArrayMetadata
        Metadata of the array.
    attributes : dict
        Attributes of the array.
    path : str
        Requested path, which may be that of a link.
    source : str or None
        Store of the array, if it is another one.

    Raises
    ------
    ValueError
        If the fill value does not match the type, or a scalar has several elements.
    """
    plain = numpy_dtype(stored.dtype)
    dtype = catalog_dtype(plain, attributes, stored.codecs)
    # hdmf-zarr up to 0.13 stores scalars as arrays of one element.
    is_scalar = not stored.shape or _is_scalar(attributes)
    if is_scalar and stored.shape not in {(), (1,)}:
        raise ValueError(f"it is marked as a scalar, but has the shape {stored.shape}")
    shape = () if is_scalar else stored.shape
    fixed = not plain.hasobject
    fill = fill_bytes(stored.fill, plain) if fixed else b""
    if dtype.kind == "unsupported":
        return Array(path, shape, dtype, "indirect", source=source)
    codecs = catalog_codecs(stored.codecs) if fixed and is_fixed_size(dtype) else None
    plain_order = not stored.order and not _is_list_in_wide_chunks(stored)
    if codecs is not None and not is_scalar and plain_order and stored.index in {"", _USUAL_INDEX}:
        return Array(
            path,
            shape,
            dtype,
            "objects",
            chunk=stored.chunk,
            codecs=codecs,
            fill=fill,
            source=source,
            keys=stored.keys,
            shard=stored.shard,
        )
    configuration = msgspec.json.encode(stored if fixed else _with_text_fill(stored)).decode()
    return Array(
        path,
        shape,
        dtype,
        "indirect",
        chunk=stored.chunk,
        codecs=(Codec(_INDIRECT, config=configuration),),
        fill=fill,
        source=source,
        keys=stored.keys,
        shard=stored.shard,
    )


#: Attributes that determine how an array is described.
_DESCRIBING = ("_DTYPE", "zarr_dtype", "_COMPOUND_DTYPE", "_REFERENCE_FIELDS", "_SCALAR")
#: Descriptions of arrays of layout "objects" by their encoded metadata, with keys relative to the array. Many
#: columns of a table differ in nothing but their keys.
_described: dict[bytes, Array] = {}
_MAX_DESCRIBED, _MAX_DESCRIBED_BYTES = 1024, 4096


def describe_document(
    document: dict[str, Any], attributes: dict[str, Any], own_path: str, path: str, source: str | None
) -> Array:
    """Describe an array by its metadata document; see `parse_array_metadata` and `describe_array`.

    Parameters
    ----------
    document, attributes : dict
        Metadata document and attributes of the array.
    own_path, path : str
        Path of the array in its store, and the requested one, which may be that of a link.
    source : str or None
        Store of the array, if it is another one.

    Raises
    ------
    ValueError, TypeError, OverflowError
        If the metadata is invalid.
    """
    encoded = _encoded(document, attributes)
    known = _described.get(encoded)
    folder = f"{own_path}/" if own_path else ""
    if known is not None and known.keys is not None:
        keys = ChunkKeys(folder + known.keys.prefix, known.keys.separator)
        return msgspec.structs.replace(known, path=path, source=source, keys=keys)
    found = describe_array(parse_array_metadata(document, own_path), attributes, path, source)
    if found.layout == "objects" and found.keys is not None and encoded:
        if len(_described) >= _MAX_DESCRIBED:
            _described.clear()
        keys = ChunkKeys(found.keys.prefix.removeprefix(folder), found.keys.separator)
        _described[encoded] = msgspec.structs.replace(found, path="", source=None, keys=keys)
    return found


def _encoded(document: dict[str, Any], attributes: dict[str, Any]) -> bytes:
    """Return the metadata that determine the description of an array, encoded; empty if large or unusual."""
    own = {name: value for name, value in document.items() if name != "attributes"}
    try:
        # MessagePack distinguishes NaN from null, and 1 from 1.0, unlike JSON.
        encoded = msgspec.msgpack.encode((own, [attributes.get(name) for name in _DESCRIBING]))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return b""
    return encoded if len(encoded) <= _MAX_DESCRIBED_BYTES else b""


def _is_list_in_wide_chunks(stored: ArrayMetadata) -> bool:
    """Return whether only one dimension is not 1, but chunks are wider than 1 along another one.

    The NWB schema may define such an array as a list, whose chunks would then be larger than the list.
    """
    if len(stored.shape) < 2 or math.prod(stored.shape) != max(stored.shape):  # noqa: PLR2004 - dimensions
        return False
    axis = next((i for i, n in enumerate(stored.shape) if n != 1), 0)
    return any(n != 1 for i, n in enumerate(stored.shard or stored.chunk) if i != axis)


def _is_scalar(attributes: dict[str, Any]) -> bool:
    """Return whether an array of one element is marked as a scalar by hdmf-zarr or LINDI."""
    return attributes.get("zarr_dtype") == "scalar" or attributes.get("_SCALAR") is True


def _with_text_fill(stored: ArrayMetadata) -> ArrayMetadata:
    """Keep fill values of text; those of other objects are pickles, or zeros without a meaning."""
    text = isinstance(stored.fill, str) and numpy_dtype(stored.dtype).names is None
    return stored if text else msgspec.structs.replace(stored, fill=None)


def stored_array(array: Array) -> ArrayMetadata:
    """Return the metadata of an array that the engine cannot decode, from its description.

    Raises
    ------
    CorruptDataError
        If it has none.
    """
    try:
        return json_decoder(ArrayMetadata).decode(array.codecs[0].config)
    except (IndexError, msgspec.MsgspecError) as error:
        raise CorruptDataError(f"/{array.path} is not described: {error}") from None
