"""Structure without a cache: CPU per table by format, and queries on many sessions that nothing is known of.

    python benchmarks/structure.py                          CPU per table of 45 and of 1,000 columns
    python benchmarks/structure.py --sessions 480           and queries over so many distinct sessions
    python benchmarks/structure.py --peer /path/to/python   also the lazynwb that this interpreter has

h5py reads names, shapes, types, chunks and attributes of the same columns: with its high-level objects as one
would by hand, and with its low-level ones. A peer is an interpreter of an environment with another lazynwb,
such as 1.0.0 of PyPI (`uv venv peer && uv pip install --python peer/bin/python lazynwb==1.0.0`).

Each figure is the least of several runs, which take turns, each in a process of its own with an empty cache.
Only ratios carry over from one machine to another.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

FILES = 12
COLUMNS = (45, 1000)
LIBVERS: dict[str, Any] = {"earliest": "earliest", "v110": ("v110", "v110"), "latest": "latest"}
ROWS = 500
TABLE = "intervals/trials"
KIND = {"namespace": "hdmf-common", "object_id": "0"}


# ---------------------------------------------------------------- files


def write_hdf5(path: Path, columns: int, libver: Any, seed: int) -> None:  # noqa: ANN401 - a name or two
    """Write a session with a table of numbers, as pynwb lays it out."""
    import h5py
    import numpy as np

    rng = np.random.default_rng(seed)
    with h5py.File(path, "w", libver=libver) as file:
        file.attrs.update({"nwb_version": "2.8.0", "neurodata_type": "NWBFile"})
        file["session_start_time"] = "2024-01-02T03:04:05+00:00"
        table = file.create_group(TABLE)
        names = [f"c{k}" for k in range(columns)]
        table.attrs.update({**KIND, "neurodata_type": "TimeIntervals", "description": "of the benchmark"})
        table.attrs["colnames"] = names
        for name in [*names, "id"]:
            data = np.arange(ROWS) if name == "id" else np.round(rng.normal(size=ROWS), 3)
            made = table.create_dataset(name, data=data, chunks=(ROWS,), compression="gzip", shuffle=True)
            made.attrs.update({**KIND, "neurodata_type": "VectorData", "description": "a column"})


def write_zarr(path: Path, columns: int) -> None:
    """Write the consolidated metadata of such a session; its chunks are not stored, so they are zeros."""
    names = [f"c{k}" for k in range(columns)]
    table = {**KIND, "neurodata_type": "TimeIntervals", "description": "of the benchmark", "colnames": names}
    group = {"zarr_format": 2}
    array = {"zarr_format": 2, "shape": [ROWS], "chunks": [ROWS], "dtype": "<f8", "order": "C"}
    array |= {"fill_value": 0.0, "filters": None, "compressor": {"id": "zlib", "level": 4}}
    documents: dict[str, Any] = {
        ".zgroup": group,
        ".zattrs": {"nwb_version": "2.8.0", "neurodata_type": "NWBFile"},
        "intervals/.zgroup": group,
        f"{TABLE}/.zgroup": group,
        f"{TABLE}/.zattrs": table,
    }
    for name in [*names, "id"]:
        documents[f"{TABLE}/{name}/.zarray"] = array
        documents[f"{TABLE}/{name}/.zattrs"] = {
            **KIND,
            "neurodata_type": "VectorData",
            "description": "a column",
        }
    path.mkdir()
    (path / ".zgroup").write_text(json.dumps(group))
    consolidated = {"zarr_consolidated_format": 1, "metadata": documents}
    (path / ".zmetadata").write_text(json.dumps(consolidated))


# ---------------------------------------------------------------- what is measured


def high_level(paths: list[str]) -> None:
    """Read a table's structure with h5py's objects."""
    import h5py

    for path in paths:
        with h5py.File(path) as file:
            table = file[TABLE]
            dict(table.attrs)
            for dataset in table.values():
                _ = dataset.shape, dataset.dtype, dataset.chunks, dict(dataset.attrs)


def low_level(paths: list[str]) -> None:
    """Read what the schema needs with h5py's low-level objects."""
    from h5py import h5a, h5f, h5g, h5o

    for path in paths:
        file = h5f.open(path.encode(), flags=h5f.ACC_RDONLY)
        table = h5g.open(file, TABLE.encode())
        for name in table:
            dataset = h5o.open(table, name)
            _ = dataset.shape, dataset.get_type().dtype, dataset.get_create_plist().get_layout()
            h5a.open(dataset, b"neurodata_type")
        file.close()


def ours(paths: list[str]) -> None:
    """Read the schema of the table over all files."""
    import lazynwb

    lazynwb.scan_nwb(paths, TABLE).collect_schema()


def whole(paths: list[str]) -> None:
    """Read every row of the table."""
    import lazynwb

    lazynwb.scan_nwb(paths, TABLE).collect()


def filtered(paths: list[str]) -> None:
    """Read one column of the rows that another one selects."""
    import polars as pl

    import lazynwb

    lazynwb.scan_nwb(paths, TABLE).filter(pl.col("c0") > 2).select("c1").collect()


