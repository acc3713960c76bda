"""Indices of shards: where each chunk is in the object that holds it (Zarr v3, sharding codec)."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np

from lazynwb.catalog.model import MISSING, Array, ChunkIndex
from lazynwb.engine.crc import crc32c
from lazynwb.errors import CorruptDataError

if TYPE_CHECKING:
    from lazynwb.sources.objects import Objects

#: Bytes of a chunk's place in an index, and of the checksum behind it.
_ENTRY, _CHECKSUM = 16, 4
_MOST_CHUNKS = 100_000_000


def chunk_index(objects: Objects, array: Array) -> ChunkIndex:
    """Look up where every chunk of an array is; one request for each shard.

    Raises
    ------
    CorruptDataError
        If an index is damaged.
    """
    if array.keys is None or not array.shard:
        return ChunkIndex(b"", b"")
    grid = [-(-n // c) for n, c in zip(array.shape, array.chunk, strict=True)]
    within = [s // c for s, c in zip(array.shard, array.chunk, strict=True)]
    if math.prod(grid) > _MOST_CHUNKS or math.prod(within) > _MOST_CHUNKS:
        message = f"{objects.source.name}: /{array.path} claims {math.prod(grid)} chunks"
        raise CorruptDataError(message)
    places = list(itertools.product(*(range(-(-n // r)) for n, r in zip(grid, within, strict=True))))
    keys = array.keys

    def look_up(place: tuple[int, ...]) -> np.ndarray:
        return shard_index(objects, array.path, keys.of(place), math.prod(within))

    indices = objects.pool.map(look_up, places) if len(places) > 1 else list(map(look_up, places))
    table = np.full((*grid, 2), MISSING, "<u8")
    for place, index in zip(places, indices, strict=True):
        start = [p * r for p, r in zip(place, within, strict=True)]
        room = [min(r, n - s) for r, n, s in zip(within, grid, start, strict=True)]
        # Shards at the border are whole, with places for chunks that the array does not reach.
        part = index.reshape(*within, 2)[tuple(slice(0, n) for n in room)]
        table[tuple(slice(s, s + n) for s, n in zip(start, room, strict=True))] = part
    flat = table.reshape(-1, 2)
    return ChunkIndex(flat[:, 0].tobytes(), flat[:, 1].tobytes())


def shard_index(objects: Objects, path: str, key: str, count: int, index: str = "end+crc32c") -> np.ndarray:
    """Return the offsets and sizes of the chunks of one shard; `MISSING` for those that are not there.

    Parameters
    ----------
    objects : Objects
    path : str
        Of the array.
    key : str
        Of the shard.
    count : int
        Chunks that it has places for.
    index : str
        See `lazynwb.formats.zarr.metadata.Stored`.

    Returns
    -------
    ndarray of uint64, shape (count, 2)
    """
    location, _, checksum = index.partition("+")
    size = count * _ENTRY
    total = size + (_CHECKSUM if checksum else 0)
    where = f"{objects.source.name}: /{path}: the index of the shard {key}"
    try:
        data = objects.get_range(key, 0 if location == "start" else -total, total)
    except CorruptDataError as error:
        message = f"{where} cannot be read: {error}"
        raise CorruptDataError(message) from None
    if data is None:
        return np.full((count, 2), MISSING, "<u8")
    if len(data) != total or (checksum and crc32c(data[:size]) != int.from_bytes(data[size:], "little")):
        message = f"{where} is damaged: {len(data)} bytes where {total} are needed, or another checksum"
        raise CorruptDataError(message)
    return np.frombuffer(data, "<u8", 2 * count).reshape(count, 2)
