"""Masks and slices of the rows of a scan, and per-file columns such as provenance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from lazynwb.arrays.arrow import from_buffer
from lazynwb.arrays.row_selection import expand
from lazynwb.catalog.dtypes import INTERNAL, NWB_PATH, ROWS, TABLE_INDEX, TABLE_PATH
from lazynwb.catalog.merge import nulls
from lazynwb.formats.nwb.names import OTHER_PATHS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lazynwb.arrays.row_selection import Part
    from lazynwb.storage.source import Source


class PerFile:
    """Columns that are constant in a file.

    Parameters
    ----------
    table : str
        Path of the table.
    is_pattern : bool
        Whether the path is a pattern of several tables.
    """

    def __init__(self, table: str, *, is_pattern: bool = False) -> None:
        self._table = table
        # Files before NWB 2 may have the table at another path.
        self._has_own_paths = is_pattern or table in OTHER_PATHS
        self._numbers: dict[Source, int] = {}
        self._files = pl.DataFrame()

    def add(self, sources: Sequence[Source], *metadata: pl.DataFrame) -> None:
        """Add files, with frames of metadata that have one row per file."""
        files = pl.concat([frame.drop(NWB_PATH, strict=False) for frame in metadata], how="horizontal")
        files = files.with_columns(pl.Series(NWB_PATH, [source.path for source in sources], dtype=pl.String))
        start = len(self._files)
        self._numbers.update((source, start + number) for number, source in enumerate(sources))
        self._files = self._files.vstack(files) if start else files

    def of_tables(self, pairs: Sequence[tuple[Source, str]]) -> pl.DataFrame:
        """Return the columns of the files and `_table_path`, one row per table of a file."""
        files = self._files[[self._numbers[source] for source, _ in pairs]]
        return files.with_columns(pl.Series(TABLE_PATH, [path for _, path in pairs], dtype=pl.String))

    def column(self, name: str, parts: list[Part]) -> pl.Series:
        """Return a per-file or provenance column for the rows of parts."""
        if name == ROWS:
            return nulls(name, pl.Null(), sum(part.rows for part in parts))
        if name == TABLE_INDEX:
            rows = [expand(part.ranges, np.uint32) for part in parts]
            return from_buffer(np.concatenate(rows) if rows else np.zeros(0, np.uint32), name)
        if name in self._files.columns:
            values = self._files[name].gather([self._numbers[part.file.source] for part in parts])
        else:
            paths = [part.file.table.path if self._has_own_paths else self._table for part in parts]
            values = pl.Series(name, paths, dtype=INTERNAL[name])
        if len(parts) == 1:
            return values.new_from_index(0, parts[0].rows)
        numbers = np.repeat(np.arange(len(parts), dtype=np.uint32), [part.rows for part in parts])
        return values[from_buffer(numbers)]


def mask(frame: pl.DataFrame, expression: pl.Expr) -> np.ndarray:
    """Return a mask of the rows where an expression is true."""
    keep = frame.select(expression.alias("keep")).to_series()
    found = keep.fill_null(value=False).to_numpy()
    return np.broadcast_to(found, len(frame)) if len(found) != len(frame) else found


def assemble_frame(columns: Mapping[str, pl.Series], rows: int) -> pl.DataFrame:
    """Return a frame of columns, or a frame of a given height without columns."""
    if not columns:
        return from_buffer(np.zeros(rows, np.uint32), TABLE_INDEX).to_frame()
    return pl.DataFrame(list(columns.values()))


def take(parts: list[Part], keep: np.ndarray) -> list[Part]:
    """Return the rows for which a mask is true."""
    selected = []
    at = 0
    for part in parts:
        left = part.take(keep[at : at + part.rows])
        at += part.rows
        if left.rows:
            selected.append(left)
    return selected


def cut(parts: list[Part], start: int, stop: int) -> list[Part]:
    """Return a slice of the rows."""
    selected = []
    at = 0
    for part in parts:
        left, right = max(start - at, 0), min(stop - at, part.rows)
        if left < right:
            selected.append(part.cut(left, right))
        at += part.rows
    return selected
