"""Links of groups (HDF5 File Format Specification, III.A.1 to III.D, IV.A.2)."""

from __future__ import annotations

import struct
from bisect import bisect_left
from itertools import pairwise
from typing import TYPE_CHECKING

from lazynwb.formats.hdf5.binary import (
    U4,
    U8,
    UNDEFINED,
    DamagedStructureError,
    MissingRangesError,
    UnsupportedStructureError,
)
from lazynwb.formats.hdf5.btree2 import LINK_NAMES, read_records
from lazynwb.formats.hdf5.checksums import plain_lookup3
from lazynwb.formats.hdf5.messages import HARD, SOFT, DenseStorage, Link, decode_link, decode_link_info
from lazynwb.formats.hdf5.object_header import LINK, LINK_INFO, SHARED, SYMBOL_TABLE

if TYPE_CHECKING:
    from lazynwb.formats.hdf5.object_header import ObjectHeader
    from lazynwb.formats.hdf5.structure import Structure

_NODE = struct.Struct("<4sBBHQQ")
_SYMBOL_NODE = struct.Struct("<4sBxH")
_ENTRY = struct.Struct("<QQI4x16s")
_INDEX = struct.Struct("<QQ")
_HEAP = struct.Struct("<4sB3xQQQ")
_IS_GROUP, _IS_SOFT = 1, 2
_MAX_DEPTH = 64
#: Bytes to prefetch at the B-tree and the local heap of a group, which libhdf5 writes next to each other.
_PREFETCH = 1024
#: Bytes before a symbol table node to prefetch. A node is split when a member is added to a group, so that it
#: follows the headers of the members that were added last.
_PRECEDING = 8 * 1024


def read_links(file: Structure, header: ObjectHeader) -> dict[bytes, Link]:
    """Read the links of a group, in creation order if the group tracks it, else in the order of names.

    Raises
    ------
    DamagedStructureError
    UnsupportedStructureError
    MissingRangesError
    """
    info, table = header.messages.get(LINK_INFO), header.messages.get(SYMBOL_TABLE)
    if info is not None and table is not None:
        raise DamagedStructureError("a group has a symbol table and a link info message")
    if info is not None:
        stored = decode_link_info(info[1])
        if stored.heap != UNDEFINED:
            if LINK in header.messages:
                raise DamagedStructureError("a group has compact and dense links")
            return _sorted(_dense_links(file, stored), tracked=stored.tracked)
        links = header.all(LINK)
        if any(flags & SHARED for flags, _ in links):
            raise UnsupportedStructureError("shared links")
        return _sorted([decode_link(body) for _, body in links], tracked=stored.tracked)
    if table is None:
        raise DamagedStructureError("a group without a symbol table or link info message")
    if len(table[1]) < _INDEX.size:
        raise DamagedStructureError("a symbol table message is too short")
    return _sorted(_symbol_table_links(file, *_INDEX.unpack_from(table[1])))


def find_link(file: Structure, header: ObjectHeader, name: bytes) -> Link | None:
    """Look up one link of a group by name, without reading all links.

    Returns
    -------
    Link or None
        None if it is not found. It may exist nevertheless; only `read_links` is exhaustive.
    """
    info, table = header.messages.get(LINK_INFO), header.messages.get(SYMBOL_TABLE)
    if info is not None and table is None and LINK not in header.messages:
        stored = decode_link_info(info[1])
        return _find_dense(file, stored, name) if stored.heap != UNDEFINED else None
    if table is not None and info is None and len(table[1]) >= _INDEX.size:
        tree, heap = _INDEX.unpack_from(table[1])
        return _find_symbol(file, tree, heap, name)
    return None


def _find_dense(file: Structure, stored: DenseStorage, name: bytes) -> Link | None:
    name_hash = plain_lookup3(name)

    def select_children(records: bytes, size: int) -> list[bool]:
        hashes = [U4.unpack_from(records, at)[0] for at in range(0, len(records), size)]
        return [low <= name_hash <= high for low, high in pairwise([0, *hashes, 2**32])]

    heap = file.heap(stored.heap)
    records, size = read_records(file, stored.names, LINK_NAMES, select_children)
    if size != 4 + heap.id_size:
        raise DamagedStructureError("the records of links have the wrong size")
    for at in range(0, len(records), size):
        if U4.unpack_from(records, at)[0] == name_hash:
            found, link = decode_link(heap.get(records[at + 4 : at + size]))
            if found == name:
                return link
    return None


def _find_symbol(file: Structure, tree: int, heap: int, name: bytes) -> Link | None:
    level, keys, children = _tree_node(file, tree)
    if not level:  # a small group: read all links at once
        return None
    names = _heap_data(file, heap)
    while True:
        at = bisect_left(keys, name, 1, key=lambda key: _text(names, key)) - 1
        if at >= len(children):
            return None
        if not level:
            break
        below, keys, children = _tree_node(file, children[at])
        if below != level - 1:
            raise DamagedStructureError("a node of a B-tree has the wrong level")
        level = below
    for entry in _read_symbol_node(file, children[at]):
        found, link = _decode_symbol(names, entry)
        if found == name:
            return link
    return None


