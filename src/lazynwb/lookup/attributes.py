"""Attributes of objects: from memory, from the cache on disk, or parsed now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazynwb.catalog.listing import Attributes  # noqa: TC001 - msgspec reads the annotations
from lazynwb.config import config
from lazynwb.formats import open_reader
from lazynwb.lookup.memory import Kept, doubting, drop, recall, remember
from lazynwb.sources.files import expect

if TYPE_CHECKING:
    from lazynwb.sources.source import Source

_MEMBERS, _ALL = "attributes", "all attributes"


class AttributesEntry(Kept):
    """What the cache keeps of an object's attributes and its members' (None: there is no such object)."""

    attributes: Attributes | None

    @property
    def depends(self) -> tuple[tuple[str, str], ...]:
        """Other files that links led to."""
        return self.attributes.depends if self.attributes is not None else ()


def load_attributes(source: Source, path: str) -> dict[str, dict[str, Any]] | None:
    """Return the attributes of an object and of its direct members.

    Parameters
    ----------
    source : Source
    path : str
        Without the leading slash; an empty text is the root group.

    Returns
    -------
    dict of str to dict, or None
        By the members' names; the object's own under an empty text. Values are text, bool, int, float,
        None, lists of these, or dictionaries for compounds; object references are paths, and what cannot
        be read is a text that begins with "<unreadable". None if nothing is at the path.

    Raises
    ------
    SourceNotFoundError, NotNWBError
        If the file cannot be read.
    """
    return _from_all(source, path, deep=False) or _load(source, path, _MEMBERS)


def load_all_attributes(source: Source, path: str) -> dict[str, dict[str, Any]] | None:
    """Return the attributes of an object and of everything below it, by the paths below it.

    They are as `load_attributes` gives them. A group that several hard links lead to is descended into
    once; other links have the attributes of what they lead to.
    """
    return _from_all(source, path, deep=True) or _load(source, path, _ALL)


def forget_attributes(source: Source | None = None) -> None:
    """Forget attributes in this process, of one source or of all."""
    kinds = (_MEMBERS, _ALL)
    if source is None:
        drop(lambda key: key.startswith(tuple(f"{kind}\0" for kind in kinds)))
    else:
        drop(lambda key: key.startswith(tuple(f"{kind}\0{source.key}\0" for kind in kinds)))


def _key(source: Source, path: str, kind: str) -> str:
    return f"{kind}\0{source.key}\0{path}\0{config.external_links}"


def _load(source: Source, path: str, kind: str) -> dict[str, dict[str, Any]] | None:
    key = _key(source, path, kind)
    entry, now = recall(key, source, AttributesEntry)
    if entry is None:
        with doubting(source), open_reader(source, now) as reader:
            found = reader.all_attributes(path) if kind == _ALL else reader.attributes(path)
            entry = AttributesEntry(key, now, found)
            expect(source, now)
        remember(entry, source)
    return entry.attributes.by_path if entry.attributes is not None else None


def _from_all(source: Source, path: str, *, deep: bool) -> dict[str, dict[str, Any]] | None:
    """Return what is below a path, if all of the file's attributes are known and say so."""
    entry = recall(_key(source, "", _ALL), source, AttributesEntry)[0]
    found = entry.attributes if entry is not None else None
    if found is None or not found.nested or path not in found.by_path:
        return None
    start = f"{path}/" if path else ""
    below = {
        name[len(start) :]: attributes
        for name, attributes in found.by_path.items()
        if name and name.startswith(start) and (deep or "/" not in name[len(start) :])
    }
    # Nothing below: a dataset, or a group that only a link leads to, whose members are not listed.
    return {"": found.by_path[path], **below} if below else None


def copied(value: Any) -> Any:  # noqa: ANN401 - an attribute, or a dictionary of them
    """Return plain values that the caller may change: what is kept in memory is not handed out."""
    if isinstance(value, dict):
        return {name: copied(item) for name, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value
