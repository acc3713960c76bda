"""The footer of a Parquet file: row groups, and the byte ranges of their column chunks.

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
    view = memoryview(data)
    length = int.from_bytes(view[-8:-4], "little")
    if len(view) < length + 12 or bytes(view[-4:]) != _MAGIC or bytes(view[:4]) != _MAGIC:
        raise CorruptDataError("not a Parquet file")
    try:
        footer = _Reader(bytes(view[-8 - length : -8])).struct()
        return [_row_group(group, len(view) - 8 - length) for group in footer.get(4, [])]
    except (IndexError, KeyError, TypeError, AttributeError, RecursionError, UnicodeDecodeError) as error:
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


class _Reader:
    """A decoder of Thrift's compact protocol: structs as dictionaries by field number."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

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
        if self._at + size > len(self._data):
            raise IndexError(size)
        self._at += size
        return self._data[self._at - size : self._at]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:  # noqa: PLR2004 - the continuation bit
                return value
            shift += 7

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
