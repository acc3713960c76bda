"""Counts of what queries cost: bytes, requests, chunks, files."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from lazynwb import interrupts

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    import polars as pl

#: Of the lines of a profile's representation.
_WIDTH = 94


@dataclass
class Counts:
    """What something cost.

    Attributes
    ----------
    requests, bytes_read : int
        Reads of file data, local or remote, and the bytes that they returned (the catalog cache is not
        counted).
    retries : int
        Requests that were repeated because a server failed or was busy.
    bytes_used : int
        Bytes that columns were decoded from, whether they were read now or had been kept.
    chunks_decoded, bytes_decoded : int
        Compressed chunks that were decoded, and the bytes that came out.
    files_opened : int
        Times that a file was opened, for data or for its structure.
    files_parsed : int
        Times that a file's structure was parsed because no valid catalog entry was there.
    files_skipped : int
        Files that a query dropped before any of their data was read.
    tables_skipped : int
        Tables of the other files that a query over several tables dropped in the same way.
    cache_hits : int
        Catalog entries served from memory or disk.
    rows_stored, bytes_stored : int
        Rows that came from the column store, before they were filtered, and the bytes of it that were read.
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
    """What one query cost; the schema that `scan_nwb` infers beforehand is not part of it.

    Attributes
    ----------
    label : str
        Which table of how many files it read.
    """

    label: str = ""

    def __repr__(self) -> str:
        """Return the label and the counts that are not zero."""
        return f"<{self.label}: {self}>"


@dataclass(repr=False)
class Profile(Counts):
    """What ran inside `lazynwb.profile()`, whichever thread it ran on: see `Counts`.

    Attributes
    ----------
    queries : list of QueryCounts
        The same for each query that ran, in the order in which they began.
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
    """A query whose costs are counted apart from others'."""

    def __init__(self, label: str) -> None:
        self.label = label
        outer = current()
        # An interrupt of a query ends the queries that it runs, also those that begin afterwards.
        self.interrupts: int = interrupts.count() if outer is None else outer.interrupts
        self._counts: dict[int, QueryCounts] = {}

    def of(self, profile: Profile) -> QueryCounts:
        """Return the counts of this query in a profile that is being taken."""
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
    """Add the amounts to every profile that is being taken; almost free when there is none."""
    if _active:
        query = _current.query
        with _lock:
            for profile in _active:
                profile.add(amounts)
                if query is not None:
                    query.of(profile).add(amounts)


def current() -> Query | None:
    """Return the query that this thread works for."""
    return _current.query


@contextmanager
def working_for(query: Query | None) -> Iterator[None]:
    """Count what this thread does as a query's."""
    before, _current.query = _current.query, query
    try:
        yield
    finally:
        _current.query = before


def attributed(batches: Iterator[pl.DataFrame], label: str) -> Generator[pl.DataFrame]:
    """Pass the batches of a query on, and count what they cost as its own, on whichever thread that is."""
    query = Query(label)
    while True:
        with working_for(query):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


@contextmanager
def measured() -> Iterator[Counts]:
    """Count the costs of this thread, and of threads that work for it, within the `with` block."""
    query = Query("")
    with profile() as taken, working_for(query):
        yield query.of(taken)


@contextmanager
def profile() -> Iterator[Profile]:
    """Count the requests, bytes, chunks and files of the queries that run inside the `with` block.

    Yields
    ------
    Profile
        The counts, live, in all and for each query. Polars runs queries on threads of its own, so everything
        that this process reads through the package while the block is open is counted.

    Examples
    --------
    >>> with lazynwb.profile() as p:  # doctest: +SKIP
    ...     lazynwb.scan_nwb(paths, "/units").select(pl.len()).collect()
    >>> p.bytes_read  # doctest: +SKIP
    0
    """
    taken = Profile()
    with _lock:
        _active.append(taken)
    try:
        yield taken
    finally:
        with _lock:
            # By identity: two profiles with equal counts compare equal.
            _active[:] = [p for p in _active if p is not taken]
