"""Scans of stored columns: Polars evaluates filters, projections and limits on the parts."""

from __future__ import annotations

from functools import partial
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, NamedTuple

import polars as pl
from polars import selectors

from lazynwb.catalog.dtypes import INTERNAL, ROWS, TABLE_INDEX, TABLE_PATH
from lazynwb.catalog.merge import conform, nulls
from lazynwb.column_store.parts import SESSION
from lazynwb.column_store.reading import (
    PartLostError,
    apply_filters,
    collect_filtered,
    file_of,
    guarded,
    scan_picks,
    scan_rows,
    scan_whole,
)
from lazynwb.config import config
from lazynwb.profile import count

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from lazynwb.column_store.entries import StoredPart
    from lazynwb.column_store.reading import Pick
    from lazynwb.engine.plan import ScanPlan, Step
    from lazynwb.lookup.stored_tables import Cover, StoredTable, StoredValues
    from lazynwb.storage.source import Source

#: Maximum number of rows of a window without stored columns.
_MAX_ROWS = 1_000_000
#: The column with the number of a row in a scan of several parts.
_ROW = "_lazynwb_row"
#: Columns that are not stored, and are the same in all rows.
_SAME_IN_ALL = frozenset({TABLE_PATH, ROWS})


class Covered(NamedTuple):
    """A session with stored columns that a query needs.

    Attributes
    ----------
    table : StoredTable
    cover : Cover
        Locations of the columns.
    rows : int
        Number of rows to scan, from the first.
    """

    table: StoredTable
    cover: Cover
    rows: int


class Run(NamedTuple):
    """Consecutive sources of a scan that are read in the same way.

    Attributes
    ----------
    sources : list of Source
    covered : list of Covered
        Sessions of the sources; empty if the files must be read.
    """

    sources: list[Source]
    covered: list[Covered]


def plan_runs(
    tables: StoredValues,
    sources: Sequence[Source],
    found: Sequence[StoredTable | None],
    needed: frozenset[str],
) -> list[Run]:
    """Divide the sources of a scan into runs, in order.

    Parameters
    ----------
    tables : StoredValues
    sources : sequence of Source
    found : sequence of StoredTable or None
        Stored tables of the sources.
    needed : frozenset of str
        Columns that the query needs.
    """
    runs: list[Run] = []
    for source, table in zip(sources, found, strict=True):
        covered: Covered | None = None
        if table is not None:
            cover = tables.cover(table, needed)
            if cover.picks or not cover.absent:
                covered = Covered(table, cover, table.session.rows)
        if not runs or bool(runs[-1].covered) != (covered is not None):
            runs.append(Run([], []))
        runs[-1].sources.append(source)
        if covered is not None:
            runs[-1].covered.append(covered)
    return runs


