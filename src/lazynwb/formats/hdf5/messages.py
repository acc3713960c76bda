"""Header messages (HDF5 File Format Specification, IV.A.2): dataspace, fill value, layout, filters, links.

Messages that are often identical across objects are cached per process.
"""

from __future__ import annotations

import math
import struct
from functools import lru_cache
from typing import NamedTuple

from lazynwb.formats.hdf5.binary import (
    U2,
    U4,
    U8,
    UNDEFINED,
    DamagedStructureError,
    UnsupportedStructureError,
)

_MAX_DIMENSIONS = 32
_UNLIMITED = 2**64 - 1
_NULL = 2
#: Layout classes, and chunk indexing types.
COMPACT, CONTIGUOUS, CHUNKED, VIRTUAL = range(4)
BTREE_1, SINGLE, IMPLICIT, FIXED_ARRAY, EXTENSIBLE_ARRAY, BTREE_2 = range(6)
_UNFILTERED_EDGES, _FILTERED_SINGLE = 1, 2
HARD, SOFT, EXTERNAL = 0, 1, 64
_MAX_FILTERS = 32
_FIRST_WITH_OWN_NAME = 256


class Dataspace(NamedTuple):
    """Shape (None for a null dataspace) and maximum sizes."""

    shape: tuple[int, ...] | None
    limits: tuple[int, ...]

    @property
    def only_inner_unlimited(self) -> bool:
        """Whether exactly one dimension is unlimited, and it is not the first."""
        return bool(self.limits) and self.limits.count(_UNLIMITED) == 1 and self.limits[0] != _UNLIMITED


@lru_cache(maxsize=4096)
def decode_dataspace(data: bytes) -> Dataspace:
    """Decode a dataspace message."""
    if len(data) < 4:  # noqa: PLR2004
        raise DamagedStructureError("a dataspace message is too short")
    version, rank, flags, kind = data[:4]
    at = 8 if version == 1 else 4
    if version not in {1, 2} or flags & ~(3 if version == 1 else 1) or flags & 2:
        raise UnsupportedStructureError(f"a dataspace of version {version} with flags {flags}")
    if rank > _MAX_DIMENSIONS:
        raise DamagedStructureError(f"a dataspace of {rank} dimensions")
    if version == 2:  # noqa: PLR2004
        if kind > _NULL or (rank and kind != 1) or (not rank and kind == 1):
            raise DamagedStructureError("a dataspace is inconsistent")
        if kind == _NULL:
            return Dataspace(None, ())
    count = rank * (2 if flags & 1 else 1)
    if len(data) < at + 8 * count:
        raise DamagedStructureError("a dataspace message is too short")
    sizes = struct.unpack_from(f"<{count}Q", data, at)
    shape, limits = sizes[:rank], sizes[rank:] or sizes[:rank]
    if any(n > limit for n, limit in zip(shape, limits, strict=True)) or max(shape, default=0) >= 2**63:
        raise DamagedStructureError("a dataspace exceeds its maximum size")
    return Dataspace(shape, limits)


class Fill(NamedTuple):
    """A stored fill value; None if no user-defined value exists."""

    value: bytes | None


@lru_cache(maxsize=1024)
def decode_fill_value(data: bytes) -> Fill:
    """Decode a fill value message."""
    version = data[0] if data else 0
    if version in {1, 2} and len(data) >= 4:  # noqa: PLR2004
        allocation, when, defined = data[1:4]
        if allocation > 3 or when > 2 or defined > 1:  # noqa: PLR2004
            raise DamagedStructureError("a fill value message is inconsistent")
        if version == 2 and not defined:  # noqa: PLR2004
            return Fill(None)
        value = _length_prefixed(data, 4)
        return Fill(value if value and defined else None)
    if version == 3 and len(data) >= 2:  # noqa: PLR2004
        flags = data[1]
        if flags & 0xC0 or flags & 0x30 == 0x30 or flags >> 2 & 3 > 2:  # noqa: PLR2004
            raise UnsupportedStructureError(f"a fill value with flags {flags}")
        return Fill((_length_prefixed(data, 2) or None) if flags & 0x20 else None)
    raise UnsupportedStructureError(f"a fill value of version {version}")


