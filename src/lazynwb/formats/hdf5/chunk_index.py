"""Chunk indices of every kind (HDF5 File Format Specification, III.A.1, III.A.2, VII).

Nodes of B-trees and pages of arrays are records of one size, which NumPy decodes all at once. Of a remote
file, everything that one level of an index needs is noted before the first missing range is reported.
"""

from __future__ import annotations

import math
import struct
from functools import cache
from operator import floordiv, lt, mod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lazynwb.catalog.model import MISSING, ChunkIndex, SomeChunks
from lazynwb.formats.hdf5.binary import (
    U8,
    UNDEFINED,
    DamagedStructureError,
    MissingRangesError,
    UnsupportedStructureError,
)
from lazynwb.formats.hdf5.btree2 import CHUNKS, FILTERED_CHUNKS, read_records
from lazynwb.formats.hdf5.messages import BTREE_1, BTREE_2, EXTENSIBLE_ARRAY, FIXED_ARRAY, IMPLICIT, SINGLE

if TYPE_CHECKING:
    from lazynwb.formats.hdf5.messages import Chunked
    from lazynwb.formats.hdf5.superblock import FileBytes

_NODE = struct.Struct("<4sBBHQQ")
_FIXED = struct.Struct("<4sBBBBQQ")
_EXTENSIBLE = struct.Struct("<4s8B7Q")
_BLOCK = struct.Struct("<4sBBQ")
_CHECKSUM = 4
_ADDRESS, _MASK = 8, 4
_MAX_DEPTH = 64
#: More chunks than any dataset has in a file of less than a petabyte: a damaged shape, not a real one.
MAX_CHUNKS = 100_000_000
#: Of this many chunks or fewer it is sooner to list all than to choose.
_FEW = 64


#: A chunk: number in the grid, address, stored size, and filter mask.
_Chunk = tuple[int, int, int, int]


class _Found(NamedTuple):
    """Chunks by their numbers in the grid of the dataset: address, stored size, and filter mask."""

    numbers: np.ndarray
    addresses: np.ndarray
    sizes: np.ndarray
    masks: np.ndarray


def read_chunk_index(file: FileBytes, dataset: Chunked) -> ChunkIndex:
    """Look up where every chunk of a dataset is.

    Raises
    ------
    DamagedStructureError
    UnsupportedStructureError
    MissingRangesError
    """
    grid = dataset.grid
    total = math.prod(grid)
    if total > MAX_CHUNKS:
        raise DamagedStructureError(f"a dataset of {total} chunks")
    if total <= _FEW:
        few = _few_chunks(file, dataset, grid)
        if few is not None:
            return _packed(few, total, file.base)
    found = _found(file, dataset, None)
    offsets = np.full(total, MISSING, "<u8")
    sizes = np.zeros(total, "<u8")
    masks = np.zeros(total, "<u4")
    offsets[found.numbers], sizes[found.numbers], masks[found.numbers] = found[1:]
    return ChunkIndex(offsets.tobytes(), sizes.tobytes(), masks.tobytes() if masks.any() else b"")


def _packed(few: list[_Chunk], total: int, base: int) -> ChunkIndex:
    """Return the index of a dataset of `total` chunks, of which those in `few` were written."""
    offsets, sizes, masks = [MISSING] * total, [0] * total, [0] * total
    for number, address, size, mask in few:
        if address == UNDEFINED:
            continue
        if (size and not address) or address > 2**63:
            raise DamagedStructureError("a chunk lies outside of the file")
        offsets[number], sizes[number], masks[number] = address + base, size, mask
    return ChunkIndex(
        struct.pack(f"<{total}Q", *offsets),
        struct.pack(f"<{total}Q", *sizes),
        struct.pack(f"<{total}I", *masks) if any(masks) else b"",
    )


