"""Snapshots of an index: the state that one manifest describes, read on demand."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from functools import cache, cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import polars as pl

from lazynwb.catalog.dtypes import NWB_PATH
from lazynwb.catalog.merge import conform
from lazynwb.catalog.model import CATALOG_VERSION, Table
from lazynwb.config import config
from lazynwb.errors import LazyNWBError, SourceNotFoundError
from lazynwb.formats.nwb.names import OTHER_PATHS, SERIES_MEMBERS
from lazynwb.index.location import RemovedFileError, damaged_error
from lazynwb.index.manifest import ENTRIES
from lazynwb.index.model import ATTRIBUTES, SCHEMAS, SESSIONS, MetadataColumns
from lazynwb.index.part_io import MAX_BLOCK_BYTES, read_block, read_frame
from lazynwb.index.value_parts import TableParts, ValueParts, is_removed
from lazynwb.lookup.providers import NOT_CATALOGUED
from lazynwb.profile import count
from lazynwb.storage.resolve import resolve
from lazynwb.storage.source import Options, Source, is_url
from lazynwb.struct_decoders import msgpack_decoder

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

    from lazynwb.column_store.reading import PartLostError
    from lazynwb.index.location import Folder
    from lazynwb.index.manifest import Manifest, Part
    from lazynwb.index.model import Kind
    from lazynwb.lookup.loader import Entry, TableFile
    from lazynwb.lookup.providers import NotCatalogued

#: Maximum numbers of cached tables of parts, and of cached blocks of entries.
_MAX_TABLES, _MAX_BLOCKS = 256, 8
_KINDS = frozenset({"table", "series", "metadata"})


class TableSummary(NamedTuple):
    """One table of a session: path, kind, and numbers of rows and columns (None if unknown)."""

    path: str
    kind: str | None
    rows: int | None
    columns: int | None


class _Rows:
    """The rows of one table in a part.

    Parameters
    ----------
    frame : DataFrame
        A row for each session that has the table; `_at` is its number in the part.
    """

    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame = frame

    @cached_property
    def places(self) -> dict[int, int]:
        """The row of each session, by its number in the part."""
        return {number: at for at, number in enumerate(self._frame["_at"].to_list())}

    @cached_property
    def kinds(self) -> list[Any]:
        """Kinds of the tables; None where a table could not be described."""
        return self._frame["kind"].to_list()

    @cached_property
    def counts(self) -> list[int | None]:
        """Numbers of rows."""
        return self._frame["rows"].to_list()

    @cached_property
    def fingerprints(self) -> list[int]:
        """Fingerprints of the columns of the tables."""
        return self._frame["_fingerprint"].to_list()

    def entry(self, at: int) -> tuple[int, int, int]:
        """Return the location of an entry: first byte and size of its block, and its row in the block."""
        return self._entries[at]

    @cached_property
    def _entries(self) -> list[tuple[int, int, int]]:
        return self._frame.select("_offset", "_size", "_row").rows()


class _TableLocation(NamedTuple):
    """The location of a session's table in a part, with the path of the table in the file."""

    path: str
    rows: _Rows
    at: int


@cache
def entry_decoder() -> msgspec.msgpack.Decoder[Entry]:
    """Return the decoder of catalog entries."""
    from lazynwb.lookup.loader import Entry

    return msgpack_decoder(Entry)


