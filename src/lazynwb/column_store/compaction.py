"""Compaction: addition of rows to the column store, and merging of small or superseded parts."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import polars as pl
from polars import selectors

from lazynwb.catalog.disk_cache import warn_once
from lazynwb.catalog.dtypes import TABLE_INDEX
from lazynwb.column_store.entries import Layout, Session
from lazynwb.column_store.parts import SESSION
from lazynwb.column_store.reading import PartLostError, Pick, drop_lost, find, guarded, scan_picks
from lazynwb.column_store.store import Block, grouped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lazynwb.column_store.entries import StoredPart
    from lazynwb.column_store.store import ColumnStore

#: Maximum decoded size of a part. A query reads whole columns of a part, which is its memory beside its rows.
MAX_PART_BYTES = 16 * 1024 * 1024
#: Number of parts of a table above which small parts are merged.
MAX_PARTS = 8
#: Decoded size below which a part is small.
SMALL_PART_BYTES = 4 * 1024 * 1024


def add(store: ColumnStore, table: str, blocks: Sequence[Block]) -> None:
    """Publish sessions, then merge parts and evict the least recently used ones.

    Errors are logged, as those of `ColumnStore.write`.

    Parameters
    ----------
    store : ColumnStore
    table : str
        Key of the table.
    blocks : sequence of Block
        Blocks of sessions; those with equal types of columns become one part, up to the size limit.
    """
    if not store.limit or not blocks:
        return
    try:
        for block in _arrange_blocks(blocks):
            if store.write(table, block) is None:
                return
        compact(store, table)
    except pl.exceptions.PolarsError as error:
        warn_once(f"small columns of a query could not be added to the column store: {error}")
    store.sweep()


def _arrange_blocks(blocks: Sequence[Block]) -> Iterator[Block]:
    """Yield the blocks to write: blocks of equal types are merged, and large ones are split."""
    for group in grouped(blocks):
        batch: list[Block] = []
        size = 0
        for block in group:
            for piece in _cut(block):
                weight = int(piece.frame.estimated_size())
                if batch and size + weight > MAX_PART_BYTES:
                    yield _with_row_numbers(_joined(batch))
                    batch, size = [], 0
                batch.append(piece)
                size += weight
        if batch:
            yield _with_row_numbers(_joined(batch))


def _cut(block: Block) -> Iterator[Block]:
    """Yield pieces of a block that fit into a part, or have a single session."""
    pieces = -(-int(block.frame.estimated_size()) // MAX_PART_BYTES)
    if pieces <= 1 or len(block.sessions) == 1:
        yield block
        return
    rows = -(-sum(session.rows for session in block.sessions) // pieces)
    sessions: list[Session] = []
    start = stop = 0
    for session in block.sessions:
        if sessions and stop + session.rows - start > rows:
            yield Block(sessions, block.layouts, block.frame[start:stop])
            sessions, start = [], stop
        sessions.append(session)
        stop += session.rows
    yield Block(sessions, block.layouts, block.frame[start:stop])


def _joined(blocks: Sequence[Block]) -> Block:
    """Concatenate blocks, with distinct layouts."""
    numbers: dict[Layout, int] = {}
    sessions = []
    for block in blocks:
        places = [numbers.setdefault(layout, len(numbers)) for layout in block.layouts]
        sessions += [_renumbered(session, places[session.layout]) for session in block.sessions]
    frames = [_with_rows(block) for block in blocks]
    return Block(sessions, list(numbers), pl.concat(frames, how="diagonal") if len(frames) > 1 else frames[0])


def _renumbered(session: Session, layout: int) -> Session:
    return Session(session.key, session.identity, session.rows, layout, session.depends, session.problems)


def _with_rows(block: Block) -> pl.DataFrame:
    """Return the rows of a block, with the same height even if no column is stored."""
    if block.frame.width:
        return block.frame
    rows = sum(session.rows for session in block.sessions)
    return pl.DataFrame({SESSION: pl.Series([], dtype=pl.UInt32).extend_constant(0, rows)})


def _with_row_numbers(block: Block) -> Block:
    """Add the columns with the session and the row number of each row."""
    if all(not layout.stored for layout in block.layouts):
        return Block(block.sessions, block.layouts, pl.DataFrame())
    counts = pl.DataFrame(
        {"session": range(len(block.sessions)), "rows": [session.rows for session in block.sessions]},
        schema={"session": pl.UInt32, "rows": pl.UInt32},
    ).filter(pl.col("rows") > 0)
    rows = counts.select(
        pl.col("session").repeat_by("rows").explode().alias(SESSION),
        pl.int_ranges(0, "rows", dtype=pl.UInt32).explode().alias(TABLE_INDEX),
    )
    columns = sorted(name for name in block.frame.columns if name not in {SESSION, TABLE_INDEX})
    frame = rows.hstack([block.frame[name] for name in columns])
    order = sorted(range(len(block.sessions)), key=lambda number: block.sessions[number].key)
    if any(b < a for a, b in pairwise(order)):
        ranks = {number: rank for rank, number in enumerate(order)}
        frame = frame.with_columns(
            pl.col(SESSION).replace_strict(
                pl.Series(list(ranks), dtype=pl.UInt32), pl.Series(list(ranks.values()), dtype=pl.UInt32)
            )
        ).sort(SESSION, TABLE_INDEX)
    return Block([block.sessions[number] for number in order], block.layouts, frame)


# -- compaction -------------------------------------------------------------------------------------------


def compact(store: ColumnStore, table: str) -> None:
    """Merge the parts of a table if there are many, and drop sessions that newer parts supersede.

    If two processes compact a table at the same time, both results are valid, and the next compaction removes
    one of them.
    """
    parts = store.parts_of(table)
    merged = [part for part in parts if part.decoded < SMALL_PART_BYTES or _is_superseded(part, parts)]
    if len(parts) <= MAX_PARTS or len(merged) < 2:  # noqa: PLR2004 - one part is no merger
        return
    try:
        blocks = list(_merged(parts, merged))
    except PartLostError as error:
        drop_lost(store, error)
        return
    if all(store.write(table, block) is not None for block in _arrange_blocks(blocks)):
        for part in merged:
            store.remove(part.path)


def _is_superseded(part: StoredPart, parts: Sequence[StoredPart]) -> bool:
    """Return whether newer parts supersede half of a part's sessions."""
    newer = [other for other in parts if other.entry.created > part.entry.created]
    dead = sum(_is_superseded_session(part, ordinal, newer) for ordinal in range(len(part.entry.sessions)))
    return 2 * dead >= len(part.entry.sessions)


