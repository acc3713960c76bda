"""The attributes of objects, as plain values: what HDF5 and Zarr have in common of them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from lazynwb.catalog.listing import Attributes
from lazynwb.formats.nodes import BrokenLinkError, DamagedObjectError, tell_damaged

if TYPE_CHECKING:
    from collections.abc import Hashable

    from lazynwb.formats.nodes import Node, OpenFile

#: As for listings: far more objects than a session has.
_MOST_OBJECTS = 1_000_000
#: Elements, and bytes, of one attribute: NWB's are short, and what is larger is not read.
MOST_ELEMENTS = 100_000
MOST_BYTES = 16 * 1024 * 1024


class Reference(NamedTuple):
    """Stands for an object reference until the path of its target is known."""

    file: OpenFile
    address: Hashable


def unreadable(why: str) -> str:
    """Return the text that stands for a value that cannot be read: to leave it out would hide it."""
    return f"<unreadable: {why}>"


def describe_attributes(  # noqa: C901 - one walk
    file: OpenFile, path: str, *, deep: bool = False
) -> Attributes | None:
    """Return the attributes of an object and of its direct members.

    Parameters
    ----------
    file : OpenFile
    path : str
        Without the leading slash; an empty text is the root group.
    deep : bool
        Also those of everything below. A group is descended into once, at the first path that hard links
        give it; other links have the attributes of what they lead to.

    Returns
    -------
    Attributes or None
        None if nothing is there.
    """
    try:
        found = file.find(path)
    except DamagedObjectError:
        raise
    except BrokenLinkError:
        return None
    known = {(id(found.file), found.address): f"/{path}"}
    by_path: dict[str, dict[str, Any]] = {"": found.attributes()}
    groups = [(found, "")] if found.is_group else []
    seen = {found.address}
    nested = True
    while groups:
        group, prefix = groups.pop()
        below = []
        for key in group.member_names():
            if len(by_path) >= _MOST_OBJECTS:
                break
            relative = prefix + key.decode("utf-8", "replace")
            with file.going_on():
                address = group.address_of(key)
                if address is not None:
                    known.setdefault((id(group.file), address), f"/{path}/{relative}".replace("//", "/"))
                full = f"{path}/{relative}\0attributes"
                try:
                    child, attributes = file.once(full, partial(_member, group, key))
                except DamagedObjectError as error:
                    tell_damaged(file, f"/{path}/{relative}".replace("//", "/"), error)
                    continue
                except BrokenLinkError:
                    continue
                by_path[relative] = attributes
                if deep and child.is_group and address is not None:
                    nested = nested and address not in seen
                    if address not in seen:
                        seen.add(address)
                        below.append((child, f"{relative}/"))
        groups += reversed(below)
    file.stop_if_missed()
    return Attributes(_resolved(by_path, known), file.depends, nested)


def _member(group: Node, key: bytes) -> tuple[Node, dict[str, Any]]:
    child = group.child(key)
    return child, child.attributes()


def _resolved(
    by_path: dict[str, dict[str, Any]], known: dict[tuple[int, Hashable], str]
) -> dict[str, dict[str, Any]]:
    """Put the paths of their targets in the place of references, which are looked for all at once."""
    wanted: dict[int, tuple[OpenFile, set[Hashable]]] = {}
    for attributes in by_path.values():
        for value in attributes.values():
            for reference in _references(value):
                if (id(reference.file), reference.address) not in known:
                    wanted.setdefault(id(reference.file), (reference.file, set()))[1].add(reference.address)
    for number, (file, addresses) in wanted.items():
        known.update({(number, address): path for address, path in file.paths_of(addresses).items()})
    return {
        path: {name: _with_paths(value, known) for name, value in attributes.items()}
        for path, attributes in by_path.items()
    }


def _references(value: Any) -> list[Reference]:  # noqa: ANN401 - an attribute
    if isinstance(value, Reference):
        return [value]
    items = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
    return [
        reference
        for item in items
        if isinstance(item, (Reference, list, dict))
        for reference in _references(item)
    ]


def _with_paths(value: Any, known: dict[tuple[int, Hashable], str]) -> Any:  # noqa: ANN401
    if isinstance(value, Reference):
        return known.get((id(value.file), value.address))
    if isinstance(value, list):
        return [_with_paths(item, known) for item in value]
    if isinstance(value, dict):
        return {name: _with_paths(item, known) for name, item in value.items()}
    return value
