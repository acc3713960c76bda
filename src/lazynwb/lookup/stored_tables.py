"""Tables in the column store whose files have not changed since they were stored."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

import polars as pl

from lazynwb.catalog.dtypes import RESERVED
from lazynwb.catalog.lengths import length_name
from lazynwb.catalog.model import Table
from lazynwb.column_store.compaction import add
from lazynwb.column_store.entries import Layout, Session, without_addresses
from lazynwb.column_store.reading import Pick, drop_lost
from lazynwb.column_store.store import Block, column_store
from lazynwb.config import config
from lazynwb.errors import LazyNWBError
from lazynwb.formats.nwb.names import OTHER_PATHS
from lazynwb.storage.source import ABSENT, map_concurrently
from lazynwb.threads import CACHE_WRITES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lazynwb.catalog.model import Column
    from lazynwb.column_store.entries import StoredPart
    from lazynwb.column_store.reading import PartLostError
    from lazynwb.lookup.loader import TableFile
    from lazynwb.storage.source import Source


def store_key(table: str) -> str:
    """Return the key of a table in the column store; see `catalog_cache` for the keys of files.

    Parameters
    ----------
    table : str
        Path without the leading slash.
    """
    return f"{table}\0{config.external_links}"


class StoredTable(NamedTuple):
    """One table of one file in the column store, whose identity has been verified.

    Attributes
    ----------
    source : Source
    session : Session
    layout : Layout
        Layout in the newest part that has the session.
    """

    source: Source
    session: Session
    layout: Layout

    @property
    def name(self) -> str:
        """Name of the file, for messages."""
        return self.source.name

    @property
    def is_absent(self) -> bool:
        """Whether the file lacks the table."""
        return self.layout.path is None

    @property
    def table(self) -> Table:
        """The table, without its columns."""
        assert self.layout.path is not None  # noqa: S101 - callers check `is_absent`
        return Table(self.layout.path, self.layout.kind, self.session.rows, ())

    @property
    def problems(self) -> tuple[str, ...]:
        """Problems of the table that were repaired or caused columns to be left out."""
        return self.session.problems

    @property
    def columns(self) -> dict[str, Column]:
        """The columns of the table, without the addresses of their values."""
        return {column.name: column for column in self.layout.columns if column.name not in RESERVED}


class Cover(NamedTuple):
    """The locations of the stored values of some columns of one session.

    Attributes
    ----------
    picks : tuple of Pick
        Locations in parts.
    absent : frozenset of str
        Columns of the table that no part contains.
    """

    picks: tuple[Pick, ...]
    absent: frozenset[str]


class StoredValues(Protocol):
    """Small columns of one table of many files, in parts of the column store or of an index."""

    def find(self, sources: Sequence[Source]) -> list[StoredTable | None]:
        """Return the table of each source; None if it is not stored, or the file has changed since."""
        ...

    def cover(self, table: StoredTable, names: frozenset[str]) -> Cover:
        """Return the locations of columns of a table; ignore names that the file lacks."""
        ...

    def whole(self, sources: Sequence[Source], names: frozenset[str]) -> Sequence[StoredPart] | None:
        """Return the parts that contain columns of exactly these sources, in this order; None otherwise.

        Such parts have the types of the merged schema, and the columns `_nwb_path` and `_table_path`.
        """
        ...

    def lost(self, error: PartLostError) -> None:
        """Handle a missing or damaged part: its values are read from the files, or an error is raised."""
        ...


class StoredTables:
    """The parts of the column store for one table of many files.

    Parameters
    ----------
    table : str
        Path without the leading slash.

    Attributes
    ----------
    store : ColumnStore
    """

    def __init__(self, table: str) -> None:
        self.store = column_store()
        self._table = table
        self._parts = self.store.parts_of(store_key(table))
        self._columns: dict[tuple[frozenset[str], int, bool], frozenset[str]] = {}
        #: The parts that have a session, the newest first, and its position in each.
        self._holders: dict[str, list[tuple[StoredPart, int]]] = {}
        self._used: set[StoredPart] = set()

    def find(self, sources: Sequence[Source]) -> list[StoredTable | None]:
        """Return the table of each source; None if the store lacks it, or the file has changed."""
        keys = [source.key for source in sources]
        self._locate_sessions(keys)
        known = [at for at, key in enumerate(keys) if self._holders[key]]
        listed = [sources[at] for at in known]
        found: list[StoredTable | None] = [None] * len(sources)
        for at, one in zip(known, map_concurrently(self._find, listed, listed), strict=True):
            found[at] = one
        return found

    def _locate_sessions(self, keys: Iterable[str]) -> None:
        """Look up which parts have sessions, and where."""
        new = dict.fromkeys(keys).keys() - self._holders.keys()
        self._holders.update((key, []) for key in new)
        for part in self._parts:
            for key in new & part.ordinals.keys():
                self._holders[key].append((part, part.ordinals[key]))

    def has_all(self, sources: Iterable[Source]) -> bool:
        """Return whether something is stored of each source, maybe of an earlier state of the file."""
        keys = [source.key for source in sources]
        self._locate_sessions(keys)
        return bool(self._parts) and all(self._holders[key] for key in keys)

    def _find(self, source: Source) -> StoredTable | None:
        holders = self._holders[source.key]
        try:
            part, ordinal = holders[0]
            now = source.identity(known=part.session(ordinal).identity)
        except LazyNWBError:
            return None  # the read raises the error
        for part, ordinal in holders:
            session = part.session(ordinal)
            if self._table in OTHER_PATHS and part.layout(ordinal).path != self._table:
                continue  # the file may have the table at another path
            if session.identity == now and all(
                source.with_path(path).identity_or_absent(known) == known for path, known in session.depends
            ):
                return StoredTable(source, session, part.layout(ordinal))
        return None

    def cover(self, table: StoredTable, names: frozenset[str]) -> Cover:
        """Return the locations of columns of a table.

        Parameters
        ----------
        table : StoredTable
        names : frozenset of str
            Names of columns; names that the file lacks are ignored.
        """
        picks: list[Pick] = []
        left = self._present_names(names, table.layout, is_stored=False)
        for part, ordinal in self._holders[table.session.key]:
            if not left:
                break
            if part.session(ordinal).identity != table.session.identity:
                continue
            found = self._present_names(left, part.layout(ordinal), is_stored=True)
            if found:
                picks.append(Pick(part, ordinal, found))
                if part not in self._used:
                    self._used.add(part)
                    self.store.note_use(part)
                left = left - found if found != left else frozenset()
        return Cover(tuple(picks), left)

    def whole(self, sources: Sequence[Source], names: frozenset[str]) -> None:
        """See `StoredValues`."""

    def lost(self, error: PartLostError) -> None:
        """Unpublish a part."""
        drop_lost(self.store, error)

    def _present_names(self, names: frozenset[str], layout: Layout, *, is_stored: bool) -> frozenset[str]:
        """Return the names that a layout has, or the stored ones; cached, as many files share layouts."""
        key = names, id(layout), is_stored
        found = self._columns.get(key)
        if found is None:
            if is_stored:
                found = names.intersection(layout.stored)
            else:
                own = [column.name for column in layout.columns if column.name not in RESERVED]
                found = names & {*own, *map(length_name, own)}
            self._columns[key] = found
        return found


def layout_of(file: TableFile, stored: Iterable[str] = ()) -> Layout:
    """Return the layout of a file's table in the column store; see `Layout` for the parameters."""
    table = file.table
    columns = tuple(without_addresses(column) for column in table.columns)
    return Layout(table.path, table.kind, columns, tuple(sorted(stored)))