READINGS: dict[str, Callable[[list[str]], None]] = {
    f.__name__: f for f in (ours, high_level, low_level, whole, filtered)
}


def work(name: str, first: str, paths: list[str]) -> None:
    """Run a reading on one file, for what is imported by it, and on the others; print seconds and CPU."""
    READINGS[name]([first])
    cpu, begin = time.process_time(), time.perf_counter()
    READINGS[name](paths)
    print(json.dumps([time.perf_counter() - begin, time.process_time() - cpu]))


def measure(name: str, paths: list[Path], python: str) -> tuple[float, float] | None:
    """Run a reading in a process of its own, without a cache; return seconds and CPU; None if it fails."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "LAZYNWB_CACHE_DIR": cache, "TQDM_DISABLE": "1"}
        if python != sys.executable:
            environment.pop("PYTHONPATH", None)  # which may lead to this checkout
        ran = subprocess.run(
            [python, __file__, "--work", name],
            input="\n".join(map(str, paths)),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    if ran.returncode:
        if python == sys.executable:
            sys.exit(ran.stderr)
        return None
    seconds, cpu = json.loads(ran.stdout.splitlines()[-1])
    return seconds, cpu


def least(readings: list[tuple[str, str]], paths: list[Path], runs: int) -> list[tuple[float, float] | None]:
    """Run readings in turns; return the least seconds and the least CPU of each."""
    measured: list[list[tuple[float, float]]] = [[] for _ in readings]
    for _ in range(runs):
        for found, (name, python) in zip(measured, readings, strict=True):
            one = measure(name, paths, python)
            if one is not None:
                found.append(one)
    return [
        (min(seconds for seconds, _ in found), min(cpu for _, cpu in found)) if found else None
        for found in measured
    ]


def compare_formats(folder: Path, peer: str | None, runs: int) -> None:
    """Print the CPU that the structure of a table takes, by format and number of columns."""
    print(f"CPU per table in ms, of {FILES} files; least of {runs} runs\n")
    head = f"{'format':12}{'columns':>9}{'lazynwb':>10}{'h5py':>10}{'low-level':>11}"
    print(head + (f"{'peer':>10}" if peer else ""))
    for columns in COLUMNS:
        for name in [*LIBVERS, "zarr"]:
            made = folder / f"{name}-{columns}"
            made.mkdir()
            paths = [made / f"{k}.{'zarr' if name == 'zarr' else 'nwb'}" for k in range(FILES + 1)]
            for seed, path in enumerate(paths):
                if name == "zarr":
                    write_zarr(path, columns)
                else:
                    write_hdf5(path, columns, LIBVERS[name], seed)
            here = sys.executable
            readings = [("ours", here), ("high_level", here), ("low_level", here)]
            costs = least(readings[:1] if name == "zarr" else readings, paths, runs)
            costs += [None] * (len(readings) - len(costs))
            costs += least([("ours", peer)], paths, runs) if peer else []
            print(f"{name:12}{columns:9}" + "".join(map(_milliseconds, costs)), flush=True)


def _milliseconds(cost: tuple[float, float] | None) -> str:
    """Return the CPU per table; a dash where a reading does not apply or fails."""
    return f"{'-':>10}" if cost is None else f"{cost[1] / FILES * 1e3:10.1f}"


def compare_queries(folder: Path, sessions: int, peer: str | None, runs: int) -> None:
    """Print what queries on many sessions take without a cache."""
    paths = [folder / f"{k:04}.nwb" for k in range(sessions + 1)]
    for seed, path in enumerate(paths):
        write_hdf5(path, COLUMNS[0], "earliest", seed)
    print(f"\n{sessions} distinct sessions, no cache: seconds (CPU); least of {runs} runs\n")
    print(f"{'query':24}{'lazynwb':>16}" + (f"{'peer':>16}" if peer else ""))
    for name in ("ours", "whole", "filtered"):
        readings = [(name, sys.executable)] + ([(name, peer)] if peer else [])
        label = {"ours": "schema", "whole": "all columns", "filtered": "one column, filtered"}[name]
        shown = [
            f"{'-':>16}" if cost is None else f"{cost[0]:.2f} ({cost[1]:.2f})".rjust(16)
            for cost in least(readings, paths, runs)
        ]
        print(f"{label:24}" + "".join(shown), flush=True)


def main() -> None:
    """Read the command line, and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sessions", type=int, default=0, help="queries over so many sessions, too")
    parser.add_argument("--peer", help="an interpreter with another lazynwb")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        first, *paths = sys.stdin.read().split("\n")
        work(arguments.work, first, paths)
        return
    if not arguments.peer:
        print("no peer: --peer takes an interpreter with another lazynwb, such as 1.0.0 of PyPI\n")
    with tempfile.TemporaryDirectory() as made:
        compare_formats(Path(made), arguments.peer, arguments.runs)
        if arguments.sessions:
            compare_queries(Path(made), arguments.sessions, arguments.peer, arguments.runs)


if __name__ == "__main__":
    main()
