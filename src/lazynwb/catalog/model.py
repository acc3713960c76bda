"""Structs of the catalog: tables, arrays, chunk indices, listings and attributes of one file.

They are independent of the file format: a table consists of named arrays, an array of a grid of chunks, and
a chunk is a byte range with a filter pipeline. They are frozen, have no handles, and are small enough to be
sent to another machine.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from lazynwb.errors import CorruptDataError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import numpy as np

#: Increased whenever a struct or the meaning of a field changes, so that older cache entries are ignored.
CATALOG_VERSION = 5
#: Offset of a chunk that was never written, whose elements are the fill value.
MISSING = 2**64 - 1
_U8, _U4 = struct.Struct("<Q"), struct.Struct("<I")
Kind = Literal[
    "number",
    "bool",
    "enum",
    "text",
    "vlen_text",
    "reference",
    "compound",
    "vlen",
    "unsupported",
    "broken",
]
Layout = Literal["contiguous", "chunked", "inline", "indirect", "objects"]


class _Struct(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    pass


class Field(_Struct, frozen=True, array_like=True, gc=False):
    """One member of a compound type with its byte offset within the element."""

    name: str
    offset: int
    dtype: DType


class DType(_Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """The type of one stored element.

    Attributes
    ----------
    kind : str
        Kind of type: "unsupported" if it has no counterpart, "broken" if the array could not be opened.
    itemsize : int
        Stored size of one element in bytes.
    numpy : str
        NumPy type string of a number, or of the underlying integer of a bool or an enum.
    members : tuple of (name, value)
        Members of an enum.
    fields : tuple of Field
        Fields of a compound type.
    base : DType or None
        Element type of a variable-length sequence.
    dims : tuple of int
        Dimensions of an array type: each element is an array of that shape.
    note : str
        Padding of fixed text ("null", "space", "term"), or why the type is not supported, or the array
        could not be opened.
    """

    kind: Kind
    itemsize: int
    numpy: str = ""
    members: tuple[tuple[str, int], ...] = ()
    fields: tuple[Field, ...] = ()
    base: DType | None = None
    dims: tuple[int, ...] = ()
    note: str = ""

    @property
    def is_integer(self) -> bool:
        """Whether an element is one integer, and neither a boolean nor a member of an enum."""
        return self.kind == "number" and self.numpy[1:2] in {"i", "u"} and not self.dims


class Codec(_Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """One step of the filter pipeline of an array.

    Attributes
    ----------
    name : str
        Name of the codec.
    args : tuple of int
        Integer parameters.
    config : str
        JSON configuration of a codec with other parameters.
    """

    name: str
    args: tuple[int, ...] = ()
    config: str = ""


class ChunkKeys(_Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """Keys of the objects that contain the chunks of an array, or its shards.

    Attributes
    ----------
    prefix : str
        Prefix of all keys.
    separator : str
        Separator of the grid coordinates.
    suffix : str
        Suffix of all keys.
    """

    prefix: str
    separator: str
    suffix: str = ""

    def of(self, place: tuple[int, ...]) -> str:
        """Return the key of the object at a position in the grid."""
        return self.prefix + self.separator.join(map(str, place)) + self.suffix

    def depth(self, ndim: int) -> int:
        """Return the number of levels of folders below the prefix."""
        return ndim + self.suffix.count("/") if self.separator == "/" else 1


class Array(_Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """A stored array: location and encoding of its bytes.

    Attributes
    ----------
    path : str
        Path of the dataset inside its file.
    shape : tuple of int
        Stored shape; `()` for a scalar.
    dtype : DType
        Type of one element.
    layout : str
        "contiguous": one byte range. "chunked": a grid of chunks, see `ChunkIndex`. "inline": the bytes are
        in `inline`. "objects": a grid of chunks, each an object of its own, or shards of many chunks if
        `shard` is set. "indirect": only readable by the reader of the file format.
    offset : int
        Offset of contiguous data; -1 if nothing was ever written (all elements are `fill`).
    chunk : tuple of int
        Shape of one chunk.
    codecs : tuple of Codec
        Filter pipeline in the order of writing.
    fill : bytes
        Stored fill value of one element; empty for zeros.
    inline : bytes
        Data in the catalog itself.
    base : int
        Offset that is added to addresses within the file (the size of an HDF5 user block).
    source : str or None
        File that contains the data, if it is another one (an external link).
    keys : ChunkKeys or None
        Keys of the objects of layout "objects", and of "indirect" arrays of Zarr.
    shard : tuple of int
        Shape of a shard; empty without shards. See `ChunkIndex`.
    """

    path: str
    shape: tuple[int, ...]
    dtype: DType
    layout: Layout
    offset: int = -1
    chunk: tuple[int, ...] = ()
    codecs: tuple[Codec, ...] = ()
    fill: bytes = b""
    inline: bytes = b""
    base: int = 0
    source: str | None = None
    keys: ChunkKeys | None = None
    shard: tuple[int, ...] = ()

    @property
    def rows(self) -> int:
        """The number of rows; 1 for a scalar."""
        return self.shape[0] if self.shape else 1

    def with_ndim(self, ndim: int) -> Array | None:
        """Return the array with 0 or 1 dimensions, if that only adds or drops dimensions of length 1.

        Chunks of HDF5 have the stored number of dimensions, so chunked arrays become "indirect".

        Returns
        -------
        Array or None
            None if the array has too many elements for a scalar, several dimensions that are not 1, or chunks
            that cannot be described with fewer dimensions.
        """
        if len(self.shape) == ndim:
            return self
        size = math.prod(self.shape)
        # MATLAB stores an empty list as 0 x 0.
        is_list = sum(n != 1 for n in self.shape) <= 1 or not any(self.shape)
        if not is_list or (ndim == 0 and size != 1):
            return None
        if self.layout == "objects":
            return self._as_list() if ndim else None
        layout = "indirect" if self.layout == "chunked" else self.layout
        return msgspec.structs.replace(self, shape=(size,)[:ndim], layout=layout)

    def _as_list(self) -> Array | None:
        """Return the array with only the dimension that is not 1."""
        axis = next((i for i, n in enumerate(self.shape) if n != 1), 0)
        cells = self.shard or self.chunk
        others = [i for i in range(len(self.shape)) if i != axis]
        if self.keys is None or any(cells[i] != 1 for i in others):
            return None
        keys = ChunkKeys(
            self.keys.prefix + f"0{self.keys.separator}" * axis,
            self.keys.separator,
            f"{self.keys.separator}0" * (len(self.shape) - axis - 1) + self.keys.suffix,
        )
        return msgspec.structs.replace(
            self,
            shape=(self.shape[axis],),
            chunk=(self.chunk[axis],),
            shard=self.shard[axis : axis + 1],
            keys=keys,
        )


class Column(_Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """A column of a table: the array of its values, and the indices of ragged rows.

    Attributes
    ----------
    name : str
        Name of the column.
    data : Array or None
        The values; None for generated timestamps and for categories of an aligned table.
    indices : tuple of Array
        Cumulative ends (VectorIndex), the outermost first; empty for a column that is not ragged.
    length : int
        Number of stored rows, which differs from that of the table in malformed files.
    region : bool
        Whether values are row positions in another table (DynamicTableRegion).
    whole : bool
        Whether the whole array is the value of a single row (a list in the metadata).
    regular : tuple of (start, rate) or None
        Start and rate of generated timestamps in seconds: start + row / rate.
    children : tuple of Column or None
        Columns of a category of an AlignedDynamicTable.
    lengths : bool
        Whether values are numbers of elements instead of the elements; see `lazynwb.catalog.lengths`.
    """

    name: str
    data: Array | None = None
    indices: tuple[Array, ...] = ()
    length: int = 0
    region: bool = False
    whole: bool = False
    regular: tuple[float, float] | None = None
    children: tuple[Column, ...] | None = None
    lengths: bool = False

    @property
    def dims(self) -> tuple[int, ...]:
        """The dimensions of the stored value of each row, or of each element of a ragged row."""
        return () if self.data is None else (*self.data.shape[1:], *self.data.dtype.dims)

    @property
    def is_broken(self) -> bool:
        """Whether the column could not be opened: it is behind a broken link, or damaged."""
        return self.data is not None and self.data.dtype.kind == "broken"

    @property
    def has_fixed_length(self) -> bool:
        """Whether all rows are arrays of the same shape."""
        return bool(self.dims) and not self.indices and not self.whole


class Table(_Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """One table of one file.

    Attributes
    ----------
    path : str
        Path inside the file, without the leading slash.
    kind : str
        "table", "series" or "metadata".
    rows : int
        Number of rows.
    columns : tuple of Column
        Columns in alphabetical order.
    problems : tuple of str
        Problems of the stored table that were repaired (padded, clipped or left out).
    depends : tuple of (path, identity)
        Targets of external links of this table.
    """

    path: str
    kind: Literal["table", "series", "metadata"]
    rows: int
    columns: tuple[Column, ...]
    problems: tuple[str, ...] = ()
    depends: tuple[tuple[str, str], ...] = ()


class ChunkIndex(_Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """Locations of the chunks of one array, in row-major order of the chunk grid.

    Locations are packed little-endian integers rather than objects, so that large indices decode quickly.

    Attributes
    ----------
    offsets : bytes
        uint64 per chunk: offset in the file or in its shard, or `MISSING`.
    sizes : bytes
        uint64 per chunk: stored size in bytes.
    masks : bytes
        uint32 per chunk: bit i is set if codec i was skipped; empty if no bit is set.
    """

    offsets: bytes
    sizes: bytes
    masks: bytes = b""

    def locate(self, number: int) -> tuple[int, int, int]:
        """Return the offset of a chunk (or `MISSING`), its size in bytes, and its filter mask.

        Parameters
        ----------
        number : int
            Number of the chunk, in row-major order of the chunk grid.

        Raises
        ------
        CorruptDataError
            If the index has no such chunk.
        """
        if not 0 <= number < min(len(self.offsets), len(self.sizes)) // _U8.size:
            raise CorruptDataError(f"chunk {number} is past the end of the chunk index")
        mask = _U4.unpack_from(self.masks, _U4.size * number)[0] if self.masks else 0
        at = _U8.size * number
        return _U8.unpack_from(self.offsets, at)[0], _U8.unpack_from(self.sizes, at)[0], mask


def stored_size(dtype: DType) -> int:
    """Return the stored size of one element, including the dimensions of an array type."""
    return dtype.itemsize * math.prod(dtype.dims)


def arrays_of(column: Column) -> list[Array]:
    """Return all stored arrays of a column."""
    if column.lengths and (column.indices or column.has_fixed_length):
        return [*column.indices[:1]]
    found = [*column.indices]
    if column.data is not None:
        found.append(column.data)
    for child in column.children or ():
        found.extend(arrays_of(child))
    return found


def grid_of(array: Array) -> tuple[int, ...]:
    """Return the number of chunks along each dimension, without a check that they match the array."""
    return tuple(-(-n // max(c, 1)) for n, c in zip(array.shape, array.chunk, strict=False))


class PartialChunkIndex:
    """Locations of some chunks of one array; see `ChunkIndex`.

    Parameters
    ----------
    locations : mapping of int to (offset, size, mask)
        Locations by the numbers of chunks.
    """

    __slots__ = ("_locations",)

    def __init__(self, locations: Mapping[int, tuple[int, int, int]]) -> None:
        self._locations = dict(locations)

    def __len__(self) -> int:
        """Return the number of known chunks."""
        return len(self._locations)

    def locate(self, number: int) -> tuple[int, int, int]:
        """Return the offset of a chunk, its size and its filter mask, as `ChunkIndex.locate` does.

        Raises
        ------
        CorruptDataError
            If the chunk was not looked up.
        """
        location = self._locations.get(number)
        if location is None:
            raise CorruptDataError(f"chunk {number} was not looked up")
        return location

    def missing(self, numbers: np.ndarray) -> np.ndarray:
        """Return the given chunks that are not known yet."""
        if not self._locations:
            return numbers
        import numpy as np

        return np.array([number for number in numbers.tolist() if number not in self._locations], np.int64)

    def union(self, other: PartialChunkIndex) -> PartialChunkIndex:
        """Return the union with other chunks."""
        return PartialChunkIndex(self._locations | other._locations)


#: Roles of groups that can be read as tables.
TABLE_ROLES = frozenset({"table", "series", "metadata"})


class Entry(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """One object of a file, at one path.

    Attributes
    ----------
    path : str
        Path with the leading slash.
    kind : str
        "group", "dataset", or "broken" for a broken link.
    role : str
        Role in the file: "table", "series", "metadata", "group" for groups; "column", "series_data", "child",
        "metadata", "specification", "dataset" for datasets.
    members : int
        Number of members of a group.
    shape : tuple of int or None
        Shape of a dataset; None without a dataspace.
    dtype : str
        NumPy type string ("|O" for text and references).
    note : str
        Reason why a link is broken.
    neurodata_type : str
        Type of a group, or of a dataset that is not part of a table or a series.
    target : str
        Path of the group that a soft link leads to, under which its members are listed.
    """

    path: str
    kind: Literal["group", "dataset", "broken"]
    role: str
    members: int = 0
    shape: tuple[int, ...] | None = None
    dtype: str = ""
    note: str = ""
    neurodata_type: str = ""
    target: str = ""


class Listing(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """Every object of one file.

    Attributes
    ----------
    entries : tuple of Entry
        Objects in the order of the file.
    depends : tuple of (path, identity)
        Targets of external links.
    members : int
        Number of members of the root group.
    is_partial : bool
        Whether the store cannot be listed, so that only objects with likely names were found.
    """

    entries: tuple[Entry, ...]
    depends: tuple[tuple[str, str], ...] = ()
    members: int = 0
    is_partial: bool = False

    def tables(self, *, series: bool = True) -> list[str]:
        """Return the paths of tables, series and metadata, without the leading slash."""
        return self.groups(TABLE_ROLES if series else TABLE_ROLES - {"series"})

    def groups(self, roles: Collection[str]) -> list[str]:
        """Return the paths of the groups with one of these roles, without the leading slash."""
        return [e.path.lstrip("/") for e in self.entries if e.kind == "group" and e.role in roles]

    def broken_link(self, path: str, *, exact: bool = True) -> tuple[str, str] | None:
        """Return the path with a broken link and the reason; None if there is no broken link on the path.

        Unless `exact`, the path may be the end of a path.
        """
        above = f"/{path.strip('/')}/"
        for entry in self.entries:
            if entry.kind != "broken":
                continue
            if above.startswith(f"{entry.path}/"):
                return path.strip("/"), entry.note
            if not exact and f"{entry.path}/".endswith(above):
                return entry.path.lstrip("/"), entry.note
        return None

    def broken_tables(self) -> dict[str, str]:
        """Return the paths at which tables may be missing, without the leading slash, and why.

        These are broken links in groups that are no tables themselves.
        """
        inner = {e.path for e in self.entries if e.role in {"table", "series", "specification"}}
        return {
            e.path.lstrip("/"): e.note
            for e in self.entries
            if e.kind == "broken" and e.path.rpartition("/")[0] not in inner
        }


class Attributes(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """The attributes of an object and of its members, as plain values.

    Attributes
    ----------
    by_path : dict of str to dict
        Attributes by the path relative to the object, which itself has the empty path.
    depends : tuple of (path, identity)
        Targets of external links.
    nested : bool
        Whether all objects below a path in the file are below it here, because no group has two paths.
    """

    by_path: dict[str, dict[str, Any]]
    depends: tuple[tuple[str, str], ...] = ()
    nested: bool = True
