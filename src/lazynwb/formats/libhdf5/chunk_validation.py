"""Looks at stored chunks before libhdf5 decodes them, which believes whatever they claim.

Some of its filters divide by parameters that are zero, allocate what a chunk says that it holds, read past
its end, or leave the rest of a chunk as the memory was: values out of nowhere. What a sound chunk must be
follows from what its filters write.
"""

from __future__ import annotations

import math
import os
import zlib
from typing import TYPE_CHECKING, TypeAlias

import h5py
import numpy as np
from h5py import h5z

from lazynwb.catalog.model import stored_size
from lazynwb.codecs.chunk_codecs import unshuffled
from lazynwb.errors import CorruptDataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lazynwb.catalog.model import Array
    from lazynwb.formats.libhdf5.file import LibHdf5File

#: Bytes that filters may add to a chunk that they cannot make smaller.
_OVERHEAD = 4096
_LZF = h5z.FILTER_LZF
#: Filters of libhdf5 that do not look whether a chunk has as many bytes as it takes.
_UNCHECKED = frozenset({_LZF, h5z.FILTER_SCALEOFFSET, h5z.FILTER_SZIP, h5z.FILTER_NBIT})
#: Those around them that are undone here.
_UNDONE = frozenset({h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE})
_SCALEOFFSET_HEADER = 21
#: What a chunk of the n-bit filter has: neither arrays nor compounds.
_NBIT_NUMBER = 1
#: A literal run of LZF (a control byte below 32 is one less than its length), which may hold any bytes.
_MARK = 32
#: Bytes that LZF makes of one, at most: three say that 264 come once more.
_MAX_LZF_RATIO = 88
#: Bytes of chunks that are decoded at once to see how many they are.
_AT_ONCE = 8 << 20

_Filter: TypeAlias = tuple[int, int, tuple[int, ...], bytes]


def stored_chunks(dataset: h5py.Dataset) -> list[h5py.h5d.StoreInfo]:
    """Return what the file says of every chunk of a dataset."""
    found: list[h5py.h5d.StoreInfo] = []
    dataset.id.chunk_iter(found.append)
    return found


def chunks_with(ranges: np.ndarray, chunks: list[h5py.h5d.StoreInfo], rows: int) -> list[h5py.h5d.StoreInfo]:
    """Return those of the chunks, of so many rows each, that hold any of the ranges of rows."""
    first = np.array([chunk.chunk_offset[0] for chunk in chunks], "u8")
    at = np.searchsorted(ranges[:, 1].astype("u8"), first, side="right")
    return [
        chunk
        for chunk, start, k in zip(chunks, first.tolist(), at.tolist(), strict=True)
        if k < len(ranges) and ranges[k, 0] < start + rows
    ]


def refuse_damage(file: LibHdf5File, dataset: h5py.Dataset, array: Array, ranges: np.ndarray) -> None:
    """Refuse chunks on which libhdf5 would crash, take memory without end, or give what is not in them.

    Raises
    ------
    CorruptDataError
    """
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(i) for i in range(properties.get_nfilters())]
    if dataset.chunks is None or not filters:
        return
    where = f"/{array.path}"
    if any(number == h5z.FILTER_SZIP and not all(values[1:]) for number, _, values, _ in filters):
        raise CorruptDataError(f"{file.name}: the parameters of the szip filter of {where} are damaged")
    nbytes = math.prod(dataset.chunks) * max(stored_size(array.dtype), dataset.id.get_type().get_size())
    stored: list[h5py.h5d.StoreInfo] = []
    with file.collect_misses():
        stored = stored_chunks(dataset)
    largest = max((chunk.size for chunk in stored), default=0)
    if largest > 2 * nbytes + _OVERHEAD:
        raise CorruptDataError(
            f"{file.name}: a chunk of {where} takes {largest} bytes, and should hold at most {nbytes}"
        )
    wanted = chunks_with(ranges, stored, dataset.chunks[0])
    for place in _unsound(file, dataset, array, filters, wanted):
        raise CorruptDataError(
            f"{file.name}: the chunk of {where} at {place} is damaged: it does not hold what it should"
        )


