"""Which columns of different files are stored alike, so that their rows may go to one buffer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lazynwb.catalog.model import Column
    from lazynwb.engine.window import Part


class StoredAs:
    """A key for grouping: equal where two columns' rows may go to one buffer."""

    __slots__ = ("column",)

    def __init__(self, pair: tuple[Part, Column | None]) -> None:
        self.column = pair[1]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoredAs) and _alike(self.column, other.column)

    __hash__ = None  # type: ignore[assignment]


def _alike(one: Column | None, other: Column | None) -> bool:
    if one is None or other is None:
        return one is other
    if one.data is None or other.data is None:
        if one.data is not other.data or (one.regular is None) != (other.regular is None):
            return False
        mine, theirs = one.children or (), other.children or ()
        return len(mine) == len(theirs) and all(
            a.name == b.name and _alike(a, b) for a, b in zip(mine, theirs, strict=True)
        )
    return (
        one.data.dtype == other.data.dtype
        and one.data.shape[1:] == other.data.shape[1:]
        and one.region == other.region
        and one.whole == other.whole
        and len(one.indices) == len(other.indices)
        and (one.data.layout == "indirect") == (other.data.layout == "indirect")
    )
