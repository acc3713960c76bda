"""Which tables the regions of a table refer to (DynamicTableRegion, hdmf-common)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazynwb.formats.nodes import BrokenLinkError, DamagedObjectError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from lazynwb.formats.nodes import OpenFile


def region_tables(file: OpenFile, paths: Iterable[str]) -> dict[str, str]:
    """Find the tables that the attribute `table` of datasets refers to.

    Parameters
    ----------
    file : OpenFile
    paths : iterable of str
        Of DynamicTableRegions, without the leading slash.

    Returns
    -------
    dict of str to str
        The path of the table, without the leading slash, in the file that holds the dataset, by the path of
        the dataset; those that refer to nothing are left out.
    """
    wanted: dict[int, tuple[OpenFile, dict[str, Hashable]]] = {}
    for path in paths:
        with file.going_on():
            try:
                found = file.find(path)
            except DamagedObjectError:
                raise
            except BrokenLinkError:
                continue
            target = found.target("table")
            if target is not None:
                wanted.setdefault(id(found.file), (found.file, {}))[1][path] = target
    file.stop_if_missed()
    tables = {}
    for holder, targets in wanted.values():
        # Where objects are known by their paths, these are the addresses.
        addresses = {target for target in targets.values() if not isinstance(target, str)}
        known = holder.paths_of(addresses) if addresses else {}
        for path, target in targets.items():
            table = target if isinstance(target, str) else known.get(target)
            if table:
                tables[path] = table.strip("/")
    return tables
