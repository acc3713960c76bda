"""The contents of the catalog cache and of the column store on disk, by source."""

from __future__ import annotations

from collections import Counter
from itertools import accumulate, pairwise
from typing import NamedTuple

from lazynwb.catalog import disk_cache
from lazynwb.column_store.store import column_store


class CachedSource(NamedTuple):
    """Cached data of one source, in all of its versions.

    Attributes
    ----------
    source : str
        Absolute path, or URL without a query.
    catalog_bytes : int
        Size of the cached structure, and of the cached bytes of a remote file.
    column_bytes : int
        Size of the stored columns: the source's share of the parts that hold them, by rows.
    tables : tuple of str
        Tables with columns or rows in the column store.
    """

    source: str
    catalog_bytes: int
    column_bytes: int
    tables: tuple[str, ...]


def inventory() -> list[CachedSource]:
    """Return the cached data of each source, sorted by the name of the source."""
    catalog: Counter[str] = Counter()
    columns: Counter[str] = Counter()
    tables: dict[str, set[str]] = {}
    for key, size in disk_cache.all_entries():
        kind, _, rest = key.partition("\0")
        if kind:  # earlier versions stored entries without a key
            catalog[rest.partition("\0")[0]] += size
    for part, size in column_store().all_parts():
        weights = [session.rows + 1 for session in part.entry.sessions]
        bounds = [size * end // sum(weights) for end in accumulate(weights, initial=0)]
        table = part.entry.table.partition("\0")[0]
        for session, (start, stop) in zip(part.entry.sessions, pairwise(bounds), strict=True):
            source = session.key.partition("\0")[0]
            columns[source] += stop - start
            tables.setdefault(source, set()).add(table)
    return [
        CachedSource(source, catalog[source], columns[source], tuple(sorted(tables.get(source, ()))))
        for source in sorted(catalog.keys() | columns.keys())
    ]
