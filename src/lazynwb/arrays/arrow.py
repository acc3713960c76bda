"""Conversion of decoded bytes to Polars Series: elements of each type, and nested lists and arrays."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from lazynwb.errors import CorruptDataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nanoarrow.c_array import CArray

    from lazynwb.arrays.heap import Heap
    from lazynwb.catalog.model import DType

#: Average length above which elements are joined one by one, and below which NumPy gathers them.
_LONG_TEXT = 64
_ASCII = 128
#: The upper two bits of a continuation byte of UTF-8, which cannot be the first byte of a text.
_CONTINUATION = 0x80
#: Addresses of null references.
_NO_OBJECT = frozenset({0, 2**64 - 1})


class Elements(NamedTuple):
    """Elements of one type, as stored.

    Attributes
    ----------
    dtype : DType
    raw : ndarray
        uint8 of shape (n, itemsize), or objects of shape (n,) that libhdf5 has converted.
    owners : ndarray of int64, shape (n,)
        Number of the file of each element.
    """

    dtype: DType
    raw: np.ndarray
    owners: np.ndarray

    def member(self, index: int) -> Elements:
        """Return one member of compound elements."""
        field = self.dtype.fields[index]
        times = math.prod(field.dtype.dims)
        if self.raw.dtype == np.uint8:
            end = field.offset + field.dtype.itemsize * times
            raw = np.ascontiguousarray(self.raw[:, field.offset : end])
            raw = raw.reshape(len(raw) * times, field.dtype.itemsize)
        else:
            raw = as_stored(self.raw[field.name], field.dtype)
        return Elements(field.dtype, raw, np.repeat(self.owners, times) if times != 1 else self.owners)


def as_stored(values: np.ndarray, dtype: DType) -> np.ndarray:
    """Return the stored bytes of values that libhdf5 has converted, if their type has a fixed size."""
    values = np.ascontiguousarray(values).reshape(-1)
    if values.dtype.kind in "OV":
        return values
    if dtype.kind in {"number", "bool", "enum"}:
        values = np.ascontiguousarray(values.astype(np.dtype(dtype.numpy), copy=False))
    return values.view(np.uint8).reshape(len(values), dtype.itemsize)


def variable_length(elements: Elements) -> Iterator[Elements]:
    """Yield the parts of elements that are references into a heap, which must be read first."""
    if elements.raw.dtype != np.uint8:
        if elements.dtype.kind != "compound":
            return
    elif elements.dtype.kind in {"vlen_text", "vlen"}:
        yield elements
        return
    for i in range(len(elements.dtype.fields)):
        yield from variable_length(elements.member(i))


class Context(NamedTuple):
    """Context of the conversion of elements: heap contents, and the paths of object references."""

    heap: Heap | None
    paths_of: Callable[[dict[int, set[int]]], dict[int, dict[int, str]]]


def build(elements: Elements, context: Context) -> pl.Series:
    """Return elements as a flat Series of the type that `element_dtype` returns."""
    dtype, raw = elements.dtype, elements.raw
    if dtype.kind == "number":
        return _numbers(raw.reshape(-1).view(np.dtype(dtype.numpy)))
    if dtype.kind == "bool":
        return bool_series(raw.reshape(-1) != 0)
    if dtype.kind == "enum":
        return _enum(raw.reshape(-1).view(np.dtype(dtype.numpy)), dtype)
    if dtype.kind == "text":
        return _fixed_text(raw, dtype)
    if dtype.kind == "compound":
        series = [
            as_array(build(elements.member(i), context), field.dtype.dims, len(raw)).alias(field.name)
            for i, field in enumerate(dtype.fields)
        ]
        return pl.DataFrame(series).to_struct("")
    if raw.dtype == object:
        return _converted(raw, dtype)
    if dtype.kind == "reference":
        return _references(elements, context)
    assert context.heap is not None  # noqa: S101 - `variable_length` has yielded these elements
    if dtype.kind == "vlen_text":
        buffer, starts, lengths = context.heap.find(elements.owners, raw, 1)
        return text_series(_gather(buffer, starts, lengths), lengths)
    assert dtype.base is not None  # noqa: S101 - sequences have a base type
    width = dtype.base.itemsize
    buffer, starts, lengths = context.heap.find(elements.owners, raw, width)
    items = _gather(buffer, starts, lengths).reshape(-1, width)
    inner = build(Elements(dtype.base, items, np.zeros(0, np.int64)), context)
    return as_lists(inner, (), [offsets_of(lengths // width)])


# -- elements -----------------------------------------------------------------------------------------


def _numbers(values: np.ndarray) -> pl.Series:
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    if native.dtype.kind == "c":
        return pl.DataFrame(
            {"re": _numbers(native.real.copy()), "im": _numbers(native.imag.copy())}
        ).to_struct("")
    if native.dtype == np.float16 and not hasattr(pl, "Float16"):
        native = native.astype(np.float32)
    return from_buffer(native)


def from_buffer(values: np.ndarray, name: str = "") -> pl.Series:
    """Return numbers as a Series that shares the memory of the array.

    The conversion by Polars imports `numpy.ma`, which takes as long as a query for a few rows.
    """
    if not len(values) or values.dtype == np.float16:
        return pl.Series(name, values)
    import nanoarrow as na

    return pl.Series(na.c_array(np.ascontiguousarray(values))).alias(name)


def bool_series(values: np.ndarray) -> pl.Series:
    """Return booleans as a Series."""
    return from_buffer(values.view(np.uint8)).cast(pl.Boolean)


def _enum(codes: np.ndarray, dtype: DType) -> pl.Series:
    members = sorted(dtype.members, key=lambda member: member[1])
    names = list(dict.fromkeys(name for name, _ in members))
    values = np.array([value for _, value in members])
    position = np.searchsorted(values, codes).clip(max=len(values) - 1)
    if len(codes) and (values[position] != codes).any():
        stray = codes[values[position] != codes][0]
        raise CorruptDataError(f"the value {stray} is not a member of the enum")
    places = {name: place for place, name in enumerate(names)}
    physical = np.array([places[name] for name, _ in members], np.uint32)[position]
    # Gather, because casts of codes to an Enum differ between versions of Polars.
    series: pl.Series = pl.Series(names, dtype=pl.Enum(names))[physical]
    return series


def _fixed_text(raw: np.ndarray, dtype: DType) -> pl.Series:
    n, width = raw.shape
    blank = raw == (ord(" ") if dtype.note == "space" else 0)
    if dtype.note == "space":
        # Blanks at the end are padding.
        lengths = width - (~blank[:, ::-1]).argmax(axis=1) if width else np.zeros(n, np.int64)
        lengths = np.where(blank.all(axis=1), 0, lengths)
    else:
        lengths = np.where(blank.any(axis=1), blank.argmax(axis=1), width) if width else np.zeros(n, np.int64)
    lengths = lengths.astype(np.int64)
    return text_series(raw[np.arange(width) < lengths[:, None]], lengths)


def text_series(data: np.ndarray, lengths: np.ndarray) -> pl.Series:
    """Return text of the given lengths in bytes; invalid UTF-8 becomes replacement characters.

    A NUL ends a text, as in the C strings of libhdf5.
    """
    offsets = offsets_of(lengths)
    if len(data) and not (data < _ASCII).all():
        starts = offsets[:-1][lengths > 0]
        try:
            str(data.data, "utf-8")
            clean = not ((data[starts] & 0xC0) == _CONTINUATION).any()
        except UnicodeDecodeError:
            clean = False
    else:
        clean = True
    if not clean or not data.all():
        whole = data.tobytes()
        bounds = offsets.tolist()
        pieces = (whole[a:b] for a, b in pairwise(bounds))
        return pl.Series(
            [piece.split(b"\0", 1)[0].decode("utf-8", "replace") for piece in pieces], dtype=pl.String
        )
    import nanoarrow as na

    array = na.c_array_from_buffers(na.large_string(), len(lengths), [None, offsets, data], null_count=0)
    return pl.Series(array)


def _gather(buffer: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the concatenated slices of a buffer."""
    total = int(lengths.sum())
    if total > _LONG_TEXT * len(lengths):
        view = buffer.data
        pieces = [view[a : a + n] for a, n in zip(starts.tolist(), lengths.tolist(), strict=True)]
        return np.frombuffer(b"".join(pieces), np.uint8)
    shift = starts - (np.cumsum(lengths) - lengths)
    return buffer[np.repeat(shift, lengths) + np.arange(total)]


