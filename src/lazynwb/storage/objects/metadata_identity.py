"""What version of a store is there: that of the document which describes it."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from lazynwb.config import config
from lazynwb.errors import SourceNotFoundError
from lazynwb.storage.file import ABSENT
from lazynwb.storage.objects.object_store import open_objects

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lazynwb.storage.objects.object_store import Objects
    from lazynwb.storage.source import Source
    from lazynwb.threads import Pool

#: Documents that describe a store as a whole, the most informative first (Zarr v2 consolidated, v3, v2).
DOCUMENTS = (".zmetadata", "zarr.json", ".zgroup")
#: Documents that are kept in memory until they are parsed.
_MOST_KEPT = 64

_documents: OrderedDict[tuple[Source, str], dict[str, bytes | None]] = OrderedDict()
_seen: dict[Source, tuple[str, float]] = {}
_lock = threading.Lock()


def identity(source: Source, *, known: bool) -> str:
    """Return a text that changes when the document that describes a store is replaced.

    A chunk that is overwritten in place leaves it as it is: chunks are never remembered.

    Parameters
    ----------
    source : Source
    known : bool
        Whether the store is probably in the catalog, so that its description is not needed.

    Raises
    ------
    SourceNotFoundError
        If there is no such store.
    """
    with _lock:
        recent = _seen.get(source)
    if recent is not None and time.monotonic() - recent[1] <= config.recheck_seconds:
        return recent[0]
    found = _identity(open_objects(source), known=known)
    if source.is_remote:
        with _lock:
            _seen[source] = (found, time.monotonic())
    return found


def invalidate(source: Source) -> None:
    """Forget what was found out about one store."""
    with _lock:
        for other in [other for other in _seen if other.key == source.key]:
            del _seen[other]
        for known in [known for known in _documents if known[0].key == source.key]:
            del _documents[known]


def forget() -> None:
    """Believe nothing that was found out about stores."""
    with _lock:
        _seen.clear()
        _documents.clear()


def _identity(objects: Objects, *, known: bool) -> str:
    looked_at: dict[str, bytes | None] = {}
    for key in DOCUMENTS:
        document = None if known else objects.get(key)
        looked_at[key] = None if document is None else bytes(document)
        if not known and document is None:
            continue
        version = objects.version(key)
        if version == ABSENT:
            continue
        found = f"{key}\t{version}"
        if document is not None:
            with _lock:
                _documents[objects.source, found] = looked_at
                while len(_documents) > _MOST_KEPT:
                    _documents.popitem(last=False)
        return found
    message = f"no such store: {objects.source.name} (it has none of {', '.join(DOCUMENTS)})"
    raise SourceNotFoundError(message)


def opened(source: Source, version: str) -> Objects:
    """Open a store, whose description need not be asked for again if it has just been looked at."""
    with _lock:
        documents = _documents.pop((source, version), None)
    objects = open_objects(source)
    return _Described(objects, documents) if documents else objects


class _Described:
    """A store some documents of which are here already; see `object_store.Objects`."""

    def __init__(self, objects: Objects, documents: dict[str, bytes | None]) -> None:
        self._objects = objects
        self._documents = documents

    @property
    def source(self) -> Source:
        """Where it is."""
        return self._objects.source

    @property
    def pool(self) -> Pool:
        """The threads on which several of its objects are read at the same time."""
        return self._objects.pool

    def get(self, key: str) -> bytes | memoryview | None:
        """Return an object; None if there is none."""
        return self._documents[key] if key in self._documents else self._objects.get(key)

    def get_range(self, key: str, start: int, size: int) -> bytes | memoryview | None:
        """Return a part of an object; None if there is no such one."""
        return self._objects.get_range(key, start, size)

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes | memoryview | None]:
        """Return several objects."""
        wanted = list(keys)
        found = self._objects.get_many([key for key in wanted if key not in self._documents])
        return {key: self._documents[key] if key in self._documents else found[key] for key in wanted}

    def members(self, prefix: str) -> list[str] | None:
        """Return the names right below a prefix; None if the store does not list."""
        return self._objects.members(prefix)

    def version(self, key: str) -> str:
        """Return a text that changes when an object is replaced."""
        return self._objects.version(key)
