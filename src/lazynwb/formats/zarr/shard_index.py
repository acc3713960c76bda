"""Indices of shards: locations of chunks in the objects that contain them (Zarr v3, sharding codec)."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np

from lazynwb.catalog.model import MISSING, Array, ChunkIndex, PartialChunkIndex, grid_of
from lazynwb.codecs.checksums import crc32c
from lazynwb.errors import CorruptDataError
from lazynwb.storage.objects.sparsity import check_written

if TYPE_CHECKING:
    from lazynwb.storage.objects.object_store import Objects

#: Size of an entry of an index, and of its checksum.
_ENTRY, _CHECKSUM = 16, 4
_MAX_CHUNKS = 100_000_000


def chunk_index(
    objects: Objects, array: Array, numbers: np.ndarray | None = None
) -> ChunkIndex | PartialChunkIndex:
    """Look up the locations of chunks of an array, with one request per shard.

    Parameters
    ----------
    objects : Objects
        Store of the array.
    array : Array
        Catalog of the array.
    numbers : ndarray of int64 or None
        Chunks to look up, in row-major order, which determine the shards; None for all.

    Raises
    ------
    CorruptDataError
        If an index is damaged.
    """
    if array.keys is None or not array.shard:
        return ChunkIndex(b"", b"")
    grid = [-(-n // c) for n, c in zip(array.shape, array.chunk, strict=True)]
    within = [s // c for s, c in zip(array.shard, array.chunk, strict=True)]
    if math.prod(grid) > _MAX_CHUNKS or math.prod(within) > _MAX_CHUNKS:
        raise CorruptDataError(f"{objects.source.name}: /{array.path} claims {math.prod(grid)} chunks")
    shards = [-(-n // r) for n, r in zip(grid, within, strict=True)]
    try:
        check_written(objects, array.keys.prefix, array.keys.depth(len(shards)), math.prod(shards))
    except CorruptDataError as error:
        raise CorruptDataError(f"{objects.source.name}: /{array.path}: {error}") from None
    places = list(itertools.product(*map(range, shards)))
    if numbers is not None:
        cells = np.stack(np.unravel_index(numbers, grid), axis=1) // within
        required = np.unique(np.ravel_multi_index(tuple(cells.T), shards)).tolist()
        if len(required) < len(places):
            return _partial_index(objects, array, [places[number] for number in required])
    table = np.full((*grid, 2), MISSING, "<u8")
    for room, part in _places_in(objects, array, places):
        table[room] = part
    flat = table.reshape(-1, 2)
    return ChunkIndex(flat[:, 0].tobytes(), flat[:, 1].tobytes())


def _partial_index(objects: Objects, array: Array, shards: list[tuple[int, ...]]) -> PartialChunkIndex:
    grid = grid_of(array)
    found: dict[int, tuple[int, int, int]] = {}
    for room, part in _places_in(objects, array, shards):
        corners = np.meshgrid(*(np.arange(along.start, along.stop) for along in room), indexing="ij")
        numbers = np.ravel_multi_index(tuple(corners), grid).reshape(-1).tolist()
        for number, (offset, size) in zip(numbers, part.reshape(-1, 2).tolist(), strict=True):
            found[number] = offset, size, 0
    return PartialChunkIndex(found)


def _places_in(
    objects: Objects, array: Array, shards: list[tuple[int, ...]]
) -> list[tuple[tuple[slice, ...], np.ndarray]]:
    """Return for each shard its part of the chunk grid, and the offsets and sizes of its chunks."""
    keys = array.keys
    assert keys is not None  # noqa: S101 - sharded arrays have keys
    grid = grid_of(array)
    within = [s // c for s, c in zip(array.shard, array.chunk, strict=True)]

    def look_up(place: tuple[int, ...]) -> np.ndarray:
        return shard_index(objects, array.path, keys.of(place), math.prod(within))

    indices = objects.pool.map(look_up, shards) if len(shards) > 1 else list(map(look_up, shards))
    found = []
    for place, index in zip(shards, indices, strict=True):
        start = [p * r for p, r in zip(place, within, strict=True)]
        room = [min(r, n - s) for r, n, s in zip(within, grid, start, strict=True)]
        # Shards at the border are complete, with entries for chunks beyond the array.
        part = index.reshape(*within, 2)[tuple(slice(0, n) for n in room)]
        found.append((tuple(slice(s, s + n) for s, n in zip(start, room, strict=True)), part))
    return found


def shard_index(objects: Objects, path: str, key: str, count: int, index: str = "end+crc32c") -> np.ndarray:
    """Return the offsets and sizes of the chunks of one shard; `MISSING` for chunks that were not written.

    Parameters
    ----------
    objects : Objects
        Store of the array.
    path : str
        Path of the array.
    key : str
        Key of the shard.
    count : int
        Number of entries of the index.
    index : str
        See `lazynwb.formats.zarr.array_metadata.ArrayMetadata`.

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
        raise CorruptDataError(f"{where} cannot be read: {error}") from None
    if data is None:
        return np.full((count, 2), MISSING, "<u8")
    if len(data) != total or (checksum and crc32c(data[:size]) != int.from_bytes(data[size:], "little")):
        raise CorruptDataError(
            f"{where} is damaged: {len(data)} bytes where {total} are needed, or another checksum"
        )
    places = np.frombuffer(data, "<u8", 2 * count).reshape(count, 2)
    missing = places == MISSING
    if (missing[:, 0] != missing[:, 1]).any():
        raise CorruptDataError(
            f"{where} is damaged: a chunk has an offset and no size, or a size and no offset"
        )
    return places
