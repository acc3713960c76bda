"""Single objects of a store as files."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lazynwb.errors import CorruptDataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lazynwb.storage.objects.object_store import Objects

#: The size of a range that stands for the whole object.
WHOLE = -1


class ObjectAbsentError(LookupError):
    """A store has no object with the requested key."""


class ObjectFile:
    """An object of a store as a `lazynwb.storage.file.File`.

    Parameters
    ----------
    store : Objects
    key : str
    """

    #: Chunks of a shard that are closer together than this are read as one.
    coalesce_gap = 64 * 1024
    #: Maximum size of a coalesced read of a shard.
    coalesce_limit = 4 * 1024 * 1024
    #: Every read is worth a thread: it opens a file or makes a request.
    thread_threshold = WHOLE
    #: The size is unknown; reading past the end fails.
    size = sys.maxsize

    def __init__(self, store: Objects, key: str) -> None:
        self.name = store.source.name
        self.pool = store.pool
        self._store = store
        self._key = key

    def has(self, offset: int, size: int) -> bool:
        """Return False: objects are not cached."""
        del offset, size
        return False

    def keep(self, offset: int, data: memoryview) -> None:
        """Do nothing: objects are not cached."""

    @contextmanager
    def reading(self) -> Iterator[ObjectFile]:
        """Return the object itself, which needs no open handle."""
        yield self

    def read(self, offset: int, size: int) -> memoryview:
        """Return a range of the object; all of it if the size is `WHOLE`.

        Raises
        ------
        ObjectAbsentError
            If the whole object is read and the store does not have it.
        CorruptDataError
            If the object does not have the range.
        """
        if size == WHOLE:
            data = self._store.get(self._key)
            if data is None:
                raise ObjectAbsentError(self._key)
        else:
            data = self._store.get_range(self._key, offset, size) if offset >= 0 else None
            if data is None or len(data) != size:
                raise CorruptDataError(f"bytes {offset} to {offset + size} are missing")
        return memoryview(data)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with a range of the object; see `read`."""
        buffer[:] = self.read(offset, len(buffer))