def _few_chunks(file: FileBytes, dataset: Chunked, grid: tuple[int, ...]) -> list[_Chunk] | None:
    """Look up the chunks of a dataset that has few, without NumPy, whose calls would take most of the time.

    Returns
    -------
    list of (number, address, stored size, filter mask), or None
        None where the index is not that simple.
    """
    layout = dataset.layout
    if layout.address == UNDEFINED:
        return []
    if layout.kind_of_index == BTREE_1:
        return _leaf_1(file, dataset, grid)
    if layout.kind_of_index == SINGLE and len(grid) == grid.count(1) and not layout.plain_edges:
        if bool(dataset.filters) != bool(layout.parameters):
            raise DamagedStructureError("a single chunk, and filters that contradict it")
        size, mask = layout.parameters or (dataset.chunk_size, 0)
        return [(0, layout.address, size, mask)]
    return None


def read_some_chunks(file: FileBytes, dataset: Chunked, numbers: np.ndarray) -> SomeChunks:
    """Look up where some chunks of a dataset are, by their numbers in row-major order of the chunk grid."""
    if math.prod(dataset.grid) >= 2**63:
        raise DamagedStructureError("a dataset of too many chunks")
    found = _found(file, dataset, numbers)
    places = dict.fromkeys(numbers.tolist(), (MISSING, 0, 0))
    stored = zip(found.addresses.tolist(), found.sizes.tolist(), found.masks.tolist(), strict=True)
    known = zip(found.numbers.tolist(), stored, strict=True)
    places.update({number: place for number, place in known if number in places})
    return SomeChunks(places)


def _found(file: FileBytes, dataset: Chunked, wanted: np.ndarray | None) -> _Found:
    layout = dataset.layout
    if layout.address == UNDEFINED:
        found = _nothing()
    elif layout.kind_of_index == BTREE_1:
        found = _btree_1(file, dataset, wanted)
    elif layout.kind_of_index == BTREE_2:
        found = _btree_2(file, dataset, wanted)
    else:
        found = _array(file, dataset, wanted)
    present = found.addresses != UNDEFINED
    if not present.all():
        found = _Found(*(column[present] for column in found))
    if (found.addresses[found.sizes > 0] == 0).any():
        raise DamagedStructureError("a chunk lies where the file begins")
    if len(found.addresses) and int(found.addresses.max()) > 2**63:
        raise DamagedStructureError("a chunk lies outside of the file")
    masks = found.masks
    if layout.plain_edges and dataset.filters and len(found.numbers):
        places = np.stack(np.unravel_index(found.numbers, dataset.grid), axis=1)
        ends = (places + 1) * np.array(layout.chunk, "i8")
        partial = (ends > np.array(dataset.shape, "i8")).any(axis=1)
        masks = np.where(partial, np.uint32((1 << dataset.filters) - 1), masks)
    return _Found(found.numbers, found.addresses + np.uint64(file.base), found.sizes, masks)


def _nothing() -> _Found:
    return _Found(np.zeros(0, "i8"), np.zeros(0, "u8"), np.zeros(0, "u8"), np.zeros(0, "u4"))


def _from_cells(dataset: Chunked, cells: np.ndarray, records: np.ndarray) -> _Found:
    """Return chunks by their places in the grid, which must ascend as in every kind of B-tree."""
    if len(cells) > 1:
        steps = np.diff(cells, axis=0)
        first = (steps != 0).argmax(axis=1)
        if not (steps[np.arange(len(steps)), first] > 0).all():
            raise DamagedStructureError("chunks are out of order")
    # Chunks past the end stay in the file when a dataset is shrunk: they are not its data.
    inside = ((cells >= 0) & (cells < np.array(dataset.grid, "i8"))).all(axis=1)
    if not inside.all():
        cells, records = cells[inside], records[inside]
    numbers = np.ravel_multi_index(tuple(cells.T), dataset.grid) if len(cells) else np.zeros(0, "i8")
    names = records.dtype.names or ()
    count = len(records)
    sizes = records["size"].astype("u8") if "size" in names else np.full(count, dataset.chunk_size, "u8")
    masks = records["mask"].astype("u4") if "mask" in names else np.zeros(count, "u4")
    return _Found(numbers, records["address"].astype("u8"), sizes, masks)


