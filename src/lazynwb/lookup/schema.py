"""The schema of a table over many files."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from lazynwb.catalog.merge import merge_schemas
from lazynwb.catalog.model import TABLE_ROLES
from lazynwb.errors import LazyNWBError, TableNotFoundError, may_skip
from lazynwb.formats.nwb.names import TABLE_SHORTCUTS
from lazynwb.formats.protocols import broken_table
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


@dataclass(frozen=True, kw_only=True, slots=True)
class SchemaInference:
    """How the schema of a table is inferred from many files.

    Very many files take no more memory than one, unless they are kept: their types are merged as they come,
    and where catalogs say which files are alike, one of these is inspected.

    Attributes
    ----------
    first : int or None
        Files that are inspected, of those that have the table; all by default.
    raise_on_missing, ignore_errors, disable_progress : bool
    overrides : mapping of str to DataType
        Types of columns that the caller chose.
    catalogs : CatalogProvider or None
    keep : bool
        Whether all inspected tables are returned, rather than the first.
    conflicts : dict of str to str or None
        Takes columns over whose types the files disagree, which are then left out: see `merge_schemas`.
    """

    first: int | None = None
    raise_on_missing: bool = False
    ignore_errors: bool = False
    disable_progress: bool = False
    overrides: Mapping[str, pl.DataType] = field(default_factory=dict)
    catalogs: CatalogProvider | None = None
    keep: bool = False
    conflicts: dict[str, str] | None = None

    def of_table(
        self, sources: Sequence[Source], table: str
    ) -> tuple[dict[str, pl.DataType], list[TableFile | StoredTable]]:
        """Return the schema over the files that have a table, and their tables.

        Raises
        ------
        TableNotFoundError
            If no file has the table.
        SchemaError
            If types have no common one and no override.
        """
        use_store = self.catalogs is None and not self.keep
        stored = _stored(sources, table, self.first) if use_store else {}
        left = sources
        if self._may_skip_alike:
            left = self._distinct(sources, table)
        loaded: list[TableFile] = []

        def select(tables: Iterator[TableFile | StoredTable]) -> Iterator[TableFile | StoredTable]:
            if self.first is not None:
                return islice(tables, max(self.first, 1))
            return _unlike(tables, loaded if self.catalogs is None else None)

        found = self._merge([(source, table) for source in left], stored, table, sources, select)
        if use_store and len(loaded) > 1:
            store_layouts(table, loaded)
        return found

    def of_matches(
        self, sources: Sequence[Source], pattern: str, tables: Mapping[Source, Sequence[str]]
    ) -> tuple[dict[str, pl.DataType], list[TableFile | StoredTable]]:
        """Return the schema over all tables that match a pattern, and the tables.

        Parameters
        ----------
        sources : sequence of Source
        pattern : str
            Without the leading slash.
        tables : mapping of Source to sequence of str
            The paths of the tables that match it: see `lazynwb.lookup.names.match_tables`.

        Raises
        ------
        TableNotFoundError, SchemaError
            As for `of_table`.
        """
        lacking = next((source for source in sources if not tables[source]), None)
        if self.raise_on_missing and lacking is not None:
            raise TableNotFoundError(not_found(pattern, [lacking], catalogs=self.catalogs))
        having = [source for source in dict.fromkeys(sources) if tables[source]]
        pairs = [
            (source, table)
            for source in having[: None if self.first is None else max(self.first, 1)]
            for table in tables[source]
        ]
        if self._may_skip_alike:
            by_table: dict[str, list[Source]] = {}
            for source, table in pairs:
                by_table.setdefault(table, []).append(source)
            pairs = [
                (source, table) for table, own in by_table.items() for source in self._distinct(own, table)
            ]
        return self._merge(pairs, {}, pattern, sources, iter)

    @property
    def _may_skip_alike(self) -> bool:
        return self.first is None and not self.keep and self.catalogs is not None

    def _merge(
        self,
        pairs: Sequence[tuple[Source, str]],
        stored: Mapping[Source, StoredTable],
        shown: str,
        sources: Sequence[Source],
        select: Callable[[Iterator[TableFile | StoredTable]], Iterator[TableFile | StoredTable]],
    ) -> tuple[dict[str, pl.DataType], list[TableFile | StoredTable]]:
        """Return the merged schema of the selected tables among pairs of a source and the path of a table.

        Parameters
        ----------
        pairs : sequence of tuple
        stored : mapping of Source to StoredTable
            Tables that are not loaded.
        shown : str
            The table or pattern, for messages.
        sources : sequence of Source
            All sources of the scan, for messages.
        select : callable
            Yields the tables to inspect, of those that exist.
        """
        found: list[TableFile | StoredTable] = []
        failures: list[str] = []
        loading = _loading([pair for pair in pairs if pair[0] not in stored], self.catalogs)
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
                        raise TableNotFoundError(not_found(shown, [source], catalogs=self.catalogs))

            schema = merge_schemas(
                select(existing()), self.overrides, conflicts=self.conflicts, keep_first=self.ignore_errors
            )
        if not found:
            message = not_found(shown, sources, catalogs=self.catalogs)
            if failures:
                message += f"; {len(failures)} tables could not be read: {failures[0]}"
            raise TableNotFoundError(message)
        save()
        return schema, found

    def _distinct(self, sources: Sequence[Source], table: str) -> list[Source]:
        """Return the first file of each distinct schema, and files without a catalog."""
        if self.catalogs is None:
            return list(sources)
        seen: set[object] = set()
        left = []
        for source, schema in zip(sources, self.catalogs.schemas(sources, table), strict=True):
            if schema is None and self.raise_on_missing:
                raise TableNotFoundError(not_found(table, [source], catalogs=self.catalogs))
            if schema is NOT_CATALOGUED or (schema is not None and schema not in seen):
                seen.add(schema)
                left.append(source)
        return left


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


def _inspect(
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


def not_found(
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
    sources : sequence of Source
    roles : collection of str
        Roles looked for: "table", "series", "metadata".
    catalogs : CatalogProvider or None
        Provider that may list the tables without opening files.
    exact : bool
        The name is a path, not the end of one.
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
            return str(broken_table(source.name, *broken, one))
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
    shown = ", ".join("/" + name for name in existing[:_LISTED]) + (
        ", ..." if len(existing) > _LISTED else ""
    )
    which = f"no {one} matches /{table}" if is_pattern(table) else f"no {one} /{table}"
    return f"{which} in {where}{hint}; {many} there: {shown or 'none'}{partial}"
