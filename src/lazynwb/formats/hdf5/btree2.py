"""B-trees of version 2 (HDF5 File Format Specification, III.A.2): records of links, attributes, chunks."""

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
#: Types of records.
HUGE_OBJECTS, LINK_NAMES, ATTRIBUTE_NAMES, CHUNKS, FILTERED_CHUNKS = 1, 5, 8, 10, 11


class _Level(NamedTuple):
    """Nodes of one level: bytes of a pointer to a child, most records, and the width of all their number."""

    pointer: int
    most: int
    total_width: int


def encoded_size(limit: int) -> int:
    """Return how many bytes numbers up to a limit take."""
    return max(limit.bit_length() + 7, 8) // 8


def read_records(
    file: FileBytes,
    address: int,
    kind: int,
    wanted: Callable[[bytes, int], list[bool]] | None = None,
) -> tuple[bytes, int]:
    """Read the records of a tree, in their order.

    Parameters
    ----------
    file : FileBytes
    address : int
    kind : int
        Type of the records.
    wanted : callable, optional
        Given the records of a node and the size of one, returns which of its children to read.

    Returns
    -------
    records : bytes
        One after another.
    size : int
        Of one record.
    """
    data = file.get(address, _HEADER.size)
    signature, version, found, node, size, depth, _, _, root, count, total, _ = _HEADER.unpack(data)
    if signature != b"BTHD" or version:
        raise DamagedStructureError(f"no B-tree at {address}")
    file.verify(data, "a B-tree")
    if found != kind:
        raise DamagedStructureError(f"a B-tree of records of type {found} in the place of type {kind}")
    if depth > _MAX_DEPTH or not size or not _PREFIX + _CHECKSUM + size <= node <= _MAX_NODE_BYTES:
        raise DamagedStructureError("a B-tree contradicts itself")
    if root == UNDEFINED or not count:
        if total or count:
            raise DamagedStructureError("a B-tree has records, and no nodes")
        return b"", size
    tree = _Tree(file, address, kind, node, size, _levels(node, size, depth), wanted)
    records = tree.read(root, count, depth)
    if wanted is None and len(records) != total * size:
        raise DamagedStructureError(f"a B-tree has other than {total} records")
    return records, size


def _levels(node: int, size: int, depth: int) -> list[_Level]:
    most = (node - _PREFIX - _CHECKSUM) // size
    width = encoded_size(most)
    levels = [_Level(0, most, 0)]
    total, total_width = most, 0
    for _ in range(depth):
        pointer = 8 + width + total_width
        most = (node - _PREFIX - _CHECKSUM - pointer) // (size + pointer)
        total = (most + 1) * total + most
        levels.append(_Level(pointer, most, total_width))
        total_width = encoded_size(total)
    return levels


class _Tree:
    def __init__(  # noqa: PLR0913, PLR0917 - what a tree is
        self,
        file: FileBytes,
        address: int,
        kind: int,
        node: int,
        size: int,
        levels: list[_Level],
        wanted: Callable[[bytes, int], list[bool]] | None,
    ) -> None:
        self._file = file
        self._kind = kind
        self._node = node
        self._size = size
        self._levels = levels
        self._count_width = encoded_size(levels[0].most)
        self._wanted = wanted
        self._visited: set[int] = {address}

    def read(self, address: int, count: int, depth: int) -> bytes:
        """Return the records of a node and of those below it."""
        level = self._levels[depth]
        if address in self._visited:
            raise DamagedStructureError("the nodes of a B-tree form a circle")
        if not 0 < count <= level.most:
            raise DamagedStructureError(f"a node of a B-tree has {count} records")
        self._visited.add(address)
        used = _PREFIX + count * self._size + ((count + 1) * level.pointer if depth else 0)
        data = self._file.get(address, used + _CHECKSUM, self._node)
        if data[:4] != (b"BTIN" if depth else b"BTLF") or data[4] or data[5] != self._kind:
            raise DamagedStructureError(f"no node of a B-tree at {address}")
        self._file.verify(data, "a node of a B-tree")
        records = data[_PREFIX : _PREFIX + count * self._size]
        if not depth:
            return records
        return self._below(records, data, used - (count + 1) * level.pointer, depth)

    def _below(self, records: bytes, data: bytes, at: int, depth: int) -> bytes:
        level, size = self._levels[depth], self._size
        count = len(records) // size
        wanted = [True] * (count + 1) if self._wanted is None else self._wanted(records, size)
        parts: list[bytes] = []
        missing: MissingRangesError | None = None
        for k in range(count + 1):
            if wanted[k]:
                start = at + k * level.pointer
                child = U8.unpack_from(data, start)[0]
                held = int.from_bytes(data[start + 8 : start + 8 + self._count_width], "little")
                try:
                    parts.append(self.read(child, held, depth - 1))
                except MissingRangesError as error:
                    missing = error
            if k < count:
                parts.append(records[k * size : (k + 1) * size])
        if missing is not None:
            raise missing
        return b"".join(parts)
