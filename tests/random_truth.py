"""Random sessions and random queries: lazy on both engines == eager == h5py.

    python tests/random_truth.py --examples 5000 --seed 0

runs as many examples as one likes and says what they were; `test_random.py` runs some of them with the suite.
"""

# ruff: noqa: T201 - the summary is what the command is for

from __future__ import annotations

import argparse
import logging
import math
import multiprocessing
import sys
import tempfile
import time
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import hypothesis
import hypothesis.strategies as st
import numpy as np
import polars as pl
from hypothesis import HealthCheck, Phase, event, given, note, settings
from polars.io.plugins import register_io_source

sys.path.insert(0, str(Path(__file__).parent))  # the helpers, however this is run

import lazynwb
from checks import ENGINES, same
from lazynwb.storage.source import Source
from random_expressions import INTERNAL
from random_files import OTHER, SERIES, TABLE, Series, Session, attributes, metadata, sessions
from random_queries import Query, queries
from random_sql import statements
from random_writers import write_attributes, write_hdf5, write_metadata, write_zarr
from readers.scans import Truth, metadata_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: Generated cases and their results, for the summary.
SEEN: Counter[str] = Counter()
QUERIES = 3  # of each example
#: A panic of Polars is no `Exception`.
FAULTS = (AssertionError, pl.exceptions.PolarsError, pl.exceptions.PanicException)
FEW_ROWS = 40
SHARE = 100  # examples that are run together: each share has a seed of its own

