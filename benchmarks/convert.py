"""Time the conversion of a cube to Parquet against the loop that one would write without this package.

The loop opens each file with h5py, reads each column of each table through its high-level interface into a
Polars frame, joins the sessions' frames, and writes one zstd Parquet file for each table. Both write the same
values, which is checked; each run is a process of its own, and the two take turns.

    python benchmarks/convert.py --folder .bench/60x300/gzip
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from run import TABLES, fingerprint, peak_memory, read_columns

OURS, LOOP, SESSIONS = "convert_nwb_tables", "h5py loop", "one file per session"


def convert(paths: list[Path], out: Path, partition_by: str | None = None) -> None:
    """Convert with this package."""
    import lazynwb

    lazynwb.convert_nwb_tables(paths, out, partition_by=partition_by, disable_progress=True)


def loop(paths: list[Path], out: Path) -> None:
    """Convert without it."""
    import h5py
    import polars as pl

    out.mkdir()
    for table in TABLES:
        frames = []
        for path in paths:
            with h5py.File(path) as file:
                if table in file:
                    columns = read_columns(file[table])
                    frames.append(pl.DataFrame(columns).with_columns(_nwb_path=pl.lit(str(path))))
        pl.concat(frames, how="diagonal").write_parquet(out / f"{table.rsplit('/', 1)[-1]}.parquet")


def child(contender: str, folder: Path, out: Path) -> dict[str, float | None]:
    """Run one conversion in this process."""
    paths = sorted(folder.glob("*.nwb"))
    started, worked = time.perf_counter(), time.process_time()
    if contender == LOOP:
        loop(paths, out)
    else:
        convert(paths, out, "session" if contender == SESSIONS else None)
    return {
        "seconds": time.perf_counter() - started,
        "processor": time.process_time() - worked,
        "memory": own_peak_memory(),
    }


def own_peak_memory() -> int | None:
    """Return the peak resident size in bytes; what `getrusage` says is at least that of the parent."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return peak_memory()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def contents(out: Path) -> dict[str, list[str]]:
    """Describe the columns that both contenders write, by table."""
    import polars as pl

    found = {}
    for table in TABLES:
        name = table.rsplit("/", 1)[-1]
        place = out / f"{name}.parquet" if (out / f"{name}.parquet").exists() else out / name
        lines = []
        scan = pl.scan_parquet(place, hive_partitioning=False)
        for column in scan.collect_schema():
            lines += fingerprint(scan.select(column).collect())
        found[name] = lines
    return found


def main() -> int:
    """Read the command line; return how many results differ."""
    if sys.argv[1:2] == ["--child"]:
        contender, folder, out = sys.argv[2:]
        print(json.dumps(child(contender, Path(folder), Path(out))))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, required=True, help="of NWB files, as benchmarks/run.py writes"
    )
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    runs: dict[str, list[dict[str, float]]] = {LOOP: [], OURS: [], SESSIONS: []}
    kept: dict[str, dict[str, list[str]]] = {}
    home = Path(tempfile.mkdtemp(prefix="lazynwb-bench-"))
    try:
        for repeat in range(options.runs):
            for contender, results in runs.items():
                out = home / "out"
                cache = str(home / f"cache-{contender}")
                shutil.rmtree(cache, ignore_errors=True)  # a conversion is mostly the first look at files
                environment = {**os.environ, "LAZYNWB_CACHE_DIR": cache, "TQDM_DISABLE": "1"}
                command = [sys.executable, __file__, "--child", contender, str(options.folder), str(out)]
                done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
                results.append(json.loads(done.stdout))
                if not repeat:
                    kept[contender] = contents(out)
                shutil.rmtree(out)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    print("| | seconds | loop / this, median of runs | of processors, seconds | peak memory, MB |")
    print("|---|---:|---:|---:|---:|")
    for contender, results in runs.items():
        seconds = statistics.median(r["seconds"] for r in results)
        ratios = [one["seconds"] / other["seconds"] for one, other in zip(runs[LOOP], results, strict=True)]
        processor = statistics.median(r["processor"] for r in results)
        memory = max(r["memory"] or 0 for r in results) / 1e6
        ratio = statistics.median(ratios)
        print(f"| {contender} | {seconds:.2f} | {ratio:.2f} | {processor:.2f} | {memory:,.0f} |")
    wrong = 0
    for contender in (OURS, SESSIONS):
        for table, lines in kept[LOOP].items():
            lacking = sorted(set(lines) - set(kept[contender][table]))
            wrong += len(lacking)
            for line in lacking:
                print(f"{table}: {contender} gives another result than the loop, {line}", file=sys.stderr)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