def _converted(values: np.ndarray, dtype: DType) -> pl.Series:
    """Return Python objects of libhdf5 as a Series: text, paths of references, sequences."""
    if dtype.kind in {"vlen_text", "reference"}:
        return pl.Series(
            [v.split(b"\0", 1)[0].decode("utf-8", "replace") if isinstance(v, bytes) else v for v in values],
            dtype=pl.String,
        )
    assert dtype.base is not None  # noqa: S101 - the only remaining kind of objects
    parts = [np.asarray(v, np.dtype(dtype.base.numpy)).reshape(-1) for v in values]
    flat = np.concatenate(parts) if parts else np.zeros(0, np.dtype(dtype.base.numpy))
    inner = bool_series(flat != 0) if dtype.base.kind == "bool" else _numbers(flat)
    return as_lists(inner, (), [offsets_of(np.array([len(p) for p in parts], np.int64))])


def _references(elements: Elements, context: Context) -> pl.Series:
    addresses = np.ascontiguousarray(elements.raw).view("<u8").reshape(-1)
    pairs = list(zip(elements.owners.tolist(), addresses.tolist(), strict=True))
    by_owner: dict[int, set[int]] = {}
    for owner, address in set(pairs):
        if address not in _NO_OBJECT:
            by_owner.setdefault(owner, set()).add(address)
    known = context.paths_of(by_owner)
    return pl.Series([known.get(owner, {}).get(address) for owner, address in pairs], dtype=pl.String)


