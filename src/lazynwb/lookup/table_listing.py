"""Listing of the tables of many files, with the files of each table, and short table names."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

from lazynwb.errors import LazyNWBError, may_skip
from lazynwb.formats.protocols import with_remedy
from lazynwb.lookup.loader import PARTIAL_LISTING, load_listing
from lazynwb.progress import Progress
from lazynwb.suggestions import join_problems

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from lazynwb.lookup.providers import CatalogProvider
    from lazynwb.storage.source import Source

_LOGGER = logging.getLogger("lazynwb")


def find_tables(  # noqa: PLR0913 - options, and outputs for skipped files
    sources: Sequence[Source],
    *,
    series: bool,
    ignore_errors: bool,
    disable_progress: bool,
    catalogs: CatalogProvider | None = None,
    failures: list[str] | None = None,
    broken: dict[str, str] | None = None,
) -> dict[str, list[Source]]:
    """Return the paths of all tables, without the leading slash, with the files that have them.

    A file with a broken link at the path of another file's table counts as having it: reading the table
    raises the error.

    Parameters
    ----------
    sources : sequence of Source
        Files to list.
    series : bool
        Whether to include TimeSeries.
    ignore_errors : bool
        Whether to skip files that cannot be read, with a warning for each.
    disable_progress : bool
        Whether to show no progress bar.
    catalogs : CatalogProvider or None
        Provider that may list the tables without opening files.
    failures : list of str or None
        Receives the errors of skipped files.
    broken : dict of str to str or None
        Receives the paths of broken links, without the leading slash, and the reasons.

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
    with Progress("Listing NWB tables", len(sources), disabled=disable_progress) as progress:
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
                _LOGGER.warning("skipped a file while listing tables: %s", error)
                if failures is not None:
                    failures.append(str(error))
            progress.update()
    for path in holders.keys() & links.keys():
        holders[path] = sorted((*holders[path], *links[path]), key=order.__getitem__)
    return holders


def warn_of_broken_links(broken: Mapping[str, str], tables: Collection[str]) -> None:
    """Log the broken links that may have led to tables which no file has.

    Parameters
    ----------
    broken : mapping of str to str
        Paths of broken links, and the reasons; see `find_tables`.
    tables : collection of str
        Paths of the tables that exist.
    """
    lost = [f"/{path}: {with_remedy(why)}" for path, why in broken.items() if path not in tables]
    if lost:
        _LOGGER.warning("broken links were left out: %s", join_problems(lost))


def broken_link_hint(name: str, broken: Mapping[str, str]) -> str:
    """Return a hint about a broken link with the name of a table; empty if there is none."""
    for path, why in broken.items():
        if f"/{path}".endswith(f"/{name.strip('/')}"):
            return f"; there is a link /{path}: {with_remedy(why)}"
    return ""


def no_tables_message(sources: Sequence[Source], failures: Sequence[str]) -> str:
    """Return the message that no file has a table, with the first error of an unreadable file."""
    message = f"no tables were found in {sources[0].name}"
    if len(sources) > 1:
        message += f" and {len(sources) - 1} more files"
    if failures:
        message += f"; {len(failures)} could not be read; the first error: {failures[0]}"
    elif load_listing(sources[0]).is_partial:
        message += f": {PARTIAL_LISTING}"
    return message


def shortest_names(tables: Sequence[str], fixed: Mapping[str, str]) -> dict[str, str]:
    """Return the shortest unique suffix of each table path.

    Parameters
    ----------
    tables : sequence of str
        Paths without the leading slash.
    fixed : mapping of str to str
        Predefined names of some tables, by path.
    """
    predefined = {path: fixed[path] for path in tables if path in fixed}
    reserved = {*predefined.values(), *predefined}
    counts = Counter(end for path in tables for end in _suffixes(path))
    names = {}
    for path in tables:
        free = (end for end in _suffixes(path) if end not in reserved and counts[end] == 1)
        names[path] = predefined.get(path) or next(free, path)
    return names


def _suffixes(path: str) -> list[str]:
    """Return the suffixes of a path, the shortest first."""
    parts = path.split("/")
    return ["/".join(parts[-depth:]) for depth in range(1, len(parts) + 1)]
