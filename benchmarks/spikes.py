"""Time `get_spike_times_in_intervals`: 500 units of 5 to 20 Hz, one hour, 500 trials, from one NWB file.

    python benchmarks/spikes.py
    python benchmarks/spikes.py --peer /path/to/python    # also the lazynwb that this interpreter has

Counts, times and aligned times, from the file (units without their spike times; contiguous and uncompressed,
as pynwb writes them unless told otherwise) and, for this package, from a frame that has them. Medians of wall
time and of processor time (which other work on the machine disturbs less), each run in a process of its own;
contenders take turns; results are compared outside the timing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

SECONDS = 3600.0
KINDS: dict[str, dict[str, bool]] = {
    "counts": {"as_counts": True},
    "times": {},
    "aligned": {"align_times": True},
}
LIGHT = ("unit_id", "_nwb_path", "_table_path", "_table_index")


def write(path: Path, units: int, trials: int) -> None:
    """Write a session as pynwb lays it out, with h5py alone."""
    import h5py
    import numpy as np

    rng = np.random.default_rng(0)
    text = h5py.string_dtype()
    counts = rng.poisson(rng.uniform(5, 20, units) * SECONDS)
    starts = np.linspace(0, SECONDS, trials, endpoint=False)
    tables: dict[str, dict[str, Any]] = {
        "units": {
            "unit_id": [f"unit {unit}" for unit in range(units)],
            "spike_times": np.concatenate([np.sort(rng.uniform(0, SECONDS, count)) for count in counts]),
            "spike_times_index": np.cumsum(counts),
            "obs_intervals": np.tile([0.0, SECONDS], (units, 1)),
            "obs_intervals_index": np.arange(1, units + 1),
        },
        "intervals/trials": {
            "start_time": starts,
            "stop_time": starts + SECONDS / trials,
            "stim_time": starts + 1.0,
            "stim_name": ["vis" if trial % 2 else "aud" for trial in range(trials)],
        },
    }
    with h5py.File(path, "w") as file:
        file.attrs["nwb_version"] = "2.8.0"
        for name, columns in tables.items():
            group = file.create_group(name)
            group["id"] = np.arange(len(next(iter(columns.values()))))
            group.attrs["neurodata_type"] = "Units" if name == "units" else "TimeIntervals"
            shown = [column for column in columns if not column.endswith("_index")]
            group.attrs["colnames"] = np.array(shown, dtype=text)
            for column, values in columns.items():
                if isinstance(values, list):
                    dataset = group.create_dataset(column, data=values, dtype=text)
                else:
                    dataset = group.create_dataset(column, data=values)
                dataset.attrs["neurodata_type"] = "VectorData"
            for column in columns:
                if column.endswith("_index"):
                    group[column].attrs["neurodata_type"] = "VectorIndex"
                    group[column].attrs["target"] = group[column.removesuffix("_index")].ref


def digest(found: pl.DataFrame) -> list[float]:
    """Return numbers that are the same for the same result, in whatever order."""
    import polars as pl

    values = found["spikes"]
    if isinstance(values.dtype, pl.List):
        weights = found["_units_table_index"].cast(pl.Float64) + 2 * found["_intervals_table_index"]
        sums = values.list.sum()
        return [len(found), int(values.list.len().sum()), float((sums * weights).sum())]
    return [len(found), int(values.sum()), float((values * found["_units_table_index"]).sum())]


def work(path: str, kind: str, *, in_memory: bool) -> None:
    """Run one measurement with the lazynwb of this interpreter, and print it."""
    import polars as pl

    import lazynwb

    columns = [*LIGHT, "spike_times", "obs_intervals"] if in_memory else list(LIGHT)
    units = lazynwb.scan_nwb(path, "/units", disable_progress=True).select(columns).collect()
    bounds = {"spikes": (pl.col("start_time"), pl.col("stop_time"))}
    find = lazynwb.get_spike_times_in_intervals  # imported before the clock starts
    Path(path).read_bytes()  # into the page cache
    begin, processor = time.perf_counter(), time.process_time()
    found = find(units, bounds, use_process_pool=False, disable_progress=True, as_polars=True, **KINDS[kind])
    took, busy = time.perf_counter() - begin, time.process_time() - processor
    print(json.dumps({"wall": took, "processor": busy, "digest": digest(found)}))


def measure(python: str, path: Path, kind: str, *, in_memory: bool, ours: bool) -> dict[str, Any]:
    """Run one measurement in a process of its own."""
    environment = dict(os.environ)
    if not ours:
        environment.pop("PYTHONPATH", None)
    command = [
        python,
        "-W",
        "ignore",
        __file__,
        "--worker",
        str(path),
        kind,
        *(["memory"] if in_memory else []),
    ]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Measure, compare, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", help="an interpreter that has another lazynwb")
    parser.add_argument("--units", type=int, default=500)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        path, kind, *memory = arguments.worker
        work(path, kind, in_memory=bool(memory))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "session.nwb"
        write(path, arguments.units, arguments.trials)
        contenders = {"file": (sys.executable, False), "memory": (sys.executable, True)}
        if arguments.peer:
            contenders["other"] = (arguments.peer, False)
        print(f"{'':20}" + "".join(f"{name:>12}" for name in contenders) + "   other / file")
        wrong = False
        for kind in KINDS:
            results: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
            for _ in range(arguments.repeats):
                for name, (python, in_memory) in contenders.items():
                    results[name].append(
                        measure(python, path, kind, in_memory=in_memory, ours=name != "other")
                    )
            for clock in ("wall", "processor"):
                medians = {
                    name: statistics.median(run[clock] for run in runs) for name, runs in results.items()
                }
                values = "".join(f"{value:10.3f} s" for value in medians.values())
                ratio = f"{medians['other'] / medians['file']:11.0f} x" if "other" in medians else ""
                print(f"{kind:9}{clock:11}{values}   {ratio}", flush=True)
            digests = {name: runs[-1]["digest"] for name, runs in results.items()}
            expected = digests["file"]
            for name, found in digests.items():
                if any(abs(a - b) > 1e-9 * abs(b) for a, b in zip(found, expected, strict=True)):
                    wrong = True
                    print(f"  the results of {name!r} differ: {found}, not {expected}")
    sys.exit(wrong)


if __name__ == "__main__":
    main()
