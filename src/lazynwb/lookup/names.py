"""Resolution of table and series names to paths: full paths, shortcuts and path suffixes."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from lazynwb.catalog.model import TABLE_ROLES
from lazynwb.errors import LazyNWBError, TableNotFoundError, may_skip
from lazynwb.formats.nwb.names import OTHER_PATHS, ROOT_GROUPS, SERIES_MEMBERS
from lazynwb.formats.protocols import with_remedy
from lazynwb.lookup.providers import NOT_CATALOGUED
from lazynwb.lookup.schema import normalize_table_path, table_not_found_message
from lazynwb.progress import Progress
from lazynwb.storage.file_names import compile_glob
from lazynwb.storage.source import map_concurrently
from lazynwb.suggestions import join_names

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from lazynwb.lookup.providers import CatalogProvider
    from lazynwb.storage.source import Source

_LOGGER = logging.getLogger("lazynwb")

#: Number of files that are listed concurrently.
_LISTED_CONCURRENTLY = 64


def match_path(paths: Collection[str], term: str) -> str | None:
    """Find a table or a series among the paths of a file.

    Parameters
    ----------
    paths : collection of str
        Paths without the leading slash.
    term : str
        A path, with or without the leading slash (the path of the `data` of a series stands for the series),
        or a shortcut such as `trials`. If none matches and there is no leading slash, a suffix of a path of
        one or more parts ("behavior/running_speed"), with exact case or else ignoring case.

    Returns
    -------
    str or None
        Path without the leading slash; None if nothing matches.

    Raises
    ------
    TableNotFoundError
        If several paths have the suffix; the message lists them.
    """
    path = normalize_table_path(term)
    for candidate in (path, OTHER_PATHS.get(path)):
        if candidate is not None and candidate in paths:
            return candidate
    parent, _, member = path.rpartition("/")
    if member in SERIES_MEMBERS and parent in paths:
        return parent
    if term.startswith("/"):
        return None
    end = term.strip("/")
    for as_written in (True, False):
        found = [candidate for candidate in paths if _ends_with(candidate, end, as_written=as_written)]
        if len(found) > 1:
            shown = join_names(found, prefix="/")
            raise TableNotFoundError(f"{term!r} is ambiguous: {shown}: pass the path of one of them")
        if found:
            return found[0]
    return None


def _ends_with(path: str, end: str, *, as_written: bool) -> bool:
    if not as_written:
        path, end = path.casefold(), end.casefold()
    return bool(end) and (path == end or path.endswith("/" + end))


def find_table(
    sources: Sequence[Source],
    term: str,
    *,
    exact: bool = False,
    roles: Collection[str] = TABLE_ROLES,
    ignore_errors: bool = False,
) -> str:
    """Find a table or a series in many files; see `match_path`.

    A term is a full path if any file has an object there. Otherwise it is a suffix: the first file with a
    match determines the path for all files.

    Raises
    ------
    TableNotFoundError
        If no file has a match (the message suggests similar names), or if a file has several.
    """
    is_whole = exact or term.startswith("/")
    path = normalize_table_path(f"/{term}" if is_whole else term)
    found = None
    if is_whole or path.partition("/")[0] in ROOT_GROUPS:
        found = _find_full_path(sources, path, roles, ignore_errors=ignore_errors)
    if found is None and not is_whole:
        found = _find_suffix(sources, term, roles, ignore_errors=ignore_errors)
    if found is None:
        raise TableNotFoundError(table_not_found_message(path, sources, roles, exact=is_whole))
    return found


def match_tables(
    sources: Sequence[Source],
    pattern: str,
    *,
    ignore_errors: bool = False,
    disable_progress: bool = False,
    catalogs: CatalogProvider | None = None,
) -> dict[Source, tuple[str, ...]] | None:
    """Return the paths of the tables of each file that match a glob pattern, in alphabetical order.

    `*`, `?` and `[...]` match within a part of the path, `**` matches any number of parts. A pattern with a
    leading slash, or whose first part is a root group of NWB, is matched with full paths, any other with path
    suffixes.

    Parameters
    ----------
    sources : sequence of Source
        Files to search.
    pattern : str
        Glob pattern.
    ignore_errors : bool
        Whether to return the pattern as the only table of an unreadable file: the scan reports its error.
    disable_progress : bool
        Whether to show no progress bar.
    catalogs : CatalogProvider or None
        Provider that may list the tables without opening files.

    Returns
    -------
    dict of Source to tuple of str, or None
        None if the pattern is the exact path of a table.

    Raises
    ------
    TableNotFoundError
        If no table matches, or the pattern is invalid.
    """
    path = normalize_table_path(pattern)
    is_whole = pattern.startswith("/") or path.partition("/")[0] in ROOT_GROUPS
    try:
        matching = compile_glob(path if is_whole else f"**/{path}")
    except re.error as error:
        raise TableNotFoundError(f"{pattern!r} is not a table path or a valid pattern: {error}") from None
    paths, unread, broken = _list_tables(
        sources, catalogs, ignore_errors=ignore_errors, disable_progress=disable_progress
    )
    for listed in paths.values():
        if path in listed:
            return None
    present = {table for listed in paths.values() for table in listed}
    for source, links in broken.items():
        for link, why in links.items():
            if link in present:  # the read raises the error
                paths[source].append(link)
            elif matching.fullmatch(link):
                _LOGGER.warning(
                    "%s: /%s matches /%s and cannot be read: %s",
                    source.name,
                    link,
                    path,
                    with_remedy(why),
                )
    found = {
        source: (path,) if source in unread else tuple(sorted(filter(matching.fullmatch, listed)))
        for source, listed in paths.items()
    }
    if not any(found[source] for source in found if source not in unread):
        message = table_not_found_message(path, sources, catalogs=catalogs)
        if unread:
            first = next(iter(unread.values()))
            message += f"; {len(unread)} files could not be read; the first error: {first}"
        raise TableNotFoundError(message)
    return found


def _list_tables(
    sources: Sequence[Source],
    catalogs: CatalogProvider | None,
    *,
    ignore_errors: bool,
    disable_progress: bool,
) -> tuple[dict[Source, list[str]], dict[Source, str], dict[Source, dict[str, str]]]:
    """Return the table paths of each file, the errors of unreadable files, and the broken links."""
    from lazynwb.lookup.loader import load_listing

    paths: dict[Source, list[str]] = {source: [] for source in sources}
    left: Sequence[Source] = list(paths)
    if catalogs is not None:
        holders, left = catalogs.sources_by_table(left, series=True)
        for path, having in holders.items():
            for source in having:
                paths[source].append(path)
    unread: dict[Source, str] = {}
    broken: dict[Source, dict[str, str]] = {}

    def listed(source: Source) -> list[str]:
        try:
            listing = load_listing(source)
        except LazyNWBError as error:
            if not may_skip(error, ignore_errors=ignore_errors):
                raise
            unread[source] = str(error)
            return []
        if links := listing.broken_tables():
            broken[source] = links
        return listing.tables()

    with Progress("Listing NWB tables", len(left), disabled=disable_progress) as progress:
        for start in range(0, len(left), _LISTED_CONCURRENTLY):
            block = left[start : start + _LISTED_CONCURRENTLY]
            paths.update(zip(block, map_concurrently(listed, block, block), strict=True))
            progress.update(len(block))
    return paths, unread, broken


def resolve_table(
    sources: Sequence[Source],
    term: str,
    *,
    ignore_errors: bool = False,
    catalogs: CatalogProvider | None = None,
) -> str:
    """Return the path of the table of a scan.

    Names whose first part is a root group of NWB are returned without opening files. Unknown names are
    returned unchanged: the scan reports them.

    Parameters
    ----------
    sources : sequence of Source
        The files of the scan.
    term : str
        A path, a shortcut or a suffix of a path.
    ignore_errors : bool
        Whether to skip files that cannot be read.
    catalogs : CatalogProvider or None
        Provider that may list the tables without opening files.

    Raises
    ------
    TableNotFoundError
        If a file has several tables of that name; the message lists them.
    """
    path = normalize_table_path(term)
    if term.startswith("/") or path.partition("/")[0] in ROOT_GROUPS:
        return path
    return find_by_name(sources, term, ignore_errors=ignore_errors, catalogs=catalogs) or path


def find_by_name(
    sources: Sequence[Source], term: str, *, ignore_errors: bool, catalogs: CatalogProvider | None
) -> str | None:
    """Return the path of the first table with a name, in the order of the files; None if none has it.

    Raises
    ------
    TableNotFoundError
        If a file has several tables of that name; the message lists them.
    """
    if term.startswith("/"):
        return None
    if catalogs is not None and (listed := catalogs.table_paths()):
        found = match_path(listed, term)
        if found is not None:
            return found
        known = catalogs.row_counts(sources, normalize_table_path(term))
        sources = [s for s, file in zip(sources, known, strict=True) if file is NOT_CATALOGUED]
    return _find_suffix(sources, term, TABLE_ROLES, ignore_errors=ignore_errors)


def _find_full_path(
    sources: Sequence[Source], path: str, roles: Collection[str], *, ignore_errors: bool
) -> str | None:
    from lazynwb.lookup.prefetch import load_tables

    for load in load_tables(sources, path):
        try:
            file = load()
        except LazyNWBError as error:
            if not may_skip(error, ignore_errors=ignore_errors):
                raise
            continue
        if file is not None and file.table.kind in roles:
            # The path may differ between files.
            return path if path in OTHER_PATHS and len(sources) > 1 else file.table.path
    return None


def _find_suffix(
    sources: Sequence[Source], term: str, roles: Collection[str], *, ignore_errors: bool
) -> str | None:
    from lazynwb.lookup.loader import load_listing

    for source in sources:
        try:
            listing = load_listing(source)
        except LazyNWBError as error:
            if not may_skip(error, ignore_errors=ignore_errors):
                raise
            continue
        try:
            found = match_path(listing.groups(roles), term)
        except TableNotFoundError as error:
            raise TableNotFoundError(f"{source.name}: {error}") from None
        if found is not None:
            return found
    return None
