"""How planning grows with the number of sessions: from an index, and from the local cache of catalogs.

    python benchmarks/growth.py [--sessions 1000,10000,100000] [--folder FOLDER] [--keep]

Sessions are stand-ins: the catalog of one real session of the synthetic cube, in a few variants, under many
names. For the index no file exists at all; the cache takes empty files, which it asks for their identities.
Each figure is from a process of its own, whose imports are not part of the time but of the memory.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

#: How the tables of sessions differ: the columns that some of them lack.
VARIANTS = 8
TABLE = "units"


def describe_one(folder: Path) -> list[Any]:
    """Return the catalog of a session, and a variant for each column that may be missing."""
    from lazynwb.demo.cube import write_cube
    from lazynwb.index.source_record import ChunkLocationRequest, index_source
    from lazynwb.storage.resolve import resolve

    path = write_cube(folder / "cube", 1)[0]
    found = index_source(resolve(str(path)), ChunkLocationRequest.of(False))  # noqa: FBT003 - as it is said
    return [_without_column(found, number) for number in range(VARIANTS)]


def _without_column(found: Any, number: int) -> Any:  # noqa: ANN401 - imported late
    from lazynwb.index.source_record import ENCODER
    from lazynwb.lookup.loader import Entry

    tables = []
    for one in found.tables:
        table = one.table
        if table.path == TABLE and number:
            table = msgspec.structs.replace(
                table, columns=table.columns[:number] + table.columns[number + 1 :]
            )
        entry = ENCODER.encode(Entry("", "", table, {}))
        tables.append(msgspec.structs.replace(one, table=table, entry=entry))
    return msgspec.structs.replace(found, tables=tables)


def name_of(folder: Path | str, number: int) -> str:
    """Return the path of a session."""
    return f"{folder}/sub-{number // 20:05}/sub-{number // 20:05}_ses-{number:06}_behavior+ecephys.nwb"


def make_index(folder: Path, sessions: int, variants: list[Any]) -> Path:
    """Write an index of files that do not exist."""
    from lazynwb.index import writer as writing
    from lazynwb.index.location import open_folder
    from lazynwb.index.model import MAX_SESSIONS, MetadataColumns
    from lazynwb.index.part_io import records_of, write_part
    from lazynwb.index.source_record import ChunkLocationRequest

    place = folder / f"index-{sessions}"
    shutil.rmtree(place, ignore_errors=True)
    into = open_folder(place, None)
    writer = writing.Writer(into, MetadataColumns(), ignore_errors=False)
    size = min(MAX_SESSIONS, sessions)
    first = [
        msgspec.structs.replace(variants[number % VARIANTS], path=f"{number:06}") for number in range(size)
    ]
    records = records_of(first, writer.values)
    for start in range(0, sessions, size):
        stop = min(start + size, sessions)
        names = pl.DataFrame(
            {
                "path": [f"{number:06}" for number in range(stop - start)],
                "new": [name_of("/archive", number) for number in range(start, stop)],
            }
        )

        def renamed(frame: pl.DataFrame, names: pl.DataFrame = names) -> pl.DataFrame:
            found = frame.join(names, on="path", how="inner", maintain_order="left")
            return found.with_columns(path=pl.col("new")).drop("new")

        own = records._replace(
            sessions=renamed(records.sessions),
            tables=renamed(records.tables),
            columns=renamed(records.columns),
        )
        writer.parts.append(write_part(into, own))
    wish = ChunkLocationRequest.of(False)  # noqa: FBT003 - as it is said
    writing.publish(into, None, writing.manifest_of(None, writer, wish, []), writer)
    return place


def make_cache(folder: Path, sessions: int, variants: list[Any]) -> Path:
    """Write empty files, and a cache that has their catalogs."""
    import lazynwb
    from lazynwb.catalog import disk_cache
    from lazynwb.lookup.loader import Entry, entry_key
    from lazynwb.storage.local_file import identity
    from lazynwb.storage.resolve import resolve

    lazynwb.config.cache_dir = folder / f"cache-{sessions}"
    lazynwb.config.cache_max_bytes = 2**40
    encoder = msgspec.msgpack.Encoder()
    tables = [next(one.table for one in found.tables if one.table.path == TABLE) for found in variants]
    paths = []
    for number in range(sessions):
        path = Path(name_of(folder / f"files-{sessions}", number))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        key = entry_key("table", resolve(str(path)), TABLE)
        disk_cache.save(key, Entry(key, identity(str(path)), tables[number % VARIANTS], {}), encoder)
        paths.append(str(path))
    listed = folder / f"paths-{sessions}.json"
    listed.write_text(json.dumps(paths))
    return listed


def measure(kind: str, place: str, length: int | None, folder: Path, sessions: int) -> None:
    """Plan one scan, in a process that does nothing else."""
    import lazynwb

    lazynwb.config.disable_progress = True
    lazynwb.config.cache_dir = folder / f"cache-{sessions}"
    lazynwb.config.cache_max_bytes = 2**40
    import lazynwb.index.snapshot
    import lazynwb.lookup.loader

    before = _peak()
    began, worked = time.perf_counter(), time.process_time()
    if kind == "index":
        frame = lazynwb.scan_nwb(None, TABLE, infer_schema_length=length, index=place)
    else:
        frame = lazynwb.scan_nwb(json.loads(Path(place).read_text()), TABLE, infer_schema_length=length)
    columns = len(frame.collect_schema())
    took, worked = time.perf_counter() - began, time.process_time() - worked
    print(json.dumps({"seconds": took, "cpu": worked, "mib": _peak(), "before": before, "columns": columns}))


def _peak() -> float:
    """Return the peak memory in MiB; `getrusage` would include the parent's."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
            2**20 if sys.platform == "darwin" else 2**10
        )
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sessions", default="1000,10000,100000")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--keep", action="store_true", help="keep what was made")
    parser.add_argument("--only", choices=["index", "cache"])
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        kind, place, length, sessions = given.measure
        measure(kind, place, int(length) or None, given.folder, int(sessions))
        return
    folder = given.folder or Path(tempfile.mkdtemp(prefix="growth-"))
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["LAZYNWB_CACHE_DIR"] = str(folder / "cache")
    variants = describe_one(folder)
    print(f"{'from':6} {'schema of':>10} {'sessions':>9} {'seconds':>8} {'CPU':>6} {'MiB':>6} {'own':>6}")
    for kind, make in (("index", make_index), ("cache", make_cache)):
        if given.only not in {None, kind}:
            continue
        places = {n: make(folder, n, variants) for n in map(int, given.sessions.split(","))}
        time.sleep(0.2)
        if kind == "index":
            for n, place in places.items():
                size: dict[str, int] = {}
                for file in place.iterdir():
                    kind_of = file.name.split("-")[0]
                    size[kind_of] = size.get(kind_of, 0) + file.stat().st_size
                print(f"# index of {n}: {sum(size.values()) / n:.0f} bytes per session", size)
        for length in (1, 0):
            last = None
            for n, place in places.items():
                command = [sys.executable, __file__, "--folder", folder, "--measure", kind, place, length, n]
                done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
                found = json.loads(done.stdout)
                own = found["mib"] - found["before"]
                growth = f"{n / last[0]:.0f} x: {found['cpu'] / last[1]:.1f} x" if last else ""
                last = n, found["cpu"]
                which = "all" if not length else "the first"
                print(
                    f"{kind:6} {which:>10} {n:9,} "
                    f"{found['seconds']:8.2f} {found['cpu']:6.2f} {found['mib']:6.0f} "
                    f"{own:6.0f}  {growth}",
                    flush=True,
                )
    if not given.keep:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
