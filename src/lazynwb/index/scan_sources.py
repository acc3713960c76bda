"""Sources of a scan: files, or those of an index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazynwb.storage.resolve import expand

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from lazynwb.index.reader import Index
    from lazynwb.storage.resolve import Sources
    from lazynwb.storage.source import Source


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
