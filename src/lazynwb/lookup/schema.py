"""Schemas of tables over many files, and normalized table paths."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from lazynwb.catalog.merge import merge_schemas
from lazynwb.catalog.model import TABLE_ROLES
from lazynwb.errors import LazyNWBError, TableNotFoundError, may_skip
from lazynwb.formats.nwb.names import TABLE_SHORTCUTS
from lazynwb.formats.protocols import broken_table_error
from lazynwb.lookup.providers import NOT_CATALOGUED
from lazynwb.lookup.stored_tables import StoredTable, StoredTables, store_layouts
from lazynwb.progress import Progress
from lazynwb.storage.file_names import WILDCARDS
from lazynwb.storage.remote_state import save_later
from lazynwb.suggestions import did_you_mean, join_names

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    import polars as pl

    from lazynwb.lookup.loader import TableFile
    from lazynwb.lookup.providers import CatalogProvider
    from lazynwb.storage.source import Source

_LOGGER = logging.getLogger("lazynwb")

#: Maximum number of files whose layouts are stored together.
_MAX_STORED_LAYOUTS = 4096


def normalize_table_path(table_path: str) -> str:
    """Return a table's path without the leading slash, with shortcuts expanded; "/" is the root group.

    A leading slash marks a path, not a shortcut: older files have `/trials` (see `OTHER_PATHS`).

    Raises
    ------
    TypeError
        If the path is not a string.
    """
    if not isinstance(table_path, str):
        raise TypeError(
            f"table_path must be the path of a table inside the file, such as '/units', not {table_path!r}"
        )
    path = "/".join(part for part in table_path.split("/") if part)
    if table_path.startswith("/"):
        return path or "/"
    return TABLE_SHORTCUTS.get(path, path)


def is_pattern(table_path: str) -> bool:
    """Return whether a table path contains characters of a glob pattern."""
    return isinstance(table_path, str) and not WILDCARDS.isdisjoint(table_path)


@dataclass(frozen=True, kw_only=True, slots=True)
class SchemaInference:
    """Options of the inference of a table's schema from many files.

    Memory does not grow with the number of files, unless all tables are returned (`keep`): types are merged
    file by file. If a provider has equal schema keys for several files, only the first of these is inspected.

    Attributes
    ----------
    first : int or None
        Number of files with the table to inspect; None for all.
    raise_on_missing, ignore_errors, disable_progress : bool
        As for `scan_nwb`.
    overrides : mapping of str to DataType
        Types of columns that the user chose.
    catalogs : CatalogProvider or None
        Provider of catalogs.
    keep : bool
        Whether to return all inspected tables, instead of the first only.
    conflicts : dict of str to str or None
        Receives the columns whose types conflict, which are then left out; see `merge_schemas`.
    broken : dict of str to str or None
        Receives the columns that could not be opened in any file, which are left out, with the reason.
    while_waiting : callable or None
        Called with a remote file while its server responds to the first request for its structure.
    """

    first: int | None = None
    raise_on_missing: bool = False
    ignore_errors: bool = False
    disable_progress: bool = False
    overrides: Mapping[str, pl.DataType] = field(default_factory=dict)
    catalogs: CatalogProvider | None = None
    keep: bool = False
    conflicts: dict[str, str] | None = None
    broken: dict[str, str] | None = None
    while_waiting: Callable[[Source], None] | None = None

    def of_table(
        self, sources: Sequence[Source], table: str
    ) -> tuple[dict[str, pl.DataType], list[TableFile | StoredTable]]:
        """Return the schema of a table over the files that have it, and the inspected tables.

        Raises
        ------
        TableNotFoundError
            If no file has the table.
        SchemaError
            If the types of a column have no common type, and the column has no override.
        """
        use_store = self.catalogs is None and not self.keep
        stored = _stored_tables(sources, table, self.first) if use_store else {}
        left = sources
        if self._can_deduplicate:
            left = self._distinct(sources, table)
        loaded: list[TableFile] = []

        def select(tables: Iterator[TableFile | StoredTable]) -> Iterator[TableFile | StoredTable]:
            if self.first is not None:
                return islice(tables, max(self.first, 1))
            return _distinct_layouts(tables, loaded if self.catalogs is None else None)

        found = self._merge([(source, table) for source in left], stored, table, sources, select)
        if use_store and len(loaded) > 1:
            store_layouts(table, loaded)
        return found

    def of_matches(
        self, sources: Sequence[Source], pattern: str, tables: Mapping[Source, Sequence[str]]
    ) -> tuple[dict[str, pl.DataType], list[TableFile | StoredTable]]:
        """Return the schema over all tables that match a pattern, and the inspected tables.

        Parameters
        ----------
        sources : sequence of Source
            Files of the scan.
        pattern : str
            Pattern without the leading slash.
        tables : mapping of Source to sequence of str
            Paths of the matching tables; see `lazynwb.lookup.names.match_tables`.

        Raises
        ------
        TableNotFoundError or SchemaError
            As for `of_table`.
        """
        lacking = next((source for source in sources if not tables[source]), None)
        if self.raise_on_missing and lacking is not None:
            raise TableNotFoundError(table_not_found_message(pattern, [lacking], catalogs=self.catalogs))
        having = [source for source in dict.fromkeys(sources) if tables[source]]
        pairs = [
            (source, table)
            for source in having[: None if self.first is None else max(self.first, 1)]
            for table in tables[source]
        ]
        if self._can_deduplicate:
            by_table: dict[str, list[Source]] = {}
            for source, table in pairs:
                by_table.setdefault(table, []).append(source)
            pairs = [
                (source, table) for table, own in by_table.items() for source in self._distinct(own, table)
            ]
        return self._merge(pairs, {}, pattern, sources, iter)

    @property
    def _can_deduplicate(self) -> bool:
        return self.first is None and not self.keep and self.catalogs is not None

    def _merge(
        self,
        pairs: Sequence[tuple[Source, str]],
        stored: Mapping[Source, StoredTable],
        shown: str,
        sources: Sequence[Source],
        select: Callable[[Iterator[TableFile | StoredTable]], Iterator[TableFile | StoredTable]],
    ) -> tuple[dict[str, pl.DataType], list[TableFile | StoredTable]]:
        """Return the merged schema of selected tables.

        Parameters
        ----------
        pairs : sequence of tuple
            Sources and table paths.
        stored : mapping of Source to StoredTable
            Tables from the column store, which are not loaded.
        shown : str
            Table or pattern in messages.
        sources : sequence of Source
            All sources of the scan, for messages.
        select : callable
            Generator that selects the tables to inspect from the existing ones.
        """
        found: list[TableFile | StoredTable] = []
        failures: list[str] = []
        loading = self._load_lazily([pair for pair in pairs if pair[0] not in stored])
        label = f"Inferring the schema of /{shown}"
        with Progress(label, len(pairs), disabled=self.disable_progress) as progress:

            def existing() -> Iterator[TableFile | StoredTable]:
                inspected = _inspect(
                    [source for source, _ in pairs],
                    loading,
                    stored,
                    progress,
                    failures if self.ignore_errors else None,
                )
                for source, table in inspected:
                    if table is not None:
                        if self.keep or not found:
                            found.append(table)
                        yield table
                    elif self.raise_on_missing:
                        raise TableNotFoundError(
                            table_not_found_message(shown, [source], catalogs=self.catalogs)
                        )

            schema = merge_schemas(
                select(existing()),
                self.overrides,
                conflicts=self.conflicts,
                keep_first=self.ignore_errors,
                broken=self.broken,
            )
        if not found:
            message = table_not_found_message(shown, sources, catalogs=self.catalogs)
            if failures:
                message += f"; {len(failures)} files could not be read; the first error: {failures[0]}"
            raise TableNotFoundError(message)
        save_later()  # the scan that reads the schema saves more blocks
        return schema, found

    def _load_lazily(self, pairs: Sequence[tuple[Source, str]]) -> Iterator[Callable[[], TableFile | None]]:
        """Yield for each pair of a source and a table path a function that loads the table."""
        from lazynwb.lookup.prefetch import load_pairs  # not needed if the column store has all tables

        for number, load in enumerate(load_pairs(pairs, self.catalogs)):
            if not number and pairs[0][0].is_remote and self.while_waiting is not None:
                self.while_waiting(pairs[0][0])
            yield load

    def _distinct(self, sources: Sequence[Source], table: str) -> list[Source]:
        """Return the first file of each distinct schema, and all files without a catalog."""
        if self.catalogs is None:
            return list(sources)
        seen: set[object] = set()
        left = []
        for source, schema in zip(sources, self.catalogs.schemas(sources, table), strict=True):
            if schema is None and self.raise_on_missing:
                raise TableNotFoundError(table_not_found_message(table, [source], catalogs=self.catalogs))
            if schema is NOT_CATALOGUED or (schema is not None and schema not in seen):
                seen.add(schema)
                left.append(source)
        return left


def _stored_tables(sources: Sequence[Source], table: str, first: int | None) -> dict[Source, StoredTable]:
    """Return the tables of the first n sources that are in the column store."""
    sampled = sources if first is None else sources[: max(first, 1)]
    known = zip(sampled, StoredTables(table).find(sampled), strict=True)
    return {source: one for source, one in known if one is not None}


def _distinct_layouts(
    files: Iterable[TableFile | StoredTable], loaded: list[TableFile] | None
) -> Iterator[TableFile | StoredTable]:
    """Yield tables, except stored ones whose layout equals that of an earlier one.

    Parameters
    ----------
    files : iterable of TableFile or StoredTable
        Tables of files.
    loaded : list of TableFile or None
        Receives tables that are not in the column store.
    """
    layouts: set[tuple[int, bool]] = set()
    for file in files:
        if isinstance(file, StoredTable):
            layout = id(file.layout), bool(file.session.rows)
            if layout in layouts:
                continue
            layouts.add(layout)
        elif loaded is not None and len(loaded) < _MAX_STORED_LAYOUTS:
            loaded.append(file)
        yield file


def _inspect(
    sources: Sequence[Source],
    loading: Iterator[Callable[[], TableFile | None]],
    stored: Mapping[Source, StoredTable],
    progress: Progress,
    failures: list[str] | None,
) -> Iterator[tuple[Source, TableFile | StoredTable | None]]:
    """Yield sources with their tables; append errors to a list, or raise them."""
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


def table_not_found_message(
    table: str,
    sources: Sequence[Source],
    roles: Collection[str] = TABLE_ROLES,
    *,
    catalogs: CatalogProvider | None = None,
    exact: bool = True,
) -> str:
    """Return the message that no file has a table, with existing tables and similar names.

    Parameters
    ----------
    table : str
        Name of the table.
    sources : sequence of Source
        Searched files.
    roles : collection of str
        Accepted roles: "table", "series", "metadata".
    catalogs : CatalogProvider or None
        Provider that may list the tables without opening files.
    exact : bool
        Whether the name is a full path, not a suffix.
    """
    from lazynwb.lookup.loader import PARTIAL_LISTING, load_listing

    partial = ""
    existing: list[str] = catalogs.table_paths() if catalogs is not None else []
    one, many = ("series", "series") if set(roles) == {"series"} else ("table", "tables")
    for source in sources if not existing else ():
        try:
            listing = load_listing(source)
        except LazyNWBError:
            continue
        if (broken := listing.broken_link(table, exact=exact)) is not None:
            return str(broken_table_error(source.name, *broken, one))
        partial = f"; {source.name}: {PARTIAL_LISTING}" if listing.is_partial else partial
        existing = listing.groups(roles)
        if existing:
            break
    where = (
        sources[0].name
        if len(sources) == 1
        else f"any of {len(sources)} files (the first is {sources[0].name})"
    )
    hint = did_you_mean(table, existing, "/") if not is_pattern(table) else ""
    shown = join_names(existing, prefix="/")
    which = f"no {one} matches /{table}" if is_pattern(table) else f"no {one} /{table}"
    return f"{which} in {where}{hint}; available {many}: {shown or 'none'}{partial}"
