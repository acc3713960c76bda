"""Where single chunks of an HDF5 dataset are, without listing them all.

libhdf5 has a function for this, but it goes through the chunks from the first one on. Reading a chunk as it
is stored walks the index straight to it. So it is asked to read, twice: the first time into a buffer too
small for anything, which it says after it has walked the index; the second time the index is in its memory,
so the one range of bytes that it still asks for is the chunk. It is noted, and not read.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from lazynwb.catalog.chunks import SomeChunks, grid_of
from lazynwb.catalog.model import MISSING, Array

if TYPE_CHECKING:
    from h5py.h5d import DatasetID

    from lazynwb.formats.hdf5.file import Hdf5File
    from lazynwb.formats.hdf5.stream import Watch

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
        with file.going_on():
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
        message = f"a chunk of {size} bytes"
        raise ValueError(message)
    with watch.noting(size) as reads:
        mask, _ = dataset.read_direct_chunk(corner, out=np.empty(size, np.uint8))
    if len(reads) != 1 or reads[0][1] != size:
        message = f"one range of {size} bytes was to be read, not {reads}"
        raise ValueError(message)
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
