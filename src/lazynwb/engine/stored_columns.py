"""Columns for the column store, collected while a query decodes them, and written at its end."""

from __future__ import annotations

import math
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING
from weakref import WeakSet

import polars as pl

from lazynwb.arrays.row_selection import Part
from lazynwb.arrays.size_estimates import max_table_bytes
from lazynwb.catalog.merge import nulls
from lazynwb.catalog.model import arrays_of, grid_of
from lazynwb.column_store.compaction import MAX_PART_BYTES, add
from lazynwb.column_store.small_columns import is_small, is_still_small
from lazynwb.column_store.store import COLUMN_WRITES, Block, column_store
from lazynwb.config import config
from lazynwb.lookup.stored_tables import is_unchanging, layout_block, layout_of, session_of, store_key
from lazynwb.shutdown import on_exit

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from lazynwb.column_store.entries import Layout
    from lazynwb.lookup.loader import TableFile
    from lazynwb.storage.source import Source


#: Maximum decoded size of a column of one chunk in a file, whose rows are all read if any are.
_MAX_IN_CHUNK = 64 * 1024
#: The same for a column of a local file with other stored columns, which later queries probably need again.
_MAX_MISSING = 256 * 1024
_MAX_CHUNKS_MISSING = 4
#: Kinds of types whose elements are references, which are resolved one by one.
_INDIRECT = frozenset({"vlen_text", "vlen", "reference"})


class Decoded:
    """Decoded columns of a window, before they are cast to the types of the scan.

    Parameters
    ----------
    names : frozenset of str
        Columns to keep.
    """

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self.runs: dict[str, list[pl.Series]] = {}

    def add(self, name: str, series: pl.Series) -> None:
        """Append rows of a column; of type Null for files that lack it."""
        if name in self._names:
            self.runs.setdefault(name, []).append(series)

    def drop(self, names: Iterable[str]) -> None:
        """Remove columns that may lack rows."""
        for name in names:
            self.runs.pop(name, None)


class WindowColumns:
    """Small columns of the files of a window whose rows a query has decoded completely.

    Parameters
    ----------
    parts : list of Part
        Rows of the window before filtering.
    small : frozenset of str
        Columns that the query needs, and that are small in all files that have them.
    is_stored : bool
        Whether other columns of these files are in the store.
    """

    def __init__(self, parts: list[Part], small: frozenset[str], *, is_stored: bool) -> None:
        self._is_stored = is_stored
        self._small = small
        self._stages: list[tuple[list[Part], Decoded]] = []
        if small and all(part.rows == part.file.table.rows for part in parts):
            self._stages.append((parts, Decoded(small)))

    def decoded(self, parts: list[Part]) -> Decoded | None:
        """Return the collector of columns of parts; None if the parts may not be complete."""
        return next((decoded for known, decoded in self._stages if known is parts), None)

    def whole_columns(self, parts: list[Part], names: Iterable[str]) -> list[str]:
        """Return the columns whose rows are all read, because this costs no more than some rows.

        Parameters
        ----------
        parts : list of Part
            Rows that have passed the predicate.
        names : iterable of str
            Columns to read.
        """
        names = [name for name in names if name in self._small]
        whole = all(part.rows == part.file.table.rows for part in parts)
        if not whole:
            names = [
                name
                for name in names
                if all(_is_in_one_chunk(part.file, name, self._is_stored) for part in parts)
            ]
        if sum(max_table_bytes(part.file, names) for part in parts) > config.batch_bytes:
            return []
        return names

    def all_rows(self, parts: list[Part]) -> tuple[list[Part], Decoded]:
        """Return all rows of the files of some parts, and the collector of their columns."""
        sources = [part.file.source for part in parts]
        for whole, decoded in self._stages:
            if whole is parts or [part.file.source for part in whole] == sources:
                return whole, decoded
        whole = [
            part if part.rows == part.file.table.rows else Part.of_range(part.file, 0, part.file.table.rows)
            for part in parts
        ]
        self._stages.append((whole, Decoded(self._small)))
        return self._stages[-1]

    def blocks(self) -> Iterator[tuple[list[Part], dict[str, list[pl.Series]]]]:
        """Yield files, and all rows of their decoded columns."""
        stages = [(parts, decoded.runs) for parts, decoded in self._stages if decoded.runs]
        if len(stages) <= 1:
            yield from stages
            return
        # The files of a step are a subset of those of the previous step, as conjuncts exclude files.
        depths = {part.file.source: depth for depth, (parts, _) in enumerate(stages) for part in parts}
        starts = [
            dict(
                zip(
                    (part.file.source for part in parts),
                    accumulate((p.rows for p in parts), initial=0),
                    strict=False,
                )
            )
            for parts, _ in stages
        ]
        for depth in range(len(stages)):
            files = [part for part in stages[0][0] if depths[part.file.source] == depth]
            columns = {
                name: [
                    _slice(runs, starts[n][part.file.source], starts[n][part.file.source] + part.rows)
                    for part in files
                ]
                for n, (_, decoded) in enumerate(stages[: depth + 1])
                for name, runs in decoded.items()
            }
            if files:
                yield files, columns


