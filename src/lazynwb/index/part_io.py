"""Reading and writing the files of a part of an index."""

from __future__ import annotations

import uuid
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from lazynwb.column_store.footer import check_decoded_size
from lazynwb.errors import CorruptDataError
from lazynwb.index.location import damaged_error, read_untrusted
from lazynwb.index.manifest import ENTRIES, Part
from lazynwb.index.model import COLUMNS, KINDS, SCHEMAS, SESSIONS, TABLES, MetadataColumns

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from lazynwb.index.location import Folder
    from lazynwb.index.model import Kind
    from lazynwb.index.source_record import SourceRecord

#: Entries are stored in blocks, each a separate Parquet file, so that a query fetches only those of one
#: table. A block ends at the maximum size, or before the next table once it has the minimum size.
_BLOCK_BYTES, _MIN_BLOCK_BYTES = 4 * 1024 * 1024, 256 * 1024
#: Maximum size of a block, stored and decoded, because an index is not trusted. A block of one entry may be
#: larger than `_BLOCK_BYTES`.
MAX_BLOCK_BYTES = 1024 * 1024 * 1024


class Records(NamedTuple):
    """Descriptions of some sessions, in order.

    Attributes
    ----------
    sessions, tables, columns : DataFrame
        See `lazynwb.index.model`; `_row` of `tables` is a position in `entries`.
    entries : list of bytes
    """

    sessions: pl.DataFrame
    tables: pl.DataFrame
    columns: pl.DataFrame
    entries: list[bytes]


def records_of(described: Sequence[SourceRecord], values: MetadataColumns) -> Records:
    """Return the tables of source records, and merge the types of their metadata."""
    from lazynwb.index.source_record import column_rows, fingerprint

    tables: list[tuple[object, ...]] = []
    columns: list[tuple[object, ...]] = []
    entries: list[bytes] = []
    for one in described:
        for found in one.tables:
            if found.table is None:
                tables.append(
                    (one.path, found.path, None, found.neurodata_type, None, None, found.problem, None)
                )
                entries.append(b"")
                continue
            table = found.table
            tables.append(
                (
                    *(one.path, found.path, table.kind, found.neurodata_type, table.rows, len(table.columns)),
                    *(found.problem or None, fingerprint(table)),
                )
            )
            entries.append(found.entry)
            columns += [(one.path, found.path, *row) for row in column_rows(table)]
    own = pl.DataFrame(
        [
            (one.path, one.identity, one.size, len(one.tables), one.problem, one.links or None)
            for one in described
        ],
        schema=SESSIONS,
        orient="row",
    )
    places = {"_offset": pl.lit(0, pl.Int64), "_size": pl.lit(0, pl.Int64), "_row": pl.int_range(pl.len())}
    schema = {name: dtype for name, dtype in TABLES.items() if name not in places}
    return Records(
        own.hstack(_metadata(described, values)),
        pl.DataFrame(tables, schema=schema, orient="row").with_columns(**places),
        pl.DataFrame(columns, schema=COLUMNS, orient="row"),
        entries,
    )


def _metadata(described: Sequence[SourceRecord], values: MetadataColumns) -> list[pl.Series]:
    """Return the metadata of sources as columns of the current types of the index."""
    cells: dict[str, list[tuple[int, pl.Series]]] = {}
    for number, one in enumerate(described):
        for table, data in one.values.items():
            for series in pl.read_ipc(BytesIO(data)):
                value = values.add(table, series.name, series.dtype)  # type: ignore[arg-type]
                cells.setdefault(value.column, []).append((number, series))
        for table, name in one.lost:
            values.mark_inexact(table, name)  # type: ignore[arg-type]
    columns = []
    for column, listed in cells.items():
        found = pl.concat([values.as_published(column, series) for _, series in listed])
        places = pl.Series([None] * len(described), dtype=pl.UInt32)
        rows = [number for number, _ in listed]
        places = places.scatter(rows, list(range(len(rows))))
        columns.append(found.gather(places).alias(column))
    return columns


def concat_records(parts: Sequence[Records], values: MetadataColumns) -> Records:
    """Concatenate records."""
    sessions = [_as_published(part.sessions, values) for part in parts]
    tables = []
    entries: list[bytes] = []
    for part in parts:
        tables.append(part.tables.with_columns(_row=pl.col("_row") + len(entries)))
        entries += part.entries
    return Records(
        pl.concat(sessions, how="diagonal"),
        pl.concat(tables),
        pl.concat([part.columns for part in parts]),
        entries,
    )


def without_sessions(records: Records, paths: Collection[str]) -> Records:
    """Remove sessions."""
    unwanted = pl.Series(list(paths), dtype=pl.String).implode()
    sessions, tables, columns = (
        frame.filter(~pl.col("path").is_in(unwanted))
        for frame in (records.sessions, records.tables, records.columns)
    )
    entries = [records.entries[row] for row in tables["_row"]]
    return Records(sessions, tables.with_columns(_row=pl.int_range(pl.len())), columns, entries)


def sort_records(records: Records, paths: pl.Series) -> Records:
    """Sort sessions in the order of some paths; the other tables are sorted when they are written."""
    order = pl.DataFrame({"path": paths})
    return records._replace(
        sessions=order.join(records.sessions, on="path", how="inner", maintain_order="left")
    )


def _as_published(sessions: pl.DataFrame, values: MetadataColumns) -> pl.DataFrame:
    schema = values.schema
    metadata = [values.as_published(name, sessions[name]) for name in sessions.columns if name in schema]
    return sessions.select(*SESSIONS).hstack(metadata)


