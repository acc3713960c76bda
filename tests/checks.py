"""Comparison of results of lazynwb with those of the oracle."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import polars as pl

import forking
from readers import hdf5_tables as oracle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

ENGINES = ("in-memory", "streaming")
#: Set by `--slow`.
THOROUGH = False
INTERNAL = {"_nwb_path": pl.String, "_table_path": pl.String, "_table_index": pl.UInt32}


def sample(values: Sequence[T], step: int) -> Sequence[T]:
    """Return a sample of the values; all of them with `--slow`."""
    return values if THOROUGH else values[::step]


def count(usual: int, thorough: int) -> int:
    """Return how many cases a test runs by default, or with `--slow`."""
    return thorough if THOROUGH else usual


def same(left: Any, right: Any) -> bool:
    """Equal values, where NaN equals NaN."""
    if left == right:
        return True
    if isinstance(left, float | np.floating) and isinstance(right, float | np.floating):
        return math.isnan(left) and math.isnan(right)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    return False


def assert_values(actual: list[Any], expected: list[Any], name: str) -> None:
    assert len(actual) == len(expected), f"{name}: {len(actual)} rows, expected {len(expected)}"
    if not same(actual, expected):
        row = next(i for i, (a, e) in enumerate(zip(actual, expected, strict=True)) if not same(a, e))
        message = f"{name}, row {row}: {str(actual[row])[:300]!r}, expected {str(expected[row])[:300]!r}"
        raise AssertionError(message)


def assert_schema(schema: pl.Schema, expected: oracle.Table) -> None:
    """Alphabetical columns, then the internal ones; each type as the contract says."""
    assert list(schema) == [*sorted([*expected.columns, *expected.unsupported]), *INTERNAL]
    assert {name: str(schema[name]) for name in expected.columns} == expected.dtypes
    assert {name: schema[name] for name in INTERNAL} == INTERNAL


def assert_table(frame: pl.DataFrame, expected: oracle.Table, path: str | Path, table_path: str) -> None:
    """A frame of one whole table."""
    assert_schema(
        frame.schema, oracle.Table(expected.rows, expected.columns, expected.dtypes)
    )  # unsupported columns were not selected
    for name, values in expected.columns.items():
        assert_values(frame[name].to_list(), values, name)
    assert frame["_nwb_path"].to_list() == [str(path)] * expected.rows
    assert frame["_table_path"].to_list() == [table_path.strip("/")] * expected.rows
    assert frame["_table_index"].to_list() == list(range(expected.rows))


def assert_frames(actual: pl.DataFrame, expected: pl.DataFrame) -> None:
    """Equal schema, rows and order."""
    assert actual.schema == expected.schema
    assert actual.height == expected.height
    for name in expected.columns:
        if not actual[name].equals(expected[name], null_equal=True):
            assert_values(actual[name].to_list(), expected[name].to_list(), name)


# To be run in a child: `ru_maxrss` would be that of its parent where this is larger.
PEAK_MIB = """
def peak_mib():
    status = open("/proc/self/status").read()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024
