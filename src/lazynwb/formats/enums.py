"""EnumData: integer codes, and the texts that they stand for (hdmf-experimental)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

if TYPE_CHECKING:
    from collections.abc import Hashable

    from lazynwb.catalog.model import Array
    from lazynwb.formats.nodes import Node

#: More are no small fixed set, and would make every catalog large that has them.
_MOST_ELEMENTS = 10_000


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
    texts = elements.texts(_MOST_ELEMENTS)
    if texts is None:
        reason = f"shows codes: its elements are not a list of at most {_MOST_ELEMENTS} texts"
        return array, elements.address, reason
    if not texts:
        return array, elements.address, ""
    members = tuple((text, code) for code, text in enumerate(texts))
    return replace(array, dtype=replace(array.dtype, kind="enum", members=members)), elements.address, ""
