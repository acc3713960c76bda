"""Groups (HDF5 File Format Specification, III.A.1 to III.D, IV.A.2): their links, however they are stored."""

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
_SYMBOLS = struct.Struct("<4sBxH")
_ENTRY = struct.Struct("<QQI4x16s")
_INDEX = struct.Struct("<QQ")
_HEAP = struct.Struct("<4sB3xQQQ")
_IS_GROUP, _IS_SOFT = 1, 2
_MAX_DEPTH = 64
#: What is asked for of a remote group's B-tree and heap: libhdf5 writes them one behind another.
_AHEAD = 1024


def read_links(file: Structure, header: ObjectHeader) -> dict[bytes, Link]:
    """Read the links of a group, in the order of their names, or in that of their creation if it tracks that.

    Raises
    ------
    DamagedStructureError
    UnsupportedStructureError
    MissingRangesError
    """
    info, table = header.messages.get(LINK_INFO), header.messages.get(SYMBOL_TABLE)
    if info is not None and table is not None:
        raise DamagedStructureError("a group has links of two kinds")
    if info is not None:
        stored = decode_link_info(info[1])
        if stored.heap != UNDEFINED:
            if LINK in header.messages:
                raise DamagedStructureError("a group has links of two kinds")
            return _sorted(_dense(file, stored), tracked=stored.tracked)
        links = header.all(LINK)
        if any(flags & SHARED for flags, _ in links):
            raise UnsupportedStructureError("shared links")
        return _sorted([decode_link(body) for _, body in links], tracked=stored.tracked)
    if table is None:
        raise DamagedStructureError("a group without links")
    if len(table[1]) < _INDEX.size:
        raise DamagedStructureError("a symbol table message is too short")
    return _sorted(_symbols(file, *_INDEX.unpack_from(table[1])))


def find_link(file: Structure, header: ObjectHeader, name: bytes) -> Link | None:
    """Look up one link of a group by its name, without reading all of them.

    Returns
    -------
    Link or None
        None where it is not found that way: `read_links` is what says that there is none.
    """
    info, table = header.messages.get(LINK_INFO), header.messages.get(SYMBOL_TABLE)
    if info is not None and table is None and LINK not in header.messages:
        stored = decode_link_info(info[1])
        return _dense_link(file, stored, name) if stored.heap != UNDEFINED else None
    if table is not None and info is None and len(table[1]) >= _INDEX.size:
        tree, heap = _INDEX.unpack_from(table[1])
        return _symbol_link(file, tree, heap, name)
    return None


def _dense_link(file: Structure, stored: DenseStorage, name: bytes) -> Link | None:
    wanted = plain_lookup3(name)

    def chosen(records: bytes, size: int) -> list[bool]:
        hashes = [U4.unpack_from(records, at)[0] for at in range(0, len(records), size)]
        return [low <= wanted <= high for low, high in pairwise([0, *hashes, 2**32])]

    heap = file.heap(stored.heap)
    records, size = read_records(file, stored.names, LINK_NAMES, chosen)
    if size != 4 + heap.id_size:
        raise DamagedStructureError("the records of links have another size")
    for at in range(0, len(records), size):
        if U4.unpack_from(records, at)[0] == wanted:
            found, link = decode_link(heap.get(records[at + 4 : at + size]))
            if found == name:
                return link
    return None


def _symbol_link(file: Structure, tree: int, heap: int, name: bytes) -> Link | None:
    level, keys, children = _tree_node(file, tree)
    if not level:  # a small group, of which other links are going to be needed, too
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
            raise DamagedStructureError("the levels of a B-tree do not follow one another")
        level = below
    for entry in _entries(file, children[at]):
        found, link = _symbol(names, entry)
        if found == name:
            return link
    return None


def _sorted(links: list[tuple[bytes, Link]], *, tracked: bool = False) -> dict[bytes, Link]:
    found = dict(sorted(links, key=_order if tracked else _name))
    if len(found) != len(links):
        raise DamagedStructureError("a group has two links of one name")
    for name in found:
        if not name or b"\0" in name or b"/" in name:
            raise DamagedStructureError("a link has a name that it cannot have")
    return found


def _name(link: tuple[bytes, Link]) -> bytes:
    return link[0]


def _order(link: tuple[bytes, Link]) -> int:
    return link[1].order


