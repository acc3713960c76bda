"""Time what it costs to have other processes read: `scan_nwb(..., executor=...)`.

    python benchmarks/spread.py --folder /path/to/sessions
    python benchmarks/spread.py --folder ... --dask          # also a Dask cluster on this machine

Two queries over the sessions, without an executor and with two worker processes: one that decodes much and
returns little (the mean of every unit's waveform), where workers can help, and one that returns a few numbers
of each file, of which the price of a task is what is left: it is (time with one file per task - time without)
per file, and the bytes that a task takes. Contenders take turns; medians; the first round warms up.
"""

from __future__ import annotations

import argparse
import multiprocessing
import pickle
import statistics
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

import lazynwb

if TYPE_CHECKING:
    from collections.abc import Callable

WORKERS = 2


def much(paths: list[Path], executor: Executor | None) -> pl.DataFrame:
    """Decode every spike time, and return two numbers of each session."""
    spikes = pl.col("spike_times").list
    # As a predicate it is evaluated where the data is read; the rows that pass are few.
    scan = lazynwb.scan_nwb(paths, "/units", executor=executor, infer_schema_length=1)
    return scan.filter(spikes.mean() > 1e9).select("_nwb_path", "_table_index").collect()


def little(paths: list[Path], executor: Executor | None) -> pl.DataFrame:
    """Return one small column."""
    scan = lazynwb.scan_nwb(paths, "/units", executor=executor, infer_schema_length=1)
    return scan.select("_nwb_path", "presence_ratio").collect()


class Weighed(Executor):
    """Hands tasks on, and weighs them.

    Parameters
    ----------
    executor : Executor
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._max_workers = WORKERS
        self.sizes: list[int] = []

    def submit(self, function: Any, /, *arguments: Any, **keywords: Any) -> Future[Any]:  # noqa: ANN401
        """Weigh a task and hand it on."""
        self.sizes.append(len(pickle.dumps((function, arguments, keywords))))
        return self._executor.submit(function, *arguments, **keywords)


def timed(query: Callable[..., pl.DataFrame], paths: list[Path], executor: Executor | None) -> float:
    """Return the seconds that a query takes."""
    start = time.perf_counter()
    query(paths, executor)
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="folder of NWB files with units")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--dask", action="store_true")
    options = parser.parse_args()
    lazynwb.config.disable_progress = True
    paths = sorted(options.folder.glob("*.nwb"))
    with ExitStack() as stack:
        spawn = multiprocessing.get_context("spawn")
        contenders: dict[str, Executor | None] = {
            "alone": None,
            f"{WORKERS} processes": stack.enter_context(ProcessPoolExecutor(WORKERS, mp_context=spawn)),
        }
        if options.dask:
            from distributed import Client, LocalCluster

            cluster = stack.enter_context(
                LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None)
            )
            contenders[f"{WORKERS} workers of Dask"] = stack.enter_context(Client(cluster)).get_executor()
        weighed = Weighed(contenders[f"{WORKERS} processes"])  # type: ignore[arg-type]
        little(paths, weighed)
        sizes = f"{statistics.median(weighed.sizes):,.0f} bytes each, {max(weighed.sizes):,} the largest"
        print(f"{len(paths)} files, {len(weighed.sizes)} tasks, {sizes}")
        for query in (much, little):
            seconds: dict[str, list[float]] = {name: [] for name in contenders}
            for _ in range(options.runs + 1):
                for name, executor in contenders.items():
                    seconds[name].append(timed(query, paths, executor))
            medians = {name: statistics.median(taken[1:]) for name, taken in seconds.items()}
            for name, median in medians.items():
                more = (median - medians["alone"]) / len(paths) * 1e3
                print(
                    f"{query.__name__:<7} {name:<20} {median:7.3f} s   alone / this "
                    f"{medians['alone'] / median:5.2f}   {more:+7.2f} ms per file"
                )


if __name__ == "__main__":
    main()