def _sorted(links: list[tuple[bytes, Link]], *, tracked: bool = False) -> dict[bytes, Link]:
    found = dict(sorted(links, key=_order if tracked else _name))
    if len(found) != len(links):
        raise DamagedStructureError("a group has two links with the same name")
    for name in found:
        if not name or b"\0" in name or b"/" in name:
            raise DamagedStructureError("the name of a link is invalid")
    return found


def _name(link: tuple[bytes, Link]) -> bytes:
    return link[0]


def _order(link: tuple[bytes, Link]) -> int:
    return link[1].order


def _dense_links(file: Structure, stored: DenseStorage) -> list[tuple[bytes, Link]]:
    heap = file.heap(stored.heap)
    records, size = read_records(file, stored.names, LINK_NAMES)
    if size != 4 + heap.id_size:
        raise DamagedStructureError("the records of links have the wrong size")
    return [decode_link(heap.get(records[at + 4 : at + size])) for at in range(0, len(records), size)]


def _symbol_table_links(file: Structure, tree: int, heap: int) -> list[tuple[bytes, Link]]:
    missing: MissingRangesError | None = None
    nodes: list[int] = []
    names = b""
    try:
        names = _heap_data(file, heap)
    except MissingRangesError as error:
        missing = error
    nodes = _symbol_node_addresses(file, tree)
    found: list[tuple[bytes, Link]] = []
    for address in nodes:
        try:
            entries = _read_symbol_node(file, address)
        except MissingRangesError as error:
            missing = error
            if len(nodes) > 1:
                file.expect(max(address - _PRECEDING, 0), address)
            continue
        if missing is None:
            found += [_decode_symbol(names, entry) for entry in entries]
    if missing is not None:
        raise missing
    return found


def _heap_data(file: Structure, address: int) -> bytes:
    signature, version, size, _free, start = _HEAP.unpack(file.get(address, _HEAP.size, _PREFETCH))
    if signature != b"HEAP" or version:
        raise DamagedStructureError(f"no local heap at {address}")
    return file.get(start, size)


def _symbol_node_addresses(file: Structure, root: int) -> list[int]:
    """Return the addresses of the symbol table nodes of a B-tree in order."""
    found: list[int] = []
    visited: set[int] = set()
    missing: MissingRangesError | None = None
    pending = [(root, -1)]
    while pending:
        address, expected = pending.pop()
        if address in visited:
            raise DamagedStructureError("the nodes of a B-tree form a cycle")
        visited.add(address)
        try:
            level, _, children = _tree_node(file, address)
        except MissingRangesError as error:
            missing = error
            continue
        if expected >= 0 and level != expected:
            raise DamagedStructureError("a node of a B-tree has the wrong level")
        if level:
            pending += [(child, level - 1) for child in reversed(children)]
        else:
            found += children
    if missing is not None:
        raise missing
    if len(set(found)) != len(found):
        raise DamagedStructureError("a group lists a symbol table node twice")
    return found


def _tree_node(file: Structure, address: int) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Read a node of a B-tree: level, keys (offsets of names in the local heap), and children."""
    max_entries = 2 * file.superblock.group_internal_k
    signature, kind, level, count, _, _ = _NODE.unpack(file.get(address, _NODE.size, 32 + 32 * max_entries))
    if signature != b"TREE" or kind or count > max_entries or level > _MAX_DEPTH:
        raise DamagedStructureError(f"no B-tree node of a group at {address}")
    # Keys and children alternate: name, child, name, child, ..., name.
    found = struct.unpack(f"<{2 * count + 1}Q", file.get(address + _NODE.size, 8 + 16 * count))
    return level, found[::2], found[1::2]


def _read_symbol_node(file: Structure, address: int) -> list[tuple[int, int, int, bytes]]:
    max_entries = 2 * file.superblock.group_leaf_k
    signature, version, count = _SYMBOL_NODE.unpack(
        file.get(address, _SYMBOL_NODE.size, _SYMBOL_NODE.size + max_entries * _ENTRY.size)
    )
    if signature != b"SNOD" or version != 1 or count > max_entries:
        raise DamagedStructureError(f"no symbol table node at {address}")
    return list(_ENTRY.iter_unpack(file.get(address + _SYMBOL_NODE.size, count * _ENTRY.size)))


def _decode_symbol(names: bytes, entry: tuple[int, int, int, bytes]) -> tuple[bytes, Link]:
    offset, address, kind, scratch = entry
    name = _text(names, offset)
    if kind == _IS_SOFT:
        return name, Link(SOFT, value=_text(names, U4.unpack_from(scratch)[0]))
    if kind > _IS_SOFT:
        raise UnsupportedStructureError(f"a symbol table entry of cache type {kind}")
    if address == UNDEFINED:
        raise DamagedStructureError("a link without an address")
    if kind == _IS_GROUP:
        return name, Link(HARD, address, group=(U8.unpack_from(scratch)[0], U8.unpack_from(scratch, 8)[0]))
    return name, Link(HARD, address)


def _text(names: bytes, offset: int) -> bytes:
    stop = names.find(b"\0", offset)
    if stop < 0 or offset >= len(names):
        raise DamagedStructureError("a name is outside its local heap")
    return names[offset:stop]
