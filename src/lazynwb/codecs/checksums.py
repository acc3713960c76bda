"""CRC-32C (Castagnoli, RFC 3720), which Zarr's `crc32c` codec appends to chunks and shard indices."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from lazynwb.codecs.chunk_codecs import Buffer

_POLYNOMIAL = 0x82F63B78
_ONES = 0xFFFFFFFF
#: The size from which on bytes are summed in lanes, side by side.
_LARGE = 16 * 1024


@cache
def _table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table


def crc32c(data: Buffer) -> int:
    """Return the checksum of bytes."""
    octets = np.frombuffer(data, np.uint8)
    crc = _ONES
    if len(octets) >= _LARGE:
        lanes = 1 << len(octets).bit_length() // 2 + 2
        width = len(octets) // lanes
        crc = _lanes(octets[: width * lanes].reshape(lanes, width), crc)
        octets = octets[width * lanes :]
    table = _table().tolist()
    for octet in octets.tolist():
        crc = table[(crc ^ octet) & 0xFF] ^ crc >> 8
    return crc ^ _ONES


def _lanes(lanes: np.ndarray, crc: int) -> int:
    """Sum rows of equal length at once; then append them to one another.

    A checksum is linear: that of two parts one after the other is the first one's, moved on by as many zero
    bytes as the second has, plus the second's that began with zero.
    """
    table = _table()
    state = np.zeros(len(lanes), np.uint32)
    state[0] = crc
    for column in lanes.T:
        state = table[(state ^ column) & 0xFF] ^ state >> 8
    shift = _shift(lanes.shape[1])
    while len(state) > 1:
        state = _apply(shift, state[0::2]) ^ state[1::2]
        shift = _apply(shift, shift)
    return int(state[0])


@cache
def _shift(size: int) -> np.ndarray:
    """Return what appending zero bytes does to each bit of a checksum, as a matrix of 32 columns."""
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    one = _table()[bits & 0xFF] ^ bits >> 8  # one zero byte
    result, power = bits, one
    while size:
        if size & 1:
            result = _apply(power, result)
        power = _apply(power, power)
        size >>= 1
    return result


def _apply(matrix: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Multiply vectors of 32 bits by a matrix over the field of two elements."""
    result = np.zeros_like(vectors)
    for bit in range(32):
        result ^= np.where(vectors >> np.uint32(bit) & 1, matrix[bit], np.uint32(0))
    return result
