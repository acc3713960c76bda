"""Reads of rows of stored arrays: chunks are located, read in coalesced requests, and decoded in place.

The result of a request is the bytes of its rows in a buffer of the caller. A chunk is a byte range of a file,
an object of a store, or a byte range of an object (a shard). Contiguous data is one chunk without codecs. Of
chunks without codecs, only the requested rows are read.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, cast

import numpy as np

from lazynwb.arrays.chunk_grid import (
    ChunkSlice,
    Indexer,
    chunk_count,
    chunks_in_selection,
    contiguous_runs,
    indexer_length,
    selection_shape,
)
from lazynwb.catalog.model import MISSING, stored_size
from lazynwb.codecs.chunk_codecs import decode_into, unfilter, unshuffle, unshuffled
from lazynwb.errors import CorruptDataError
from lazynwb.profile import count
from lazynwb.storage.objects.object_file import WHOLE, ObjectAbsentError, ObjectFile
from lazynwb.storage.objects.sparsity import check_written
from lazynwb.storage.placeholders import describe
from lazynwb.threads import raise_if_interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lazynwb.catalog.model import Array, ChunkIndex, PartialChunkIndex
    from lazynwb.codecs import Buffer
    from lazynwb.storage.file import File, Ranges
    from lazynwb.storage.objects.object_store import Objects
    from lazynwb.threads import Pool

Store: TypeAlias = "File | Objects"
#: Rows of a chunk or of contiguous data: first row, row past the last, and first row in the output.
_Piece: TypeAlias = "tuple[int, int, int]"
#: Function from a row band and the number of a chunk in it to the chunk (None if unwritten) and filter mask.
_ChunkLocator: TypeAlias = "Callable[[int, int], tuple[ChunkRef | None, int]]"

#: Number of bytes by which a pointer file of Git LFS or git-annex is recognized.
_POINTER = 256
#: Maximum number of jobs of a read whose bytes are cached separately.
_FEW_JOBS = 64
#: Undecoded rows that are at most so many bytes apart are read by one job of at most this size.
_MAX_GAP, _MAX_SPAN = 4 * 1024, 256 * 1024
#: Maximum number of row ranges of a chunk that are copied one by one.
_FEW_RANGES = 8


class Request(NamedTuple):
    """A request for rows of one array.

    Attributes
    ----------
    array : Array
    chunks : ChunkIndex, PartialChunkIndex or None
        Chunk locations; None if the layout has no chunk index.
    ranges : ndarray of shape (n, 2), int64
        Half-open ranges of rows, which are ascending, disjoint and not empty.
    out : ndarray of uint8, shape (rows, bytes per row)
        Output buffer of decoded rows in the stored byte order.
    box : tuple of Indexer
        Selection along all dimensions except the first; empty for whole rows.
    """

    array: Array
    chunks: ChunkIndex | PartialChunkIndex | None
    ranges: np.ndarray
    out: np.ndarray
    box: tuple[Indexer, ...] = ()


class ChunkRef(NamedTuple):
    """A byte range of a file, or of an object of a store.

    Attributes
    ----------
    store : File or Objects
    key : str
        Key of the object; empty for a file.
    offset : int
    size : int
        Number of bytes; `WHOLE` for a whole object.
    """

    store: Store
    key: str
    offset: int
    size: int


class _Job(NamedTuple):
    """A byte range, and the function that processes it.

    `into` is the destination of bytes that need no decoding. `fill` is called if the object does not exist.
    `gaps` is the number of bytes of the range that are not needed.
    """

    ref: ChunkRef
    path: str
    into: np.ndarray | None
    handle: Callable[[Buffer], None]
    fill: Callable[[], None] | None = None
    gaps: int = 0


class _Task(NamedTuple):
    """Reads of one file or object: groups of jobs, each of which is one coalesced read."""

    file: File
    groups: list[list[_Job]]


def fetch(work: Iterable[tuple[Store, list[Request]]]) -> None:
    """Execute requests on several files and object stores concurrently.

    Raises
    ------
    CorruptDataError
        If bytes are missing or do not match a checksum or a size; the message has the file and the dataset.
    SourceChangedError
        If a file has changed since the catalog was created.
    """
    pooled: dict[Pool, list[_Task]] = {}
    here: list[_Task] = []
    for store, requests in work:
        jobs: dict[str, list[_Job]] = {}
        for request in requests:
            try:
                _plan(store, request, jobs)
            except CorruptDataError as error:
                raise CorruptDataError(f"{_store_name(store)}: /{request.array.path}: {error}") from None
        for key, listed in jobs.items():
            file = ObjectFile(cast("Objects", store), key) if key else cast("File", store)
            _divide(file, listed, pooled.setdefault(file.pool, []), here)
    waiting = []
    for pool, tasks in pooled.items():
        if len(tasks) > 1 and pool.size() > 1:
            waiting.append(pool.begin(_execute, tasks))
        else:
            here += tasks
    for task in here:
        _execute(task)
    for finish in waiting:
        finish()


def _store_name(store: Store) -> str:
    source = getattr(store, "source", None)
    return str(source.name if source is not None else cast("File", store).name)


def _divide(file: File, jobs: list[_Job], pooled: list[_Task], here: list[_Task]) -> None:
    """Divide the jobs of a file into tasks for other threads and tasks for the calling thread."""
    jobs.sort(key=_offset)
    known: list[_Job] = []
    absent: list[_Job] = []
    for job in jobs:
        (known if file.has(job.ref.offset, job.ref.size) else absent).append(job)
    if known:
        here.append(_Task(file, [[job] for job in known]))
        jobs = absent
    large = [job for job in jobs if job.ref.size >= file.thread_threshold]
    if large:
        pooled.extend(_Task(file, [group]) for group in _merge(large, file))
        jobs = [job for job in jobs if job.ref.size < file.thread_threshold]
    if jobs:
        here.append(_Task(file, _merge(jobs, file)))


def _offset(job: _Job) -> int:
    return job.ref.offset


def _merge(jobs: list[_Job], file: File) -> list[list[_Job]]:
    """Group jobs, sorted by offset, into coalesced reads."""
    groups: list[list[_Job]] = []
    start = end = 0
    for job in jobs:
        _, _, offset, size = job.ref
        if (
            groups
            and offset - end <= file.coalesce_gap
            and offset + size - start <= file.coalesce_limit
            and size >= 0
        ):
            groups[-1].append(job)
            end = max(end, offset + size)
        else:
            groups.append([job])
            start, end = offset, offset + size
    return groups


def _execute(task: _Task) -> None:
    file = task.file
    with file.reading() as opened:
        for jobs in task.groups:
            raise_if_interrupted()
            if len(jobs) == 1:
                _read_and_handle(file, opened, jobs[0])
                continue
            start = jobs[0].ref.offset
            end = max(job.ref.offset + job.ref.size for job in jobs)
            data = memoryview(opened.read(start, end - start)) if 0 <= start < end <= file.size else None
            if data is not None:
                _cache_bytes(file, jobs, data)
            for job in jobs:
                _read_and_handle(file, opened, job, data, start)


def _cache_bytes(file: File, jobs: list[_Job], data: memoryview) -> None:
    """Cache the bytes of a coalesced read: per job, or as a whole if there are many jobs."""
    start = jobs[0].ref.offset
    if len(jobs) > _FEW_JOBS:
        file.keep(start, data)
        return
    for job in jobs:
        _, _, offset, size = job.ref
        file.keep(offset, data[offset - start : offset - start + size])


def _read_and_handle(
    file: File, opened: Ranges, job: _Job, data: memoryview | None = None, start: int = 0
) -> None:
    """Execute one job, on bytes of a coalesced read that starts at `start`, or by a read of its own."""
    _, key, offset, size = job.ref
    part: memoryview | None = None
    try:
        if data is not None:
            part = data[offset - start : offset - start + size]
            job.handle(part)
        elif job.into is not None:
            opened.read_into(offset, job.into.data)
        else:
            part = memoryview(opened.read(offset, size))
            size = len(part)
            job.handle(part)
    except ObjectAbsentError:
        if job.fill is None:
            raise
        job.fill()  # the elements of an unwritten chunk are the fill value (Zarr specification)
        return
    except CorruptDataError as error:
        where = f"{file.name}: /{job.path}" + (f": chunk {key}" if key else "")
        # In a folder under Git LFS or git-annex, each object may be a pointer file.
        pointer = describe(where, bytes(part[:_POINTER])) if key and part is not None else ""
        raise CorruptDataError(pointer or f"{where}: {error}") from None
    count(bytes_used=size - job.gaps)


# -- from rows to chunks ------------------------------------------------------------------------------


def _plan(store: Store, request: Request, jobs: dict[str, list[_Job]]) -> None:
    """Add the jobs of one request, by object key."""
    if not request.out.size:
        return
    array = request.array
    if array.layout not in {"chunked", "objects"}:
        _plan_plain(store, request, jobs.setdefault("", []))
        return
    chunk, shape = array.chunk, array.shape
    if not shape or len(chunk) != len(shape) or min(chunk) < 1:
        raise CorruptDataError(f"its chunk shape {chunk} does not fit its shape {shape}")
    chunks = _object_chunks(store, request) if array.layout == "objects" else _file_chunks(store, request)
    cells = chunks_in_selection(array, request.box)
    nbytes = math.prod(chunk) * stored_size(array.dtype)
    for band, pieces in pieces_of(request.ranges, chunk[0]):
        for cell in cells:
            ref, mask = chunks(band, cell.number)
            target = Target(request, pieces, cell, nbytes, mask)
            if ref is None:
                target.fill()
            elif array.codecs or ref.size == WHOLE:
                job = _Job(ref, array.path, None, target.decode, target.fill)
                jobs.setdefault(ref.key, []).append(job)
            else:
                _plan_unfiltered(target, ref, jobs.setdefault(ref.key, []))


def _file_chunks(store: Store, request: Request) -> _ChunkLocator:
    """Return a function that locates chunks in a file by its chunk index."""
    index = request.chunks
    if index is None:
        raise CorruptDataError("it has no chunk index")
    per_band = chunk_count(request.array)

    def locate(band: int, number: int) -> tuple[ChunkRef | None, int]:
        offset, size, mask = index.locate(band * per_band + number)
        return (None if offset == MISSING else ChunkRef(store, "", offset, size)), mask

    return locate


def _object_chunks(store: Store, request: Request) -> _ChunkLocator:
    """Return a function that locates chunks that are objects, or parts of objects (shards)."""
    array, index = request.array, request.chunks
    keys, chunk, shard = array.keys, array.chunk, array.shard
    if keys is None or (shard and index is None):
        raise CorruptDataError("it has no chunk keys or no shard index")
    _check_written(cast("Objects", store), request)
    grid = [-(-n // c) for n, c in zip(array.shape[1:], chunk[1:], strict=True)]
    per_shard = [s // c for s, c in zip(shard, chunk, strict=True)] if shard else []
    per_band = chunk_count(array)

    def locate(band: int, number: int) -> tuple[ChunkRef | None, int]:
        place = (band, *map(int, np.unravel_index(number, grid))) if grid else (band,)
        if index is None or not shard:
            return ChunkRef(store, keys.of(place), 0, WHOLE), 0
        offset, size, mask = index.locate(band * per_band + number)
        if offset == MISSING:
            return None, mask
        place = tuple(p // n for p, n in zip(place, per_shard, strict=True))
        return ChunkRef(store, keys.of(place), offset, size), mask

    return locate


def _check_written(store: Objects, request: Request) -> None:
    array, ranges = request.array, request.ranges
    if array.keys is None or array.shard:  # unwritten chunks are marked in the index of the shard
        return
    bands = int(((ranges[:, 1] - 1) // array.chunk[0] - ranges[:, 0] // array.chunk[0] + 1).sum())
    per_band = chunk_count(array)
    if request.box:
        per_band = min(per_band, math.prod(map(indexer_length, request.box)))
    check_written(store, array.keys.prefix, array.keys.depth(len(array.chunk)), bands * per_band)


def _plan_unfiltered(target: Target, ref: ChunkRef, jobs: list[_Job]) -> None:
    """Add jobs that read only the requested rows of a chunk without codecs."""
    if ref.size != target.nbytes:
        raise CorruptDataError(f"a chunk has {ref.size} bytes instead of {target.nbytes}")
    request = target.request
    width = target.nbytes // request.array.chunk[0]
    if target.is_whole_width:
        jobs += _row_jobs(ref, width, target.pieces, request)
    else:
        first, last = target.pieces[0][0], target.pieces[-1][1]
        rows = ref._replace(offset=ref.offset + first * width, size=(last - first) * width)
        jobs.append(_Job(rows, request.array.path, None, target.scatter_rows))


def _plan_plain(store: Store, request: Request, jobs: list[_Job]) -> None:
    array, out = request.array, request.out
    width = out.shape[1]
    if array.layout == "inline" and not request.box:
        stored = np.frombuffer(array.inline, np.uint8).reshape(-1, width)
    elif array.layout != "inline" and array.offset < 0:
        _fill(out, array)
        return
    if request.box:
        for run in contiguous_runs(array, request.ranges, request.box, out):
            if array.layout == "inline":
                run.handle(memoryview(array.inline)[run.start : run.start + run.size])
            else:
                ref = ChunkRef(store, "", array.offset + run.start, run.size)
                jobs.append(_Job(ref, array.path, None, run.handle))
        return
    ((_, pieces),) = pieces_of(request.ranges, int(request.ranges[-1, 1]))  # all rows are one band
    if array.layout == "inline":
        for start, stop, place in pieces:
            out[place : place + stop - start] = stored[start:stop]
    else:
        jobs += _row_jobs(ChunkRef(store, "", array.offset, 0), width, pieces, request)


def _row_jobs(origin: ChunkRef, width: int, pieces: list[_Piece], request: Request) -> Iterator[_Job]:
    """Yield jobs that read rows without decoding; rows that are close together are read by one job.

    Parameters
    ----------
    origin : ChunkRef
        Position of row 0.
    width : int
        Number of bytes per row.
    pieces : list of (start, stop, place)
        Rows to read, in ascending order.
    request : Request
    """
    start = 0
    for number in range(1, len(pieces) + 1):
        if number < len(pieces):
            gap, span = pieces[number][0] - pieces[number - 1][1], pieces[number][1] - pieces[start][0]
            if gap * width <= _MAX_GAP and span * width <= _MAX_SPAN:
                continue
        own = pieces[start:number]
        first, last = own[0][0], own[-1][1]
        out = _output_of(own, request)
        ref = origin._replace(offset=origin.offset + first * width, size=(last - first) * width)
        into = out.reshape(-1) if len(own) == 1 else None
        gaps = ref.size - len(out) * width
        yield _Job(ref, request.array.path, into, partial(_copy_rows, own, out), gaps=gaps)
        start = number


def _output_of(pieces: list[_Piece], request: Request) -> np.ndarray:
    """Return the output of pieces, whose rows are consecutive in the output."""
    start, stop, place = pieces[-1]
    return request.out[pieces[0][2] : place + stop - start]


def _copy_rows(pieces: list[_Piece], out: np.ndarray, data: Buffer) -> None:
    out[...] = _rows_of(pieces, data)


def _rows_of(pieces: list[_Piece], data: Buffer) -> np.ndarray:
    """Return the rows of pieces from bytes that begin at the first of them."""
    first, last = pieces[0][0], pieces[-1][1]
    rows = np.frombuffer(data, np.uint8).reshape(last - first, -1)
    if len(pieces) == 1:
        return rows
    found: np.ndarray = rows[
        np.concatenate([np.arange(start - first, stop - first) for start, stop, _ in pieces])
    ]
    return found


def pieces_of(ranges: np.ndarray, band_rows: int) -> list[tuple[int, list[_Piece]]]:
    """Split ranges of rows at the boundaries of row bands.

    Returns
    -------
    list of (band, pieces)
        A piece is (first row in the band, row past the last row, first row in the output).
    """
    if len(ranges) == 1:
        start, stop = ranges.tolist()[0]
        if stop <= band_rows:
            return [(0, [(start, stop, 0)])]
    bands: list[tuple[int, list[_Piece]]] = []
    done = 0
    for first, stop in ranges.tolist():
        start = first
        while start < stop:
            band = start // band_rows
            end = min(stop, (band + 1) * band_rows)
            piece = (start - band * band_rows, end - band * band_rows, done)
            if bands and bands[-1][0] == band:
                bands[-1][1].append(piece)
            else:
                bands.append((band, [piece]))
            done += end - start
            start = end
    return bands


class Target:
    """The destination of the rows of one chunk."""

    __slots__ = ("_cell", "_mask", "is_whole_width", "nbytes", "pieces", "request")

    def __init__(
        self, request: Request, pieces: list[_Piece], cell: ChunkSlice, nbytes: int, mask: int
    ) -> None:
        self.request = request
        self.pieces = pieces
        self._cell = cell
        self.nbytes = nbytes
        self._mask = mask
        self.is_whole_width = not request.box and request.array.chunk[1:] == request.array.shape[1:]

    def fill(self) -> None:
        """Fill the rows of an unwritten chunk with the fill value."""
        if self.is_whole_width:
            _fill(self._rows(), self.request.array)
        else:
            array = self.request.array
            box = np.empty((len(self._rows()), *array.chunk[1:], stored_size(array.dtype)), np.uint8)
            _fill(box.reshape(len(box), -1), array)
            self._place(box)

    def decode(self, data: Buffer) -> None:
        """Decode the chunk, and copy its rows to the output."""
        array = self.request.array
        count(chunks_decoded=1, bytes_decoded=self.nbytes)
        if self.is_whole_width and self.pieces[0][:2] == (0, array.chunk[0]):
            place = self.pieces[0][2]
            whole = self.request.out[place : place + array.chunk[0]].reshape(-1)
            if decode_into(data, array.codecs, self._mask, whole):
                return
        raw, shuffled = unfilter(data, array.codecs, self._mask, self.nbytes)
        width = self.nbytes // array.chunk[0]
        first, last = self.pieces[0][0], self.pieces[-1][1]
        if shuffled and (width % shuffled or self.nbytes % shuffled):
            raw, shuffled = unshuffled(raw, shuffled), 0
        if not shuffled:
            self.scatter_rows(memoryview(raw)[first * width : last * width])
            return
        per_row = width // shuffled
        if self.is_whole_width and len(self.pieces) <= _FEW_RANGES:
            out = self.request.out
            for start, stop, place in self.pieces:
                target = out[place : place + stop - start].reshape(-1)
                unshuffle(raw, shuffled, start * per_row, stop * per_row, target)
            return
        rows = np.empty((last - first) * width, np.uint8)
        unshuffle(raw, shuffled, first * per_row, last * per_row, rows)
        self.scatter_rows(rows.data)

    def scatter_rows(self, data: Buffer) -> None:
        """Copy decoded rows, from the start of the first piece to the end of the last, to the output."""
        array = self.request.array
        rows = _rows_of(self.pieces, data)
        if self.is_whole_width:
            self._rows()[...] = rows
        else:
            self._place(rows.reshape(len(rows), *array.chunk[1:], stored_size(array.dtype)))

    def _rows(self) -> np.ndarray:
        return _output_of(self.pieces, self.request)

    def _place(self, box: np.ndarray) -> None:
        array = self.request.array
        inner_shape = selection_shape(array, self.request.box)
        target = self._rows().reshape(-1, *inner_shape, stored_size(array.dtype))
        target[:, *self._cell.where] = box[:, *self._cell.inside]


def _fill(rows: np.ndarray, array: Array) -> None:
    if array.fill:
        rows.reshape(-1, len(array.fill))[...] = np.frombuffer(array.fill, np.uint8)
    else:
        rows[...] = 0
