"""Zarr arrays as the catalog's `Array`."""

from __future__ import annotations

from typing import Any

import msgspec

from lazynwb.catalog.model import Array, Codec
from lazynwb.errors import CorruptDataError
from lazynwb.formats.zarr.codecs import catalog_codecs
from lazynwb.formats.zarr.dtypes import as_number, catalog_dtype, fill_bytes, numpy_dtype
from lazynwb.formats.zarr.metadata import Stored

#: A shard's index as zarr-python writes it by default: the one that the engine's arrays have.
_USUAL_INDEX = "end+crc32c"
#: The codec of arrays that the engine cannot decode; its settings are the array's metadata.
_INDIRECT = "zarr"


def describe_array(stored: Stored, attributes: dict[str, Any], path: str, source: str | None) -> Array:
    """Describe an array.

    Parameters
    ----------
    stored : Stored
    attributes : dict
    path : str
        The one that was asked for; a link may have led elsewhere.
    source : str or None
        The store that holds it, where that is another one.

    Raises
    ------
    ValueError
        If its fill value is not one of its type, or a scalar has several elements.
    """
    plain = numpy_dtype(stored.dtype)
    dtype = catalog_dtype(plain, attributes, stored.codecs)
    # hdmf-zarr up to 0.13 stores scalars as arrays of one element.
    is_scalar = not stored.shape or _is_scalar(attributes)
    if is_scalar and stored.shape not in {(), (1,)}:
        message = f"it is marked as a scalar, and has the shape {stored.shape}"
        raise ValueError(message)
    shape = () if is_scalar else stored.shape
    fixed = not plain.hasobject
    fill = fill_bytes(stored.fill, plain) if fixed else b""
    if dtype.kind == "unsupported":
        return Array(path, shape, dtype, "indirect", source=source)
    codecs = catalog_codecs(stored.codecs) if fixed and as_number(dtype) else None
    if codecs is not None and not is_scalar and not stored.order and stored.index in {"", _USUAL_INDEX}:
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
    said = msgspec.json.encode(stored if fixed else _with_text_fill(stored)).decode()
    return Array(
        path,
        shape,
        dtype,
        "indirect",
        chunk=stored.chunk,
        codecs=(Codec(_INDIRECT, config=said),),
        fill=fill,
        source=source,
        keys=stored.keys,
        shard=stored.shard,
    )


def _is_scalar(attributes: dict[str, Any]) -> bool:
    """Tell whether an array of one element stands for a scalar, as hdmf-zarr and LINDI mark it."""
    return attributes.get("zarr_dtype") == "scalar" or attributes.get("_SCALAR") is True


def _with_text_fill(stored: Stored) -> Stored:
    """Keep a fill value of text; those of other objects are pickles, or zeros that stand for nothing."""
    text = isinstance(stored.fill, str) and numpy_dtype(stored.dtype).names is None
    return stored if text else msgspec.structs.replace(stored, fill=None)


def stored_array(array: Array) -> Stored:
    """Return the metadata of an array that the engine cannot decode, from its description.

    Raises
    ------
    CorruptDataError
        If it has none.
    """
    try:
        return msgspec.json.decode(array.codecs[0].config, type=Stored)
    except (IndexError, msgspec.MsgspecError) as error:
        message = f"/{array.path} is not described: {error}"
        raise CorruptDataError(message) from None
