"""The tables of many files, with the files that have each, and short names."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

from lazynwb.errors import LazyNWBError, may_skip
from lazynwb.formats.protocols import with_remedy
from lazynwb.lookup.loader import PARTIAL_LISTING, load_listing
from lazynwb.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lazynwb.lookup.providers import CatalogProvider
    from lazynwb.storage.source import Source

_LOGGER = logging.getLogger("lazynwb")


def find_tables(  # noqa: PLR0913 - what is looked for, and what takes note
    sources: Sequence[Source],
    *,
    series: bool,
    ignore_errors: bool,
    disable_progress: bool,
    catalogs: CatalogProvider | None = None,
    failures: list[str] | None = None,
    broken: dict[str, str] | None = None,
) -> dict[str, list[Source]]:
    """Return every table's path, without the leading slash, with the files that have it.

    A file with a broken link in the place of another file's table counts as one that has it: reading the
    table raises the error.

    Parameters
    ----------
    sources : sequence of Source
    series : bool
        TimeSeries as well.
    ignore_errors : bool
        Skip files that cannot be read, with a warning for each.
    disable_progress : bool
    catalogs : CatalogProvider or None
        Provider that may list the tables without opening files.
    failures : list of str or None
        Takes the errors of files that were skipped.
    broken : dict of str to str or None
        Takes the paths of broken links, without the leading slash, and why they are broken.

    Raises
    ------
    LazyNWBError
        If a file cannot be read.
    """
    holders: dict[str, list[Source]] = {}
    links: dict[str, list[Source]] = {}
    order = {source: number for number, source in enumerate(sources)}
    if catalogs is not None:
        holders, sources = catalogs.sources_by_table(sources, series=series)
    with Progress("Finding tables in NWB", len(sources), disabled=disable_progress) as progress:
        for source in sources:
            try:
                listing = load_listing(source)
                for table in listing.tables(series=series):
                    holders.setdefault(table, []).append(source)
                for path, why in listing.broken_tables().items():
                    links.setdefault(path, []).append(source)
                    if broken is not None:
                        broken.setdefault(path, f"{source.name}: {why}")
            except LazyNWBError as error:
                if not may_skip(error, ignore_errors=ignore_errors):
                    raise
                _LOGGER.warning("skipped in the search for tables: %s", error)
                if failures is not None:
                    failures.append(str(error))
            progress.update()
    for path in holders.keys() & links.keys():
        holders[path] = sorted((*holders[path], *links[path]), key=order.__getitem__)
    return holders


def broken_link_named(name: str, broken: Mapping[str, str]) -> str:
    """Return the broken link that has a table's name, as the end of a message; empty if there is none."""
    for path, why in broken.items():
        if f"/{path}".endswith(f"/{name.strip('/')}"):
            return f"; there is a link /{path}: {with_remedy(why)}"
    return ""


def nothing_found(sources: Sequence[Source], failures: Sequence[str]) -> str:
    """Say that no file has a table, and what was wrong with the first that could not be read."""
    message = f"no tables were found in {sources[0].name}"
    if len(sources) > 1:
        message += f" and {len(sources) - 1} more files"
    if failures:
        message += f"; {len(failures)} could not be read, the first of them: {failures[0]}"
    elif load_listing(sources[0]).is_partial:
        message += f": {PARTIAL_LISTING}"
    return message


def shortest_names(tables: Sequence[str], fixed: Mapping[str, str]) -> dict[str, str]:
    """Give each table the shortest end of its path that no other table's path has.

    Parameters
    ----------
    tables : sequence of str
        Paths without the leading slash.
    fixed : mapping of str to str
        Names that some tables have in any case, by path.
    """
    kept = {path: fixed[path] for path in tables if path in fixed}
    reserved = {*kept.values(), *kept}
    counts = Counter(end for path in tables for end in _ends(path))
    names = {}
    for path in tables:
        free = (end for end in _ends(path) if end not in reserved and counts[end] == 1)
        names[path] = kept.get(path) or next(free, path)
    return names


def _ends(path: str) -> list[str]:
    """Return the ends of a path, the shortest first."""
    parts = path.split("/")
    return ["/".join(parts[-depth:]) for depth in range(1, len(parts) + 1)]
