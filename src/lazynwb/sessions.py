"""`scan_sessions`: one row per session with its metadata, tables and duration."""

from __future__ import annotations

import logging
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import polars as pl
from polars import selectors

from lazynwb.arrays.slicing import read_slice
from lazynwb.catalog.dtypes import NWB_PATH, ROWS
from lazynwb.catalog.merge import nulls
from lazynwb.engine.plan import Growth, conjuncts
from lazynwb.errors import LazyNWBError, may_skip
from lazynwb.formats.nwb.names import GENERAL
from lazynwb.index.model import VERSION
from lazynwb.index.scan_sources import sources_of
from lazynwb.index.snapshot import TableSummary
from lazynwb.index.source_record import file_size
from lazynwb.lookup.loader import load_attributes, load_listing
from lazynwb.lookup.prefetch import load_pairs
from lazynwb.lookup.table_listing import find_tables, shortest_names
from lazynwb.metadata import MetadataField, metadata_fields, read_fields
from lazynwb.progress import Progress
from lazynwb.scan import source_frame
from lazynwb.sql import METADATA_NAMES
from lazynwb.storage.remote_state import save
from lazynwb.storage.source import map_concurrently
from lazynwb.suggestions import join_problems

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from lazynwb.index.reader import Index
    from lazynwb.lookup.loader import TableFile
    from lazynwb.storage.resolve import Sources
    from lazynwb.storage.source import Source

T = TypeVar("T")

_LOGGER = logging.getLogger("lazynwb")

SIZE, DURATION, TABLES = "size", "duration", "tables"
#: Type of an element of the column `tables`.
_TABLE = pl.Struct({"path": pl.String(), "kind": pl.String(), "rows": pl.Int64(), "columns": pl.UInt32()})
#: Columns of times in seconds relative to the reference time of the session.
_TIMES = ("timestamps", "start_time", "stop_time", "timestamp")
#: Number of files of the first block and of the largest one, without and with an index.
_FIRST_FILES, _MAX_FILES, _MAX_INDEXED = 16, 1024, 16_384
#: The column with the number of a file.
_FILE = "_lazynwb_file"


