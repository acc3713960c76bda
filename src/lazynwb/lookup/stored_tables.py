"""Tables with rows in the column store, of files that have not changed since."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

import polars as pl

from lazynwb.catalog.dtypes import RESERVED
from lazynwb.catalog.lengths import length_name
from lazynwb.catalog.model import Table
from lazynwb.column_store.compaction import add
from lazynwb.column_store.entries import Layout, Session, without_places
from lazynwb.column_store.reading import Pick, drop_lost
from lazynwb.column_store.store import Block, column_store
from lazynwb.config import config
from lazynwb.errors import LazyNWBError
from lazynwb.formats.nwb.names import OTHER_PATHS
from lazynwb.storage.source import ABSENT, map_concurrently

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
        Its path, without the leading slash.
    """
    return f"{table}\0{config.external_links}"


class StoredTable(NamedTuple):
    """One table of one file, as the column store knows it: checked to be that of the file as it is now.

    Attributes
    ----------
    source : Source
    session : Session
    layout : Layout
        Of the newest part that has the session.
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
        """Whether the file has no such table."""
        return self.layout.path is None

    @property
    def table(self) -> Table:
        """The table, without its columns."""
        assert self.layout.path is not None  # noqa: S101 - not asked for of a file without the table
        return Table(self.layout.path, self.layout.kind, self.session.rows, ())

    @property
    def problems(self) -> tuple[str, ...]:
        """Problems of the table that were repaired, or for which columns were left out."""
        return self.session.problems

    @property
    def columns(self) -> dict[str, Column]:
        """The columns of the table, without the places of their values."""
        return {column.name: column for column in self.layout.columns if column.name not in RESERVED}


class Cover(NamedTuple):
    """Where the values of some columns of one session are.

    Attributes
    ----------
    picks : tuple of Pick
        In the parts that hold them.
    absent : frozenset of str
        Columns that the table has and no part holds.
    """

    picks: tuple[Pick, ...]
    absent: frozenset[str]


class StoredValues(Protocol):
    """Small columns of one table of many files, in parts: of the column store, or of an index."""

    def find(self, sources: Sequence[Source]) -> list[StoredTable | None]:
        """Return the table of each source; None if nothing of it is stored, or not of the file as it is."""
        ...

    def cover(self, table: StoredTable, names: frozenset[str]) -> Cover:
        """Return where columns of a table are; names that the file does not have are left out."""
        ...

    def whole(self, sources: Sequence[Source], names: frozenset[str]) -> Sequence[StoredPart] | None:
        """Return the parts that hold columns of just these sources, in order, and of no other ones.

        Such parts have the types of the whole table, and `_nwb_path` and `_table_path` as columns. None if
        there are none.
        """
        ...

    def lost(self, error: PartLostError) -> None:
        """Take note of a part that is gone or damaged: what it holds is read from the files, or an error."""
        ...


class StoredTables:
    """The parts of the column store for one table of many files.

    Parameters
    ----------
    table : str
        Without the leading slash.

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

    def find(self, sources: Sequence[Source]) -> list[StoredTable | None]:
        """Return the table of each source; None if the store lacks it, or the file has changed."""
        keys = [source.key for source in sources]
        self._hold(keys)
        known = [at for at, key in enumerate(keys) if self._holders[key]]
        listed = [sources[at] for at in known]
        found: list[StoredTable | None] = [None] * len(sources)
        for at, one in zip(known, map_concurrently(self._find, listed, listed), strict=True):
            found[at] = one
        return found

    def _hold(self, keys: Iterable[str]) -> None:
        """Look up which parts have sessions, and where."""
        new = dict.fromkeys(keys).keys() - self._holders.keys()
        self._holders.update((key, []) for key in new)
        for part in self._parts:
            for key in new & part.ordinals.keys():
                self._holders[key].append((part, part.ordinals[key]))

    def has_all(self, sources: Iterable[Source]) -> bool:
        """Return whether something is stored of each source, maybe of an earlier state of the file."""
        return bool(self._parts) and all(
            any(source.key in part.ordinals for part in self._parts) for source in sources
        )

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
                continue  # whoever looks for the table may find it elsewhere
            if session.identity == now and all(
                source.with_path(path).identity_or_absent(known) == known for path, known in session.depends
            ):
                return StoredTable(source, session, part.layout(ordinal))
        return None

    def cover(self, table: StoredTable, names: frozenset[str]) -> Cover:
        """Return where columns of a table are.

        Parameters
        ----------
        table : StoredTable
        names : frozenset of str
            Those that the file does not have are left out.
        """
        picks: list[Pick] = []
        left = self._among(names, table.layout, is_stored=False)
        for part, ordinal in self._holders[table.session.key]:
            if not left:
                break
            if part.session(ordinal).identity != table.session.identity:
                continue
            found = self._among(left, part.layout(ordinal), is_stored=True)
            if found:
                picks.append(Pick(part, ordinal, found))
                left = left - found if found != left else frozenset()
        return Cover(tuple(picks), left)

    def whole(self, sources: Sequence[Source], names: frozenset[str]) -> None:
        """See `StoredValues`."""

    def lost(self, error: PartLostError) -> None:
        """Unpublish a part."""
        drop_lost(self.store, error)

    def _among(self, names: frozenset[str], layout: Layout, *, is_stored: bool) -> frozenset[str]:
        """Return those of some names that a table has, or that are stored; of many files it is the same."""
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
    """Return what the column store knows a file's table by; see `Layout` for the parameters."""
    table = file.table
    columns = tuple(without_places(column) for column in table.columns)
    return Layout(table.path, table.kind, columns, tuple(sorted(stored)))


