"""Serialization of catalogs that are shipped with a task, so that workers do not parse files again."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from lazynwb.catalog.lengths import measured_name
from lazynwb.catalog.model import ChunkIndex, arrays_of
from lazynwb.lookup.loader import Entry, TableFile
from lazynwb.lookup.providers import NOT_CATALOGUED, CatalogProvider, NotCatalogued
from lazynwb.struct_decoders import msgpack_decoder

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import polars as pl

    from lazynwb.storage.source import Source

#: Maximum bytes of chunk locations per file that are shipped; a worker looks up the others.
_MAX_CHUNK_INDEX_BYTES = 4096

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgpack_decoder(Entry)

#: An encoded entry; None if the file lacks the table.
Packed: TypeAlias = "bytes | None"


def pack_table(file: TableFile, columns: Collection[str] | None = None) -> bytes:
    """Encode the catalog of a table, of some columns, with chunk locations if they are small enough."""
    if columns is not None:
        columns = {*columns, *filter(None, map(measured_name, columns))}
    selected = [column for column in file.table.columns if columns is None or column.name in columns]
    chunks = {}
    room = _MAX_CHUNK_INDEX_BYTES
    for array in (array for column in selected for array in arrays_of(column)):
        index = file.chunks(array)
        if isinstance(index, ChunkIndex) and array.path not in chunks and len(index.offsets) <= room:
            room -= len(index.offsets)
            chunks[array.path] = index
    table = msgspec.structs.replace(file.table, columns=tuple(selected))
    zone_maps = file.zone_maps({array.path for column in selected for array in arrays_of(column)})
    return _ENCODER.encode(Entry("", file.identity, table, chunks, zone_maps))


def unpack_table(source: Source, data: Packed) -> TableFile | None:
    """Decode the catalog of a table."""
    return None if data is None else TableFile(source, _DECODER.decode(data), is_provided=True)


class ShippedCatalogs(CatalogProvider):
    """Catalogs shipped with a task, which a worker uses instead of parsing the files.

    Parameters
    ----------
    entries : mapping of (Source, str) to bytes or None
        Encoded catalogs by file and path of the table.
    metadata : mapping of str to DataFrame
        Session metadata of all files, by table.
    """

    def __init__(
        self,
        entries: Mapping[tuple[Source, str], Packed],
        metadata: Mapping[str, pl.DataFrame] = MappingProxyType({}),
    ) -> None:
        self._entries = dict(entries)
        self._metadata = dict(metadata)

    def tables(self, sources: Sequence[Source], table: str) -> list[TableFile | NotCatalogued | None]:
        """Return the catalogs of one table; see `CatalogProvider`."""
        entries = self._entries
        return [
            unpack_table(one, entries[one, table]) if (one, table) in entries else NOT_CATALOGUED
            for one in sources
        ]

    def metadata(
        self, sources: Sequence[Source], table: str, schema: Mapping[str, pl.DataType]
    ) -> pl.DataFrame | None:
        """Return session metadata; see `CatalogProvider`."""
        del sources  # the frames contain all files of the task
        found = self._metadata.get(table)
        return found if found is not None and set(schema) <= set(found.columns) else None


def pack_catalogs(
    catalogs: CatalogProvider,
    sources: Sequence[Source],
    tables: Mapping[tuple[Source, str], TableFile | None],
    columns: Collection[str],
    metadata: Mapping[str, Mapping[str, pl.DataType]],
) -> ShippedCatalogs:
    """Encode the catalogs that a query on some files needs.

    Parameters
    ----------
    catalogs : CatalogProvider
        Catalogs of all files of the scan.
    sources : sequence of Source
        Files of the task.
    tables : mapping of (Source, str) to TableFile or None
        Known tables by file and path; None if the file lacks the table.
    columns : collection of str
        Columns that the query reads.
    metadata : mapping of str to mapping of str to DataType
        Schema of the session metadata that the query reads, by table.
    """
    entries: dict[tuple[Source, str], Packed] = {
        pair: None if file is None else pack_table(file, columns) for pair, file in tables.items()
    }
    frames = {name: catalogs.metadata(sources, name, schema) for name, schema in metadata.items()}
    return ShippedCatalogs(entries, {name: frame for name, frame in frames.items() if frame is not None})
