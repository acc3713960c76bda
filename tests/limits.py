"""Memory of queries, and resources that remain after many of them, compared with the documented limits.

    python tests/limits.py [--minutes 10] [--only NAME] [--scale 1] [--folder FOLDER]

prints a table of what was measured and what is promised in docs/reliability.md, and ends with 1 if a promise
is broken. Files are made in a folder that is removed afterwards; the largest has 5 GB of values in 40 MB.
Every query runs in a process of its own. `tests/test_limits.py` runs the same with a scale of less than one.
"""

# ruff: noqa: T201 - the table is what the command is for

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from builders import VLEN_TEXT, table, write_session
from checks import child_environment, process_status

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1024 * 1024
#: What the docs promise: so many batches (of `config.batch_bytes`, 64 MiB), and so often the largest row.
BATCHES, ROWS = 10, 3
#: Of a conversion and of a Parquet file: what Polars' sinks collect, and the encoder's own memory.
SINK = 512 * MIB
#: What the second half of a thousand cycles may add to the first: allocators' slack.
LEAK = 16 * MIB
MAX_CONNECTIONS = 64  # that a store keeps for its next request
#: Samples of a waveform: 82 samples of 384 channels, 126 kB.
WAVEFORM = (82, 384)

# --- files that are large, and small on disk -----------------------------------------------------------


def _chunked(group: h5py.Group, name: str, rows: int, shape: tuple[int, ...], band: int) -> None:
    """Write a column of float32 in compressed chunks of which most are alike."""
    data = group.create_dataset(
        name, (rows, *shape), "<f4", chunks=(band, *shape), compression="gzip", shuffle=True
    )
    chunk = np.zeros((band, *shape), "<f4")
    data[:1] = 1.0  # through the filters, to be sure of what they are
    raw = np.frombuffer(chunk.tobytes(), "u1").reshape(-1, 4).T.tobytes()
    packed = zlib.compress(raw, 4)
    for start in range(band, rows, band):
        data.id.write_direct_chunk((start, *(0,) * len(shape)), packed)


