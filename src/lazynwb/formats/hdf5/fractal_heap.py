"""Fractal heaps (HDF5 File Format Specification, III.G): links and attributes that outgrew a header."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from lazynwb.formats.hdf5.binary import (
    U8,
    UNDEFINED,
    DamagedStructureError,
    UnsupportedStructureError,
)
from lazynwb.formats.hdf5.btree2 import HUGE_OBJECTS, encoded_size, read_records

if TYPE_CHECKING:
    from lazynwb.formats.hdf5.superblock import FileBytes

_HEADER = struct.Struct("<4sBHHBIQQQQQQQQQQQQHQQHHQH")
_HUGE = struct.Struct("<QQQ")
_MANAGED, _HUGE_KIND, _TINY = range(3)
_CHECKSUMMED = 2
_MAX_ROWS = 64
_LONG_TINY = 18
_MAX_DEPTH = 32


class FractalHeap:
    """A heap whose objects are looked up by the identifiers that B-trees have.

    Parameters
    ----------
    file : FileBytes
    address : int
        Of its header.
    """

    def __init__(self, file: FileBytes, address: int) -> None:
        size = _HEADER.size + 4
        data = file.get(address, size, 512)
        signature, version, self.id_size, filters, flags, most_managed, _, self._huge_tree, *rest = (
            _HEADER.unpack_from(data)
        )
        width, start, largest, bits, _, root, rows = rest[-7:]
        if signature != b"FRHP" or version:
            raise DamagedStructureError(f"no fractal heap at {address}")
        if filters:
            raise UnsupportedStructureError("a fractal heap with filters")
        file.verify(data, "a fractal heap")
        self._file = file
        self._address = address
        self._checksummed = bool(flags & _CHECKSUMMED)
        if (
            not all((width, start, largest))
            or start & start - 1
            or largest & largest - 1
            or width & width - 1
        ):
            raise DamagedStructureError("a fractal heap contradicts itself")
        if not 0 < bits <= 64 or start > largest or rows > _MAX_ROWS:  # noqa: PLR2004
            raise DamagedStructureError("a fractal heap contradicts itself")
        self._width, self._start, self._largest = width, start, largest
        self._root, self._rows = root, rows
        self._offset_size = (bits + 7) // 8
        self._length_size = min(encoded_size(largest), encoded_size(most_managed))
        self._direct_rows = (largest // start).bit_length() + 1
        self._blocks: dict[tuple[int, int], bytes] = {}
        self._indirect: dict[tuple[int, int], bytes] = {}
        self._huge: dict[int, tuple[int, int]] | None = None

    def get(self, identifier: bytes) -> bytes:
        """Return an object."""
        first = identifier[0]
        kind = first >> 4 & 3
        if first >> 6 or (first & 15 and kind != _TINY) or len(identifier) != self.id_size:
            raise DamagedStructureError("an identifier of a fractal heap is damaged")
        if kind == _MANAGED:
            split = 1 + self._offset_size
            offset = int.from_bytes(identifier[1:split], "little")
            length = int.from_bytes(identifier[split : split + self._length_size], "little")
            return self._managed(offset, length)
        if kind == _HUGE_KIND:
            return self._huge_object(identifier)
        if kind == _TINY:
            return self._tiny(identifier)
        raise DamagedStructureError("an identifier of a fractal heap is damaged")

    def _tiny(self, identifier: bytes) -> bytes:
        if self.id_size <= _LONG_TINY - 1:
            length, at = (identifier[0] & 15) + 1, 1
        else:
            length, at = ((identifier[0] & 15) << 8 | identifier[1]) + 1, 2
        found = identifier[at : at + length]
        if len(found) != length:
            raise DamagedStructureError("an identifier of a fractal heap is damaged")
        return found

    def _huge_object(self, identifier: bytes) -> bytes:
        if self.id_size >= 17:  # noqa: PLR2004 - address and length fit into the identifier
            raise UnsupportedStructureError("huge objects whose identifiers have their addresses")
        if self._huge is None:
            records, size = read_records(self._file, self._huge_tree, HUGE_OBJECTS)
            if size != _HUGE.size:
                raise DamagedStructureError("the records of huge objects have another size")
            self._huge = {key: (address, length) for address, length, key in _HUGE.iter_unpack(records)}
        key = int.from_bytes(identifier[1 : 1 + min(8, self.id_size - 1)], "little")
        if key not in self._huge:
            raise DamagedStructureError("a huge object is not in its fractal heap")
        return self._file.get(*self._huge[key])

    def _managed(self, offset: int, length: int) -> bytes:
        if self._root == UNDEFINED or not length:
            raise DamagedStructureError("an object lies outside of its fractal heap")
        if not self._rows:
            return self._from_block(self._root, self._start, 0, offset, length)
        address, rows, start = self._root, self._rows, 0
        for _ in range(_MAX_DEPTH):
            row, column, block_start, size = self._place(offset - start)
            if row >= rows:
                break
            data = self._indirect_block(address, rows, start)
            child = U8.unpack_from(data, 5 + 8 + self._offset_size + 8 * (row * self._width + column))[0]
            if child == UNDEFINED:
                break
            if row < self._direct_rows:
                return self._from_block(child, size, start + block_start, offset, length)
            # An indirect block has as many rows as it takes to span its own size.
            address, start = child, start + block_start
            rows = (size // (self._start * self._width)).bit_length()
        raise DamagedStructureError("an object lies outside of its fractal heap")

    def _place(self, offset: int) -> tuple[int, int, int, int]:
        """Return row, column, first offset and size of the block that holds an offset of an indirect one."""
        first_row = self._start * self._width
        row = (offset // first_row).bit_length()
        size = self._start if row <= 1 else self._start << row - 1
        row_start = 0 if not row else first_row << row - 1
        column = (offset - row_start) // size
        return row, column, row_start + column * size, size

    def _indirect_block(self, address: int, rows: int, start: int) -> bytes:
        found = self._indirect.get((address, rows))
        if found is None:
            size = 5 + 8 + self._offset_size + 8 * rows * self._width + 4
            found = self._file.get(address, size)
            self._check(found, b"FHIB", start)
            self._file.verify(found, "a block of a fractal heap")
            self._indirect[address, rows] = found
        return found

    def _from_block(self, address: int, size: int, start: int, offset: int, length: int) -> bytes:
        block = self._blocks.get((address, size))
        if block is None:
            block = self._file.get(address, size)
            self._check(block, b"FHDB", start)
            if self._checksummed:
                at = 5 + 8 + self._offset_size
                stored = block[at : at + 4]
                rearranged = block[:at] + bytes(4) + block[at + 4 :] + stored
                self._file.verify(rearranged, "a block of a fractal heap")
            self._blocks[address, size] = block
        at = offset - start
        if at < 5 + 8 + self._offset_size + 4 * self._checksummed or at + length > size:
            raise DamagedStructureError("an object lies outside of its fractal heap")
        return block[at : at + length]

    def _check(self, block: bytes, signature: bytes, start: int) -> None:
        heap = U8.unpack_from(block, 5)[0]
        stored = int.from_bytes(block[13 : 13 + self._offset_size], "little")
        if block[:4] != signature or block[4] or heap != self._address or stored != start:
            raise DamagedStructureError("a block of a fractal heap is not where it should be")
