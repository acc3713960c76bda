"""Fractal heaps (HDF5 File Format Specification, III.G): storage of dense links and attributes."""

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
_EXTENDED_TINY_SIZE = 18
_MAX_DEPTH = 32


class FractalHeap:
    """A fractal heap: objects by heap ID.

    Parameters
    ----------
    file : FileBytes
        File with the heap.
    address : int
        Address of the heap header.
    """

    def __init__(self, file: FileBytes, address: int) -> None:
        size = _HEADER.size + 4
        data = file.get(address, size, 512)
        signature, version, self.id_size, filters, flags, max_managed_size, _, self._huge_tree, *rest = (
            _HEADER.unpack_from(data)
        )
        width, start, largest, bits, _, root, rows = rest[-7:]
        if signature != b"FRHP" or version:
            raise DamagedStructureError(f"no fractal heap at {address}")
        if filters:
            raise UnsupportedStructureError("a fractal heap with filters")
        file.queue_checksum(data, "a fractal heap")
        self._file = file
        self._address = address
        self._checksummed = bool(flags & _CHECKSUMMED)
        if (
            not all((width, start, largest))
            or start & start - 1
            or largest & largest - 1
            or width & width - 1
        ):
            raise DamagedStructureError("a fractal heap is inconsistent")
        if not 0 < bits <= 64 or start > largest or rows > _MAX_ROWS:  # noqa: PLR2004
            raise DamagedStructureError("a fractal heap is inconsistent")
        self._table_width, self._start = width, start
        self._root, self._rows = root, rows
        self._offset_size = (bits + 7) // 8
        self._length_size = min(encoded_size(largest), encoded_size(max_managed_size))
        self._direct_rows = (largest // start).bit_length() + 1
        self._blocks: dict[tuple[int, int], bytes] = {}
        self._indirect: dict[tuple[int, int], bytes] = {}
        self._huge: dict[int, tuple[int, int]] | None = None

    def get(self, heap_id: bytes) -> bytes:
        """Return the object with a heap ID."""
        first = heap_id[0]
        kind = first >> 4 & 3
        if first >> 6 or (first & 15 and kind != _TINY) or len(heap_id) != self.id_size:
            raise DamagedStructureError("a fractal heap ID is invalid")
        if kind == _MANAGED:
            split = 1 + self._offset_size
            offset = int.from_bytes(heap_id[1:split], "little")
            length = int.from_bytes(heap_id[split : split + self._length_size], "little")
            return self._managed_object(offset, length)
        if kind == _HUGE_KIND:
            return self._huge_object(heap_id)
        if kind == _TINY:
            return self._tiny_object(heap_id)
        raise DamagedStructureError("a fractal heap ID is invalid")

    def _tiny_object(self, heap_id: bytes) -> bytes:
        if self.id_size <= _EXTENDED_TINY_SIZE - 1:
            length, at = (heap_id[0] & 15) + 1, 1
        else:
            length, at = ((heap_id[0] & 15) << 8 | heap_id[1]) + 1, 2
        found = heap_id[at : at + length]
        if len(found) != length:
            raise DamagedStructureError("a fractal heap ID is invalid")
        return found

    def _huge_object(self, heap_id: bytes) -> bytes:
        if self.id_size >= 17:  # noqa: PLR2004 - address and length fit into the ID
            raise UnsupportedStructureError("directly accessed huge objects")
        if self._huge is None:
            records, size = read_records(self._file, self._huge_tree, HUGE_OBJECTS)
            if size != _HUGE.size:
                raise DamagedStructureError("the records of huge objects have the wrong size")
            self._huge = {key: (address, length) for address, length, key in _HUGE.iter_unpack(records)}
        key = int.from_bytes(heap_id[1 : 1 + min(8, self.id_size - 1)], "little")
        if key not in self._huge:
            raise DamagedStructureError("a huge object is not in the B-tree of its fractal heap")
        return self._file.get(*self._huge[key])

    def _managed_object(self, offset: int, length: int) -> bytes:
        if self._root == UNDEFINED or not length:
            raise DamagedStructureError("an object is outside its fractal heap")
        if not self._rows:
            return self._read_from_direct_block(self._root, self._start, 0, offset, length)
        address, rows, start = self._root, self._rows, 0
        for _ in range(_MAX_DEPTH):
            row, column, block_start, size = self._locate_block(offset - start)
            if row >= rows:
                break
            data = self._indirect_block(address, rows, start)
            child = U8.unpack_from(data, 5 + 8 + self._offset_size + 8 * (row * self._table_width + column))[
                0
            ]
            if child == UNDEFINED:
                break
            if row < self._direct_rows:
                return self._read_from_direct_block(child, size, start + block_start, offset, length)
            # A child indirect block has as many rows as its size requires.
            address, start = child, start + block_start
            rows = (size // (self._start * self._table_width)).bit_length()
        raise DamagedStructureError("an object is outside its fractal heap")

    def _locate_block(self, offset: int) -> tuple[int, int, int, int]:
        """Return row, column, first offset and size of the child block that contains an offset."""
        first_row = self._start * self._table_width
        row = (offset // first_row).bit_length()
        size = self._start if row <= 1 else self._start << row - 1
        row_start = 0 if not row else first_row << row - 1
        column = (offset - row_start) // size
        return row, column, row_start + column * size, size

    def _indirect_block(self, address: int, rows: int, start: int) -> bytes:
        found = self._indirect.get((address, rows))
        if found is None:
            size = 5 + 8 + self._offset_size + 8 * rows * self._table_width + 4
            found = self._file.get(address, size)
            self._check_block(found, b"FHIB", start)
            self._file.queue_checksum(found, "a fractal heap block")
            self._indirect[address, rows] = found
        return found

    def _read_from_direct_block(self, address: int, size: int, start: int, offset: int, length: int) -> bytes:
        block = self._blocks.get((address, size))
        if block is None:
            block = self._file.get(address, size)
            self._check_block(block, b"FHDB", start)
            if self._checksummed:
                at = 5 + 8 + self._offset_size
                stored = block[at : at + 4]
                with_checksum_last = block[:at] + bytes(4) + block[at + 4 :] + stored
                self._file.queue_checksum(with_checksum_last, "a fractal heap block")
            self._blocks[address, size] = block
        at = offset - start
        if at < 5 + 8 + self._offset_size + 4 * self._checksummed or at + length > size:
            raise DamagedStructureError("an object is outside its fractal heap")
        return block[at : at + length]

    def _check_block(self, block: bytes, signature: bytes, start: int) -> None:
        heap = U8.unpack_from(block, 5)[0]
        stored = int.from_bytes(block[13 : 13 + self._offset_size], "little")
        if block[:4] != signature or block[4] or heap != self._address or stored != start:
            raise DamagedStructureError("a fractal heap block has the wrong heap address or offset")