# --- B-trees of version 1 ------------------------------------------------------------------------------


@cache
def _entry_1(rank: int) -> struct.Struct:
    """Return the format of an entry: stored size, filter mask, corner of the chunk, 0, and its address."""
    return struct.Struct(f"<II{rank + 2}Q")


def _leaf_1(file: FileBytes, dataset: Chunked, grid: tuple[int, ...]) -> list[_Chunk] | None:
    """Return the chunks of a tree of one node with a few entries; None for larger ones."""
    chunk = dataset.layout.chunk
    entry = _entry_1(len(chunk))
    level, count, data = _node(file, dataset.layout.address, -1, entry.size)
    if level or count > _FEW:
        return None
    found: list[_Chunk] = []
    before: tuple[int, ...] = ()
    for size, mask, *corner, rest, address in entry.iter_unpack(data[: count * entry.size]):
        cell = tuple(map(floordiv, corner, chunk))
        if rest or cell <= before or max(corner) >= 2**63 or any(map(mod, corner, chunk)):
            raise DamagedStructureError("chunks are out of order")
        before = cell
        # Chunks past the end stay in the file when a dataset is shrunk: they are not its data.
        if all(map(lt, cell, grid)):
            number = 0
            for place, length in zip(cell, grid, strict=True):
                number = number * length + place
            found.append((number, address, size, mask))
    return found


