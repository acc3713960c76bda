"""Checksums of HDF5's metadata: Bob Jenkins' lookup3, little-endian, from 0.

A parse notes what it has read, and all of it is verified before anything of the parse is used: then those of
many short structures, such as the object headers of a table's columns, are computed side by side.
"""

from __future__ import annotations

import struct
import sys
from functools import cache
from typing import TYPE_CHECKING

from lazynwb.formats.hdf5.binary import U4, DamagedStructureError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CHECKSUM_SIZE = 4
_WORD = 0xFFFFFFFF
_SEED = 0xDEADBEEF
_BLOCK = 12
#: Structures up to this size are computed side by side, from so many on.
_LARGEST_LANE, _FEWEST_LANES = 4096, 3
#: Bits from one lane to the next: a word, and room for what is carried and rotated out of it.
_LANE = 64
#: Bytes whose checksums take as long in Python as it takes to import numcodecs; of several structures that
#: are computed side by side the longest counts.
_WORTH_AN_IMPORT = 160 * 1024
#: Structures, and bytes, that are noted before they are verified.
_MOST_NOTED, _MOST_BYTES = 4096, 4 << 20
_checksummed = 0


class Checksums:
    """Structures that a parse has read and that are to be verified."""

    __slots__ = ("_noted", "_size")

    def __init__(self) -> None:
        self._noted: dict[bytes, str] = {}
        self._size = 0

    def note(self, data: bytes, what: str) -> None:
        """Note a structure whose last four bytes are the checksum of those before."""
        self._noted[data] = what
        self._size += len(data)
        if len(self._noted) >= _MOST_NOTED or self._size >= _MOST_BYTES:
            self.verify()

    def verify(self) -> None:
        """Raise `DamagedStructureError` if a checksum of what was noted does not match."""
        if not self._noted:
            return
        noted, self._noted, self._size = self._noted, {}, 0
        found = lookup3([data[:-CHECKSUM_SIZE] for data in noted])
        for (data, what), checksum in zip(noted.items(), found, strict=True):
            if data[-CHECKSUM_SIZE:] != U4.pack(checksum):
                # Once and for all: what was decoded is kept, and a later parse would not note it again.
                self._noted[data] = what
                raise DamagedStructureError(f"the checksum of {what} does not match")


def verify_checksum(data: bytes, what: str) -> None:
    """Raise `DamagedStructureError` unless the last four bytes are the checksum of those before."""
    if data[-CHECKSUM_SIZE:] != U4.pack(lookup3([data[:-CHECKSUM_SIZE]])[0]):
        raise DamagedStructureError(f"the checksum of {what} does not match")


def lookup3(structures: Sequence[bytes]) -> list[int]:
    """Return the checksums of structures."""
    global _checksummed  # noqa: PLW0603 - of the process
    lanes = [data for data in structures if 0 < len(data) <= _LARGEST_LANE]
    if len(lanes) < _FEWEST_LANES:
        lanes = []
    alone = sum(map(len, structures)) - sum(map(len, lanes))
    _checksummed += alone + max(map(len, lanes), default=0)
    if _checksummed >= _WORTH_AN_IMPORT or "numcodecs.checksum32" in sys.modules:
        return list(map(_compiled_lookup3(), structures))
    if not lanes:
        return list(map(plain_lookup3, structures))
    side_by_side = iter(parallel_lookup3(lanes))
    return [
        next(side_by_side) if 0 < len(data) <= _LARGEST_LANE else plain_lookup3(data) for data in structures
    ]


@cache
def _compiled_lookup3() -> Callable[[bytes], int]:
    """Return the function of numcodecs, which is optional, or else the one in Python."""
    try:
        from numcodecs.checksum32 import jenkins_lookup3
    except ImportError:
        return plain_lookup3
    compiled: Callable[[bytes], int] = jenkins_lookup3
    return compiled


