"""Catalogs that workers build while a scan is planned, and that its queries reuse."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazynwb.distributed.catalog_serde import Packed, ShippedCatalogs, unpack_table
from lazynwb.distributed.tasks import Describe
from lazynwb.errors import LazyNWBError
from lazynwb.lookup.providers import NOT_CATALOGUED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lazynwb.distributed.workers import Workers
    from lazynwb.lookup.loader import TableFile
    from lazynwb.lookup.providers import NotCatalogued
    from lazynwb.storage.source import Source

#: Maximum size of the cached catalogs in bytes.
_MAX_BYTES = 64 * 1024 * 1024
#: Maximum number of files of a task.
_MAX_FILES = 64


class WorkerCatalogs(ShippedCatalogs):
    """Catalogs that workers build on request while a scan is planned.

    Parameters
    ----------
    workers : Workers
        Pool of workers.
    """

    def __init__(self, workers: Workers) -> None:
        super().__init__({})
        self._workers = workers
        self._size = 0
        self._is_requesting = True

    def tables(self, sources: Sequence[Source], table: str) -> list[TableFile | NotCatalogued | None]:
        """Return the catalogs of one table; see `CatalogProvider`."""
        found = super().tables(sources, table)
        if not self._is_requesting:
            return found
        lacking: dict[Source, list[int]] = {}
        for at, (source, one) in enumerate(zip(sources, found, strict=True)):
            if one is NOT_CATALOGUED:
                lacking.setdefault(source, []).append(at)
        for source, data in self._request(list(lacking), table):
            for at in lacking[source]:
                found[at] = unpack_table(source, data)
        return found

    def stop_requests(self) -> None:
        """Stop requesting catalogs from workers: queries ship the cached ones."""
        self._is_requesting = False

    def _request(self, sources: list[Source], table: str) -> Iterator[tuple[Source, Packed]]:
        if not sources:
            return
        at_once = self._workers.max_in_flight
        each = min(max(-(-len(sources) // at_once), 1), _MAX_FILES)
        units = (Describe(tuple(sources[at : at + each]), table) for at in range(0, len(sources), each))
        for _, found in self._workers.in_order(units, at_once):
            if isinstance(found, LazyNWBError):
                raise found
            for source, data in found:
                self._size += len(data or b"")
                if self._size <= _MAX_BYTES:
                    self._entries[source, table] = data
                yield source, data