"""


def process_status(name: str) -> int:
    """Return a field of `/proc/self/status`: sizes (`VmRSS`, `VmHWM`, ...) in bytes, others as numbers."""
    value, *unit = Path("/proc/self/status").read_text(encoding="ascii").split(f"{name}:")[1].split()[:2]
    return int(value) * (1024 if unit == ["kB"] else 1)


def child_environment(**env: str) -> dict[str, str]:
    """The environment of a process with the package and the test helpers on its path."""
    import lazynwb

    paths = [
        str(Path(__file__).parent),
        str(Path(lazynwb.__file__).parents[1]),
        os.environ.get("PYTHONPATH", ""),
    ]
    # Whoever runs the tests has a terminal of some width, or says so: the process is to find its own.
    inherited = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    return {**inherited, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **env}


def run_child(
    code: str,
    *args: str | Path,
    timeout: float = 60,
    stdin: bytes = b"",
    fresh: bool = False,
    **env: str,
) -> str:
    """Run Python code in a separate process; fail on a crash, a hang or an exception, return its output.

    The process is forked from one that has imported h5py, NumPy and Polars, unless it has to be `fresh`.
    """
    arguments, environment = [str(argument) for argument in args], child_environment(**env)
    if not fresh and forking.can_fork(environment):
        status, *written = forking.run(code, arguments, environment, stdin, timeout)
    else:
        done = subprocess.run(  # noqa: S603 - our own code
            [sys.executable, "-X", "faulthandler", "-c", code, *arguments],
            env=environment,
            input=stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        status, written = done.returncode, [done.stdout, done.stderr]
    out, err = (stream.decode(errors="replace") for stream in written)
    assert status == 0, f"exit code {status}\n{out}\n{err}"
    return out


# --- tables and pushdown ------------------------------------------------------------------------------


def supported(lf: pl.LazyFrame, expected: oracle.Table) -> pl.LazyFrame:
    """All columns except unsupported ones."""
    return lf.select(pl.exclude(sorted(expected.unsupported))) if expected.unsupported else lf


def check_table(path: Path, table_path: str, engine: str, expected: oracle.Table) -> pl.DataFrame:
    """Check schema and values of one table; return the frame."""
    import lazynwb

    lf = lazynwb.scan_nwb(path, table_path)
    assert_schema(lf.collect_schema(), expected)
    frame = supported(lf, expected).collect(engine=engine)
    assert_table(frame, expected, path, table_path)
    return frame


def predicates(frame: pl.DataFrame) -> list[pl.Expr]:
    """Predicates that a part of the rows passes, on a scalar column of each kind and on the row number."""
    found = {}
    middle = frame.height // 2
    for name, dtype in frame.schema.items():
        if not name.startswith("_") and (dtype.is_numeric() or dtype in {pl.String, pl.Boolean}):
            value = frame[name][middle] if frame.height else 0
            if value is None:
                found[dtype.is_numeric(), "null"] = pl.col(name).is_null()
            elif frame.height or dtype.is_numeric():
                found[dtype.base_type()] = (
                    pl.col(name) >= value if dtype.is_numeric() else pl.col(name) == value
                )
    return [*found.values(), pl.col("_table_index") >= middle]


def check_pushdown(path: Path, table_path: str, engine: str, frame: pl.DataFrame) -> None:
    """Check that projections, limits and predicates equal those on the frame in memory.

    Every fourth query: which ones depends on file, table and engine. All of them with `--slow`.
    """
    import lazynwb

    lf = lazynwb.scan_nwb(path, table_path)
    names = frame.columns[::-2] or frame.columns
    filters = predicates(frame)
    queries: list[Callable[[Any], Any]] = [
        lambda table: table.select(names),
        *(lambda table, n=n: table.select(frame.columns).head(n) for n in {0, 1, frame.height // 2}),
        *(lambda table, predicate=predicate: table.filter(predicate).select(names) for predicate in filters),
        lambda table: table.select(frame.columns).head(7).filter(filters[0]),
        lambda table: table.select(pl.len()),
    ]
    if not THOROUGH:
        queries = queries[zlib.crc32(f"{Path(path).name} {table_path} {engine}".encode()) % 4 :: 4]
    for query in queries:
        assert_frames(query(lf).collect(engine=engine), query(frame))


def check_file(path: Path, engine: str) -> None:
    """Check every table of a file; report all differences at once."""
    problems = []
    for table_path in oracle.tables(path):
        try:
            frame = check_table(path, table_path, engine, oracle.read_table(path, table_path))
            check_pushdown(path, table_path, engine, frame)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next table is tried as well
            problems.append(f"{table_path}: {type(error).__name__}: {str(error)[:600]}")
    assert not problems, f"{len(problems)} tables of {path}:\n" + "\n".join(problems)


def assert_ends_at_ctrl_c(child: subprocess.Popen[bytes]) -> None:
    """Check that an interrupted process ends with a message, long before servers end their silence."""
    child.send_signal(signal.SIGINT)
    try:
        error = child.communicate(timeout=15)[1].decode()
    finally:
        child.kill()
    assert child.returncode == -signal.SIGINT, error
    assert "KeyboardInterrupt" in error
