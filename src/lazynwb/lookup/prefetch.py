"""Prefetch of tables of many files: remote files are parsed ahead, catalogs of a provider are reused."""

from __future__ import annotations

from collections import deque
from concurrent.futures import CancelledError
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from lazynwb.config import config
from lazynwb.errors import LazyNWBError
from lazynwb.formats.registry import is_zarr
from lazynwb.lookup.loader import SharedReader, TableFile, load_table
from lazynwb.lookup.providers import NOT_CATALOGUED
from lazynwb.storage.remote_state import prefetch
from lazynwb.threads import LOADERS, ForkSafeLock, wait

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from concurrent.futures import Future

    from lazynwb.lookup.providers import CatalogProvider, NotCatalogued
    from lazynwb.storage.source import Source

#: Maximum number of remote files that are parsed ahead.
_MAX_AHEAD = 32
#: Maximum number of tables of one file that are parsed together.
_MAX_GROUP = 64
#: Numbers of files per call of a catalog provider, which grow from the first to the last call.
_MIN_BATCH, _MAX_BATCH = 16, 1024


def load_tables(
    sources: Iterable[Source],
    table_path: str,
    catalogs: CatalogProvider | None = None,
    *,
    reading: bool | None = None,
) -> Iterator[Callable[[], TableFile | None]]:
    """Yield for each source, in order, a function that returns its table as `load_table` does.

    Files with a catalog in `catalogs` are not opened. With `reading=True` their identities are verified; with
    `reading=False` (counting of rows) their tables may lack columns.

    Remote files are parsed ahead because of their latency. Running parses are not stopped when the iterator
    is closed: the schema of the first file is usually followed by a query on all files.
    """
    return load_pairs([(source, table_path) for source in sources], catalogs, reading=reading)


def load_pairs(
    pairs: Sequence[tuple[Source, str]],
    catalogs: CatalogProvider | None = None,
    *,
    reading: bool | None = None,
    columns: Collection[str] = (),
) -> Iterator[Callable[[], TableFile | None]]:
    """Yield for each pair of a source and a table path a function that loads the table; see `load_tables`.

    `columns` are the columns to read; see `load_table`.
    """
    if catalogs is not None:
        yield from _load_with_catalogs(pairs, catalogs, reading=reading, columns=columns)
        return
    prefetch(dict.fromkeys(source for source, _ in pairs))
    ahead: deque[Callable[[], TableFile | None]] = deque()
    started: list[Future[Any]] = []
    try:
        for source, tables in _group_by_source(pairs):
            table_path = tables[0]
            if len(tables) > 1:
                group = _TableGroup(source, tables, columns)
                if source.is_remote:
                    started.append(group.start())
                ahead += [partial(group.get, number) for number in range(len(tables))]
            elif source.is_remote:
                future, is_own = _start(source, table_path, columns)
                started.append(future)
                ahead.append(partial(_finish, future, source, table_path, is_own=is_own))
            else:
                ahead.append(partial(load_table, source, table_path, columns))
            while ahead and (not source.is_remote or len(ahead) >= _MAX_AHEAD * len(tables)):
                yield ahead.popleft()
        while ahead:
            yield ahead.popleft()
    finally:
        for future in started:
            future.cancel()


def _group_by_source(pairs: Iterable[tuple[Source, str]]) -> Iterator[tuple[Source, list[str]]]:
    """Yield each source with the paths of its consecutive tables, in groups of limited size."""
    for source, own in groupby(pairs, key=itemgetter(0)):
        tables = [table for _, table in own]
        for start in range(0, len(tables), _MAX_GROUP):
            yield source, tables[start : start + _MAX_GROUP]


class _TableGroup:
    """Tables of one file that are parsed together when the first of them is requested."""

    def __init__(self, source: Source, tables: list[str], columns: Collection[str]) -> None:
        self._source = source
        self._tables = tables
        self._columns = columns
        self._found: list[TableFile | LazyNWBError | None] | None = None
        self._future: Future[list[TableFile | LazyNWBError | None]] | None = None

    def start(self) -> Future[list[TableFile | LazyNWBError | None]]:
        """Parse the tables on another thread."""
        self._future = LOADERS.submit(self._load)
        return self._future

    def get(self, number: int) -> TableFile | None:
        """Return one of the tables, or raise its error."""
        if self._found is None:
            try:
                self._found = wait(self._future) if self._future is not None else self._load()
            except CancelledError:
                self._found = self._load()
        found = self._found[number]
        if isinstance(found, LazyNWBError):
            raise found
        return found

    def _load(self) -> list[TableFile | LazyNWBError | None]:
        found: list[TableFile | LazyNWBError | None] = []
        with SharedReader() as shared:
            for table in self._tables:
                try:
                    found.append(load_table(self._source, table, self._columns, shared))
                except LazyNWBError as error:
                    found.append(error)
        return found


