"""Datatype messages (HDF5 File Format Specification, IV.A.2.d), decoded to `DType` of the catalog."""

from __future__ import annotations

import struct
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from lazynwb.catalog.model import DType, Field, stored_size
from lazynwb.formats.hdf5.binary import DamagedStructureError, UnsupportedStructureError

if TYPE_CHECKING:
    from collections.abc import Callable

_U2, _U4 = struct.Struct("<H"), struct.Struct("<I")
_FLOAT = struct.Struct("<HHBBBBI")
#: Fields of IEEE 754 formats by size: sign location, exponent location and size, mantissa location and size,
#: exponent bias.
_IEEE_FIELDS = {2: (15, 10, 5, 0, 10, 15), 4: (31, 23, 8, 0, 23, 127), 8: (63, 52, 11, 0, 52, 1023)}
_IMPLIED = 2
_INTEGER_SIZES = (1, 2, 4, 8)
_PADDING = {0: "term", 1: "null", 2: "space"}
_HEAP_REFERENCE = 16
_MAX_DEPTH = 16
_MAX_BYTES = 1 << 31
_MAX_DIMENSIONS = 32
_PACKED = 3
_NEWEST = 5
_OBJECT, _REGION = 0, 1
#: Prefix of the tags that h5py gives opaque types with a NumPy equivalent.
_NUMPY_TAG = b"NUMPY:"
#: Sizes in memory of a variable-length string (a pointer) and a sequence (length and pointer).
_POINTER, _SEQUENCE = 8, 16


class StoredType(NamedTuple):
    """A decoded datatype.

    Attributes
    ----------
    dtype : DType
        Type in the catalog.
    direct : bool
        Whether the stored bytes can be read without conversion by libhdf5.
    name : str
        Class of the type: "integer", "float", "text", "vlen_text", "vlen", "object", "region", "enum",
        "bool", "compound", "array", "complex", "bitfield", "opaque" or "other".
    size : int
        Size of an element in a dataset in bytes.
    memory_size : int
        Size of an element in the memory of libhdf5 in bytes.
    members : tuple of (name, offset, StoredType)
        Members of a compound.
    base : StoredType or None
        Element type of an array or a sequence.
    code : str
        NumPy type of a bit field.
    """

    dtype: DType
    direct: bool
    name: str
    size: int
    memory_size: int
    members: tuple[tuple[str, int, StoredType], ...] = ()
    base: StoredType | None = None
    code: str = ""


@lru_cache(maxsize=8192)
def decode_datatype(data: bytes) -> StoredType:
    """Decode a datatype message; types without an equivalent get the kind "unsupported" and a reason.

    Raises
    ------
    DamagedStructureError
    UnsupportedStructureError
    """
    try:
        return _decode(data, 0, 0)[0]
    except (IndexError, struct.error, UnicodeDecodeError):
        raise DamagedStructureError("a datatype message is too short") from None


def _decode(data: bytes, at: int, depth: int) -> tuple[StoredType, int]:
    first = data[at]
    version, kind = first >> 4, first & 15
    bits = data[at + 1] | data[at + 2] << 8 | data[at + 3] << 16
    size = _U4.unpack_from(data, at + 4)[0]
    if not 1 <= version <= _NEWEST:
        raise UnsupportedStructureError(f"datatype version {version}")
    if not 0 < size < _MAX_BYTES:
        raise UnsupportedStructureError(f"a datatype of {size} bytes")
    if depth > _MAX_DEPTH:
        raise UnsupportedStructureError("types nested too deeply")
    if kind not in _CLASSES:
        raise UnsupportedStructureError(f"datatype class {kind}")
    return _CLASSES[kind](data, at + 8, version, bits, size, depth)


def _unsupported(size: int, reason: str, name: str = "other", memory: int = 0) -> StoredType:
    return StoredType(DType("unsupported", size, note=reason), False, name, size, memory or size)  # noqa: FBT003


