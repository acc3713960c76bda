"""Global heap collections (HDF5 File Format Specification, III.E): text and sequences of variable length."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from lazynwb.formats.hdf5.binary import DamagedStructureError

if TYPE_CHECKING:
    from lazynwb.formats.hdf5.structure import Structure

_COLLECTION = struct.Struct("<4sB3xQ")
_OBJECT = struct.Struct("<HH4xQ")
_ELEMENT = struct.Struct("<IQI")
_SIGNATURE = b"GCOL"
#: libhdf5 makes no smaller collection.
_MIN_BYTES = 4096


def read_collection(file: Structure, address: int) -> dict[int, bytes]:
    """Read the objects of a collection, by their numbers.

    Raises
    ------
    DamagedStructureError
    MissingRangesError
    """
    signature, version, size = _COLLECTION.unpack(file.get(address, _COLLECTION.size, _MIN_BYTES))
    if signature != _SIGNATURE or version != 1 or size < _MIN_BYTES:
        raise DamagedStructureError(f"no global heap collection at {address}")
    data = file.get(address, size)
    found: dict[int, bytes] = {}
    at = _COLLECTION.size
    while at + _OBJECT.size <= size:
        number, _links, length = _OBJECT.unpack_from(data, at)
        start = at + _OBJECT.size
        # Object 0 is the free space, whose length includes its header.
        step = _OBJECT.size + (length + 7 & ~7) if number else length
        if step < _OBJECT.size or step > size - at:
            raise DamagedStructureError(f"the heap of variable-length data at {address} is damaged")
        if number:
            if number in found:
                raise DamagedStructureError(f"the heap at {address} has two objects of one number")
            found[number] = data[start : start + length]
        at += step
    return found


def element(file: Structure, data: bytes, at: int, width: int) -> bytes:
    """Return the bytes of a text or sequence of variable length, whose elements take `width` bytes each.

    Parameters
    ----------
    file : Structure
    data : bytes
        Holds the 16 bytes that stand for it in a dataset or attribute.
    at : int
        Where they begin.
    width : int
        Bytes of one element.
    """
    count, address, number = _ELEMENT.unpack_from(data, at)
    if not address:
        if count:
            raise DamagedStructureError("variable-length data that lies nowhere")
        return b""
    if not count and not number:
        return b""
    stored = file.heap_collection(address).get(number)
    if stored is None or len(stored) < count * width:
        raise DamagedStructureError("variable-length data that is not in its heap")
    return stored[: count * width]
