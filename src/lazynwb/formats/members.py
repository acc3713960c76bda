"""A group's datasets, whatever they are: the small ones beside a series' data."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from lazynwb.catalog.model import Column, Table
from lazynwb.formats.nodes import BrokenLinkError, DamagedObjectError

if TYPE_CHECKING:
    from lazynwb.catalog.model import Array
    from lazynwb.formats.nodes import Node, OpenFile


def describe_members(file: OpenFile, path: str) -> Table | None:
    """Describe every dataset of a group, those that links lead to as well.

    Returns
    -------
    Table or None
        One row, in which each dataset is a column as a whole; what cannot be opened is in its problems.
        None if there is no such group.
    """
    try:
        group = file.find(path)
    except DamagedObjectError:
        raise
    except BrokenLinkError:
        return None
    if not group.is_group:
        return None
    problems: list[str] = []
    columns = []
    for key in group.member_names():
        name = key.decode("utf-8", "replace")
        full = f"{path}/{name}"
        try:
            with file.going_on():
                array = file.once(f"{full}\0member", partial(_describe, file, group, key, full))
                if array is not None:
                    columns.append(Column(name, array, length=1, whole=bool(array.shape)))
        except BrokenLinkError as error:
            problems.append(f"{name!r} was left out: {error}")
    columns.sort(key=lambda column: column.name)
    return Table(path, "metadata", 1, tuple(columns), tuple(problems), file.depends)


def _describe(file: OpenFile, group: Node, key: bytes, path: str) -> Array | None:
    found = group.child(key)
    return found.describe(path, file) if found.is_dataset else None
