"""The footer of a Parquet file: row groups, the byte ranges of their column chunks, and decoded sizes.

Polars does not report the byte ranges of column chunks in the Parquet files that it writes. They are required
to read and verify single columns, so the footer is decoded once, when a part is written. Its format is
defined by `parquet.thrift` of the Apache Parquet specification, in Thrift's compact protocol.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from lazynwb.errors import CorruptDataError

_MAGIC = b"PAR1"
#: Type codes of Thrift's compact protocol.
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_SHORT_LIST = 15
#: Maximum nesting of structs and lists; a Parquet footer has eight levels.
_MAX_DEPTH = 32
#: Number of bits of the longest integers.
_MAX_BITS = 64
#: Errors of invalid footers.
_INVALID = (IndexError, KeyError, TypeError, AttributeError, RecursionError, UnicodeDecodeError)
#: The type BYTE_ARRAY, and the encodings in which values do not share bytes (PLAIN, PLAIN_DICTIONARY, RLE of
#: levels, DELTA_LENGTH_BYTE_ARRAY), or share them when decoded, too (RLE_DICTIONARY).
_BYTE_ARRAY = 6
_ENCODINGS = frozenset({0, 2, 3, 6, 8})
#: Size of a value in a Polars column of binary values, without its bytes.
_VALUE_BYTES = 16


class RowGroup(NamedTuple):
    """One row group of a Parquet file.

    Attributes
    ----------
    rows : int
    chunks : list of (name, start, stop)
        Byte range of each top-level column, in the order of the file. The contiguous ranges of the leaves of
        a nested column are merged.
    """

    rows: int
    chunks: list[tuple[str, int, int]]


def row_groups(data: bytes | memoryview) -> list[RowGroup]:
    """Return the row groups of a Parquet file.

    Parameters
    ----------
    data : bytes or memoryview
        The whole file.

    Raises
    ------
    CorruptDataError
        If the data is not Parquet, or the chunks of a column are not contiguous.
    """
    footer, limit = _footer(memoryview(data))
    try:
        return [_row_group(group, limit) for group in footer.get(4, [])]
    except _INVALID as error:
        raise CorruptDataError(f"the Parquet footer cannot be decoded: {error!r}") from None


def check_decoded_size(data: bytes | memoryview, limit: int) -> None:
    """Check the decoded size of an untrusted Parquet file with a single column of binary values.

    Polars allocates what the headers of pages declare, whatever their compressed size: they are all read.

    Parameters
    ----------
    data : bytes or memoryview
        The whole file.
    limit : int
        Maximum size of the decoded pages and of `_VALUE_BYTES` for each row, in bytes.

    Raises
    ------
    CorruptDataError
        If the file is larger, has other columns, or is encoded in a way in which few bytes represent many.
    """
    view = memoryview(data)
    footer, stop = _footer(view)
    try:
        root, columns = footer[2][0], footer[2][1:]
        if root.get(5) != 1 or [column.get(1) for column in columns] != [_BYTE_ARRAY] or columns[0].get(5):
            raise CorruptDataError("it has other columns")
        sizes = [_decoded_size(view[:stop], group) for group in footer.get(4, [])]
    except _INVALID as error:
        raise CorruptDataError(f"a Parquet header cannot be decoded: {error!r}") from None
    if sum(sizes) > limit:
        raise CorruptDataError(f"it declares {sum(sizes)} decoded bytes")


def _footer(view: memoryview) -> tuple[dict[int, Any], int]:
    """Return the footer of a file, and its position."""
    length = int.from_bytes(view[-8:-4], "little")
    if len(view) < length + 12 or bytes(view[-4:]) != _MAGIC or bytes(view[:4]) != _MAGIC:
        raise CorruptDataError("not a Parquet file")
    stop = len(view) - 8 - length
    try:
        return _Reader(bytes(view[stop:-8])).struct(), stop
    except _INVALID as error:
        raise CorruptDataError(f"the Parquet footer cannot be decoded: {error!r}") from None


def _row_group(group: dict[int, Any], limit: int) -> RowGroup:
    chunks: list[tuple[str, int, int]] = []
    end = len(_MAGIC)
    for chunk in group[1]:
        metadata = chunk[3]
        start = min(metadata[9], metadata.get(11) or metadata[9])
        stop = start + metadata[7]
        name = metadata[3][0].decode()
        if not end <= start <= stop <= limit:
            raise CorruptDataError(f"column {name!r}: bytes {start} to {stop} overlap with another column")
        end = stop
        if chunks and chunks[-1][0] == name:
            chunks[-1] = name, chunks[-1][1], stop
        else:
            chunks.append((name, start, stop))
    return RowGroup(group[3], chunks)


def _decoded_size(view: memoryview, group: dict[int, Any]) -> int:
    """Return the size of the decoded pages of a row group, and of its values without their bytes."""
    metadata = group[1][0][3]
    first = metadata.get(11, metadata[9])
    stop = first + metadata[7]
    if len(group[1]) > 1 or group[3] < 0 or not len(_MAGIC) <= first <= metadata[9] <= stop <= len(view):
        raise CorruptDataError("its row groups are invalid")
    reader = _Reader(bytes(view[first:stop]))
    size: int = group[3] * _VALUE_BYTES
    while not reader.is_at_end:
        page = reader.struct()
        # The header of a data page, of a dictionary or of a data page of version 2; field of the encoding.
        headers = [(page[field], number) for field, number in ((5, 2), (7, 2), (8, 4)) if field in page]
        values, number = headers[0]
        if len(headers) > 1 or min(page[2], page[3], values[1]) < 0 or values[number] not in _ENCODINGS:
            raise CorruptDataError("the header of a page is invalid, or its encoding is not supported")
        size += page[2] + values[1] * _VALUE_BYTES
        reader.skip(page[3])
    return size


class _Reader:
    """A decoder of Thrift's compact protocol: structs as dictionaries by field number."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_at_end(self) -> bool:
        return self._at >= len(self._data)

    def skip(self, size: int) -> None:
        if self._at + size > len(self._data):
            raise IndexError(size)
        self._at += size

    def struct(self, depth: int = 0) -> dict[int, Any]:
        if depth > _MAX_DEPTH:
            raise RecursionError
        fields: dict[int, Any] = {}
        number = 0
        while True:
            head = self._byte()
            if not head:
                return fields
            number = number + (head >> 4) if head >> 4 else self._integer()
            code = head & 15
            # In a struct, the type code of a boolean is its value.
            fields[number] = code == _TRUE if code in {_TRUE, _FALSE} else self._value(code, depth)

    def _value(self, code: int, depth: int) -> Any:  # noqa: ANN401 - of any type of Thrift's
        if code in {_I16, _I32, _I64}:
            return self._integer()
        if code == _BINARY:
            return self._take(self._varint())
        if code == _STRUCT:
            return self.struct(depth + 1)
        if code in {_LIST, _SET}:
            head = self._byte()
            size = head >> 4 if head >> 4 != _SHORT_LIST else self._varint()
            return [self._value(head & 15, depth + 1) for _ in range(size)]
        if code in {_TRUE, _FALSE, _BYTE}:
            return self._byte()
        if code == _DOUBLE:
            return self._take(8)
        raise TypeError(f"type {code} at byte {self._at}")

    def _byte(self) -> int:
        value = self._data[self._at]
        self._at += 1
        return value

    def _take(self, size: int) -> bytes:
        self.skip(size)
        return self._data[self._at - size : self._at]

    def _varint(self) -> int:
        value = shift = 0
        while shift < _MAX_BITS:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:  # noqa: PLR2004 - the continuation bit
                return value
            shift += 7
        raise TypeError(f"integer of more than {_MAX_BITS} bits at byte {self._at}")

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
