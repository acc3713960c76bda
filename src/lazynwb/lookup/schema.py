"""The schema of a table over many files."""

from __future__ import annotations

import logging
from itertools import islice
from typing import TYPE_CHECKING

from lazynwb.catalog.merge import merge_schemas
from lazynwb.catalog.model import TABLE_ROLES
from lazynwb.errors import LazyNWBError, TableNotFoundError, may_skip
from lazynwb.formats.nwb.names import TABLE_SHORTCUTS
from lazynwb.lookup.providers import NOT_CATALOGUED
from lazynwb.lookup.stored_tables import StoredTable, StoredTables, store_layouts
from lazynwb.progress import Progress
from lazynwb.storage.file_names import WILDCARDS
from lazynwb.storage.remote_state import save
from lazynwb.suggestions import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    import polars as pl

    from lazynwb.lookup.loader import TableFile
    from lazynwb.lookup.providers import CatalogProvider
    from lazynwb.storage.source import Source

_LOGGER = logging.getLogger("lazynwb")

#: Tables that an error lists.
_LISTED = 20
#: Files whose layouts are stored at once.
_STORED = 4096


def normalize_table_path(table_path: str) -> str:
    """Return a table's path without leading slash, shortcuts spelled out; "/" is that of the root group.

    What has a leading slash is a path and no shortcut: older files have `/trials` (see `OTHER_PATHS`).

    Raises
    ------
    TypeError
        If it is not text.
    """
    if not isinstance(table_path, str):
        raise TypeError(
            f"table_path is the path of a table inside the file, such as '/units', not {table_path!r}"
        )
    path = "/".join(part for part in table_path.split("/") if part)
    if table_path.startswith("/"):
        return path or "/"
    return TABLE_SHORTCUTS.get(path, path)


def is_pattern(table_path: str) -> bool:
    """Return whether a table's path has characters of a glob pattern."""
    return not WILDCARDS.isdisjoint(table_path)


def collect_schema(  # noqa: PLR0913 - the options of a scan
    sources: Sequence[Source],
    table: str,
    first: int | None,
    *,
    raise_on_missing: bool,
    ignore_errors: bool,
    disable_progress: bool,
    overrides: Mapping[str, pl.DataType],
    catalogs: CatalogProvider | None = None,
    keep: bool = False,
    conflicts: dict[str, str] | None = None,
) -> tuple[dict[str, pl.DataType], list[TableFile | StoredTable]]:
    """Return the schema over the first n files that have the table, and these files, or only the first.

    Very many files take no more memory than one, unless they are to be kept: their types are merged as they
    come, and where catalogs say which files are alike, one of these is looked at. With `conflicts`, columns
    over whose types the files disagree are left out and noted there; see `merge_schemas`.

    Raises
    ------
    TableNotFoundError
        If no file has the table.
    SchemaError
        If types have no common one and no override.
    """
    found: list[TableFile | StoredTable] = []
    failures: list[str] = []
    loaded: list[TableFile] = []
    stored = _stored(sources, table, first) if catalogs is None and not keep else {}
    with Progress(f"Inferring the schema of /{table}", len(sources), disabled=disable_progress) as progress:
        left = sources
        if first is None and not keep and catalogs is not None:
            left = _distinct(sources, table, catalogs, raise_on_missing=raise_on_missing)
            progress.update(len(sources) - len(left))

        loading = _loading([(source, table) for source in left if source not in stored], catalogs)

        def having() -> Iterator[TableFile | StoredTable]:
            for source, file in _looked_at(
                left, loading, stored, progress, failures if ignore_errors else None
            ):
                if file is not None:
                    if keep or not found:
                        found.append(file)
                    yield file
                elif raise_on_missing:
                    raise TableNotFoundError(not_found(table, [source], catalogs=catalogs))

        files = (
            _unlike(having(), loaded if catalogs is None else None)
            if first is None
            else islice(having(), max(first, 1))
        )
        schema = merge_schemas(files, overrides, conflicts=conflicts, keep_first=ignore_errors)
    if not found:
        message = not_found(table, sources, catalogs=catalogs)
        if failures:
            message += f"; {len(failures)} files could not be read: {failures[0]}"
        raise TableNotFoundError(message)
    save()
    if catalogs is None and not keep and len(loaded) > 1:
        store_layouts(table, loaded)
    return schema, found


