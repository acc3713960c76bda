"""Attribute messages (HDF5 File Format Specification, IV.A.2.m), and their values as Python objects."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from lazynwb.formats.hdf5.binary import UNDEFINED, DamagedStructureError, UnsupportedStructureError
from lazynwb.formats.hdf5.btree2 import ATTRIBUTE_NAMES, read_records
from lazynwb.formats.hdf5.datatypes import StoredType, decode_datatype
from lazynwb.formats.hdf5.global_heap import variable_length_bytes
from lazynwb.formats.hdf5.messages import decode_attribute_info, decode_dataspace
from lazynwb.formats.hdf5.object_header import ATTRIBUTE, ATTRIBUTE_INFO, SHARED
from lazynwb.formats.nwb.object_listing import MAX_BYTES, MAX_ELEMENTS, Reference, unreadable_placeholder

if TYPE_CHECKING:
    import numpy as np

    from lazynwb.formats.hdf5.object_header import ObjectHeader
    from lazynwb.formats.hdf5.structure import Structure

_PREFIX = struct.Struct("<BBHHH")
_SHARED_TYPE, _SHARED_SPACE = 1, 2
_RECORD_SIZE, _HEAP_ID_SIZE = 17, 8
_NUMBERS = frozenset({"integer", "float", "bool", "enum"})
_POINTER = 8


class StoredAttribute(NamedTuple):
    """Shape (None for a null dataspace), datatype and bytes of an attribute."""

    shape: tuple[int, ...] | None
    stored: StoredType
    data: bytes


def read_attributes(file: Structure, header: ObjectHeader) -> dict[bytes, bytes]:
    """Return the attribute messages of an object by name."""
    found: dict[bytes, bytes] = {}
    bodies = header.all(ATTRIBUTE)
    info = header.messages.get(ATTRIBUTE_INFO)
    if info is not None:
        stored = decode_attribute_info(info[1])
        if stored.heap != UNDEFINED:
            if bodies:
                raise DamagedStructureError("an object has compact and dense attributes")
            heap = file.heap(stored.heap)
            records, size = read_records(file, stored.names, ATTRIBUTE_NAMES)
            if size != _RECORD_SIZE or heap.id_size != _HEAP_ID_SIZE:
                raise DamagedStructureError("the records of attributes have the wrong size")
            bodies = [
                (records[at + _HEAP_ID_SIZE], heap.get(records[at : at + _HEAP_ID_SIZE]))
                for at in range(0, len(records), size)
            ]
    for flags, body in bodies:
        if flags & SHARED:
            raise UnsupportedStructureError("shared attributes")
        name = _name(body)
        if name in found:
            raise DamagedStructureError("an object has two attributes with the same name")
        found[name] = body
    return found


def _name(body: bytes) -> bytes:
    version = body[0] if body else 0
    if not 1 <= version <= 3:  # noqa: PLR2004
        raise UnsupportedStructureError(f"an attribute of version {version}")
    length = body[2] | body[3] << 8 if len(body) > 3 else 0  # noqa: PLR2004
    start = 9 if version == 3 else 8  # noqa: PLR2004
    name = body[start : start + length]
    if not length or len(name) != length or name.find(b"\0") != length - 1:
        raise DamagedStructureError("the name of an attribute is invalid")
    return name[:-1]


def decode_attribute(file: Structure, body: bytes) -> StoredAttribute:
    """Decode an attribute message."""
    version, flags, name_size, type_size, space_size = _PREFIX.unpack_from(body)
    at = 8
    if version == 1:
        type_at = at + (name_size + 7 & ~7)
        space_at = type_at + (type_size + 7 & ~7)
        data_at = space_at + (space_size + 7 & ~7)
        flags = 0
    else:
        if flags & ~3:
            raise UnsupportedStructureError(f"an attribute with flags {flags}")
        type_at = at + (version == 3) + name_size  # noqa: PLR2004
        space_at = type_at + type_size
        data_at = space_at + space_size
    if data_at > len(body):
        raise DamagedStructureError("an attribute message is too short")
    type_body = body[type_at : type_at + type_size]
    if flags & _SHARED_SPACE:
        raise UnsupportedStructureError("an attribute with a shared dataspace")
    stored = file.committed_type(type_body) if flags & _SHARED_TYPE else decode_datatype(type_body)
    shape = decode_dataspace(body[space_at : space_at + space_size]).shape
    if shape is None:
        return StoredAttribute(None, stored, b"")
    size = math.prod(shape) * stored.size
    data = body[data_at : data_at + size]
    if len(data) != size:
        raise DamagedStructureError("an attribute message is too short")
    return StoredAttribute(shape, stored, data)


def is_too_large(attribute: StoredAttribute) -> bool:
    """Return whether an attribute exceeds the limits of what is read."""
    if attribute.shape is None:
        return False
    stored, count = attribute.stored, math.prod(attribute.shape)
    while stored.name == "array" and stored.base is not None:
        count *= max(stored.size // stored.base.size, 1)
        stored = stored.base
    width = _POINTER if stored.name in {"vlen", "vlen_text", "object", "region"} else stored.memory_size
    return count > MAX_ELEMENTS or count * width > MAX_BYTES


def plain_value(file: Structure, attribute: StoredAttribute) -> Any:  # noqa: ANN401 - of any type
    """Return the value of an attribute as Python objects; see `protocols.Node.attributes`.

    Raises
    ------
    UnsupportedStructureError
        If only h5py can convert the value.
    """
    shape, stored, data = attribute
    if shape is None:
        return None
    if stored.name == "object" and math.prod(shape) > MAX_ELEMENTS:
        return unreadable_placeholder(f"{math.prod(shape)} references")
    if stored.name != "object" and is_too_large(attribute):
        inner = stored.base.size if stored.name == "array" and stored.base is not None else stored.size
        count = math.prod(shape) * (stored.size // inner)
        return unreadable_placeholder(f"an attribute of {count} elements")
    return _plain(file, stored, data, shape)


def _plain(file: Structure, stored: StoredType, data: bytes, shape: tuple[int, ...]) -> Any:  # noqa: ANN401
    name = stored.name
    if name == "array" and stored.base is not None:
        dims = stored.dtype.dims
        if stored.dtype.kind == "unsupported":
            raise UnsupportedStructureError("an attribute of arrays of arrays")
        return _plain(file, stored.base, data, (*shape, *dims))
    if name in _NUMBERS:
        if not stored.direct:
            raise UnsupportedStructureError("an attribute of integers with padding")
        return numbers(stored, data).reshape(shape).tolist()
    if name == "complex":
        import numpy as np  # late, here and below: tables are parsed without NumPy

        values = np.frombuffer(data, stored.dtype.numpy).reshape(shape)
        return _complex_text(values[()])
    count = math.prod(shape)
    return _nested([_element(file, stored, data, k * stored.size) for k in range(count)], shape)


def _complex_text(value: Any) -> Any:  # noqa: ANN401
    import numpy as np

    return [_complex_text(item) for item in value] if isinstance(value, np.ndarray) else str(value)


def numbers(stored: StoredType, data: bytes) -> np.ndarray:
    """Return numbers, bools, or the integers of an enum."""
    import numpy as np

    values: np.ndarray = np.frombuffer(data, stored.dtype.numpy)
    if stored.name != "bool":
        return values
    if values.size and (values.max() > 1 or values.min() < 0):
        raise UnsupportedStructureError("a bool other than 0 and 1")
    return values.astype(bool)


def _nested(values: list[Any], shape: tuple[int, ...]) -> Any:  # noqa: ANN401
    if not shape:
        return values[0]
    for size in reversed(shape[1:]):
        values = [values[at : at + size] for at in range(0, len(values), size)] if size else values
    if 0 in shape[1:]:
        import numpy as np

        return np.zeros(shape).tolist()
    return values


def _element(file: Structure, stored: StoredType, data: bytes, at: int) -> Any:  # noqa: ANN401
    name = stored.name
    if name == "vlen_text":
        return _as_text(variable_length_bytes(file, data, at, 1))
    if name == "text":
        return _as_text(data[at : at + stored.size])
    if name == "object":
        address = int.from_bytes(data[at : at + 8], "little")
        return Reference(file, address) if address else None
    if name == "region":
        return unreadable_placeholder("a region reference")
    if name == "opaque":
        return unreadable_placeholder("of type void")
    if name == "vlen" and stored.base is not None and stored.base.name == "object":
        stored_bytes = variable_length_bytes(file, data, at, 8)
        addresses = struct.unpack(f"<{len(stored_bytes) // 8}Q", stored_bytes)
        return [Reference(file, address) if address else None for address in addresses]
    if name == "vlen" and stored.base is not None and stored.dtype.kind == "vlen":
        if stored.base.name not in {"integer", "float"}:
            raise UnsupportedStructureError("an attribute of sequences whose elements are not numbers")
        return numbers(stored.base, variable_length_bytes(file, data, at, stored.base.size)).tolist()
    if name == "compound" and stored.dtype.kind == "compound":
        return {
            part: _plain(file, inner, data[at + offset : at + offset + inner.size], ())
            for part, offset, inner in stored.members
        }
    raise UnsupportedStructureError(f"an attribute of {stored.dtype.note or name}")


def _as_text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode("utf-8", "replace")


def text_values(file: Structure, attribute: StoredAttribute) -> list[str] | None:
    """Return the elements of a text attribute of any shape; None for other types."""
    shape, stored, data = attribute
    if shape is None or stored.name not in {"text", "vlen_text"}:
        return None
    if stored.name == "text":
        size = stored.size
        return [_as_text(data[at : at + size]) for at in range(0, len(data), size)]
    return [_as_text(variable_length_bytes(file, data, at, 1)) for at in range(0, len(data), stored.size)]
