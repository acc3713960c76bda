"""Objects and links of an HDF5 file read by libhdf5; see `lazynwb.formats.protocols`.

Links are not resolved by libhdf5, which would follow an external link to any readable file, and does not
report the files on a path. Datasets are described by the `Array` of the catalog: shape, type, layout,
filters, fill value.
"""

from __future__ import annotations

import math
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import h5py
import numpy as np
from h5py import h5d, h5g, h5i, h5l, h5o, h5s, h5z
from msgspec.structs import replace

from lazynwb.catalog.model import Array, Codec, DType
from lazynwb.errors import LazyNWBError
from lazynwb.formats.libhdf5.attributes import (
    as_text,
    has_attribute,
    read_attribute,
    read_attributes,
    read_names,
    read_reference,
    read_text,
)
from lazynwb.formats.libhdf5.dtypes import describe_type
from lazynwb.formats.libhdf5.external_storage import (
    describe_forbidden,
    may_be_external,
    permitted_dataset,
    with_checked_heaps,
)
from lazynwb.formats.libhdf5.file import LibHdf5File
from lazynwb.formats.partial_file import find_paths
from lazynwb.formats.protocols import (
    BrokenLinkError,
    DamagedObjectError,
    NoObjectError,
    follow,
    link_error,
)

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from h5py.h5d import DatasetID
    from h5py.h5p import PropDCID


#: Maximum width of fixed-length text that is read as names.
_MAX_TEXT_WIDTH = 4096


class Hdf5File(LibHdf5File):
    """An HDF5 file opened by libhdf5; see `lazynwb.formats.protocols.OpenFile`."""

    @property
    def root(self) -> Hdf5Node:
        """The root group."""
        return Hdf5Node(h5g.open(self.id, b"/"), self)

    def find(self, path: str) -> Hdf5Node:
        """Open the object at a path from the root.

        Raises
        ------
        BrokenLinkError
            If the object does not exist; the message has the broken link.
        """
        if path in self._opened:
            return cast("Hdf5Node", self._opened[path])
        parent, _, name = path.rpartition("/")
        return follow(self._group(parent), name.encode(), 0)

    def open_path(self, path: bytes) -> Hdf5Node:
        """Open the object at a path from the root; raise BrokenLinkError if it does not exist."""
        return follow(self.root, path, 0)

    def paths_of(self, addresses: set[Hashable]) -> dict[Hashable, str]:
        """Return the paths of objects by their addresses, without those that do not exist."""
        return find_paths(self, addresses, partial(resolve_references, self))

    def _group(self, path: str) -> Hdf5Node:
        """Open a group; the last one remains open, because tables are read column by column."""
        if self._last is None or self._last[0] != path:
            self._last = path, follow(self.root, path.encode(), 0)
        return cast("Hdf5Node", self._last[1])


