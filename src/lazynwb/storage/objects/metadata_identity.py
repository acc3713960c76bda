"""The identity of a store of objects: that of the metadata document which describes it."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from lazynwb.errors import LazyNWBError, NotNWBError, SourceNotFoundError
from lazynwb.storage import local_file, remote_file
from lazynwb.storage.objects.object_store import open_objects
from lazynwb.storage.revalidation import (
    checked_at,
    confirmed_at,
    distrust,
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

#: Documents that describe a store as a whole, the most informative first (Zarr v2 consolidated, v3, v2).
DOCUMENTS = (".zmetadata", "zarr.json", ".zgroup")
#: Documents that are kept in memory until they are parsed.
_MAX_KEPT = 64

_documents: OrderedDict[tuple[Source, str], dict[str, bytes | None]] = OrderedDict()
_seen: dict[Source, tuple[str, float]] = {}
_lock = threading.Lock()


def identity(source: Source, *, known: bool | str) -> str:
    """Return a text that changes when the document that describes a store is replaced.

    A chunk that is overwritten in place leaves it as it is: chunks are never remembered.

    Parameters
    ----------
    source : Source
    known : bool or str
        Whether the store is probably in the catalog, so that its description is not needed; or the identity
        that it has there.

    Raises
    ------
    SourceNotFoundError
        If there is no such store.
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
    """Return when a store was found to have an identity still, as `revalidation.confirmed_at` does."""
    key, _, version = known.partition("\t")
    others = DOCUMENTS[: DOCUMENTS.index(key)] if key in DOCUMENTS else DOCUMENTS
    if all(is_listed_absent(document_of(source, other)) for other in others):
        confirmed = confirmed_at(document_of(source, key), version)
        if confirmed is not None:
            return confirmed
    return checked_at(source, known)


def document_of(source: Source, key: str) -> Source:
    """Return where a document of a store in a bucket is."""
    return source.with_path(f"{source.path.rstrip('/')}/{key}")


def recheck(source: Source) -> None:
    """Forget when a store was last checked."""
    with _lock:
        _seen.pop(source, None)


def verify(source: Source, expected: str) -> None:
    """Make sure that the document which describes a store is the one that the catalog was made from."""
    if identity(source, known=True) != expected:
        raise local_file.changed(source.name)


def is_settled(source: Source, known: str, now_ns: int) -> bool:
    """Return whether a write of the document from now on is certain to change its identity."""
    key, _, version = known.partition("\t")
    document = document_of(source, key)
    if source.is_remote:
        return remote_file.is_version_certain(document, version)
    return local_file.is_path_settled(document.path, now_ns)


def shows_change(source: Source, known: str) -> bool:  # noqa: ARG001 - kinds share one signature
    """Return False: answers say of single objects which version they are of."""
    return False


def open_file(source: Source, expected: str) -> File:
    """Raise: a store is no single file."""
    del expected
    raise NotNWBError(f"{source.name} is a folder, not a file: pass a file, or the folder of a Zarr store")


def invalidate(source: Source) -> None:
    """Drop what is cached of one store."""
    distrust(source)
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
    looked_at: dict[str, bytes | None] = {}
    refused: LazyNWBError | None = None
    for key in DOCUMENTS:
        try:
            document = None if known else objects.get(key)
        except LazyNWBError as error:
            # Without permission to list a bucket, what it does not have is refused like anything else.
            refused = refused or error
            continue
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
                while len(_documents) > _MAX_KEPT:
                    _documents.popitem(last=False)
        return found
    if refused is not None:
        raise refused
    raise SourceNotFoundError(f"no such store: {objects.source.name} (it has none of {', '.join(DOCUMENTS)})")


def opened(source: Source, version: str) -> Objects:
    """Open a store, or a file that stands for one, with the documents that `identity` has just fetched."""
    with _lock:
        documents = _documents.pop((source, version), None)
    objects = open_objects(source)
    return _Described(objects, documents) if documents else objects


class _Described:
    """A store of which some documents were fetched already; see `object_store.Objects`."""

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
