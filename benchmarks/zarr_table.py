"""Reading a large table of a Zarr store, beside zarr-python in the same process.

    python benchmarks/zarr_table.py            with the zarr-python that is installed
    python benchmarks/zarr_table.py --remote   requests and bytes of the same queries, from a server

The table has 700,000 rows of twenty columns of numbers and one of 64 numbers per row. zarr-python reads it as
one would by hand: every column whole, then a mask.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

import lazynwb

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS, COLUMNS, WIDTH = 700_000, 20, 64
CHUNK, WIDE_CHUNK = 50_000, 5_000
FIRST = ROWS // 2
NAMES = [f"c{i:02}" for i in range(COLUMNS)]
QUERIES = {
    "all rows of the plain columns": None,
    "0.1 % of the rows, in one place": pl.col("id").is_between(FIRST, FIRST + ROWS // 1000 - 1),
    "0.1 % of the rows, all over": pl.col("c00") == 0.5,
}


def write(path: Path, version: int) -> None:
    """Write the table with zarr-python, compressed as is its default."""
    import zarr

    rng = np.random.default_rng(0)
    modern = not zarr.__version__.startswith("2")
    root = zarr.open_group(str(path), mode="w", **({"zarr_format": version} if modern else {}))
    table = root.create_group("table")
    table.attrs.update(neurodata_type="DynamicTable", colnames=[*NAMES, "wide"])
    columns = {name: (np.round(rng.random(ROWS), 3), (CHUNK,)) for name in NAMES}
    columns["wide"] = rng.integers(0, 99, (ROWS, WIDTH)).astype("i4"), (WIDE_CHUNK, WIDTH)
    columns["id"] = np.arange(ROWS), (CHUNK,)
    for name, (data, chunks) in columns.items():
        if modern:
            table.create_array(name, shape=data.shape, chunks=chunks, dtype=data.dtype)[...] = data
        else:
            table.create_dataset(name, data=data, chunks=chunks)


def by_hand(path: Path, query: str) -> pl.DataFrame:
    """Run a query with zarr-python and NumPy."""
    import zarr

    table = zarr.open_group(str(path), mode="r")["table"]
    columns = {name: table[name][:] for name in [*NAMES, "id"]}
    if QUERIES[query] is None:
        return pl.DataFrame(columns)
    columns["wide"] = table["wide"][:]
    if "one place" in query:
        keep = (columns["id"] >= FIRST) & (columns["id"] < FIRST + ROWS // 1000)
    else:
        keep = columns["c00"] == 0.5
    return pl.DataFrame({name: values[keep] for name, values in columns.items()})


def ours(source: Path | str, query: str) -> pl.DataFrame:
    """Run a query with lazynwb."""
    frame = lazynwb.scan_nwb(source, "/table")
    predicate = QUERIES[query]
    frame = frame.drop("wide") if predicate is None else frame.filter(predicate)
    return frame.drop(*lazynwb.INTERNAL_COLUMN_NAMES).collect()


def compare(path: Path, runs: int) -> None:
    """Print the table of times."""
    import zarr

    print(f"zarr-python {zarr.__version__}; medians of {runs} runs, taken in turns, warm\n")
    print(f"{'query':34}{'zarr-python':>13}{'lazynwb':>10}{'ratio':>8}")
    for query in QUERIES:
        expected = by_hand(path, query)
        if not expected.equals(ours(path, query).select(expected.columns)):
            sys.exit(f"{query}: the results differ")
        theirs, mine = [], []
        for _ in range(runs):
            theirs.append(timed(by_hand, path, query))
            mine.append(timed(ours, path, query))
        one, other = statistics.median(theirs), statistics.median(mine)
        print(f"{query:34}{one:11.3f} s{other:8.3f} s{one / other:8.1f}")


def timed(read: Callable[..., Any], path: Path, query: str) -> float:
    """Return how many seconds a reading takes."""
    begin = time.perf_counter()
    read(path, query)
    return time.perf_counter() - begin


def count(folder: Path, name: str, latency: float) -> None:
    """Print what the queries cost when the store lies on a server."""
    from remote import Server

    print(f"{latency * 1000:.0f} ms per request, empty cache\n")
    print(f"{'query':34}{'seconds':>9}{'requests':>10}{'MB':>8}{'chunks':>8}")
    with Server(folder, latency) as server:
        for query in QUERIES:
            lazynwb.clear_cache()
            begin = time.perf_counter()
            with lazynwb.profile() as profile:
                ours(f"{server.url}/{name}", query)
            seconds = time.perf_counter() - begin
            megabytes = profile.bytes_read / 1e6
            print(f"{query:34}{seconds:9.2f}{profile.requests:10}{megabytes:8.2f}{profile.chunks_decoded:8}")


def main() -> None:
    """Read the command line, and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--remote", action="store_true", help="count requests and bytes instead")
    parser.add_argument("--latency", type=float, default=0.03, help="seconds per request")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--version", type=int, choices=(2, 3), help="of the store's format")
    arguments = parser.parse_args()
    import zarr

    version = arguments.version or (2 if zarr.__version__.startswith("2") else 3)
    lazynwb.config.disable_progress = True
    with tempfile.TemporaryDirectory() as made:
        lazynwb.config.cache_dir = Path(made) / "cache"
        path = Path(made) / "table.nwb.zarr"
        write(path, version)
        if not arguments.remote:
            compare(path, arguments.runs)
            return
        zarr.consolidate_metadata(str(path))
        count(Path(made), path.name, arguments.latency)


if __name__ == "__main__":
    main()
