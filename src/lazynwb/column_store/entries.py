"""Entries: the sessions of the rows of each part, and the layouts of their tables.

An entry describes one part: its sessions in the order of their rows, each with the identity of its file, and
the columns of its table, stored or not. It is published after its part and removed before it.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Literal

import deflate
import msgspec

from lazynwb.catalog.dtypes import column_dtype
from lazynwb.catalog.lengths import LENGTH, stored_name
from lazynwb.catalog.model import CATALOG_VERSION, Array, Column, DType
from lazynwb.column_store.parts import SESSION, LocalPart, PartFile
from lazynwb.errors import CorruptDataError
from lazynwb.struct_decoders import msgpack_decoder

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

    from lazynwb.column_store.parts import PartBytes

#: Version of the structs and of stored values; entries of other versions are ignored.
STORE_VERSION = 2
MAGIC = b"LNWC" + STORE_VERSION.to_bytes(2, "little") + CATALOG_VERSION.to_bytes(2, "little")
_HEADER = len(MAGIC) + 4


class Layout(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The layout of the tables of some sessions.

    Attributes
    ----------
    path : str or None
        Path of the table in the file, without the leading slash; None if the file lacks the table.
    kind : str
        "table", "series" or "metadata".
    columns : tuple of Column
        All columns of the table, in alphabetical order, without addresses and numbers of rows; see
        `without_addresses`.
    stored : tuple of str
        Names of the columns whose values are in the part.
    """

    path: str | None
    kind: Literal["table", "series", "metadata"]
    columns: tuple[Column, ...]
    stored: tuple[str, ...]


class Session(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One session in a part.

    Attributes
    ----------
    key : str
        Key of the source.
    identity : str
        Identity of the file when it was read.
    rows : int
        Number of rows of the table.
    layout : int
        Position of its layout in the entry.
    depends : tuple of (path, identity)
        Target files of links of the table.
    problems : tuple of str
        Repaired problems of the table.
    """

    key: str
    identity: str
    rows: int
    layout: int
    depends: tuple[tuple[str, str], ...] = ()
    problems: tuple[str, ...] = ()


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """The description of one part.

    Attributes
    ----------
    table : str
        Key of the table.
    created : int
        Time of creation, in nanoseconds since 1970.
    sessions : tuple of Session
        Sessions in the order of their rows.
    layouts : tuple of Layout
    part : PartFile or None
        Description of the part; None without stored values.
    """

    table: str
    created: int
    sessions: tuple[Session, ...]
    layouts: tuple[Layout, ...]
    part: PartFile | None


class StoredPart:
    """A loaded entry, and the location of its part.

    Attributes
    ----------
    path : Path
        Path of the entry.
    entry : Entry
    starts : list of int
        First row of each session, and the row past the last.
    ordinals : dict of str to int
        Position of each session, by its key.
    """

    __slots__ = ("_types", "entry", "ordinals", "path", "starts")

    #: Whether the rows are trusted to be those of the sessions, because this user has written them.
    is_trusted = True

    def __init__(self, path: Path, entry: Entry) -> None:
        self.path = path
        self.entry = entry
        self._types: dict[int, dict[str, pl.DataType | None]] = {}
        self.starts = [0, *accumulate([session.rows for session in entry.sessions])]
        self.ordinals = {session.key: ordinal for ordinal, session in enumerate(entry.sessions)}

    @property
    def part_path(self) -> Path:
        """Path of the part."""
        return self.path.with_suffix(".parquet")

    @property
    def bytes(self) -> PartBytes:
        """The bytes of the part."""
        return LocalPart(self.part_path)

    def dtype(self, ordinal: int, name: str) -> pl.DataType | None:
        """Return the type of a stored column of a session in the part."""
        number = self.entry.sessions[ordinal].layout
        if number not in self._types:
            columns = self.entry.layouts[number].columns
            self._types[number] = {column.name: column_dtype(column) for column in columns}
        stored = stored_name(name)
        dtype = self._types[number].get(stored)
        return dtype if stored == name or stored not in self._types[number] else LENGTH

    @property
    def decoded(self) -> int:
        """The decoded size of the part in bytes."""
        return self.entry.part.decoded if self.entry.part is not None else 0

    def session(self, ordinal: int) -> Session:
        """Return a session by its position."""
        return self.entry.sessions[ordinal]

    def layout(self, ordinal: int) -> Layout:
        """Return the layout of a session's table."""
        return self.entry.layouts[self.entry.sessions[ordinal].layout]


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgpack_decoder(Entry)


def encode(entry: Entry) -> bytes:
    """Encode an entry as the contents of a file."""
    body = _ENCODER.encode(entry)
    return MAGIC + int(deflate.crc32(body)).to_bytes(4, "little") + body


def decode(data: bytes) -> Entry | None:
    """Decode the entry in a file; return None for an entry of another version.

    Raises
    ------
    CorruptDataError
        If the entry is damaged.
    """
    if data[:4] == MAGIC[:4] and data[: len(MAGIC)] != MAGIC and len(data) >= _HEADER:
        return None
    body = memoryview(data)[_HEADER:]
    if data[: len(MAGIC)] != MAGIC or int.from_bytes(data[len(MAGIC) : _HEADER], "little") != deflate.crc32(
        body
    ):
        raise CorruptDataError("the checksum of an entry does not match")
    try:
        entry = _DECODER.decode(body)
    except msgspec.MsgspecError as error:
        raise CorruptDataError(f"an entry cannot be decoded: {error}") from None
    _check(entry)
    return entry


def _check(entry: Entry) -> None:
    counts = [session.rows for session in entry.sessions]
    numbers = {session.layout for session in entry.sessions}
    rows, layouts = sum(counts), len(entry.layouts)
    columns: frozenset[str] = frozenset()
    if entry.part is not None:
        entry.part.check()
        columns = frozenset(entry.part.columns)
        if sum(entry.part.rows) != rows or SESSION not in columns:
            raise CorruptDataError("an entry does not match its part")
    if (
        min(counts, default=0) < 0
        or not numbers <= set(range(layouts))
        or any(not columns.issuperset(layout.stored) for layout in entry.layouts)
    ):
        raise CorruptDataError("an entry is inconsistent")


def without_addresses(column: Column) -> Column:
    """Return a column with only the properties that determine its type; others differ between files."""
    return Column(
        column.name,
        _outline(column.data) if column.data is not None else None,
        tuple(Array("", (), DType("number", 0), "contiguous") for _ in column.indices),
        0,
        column.region,
        column.whole,
        (0.0, 1.0) if column.regular is not None else None,
        tuple(without_addresses(child) for child in column.children) if column.children is not None else None,
    )


def _outline(array: Array) -> Array:
    return Array("", (0, *array.shape[1:]) if array.shape else (), array.dtype, "contiguous")


def ranges_of(part: StoredPart, ordinals: list[int]) -> list[tuple[int, int]]:
    """Return the merged ranges of rows of sessions, in ascending order."""
    ranges: list[tuple[int, int]] = []
    bounds = list(pairwise(part.starts))
    for ordinal in sorted(ordinals):
        start, stop = bounds[ordinal]
        if ranges and ranges[-1][1] == start:
            ranges[-1] = ranges[-1][0], stop
        elif start < stop:
            ranges.append((start, stop))
    return ranges
