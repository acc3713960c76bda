"""Counts of what queries cost: bytes, requests, chunks, files."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Profile:
    """What ran inside `lazynwb.profile()`, whichever thread it ran on.

    Attributes
    ----------
    requests, bytes_read : int
        Reads of file data, local or remote, and the bytes that they returned (the catalog cache is not
        counted).
    retries : int
        Requests that were repeated because a server failed or was busy.
    bytes_used : int
        Bytes that parsing and decoding took, whether they were read now or had been kept.
    chunks_decoded, bytes_decoded : int
        Compressed chunks that were decoded, and the bytes that came out.
    files_opened : int
        Times that a file was opened, for data or for its structure.
    files_parsed : int
        Times that a file's structure was parsed because no valid catalog entry was there.
    files_skipped : int
        Files that a query dropped before any of their data was read.
    cache_hits : int
        Catalog entries served from memory or disk.
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
    cache_hits: int = 0

    def __repr__(self) -> str:
        """Return the counts, one phrase each."""
        return "<Profile: " + ", ".join(f"{f.name} {getattr(self, f.name):,}" for f in fields(self)) + ">"


_active: list[Profile] = []
_lock = threading.Lock()


def count(**amounts: int) -> None:
    """Add the amounts to every profile that is being taken; almost free when there is none."""
    if _active:
        with _lock:
            for profile in _active:
                for name, amount in amounts.items():
                    setattr(profile, name, getattr(profile, name) + amount)


@contextmanager
def profile() -> Iterator[Profile]:
    """Count the requests, bytes, chunks and files of the queries that run inside the `with` block.

    Yields
    ------
    Profile
        The counts, live. Polars runs queries on threads of its own, so everything that this process
        reads through the package while the block is open is counted.

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