def session_of(file: TableFile, layout: int) -> Session:
    """Return the session of a file in the column store, with the number of its layout."""
    table = file.table
    return Session(file.source.key, file.identity, table.rows, layout, table.depends, file.problems)


def is_unchanging(file: TableFile) -> bool:
    """Return whether any later change of a file is certain to change its identity."""
    files = [(file.source, file.identity)]
    files += [(file.source.with_path(path), known) for path, known in file.table.depends if known != ABSENT]
    try:
        return all(source.is_settled(known, time.time_ns()) for source, known in files)
    except OSError:
        return False


def layout_block(table: str, files: Iterable[TableFile], without: Iterable[Source] = ()) -> Block | None:
    """Return the layouts of the tables of some files, without values; None if none can be stored.

    Parameters
    ----------
    table : str
        Requested path, without the leading slash.
    files : iterable of TableFile
        Tables of files.
    without : iterable of Source
        Files that lack the table.
    """
    layouts: dict[Layout, int] = {}
    sessions = {
        file.source.key: session_of(file, layouts.setdefault(layout_of(file), len(layouts)))
        for file in files
        if is_unchanging(file)
    }
    if table not in OTHER_PATHS:  # the file may have the table at another path
        for source in without:
            identity = _identity_without(source, table)
            if identity is not None:
                layout = layouts.setdefault(Layout(None, "table", (), ()), len(layouts))
                sessions[source.key] = Session(source.key, identity, 0, layout)
    return Block(list(sessions.values()), list(layouts), pl.DataFrame()) if sessions else None


def _identity_without(source: Source, table: str) -> str | None:
    """Return the identity of a file that lacks the table, if it can be stored; else None."""
    from lazynwb.lookup.loader import identity_if_absent

    try:
        identity = identity_if_absent(source, table)
        if identity is not None and source.is_settled(identity, time.time_ns()):
            return identity
    except (LazyNWBError, OSError):
        pass
    return None


def store_layouts(table: str, files: Iterable[TableFile]) -> None:
    """Store the layouts of the tables of some files, without values; see `layout_block`.

    Queries of this process do not wait for them: they have the catalogs in memory.
    """
    store = column_store()
    if store.limit and (block := layout_block(table, files)) is not None:
        CACHE_WRITES.submit(partial(add, store, store_key(table), [block]))
