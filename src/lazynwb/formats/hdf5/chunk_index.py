"""Chunk indices of all types (HDF5 File Format Specification, III.A.1, III.A.2, VII).

B-tree nodes and array pages are records of a fixed size, which NumPy decodes together. In a remote file, all
missing ranges of one level of an index are recorded before an error is raised.
"""

from __future__ import annotations

import math
import struct
from functools import cache
from operator import floordiv, lt, mod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lazynwb.catalog.model import MISSING, ChunkIndex, PartialChunkIndex
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
    from lazynwb.formats.hdf5.messages import ChunkedDataset
    from lazynwb.formats.hdf5.superblock import FileBytes

_NODE = struct.Struct("<4sBBHQQ")
_FIXED = struct.Struct("<4sBBBBQQ")
_EXTENSIBLE = struct.Struct("<4s8B7Q")
_BLOCK = struct.Struct("<4sBBQ")
_CHECKSUM = 4
_ADDRESS, _MASK = 8, 4
_MAX_DEPTH = 64
#: Maximum number of chunks; a larger number is taken for a damaged shape.
MAX_CHUNKS = 100_000_000
#: Indices with at most this many chunks are read without NumPy, and as a whole.
_FEW = 64


#: Number of a chunk in the chunk grid, address, stored size, and filter mask.
_Chunk = tuple[int, int, int, int]


class _Locations(NamedTuple):
    """Numbers of chunks in the chunk grid, with addresses, stored sizes, and filter masks."""

    numbers: np.ndarray
    addresses: np.ndarray
    sizes: np.ndarray
    masks: np.ndarray


