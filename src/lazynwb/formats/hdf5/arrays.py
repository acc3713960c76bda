"""HDF5 datasets as the catalog's `Array`: shape, type, layout, filters, fill value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h5py
import numpy as np
from h5py import h5d, h5s, h5z
from msgspec.structs import replace

from lazynwb.catalog.model import Array, Codec, DType
from lazynwb.formats.hdf5.dtypes import describe_type
from lazynwb.formats.hdf5.elsewhere import forbidden, is_elsewhere

if TYPE_CHECKING:
    from h5py.h5d import DatasetID
    from h5py.h5p import PropDCID

    from lazynwb.formats.hdf5.file import Hdf5File

#: HDF5 filter numbers (registry of The HDF Group) that the engine decodes on its own.
_CODECS = {
    h5z.FILTER_DEFLATE: "zlib",
    h5z.FILTER_SHUFFLE: "shuffle",
    h5z.FILTER_FLETCHER32: "fletcher32",
    32001: "blosc",
    32004: "lz4",
    32015: "zstd",
}
_MOST_INLINE = 65536
#: Older libraries say where a chunk is without counting the user block in front of the file.
_CHUNKS_WITHOUT_BASE = h5py.version.hdf5_version_tuple < (1, 14, 4)


def describe_dataset(dataset: DatasetID, file: Hdf5File, path: str, main: Hdf5File) -> Array:
    """Describe a dataset of `file`, which an external link may have led to from `main`."""
    dtype, direct = describe_type(dataset.get_type())
    if dtype.kind in {"vlen_text", "vlen", "reference", "compound"} and not file.plain_addresses:
        direct = False
    space = dataset.get_space()
    shape = tuple(space.get_simple_extent_dims()) if space.get_simple_extent_type() != h5s.NULL else (0,)
    properties = dataset.get_create_plist()
    fill, plain_fill = _fill_value(properties, dtype)
    source = None if file is main else file.source.path
    array = Array(path, shape, dtype, "indirect", fill=fill, base=file.base, source=source)
    if dtype.kind == "unsupported":
        return array
    if is_elsewhere(properties):
        refusal = forbidden(properties, file)
        return replace(array, dtype=DType("unsupported", dtype.itemsize, note=refusal)) if refusal else array
    return _with_layout(array, dataset, properties) if direct and plain_fill else array


def _with_layout(array: Array, dataset: DatasetID, properties: PropDCID) -> Array:
    """Add where the bytes are, as far as the engine can make use of it."""
    layout = properties.get_layout()
    if layout == h5d.CONTIGUOUS:
        # Of what was never written libhdf5 gives no position, or the user block's size less one.
        offset = dataset.get_offset()
        if offset is None or (not dataset.get_storage_size() and offset == array.base - 1):
            offset = -1
        return replace(array, layout="contiguous", offset=offset)
    if layout == h5d.CHUNKED:
        codecs = _codecs(properties)
        if codecs is None or (array.base and _CHUNKS_WITHOUT_BASE) or _is_listed_wrongly(dataset):
            return array
        return replace(array, layout="chunked", chunk=tuple(properties.get_chunk()), codecs=codecs)
    if array.dtype.kind in {"number", "bool", "enum"} and dataset.get_storage_size() <= _MOST_INLINE:
        stored = np.zeros(array.shape, np.dtype((np.dtype(array.dtype.numpy), array.dtype.dims)))
        if stored.size:
            dataset.read(h5s.ALL, h5s.ALL, stored, mtype=dataset.get_type())
        return replace(array, layout="inline", inline=stored.tobytes())
    return array


def _is_listed_wrongly(dataset: DatasetID) -> bool:
    """Tell whether libhdf5 may say that chunks are where others are.

    Of a dataset that can grow along one dimension only, the index of the newer formats (an extensible array)
    has that dimension first, whichever it is. libhdf5 reads it so, but lists it as if the order were that of
    the dataset.
    """
    limits = dataset.get_space().get_simple_extent_dims(maxdims=True)
    return bool(limits.count(h5s.UNLIMITED) == 1 and limits[0] != h5s.UNLIMITED)


def _codecs(properties: PropDCID) -> tuple[Codec, ...] | None:
    """Return the filter pipeline, or None if it has a filter that only libhdf5 (or its plugins) can undo."""
    codecs = []
    for i in range(properties.get_nfilters()):
        number, _flags, values, _name = properties.get_filter(i)
        if number not in _CODECS or (number == h5z.FILTER_SHUFFLE and (len(values) != 1 or not values[0])):
            return None  # libhdf5 knows, or says what is wrong
        codecs.append(Codec(_CODECS[number], tuple(int(v) for v in values)))
    return tuple(codecs)


def _fill_value(properties: PropDCID, dtype: DType) -> tuple[bytes, bool]:
    """Return one element's fill value as stored (empty for zeros), and whether bytes can express it."""
    if properties.fill_value_defined() != h5d.FILL_VALUE_USER_DEFINED:
        return b"", True
    if dtype.kind not in {"number", "bool", "enum"} or dtype.dims:
        return b"", False
    value = np.zeros((), dtype.numpy)
    try:
        properties.get_fill_value(value)
    except (TypeError, ValueError, RuntimeError):
        return b"", False
    stored = value.tobytes()
    return (stored if any(stored) else b""), True
