"""Columns of a table: assignment of VectorIndex datasets to ragged columns (hdmf-common), and EnumData.

EnumData are integer codes of the elements of another dataset (hdmf-experimental).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from lazynwb.catalog.model import Array, DType
from lazynwb.formats.protocols import BrokenLinkError

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterator, KeysView

    from lazynwb.catalog.model import Array
    from lazynwb.formats.protocols import Node

#: Ranks of evidence that a dataset is the index of a column: its `target` and its name match; its `target` is
#: an alias of the column; only its name matches.
_TARGET_AND_NAME, _TARGET_ALIAS, _NAME_ONLY = range(3)


class Member(NamedTuple):
    """A dataset of a table's group, with the properties that distinguish columns from indices."""

    array: Array
    neurodata_type: str
    target: Hashable | None
    elements: Hashable | None = None
    problem: str = ""

    @property
    def is_integers(self) -> bool:
        """Whether the dataset is a list of integers, as all indices are."""
        return len(self.array.shape) == 1 and self.array.dtype.is_integer

    def unreadable(self, note: str) -> Member:
        """Return the member marked as unreadable, with the reason."""
        dtype = DType("unsupported", self.array.dtype.itemsize, note=note)
        return self._replace(array=replace(self.array, dtype=dtype))


def mark_damaged_indices(members: dict[str, Member], lost: Collection[str], problems: list[str]) -> None:
    """Remove indices that do not contain integers, and mark columns without a usable index as unreadable.

    Without its index, the rows of a ragged column are unknown.
    """
    damaged = {name for name, m in members.items() if m.neurodata_type == "VectorIndex" and not m.is_integers}
    for name in sorted({*lost, *damaged}):
        stems = [stem for stem in indexed_names(name) if stem in members]
        if not stems:
            continue
        if members.pop(name, None) is not None:
            problems.append(f"index {name!r} was left out: it does not contain integers")
        column = stems[-1]  # the column, not an intermediate index
        members[column] = members[column].unreadable(f"ragged rows whose index {name!r} cannot be read")


def indexed_names(name: str) -> Iterator[str]:
    """Yield the names of datasets that a dataset may be the index of, by its name."""
    while name.endswith("_index"):
        name = name.removesuffix("_index")
        yield name


def find_indices(
    group: Node, members: dict[str, Member], listed: list[str], lost: KeysView[str], problems: list[str]
) -> tuple[dict[str, str], set[str]]:
    """Find the indices among datasets, and their columns, by the best evidence in the file.

    The first evidence is the attribute `target`, which the specification defines; the second is the type; the
    last is the name. A listed column, or a dataset of another type, is a column whatever its name.

    Parameters
    ----------
    group : Node
    members : dict of str to Member
    listed : list of str
        The `colnames` of the table.
    lost : set of str
        Members that cannot be opened.
    problems : list of str
        Receives indices without a column.

    Returns
    -------
    indexed : dict of str to str
        Index of each ragged dataset.
    indices : set of str
        All datasets that are not columns.
    """
    names: dict[Hashable | None, list[str]] = {}
    if any(member.target is not None for member in members.values()):
        for name in (*members, *lost):
            with suppress(BrokenLinkError):  # members that cannot be opened may have no address
                names.setdefault(group.address_of(name.encode()), []).append(name)
    claims: list[tuple[int, str, str]] = []
    for index, member in members.items():
        stem = index.removesuffix("_index")
        targets = names.get(member.target, []) if member.target is not None else []
        targets = [name for name in targets if name != index]
        claims += [
            (_TARGET_AND_NAME if name == stem or stem not in targets else _TARGET_ALIAS, name, index)
            for name in targets
        ]
        typed = member.neurodata_type == "VectorIndex"
        untyped = not member.neurodata_type and index not in listed
        if not targets and stem != index and stem in members and member.is_integers and (typed or untyped):
            claims.append((_NAME_ONLY, stem, index))
    indexed: dict[str, str] = {}
    for _, name, index in sorted(claims, key=lambda claim: claim[0]):
        indexed.setdefault(name, index)
    indexed = {
        name: index for name, index in indexed.items() if name in members and not _cyclic(name, indexed)
    }
    claimed = {index for sure, name, index in claims if sure < _NAME_ONLY and name in indexed}
    indices = {*indexed.values(), *claimed}
    for name, member in members.items():
        if member.neurodata_type == "VectorIndex" and name not in listed and name not in indices:
            if lost.isdisjoint(indexed_names(name)):  # else its column is among the problems
                problems.append(f"index {name!r} was left out: no column belongs to it")
            indices.add(name)
    return indexed, indices


def _cyclic(name: str, indexed: dict[str, str]) -> bool:
    seen = {name}
    while name in indexed:
        name = indexed[name]
        if name in seen:
            return True
        seen.add(name)
    return False


#: Maximum number of members of an enum, which are part of the catalog.
_MAX_ELEMENTS = 10_000


def describe_enum(codes: Node, array: Array) -> tuple[Array, Hashable | None, str]:
    """Describe the codes of an EnumData as an enum.

    Code i is the i-th element of the VectorData in the attribute `elements`. The elements are part of the
    type of the column, so they are read with the structure. If they are not text, the values are the codes.

    Parameters
    ----------
    codes : Node
    array : Array
        Description of the codes as integers.

    Returns
    -------
    Array
        Description as an enum, or the description of the codes.
    Hashable or None
        Address of the elements.
    str
        Reason for codes as values; empty for an enum.
    """
    elements = codes.referred("elements")
    if elements is None or not elements.is_dataset:
        return array, None, "has codes as values: its attribute 'elements' does not refer to a dataset"
    texts = elements.texts(_MAX_ELEMENTS)
    if texts is None:
        reason = f"has codes as values: its elements are not a list of at most {_MAX_ELEMENTS} texts"
        return array, elements.address, reason
    if not texts:
        return array, elements.address, ""
    members = tuple((text, code) for code, text in enumerate(texts))
    return replace(array, dtype=replace(array.dtype, kind="enum", members=members)), elements.address, ""