def _is_in_one_chunk(file: TableFile, name: str, is_stored: bool) -> bool:  # noqa: FBT001 - one caller
    """Return whether all rows of a column are decoded with any row, or nearly all."""
    column = file.columns.get(name)
    if column is None:
        return True
    if column.lengths:
        arrays = arrays_of(column)
    else:
        arrays = [child.data for child in column.children or (column,) if child.data is not None]
    chunks = max((math.prod(grid_of(array)) if array.chunk else 1 for array in arrays), default=1)
    size = max_table_bytes(file, [name])
    if is_stored and not file.source.is_remote:  # remote elements would be requested one by one
        return size <= _MAX_MISSING and chunks <= _MAX_CHUNKS_MISSING
    return (
        size <= _MAX_IN_CHUNK
        and chunks == 1
        and all(array.dtype.kind not in _INDIRECT and array.layout != "indirect" for array in arrays)
    )


def small_columns_of(parts: Iterable[Part], names: Collection[str]) -> frozenset[str]:
    """Return the columns that are small in all files that have them."""
    small: set[str] = set()
    large: set[str] = set()
    for file in {id(part.file.table): part.file for part in parts}.values():
        for name in names:
            column = file.columns.get(name)
            if column is not None:
                (small if is_small(column, file.table.kind, file.table.rows) else large).add(name)
    return frozenset(small - large)


class StoreWriter:
    """A writer that collects the columns of a query and adds them to the column store.

    Parameters
    ----------
    table : str
        Path without the leading slash.
    known : collection of str
        Keys of sources with a valid stored table.
    """

    def __init__(self, table: str, known: Collection[str]) -> None:
        self._path = table
        self._table = store_key(table)
        self._known = known
        self._counted: list[TableFile] = []
        self._without: list[Source] = []
        self._store = column_store()
        self._blocks: list[Block] = []
        self._size = 0
        self._keys: set[str] = set()
        _open_writers.add(self)

    def take(self, window: WindowColumns) -> None:
        """Add the completely decoded columns of a window."""
        for parts, runs in window.blocks():
            if not self._keys.isdisjoint(part.file.source.key for part in parts):
                continue
            columns = {name: _joined(listed) for name, listed in runs.items()}
            agreed = {name: series for name, series in columns.items() if series is not None}
            if len(agreed) == len(columns):
                self._add(parts, agreed)
                continue
            start = 0
            for part in parts:  # the types of a column differ: write a block per file
                stop = start + part.rows
                self._add([part], {name: _slice(listed, start, stop) for name, listed in runs.items()})
                start = stop

    def _add(self, parts: Sequence[Part], columns: dict[str, pl.Series]) -> None:
        settled = [is_unchanging(part.file) for part in parts]
        if not any(settled):
            return
        small = {name: series for name, series in columns.items() if is_still_small(series, len(parts))}
        if not small:
            return
        layouts: dict[Layout, int] = {}
        sessions = []
        for part, is_settled in zip(parts, settled, strict=True):
            if not is_settled:
                continue
            file = part.file
            layout = layout_of(file, (name for name in small if name in file.columns))
            sessions.append(session_of(file, layouts.setdefault(layout, len(layouts))))
            self._keys.add(file.source.key)
        frame = pl.DataFrame([series.alias(name) for name, series in small.items()])
        if not all(settled):
            frame = pl.concat(_settled_rows(frame, parts, settled))
        self._blocks.append(Block(sessions, list(layouts), frame))
        self._size += int(frame.estimated_size())
        if self._size >= MAX_PART_BYTES:  # written at once, so that their memory is free again
            add(self._store, self._table, self._take_blocks())

    def note(self, file: TableFile) -> None:
        """Add the layout of a table whose rows are only counted."""
        if file.source.key not in self._known:
            self._counted.append(file)

    def note_without(self, source: Source) -> None:
        """Add a file that lacks the table."""
        if source.key not in self._known:
            self._without.append(source)

    def flush(self) -> None:
        """Write the collected columns; see `DeferredWrites`."""
        blocks = self._take_blocks()
        if blocks:
            COLUMN_WRITES.submit(partial(add, self._store, self._table, blocks))

    def _take_blocks(self) -> list[Block]:
        """Return the collected columns and layouts, and drop them here."""
        blocks, self._blocks, self._size = self._blocks, [], 0
        counted, self._counted = self._counted, []
        without, self._without = self._without, []
        if (layouts := layout_block(self._path, counted, without)) is not None:
            blocks.append(layouts)
        return blocks


#: Writers of queries that have not ended.
_open_writers: WeakSet[StoreWriter] = WeakSet()


@on_exit
def _flush_open_writers() -> None:
    """Write the columns of scans that Polars never closes, for example below a `head`."""
    for writer in list(_open_writers):
        writer.flush()


def _joined(runs: list[pl.Series]) -> pl.Series | None:
    """Concatenate the runs of a column; None if their types differ."""
    dtypes = [run.dtype for run in runs if run.dtype != pl.Null]
    if not dtypes:
        return pl.concat(runs) if len(runs) > 1 else runs[0]
    if any(dtype != dtypes[0] for dtype in dtypes):
        return None
    typed = [run if run.dtype == dtypes[0] else nulls(run.name, dtypes[0], len(run)) for run in runs]
    return pl.concat(typed) if len(typed) > 1 else typed[0]


def _slice(runs: list[pl.Series], start: int, stop: int) -> pl.Series:
    """Return rows of a column that are in one of its runs."""
    at = 0
    for run in runs:
        if at <= start and stop <= at + len(run):
            return run[start - at : stop - at]
        at += len(run)
    raise AssertionError(runs)  # the rows of a file are in one run


def _settled_rows(frame: pl.DataFrame, parts: Sequence[Part], settled: Sequence[bool]) -> list[pl.DataFrame]:
    pieces = []
    start = 0
    for part, is_settled in zip(parts, settled, strict=True):
        if is_settled:
            pieces.append(frame[start : start + part.rows])
        start += part.rows
    return pieces
