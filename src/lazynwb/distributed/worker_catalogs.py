"""Catalogs that workers make while the schema of a scan is found out, kept for its queries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazynwb.distributed.catalog_serde import Packed, unpack
from lazynwb.distributed.tasks import Describe
from lazynwb.errors import LazyNWBError
from lazynwb.lookup.providers import NOT_CATALOGUED, NotCatalogued

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import polars as pl

    from lazynwb.distributed.workers import Workers
    from lazynwb.lookup.loader import TableFile
    from lazynwb.storage.source import Source

#: Bytes of catalogs that are kept.
_MOST_KEPT = 64 * 1024 * 1024
#: Files that one worker describes, at most.
_MOST_FILES = 64


class WorkerCatalogs:
    """What workers find out; see `lazynwb.lookup.providers.Catalogs`.

    Parameters
    ----------
    workers : Workers
    """

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._kept: dict[tuple[Source, str], Packed] = {}
        self._size = 0
        self._is_asking = True

    def tables(self, sources: Sequence[Source], table: str) -> list[TableFile | NotCatalogued | None]:
        """Return the catalogs of one table; see `Catalogs`."""
        found: list[TableFile | NotCatalogued | None] = [NOT_CATALOGUED] * len(sources)
        lacking: dict[Source, list[int]] = {}
        for at, source in enumerate(sources):
            if (source, table) in self._kept:
                found[at] = unpack(source, self._kept[source, table])
            else:
                lacking.setdefault(source, []).append(at)
        if self._is_asking:
            for source, data in self._asked(list(lacking), table):
                for at in lacking[source]:
                    found[at] = unpack(source, data)
        return found

    def metadata(self, sources: Sequence[Source], table: str, schema: Mapping[str, pl.DataType]) -> None:
        """Return nothing: values are read, by the workers too; see `Catalogs`."""
        del sources, table, schema

    def stop_asking(self) -> None:
        """Leave the workers alone from now on: queries send them what is known, and no questions."""
        self._is_asking = False

    def _asked(self, sources: list[Source], table: str) -> Iterator[tuple[Source, Packed]]:
        if not sources:
            return
        at_once = self._workers.under_way
        each = min(max(-(-len(sources) // at_once), 1), _MOST_FILES)
        units = (Describe(tuple(sources[at : at + each]), table) for at in range(0, len(sources), each))
        for _, found in self._workers.in_order(units, at_once):
            if isinstance(found, LazyNWBError):
                raise found
            for source, data in found:
                self._size += len(data or b"")
                if self._size <= _MOST_KEPT:
                    self._kept[source, table] = data
                yield source, data
