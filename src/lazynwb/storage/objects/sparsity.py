"""Whether the chunks that an array claims to have were ever written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazynwb.errors import CorruptDataError

if TYPE_CHECKING:
    from lazynwb.storage.objects.object_store import Objects

#: Fewer objects than this are simply asked for.
_MANY = 50_000
#: Of more, one in so many has to be there.
_ONE_IN = 100


def check_written(store: Objects, prefix: str, depth: int, wanted: int) -> None:
    """Refuse to read very many objects of which hardly any is there.

    A chunk that was never written is full of the fill value (Zarr specification): an absurd shape is an
    endless number of these, and nothing but the store's own listing tells it from an array.

    Parameters
    ----------
    store : Objects
    prefix : str
        What the names of all objects of the array begin with.
    depth : int
        Levels of folders that the objects are in, below the prefix.
    wanted : int
        How many are wanted.

    Raises
    ------
    CorruptDataError
    """
    if wanted <= _MANY:
        return
    enough = wanted // _ONE_IN
    found = _count(store, prefix.rpartition("/")[0], depth, enough)
    if found is not None and found < enough:
        raise CorruptDataError(
            f"its metadata claims {wanted:,} chunks here, of which no more than {found:,} were written"
        )


def _count(store: Objects, folder: str, depth: int, enough: int) -> int | None:
    """Count objects, until there are enough; None if the store does not list them."""
    listed = store.members(folder)
    if listed is None:
        return None
    names = [name for name in listed if name != "zarr.json" and not name.startswith(".")]
    if depth <= 1:
        return len(names)
    total = 0
    for name in names:
        total += _count(store, f"{folder}/{name}", depth - 1, enough) or 0
        if total >= enough:
            break
    return total