def _is_superseded_session(part: StoredPart, ordinal: int, newer: Sequence[StoredPart]) -> bool:
    session, stored = part.session(ordinal), part.layout(ordinal).stored
    for other in newer:
        place = other.ordinals.get(session.key)
        if place is not None and (
            other.session(place).identity != session.identity
            or set(stored).issubset(other.layout(place).stored)
        ):
            return True
    return False


def _merged(parts: Sequence[StoredPart], chosen: Sequence[StoredPart]) -> Iterator[Block]:
    """Yield the distinct sessions of some parts, with all of their stored columns."""
    newest: dict[str, tuple[int, str]] = {}
    for part in parts:
        for session in part.entry.sessions:
            known = newest.get(session.key)
            if known is None or known[0] < part.entry.created:
                newest[session.key] = part.entry.created, session.identity
    columns = {name for part in chosen for layout in part.entry.layouts for name in layout.stored}
    groups: dict[tuple[object, ...], list[list[Pick]]] = {}
    for key in sorted({session.key for part in chosen for session in part.entry.sessions}):
        picks = find(chosen, key, newest[key][1], columns)
        if picks:
            groups.setdefault(tuple((pick.part.path, pick.columns) for pick in picks), []).append(picks)
    for listed in groups.values():
        yield _block(listed)


def _block(picks: list[list[Pick]]) -> Block:
    columns = frozenset[str]().union(*(pick.columns for pick in picks[0]))
    stored = tuple(sorted(columns))
    layouts: dict[Layout, int] = {}
    sessions = []
    for listed in picks:
        part, ordinal, _ = listed[0]
        known = part.layout(ordinal)
        layout = Layout(known.path, known.kind, known.columns, stored)
        sessions.append(_renumbered(part.session(ordinal), layouts.setdefault(layout, len(layouts))))
    frame = pl.DataFrame()
    if stored:
        frame = guarded(picks[0][0].part, scan_picks(picks).select(selectors.by_name(*stored)).collect)
    return Block(sessions, list(layouts), frame)
