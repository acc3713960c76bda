"""Translation of codec configurations in Zarr metadata to the codecs of the catalog."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from lazynwb.catalog.model import Codec
from lazynwb.codecs.chunk_codecs import FILTERS, PACKAGE_CODECS, is_installed
from lazynwb.codecs.object_codecs import OBJECT_CODECS, ObjectCodec
from lazynwb.errors import UnsupportedTypeError
from lazynwb.formats.zarr.data_types import numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Names in the catalog of codecs without settings.
_NAMES = {
    "zlib": "zlib",
    "gzip": "gzip",
    "zstd": "zstd",
    "blosc": "blosc",
    "lz4": "lz4block",
    "bz2": "bz2",
    "fletcher32": "fletcher32",
}
#: Settings of filters whose values are types.
_FILTERED = ("dtype", "astype", "encode_dtype", "decode_dtype")


def catalog_codecs(
    codecs: Sequence[dict[str, Any]], *, with_packages: bool = False
) -> tuple[Codec, ...] | None:
    """Return codecs of fixed-size elements as codecs of the catalog; None if one of them is unknown.

    Parameters
    ----------
    codecs : sequence of dict
        Configurations under the names of numcodecs, in the order of writing.
    with_packages : bool
        Whether codecs of other packages are known where these are installed. A catalog must not depend on
        this; arrays with such codecs are read by `read_indirect`.
    """
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
        elif name in FILTERS and _has_numeric_types(codec):
            if name != "bitround":  # it rounds values when writing, and decoding is the identity
                found.append(Codec("numcodecs", config=json.dumps(codec)))
        elif with_packages and is_installed(name):
            found.append(Codec("numcodecs", config=json.dumps(codec)))
        else:
            return None
    return tuple(found)


def _shuffled(codec: dict[str, Any]) -> int:
    """Return the element size of a shuffle; 0 if its settings are invalid."""
    size = codec.get("elementsize", 4)
    return size if isinstance(size, int) and codec.keys() <= {"id", "elementsize"} else 0


def _has_numeric_types(codec: dict[str, Any]) -> bool:
    """Return whether all types in the settings of a filter are numeric."""
    try:
        types = [numpy_dtype(codec[name]) for name in _FILTERED if name in codec]
    except ValueError:
        return False
    return all(dtype.kind in "biufc" for dtype in types)


def fixed_size_codecs(codecs: Sequence[dict[str, Any]]) -> tuple[Codec, ...]:
    """Return the codecs of an array whose elements have a fixed size.

    Raises
    ------
    UnsupportedTypeError
        If a codec is unknown.
    """
    known = catalog_codecs(codecs, with_packages=True)
    if known is None:
        raise _unknown(codecs)
    return known


def object_codecs(codecs: Sequence[dict[str, Any]]) -> tuple[ObjectCodec, tuple[Codec, ...]]:
    """Return the first codec, which encodes objects as bytes, and the following codecs.

    Raises
    ------
    UnsupportedTypeError
        If a codec is unknown, or the first one does not encode objects.
    """
    known = catalog_codecs(codecs[1:])
    if known is None or not codecs or codecs[0]["id"] not in OBJECT_CODECS:
        raise _unknown(codecs)
    return ObjectCodec(codecs[0]["id"], codecs[0].get("dtype")), known


def _unknown(codecs: Sequence[dict[str, Any]]) -> UnsupportedTypeError:
    unknown = [one for one in codecs if one["id"] not in OBJECT_CODECS and not _is_known(one)]
    names = " and ".join(_codec_name(one["id"]) for one in unknown or codecs)
    what = (
        f"codec {names} is not supported"
        if unknown
        else f"the combination of codecs ({names or 'none'}) is not supported"
    )
    packages = dict.fromkeys(PACKAGE_CODECS[one["id"]] for one in unknown if one["id"] in PACKAGE_CODECS)
    install = f"install {' and '.join(packages)}, " if packages else ""
    return UnsupportedTypeError(
        f"{what}: {install}select other columns, or rewrite the array with another codec, "
        "such as zstd or blosc"
    )


def _is_known(codec: dict[str, Any]) -> bool:
    return catalog_codecs([codec], with_packages=True) is not None


def _codec_name(name: str) -> str:
    """Return the name of a codec with the package that decodes it, if it is known."""
    package = "imagecodecs" if name.startswith("imagecodecs_") else PACKAGE_CODECS.get(name)
    return f"{name!r}" + (f" (package {package})" if package else "")
