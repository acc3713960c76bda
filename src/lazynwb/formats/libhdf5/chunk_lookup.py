"""Chunk locations of HDF5 datasets.

Where single chunks of an HDF5 dataset are, without listing them all.

libhdf5 has a function for this, but it goes through the chunks from the first one on. Reading a chunk as it
is stored walks the index straight to it. So it is asked to read, twice: the first time into a buffer too
small for anything, which it says after it has walked the index; the second time the index is in its memory,
so the one range of bytes that it still asks for is the chunk. It is noted, and not read.
"""

from __future__ import annotations

import math
import re
import struct
from typing import TYPE_CHECKING

import numpy as np

from lazynwb.catalog.model import MISSING, Array, ChunkIndex, SomeChunks, grid_of
from lazynwb.errors import CorruptDataError

if TYPE_CHECKING:
    from h5py.h5d import DatasetID

    from lazynwb.formats.libhdf5.block_stream import Watch
    from lazynwb.formats.libhdf5.nodes import Hdf5File

_U8, _U4 = struct.Struct("<Q"), struct.Struct("<I")
#: More chunks than any dataset has in a file of less than a petabyte: a damaged shape, not a real one.
_MAX_CHUNKS = 100_000_000


def chunk_index(file: Hdf5File, array: Array) -> ChunkIndex:
    """Look up where every chunk of an array is.

    Raises
    ------
    CorruptDataError
        If the chunks that the file lists do not fit the array's shape, or one another.
    """
    grid = tuple(-(-n // c) for n, c in zip(array.shape, array.chunk, strict=True))
    total = math.prod(grid)
    if total > _MAX_CHUNKS:
        raise CorruptDataError(f"{file.name}: /{array.path} claims {total} chunks")
    dataset = file.find(array.path).id
    found: list[tuple[tuple[int, ...], int, int, int]] = []
    try:
        dataset.chunk_iter(
            lambda chunk: found.append((chunk.chunk_offset, chunk.byte_offset, chunk.size, chunk.filter_mask))
        )
    except (RuntimeError, OSError) as error:
        raise _damaged(file, array, str(error)) from None
    if any(size and not offset for _, offset, size, _ in found):
        raise _damaged(file, array, "a chunk lies where the file begins")
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
        # Chunks past the array's end stay in the file when a dataset is shrunk: they are not its data.
        places = np.ravel_multi_index(tuple(cells[inside].T), grid)
        values = np.array([entry[1:] for entry in found], "u8")[inside]
        offsets[places], sizes[places], masks[places] = values[:, 0], values[:, 1], values[:, 2]
    return ChunkIndex(offsets.tobytes(), sizes.tobytes(), masks.tobytes() if masks.any() else b"")


def _damaged(file: Hdf5File, array: Array, why: str) -> CorruptDataError:
    return CorruptDataError(f"{file.name}: the chunk index of /{array.path} is damaged: {why}")


def _ascend(cells: np.ndarray) -> bool:
    """Return whether each chunk comes after the one before, in row-major order, as in every kind of index."""
    steps = np.diff(cells, axis=0)
    first = (steps != 0).argmax(axis=1)
    return bool((steps[np.arange(len(steps)), first] > 0).all())


#: What h5py says of a buffer that is too small. (Of a dataset without any chunks it says a random size.)
_NEEDED = re.compile(r"(\d+) bytes required")
#: What libhdf5 says of a chunk that was never written, and of one of a dataset to which nothing was.
_NEVER_WRITTEN = re.compile(r"chunk storage is not allocated|storage is not initialized")
#: What h5py raises for what libhdf5 cannot do.
_REFUSALS = (OSError, RuntimeError, ValueError, TypeError)
Place = tuple[int, int, int]


class NotSingleError(Exception):
    """The chunks of the dataset at this path cannot be looked up one by one: they have to be listed."""


def some_chunks(file: Hdf5File, array: Array, numbers: np.ndarray, known: dict[int, Place]) -> SomeChunks:
    """Look up some chunks of an array in a file whose reads are watched.

    Parameters
    ----------
    file : Hdf5File
    array : Array
        Of layout "chunked".
    numbers : ndarray of int64
    known : dict of int to (offset, size, mask)
        What an earlier run of the parse found; what this one finds is added.

    Raises
    ------
    NotSingleError
        If libhdf5 does anything but what is described above.
    """
    found = file.find(array.path)
    watch = found.file.watch
    if watch is None:
        raise NotSingleError(array.path)
    wanted = np.array([number for number in numbers.tolist() if number not in known], np.int64)
    corners = np.stack(np.unravel_index(wanted, grid_of(array)), axis=1) * np.array(array.chunk)
    for number, corner in zip(wanted.tolist(), corners.tolist(), strict=True):
        missed = file.missed
        with file.collect_misses():
            try:
                place = _place(found.id, tuple(corner), watch)
            except _REFUSALS as error:
                if file.missed > missed:
                    raise
                if not _NEVER_WRITTEN.search(str(error)):
                    raise NotSingleError(array.path) from None
                place = MISSING, 0, 0
            known[number] = place
    return SomeChunks(known)


def _place(dataset: DatasetID, corner: tuple[int, ...], watch: Watch) -> Place:
    """Return where a chunk is; one of `_REFUSALS` if libhdf5 does not say."""
    size = _stored_size(dataset, corner)
    if not 0 < size <= watch.size:
        raise ValueError(f"a chunk of {size} bytes")
    with watch.noting(size) as reads:
        mask, _ = dataset.read_direct_chunk(corner, out=np.empty(size, np.uint8))
    if len(reads) != 1 or reads[0][1] != size:
        raise ValueError(f"one range of {size} bytes was to be read, not {reads}")
    return reads[0][0], size, mask


def _stored_size(dataset: DatasetID, corner: tuple[int, ...]) -> int:
    try:
        dataset.read_direct_chunk(corner, out=np.empty(0, np.uint8))
    except ValueError as error:
        needed = _NEEDED.search(str(error))
        if needed is None:
            raise
        return int(needed[1])
    return 0
