"""Run one scan: window by window, filter on cheap columns, read the rest for the rows that survive."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

from lazynwb.catalog.merge import nulls
from lazynwb.catalog.provenance import INTERNAL, NWB_PATH, ROWS, TABLE_INDEX
from lazynwb.config import config
from lazynwb.engine.assemble import read_columns
from lazynwb.engine.plan import Growth, Step, plan_steps
from lazynwb.engine.report import Report
from lazynwb.engine.sizes import measure_rows, most_bytes
from lazynwb.engine.window import Handles, Part
from lazynwb.errors import LazyNWBError, TableNotFoundError
from lazynwb.lookup.load import TableFile, load_tables
from lazynwb.profile import count
from lazynwb.progress import Progress
from lazynwb.sources.files import save

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lazynwb.sources.source import Source

#: Files of the first window, and of the largest. Remote ones take about as long for many as for one.
_FIRST_FILES, _MOST_FILES = 1, 64
#: Rows of the first batch of a filtered query, whose consumer may be satisfied with a few.
_FIRST_ROWS = 16
_MOST_ROWS = 1_000_000
#: Layouts of which whole chunks are decoded.
_IN_CHUNKS = frozenset({"chunked", "objects"})
#: What a row takes while it is filtered, whatever its columns: its number, and whether it stays.
_LEAST_ROW_BYTES = 16


class Spec(NamedTuple):
    """A scan, as plain values: what `scan_nwb` was called with, and the schema that it published.

    Attributes
    ----------
    sources : tuple of Source
    table : str
        Without the leading slash.
    schema : dict of str to DataType
        The file's columns, without the three that say where a row is from.
    origin : str
        The file that the schema was first taken from.
    overridden : frozenset of str
        Columns whose type the user chose.
    raise_on_missing, ignore_errors, disable_progress : bool
    """

    sources: tuple[Source, ...]
    table: str
    schema: dict[str, pl.DataType]
    origin: str
    overridden: frozenset[str] = frozenset()
    raise_on_missing: bool = False
    ignore_errors: bool = False
    disable_progress: bool = False


def run(
    spec: Spec, with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None
) -> Iterator[pl.DataFrame]:
    """Yield the rows of a scan in source order.

    Parameters
    ----------
    spec : Spec
    with_columns : list of str or None
        Columns to return; None for all.
    predicate : Expr or None
        Row-wise; rows where it is not true are left out.
    n_rows : int or None
        Rows to look at, *before* the predicate.

    Yields
    ------
    DataFrame
        With exactly the requested columns, in the published types. Nothing is open while it is out.
    """
    names = list(with_columns) if with_columns is not None else [ROWS, *spec.schema, *INTERNAL]
    query = _Query(spec, names, plan_steps(predicate, spec.schema))
    try:
        for parts in query.windows(n_rows):
            for frame in query.batches(parts):
                if len(frame):
                    query.batches_given += 1
                    yield frame
    finally:
        save()
    query.report.log()
    if not query.batches_given:
        full = {ROWS: pl.Null(), **spec.schema, **INTERNAL}
        yield pl.DataFrame(schema={name: full[name] for name in names})


class _Query:
    def __init__(self, spec: Spec, names: list[str], steps: list[Step]) -> None:
        self._spec = spec
        self._names = names
        self._by_path = [step for step in steps if step.columns == (NWB_PATH,)]
        self._steps = [step for step in steps if step.columns != (NWB_PATH,)]
        self.batches_given = 0
        self.report = Report(spec.table, len(spec.sources))
        self._rows_growth = Growth(_FIRST_ROWS if steps else _MOST_ROWS, _MOST_ROWS)
        label = f"/{spec.table}"
        self._scanning = Progress(f"Scanning NWB {label}", len(spec.sources), disabled=spec.disable_progress)
        self._reading = Progress(
            f"Reading NWB {label} arrays", len(spec.sources), disabled=spec.disable_progress
        )

    # -- windows --------------------------------------------------------------------------------------

    def windows(self, n_rows: int | None) -> Iterator[list[Part]]:
        """Yield groups of rows to filter together: few files first, then more, bounded by bytes."""
        filtering = list(dict.fromkeys(name for step in self._steps for name in step.columns))
        few = (
            _FIRST_FILES if self._steps and not any(s.is_remote for s in self._spec.sources) else _MOST_FILES
        )
        growth = Growth(few, _MOST_FILES)
        parts = self._parts(n_rows, filtering)
        while True:
            window: list[Part] = []
            weight, room = 0, growth.take()
            with self._scanning:
                for part, size in parts:
                    window.append(part)
                    weight += size
                    if len(window) >= room or weight >= config.batch_bytes:
                        break
            if not window:
                return
            before = self.batches_given
            yield window
            growth.used(self.batches_given - before)

    def _parts(self, n_rows: int | None, filtering: list[str]) -> Iterator[tuple[Part, int]]:
        """Yield each file's rows with about how many bytes filtering them takes."""
        spec = self._spec
        left = n_rows
        wanted = self._wanted_files()
        count(files_skipped=wanted.count(False))
        # Rows are counted before they are filtered, so with a limit also those of files that are skipped.
        looked_at = [
            (source, keep)
            for source, keep in zip(spec.sources, wanted, strict=True)
            if keep or left is not None
        ]
        loading = load_tables((source for source, _ in looked_at), spec.table)
        for (source, keep), load in zip(looked_at, loading, strict=True):
            if left is not None and left <= 0:
                return
            file = self._load(source, load)
            self._scanning.update()
            if file is None:
                continue
            rows = file.table.rows if left is None else min(left, file.table.rows)
            left = left if left is None else left - rows
            if not keep or not rows:
                continue
            size = max(most_bytes(file, filtering), _LEAST_ROW_BYTES * rows) if self._steps else 0
            # A table too large to filter at once is filtered in slices.
            slices = max(1, min(rows, -(-size // config.batch_bytes)))
            for i in range(slices):
                yield Part.of_range(file, rows * i // slices, rows * (i + 1) // slices), size // slices

    def _wanted_files(self) -> list[bool]:
        """Evaluate the parts of the predicate that need nothing but the files' names."""
        paths = pl.DataFrame({NWB_PATH: [source.path for source in self._spec.sources]})
        keep = np.ones(len(paths), bool)
        for step in self._by_path:
            keep &= _mask(paths, step.expression)
        return keep.tolist()

    def _load(self, source: Source, load: Callable[[], TableFile | None]) -> TableFile | None:
        spec = self._spec
        try:
            file = load()
        except LazyNWBError as error:
            if not spec.ignore_errors:
                raise
            self.report.failed(source, error)
            return None
        if file is None:
            if spec.raise_on_missing:
                message = f"{source.name} has no table /{spec.table} (raise_on_missing=True)"
                raise TableNotFoundError(message)
            self.report.missing(source.name)
        elif file.problems:
            self.report.problems(source.name, file.problems)
        return file

    # -- batches --------------------------------------------------------------------------------------

    def batches(self, parts: list[Part]) -> Iterator[pl.DataFrame]:
        """Yield the rows of a window that survive the predicate, in batches bounded by bytes."""
        parts = [part for part in parts if not self.report.has_failed(part.file.source)]
        frames = self._filter_and_read(parts)
        try:
            first = next(frames, None)
        except LazyNWBError as error:
            if len(parts) == 1:
                self._give_up(parts[0], error)
                return
            # One file at a time: the others can be read, and the error names the one that cannot.
            for part in parts:
                yield from self.batches([part])
            return
        if first is not None:
            yield first
            yield from frames

    def _give_up(self, part: Part, error: LazyNWBError) -> None:
        """Note that a file cannot be read, if the user wants to go on without it."""
        if not self._spec.ignore_errors:
            raise error
        self.report.failed(part.file.source, error, int(part.ranges[0, 0]) if len(part.ranges) else 0)

    def _filter_and_read(self, parts: list[Part]) -> Iterator[pl.DataFrame]:
        known: dict[str, pl.Series] = {}
        with Handles() as handles:
            for step in self._steps:
                self._add(handles, parts, step.columns, known)
                rows = sum(part.rows for part in parts)
                keep = _mask(_frame({name: known[name] for name in step.columns}, rows), step.expression)
                if not keep.all():
                    parts = _take(parts, keep)
                    known = {name: series.filter(pl.Series(keep)) for name, series in known.items()}
                    if not parts:
                        return
            known = {name: series for name, series in known.items() if name in self._names}
            rest = [name for name in self._names if name not in known and name in self._spec.schema]
            bounds = self._bounds(handles, parts, rest)
            if len(bounds) == 1:
                self._add(handles, parts, self._names, known)
                self._reading_done(parts, rest)
        if len(bounds) == 1:
            yield _frame({name: known[name] for name in self._names}, sum(part.rows for part in parts))
            return
        for start, stop in bounds:
            yield from self._read(
                _cut(parts, start, stop), {name: series[start:stop] for name, series in known.items()}
            )

    def _read(self, parts: list[Part], known: dict[str, pl.Series]) -> Iterator[pl.DataFrame]:
        """Yield one batch: the columns that are known of these rows, and the others."""
        have = dict(known)
        if len(parts) == 1 and self.report.has_failed(parts[0].file.source):
            return
        try:
            with Handles() as handles:
                self._add(handles, parts, self._names, have)
        except LazyNWBError as error:
            if len(parts) == 1:
                self._give_up(parts[0], error)
                return
            at = 0
            for part in parts:
                own = {name: series[at : at + part.rows] for name, series in known.items()}
                at += part.rows
                yield from self._read([part], own)
            return
        self._reading_done(parts, [name for name in self._names if name not in known])
        yield _frame({name: have[name] for name in self._names}, sum(part.rows for part in parts))

    def _reading_done(self, parts: list[Part], rest: list[str]) -> None:
        if rest and self._steps:
            with self._reading as progress:
                progress.update(len(parts))

    def _add(
        self,
        handles: Handles,
        parts: list[Part],
        names: tuple[str, ...] | list[str],
        known: dict[str, pl.Series],
    ) -> None:
        """Read the columns that are not known yet."""
        new = [name for name in names if name not in known]
        schema = {name: self._spec.schema[name] for name in new if name in self._spec.schema}
        if schema:
            for series in read_columns(handles, parts, schema, self._spec.overridden, self._spec.origin):
                known[series.name] = series
        for name in new:
            if name not in schema:
                known[name] = _internal(name, parts, self._spec.table)

    def _bounds(self, handles: Handles, parts: list[Part], rest: list[str]) -> list[tuple[int, int]]:
        """Cut the surviving rows into batches, at files' and chunks' borders where that is possible."""
        rows = sum(part.rows for part in parts)
        limit = config.batch_bytes
        if not rest:
            starts = range(0, rows, _MOST_ROWS)
            return [(start, min(start + _MOST_ROWS, rows)) for start in starts] or [(0, 0)]
        few = self._rows_growth.take() if self._steps else _MOST_ROWS
        heavy = sum(most_bytes(part.file, rest) for part in parts)
        if heavy <= limit // 16 or (heavy <= limit and rows <= few):
            return [(0, rows)]
        sizes = measure_rows(handles, parts, rest)
        total = np.concatenate(sizes)
        if int(total.sum()) <= limit and rows <= few:
            return [(0, rows)]
        ends = np.cumsum([part.rows for part in parts])
        cumulative = np.cumsum(total)
        bounds = []
        start = 0
        while start < rows:
            base = int(cumulative[start - 1]) if start else 0
            stop = int(np.searchsorted(cumulative, base + limit, side="right"))
            stop = min(max(stop, start + 1), start + few, rows)
            if stop < rows and few >= _MOST_ROWS:
                stop = _rounded(start, stop, ends, parts, rest)
            bounds.append((start, stop))
            start = stop
            self._rows_growth.used(1)
            few = self._rows_growth.take() if self._steps else few
        return bounds


def _rounded(start: int, stop: int, ends: np.ndarray, parts: list[Part], rest: list[str]) -> int:
    """Move the end of a batch back to a border, so that no chunk is decoded for two batches."""
    number = int(np.searchsorted(ends, stop, side="right"))
    begin = int(ends[number - 1]) if number else 0
    if begin > start + (stop - start) // 2:
        return begin
    part = parts[number]
    columns = [part.file.columns[name] for name in rest if name in part.file.columns]
    bands = [
        c.data.chunk[0]
        for c in columns
        if c.data is not None and c.data.layout in _IN_CHUNKS and not c.indices and c.data.codecs
    ]
    if not bands or len(part.ranges) != 1:
        return stop
    first = int(part.ranges[0, 0])
    band = max(bands)
    border = (first + stop - begin) // band * band - first + begin
    return border if border > start else stop


def _mask(frame: pl.DataFrame, expression: pl.Expr) -> np.ndarray:
    keep = frame.select(expression.alias("keep")).to_series()
    mask = keep.fill_null(value=False).to_numpy()
    return np.broadcast_to(mask, len(frame)) if len(mask) != len(frame) else mask


def _frame(columns: dict[str, pl.Series], rows: int) -> pl.DataFrame:
    if not columns:
        return pl.DataFrame({TABLE_INDEX: np.zeros(rows, np.uint32)})
    return pl.DataFrame(list(columns.values()))


def _take(parts: list[Part], keep: np.ndarray) -> list[Part]:
    kept = []
    at = 0
    for part in parts:
        left = part.take(keep[at : at + part.rows])
        at += part.rows
        if left.rows:
            kept.append(left)
    return kept


def _cut(parts: list[Part], start: int, stop: int) -> list[Part]:
    kept = []
    at = 0
    for part in parts:
        left, right = max(start - at, 0), min(stop - at, part.rows)
        if left < right:
            kept.append(part.cut(left, right))
        at += part.rows
    return kept


def _internal(name: str, parts: list[Part], table: str) -> pl.Series:
    if name == ROWS:
        return nulls(name, pl.Null(), sum(part.rows for part in parts))
    if name == TABLE_INDEX:
        rows = [part.indices() for part in parts]
        return pl.Series(name, np.concatenate(rows).astype(np.uint32) if rows else np.zeros(0, np.uint32))
    values = [part.file.source.path for part in parts] if name == NWB_PATH else [table] * len(parts)
    which = np.repeat(np.arange(len(parts), dtype=np.uint32), [part.rows for part in parts])
    return pl.Series(name, values, dtype=INTERNAL[name])[which]
