"""The protocol of an open file: ranges of its bytes, and what reading them costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from lazynwb.threads import Pool


class Ranges(Protocol):
    """What is open for reading."""

    def read(self, offset: int, size: int) -> bytearray | memoryview:
        """Return a range of bytes; CorruptDataError if the file ends before."""
        ...

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a buffer from an offset on."""
        ...


class File(Protocol):
    """One version of one file; reading any other fails.

    Attributes
    ----------
    name : str
        For messages.
    size : int
    pool : Pool
        The threads that read it.
    gap : int
        Ranges closer than this are cheaper read as one.
    merged : int
        Size up to which ranges are merged.
    parallel : int
        Reads of at least this size are worth a thread.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def size(self) -> int: ...  # noqa: D102

    @property
    def pool(self) -> Pool: ...  # noqa: D102

    @property
    def gap(self) -> int: ...  # noqa: D102

    @property
    def merged(self) -> int: ...  # noqa: D102

    @property
    def parallel(self) -> int: ...  # noqa: D102

    def has(self, offset: int, size: int) -> bool:
        """Return whether a range costs no request."""
        ...

    def keep(self, offset: int, data: memoryview) -> None:
        """Keep a range for later queries, if it is small and costs a request."""
        ...

    def reading(self) -> AbstractContextManager[Ranges]:
        """Open the file for as long as the `with` block lasts."""
        ...
