"""Chunk locations of HDF5 datasets from libhdf5."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING

import numpy as np

from lazynwb.catalog.model import MISSING, Array, ChunkIndex
from lazynwb.errors import CorruptDataError

if TYPE_CHECKING:
    from lazynwb.formats.libhdf5.nodes import Hdf5File

_U8, _U4 = struct.Struct("<Q"), struct.Struct("<I")
#: Maximum number of chunks; more indicate a damaged shape.
_MAX_CHUNKS = 100_000_000


def chunk_index(file: Hdf5File, array: Array) -> ChunkIndex:
    """Look up the locations of all chunks of an array.

    Raises
    ------
    CorruptDataError
        If the listed chunks do not fit the shape of the array, or overlap.
    """
    grid = tuple(-(-n // c) for n, c in zip(array.shape, array.chunk, strict=True))
    total = math.prod(grid)
    if total > _MAX_CHUNKS:
        raise CorruptDataError(f"{file.name}: /{array.path} has too many chunks: {total}")
    dataset = file.find(array.path).id
    found: list[tuple[tuple[int, ...], int, int, int]] = []
    try:
        dataset.chunk_iter(
            lambda chunk: found.append((chunk.chunk_offset, chunk.byte_offset, chunk.size, chunk.filter_mask))
        )
    except (RuntimeError, OSError) as error:
        raise _damaged(file, array, str(error)) from None
    if any(size and not offset for _, offset, size, _ in found):
        raise _damaged(file, array, "a chunk is at the start of the file")
    if total == 1 and len(found) == 1 and not any(found[0][0]):
        _, offset, size, mask = found[0]
        return ChunkIndex(_U8.pack(offset), _U8.pack(size), _U4.pack(mask) if mask else b"")
    offsets = np.full(total, MISSING, "<u8")
    sizes = np.zeros(total, "<u8")
    masks = np.zeros(total, "<u4")
    if found:
        try:
            corners = np.array([entry[0] for entry in found], "i8").reshape(len(found), len(grid))
        except OverflowError:
            raise _damaged(file, array, "it has a chunk at 2**63") from None
        cells, rest = np.divmod(corners, np.array(array.chunk, "i8"))
        if rest.any() or not _ascend(cells):
            raise _damaged(file, array, "its chunks are out of order")
        inside = ((cells >= 0) & (cells < np.array(grid, "i8"))).all(axis=1)
        # Chunks past the end of the array remain in the file when a dataset is shrunk.
        places = np.ravel_multi_index(tuple(cells[inside].T), grid)
        values = np.array([entry[1:] for entry in found], "u8")[inside]
        offsets[places], sizes[places], masks[places] = values[:, 0], values[:, 1], values[:, 2]
    return ChunkIndex(offsets.tobytes(), sizes.tobytes(), masks.tobytes() if masks.any() else b"")


def _damaged(file: Hdf5File, array: Array, why: str) -> CorruptDataError:
    return CorruptDataError(f"{file.name}: the chunk index of /{array.path} is damaged: {why}")


def _ascend(cells: np.ndarray) -> bool:
    """Return whether chunks are in row-major order, as in all kinds of indices."""
    steps = np.diff(cells, axis=0)
    first = (steps != 0).argmax(axis=1)
    return bool((steps[np.arange(len(steps)), first] > 0).all())
