"""Sources of a scan: files, or those of an index."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from lazynwb.config import config
from lazynwb.errors import LazyNWBError
from lazynwb.storage.resolve import expand
from lazynwb.storage.source import Source

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from lazynwb.index.reader import Index
    from lazynwb.storage.resolve import Sources


class IndexSources(tuple[Source, ...]):  # noqa: SLOT001 - subclasses of tuple cannot have slots
    """All sources of an index, which are pickled as the location of the index.

    Parameters
    ----------
    sources : iterable of Source
        All sources of the index.
    index : Index
    storage_options : mapping or None
        Storage options of the sources.
    """

    def __new__(  # noqa: PYI034
        cls, sources: Iterable[Source], index: Index, storage_options: Mapping[str, Any] | None
    ) -> IndexSources:
        """Create the tuple."""
        found = super().__new__(cls, sources)
        found._location = index, {**config.storage_options, **(storage_options or {})}
        return found

    _location: tuple[Index, dict[str, Any]]

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (*self._location, _digest(self))


def _restore(index: Index, storage_options: Mapping[str, Any], digest: bytes) -> IndexSources:
    found = IndexSources(index.sources(None, storage_options), index, storage_options)
    if _digest(found) != digest:
        raise LazyNWBError(
            f"index {index.name}: sessions were added or removed during the query: run the query again"
        )
    return found


def _digest(sources: Iterable[Source]) -> bytes:
    return blake2b("\n".join(source.public for source in sources).encode(), digest_size=16).digest()


def sources_of(
    source: Sources | None,
    index: Index | str | os.PathLike[str] | None,
    storage_options: Mapping[str, Any] | None,
) -> tuple[tuple[Source, ...], Index | None]:
    """Return the sources of a scan, and the open index, if any.

    Raises
    ------
    TypeError
        If neither a source nor an index is passed.
    """
    if index is not None:
        from lazynwb.index.reader import open_index

        opened = open_index(index, storage_options)
        return tuple(opened.sources(source, storage_options)), opened
    if source is None:
        raise TypeError("pass paths or URLs of NWB files, or index=... to scan all files of an index")
    return tuple(expand(source, storage_options)), None
