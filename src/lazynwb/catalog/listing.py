"""What a file contains, object by object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection

#: Parts that groups play which can be read as tables.
TABLE_ROLES = frozenset({"table", "series", "metadata"})


class Entry(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """One object of a file, at one path.

    Attributes
    ----------
    path : str
        With the leading slash.
    kind : str
        "group", "dataset", or "broken" for a link that leads nowhere.
    role : str
        The part that it plays: "table", "series", "metadata", "group" for groups; "column",
        "series_data", "child", "metadata", "specification", "dataset" for datasets.
    members : int
        Of a group.
    shape : tuple of int or None
        Of a dataset; None where it has no dataspace.
    dtype : str
        NumPy's type string ("|O" for text and references).
    note : str
        Why a link is broken.
    neurodata_type : str
        Of a group, or of a dataset that is no part of a table or a series.
    target : str
        Of a group that a soft link leads to: its own path, under which its members are listed.
    """

    path: str
    kind: Literal["group", "dataset", "broken"]
    role: str
    members: int = 0
    shape: tuple[int, ...] | None = None
    dtype: str = ""
    note: str = ""
    neurodata_type: str = ""
    target: str = ""


class Listing(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """Every object of one file.

    Attributes
    ----------
    entries : tuple of Entry
    depends : tuple of (path, identity)
        Other files that links led to.
    members : int
        Of the root group.
    """

    entries: tuple[Entry, ...]
    depends: tuple[tuple[str, str], ...] = ()
    members: int = 0

    def tables(self, *, series: bool = True) -> list[str]:
        """Return the paths of tables, series and metadata, without the leading slash."""
        return self.groups(TABLE_ROLES if series else TABLE_ROLES - {"series"})

    def groups(self, roles: Collection[str]) -> list[str]:
        """Return the paths of the groups that play one of these parts, without the leading slash."""
        return [e.path.lstrip("/") for e in self.entries if e.kind == "group" and e.role in roles]


class Attributes(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """The attributes of an object and of its members, as plain values.

    Attributes
    ----------
    by_path : dict of str to dict
        By the path below the object; an empty text is the object itself.
    depends : tuple of (path, identity)
        Other files that links led to.
    nested : bool
        What is below a path here is all that is below it in the file: no group has two paths.
    """

    by_path: dict[str, dict[str, Any]]
    depends: tuple[tuple[str, str], ...] = ()
    nested: bool = True