def windows_of(covered: Sequence[Covered]) -> Iterator[list[Covered]]:
    """Divide sessions into windows of limited size, at the ends of parts if possible."""
    window: list[Covered] = []
    keys: set[str] = set()
    weight = rows = 0
    before: list[int] = []
    row_bytes: dict[tuple[int, frozenset[str]], float] = {}
    for one in covered:
        parts = [id(pick.part) for pick in one.cover.picks]
        own = 0
        for pick in one.cover.picks:
            kind = id(pick.part), pick.columns
            if kind not in row_bytes:
                row_bytes[kind] = _row_bytes(pick)
            own += int(pick.part.session(pick.ordinal).rows * row_bytes[kind])
        key = one.table.session.key
        if window and (
            weight + own > config.batch_bytes * 3 // 2
            or (weight >= config.batch_bytes // 8 and parts != before)
            or rows + one.rows > _MAX_ROWS
            or key in keys
        ):
            yield window
            window, keys, weight, rows = [], set(), 0, 0
        window.append(one)
        keys.add(key)
        weight += own
        rows += one.rows
        before = parts
    if window:
        yield window


def _row_bytes(pick: Pick) -> float:
    """Return about how many bytes a row of the columns takes that are read of a part."""
    file = pick.part.entry.part
    if file is None or not file.columns:
        return 0
    return file.decoded / max(pick.part.starts[-1], 1) * len(pick.columns) / len(file.columns)


def read_window(
    window: Sequence[Covered],
    plan: ScanPlan,
    columns: Sequence[str],
    steps: Sequence[Step],
    files: pl.DataFrame,
) -> pl.DataFrame:
    """Return the rows of some sessions that pass a predicate, in order.

    Parameters
    ----------
    window : sequence of Covered
        Each session once.
    plan : ScanPlan
    columns : sequence of str
        Columns of the scan to return. Those that are not stored of a session are null in its rows.
    steps : sequence of Step
        The predicate's parts, which need stored columns and those that no file has.
    files : DataFrame
        Columns whose value is the same in all rows of a session, a row for each.

    Returns
    -------
    DataFrame
        The columns in the types of the scan, `SESSION` (the position in the window) and `_table_index`; not
        these two if all columns are stored and none depends on the session.

    Raises
    ------
    PartLostError
        If a part is gone or damaged.
    LazyNWBError
        If values do not fit the types of the scan.
    """
    groups: dict[tuple[tuple[int, frozenset[str]], ...], list[int]] = {}
    for position, one in enumerate(window):
        key = tuple((id(pick.part), pick.columns) for pick in one.cover.picks)
        groups.setdefault(key, []).append(position)
    late = [step for step in steps if not _is_stored(step, plan)]
    required = {*columns, *(name for step in late for name in step.columns)}
    found = _read_at_once(window, groups.values(), plan, required, steps)
    if found is None:
        found = _read_groups(window, groups.values(), plan, columns, steps)
    return apply_filters(_with_provenance(found, required, files, plan.table), _filters(late))


def _read_at_once(
    window: Sequence[Covered],
    groups: Collection[list[int]],
    plan: ScanPlan,
    required: set[str],
    steps: Sequence[Step],
) -> pl.DataFrame | None:
    """Return the same rows as `_read_groups`, by one scan of all parts.

    Return None if the sessions are not exactly those of some parts in order, or if values need a cast.

    Raises
    ------
    PartLostError
        If a part is gone or damaged.
    """
    parts = _whole_parts(window, groups)
    if parts is None or _ROW in plan.schema:
        return None
    early = [step for step in steps if _is_stored(step, plan)]
    projection = [name for name in plan.schema if name in required]
    read = {*projection, *(name for step in early for name in step.columns)}
    stored = {name: plan.schema[name] for name in window[0].cover.picks[0].columns & read}
    if not stored or any(part.dtype(0, name) != dtype for part in parts for name, dtype in stored.items()):
        return None
    # Columns that depend on the session are looked up by row number.
    is_located = any(one.cover.absent for one in window) or not _SAME_IN_ALL.union(plan.schema) >= required
    scan = scan_whole(parts, stored, _ROW if is_located else None)
    scan = apply_filters(_with_nulls(scan, read - stored.keys(), plan.schema), _filters(early))
    try:
        frame = guarded(
            parts[0], scan.select(selectors.by_name(*projection, *([_ROW] if is_located else []))).collect
        )
    except PartLostError:
        return None  # one of them, or the predicate fails: they are read one by one
    if any(plan.schema.get(name, dtype) != dtype for name, dtype in frame.schema.items()):
        return None
    count(rows_stored=sum(part.starts[-1] for part in parts))
    return _located(frame, [one.rows for one in window]) if is_located else frame


def _whole_parts(window: Sequence[Covered], groups: Collection[list[int]]) -> list[StoredPart] | None:
    """Return the parts whose sessions, one after the other, are a window; None if there are none."""
    parts: list[StoredPart] = []
    at = 0
    columns = window[0].cover.picks[0].columns if window[0].cover.picks else frozenset()
    for positions in groups:
        picks = window[positions[0]].cover.picks
        if len(picks) != 1 or picks[0].columns != columns or not picks[0].part.is_trusted:
            return None
        part = picks[0].part
        sessions = range(at, at + len(part.entry.sessions))
        if positions != list(sessions) or any(
            window[position].cover.picks[0].ordinal != position - at
            or window[position].rows != window[position].table.session.rows
            for position in positions
        ):
            return None
        parts.append(part)
        at = sessions.stop
    return parts


def _located(frame: pl.DataFrame, counts: Sequence[int]) -> pl.DataFrame:
    """Replace the numbers of rows of sessions by `SESSION` and `_table_index`.

    Parameters
    ----------
    frame : DataFrame
    counts : sequence of int
        Rows of each session.
    """
    number = frame[_ROW].cast(pl.UInt32)
    return frame.drop(_ROW).hstack(_places(number, counts))


def _places(number: pl.Series, counts: Sequence[int]) -> list[pl.Series]:
    """Return `SESSION` and `_table_index` of rows of sessions, given by their numbers among all rows.

    Parameters
    ----------
    number : Series
    counts : sequence of int
        Rows of each session.
    """
    starts = list(accumulate(counts, initial=0))
    filled = [session for session, rows in enumerate(counts) if rows]
    steps = [after - before for before, after in pairwise([0, *filled])]
    sessions = pl.Series(SESSION, [0], dtype=pl.UInt32).new_from_index(0, starts[-1])
    sessions = sessions.scatter([starts[session] for session in filled], steps).cum_sum().cast(pl.UInt32)
    if len(number) < starts[-1]:
        sessions = sessions.gather(number)
    before = pl.Series(starts, dtype=pl.UInt32).gather(sessions)
    return [sessions, (number - before).alias(TABLE_INDEX)]


def _read_groups(
    window: Sequence[Covered],
    groups: Collection[list[int]],
    plan: ScanPlan,
    columns: Sequence[str],
    steps: Sequence[Step],
) -> pl.DataFrame:
    """Return the rows of sessions that pass the predicate's parts on stored columns; see `read_window`.

    Parameters
    ----------
    window : sequence of Covered
    groups : collection of list of int
        Positions of sessions whose columns are in the same parts.
    plan, columns, steps
        See `read_window`.
    """
    frames = []
    for positions in groups:
        group = [window[position] for position in positions]
        frame = _read_group(group, plan, columns, steps)
        _check_rows(frame, group)
        if len(groups) > 1:
            places = pl.Series(positions, dtype=pl.UInt32)
            frame = frame.with_columns(places.gather(frame[SESSION]).alias(SESSION))
        frames.append(frame)
    found = pl.concat(frames) if len(frames) > 1 else frames[0]
    if any(a[-1] > b[0] for a, b in pairwise(groups)):
        found = found.sort(SESSION, TABLE_INDEX)
    return found


def _check_rows(frame: pl.DataFrame, group: Sequence[Covered]) -> None:
    """Raise PartLostError unless the rows are those of the sessions, in order."""
    parts = [pick.part for one in group for pick in one.cover.picks if not pick.part.is_trusted]
    if not parts or not len(frame):
        return
    rows = pl.Series([one.table.session.rows for one in group], dtype=pl.Int64)
    session, row = frame[SESSION], frame[TABLE_INDEX]
    if session.null_count() or row.null_count() or session.max() >= len(group):  # type: ignore[operator]
        raise PartLostError(parts[0], "it has rows without a session")
    place = session.cast(pl.Int64) * 2**32 + row.cast(pl.Int64)
    if not (row < rows.gather(session)).all() or not (place.diff().drop_nulls() > 0).all():
        raise PartLostError(parts[0], "its rows are not those of its sessions, or not in order")


def read_whole(
    part: StoredPart, plan: ScanPlan, columns: Sequence[str], steps: Sequence[Step], limit: int | None
) -> pl.DataFrame:
    """Return the rows of a whole part that pass a predicate, in order; see `StoredValues.whole`.

    Parameters
    ----------
    part : StoredPart
    plan : ScanPlan
    columns : sequence of str
        Columns to return.
    steps : sequence of Step
        Steps of the predicate.
    limit : int or None
        Maximum number of rows to scan.

    Raises
    ------
    PartLostError
        If the part is missing or damaged.
    LazyNWBError
        If values do not fit the types of the scan.
    """
    file = file_of(part)
    rows = part.starts[-1] if limit is None else min(limit, part.starts[-1])
    read = list(dict.fromkeys((*columns, *(name for step in steps for name in step.columns))))
    known = plan.all_columns
    dtypes = {name: known[name] for name in read}
    stored = {name: part.dtype(0, name) for name in read if name in file.columns}
    count(rows_stored=rows)
    if not stored:
        frame = pl.DataFrame([nulls(name, dtype, rows) for name, dtype in dtypes.items()])
        return apply_filters(frame, _filters(steps)).select(selectors.by_name(*columns))
    scan = scan_rows(part, stored, [(0, rows)])
    if rows < part.starts[-1]:  # a filter is not pushed down past a slice
        scan = scan.head(rows)
    scan = _with_nulls(scan, [name for name in read if name not in stored], dtypes)
    if any(dtype != dtypes[name] for name, dtype in stored.items()):
        frame = guarded(part, scan.collect)
        frame = frame.with_columns(
            conform(frame[name], dtypes[name], None if name in plan.overridden else plan.origin)
            for name in stored
        )
        return apply_filters(frame, _filters(steps)).select(selectors.by_name(*columns))
    check = partial(_check_types, part, dtypes)
    return collect_filtered(scan, _filters(steps), columns, partial(guarded, part), check)


def _check_types(part: StoredPart, dtypes: Mapping[str, pl.DataType], frame: pl.DataFrame) -> None:
    """Raise PartLostError if the types of a part's columns differ from those in its entry."""
    if any(dtypes.get(name, dtype) != dtype for name, dtype in frame.schema.items()):
        raise PartLostError(part, "the types of its columns differ from those in its entry")


def _is_stored(step: Step, plan: ScanPlan) -> bool:
    return all(name in plan.schema for name in step.columns)


def _with_provenance(
    frame: pl.DataFrame, required: set[str], files: pl.DataFrame, table: str
) -> pl.DataFrame:
    added = [files[name][frame[SESSION]] for name in files.columns if name in required]
    if TABLE_PATH in required:
        added.append(pl.Series(TABLE_PATH, [table], dtype=INTERNAL[TABLE_PATH]).new_from_index(0, len(frame)))
    if ROWS in required:
        added.append(nulls(ROWS, pl.Null(), len(frame)))
    return frame.hstack(added) if added else frame


def _read_group(
    group: Sequence[Covered], plan: ScanPlan, columns: Sequence[str], steps: Sequence[Step]
) -> pl.DataFrame:
    """Return the rows of sessions whose columns are in the same parts; see `read_window`."""
    early = [step for step in steps if _is_stored(step, plan)]
    late = {name for step in steps if not _is_stored(step, plan) for name in step.columns}
    projection = [name for name in plan.schema if name in {*columns, *late}]
    read = [
        name for name in plan.schema if name in {*projection, *(n for step in early for n in step.columns)}
    ]
    rows = sum(one.table.session.rows for one in group)
    count(rows_stored=rows)
    picks = group[0].cover.picks
    limit = next((n for n, one in enumerate(group) if one.rows < one.table.session.rows), None)
    if not picks:
        frame = _row_numbers([one.rows for one in group])
        frame = frame.with_columns(nulls(name, plan.schema[name], len(frame)) for name in read)
        return apply_filters(frame, _filters(early)).select(
            selectors.by_name(*projection, SESSION, TABLE_INDEX)
        )
    scan = scan_picks([one.cover.picks for one in group])
    if limit is not None:
        scan = scan.filter((pl.col(SESSION) != limit) | (pl.col(TABLE_INDEX) < group[limit].rows))
    part = picks[0].part
    stored = {
        name: pick.part.dtype(pick.ordinal, name)
        for pick in picks
        for name in pick.columns
        if name in plan.schema
    }
    scan = _with_nulls(scan, [name for name in read if name not in stored], plan.schema)
    if any(stored[name] != plan.schema[name] for name in read if name in stored):
        frame = guarded(part, scan.collect)
        frame = frame.with_columns(
            conform(frame[name], plan.schema[name], None if name in plan.overridden else plan.origin)
            for name in read
        )
        return apply_filters(frame, _filters(early)).select(
            selectors.by_name(*projection, SESSION, TABLE_INDEX)
        )
    check = partial(_check_types, part, plan.schema)
    names = [*projection, SESSION, TABLE_INDEX]
    return collect_filtered(scan, _filters(early), names, partial(guarded, part), check)


def _with_nulls(
    scan: pl.LazyFrame, names: Collection[str], dtypes: Mapping[str, pl.DataType]
) -> pl.LazyFrame:
    """Add columns that are not stored, which are null in all rows."""
    if not names:
        return scan
    return scan.with_columns(pl.lit(None, dtype=dtypes[name]).alias(name) for name in names)


def _filters(steps: Sequence[Step]) -> list[pl.Expr]:
    return [step.expression for step in steps]


def _row_numbers(counts: Sequence[int]) -> pl.DataFrame:
    """Return `SESSION` and `_table_index` of sessions with some numbers of rows."""
    return pl.DataFrame(_places(pl.int_range(sum(counts), dtype=pl.UInt32, eager=True), counts))
