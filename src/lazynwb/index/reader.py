"""Reader of an index: `open_index` and `Index`, with its catalogs and tables."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl

from lazynwb.config import config
from lazynwb.errors import LazyNWBError, SourceNotFoundError, TableNotFoundError
from lazynwb.index.location import RemovedFileError, damaged_error, open_folder
from lazynwb.index.manifest import MANIFEST, read_manifest
from lazynwb.index.value_files import ValueFiles
from lazynwb.lookup.providers import CatalogProvider
from lazynwb.lookup.schema import normalize_table_path
from lazynwb.storage.resolve import expand, resolve
from lazynwb.storage.source import Options, Source, is_url

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

    from lazynwb.index.manifest import Manifest, TableValues
    from lazynwb.index.model import Kind
    from lazynwb.index.snapshot import Snapshot, TableSummary
    from lazynwb.index.value_parts import ValueParts
    from lazynwb.lookup.loader import TableFile
    from lazynwb.lookup.providers import NotCatalogued
    from lazynwb.storage.resolve import Sources

T = TypeVar("T")


class Index(CatalogProvider):
    """An open index of sessions, from which `scan_nwb(index=...)` plans.

    It is thread-safe and can be pickled. Its state is that of the time when it was opened, or the current
    state if files of that state have been removed.

    Parameters
    ----------
    place : path or URL
        The folder that `build_index` wrote.
    storage_options : mapping or None
        Storage options of the index; as for `scan_nwb`.

    Raises
    ------
    SourceNotFoundError
        If the index does not exist.
    CorruptDataError
        If it is damaged.
    """

    def __init__(
        self, place: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None
    ) -> None:
        self._given = os.fspath(place), dict(storage_options or {})
        self._folder = open_folder(place, storage_options)
        self._lock = threading.Lock()
        self._manifest = read_manifest(self._folder)
        self._snapshot: Snapshot | None = None

    def __reduce__(self) -> tuple[type[Index], tuple[str, dict[str, Any]]]:
        return Index, self._given

    def __repr__(self) -> str:
        """Return the location and the number of sessions."""
        return f"<Index: {self.name}, {len(self):,} sessions>"

    def __len__(self) -> int:
        """Return the number of sessions."""
        return self.manifest.sessions

    @property
    def name(self) -> str:
        """The path or URL of the index, without secrets."""
        return self._folder.name

    @property
    def manifest(self) -> Manifest:
        """The current manifest."""
        return self._manifest

    @property
    def _state(self) -> Snapshot:
        """The state that the current manifest describes, which scans of values do not need."""
        with self._lock:
            if self._snapshot is None:
                from lazynwb.index.snapshot import Snapshot

                self._snapshot = Snapshot(self._folder, self._manifest)
            return self._snapshot

    def files(self, table: Kind) -> list[str]:
        """Return the Parquet files of one table ("sessions", "tables" or "columns"), for other tools.

        Other Parquet files in the folder are obsolete.
        """
        return [self._folder.address(part.file(table)) for part in self.manifest.parts]

    def value_files(self, table: str) -> list[str]:
        """Return the Parquet files with the small columns of a table, in the order of sessions.

        They are written by `build_index(values=...)`. Each row has `_nwb_path`.

        Parameters
        ----------
        table : str
            Path of the table, such as `"units"` or `"/intervals/trials"`.

        Raises
        ------
        TableNotFoundError
            If the index has no values of the table.
        """
        return [self._folder.address(file.name) for file in self.table_values(table).files]

    def table_values(self, table: str) -> TableValues:
        """Return the files with values of a table, and the sessions without values.

        Raises
        ------
        TableNotFoundError
            If the index has no values of the table.
        """
        path = normalize_table_path(table)
        known = {one.table: one for one in self.manifest.table_values}
        if path not in known:
            listed = ", ".join(f"/{one}" for one in known) or "none"
            raise TableNotFoundError(
                f"index {self.name} has no values of table /{path}; tables with values: {listed}; add them "
                f"with lazynwb.build_index(..., values={path!r})"
            )
        return known[path]

    # -- sources ------------------------------------------------------------------------------------------

    def sources(
        self, given: Sources | None = None, storage_options: Mapping[str, Any] | None = None
    ) -> list[Source]:
        """Return the sources of a scan: those that were passed, or all sources of the index.

        Raises
        ------
        LazyNWBError
            If a remote index contains local paths, or the index contains URLs of an unsupported kind.
        """
        if given is None:
            return self._with_snapshot(lambda state: state.sources(storage_options))
        known = self._with_snapshot(lambda state: state.numbers)
        options = Options({**config.storage_options, **(storage_options or {})})
        listed = [given] if isinstance(given, str | os.PathLike) else given
        if isinstance(listed, Source):
            return [listed]
        found: list[Source] = []
        for one in listed:
            text = os.fspath(one) if isinstance(one, str | os.PathLike) else None
            if isinstance(text, str) and text in known:
                # A path in the index is one file: it is not expanded as a folder or a pattern.
                found.append(resolve(text, options if is_url(text) else Options()))
            else:
                found += expand(one, storage_options)
        return found or expand([], storage_options)

    # -- catalogs -----------------------------------------------------------------------------------------

    def tables(self, sources: Sequence[Source], table: str) -> list[TableFile | NotCatalogued | None]:
        """Return the catalogs of one table; see `CatalogProvider`."""
        return self._with_snapshot(lambda state: state.tables(sources, table))

    def row_counts(self, sources: Sequence[Source], table: str) -> list[TableFile | NotCatalogued | None]:
        """Return catalogs for counting rows; see `CatalogProvider`."""
        return self._with_snapshot(lambda state: state.row_counts(sources, table))

    def schemas(self, sources: Sequence[Source], table: str) -> list[Hashable | NotCatalogued | None]:
        """Return fingerprints of the columns of a table; see `CatalogProvider`."""
        return self._with_snapshot(lambda state: state.schemas(sources, table))

    def stored_values(
        self, table: str, schema: Mapping[str, pl.DataType], overridden: frozenset[str]
    ) -> ValueParts | None:
        """Return the values of a table; see `CatalogProvider`."""
        return self._with_snapshot(
            lambda state: state.stored_values(table, schema, overridden, self._newer_snapshot)
        )

    def table_paths(self) -> list[str]:
        """Return the paths of all tables; see `CatalogProvider`."""
        return self._with_snapshot(lambda state: state.table_paths())

    def metadata(
        self, sources: Sequence[Source], table: str, schema: Mapping[str, pl.DataType]
    ) -> pl.DataFrame | None:
        """Return session metadata; see `CatalogProvider`."""
        return self._with_snapshot(lambda state: state.metadata(sources, table, schema))

    def sources_by_table(
        self, sources: Sequence[Source], *, series: bool
    ) -> tuple[dict[str, list[Source]], list[Source]]:
        """Return the files with each table, and the files without a catalog; see `CatalogProvider`."""
        return self._with_snapshot(lambda state: state.sources_by_table(sources, series=series))

    def session_values(
        self, sources: Sequence[Source], fields: Sequence[tuple[str, str]]
    ) -> tuple[list[int], dict[tuple[str, str], pl.Series]]:
        """Return values of sessions.

        Parameters
        ----------
        sources : sequence of Source
            Files of the scan.
        fields : sequence of (str, str)
            Table ("general" or "general/subject") and name of a value; or an empty string and a column of the
            table "sessions".

        Returns
        -------
        list of int
            Positions in `sources` of the sources that are in the index, in any order.
        dict of (str, str) to Series
            Values in the same order; of type Null if no session has the value.
        """
        return self._with_snapshot(lambda state: state.session_values(sources, fields))

    def summaries(self, sources: Sequence[Source]) -> dict[Source, list[TableSummary]]:
        """Return the tables of the sources that are in the index."""
        return self._with_snapshot(lambda state: state.summaries(sources))

    # -- tables -------------------------------------------------------------------------------------------

    def value_schema(self, table: str) -> dict[str, pl.DataType]:
        """Return the schema of the values of a table, without the first column, which is internal."""
        return ValueFiles(self._folder, self.table_values(table)).schema

    def value_batches(
        self, table: str, with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None
    ) -> Iterator[pl.DataFrame]:
        """Yield the values of a table; see `batches`."""
        files = ValueFiles(self._folder, self.table_values(table))
        try:
            yield from files.batches(with_columns, predicate, n_rows)
        except SourceNotFoundError:
            raise LazyNWBError(
                f"index {self.name} was updated during the query: open the index and run the query again"
            ) from None

    def schema(self, table: Kind) -> dict[str, pl.DataType]:
        """Return the schema of a table."""
        from lazynwb.index.model import SCHEMAS

        own = {name: dtype for name, dtype in SCHEMAS[table].items() if not name.startswith("_")}
        return {**own, **self._state.values.schema} if table == "sessions" else own

    def batches(
        self, table: Kind, with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None
    ) -> Iterator[pl.DataFrame]:
        """Yield the rows of a table, a frame per part; the parameters are those of `engine.batches.run`."""
        schema = self.schema(table)
        names = with_columns if with_columns is not None else list(schema)
        filtering = predicate.meta.root_names() if predicate is not None else []
        needed = list(dict.fromkeys([*names, *filtering]))
        left = n_rows
        for frame in self._frames(table, needed):
            if left is not None and left <= 0:
                break
            if left is not None:
                frame = frame.head(left)  # noqa: PLW2901 - the same rows, limited
                left -= len(frame)
            if predicate is not None:
                frame = frame.filter(predicate)  # noqa: PLW2901 - the same rows, filtered
            if len(frame):
                yield pl.DataFrame([frame[name] for name in names])
        yield pl.DataFrame(schema={name: schema[name] for name in names})

    def _frames(self, table: Kind, names: list[str]) -> Iterator[pl.DataFrame]:
        """Yield columns of a table part by part, all from the same state."""
        state, number = self._state, 0
        while number < len(state.manifest.parts):
            try:
                frame = state.frame(number, table, names)
            except RemovedFileError as error:
                if number:
                    raise LazyNWBError(
                        f"index {self.name} was updated more than once during the query: run the query again"
                    ) from None
                state = self._newer_snapshot(state, error)
                continue
            yield frame
            number += 1

    def _with_snapshot(self, work: Callable[[Snapshot], T]) -> T:
        """Call a function with the current state, or with the next one if files have been removed."""
        state = self._state
        while True:
            try:
                return work(state)
            except RemovedFileError as error:
                state = self._newer_snapshot(state, error)

    def _newer_snapshot(self, state: Snapshot, error: RemovedFileError) -> Snapshot:
        """Return the state that has replaced a state with removed files."""
        with self._lock:
            if self._snapshot is state:
                manifest = read_manifest(self._folder)
                if manifest.token == state.manifest.token:
                    raise damaged_error(self._folder, MANIFEST, error) from None
                self._manifest, self._snapshot = manifest, None
        return self._state


def open_index(
    index: Index | str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None
) -> Index:
    """Open an index of sessions for any number of scans.

    Parameters
    ----------
    index : path or URL
        The folder that `build_index` wrote; an open index is returned unchanged.
    storage_options : mapping or None
        As for `scan_nwb`.

    Returns
    -------
    Index
        An object that `scan_nwb`, `scan_sessions` and `get_sql_context` accept as `index`.

    Raises
    ------
    SourceNotFoundError
        If the index does not exist.
    CorruptDataError
        If it is damaged.
    """
    return index if isinstance(index, Index) else Index(index, storage_options)