def _integer(data: bytes, at: int, _v: int, bits: int, size: int, _d: int) -> tuple[StoredType, int]:
    offset, precision = _U2.unpack_from(data, at)[0], _U2.unpack_from(data, at + 2)[0]
    if bits & ~0xF or not precision or offset + precision > 8 * size:
        raise DamagedStructureError("an integer type is inconsistent")
    order = "|" if size == 1 else "<>"[bits & 1]
    if size not in _INTEGER_SIZES:
        return _unsupported(size, f"{size}-byte integers of this byte order"), at + 4
    letter = "i" if bits & 8 else "u"
    whole = precision == 8 * size
    return StoredType(DType("number", size, f"{order}{letter}{size}"), whole, "integer", size, size), at + 4


def _float(data: bytes, at: int, _v: int, bits: int, size: int, _d: int) -> tuple[StoredType, int]:
    offset, precision, *fields, bias = _FLOAT.unpack_from(data, at)
    end = at + _FLOAT.size
    exponent, exponent_size, mantissa, mantissa_size = fields
    sign = bits >> 8 & 0xFF
    if not precision or offset + precision > 8 * size or bits & ~0xFF7F:
        raise DamagedStructureError("a floating-point type is inconsistent")
    described = (sign, exponent, exponent_size, mantissa, mantissa_size, bias)
    if bits & 0x40 or bits >> 4 & 3 != _IMPLIED or described != _IEEE_FIELDS.get(size):
        reason = f"{size}-byte floating-point numbers that are not IEEE 754 half, single or double"
        return _unsupported(size, reason), end
    if offset or precision != 8 * size:
        raise DamagedStructureError("a floating-point type is inconsistent")
    order = "<>"[bits & 1]
    return StoredType(DType("number", size, f"{order}f{size}"), True, "float", size, size), end  # noqa: FBT003


def _time(_data: bytes, at: int, _v: int, _bits: int, size: int, _d: int) -> tuple[StoredType, int]:
    return _unsupported(size, "HDF5 times"), at + 2


def _text(_data: bytes, at: int, _v: int, bits: int, size: int, _d: int) -> tuple[StoredType, int]:
    padding = bits & 15
    if padding not in _PADDING or bits >> 4 & 15 > 1 or bits >> 8:
        raise UnsupportedStructureError("a string type with unknown padding or character set")
    return StoredType(DType("text", size, note=_PADDING[padding]), True, "text", size, size), at  # noqa: FBT003


def _bitfield(_data: bytes, at: int, _v: int, bits: int, size: int, _d: int) -> tuple[StoredType, int]:
    order = "|" if size == 1 else "<>"[bits & 1]
    name = "bitfield" if size in _INTEGER_SIZES else "other"
    return _unsupported(size, "bit fields", name)._replace(code=f"{order}u{size}"), at + 4


def _opaque(data: bytes, at: int, _v: int, bits: int, size: int, _d: int) -> tuple[StoredType, int]:
    end = at + (bits & 0xFF)
    if end > len(data):
        raise DamagedStructureError("a datatype message is too short")
    name = "other" if data.startswith(_NUMPY_TAG, at) else "opaque"
    return _unsupported(size, "opaque bytes", name), end


def _compound(data: bytes, at: int, version: int, bits: int, size: int, depth: int) -> tuple[StoredType, int]:  # noqa: PLR0917, PLR0913
    parts: list[tuple[int, str, StoredType]] = []
    width = (size.bit_length() + 7) // 8
    for _ in range(bits & 0xFFFF):
        name, at = _name(data, at, version)
        if version >= _PACKED:
            offset = int.from_bytes(data[at : at + width], "little")
            at += width
        else:
            offset = _U4.unpack_from(data, at)[0]
            at += 4
        dims: tuple[int, ...] = ()
        if version == 1:
            rank = data[at]
            if rank > 4:  # noqa: PLR2004
                raise DamagedStructureError("a member of a compound has too many dimensions")
            dims = struct.unpack_from(f"<{rank}I", data, at + 12)
            at += 28
        part, at = _decode(data, at, depth + 1)
        if dims:
            part = _as_array(part, dims)
        if offset + part.size > size:
            raise DamagedStructureError("a member is outside its compound")
        parts.append((offset, name, part))
    return _as_compound(parts, size), at