# -- nesting ------------------------------------------------------------------------------------------


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """Return the int64 Arrow offsets of lists of the given lengths."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def as_lists(
    flat: pl.Series, dims: tuple[int, ...], levels: list[np.ndarray], valid: np.ndarray | None = None
) -> pl.Series:
    """Nest a flat Series in arrays of the given dimensions, and these in lists.

    Parameters
    ----------
    flat : Series
        Elements, whose numbers are not copied.
    dims : tuple of int
        Dimensions of the arrays; empty for none.
    levels : list of ndarray
        Arrow offsets of each level of lists (at least one), the outermost first.
    valid : ndarray of bool or None
        Mask of the outermost lists that are not null; None for all.
    """
    dtype = flat.dtype if not dims else pl.Array(flat.dtype, dims)
    for _ in levels:
        dtype = pl.List(dtype)
    rows = int(levels[-1][-1])
    if 0 in dims:
        # Polars does not import arrays without elements.
        values: list[Any] = [np.zeros(dims).tolist()] * rows
        for offsets in reversed(levels):
            bounds = offsets.tolist()
            values = [values[a:b] for a, b in pairwise(bounds)]
        if valid is not None:
            values = [value if known else None for value, known in zip(values, valid.tolist(), strict=True)]
        return pl.Series(values, dtype=dtype)
    array = _arrays(_export(flat), dims, rows)
    for depth, offsets in reversed(list(enumerate(levels))):
        array = _wrapped(_large_list, array, len(offsets) - 1, offsets, valid=None if depth else valid)
    folded = pl.Series(array)
    return folded if folded.dtype == dtype else folded.cast(dtype)


def _arrays(flat: CArray, dims: tuple[int, ...], rows: int) -> CArray:
    for depth in range(len(dims), 0, -1):
        flat = _wrapped(_fixed_size_list, flat, rows * math.prod(dims[: depth - 1]), None, dims[depth - 1])
    return flat


def _export(series: pl.Series) -> CArray:
    """Return a Series as an Arrow array that can be the child of other arrays.

    Polars exports text as string views, whose additional buffers are lost in a child array. Text is therefore
    exported with offsets, and enums as text, which the caller casts back.
    """
    import nanoarrow as na

    dtype = series.dtype
    if isinstance(dtype, pl.String):
        lengths = series.str.len_bytes().fill_null(0).to_numpy().astype(np.int64)
        joined = series.str.join("").item() or ""
        data = np.frombuffer(joined.encode(), np.uint8)
        return na.c_array_from_buffers(
            na.large_string(), len(series), [_validity(series), offsets_of(lengths), data]
        )
    if isinstance(dtype, pl.Enum):
        return _export(series.cast(pl.String))
    if isinstance(dtype, pl.Struct):
        children = [_export(series.struct.field(field.name)) for field in dtype.fields]
        schema = na.struct({f.name: na.Schema(c.schema) for f, c in zip(dtype.fields, children, strict=True)})
        return na.c_array_from_buffers(schema, len(series), [_validity(series)], children=children)
    if isinstance(dtype, pl.List):
        lengths = series.list.len().to_numpy().astype(np.int64)
        inner = series.filter(series.list.len() > 0).explode()
        return _wrapped(_large_list, _export(inner), len(series), offsets_of(lengths))
    if isinstance(dtype, pl.Array):
        return _wrapped(_fixed_size_list, _export(series.explode()), len(series), None, dtype.size)
    return na.c_array_stream(series.rechunk()).get_next()


def _validity(series: pl.Series) -> np.ndarray | None:
    if not series.null_count():
        return None
    return np.packbits(series.is_not_null().to_numpy(), bitorder="little")


def _large_list(inner: Any, _width: int) -> Any:  # noqa: ANN401 - nanoarrow has no stubs
    import nanoarrow as na

    return na.large_list(inner)


def _fixed_size_list(inner: Any, width: int) -> Any:  # noqa: ANN401
    import nanoarrow as na

    return na.fixed_size_list(inner, width)


def _wrapped(  # noqa: PLR0913 - the parts of an Arrow array
    make: Callable[[Any, int], Any],
    child: CArray,
    length: int,
    offsets: np.ndarray | None,
    width: int = 0,
    *,
    valid: np.ndarray | None = None,
) -> CArray:
    import nanoarrow as na

    schema = make(na.Schema(child.schema), width)
    bits = None if valid is None else np.packbits(valid, bitorder="little")
    nulls = 0 if valid is None else length - int(np.count_nonzero(valid))
    buffers = [bits] if offsets is None else [bits, offsets]
    return na.c_array_from_buffers(schema, length, buffers, null_count=nulls, children=[child])


def as_array(inner: pl.Series, dims: tuple[int, ...], rows: int) -> pl.Series:
    """Nest a flat Series in `rows` arrays of the given dimensions."""
    if not dims:
        return inner
    dtype = pl.Array(inner.dtype, dims)
    if not rows or 0 in dims:
        return pl.Series([np.zeros(dims).tolist()] * rows, dtype=dtype)
    if isinstance(inner.dtype, pl.List):
        # `Series.reshape` would flatten the lists.
        return pl.Series(_arrays(_export(inner), dims, rows), dtype=dtype)
    return inner.reshape((rows, *dims))