def _unsound(
    file: LibHdf5File,
    dataset: h5py.Dataset,
    array: Array,
    filters: list[_Filter],
    chunks: list[h5py.h5d.StoreInfo],
) -> Iterator[tuple[int, ...]]:
    """Yield the places of chunks that do not decode to what a chunk holds, where libhdf5 would not notice."""
    numbers = [number for number, *_ in filters]
    at = max((i for i, number in enumerate(numbers) if number in _UNCHECKED), default=-1)
    outer = filters[at + 1 :]
    as_long = at >= 0 and set(numbers[:at]) <= {h5z.FILTER_SHUFFLE}  # what it decodes to, as a whole chunk
    if not as_long or not {number for number, *_ in outer} <= _UNDONE:
        return
    number, _, values, _ = filters[at]
    count = math.prod(dataset.chunks)
    nbytes = count * stored_size(array.dtype)
    if number == _LZF and values[2:] not in {(), (nbytes,)}:
        yield (0,) * len(dataset.chunks)
        return
    together: list[tuple[tuple[int, ...], bytes]] = []
    for chunk in chunks:
        place, mask = chunk.chunk_offset, chunk.filter_mask
        with file.collect_misses():
            raw = dataset.id.read_direct_chunk(place)[1]
        raw = _undone(raw, outer, mask >> at + 1, 2 * nbytes + _OVERHEAD)
        if mask & 1 << at:
            if len(raw) != nbytes:
                yield place  # stored as it is, and is not
        elif not _is_sound(number, raw, values, count, nbytes):
            yield place
        elif number == _LZF:
            together.append((place, raw))
            if len(together) * (nbytes + _MARK) > _AT_ONCE:
                yield from _not_so_long(together, nbytes)
                together = []
    yield from _not_so_long(together, nbytes)


def _undone(raw: bytes, filters: list[_Filter], mask: int, most: int) -> bytes:
    """Return what was shuffled and deflated, no more than asked for; nothing of what is damaged."""
    for i in range(len(filters) - 1, -1, -1):
        number, _, values, _ = filters[i]
        if mask & 1 << i:
            continue
        if number == h5z.FILTER_SHUFFLE:
            raw = bytes(unshuffled(raw, max((*values, 1))))
        else:
            try:
                raw = zlib.decompressobj().decompress(raw, most)
            except zlib.error:
                return b""
    return raw


def _is_sound(number: int, raw: bytes, values: tuple[int, ...], count: int, nbytes: int) -> bool:
    """Return whether a chunk of `count` elements has as many bytes as its header or its parameters say."""
    if number == _LZF:
        return nbytes <= _MAX_LZF_RATIO * len(raw)  # it says nothing itself
    if number == h5z.FILTER_SZIP:
        return int.from_bytes(raw[:4], "little") == nbytes
    if values[2:3] != (count,):
        return False
    if number == h5z.FILTER_NBIT:
        _, as_it_is, _, kind, *others = values
        if kind != _NBIT_NUMBER or as_it_is:
            return True
        _size, _order, precision, *_ = others
        return len(raw) * 8 >= count * precision
    bits, whole = int.from_bytes(raw[:4], "little"), 8 * nbytes // count
    if bits == whole:
        return len(raw) == _SCALEOFFSET_HEADER + nbytes
    return bits < whole and len(raw) == _SCALEOFFSET_HEADER + count * bits // 8 + 1


def _not_so_long(chunks: list[tuple[tuple[int, ...], bytes]], nbytes: int) -> Iterator[tuple[int, ...]]:
    """Yield which chunks LZF does not decode to `nbytes` bytes.

    Nothing in a chunk says so, and libhdf5 does not either. But what is appended to a chunk is decoded behind
    it: a mark that is not found at its place was moved by a chunk that is too short, or too long.
    """
    if not chunks:
        return
    mark = os.urandom(_MARK)
    long = nbytes + _MARK
    with h5py.File(mark.hex(), "w", driver="core", backing_store=False) as memory:
        decoded = memory.create_dataset("chunks", len(chunks) * long, "u1", chunks=(long,), compression="lzf")
        for i, (_, raw) in enumerate(chunks):
            decoded.id.write_direct_chunk((i * long,), raw + bytes([_MARK - 1]) + mark)
        for i, (place, _) in enumerate(chunks):
            try:
                sound = decoded[i * long + nbytes : (i + 1) * long].tobytes() == mark
            except OSError:
                sound = False
            if not sound:
                yield place
