"""The datasets of a group that are no columns: from memory, from the cache on disk, or parsed now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazynwb.config import config
from lazynwb.formats import open_reader
from lazynwb.lookup.load import Entry, TableFile
from lazynwb.lookup.memory import recall, remember
from lazynwb.sources.files import expect

if TYPE_CHECKING:
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
    key = f"members\0{source.key}\0{path}\0{config.external_links}"
    entry, now = recall(key, source, Entry)
    if entry is None:
        with open_reader(source, now) as reader:
            entry = Entry(key, now, reader.describe_members(path), {})
            expect(source, now)
        remember(entry, source)
    return TableFile(source, entry) if entry.table is not None else None