def _sparse(group: h5py.Group, name: str, shape: tuple[int, ...], dtype: str) -> None:
    """Write a contiguous column of unwritten space."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    h5py.h5d.create(
        group.id,
        name.encode(),
        h5py.h5t.py_create(np.dtype(dtype)),
        h5py.h5s.create_simple(shape),
        properties,
    )


def _table(file: h5py.File, rows: int, *columns: str, path: str = "units") -> h5py.Group:
    group = table(file, path, {}, rows=0)
    del group["id"]
    group.create_dataset("id", data=np.arange(rows), chunks=(min(rows, 65536),), compression="gzip")
    group.create_dataset(
        "quality", data=np.arange(rows) % 1000 / 1000, chunks=(min(rows, 65536),), compression="gzip"
    )
    group.attrs["colnames"] = np.array(["quality", *columns], VLEN_TEXT)
    return group


def _index(group: h5py.Group, name: str, ends: np.ndarray) -> None:
    index = group.create_dataset(
        f"{name}_index", data=ends, chunks=(min(len(ends), 65536),), compression="gzip"
    )
    index.attrs["target"] = group[name].ref
    index.attrs["neurodata_type"] = "VectorIndex"


def waveforms(folder: Path, scale: float) -> None:
    """5 GB of waveforms, in chunks and in one piece."""
    rows = max(int(40_000 * scale), 64)
    for name, sparse in (("chunked", False), ("contiguous", True)):
        with h5py.File(folder / f"{name}.nwb", "w") as file:
            group = _table(file, rows, "waveform_mean")
            if sparse:
                _sparse(group, "waveform_mean", (rows, *WAVEFORM), "<f4")
            else:
                _chunked(group, "waveform_mean", rows, WAVEFORM, 16)


def many_rows(folder: Path, scale: float) -> None:
    """A million rows of 20 numbers and 4 texts."""
    rows = int(1_000_000 * scale)
    with h5py.File(folder / "rows.nwb", "w") as file:
        names = [f"x{k}" for k in range(20)]
        texts = [f"t{k}" for k in range(4)]
        group = _table(file, rows, *names, *texts)
        for name in names:
            group.create_dataset(
                name, data=np.arange(rows) / 7, chunks=(65536,), compression="gzip", shuffle=True
            )
        for name in texts:
            group.create_dataset(name, data=[f"{name} {k % 1000}" for k in range(rows)], dtype=VLEN_TEXT)


def tiny_rows(folder: Path, scale: float) -> None:
    """A million units of three spikes and two waveforms of two samples: ragged, and ragged twice."""
    rows = int(1_000_000 * scale)
    with h5py.File(folder / "tiny.nwb", "w") as file:
        group = _table(file, rows, "spike_times", "waveforms")
        options = {"chunks": (65536,), "compression": "gzip"}
        group.create_dataset("spike_times", data=np.arange(3.0 * rows), **options)
        _index(group, "spike_times", np.arange(1, rows + 1) * 3)
        group.create_dataset(
            "waveforms", data=np.arange(4.0 * rows).reshape(-1, 2), chunks=(65536, 2), compression="gzip"
        )
        _index(group, "waveforms", np.arange(1, 2 * rows + 1))
        _index(group, "waveforms_index", np.arange(1, rows + 1) * 2)
        group["waveforms_index_index"].attrs["target"] = group["waveforms_index"].ref


def short_texts(folder: Path, scale: float) -> None:
    """A million short texts."""
    rows = int(1_000_000 * scale)
    with h5py.File(folder / "short.nwb", "w") as file:
        group = _table(file, rows, "text")
        group.create_dataset("text", data=[f"label {k}" for k in range(rows)], dtype=VLEN_TEXT)


def long_texts(folder: Path, scale: float) -> None:
    """2 GB in texts of 20 kB."""
    rows = int(100_000 * scale)
    with h5py.File(folder / "long.nwb", "w") as file:
        data = _table(file, rows, "text").create_dataset("text", (rows,), VLEN_TEXT)
        for start in range(0, rows, 2000):
            data[start : start + 2000] = [f"{k:05}" * 4000 for k in range(start, min(start + 2000, rows))]


def many_files(folder: Path, scale: float) -> None:
    """A thousand sessions."""
    first = write_session(folder / "s0000.nwb", 0)
    for number in range(1, int(1000 * scale)):
        (folder / f"s{number:04}.nwb").write_bytes(first.read_bytes())


def one_row(folder: Path, scale: float) -> None:
    """One unit of 500 MB of spikes among others."""
    size = int(62_500_000 * scale)
    with h5py.File(folder / "one.nwb", "w") as file:
        group = _table(file, 3, "spike_times")
        data = group.create_dataset(
            "spike_times", (size + 2,), "<f8", chunks=(1_000_000,), compression="gzip", shuffle=True
        )
        data[:10] = 1.0
        _index(group, "spike_times", np.array([1, size + 1, size + 2]))


class Case(NamedTuple):
    """Files and the queries on them.

    Attributes
    ----------
    make : callable
        Writes the files into a folder; its first line of documentation says which.
    table : str
    queries : tuple of str
        Names of `QUERIES`.
    row_bytes : int
        Of the largest row.
    result_bytes : int
        Of what the query itself hands over in the end.
    """

    make: Callable[[Path, float], None]
    queries: tuple[str, ...]
    row_bytes: int = 0
    result_bytes: int = 0


CASES = {
    "waveforms": Case(
        waveforms, ("filter", "batches", "parquet", "convert"), 4 * 82 * 384, 64 * 4 * 82 * 384
    ),
    "rows": Case(many_rows, ("filter", "batches", "parquet", "convert"), 400),
    "tiny": Case(tiny_rows, ("filter", "batches", "parquet", "convert"), 100),
    "short texts": Case(short_texts, ("filter", "batches", "parquet", "convert"), 50),
    "long texts": Case(long_texts, ("filter", "batches", "parquet", "convert"), 20_000),
    "files": Case(many_files, ("filter", "batches", "parquet", "convert"), 30_000),
    "one row": Case(one_row, ("filter", "batches", "parquet", "convert"), 500_000_000, 500_000_000),
}

# --- one query, in a process of its own -----------------------------------------------------------------


def _query(kind: str, folder: Path, out: Path) -> int:
    """Run a query over a folder; return the number of bytes of its values."""
    import polars as pl

    import lazynwb

    if kind == "convert":
        lazynwb.convert_nwb_tables(folder, out, tables="units", ignore_errors=False)
        return sum(path.stat().st_size for path in out.rglob("*.parquet"))
    scan = lazynwb.scan_nwb(folder, "units")
    if kind == "filter":
        found = scan.filter(
            pl.col("quality" if "quality" in scan.collect_schema() else "presence_ratio") > 0.998
        )
        return int(found.collect(engine="streaming").estimated_size())
    if kind == "parquet":
        scan.sink_parquet(out / "all.parquet", row_group_size=2048)
        return (out / "all.parquet").stat().st_size
    return sum(int(batch.estimated_size()) for batch in scan.collect_batches(maintain_order=True))


def child(kind: str, folder: Path) -> dict[str, Any]:
    """Run a query in this process; return seconds, and bytes of memory before and at the peak."""
    import gc
    import os

    import lazynwb

    with tempfile.TemporaryDirectory() as scratch:
        small = Path(scratch) / "small"
        small.mkdir()
        write_session(small / "small.nwb", 0)
        for number in range(2):  # libraries, threads, and what they keep
            (Path(scratch) / f"warm{number}").mkdir()
            _query(kind, small, Path(scratch) / f"warm{number}")
        lazynwb.clear_cache()
        gc.collect()
        before = process_status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        out = Path(os.environ.get("LIMITS_OUT", scratch)) / "out"
        out.mkdir()
        started = time.perf_counter()
        passed = _query(kind, folder, out)
        return {
            "seconds": time.perf_counter() - started,
            "before": before,
            "peak": process_status("VmHWM"),
            "passed": passed,
        }


def measure(kind: str, folder: Path) -> dict[str, Any]:
    """Run a query in a separate process."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as cache:
        done = subprocess.run(  # noqa: S603 - this file
            [sys.executable, __file__, "--child", kind, "--folder", str(folder)],
            env=child_environment(LAZYNWB_CACHE_DIR=cache, LAZYNWB_DISABLE_PROGRESS="1"),
            capture_output=True,
            check=False,
            text=True,
        )
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def bound(case: Case, kind: str, scale: float) -> int:
    """Return the documented limit of bytes above the baseline."""
    row = case.row_bytes * (scale if case.result_bytes == case.row_bytes else 1)
    promised = BATCHES * 64 * MIB + ROWS * row
    return int(
        promised + case.result_bytes * scale * (kind == "filter") + SINK * (kind in {"parquet", "convert"})
    )


