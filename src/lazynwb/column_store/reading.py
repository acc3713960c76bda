"""Reads of rows of sessions from parts, as Polars scans."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import polars as pl
from polars import selectors

from lazynwb.catalog.dtypes import TABLE_INDEX
from lazynwb.column_store.entries import ranges_of
from lazynwb.column_store.parts import SESSION, read_part, scan_part, scan_parts
from lazynwb.errors import CorruptDataError, LazyNWBError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from lazynwb.column_store.entries import StoredPart
    from lazynwb.column_store.parts import PartBytes, PartFile
    from lazynwb.column_store.store import ColumnStore

T = TypeVar("T")
F = TypeVar("F", pl.DataFrame, pl.LazyFrame)


class Pick(NamedTuple):
    """Columns of one session in a part.

    Attributes
    ----------
    part : StoredPart
    ordinal : int
        Position of the session in the part.
    columns : frozenset of str
        Stored columns to read.
    """

    part: StoredPart
    ordinal: int
    columns: frozenset[str]


class PartLostError(LazyNWBError):
    """A missing or damaged part, whose values must be read from the files.

    Attributes
    ----------
    part : StoredPart
    """

    def __init__(self, part: StoredPart, reason: str) -> None:
        super().__init__(reason)
        self.part = part


def find(parts: Iterable[StoredPart], key: str, identity: str, columns: Collection[str]) -> list[Pick]:
    """Return the locations of stored columns of one session, without those that are not stored.

    Parameters
    ----------
    parts : iterable of StoredPart
        Parts in order, the newest first.
    key, identity : str
        Key and identity of the source.
    columns : collection of str
        Columns to find; if empty, the first part that has the session is returned.
    """
    picks: list[Pick] = []
    left = frozenset(columns)
    for part in parts:
        ordinal = part.ordinals.get(key)
        if ordinal is None or part.session(ordinal).identity != identity:
            continue
        found = left.intersection(part.layout(ordinal).stored)
        if found or not picks:
            picks.append(Pick(part, ordinal, found))
            left -= found
        if not left:
            break
    return [pick for pick in picks if pick.columns] or picks[:1]


def scan_sessions(part: StoredPart, ordinals: Sequence[int], columns: Collection[str]) -> pl.LazyFrame:
    """Return the rows of some sessions of a part.

    Parameters
    ----------
    part : StoredPart
        Part with values.
    ordinals : sequence of int
        Distinct positions of sessions, in any order.
    columns : collection of str
        Stored columns, which are null in rows of sessions that lack them.

    Returns
    -------
    LazyFrame
        The columns, `_table_index`, and `SESSION` (the position of the row's session in `ordinals`). Rows are
        in the order of `ordinals`.

    Raises
    ------
    PartLostError
        If the part cannot be read or is damaged.
    """
    listed = list(ordinals)
    frame = scan_rows(part, {*columns, SESSION, TABLE_INDEX}, ranges_of(part, listed))
    if not listed:
        return frame.clear()
    first, last = listed[0], listed[-1]
    is_run = all(b - a == 1 for a, b in pairwise(listed))
    if len(listed) < len(part.entry.sessions):
        chosen = pl.col(SESSION)
        positions = pl.Series(listed, dtype=pl.UInt32)
        frame = frame.filter(chosen.is_between(first, last) if is_run else chosen.is_in(positions.implode()))
    if is_run and not first:
        return frame
    if is_run:
        return frame.with_columns(pl.col(SESSION) - pl.lit(first, pl.UInt32))
    places = pl.Series(range(len(listed)), dtype=pl.UInt32)
    frame = frame.with_columns(pl.col(SESSION).replace_strict(pl.Series(listed, dtype=pl.UInt32), places))
    if any(b < a for a, b in pairwise(listed)):
        frame = frame.sort(SESSION, TABLE_INDEX)
    return frame


def scan_picks(picks: Sequence[Sequence[Pick]]) -> pl.LazyFrame:
    """Return the rows of sessions whose columns may be in several parts.

    Parameters
    ----------
    picks : sequence of sequence of Pick
        Picks of each session, in order; all sessions have the same columns in the same parts.

    Returns
    -------
    LazyFrame
        See `scan_sessions`.

    Raises
    ------
    PartLostError
        If a part cannot be read or is damaged.
    """
    frames = []
    for number, pick in enumerate(picks[0]):
        ordinals = [listed[number].ordinal for listed in picks]
        frames.append(scan_sessions(pick.part, ordinals, pick.columns))
    if len(frames) == 1:
        return frames[0]
    collected = [guarded(pick.part, frame.collect) for pick, frame in zip(picks[0], frames, strict=True)]
    base = collected[0]
    for pick, other in zip(picks[0][1:], collected[1:], strict=True):
        if not other.select(SESSION, TABLE_INDEX).equals(base.select(SESSION, TABLE_INDEX)):
            raise PartLostError(pick.part, "parts hold different rows of one session")
        base = base.hstack(other.drop(SESSION, TABLE_INDEX))
    return base.lazy()


def scan_whole(
    parts: Sequence[StoredPart], dtypes: Mapping[str, pl.DataType], row_number: str | None
) -> pl.LazyFrame:
    """Return the same columns of all rows of some parts; see `scan_parts` for the parameters.

    Raises
    ------
    PartLostError
        If a part cannot be read or is damaged.
    """
    copies = [_verified(part, partial(read_part, columns=dtypes)) for part in parts]
    return scan_parts(copies, dtypes, row_number)


def scan_rows(part: StoredPart, columns: Collection[str], ranges: Sequence[tuple[int, int]]) -> pl.LazyFrame:
    """Return some columns of ranges of rows of a part; see `lazynwb.column_store.parts.scan_part`.

    Raises
    ------
    PartLostError
        If the part cannot be read or is damaged.
    """
    return _verified(part, partial(scan_part, columns=columns, ranges=ranges))


def file_of(part: StoredPart) -> PartFile:
    """Return the description of the file of a part with values; raise PartLostError if it has none."""
    if part.entry.part is None:
        raise PartLostError(part, "the entry has no part")
    return part.entry.part


def _verified(part: StoredPart, read: Callable[[PartBytes, PartFile], T]) -> T:
    """Read the file of a part; raise PartLostError if it cannot be read or is damaged."""
    file = file_of(part)
    try:
        return read(part.bytes, file)
    except (OSError, CorruptDataError) as error:
        raise PartLostError(part, str(error)) from None


def read_untrusted(read: Callable[[], T], damaged: Callable[[str], Exception]) -> T:
    """Read an untrusted Parquet file by a function; if it is invalid, raise `damaged(reason)`."""
    try:
        return read()
    except LazyNWBError:
        raise
    except (pl.exceptions.PolarsError, OSError, ValueError, TypeError, MemoryError) as error:
        reason = str(error).partition("\n")[0]
    except BaseException as error:
        # A Rust panic is not a subclass of Exception, and its class cannot be imported.
        if type(error).__name__ != "PanicException":
            raise
        reason = "it is invalid"
    raise damaged(reason)


def guarded(part: StoredPart, read: Callable[[], T]) -> T:
    """Read a part whose bytes have been verified; raise PartLostError if it is invalid."""
    return read_untrusted(read, partial(PartLostError, part))


def apply_filters(frame: F, filters: Iterable[pl.Expr]) -> F:
    """Return the rows that pass all filters, applied one after another."""
    for expression in filters:
        frame = frame.filter(expression)
    return frame


def collect_filtered(
    scan: pl.LazyFrame,
    filters: Sequence[pl.Expr],
    columns: Sequence[str] | None,
    read: Callable[[Callable[[], pl.DataFrame]], pl.DataFrame],
    check: Callable[[pl.DataFrame], None],
) -> pl.DataFrame:
    """Return the rows of a scan of verified bytes that pass filters.

    If the scan fails, its rows are collected first and filtered afterwards, because filters may fail, too:
    only an error of the first step means that the bytes are invalid.

    Parameters
    ----------
    scan : LazyFrame
        The unfiltered scan.
    filters : sequence of Expr
        Filters, applied one after another.
    columns : sequence of str or None
        Columns to return; None for all.
    read : callable
        Function that calls a function, and raises an error for the part if it fails.
    check : callable
        Function that raises an error if the types of columns differ from the expected types.
    """
    selected = selectors.all() if columns is None else selectors.by_name(*columns)
    try:
        frame = apply_filters(scan, filters).select(selected).collect()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001 - Rust panics are not subclasses of Exception
        frame = read(scan.collect)
        check(frame)
        return apply_filters(frame, filters).select(selected)
    check(frame)
    return frame


def drop_lost(store: ColumnStore, error: PartLostError) -> None:
    """Unpublish a missing or damaged part."""
    store.discard(error.part.path, str(error))
