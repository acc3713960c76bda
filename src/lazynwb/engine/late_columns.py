"""Late materialization: columns of the rows of a query's result, which are identified by provenance.

Rows may be from any files and tables, in any order, with duplicates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from polars import selectors

from lazynwb.arrays.arrow import bool_series, from_buffer
from lazynwb.arrays.row_selection import Handles, Part, to_ranges
from lazynwb.arrays.size_estimates import max_table_bytes
from lazynwb.catalog.dtypes import INTERNAL, NWB_PATH, TABLE_PATH, is_array_dtype
from lazynwb.catalog.lengths import LENGTH, measured_name
from lazynwb.catalog.merge import nulls
from lazynwb.config import config
from lazynwb.engine.columns import read_columns
from lazynwb.engine.length_predicates import on_lengths
from lazynwb.engine.plan import conjuncts
from lazynwb.engine.row_masks import mask
from lazynwb.errors import LazyNWBError
from lazynwb.lookup.catalog_cache import invalidate_on_corruption
from lazynwb.lookup.provenance import (
    NO_TABLE,
    LateOptions,
    Origins,
    check_present,
    distinct_tables,
    find_origins,
    late_schema,
    load_distinct,
)
from lazynwb.progress import Progress
from lazynwb.storage.remote_state import save

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lazynwb.lookup.loader import TableFile
    from lazynwb.lookup.provenance import Origins

#: Maximum number of files that are open at the same time.
_MAX_FILES = 64


def gather_columns(
    origins: Origins, schema: Mapping[str, pl.DataType], overridden: frozenset[str], *, disable_progress: bool
) -> list[pl.Series]:
    """Read columns of rows; the rows of each table are read together, and each row once.

    Parameters
    ----------
    origins : Origins
        Tables and row numbers of the rows.
    schema : mapping of str to DataType
        Columns with their types; they are null in rows of files that lack them.
    overridden : frozenset of str
        Columns whose type the user chose; see `read_columns`.
    disable_progress : bool
        Whether to show no progress bar.

    Returns
    -------
    list of Series
        One Series per column, in the order of the rows.

    Raises
    ------
    LazyNWBError
        If a row does not exist, or a file cannot be read.
    """
    files, owners, rows = origins
    origin = files[0].name if files else ""
    lengths = [name for name in schema if measured_name(name) is not None]
    if lengths:
        files = [file.with_lengths(lengths) for file in files]
    inside = np.flatnonzero(owners != NO_TABLE)
    order = inside[np.lexsort((rows[inside], owners[inside]))]
    sorted_owners, sorted_rows = owners[order], rows[order]
    is_new = np.ones(len(order), bool)
    is_new[1:] = (np.diff(sorted_owners) != 0) | (np.diff(sorted_rows) != 0)
    parts = _parts(files, sorted_owners[is_new], sorted_rows[is_new])
    read: dict[str, list[pl.Series]] = {name: [] for name in schema}
    label = f"Reading NWB {', '.join(schema)}"
    with Progress(label, len(parts), disabled=disable_progress) as progress:
        for window in _windows(parts, list(schema)):
            with invalidate_on_corruption(*(part.file.source for part in window)), Handles() as handles:
                for series in read_columns(handles, window, dict(schema), overridden, origin):
                    read[series.name].append(series)
            progress.update(len(window))
    save()
    places = np.full(len(owners), NO_TABLE, np.int64)
    places[order] = np.cumsum(is_new) - 1
    return [_in_requested_order(name, listed, schema[name], places) for name, listed in read.items()]


def _parts(files: Sequence[TableFile], owners: np.ndarray, rows: np.ndarray) -> list[Part]:
    """Return the rows of each table, in ascending order."""
    if not len(rows):
        return []
    numbers, starts = np.unique(owners, return_index=True)
    parts = []
    for number, listed in zip(numbers, np.split(rows, starts[1:]), strict=True):
        file = files[number]
        if not 0 <= listed[0] <= listed[-1] < file.table.rows:
            wrong = listed[0] if listed[0] < 0 else listed[-1]
            raise LazyNWBError(
                f"{file.name}: /{file.table.path} has no row {wrong}: it has {file.table.rows} rows, "
                "numbered from 0"
            )
        parts.append(Part(file, to_ranges(listed), len(listed)))
    return parts


def _windows(parts: list[Part], names: list[str]) -> Iterator[list[Part]]:
    """Group tables that are read together, with limited numbers of files and bytes."""
    window: list[Part] = []
    weight = 0.0
    for part in parts:
        window.append(part)
        weight += _bytes_of(part.file, part.rows, names)
        if len(window) >= _MAX_FILES or weight >= config.batch_bytes:
            yield window
            window, weight = [], 0.0
    if window:
        yield window


def _bytes_of(file: TableFile, rows: int, names: list[str]) -> float:
    """Return the estimated size of some rows of a table, from the size of its columns."""
    return max_table_bytes(file, names) * rows / max(file.table.rows, 1)


def cut_rows(origins: Origins, names: list[str]) -> list[slice]:
    """Divide rows into slices that are read one by one; no table has rows in two slices.

    If the rows of tables are interleaved, the result is one slice. It has at least one, which may be empty.
    """
    owners = origins.owners
    if not len(owners):
        return [slice(0, 0)]
    starts = np.flatnonzero(np.diff(owners, prepend=NO_TABLE - 1))
    runs = owners[starts]
    known = runs[runs != NO_TABLE]
    if len(np.unique(known)) < len(known):
        return [slice(0, len(owners))]
    slices = []
    begin, weight = 0, 0.0
    for number, stop in zip(runs, [*starts[1:], len(owners)], strict=True):
        if number != NO_TABLE:
            weight += _bytes_of(origins.files[number], stop - begin, names)
        if weight >= config.batch_bytes:
            slices.append(slice(begin, int(stop)))
            begin, weight = int(stop), 0.0
    if begin < len(owners):
        slices.append(slice(begin, len(owners)))
    return slices


def _in_requested_order(
    name: str, read: list[pl.Series], dtype: pl.DataType, places: np.ndarray
) -> pl.Series:
    """Return the values in the requested order."""
    if not read:
        return nulls(name, dtype, len(places))
    series = read[0] if len(read) == 1 else pl.concat(read)
    if len(series) == len(places) and np.array_equal(places, np.arange(len(places))):
        return series.alias(name)
    indices = from_buffer(places)
    return series.gather(indices.set(indices == NO_TABLE, None)).alias(name)


#: Prefix of the provenance columns that are added to the query's own columns.
_PREFIX = "_lazynwb_of"


class LateColumns:
    """A query with late columns.

    An expression per column would be simpler, but Polars evaluates expressions on many slices of a frame. If
    rows are not sorted by file, each slice would decode most chunks of all files again.

    Parameters
    ----------
    frame : LazyFrame
        The query.
    own : dict of str to str
        Names of its three provenance columns.
    names : list of str
        Names of the late columns.
    options : LateOptions
    """

    def __init__(
        self, frame: pl.LazyFrame, own: Mapping[str, str], names: list[str], options: LateOptions
    ) -> None:
        self._frame = frame
        self._own = own
        self._options = options
        self._columns = dict(frame.collect_schema())
        self.added = self._types(names)

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """The columns of the result."""
        return {**self._columns, **self.added}

    @property
    def detail(self) -> str:
        """Description in profiles and query plans."""
        return f"{', '.join(self.added)} of a query's rows"

    def _types(self, names: list[str]) -> dict[str, pl.DataType]:
        """Return the types of the late columns: those chosen by the user, or those of the files."""
        overrides = self._options.overrides
        if all(name in overrides for name in names):
            return {name: overrides[name] for name in names}
        paths = self._frame.select(
            pl.col(self._own[column]).cast(pl.String).alias(column) for column in (NWB_PATH, TABLE_PATH)
        )
        # Sorted by name, because Polars returns distinct rows in any order.
        tables = distinct_tables(paths.unique().collect()).sort(NWB_PATH, TABLE_PATH)
        return late_schema(load_distinct(tables, self._options), names, self._options)

    def run(
        self, with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None
    ) -> Iterator[pl.DataFrame]:
        """Yield the rows; the parameters are those of `lazynwb.engine.batches.run`."""
        names = list(self.schema) if with_columns is None else with_columns
        added = dict(self.added)
        frame = self._frame if n_rows is None else self._frame.head(n_rows)
        late: list[pl.Expr] = []
        for part in conjuncts(predicate) if predicate is not None else []:
            if self.added.keys().isdisjoint(part.meta.root_names()):
                frame = frame.filter(part)
            else:
                measured = on_lengths(part, lambda name: is_array_dtype(self.added.get(name, pl.Null())))
                late.append(part if measured is None else measured)
        filtering = [name for part in late for name in part.meta.root_names()]
        added |= {name: LENGTH for name in filtering if measured_name(name) is not None}
        needed = dict.fromkeys([*filtering, *names])
        stored = selectors.by_name(*[name for name in needed if name not in added])
        if added.keys().isdisjoint(needed):
            yield _in_order(frame.select(stored).collect(), names)
            return
        provenance = [pl.col(own).alias(_PREFIX + column) for column, own in self._own.items()]
        rows = frame.select(stored, *provenance).collect()
        origins = find_origins(rows.select(pl.col(_PREFIX + c).alias(c) for c in INTERNAL), self._options)
        check_present(origins.files, self.added, self._options)
        for cut in cut_rows(origins, [name for name in needed if name in added]):
            batch, of_batch = rows[cut], origins.take(cut)
            if late:
                batch = batch.with_columns(self._read(of_batch, filtering, added))
                keep = mask(batch, pl.all_horizontal(late))
                batch, of_batch = batch.filter(bool_series(keep)), of_batch.take(keep)
            rest = [name for name in names if name not in batch.columns]
            yield _in_order(batch.with_columns(self._read(of_batch, rest, added)), names)

    def _read(self, origins: Origins, names: list[str], added: Mapping[str, pl.DataType]) -> list[pl.Series]:
        schema = {name: added[name] for name in names if name in added}
        return gather_columns(
            origins,
            schema,
            frozenset(self._options.overrides),
            disable_progress=self._options.disable_progress,
        )


def _in_order(frame: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    # Not by names, because Polars interprets "*" and "^...$" as patterns.
    return pl.DataFrame([frame.get_column(name) for name in names])