def collect_union(  # noqa: PLR0913 - the options of a scan
    sources: Sequence[Source],
    pattern: str,
    tables: Mapping[Source, Sequence[str]],
    first: int | None,
    *,
    raise_on_missing: bool,
    ignore_errors: bool,
    disable_progress: bool,
    overrides: Mapping[str, pl.DataType],
    catalogs: CatalogProvider | None = None,
    keep: bool = False,
    conflicts: dict[str, str] | None = None,
) -> tuple[dict[str, pl.DataType], list[TableFile | StoredTable]]:
    """Return the schema over all tables of the first n files that have any; the tables, or only the first.

    Parameters
    ----------
    sources : sequence of Source
    pattern : str
        Without the leading slash.
    tables : mapping of Source to sequence of str
        The paths of the tables that match it: see `lazynwb.lookup.names.match_tables`.
    first, raise_on_missing, ignore_errors, disable_progress, overrides, catalogs, keep, conflicts
        As for `collect_schema`, as are the errors.
    """
    lacking = next((source for source in sources if not tables[source]), None)
    if raise_on_missing and lacking is not None:
        raise TableNotFoundError(not_found(pattern, [lacking], catalogs=catalogs))
    having = [source for source in dict.fromkeys(sources) if tables[source]]
    pairs = [
        (source, table)
        for source in having[: None if first is None else max(first, 1)]
        for table in tables[source]
    ]
    if first is None and not keep and catalogs is not None:
        by_table: dict[str, list[Source]] = {}
        for source, table in pairs:
            by_table.setdefault(table, []).append(source)
        pairs = [
            (source, table)
            for table, own in by_table.items()
            for source in _distinct(own, table, catalogs, raise_on_missing=False)
        ]
    found: list[TableFile | StoredTable] = []
    failures: list[str] = []
    label = f"Inferring the schema of /{pattern}"
    with Progress(label, len(pairs), disabled=disable_progress) as progress:
        listed = [source for source, _ in pairs]
        looked_at = _looked_at(
            listed, _loading(pairs, catalogs), {}, progress, failures if ignore_errors else None
        )

        def files() -> Iterator[TableFile | StoredTable]:
            for _, file in looked_at:
                if file is not None:
                    if keep or not found:
                        found.append(file)
                    yield file

        schema = merge_schemas(files(), overrides, conflicts=conflicts, keep_first=ignore_errors)
    if not found:
        message = not_found(pattern, sources, catalogs=catalogs)
        if failures:
            message += f"; {len(failures)} tables could not be read: {failures[0]}"
        raise TableNotFoundError(message)
    save()
    return schema, found


def _stored(sources: Sequence[Source], table: str, first: int | None) -> dict[Source, StoredTable]:
    """Return the tables of sources that the column store knows, among the first n."""
    looked_at = sources if first is None else sources[: max(first, 1)]
    known = zip(looked_at, StoredTables(table).find(looked_at), strict=True)
    return {source: one for source, one in known if one is not None}


def _unlike(
    files: Iterable[TableFile | StoredTable], loaded: list[TableFile] | None
) -> Iterator[TableFile | StoredTable]:
    """Yield files without those whose layout in the column store equals that of an earlier one.

    Parameters
    ----------
    files : iterable of TableFile or StoredTable
    loaded : list of TableFile or None
        Takes files that the column store does not know.
    """
    layouts: set[tuple[int, bool]] = set()
    for file in files:
        if isinstance(file, StoredTable):
            layout = id(file.layout), bool(file.session.rows)
            if layout in layouts:
                continue
            layouts.add(layout)
        elif loaded is not None and len(loaded) < _STORED:
            loaded.append(file)
        yield file


def _loading(
    pairs: Sequence[tuple[Source, str]], catalogs: CatalogProvider | None
) -> Iterator[Callable[[], TableFile | None]]:
    """Yield for each pair of a source and the path of a table what loads it; see `load_tables`."""
    from lazynwb.lookup.prefetch import load_pairs  # late: a scan that the column store answers loads nothing

    yield from load_pairs(pairs, catalogs)


def _looked_at(
    sources: Sequence[Source],
    loading: Iterator[Callable[[], TableFile | None]],
    stored: Mapping[Source, StoredTable],
    progress: Progress,
    failures: list[str] | None,
) -> Iterator[tuple[Source, TableFile | StoredTable | None]]:
    """Yield files with their tables; failures are appended to a list, or raised."""
    for source in sources:
        known = stored.get(source)
        if known is not None:
            progress.update()
            yield source, None if known.is_absent else known
            continue
        try:
            file = next(loading)()
        except LazyNWBError as error:
            if failures is None or not may_skip(error, ignore_errors=True):
                raise
            failures.append(str(error))
            continue
        finally:
            progress.update()
        yield source, file


def _distinct(
    sources: Sequence[Source], table: str, catalogs: CatalogProvider, *, raise_on_missing: bool
) -> list[Source]:
    """Return the first file of each distinct schema, and files without a catalog."""
    seen: set[object] = set()
    left = []
    for source, schema in zip(sources, catalogs.schemas(sources, table), strict=True):
        if schema is None and raise_on_missing:
            raise TableNotFoundError(not_found(table, [source], catalogs=catalogs))
        if schema is NOT_CATALOGUED or (schema is not None and schema not in seen):
            seen.add(schema)
            left.append(source)
    return left


def not_found(
    table: str,
    sources: Sequence[Source],
    roles: Collection[str] = TABLE_ROLES,
    *,
    catalogs: CatalogProvider | None = None,
) -> str:
    """Return the message that no file has a table, with existing tables and similar names.

    Parameters
    ----------
    table : str
    sources : sequence of Source
    roles : collection of str
        Roles looked for: "table", "series", "metadata".
    catalogs : CatalogProvider or None
        Provider that may list the tables without opening files.
    """
    from lazynwb.lookup.loader import load_listing

    existing: list[str] = catalogs.table_paths() if catalogs is not None else []
    one, many = ("series", "series") if set(roles) == {"series"} else ("table", "tables")
    for source in sources if not existing else ():
        try:
            listing = load_listing(source)
        except LazyNWBError:
            continue
        if (note := listing.broken_link(table)) is not None:
            return f"{source.name}: {one} /{table} cannot be read: {note}"
        existing = listing.groups(roles)
        if existing:
            break
    where = (
        sources[0].name
        if len(sources) == 1
        else f"any of {len(sources)} files (the first is {sources[0].name})"
    )
    hint = did_you_mean(table, existing, "/") if not is_pattern(table) else ""
    shown = ", ".join("/" + name for name in existing[:_LISTED]) + (
        ", ..." if len(existing) > _LISTED else ""
    )
    which = f"no {one} matches /{table}" if is_pattern(table) else f"no {one} /{table}"
    return f"{which} in {where}{hint}; {many} there: {shown or 'none'}"