class Hdf5Node(NamedTuple):
    """An object and its file, which may be the target of an external link."""

    id: h5g.GroupID
    file: Hdf5File

    @property
    def is_dataset(self) -> bool:
        """Whether the object is a dataset."""
        return isinstance(self.id, h5d.DatasetID)

    @property
    def is_group(self) -> bool:
        """Whether the object is a group."""
        return isinstance(self.id, h5g.GroupID)

    @property
    def address(self) -> int:
        """The address of the object's header in its file."""
        return int(h5o.get_info(self.id).addr)

    def member_names(self) -> Iterable[bytes]:
        """Return the names of the members of a group."""
        names: Iterable[bytes] = self.id
        return names

    def child(self, key: bytes) -> Hdf5Node:
        """Open a member of a group, following links; raise BrokenLinkError if a link is broken."""
        return follow(self, key, 0)

    def step(self, name: bytes, hops: int) -> Hdf5Node:
        """Open a member by its name after `hops` links."""
        shown = name.decode("utf-8", "replace")
        if not self.is_group:
            raise NoObjectError(f"{shown!r} was looked up in a dataset")
        try:
            link = self.id.links.get_info(name)
        except (KeyError, RuntimeError, OSError, ValueError) as error:
            raise _missing_link_error(self, name, shown, error) from None
        try:
            if link.type == h5l.TYPE_HARD:
                return Hdf5Node(h5o.open(self.id, name), self.file)
            if link.type == h5l.TYPE_SOFT:
                return follow(self, self.id.links.get_val(name), hops + 1)
            if link.type == h5l.TYPE_EXTERNAL:
                file_name, target = self.id.links.get_val(name)
                return follow(self.file.external(file_name).root, target, hops + 1)
        except BrokenLinkError as error:
            raise link_error(shown, error, hops) from None
        except LazyNWBError:  # an error of the target file, which may also be a ValueError or RuntimeError
            raise
        except (KeyError, RuntimeError, OSError, ValueError, TypeError) as error:
            raise DamagedObjectError(f"{shown!r} cannot be opened: {error}") from None
        raise BrokenLinkError(f"{shown!r} is a link of an unknown kind")

    def address_of(self, key: bytes) -> int | None:
        """Return the address of the target of a hard link; None for other links."""
        link = self.id.links.get_info(key)
        return int(link.u) if link.type == h5l.TYPE_HARD else None

    def has_attribute(self, name: str) -> bool:
        """Return whether an attribute exists, even if it is unreadable."""
        return has_attribute(self.id, name, self.file)

    def text(self, name: str) -> str:
        """Return a text attribute; an empty string if it does not exist."""
        return read_text(self.id, name, self.file)

    def names(self, name: str) -> list[str] | None:
        """Return an attribute that is a list of names; None if it does not exist."""
        return read_names(self.id, name, self.file)

    def attributes(self) -> dict[str, Any]:
        """Return all attributes as plain values, sorted by name."""
        return read_attributes(self.id, self.file)

    def target(self, name: str = "target") -> int | None:
        """Return the address of the object that an attribute refers to; None without such a reference."""
        found = read_reference(self.id, name, self.file)
        return found[1] if found is not None else None

    def referred(self, name: str) -> Hdf5Node | None:
        """Open the object that an attribute refers to; None without such a reference."""
        found = read_reference(self.id, name, self.file)
        return Hdf5Node(found[0], self.file) if found is not None else None

    def describe(self, path: str, main: Hdf5File) -> Array:
        """Describe a dataset, which may be the target of a link in the file `main`."""
        main.keep_open(path, self)
        return describe_dataset(self.id, self.file, path, main)

    def texts(self, limit: int) -> list[str] | None:
        """Return the elements of a list of text; None for other datasets, and for too many elements."""
        if not self.is_dataset:
            return None
        # Data in files that the settings do not allow has an unsupported type.
        dtype = describe_dataset(self.id, self.file, "", self.file).dtype
        shape = self.id.shape
        if dtype.kind not in {"text", "vlen_text"} or shape is None or len(shape) != 1 or shape[0] > limit:
            return None
        if dtype.itemsize > _MAX_TEXT_WIDTH:
            return None
        try:
            with with_checked_heaps(self) as here, permitted_dataset(here) as dataset:
                found = [as_text(item) for item in h5py.Dataset(dataset)[()].tolist()]
        except LazyNWBError:
            return None
        except (TypeError, ValueError, OSError, RuntimeError) as error:
            if self.file.missed:
                return None
            raise DamagedObjectError(f"its elements cannot be read: {error}") from None
        return [text.rstrip(" ") for text in found] if dtype.note == "space" else found

    def is_null(self) -> bool:
        """Return whether a dataset has no dataspace (h5py.Empty)."""
        return bool(self.id.get_space().get_simple_extent_type() == h5s.NULL)

    def number(self) -> float | None:
        """Return the value of a dataset that is a single number; None for other datasets."""
        stored = describe_type(self.id.get_type()).dtype
        if math.prod(self.id.shape or ()) != 1 or stored.kind not in {"number", "bool", "enum"}:
            return None
        value = np.zeros(self.id.shape, "<f8")
        try:
            with permitted_dataset(self) as dataset:
                dataset.read(h5s.ALL, h5s.ALL, value)
        except (TypeError, ValueError, OSError, RuntimeError):
            return None
        return float(value.ravel()[0])

    def start_and_rate(self) -> tuple[float, float] | None:
        """Return the value of a `starting_time` dataset and its `rate`; None if they are not numbers."""
        rate = read_attribute(self.id, "rate", self.file)
        first = self.number()
        try:
            value = float(np.asarray(rate).ravel()[0])
        except (TypeError, ValueError, IndexError):
            return None
        return (first, value) if first is not None and np.isfinite(value) and value > 0 else None

    def shown(self) -> tuple[tuple[int, ...] | None, str]:
        """Return the shape and type of a dataset in a listing."""
        stored = describe_type(self.id.get_type()).dtype
        shape = self.id.shape
        dtype = stored.numpy if stored.kind in {"number", "bool", "enum"} else self._shown_dtype()
        return tuple(shape) if shape is not None else None, dtype

    def _shown_dtype(self) -> str:
        try:
            return str(self.id.dtype.str)
        except TypeError:
            return "unknown"


def _missing_link_error(here: Hdf5Node, name: bytes, shown: str, error: Exception) -> BrokenLinkError:
    try:
        if name not in here.id:
            return NoObjectError(f"there is no {shown!r}")
    except (KeyError, RuntimeError, OSError, ValueError):
        pass
    return DamagedObjectError(f"{shown!r} cannot be looked up: {error}")