@lru_cache(maxsize=1024)
def decode_old_fill_value(data: bytes) -> Fill:
    """Decode a fill value (old) message."""
    return Fill(_length_prefixed(data, 0) or None)


def _length_prefixed(data: bytes, at: int) -> bytes:
    if len(data) < at + 4:
        raise DamagedStructureError("a fill value message is too short")
    size = U4.unpack_from(data, at)[0]
    if len(data) < at + 4 + size:
        raise DamagedStructureError("a fill value message is too short")
    return data[at + 4 : at + 4 + size]


class DataLayout(NamedTuple):
    """Data layout of a dataset.

    Attributes
    ----------
    kind : int
        Layout class: COMPACT, CONTIGUOUS, CHUNKED or VIRTUAL.
    address : int
        Address of contiguous data or of the chunk index; `UNDEFINED` if no storage is allocated.
    size : int
        Size of contiguous data in bytes; -1 if it is not stored.
    data : bytes
        Compact data.
    chunk : tuple of int
        Shape of a chunk.
    element_size : int
        Size of an element in bytes, of a chunked layout.
    index_type : int
        Chunk indexing type.
    index_parameters : tuple of int
        Parameters of the chunk index; for a single chunk its stored size and filter mask.
    unfiltered_edges : bool
        Whether partial edge chunks are not filtered.
    """

    kind: int
    address: int = UNDEFINED
    size: int = -1
    data: bytes = b""
    chunk: tuple[int, ...] = ()
    element_size: int = 0
    index_type: int = BTREE_1
    index_parameters: tuple[int, ...] = ()
    unfiltered_edges: bool = False


