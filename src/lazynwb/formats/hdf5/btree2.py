"""Version 2 B-trees (HDF5 File Format Specification, III.A.2): records of links, attributes and chunks."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from lazynwb.formats.hdf5.binary import (
    U8,
    UNDEFINED,
    DamagedStructureError,
    MissingRangesError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazynwb.formats.hdf5.superblock import FileBytes

_HEADER = struct.Struct("<4sBBIHHBBQHQI")
_PREFIX, _CHECKSUM = 6, 4
_MAX_DEPTH = 16
_MAX_NODE_BYTES = 1 << 24
#: Record types.
HUGE_OBJECTS, LINK_NAMES, ATTRIBUTE_NAMES, CHUNKS, FILTERED_CHUNKS = 1, 5, 8, 10, 11


class _Level(NamedTuple):
    """Nodes of one level.

    Attributes
    ----------
    pointer_size : int
        Size of a pointer to a child node in bytes.
    max_records : int
        Maximum number of records in a node.
    total_width : int
        Size in bytes of the total number of records below a child pointer.
    """

    pointer_size: int
    max_records: int
    total_width: int


def encoded_size(limit: int) -> int:
    """Return the number of bytes that encode integers up to a limit."""
    return max(limit.bit_length() + 7, 8) // 8


def read_records(
    file: FileBytes,
    address: int,
    record_type: int,
    select_children: Callable[[bytes, int], list[bool]] | None = None,
) -> tuple[bytes, int]:
    """Read the records of a tree in order.

    Parameters
    ----------
    file : FileBytes
        File with the tree.
    address : int
        Address of the header of the tree.
    record_type : int
        Expected type of the records.
    select_children : callable, optional
        Function of the records of an internal node and the size of a record that returns which children to
        read; by default all.

    Returns
    -------
    records : bytes
        Concatenated records.
    record_size : int
        Size of a record in bytes.
    """
    data = file.get(address, _HEADER.size)
    signature, version, found_type, node_size, record_size, depth, _, _, root, count, total, _ = (
        _HEADER.unpack(data)
    )
    if signature != b"BTHD" or version:
        raise DamagedStructureError(f"no B-tree at {address}")
    file.queue_checksum(data, "a B-tree")
    if found_type != record_type:
        raise DamagedStructureError(f"a B-tree has records of type {found_type}, expected type {record_type}")
    if (
        depth > _MAX_DEPTH
        or not record_size
        or not _PREFIX + _CHECKSUM + record_size <= node_size <= _MAX_NODE_BYTES
    ):
        raise DamagedStructureError("the header of a B-tree is inconsistent")
    if root == UNDEFINED or not count:
        if total or count:
            raise DamagedStructureError("a B-tree without nodes has records")
        return b"", record_size
    tree = _Tree(
        file,
        address,
        record_type,
        node_size,
        record_size,
        _levels(node_size, record_size, depth),
        select_children,
    )
    records = tree.read(root, count, depth)
    if select_children is None and len(records) != total * record_size:
        raise DamagedStructureError(f"a B-tree does not have the {total} records of its header")
    return records, record_size


def _levels(node_size: int, record_size: int, depth: int) -> list[_Level]:
    max_records = (node_size - _PREFIX - _CHECKSUM) // record_size
    count_width = encoded_size(max_records)
    levels = [_Level(0, max_records, 0)]
    total, total_width = max_records, 0
    for _ in range(depth):
        pointer_size = 8 + count_width + total_width
        max_records = (node_size - _PREFIX - _CHECKSUM - pointer_size) // (record_size + pointer_size)
        total = (max_records + 1) * total + max_records
        levels.append(_Level(pointer_size, max_records, total_width))
        total_width = encoded_size(total)
    return levels


class _Tree:
    def __init__(  # noqa: PLR0913, PLR0917 - fields of the header
        self,
        file: FileBytes,
        address: int,
        record_type: int,
        node_size: int,
        record_size: int,
        levels: list[_Level],
        select_children: Callable[[bytes, int], list[bool]] | None,
    ) -> None:
        self._file = file
        self._record_type = record_type
        self._node_size = node_size
        self._record_size = record_size
        self._levels = levels
        self._count_width = encoded_size(levels[0].max_records)
        self._select_children = select_children
        self._visited: set[int] = {address}

    def read(self, address: int, count: int, depth: int) -> bytes:
        """Return the records of a node and its descendants."""
        level = self._levels[depth]
        if address in self._visited:
            raise DamagedStructureError("the nodes of a B-tree form a cycle")
        if not 0 < count <= level.max_records:
            raise DamagedStructureError(f"a node of a B-tree has {count} records")
        self._visited.add(address)
        used = _PREFIX + count * self._record_size + ((count + 1) * level.pointer_size if depth else 0)
        data = self._file.get(address, used + _CHECKSUM, self._node_size)
        if data[:4] != (b"BTIN" if depth else b"BTLF") or data[4] or data[5] != self._record_type:
            raise DamagedStructureError(f"no B-tree node at {address}")
        self._file.queue_checksum(data, "a node of a B-tree")
        records = data[_PREFIX : _PREFIX + count * self._record_size]
        if not depth:
            return records
        return self._read_internal(records, data, used - (count + 1) * level.pointer_size, depth)

    def _read_internal(self, records: bytes, data: bytes, at: int, depth: int) -> bytes:
        level, size = self._levels[depth], self._record_size
        count = len(records) // size
        selected = (
            [True] * (count + 1) if self._select_children is None else self._select_children(records, size)
        )
        parts: list[bytes] = []
        missing: MissingRangesError | None = None
        for k in range(count + 1):
            if selected[k]:
                start = at + k * level.pointer_size
                child = U8.unpack_from(data, start)[0]
                child_count = int.from_bytes(data[start + 8 : start + 8 + self._count_width], "little")
                try:
                    parts.append(self.read(child, child_count, depth - 1))
                except MissingRangesError as error:
                    missing = error
            if k < count:
                parts.append(records[k * size : (k + 1) * size])
        if missing is not None:
            raise missing
        return b"".join(parts)
