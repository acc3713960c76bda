"""Minima and maxima in the footers of Parquet files, which are removed for column chunks with NaN.

Polars ignores NaN in these statistics, which Parquet allows. DuckDB treats NaN as the greatest number and
skips row groups by the statistics, so that a filter `x > 5` would lose rows.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any

import polars as pl
from polars import selectors

from lazynwb.column_store.footer import (
    _BINARY,
    _DOUBLE,
    _FALSE,
    _I16,
    _I32,
    _I64,
    _LIST,
    _SET,
    _SHORT_LIST,
    _STRUCT,
    _TRUE,
    _Reader,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

#: Size of the end of a file after the footer: length of the footer, and signature.
_TAIL = 8
#: Numbers of fields, and of types, in `parquet.thrift`.
_ROW_GROUPS, _COLUMNS, _ROWS = 4, 1, 3
_METADATA, _INDEX_OFFSET, _INDEX_LENGTH = 3, 6, 7
_TYPE, _PATH, _STATISTICS = 1, 3, 12
_BOUNDS = (1, 2, 5, 6)
_FLOATS = (4, 5)


def drop_nan_bounds(path: Path) -> None:
    """Remove the minima and maxima of column chunks with NaN from the footer of a Parquet file.

    Those of floating-point numbers in lists, arrays and structs are always removed.

    Parameters
    ----------
    path : Path
        Path of a file that Polars has written, before other processes read it.
    """
    with path.open("r+b") as file:
        _edit(file, pl.scan_parquet(path, glob=False))


def drop_nan_bounds_of(file: BinaryIO, frame: pl.DataFrame) -> None:
    """Remove the minima and maxima for rows that were just written to a file; see `drop_nan_bounds`."""
    _edit(file, frame.lazy())


def _edit(file: BinaryIO, rows: pl.LazyFrame) -> None:
    end = file.seek(-_TAIL, 2)
    tail = file.read(_TAIL)
    start = end - int.from_bytes(tail[:4], "little")
    file.seek(start)
    footer = _Fields(file.read(end - start)).struct()
    changed = False
    groups = footer.get(_ROW_GROUPS, (0, (0, [])))[1][1]
    starts = accumulate((group[_ROWS][1] for group in groups), initial=0)
    for group, first in zip(groups, starts, strict=False):
        chunks = {tuple(chunk[_METADATA][1][_PATH][1][1]): chunk for chunk in group[_COLUMNS][1][1]}
        bounded = {path: chunk for path, chunk in chunks.items() if _is_bounded(chunk)}
        flat = [path[0].decode() for path in bounded if len(path) == 1]
        with_nan: set[str] = set()
        if flat:
            some = rows.slice(first, group[_ROWS][1]).select(selectors.by_name(*flat).is_nan().any())
            with_nan = {name for name, found in some.collect().row(0, named=True).items() if found}
        for path, chunk in bounded.items():
            if len(path) > 1 or path[0].decode() in with_nan:
                changed = True
                for number in (_INDEX_OFFSET, _INDEX_LENGTH):
                    chunk.pop(number, None)
                statistics = chunk[_METADATA][1][_STATISTICS][1]
                for number in _BOUNDS:
                    statistics.pop(number, None)
    if changed:
        data = b"".join(_struct(footer))
        file.seek(start)
        file.write(data + len(data).to_bytes(4, "little") + tail[4:])
        file.truncate()


def _is_bounded(chunk: dict[int, Any]) -> bool:
    metadata = chunk[_METADATA][1]
    statistics = metadata.get(_STATISTICS, (0, {}))[1]
    return metadata[_TYPE][1] in _FLOATS and (
        any(number in statistics for number in _BOUNDS) or _INDEX_OFFSET in chunk
    )


# -- Thrift -----------------------------------------------------------------------------------------------


class _Fields(_Reader):
    """A decoder that keeps types: of fields, as pairs of type and value, and of the items of lists."""

    def struct(self, depth: int = 0) -> dict[int, Any]:
        if depth > 32:  # noqa: PLR2004 - as `_Reader`
            raise RecursionError
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._integer()
            code = head & 15
            fields[number] = code, None if code in {_TRUE, _FALSE} else self._value(code, depth)
        return fields

    def _value(self, code: int, depth: int) -> Any:  # noqa: ANN401 - of any type of Thrift's
        if code not in {_LIST, _SET}:
            return super()._value(code, depth)
        head = self._byte()
        size = head >> 4 if head >> 4 != _SHORT_LIST else self._varint()
        return head & 15, [self._value(head & 15, depth + 1) for _ in range(size)]


def _struct(fields: dict[int, Any]) -> Iterator[bytes]:
    before = 0
    for number, (code, value) in sorted(fields.items()):
        step = number - before
        yield bytes([step << 4 | code]) if 0 < step < _SHORT_LIST + 1 else bytes([code]) + _integer(number)
        before = number
        if code not in {_TRUE, _FALSE}:
            yield from _encoded(code, value)
    yield b"\0"


def _encoded(code: int, value: Any) -> Iterator[bytes]:  # noqa: ANN401 - of any type of Thrift's
    if code in {_I16, _I32, _I64}:
        yield _integer(value)
    elif code == _BINARY:
        yield _varint(len(value)) + value
    elif code == _STRUCT:
        yield from _struct(value)
    elif code in {_LIST, _SET}:
        kind, items = value
        short = len(items) < _SHORT_LIST
        yield bytes([len(items) << 4 | kind]) if short else bytes([0xF0 | kind]) + _varint(len(items))
        for item in items:
            yield from _encoded(kind, item)
    else:
        yield value if code == _DOUBLE else bytes([value])


def _integer(value: int) -> bytes:
    return _varint(value << 1 if value >= 0 else (-value << 1) - 1)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:  # noqa: PLR2004 - the continuation bit
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
