"""Superblocks (HDF5 File Format Specification, II.A): base address, root group, sizes of B-tree nodes."""

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

_K_AND_FLAGS = struct.Struct("<HHI")
_V0_ADDRESSES = struct.Struct("<QQQQ")
_ROOT_ENTRY = struct.Struct("<QQI4xQQ")
_V2 = struct.Struct("<BBBQQQQ")
_VERSION_AT, _V0_SIZES_AT = 8, 13
_V0_END, _V2_END = 24, 48
_ENTRY_SIZE = 40
_CACHED_GROUP = 1
_FIRST_INDEXED_K, _FIRST_CHECKSUMMED, _NEWEST = 1, 2, 3
_OFFSET_SIZE = 8
_MAX_POSITIONS = 50
#: Bytes to prefetch: the root group usually follows the superblock.
_PREFETCH = 4096


class Superblock(NamedTuple):
    """Decoded superblock.

    Attributes
    ----------
    version : int
        Version of the superblock.
    base : int
        Base address: position of address 0, the size of the user block.
    end : int
        End-of-file address.
    root : int
        Address of the object header of the root group.
    group_leaf_k, group_internal_k, chunk_k : int
        Half of the maximum number of entries of symbol table nodes, and of B-tree nodes of groups and chunks.
    extension : int
        Address of the superblock extension, an object header; `UNDEFINED` if there is none.
    root_links : (int, int) or None
        Cached addresses of the B-tree and local heap of the root group, if any.
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
    """Locate and decode the superblock.

    Raises
    ------
    UnsupportedStructureError
        If there is no superblock, or its version, size of offsets or flags are not supported.
    DamagedStructureError
        If it is inconsistent, or its end-of-file address is past the end of the file.
    """
    base = _locate(source)
    version = source.get(base + _VERSION_AT, 1)[0]
    if version < _FIRST_CHECKSUMMED:
        return _decode_version_0_or_1(source, base, version)
    if version > _NEWEST:
        raise UnsupportedStructureError(f"superblock version {version}")
    data = source.get(base, _V2_END, _PREFETCH)
    verify_checksum(data, "the superblock")
    offsets, lengths, flags, stored_base, extension, end, root = _V2.unpack_from(data, _VERSION_AT + 1)
    _check_sizes_and_flags(offsets, lengths, flags)
    return _validated(Superblock(version, base, end, root, extension=extension), stored_base, source.size)


def _locate(source: ByteSource) -> int:
    position = 0
    for _ in range(_MAX_POSITIONS):
        if position + _V2_END > source.size:
            break
        if source.get(position, len(SIGNATURE), _PREFETCH) == SIGNATURE:
            return position
        position = position * 2 or 512
    raise UnsupportedStructureError("no signature")


def _decode_version_0_or_1(source: ByteSource, base: int, version: int) -> Superblock:
    start = _V0_END + 4 * (version >= _FIRST_INDEXED_K)
    data = source.get(base, start + _V0_ADDRESSES.size + _ENTRY_SIZE, _PREFETCH)
    offsets, lengths = data[_V0_SIZES_AT], data[_V0_SIZES_AT + 1]
    leaf, internal, flags = _K_AND_FLAGS.unpack_from(data, 16)
    _check_sizes_and_flags(offsets, lengths, flags)
    if any((data[9], data[10], data[12])):
        raise UnsupportedStructureError("unknown versions of structures in the superblock")
    chunk = int.from_bytes(data[24:26], "little") if version >= _FIRST_INDEXED_K else 32
    stored_base, _free, end, driver = _V0_ADDRESSES.unpack_from(data, start)
    if driver != UNDEFINED:
        raise UnsupportedStructureError("a driver information block")
    _, root, kind, *links = _ROOT_ENTRY.unpack_from(data, start + _V0_ADDRESSES.size)
    if not (leaf and internal and chunk):
        raise DamagedStructureError("the superblock allows no entries in nodes")
    found = Superblock(version, base, end, root, leaf, internal, chunk)
    if kind == _CACHED_GROUP:
        found = found._replace(root_links=(links[0], links[1]))
    return _validated(found, stored_base, source.size)


def _check_sizes_and_flags(offsets: int, lengths: int, flags: int) -> None:
    if (offsets, lengths) != (_OFFSET_SIZE, _OFFSET_SIZE):
        raise UnsupportedStructureError(f"offsets of {offsets} bytes and lengths of {lengths} bytes")
    if flags:
        raise UnsupportedStructureError("file consistency flags: the file was not closed")


def _validated(found: Superblock, stored_base: int, size: int) -> Superblock:
    if stored_base != found.base:
        raise UnsupportedStructureError("a base address other than the position of the superblock")
    if found.end > size:
        raise DamagedStructureError("the file is truncated: it is shorter than its end-of-file address")
    if found.root == UNDEFINED:
        raise UnsupportedStructureError("no root group")
    return found


class FileBytes(Protocol):
    """The bytes of a file by address."""

    @property
    def source(self) -> ByteSource:
        """The bytes by position in the file."""
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
        """Return bytes at an address; a remote file fetches at least `ahead` bytes from there."""
        ...

    def queue_checksum(self, data: bytes, what: str) -> None:
        """Queue a structure, whose last four bytes are its checksum, for verification after the parse."""
        ...
