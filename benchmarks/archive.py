"""An archive as one table: an index with values beside Parquet for each session and one consolidated Parquet.

    python benchmarks/archive.py [--sessions 1000] [--folder FOLDER] [--keep]
    python benchmarks/archive.py --stand-ins --sessions 100000
    python benchmarks/archive.py --dask --sessions 10000

Generated sessions have 60 units and 500 trials each. Every query runs in a process of its own, with the
contenders in turn, whose results must be equal; the figures are CPU seconds after the imports, the median of
some runs, with all files in the page cache. With `--stand-ins` there are no session files: the index has the
catalog of one session under many names, and values that were never in a file. With `--dask`, the index is
built on four workers of Dask: the build is killed with its workers, resumed, and compared with the sessions.
"""

import argparse
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import polars as pl

UNITS, TRIALS = 60, 500
LOCATIONS = ["CA1", "CA3", "MOs", "VISp", "LP", "SCm"]


def columns_of(number: int, sessions: int = 1) -> dict[str, dict[str, np.ndarray]]:
    """Return the small columns of some sessions, one after the other."""
    random = np.random.default_rng(number)
    units, trials = UNITS * sessions, TRIALS * sessions
    snr = random.random(units)
    snr[::UNITS] = np.nan
    start = np.tile(np.arange(TRIALS) * 7.0, sessions)
    names = [f"{one}_{k}" for one in range(number, number + sessions) for k in range(UNITS)]
    return {
        "units": {
            "unit_name": np.array(names, dtype=object),
            "location": np.array(LOCATIONS, dtype=object)[random.integers(0, len(LOCATIONS), units)],
            "presence_ratio": random.random(units),
            "snr": snr,
            **{name: random.random(units) for name in ("firing_rate", "isi_violations", "drift")},
            "good": random.random(units) > 0.5,
            "channel": random.integers(0, 384, units),
        },
        "intervals/trials": {
            "start_time": start,
            "stop_time": start + 5,
            "is_hit": random.random(trials) > 0.5,
            "contrast": random.choice([0.0, 0.25, 0.5, 1.0], trials),
            "stimulus": np.array([f"image {k}" for k in range(8)], dtype=object)[
                random.integers(0, 8, trials)
            ],
        },
    }


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
        tables = columns_of(number)
        for table, columns in tables.items():
            group = file.create_group(table)
            group.attrs.update({"neurodata_type": "DynamicTable", "colnames": list(columns)})
            group["id"] = np.arange(len(next(iter(columns.values()))))
            for name, values in columns.items():
                group.create_dataset(name, data=values, dtype=text if values.dtype == object else None)
        group = file["units"]
        ends = np.cumsum(random.integers(0, 40, UNITS))
        group["spike_times"] = np.sort(random.random(int(ends[-1])) * 3600)
        group["spike_times_index"] = ends.astype("u8")
        group["spike_times_index"].attrs["neurodata_type"] = "VectorIndex"
        group["spike_times_index"].attrs["target"] = group["spike_times"].ref
        group.attrs["colnames"] = [*tables["units"], "spike_times"]


def cpu() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def frame_of(folder: Path, contender: str, table: str) -> pl.LazyFrame:
    """Return the units or the trials as a contender has them."""
    import lazynwb

    path = "/units" if table == "units" else "/intervals/trials"
    if contender == "index":
        return lazynwb.scan_index(folder / "index", path)
    if contender == "scan":
        return lazynwb.scan_nwb(None, path, index=folder / "index")
    if contender == "per session":
        return pl.scan_parquet(folder / table / "*.parquet")
    return pl.scan_parquet(folder / f"{table}.parquet")


#: Each query with the table that it is on.
QUERIES = {
    "count": ("units", lambda units: units.select(pl.len())),
    "filter, 0.1 %": (
        "units",
        lambda units: (
            units.filter(pl.col("presence_ratio") > 0.99, pl.col("isi_violations") < 0.1)
            .select("unit_name", "snr")
            .sort("unit_name")
        ),
    ),
    "group by": (
        "units",
        lambda units: (
            units.group_by("location").agg(pl.len(), pl.col("firing_rate").sum().round(6)).sort("location")
        ),
    ),
    "group by, trials": (
        "trials",
        lambda trials: (
            trials.group_by("stimulus", "contrast").agg(pl.col("is_hit").sum()).sort("stimulus", "contrast")
        ),
    ),
}
CONTENDERS = ("index", "scan", "consolidated", "per session", "duckdb")
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
        table, query = QUERIES[name]
        found = query(frame_of(folder, contender, table)).collect()
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


