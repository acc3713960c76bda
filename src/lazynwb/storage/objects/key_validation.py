"""Keys of objects: names between slashes, which never lead out of their store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazynwb.errors import CorruptDataError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lazynwb.storage.source import Source

_NO_NAMES = frozenset({"", ".", ".."})


def is_plain(key: str) -> bool:
    """Return whether a key is names between slashes, and none that a file system or a URL interprets."""
    return "\0" not in key and _NO_NAMES.isdisjoint(key.split("/"))


def checked(source: Source, key: str) -> str:
    """Return a key.

    Raises
    ------
    CorruptDataError
        If it is none: it comes from the store's own metadata, and taken for a chunk that was never written
        it would be a wrong value.
    """
    if is_plain(key):
        return key
    raise CorruptDataError(f"{source.name}: {key!r} is no name of an object in a store")


def folder_of(source: Source, prefix: str) -> str:
    """Return a prefix without slashes around it; empty for the root. See `checked` for what is raised."""
    name = prefix.strip("/")
    return checked(source, name) if name else ""


def bounds(source: Source, key: str, size: int, start: int, wanted: int) -> int:
    """Return where a part of an object begins; a negative start counts from the object's end.

    Raises
    ------
    CorruptDataError
        If the object is too short for it.
    """
    begin = start if start >= 0 else size + start
    if begin < 0 or wanted < 0 or begin + wanted > size:
        raise too_short(source, key, start, wanted)
    return begin


def too_short(source: Source, key: str, start: int, wanted: int) -> CorruptDataError:
    """Return the error of an object that has not all of what is asked for."""
    where = f"from {start} on" if start >= 0 else f"from {-start} before its end on"
    return CorruptDataError(
        f"{source.name}: {key} has no {wanted:,} bytes {where}: it is truncated or damaged"
    )


def tree(keys: Iterable[str]) -> dict[str, list[str]]:
    """Return the names right below each prefix, in sorted order; the root is the empty prefix."""
    found: dict[str, set[str]] = {"": set()}
    for key in keys:
        rest = key
        while rest:
            prefix, _, name = rest.rpartition("/")
            names = found.setdefault(prefix, set())
            if name in names:
                break
            names.add(name)
            rest = prefix
    return {prefix: sorted(names) for prefix, names in found.items()}
