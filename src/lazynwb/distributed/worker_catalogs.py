"""Catalogs that workers make while a scan is planned, kept for its queries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazynwb.distributed.catalog_serde import Packed, ShippedCatalogs, unpack
from lazynwb.distributed.tasks import Describe
from lazynwb.errors import LazyNWBError
from lazynwb.lookup.providers import NOT_CATALOGUED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lazynwb.distributed.workers import Workers
    from lazynwb.lookup.loader import TableFile
    from lazynwb.lookup.providers import NotCatalogued
    from lazynwb.storage.source import Source

#: Bytes of catalogs that are kept.
_MAX_KEPT = 64 * 1024 * 1024
#: Files that one worker describes, at most.
_MAX_FILES = 64


class WorkerCatalogs(ShippedCatalogs):
    """Catalogs that workers make on request while a scan is planned.

    Parameters
    ----------
    workers : Workers
    """

    def __init__(self, workers: Workers) -> None:
        super().__init__({})
        self._workers = workers
        self._size = 0
        self._is_asking = True

    def tables(self, sources: Sequence[Source], table: str) -> list[TableFile | NotCatalogued | None]:
        """Return the catalogs of one table; see `CatalogProvider`."""
        found = super().tables(sources, table)
        if not self._is_asking:
            return found
        lacking: dict[Source, list[int]] = {}
        for at, (source, one) in enumerate(zip(sources, found, strict=True)):
            if one is NOT_CATALOGUED:
                lacking.setdefault(source, []).append(at)
        for source, data in self._asked(list(lacking), table):
            for at in lacking[source]:
                found[at] = unpack(source, data)
        return found

    def stop_asking(self) -> None:
        """Ask the workers for no more catalogs: queries ship the ones that are here."""
        self._is_asking = False

    def _asked(self, sources: list[Source], table: str) -> Iterator[tuple[Source, Packed]]:
        if not sources:
            return
        at_once = self._workers.under_way
        each = min(max(-(-len(sources) // at_once), 1), _MAX_FILES)
        units = (Describe(tuple(sources[at : at + each]), table) for at in range(0, len(sources), each))
        for _, found in self._workers.in_order(units, at_once):
            if isinstance(found, LazyNWBError):
                raise found
            for source, data in found:
                self._size += len(data or b"")
                if self._size <= _MAX_KEPT:
                    self._entries[source, table] = data
                yield source, data