def _load_with_catalogs(
    pairs: Sequence[tuple[Source, str]],
    catalogs: CatalogProvider,
    *,
    reading: bool | None,
    columns: Collection[str],
) -> Iterator[Callable[[], TableFile | None]]:
    start, size = 0, _MIN_BATCH
    while start < len(pairs):
        block = pairs[start : start + size]
        start, size = start + size, min(size * 4, _MAX_BATCH)
        catalog_tables = _provided(block, catalogs, reading=reading)
        others = [pair for pair, file in zip(block, catalog_tables, strict=True) if file is NOT_CATALOGUED]
        rest = load_pairs(others, columns=columns)
        checked = _verified([file for file in catalog_tables if reading and isinstance(file, TableFile)])
        for file in catalog_tables:
            if file is NOT_CATALOGUED:
                yield next(rest)
            else:
                yield partial(_unchanged, file) if file is None or not reading else next(checked)


def _provided(
    pairs: Sequence[tuple[Source, str]], catalogs: CatalogProvider, *, reading: bool | None
) -> list[TableFile | NotCatalogued | None]:
    """Return the catalogs of a provider, with one call per table path."""
    numbers: dict[str, list[int]] = {}
    for number, (_, table_path) in enumerate(pairs):
        numbers.setdefault(table_path, []).append(number)
    found: list[TableFile | NotCatalogued | None] = [None] * len(pairs)
    for table_path, own in numbers.items():
        block = [pairs[number][0] for number in own]
        if reading is False:
            catalog_tables = catalogs.row_counts(block, table_path)
        else:
            catalog_tables = catalogs.tables(block, table_path)
        for number, file in zip(own, catalog_tables, strict=True):
            found[number] = file
    return found


def _verified(files: list[TableFile]) -> Iterator[Callable[[], TableFile | None]]:
    """Yield for each catalog a function that verifies it and returns the up-to-date table."""
    started: deque[Callable[[], TableFile | None]] = deque()
    for file in files:
        sends_request = file.source.is_remote and _may_change_unnoticed(file)
        started.append(
            partial(wait, LOADERS.submit(_verify, file)) if sends_request else partial(_verify, file)
        )
        if len(started) > (_MAX_AHEAD if file.source.is_remote else 0):
            yield started.popleft()
    yield from started


def _verify(file: TableFile) -> TableFile | None:
    """Return the table of a catalog, loaded again if the file has changed.

    Files whose reads detect changes are not verified here.
    """
    if not _may_change_unnoticed(file) or file.is_valid(file.source.identity(known=file.identity)):
        return file
    found = load_table(file.source, file.table.path)
    if found is not None:
        found.is_reloaded = True
    return found


def _may_change_unnoticed(file: TableFile) -> bool:
    return file.is_provided and (is_zarr(file.source) or not file.source.read_reveals_change(file.identity))


def _unchanged(file: TableFile | None) -> TableFile | None:
    return file


_running: dict[tuple[Source, str, str], Future[TableFile | None]] = {}
_lock = ForkSafeLock(after_fork=_running.clear)


def _start(
    source: Source, table_path: str, columns: Collection[str]
) -> tuple[Future[TableFile | None], bool]:
    """Start to load a table on another thread; return the future, and whether this call has started it."""
    key = (source, table_path, config.external_links)
    with _lock:
        future = _running.get(key)
        is_own = future is None or future.done()
        if future is None or is_own:
            future = _running[key] = LOADERS.submit(load_table, source, table_path, columns)
            future.add_done_callback(lambda _: _running.pop(key, None))
    return future, is_own


def _finish(
    future: Future[TableFile | None], source: Source, table_path: str, *, is_own: bool
) -> TableFile | None:
    try:
        return wait(future)
    except CancelledError:  # by another query that ended early
        return load_table(source, table_path)
    except LazyNWBError:
        if is_own:
            raise
        return load_table(source, table_path)  # the error of another query may have been temporary
    except KeyboardInterrupt:
        _running.clear()  # later queries do not wait for interrupted loads
        raise