def write_sessions(folder: Path, sessions: int) -> Path:
    """Write the files of sessions, unless they exist, and return their folder."""
    files = folder / "files"
    if not files.exists():
        files.mkdir(parents=True)
        for number in range(sessions):
            write_session(files / f"{number:06}.nwb", number)
    print(f"files: {size_of(files) / 1e6:,.1f} MB")
    return files


def build_on_dask(folder: Path) -> None:
    """Build the index on four workers of Dask, or resume the build."""
    from dask.distributed import Client, LocalCluster

    import lazynwb

    lazynwb.config.disable_progress = True
    with (
        LocalCluster(n_workers=4, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
        lazynwb.profile() as counts,
    ):
        done = lazynwb.build_index(
            folder / "files", folder / "dask-index", values=True, executor=client.get_executor()
        )
    print(f"built: {done.sessions} sessions, {len(done.failed)} failed, {counts.files_opened} files opened")


def kill_and_resume(folder: Path, sessions: int) -> None:
    """Kill a build on Dask with all its processes after its first part, resume it, and compare."""
    import lazynwb

    write_sessions(folder, sessions)
    place = folder / "dask-index"
    shutil.rmtree(place, ignore_errors=True)
    command = [sys.executable, __file__, "--folder", str(folder), "--one", "dask", "build"]
    killed = subprocess.Popen(command, start_new_session=True)
    while killed.poll() is None and not any(place.glob("sessions-*.parquet")):
        time.sleep(0.1)
    time.sleep(1)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    parts = len(list(place.glob("sessions-*.parquet")))
    print(f"killed after {parts} parts, with a checkpoint: {(place / 'building.json').exists()}", flush=True)
    subprocess.run(command, check=True)
    for table, path in {"units": "/units", "intervals/trials": "/intervals/trials"}.items():
        found = lazynwb.scan_index(place, path).collect()
        names = list(columns_of(0)[table])
        expected = [pl.DataFrame(columns_of(number)[table]) for number in range(sessions)]
        if not found.select(names).equals(pl.concat(expected).select(names)):
            raise SystemExit(f"{path}: the index differs from the sessions")
    print("the values are those of the sessions")


def prepare(folder: Path, sessions: int) -> None:
    """Write sessions, the index, and both forms of Parquet."""
    import lazynwb

    lazynwb.config.disable_progress = True
    files = write_sessions(folder, sessions)
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
    write_parquet(folder, sessions, per_session=True)


def prepare_stand_ins(folder: Path, sessions: int) -> None:
    """Write an index of sessions that do not exist, with values, and the same rows as Parquet."""
    import msgspec

    import lazynwb
    from lazynwb.index import writer as writing
    from lazynwb.index.location import open_folder
    from lazynwb.index.manifest import MANIFEST, TableValues, encode_dtype
    from lazynwb.index.model import MAX_SESSIONS, MetadataColumns
    from lazynwb.index.part_io import records_of
    from lazynwb.index.source_record import ChunkLocationRequest, index_source
    from lazynwb.index.values import ValueWriter
    from lazynwb.lookup.loader import load_table
    from lazynwb.lookup.stored_tables import layout_of, session_of
    from lazynwb.storage.resolve import resolve

    lazynwb.config.disable_progress = True
    folder.mkdir(parents=True, exist_ok=True)
    write_session(folder / "one.nwb", 0)
    source = resolve(str(folder / "one.nwb"))
    wish = ChunkLocationRequest.of(False)  # noqa: FBT003 - as it is said
    record = index_source(source, wish)
    names = [f"/archive/sub-{n // 20:05}/sub-{n // 20:05}_ses-{n:06}_ecephys.nwb" for n in range(sessions)]
    into = open_folder(folder / "index", None)
    writer = writing.Writer(into, MetadataColumns(), ignore_errors=False)
    started = cpu()
    with writer:
        for start in range(0, sessions, MAX_SESSIONS):
            some = names[start : start + MAX_SESSIONS]
            writer.write(
                records_of([msgspec.structs.replace(record, path=name) for name in some], writer.values)
            )
        values = ValueWriter(into, None)
        kept = {"units": [], "intervals/trials": []}
        for table, files in kept.items():
            file = load_table(source, table)
            columns = next(iter(columns_of(0, 1).items()))
            each = 2048 if table == "units" else 1024
            for start in range(0, sessions, each):
                some = names[start : start + each]
                columns = columns_of(start, len(some))[table]
                rows = UNITS if table == "units" else TRIALS
                frame = pl.DataFrame({"id": np.tile(np.arange(rows), len(some)), **columns})
                frame = frame.select(sorted(frame.columns)).with_columns(
                    session_id=pl.Series([f"s{n}" for n in range(start, start + len(some))]).gather(
                        np.repeat(np.arange(len(some)), rows)
                    ),
                    _nwb_path=pl.Series(some).gather(np.repeat(np.arange(len(some)), rows)),
                    _table_path=pl.lit(table),
                    _table_index=pl.Series(np.tile(np.arange(rows, dtype="u4"), len(some))),
                    _lazynwb_session=pl.Series(np.repeat(np.arange(len(some), dtype="u4"), rows)),
                )
                layout = layout_of(file, set(columns) | {"id"})
                entries = [msgspec.structs.replace(session_of(file, 0), key=name) for name in some]
                place = table.replace("/", ".")
                files.append(values.write_file(place, table, entries, [layout], frame))
                schema = tuple((name, encode_dtype(dtype)) for name, dtype in frame.schema.items())
            kept[table] = TableValues(table, tuple(files), schema)
        manifest = msgspec.structs.replace(
            writing.manifest_of(None, writer, wish, []), values_of=True, table_values=tuple(kept.values())
        )
        writing.publish(into, into.find(MANIFEST), manifest, writer)
    each = (cpu() - started) / sessions * 1000
    print(f"index with values: {size_of(folder / 'index') / sessions:,.0f} bytes per session")
    print(f"writing it without reading any file: {each:.2f} ms of CPU per session")
    write_parquet(folder, sessions, per_session=False)


def write_parquet(folder: Path, sessions: int, *, per_session: bool) -> None:
    """Write the rows of the index as one Parquet file, and as one for each session."""
    import lazynwb

    for table, path in {"units": "/units", "trials": "/intervals/trials"}.items():
        if not per_session:
            lazynwb.scan_index(folder / "index", path).sink_parquet(folder / f"{table}.parquet")
            one_file = size_of(folder / f"{table}.parquet") / sessions
            print(f"{table}: {one_file:,.0f} bytes per session in one Parquet")
            continue
        whole = lazynwb.scan_index(folder / "index", path).collect()
        whole.write_parquet(folder / f"{table}.parquet")
        (folder / table).mkdir(exist_ok=True)
        for number, one in enumerate(whole.partition_by("_nwb_path", maintain_order=True)):
            one.write_parquet(folder / table / f"{number:06}.parquet")
        one_file = size_of(folder / f"{table}.parquet") / sessions
        many = size_of(folder / table) / sessions
        print(f"{table}: {one_file:,.0f} bytes per session in one Parquet, {many:,.0f} as one each")


def measure(folder: Path, contenders: Sequence[str], runs: int) -> bool:
    """Run each query, with the contenders in turn, print medians, and return whether results differ."""
    failed = False
    print(f"{'CPU seconds':20}" + "".join(f"{one:>14}" for one in contenders))
    for name in QUERIES:
        found: dict[str, list[dict[str, object]]] = {one: [] for one in contenders}
        for _ in range(runs):
            for contender in contenders:
                command = [sys.executable, __file__, "--folder", str(folder), "--one", contender, name]
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                found[contender].append(json.loads(output))
        for label, key in ((name, "seconds"), ("  MiB", "memory")):
            medians = [statistics.median(run[key] for run in found[one]) for one in contenders]
            print(f"{label:20}" + "".join(f"{median:14.3f}" for median in medians), flush=True)
        results = {one: (own[0]["rows"], own[0]["sum"]) for one, own in found.items()}
        if len(set(results.values())) > 1:
            failed = True
            print("    the results differ:", results)
    return failed


def main() -> None:
    """Prepare, run and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--reuse", action="store_true", help="what an earlier run has prepared and kept")
    parser.add_argument("--stand-ins", action="store_true", help="no session files: catalogs and values")
    parser.add_argument("--dask", action="store_true", help="kill a build on Dask, and resume it")
    parser.add_argument("--one", nargs=2, metavar=("CONTENDER", "QUERY"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one == ["dask", "build"]:
        build_on_dask(given.folder)
        return
    if given.one:
        print(json.dumps(run_one(given.folder, *given.one)))
        return
    folder = given.folder or Path(tempfile.mkdtemp(prefix="archive-"))
    os.environ["LAZYNWB_CACHE_DIR"] = str(folder / "cache")
    if given.dask:
        kill_and_resume(folder, given.sessions)
        if not given.keep:
            shutil.rmtree(folder)
        return
    if not given.reuse:
        (prepare_stand_ins if given.stand_ins else prepare)(folder, given.sessions)
    if not given.runs:
        return
    contenders = [one for one in given.contenders if one != "per session" or not given.stand_ins]
    failed = measure(folder, contenders, given.runs)
    if not given.keep:
        shutil.rmtree(folder)
    sys.exit(failed)


if __name__ == "__main__":
    main()