class Snapshot:
    """The state of an index under one manifest."""

    def __init__(self, folder: Folder, manifest: Manifest) -> None:
        self._folder = folder
        self.manifest = manifest
        self.values = MetadataColumns(self.manifest.values)
        self._lock = threading.RLock()
        self._tables: OrderedDict[tuple[int, str], _Rows | None] = OrderedDict()
        self._frames: OrderedDict[int, pl.DataFrame] = OrderedDict()
        self._blocks: OrderedDict[tuple[int, int, int], pl.Series] = OrderedDict()
        self._value_parts: dict[str, TableParts | None] = {}
        self._sessions: pl.DataFrame | None = None
        self._numbers: dict[str, int] = {}
        self._links: dict[int, list[str]] = {}
        self._starts = [0, *accumulate(part.sessions for part in self.manifest.parts)]

    def frame(self, number: int, kind: Kind, names: list[str]) -> pl.DataFrame:
        """Return columns of a part's table, in the merged types of the index."""
        part = self.manifest.parts[number]
        own = SCHEMAS[kind]
        # Older parts may lack columns of later sessions.
        return self._published(self._read(part, kind, names if set(names) <= set(own) else None), kind, names)

    def _published(self, stored: pl.DataFrame, kind: Kind, names: list[str]) -> pl.DataFrame:
        """Return columns of rows of a part's table, in the merged types of the index."""
        own = SCHEMAS[kind]
        metadata = self.values.schema if kind == "sessions" else {}
        columns = []
        for name in names:
            if name in own:
                columns.append(stored[name])
            elif name in stored.columns:
                columns.append(self.values.as_published(name, stored[name]))
            else:
                columns.append(pl.Series(name, [None] * len(stored), dtype=metadata[name]))
        return pl.DataFrame(columns)

    def _read(self, part: Part, kind: Kind, columns: list[str] | None) -> pl.DataFrame:
        try:
            return read_frame(self._folder, part, kind, columns)
        except SourceNotFoundError as error:
            raise RemovedFileError(str(error)) from None

    def table_parts(self, table: str) -> TableParts | None:
        """Return the value files of a table; None if there are none."""
        with self._lock:
            if table not in self._value_parts:
                values = next((one for one in self.manifest.table_values if one.table == table), None)
                try:
                    found = TableParts(self._folder, values, self.identities) if values is not None else None
                except SourceNotFoundError as error:
                    raise RemovedFileError(str(error)) from None
                self._value_parts[table] = found
            return self._value_parts[table]

    def stored_values(
        self,
        table: str,
        schema: Mapping[str, pl.DataType],
        overridden: frozenset[str],
        on_gone: Callable[[Snapshot, RemovedFileError], object] | None = None,
    ) -> ValueParts | None:
        """Return the values of a table; see `Index`.

        Parameters
        ----------
        table, schema, overridden
            See `CatalogProvider`.
        on_gone : callable or None
            Called with this state if a file of it has been removed.
        """
        if self.manifest.catalog_version != CATALOG_VERSION:
            return None
        found = self.table_parts(table)
        if found is None:
            return None

        def on_loss(error: PartLostError) -> None:
            if not is_removed(self._folder, error.part.path.as_posix()):
                raise damaged_error(self._folder, error.part.path.as_posix(), error) from None
            if on_gone is not None:
                on_gone(self, RemovedFileError(str(error)))

        return ValueParts(
            table,
            found,
            schema,
            overridden,
            links_as_built=self.manifest.external_links == config.external_links,
            lacks=lambda sources: all(one is None for one in self.schemas(sources, table)),
            on_loss=on_loss,
        )

    # -- sources ------------------------------------------------------------------------------------------

    @property
    def numbers(self) -> dict[str, int]:
        """Numbers of the sessions by path."""
        self._known()
        return self._numbers

    @property
    def identities(self) -> dict[str, str | None]:
        """Identities of the sessions by path; None for sessions without a valid catalog."""
        known = self._known()
        return dict(zip(known["path"].to_list(), known["identity"].to_list(), strict=True))

    def _known(self) -> pl.DataFrame:
        """Return paths and identities of all sessions."""
        with self._lock:
            if self._sessions is None:
                names = ["path", "identity", "_links"]
                empty = pl.DataFrame(schema={name: SESSIONS[name] for name in names})
                frames = [self._read(part, "sessions", names) for part in self.manifest.parts]
                found = pl.concat([empty, *frames])
                if found["path"].null_count():
                    raise damaged_error(self._folder, "sessions", "a session has no path")
                linked = found.with_row_index("_at").filter(pl.col("_links").list.len() > 0)
                self._links = dict(linked.select("_at", "_links").iter_rows())
                self._numbers = dict(zip(found["path"].to_list(), range(len(found)), strict=True))
                self._sessions = found.drop("_links")
            return self._sessions

    def sources(self, storage_options: Mapping[str, Any] | None) -> list[Source]:
        """Return the files of all sessions."""
        known = self._known()["path"]
        options, none = Options({**config.storage_options, **(storage_options or {})}), Options()
        found = []
        # Local paths rarely contain a colon: only paths with a colon are examined one by one.
        is_plain = not known.str.contains(":", literal=True).any() and known.str.starts_with("/").all()
        if is_plain and os.sep == "/" and not self._folder.is_remote:
            found = [resolve(path, none) for path in known.to_list()]
            known = known.clear()
        for path in known.to_list():
            remote = is_url(path)
            found.append(resolve(path, options if remote else none))
            if remote:
                from lazynwb.storage.stores.registry import SCHEMES

                if path.partition("://")[0].lower() not in SCHEMES:
                    raise damaged_error(self._folder, "sessions", f"{path[:80]!r} is not a supported URL")
            elif self._folder.is_remote:
                raise LazyNWBError(
                    f"index {self._folder.name} is remote but contains the local path {path!r}: build it "
                    "from URLs, or copy the index to the machine of the files"
                )
            elif not os.path.isabs(path):  # noqa: PTH117 - of very many
                raise damaged_error(self._folder, "sessions", f"{path[:80]!r} is not an absolute path")
        if not found:
            raise SourceNotFoundError(
                f"index {self._folder.name} has no sessions: add some with lazynwb.update_index"
            )
        return found

    def _session_numbers(self, sources: Sequence[Source]) -> list[int]:
        """Return the session numbers of sources; -1 for sources without a valid catalog."""
        identities = self._known()["identity"]
        numbers = self._numbers
        found = [numbers.get(source.path, -1) for source in sources]
        if -1 in found:  # signatures and passwords are not in the index
            found = [
                number if number >= 0 else numbers.get(source.public, -1)
                for number, source in zip(found, sources, strict=True)
            ]
        if identities.null_count():
            unsure = set(identities.is_null().arg_true().to_list())
            found = [-1 if number in unsure else number for number in found]
        return found

    # -- tables -------------------------------------------------------------------------------------------

    def _part_of(self, number: int) -> int:
        return bisect_right(self._starts, number) - 1

    def _rows(self, part: int, table: str) -> _Rows | None:
        with self._lock:
            if (part, table) in self._tables:
                self._tables.move_to_end((part, table))
                return self._tables[part, table]
        stored = self._frame_of_tables(part, table)
        paths = self._known()["path"].slice(self._starts[part], self.manifest.parts[part].sessions)
        places = pl.DataFrame({"path": paths}).with_row_index("_at")
        found = stored.join(places, on="path", how="inner")
        rows = _Rows(found) if len(found) else None
        with self._lock:
            self._tables[part, table] = rows
            while len(self._tables) > _MAX_TABLES:
                self._tables.popitem(last=False)
        return rows

    def _frame_of_tables(self, part: int, table: str) -> pl.DataFrame:
        names = ["path", "table", "kind", "rows", "_fingerprint", "_offset", "_size", "_row"]
        return self._read(self.manifest.parts[part], "tables", names).filter(pl.col("table") == table)

    def _locate_tables(
        self, sources: Sequence[Source], table: str
    ) -> Iterator[tuple[int, int, _TableLocation | None]]:
        """Yield for each source its session number, its part, and the location of its table in the part.

        The numbers are -1 for sources without a catalog; the location is None if the table is not listed.
        """
        self._check()
        starts = self._starts
        paths = _paths_of(table)
        part = -1
        listed: list[tuple[str, _Rows]] = []
        for number in self._session_numbers(sources):
            if number < 0:
                yield -1, -1, None
                continue
            if part < 0 or not starts[part] <= number < starts[part + 1]:
                part = self._part_of(number)
                listed = [(path, rows) for path in paths if (rows := self._rows(part, path)) is not None]
            places = (
                _TableLocation(path, rows, rows.places[number - starts[part]])
                for path, rows in listed
                if number - starts[part] in rows.places
            )
            yield number, part, next(places, None)

    def tables(self, sources: Sequence[Source], table: str) -> list[TableFile | NotCatalogued | None]:
        """See `Index`."""
        identities = self._known()["identity"]
        from lazynwb.lookup.loader import TableFile

        found: list[TableFile | NotCatalogued | None] = []
        for source, (number, part, one) in zip(sources, self._locate_tables(sources, table), strict=True):
            if number < 0:
                found.append(NOT_CATALOGUED)
            elif one is None:
                found.append(self._absent(number, table))
            elif one.rows.kinds[one.at] is None:
                found.append(NOT_CATALOGUED)
            else:
                found.append(self._entry(source, identities[number], part, one.rows.entry(one.at), one.path))
        parent, _, last = table.rpartition("/")
        if last not in SERIES_MEMBERS or not parent:
            return found
        # Members of a series are not listed separately.
        open_ = [at for at, one in enumerate(found) if one is NOT_CATALOGUED]
        for at, series in zip(open_, self.tables([sources[at] for at in open_], parent), strict=True):
            if isinstance(series, TableFile) and series.table.kind == "series" and last in series.columns:
                found[at] = series
        return found

    def row_counts(self, sources: Sequence[Source], table: str) -> list[TableFile | NotCatalogued | None]:
        """See `Index`."""
        if self.manifest.external_links != config.external_links:
            return self.tables(sources, table)
        from lazynwb.index.validate import is_row_count
        from lazynwb.lookup.loader import Entry, TableFile, entry_key

        identities = self._known()["identity"]
        found: list[TableFile | NotCatalogued | None] = []
        for source, (number, _, one) in zip(sources, self._locate_tables(sources, table), strict=True):
            if number < 0:
                found.append(NOT_CATALOGUED)
                continue
            if one is None:
                found.append(self._absent(number, table))
                continue
            kind, rows = one.rows.kinds[one.at], one.rows.counts[one.at]
            if kind not in _KINDS or rows is None or not is_row_count(rows):
                found.append(NOT_CATALOGUED)
            else:
                counted = Table(one.path, kind, rows, ())
                entry = Entry(entry_key("table", source, one.path), identities[number], counted, {})
                found.append(TableFile(source, entry, is_provided=True))
        return found

    def schemas(self, sources: Sequence[Source], table: str) -> list[Hashable | NotCatalogued | None]:
        """See `Index`."""
        self._check()
        found: list[Hashable | NotCatalogued | None] = []
        by_part: dict[int, list[Hashable | NotCatalogued | None]] = {}
        own: list[Hashable | NotCatalogued | None] = []
        low = high = 0
        for number in self._session_numbers(sources):
            if number < 0:
                found.append(NOT_CATALOGUED)
                continue
            if not low <= number < high:
                part = self._part_of(number)
                low, high = self._starts[part], self._starts[part + 1]
                own = by_part.get(part) or by_part.setdefault(part, self._schemas_of(part, table))
            found.append(own[number - low])
        return found

    def _schemas_of(self, part: int, table: str) -> list[Hashable | NotCatalogued | None]:
        """Return the schema keys of the sessions of a part; see `schemas`."""
        start, stop = self._starts[part], self._starts[part + 1]
        found: list[Hashable | NotCatalogued | None] = [self._absent(-1, table)] * (stop - start)
        for number in self._links:
            if start <= number < stop:
                found[number - start] = self._absent(number, table)
        for path in reversed(_paths_of(table)):
            rows = self._rows(part, path)
            if rows is not None:
                kinds, keys = rows.kinds, rows.fingerprints
                for number, at in rows.places.items():
                    found[number] = NOT_CATALOGUED if kinds[at] is None else keys[at]
        return found

    def _absent(self, number: int, table: str) -> NotCatalogued | None:
        """Return None if a session is certain to lack an unlisted table, else NOT_CATALOGUED."""
        parent, _, last = table.rpartition("/")
        if (last in SERIES_MEMBERS and parent) or table == "/":  # the root group is not listed as a table
            return NOT_CATALOGUED
        for link in self._links.get(number, ()):
            if not link or table == link or table.startswith(link + "/"):
                return NOT_CATALOGUED
        return None

    def _entry(
        self, source: Source, identity: str, part: int, place: tuple[int, int, int], table: str
    ) -> TableFile | NotCatalogued:
        from lazynwb.index.validate import is_valid_table
        from lazynwb.lookup.loader import TableFile, entry_key

        try:
            data = self._block(part, place[0], place[1])[place[2]]
            entry = entry_decoder().decode(data)
        except (IndexError, OverflowError, TypeError, msgspec.MsgspecError, RecursionError) as error:
            raise damaged_error(self._folder, self.manifest.parts[part].file(ENTRIES), error) from None
        count(cache_hits=1)
        if entry.table is None or entry.table.path != table or not is_valid_table(entry.table, entry.chunks):
            raise damaged_error(
                self._folder,
                self.manifest.parts[part].file(ENTRIES),
                f"the entry of /{table} in {source.name} is invalid",
            )
        linked = entry.table.depends or entry.table.problems
        if linked and self.manifest.external_links != config.external_links:
            return NOT_CATALOGUED
        if entry.table.depends and not _follows_links(source, [path for path, _ in entry.table.depends]):
            return NOT_CATALOGUED
        entry.key, entry.identity = entry_key("table", source, table), identity
        return TableFile(source, entry, is_provided=True)

    def _block(self, part: int, offset: int, size: int) -> pl.Series:
        key = part, offset, size
        with self._lock:
            if key in self._blocks:
                self._blocks.move_to_end(key)
                return self._blocks[key]
        one = self.manifest.parts[part]
        if offset < 0 or not 0 <= size <= MAX_BLOCK_BYTES or offset + size > one.bytes.get(ENTRIES, 0):
            raise damaged_error(
                self._folder, one.file(ENTRIES), "a block is outside the file, or is too large"
            )
        try:
            data = self._folder.read(one.file(ENTRIES), offset, offset + size)
        except SourceNotFoundError as error:
            raise RemovedFileError(str(error)) from None
        block = read_block(self._folder, data)
        with self._lock:
            self._blocks[key] = block
            while len(self._blocks) > _MAX_BLOCKS:
                self._blocks.popitem(last=False)
        return block

    def _check(self) -> None:
        """Raise LazyNWBError if the catalog version of the index differs from that of this package."""
        if self.manifest.catalog_version != CATALOG_VERSION:
            older = self.manifest.catalog_version < CATALOG_VERSION
            what = (
                "an earlier version of lazynwb: rebuild it (lazynwb.build_index)"
                if older
                else "a later version of lazynwb: upgrade lazynwb"
            )
            raise LazyNWBError(
                f"index {self._folder.name} was built by {what}; its tables can still be searched with "
                "lazynwb.scan_index"
            )

    def table_paths(self) -> list[str]:
        """See `Index`."""
        frames = [self._read(part, "tables", ["table"]).unique() for part in self.manifest.parts]
        return pl.concat(frames).to_series().unique().sort().to_list() if frames else []

    def sources_by_table(
        self, sources: Sequence[Source], *, series: bool
    ) -> tuple[dict[str, list[Source]], list[Source]]:
        """See `Index`."""
        self._check()
        by_number: dict[int, list[Source]] = {}
        unknown = []
        for source, number in zip(sources, self._session_numbers(sources), strict=True):
            if number < 0:
                unknown.append(source)
            else:
                by_number.setdefault(number, []).append(source)
        found: dict[str, list[Source]] = {}
        numbers = self._numbers
        for part in dict.fromkeys(map(self._part_of, sorted(by_number))):
            frame = self._read(self.manifest.parts[part], "tables", ["path", "table", "kind"])
            for path, table, kind in frame.iter_rows():
                if kind != "series" or series:
                    found.setdefault(table, []).extend(by_number.get(numbers.get(path, -1), ()))
        for number, links in self._links.items():
            for table in found.keys() & set(links):  # if the link is broken, the read raises the error
                found[table] += [s for s in by_number.get(number, ()) if s not in found[table]]
        order = {source: at for at, source in enumerate(sources)}
        return {t: sorted(having, key=order.__getitem__) for t, having in found.items() if having}, unknown

    def session_values(
        self, sources: Sequence[Source], fields: Sequence[tuple[str, str]]
    ) -> tuple[list[int], dict[tuple[str, str], pl.Series]]:
        """See `Index`."""
        located = self._session_numbers(sources)
        known = [at for at, number in enumerate(located) if number >= 0]
        columns: dict[tuple[str, str], str] = {}
        found: dict[tuple[str, str], list[pl.Series]] = {}
        for table, name in fields:
            value = self.values.find(table, name) if table else None
            if value is not None and value.exact:
                columns[table, name] = value.column
            elif not table:
                columns[table, name] = name
            elif value is None and name not in ATTRIBUTES:
                found[table, name] = [
                    pl.Series(name, [None] * len(known), dtype=pl.Null)
                ]  # no session has the value
        order: list[int] = []
        by_part: dict[int, list[int]] = {}
        for at in known:
            by_part.setdefault(self._part_of(located[at]), []).append(at)
        for part, own in by_part.items():
            stored = self._read(self.manifest.parts[part], "sessions", None)
            # Older parts may lack attributes.
            columns = {k: c for k, c in columns.items() if c in stored.columns or k[1] not in ATTRIBUTES}
            rows = stored[[located[at] - self._starts[part] for at in own]]
            frame = self._published(rows, "sessions", list(dict.fromkeys(columns.values())))
            for key, column in columns.items():
                found.setdefault(key, []).append(frame[column].alias(key[1]))
            order += own
        values = {
            key: pl.concat(pieces) for key, pieces in found.items() if sum(map(len, pieces)) == len(order)
        }
        return order, values

    def summaries(self, sources: Sequence[Source]) -> dict[Source, list[TableSummary]]:
        """See `Index`."""
        found: dict[Source, list[TableSummary]] = {}
        names = ["path", "table", "kind", "rows", "columns"]
        for part, own in self._by_part(sources).items():
            paths = self._known()["path"]
            by_path = {paths[number]: source for source, number in own}
            found |= {source: [] for source, _ in own}
            frame = self._read(self.manifest.parts[part], "tables", names)
            selected = frame.filter(pl.col("path").is_in(pl.Series(list(by_path), dtype=pl.String).implode()))
            for path, *summary in selected.sort("table").iter_rows():
                found[by_path[path]].append(TableSummary(*summary))
        return found

    def _by_part(self, sources: Sequence[Source]) -> dict[int, list[tuple[Source, int]]]:
        """Return the sources with a catalog and their session numbers, by part."""
        found: dict[int, list[tuple[Source, int]]] = {}
        for source, number in zip(sources, self._session_numbers(sources), strict=True):
            if number >= 0:
                found.setdefault(self._part_of(number), []).append((source, number))
        return found

    # -- metadata -----------------------------------------------------------------------------------------

    def metadata(
        self, sources: Sequence[Source], table: str, schema: Mapping[str, pl.DataType]
    ) -> pl.DataFrame | None:
        """See `Index`."""
        self._check()
        columns: dict[str, str] = {}
        for name in schema:
            value = self.values.find(table, name)
            if value is None or not value.exact:
                return None
            columns[name] = value.column
        located = list(zip(sources, self._session_numbers(sources), strict=True))
        if any(number < 0 for _, number in located):
            return None
        frames = []
        start = 0
        while start < len(located):
            part = self._part_of(located[start][1])
            stop = start
            low, high = self._starts[part], self._starts[part + 1]
            while stop < len(located) and low <= located[stop][1] < high:
                stop += 1
            stored = self.frame(part, "sessions", list(columns.values()))
            rows = stored[[number - low for _, number in located[start:stop]]]
            try:
                series = [conform(rows[c].alias(n), schema[n], "the index") for n, c in columns.items()]
            except LazyNWBError:
                return None  # a value does not fit the type: the files are read
            paths = pl.Series(NWB_PATH, [source.path for source, _ in located[start:stop]], dtype=pl.String)
            frames.append(pl.DataFrame([*series, paths]))
            start = stop
        return pl.concat(frames) if frames else None


def _paths_of(table: str) -> list[str]:
    """Return the paths that a table may have, the first one first."""
    return [table, OTHER_PATHS[table]] if table in OTHER_PATHS else [table]


def _follows_links(source: Source, linked: list[str]) -> bool:
    """Return whether links of a source to other files may be followed; see `Config.external_links`."""
    if config.external_links == "anywhere":
        return all(is_url(path) == source.is_remote for path in linked)
    if config.external_links == "never":
        return False
    return all(
        is_url(path) == source.is_remote and source.with_path(path).is_below_folder_of(source)
        for path in linked
    )