def scan_sessions(  # noqa: PLR0913 - the options of a scan
    source: Sources | None = None,
    *,
    index: Index | str | os.PathLike[str] | None = None,
    exclude_timeseries: bool = False,
    infer_schema_length: int | None = None,
    ignore_errors: bool = False,
    disable_progress: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> pl.LazyFrame:
    """Scan many NWB files as one LazyFrame with one row per session.

    A query only reads what it needs: a projection of `subject_id` reads one value per file, and a filter on
    it is evaluated before other columns are read. With an index, all columns except `duration` are read from
    it, and no file is opened.

    Parameters
    ----------
    source : path or URL, or iterable of these, or None
        As for `scan_nwb`. A file that is given twice has two rows. With an index, None stands for all of its
        files.
    index : path or URL or Index or None
        An index written by `build_index`. Changes of sessions since then are not detected.
    exclude_timeseries : bool
        Whether to leave series out of the columns `n_...` and `tables`.
    infer_schema_length : int or None
        Number of files that determine the columns; None for all.
    ignore_errors : bool
        Whether values that cannot be read are null, with a warning, rather than an error.
    disable_progress : bool
        Whether to hide progress bars.
    storage_options : mapping or None
        As for `scan_nwb`.

    Returns
    -------
    LazyFrame
        Rows are in the order of the sources. The columns are

        - those of `get_metadata_df` with their types: `session_id`, `session_start_time`, `subject_id`, ...
          (with the prefix `session_` if the name is that of a column below);
        - `nwb_version` (String), an attribute of the file; null if it has none (NWB 1);
        - `size` (Int64) of the file in bytes; null for a store of many objects;
        - `duration` (Float64) in seconds, see the notes;
        - `n_units`, `n_trials`, `n_running_speed`, ... (Int64): the number of rows of each table and of
          samples of each series; null if the session lacks it. Tables are named as in SQL: by the last part
          of the path, or as many parts as are necessary to distinguish them (`n_behavior/position`);
        - `tables` (List of Struct of `path`, `kind`, `rows` and `columns`): all tables and series of the
          session;
        - `_nwb_path` (String), as in every scan.

    Raises
    ------
    SourceNotFoundError
        If a source or the index does not exist.
    LazyNWBError
        If a file cannot be read.

    Notes
    -----
    The numbers of rows are plain columns, because they are the most common filters: `pl.col("n_units") > 100`
    is simpler, and reads less, than a search in a list. `tables` has the same information as values: for
    tables that only few sessions have, for patterns, and for `explode`.

    `duration` is the time from the first to the last event of a session: the first and last sample of each
    series (`timestamps`, or `starting_time` and `rate`), and the first and last row of each table with
    `start_time`, `stop_time` or `timestamp` in seconds. Only these rows are read, which are in one or two
    chunks of each column. Minimum and maximum are not computed: if times do not ascend, `duration` is that of
    the stored order. Spikes are not included. It is null if a session has no times. It is the only column
    whose values are read from the data of the files.

    NWB core, nwb.file.yaml: the types NWBFile and Subject; nwb.base.yaml: TimeSeries.

    Examples
    --------
    >>> lazynwb.scan_sessions("sessions/*.nwb").filter(
    ...     pl.col("n_units") > 0, pl.col("n_running_speed").is_not_null()
    ... ).select("session_id", "n_units", pl.col("duration") / 60).collect()  # doctest: +SKIP
    """
    sources, catalogs = sources_of(source, index, storage_options)
    sampled = sources[:infer_schema_length]
    fields = metadata_fields(
        sampled, catalogs, ignore_errors=ignore_errors, disable_progress=disable_progress
    )
    holders = find_tables(
        sampled,
        series=not exclude_timeseries,
        ignore_errors=ignore_errors,
        disable_progress=disable_progress,
        catalogs=catalogs,
    )
    save()
    # The metadata are columns themselves.
    names = shortest_names([path for path in holders if path not in METADATA_NAMES], {})
    counts = {f"n_{name}": path for path, name in sorted(names.items(), key=lambda item: item[1])}
    own = {
        VERSION: pl.String(),
        SIZE: pl.Int64(),
        DURATION: pl.Float64(),
        **dict.fromkeys(counts, pl.Int64()),
    }
    taken = {*own, TABLES, NWB_PATH}
    metadata: dict[str, MetadataField] = {}
    for name, field in fields.items():
        new = name
        while new in taken or (new != name and new in fields):
            new = f"session_{new}"
        metadata[new] = field
    schema = {
        **{name: field.dtype for name, field in metadata.items()},
        **own,
        TABLES: pl.List(_TABLE),
        NWB_PATH: pl.String(),
    }
    scan = SessionScan(
        *(sources, catalogs, metadata, counts, schema),
        *(not exclude_timeseries, ignore_errors, disable_progress),
    )
    detail = f"sessions of {len(sources)} file{'s' if len(sources) != 1 else ''}"
    # Polars projects the first column of a source to count rows.
    frame = source_frame(scan.batches, {ROWS: pl.Null(), **schema}, detail)
    return frame.select(selectors.by_name(*schema))


class SessionScan(NamedTuple):
    """A planned scan of sessions; a plain value that can be pickled.

    Attributes
    ----------
    sources : tuple of Source
        The files.
    catalogs : Index or None
        The index, if there is one.
    metadata : dict of str to MetadataField
        Metadata fields by column.
    counts : dict of str to str
        Paths of tables by the column with their number of rows.
    schema : dict of str to DataType
        Schema of the scan.
    series, ignore_errors, disable_progress : bool
        Options of the scan.
    """

    sources: tuple[Source, ...]
    catalogs: Index | None
    metadata: dict[str, MetadataField]
    counts: dict[str, str]
    schema: dict[str, pl.DataType]
    series: bool
    ignore_errors: bool
    disable_progress: bool

    def batches(
        self, with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None
    ) -> Iterator[pl.DataFrame]:
        """Yield rows in the order of the sources; see `lazynwb.engine.batches.run` for the parameters."""
        names = list(with_columns) if with_columns is not None else [ROWS, *self.schema]
        parts = [] if predicate is None else conjuncts(predicate)
        steps = [(part, list(dict.fromkeys(part.meta.root_names()))) for part in parts]
        steps.sort(key=lambda step: max(map(self._cost, step[1]), default=0))
        max_files = _MAX_FILES if self.catalogs is None else _MAX_INDEXED
        growth = Growth(
            min(_FIRST_FILES if steps or self.catalogs is None else max_files, max_files), max_files
        )
        left = iter(self.sources if n_rows is None else self.sources[:n_rows])
        failures: dict[str, str] = {}
        total = len(self.sources) if n_rows is None else min(n_rows, len(self.sources))
        with Progress("Looking up NWB sessions", total, disabled=self.disable_progress) as progress:
            while block := list(islice(left, growth.take())):
                frame = self._rows(block, names, steps, failures)
                progress.update(len(block))
                growth.used(int(len(frame) > 0))
                if len(frame):
                    with progress.suspended():
                        yield frame
        save()
        if failures:
            listed = join_problems(failures.values())
            _LOGGER.warning(
                "%d of %d sessions could not be read, and are null: %s", len(failures), total, listed
            )
        yield self._empty(names)

    def _empty(self, names: list[str]) -> pl.DataFrame:
        return pl.DataFrame(schema={name: self.schema.get(name, pl.Null()) for name in names})

    def _cost(self, name: str) -> int:
        """Return a relative cost of reading a column."""
        if name in self.metadata:
            return 2
        return {NWB_PATH: 0, SIZE: 1, VERSION: 3, TABLES: 5, DURATION: 6}.get(name, 4)

    def _rows(
        self,
        block: list[Source],
        names: list[str],
        steps: list[tuple[pl.Expr, list[str]]],
        failures: dict[str, str],
    ) -> pl.DataFrame:
        """Return the rows of some files that pass a predicate."""
        paths = pl.Series(NWB_PATH, [source.path for source in block], dtype=pl.String)
        numbers = pl.Series(_FILE, range(len(block)), dtype=pl.UInt32)
        frame = pl.DataFrame([numbers, paths, nulls(ROWS, pl.Null(), len(block))])
        columns = _Columns(self, failures)
        for expression, needed in steps:
            frame = columns.added(frame, block, needed).filter(expression)
            if not len(frame):
                break
        else:
            frame = columns.added(frame, block, names)
            return pl.DataFrame([frame[name] for name in names])
        return self._empty(names)


class _Columns:
    """Columns of sessions, which are read in groups."""

    def __init__(self, scan: SessionScan, failures: dict[str, str]) -> None:
        self._scan = scan
        self._failures = failures

    def added(self, frame: pl.DataFrame, block: list[Source], names: Sequence[str]) -> pl.DataFrame:
        """Return the frame with additional columns."""
        scan = self._scan
        lacking = [name for name in names if name not in frame.columns]
        if not lacking or not len(frame):
            return frame.with_columns(pl.lit(None, scan.schema[name]).alias(name) for name in lacking)
        sources = [block[number] for number in frame[_FILE]]
        found: dict[str, pl.Series] = {}
        fields = {name: scan.metadata[name] for name in lacking if name in scan.metadata}
        if fields:
            read = read_fields(sources, fields, scan.catalogs, ignore_errors=scan.ignore_errors)
            found |= {series.name: series for series in read}
        values: dict[str, list[Any]] = {}
        if SIZE in lacking:
            values[SIZE] = self._each(sources, _size, ("", SIZE))
        if VERSION in lacking:
            values[VERSION] = self._versions(sources)
        counted = [name for name in lacking if name in scan.counts]
        if TABLES in lacking:
            values |= self._tables(sources, counted)
        elif counted:
            values |= self._counts(sources, counted)
        if DURATION in lacking:
            values[DURATION] = self._durations(sources)
        found |= {name: pl.Series(name, own, dtype=scan.schema[name]) for name, own in values.items()}
        return frame.hstack([found[name] for name in lacking])

    def _each(
        self,
        sources: Sequence[Source],
        look_up: Callable[[Source], T],
        known: tuple[str, str] | None = None,
    ) -> list[T | None]:
        """Return a value of each source; from the index if it has the value, see `Index.session_values`."""
        values: dict[Source, T | None] = {}
        catalogs = self._scan.catalogs
        distinct = list(dict.fromkeys(sources))
        if known is not None and catalogs is not None:
            order, found = catalogs.session_values(distinct, [known])
            if known in found:
                values |= zip((distinct[at] for at in order), found[known], strict=True)
        left = [source for source in distinct if source not in values]
        values |= zip(left, map_concurrently(partial(self._guarded, look_up), left, left), strict=True)
        return [values[source] for source in sources]

    def _guarded(self, look_up: Callable[[Source], T], source: Source) -> T | None:
        try:
            return look_up(source)
        except LazyNWBError as error:
            self._note(source, error)
            return None

    def _note(self, source: Source, error: LazyNWBError) -> None:
        """Record an error with `ignore_errors`; otherwise raise it."""
        if not may_skip(error, ignore_errors=self._scan.ignore_errors):
            raise error
        text = str(error)
        self._failures.setdefault(source.name, text if source.name in text else f"{source.name}: {text}")

    def _versions(self, sources: list[Source]) -> list[str | None]:
        def version(source: Source) -> str | None:
            found = (load_attributes(source, "") or {}).get("", {}).get(VERSION)
            return found if isinstance(found, str) else None

        return self._each(sources, version, (GENERAL, VERSION))

    # -- tables -------------------------------------------------------------------------------------------

    def _tables(self, sources: list[Source], counted: Sequence[str]) -> dict[str, list[Any]]:
        """Return all tables of sources, and the numbers of rows of some of them."""
        known: dict[Source, list[TableSummary] | None] = {}
        distinct = list(dict.fromkeys(sources))
        if self._scan.catalogs is not None:
            known |= self._scan.catalogs.summaries(distinct)
        left = [source for source in distinct if source not in known]
        listed = map_concurrently(partial(self._guarded, self._paths), left, left)
        known |= zip(left, listed_summaries(self, left, listed), strict=True)
        tables: list[list[dict[str, Any]] | None] = []
        rows: dict[str, list[int | None]] = {name: [] for name in counted}
        for source in sources:
            own = known[source]
            hidden = {"metadata"} if self._scan.series else {"metadata", "series"}
            tables.append(None if own is None else [one._asdict() for one in own if one.kind not in hidden])
            by_path = {one.path: one.rows for one in own or ()}
            for name in counted:
                rows[name].append(by_path.get(self._scan.counts[name]))
        return {TABLES: tables, **rows}

    @staticmethod
    def _paths(source: Source) -> list[str]:
        return sorted(load_listing(source).tables())

    def load(self, pairs: list[tuple[Source, str]], *, reading: bool) -> Iterator[TableFile | None]:
        """Yield the tables of files; None for tables that do not exist or cannot be read."""
        loads = load_pairs(pairs, self._scan.catalogs, reading=reading)
        for (source, _), load in zip(pairs, loads, strict=True):
            try:
                yield load()
            except LazyNWBError as error:
                self._note(source, error)
                yield None

    def _counts(self, sources: list[Source], counted: Sequence[str]) -> dict[str, list[Any]]:
        """Return the numbers of rows of some tables of sources."""
        distinct = list(dict.fromkeys(sources))
        paths = [self._scan.counts[name] for name in counted]
        pairs = [(source, path) for path in paths for source in distinct]
        rows: dict[tuple[Source, str], int | None] = {}
        for pair, file in zip(pairs, self.load(pairs, reading=False), strict=True):
            # Exclude tables at other paths, which replace it in files before NWB 2.
            rows[pair] = file.table.rows if file is not None and file.table.path == pair[1] else None
        return {
            name: [rows[source, path] for source in sources]
            for name, path in zip(counted, paths, strict=True)
        }

    def _durations(self, sources: list[Source]) -> list[float | None]:
        """Return the seconds from the first to the last time of sources."""
        distinct = list(dict.fromkeys(sources))
        holders: dict[str, list[Source]] = {}
        unknown: Sequence[Source] = distinct
        if self._scan.catalogs is not None:
            holders, unknown = self._scan.catalogs.sources_by_table(distinct, series=True)
        paths: dict[Source, list[str]] = {source: [] for source in distinct}
        for path, having in holders.items():
            for source in having:
                paths[source].append(path)
        listing = map_concurrently(partial(self._guarded, self._paths), list(unknown), unknown)
        paths |= {source: listed or [] for source, listed in zip(unknown, listing, strict=True)}
        pairs = [
            (source, path) for source in distinct for path in paths[source] if path not in METADATA_NAMES
        ]
        files: dict[Source, list[TableFile]] = {}
        for (source, _), file in zip(pairs, self.load(pairs, reading=True), strict=True):
            if file is not None:
                files.setdefault(source, []).append(file)
        return self._each(sources, lambda source: _duration(files.get(source, [])))


def listed_summaries(
    columns: _Columns, sources: list[Source], listed: list[list[str] | None]
) -> list[list[TableSummary] | None]:
    """Return summaries of the tables of sources with known paths."""
    pairs = [(source, path) for source, paths in zip(sources, listed, strict=True) for path in paths or ()]
    loaded = columns.load(pairs, reading=False)
    found: list[list[TableSummary] | None] = []
    for paths in listed:
        own: list[TableSummary] | None = None if paths is None else []
        for path in paths or ():
            file = next(loaded)
            assert own is not None  # noqa: S101 - there are paths
            if file is None:
                own.append(TableSummary(path, None, None, None))
            else:
                table = file.table
                own.append(TableSummary(path, table.kind, table.rows, len(table.columns)))
        found.append(own)
    return found


def _size(source: Source) -> int | None:
    return file_size(source.identity(known=True))


def _duration(files: Sequence[TableFile]) -> float | None:
    """Return the seconds from the first to the last time in some tables of a session."""
    times: list[float] = []
    seen: set[tuple[str | None, str]] = set()
    for file in files:
        for name in _TIMES:
            column = file.columns.get(name)
            if column is None or column.indices:
                continue
            start, rate = column.regular or (0.0, 0.0)
            if rate and file.table.rows:
                times += [start, start + (file.table.rows - 1) / rate]
            array = column.data
            if array is None or len(array.shape) != 1 or not array.rows or (array.source, array.path) in seen:
                continue
            if array.dtype.kind != "number" or array.dtype.dims:
                continue
            seen.add((array.source, array.path))
            rows = [0, array.rows - 1] if array.rows > 1 else [0]
            for row in rows:
                times += np.atleast_1d(read_slice(file, array, slice(row, row + 1))).astype(float).tolist()
    finite = [time for time in times if np.isfinite(time)]
    return max(finite) - min(finite) if finite else None
