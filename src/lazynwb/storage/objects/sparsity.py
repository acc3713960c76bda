"""Protection against arrays that claim far more chunks than were written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazynwb.errors import CorruptDataError

if TYPE_CHECKING:
    from lazynwb.storage.objects.object_store import Objects

#: Up to this many objects are requested without a check.
_UNCHECKED = 50_000
#: Beyond that, at least one of this many objects must exist.
_MIN_DENSITY = 100


def check_written(store: Objects, prefix: str, depth: int, requested: int) -> None:
    """Refuse to read a very large number of objects of which few exist.

    A chunk that was never written consists of fill values (Zarr specification), so a corrupt shape implies a
    huge number of absent chunks. Only a listing distinguishes it from a valid array.

    Parameters
    ----------
    store : Objects
    prefix : str
        Common prefix of all chunks of the array.
    depth : int
        Levels of folders below the prefix.
    requested : int
        Number of requested chunks.

    Raises
    ------
    CorruptDataError
        If too few of the chunks exist.
    """
    if requested <= _UNCHECKED:
        return
    enough = requested // _MIN_DENSITY
    found = _count(store, prefix.rpartition("/")[0], depth, enough)
    if found is not None and found < enough:
        raise CorruptDataError(
            f"its metadata claims {requested:,} chunks here, but only {found:,} were written"
        )


def _count(store: Objects, folder: str, depth: int, enough: int) -> int | None:
    """Count objects up to `enough`; return None if the store cannot be listed."""
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
