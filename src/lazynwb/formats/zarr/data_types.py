"""Translation of Zarr data types to those of NumPy and of the catalog, and their fill values."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from lazynwb.catalog.model import DType, Field, stored_size

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Maximum nesting of types.
_MAX_DEPTH = 16
_NUMPY = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|c(8|16)|[SUV]\d{1,9}|O|[mM]8(\[\w{1,16}\])?)")
_V3_NUMBER = re.compile(r"(u?int|float|complex)(8|16|32|64|128)")
_V3_RAW = re.compile(r"r(\d{1,9})")
_LETTERS = {"int": "i", "uint": "u", "float": "f", "complex": "c"}
_FIXED = {"fixed_length_utf32": ("U", 4), "null_terminated_bytes": ("S", 1), "raw_bytes": ("V", 1)}
_VARIABLE = {"string", "bytes", "variable_length_bytes", "variable_length_utf8"}
#: Sizes of references in HDF5, so that types of a session are equal in both formats.
_HEAP_REFERENCE, _OBJECT_REFERENCE = 16, 8
#: Names of references in hdmf-zarr, in version 2 and in version 3.
REFERENCES = frozenset({"object", "object_reference"})


def numpy_dtype(described: Any, depth: int = 0) -> np.dtype:  # noqa: ANN401 - JSON
    """Return the NumPy type of a data type in a `.zarray` (Zarr v2, data type encoding).

    Raises
    ------
    ValueError
        If the type is invalid.
    """
    if isinstance(described, str) and _NUMPY.fullmatch(described):
        return np.dtype(described)
    if isinstance(described, list) and described and depth < _MAX_DEPTH:
        fields = []
        for field in described:
            if not isinstance(field, list) or len(field) not in {2, 3} or not isinstance(field[0], str):
                raise ValueError(f"a field {field!r}")
            dims = field[2] if len(field) > 2 else []  # noqa: PLR2004 - a third element
            if not isinstance(dims, list) or any(type(n) is not int or not 0 < n < 2**20 for n in dims):
                raise ValueError(f"a field {field!r}")
            fields.append((field[0], numpy_dtype(field[1], depth + 1), tuple(dims)))
        return np.dtype(fields)
    raise ValueError(f"a data type {described!r}")


def describe_v3(data_type: Any, endian: Any, depth: int = 0) -> Any:  # noqa: ANN401 - JSON
    """Convert a data type of version 3 to the encoding of version 2.

    Raises
    ------
    ValueError
        If the type is unknown.
    """
    order = {"little": "<", "big": ">"}.get(endian) if isinstance(endian, str) else None
    extension = data_type if isinstance(data_type, dict) else {"name": data_type}
    name, settings = extension.get("name"), extension.get("configuration") or {}
    if isinstance(name, str) and isinstance(settings, dict) and order and depth < _MAX_DEPTH:
        if name == "bool":
            return "|b1"
        if number := _V3_NUMBER.fullmatch(name):
            return f"{order}{_LETTERS[number[1]]}{int(number[2]) // 8}"
        if name.removeprefix("numpy.") in _VARIABLE:
            return "|O"
        size = settings.get("length_bytes")
        if type(size) is int and name in _FIXED:
            letter, width = _FIXED[name]
            return f"{order}{letter}{size // width}"
        if raw := _V3_RAW.fullmatch(name):
            return f"|V{int(raw[1]) // 8}"
        if name in {"numpy.datetime64", "numpy.timedelta64"}:
            return f"{order}{'M' if 'date' in name else 'm'}8"
        fields = settings.get("fields")
        if name in {"struct", "structured"} and isinstance(fields, list):
            return [[*_field(field, endian, depth)] for field in fields]
    raise ValueError(f"a data type {data_type!r}")


def _field(field: Any, endian: Any, depth: int) -> tuple[Any, Any]:  # noqa: ANN401 - JSON
    if isinstance(field, dict):
        field = [field.get("name"), field.get("data_type")]
    if not isinstance(field, list) or len(field) != 2:  # noqa: PLR2004 - a name and a type
        raise ValueError(f"a field {field!r}")
    return field[0], describe_v3(field[1], endian, depth + 1)


def catalog_dtype(dtype: np.dtype, attributes: dict[str, Any], codecs: Iterable[dict[str, Any]]) -> DType:
    """Return the type of an array's elements in the catalog.

    The type of objects is in attributes of hdmf-zarr (`zarr_dtype` in version 2; `_DTYPE` and
    `_REFERENCE_FIELDS` in version 3): object references, compounds, or by default text.
    """
    annotation = attributes.get("_DTYPE", attributes.get("zarr_dtype"))
    if annotation is None:
        annotation = _lindi_compound(attributes.get("_COMPOUND_DTYPE"))
    fields = attributes.get("_REFERENCE_FIELDS")
    if isinstance(annotation, list):
        parts = [part for part in annotation if isinstance(part, dict) and isinstance(part.get("name"), str)]
        known = {part["name"]: part.get("dtype") for part in parts}
    else:
        known = dict.fromkeys(
            [f for f in fields if isinstance(f, str)] if isinstance(fields, list) else [], "object"
        )
    if dtype.names is not None:
        return _compound([(name, dtype[name], known.get(name)) for name in dtype.names])
    if dtype.kind == "O":
        if isinstance(annotation, list) and known:
            return _compound([(name, _dtype_of_class(kind), kind) for name, kind in known.items()])
        for codec in codecs:
            if codec["id"] == "vlen-array":
                return _sequence(codec.get("dtype"))
    return _plain(dtype, annotation)


def _lindi_compound(described: object) -> list[dict[str, Any]] | None:
    """Convert LINDI's description of a compound, pairs of name and type, to that of hdmf-zarr."""
    if not isinstance(described, list):
        return None
    pairs = [pair for pair in described if isinstance(pair, list) and len(pair) == 2]  # noqa: PLR2004
    return [{"name": name, "dtype": "object" if kind == "<REFERENCE>" else kind} for name, kind in pairs]


