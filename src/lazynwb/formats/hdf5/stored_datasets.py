"""Descriptions (`Array`) of datasets from the messages of their object headers."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from lazynwb.catalog.model import MISSING, Array, Codec, stored_size
from lazynwb.formats.hdf5.binary import UNDEFINED, DamagedStructureError, UnsupportedStructureError
from lazynwb.formats.hdf5.datatypes import StoredType, decode_datatype
from lazynwb.formats.hdf5.global_heap import variable_length_bytes
from lazynwb.formats.hdf5.messages import (
    CHUNKED,
    COMPACT,
    CONTIGUOUS,
    VIRTUAL,
    ChunkedDataset,
    DataLayout,
    Dataspace,
    Filter,
    decode_dataspace,
    decode_fill_value,
    decode_filters,
    decode_layout,
    decode_old_fill_value,
)
from lazynwb.formats.hdf5.object_header import (
    DATASPACE,
    DATATYPE,
    EXTERNAL_FILES,
    FILL,
    FILTERS,
    LAYOUT,
    OLD_FILL,
    SHARED,
    ObjectHeader,
)

if TYPE_CHECKING:
    from lazynwb.formats.hdf5.object_header import Message
    from lazynwb.formats.hdf5.structure import Structure

#: Codecs by filter identification value (filter registry of The HDF Group).
_SHUFFLE = 2
_CODECS = {1: "zlib", _SHUFFLE: "shuffle", 3: "fletcher32", 32001: "blosc", 32004: "lz4", 32015: "zstd"}
#: Maximum number of client data values of a filter that h5py reports.
_MAX_VALUES = 16
_MAX_INLINE = 65536
#: Versions and classes of layouts whose datasets are described once, and the types of the other messages that
#: describe a dataset.
_CACHED_LAYOUTS = frozenset(bytes((version, kind)) for version in (3, 4, 5) for kind in (CONTIGUOUS, CHUNKED))
_DESCRIPTION_TYPES = (DATATYPE, DATASPACE, FILL, OLD_FILL, FILTERS)
#: Maximum size of messages whose description is cached.
_MAX_CACHED_BYTES = 512
_NUMBERS = frozenset({"number", "bool", "enum"})


@lru_cache(maxsize=1024)
def codecs_of(filters: tuple[Filter, ...]) -> tuple[Codec, ...] | None:
    """Return the codecs of a filter pipeline; None if a filter has no codec and libhdf5 is required."""
    codecs = []
    for number, values in filters:
        if number not in _CODECS or (number == _SHUFFLE and (len(values) != 1 or not values[0])):
            return None
        codecs.append(Codec(_CODECS[number], values))
    return tuple(codecs)


def type_of(file: Structure, header: ObjectHeader) -> StoredType:
    """Return the datatype of a dataset, which may be a committed datatype."""
    flags, body = _required(header, DATATYPE, "type")
    return file.committed_type(body) if flags & SHARED else decode_datatype(body)


def space_of(header: ObjectHeader) -> Dataspace:
    """Return the dataspace of a dataset."""
    return decode_dataspace(_unshared(header, DATASPACE, "shape"))


def layout_of(header: ObjectHeader) -> DataLayout:
    """Return the data layout of a dataset.

    Raises
    ------
    UnsupportedStructureError
        If the data is in other files.
    """
    layout = header.layout
    if layout is None:
        layout = header.layout = decode_layout(_unshared(header, LAYOUT, "layout"))
    if layout.kind == VIRTUAL:
        raise UnsupportedStructureError("a virtual dataset")
    if EXTERNAL_FILES in header.messages:
        raise UnsupportedStructureError("external storage")
    return layout


def filters_of(header: ObjectHeader) -> tuple[Filter, ...]:
    """Return the filter pipeline of a dataset."""
    if FILTERS not in header.messages:
        return ()
    return decode_filters(_unshared(header, FILTERS, "filters"))


def _required(header: ObjectHeader, kind: int, what: str) -> tuple[int, bytes]:
    found = header.messages.get(kind)
    if found is None:
        raise DamagedStructureError(f"a dataset without a {what} message")
    return found


def _unshared(header: ObjectHeader, kind: int, what: str) -> bytes:
    flags, body = _required(header, kind, what)
    if flags & SHARED:
        raise UnsupportedStructureError(f"a dataset with a shared {what}")
    return body


def describe_dataset(file: Structure, header: ObjectHeader, path: str, source: str | None) -> Array:
    """Describe a dataset.

    Parameters
    ----------
    file : Structure
        File with the dataset.
    header : ObjectHeader
        Object header of the dataset.
    path : str
        Path of the dataset.
    source : str or None
        Path of the file, if it is not the file of the table.
    """
    messages = header.messages
    stored = messages.get(LAYOUT)
    if stored is not None and stored[1][:2] in _CACHED_LAYOUTS and EXTERNAL_FILES not in messages:
        layout = layout_of(header)
        description = tuple(map(messages.get, _DESCRIPTION_TYPES))
        if all(
            one is None or not (one[0] & SHARED or len(one[1]) > _MAX_CACHED_BYTES) for one in description
        ):
            allocated = layout.address != UNDEFINED
            found = _describe_without_location(
                *(description, layout.kind, allocated or layout.kind == CHUNKED, layout.size),
                *(layout.chunk, layout.element_size),
            )
            offset = layout.address + file.base if allocated and found.layout == "contiguous" else -1
            return Array(
                *(path, found.shape, found.dtype, found.layout, offset, found.chunk, found.codecs),
                *(found.fill, b"", file.base, source),
            )
    return _describe(header, type_of(file, header), path, file.base, source)


@lru_cache(maxsize=4096)
def _describe_without_location(  # noqa: PLR0913, PLR0917 - messages that columns of a table often share
    messages: tuple[Message | None, ...],
    layout: int,
    allocated: bool,  # noqa: FBT001
    size: int,
    chunk: tuple[int, ...],
    element_size: int,
) -> Array:
    """Describe a contiguous or chunked dataset without its location."""
    header = ObjectHeader(0)
    header.messages = {
        kind: one for kind, one in zip(_DESCRIPTION_TYPES, messages, strict=True) if one is not None
    }
    address = 0 if allocated else UNDEFINED
    header.layout = DataLayout(layout, address, size, chunk=chunk, element_size=element_size)
    return _describe(header, decode_datatype(_required(header, DATATYPE, "type")[1]), "", 0, None)


def _describe(header: ObjectHeader, stored: StoredType, path: str, base: int, source: str | None) -> Array:
    dtype = stored.dtype
    space = space_of(header)
    shape = (0,) if space.shape is None else space.shape
    fill, plain_fill = _fill_value(header, stored)
    if dtype.kind == "unsupported":
        return Array(path, shape, dtype, "indirect", fill=fill, base=base, source=source)
    layout = layout_of(header)
    filters = filters_of(header)
    if filters and layout.kind != CHUNKED:
        raise UnsupportedStructureError("filters of data that is not chunked")
    _check_layout(layout, space, stored)
    direct = stored.direct and plain_fill
    if direct and layout.kind == CONTIGUOUS:
        offset = -1 if layout.address == UNDEFINED else layout.address + base
        return Array(path, shape, dtype, "contiguous", offset, fill=fill, base=base, source=source)
    if direct and layout.kind == CHUNKED:
        codecs = codecs_of(filters)
        if codecs is not None and any(len(codec.args) > _MAX_VALUES for codec in codecs):
            raise UnsupportedStructureError("a filter with many client data values")
        # The order of these chunks in libhdf5 differs between listing and reading.
        if codecs is not None and not space.only_inner_unlimited:
            return Array(
                path, shape, dtype, "chunked", -1, layout.chunk, codecs, fill, base=base, source=source
            )
    elif direct and dtype.kind in _NUMBERS and len(layout.data) <= _MAX_INLINE:
        inline = layout.data[: math.prod(shape) * stored.size]
        return Array(path, shape, dtype, "inline", fill=fill, inline=inline, base=base, source=source)
    return Array(path, shape, dtype, "indirect", fill=fill, base=base, source=source)


def _check_layout(layout: DataLayout, space: Dataspace, stored: StoredType) -> None:
    size = math.prod(space.shape) * stored.size if space.shape is not None else 0
    if layout.kind == CHUNKED:
        if space.shape is None or len(layout.chunk) != len(space.shape) or layout.element_size != stored.size:
            raise DamagedStructureError("the chunk layout does not match the dataset")
        if math.prod(layout.chunk) * layout.element_size >= 2**32:
            raise UnsupportedStructureError("chunks of 4 GiB or more")
    elif layout.kind == COMPACT:
        if len(layout.data) != size:
            raise DamagedStructureError("the size of compact data does not match the dataset")
    elif layout.size not in {-1, size} and layout.address != UNDEFINED:
        raise DamagedStructureError("the size of contiguous data does not match the dataset")


def _fill_value(header: ObjectHeader, stored: StoredType) -> tuple[bytes, bool]:
    """Return the stored fill value of an element (empty for zeros), and whether its bytes suffice."""
    if FILL in header.messages:
        value = decode_fill_value(_unshared(header, FILL, "fill value")).value
    elif OLD_FILL in header.messages:
        value = decode_old_fill_value(_unshared(header, OLD_FILL, "fill value")).value
    else:
        value = None
    if value is None:
        return b"", True
    if stored.dtype.kind not in _NUMBERS or stored.dtype.dims:
        return b"", False
    if not stored.direct or len(value) != stored.size:
        raise UnsupportedStructureError("a fill value whose type differs from that of its dataset")
    return (value if any(value) else b""), True


def chunked_dataset(header: ObjectHeader) -> ChunkedDataset:
    """Return the properties of a dataset that its chunk index depends on."""
    layout = layout_of(header)
    space = space_of(header)
    if layout.kind != CHUNKED or space.shape is None or len(layout.chunk) != len(space.shape):
        raise DamagedStructureError("a dataset that is not chunked")
    return ChunkedDataset(space.shape, space.limits, layout, len(filters_of(header)))


def element_bytes(file: Structure, header: ObjectHeader, stored: StoredType) -> bytes:
    """Return the bytes of all elements of a small dataset in contiguous storage.

    Raises
    ------
    UnsupportedStructureError
        If it has more than one chunk, or filters.
    """
    shape = space_of(header).shape
    if shape is None:
        raise UnsupportedStructureError("a value with a null dataspace")
    layout = layout_of(header)
    _check_layout(layout, space_of(header), stored)
    count = math.prod(shape)
    if layout.kind == COMPACT:
        return layout.data
    address = layout.address
    if layout.kind == CHUNKED:
        if filters_of(header) or len(shape) != 1 or shape[0] > layout.chunk[0]:
            raise UnsupportedStructureError("a small value in filtered chunks")
        from lazynwb.formats.hdf5.chunk_index import read_chunk_index

        offset = read_chunk_index(file, chunked_dataset(header)).locate(0)[0] if count else MISSING
        address = UNDEFINED if offset == MISSING else offset - file.base
    if not stored.direct:
        raise UnsupportedStructureError("a small value that requires conversion")
    if address == UNDEFINED:
        fill, plain = _fill_value(header, stored)
        if not plain:
            raise UnsupportedStructureError("a small value without allocated storage")
        return (fill or bytes(stored.size)) * count
    return file.get(address, count * stored.size)


def check_dataset(header: ObjectHeader, stored: StoredType) -> None:
    """Raise `DamagedStructureError` if dataspace, datatype and layout of a dataset are inconsistent."""
    layout = decode_layout(_unshared(header, LAYOUT, "layout"))
    if layout.kind != VIRTUAL and EXTERNAL_FILES not in header.messages:
        _check_layout(layout, space_of(header), stored)


def listed_dtype(stored: StoredType) -> str:
    """Return the name of a datatype in a listing: the NumPy type of its memory representation."""
    dtype = stored.dtype
    if dtype.kind in _NUMBERS:
        return dtype.numpy
    if stored.name in {"vlen_text", "object", "region"} or dtype.kind == "vlen":
        return "|O"
    if stored.name == "text":
        return f"|S{stored.size}"
    if stored.name == "bitfield":
        return stored.code
    if stored.name == "opaque":
        return f"|V{stored.size}"
    if stored.name == "compound":
        return f"|V{stored.memory_size}"
    if (
        stored.name == "array"
        and stored.base is not None
        and dtype.kind in {"text", "vlen_text", "reference"}
    ):
        return f"|V{math.prod(dtype.dims) * min(stored.base.memory_size, stored.base.size)}"
    raise UnsupportedStructureError(f"a listing of {dtype.note or stored.name}")


def single_number(file: Structure, header: ObjectHeader) -> float | None:
    """Return the value of a dataset that is a single number; None for other datasets."""
    stored = type_of(file, header)
    shape = space_of(header).shape
    if stored.dtype.kind not in _NUMBERS or math.prod(shape or ()) != 1:
        return None
    if stored.name not in {"integer", "float"} or stored.dtype.dims:
        raise UnsupportedStructureError("a single value that is not a plain number")
    import numpy as np

    return float(np.frombuffer(element_bytes(file, header, stored), stored.dtype.numpy)[0])


def text_elements(
    file: Structure, header: ObjectHeader, max_count: int, max_itemsize: int
) -> list[str] | None:
    """Return the elements of a list of text; None for other datasets, and for too many elements."""
    stored = type_of(file, header)
    shape = space_of(header).shape
    dtype = stored.dtype
    if dtype.kind not in {"text", "vlen_text"} or dtype.dims or shape is None or len(shape) != 1:
        if dtype.dims:
            raise UnsupportedStructureError("elements that are arrays of text")
        return None
    if shape[0] > max_count or dtype.itemsize > max_itemsize:
        return None
    data, size = element_bytes(file, header, stored), stored_size(dtype)
    if dtype.kind == "vlen_text":
        items = [variable_length_bytes(file, data, at, 1) for at in range(0, len(data), size)]
    else:
        items = [data[at : at + size] for at in range(0, len(data), size)]
    found = [item.split(b"\0", 1)[0].decode("utf-8", "replace") for item in items]
    return [text.rstrip(" ") for text in found] if dtype.note == "space" else found
