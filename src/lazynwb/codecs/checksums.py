"""Checksums of chunks: CRC-32C (codec and shard indices of Zarr) and Fletcher-32 (filter 3 of HDF5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from lazynwb.codecs import Buffer


def crc32c(data: Buffer) -> int:
    """Return the CRC-32C (Castagnoli, RFC 3720) of bytes."""
    import google_crc32c  # late: HDF5 files do not need it

    # The C implementation refuses memoryviews and bytearrays, but accepts an array over the same bytes. The
    # Python implementation, used without a wheel, needs Python integers.
    is_compiled = google_crc32c.implementation == "c"
    return int(google_crc32c.value(np.frombuffer(data, np.uint8) if is_compiled else bytes(data)))


def fletcher32(data: Buffer) -> int:
    """Return the checksum of HDF5's Fletcher-32 filter (HDF5 File Format Specification, filter 3)."""
    words = np.frombuffer(data, ">u2", len(data) // 2)
    first = second = 0
    block = 1 << 20  # sums of a block fit 64 bits without overflow
    for start in range(0, len(words), block):
        part = words[start : start + block].astype(np.uint64)
        n = len(part)
        weights = np.arange(n, 0, -1, dtype=np.uint64)
        second = (second + n * first + int((part * weights).sum())) % 65535
        first = (first + int(part.sum())) % 65535
    if len(data) % 2:
        first = (first + (data[-1] << 8)) % 65535
        second = (second + first) % 65535
    return second << 16 | first


def fletcher32_matches(data: Buffer, stored: int) -> bool:
    """Return whether a stored Fletcher-32 checksum matches some bytes.

    The sums are defined modulo 65535, where 0 and 65535 are equal. Early versions of libhdf5 stored the bytes
    of both sums in reverse order.
    """
    actual = fletcher32(memoryview(data))
    low, high = stored.to_bytes(4, "little")[:2], stored.to_bytes(4, "little")[2:]
    swapped = int.from_bytes(low[::-1] + high[::-1], "little")
    return _congruent(actual, stored) or _congruent(actual, swapped)


def _congruent(one: int, other: int) -> bool:
    return one % 65536 % 65535 == other % 65536 % 65535 and (one >> 16) % 65535 == (other >> 16) % 65535