def resolve_references(file: Hdf5File, addresses: set[int]) -> dict[int, str]:
    """Return the paths of the objects at some addresses, nearest to the root.

    libhdf5 would walk through the whole file for each reference; this function walks once for all, and stops
    when the last one is found. Only hard links are followed.
    """
    found: dict[int, str] = {}
    unresolved = set(addresses) - {0}
    root = h5g.open(file.id, b"/")
    root_address = int(h5o.get_info(root).addr)
    if root_address in unresolved:
        found[root_address] = "/"
        unresolved.discard(root_address)
    seen = {root_address}
    queue: deque[tuple[str, h5g.GroupID]] = deque([("", root)])
    while queue and unresolved:
        prefix, group = queue.popleft()
        with file.collect_misses():
            for key in group:
                link = group.links.get_info(key)
                if link.type != h5l.TYPE_HARD or link.u in seen:
                    continue
                seen.add(link.u)
                path = f"{prefix}/{key.decode('utf-8', 'replace')}"
                if link.u in unresolved:
                    unresolved.discard(link.u)
                    found[int(link.u)] = path
                try:
                    child = h5o.open(group, key)
                except (KeyError, RuntimeError, OSError):
                    continue
                if h5i.get_type(child) == h5i.GROUP:
                    queue.append((path, child))
    return found


#: HDF5 filter numbers (registry of The HDF Group) that the engine decodes on its own.
_CODECS = {
    h5z.FILTER_DEFLATE: "zlib",
    h5z.FILTER_SHUFFLE: "shuffle",
    h5z.FILTER_FLETCHER32: "fletcher32",
    32001: "blosc",
    32004: "lz4",
    32015: "zstd",
}
_MAX_INLINE = 65536
#: Whether the library reports addresses of chunks without the size of the user block.
_CHUNKS_WITHOUT_BASE = h5py.version.hdf5_version_tuple < (1, 14, 4)


def describe_dataset(dataset: DatasetID, file: LibHdf5File, path: str, main: LibHdf5File) -> Array:
    """Describe a dataset of `file`, which may be the target of a link in `main`."""
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
    if may_be_external(properties):
        refusal = describe_forbidden(properties, file)
        return replace(array, dtype=DType("unsupported", dtype.itemsize, note=refusal)) if refusal else array
    return _with_layout(array, dataset, properties) if direct and plain_fill else array


def _with_layout(array: Array, dataset: DatasetID, properties: PropDCID) -> Array:
    """Add the locations of bytes that the engine can read."""
    layout = properties.get_layout()
    if layout == h5d.CONTIGUOUS:
        # For unwritten data, libhdf5 returns no position, or the size of the user block less one.
        offset = dataset.get_offset()
        if offset is None or (not dataset.get_storage_size() and offset == array.base - 1):
            offset = -1
        return replace(array, layout="contiguous", offset=offset)
    if layout == h5d.CHUNKED:
        codecs = _codecs(properties)
        if codecs is None or (array.base and _CHUNKS_WITHOUT_BASE) or _has_unreliable_listing(dataset):
            return array
        return replace(array, layout="chunked", chunk=tuple(properties.get_chunk()), codecs=codecs)
    if array.dtype.kind in {"number", "bool", "enum"} and dataset.get_storage_size() <= _MAX_INLINE:
        stored = np.zeros(array.shape, np.dtype((np.dtype(array.dtype.numpy), array.dtype.dims)))
        if stored.size:
            dataset.read(h5s.ALL, h5s.ALL, stored, mtype=dataset.get_type())
        return replace(array, layout="inline", inline=stored.tobytes())
    return array


def _has_unreliable_listing(dataset: DatasetID) -> bool:
    """Return whether libhdf5 may list wrong locations of chunks.

    The index of a dataset with one unlimited dimension (an extensible array) has that dimension first.
    libhdf5 reads it correctly, but lists it in the order of the dimensions of the dataset.
    """
    limits = dataset.get_space().get_simple_extent_dims(maxdims=True)
    return bool(limits.count(h5s.UNLIMITED) == 1 and limits[0] != h5s.UNLIMITED)


def _codecs(properties: PropDCID) -> tuple[Codec, ...] | None:
    """Return the filter pipeline; None if it has a filter that only libhdf5 (or its plugins) supports."""
    codecs = []
    for i in range(properties.get_nfilters()):
        number, _flags, values, _name = properties.get_filter(i)
        if number not in _CODECS or (number == h5z.FILTER_SHUFFLE and (len(values) != 1 or not values[0])):
            return None  # libhdf5 decodes it, or reports the error
        codecs.append(Codec(_CODECS[number], tuple(int(v) for v in values)))
    return tuple(codecs)


def _fill_value(properties: PropDCID, dtype: DType) -> tuple[bytes, bool]:
    """Return the stored bytes of the fill value (empty for zeros), and whether it has such bytes."""
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
