"""Columns for rows of any files and tables, in any order: repeated, scattered, or none at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from lazynwb.catalog.merge import nulls
from lazynwb.config import config
from lazynwb.engine.assemble import read_columns
from lazynwb.engine.sizes import most_bytes
from lazynwb.engine.window import Handles, Part, to_ranges
from lazynwb.errors import LazyNWBError
from lazynwb.lookup.memory import doubting
from lazynwb.lookup.origins import NOWHERE, Origins
from lazynwb.progress import Progress
from lazynwb.sources.files import save

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lazynwb.lookup.load import TableFile

#: Files that are open at the same time.
_MOST_FILES = 64


def gather_columns(
    origins: Origins, schema: Mapping[str, pl.DataType], overridden: frozenset[str], *, disable_progress: bool
) -> list[pl.Series]:
    """Read columns for the given rows; the rows of each table are read together, and none twice.

    Parameters
    ----------
    origins : Origins
    schema : mapping of str to DataType
        The columns, with the types that they get; files that lack one give nulls.
    overridden : frozenset of str
        Columns whose type the user chose, see `read_columns`.
    disable_progress : bool

    Returns
    -------
    list of Series
        One for each column of the schema, with a value for each of the rows, in their order.

    Raises
    ------
    LazyNWBError
        If a table has no such row, or as `read_columns` does.
    """
    files, owners, rows = origins
    origin = files[0].name if files else ""
    inside = np.flatnonzero(owners != NOWHERE)
    order = inside[np.lexsort((rows[inside], owners[inside]))]
    sorted_owners, sorted_rows = owners[order], rows[order]
    is_new = np.ones(len(order), bool)
    is_new[1:] = (np.diff(sorted_owners) != 0) | (np.diff(sorted_rows) != 0)
    parts = _parts(files, sorted_owners[is_new], sorted_rows[is_new])
    read: dict[str, list[pl.Series]] = {name: [] for name in schema}
    label = f"Reading NWB {', '.join(schema)}"
    with Progress(label, len(parts), disabled=disable_progress) as progress:
        for window in _windows(parts, list(schema)):
            with doubting(*(part.file.source for part in window)), Handles() as handles:
                for series in read_columns(handles, window, dict(schema), overridden, origin):
                    read[series.name].append(series)
            progress.update(len(window))
    save()
    places = np.full(len(owners), NOWHERE, np.int64)
    places[order] = np.cumsum(is_new) - 1
    return [_placed(name, listed, schema[name], places) for name, listed in read.items()]


def _parts(files: Sequence[TableFile], owners: np.ndarray, rows: np.ndarray) -> list[Part]:
    """Return the rows of each table, which come sorted."""
    if not len(rows):
        return []
    numbers, starts = np.unique(owners, return_index=True)
    parts = []
    for number, listed in zip(numbers, np.split(rows, starts[1:]), strict=True):
        file = files[number]
        if not 0 <= listed[0] <= listed[-1] < file.table.rows:
            wrong = listed[0] if listed[0] < 0 else listed[-1]
            message = (
                f"{file.name}: /{file.table.path} has no row {wrong}: it has {file.table.rows} rows, counted "
                "from 0"
            )
            raise LazyNWBError(message)
        parts.append(Part(file, to_ranges(listed), len(listed)))
    return parts


def _windows(parts: list[Part], names: list[str]) -> Iterator[list[Part]]:
    """Group tables that are read together: not too many, nor too much. The rows of one stay together."""
    window: list[Part] = []
    weight = 0.0
    for part in parts:
        window.append(part)
        weight += _bytes_of(part.file, part.rows, names)
        if len(window) >= _MOST_FILES or weight >= config.batch_bytes:
            yield window
            window, weight = [], 0.0
    if window:
        yield window


def _bytes_of(file: TableFile, rows: int, names: list[str]) -> float:
    """Estimate the bytes of some rows of a table by the size of its columns."""
    return most_bytes(file, names) * rows / max(file.table.rows, 1)


def cut_rows(origins: Origins, names: list[str]) -> list[slice]:
    """Cut rows into slices that may be read one after the other: no table has rows in two of them.

    Where the rows of tables are mixed, that is one slice; there is always one, if only of no rows.
    """
    owners = origins.owners
    if not len(owners):
        return [slice(0, 0)]
    starts = np.flatnonzero(np.diff(owners, prepend=NOWHERE - 1))
    runs = owners[starts]
    known = runs[runs != NOWHERE]
    if len(np.unique(known)) < len(known):
        return [slice(0, len(owners))]
    slices = []
    begin, weight = 0, 0.0
    for number, stop in zip(runs, [*starts[1:], len(owners)], strict=True):
        if number != NOWHERE:
            weight += _bytes_of(origins.files[number], stop - begin, names)
        if weight >= config.batch_bytes:
            slices.append(slice(begin, int(stop)))
            begin, weight = int(stop), 0.0
    if begin < len(owners):
        slices.append(slice(begin, len(owners)))
    return slices


def _placed(name: str, read: list[pl.Series], dtype: pl.DataType, places: np.ndarray) -> pl.Series:
    """Put what was read in the order that was asked for."""
    if not read:
        return nulls(name, dtype, len(places))
    series = read[0] if len(read) == 1 else pl.concat(read)
    if len(series) == len(places) and np.array_equal(places, np.arange(len(places))):
        return series.alias(name)
    indices = pl.Series(places)
    return series.gather(indices.set(indices == NOWHERE, None)).alias(name)
