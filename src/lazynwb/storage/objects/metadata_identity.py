"""Identities of stores of objects, which are those of their metadata documents."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from lazynwb.errors import LazyNWBError, NotNWBError, SourceNotFoundError
from lazynwb.storage import local_file, remote_file, revalidation
from lazynwb.storage.objects.object_store import open_objects
from lazynwb.storage.revalidation import (
    checked_at,
    confirmed_at,
    is_listed_absent,
    note_check,
    trusted_seconds,
)
from lazynwb.storage.source import ABSENT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lazynwb.storage.file import File
    from lazynwb.storage.objects.object_store import Objects
    from lazynwb.storage.source import Source
    from lazynwb.threads import Pool

IS_STORE = True

#: Documents that describe a whole store, the most informative first (Zarr v2 consolidated, v3, v2).
DOCUMENTS = (".zmetadata", "zarr.json", ".zgroup")
#: Maximum number of stores whose documents are kept in memory until they are parsed.
_MAX_KEPT = 64

_documents: OrderedDict[tuple[Source, str], dict[str, bytes | None]] = OrderedDict()
_seen: dict[Source, tuple[str, float]] = {}
_lock = threading.Lock()


def identity(source: Source, *, known: bool | str) -> str:
    """Return a string that changes when the metadata document of a store is replaced.

    Overwriting a chunk in place does not change it, so chunks are never cached.

    Parameters
    ----------
    source : Source
    known : bool or str
        Whether the store is probably in the catalog cache, so that its document is not needed; or the
        identity that it has there.

    Raises
    ------
    SourceNotFoundError
        If the store does not exist.
    """
    with _lock:
        recent = _seen.get(source)
    if recent is not None and time.monotonic() - recent[1] <= trusted_seconds():
        return recent[0]
    confirmed = _confirmed_at(source, known) if isinstance(known, str) and source.is_remote else None
    if isinstance(known, str) and confirmed is not None:
        with _lock:
            _seen[source] = (known, confirmed)
        return known
    found = _identity(open_objects(source), known=bool(known))
    if source.is_remote:
        note_check(source, found)
        with _lock:
            _seen[source] = (found, time.monotonic())
    return found


def _confirmed_at(source: Source, known: str) -> float | None:
    """Return the time at which the identity of a store was confirmed; see `revalidation.confirmed_at`."""
    key, _, version = known.partition("\t")
    others = DOCUMENTS[: DOCUMENTS.index(key)] if key in DOCUMENTS else DOCUMENTS
    if all(is_listed_absent(document_of(source, other)) for other in others):
        confirmed = confirmed_at(document_of(source, key), version)
        if confirmed is not None:
            return confirmed
    return checked_at(source, known)


def document_of(source: Source, key: str) -> Source:
    """Return the source of a document of a store."""
    return source.with_path(f"{source.path.rstrip('/')}/{key}")


def forget_check(source: Source) -> None:
    """Forget the last check of a store."""
    with _lock:
        _seen.pop(source, None)


def verify(source: Source, expected: str) -> None:
    """Verify that a store still has the metadata document that the catalog was built from."""
    if identity(source, known=True) != expected:
        raise local_file.changed_error(source.name)


def is_settled(source: Source, known: str, now_ns: int) -> bool:
    """Return whether any later write of the document is certain to change its identity."""
    key, _, version = known.partition("\t")
    document = document_of(source, key)
    if source.is_remote:
        return remote_file.is_version_certain(document, version)
    return local_file.is_path_settled(document.path, now_ns)


def read_reveals_change(source: Source, known: str) -> bool:  # noqa: ARG001 - signature of `Kind`
    """Return False: responses only identify the versions of single objects."""
    return False


def open_file(source: Source, expected: str) -> File:
    """Raise NotNWBError: a store is not a single file."""
    del expected
    raise NotNWBError(f"{source.name} is a folder, not a file: pass a file, or the folder of a Zarr store")


def invalidate(source: Source) -> None:
    """Drop everything that is cached of a store."""
    revalidation.invalidate(source)
    with _lock:
        for other in [other for other in _seen if other.key == source.key]:
            del _seen[other]
        for known in [known for known in _documents if known[0].key == source.key]:
            del _documents[known]


def forget() -> None:
    """Drop the identities and documents of all stores."""
    with _lock:
        _seen.clear()
        _documents.clear()


def _identity(objects: Objects, *, known: bool) -> str:
    checked: dict[str, bytes | None] = {}
    refused: LazyNWBError | None = None
    for key in DOCUMENTS:
        try:
            document = None if known else objects.get(key)
        except LazyNWBError as error:
            # Without permission to list a bucket, missing objects are refused, too.
            refused = refused or error
            continue
        checked[key] = None if document is None else bytes(document)
        if not known and document is None:
            continue
        version = objects.version(key)
        if version == ABSENT:
            continue
        found = f"{key}\t{version}"
        if document is not None:
            with _lock:
                _documents[objects.source, found] = checked
                while len(_documents) > _MAX_KEPT:
                    _documents.popitem(last=False)
        return found
    if refused is not None:
        raise refused
    raise SourceNotFoundError(f"no such store: {objects.source.name} (it has none of {', '.join(DOCUMENTS)})")


def open_prefetched(source: Source, version: str) -> Objects:
    """Open a store with the documents that `identity` has just fetched."""
    with _lock:
        documents = _documents.pop((source, version), None)
    objects = open_objects(source)
    return _PrefetchedObjects(objects, documents) if documents else objects


class _PrefetchedObjects:
    """A store with prefetched documents; see `object_store.Objects`."""

    def __init__(self, objects: Objects, documents: dict[str, bytes | None]) -> None:
        self._objects = objects
        self._documents = documents

    @property
    def source(self) -> Source:
        """The source of the store."""
        return self._objects.source

    @property
    def pool(self) -> Pool:
        """The threads that read objects concurrently."""
        return self._objects.pool

    def get(self, key: str) -> bytes | memoryview | None:
        """Return an object; None if it does not exist."""
        return self._documents[key] if key in self._documents else self._objects.get(key)

    def get_range(self, key: str, start: int, size: int) -> bytes | memoryview | None:
        """Return a range of an object; None if it does not exist."""
        return self._objects.get_range(key, start, size)

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes | memoryview | None]:
        """Return several objects."""
        requested = list(keys)
        found = self._objects.get_many([key for key in requested if key not in self._documents])
        return {key: self._documents[key] if key in self._documents else found[key] for key in requested}

    def members(self, prefix: str) -> list[str] | None:
        """Return the names of the direct members of a prefix; None if the store cannot be listed."""
        return self._objects.members(prefix)

    def version(self, key: str) -> str:
        """Return a string that changes when an object is replaced."""
        return self._objects.version(key)
