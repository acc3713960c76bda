"""Checksums of HDF5 metadata: the lookup3 hash of Bob Jenkins, little-endian, with initial value 0.

A parse queues the structures that it reads. They are verified before the result of the parse is used, so that
the checksums of many short structures, such as object headers, can be computed in parallel lanes.
"""

from __future__ import annotations

import struct
import sys
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

from lazynwb.formats.hdf5.binary import U4, DamagedStructureError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CHECKSUM_SIZE = 4
_WORD = 0xFFFFFFFF
_SEED = 0xDEADBEEF
_BLOCK = 12
#: Maximum size of structures that are computed in parallel lanes, and their minimum number.
_MAX_LANE_BYTES, _MIN_LANES = 4096, 3
#: Width of a lane in bits: a word, with room for carries and rotations.
_LANE = 64
#: Bytes whose checksums take as long in Python as the import of numcodecs. Of structures in parallel lanes,
#: only the longest counts.
_IMPORT_COST_BYTES = 160 * 1024
#: Maximum number, and bytes, of queued structures.
_MAX_QUEUED, _MAX_QUEUED_BYTES = 4096, 4 << 20
_checksummed = 0


class Checksums:
    """Queue of the checksummed structures that a parse has read."""

    __slots__ = ("_queued", "_size")

    def __init__(self) -> None:
        self._queued: dict[bytes, str] = {}
        self._size = 0

    def queue(self, data: bytes, what: str) -> None:
        """Queue a structure, whose last four bytes are its checksum."""
        self._queued[data] = what
        self._size += len(data)
        if len(self._queued) >= _MAX_QUEUED or self._size >= _MAX_QUEUED_BYTES:
            self.verify()

    def verify(self) -> None:
        """Raise `DamagedStructureError` if the checksum of a queued structure does not match."""
        if not self._queued:
            return
        queued, self._queued, self._size = self._queued, {}, 0
        found = lookup3([data[:-CHECKSUM_SIZE] for data in queued])
        for (data, what), checksum in zip(queued.items(), found, strict=True):
            if data[-CHECKSUM_SIZE:] != U4.pack(checksum):
                # The structure stays queued: it has been decoded, and later parses would not queue it again.
                self._queued[data] = what
                raise DamagedStructureError(f"the checksum of {what} does not match")


def verify_checksum(data: bytes, what: str) -> None:
    """Raise `DamagedStructureError` if the last four bytes of a structure are not its checksum."""
    if data[-CHECKSUM_SIZE:] != U4.pack(lookup3([data[:-CHECKSUM_SIZE]])[0]):
        raise DamagedStructureError(f"the checksum of {what} does not match")


def lookup3(structures: Sequence[bytes]) -> list[int]:
    """Return the checksums of structures."""
    global _checksummed  # noqa: PLW0603 - counted per process
    lanes = [data for data in structures if 0 < len(data) <= _MAX_LANE_BYTES]
    if len(lanes) < _MIN_LANES:
        lanes = []
    single_bytes = sum(map(len, structures)) - sum(map(len, lanes))
    _checksummed += single_bytes + max(map(len, lanes), default=0)
    if _checksummed >= _IMPORT_COST_BYTES or "numcodecs.checksum32" in sys.modules:
        return list(map(_compiled_lookup3(), structures))
    if not lanes:
        return list(map(plain_lookup3, structures))
    in_lanes = iter(parallel_lookup3(lanes))
    return [
        next(in_lanes) if 0 < len(data) <= _MAX_LANE_BYTES else plain_lookup3(data) for data in structures
    ]


@cache
def _compiled_lookup3() -> Callable[[bytes], int]:
    """Return the compiled function of numcodecs; the one in Python if it cannot be imported."""
    try:
        from numcodecs.checksum32 import jenkins_lookup3
    except ImportError:
        return plain_lookup3
    compiled: Callable[[bytes], int] = jenkins_lookup3
    return compiled


def parallel_lookup3(structures: Sequence[bytes]) -> list[int]:
    """Return the checksums of nonempty structures, computed in parallel lanes.

    Every structure is a lane of 64 bits in one long integer, because Python adds and shifts a long integer
    about as fast as a short one. All lanes end at the same step, so shorter structures start later.
    """
    order = sorted(range(len(structures)), key=lambda k: -len(structures[k]))
    counts = [-(-len(structures[k]) // _BLOCK) for k in order]
    words = _interleaved([structures[k] for k in order], counts)
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
            started = int.from_bytes(struct.pack(f"<{len(seeds)}Q", *seeds), "little") << first
            before = (1 << first) - 1
            a, b, c = a & before | started, b & before | started, c & before | started
        a += words[3 * step]
        b += words[3 * step + 1]
        c = c + words[3 * step + 2] & mask
        if step == counts[0] - 1:
            break
        # Operands of a rotation or subtraction are masked; sums may exceed a word until the next mask.
        a = (a + carry - c ^ (c << 4 | c >> 28)) & mask
        c += b
        b = (b + carry - a ^ (a << 6 | a >> 26)) & mask
        a += c
        c = (c + carry - b ^ (b << 8 | b >> 24)) & mask
        b += a
        a = (a + carry - c ^ (c << 16 | c >> 16)) & mask
        c += b
        b = (b + carry - a ^ (a << 19 | a >> 13)) & mask
        a += c
        c = (c + carry - b ^ (b << 4 | b >> 28)) & mask
        b += a
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


def _interleaved(structures: list[bytes], counts: list[int]) -> list[int]:
    """Return the words of structures, longest first, interleaved into lanes that end at the same step.

    Parameters
    ----------
    structures : list of bytes
    counts : list of int
        Number of blocks of each.
    """
    rows = [
        struct.unpack(f"<{3 * blocks}I", data.ljust(blocks * _BLOCK, b"\0"))
        for data, blocks in zip(structures, counts, strict=True)
    ]
    words: list[int] = []
    # From the start of one lane to the start of the next shorter one, the number of active lanes is constant.
    for blocks, shorter in pairwise([*dict.fromkeys(counts), 0]):
        start, stop = -3 * blocks, -3 * shorter or None
        active = [row[start:stop] for row in rows if len(row) >= 3 * blocks]
        pack = struct.Struct(f"<{len(active)}Q").pack
        words += [int.from_bytes(pack(*column), "little") for column in zip(*active, strict=True)]
    return words


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