def _as_compound(parts: list[tuple[int, str, StoredType]], size: int) -> StoredType:
    parts = sorted(parts, key=lambda part: part[0])
    for (offset, _, part), (following, _, _) in pairwise(parts):
        if offset + part.size > following:
            raise DamagedStructureError("members of a compound overlap")
    memory = size - sum(part.size - part.memory_size for _, _, part in parts)
    for _, name, part in parts:
        if part.dtype.kind == "unsupported":
            reason = f"compounds with a member {name!r} of {part.dtype.note}"
            return _unsupported(memory, reason, "compound", memory)._replace(size=size)
    if not parts:
        return _unsupported(size, "compounds without members")
    if len({name for _, name, _ in parts}) != len(parts):
        raise DamagedStructureError("members of a compound have the same name")
    direct = all(part.direct for _, _, part in parts)
    members = tuple((name, offset, part) for offset, name, part in parts)
    if [name for _, name, _ in parts] == ["r", "i"]:
        base = parts[0][2]
        if base.dtype == parts[1][2].dtype and size == 2 * base.dtype.itemsize:
            number = _as_complex(base.dtype, size, direct)
            if number.dtype.kind == "number":
                return number._replace(members=members)
    fields = tuple(Field(name, offset, part.dtype) for name, offset, part in members)
    return StoredType(DType("compound", size, fields=fields), direct, "compound", size, memory, members)


def _as_complex(part: DType, size: int, direct: bool) -> StoredType:  # noqa: FBT001
    if part.kind != "number" or part.numpy[1:] not in {"f4", "f8"} or part.dims:
        return _unsupported(size, "complex numbers of this width")
    return StoredType(DType("number", size, f"{part.numpy[0]}c{size}"), direct, "complex", size, size)


def _name(data: bytes, at: int, version: int) -> tuple[str, int]:
    stop = data.find(b"\0", at)
    if stop < 0:
        raise DamagedStructureError("a datatype message is too short")
    name = data[at:stop].decode("utf-8", "replace")
    return name, stop + 1 if version >= _PACKED else at + (stop - at + 8 & ~7)


def _reference(_data: bytes, at: int, _v: int, bits: int, size: int, _d: int) -> tuple[StoredType, int]:
    kind = bits & 15
    if kind == _OBJECT and size == 8:  # noqa: PLR2004
        return StoredType(DType("reference", size), True, "object", size, size), at  # noqa: FBT003
    if kind == _REGION and size == 12:  # noqa: PLR2004
        return _unsupported(size, "region references", "region"), at
    raise UnsupportedStructureError(f"references of kind {kind} in {size} bytes")


def _enum(data: bytes, at: int, version: int, bits: int, size: int, depth: int) -> tuple[StoredType, int]:  # noqa: PLR0917, PLR0913
    base, at = _decode(data, at, depth + 1)
    if base.size != size:
        raise DamagedStructureError("the size of an enum differs from that of its base type")
    names = []
    for _ in range(bits & 0xFFFF):
        name, at = _name(data, at, version)
        names.append(name)
    count = len(names)
    end = at + count * size
    if end > len(data):
        raise DamagedStructureError("a datatype message is too short")
    if base.dtype.kind != "number":
        return base, end
    if base.name != "integer" or not base.direct:
        raise UnsupportedStructureError("an enum whose base type is not a full-precision integer")
    code = base.dtype.numpy
    order = ">" if code[0] == ">" else "<"
    letter = {1: "b", 2: "h", 4: "i", 8: "q"}[size]
    values = struct.unpack_from(f"{order}{count}{letter.upper() if code[1] == 'u' else letter}", data, at)
    if any(value >= 2**63 for value in values):
        raise UnsupportedStructureError("an enum of large unsigned integers")
    members = tuple(zip(names, values, strict=True))
    if size == 1 and {(name.upper(), value) for name, value in members} == {("FALSE", 0), ("TRUE", 1)}:
        # h5py accepts only this spelling of the members of a bool.
        exact = sorted(members) == [("FALSE", 0), ("TRUE", 1)]
        name = "bool" if exact else "enum"
        return StoredType(DType("bool", size, code), True, name, size, size, base=base), end  # noqa: FBT003
    return StoredType(DType("enum", size, code, members), True, "enum", size, size, base=base), end  # noqa: FBT003


