"""One table of many files: remote ones are looked at ahead, and what is known of files is taken as given."""

from __future__ import annotations

import os
import threading
from collections import deque
from concurrent.futures import CancelledError
from functools import partial
from typing import TYPE_CHECKING

from lazynwb.config import config
from lazynwb.errors import LazyNWBError
from lazynwb.formats.registry import is_zarr
from lazynwb.lookup.loader import TableFile, load_table
from lazynwb.lookup.providers import NOT_CATALOGUED
from lazynwb.storage.remote_state import prefetch
from lazynwb.threads import LOADERS, wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Future

    from lazynwb.lookup.providers import CatalogProvider, NotCatalogued
    from lazynwb.storage.source import Source

#: Remote files that are parsed ahead of the one that is waited for.
_MOST_AHEAD = 32
#: Files whose catalogs are asked for at once, of who has them already: few at first.
_LEAST_GIVEN, _MOST_GIVEN = 16, 1024

_lock = threading.Lock()


def _unlock() -> None:
    """Give a forked child a lock that no thread of its parent holds."""
    global _lock  # noqa: PLW0603 - there is nobody else in the child yet
    _lock = threading.Lock()
    _begun.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)


def load_tables(
    sources: Iterable[Source],
    table_path: str,
    catalogs: CatalogProvider | None = None,
    *,
    reading: bool | None = None,
) -> Iterator[Callable[[], TableFile | None]]:
    """Yield for each source, in order, a function that returns its table as `load_table` does.

    What `catalogs` know is taken from there, and the file is not looked at; if it is going to be read,
    whether it still is the one that they describe. With `reading=False` only the rows are counted, so that
    tables may come without their columns.

    Remote files are parsed while those before them are still looked at: their answers take long to come.
    Those that have begun when the iterator is closed go on, for whoever asks next: a schema that is taken
    from the first file is mostly followed by a query on all.
    """
    return load_pairs([(source, table_path) for source in sources], catalogs, reading=reading)


def load_pairs(
    pairs: Sequence[tuple[Source, str]],
    catalogs: CatalogProvider | None = None,
    *,
    reading: bool | None = None,
) -> Iterator[Callable[[], TableFile | None]]:
    """Yield for each pair of a source and the path of a table the same as `load_tables`."""
    if catalogs is not None:
        yield from _given_first(pairs, catalogs, reading=reading)
        return
    prefetch(dict.fromkeys(source for source, _ in pairs))
    ahead: deque[Callable[[], TableFile | None]] = deque()
    begun: list[Future[TableFile | None]] = []
    try:
        for source, table_path in pairs:
            if source.is_remote:
                future, is_own = _begin(source, table_path)
                begun.append(future)
                ahead.append(partial(_finish, future, source, table_path, is_own=is_own))
            else:
                ahead.append(partial(load_table, source, table_path))
            while ahead and (not source.is_remote or len(ahead) >= _MOST_AHEAD):
                yield ahead.popleft()
        while ahead:
            yield ahead.popleft()
    finally:
        for future in begun:
            future.cancel()


def _given_first(
    pairs: Sequence[tuple[Source, str]], catalogs: CatalogProvider, *, reading: bool | None
) -> Iterator[Callable[[], TableFile | None]]:
    start, size = 0, _LEAST_GIVEN
    while start < len(pairs):
        block = pairs[start : start + size]
        start, size = start + size, min(size * 4, _MOST_GIVEN)
        given = _given(block, catalogs, reading=reading)
        rest = load_pairs([pair for pair, file in zip(block, given, strict=True) if file is NOT_CATALOGUED])
        checked = _as_they_are([file for file in given if reading and isinstance(file, TableFile)])
        for file in given:
            if file is NOT_CATALOGUED:
                yield next(rest)
            else:
                yield partial(_as_given, file) if file is None or not reading else next(checked)


def _given(
    pairs: Sequence[tuple[Source, str]], catalogs: CatalogProvider, *, reading: bool | None
) -> list[TableFile | NotCatalogued | None]:
    """Return the catalogs that a provider has, asked for once for each path of a table."""
    numbers: dict[str, list[int]] = {}
    for number, (_, table_path) in enumerate(pairs):
        numbers.setdefault(table_path, []).append(number)
    found: list[TableFile | NotCatalogued | None] = [None] * len(pairs)
    for table_path, own in numbers.items():
        block = [pairs[number][0] for number in own]
        if reading is False:
            given = catalogs.row_counts(block, table_path)
        else:
            given = catalogs.tables(block, table_path)
        for number, file in zip(own, given, strict=True):
            found[number] = file
    return found


def _as_they_are(files: list[TableFile]) -> Iterator[Callable[[], TableFile | None]]:
    """Yield for each file that was given a function that returns its table as it is now."""
    begun: deque[Callable[[], TableFile | None]] = deque()
    for file in files:
        asks = file.source.is_remote and _may_change_unnoticed(file)
        begun.append(partial(wait, LOADERS.submit(_as_it_is, file)) if asks else partial(_as_it_is, file))
        if len(begun) > (_MOST_AHEAD if file.source.is_remote else 0):
            yield begun.popleft()
    yield from begun


def _as_it_is(file: TableFile) -> TableFile | None:
    """Return a table that was given, or the one that is in the place of it by now.

    Where the answers of a server tell a change by themselves, they are left to do so.
    """
    if not _may_change_unnoticed(file) or file.is_valid(file.source.identity(known=True)):
        return file
    found = load_table(file.source, file.table.path)
    if found is not None:
        found.is_renewed = True
    return found


def _may_change_unnoticed(file: TableFile) -> bool:
    return file.is_given and (is_zarr(file.source) or not file.source.shows_change(file.identity))


def _as_given(file: TableFile | None) -> TableFile | None:
    return file


_begun: dict[tuple[Source, str, str], Future[TableFile | None]] = {}


def _begin(source: Source, table_path: str) -> tuple[Future[TableFile | None], bool]:
    """Have a table loaded by another thread, if it is not being loaded already; tell whether it was not."""
    key = (source, table_path, config.external_links)
    with _lock:
        future = _begun.get(key)
        is_own = future is None or future.done()
        if future is None or is_own:
            future = _begun[key] = LOADERS.submit(load_table, source, table_path)
            future.add_done_callback(lambda _: _begun.pop(key, None))
    return future, is_own


def _finish(
    future: Future[TableFile | None], source: Source, table_path: str, *, is_own: bool
) -> TableFile | None:
    try:
        return wait(future)
    except CancelledError:  # by another query, which had enough
        return load_table(source, table_path)
    except LazyNWBError:
        if is_own:
            raise
        return load_table(source, table_path)  # what another query met may be over
    except KeyboardInterrupt:
        _begun.clear()  # whoever asks next does not wait for what was waited for in vain
        raise
