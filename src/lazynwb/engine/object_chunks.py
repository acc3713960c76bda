"""Fetch rows of arrays whose chunks are objects of a store, or lie together in such objects (shards)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lazynwb.catalog.model import MISSING, stored_size
from lazynwb.engine.chunk_grid import chunk_count, chunks_in_selection, length_of
from lazynwb.engine.fetch import Target, pieces_of
from lazynwb.errors import CorruptDataError
from lazynwb.profile import count
from lazynwb.storage.objects.sparsity import check_written

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lazynwb.engine.fetch import Request
    from lazynwb.storage.objects.object_store import Objects
    from lazynwb.threads import Pool

#: Chunks of a shard closer than this are read as one.
_GAP = 64 * 1024
#: The most that is read of a shard at once.
_MERGED = 4 * 1024 * 1024


class _Chunk(NamedTuple):
    """A chunk that is wanted: where it is within its object (size -1: it is the object), and its place."""

    start: int
    size: int
    target: Target


class _Task(NamedTuple):
    """Neighbouring chunks of one object."""

    store: Objects
    path: str
    key: str
    chunks: list[_Chunk]


def fetch_objects(work: Iterable[tuple[Objects, list[Request]]]) -> None:
    """Carry out requests for arrays of layout "objects", of several stores at once.

    Raises
    ------
    CorruptDataError
        If a chunk is damaged; the message names store, array and object.
    """
    tasks: list[_Task] = []
    for store, requests in work:
        for request in requests:
            try:
                _plan(store, request, tasks)
            except CorruptDataError as error:
                raise CorruptDataError(f"{store.source.name}: /{request.array.path}: {error}") from None
    pools: dict[Pool, list[_Task]] = {}
    for task in tasks:
        pools.setdefault(task.store.pool, []).append(task)
    for finish in [pool.begin(_carry_out, listed) for pool, listed in pools.items()]:
        finish()


def _plan(store: Objects, request: Request, tasks: list[_Task]) -> None:
    array = request.array
    shape, chunk = array.shape, array.chunk
    if array.keys is None or len(chunk) != len(shape) or not shape or min(chunk) < 1:
        raise CorruptDataError(f"chunks of shape {chunk} for an array of shape {shape}")
    if not request.out.size:
        return
    nbytes = math.prod(chunk) * stored_size(array.dtype)
    grid = [-(-n // c) for n, c in zip(shape[1:], chunk[1:], strict=True)]
    _check_written(store, request)
    cells = chunks_in_selection(array, request.box)
    beside = chunk_count(array)
    objects: dict[str, list[_Chunk]] = {}
    for band, pieces in pieces_of(request.ranges, chunk[0]):
        for cell in cells:
            place = (band, *map(int, np.unravel_index(cell.number, grid))) if grid else (band,)
            target = Target(request, pieces, cell, nbytes, 0)
            if not array.shard:
                objects.setdefault(array.keys.of(place), []).append(_Chunk(0, -1, target))
                continue
            start, size = _within_shard(request, band * beside + cell.number)
            if start == MISSING:
                target.fill()
                continue
            ratio = [s // c for s, c in zip(array.shard, chunk, strict=True)]
            shard = tuple(p // r for p, r in zip(place, ratio, strict=True))
            objects.setdefault(array.keys.of(shard), []).append(_Chunk(start, size, target))
    for key, chunks in objects.items():
        tasks.extend(_Task(store, array.path, key, group) for group in _groups(chunks))


def _check_written(store: Objects, request: Request) -> None:
    array, ranges = request.array, request.ranges
    if array.keys is None or array.shard:  # whose indices have been looked up
        return
    bands = int(((ranges[:, 1] - 1) // array.chunk[0] - ranges[:, 0] // array.chunk[0] + 1).sum())
    beside = chunk_count(array)
    if request.box:
        beside = min(beside, math.prod(map(length_of, request.box)))
    check_written(store, array.keys.prefix, array.keys.depth(len(array.chunk)), bands * beside)


def _within_shard(request: Request, number: int) -> tuple[int, int]:
    if request.chunks is None:
        raise CorruptDataError(f"chunk {number} is not in the index of its shard")
    return request.chunks.locate(number)[:2]


def _groups(chunks: list[_Chunk]) -> list[list[_Chunk]]:
    groups: list[list[_Chunk]] = []
    start = end = 0
    for chunk in sorted(chunks, key=lambda chunk: chunk.start):
        stop = chunk.start + chunk.size
        if groups and chunk.start - end <= _GAP and stop - start <= _MERGED:
            groups[-1].append(chunk)
            end = max(end, stop)
        else:
            groups.append([chunk])
            start, end = chunk.start, stop
    return groups


def _part_of_shard(task: _Task) -> bytes | memoryview:
    start = task.chunks[0].start
    size = max(chunk.start + chunk.size for chunk in task.chunks) - start
    data = task.store.get_range(task.key, start, size)
    if data is None or len(data) != size:
        raise CorruptDataError(f"bytes {start} to {start + size} of the shard are missing")
    return data


def _carry_out(task: _Task) -> None:
    first = task.chunks[0]
    try:
        data = task.store.get(task.key) if first.size < 0 else _part_of_shard(task)
        for chunk in task.chunks:
            if data is None:
                chunk.target.fill()  # never written: its elements are the fill value (Zarr specification)
                continue
            size = len(data) if chunk.size < 0 else chunk.size
            offset = chunk.start - first.start
            chunk.target.decode(memoryview(data)[offset : offset + size])
            count(bytes_used=size)
    except CorruptDataError as error:
        raise CorruptDataError(f"{task.store.source.name}: /{task.path}: chunk {task.key}: {error}") from None