def _plain(dtype: np.dtype, annotation: object) -> DType:
    kind, size = dtype.kind, dtype.itemsize
    if kind == "b":
        return DType("bool", size, "|i1")
    if kind in "iufc":
        return DType("number", size, dtype.str)
    if kind == "S" and size:
        return DType("text", size, note="null")
    if kind in "OU":
        if isinstance(annotation, str) and annotation in REFERENCES:
            return DType("reference", _OBJECT_REFERENCE)
        return DType("vlen_text", _HEAP_REFERENCE)
    return DType("unsupported", size, note=f"NumPy's type {dtype.str}")


def _compound(parts: list[tuple[str, np.dtype, object]]) -> DType:
    fields = []
    offset = 0
    for name, dtype, annotation in parts:
        base, dims = dtype.subdtype or (dtype, ())
        inner = catalog_dtype(base, {}, ()) if base.names is not None else _plain(base, annotation)
        if inner.kind == "unsupported":
            return DType("unsupported", 0, note=f"compounds with a member {name!r} of {inner.note}")
        field = DType(
            inner.kind, inner.itemsize, inner.numpy, fields=inner.fields, dims=tuple(dims), note=inner.note
        )
        fields.append(Field(name, offset, field))
        offset += stored_size(field)
    return DType("compound", offset, fields=tuple(fields))


def _sequence(described: object) -> DType:
    base = _plain(numpy_dtype(described), None)
    if base.kind not in {"number", "bool"}:
        return DType("unsupported", 0, note=f"variable-length sequences of {base.note or base.kind}")
    return DType("vlen", _HEAP_REFERENCE, base=base)


def _dtype_of_class(name: object) -> np.dtype:
    """Return the type of a class name of hdmf-zarr; the object type for other names."""
    text = {"int": "int64", "float": "float64", "bool": "bool_"}.get(str(name), str(name))
    scalar = np.sctypeDict.get(text.rstrip("_"))
    if isinstance(scalar, type) and issubclass(scalar, np.number | np.bool_):
        try:
            return np.dtype(scalar)
        except TypeError:
            pass
    return np.dtype("O")


def is_fixed_size(dtype: DType) -> bool:
    """Return whether elements have a fixed size, so that their bytes are their values."""
    if dtype.kind == "compound":
        return all(is_fixed_size(field.dtype) for field in dtype.fields)
    return dtype.kind in {"number", "bool", "text"}


def fill_bytes(value: Any, dtype: np.dtype) -> bytes:  # noqa: ANN401 - JSON
    """Return the stored bytes of a fill value; empty for zeros.

    Raises
    ------
    ValueError
        If the value does not fit the type.
    """
    try:
        stored = _element(value, dtype).tobytes()
    except (TypeError, ValueError, OverflowError, KeyError) as error:
        raise ValueError(f"a fill value {value!r} for elements of type {dtype} ({error})") from None
    return stored if any(stored) else b""


def _element(value: Any, dtype: np.dtype) -> np.ndarray:  # noqa: ANN401 - JSON
    if value is None or (not value and dtype.names is not None):
        return np.zeros((), dtype)
    if dtype.names is not None and isinstance(value, dict):
        record = np.zeros((), dtype)
        for name in dtype.names:
            record[name] = _element(value[name], dtype[name].base)
        return record
    if dtype.kind in "SV":
        raw = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
        return np.frombuffer(raw.ljust(dtype.itemsize, b"\0"), f"V{dtype.itemsize}")
    if dtype.kind == "c" and isinstance(value, list):
        part = np.dtype(f"{dtype.str[0]}f{dtype.itemsize // 2}")
        return np.concatenate([_number(item, part).reshape(1) for item in value])
    return _number(value, dtype)


def _number(value: Any, dtype: np.dtype) -> np.ndarray:  # noqa: ANN401 - JSON
    if dtype.kind == "f" and isinstance(value, str) and value.startswith("0x"):
        # Hexadecimal bits of a number, because NaN has many encodings (Zarr v3 core, fill value).
        return np.array(int(value, 16), f"{dtype.str[0]}u{dtype.itemsize}")
    if dtype.kind in "iu" and int(value) != float(value) and int(value) != value:
        raise ValueError("not an integer")
    convert = {"i": int, "u": int, "f": float, "c": complex, "U": str}.get(dtype.kind)
    result = np.zeros((), dtype)
    result[...] = convert(value) if convert else value
    return result
