"""Which dataset of a table is the index of which: ragged columns (VectorIndex, hdmf-common specification).

EnumData: integer codes, and the texts that they stand for (hdmf-experimental).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from lazynwb.catalog.model import Array, DType
from lazynwb.formats.protocols import BrokenLinkError

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterator

    from lazynwb.catalog.model import Array
    from lazynwb.formats.protocols import Node

#: How sure it is that a dataset is the index of another: its `target` says so, and its name as well; its
#: `target` says so of another name of the same dataset; only its name says so.
_SURE, _ALIAS, _BY_NAME = range(3)


class Member(NamedTuple):
    """A dataset of a table's group, with what tells a column from an index."""

    array: Array
    neurodata_type: str
    target: Hashable | None
    elements: Hashable | None = None
    problem: str = ""

    @property
    def is_integers(self) -> bool:
        """Whether this is a list of integers, as every index is."""
        return len(self.array.shape) == 1 and self.array.dtype.numpy[1:2] in {"i", "u"}

    def unreadable(self, note: str) -> Member:
        """Return a member whose values cannot be read, with the reason."""
        dtype = DType("unsupported", self.array.dtype.itemsize, note=note)
        return self._replace(array=replace(self.array, dtype=dtype))


def forget_damaged(members: dict[str, Member], lost: Collection[str], problems: list[str]) -> None:
    """Take out indices that hold no integers; what they, or indices that cannot be opened, cut is unreadable.

    Without its index the rows of a ragged column cannot be told apart: better none than wrong ones.
    """
    damaged = {name for name, m in members.items() if m.neurodata_type == "VectorIndex" and not m.is_integers}
    for name in sorted({*lost, *damaged}):
        stems = [stem for stem in stems_of(name) if stem in members]
        if not stems:
            continue
        if members.pop(name, None) is not None:
            problems.append(f"index {name!r} was left out: it holds no row numbers")
        column = stems[-1]  # not an index in between
        members[column] = members[column].unreadable(f"ragged rows whose index {name!r} cannot be read")


def stems_of(name: str) -> Iterator[str]:
    """Yield what a dataset may be the index of, by its name."""
    while name.endswith("_index"):
        name = name.removesuffix("_index")
        yield name


def find_indices(
    group: Node, members: dict[str, Member], listed: list[str], lost: Collection[str], problems: list[str]
) -> tuple[dict[str, str], set[str]]:
    """Find the indices among datasets, and what they index, by the best evidence in the file.

    The attribute `target` is the specification's own way to say what an index belongs to; then the type;
    a listed column, or one of another type, is a column whatever its name ends in; the name comes last.

    Parameters
    ----------
    group : Node
    members : dict of str to Member
    listed : list of str
        The table's `colnames`.
    lost : collection of str
        Members that cannot be opened.
    problems : list of str
        Indices that belong to nothing are added.

    Returns
    -------
    indexed : dict of str to str
        The index of each dataset that has one.
    indices : set of str
        All that are no columns.
    """
    names: dict[Hashable | None, list[str]] = {}
    if any(member.target is not None for member in members.values()):
        for name in (*members, *lost):
            with suppress(BrokenLinkError):  # what is lost may have no address, either
                names.setdefault(group.address_of(name.encode()), []).append(name)
    claims: list[tuple[int, str, str]] = []
    for index, member in members.items():
        stem = index.removesuffix("_index")
        targets = names.get(member.target, []) if member.target is not None else []
        targets = [name for name in targets if name != index]
        claims += [
            (_SURE if name == stem or stem not in targets else _ALIAS, name, index) for name in targets
        ]
        typed = member.neurodata_type == "VectorIndex"
        untyped = not member.neurodata_type and index not in listed
        if not targets and stem != index and stem in members and member.is_integers and (typed or untyped):
            claims.append((_BY_NAME, stem, index))
    indexed: dict[str, str] = {}
    for _, name, index in sorted(claims, key=lambda claim: claim[0]):
        indexed.setdefault(name, index)
    indexed = {
        name: index for name, index in indexed.items() if name in members and not _cyclic(name, indexed)
    }
    said = {index for sure, name, index in claims if sure < _BY_NAME and name in indexed}
    indices = {*indexed.values(), *said}
    for name, member in members.items():
        if member.neurodata_type == "VectorIndex" and name not in listed and name not in indices:
            problems.append(f"index {name!r} was left out: it belongs to no column")
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


#: More are no small fixed set, and would make every catalog large that has them.
_MAX_ELEMENTS = 10_000


def enumerated(codes: Node, array: Array) -> tuple[Array, Hashable | None, str]:
    """Describe the codes of an EnumData as members of an enum.

    A code of i is the i-th element of the VectorData that the attribute `elements` refers to. What the
    elements say is part of the column's type, so they are read with the structure. Where they are not text,
    the codes are the values.

    Parameters
    ----------
    codes : Node
    array : Array
        Its description as integers.

    Returns
    -------
    Array
    Hashable or None
        The address of the elements.
    str
        Why the codes are shown; empty where they are not.
    """
    elements = codes.referred("elements")
    if elements is None or not elements.is_dataset:
        return array, None, "shows codes: its attribute 'elements' leads to no dataset"
    texts = elements.texts(_MAX_ELEMENTS)
    if texts is None:
        reason = f"shows codes: its elements are not a list of at most {_MAX_ELEMENTS} texts"
        return array, elements.address, reason
    if not texts:
        return array, elements.address, ""
    members = tuple((text, code) for code, text in enumerate(texts))
    return replace(array, dtype=replace(array.dtype, kind="enum", members=members)), elements.address, ""
