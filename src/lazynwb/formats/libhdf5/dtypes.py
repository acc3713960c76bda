"""Translation of HDF5 datatypes to the `DType` of the catalog (HDF5 File Format Specification, IV.A.2.d)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
from h5py import h5t

from lazynwb.catalog.model import DType, Field, stored_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from h5py.h5t import TypeID

#: Sign, exponent and mantissa positions, and the exponent's bias, of the IEEE 754 formats, by size.
_IEEE_FIELDS = {2: (15, 10, 5, 0, 10, 15), 4: (31, 23, 8, 0, 23, 127), 8: (63, 52, 11, 0, 52, 1023)}
_INTEGER_SIZES = (1, 2, 4, 8)
_PADDING = {h5t.STR_NULLTERM: "term", h5t.STR_NULLPAD: "null", h5t.STR_SPACEPAD: "space"}
#: Size of variable-length data in a dataset: a length, and an address and index in a global heap. (libhdf5
#: reports the size of the pointer in memory.)
_HEAP_REFERENCE = 16
#: Maximum depth of nested types.
_MAX_DEPTH = 16


class StoredType(NamedTuple):
    """A type, and whether its bytes can be read without a conversion by libhdf5."""

    dtype: DType
    direct: bool


def describe_type(type_id: TypeID, depth: int = 0) -> StoredType:
    """Translate an HDF5 datatype; types without a counterpart have kind "unsupported" and the reason."""
    size = type_id.get_size()
    kind = type_id.get_class()
    if depth > _MAX_DEPTH:
        return _unsupported(size, "types nested too deeply")
    if kind in _NESTED:
        return _NESTED[kind](type_id, size, depth)
    if kind in _PLAIN:
        return _PLAIN[kind](type_id, size)
    return _unsupported(size, _CLASS_NAMES.get(kind, f"HDF5 type class {kind}"))


def _text(type_id: TypeID, size: int) -> StoredType:
    if type_id.is_variable_str():
        return StoredType(DType("vlen_text", _HEAP_REFERENCE), direct=True)
    return StoredType(DType("text", size, note=_PADDING.get(type_id.get_strpad(), "null")), direct=True)


def _reference(type_id: TypeID, size: int) -> StoredType:
    if type_id.equal(h5t.STD_REF_OBJ):
        return StoredType(DType("reference", size), direct=True)
    return _unsupported(size, "region references")


def _array(type_id: TypeID, size: int, depth: int) -> StoredType:
    base = describe_type(type_id.get_super(), depth + 1)
    if base.dtype.kind == "unsupported" or base.dtype.dims:
        return _unsupported(size, base.dtype.note or "arrays of arrays")
    dims = tuple(int(n) for n in type_id.get_array_dims())
    return StoredType(msgspec.structs.replace(base.dtype, dims=dims), base.direct)


def _vlen(type_id: TypeID, size: int, depth: int) -> StoredType:
    base = describe_type(type_id.get_super(), depth + 1)
    if base.dtype.kind not in {"number", "bool"} or not base.direct or base.dtype.dims:
        return _unsupported(size, f"variable-length sequences of {base.dtype.note or base.dtype.kind}")
    return StoredType(DType("vlen", _HEAP_REFERENCE, base=base.dtype), direct=True)


def _native_complex(type_id: TypeID, size: int, depth: int) -> StoredType:
    return _complex(describe_type(type_id.get_super(), depth + 1), size)


_CLASS_NAMES = {h5t.OPAQUE: "opaque bytes", h5t.BITFIELD: "bit fields", h5t.TIME: "HDF5 times"}


def _unsupported(size: int, reason: str) -> StoredType:
    return StoredType(DType("unsupported", size, note=reason), direct=False)


def _order(type_id: TypeID, size: int) -> str | None:
    if size == 1:
        return "|"
    return {h5t.ORDER_LE: "<", h5t.ORDER_BE: ">"}.get(type_id.get_order())


def _integer(type_id: TypeID, size: int) -> StoredType:
    order = _order(type_id, size)
    letter = "u" if type_id.get_sign() == h5t.SGN_NONE else "i"
    if order is None or size not in _INTEGER_SIZES:
        return _unsupported(size, f"{size}-byte integers of this byte order")
    # libhdf5 converts n-bit integers in wider fields, depending on their padding.
    whole = type_id.get_precision() == 8 * size and type_id.get_offset() == 0
    return StoredType(DType("number", size, f"{order}{letter}{size}"), direct=whole)


def _float(type_id: TypeID, size: int) -> StoredType:
    order = _order(type_id, size)
    is_ieee = _IEEE_FIELDS.get(size) == (*type_id.get_fields(), type_id.get_ebias())
    if order is None or not is_ieee or type_id.get_norm() != h5t.NORM_IMPLIED:
        return _unsupported(
            size, f"{size}-byte floating-point numbers that are not IEEE 754 half, single or double"
        )
    return StoredType(DType("number", size, f"{order}f{size}"), direct=True)


def _enum(type_id: TypeID, size: int) -> StoredType:
    base = describe_type(type_id.get_super())
    if base.dtype.kind != "number":
        return base
    members = tuple(
        (type_id.get_member_name(i).decode("utf-8", "replace"), int(type_id.get_member_value(i)))
        for i in range(type_id.get_nmembers())
    )
    if size == 1 and {(name.upper(), value) for name, value in members} == {("FALSE", 0), ("TRUE", 1)}:
        return StoredType(DType("bool", size, base.dtype.numpy), base.direct)
    return StoredType(DType("enum", size, base.dtype.numpy, members), base.direct)


def _complex(part: StoredType, size: int) -> StoredType:
    if part.dtype.kind != "number" or part.dtype.numpy[1:] not in {"f4", "f8"}:
        return _unsupported(size, "complex numbers of this width")
    return StoredType(DType("number", size, f"{part.dtype.numpy[0]}c{size}"), part.direct)


def _compound(type_id: TypeID, size: int, depth: int) -> StoredType:
    parts = []
    direct = True
    growth = 0  # libhdf5 reports offsets in memory, where variable-length text has 8 bytes instead of 16
    order = sorted(range(type_id.get_nmembers()), key=type_id.get_member_offset)
    for i in order:
        name = type_id.get_member_name(i).decode("utf-8", "replace")
        member_id = type_id.get_member_type(i)
        member = describe_type(member_id, depth + 1)
        if member.dtype.kind == "unsupported":
            return _unsupported(size, f"compounds with a member {name!r} of {member.dtype.note}")
        parts.append(Field(name, type_id.get_member_offset(i) + growth, member.dtype))
        growth += stored_size(member.dtype) - member_id.get_size()
        direct = direct and member.direct
    size += growth
    if not parts:
        return _unsupported(size, "compounds without members")
    names = [part.name for part in parts]
    if names == ["r", "i"] and parts[0].dtype == parts[1].dtype and size == 2 * parts[0].dtype.itemsize:
        number = _complex(StoredType(parts[0].dtype, direct), size)
        if number.dtype.kind == "number":
            return number
    return StoredType(DType("compound", size, fields=tuple(parts)), direct)


_PLAIN: dict[int, Callable[[TypeID, int], StoredType]] = {
    h5t.INTEGER: _integer,
    h5t.FLOAT: _float,
    h5t.ENUM: _enum,
    h5t.STRING: _text,
    h5t.REFERENCE: _reference,
}
_NESTED: dict[int, Callable[[TypeID, int, int], StoredType]] = {
    h5t.COMPOUND: _compound,
    h5t.ARRAY: _array,
    h5t.VLEN: _vlen,
}
if hasattr(h5t, "COMPLEX"):  # HDF5 2.0
    _NESTED[h5t.COMPLEX] = _native_complex
