"""The structs of the catalog: plain, frozen, without handles, small enough to send to another machine.

Whatever the file format, a table comes down to named arrays; an array to a grid of chunks; a chunk to a
range of bytes and a pipeline of codecs. Nothing past this module knows which format it is reading.

Chunks of an array by their numbers, and an index of some of them.

What a file contains, object by object.
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

#: Raised whenever a struct below or the meaning of a field changes: older cache entries are then ignored.
CATALOG_VERSION = 4
#: The byte offset that stands for a chunk that was never written: its elements are the fill value.
MISSING = 2**64 - 1
_U8, _U4 = struct.Struct("<Q"), struct.Struct("<I")
Kind = Literal["number", "bool", "enum", "text", "vlen_text", "reference", "compound", "vlen", "unsupported"]
Layout = Literal["contiguous", "chunked", "inline", "indirect", "objects"]


class _Struct(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    pass


class Field(_Struct, frozen=True, array_like=True, gc=False):
    """One member of a compound type, at a byte offset within the element."""

    name: str
    offset: int
    dtype: DType


class DType(_Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """The type of one stored element.

    Attributes
    ----------
    kind : str
        What the bytes mean.
    itemsize : int
        Bytes of one element as stored.
    numpy : str
        NumPy type string of a number, or of the integer behind a bool or an enum.
    members : tuple of (name, value)
        Of an enum.
    fields : tuple of Field
        Of a compound.
    base : DType or None
        Element type of a variable-length sequence.
    dims : tuple of int
        Dimensions of an array type: each element is an array of that shape.
    note : str
        Padding of fixed text ("null", "space", "term"), or why the type is not supported.
    """

    kind: Kind
    itemsize: int
    numpy: str = ""
    members: tuple[tuple[str, int], ...] = ()
    fields: tuple[Field, ...] = ()
    base: DType | None = None
    dims: tuple[int, ...] = ()
    note: str = ""


class Codec(_Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """One step of the pipeline that chunks went through when they were written.

    Attributes
    ----------
    name : str
    args : tuple of int
    config : str
        JSON, for a codec that is configured by more than integers.
    """

    name: str
    args: tuple[int, ...] = ()
    config: str = ""


class ChunkKeys(_Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """Keys of the objects that hold the chunks of an array, or its shards.

    Attributes
    ----------
    prefix : str
        Prefix of all keys.
    separator : str
        Between a chunk's place along the dimensions.
    suffix : str
        Suffix of all keys.
    """

    prefix: str
    separator: str
    suffix: str = ""

    def of(self, place: tuple[int, ...]) -> str:
        """Return the name of the object at a place in the grid."""
        return self.prefix + self.separator.join(map(str, place)) + self.suffix

    def depth(self, ndim: int) -> int:
        """Return how many levels of folders the objects of an array are in, below the prefix."""
        return ndim + self.suffix.count("/") if self.separator == "/" else 1


class Array(_Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """A stored array: location and encoding of its bytes.

    Attributes
    ----------
    path : str
        Path of the dataset inside its file.
    shape : tuple of int
        As stored; `()` for a scalar.
    dtype : DType
    layout : str
        "contiguous": one range of bytes. "chunked": a grid of chunks, see `ChunkIndex`. "inline": the
        bytes are in `inline`. "objects": a grid of chunks, each an object of its own, or many together in
        one, if `shard` is set. "indirect": only the format's own reader can read it.
    offset : int
        First byte of contiguous data; -1 where nothing was ever written (all elements are `fill`).
    chunk : tuple of int
        Shape of one chunk.
    codecs : tuple of Codec
        In the order in which they were applied when writing.
    fill : bytes
        One element's fill value as stored; empty for zeros.
    inline : bytes
        Data kept in the catalog itself.
    base : int
        What is added to addresses within the file (an HDF5 user block's size).
    source : str or None
        The file that holds the data, where that is another one (an external link).
    keys : ChunkKeys or None
        What the objects are called that hold the data of layout "objects" and of Zarr's "indirect" ones.
    shard : tuple of int
        Shape of what one object holds, where that is a grid of chunks; see `ChunkIndex`.
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
        """How many rows it has: a scalar has one."""
        return self.shape[0] if self.shape else 1

    def with_ndim(self, ndim: int) -> Array | None:
        """Return the array with 0 or 1 dimensions, where that only adds or drops dimensions of length 1.

        Chunks of HDF5 keep their stored dimensions, so such arrays are left to the format's own reader.

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
        """Return the array with the only one of its dimensions that is not 1."""
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
    """A column of a table: the array of its values, and the indices that make its rows ragged.

    Attributes
    ----------
    name : str
    data : Array or None
        The values; None for generated timestamps and for the categories of an aligned table.
    indices : tuple of Array
        Cumulative ends (VectorIndex), the outermost first; empty for a column that is not ragged.
    length : int
        Rows that the file stores; fewer or more than the table's in broken files.
    region : bool
        Values are row positions in another table (DynamicTableRegion).
    whole : bool
        The array as a whole is the value of the one row (a text list in the metadata).
    regular : tuple of (start, rate) or None
        Timestamps in seconds that are generated: start + row / rate.
    children : tuple of Column or None
        Columns of a category of an AlignedDynamicTable.
    lengths : bool
        Rows hold how many elements there are, instead of the elements: see `lazynwb.catalog.lengths`.
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
        """Dimensions of the stored value of each row, or of each element of a ragged row."""
        return () if self.data is None else (*self.data.shape[1:], *self.data.dtype.dims)

    @property
    def has_fixed_length(self) -> bool:
        """Whether each row is an array, of the same shape in all rows."""
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
    columns : tuple of Column
        In alphabetical order.
    problems : tuple of str
        Problems of the stored table that were repaired (padded, clipped or left out).
    depends : tuple of (path, identity)
        Other files that external links of this table lead to.
    """

    path: str
    kind: Literal["table", "series", "metadata"]
    rows: int
    columns: tuple[Column, ...]
    problems: tuple[str, ...] = ()
    depends: tuple[tuple[str, str], ...] = ()


class ChunkIndex(_Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """Where the chunks of one array are, in row-major order of the chunk grid.

    Packed little-endian integers rather than objects: an index of 100,000 chunks decodes in no time.

    Attributes
    ----------
    offsets : bytes
        uint64 per chunk: absolute position in the file, or within the shard that holds it; or `MISSING`.
    sizes : bytes
        uint64 per chunk: bytes as stored.
    masks : bytes
        uint32 per chunk: bit i set where codec i was skipped; empty when no bit is set.
    """

    offsets: bytes
    sizes: bytes
    masks: bytes = b""

    def locate(self, number: int) -> tuple[int, int, int]:
        """Return the offset of a chunk (or `MISSING`), its size in bytes, and its filter mask.

        Parameters
        ----------
        number : int
            Of the chunk, in row-major order of the chunk grid.

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
    """Return the bytes that one element takes in a dataset, an array type's dimensions included."""
    return dtype.itemsize * math.prod(dtype.dims)


def arrays_of(column: Column) -> list[Array]:
    """Return every stored array that a column is made of."""
    if column.lengths and (column.indices or column.has_fixed_length):
        return [*column.indices[:1]]
    found = [*column.indices]
    if column.data is not None:
        found.append(column.data)
    for child in column.children or ():
        found.extend(arrays_of(child))
    return found


def grid_of(array: Array) -> tuple[int, ...]:
    """Return how many chunks an array has along each dimension; readers check that they fit."""
    return tuple(-(-n // max(c, 1)) for n, c in zip(array.shape, array.chunk, strict=False))


class SomeChunks:
    """Where some of the chunks of one array are; see `ChunkIndex`.

    Parameters
    ----------
    places : mapping of int to (offset, size, mask)
        By the chunk's number.
    """

    __slots__ = ("_places",)

    def __init__(self, places: Mapping[int, tuple[int, int, int]]) -> None:
        self._places = dict(places)

    def __len__(self) -> int:
        """Return how many chunks are known."""
        return len(self._places)

    def locate(self, number: int) -> tuple[int, int, int]:
        """Return the offset of a chunk, its size and its filter mask, as `ChunkIndex.locate` does.

        Raises
        ------
        CorruptDataError
            If the chunk was not looked up.
        """
        place = self._places.get(number)
        if place is None:
            raise CorruptDataError(f"chunk {number} was not looked up")
        return place

    def unknown(self, numbers: np.ndarray) -> np.ndarray:
        """Return those of the given chunks that are not known yet."""
        if not self._places:
            return numbers
        import numpy as np

        return np.array([number for number in numbers.tolist() if number not in self._places], np.int64)

    def with_more(self, other: SomeChunks) -> SomeChunks:
        """Return the chunks of both."""
        return SomeChunks(self._places | other._places)


#: Parts that groups play which can be read as tables.
TABLE_ROLES = frozenset({"table", "series", "metadata"})


class Entry(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """One object of a file, at one path.

    Attributes
    ----------
    path : str
        With the leading slash.
    kind : str
        "group", "dataset", or "broken" for a link that leads nowhere.
    role : str
        The part that it plays: "table", "series", "metadata", "group" for groups; "column",
        "series_data", "child", "metadata", "specification", "dataset" for datasets.
    members : int
        Of a group.
    shape : tuple of int or None
        Of a dataset; None where it has no dataspace.
    dtype : str
        NumPy's type string ("|O" for text and references).
    note : str
        Why a link is broken.
    neurodata_type : str
        Of a group, or of a dataset that is no part of a table or a series.
    target : str
        Of a group that a soft link leads to: its own path, under which its members are listed.
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
    depends : tuple of (path, identity)
        Other files that links led to.
    members : int
        Of the root group.
    is_partial : bool
        The store does not list its objects: only those of likely names were found.
    """

    entries: tuple[Entry, ...]
    depends: tuple[tuple[str, str], ...] = ()
    members: int = 0
    is_partial: bool = False

    def tables(self, *, series: bool = True) -> list[str]:
        """Return the paths of tables, series and metadata, without the leading slash."""
        return self.groups(TABLE_ROLES if series else TABLE_ROLES - {"series"})

    def groups(self, roles: Collection[str]) -> list[str]:
        """Return the paths of the groups that play one of these parts, without the leading slash."""
        return [e.path.lstrip("/") for e in self.entries if e.kind == "group" and e.role in roles]

    def broken_link(self, path: str, *, exact: bool = True) -> tuple[str, str] | None:
        """Return the path that goes by a broken link, and why it is broken; None if it goes by no such link.

        Unless it is exact, the path may be the end of one.
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
        By the path below the object; an empty text is the object itself.
    depends : tuple of (path, identity)
        Other files that links led to.
    nested : bool
        What is below a path here is all that is below it in the file: no group has two paths.
    """

    by_path: dict[str, dict[str, Any]]
    depends: tuple[tuple[str, str], ...] = ()
    nested: bool = True
