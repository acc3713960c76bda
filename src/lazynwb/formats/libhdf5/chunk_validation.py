"""Validation of stored chunks before libhdf5 decodes them, because its filters trust their contents.

Some filters divide by parameters that are zero, allocate the size that a chunk declares, read past its end,
or leave a part of the output uninitialized, which produces random values. The valid contents of a chunk
follow from its filters.
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

#: Maximum overhead of filters on an incompressible chunk.
_OVERHEAD = 4096
_LZF = h5z.FILTER_LZF
#: Filters of libhdf5 that do not check the size of a chunk.
_UNCHECKED = frozenset({_LZF, h5z.FILTER_SCALEOFFSET, h5z.FILTER_SZIP, h5z.FILTER_NBIT})
#: Filters applied after them that are decoded here.
_UNDONE = frozenset({h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE})
_SCALEOFFSET_HEADER = 21
#: Supported class of the n-bit filter: neither arrays nor compounds.
_NBIT_NUMBER = 1
#: Maximum length of a literal run of LZF, whose control byte is below 32 and one less than its length.
_MARK = 32
#: Maximum compression ratio of LZF: three bytes repeat up to 264.
_MAX_LZF_RATIO = 88
#: Size of the chunks that are decoded together to determine their sizes.
_DECODED_TOGETHER = 8 << 20

_Filter: TypeAlias = tuple[int, int, tuple[int, ...], bytes]


def stored_chunks(dataset: h5py.Dataset) -> list[h5py.h5d.StoreInfo]:
    """Return the stored location of every chunk of a dataset."""
    found: list[h5py.h5d.StoreInfo] = []
    dataset.id.chunk_iter(found.append)
    return found


def chunks_with(ranges: np.ndarray, chunks: list[h5py.h5d.StoreInfo], rows: int) -> list[h5py.h5d.StoreInfo]:
    """Return the chunks that contain any row of the ranges."""
    first = np.array([chunk.chunk_offset[0] for chunk in chunks], "u8")
    at = np.searchsorted(ranges[:, 1].astype("u8"), first, side="right")
    return [
        chunk
        for chunk, start, k in zip(chunks, first.tolist(), at.tolist(), strict=True)
        if k < len(ranges) and ranges[k, 0] < start + rows
    ]


def check_chunks(file: LibHdf5File, dataset: h5py.Dataset, array: Array, ranges: np.ndarray) -> None:
    """Refuse chunks for which libhdf5 crashes, allocates excessive memory, or returns random values.

    Raises
    ------
    CorruptDataError
        If a chunk is damaged.
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
            f"{file.name}: a chunk of {where} has {largest} stored bytes, but at most {nbytes} decoded bytes"
        )
    selected = chunks_with(ranges, stored, dataset.chunks[0])
    for place in _invalid_chunks(file, dataset, array, filters, selected):
        raise CorruptDataError(
            f"{file.name}: the chunk of {where} at {place} is damaged: it does not decode to its size"
        )


def _invalid_chunks(
    file: LibHdf5File,
    dataset: h5py.Dataset,
    array: Array,
    filters: list[_Filter],
    chunks: list[h5py.h5d.StoreInfo],
) -> Iterator[tuple[int, ...]]:
    """Yield the positions of chunks that do not decode to the size of a chunk, undetected by libhdf5."""
    numbers = [number for number, *_ in filters]
    at = max((i for i, number in enumerate(numbers) if number in _UNCHECKED), default=-1)
    outer = filters[at + 1 :]
    as_long = at >= 0 and set(numbers[:at]) <= {h5z.FILTER_SHUFFLE}  # decodes to the size of a chunk
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
        raw = _undo_filters(raw, outer, mask >> at + 1, 2 * nbytes + _OVERHEAD)
        if mask & 1 << at:
            if len(raw) != nbytes:
                yield place  # uncompressed, with a wrong size
        elif not _has_valid_size(number, raw, values, count, nbytes):
            yield place
        elif number == _LZF:
            together.append((place, raw))
            if len(together) * (nbytes + _MARK) > _DECODED_TOGETHER:
                yield from _invalid_lzf_chunks(together, nbytes)
                together = []
    yield from _invalid_lzf_chunks(together, nbytes)


def _undo_filters(raw: bytes, filters: list[_Filter], mask: int, limit: int) -> bytes:
    """Undo shuffle and deflate up to a maximum size; return nothing for damaged chunks."""
    for i in range(len(filters) - 1, -1, -1):
        number, _, values, _ = filters[i]
        if mask & 1 << i:
            continue
        if number == h5z.FILTER_SHUFFLE:
            raw = bytes(unshuffled(raw, max((*values, 1))))
        else:
            try:
                raw = zlib.decompressobj().decompress(raw, limit)
            except zlib.error:
                return b""
    return raw


def _has_valid_size(number: int, raw: bytes, values: tuple[int, ...], count: int, nbytes: int) -> bool:
    """Return whether the size of a chunk of `count` elements matches its header or parameters."""
    if number == _LZF:
        return nbytes <= _MAX_LZF_RATIO * len(raw)  # LZF does not store the size
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


def _invalid_lzf_chunks(
    chunks: list[tuple[tuple[int, ...], bytes]], nbytes: int
) -> Iterator[tuple[int, ...]]:
    """Yield the positions of chunks that LZF does not decode to `nbytes` bytes.

    Neither a chunk nor libhdf5 reports the decoded size. Bytes that are appended to a chunk are decoded after
    it: if a mark is not at its expected position, the chunk before it is too short or too long.
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
