"""Run demonstration queries on synthetic sessions, or on the given files."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import itertools
import logging
import shutil
import sys
import tempfile
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from tqdm import tqdm

import lazynwb
from lazynwb.demo.cube import write_cube
from lazynwb.demo.queries import NOTEBOOK, STRUCTURE, Query
from lazynwb.storage.resolve import expand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

LOGGER = logging.getLogger("lazynwb")
MB = 1e6
LINES = 30
BIGGEST = 3
COLUMN_WIDTH = 24
METADATA = {"session", "subject"}


class PrintingHandler(logging.Handler):
    """A handler that prints warnings next to their query without breaking a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a log message."""
        tqdm.write(f"[{record.getMessage()}]")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration with command line arguments; return the exit code of the process."""
    parser = argparse.ArgumentParser(prog="python -m lazynwb.demo", description=__doc__)
    parser.add_argument(
        "source", nargs="*", help="NWB files, folders or patterns. Default: synthetic sessions."
    )
    try:
        show_demo(parser.parse_args(arguments).source)
    except lazynwb.LazyNWBError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def show_demo(sources: Sequence[str]) -> None:
    """Run the demonstration on files, or on a synthetic cube if there are none."""
    printing = PrintingHandler()
    LOGGER.addHandler(printing)
    try:
        _show(sources)
    finally:
        LOGGER.removeHandler(printing)


def _show(sources: Sequence[str]) -> None:
    print(f"lazynwb {lazynwb.__version__}, Polars {pl.__version__}")
    width = shutil.get_terminal_size((120, 24)).columns
    columns = min(6, max(2, width // COLUMN_WIDTH))
    with pl.Config(tbl_rows=6, tbl_cols=columns, tbl_width_chars=width, fmt_str_lengths=width // 3):
        if sources:
            show_files(sources)
        else:
            show_cube()


def show_cube() -> None:
    """Write synthetic sessions to a temporary folder and run every query on them."""
    with tempfile.TemporaryDirectory(prefix="nwb-") as folder:
        # The cache of temporary files is temporary as well.
        lazynwb.config.cache_dir = Path(folder, ".cache")
        started = time.perf_counter()
        nwb_paths = write_cube(folder)
        seconds = time.perf_counter() - started
        print(f"{size(nwb_paths)}, written in {seconds:.1f} s to a temporary folder")
        for query in (*STRUCTURE, *NOTEBOOK):
            run(query, nwb_paths)


def show_files(sources: Sequence[str]) -> None:
    """List the tables of files, show the largest, and run the queries that apply."""
    nwb_paths = readable([Path(source.path) for source in expand(sources)])
    print(size(nwb_paths))
    run(STRUCTURE[0], nwb_paths)

    heading("Tables of all files by their names in SQL")
    context = lazynwb.get_sql_context(nwb_paths)
    tables = {
        name: context.execute(select_all(name), eager=False) for name in context.tables() if name != "general"
    }
    with quiet():
        rows = count_rows(tables)
    ranked = sorted(rows, key=lambda name: -rows[name][0])
    show({name: f"{rows[name][0]:,} rows, {rows[name][1]} of {len(nwb_paths)} files" for name in ranked})

    biggest = (name for name in ranked if not is_series(tables[name]) and name not in METADATA)
    for name in itertools.islice(biggest, BIGGEST):
        heading(f"{name}: columns and first rows")
        show(tables[name].collect_schema())
        print()
        with quiet():
            timed(tables[name].head(3).collect)

    for query in NOTEBOOK:
        if reason := why_not(query, nwb_paths):
            heading(query.title)
            print(f"Not run: {reason}")
        else:
            run(query, nwb_paths)


def readable(nwb_paths: list[Path]) -> list[Path]:
    """Return the files that can be read, and print the errors of the others."""
    good = []
    failures = []
    for path in nwb_paths:
        try:
            lazynwb.get_internal_paths(path)
        except lazynwb.LazyNWBError as error:
            failures.append(error)
        else:
            good.append(path)
    if failures and not good:
        raise failures[0]
    for failure in failures:
        print(f"Skipped: {failure}")
    return good


def count_rows(tables: Mapping[str, pl.LazyFrame]) -> dict[str, tuple[int, int]]:
    """Return the number of rows of each table, and of files with the table."""
    rows = {}
    for name, table in tables.items():
        try:
            counts = table.select(pl.len(), pl.col("_nwb_path").n_unique()).collect()
        except lazynwb.LazyNWBError as error:
            print(f"{name}: {error}")
        else:
            rows[name] = counts.row(0)
    return rows


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Disable warnings about files without a table, whose number is printed once."""
    level = LOGGER.level
    LOGGER.setLevel(logging.ERROR)
    try:
        yield
    finally:
        LOGGER.setLevel(level)


def select_all(name: str) -> str:
    """Return the SQL that selects a table, with its name quoted."""
    quoted = name.replace('"', '""')
    return f'SELECT * FROM "{quoted}"'  # noqa: S608 - quoted; the context has only these frames


def is_series(table: pl.LazyFrame) -> bool:
    """Return whether a table is a TimeSeries."""
    return {"data", "timestamps"} <= set(table.collect_schema())


def why_not(query: Query, nwb_paths: list[Path]) -> str | None:
    """Return the reason why a query does not apply to files; None if it does."""
    for table, columns in query.needs.items():
        try:
            schema = lazynwb.get_table_schema(nwb_paths, table, first_n_files_to_infer_schema=1)
        except lazynwb.TableNotFoundError:
            return f"no file has a table /{table}."
        except lazynwb.LazyNWBError as error:
            return str(error)
        if missing := [column for column in columns if column not in schema]:
            return f"the first /{table} has no column {', '.join(missing)}."
    return None


def run(query: Query, nwb_paths: list[Path]) -> None:
    """Print the source of a query, its result and its cost."""
    heading(query.title)
    print(code_of(query))
    print()
    timed(lambda: query.run(nwb_paths))


def code_of(query: Query) -> str:
    """Return the body of a query's function."""
    _, _, body = inspect.getsource(query.run).partition("\n")
    return textwrap.dedent(body).strip().replace("return ", "")


def timed(action: Callable[[], object]) -> None:
    """Print the result of an action, its time and the data that it read."""
    started = time.perf_counter()
    try:
        with lazynwb.profile() as cost:
            result = action()
    except (lazynwb.LazyNWBError, pl.exceptions.PolarsError) as error:
        print(f"{type(error).__name__}: {error}")
        return
    seconds = time.perf_counter() - started
    show(result)
    print(f"{seconds:.3f} s, {cost.bytes_read / MB:,.2f} MB of data read")


def show(result: object) -> None:
    """Print a frame, or a mapping line by line."""
    if not isinstance(result, Mapping):
        print(result)
        return
    width = max(map(len, result), default=0)
    for name, value in itertools.islice(result.items(), LINES):
        print(f"{name:{width}}  {value!s}")
    if len(result) > LINES:
        print(f"... and {len(result) - LINES} more")


def heading(title: str) -> None:
    """Print a heading."""
    print(f"\n# {title}\n")


def size(nwb_paths: Sequence[Path]) -> str:
    """Return the number and total size of files as text."""
    total = sum(path.stat().st_size for path in nwb_paths if path.is_file())
    return f"{len(nwb_paths)} NWB file{'s' if len(nwb_paths) != 1 else ''}, {total / MB:,.1f} MB"


if __name__ == "__main__":
    sys.exit(main())
