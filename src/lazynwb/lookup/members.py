"""The datasets of a group that are no columns: from memory, from the cache on disk, or parsed now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazynwb.lookup.load import load_described

if TYPE_CHECKING:
    from lazynwb.lookup.load import TableFile
    from lazynwb.sources.source import Source


def load_members(source: Source, path: str) -> TableFile | None:
    """Return a description of every dataset of a group, each a column; None if there is no such group.

    Parameters
    ----------
    source : Source
    path : str
        Without the leading slash.

    Raises
    ------
    SourceNotFoundError, NotNWBError
        If the file cannot be read.
    """
    return load_described(
        "members", source, path, lambda reader, _, group: (reader.describe_members(group), {})
    )
