"""Profiles of queries: numbers of bytes, requests, chunks and files."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from lazynwb import interrupts

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    import polars as pl

#: Maximum width of the lines of a profile's representation.
_WIDTH = 94


@dataclass
class Counts:
    """Counts of reads and of their results.

    Attributes
    ----------
    requests, bytes_read : int
        Reads of file data, local or remote, and the bytes that they returned (the catalog cache is not
        counted).
    retries : int
        Requests that were repeated because a server failed or was busy.
    bytes_used : int
        Bytes from which columns were decoded, whether they were read or cached.
    chunks_decoded, bytes_decoded : int
        Compressed chunks that were decoded, and their decoded size.
    files_opened : int
        Number of times that a file was opened, for data or for its structure.
    files_parsed : int
        Number of times that a file's structure was parsed because it had no valid catalog entry.
    files_skipped : int
        Files that a query skipped before it read any of their data.
    tables_skipped : int
        Tables of the other files that a query on several tables skipped in the same way.
    cache_hits : int
        Catalog entries that were read from memory or disk.
    rows_stored, bytes_stored : int
        Rows read from the column store, before filters, and the bytes that were read from it.
    """

    requests: int = 0
    bytes_read: int = 0
    retries: int = 0
    bytes_used: int = 0
    chunks_decoded: int = 0
    bytes_decoded: int = 0
    files_opened: int = 0
    files_parsed: int = 0
    files_skipped: int = 0
    tables_skipped: int = 0
    cache_hits: int = 0
    rows_stored: int = 0
    bytes_stored: int = 0

    def add(self, amounts: dict[str, int]) -> None:
        """Add amounts, by the names of the attributes."""
        for name, amount in amounts.items():
            setattr(self, name, getattr(self, name) + amount)

    def amounts(self) -> dict[str, int]:
        """Return the counts by name."""
        return {f.name: getattr(self, f.name) for f in fields(Counts)}

    def __str__(self) -> str:
        """Return the counts that are not zero."""
        counted = [f"{name} {amount:,}" for name, amount in self.amounts().items() if amount]
        return ", ".join(counted) or "nothing was read"


@dataclass(repr=False)
class QueryCounts(Counts):
    """Counts of one query, without the inference of its schema by `scan_nwb`.

    Attributes
    ----------
    label : str
        Table of the query, and number of its files.
    """

    label: str = ""

    def __repr__(self) -> str:
        """Return the label and the counts that are not zero."""
        return f"<{self.label}: {self}>"


@dataclass(repr=False)
class Profile(Counts):
    """Counts of everything that ran inside `lazynwb.profile()`, on any thread; see `Counts`.

    Attributes
    ----------
    queries : list of QueryCounts
        Counts of each query, in the order in which the queries began.
    """

    queries: list[QueryCounts] = field(default_factory=list)

    def __repr__(self) -> str:
        """Return the counts that are not zero, in total and per query, wrapped between counts."""
        parts = [f"<Profile: {self}", *(f"  {query.label}: {query}" for query in self.queries)]
        return "\n".join(map(_wrapped, parts)) + ">"


def _wrapped(counts: str) -> str:
    """Return counts in lines of at most 96 characters, broken between counts."""
    lines = [""]
    for count in counts.split(", "):
        if lines[-1] and len(lines[-1]) + len(count) > _WIDTH:
            lines.append("   ")
        lines[-1] += f" {count}," if lines[-1] else f"{count},"
    return "\n".join(lines).removesuffix(",")


class Query:
    """A query with counts of its own."""

    def __init__(self, label: str) -> None:
        self.label = label
        outer = current()
        # An interrupt of a query ends the queries that it runs, also those that begin afterwards.
        self.interrupts: int = interrupts.count() if outer is None else outer.interrupts
        self._counts: dict[int, QueryCounts] = {}

    def of(self, profile: Profile) -> QueryCounts:
        """Return the counts of this query in an active profile."""
        found = self._counts.get(id(profile))
        if found is None:
            found = self._counts[id(profile)] = QueryCounts(label=self.label)
            profile.queries.append(found)
        return found


class _Current(threading.local):
    query: Query | None = None


_active: list[Profile] = []
_lock = threading.Lock()
_current = _Current()


def count(**amounts: int) -> None:
    """Add amounts to all active profiles; the cost is negligible if there are none."""
    if _active:
        query = _current.query
        with _lock:
            for profile in _active:
                profile.add(amounts)
                if query is not None:
                    query.of(profile).add(amounts)


def current() -> Query | None:
    """Return the query of the current thread."""
    return _current.query


@contextmanager
def working_for(query: Query | None) -> Iterator[None]:
    """Attribute the reads of the current thread to a query."""
    before, _current.query = _current.query, query
    try:
        yield
    finally:
        _current.query = before


def attributed(batches: Iterator[pl.DataFrame], label: str) -> Generator[pl.DataFrame]:
    """Yield the batches of a query, and attribute the reads to it, on any thread."""
    query = Query(label)
    while True:
        with working_for(query):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


@contextmanager
def measured() -> Iterator[Counts]:
    """Count the reads of this thread, and of threads that work for it, within the `with` block."""
    query = Query("")
    with profile() as active, working_for(query):
        yield query.of(active)


@contextmanager
def profile() -> Iterator[Profile]:
    """Count the requests, bytes, chunks and files of the queries that run inside the `with` block.

    Yields
    ------
    Profile
        The counts in total and for each query, which are updated while queries run. Because Polars runs
        queries on its own threads, all reads of this process through the package are counted.

    Examples
    --------
    >>> with lazynwb.profile() as p:  # doctest: +SKIP
    ...     lazynwb.scan_nwb(paths, "/units").select(pl.len()).collect()
    >>> p.bytes_read  # doctest: +SKIP
    0
    """
    active = Profile()
    with _lock:
        _active.append(active)
    try:
        yield active
    finally:
        with _lock:
            # By identity: two profiles with equal counts compare equal.
            _active[:] = [p for p in _active if p is not active]
