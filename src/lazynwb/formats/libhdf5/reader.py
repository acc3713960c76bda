"""Reads of arrays through libhdf5: rare filters, virtual and external data, uncommon types."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h5py
import numpy as np
from h5py import h5r, h5z

from lazynwb.errors import CorruptDataError, MissingPackageError, UnsupportedTypeError
from lazynwb.formats.libhdf5.chunk_validation import check_chunks, chunks_with, stored_chunks
from lazynwb.formats.libhdf5.external_storage import permitted_dataset, with_checked_heaps

if TYPE_CHECKING:
    from lazynwb.catalog.model import Array
    from lazynwb.formats.libhdf5.nodes import Hdf5File

#: Filters in hdf5plugin.
_PLUGIN_FILTERS = frozenset({307, 32001, 32004, 32008, 32013, 32015, 32017, 32018, 32024, 32026, 32028})


def read_indirect(file: Hdf5File, array: Array, ranges: np.ndarray) -> np.ndarray:
    """Read ranges of rows of an array that the engine cannot decode on its own.

    Parameters
    ----------
    file : Hdf5File
    array : Array
    ranges : ndarray of shape (n, 2)
        Ascending ranges of rows (start, stop). A scalar has one row.

    Returns
    -------
    ndarray
        The concatenated rows. Variable-length text and sequences are objects, object references the paths of
        their targets (None for null references).

    Raises
    ------
    MissingPackageError
        If libhdf5 lacks a filter that is in a package.
    UnsupportedTypeError
        If libhdf5 lacks another filter; or if the data are in a file that the settings do not permit to read.
    CorruptDataError
        If libhdf5 cannot read the data.
    """
    found = file.find(array.path)
    with with_checked_heaps(found) as here, permitted_dataset(here) as opened:
        dataset = h5py.Dataset(opened)
        shape, stored = dataset.shape, _stored_ranges(dataset, array, ranges)
        if file.source.is_remote:
            found.file.prefetch(_bytes_of(dataset, stored))
            file.raise_if_missing()
        check_chunks(file, dataset, array, stored)
        try:
            rows = _read(file, dataset, stored)
        except (OSError, RuntimeError) as error:
            where = f"{file.name}: /{array.path}"
            absent = _absent_filter(dataset.id)
            if absent is not None:
                number, name = absent
                what = f"{where} is compressed with filter {number}" + (f" ({name})" if name else "")
                if number in _PLUGIN_FILTERS:
                    raise MissingPackageError(
                        f"{what}, which libhdf5 lacks: `pip install hdf5plugin` and import it first"
                    ) from None
                raise UnsupportedTypeError(
                    f"{what}, which libhdf5 lacks: install its plugin (HDF5_PLUGIN_PATH), or select "
                    "other columns"
                ) from None
            raise CorruptDataError(f"{where} cannot be read: {error}") from None
    if shape and shape != array.shape:
        count = rows.shape[0] if stored is ranges else array.rows
        rows = rows.reshape(count, *array.shape[1:], *array.dtype.dims)
    if stored is not ranges:
        rows = rows[np.concatenate([np.arange(start, stop) for start, stop in ranges.tolist()])]
    return _resolved(file, rows)


def _stored_ranges(dataset: h5py.Dataset, array: Array, ranges: np.ndarray) -> np.ndarray:
    """Return the ranges of the first dimension for ranges of rows.

    They differ if a dataset of shape (1, n) is read as n rows.
    """
    if (
        len(array.shape) == 1
        and len(dataset.shape) > 1
        and dataset.shape[0] != array.shape[0]
        and len(ranges)
    ):
        return np.array([[0, dataset.shape[0]]])
    return ranges


def _read(file: Hdf5File, dataset: h5py.Dataset, ranges: np.ndarray) -> np.ndarray:
    if not dataset.shape:
        return np.asarray(dataset[()]).reshape(1) if len(ranges) else np.zeros(0, dataset.dtype)
    parts = []
    for start, stop in ranges.tolist():
        with file.collect_misses():
            parts.append(np.asarray(dataset[start:stop]))
    # Concatenation loses h5py's metadata of the type, which marks objects as references.
    return np.concatenate(parts, dtype=parts[0].dtype) if parts else np.asarray(dataset[:0])


def _bytes_of(dataset: h5py.Dataset, ranges: np.ndarray) -> list[tuple[int, int]]:
    """Return the byte ranges of rows that are stored in this file."""
    if dataset.chunks is not None:
        chunks = chunks_with(ranges, stored_chunks(dataset), dataset.chunks[0])
        return [(chunk.byte_offset, chunk.byte_offset + chunk.size) for chunk in chunks]
    offset = dataset.id.get_offset()
    if offset is None or not dataset.shape:
        return []
    width = dataset.id.get_storage_size() // max(dataset.shape[0], 1)
    return [(offset + start * width, offset + stop * width) for start, stop in ranges.tolist()]


def _absent_filter(dataset: h5py.h5d.DatasetID) -> tuple[int, str] | None:
    """Return the number and the name of the first filter that libhdf5 lacks."""
    properties = dataset.get_create_plist()
    for i in range(properties.get_nfilters()):
        number, _flags, _values, name = properties.get_filter(i)
        if not h5z.filter_avail(number):
            return number, name.decode("utf-8", "replace")
    return None


def _resolved(file: Hdf5File, rows: np.ndarray) -> np.ndarray:
    """Replace object references, including those in compounds, with the paths of their targets."""
    if h5py.check_ref_dtype(rows.dtype) is h5py.Reference:
        return _paths_of(file, rows)
    for name in rows.dtype.names or ():
        if rows.dtype[name].hasobject:
            rows[name] = _resolved(file, rows[name])
    return rows


def _paths_of(file: Hdf5File, references: np.ndarray) -> np.ndarray:
    paths = np.full(references.shape, None, object)
    for i, reference in enumerate(references.ravel()):
        if isinstance(reference, h5r.Reference) and reference:
            name = h5r.get_name(reference, file.id)
            paths.ravel()[i] = name.decode("utf-8", "replace") if name else None
    return paths
