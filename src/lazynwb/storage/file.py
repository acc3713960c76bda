"""Protocols of files: ranged reads, and the parameters that decide how reads are coalesced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from lazynwb.threads import Pool


class Ranges(Protocol):
    """A file that is open for ranged reads."""

    def read(self, offset: int, size: int) -> bytearray | memoryview:
        """Return a range of bytes; raise CorruptDataError if the file ends before it does."""
        ...

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with the bytes that start at an offset."""
        ...


class File(Protocol):
    """One version of one file; reading fails once the file has changed.

    Attributes
    ----------
    name : str
        Name in messages.
    size : int
        Number of bytes.
    pool : Pool
        Threads that read the file.
    coalesce_gap : int
        Ranges that are closer together than this are read as one.
    coalesce_limit : int
        Maximum size of a coalesced read.
    thread_threshold : int
        Minimum size of a read that is worth a thread of its own.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def size(self) -> int: ...  # noqa: D102

    @property
    def pool(self) -> Pool: ...  # noqa: D102

    @property
    def coalesce_gap(self) -> int: ...  # noqa: D102

    @property
    def coalesce_limit(self) -> int: ...  # noqa: D102

    @property
    def thread_threshold(self) -> int: ...  # noqa: D102

    def has(self, offset: int, size: int) -> bool:
        """Return whether a range costs no request."""
        ...

    def keep(self, offset: int, data: memoryview) -> None:
        """Cache a range for later queries if it is small and costs a request."""
        ...

    def reading(self) -> AbstractContextManager[Ranges]:
        """Open the file for the duration of the `with` block."""
        ...
