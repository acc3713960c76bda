"""Everything that a file contains, with the part that each object plays in NWB."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from lazynwb.catalog.listing import Entry, Listing
from lazynwb.formats.nodes import BrokenLinkError, DamagedObjectError, tell_damaged
from lazynwb.formats.tables import METADATA_PATHS, table_role

if TYPE_CHECKING:
    from collections.abc import Hashable

    from lazynwb.formats.nodes import Node, OpenFile

#: Far more objects than a session has; a bound for files whose links multiply.
_MOST_ENTRIES = 1_000_000


class _Walk(NamedTuple):
    """A walk through a file.

    Attributes
    ----------
    file : OpenFile
    entries : list of Entry
        What was met so far.
    seen : dict of address to path
        Groups that were descended into, or will be.
    links : dict of int to address
        Those of the entries that are groups of this file to which a link leads, and where they are.
    """

    file: OpenFile
    entries: list[Entry]
    seen: dict[Hashable, str]
    links: dict[int, Hashable]


def list_objects(file: OpenFile) -> Listing:
    """Walk the whole file, in the order of its links, and describe each object once per path.

    A group is descended into once, at the first path that hard links give it. Other links to a table or a
    series are listed, because the path of a link is a path that users may ask for.
    """
    root = file.root
    walk = _Walk(file, [], {root.address: "/"}, {})
    _walk(walk, root, "", "group")
    for number, address in walk.links.items():
        walk.entries[number] = replace(walk.entries[number], target=walk.seen.get(address, ""))
    return Listing(tuple(walk.entries), file.depends, len(list(root.member_names())))


def _walk(walk: _Walk, group: Node, path: str, role: str) -> None:
    for key in group.member_names():
        if len(walk.entries) >= _MOST_ENTRIES:
            return
        full = f"{path}/{key.decode('utf-8', 'replace')}"
        with walk.file.going_on():
            try:
                _visit(walk, group, key, full, role)
            except DamagedObjectError as error:
                tell_damaged(walk.file, full, error)
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
    """List the data of a series that a soft or external link leads to."""
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
    # Attributes are what takes longest to read, and a column's type is of no account here.
    kind = found.text("neurodata_type") if parent == "group" else ""
    return Entry(path, "dataset", role, shape=shape, dtype=dtype, neurodata_type=kind)