random = settings(
    deadline=None,
    phases=set(Phase) - {Phase.explain},  # takes longer than all the rest
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


def seen(what: str, count: int = 1) -> None:
    SEEN[what] += count


@contextmanager
def written(draw: Any, files: Sequence[Session]) -> Iterator[tuple[list[Path], Truth]]:
    """Write sessions as files, and as the HDF5 files that the oracle reads; settings are drawn as well."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        if draw(st.booleans()):  # as if they were old: later queries find catalogs, zone maps and values
            stack.enter_context(patch.object(Source, "is_settled", lambda *_: True))
            seen("examples: files that are cached")
        paths, twins = [], []
        for number, session in enumerate(files):
            twins.append(write_hdf5(Path(folder) / f"{number}.nwb", session))
            paths.append(twins[-1])
            if session.zarr is not None:
                paths[-1] = write_zarr(Path(folder) / f"{number}.nwb.zarr", session)
            seen("files: Zarr" if session.zarr else "files: HDF5")
            for column in session.table.columns.values() if session.table is not None else ():
                seen(f"columns: {column.kind.family}")
                seen(f"columns: {1 + len(column.kind.inner)} dimensions, {column.kind.depth} levels of lists")
        before = lazynwb.config.batch_bytes
        rows = sum(session.table.rows for session in files if session.table is not None)
        few = [1] if rows < FEW_ROWS else []  # one row at a time
        lazynwb.config.batch_bytes = draw(st.sampled_from([*few, 300, 3000, 30_000, 64 << 20]))
        try:
            yield paths, Truth(paths, twins)
        finally:
            lazynwb.config.batch_bytes = before


@contextmanager
def scans(draw: Any, paths: list[Path]) -> Iterator[Callable[..., pl.LazyFrame]]:
    """A function that scans tables of the files, directly, from an index, or on an executor."""
    how = draw(st.sampled_from(["files", "files", "files", "index", "index with values", "executor"]))
    note(f"scans: {how}")
    seen(f"examples: scans of {how}")
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as executor:
        options: dict[str, Any] = {"executor": executor} if how == "executor" else {}
        if how.startswith("index"):
            lazynwb.build_index(paths, folder, values=how.endswith("values"))
            options["index"] = folder
        yield partial(lazynwb.scan_nwb, paths, **options)


def assert_same(actual: pl.DataFrame, expected: pl.DataFrame, *, ordered: bool = True) -> None:
    """Assert equal schemas and values, including -0.0 and NaN, in the same order if it is defined."""
    assert actual.schema == expected.schema
    assert actual.height == expected.height
    if ordered:
        for name in expected.columns:
            one, other = actual[name].to_list(), expected[name].to_list()
            if repr(one) != repr(other):
                row = next(i for i, (a, b) in enumerate(zip(one, other, strict=True)) if repr(a) != repr(b))
                message = f"{name!r}, row {row}: {one[row]!r}, expected {other[row]!r}"
                raise AssertionError(message)
    else:
        assert sorted(map(repr, actual.rows())) == sorted(map(repr, expected.rows()))


def check_whole(lf: pl.LazyFrame, expected: pl.DataFrame, engine: str) -> None:
    """All rows of a scan."""
    schema = lf.collect_schema()
    assert schema == expected.schema, set(schema.items()) ^ set(expected.schema.items())
    note(f"the whole table on {engine}")
    assert_same(lf.collect(engine=engine), expected)
    seen("whole tables compared with the oracle")
    seen("rows compared with the oracle", expected.height)


def check_query(draw: Any, frames: dict[str, tuple[pl.LazyFrame, pl.DataFrame]], main: str) -> None:
    """Check one query over tables whose frames in memory are correct."""
    lazy = {name: lf for name, (lf, _) in frames.items()}
    eager = {name: frame for name, (_, frame) in frames.items()}
    query = draw(queries(eager[main], {name: frame for name, frame in eager.items() if name != main}))
    note(f"{main}{query}")
    for engine in ENGINES:
        note(f"on {engine}")
        try:
            assert_same(query(lazy[main], lazy).collect(engine=engine), query.expected)
        except FAULTS:
            # Whoever finds none of the faults that Polars has may take this out: they are counted.
            if not is_fault_of_polars(query, eager, main, engine):
                raise
            seen("differences that Polars makes without us")
            event("a difference that Polars makes without us")
    seen("queries: of steps")
    seen("steps that Polars refused", query.refused)
    for kind, _, _ in query.steps:
        seen(f"steps: {kind}")
    filters_seen(query, eager[main])


def is_fault_of_polars(query: Query, eager: dict[str, pl.DataFrame], main: str, engine: str) -> bool:
    """Return whether a query fails or differs without lazynwb as well, on frames in memory.

    They are cut into batches as well: what Polars computes of a row may depend on how many there are.
    """
    for rows in (None, 1, 7, 30):  # the last batch may be of nulls alone, which `reverse` makes a List(Null)
        frames = {n: f.lazy() if rows is None else in_batches(f, rows) for n, f in eager.items()}
        try:
            assert_same(query(frames[main], frames).collect(engine=engine), query.expected)
        except FAULTS:
            return True
    return False


def in_batches(frame: pl.DataFrame, rows: int) -> pl.LazyFrame:
    """A minimal source of batches of a number of rows of a frame."""

    def batches(
        names: list[str] | None, predicate: pl.Expr | None, most: int | None, _size: int | None
    ) -> Iterator[pl.DataFrame]:
        left = frame if most is None else frame.head(most)
        left = left if predicate is None else left.filter(predicate)
        left = left if names is None else left.select(names)
        yield from left.iter_slices(rows) if left.height else [left]

    return register_io_source(batches, schema=frame.schema)


def filters_seen(query: Query, frame: pl.DataFrame) -> None:
    height = query.expected.height
    seen("results: without rows" if not height else "results: with rows")
    if any(kind == "filter" for kind, _, _ in query.steps) and frame.height:
        seen("filtered queries over rows")
        seen("filtered queries over rows that left some", bool(height))
    event("a result " + ("without rows" if not height else "with rows"))


SESSION_COLUMNS = {
    "session_id": "general/session_id",
    "keywords": "general/keywords",
    "mouse": "general/subject/subject_id",
}


@st.composite
def scan_options(draw, files: Sequence[Session]) -> tuple[dict[str, Any], dict[str, str]]:
    """Options of the scan, and which session columns they ask for."""
    have = {
        "session_id": True,
        "keywords": any("keywords" in one.general for one in files),
        "mouse": any(one.subject is not None for one in files),
    }
    names = [name for name in draw(st.lists(st.sampled_from(sorted(have)), unique=True)) if have[name]]
    wanted = {name: SESSION_COLUMNS[name] for name in names}
    options: dict[str, Any] = {}
    if wanted:
        options["session_columns"] = {
            name: path.replace("general/subject", "subject") if name == "mouse" else path.rsplit("/", 1)[1]
            for name, path in wanted.items()
        }
    if not draw(st.integers(0, 2)):
        options["resolve_regions"] = True
    if draw(st.booleans()):
        options["length_columns"] = True
        seen("scans: with length columns")
    return options, wanted


def check_tables(draw: Any) -> None:
    """Tables of up to four files: their content, and queries over them."""
    files = draw(sessions(parts=frozenset({"table"})))
    options, wanted = draw(scan_options(files))
    with written(draw, files) as (paths, truth), scans(draw, paths) as scan:
        resolved = OTHER if options.get("resolve_regions") else ""
        frames = {
            TABLE: (
                scan(TABLE, **options),
                truth.frame(TABLE, wanted, regions_of=resolved, lengths=options.get("length_columns", False)),
            ),
            "other": (scan(OTHER), truth.frame(OTHER)),
        }
        for lf, frame in frames.values():
            check_whole(lf, frame, draw(st.sampled_from(ENGINES)))
        for _ in range(QUERIES):
            check_query(draw, frames, TABLE)


def check_series(draw: Any) -> None:
    """A series of up to four files, with a rate or with timestamps in any order."""
    files = draw(sessions(parts=frozenset({"series"})))
    with written(draw, files) as (paths, truth), scans(draw, paths) as scan:
        frames = {"s": (scan(SERIES), truth.frame(SERIES))}
        check_whole(*frames["s"], draw(st.sampled_from(ENGINES)))
        for _ in range(QUERIES):
            check_query(draw, frames, "s")
        for path, session in zip(paths, files, strict=True):
            if session.series is not None:
                check_windows(draw, path, session.series)


def check_windows(draw: Any, path: Path, series: Series) -> None:
    """Windows in seconds of one series: all of their samples, or an error if these are not consecutive."""
    values = series.data.values
    stamps = series.start + np.arange(len(values)) / series.rate
    if series.timestamps is not None:
        stamps = series.timestamps
    found = lazynwb.get_timeseries(path, SERIES, exact_path=True)
    ends = st.sampled_from(stamps[np.isfinite(stamps)].tolist() or [0.0]) | st.sampled_from([-np.inf, np.inf])
    for _ in range(QUERIES):
        start, stop = sorted((draw(ends), draw(ends)))
        note(f"between({start!r}, {stop!r}) of {path.name}")
        rows = np.flatnonzero((stamps >= start) & (stamps < stop))
        if len(rows) and rows[-1] - rows[0] + 1 > len(rows):
            try:
                found.between(start, stop)
            except lazynwb.NotAscendingError:
                seen("windows: samples that are not consecutive")
                continue
            raise AssertionError("a window has samples that are outside of it, or lacks some")
        window = found.between(start, stop)
        assert same(window.timestamps[:].tolist(), stamps[rows].tolist())
        assert same(window.data[:].tolist(), values[rows].tolist())
        seen("windows: with samples" if len(rows) else "windows: without samples")


def check_metadata(draw: Any) -> None:
    """Metadata of up to four files in any stored shape."""
    files = [draw(metadata()) for _ in range(draw(st.integers(1, 4)))]
    with tempfile.TemporaryDirectory() as folder:
        paths = [write_metadata(Path(folder) / f"{n}.nwb", stored) for n, (stored, _) in enumerate(files)]
        known = [(path, values) for path, (_, values) in zip(paths, files, strict=True)]
        for table in ("general", "general/subject"):
            expected = metadata_frame(known, table)
            if expected.height:
                frames = {table: (lazynwb.scan_nwb(paths, f"/{table}"), expected)}
                check_whole(*frames[table], draw(st.sampled_from(ENGINES)))
                check_query(draw, frames, table)
        frame = lazynwb.get_metadata_df(paths, as_polars=True)
        for row, (path, values) in enumerate(known):
            session = lazynwb.LazyNWB(path)
            for place, value in values.items():
                group, _, name = place.rpartition("/")
                owner = session.subject if group == "general/subject" else session
                assert getattr(owner, name) == value
                cell = frame[name][row]
                cell = cell.to_list() if isinstance(cell, pl.Series) else cell
                assert cell in (value, [value])  # a list where another file has several
        lazy = lazynwb.scan_sessions(paths)
        whole = lazy.collect(engine=draw(st.sampled_from(ENGINES)))
        for name in {place.rpartition("/")[2] for _, values in known for place in values}:
            assert whole[name].to_list() == frame[name].to_list()
        check_query(draw, {"sessions": (lazy, whole)}, "sessions")
        seen("metadata: fields compared", sum(len(values) for _, values in known))


def check_patterns(draw: Any) -> None:
    """Scans of tables whose paths match a pattern."""
    files = draw(sessions())
    with written(draw, files) as (paths, truth), scans(draw, paths) as scan:
        pattern, tables = draw(
            st.sampled_from([("[to]*", (OTHER, TABLE)), ("/gen*/o?her", (OTHER,)), ("/acq*/**", (SERIES,))])
        )
        options, wanted = draw(scan_options(files))
        options.pop("resolve_regions", None)
        lengths = options.get("length_columns", False)
        frames = {
            pattern: (
                scan(pattern, **options),
                truth.union(*tables, session_columns=wanted, lengths=lengths),
            )
        }
        check_whole(*frames[pattern], draw(st.sampled_from(ENGINES)))
        for _ in range(QUERIES):
            check_query(draw, frames, pattern)


def check_sessions(draw: Any) -> None:
    """One row per session: metadata, sizes, and numbers of rows of tables and series."""
    files = draw(sessions())
    with written(draw, files) as (paths, truth):
        metadata = {"session_id": SESSION_COLUMNS["session_id"]}
        if any("keywords" in one.general for one in files):
            metadata["keywords"] = SESSION_COLUMNS["keywords"]
        if any(one.subject is not None for one in files):
            metadata["subject_id"] = SESSION_COLUMNS["mouse"]
        tables = {f"n_{path.rpartition('/')[2]}": path for path in (TABLE, OTHER, SERIES)}
        expected = truth.sessions(tables, metadata)
        lazy = lazynwb.scan_sessions(paths)
        counts = [name for name in lazy.collect_schema() if name.startswith("n_")]
        assert sorted(counts) == sorted(tables.keys() & set(expected.columns))
        frames = {"sessions": (lazy.select(expected.columns), expected)}
        check_whole(*frames["sessions"], draw(st.sampled_from(ENGINES)))
        for _ in range(QUERIES):
            check_query(draw, frames, "sessions")


def check_sql(draw: Any) -> None:
    """Statements in SQL, over tables, a series and metadata."""
    files = draw(sessions())
    with written(draw, files) as (paths, truth):
        frames = {"t": truth.frame(TABLE), "other": truth.frame(OTHER), "s": truth.frame(SERIES)}
        context = lazynwb.get_sql_context(paths, ignore_errors=False)
        eager = pl.SQLContext({name: frame.lazy() for name, frame in frames.items()})
        for name, frame in frames.items():
            assert_same(context.execute(f"FROM {name}").collect(), frame)
        for _ in range(QUERIES):
            statement, ordered = draw(statements(frames))
            note(statement)
            expected = eager.execute(statement).collect()
            for engine in ENGINES:
                note(f"on {engine}")
                assert_same(context.execute(statement).collect(engine=engine), expected, ordered=ordered)
            seen("queries: SQL")
            seen("results: with rows" if expected.height else "results: without rows")


def check_late(draw: Any) -> None:
    """Late columns of the remaining rows of a query, and `get_df` with row numbers."""
    files = draw(sessions())
    with written(draw, files) as (paths, truth), scans(draw, paths) as scan:
        table = draw(st.sampled_from([TABLE, TABLE, SERIES]))
        frame = truth.frame(table)
        lf = scan(table)
        check_whole(lf, frame, draw(st.sampled_from(ENGINES)))
        names = [name for name in frame.columns if name not in INTERNAL]
        late = draw(st.lists(st.sampled_from(names), min_size=1, unique=True)) if names else []
        for _ in range(QUERIES if late else 0):
            query = draw(queries(frame, {}, rows_only=True))
            note(f"{table}{query}\n    then {late}")
            expected = query.expected.select(*INTERNAL, *late)
            types = {name: frame.schema[name] for name in late}
            for engine in ENGINES:
                note(f"on {engine}")
                rows = query(lf, {}).select(INTERNAL)
                found = rows.nwb.with_columns(late, schema_overrides=types).collect(engine=engine)
                assert_same(found, expected)
            known = [name for name in late if expected[name].null_count() < expected.height]
            if known:  # else no file that is left may have them, which is an error
                inferred = query(lf, {}).select(INTERNAL).collect().nwb.with_columns(known)
                for name in known:  # in a type of those files: that of all may be another list, or struct
                    nested = expected.schema[name].is_nested()
                    assert nested or same(inferred[name].to_list(), expected[name].to_list())
            seen("queries: columns read late")
            seen("results: with rows" if expected.height else "results: without rows")
        check_rows(draw, paths, table, frame)


def check_rows(draw: Any, paths: list[Path], table: str, frame: pl.DataFrame) -> None:
    """Rows of a table by their numbers, in any order."""
    rows = {}
    parts = [frame.clear()]
    for path, part in frame.group_by("_nwb_path", maintain_order=True):
        rows[path[0]] = draw(st.lists(st.integers(0, part.height - 1), max_size=6))
        parts.append(part[rows[path[0]]])
    found = (
        lazynwb.get_df(
            paths,
            table,
            exact_path=True,
            nwb_path_to_row_indices=rows,
            exclude_array_columns=False,
            as_polars=True,
        )
        if rows
        else frame.clear()
    )
    expected = pl.concat(parts)
    if len(rows) == len(paths):
        assert_same(found, expected)
    else:  # columns and their types are those of fewer files
        for name in found.columns:
            nested = expected.schema[name].is_nested()
            assert nested or same(found[name].to_list(), expected[name].to_list())
    seen("queries: rows by number")


def check_attributes(draw: Any) -> None:
    """Attributes of objects of up to three files in any shape, and of all objects below a group."""
    objects = ("", "acquisition", "acquisition/s", "acquisition/s/data")
    with tempfile.TemporaryDirectory() as folder:
        paths, all_expected = [], []
        for number in range(draw(st.integers(1, 3))):
            drawn = {path: draw(attributes()) for path in objects}
            stored = {path: values for path, (values, _) in drawn.items()}
            store = draw(st.sampled_from(["HDF5", "HDF5", 2, 3]))
            paths.append(write_attributes(Path(folder) / f"{number}.nwb", stored, store))
            all_expected.append({path: values for path, (_, values) in drawn.items()})
        place = draw(st.sampled_from(objects))
        for path, expected in zip(paths, all_expected, strict=True):
            for name, values in expected.items():
                assert repr(lazynwb.get_attrs(path, f"/{name}")) == repr(dict(sorted(values.items())))
            below = {
                name: values for name, values in expected.items() if f"{name}/".startswith(place) and values
            }
            found = lazynwb.get_sub_attrs(path, f"/{place}")
            assert repr({k: v for k, v in sorted(found.items()) if v}) == repr(
                {f"/{name}": dict(sorted(values.items())) for name, values in sorted(below.items())}
            )
            seen("attributes compared", sum(map(len, expected.values())))


CHECKS = {
    "tables": check_tables,
    "series": check_series,
    "sql": check_sql,
    "late": check_late,
    "metadata": check_metadata,
    "patterns": check_patterns,
    "sessions": check_sessions,
    "attributes": check_attributes,
}
#: Of so many examples.
SHARES = {
    "tables": 0.48,
    "series": 0.15,
    "sql": 0.13,
    "late": 0.1,
    "metadata": 0.04,
    "patterns": 0.05,
    "sessions": 0.03,
    "attributes": 0.02,
}


def as_test(name: str, **options: Any) -> Any:
    """A test of random examples."""

    @settings(random, **options)
    @given(st.data())
    def test(data: st.DataObject) -> None:
        CHECKS[name](data.draw)
        seen(f"examples: {name}")

    return test


def run(names: Sequence[str], examples: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Run a number of examples in this process; return their counts and failures."""
    logging.getLogger("lazynwb").setLevel(logging.CRITICAL)  # files with faults are said to have them
    SEEN.clear()
    failed = []
    total = sum(SHARES[name] for name in names)
    with tempfile.TemporaryDirectory() as cache:
        lazynwb.config.cache_dir, lazynwb.config.disable_progress = Path(cache), True
        for name in names:
            count = math.ceil(examples * SHARES[name] / total)
            try:
                hypothesis.seed(seed)(as_test(name, max_examples=count, database=None))()
            except (Exception, pl.exceptions.PanicException):  # noqa: BLE001 - the others are to be run as well
                traceback.print_exc()
                failed.append(f"{name} with seed {seed}")
    return Counter(SEEN), failed


def total_of(counts: Counter[str]) -> int:
    return sum(count for what, count in counts.items() if what.startswith("examples: "))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--examples", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--only", choices=sorted(CHECKS), action="append")
    args = parser.parse_args()
    began = time.monotonic()
    counts: Counter[str] = Counter()
    failed: list[str] = []
    shares = [
        (args.seed * 1000 + n, min(SHARE, args.examples - n * SHARE))
        for n in range(-(-args.examples // SHARE))
    ]
    with ProcessPoolExecutor(args.jobs, multiprocessing.get_context("spawn")) as pool:
        runs = [pool.submit(run, args.only or [*CHECKS], examples, seed) for seed, examples in shares]
        for done in as_completed(runs):
            found, broken = done.result()
            counts += found
            failed += broken
            print(f"{total_of(counts):,} examples, {len(failed)} failures", file=sys.stderr, flush=True)
    if counts["results: with rows"] < counts["results: without rows"]:
        failed.append("most results are empty: such a run tells little")
    for what, count in sorted(counts.items()):
        print(f"{count:>10,}  {what}")
    outcome = "FAILED: " + ", ".join(failed) if failed else "all as expected"
    print(f"{total_of(counts):,} examples in {time.monotonic() - began:.0f} s: {outcome}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