def parallel_lookup3(structures: Sequence[bytes]) -> list[int]:
    """Return the checksums of structures that are not empty, computed side by side.

    Each is a lane of 64 bits in integers of any length, which Python adds and shifts as fast as small ones.
    The lanes end together, so shorter ones begin later.
    """
    order = sorted(range(len(structures)), key=lambda k: -len(structures[k]))
    counts = [-(-len(structures[k]) // _BLOCK) for k in order]
    words = _interleaved([structures[k] for k in order], counts[0])
    ones = int.from_bytes(b"\1\0\0\0\0\0\0\0" * len(order), "little")
    mask, carry = ones * _WORD, ones << 32
    starts: dict[int, list[int]] = {}
    for lane, blocks in enumerate(counts):
        starts.setdefault(counts[0] - blocks, []).append(lane)
    a = b = c = 0
    for step in range(counts[0]):
        if step in starts:
            lanes = starts[step]
            first = lanes[0] * _LANE
            seeds = [_SEED + len(structures[order[lane]]) & _WORD for lane in lanes]
            begun = int.from_bytes(struct.pack(f"<{len(seeds)}Q", *seeds), "little") << first
            before = (1 << first) - 1
            a, b, c = a & before | begun, b & before | begun, c & before | begun
        a += words[3 * step]
        b += words[3 * step + 1]
        c = c + words[3 * step + 2] & mask
        if step == counts[0] - 1:
            break
        a = (a + carry - c ^ (c << 4 | c >> 28)) & mask
        c = c + b & mask
        b = (b + carry - a ^ (a << 6 | a >> 26)) & mask
        a = a + c & mask
        c = (c + carry - b ^ (b << 8 | b >> 24)) & mask
        b = b + a & mask
        a = (a + carry - c ^ (c << 16 | c >> 16)) & mask
        c = c + b & mask
        b = (b + carry - a ^ (a << 19 | a >> 13)) & mask
        a = a + c & mask
        c = (c + carry - b ^ (b << 4 | b >> 28)) & mask
        b = b + a & mask
    a, b = a & mask, b & mask
    c = (c ^ b) + carry - ((b << 14 | b >> 18) & mask) & mask
    a = (a ^ c) + carry - ((c << 11 | c >> 21) & mask) & mask
    b = (b ^ a) + carry - ((a << 25 | a >> 7) & mask) & mask
    c = (c ^ b) + carry - ((b << 16 | b >> 16) & mask) & mask
    a = (a ^ c) + carry - ((c << 4 | c >> 28) & mask) & mask
    b = (b ^ a) + carry - ((a << 14 | a >> 18) & mask) & mask
    c = (c ^ b) + carry - ((b << 24 | b >> 8) & mask) & mask
    found = [0] * len(order)
    for k, checksum in zip(
        order, struct.unpack(f"<{len(order)}Q", c.to_bytes(8 * len(order), "little")), strict=True
    ):
        found[k] = checksum
    return found


def _interleaved(structures: list[bytes], blocks: int) -> list[int]:
    """Return the words of structures side by side, all of them ending together."""
    size = blocks * _BLOCK
    rows = b"".join([(data + bytes(-len(data) % _BLOCK)).rjust(size, b"\0") for data in structures])
    words = struct.unpack(f"<{len(rows) // 4}I", rows)
    lane, pack = size // 4, struct.Struct(f"<{len(structures)}Q").pack
    return [int.from_bytes(pack(*words[at::lane]), "little") for at in range(lane)]


def plain_lookup3(data: bytes) -> int:
    """Return the lookup3 checksum, computed in Python."""
    size = len(data)
    a = b = c = (_SEED + size) & _WORD
    if not size:
        return c
    words = struct.unpack(f"<{-(-size // 12) * 3}I", data + bytes(-size % 12))
    last = len(words) - 3
    for i in range(0, last, 3):
        a = (a + words[i]) & _WORD
        b = (b + words[i + 1]) & _WORD
        c = (c + words[i + 2]) & _WORD
        a = (a - c ^ (c << 4 | c >> 28)) & _WORD
        c = (c + b) & _WORD
        b = (b - a ^ (a << 6 | a >> 26)) & _WORD
        a = (a + c) & _WORD
        c = (c - b ^ (b << 8 | b >> 24)) & _WORD
        b = (b + a) & _WORD
        a = (a - c ^ (c << 16 | c >> 16)) & _WORD
        c = (c + b) & _WORD
        b = (b - a ^ (a << 19 | a >> 13)) & _WORD
        a = (a + c) & _WORD
        c = (c - b ^ (b << 4 | b >> 28)) & _WORD
        b = (b + a) & _WORD
    a = (a + words[last]) & _WORD
    b = (b + words[last + 1]) & _WORD
    c = (c + words[last + 2]) & _WORD
    c = ((c ^ b) - (b << 14 | b >> 18)) & _WORD
    a = ((a ^ c) - (c << 11 | c >> 21)) & _WORD
    b = ((b ^ a) - (a << 25 | a >> 7)) & _WORD
    c = ((c ^ b) - (b << 16 | b >> 16)) & _WORD
    a = ((a ^ c) - (c << 4 | c >> 28)) & _WORD
    b = ((b ^ a) - (a << 14 | a >> 18)) & _WORD
    checksum: int = ((c ^ b) - (b << 24 | b >> 8)) & _WORD
    return checksum
