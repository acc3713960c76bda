"""Validation of object keys, which must not lead out of their store, and of ranges of objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazynwb.errors import CorruptDataError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lazynwb.storage.source import Source

_INVALID_PARTS = frozenset({"", ".", ".."})


def is_valid_key(key: str) -> bool:
    """Return whether a key consists of names between slashes that no file system or URL interprets."""
    return "\0" not in key and _INVALID_PARTS.isdisjoint(key.split("/"))


def validate_key(source: Source, key: str) -> str:
    """Return a key if it is valid.

    Raises
    ------
    CorruptDataError
        If it is invalid. Invalid keys come from the store's metadata; treating them as absent chunks would
        produce fill values, which are wrong values.
    """
    if is_valid_key(key):
        return key
    raise CorruptDataError(f"{source.name}: {key!r} is not a valid key of an object")


def normalize_prefix(source: Source, prefix: str) -> str:
    """Return a validated prefix without leading and trailing slashes; empty for the root."""
    name = prefix.strip("/")
    return validate_key(source, name) if name else ""


def resolve_start(source: Source, key: str, size: int, start: int, length: int) -> int:
    """Return the offset of a range of an object; a negative start counts from the end of the object.

    Raises
    ------
    CorruptDataError
        If the range extends past the end of the object.
    """
    begin = start if start >= 0 else size + start
    if begin < 0 or length < 0 or begin + length > size:
        raise too_short_error(source, key, start, length)
    return begin


def too_short_error(source: Source, key: str, start: int, length: int) -> CorruptDataError:
    """Return the error for an object that is shorter than a requested range."""
    where = f"at offset {start}" if start >= 0 else f"at {-start} bytes before its end"
    return CorruptDataError(
        f"{source.name}: {key} does not have {length:,} bytes {where}: it is truncated or damaged"
    )


def build_tree(keys: Iterable[str]) -> dict[str, list[str]]:
    """Return the sorted names of the direct members of each prefix; the root is the empty prefix."""
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
