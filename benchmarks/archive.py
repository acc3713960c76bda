"""An archive as one table: an index with values beside Parquet for each session and one consolidated Parquet.

    python benchmarks/archive.py [--sessions 1000] [--folder FOLDER] [--keep]

Generated sessions have 60 units and 500 trials each. Every query runs in a process of its own, one after the
other, and each has the result of the others; the figures are CPU seconds after the imports, the median of
some runs, with all files in the page cache.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import polars as pl

UNITS, TRIALS = 60, 500
LOCATIONS = ["CA1", "CA3", "MOs", "VISp", "LP", "SCm"]


def write_session(path: Path, number: int) -> None:
    """Write one session: small columns, and spike times that nobody asks for here."""
    random = np.random.default_rng(number)
    text = h5py.string_dtype()
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs.update({"nwb_version": "2.8.0", "neurodata_type": "NWBFile"})
        file["identifier"] = f"id-{number}"
        file["session_start_time"] = "2024-01-02T03:04:05+00:00"
        file["general/session_id"] = f"s{number}"
        file["general/subject/subject_id"] = f"m{number // 20}"
        units = {
            "unit_name": np.array([f"{number}_{k}" for k in range(UNITS)], dtype=text),
            "location": np.array([LOCATIONS[k] for k in random.integers(0, 6, UNITS)], dtype=text),
            **{
                name: random.random(UNITS)
                for name in ("presence_ratio", "snr", "firing_rate", "isi_violations", "drift")
            },
            "good": random.random(UNITS) > 0.5,
            "channel": random.integers(0, 384, UNITS),
        }
        units["snr"][0] = np.nan
        trials = {
            "start_time": np.arange(TRIALS) * 7.0,
            "stop_time": np.arange(TRIALS) * 7.0 + 5,
            "is_hit": random.random(TRIALS) > 0.5,
            "contrast": random.choice([0.0, 0.25, 0.5, 1.0], TRIALS),
            "stimulus": np.array([f"image {k}" for k in random.integers(0, 8, TRIALS)], dtype=text),
        }
        for table, columns in {"units": units, "intervals/trials": trials}.items():
            group = file.create_group(table)
            group.attrs.update({"neurodata_type": "DynamicTable", "colnames": list(columns)})
            group["id"] = np.arange(len(next(iter(columns.values()))))
            for name, values in columns.items():
                group[name] = values
        group = file["units"]
        ends = np.cumsum(random.integers(0, 40, UNITS))
        group["spike_times"] = np.sort(random.random(int(ends[-1])) * 3600)
        group["spike_times_index"] = ends.astype("u8")
        group["spike_times_index"].attrs["neurodata_type"] = "VectorIndex"
        group["spike_times_index"].attrs["target"] = group["spike_times"].ref
        group.attrs["colnames"] = [*units, "spike_times"]


def cpu() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def frames(folder: Path, contender: str) -> dict[str, pl.LazyFrame]:
    """Return the units and the trials as a contender has them."""
    import lazynwb

    found = {}
    for table in ("units", "trials"):
        path = "/units" if table == "units" else "/intervals/trials"
        if contender == "index":
            found[table] = lazynwb.scan_index(folder / "index", path)
        elif contender == "files":
            found[table] = lazynwb.scan_nwb(None, path, index=folder / "index", infer_schema_length=1)
        elif contender == "per session":
            found[table] = pl.scan_parquet(folder / table / "*.parquet")
        else:
            found[table] = pl.scan_parquet(folder / f"{table}.parquet")
    return found


QUERIES = {
    "count": lambda units, _: units.select(pl.len()),
    "filter, 0.1 %": lambda units, _: (
        units.filter(pl.col("presence_ratio") > 0.99, pl.col("isi_violations") < 0.1)
        .select("unit_name", "snr")
        .sort("unit_name")
    ),
    "group by": lambda units, _: (
        units.group_by("location").agg(pl.len(), pl.col("firing_rate").sum().round(6)).sort("location")
    ),
    "group by, trials": lambda _, trials: (
        trials.group_by("stimulus", "contrast").agg(pl.col("is_hit").sum()).sort("stimulus", "contrast")
    ),
}
CONTENDERS = ("index", "consolidated", "per session", "files", "duckdb")
SQL = {
    "count": "SELECT count(*) AS len FROM {units}",
    "filter, 0.1 %": "SELECT unit_name, snr FROM {units} "
    "WHERE presence_ratio > 0.99 AND isi_violations < 0.1 ORDER BY unit_name",
    "group by": "SELECT location, count(*) AS len, round(sum(firing_rate), 6) AS firing_rate FROM {units} "
    "GROUP BY location ORDER BY location",
    "group by, trials": "SELECT stimulus, contrast, sum(is_hit::INT) AS is_hit FROM {trials} "
    "GROUP BY ALL ORDER BY ALL",
}


def run_one(folder: Path, contender: str, name: str) -> dict[str, object]:
    """Run a query once, in this process."""
    import lazynwb

    lazynwb.config.disable_progress = True
    if contender == "duckdb":
        import duckdb

        started = cpu()
        index = lazynwb.open_index(folder / "index")
        files = {
            table: f"read_parquet({index.value_files(path)})"
            for table, path in {"units": "units", "trials": "/intervals/trials"}.items()
        }
        found = duckdb.sql(SQL[name].format(**files)).pl()
    else:
        started = cpu()
        tables = frames(folder, contender)
        found = QUERIES[name](tables["units"], tables["trials"]).collect()
    seconds = cpu() - started
    values = [[str(round(v, 4)) if isinstance(v, float) else str(v) for v in row] for row in found.rows()]
    # Not from `getrusage`: that begins with what the parent had.
    status = Path("/proc/self/status").read_text()
    memory = int(status.partition("VmHWM:")[2].split()[0]) // 1024
    return {"seconds": seconds, "rows": len(found), "sum": hash_of(values), "memory": memory}


def hash_of(values: object) -> str:
    """Return a text that differs where values do."""
    from hashlib import blake2b

    return blake2b(json.dumps(values).encode(), digest_size=8).hexdigest()


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder."""
    return sum(one.stat().st_size for one in ([path] if path.is_file() else path.rglob("*")) if one.is_file())


