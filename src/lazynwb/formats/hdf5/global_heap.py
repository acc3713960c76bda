"""Global heap collections (HDF5 File Format Specification, III.E): variable-length strings and sequences."""

from __future__ import annotations

import struct
from typing import NamedTuple, Protocol

from lazynwb.formats.hdf5.binary import DamagedStructureError
from lazynwb.formats.hdf5.superblock import FileBytes

_COLLECTION = struct.Struct("<4sB3xQ")
_OBJECT = struct.Struct("<H6xQ")
_ELEMENT = struct.Struct("<IQI")
_SIGNATURE = b"GCOL"
#: Minimum size of a collection (H5HG_MINSIZE of libhdf5).
_MIN_BYTES = 4096


class Collection(NamedTuple):
    """The bytes of a collection, and the positions of its object headers by heap object index."""

    data: bytes
    positions: dict[int, int]

    def get(self, index: int) -> bytes | None:
        """Return the object with a heap object index; None if there is none."""
        at = self.positions.get(index)
        if at is None:
            return None
        start = at + _OBJECT.size
        return self.data[start : start + _OBJECT.unpack_from(self.data, at)[1]]


class CollectionFile(FileBytes, Protocol):
    """The bytes of a file, with its global heap collections."""

    def heap_collection(self, address: int) -> Collection:
        """Return the global heap collection at an address."""
        ...


def read_collection(file: FileBytes, address: int) -> Collection:
    """Read a collection and locate its objects.

    Raises
    ------
    DamagedStructureError
    MissingRangesError
    """
    signature, version, size = _COLLECTION.unpack(file.get(address, _COLLECTION.size, _MIN_BYTES))
    if signature != _SIGNATURE or version != 1 or size < _MIN_BYTES:
        raise DamagedStructureError(f"no global heap collection at {address}")
    data = file.get(address, size)
    positions: dict[int, int] = {}
    unpack, head = _OBJECT.unpack_from, _OBJECT.size
    at, last, object_count = _COLLECTION.size, size - head, 0
    while at <= last:
        index, length = unpack(data, at)
        if index:
            positions[index] = at
            at += head + (length + 7 & ~7)
            object_count += 1
        elif length < head:
            break
        else:  # free space, whose size includes its header
            at += length
    if at <= last or at > size:
        raise DamagedStructureError(f"the global heap collection at {address} is inconsistent")
    if len(positions) != object_count:
        raise DamagedStructureError(f"the global heap collection at {address} repeats a heap object index")
    return Collection(data, positions)


def variable_length_bytes(file: CollectionFile, data: bytes, at: int, element_size: int) -> bytes:
    """Return the bytes of a variable-length string or sequence.

    Parameters
    ----------
    file : CollectionFile
        File with the heap collection.
    data : bytes
        Bytes of a dataset or an attribute, with the 16 bytes of the reference into the heap.
    at : int
        Position of the reference.
    element_size : int
        Size of an element in bytes.
    """
    count, address, index = _ELEMENT.unpack_from(data, at)
    if not address:
        if count:
            raise DamagedStructureError("variable-length data has no heap address")
        return b""
    if not count and not index:
        return b""
    stored = file.heap_collection(address).get(index)
    if stored is None or len(stored) < count * element_size:
        raise DamagedStructureError("variable-length data is not in its global heap collection")
    return stored[: count * element_size]
