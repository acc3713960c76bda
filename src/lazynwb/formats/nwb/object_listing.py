"""Listings of the objects of a file with their roles in NWB, and their attributes as plain values."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec.structs import replace

from lazynwb.catalog.model import Attributes, Entry, Listing
from lazynwb.formats.nwb.names import ARRAY_ATTRIBUTES, SCALAR_ATTRIBUTES
from lazynwb.formats.nwb.tables import METADATA_PATHS, table_role
from lazynwb.formats.protocols import (
    BrokenLinkError,
    DamagedObjectError,
    UnreachableLinkError,
    log_damaged,
    member_name,
)

if TYPE_CHECKING:
    from collections.abc import Hashable

    from lazynwb.formats.protocols import Node, OpenFile, ReferenceFile

#: Maximum number of objects of a file, far more than in real sessions: links may multiply the paths.
_MAX_OBJECTS = 1_000_000
#: Maximum number of elements and bytes of an attribute that is read; attributes in NWB are short.
MAX_ELEMENTS = 100_000
MAX_BYTES = 16 * 1024 * 1024


class Reference(NamedTuple):
    """Placeholder of an object reference until the path of its target is known."""

    file: ReferenceFile
    address: Hashable


def unreadable_placeholder(why: str) -> str:
    """Return the placeholder of an unreadable value, which is not left out silently."""
    return f"<unreadable: {why}>"


def describe_attributes(  # noqa: C901 - one walk
    file: OpenFile, path: str, *, deep: bool = False
) -> Attributes | None:
    """Return the attributes of an object and of its direct members.

    Parameters
    ----------
    file : OpenFile
    path : str
        Path without the leading slash; an empty string for the root group.
    deep : bool
        Whether to include all objects below. A group is descended into once, at the first path of its hard
        links; other links have the attributes of their targets.

    Returns
    -------
    Attributes or None
        None if the object does not exist.
    """
    try:
        found = file.find(path)
    except DamagedObjectError:
        raise
    except BrokenLinkError:
        return None
    known = {(id(found.file), found.address): f"/{path}"}
    by_path: dict[str, dict[str, Any]] = {"": _in_schema_shape(found.attributes())}
    groups = [(found, "")] if found.is_group else []
    seen = {found.address}
    nested = True
    while groups:
        group, prefix = groups.pop()
        below = []
        for key in group.member_names():
            if len(by_path) >= _MAX_OBJECTS:
                break
            relative = prefix + key.decode("utf-8", "replace")
            with file.collect_misses():
                address = group.address_of(key)
                if address is not None:
                    known.setdefault((id(group.file), address), f"/{path}/{relative}".replace("//", "/"))
                try:
                    full = f"{path}/{prefix}{member_name(key)}\0attributes"
                    child, attributes = file.memoize(full, partial(_member, group, key))
                except (DamagedObjectError, UnreachableLinkError) as error:
                    log_damaged(file, f"/{path}/{relative}".replace("//", "/"), error)
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
    file.raise_if_missing()
    return Attributes(_resolve_references(by_path, known), file.depends, nested)


def _member(group: Node, key: bytes) -> tuple[Node, dict[str, Any]]:
    child = group.child(key)
    return child, _in_schema_shape(child.attributes())


def _in_schema_shape(attributes: dict[str, Any]) -> dict[str, Any]:
    """Convert attributes to the shapes of the NWB schema: scalars and lists.

    MATLAB and MIES store scalars as arrays of one element. Arrays of several elements are never truncated.
    """
    return {name: _to_schema_shape(name, value) for name, value in attributes.items()}


def _to_schema_shape(name: str, value: Any) -> Any:  # noqa: ANN401 - an attribute
    if name in SCALAR_ATTRIBUTES:
        while isinstance(value, list) and len(value) == 1:
            value = value[0]
        return None if value == [] else value
    if name in ARRAY_ATTRIBUTES and isinstance(value, (str, int, float)):
        return [value]
    return value


def _resolve_references(
    by_path: dict[str, dict[str, Any]], known: dict[tuple[int, Hashable], str]
) -> dict[str, dict[str, Any]]:
    """Replace references by the paths of their targets, which are resolved together."""
    by_file: dict[int, tuple[ReferenceFile, set[Hashable]]] = {}
    for attributes in by_path.values():
        for value in attributes.values():
            for reference in _references(value):
                if (id(reference.file), reference.address) not in known:
                    by_file.setdefault(id(reference.file), (reference.file, set()))[1].add(reference.address)
    for number, (file, addresses) in by_file.items():
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


class _Walk(NamedTuple):
    """A walk through a file.

    Attributes
    ----------
    file : OpenFile
    entries : list of Entry
        Entries so far.
    seen : dict of address to path
        Groups that have been entered.
    links : dict of int to address
        Positions of entries that are links to groups of this file, with the addresses of the groups.
    """

    file: OpenFile
    entries: list[Entry]
    seen: dict[Hashable, str]
    links: dict[int, Hashable]


def list_objects(file: OpenFile) -> Listing:
    """Walk the whole file, in the order of its links, and describe each object once per path.

    A group is descended into once, at the first path of its hard links. Other links to a table or a series
    are listed, because users may request tables by the path of a link.
    """
    root = file.root
    walk = _Walk(file, [], {root.address: "/"}, {})
    _walk(walk, root, "", "group")
    for number, address in walk.links.items():
        walk.entries[number] = replace(walk.entries[number], target=walk.seen.get(address, ""))
    members = len(list(root.member_names()))
    return Listing(tuple(walk.entries), file.depends, members, file.guesses_members)


def _walk(walk: _Walk, group: Node, path: str, role: str) -> None:
    for key in group.member_names():
        if len(walk.entries) >= _MAX_OBJECTS:
            return
        full = f"{path}/{key.decode('utf-8', 'replace')}"
        with walk.file.collect_misses():
            try:
                member_name(key)
                _visit(walk, group, key, full, role)
            except DamagedObjectError as error:
                log_damaged(walk.file, full, error)
                walk.entries.append(Entry(full, "broken", "broken", note=str(error)))


def _visit(walk: _Walk, group: Node, key: bytes, full: str, role: str) -> None:
    entries = walk.entries
    try:
        child = group.child(key)
    except DamagedObjectError:
        raise
    except BrokenLinkError as error:
        entries.append(Entry(full, "broken", "broken", note=str(error)))
        return
    if child.is_dataset:
        entries.append(_dataset_entry(child, full, full.rpartition("/")[2], role))
    elif child.is_group:
        address = child.address
        is_stored_here = group.address_of(key) is not None
        if is_stored_here and address in walk.seen:
            return
        child_role = _group_role(child, full.lstrip("/"), role)
        members = len(list(child.member_names()))
        kind = child.text("neurodata_type")
        entries.append(Entry(full, "group", child_role, members=members, neurodata_type=kind))
        if is_stored_here:
            walk.seen[address] = full
            _walk(walk, child, full, child_role)
            return
        if child.file is group.file:
            walk.links[len(entries) - 1] = address
        if child_role == "series":
            _list_series(child, full, entries)


def _list_series(group: Node, path: str, entries: list[Entry]) -> None:
    """List the data of a series that is the target of a soft or external link."""
    for name in ("data", "timestamps"):
        try:
            found = group.child(name.encode())
        except BrokenLinkError:
            continue
        if found.is_dataset:
            entries.append(_dataset_entry(found, f"{path}/{name}", name, "series"))


def _group_role(group: Node, path: str, parent: str) -> str:
    if parent == "specification" or path == "specifications":
        return "specification"
    if path in METADATA_PATHS:
        return "metadata"
    return table_role(group) or "group"


def _dataset_entry(found: Node, path: str, name: str, parent: str) -> Entry:
    if parent == "series":
        role = "series_data" if name in {"data", "timestamps"} else "child"
    elif parent == "group":
        role = "metadata" if path.count("/") == 1 or path.startswith("/general/") else "dataset"
    else:
        role = {"table": "column"}.get(parent, parent)
    shape, dtype = found.shown()
    # Attributes take longest to read, and the neurodata type of a column is not needed here.
    kind = found.text("neurodata_type") if parent == "group" else ""
    return Entry(path, "dataset", role, shape=shape, dtype=dtype, neurodata_type=kind)