def _vlen(data: bytes, at: int, _v: int, bits: int, size: int, depth: int) -> tuple[StoredType, int]:
    kind = bits & 15
    base, at = _decode(data, at, depth + 1)
    if size != _HEAP_REFERENCE or kind > 1:
        raise UnsupportedStructureError(f"variable-length data of kind {kind} in {size} bytes")
    if kind == 1:
        if bits >> 4 & 15 not in _PADDING or bits >> 8 & 15 > 1 or base.size != 1:
            raise UnsupportedStructureError("a string type with unknown padding or character set")
        return StoredType(DType("vlen_text", size), True, "vlen_text", size, _POINTER, base=base), at  # noqa: FBT003
    if base.dtype.kind not in {"number", "bool"} or not base.direct or base.dtype.dims:
        reason = f"variable-length sequences of {base.dtype.note or base.dtype.kind}"
        return _unsupported(size, reason, "vlen", _SEQUENCE)._replace(base=base), at
    dtype = DType("vlen", size, base=base.dtype)
    return StoredType(dtype, True, "vlen", size, _SEQUENCE, base=base), at  # noqa: FBT003


def _array(data: bytes, at: int, version: int, _bits: int, size: int, depth: int) -> tuple[StoredType, int]:
    rank = data[at]
    if version < 2 or not 0 < rank <= _MAX_DIMENSIONS:  # noqa: PLR2004
        raise DamagedStructureError("an array type with an invalid number of dimensions")
    at += 1 if version >= _PACKED else 4
    dims = struct.unpack_from(f"<{rank}I", data, at)
    at += 4 * rank * (1 if version >= _PACKED else 2)
    base, at = _decode(data, at, depth + 1)
    found = _as_array(base, dims)
    if found.size != size:
        raise DamagedStructureError("the size of an array type differs from that of its elements")
    return found, at


def _as_array(base: StoredType, dims: tuple[int, ...]) -> StoredType:
    count = 1
    for n in dims:
        count *= n
    size = count * base.size
    if not 0 < size < _MAX_BYTES:
        raise DamagedStructureError("an array type with an invalid number of elements")
    if base.dtype.kind == "unsupported" or base.dtype.dims:
        found = _unsupported(count * base.memory_size, base.dtype.note or "arrays of arrays", "array")
        return found._replace(size=size, base=base)
    dtype = replace(base.dtype, dims=dims)
    return StoredType(dtype, base.direct, "array", stored_size(dtype), count * base.memory_size, base=base)


def _complex(data: bytes, at: int, _v: int, _bits: int, size: int, depth: int) -> tuple[StoredType, int]:
    base, at = _decode(data, at, depth + 1)
    if size != 2 * base.size:
        raise DamagedStructureError("the size of a complex type differs from that of its parts")
    return _as_complex(base.dtype, size, base.direct), at


_CLASSES: dict[int, Callable[[bytes, int, int, int, int, int], tuple[StoredType, int]]] = {
    0: _integer,
    1: _float,
    2: _time,
    3: _text,
    4: _bitfield,
    5: _opaque,
    6: _compound,
    7: _reference,
    8: _enum,
    9: _vlen,
    10: _array,
    11: _complex,
}