def session_of(file: TableFile, layout: int) -> Session:
    """Return the column store's entry of a file whose table has a layout."""
    table = file.table
    return Session(file.source.key, file.identity, table.rows, layout, table.depends, file.problems)


def is_unchanging(file: TableFile) -> bool:
    """Return whether a change of a file from now on is certain to change its identity."""
    files = [(file.source, file.identity)]
    files += [(file.source.with_path(path), known) for path, known in file.table.depends if known != ABSENT]
    try:
        return all(source.is_settled(known, time.time_ns()) for source, known in files)
    except OSError:
        return False


def layout_block(table: str, files: Iterable[TableFile], without: Iterable[Source] = ()) -> Block | None:
    """Return the layouts of the tables of some files, without values; None if none may be stored.

    Parameters
    ----------
    table : str
        What the tables were asked for by, without the leading slash.
    files : iterable of TableFile
    without : iterable of Source
        Files that have no such table.
    """
    layouts: dict[Layout, int] = {}
    sessions = {
        file.source.key: session_of(file, layouts.setdefault(layout_of(file), len(layouts)))
        for file in files
        if is_unchanging(file)
    }
    if table not in OTHER_PATHS:  # a file may have the table elsewhere
        for source in without:
            identity = _identity_without(source, table)
            if identity is not None:
                layout = layouts.setdefault(Layout(None, "table", (), ()), len(layouts))
                sessions[source.key] = Session(source.key, identity, 0, layout)
    return Block(list(sessions.values()), list(layouts), pl.DataFrame()) if sessions else None


def _identity_without(source: Source, table: str) -> str | None:
    """Return the identity of a file that has no such table and may be remembered; else None."""
    from lazynwb.lookup.loader import identity_without

    try:
        identity = identity_without(source, table)
        if identity is not None and source.is_settled(identity, time.time_ns()):
            return identity
    except (LazyNWBError, OSError):
        pass
    return None


def store_layouts(table: str, files: Iterable[TableFile]) -> None:
    """Store the layouts of the tables of some files, without values; see `layout_block`."""
    store = column_store()
    if store.limit and (block := layout_block(table, files)) is not None:
        add(store, store_key(table), [block])
