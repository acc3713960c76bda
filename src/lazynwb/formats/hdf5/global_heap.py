"""Global heap collections (HDF5 File Format Specification, III.E): text and sequences of variable length."""

from __future__ import annotations

import struct
from typing import NamedTuple, Protocol

from lazynwb.formats.hdf5.binary import DamagedStructureError
from lazynwb.formats.hdf5.superblock import FileBytes

_COLLECTION = struct.Struct("<4sB3xQ")
_OBJECT = struct.Struct("<H6xQ")
_ELEMENT = struct.Struct("<IQI")
_SIGNATURE = b"GCOL"
#: libhdf5 makes no smaller collection.
_MIN_BYTES = 4096


class Collection(NamedTuple):
    """A collection: its bytes, and where the headers of its objects are, by their numbers."""

    data: bytes
    places: dict[int, int]

    def get(self, number: int) -> bytes | None:
        """Return an object; None if there is none of that number."""
        at = self.places.get(number)
        if at is None:
            return None
        start = at + _OBJECT.size
        return self.data[start : start + _OBJECT.unpack_from(self.data, at)[1]]


class CollectionFile(FileBytes, Protocol):
    """The bytes of a file, with its collections."""

    def heap_collection(self, address: int) -> Collection:
        """Return the objects of a global heap collection."""
        ...


def read_collection(file: FileBytes, address: int) -> Collection:
    """Read a collection and find its objects.

    Raises
    ------
    DamagedStructureError
    MissingRangesError
    """
    signature, version, size = _COLLECTION.unpack(file.get(address, _COLLECTION.size, _MIN_BYTES))
    if signature != _SIGNATURE or version != 1 or size < _MIN_BYTES:
        raise DamagedStructureError(f"no global heap collection at {address}")
    data = file.get(address, size)
    places: dict[int, int] = {}
    unpack, head = _OBJECT.unpack_from, _OBJECT.size
    at, last, found = _COLLECTION.size, size - head, 0
    while at <= last:
        number, length = unpack(data, at)
        if number:
            places[number] = at
            at += head + (length + 7 & ~7)
            found += 1
        elif length < head:
            break
        else:  # the free space, whose length includes its header
            at += length
    if at <= last or at > size:
        raise DamagedStructureError(f"the heap of variable-length data at {address} is damaged")
    if len(places) != found:
        raise DamagedStructureError(f"the heap at {address} has two objects of one number")
    return Collection(data, places)


def element(file: CollectionFile, data: bytes, at: int, width: int) -> bytes:
    """Return the bytes of a text or sequence of variable length, whose elements take `width` bytes each.

    Parameters
    ----------
    file : CollectionFile
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
