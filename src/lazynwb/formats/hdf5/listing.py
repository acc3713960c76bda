"""Everything that a file contains, with the part that each object plays in NWB."""

from __future__ import annotations

from typing import TYPE_CHECKING

from h5py import h5d, h5l, h5o

from lazynwb.catalog.listing import Entry, Listing
from lazynwb.formats.hdf5.dtypes import describe_type
from lazynwb.formats.hdf5.file import BrokenLinkError, Located, open_child
from lazynwb.formats.hdf5.tables import METADATA_PATHS, table_role

if TYPE_CHECKING:
    from lazynwb.formats.hdf5.file import Hdf5File

#: Far more objects than a session has; a bound for files whose links multiply.
_MOST_ENTRIES = 1_000_000


def list_objects(file: Hdf5File) -> Listing:
    """Walk the whole file, in the order of its links, and describe each object once per path.

    A group is descended into once, at the first path that hard links give it. Other links to a table or a
    series are listed, because the path of a link is a path that users may ask for.
    """
    entries: list[Entry] = []
    root = file.root
    _walk(root, "", "group", entries, {int(h5o.get_info(root.id).addr)})
    return Listing(tuple(entries), file.depends)


def _walk(group: Located, path: str, role: str, entries: list[Entry], seen: set[int]) -> None:
    for key in group.id:
        if len(entries) >= _MOST_ENTRIES:
            return
        with group.file.going_on():
            _visit(group, key, f"{path}/{key.decode('utf-8', 'replace')}", role, entries, seen)


def _visit(  # noqa: PLR0913, PLR0917 - what a step of the walk goes by
    group: Located, key: bytes, full: str, role: str, entries: list[Entry], seen: set[int]
) -> None:
    try:
        child = open_child(group, key)
    except BrokenLinkError as error:
        entries.append(Entry(full, "broken", "broken", note=str(error)))
        return
    if child.is_dataset:
        entries.append(_dataset_entry(child, full, full.rpartition("/")[2], role))
    elif child.is_group:
        address = int(h5o.get_info(child.id).addr)
        is_stored_here = group.id.links.get_info(key).type == h5l.TYPE_HARD
        if is_stored_here and address in seen:
            return
        child_role = _group_role(child, full.lstrip("/"), role)
        entries.append(Entry(full, "group", child_role, members=len(child.id)))
        if is_stored_here:
            seen.add(address)
            _walk(child, full, child_role, entries, seen)
        elif child_role == "series":
            _list_series(child, full, entries)


def _list_series(group: Located, path: str, entries: list[Entry]) -> None:
    """List the data of a series that a soft or external link leads to."""
    for name in ("data", "timestamps"):
        try:
            found = open_child(group, name.encode())
        except BrokenLinkError:
            continue
        if found.is_dataset:
            entries.append(_dataset_entry(found, f"{path}/{name}", name, "series"))


def _group_role(group: Located, path: str, parent: str) -> str:
    if parent == "specification" or path == "specifications":
        return "specification"
    if path in METADATA_PATHS:
        return "metadata"
    return table_role(group) or "group"


def _dataset_entry(found: Located, path: str, name: str, parent: str) -> Entry:
    dataset: h5d.DatasetID = found.id
    stored = describe_type(dataset.get_type()).dtype
    if parent == "series":
        role = "series_data" if name in {"data", "timestamps"} else "child"
    elif parent == "group":
        role = "metadata" if path.count("/") == 1 or path.startswith("/general/") else "dataset"
    else:
        role = {"table": "column"}.get(parent, parent)
    shape = dataset.shape
    dtype = stored.numpy if stored.kind in {"number", "bool", "enum"} else _shown_dtype(dataset)
    return Entry(path, "dataset", role, shape=tuple(shape) if shape is not None else None, dtype=dtype)


def _shown_dtype(dataset: h5d.DatasetID) -> str:
    try:
        return str(dataset.dtype.str)
    except TypeError:
        return "unknown"