class ChunkedDataset(NamedTuple):
    """Properties of a chunked dataset that its chunk index depends on.

    Attributes
    ----------
    shape : tuple of int
        Shape of the dataset.
    limits : tuple of int
        Maximum sizes of the dimensions.
    layout : DataLayout
        Layout of class CHUNKED.
    filters : int
        Number of filters in the pipeline.
    """

    shape: tuple[int, ...]
    limits: tuple[int, ...]
    layout: DataLayout
    filters: int

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of chunks along each dimension."""
        return tuple(-(-n // c) for n, c in zip(self.shape, self.layout.chunk, strict=True))

    @property
    def chunk_size(self) -> int:
        """Size of an unfiltered chunk in bytes."""
        return math.prod(self.layout.chunk) * self.layout.element_size


def decode_layout(data: bytes) -> DataLayout:
    """Decode a data layout message."""
    try:
        version = data[0]
        if version in {1, 2}:
            return _layout_1_or_2(data)
        if version == 3:  # noqa: PLR2004
            return _layout_3(data)
        if version in {4, 5}:
            return _layout_4(data)
    except (struct.error, IndexError):
        raise DamagedStructureError("a layout message is too short") from None
    raise UnsupportedStructureError(f"a layout of version {version}")


def _layout_1_or_2(data: bytes) -> DataLayout:
    rank, kind = data[1], data[2]
    at, address = 8, UNDEFINED
    if not 0 < rank <= _MAX_DIMENSIONS + 1:
        raise DamagedStructureError(f"a layout of {rank} dimensions")
    if kind != COMPACT:
        address, at = U8.unpack_from(data, at)[0], 16
    dims = struct.unpack_from(f"<{rank}I", data, at)
    at += 4 * rank
    if kind == CONTIGUOUS:
        return DataLayout(kind, address)
    if kind == COMPACT:
        size = U4.unpack_from(data, at)[0]
        return DataLayout(kind, size=size, data=_slice_exactly(data, at + 4, size))
    if kind == CHUNKED:
        return _chunked(address, dims)
    raise UnsupportedStructureError(f"a layout of class {kind}")


def _layout_3(data: bytes) -> DataLayout:
    kind = data[1]
    if kind == COMPACT:
        size = U2.unpack_from(data, 2)[0]
        return DataLayout(kind, size=size, data=_slice_exactly(data, 4, size))
    if kind == CONTIGUOUS:
        return DataLayout(kind, U8.unpack_from(data, 2)[0], U8.unpack_from(data, 10)[0])
    if kind == CHUNKED:
        rank = data[2]
        return _chunked(U8.unpack_from(data, 3)[0], struct.unpack_from(f"<{rank}I", data, 11))
    raise UnsupportedStructureError(f"a layout of class {kind}")


def _chunked(address: int, dims: tuple[int, ...]) -> DataLayout:
    if len(dims) < 2 or not all(dims):  # noqa: PLR2004
        raise DamagedStructureError("chunks without elements")
    return DataLayout(CHUNKED, address, -1, b"", dims[:-1], dims[-1])


def _layout_4(data: bytes) -> DataLayout:
    kind = data[1]
    if kind in {COMPACT, CONTIGUOUS}:
        return _layout_3(data)
    if kind == VIRTUAL:
        return DataLayout(kind)
    if kind != CHUNKED:
        raise UnsupportedStructureError(f"a layout of class {kind}")
    rank, width = data[3:5]
    at = 6 + width * rank
    chunk, element, index, flags = _chunks_4(data[:at])
    parameters: tuple[int, ...] = ()
    if index == SINGLE:
        if flags & _FILTERED_SINGLE:
            parameters = struct.unpack_from("<QI", data, at)
            at += 12
    elif index == FIXED_ARRAY:
        parameters, at = (data[at],), at + 1
    elif index == EXTENSIBLE_ARRAY:
        parameters, at = tuple(data[at : at + 5]), at + 5
    elif index == BTREE_2:
        parameters, at = struct.unpack_from("<IBB", data, at), at + 6
    elif index != IMPLICIT:
        raise UnsupportedStructureError(f"chunk indexing type {index}")
    address = U8.unpack_from(data, at)[0]
    unfiltered_edges = bool(flags & _UNFILTERED_EDGES)
    return DataLayout(CHUNKED, address, -1, b"", chunk, element, index, parameters, unfiltered_edges)


@lru_cache(maxsize=1024)
def _chunks_4(data: bytes) -> tuple[tuple[int, ...], int, int, int]:
    """Decode the part that similar columns share: chunk shape, element size, indexing type, and flags."""
    flags, rank, width = data[2:5]
    if flags & ~(_UNFILTERED_EDGES | _FILTERED_SINGLE) or not 0 < width <= 8 or rank < 2:  # noqa: PLR2004
        raise UnsupportedStructureError(
            f"chunks of {rank - 1} dimensions, {width} bytes each, with flags {flags}"
        )
    places = range(5, 5 + width * rank, width)
    dims = tuple(int.from_bytes(data[at : at + width], "little") for at in places)
    found = _chunked(UNDEFINED, dims)
    return found.chunk, found.element_size, data[5 + width * rank], flags


def _slice_exactly(data: bytes, at: int, size: int) -> bytes:
    found = data[at : at + size]
    if len(found) != size:
        raise DamagedStructureError("a layout message is too short")
    return found


Filter = tuple[int, tuple[int, ...]]


@lru_cache(maxsize=1024)
def decode_filters(data: bytes) -> tuple[Filter, ...]:
    """Decode a filter pipeline message to filter identification values and client data."""
    version = data[0] if data else 0
    if version not in {1, 2}:
        raise UnsupportedStructureError(f"a filter pipeline of version {version}")
    found = []
    try:
        count = data[1]
        if count > _MAX_FILTERS:
            raise DamagedStructureError(f"{count} filters")
        at = 8 if version == 1 else 2
        for _ in range(count):
            number = U2.unpack_from(data, at)[0]
            named = version == 1 or number >= _FIRST_WITH_OWN_NAME
            at += 2
            length = U2.unpack_from(data, at)[0] if named else 0
            at += 2 if named else 0
            if version == 1 and length & 7:
                raise DamagedStructureError("the length of a filter name is not a multiple of eight")
            values = U2.unpack_from(data, at + 2)[0]
            at += 4 + length
            found.append((number, struct.unpack_from(f"<{values}I", data, at)))
            at += 4 * values
            if version == 1 and values & 1:
                at += 4
    except (struct.error, IndexError):
        raise DamagedStructureError("a filter pipeline message is too short") from None
    return tuple(found)


class Link(NamedTuple):
    """Target of a link.

    Attributes
    ----------
    kind : int
        Link type: HARD, SOFT, EXTERNAL, or that of a user-defined link.
    address : int
        Address of the object header, of a hard link.
    value : bytes
        Target path, of a soft or an external link.
    file : bytes
        File name, of an external link.
    group : tuple of int or None
        Cached addresses of the B-tree and the local heap of a target group.
    order : int
        Creation order, if the group tracks it.
    """

    kind: int
    address: int = UNDEFINED
    value: bytes = b""
    file: bytes = b""
    group: tuple[int, int] | None = None
    order: int = 0


def decode_link(data: bytes) -> tuple[bytes, Link]:
    """Decode a link message to name and link."""
    try:
        return _link(data)
    except (struct.error, IndexError):
        raise DamagedStructureError("a link message is too short") from None


def _link(data: bytes) -> tuple[bytes, Link]:  # noqa: C901, PLR0912
    version, flags = data[0], data[1]
    if version != 1 or flags & 0xE0:
        raise UnsupportedStructureError(f"a link of version {version} with flags {flags}")
    at = 2
    kind = HARD
    if flags & 8:
        kind, at = data[at], at + 1
    order = 0
    if flags & 4:
        order, at = U8.unpack_from(data, at)[0], at + 8
    if flags & 16:
        if data[at] > 1:
            raise DamagedStructureError("the name of a link has an unknown character set")
        at += 1
    width = 1 << (flags & 3)
    length = int.from_bytes(data[at : at + width], "little")
    at += width
    name = data[at : at + length]
    at += length
    if not length or len(name) != length:
        raise DamagedStructureError("a link has no name")
    if kind == HARD:
        return name, Link(HARD, U8.unpack_from(data, at)[0], order=order)
    size = U2.unpack_from(data, at)[0]
    value = data[at + 2 : at + 2 + size]
    if len(value) != size:
        raise DamagedStructureError("a link message is too short")
    if kind == SOFT:
        if not size:
            raise DamagedStructureError("a soft link without a path")
        return name, Link(SOFT, value=value, order=order)
    if kind == EXTERNAL:
        file, end, rest = value[1:].partition(b"\0")
        path, last, _ = rest.partition(b"\0")
        if not value or value[0] or not end or not last:
            raise UnsupportedStructureError("an external link of an unknown version")
        return name, Link(EXTERNAL, value=path, file=file, order=order)
    if kind < EXTERNAL:
        raise DamagedStructureError(f"a link of type {kind}")
    return name, Link(kind, order=order)


class DenseStorage(NamedTuple):
    """Dense storage of links or attributes: addresses of the fractal heap and of the B-tree of names."""

    heap: int
    names: int
    tracked: bool


def decode_link_info(data: bytes) -> DenseStorage:
    """Decode a link info message."""
    if len(data) < 18 or data[0] or data[1] & ~3:  # noqa: PLR2004
        raise UnsupportedStructureError("a link info message of an unknown version")
    at = 10 if data[1] & 1 else 2
    return _dense(data, at, data[1])


def decode_attribute_info(data: bytes) -> DenseStorage:
    """Decode an attribute info message."""
    if len(data) < 18 or data[0] or data[1] & ~3:  # noqa: PLR2004
        raise UnsupportedStructureError("an attribute info message of an unknown version")
    at = 4 if data[1] & 1 else 2
    return _dense(data, at, data[1])


def _dense(data: bytes, at: int, flags: int) -> DenseStorage:
    if len(data) < at + (24 if flags & 2 else 16):
        raise DamagedStructureError("a link or attribute info message is too short")
    return DenseStorage(U8.unpack_from(data, at)[0], U8.unpack_from(data, at + 8)[0], bool(flags & 1))
