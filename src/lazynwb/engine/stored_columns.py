"""Columns that go to the column store: collected while a query decodes them, written when it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from lazynwb.catalog.merge import nulls
from lazynwb.column_store.compaction import MAX_PART_BYTES, add
from lazynwb.column_store.small_columns import is_small, is_still_small
from lazynwb.column_store.store import Block, column_store, warn_once
from lazynwb.engine.size_estimates import most_bytes
from lazynwb.lookup.stored_tables import is_unchanging, layout_of, session_of, store_key

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from lazynwb.column_store.entries import Layout
    from lazynwb.engine.row_selection import Part
    from lazynwb.lookup.loader import TableFile


#: Bytes of small columns of one file that are read of all rows though no filter needs them.
_MOST_BYTES = 8 * 1024 * 1024


class Decoded:
    """Columns of a window as they were decoded, before they were cast to the types of the scan."""

    def __init__(self) -> None:
        self.runs: dict[str, list[pl.Series]] = {}

    def add(self, name: str, series: pl.Series) -> None:
        """Take in the rows of a column that follow those before; of type Null where files lack it."""
        self.runs.setdefault(name, []).append(series)


class FirstPhase(NamedTuple):
    """Columns of a window as they concern the column store.

    Attributes
    ----------
    read : list of str
        Read of all rows before anything is filtered.
    large : list of str
        Not stored.
    """

    read: list[str]
    large: list[str]


class StoreWriter:
    """What a query adds to the column store.

    Parameters
    ----------
    table : str
        Without the leading slash.
    """

    def __init__(self, table: str) -> None:
        self._table = store_key(table)
        self._store = column_store()
        self._blocks: list[Block] = []
        self._size = 0
        self._keys: set[str] = set()

    @property
    def is_active(self) -> bool:
        """Whether there is a store."""
        return self._store.limit > 0

    def small(self, file: TableFile, names: Iterable[str]) -> list[str]:
        """Return which of some columns of a file are small; those that it lacks are not."""
        table = file.table
        return [
            name
            for name in names
            if (column := file.columns.get(name)) is not None and is_small(column, table.kind, table.rows)
        ]

    def first_phase(
        self, parts: Sequence[Part], names: Sequence[str], filtering: Collection[str]
    ) -> FirstPhase:
        """Return the columns of a window that are read before anything is filtered, so that they are stored.

        Parameters
        ----------
        parts : sequence of Part
        names : sequence of str
            Columns that the query needs.
        filtering : collection of str
            Columns that are read of all rows in any case.

        Returns
        -------
        FirstPhase
            Of no columns, unless the window has all rows of its files.
        """
        if not self.is_active or any(part.rows != part.file.table.rows for part in parts):
            return FirstPhase([], [])
        files = {id(part.file.table): part.file for part in parts}
        large: set[str] = set()
        present: set[str] = set()
        few = True
        for file in files.values():
            held = [name for name in names if name in file.columns]
            small = self.small(file, held)
            present.update(small)
            large.update(set(held) - set(small))
            few &= most_bytes(file, [name for name in small if name not in filtering]) <= _MOST_BYTES
        read = [name for name in names if name in present and name not in large]
        return FirstPhase(
            read if few else [name for name in read if name in filtering], [n for n in names if n in large]
        )

    def take(self, parts: Sequence[Part], phase: FirstPhase, decoded: Decoded) -> None:
        """Take in the columns of a window that has all rows of its files.

        Parameters
        ----------
        parts : sequence of Part
        phase : FirstPhase
        decoded : Decoded
        """
        if not self.is_active or any(part.rows != part.file.table.rows for part in parts):
            return
        keys = [part.file.source.key for part in parts]
        if len(set(keys)) < len(keys) or not self._keys.isdisjoint(keys):
            return
        names = [*phase.read, *phase.large]
        columns = {name: _joined(runs) for name, runs in decoded.runs.items()}
        agreed = {name: series for name, series in columns.items() if series is not None}
        if len(agreed) == len(columns):
            self._add(parts, names, agreed)
            return
        start = 0
        for part in parts:  # files store a column in different types: each is a block of its own
            stop = start + part.rows
            own = {name: _slice(runs, start, stop) for name, runs in decoded.runs.items()}
            self._add([part], names, own)
            start = stop

    def _add(self, parts: Sequence[Part], names: Sequence[str], columns: dict[str, pl.Series]) -> None:
        settled = [is_unchanging(part.file) for part in parts]
        if not any(settled):
            return
        kept = {name: series for name, series in columns.items() if is_still_small(series)}
        layouts: dict[Layout, int] = {}
        sessions = []
        for part, is_kept in zip(parts, settled, strict=True):
            if not is_kept:
                continue
            file = part.file
            own = [name for name in names if name in file.columns]
            layout = layout_of(
                file, (name for name in own if name in kept), (name for name in own if name not in kept)
            )
            sessions.append(session_of(file, layouts.setdefault(layout, len(layouts))))
            self._keys.add(file.source.key)
        frame = pl.DataFrame([series.alias(name) for name, series in kept.items()])
        if not all(settled) and frame.width:
            frame = pl.concat(_kept_rows(frame, parts, settled))
        self._blocks.append(Block(sessions, list(layouts), frame))
        self._size += int(frame.estimated_size())
        if self._size >= MAX_PART_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what was taken in."""
        blocks, self._blocks, self._size = self._blocks, [], 0
        try:
            add(self._store, self._table, blocks)
        except pl.exceptions.PolarsError as error:
            warn_once(f"small columns of a query could not be stored: {error}")


def _joined(runs: list[pl.Series]) -> pl.Series | None:
    """Put the runs of a column one after the other; None where their types differ."""
    dtypes = [run.dtype for run in runs if run.dtype != pl.Null]
    if not dtypes:
        return pl.concat(runs) if len(runs) > 1 else runs[0]
    if any(dtype != dtypes[0] for dtype in dtypes):
        return None
    typed = [run if run.dtype == dtypes[0] else nulls(run.name, dtypes[0], len(run)) for run in runs]
    return pl.concat(typed) if len(typed) > 1 else typed[0]


def _slice(runs: list[pl.Series], start: int, stop: int) -> pl.Series:
    """Return some rows of a column, which lie in one of its runs."""
    at = 0
    for run in runs:
        if at <= start and stop <= at + len(run):
            return run[start - at : stop - at]
        at += len(run)
    raise AssertionError(runs)  # a file's rows are in one run


def _kept_rows(frame: pl.DataFrame, parts: Sequence[Part], kept: Sequence[bool]) -> list[pl.DataFrame]:
    pieces = []
    start = 0
    for part, is_kept in zip(parts, kept, strict=True):
        if is_kept:
            pieces.append(frame[start : start + part.rows])
        start += part.rows
    return pieces
