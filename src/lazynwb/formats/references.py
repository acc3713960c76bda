"""Resolution of object references, which HDF5 stores as addresses, to paths."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from lazynwb.formats.protocols import BrokenLinkError, OpenFile

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

#: Targets of most references in attributes; checking them first avoids a walk through the file.
_LIKELY_TARGETS = ("general/extracellular_ephys/electrodes",)


class ParsedFile(OpenFile, Protocol):
    """An open file with a count of missing ranges."""

    @property
    def missed(self) -> int:
        """The number of missing ranges so far."""
        ...


def find_paths(
    file: ParsedFile, addresses: set[Hashable], walk: Callable[[set[int]], Mapping[int, str]]
) -> dict[Hashable, str]:
    """Return the paths of objects by their addresses; objects without a path are left out.

    Parameters
    ----------
    file : ParsedFile
        File with the objects.
    addresses : set of Hashable
        Addresses to resolve.
    walk : callable
        Function that walks through the file for the paths of the remaining addresses.
    """
    found: dict[Hashable, str] = {}
    for path in _LIKELY_TARGETS:
        with file.collect_misses(), suppress(BrokenLinkError):
            found[file.find(path).address] = f"/{path}"
    rest = {address for address in addresses if isinstance(address, int)} - found.keys()
    if not rest or file.missed:  # with missing ranges, it is unknown whether a walk is needed
        return found
    return found | dict(walk(rest).items())