def _btree_1(file: FileBytes, dataset: Chunked, wanted: np.ndarray | None) -> _Found:
    rank = len(dataset.shape)
    record = np.dtype([("size", "<u4"), ("mask", "<u4"), ("corner", "<u8", (rank + 1,)), ("address", "<u8")])
    rows = _rows(dataset, wanted)
    parts: list[np.ndarray] = []
    pending: list[tuple[int, int, bytes, bytes]] = [(dataset.layout.address, -1, b"", b"")]
    visited: set[int] = set()
    missing: MissingRangesError | None = None
    while pending:
        address, expected, left, right = pending.pop()
        if address in visited:
            raise DamagedStructureError("the nodes of a B-tree form a circle")
        visited.add(address)
        try:
            level, _, data = _node(file, address, expected, record.itemsize)
        except MissingRangesError as error:
            missing = error
            continue
        entries = np.frombuffer(data, record, len(data) // record.itemsize)
        key = record.itemsize - 8
        if rows is not None and left and (data[8:key] != left or data[-key + 8 :] != right):
            raise UnsupportedStructureError("keys of a B-tree that differ from those of the node above")
        if not level:
            parts.append(entries)
        else:
            pending += reversed(_children(data, entries, level, rows, dataset.layout.chunk[0]))
    if missing is not None:
        raise missing
    records = np.concatenate(parts) if len(parts) != 1 else parts[0]
    if records["corner"].size and int(records["corner"].max()) >= 2**63:
        raise DamagedStructureError("a chunk at 2**63")
    cells, rest = np.divmod(
        records["corner"].astype("i8"),
        np.array([*dataset.layout.chunk, max(dataset.layout.element, 1)], "i8"),
    )
    if rest.any() or cells[:, rank].any():
        raise DamagedStructureError("chunks are out of order")
    return _from_cells(dataset, cells[:, :rank], records)


def _node(file: FileBytes, address: int, expected: int, size: int) -> tuple[int, int, bytes]:
    """Read a node: level, number of children, and keys and children, which alternate and end with a key."""
    most = 2 * file.superblock.chunk_k
    key = size - 8
    head = file.get(address, _NODE.size, _NODE.size + most * size + key)
    signature, kind, level, count, _, _ = _NODE.unpack(head)
    if signature != b"TREE" or kind != 1 or count > most or level > _MAX_DEPTH or not (count or expected < 0):
        raise DamagedStructureError(f"no node of a chunk index at {address}")
    if expected >= 0 and level != expected:
        raise DamagedStructureError("the levels of a B-tree do not follow one another")
    return level, count, file.get(address + _NODE.size, count * size + key)


def _children(
    data: bytes, entries: np.ndarray, level: int, rows: np.ndarray | None, length: int
) -> list[tuple[int, int, bytes, bytes]]:
    size = entries.dtype.itemsize
    children = entries["address"].tolist()
    keys = [data[k * size + 8 : (k + 1) * size - 8] for k in range(len(children) + 1)]
    chosen = list(range(len(children)))
    if rows is not None:
        edges = [U8.unpack_from(key)[0] // length for key in keys]
        if edges != sorted(edges) or edges[-1] >= 2**63:
            raise DamagedStructureError("chunks are out of order")
        low = np.searchsorted(rows, np.array(edges[:-1], "i8"))
        high = np.searchsorted(rows, np.array(edges[1:], "i8"), side="right")
        chosen = np.flatnonzero(high > low).tolist()
    return [(children[k], level - 1, keys[k], keys[k + 1]) for k in chosen]


def _rows(dataset: Chunked, wanted: np.ndarray | None) -> np.ndarray | None:
    """Return the places of the wanted chunks along the first dimension, ascending; None for all chunks."""
    if wanted is None or math.prod(dataset.grid) <= _FEW:
        return None
    return np.unique(wanted // math.prod(dataset.grid[1:]))


# --- B-trees of version 2 ------------------------------------------------------------------------------


def _btree_2(file: FileBytes, dataset: Chunked, wanted: np.ndarray | None) -> _Found:
    rank = len(dataset.shape)
    rows = _rows(dataset, wanted)

    def chosen(records: bytes, size: int) -> list[bool]:
        assert rows is not None  # noqa: S101 - it is not called otherwise
        found = np.frombuffer(records, _record_2(dataset, size, rank))["cell"][:, 0].astype("i8")
        edges = np.concatenate([[-1], found, [2**62]])
        low, high = np.searchsorted(rows, edges[:-1]), np.searchsorted(rows, edges[1:], side="right")
        children: list[bool] = (high > low).tolist()
        return children

    kind = FILTERED_CHUNKS if dataset.filters else CHUNKS
    data, size = read_records(file, dataset.layout.address, kind, chosen if rows is not None else None)
    records = np.frombuffer(data, _record_2(dataset, size, rank))
    if records["cell"].size and int(records["cell"].max()) >= 2**62:
        raise DamagedStructureError("a chunk at 2**62")
    return _from_cells(dataset, records["cell"].astype("i8"), _widened(records))


def _record_2(dataset: Chunked, size: int, rank: int) -> np.dtype:
    return _element(dataset, size - 8 * rank, [("cell", "<u8", (rank,))])


def _element(dataset: Chunked, size: int, more: list[tuple[str, str, tuple[int, ...]]]) -> np.dtype:
    """Return the type of a record of an index: an address, and of a filtered chunk its size and mask."""
    width = size - _ADDRESS - _MASK
    if not dataset.filters:
        if size != _ADDRESS:
            raise DamagedStructureError("the records of a chunk index have another size")
        return np.dtype([("address", "<u8"), *more])
    if not 0 < width <= 8:  # noqa: PLR2004
        raise DamagedStructureError("the records of a chunk index have another size")
    return np.dtype([("address", "<u8"), ("bytes", "u1", (width,)), ("mask", "<u4"), *more])


def _widened(records: np.ndarray) -> np.ndarray:
    """Return records whose sizes are integers rather than a few bytes."""
    if "bytes" not in (records.dtype.names or ()):
        return records
    found = np.zeros(len(records), [("address", "<u8"), ("size", "<u8"), ("mask", "<u4")])
    found["address"], found["mask"] = records["address"], records["mask"]
    width = records.dtype["bytes"].shape[0]
    sizes = np.zeros((len(records), 8), "u1")
    sizes[:, :width] = records["bytes"]
    found["size"] = sizes.view("<u8")[:, 0]
    return found


# --- single chunks and arrays --------------------------------------------------------------------------


def _array(file: FileBytes, dataset: Chunked, wanted: np.ndarray | None) -> _Found:  # noqa: C901
    layout = dataset.layout
    numbers = np.arange(math.prod(dataset.grid)) if wanted is None else np.unique(wanted)
    count = len(numbers)
    sizes, masks = np.full(count, dataset.chunk_size, "u8"), np.zeros(count, "u4")
    if layout.kind_of_index == SINGLE:
        if math.prod(dataset.grid) != 1:
            if not count:
                return _nothing()
            raise DamagedStructureError("a single chunk of a dataset that has more")
        if bool(dataset.filters) != bool(layout.parameters):
            if not layout.plain_edges:
                raise DamagedStructureError("a single chunk, and filters that contradict it")
        elif layout.parameters:
            sizes[:], masks[:] = layout.parameters
        return _Found(numbers, np.full(count, layout.address, "u8"), sizes, masks)
    places = _places(dataset, numbers)
    if layout.kind_of_index == IMPLICIT:
        if dataset.filters:
            raise DamagedStructureError("an implicit index of filtered chunks")
        return _Found(numbers, np.uint64(layout.address) + places.astype("u8") * sizes, sizes, masks)
    read = {FIXED_ARRAY: _fixed, EXTENSIBLE_ARRAY: _extensible}.get(layout.kind_of_index)
    if read is None:
        raise UnsupportedStructureError(f"a chunk index of kind {layout.kind_of_index}")
    records = _widened(read(file, dataset, places))
    if dataset.filters:
        sizes, masks = records["size"], records["mask"]
    return _Found(numbers, records["address"], sizes, masks)


def _places(dataset: Chunked, numbers: np.ndarray) -> np.ndarray:
    """Return where chunks are in an index, whose grid is that of the largest dataset."""
    chunk = dataset.layout.chunk
    below = [-(-limit // size) for limit, size in zip(dataset.limits[1:], chunk[1:], strict=True)]
    if math.prod(below) * max(dataset.grid[0], 1) >= 2**62:
        raise DamagedStructureError("a dataset of too many chunks")
    if tuple(below) == dataset.grid[1:]:
        return numbers
    places = np.zeros(len(numbers), "i8")
    if len(numbers):
        for at, place in enumerate(np.unravel_index(numbers, dataset.grid)):
            places += place * math.prod(below[at:])
    return places


def _block(file: FileBytes, address: int, size: int, signature: bytes, head: tuple[int, int]) -> bytes:
    """Read a block of an array with its checksum; `head` is the client and the address of the header."""
    data = file.get(address, size)
    if _BLOCK.unpack_from(data) != (signature, 0, *head):
        raise DamagedStructureError(f"no block of a chunk index at {address}")
    file.verify(data, "a block of a chunk index")
    return data


def _fixed(file: FileBytes, dataset: Chunked, places: np.ndarray) -> np.ndarray:
    address = dataset.layout.address
    size = _FIXED.size + _CHECKSUM
    data = file.get(address, size)
    signature, version, client, width, bits, count, block = _FIXED.unpack_from(data)
    if signature != b"FAHD" or version or client != bool(dataset.filters):
        raise DamagedStructureError(f"no fixed array at {address}")
    file.verify(data, "a fixed array")
    record = _element(dataset, width, [])
    if len(places) and int(places.max()) >= count:
        raise DamagedStructureError("a fixed array has fewer elements than there are chunks")
    if block == UNDEFINED:
        return _unwritten(record, len(places))
    if bits >= 32 or count * width > file.source.size:  # noqa: PLR2004
        raise DamagedStructureError("a fixed array contradicts itself")
    head = (client, address)
    page = 1 << bits
    if count <= page:
        data = _block(file, block, _BLOCK.size + count * width + _CHECKSUM, b"FADB", head)
        elements: np.ndarray = np.frombuffer(data, record, count, _BLOCK.size)[places]
        return elements
    pages = -(-count // page)
    data = _block(file, block, _BLOCK.size + (pages + 7) // 8 + _CHECKSUM, b"FADB", head)
    written = np.unpackbits(np.frombuffer(data, "u1", (pages + 7) // 8, _BLOCK.size))
    return _from_pages(file, block + len(data), places, record, page, written, count)


def _unwritten(record: np.dtype, count: int) -> np.ndarray:
    found = np.zeros(count, record)
    found["address"] = UNDEFINED
    return found


def _from_pages(  # noqa: PLR0913, PLR0917 - what pages are
    file: FileBytes,
    start: int,
    places: np.ndarray,
    record: np.dtype,
    page: int,
    written: np.ndarray,
    count: int,
) -> np.ndarray:
    """Return the elements at some places of an array that is stored in pages, `count` elements in all."""
    found = _unwritten(record, len(places))
    stride = page * record.itemsize + _CHECKSUM
    numbers = places // page
    missing: MissingRangesError | None = None
    for number in np.unique(numbers).tolist():
        if not written[number]:
            continue
        held = min(page, count - number * page)
        try:
            data = file.get(start + number * stride, held * record.itemsize + _CHECKSUM)
        except MissingRangesError as error:
            missing = error
            continue
        file.verify(data, "a page of a chunk index")
        here = numbers == number
        found[here] = np.frombuffer(data, record, held)[places[here] - number * page]
    if missing is not None:
        raise missing
    return found


class _Extensible(NamedTuple):
    """An extensible array: the number of elements of its parts.

    Attributes
    ----------
    address, client : int
        Of the header.
    record : dtype
    offset_size : int
        Bytes of an offset within the array.
    direct : int
        Elements in the index block.
    least : int
        Elements of the smallest data block.
    pointers : int
        Least number of pointers of a secondary block.
    page : int
        Elements of a page.
    blocks : int
        Secondary blocks, those whose data blocks the index block points to among them.
    """

    address: int
    client: int
    record: np.dtype
    offset_size: int
    direct: int
    least: int
    pointers: int
    page: int
    blocks: int

    def block(self, number: int) -> tuple[int, int, int, int]:
        """Return data blocks, elements of each, first element and first data block of a secondary block."""
        elements = self.least << (number + 1) // 2
        first = self.least * ((1 << number) - 1)
        # 1, 1, 2, 2, 4, 4, ... data blocks before it
        before = 2 * ((1 << number // 2) - 1) + (number & 1) * (1 << number // 2)
        return 1 << number // 2, elements, first, before


def _extensible(file: FileBytes, dataset: Chunked, places: np.ndarray) -> np.ndarray:
    address = dataset.layout.address
    data = file.get(address, _EXTENSIBLE.size + _CHECKSUM)
    signature, version, client, width, bits, direct, least, pointers, page, *_, index = (
        _EXTENSIBLE.unpack_from(data)
    )
    if signature != b"EAHD" or version or client != bool(dataset.filters):
        raise DamagedStructureError(f"no extensible array at {address}")
    file.verify(data, "an extensible array")
    record = _element(dataset, width, [])
    if index == UNDEFINED:
        return _unwritten(record, len(places))
    powers = all(n and not n & n - 1 for n in (least, pointers))
    if not powers or pointers < 2 or not least.bit_length() <= bits <= 64 or page >= 32:  # noqa: PLR2004
        raise DamagedStructureError("an extensible array contradicts itself")
    blocks = 2 + bits - least.bit_length()
    array = _Extensible(address, client, record, (bits + 7) // 8, direct, least, pointers, 1 << page, blocks)
    return _elements(file, array, index, places)


def _elements(file: FileBytes, array: _Extensible, index: int, places: np.ndarray) -> np.ndarray:
    width = array.record.itemsize
    inline = 2 * (array.pointers.bit_length() - 1)  # secondary blocks that the index block stands for
    data_blocks, secondary = 2 * (array.pointers - 1), array.blocks - inline
    if secondary < 0:
        raise UnsupportedStructureError("an extensible array with a small index block")
    size = _BLOCK.size + array.direct * width + 8 * (data_blocks + secondary) + _CHECKSUM
    data = _block(file, index, size, b"EAIB", (array.client, array.address))
    found = _unwritten(array.record, len(places))
    here = places < array.direct
    found[here] = np.frombuffer(data, array.record, array.direct, _BLOCK.size)[places[here]]
    pointers = np.frombuffer(
        data, "<u8", data_blocks + secondary, _BLOCK.size + array.direct * width
    ).tolist()
    rest = places - array.direct
    numbers = np.full(len(places), -1)
    numbers[~here] = np.frexp((rest[~here] // array.least + 1).astype("f8"))[1] - 1
    missing: MissingRangesError | None = None
    for number in np.unique(numbers[~here]).tolist():
        chosen = numbers == number
        if number >= array.blocks:
            raise DamagedStructureError("an extensible array has fewer elements than there are chunks")
        _, elements, first, before = array.block(number)
        try:
            if number < inline:
                # libhdf5 counts these data blocks from the first one of the index block.
                known, start = pointers[before:data_blocks], first + before * elements
                found[chosen] = _from_blocks(file, array, known, rest[chosen] - first, elements, start, None)
            elif pointers[data_blocks + number - inline] != UNDEFINED:
                block = pointers[data_blocks + number - inline]
                found[chosen] = _from_secondary(file, array, block, number, rest[chosen] - first)
        except MissingRangesError as error:
            missing = error
    if missing is not None:
        raise missing
    return found


def _from_secondary(
    file: FileBytes, array: _Extensible, address: int, number: int, places: np.ndarray
) -> np.ndarray:
    count, elements, first, _ = array.block(number)
    pages = elements // array.page if elements > array.page else 0
    bitmap = (pages + 7) // 8
    start = _BLOCK.size + array.offset_size
    if count * (8 + bitmap) > file.source.size:
        raise DamagedStructureError("an extensible array contradicts itself")
    size = start + count * (bitmap + 8) + _CHECKSUM
    data = _block(file, address, size, b"EASB", (array.client, array.address))
    if int.from_bytes(data[_BLOCK.size : start], "little") != first:
        raise DamagedStructureError("a block of an extensible array is not where it should be")
    pointers = np.frombuffer(data, "<u8", count, start + count * bitmap).tolist()
    written = None
    if pages:
        bits = np.frombuffer(data, "u1", count * bitmap, start).reshape(count, bitmap)
        written = np.unpackbits(bits, axis=1)
    return _from_blocks(file, array, pointers, places, elements, first, written)


def _from_blocks(  # noqa: PLR0913, PLR0917 - what data blocks are
    file: FileBytes,
    array: _Extensible,
    pointers: list[int],
    places: np.ndarray,
    elements: int,
    first: int,
    written: np.ndarray | None,
) -> np.ndarray:
    """Return elements of data blocks of one size; `written` says which of their pages are."""
    found = _unwritten(array.record, len(places))
    width = array.record.itemsize
    head = (array.client, array.address)
    prefix = _BLOCK.size + array.offset_size
    if written is None and elements > array.page:
        raise UnsupportedStructureError("pages in data blocks of an index block")
    if elements * width > file.source.size:
        raise DamagedStructureError("an extensible array contradicts itself")
    numbers = places // elements
    missing: MissingRangesError | None = None
    for number in np.unique(numbers).tolist():
        if number >= len(pointers):
            raise DamagedStructureError("an extensible array has fewer elements than there are chunks")
        address = pointers[number]
        if address == UNDEFINED:
            continue
        here = numbers == number
        inside = places[here] - number * elements
        try:
            size = prefix + _CHECKSUM + (elements * width if written is None else 0)
            data = _block(file, address, size, b"EADB", head)
            if int.from_bytes(data[_BLOCK.size : prefix], "little") != first + number * elements:
                raise DamagedStructureError("a block of an extensible array is not where it should be")
            if written is None:
                found[here] = np.frombuffer(data, array.record, elements, prefix)[inside]
            else:
                found[here] = _from_pages(
                    file, address + size, inside, array.record, array.page, written[number], elements
                )
        except MissingRangesError as error:
            missing = error
    if missing is not None:
        raise missing
    return found