# -- files ------------------------------------------------------------------------------------------------


def write_part(folder: Folder, records: Records) -> Part:
    """Write the files of a part under new names."""
    token = uuid.uuid4().hex
    order = records.sessions.select("path").with_row_index("_at")
    tables = records.tables.join(order, on="path", how="left").sort("table", "_at").drop("_at")
    columns = records.columns.join(order, on="path", how="left").sort("table", "_at", "column").drop("_at")
    data, tables = _pack_entries(tables, records.entries)
    files = {
        ENTRIES: data,
        "tables": _encode_parquet(tables),
        "columns": _encode_parquet(columns),
        "sessions": _encode_parquet(records.sessions),
    }
    part = Part(token, len(records.sessions), {kind: len(one) for kind, one in files.items()})
    try:
        for kind, one in files.items():
            folder.write(part.file(kind), one)
    except BaseException:
        folder.remove([part.file(kind) for kind in files])
        raise
    return part


def _encode_parquet(frame: pl.DataFrame) -> bytes:
    stream = BytesIO()
    # Large pages deduplicate repeated values, such as paths.
    frame.write_parquet(
        stream, compression="zstd", statistics=True, row_group_size=256 * 1024, data_page_size=8 * 1024 * 1024
    )
    return stream.getvalue()


def _pack_entries(tables: pl.DataFrame, entries: list[bytes]) -> tuple[bytes, pl.DataFrame]:
    """Return the entries of tables as blocks, and the tables with the positions of their entries."""
    blocks: list[bytes] = []
    places: list[tuple[int, int, int]] = []
    begun: list[bytes] = []
    size = offset = 0
    before: str | None = None

    def close() -> None:
        nonlocal begun, size, offset
        data = _encode_parquet(pl.DataFrame({"entry": pl.Series(begun, dtype=pl.Binary)}))
        blocks.append(data)
        places.extend((offset, len(data), row) for row in range(len(begun)))
        offset += len(data)
        begun, size = [], 0

    for name, row in zip(tables["table"], tables["_row"], strict=True):
        entry = entries[row]
        if begun and (size + len(entry) > _BLOCK_BYTES or (name != before and size >= _MIN_BLOCK_BYTES)):
            close()
        begun.append(entry)
        size, before = size + len(entry), name
    if begun:
        close()
    where = pl.DataFrame(places, schema=dict.fromkeys(("_offset", "_size", "_row"), pl.Int64), orient="row")
    return b"".join(blocks), tables.drop(where.columns).hstack(where)


def read_records(folder: Folder, part: Part, values: MetadataColumns) -> Records:
    """Read a whole part."""
    frames = {kind: read_frame(folder, part, kind) for kind in KINDS}
    tables = frames["tables"]
    data = memoryview(folder.read(part.file(ENTRIES), 0, part.bytes[ENTRIES]))
    blocks: dict[int, list[bytes]] = {}
    for offset, size in tables.select("_offset", "_size").unique().iter_rows():
        blocks[offset] = read_block(folder, data[offset : offset + size]).to_list()
    try:
        entries = [blocks[offset][row] for offset, row in tables.select("_offset", "_row").iter_rows()]
    except (IndexError, TypeError) as error:
        raise damaged_error(folder, part.file(ENTRIES), error) from None
    return Records(
        _as_published(frames["sessions"], values),
        tables.with_columns(_row=pl.int_range(pl.len(), dtype=pl.Int64)),
        frames["columns"],
        entries,
    )


def read_frame(folder: Folder, part: Part, kind: Kind, columns: Iterable[str] | None = None) -> pl.DataFrame:
    """Read a table of a part, or some of its columns, and check their types.

    Raises
    ------
    SourceNotFoundError
        If the file does not exist.
    LazyNWBError
        If the file is damaged.
    """
    name = part.file(kind)
    projection = list(columns) if columns is not None else None
    source: Any = folder.address(name)
    if folder.is_remote:
        source = BytesIO(folder.read(name, 0, part.bytes[kind]))
    else:
        folder.read(name, 0, 0)  # raise the error for a missing file
    frame: pl.DataFrame = read_untrusted(
        folder, name, lambda: pl.read_parquet(source, columns=projection, glob=False)
    )
    for column, dtype in SCHEMAS[kind].items():
        if (projection is None or column in projection) and frame.schema.get(column) != dtype:
            raise damaged_error(folder, name, f"column {column!r} is not of type {dtype}")
    if kind == "sessions" and len(frame) != part.sessions:
        raise damaged_error(folder, name, f"it has {len(frame)} sessions instead of {part.sessions}")
    return frame


def read_block(folder: Folder, data: bytes | memoryview) -> pl.Series:
    """Return the entries of a block, whose sizes are checked before they are allocated.

    Raises
    ------
    CorruptDataError
        If the block is damaged, or too large.
    """

    def read() -> pl.Series:
        series = pl.read_parquet(BytesIO(data), columns=["entry"]).to_series()
        if series.dtype != pl.Binary:
            raise TypeError(f"entries of type {series.dtype}")
        if series.bin.size().sum() > MAX_BLOCK_BYTES:  # values of a dictionary are shared until they are used
            raise ValueError("its entries are too large")
        return series

    try:
        check_decoded_size(data, MAX_BLOCK_BYTES)
    except CorruptDataError as error:
        raise damaged_error(folder, ENTRIES, error) from None
    return read_untrusted(folder, ENTRIES, read)