def prepare(folder: Path, sessions: int) -> None:
    """Write sessions, the index, and both forms of Parquet."""
    import lazynwb

    lazynwb.config.disable_progress = True
    files = folder / "files"
    if not files.exists():
        files.mkdir(parents=True)
        for number in range(sessions):
            write_session(files / f"{number:06}.nwb", number)
    print(f"files: {size_of(files) / 1e6:,.1f} MB")
    lazynwb.build_index(
        sorted(files.glob("*.nwb"))[:10], folder / "index", values=True
    )  # what is imported late
    for values in (False, True):
        shutil.rmtree(folder / "index", ignore_errors=True)
        lazynwb.clear_cache()
        started = cpu()
        lazynwb.build_index(files, folder / "index", values=values)
        each = (cpu() - started) / sessions * 1000
        size = size_of(folder / "index") / sessions
        print(
            f"index{' with values' if values else ''}: {each:.1f} ms of CPU and {size:,.0f} bytes per session"
        )
    for table, path in {"units": "/units", "trials": "/intervals/trials"}.items():
        whole = lazynwb.scan_index(folder / "index", path).collect()
        whole.write_parquet(folder / f"{table}.parquet")
        (folder / table).mkdir(exist_ok=True)
        for number, one in enumerate(whole.partition_by("_nwb_path", maintain_order=True)):
            one.write_parquet(folder / table / f"{number:06}.parquet")
        one_file = size_of(folder / f"{table}.parquet") / sessions
        many = size_of(folder / table) / sessions
        print(f"{table}: {one_file:,.0f} bytes per session in one Parquet, {many:,.0f} as one each")


def main() -> None:
    """Prepare, run and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--one", nargs=2, metavar=("CONTENDER", "QUERY"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(run_one(given.folder, *given.one)))
        return
    folder = given.folder or Path(tempfile.mkdtemp(prefix="archive-"))
    os.environ["LAZYNWB_CACHE_DIR"] = str(folder / "cache")
    prepare(folder, given.sessions)
    failed = False
    print(f"{'CPU seconds':20}" + "".join(f"{one:>14}" for one in CONTENDERS))
    for name in QUERIES:
        results = {}
        for contender in CONTENDERS:
            command = [sys.executable, __file__, "--folder", str(folder), "--one", contender, name]
            runs = [
                json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                for _ in range(given.runs)
            ]
            results[contender] = {**runs[0], "seconds": statistics.median(run["seconds"] for run in runs)}
        print(f"{name:20}" + "".join(f"{results[one]['seconds']:14.3f}" for one in CONTENDERS))
        print(f"{'  MiB':20}" + "".join(f"{results[one]['memory']:14}" for one in CONTENDERS))
        if len({(one["rows"], one["sum"]) for one in results.values()}) > 1:
            failed = True
            print("    the results differ:", {key: (one["rows"], one["sum"]) for key, one in results.items()})
    if not given.keep:
        shutil.rmtree(folder)
    sys.exit(failed)


if __name__ == "__main__":
    main()