def _dense(file: Structure, stored: DenseStorage) -> list[tuple[bytes, Link]]:
    heap = file.heap(stored.heap)
    records, size = read_records(file, stored.names, LINK_NAMES)
    if size != 4 + heap.id_size:
        raise DamagedStructureError("the records of links have another size")
    return [decode_link(heap.get(records[at + 4 : at + size])) for at in range(0, len(records), size)]


def _symbols(file: Structure, tree: int, heap: int) -> list[tuple[bytes, Link]]:
    missing: MissingRangesError | None = None
    nodes: list[int] = []
    names = b""
    try:
        names = _heap_data(file, heap)
    except MissingRangesError as error:
        missing = error
    nodes = _leaves(file, tree)
    found: list[tuple[bytes, Link]] = []
    for address in nodes:
        try:
            entries = _entries(file, address)
        except MissingRangesError as error:
            missing = error
            continue
        if missing is None:
            found += [_symbol(names, entry) for entry in entries]
    if missing is not None:
        raise missing
    return found


def _heap_data(file: Structure, address: int) -> bytes:
    signature, version, size, _free, start = _HEAP.unpack(file.get(address, _HEAP.size, _AHEAD))
    if signature != b"HEAP" or version:
        raise DamagedStructureError(f"no local heap at {address}")
    return file.get(start, size)


def _leaves(file: Structure, root: int) -> list[int]:
    """Return the symbol table nodes of a B-tree, in their order."""
    found: list[int] = []
    visited: set[int] = set()
    missing: MissingRangesError | None = None
    pending = [(root, -1)]
    while pending:
        address, expected = pending.pop()
        if address in visited:
            raise DamagedStructureError("the nodes of a B-tree form a circle")
        visited.add(address)
        try:
            level, _, children = _tree_node(file, address)
        except MissingRangesError as error:
            missing = error
            continue
        if expected >= 0 and level != expected:
            raise DamagedStructureError("the levels of a B-tree do not follow one another")
        if level:
            pending += [(child, level - 1) for child in reversed(children)]
        else:
            found += children
    if missing is not None:
        raise missing
    if len(set(found)) != len(found):
        raise DamagedStructureError("a node of symbols is in a group twice")
    return found


def _tree_node(file: Structure, address: int) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Read a node of a B-tree: level, keys (places of names in the heap), and children."""
    most = 2 * file.superblock.group_internal_k
    signature, kind, level, count, _, _ = _NODE.unpack(file.get(address, _NODE.size, 32 + 32 * most))
    if signature != b"TREE" or kind or count > most or level > _MAX_DEPTH:
        raise DamagedStructureError(f"no node of a group's B-tree at {address}")
    # Keys and children alternate: name, child, name, child, ..., name.
    found = struct.unpack(f"<{2 * count + 1}Q", file.get(address + _NODE.size, 8 + 16 * count))
    return level, found[::2], found[1::2]


def _entries(file: Structure, address: int) -> list[tuple[int, int, int, bytes]]:
    most = 2 * file.superblock.group_leaf_k
    signature, version, count = _SYMBOLS.unpack(
        file.get(address, _SYMBOLS.size, _SYMBOLS.size + most * _ENTRY.size)
    )
    if signature != b"SNOD" or version != 1 or count > most:
        raise DamagedStructureError(f"no node of symbols at {address}")
    return list(_ENTRY.iter_unpack(file.get(address + _SYMBOLS.size, count * _ENTRY.size)))


def _symbol(names: bytes, entry: tuple[int, int, int, bytes]) -> tuple[bytes, Link]:
    offset, address, kind, scratch = entry
    name = _text(names, offset)
    if kind == _IS_SOFT:
        return name, Link(SOFT, value=_text(names, U4.unpack_from(scratch)[0]))
    if kind > _IS_SOFT:
        raise UnsupportedStructureError(f"a symbol of kind {kind}")
    if address == UNDEFINED:
        raise DamagedStructureError("a link leads to no object")
    if kind == _IS_GROUP:
        return name, Link(HARD, address, group=(U8.unpack_from(scratch)[0], U8.unpack_from(scratch, 8)[0]))
    return name, Link(HARD, address)


def _text(names: bytes, offset: int) -> bytes:
    stop = names.find(b"\0", offset)
    if stop < 0 or offset >= len(names):
        raise DamagedStructureError("a name lies outside of its heap")
    return names[offset:stop]