def read_chunk_index(file: FileBytes, dataset: ChunkedDataset) -> ChunkIndex:
    """Return the locations of all chunks of a dataset.

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
        chunks = _few_chunks(file, dataset, grid)
        if chunks is not None:
            return _pack_index(chunks, total, file.base)
    found = _look_up(file, dataset, None)
    offsets = np.full(total, MISSING, "<u8")
    sizes = np.zeros(total, "<u8")
    masks = np.zeros(total, "<u4")
    offsets[found.numbers], sizes[found.numbers], masks[found.numbers] = found[1:]
    return ChunkIndex(offsets.tobytes(), sizes.tobytes(), masks.tobytes() if masks.any() else b"")


def _pack_index(chunks: list[_Chunk], total: int, base: int) -> ChunkIndex:
    """Return the index of a dataset of `total` chunks from the allocated chunks."""
    offsets, sizes, masks = [MISSING] * total, [0] * total, [0] * total
    for number, address, size, mask in chunks:
        if address == UNDEFINED:
            continue
        if (size and not address) or address > 2**63:
            raise DamagedStructureError("a chunk is outside the file")
        offsets[number], sizes[number], masks[number] = address + base, size, mask
    return ChunkIndex(
        struct.pack(f"<{total}Q", *offsets),
        struct.pack(f"<{total}Q", *sizes),
        struct.pack(f"<{total}I", *masks) if any(masks) else b"",
    )


def _few_chunks(file: FileBytes, dataset: ChunkedDataset, grid: tuple[int, ...]) -> list[_Chunk] | None:
    """Look up the chunks of a small dataset without NumPy, whose calls would dominate the time.

    Returns
    -------
    list of (number, address, stored size, filter mask), or None
        None if the index has another type or structure.
    """
    layout = dataset.layout
    if layout.address == UNDEFINED:
        return []
    if layout.index_type == BTREE_1:
        return _read_leaf_v1(file, dataset, grid)
    if layout.index_type == SINGLE and len(grid) == grid.count(1) and not layout.unfiltered_edges:
        if bool(dataset.filters) != bool(layout.index_parameters):
            raise DamagedStructureError("the single chunk index does not match the filters")
        size, mask = layout.index_parameters or (dataset.chunk_size, 0)
        return [(0, layout.address, size, mask)]
    return None


def read_partial_chunk_index(
    file: FileBytes, dataset: ChunkedDataset, numbers: np.ndarray
) -> PartialChunkIndex:
    """Return the locations of some chunks, by number in row-major order of the chunk grid."""
    if math.prod(dataset.grid) >= 2**63:
        raise DamagedStructureError("a dataset of too many chunks")
    found = _look_up(file, dataset, numbers)
    locations = dict.fromkeys(numbers.tolist(), (MISSING, 0, 0))
    stored = zip(found.addresses.tolist(), found.sizes.tolist(), found.masks.tolist(), strict=True)
    by_number = zip(found.numbers.tolist(), stored, strict=True)
    locations.update({number: location for number, location in by_number if number in locations})
    return PartialChunkIndex(locations)


def _look_up(file: FileBytes, dataset: ChunkedDataset, selection: np.ndarray | None) -> _Locations:
    layout = dataset.layout
    if layout.address == UNDEFINED:
        found = _no_locations()
    elif layout.index_type == BTREE_1:
        found = _look_up_btree_v1(file, dataset, selection)
    elif layout.index_type == BTREE_2:
        found = _look_up_btree_v2(file, dataset, selection)
    else:
        found = _look_up_array(file, dataset, selection)
    present = found.addresses != UNDEFINED
    if not present.all():
        found = _Locations(*(column[present] for column in found))
    if (found.addresses[found.sizes > 0] == 0).any():
        raise DamagedStructureError("a chunk is at address 0")
    if len(found.addresses) and int(found.addresses.max()) > 2**63:
        raise DamagedStructureError("a chunk is outside the file")
    masks = found.masks
    if layout.unfiltered_edges and dataset.filters and len(found.numbers):
        indices = np.stack(np.unravel_index(found.numbers, dataset.grid), axis=1)
        ends = (indices + 1) * np.array(layout.chunk, "i8")
        partial = (ends > np.array(dataset.shape, "i8")).any(axis=1)
        masks = np.where(partial, np.uint32((1 << dataset.filters) - 1), masks)
    return _Locations(found.numbers, found.addresses + np.uint64(file.base), found.sizes, masks)


def _no_locations() -> _Locations:
    return _Locations(np.zeros(0, "i8"), np.zeros(0, "u8"), np.zeros(0, "u8"), np.zeros(0, "u4"))


def _from_grid_indices(dataset: ChunkedDataset, grid_indices: np.ndarray, records: np.ndarray) -> _Locations:
    """Return locations by ascending grid indices, from the records of a B-tree."""
    if len(grid_indices) > 1:
        steps = np.diff(grid_indices, axis=0)
        first = (steps != 0).argmax(axis=1)
        if not (steps[np.arange(len(steps)), first] > 0).all():
            raise DamagedStructureError("the keys of a chunk index are not in order")
    # Chunks outside the dataset remain in the index after it was shrunk.
    inside = ((grid_indices >= 0) & (grid_indices < np.array(dataset.grid, "i8"))).all(axis=1)
    if not inside.all():
        grid_indices, records = grid_indices[inside], records[inside]
    numbers = (
        np.ravel_multi_index(tuple(grid_indices.T), dataset.grid) if len(grid_indices) else np.zeros(0, "i8")
    )
    names = records.dtype.names or ()
    count = len(records)
    sizes = records["size"].astype("u8") if "size" in names else np.full(count, dataset.chunk_size, "u8")
    masks = records["mask"].astype("u4") if "mask" in names else np.zeros(count, "u4")
    return _Locations(numbers, records["address"].astype("u8"), sizes, masks)


# --- B-trees of version 1 ------------------------------------------------------------------------------


@cache
def _entry_format_v1(rank: int) -> struct.Struct:
    """Return the format of an entry: stored size, filter mask, chunk offset, 0, and address."""
    return struct.Struct(f"<II{rank + 2}Q")


def _read_leaf_v1(file: FileBytes, dataset: ChunkedDataset, grid: tuple[int, ...]) -> list[_Chunk] | None:
    """Return the chunks of a tree that is a single small leaf; None for other trees."""
    chunk = dataset.layout.chunk
    entry = _entry_format_v1(len(chunk))
    level, count, data = _read_node_v1(file, dataset.layout.address, -1, entry.size)
    if level or count > _FEW:
        return None
    found: list[_Chunk] = []
    before: tuple[int, ...] = ()
    for size, mask, *chunk_offset, rest, address in entry.iter_unpack(data[: count * entry.size]):
        grid_index = tuple(map(floordiv, chunk_offset, chunk))
        if rest or grid_index <= before or max(chunk_offset) >= 2**63 or any(map(mod, chunk_offset, chunk)):
            raise DamagedStructureError("the keys of a chunk index are not in order")
        before = grid_index
        # Chunks outside the dataset remain in the index after it was shrunk.
        if all(map(lt, grid_index, grid)):
            number = 0
            for place, length in zip(grid_index, grid, strict=True):
                number = number * length + place
            found.append((number, address, size, mask))
    return found


def _look_up_btree_v1(file: FileBytes, dataset: ChunkedDataset, selection: np.ndarray | None) -> _Locations:
    rank = len(dataset.shape)
    record = np.dtype(
        [("size", "<u4"), ("mask", "<u4"), ("chunk_offset", "<u8", (rank + 1,)), ("address", "<u8")]
    )
    rows = _selected_rows(dataset, selection)
    parts: list[np.ndarray] = []
    pending: list[tuple[int, int, bytes, bytes]] = [(dataset.layout.address, -1, b"", b"")]
    visited: set[int] = set()
    missing: MissingRangesError | None = None
    while pending:
        address, expected, left, right = pending.pop()
        if address in visited:
            raise DamagedStructureError("the nodes of a B-tree form a cycle")
        visited.add(address)
        try:
            level, _, data = _read_node_v1(file, address, expected, record.itemsize)
        except MissingRangesError as error:
            missing = error
            continue
        entries = np.frombuffer(data, record, len(data) // record.itemsize)
        key = record.itemsize - 8
        if rows is not None and left and (data[8:key] != left or data[-key + 8 :] != right):
            raise UnsupportedStructureError("a B-tree node whose keys differ from those of its parent")
        if not level:
            parts.append(entries)
        else:
            pending += reversed(_child_nodes_v1(data, entries, level, rows, dataset.layout.chunk[0]))
    if missing is not None:
        raise missing
    records = np.concatenate(parts) if len(parts) != 1 else parts[0]
    if records["chunk_offset"].size and int(records["chunk_offset"].max()) >= 2**63:
        raise DamagedStructureError("a chunk offset exceeds 2**63")
    grid_indices, rest = np.divmod(
        records["chunk_offset"].astype("i8"),
        np.array([*dataset.layout.chunk, max(dataset.layout.element_size, 1)], "i8"),
    )
    if rest.any() or grid_indices[:, rank].any():
        raise DamagedStructureError("the keys of a chunk index are not in order")
    return _from_grid_indices(dataset, grid_indices[:, :rank], records)


def _read_node_v1(file: FileBytes, address: int, expected: int, size: int) -> tuple[int, int, bytes]:
    """Read a node: level, number of children, and the bytes of alternating keys and children."""
    max_count = 2 * file.superblock.chunk_k
    key = size - 8
    head = file.get(address, _NODE.size, _NODE.size + max_count * size + key)
    signature, kind, level, count, _, _ = _NODE.unpack(head)
    if (
        signature != b"TREE"
        or kind != 1
        or count > max_count
        or level > _MAX_DEPTH
        or not (count or expected < 0)
    ):
        raise DamagedStructureError(f"no B-tree node of a chunk index at {address}")
    if expected >= 0 and level != expected:
        raise DamagedStructureError("a node of a B-tree has the wrong level")
    return level, count, file.get(address + _NODE.size, count * size + key)


def _child_nodes_v1(
    data: bytes, entries: np.ndarray, level: int, rows: np.ndarray | None, length: int
) -> list[tuple[int, int, bytes, bytes]]:
    size = entries.dtype.itemsize
    children = entries["address"].tolist()
    keys = [data[k * size + 8 : (k + 1) * size - 8] for k in range(len(children) + 1)]
    selected = list(range(len(children)))
    if rows is not None:
        edges = [U8.unpack_from(key)[0] // length for key in keys]
        if edges != sorted(edges) or edges[-1] >= 2**63:
            raise DamagedStructureError("the keys of a chunk index are not in order")
        low = np.searchsorted(rows, np.array(edges[:-1], "i8"))
        high = np.searchsorted(rows, np.array(edges[1:], "i8"), side="right")
        selected = np.flatnonzero(high > low).tolist()
    return [(children[k], level - 1, keys[k], keys[k + 1]) for k in selected]


def _selected_rows(dataset: ChunkedDataset, selection: np.ndarray | None) -> np.ndarray | None:
    """Return the ascending grid indices of selected chunks along the first dimension; None for all."""
    if selection is None or math.prod(dataset.grid) <= _FEW:
        return None
    return np.unique(selection // math.prod(dataset.grid[1:]))


# --- B-trees of version 2 ------------------------------------------------------------------------------


def _look_up_btree_v2(file: FileBytes, dataset: ChunkedDataset, selection: np.ndarray | None) -> _Locations:
    rank = len(dataset.shape)
    rows = _selected_rows(dataset, selection)

    def select_children(records: bytes, size: int) -> list[bool]:
        assert rows is not None  # noqa: S101 - not called otherwise
        found = np.frombuffer(records, _record_type_v2(dataset, size, rank))["grid_index"][:, 0].astype("i8")
        edges = np.concatenate([[-1], found, [2**62]])
        low, high = np.searchsorted(rows, edges[:-1]), np.searchsorted(rows, edges[1:], side="right")
        children: list[bool] = (high > low).tolist()
        return children

    kind = FILTERED_CHUNKS if dataset.filters else CHUNKS
    data, size = read_records(
        file, dataset.layout.address, kind, select_children if rows is not None else None
    )
    records = np.frombuffer(data, _record_type_v2(dataset, size, rank))
    if records["grid_index"].size and int(records["grid_index"].max()) >= 2**62:
        raise DamagedStructureError("a grid index exceeds 2**62")
    return _from_grid_indices(dataset, records["grid_index"].astype("i8"), _with_integer_sizes(records))


def _record_type_v2(dataset: ChunkedDataset, size: int, rank: int) -> np.dtype:
    return _record_type(dataset, size - 8 * rank, [("grid_index", "<u8", (rank,))])


def _record_type(
    dataset: ChunkedDataset, size: int, more: list[tuple[str, str, tuple[int, ...]]]
) -> np.dtype:
    """Return the type of a record: an address, and for filtered chunks stored size and filter mask."""
    width = size - _ADDRESS - _MASK
    if not dataset.filters:
        if size != _ADDRESS:
            raise DamagedStructureError("the records of a chunk index have the wrong size")
        return np.dtype([("address", "<u8"), *more])
    if not 0 < width <= 8:  # noqa: PLR2004
        raise DamagedStructureError("the records of a chunk index have the wrong size")
    return np.dtype([("address", "<u8"), ("bytes", "u1", (width,)), ("mask", "<u4"), *more])


def _with_integer_sizes(records: np.ndarray) -> np.ndarray:
    """Return records with integer sizes in place of variable-width bytes."""
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


def _look_up_array(file: FileBytes, dataset: ChunkedDataset, selection: np.ndarray | None) -> _Locations:  # noqa: C901
    layout = dataset.layout
    numbers = np.arange(math.prod(dataset.grid)) if selection is None else np.unique(selection)
    count = len(numbers)
    sizes, masks = np.full(count, dataset.chunk_size, "u8"), np.zeros(count, "u4")
    if layout.index_type == SINGLE:
        if math.prod(dataset.grid) != 1:
            if not count:
                return _no_locations()
            raise DamagedStructureError("a single chunk index of a dataset with several chunks")
        if bool(dataset.filters) != bool(layout.index_parameters):
            if not layout.unfiltered_edges:
                raise DamagedStructureError("the single chunk index does not match the filters")
        elif layout.index_parameters:
            sizes[:], masks[:] = layout.index_parameters
        return _Locations(numbers, np.full(count, layout.address, "u8"), sizes, masks)
    array_indices = _array_indices(dataset, numbers)
    if layout.index_type == IMPLICIT:
        if dataset.filters:
            raise DamagedStructureError("an implicit chunk index of filtered chunks")
        return _Locations(
            numbers, np.uint64(layout.address) + array_indices.astype("u8") * sizes, sizes, masks
        )
    read = {FIXED_ARRAY: _read_fixed_array, EXTENSIBLE_ARRAY: _read_extensible_array}.get(layout.index_type)
    if read is None:
        raise UnsupportedStructureError(f"chunk indexing type {layout.index_type}")
    records = _with_integer_sizes(read(file, dataset, array_indices))
    if dataset.filters:
        sizes, masks = records["size"], records["mask"]
    return _Locations(numbers, records["address"], sizes, masks)


def _array_indices(dataset: ChunkedDataset, numbers: np.ndarray) -> np.ndarray:
    """Return the array indices of chunks; the array covers the grid of the maximum size of the dataset."""
    chunk = dataset.layout.chunk
    inner_grid = [-(-limit // size) for limit, size in zip(dataset.limits[1:], chunk[1:], strict=True)]
    if math.prod(inner_grid) * max(dataset.grid[0], 1) >= 2**62:
        raise DamagedStructureError("a dataset of too many chunks")
    if tuple(inner_grid) == dataset.grid[1:]:
        return numbers
    array_indices = np.zeros(len(numbers), "i8")
    if len(numbers):
        for at, grid_index in enumerate(np.unravel_index(numbers, dataset.grid)):
            array_indices += grid_index * math.prod(inner_grid[at:])
    return array_indices


def _read_block(file: FileBytes, address: int, size: int, signature: bytes, head: tuple[int, int]) -> bytes:
    """Read a checksummed block of an array; `head` is client ID and address of the array header."""
    data = file.get(address, size)
    if _BLOCK.unpack_from(data) != (signature, 0, *head):
        raise DamagedStructureError(f"no block of a chunk index at {address}")
    file.queue_checksum(data, "a block of a chunk index")
    return data


def _read_fixed_array(file: FileBytes, dataset: ChunkedDataset, array_indices: np.ndarray) -> np.ndarray:
    address = dataset.layout.address
    size = _FIXED.size + _CHECKSUM
    data = file.get(address, size)
    signature, version, client, width, bits, count, block = _FIXED.unpack_from(data)
    if signature != b"FAHD" or version or client != bool(dataset.filters):
        raise DamagedStructureError(f"no fixed array at {address}")
    file.queue_checksum(data, "a fixed array")
    record = _record_type(dataset, width, [])
    if len(array_indices) and int(array_indices.max()) >= count:
        raise DamagedStructureError("a fixed array has fewer elements than the dataset has chunks")
    if block == UNDEFINED:
        return _unallocated(record, len(array_indices))
    if bits >= 32 or count * width > file.source.size:  # noqa: PLR2004
        raise DamagedStructureError("a fixed array is inconsistent")
    head = (client, address)
    page = 1 << bits
    if count <= page:
        data = _read_block(file, block, _BLOCK.size + count * width + _CHECKSUM, b"FADB", head)
        elements: np.ndarray = np.frombuffer(data, record, count, _BLOCK.size)[array_indices]
        return elements
    pages = -(-count // page)
    data = _read_block(file, block, _BLOCK.size + (pages + 7) // 8 + _CHECKSUM, b"FADB", head)
    initialized = np.unpackbits(np.frombuffer(data, "u1", (pages + 7) // 8, _BLOCK.size))
    return _read_pages(file, block + len(data), array_indices, record, page, initialized, count)


def _unallocated(record: np.dtype, count: int) -> np.ndarray:
    found = np.zeros(count, record)
    found["address"] = UNDEFINED
    return found


def _read_pages(  # noqa: PLR0913, PLR0917 - properties of the pages
    file: FileBytes,
    start: int,
    array_indices: np.ndarray,
    record: np.dtype,
    page: int,
    initialized: np.ndarray,
    count: int,
) -> np.ndarray:
    """Return elements of a paged array of `count` elements."""
    found = _unallocated(record, len(array_indices))
    stride = page * record.itemsize + _CHECKSUM
    numbers = array_indices // page
    missing: MissingRangesError | None = None
    for number in np.unique(numbers).tolist():
        if not initialized[number]:
            continue
        page_elements = min(page, count - number * page)
        try:
            data = file.get(start + number * stride, page_elements * record.itemsize + _CHECKSUM)
        except MissingRangesError as error:
            missing = error
            continue
        file.queue_checksum(data, "a page of a chunk index")
        here = numbers == number
        found[here] = np.frombuffer(data, record, page_elements)[array_indices[here] - number * page]
    if missing is not None:
        raise missing
    return found


class _ExtensibleArray(NamedTuple):
    """Header of an extensible array.

    Attributes
    ----------
    address, client : int
        Address and client ID of the header.
    record : dtype
        Type of an element.
    offset_size : int
        Size of block offsets in bytes.
    index_elements : int
        Number of elements in the index block.
    min_elements : int
        Minimum number of elements in a data block.
    min_pointers : int
        Minimum number of data block pointers in a secondary block.
    page : int
        Number of elements in a page.
    blocks : int
        Number of secondary blocks, including those whose data blocks the index block points to.
    """

    address: int
    client: int
    record: np.dtype
    offset_size: int
    index_elements: int
    min_elements: int
    min_pointers: int
    page: int
    blocks: int

    def block(self, number: int) -> tuple[int, int, int, int]:
        """Return count and size of the data blocks of a secondary block, its first element and data block."""
        elements = self.min_elements << (number + 1) // 2
        first = self.min_elements * ((1 << number) - 1)
        # secondary blocks have 1, 1, 2, 2, 4, 4, ... data blocks
        before = 2 * ((1 << number // 2) - 1) + (number & 1) * (1 << number // 2)
        return 1 << number // 2, elements, first, before


def _read_extensible_array(file: FileBytes, dataset: ChunkedDataset, array_indices: np.ndarray) -> np.ndarray:
    address = dataset.layout.address
    data = file.get(address, _EXTENSIBLE.size + _CHECKSUM)
    signature, version, client, width, bits, direct, min_elements, pointers, page, *_, index = (
        _EXTENSIBLE.unpack_from(data)
    )
    if signature != b"EAHD" or version or client != bool(dataset.filters):
        raise DamagedStructureError(f"no extensible array at {address}")
    file.queue_checksum(data, "an extensible array")
    record = _record_type(dataset, width, [])
    if index == UNDEFINED:
        return _unallocated(record, len(array_indices))
    powers = all(n and not n & n - 1 for n in (min_elements, pointers))
    if not powers or pointers < 2 or not min_elements.bit_length() <= bits <= 64 or page >= 32:  # noqa: PLR2004
        raise DamagedStructureError("an extensible array is inconsistent")
    blocks = 2 + bits - min_elements.bit_length()
    array = _ExtensibleArray(
        address, client, record, (bits + 7) // 8, direct, min_elements, pointers, 1 << page, blocks
    )
    return _read_index_block(file, array, index, array_indices)


def _read_index_block(
    file: FileBytes, array: _ExtensibleArray, index: int, array_indices: np.ndarray
) -> np.ndarray:
    width = array.record.itemsize
    inline = 2 * (array.min_pointers.bit_length() - 1)  # secondary blocks within the index block
    data_blocks, secondary = 2 * (array.min_pointers - 1), array.blocks - inline
    if secondary < 0:
        raise UnsupportedStructureError("an extensible array with fewer blocks than its index block")
    size = _BLOCK.size + array.index_elements * width + 8 * (data_blocks + secondary) + _CHECKSUM
    data = _read_block(file, index, size, b"EAIB", (array.client, array.address))
    found = _unallocated(array.record, len(array_indices))
    here = array_indices < array.index_elements
    found[here] = np.frombuffer(data, array.record, array.index_elements, _BLOCK.size)[array_indices[here]]
    pointers = np.frombuffer(
        data, "<u8", data_blocks + secondary, _BLOCK.size + array.index_elements * width
    ).tolist()
    rest = array_indices - array.index_elements
    numbers = np.full(len(array_indices), -1)
    numbers[~here] = np.frexp((rest[~here] // array.min_elements + 1).astype("f8"))[1] - 1
    missing: MissingRangesError | None = None
    for number in np.unique(numbers[~here]).tolist():
        chosen = numbers == number
        if number >= array.blocks:
            raise DamagedStructureError("an extensible array has fewer elements than the dataset has chunks")
        _, elements, first, before = array.block(number)
        try:
            if number < inline:
                # libhdf5 counts these data blocks from the first data block of the index block.
                inline_pointers, start = pointers[before:data_blocks], first + before * elements
                found[chosen] = _read_data_blocks(
                    file, array, inline_pointers, rest[chosen] - first, elements, start, None
                )
            elif pointers[data_blocks + number - inline] != UNDEFINED:
                block = pointers[data_blocks + number - inline]
                found[chosen] = _read_secondary_block(file, array, block, number, rest[chosen] - first)
        except MissingRangesError as error:
            missing = error
    if missing is not None:
        raise missing
    return found


def _read_secondary_block(
    file: FileBytes, array: _ExtensibleArray, address: int, number: int, array_indices: np.ndarray
) -> np.ndarray:
    count, elements, first, _ = array.block(number)
    pages = elements // array.page if elements > array.page else 0
    bitmap = (pages + 7) // 8
    start = _BLOCK.size + array.offset_size
    if count * (8 + bitmap) > file.source.size:
        raise DamagedStructureError("an extensible array is inconsistent")
    size = start + count * (bitmap + 8) + _CHECKSUM
    data = _read_block(file, address, size, b"EASB", (array.client, array.address))
    if int.from_bytes(data[_BLOCK.size : start], "little") != first:
        raise DamagedStructureError("a block of an extensible array has the wrong offset")
    pointers = np.frombuffer(data, "<u8", count, start + count * bitmap).tolist()
    initialized = None
    if pages:
        bits = np.frombuffer(data, "u1", count * bitmap, start).reshape(count, bitmap)
        initialized = np.unpackbits(bits, axis=1)
    return _read_data_blocks(file, array, pointers, array_indices, elements, first, initialized)


def _read_data_blocks(  # noqa: PLR0913, PLR0917 - properties of the blocks
    file: FileBytes,
    array: _ExtensibleArray,
    pointers: list[int],
    array_indices: np.ndarray,
    elements: int,
    first: int,
    initialized: np.ndarray | None,
) -> np.ndarray:
    """Return elements of data blocks of equal size; `initialized` flags their pages."""
    found = _unallocated(array.record, len(array_indices))
    width = array.record.itemsize
    head = (array.client, array.address)
    prefix = _BLOCK.size + array.offset_size
    if initialized is None and elements > array.page:
        raise UnsupportedStructureError("paged data blocks in an index block")
    if elements * width > file.source.size:
        raise DamagedStructureError("an extensible array is inconsistent")
    numbers = array_indices // elements
    missing: MissingRangesError | None = None
    for number in np.unique(numbers).tolist():
        if number >= len(pointers):
            raise DamagedStructureError("an extensible array has fewer elements than the dataset has chunks")
        address = pointers[number]
        if address == UNDEFINED:
            continue
        here = numbers == number
        inside = array_indices[here] - number * elements
        try:
            size = prefix + _CHECKSUM + (elements * width if initialized is None else 0)
            data = _read_block(file, address, size, b"EADB", head)
            if int.from_bytes(data[_BLOCK.size : prefix], "little") != first + number * elements:
                raise DamagedStructureError("a block of an extensible array has the wrong offset")
            if initialized is None:
                found[here] = np.frombuffer(data, array.record, elements, prefix)[inside]
            else:
                found[here] = _read_pages(
                    file, address + size, inside, array.record, array.page, initialized[number], elements
                )
        except MissingRangesError as error:
            missing = error
    if missing is not None:
        raise missing
    return found
