"""Object headers (HDF5 File Format Specification, IV.A): undecoded messages by type."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from lazynwb.formats.hdf5.binary import (
    U8,
    DamagedStructureError,
    MissingRangesError,
    UnsupportedStructureError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lazynwb.formats.hdf5.messages import DataLayout
    from lazynwb.formats.hdf5.superblock import FileBytes

(
    NIL,
    DATASPACE,
    LINK_INFO,
    DATATYPE,
    OLD_FILL,
    FILL,
    LINK,
    EXTERNAL_FILES,
    LAYOUT,
    _BOGUS,
    GROUP_INFO,
    FILTERS,
    ATTRIBUTE,
    _COMMENT,
    _OLD_TIME,
    SHARED_TABLE,
    CONTINUATION,
    SYMBOL_TABLE,
    _TIME,
    BTREE_K,
    DRIVER_INFO,
    ATTRIBUTE_INFO,
    _REFERENCE_COUNT,
    _FILE_SPACE,
    CACHE_IMAGE,
) = range(25)
_KNOWN = frozenset(range(25)) - {_BOGUS}
#: Types of messages that may not be repeated.
_SINGLE = frozenset(
    {DATASPACE, LINK_INFO, DATATYPE, OLD_FILL, FILL, LAYOUT, FILTERS, SYMBOL_TABLE, ATTRIBUTE_INFO}
)

SHARED = 0x02
_V1_PREFIX = struct.Struct("<BxHII4x")
_V1_MESSAGE = struct.Struct("<HHB3x")
_V2_MESSAGE = struct.Struct("<BHB")
_BLOCK = struct.Struct("<QQ")
_V1, _V2 = 1, 2
_V2_SIGNATURE, _CONTINUATION_SIGNATURE = b"OHDR", b"OCHK"
_TIMES, _PHASE_CHANGE, _ORDER, _RESERVED_FLAGS = 0x20, 0x10, 0x04, 0xC0
#: Maximum number of continuation blocks; libhdf5 writes a few.
_MAX_BLOCKS = 10_000
#: Bytes to prefetch at a header; most are shorter.
_PREFETCH = 256

Message = tuple[int, bytes]


class ObjectHeader:
    """Messages of an object.

    Attributes
    ----------
    address : int
        Address of the header.
    messages : dict of int to (flags, body)
        Messages by type; of repeated messages, the first.
    layout : DataLayout or None
        Cached result of decoding the layout message.
    missing : MissingRangesError or None
        Error of a block that has not been fetched. A parse with such a header continues only to record other
        missing ranges, and is repeated.
    """

    __slots__ = ("_repeated", "address", "layout", "messages", "missing")

    def __init__(self, address: int) -> None:
        self.address = address
        self.messages: dict[int, Message] = {}
        self._repeated: dict[int, list[Message]] = {}
        self.layout: DataLayout | None = None
        self.missing: MissingRangesError | None = None

    def add(self, kind: int, flags: int, body: bytes) -> None:
        """Add a message; raise `DamagedStructureError` if its type may not be repeated."""
        if kind not in self.messages:
            self.messages[kind] = flags, body
        elif kind in _SINGLE:
            raise DamagedStructureError(f"more than one message of type {kind}")
        elif kind in self._repeated:
            self._repeated[kind].append((flags, body))
        else:
            self._repeated[kind] = [self.messages[kind], (flags, body)]

    def all(self, kind: int) -> Sequence[Message]:
        """Return the messages of a type."""
        return self._repeated.get(kind) or ((self.messages[kind],) if kind in self.messages else ())


def read_header(file: FileBytes, address: int) -> ObjectHeader:
    """Read the header at an address, with its continuation blocks.

    Returns
    -------
    ObjectHeader
        The header. That of a group may lack messages, if the location of its links is known.

    Raises
    ------
    DamagedStructureError
    UnsupportedStructureError
    MissingRangesError
    """
    start = file.get(address, 16, _PREFETCH)
    header = ObjectHeader(address)
    if start[:4] == _V2_SIGNATURE:
        _read_v2(file, start, header)
    elif start[0] == _V1:
        _read_v1(file, start, header)
    else:
        raise DamagedStructureError(f"no object header at {address}")
    if not header.messages.keys() <= _KNOWN:
        raise UnsupportedStructureError(f"messages of types {sorted(header.messages.keys() - _KNOWN)}")
    if header.missing is not None and not is_group(header):
        raise header.missing
    return header


def unfetched_group(address: int, links: tuple[int, int], missing: MissingRangesError) -> ObjectHeader:
    """Return a header for a group that has not been fetched, with cached addresses of B-tree and heap."""
    header = ObjectHeader(address)
    header.add(SYMBOL_TABLE, 0, _BLOCK.pack(*links))
    header.missing = missing
    return header


def is_group(header: ObjectHeader) -> bool:
    """Return whether an object is a group."""
    return SYMBOL_TABLE in header.messages or LINK_INFO in header.messages


def _read_v1(file: FileBytes, start: bytes, header: ObjectHeader) -> None:
    _, count, _links, size = _V1_PREFIX.unpack(start)
    blocks = [(header.address + 16, size)]
    messages = header.messages
    seen = 0
    number = 0
    visited = set()
    while number < len(blocks):
        position, length = blocks[number]
        if position in visited or number > _MAX_BLOCKS:
            raise DamagedStructureError("the continuation blocks of an object header form a cycle")
        visited.add(position)
        number += 1
        data = _block(file, header, position, length)
        pattern, parts = _parse_v1_block(data)
        seen += pattern.total
        for kind, flags, place in pattern.messages:
            if kind in messages:
                header.add(kind, flags, parts[place])
            else:
                messages[kind] = flags, parts[place]
        blocks += [_continuation(parts[place]) for place in pattern.continuations]
    if seen != count and header.missing is None:
        raise DamagedStructureError(f"an object header has {seen} messages, expected {count}")


class _Pattern(NamedTuple):
    """Types and sizes of the messages in a block of a version 1 header.

    Attributes
    ----------
    unpack : callable
        Function that splits a block into alternating prefixes and bodies of messages.
    prefixes : tuple of bytes
        Prefixes of the messages.
    messages : tuple of (kind, flags, place)
        Messages other than continuation and NIL; `place` is the index of the body in the unpacked block.
    continuations : tuple of int
        Indices of the bodies of continuation messages.
    total : int
        Number of messages, NIL included.
    """

    unpack: Callable[[bytes], tuple[bytes, ...]]
    prefixes: tuple[bytes, ...]
    messages: tuple[tuple[int, int, int], ...]
    continuations: tuple[int, ...]
    total: int


#: Patterns by length of the block. Columns of a table share a few of them.
_patterns: dict[int, list[_Pattern]] = {}
_MAX_PATTERNS, _MAX_LENGTHS, _MAX_PATTERN_BYTES = 16, 256, 4096


def _parse_v1_block(data: bytes) -> tuple[_Pattern, tuple[bytes, ...]]:
    """Split a block of a version 1 header into messages, with a cached pattern if one matches."""
    known = _patterns.get(len(data), [])
    for number, pattern in enumerate(known):
        parts = pattern.unpack(data)
        if parts[::2] == pattern.prefixes:
            if number:  # move frequent patterns to the front
                known[number - 1 : number + 1] = pattern, known[number - 1]
            return pattern, parts
    pattern = _find_pattern(data)
    if len(data) <= _MAX_PATTERN_BYTES:
        if len(_patterns) >= _MAX_LENGTHS:
            _patterns.clear()
        _patterns[len(data)] = [pattern, *known[: _MAX_PATTERNS - 1]]
    return pattern, pattern.unpack(data)


def _find_pattern(data: bytes) -> _Pattern:
    """Return the pattern of a block of a version 1 header."""
    at, length = 0, len(data)
    last = length - 8
    prefixes: list[bytes] = []
    messages: list[tuple[int, int, int]] = []
    continuations: list[int] = []
    layout = ["<"]
    while at <= last:
        kind, extent, flags = _V1_MESSAGE.unpack_from(data, at)
        end = at + 8 + extent
        if end > length or extent & 7:
            raise DamagedStructureError("a message extends past its object header")
        place = 2 * len(prefixes) + 1
        if kind == CONTINUATION:
            continuations.append(place)
        elif kind:
            messages.append((kind, flags, place))
        prefixes.append(data[at : at + 8])
        layout.append(f"8s{extent}s")
        at = end
    if at != length:
        raise DamagedStructureError("an object header has trailing bytes")
    unpack = struct.Struct("".join(layout)).unpack
    return _Pattern(unpack, tuple(prefixes), tuple(messages), tuple(continuations), len(prefixes))


def _block(file: FileBytes, header: ObjectHeader, position: int, length: int) -> bytes:
    """Return a block of a header; if it is missing, record the error in the header and return nothing."""
    try:
        return file.get(position, length, _PREFETCH)
    except MissingRangesError as error:
        header.missing = error
        return b""


def _continuation(body: bytes) -> tuple[int, int]:
    if len(body) < _BLOCK.size:
        raise DamagedStructureError("a continuation message is too short")
    position, length = _BLOCK.unpack_from(body)
    if not length:
        raise DamagedStructureError("a continuation message with an empty block")
    return position, length


def _read_v2(file: FileBytes, start: bytes, header: ObjectHeader) -> None:
    address = header.address
    version, flags = start[4], start[5]
    if version != _V2 or flags & _RESERVED_FLAGS:
        raise UnsupportedStructureError(f"object header version {version} with flags {flags}")
    width = 1 << (flags & 3)
    prefix = 6 + (16 if flags & _TIMES else 0) + (4 if flags & _PHASE_CHANGE else 0)
    head = start if prefix + width <= len(start) else file.get(address, prefix + width, _PREFETCH)
    size = int.from_bytes(head[prefix : prefix + width], "little")
    whole = file.get(address, prefix + width + size + 4, _PREFETCH)
    file.queue_checksum(whole, "an object header")
    ordered = bool(flags & _ORDER)
    blocks: list[tuple[int, int]] = []
    _add_v2_messages(whole, prefix + width, ordered, header, blocks)
    visited = {address}
    number = 0
    while number < len(blocks):
        position, length = blocks[number]
        if position in visited or number > _MAX_BLOCKS:
            raise DamagedStructureError("the continuation blocks of an object header form a cycle")
        visited.add(position)
        number += 1
        data = _block(file, header, position, length)
        if not data:
            continue
        if data[:4] != _CONTINUATION_SIGNATURE:
            raise DamagedStructureError("no continuation block of an object header")
        file.queue_checksum(data, "a continuation block of an object header")
        _add_v2_messages(data, 4, ordered, header, blocks)


def _add_v2_messages(
    data: bytes,
    at: int,
    ordered: bool,  # noqa: FBT001
    header: ObjectHeader,
    blocks: list[tuple[int, int]],
) -> None:
    messages = header.messages
    unpack = _V2_MESSAGE.unpack_from
    size = 6 if ordered else 4
    stop = len(data) - 4
    while at + size <= stop:
        kind, extent, flags = unpack(data, at)
        at += size
        end = at + extent
        if end > stop:
            raise DamagedStructureError("a message extends past its object header")
        if kind == CONTINUATION:
            blocks.append(_continuation(data[at:end]))
        elif kind:
            if kind in messages:
                header.add(kind, flags, data[at:end])
            else:
                messages[kind] = flags, data[at:end]
        at = end


def shared_address(body: bytes) -> int:
    """Return the address of the object that holds a shared message (IV.A.2, "Shared Message").

    Raises
    ------
    UnsupportedStructureError
        If the message is in the shared message table of the file.
    """
    version = body[0]
    if version == 1 and len(body) >= 16:  # noqa: PLR2004
        return int(U8.unpack_from(body, 8)[0])
    if version in {2, 3} and len(body) >= 10:  # noqa: PLR2004
        if version == 3 and body[1] != 2:  # noqa: PLR2004 - 2: committed
            raise UnsupportedStructureError("a message in the shared message table of the file")
        return int(U8.unpack_from(body, 2)[0])
    raise UnsupportedStructureError(f"a shared message of version {version}")
