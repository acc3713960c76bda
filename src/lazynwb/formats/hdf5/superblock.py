"""The superblock of an HDF5 file (File Format Specification, II.A): base of addresses, root, node sizes."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple, Protocol

from lazynwb.formats.hdf5.binary import (
    SIGNATURE,
    UNDEFINED,
    DamagedStructureError,
    UnsupportedStructureError,
)
from lazynwb.formats.hdf5.checksums import verify_checksum

if TYPE_CHECKING:
    from lazynwb.formats.hdf5.binary import ByteSource

_OLD = struct.Struct("<HHI")
_OLD_ADDRESSES = struct.Struct("<QQQQ")
_ROOT_ENTRY = struct.Struct("<QQI4xQQ")
_NEW = struct.Struct("<BBBQQQQ")
_VERSION_AT, _OLD_SIZES_AT = 8, 13
_OLD_END, _NEW_END = 24, 48
_ENTRY_SIZE = 40
_HAS_LINKS = 1
_FIRST_INDEXED_K, _FIRST_CHECKSUMMED, _NEWEST = 1, 2, 3
_WIDTH = 8
_MAX_POSITIONS = 50
#: What is likely to follow the superblock, and is needed next.
_AHEAD = 4096


class Superblock(NamedTuple):
    """What a superblock says.

    Attributes
    ----------
    version : int
    base : int
        Position that addresses count from: the size of the user block.
    end : int
        Position past the last byte of the file's structure.
    root : int
        Address of the root group's object header.
    group_leaf_k, group_internal_k, chunk_k : int
        Half of the entries of a full symbol table node, and of B-tree nodes of groups and of chunks.
    extension : int
        Address of the object header with more of this; `UNDEFINED` if there is none.
    root_links : (int, int) or None
        Where the root's B-tree and heap are likely to be, if that is noted here.
    """

    version: int
    base: int
    end: int
    root: int
    group_leaf_k: int = 4
    group_internal_k: int = 16
    chunk_k: int = 32
    extension: int = UNDEFINED
    root_links: tuple[int, int] | None = None


def read_superblock(source: ByteSource) -> Superblock:
    """Find and decode the superblock.

    Raises
    ------
    UnsupportedStructureError
        If there is none, or it has a version, a width of addresses or flags that are not known.
    DamagedStructureError
        If it contradicts itself or the size of the file.
    """
    base = _find(source)
    version = source.get(base + _VERSION_AT, 1)[0]
    if version < _FIRST_CHECKSUMMED:
        return _old(source, base, version)
    if version > _NEWEST:
        raise UnsupportedStructureError(f"superblock version {version}")
    data = source.get(base, _NEW_END, _AHEAD)
    verify_checksum(data, "the superblock")
    offsets, lengths, flags, stored_base, extension, end, root = _NEW.unpack_from(data, _VERSION_AT + 1)
    _check(offsets, lengths, flags)
    return _checked(Superblock(version, base, end, root, extension=extension), stored_base, source.size)


def _find(source: ByteSource) -> int:
    position = 0
    for _ in range(_MAX_POSITIONS):
        if position + _NEW_END > source.size:
            break
        if source.get(position, len(SIGNATURE), _AHEAD) == SIGNATURE:
            return position
        position = position * 2 or 512
    raise UnsupportedStructureError("no signature")


def _old(source: ByteSource, base: int, version: int) -> Superblock:
    start = _OLD_END + 4 * (version >= _FIRST_INDEXED_K)
    data = source.get(base, start + _OLD_ADDRESSES.size + _ENTRY_SIZE, _AHEAD)
    offsets, lengths = data[_OLD_SIZES_AT], data[_OLD_SIZES_AT + 1]
    leaf, internal, flags = _OLD.unpack_from(data, 16)
    _check(offsets, lengths, flags)
    if any((data[9], data[10], data[12])):
        raise UnsupportedStructureError("versions in the superblock")
    chunk = int.from_bytes(data[24:26], "little") if version >= _FIRST_INDEXED_K else 32
    stored_base, _free, end, driver = _OLD_ADDRESSES.unpack_from(data, start)
    if driver != UNDEFINED:
        raise UnsupportedStructureError("driver information")
    _, root, kind, *links = _ROOT_ENTRY.unpack_from(data, start + _OLD_ADDRESSES.size)
    if not (leaf and internal and chunk):
        raise DamagedStructureError("the superblock has nodes without entries")
    found = Superblock(version, base, end, root, leaf, internal, chunk)
    if kind == _HAS_LINKS:
        found = found._replace(root_links=(links[0], links[1]))
    return _checked(found, stored_base, source.size)


def _check(offsets: int, lengths: int, flags: int) -> None:
    if (offsets, lengths) != (_WIDTH, _WIDTH):
        raise UnsupportedStructureError(f"addresses of {offsets} and lengths of {lengths} bytes")
    if flags:
        raise UnsupportedStructureError("consistency flags: the file was not closed properly")


def _checked(found: Superblock, stored_base: int, size: int) -> Superblock:
    if stored_base != found.base:
        raise UnsupportedStructureError("a base address that is not where the superblock is")
    if found.end > size:
        raise DamagedStructureError("the file is shorter than its superblock says")
    if found.root == UNDEFINED:
        raise UnsupportedStructureError("no root group")
    return found


class FileBytes(Protocol):
    """The bytes of a file by address: what decoders of its structures read from."""

    @property
    def source(self) -> ByteSource:
        """The bytes, by position in the file."""
        ...

    @property
    def superblock(self) -> Superblock:
        """The superblock."""
        ...

    @property
    def base(self) -> int:
        """Position of address 0."""
        ...

    def get(self, address: int, size: int, ahead: int = 0) -> bytes:
        """Return bytes from an address on; `ahead` bytes are likely to be needed from there."""
        ...

    def verify(self, data: bytes, what: str) -> None:
        """Have the checksum verified that the last four bytes are, before anything of this parse is used."""
        ...
