"""What the caches on disk hold, by source: the catalog cache and the column store."""

from __future__ import annotations

from collections import Counter
from itertools import accumulate, pairwise
from typing import NamedTuple

from lazynwb.catalog import disk_cache
from lazynwb.column_store.store import column_store


class Held(NamedTuple):
    """What is kept of one source, in all versions of it that were seen.

    Attributes
    ----------
    source : str
        Its absolute path, or its URL without a query.
    catalog_bytes : int
        Of its structure, and of bytes of a remote file.
    column_bytes : int
        Of its small columns: its share of the parts that hold them, by rows.
    tables : tuple of str
        Tables of which the column store knows columns or rows.
    """

    source: str
    catalog_bytes: int
    column_bytes: int
    tables: tuple[str, ...]


def inventory() -> list[Held]:
    """Return what is kept of each source, in the order of their names."""
    catalog: Counter[str] = Counter()
    columns: Counter[str] = Counter()
    tables: dict[str, set[str]] = {}
    for key, size in disk_cache.all_entries():
        catalog[key.split("\0")[1]] += size
    for part, size in column_store().all_parts():
        weights = [session.rows + 1 for session in part.entry.sessions]
        bounds = [size * end // sum(weights) for end in accumulate(weights, initial=0)]
        table = part.entry.table.partition("\0")[0]
        for session, (start, stop) in zip(part.entry.sessions, pairwise(bounds), strict=True):
            source = session.key.partition("\0")[0]
            columns[source] += stop - start
            tables.setdefault(source, set()).add(table)
    return [
        Held(source, catalog[source], columns[source], tuple(sorted(tables.get(source, ()))))
        for source in sorted(catalog.keys() | columns.keys())
    ]