def _memory(given: argparse.Namespace) -> int:
    """Measure the peaks of memory; return how many exceed their limit."""
    broken = 0
    with tempfile.TemporaryDirectory() as home:
        for name, case in CASES.items():
            if given.only not in name:
                continue
            folder = (given.folder or Path(home)) / name.replace(" ", "_")
            if not folder.is_dir():
                folder.mkdir(parents=True)
                case.make(folder, given.scale)
            for kind in case.queries:
                found = measure(kind, folder)
                extra, most = found["peak"] - found["before"], bound(case, kind, given.scale)
                measured = f"{extra / MIB:,.0f} MiB"
                broken += _told(f"{name}: {kind}", measured, f"{most / MIB:,.0f} MiB", extra <= most)
    return broken


def _long_runs(given: argparse.Namespace) -> int:
    """Count remaining resources after many and killed queries; return the number of exceeded limits."""
    import long_runs

    broken = 0
    if given.only in "open and close":
        found = long_runs.opened_in_a_child(max(int(1000 * given.scale), 50))
        kept = found["bytes"] <= LEAK and found["descriptors"] <= 0 and found["threads"] <= 0
        kept = kept and found["connections"] <= MAX_CONNECTIONS
        measured = "{bytes} bytes, {descriptors} descriptors, {threads} threads, {connections} connections"
        broken += _told(
            "open and close", measured.format(**found), f"{LEAK} bytes, 0, 0, {MAX_CONNECTIONS}", kept
        )
    if given.only in "killed":
        found = long_runs.killed(max(int(100 * given.scale), 2))
        wrong = len(found["wrong"])
        measured = f"{found['kills']} kills, {wrong} wrong, {found['left']} files left"
        broken += _told("killed", measured, "0 wrong", not wrong)
    if given.only in "at once":
        found = long_runs.all_at_once(8, 16, 60 * given.minutes * given.scale)
        measured = f"{found['queries']:,} queries, {len(found['wrong'])} wrong, {found['left']} files left"
        broken += _told("at once", measured, "0 wrong", not found["wrong"] and found["queries"] > 0)
        print(*found["wrong"][:5], sep="\n")
    return broken


def _told(what: str, measured: str, promised: str, kept: bool) -> bool:  # noqa: FBT001 - the last column
    """Print a line of the table; return whether the limit is exceeded."""
    print(f"{what:<24}{measured:<58}{promised:<24}{'' if kept else 'BROKEN'}", flush=True)
    return not kept


def main() -> int:
    """Measure, and return whether all limits hold."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--child")
    given = parser.parse_args()
    if given.child:
        print(json.dumps(child(given.child, given.folder)))
        return 0
    broken = _memory(given) + _long_runs(given)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
