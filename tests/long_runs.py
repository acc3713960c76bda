"""Resources that remain after many queries, concurrent and in killed processes; run by `limits.py`.

Each function takes how long, or how often, and gives what was counted. Values are compared with h5py's.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import h5py

sys.path.insert(0, str(Path(__file__).parent))

from builders import write_cube
from checks import child_environment, process_status

# --- expected results -----------------------------------------------------------------------------------


def expected(paths: list[Path]) -> dict[str, Any]:
    """Return the answer to each of `QUERIES`."""
    found: dict[str, Any] = {name: [] for name in QUERIES}
    for path in paths:
        with h5py.File(path) as file:
            units, trials = file["units"], file["intervals/trials"]
            ends = units["spike_times_index"][:].tolist()
            spikes = units["spike_times"][:]
            presence = units["presence_ratio"][:]
            ids = units["unit_id"].asstr()[:]
            for row, (start, stop) in enumerate(zip([0, *ends], ends, strict=False)):
                found["spikes"].append([ids[row], float(spikes[start:stop].sum())])
                if presence[row] > 0.9:
                    found["filtered"].append([ids[row], float(presence[row])])
            found["waveforms"].append(float(units["waveform_mean"][3].sum()))
            found["trials"].append([len(trials["id"]), float(trials["start_time"][:].sum())])
            found["text"] += trials["stim_name"].asstr()[:].tolist()
            found["series"].append(float(file["processing/behavior/running_speed/data"][:].sum()))
            found["session"].append(file["identifier"].asstr()[()])
    return found


QUERIES = ("spikes", "filtered", "waveforms", "trials", "text", "series", "session", "sql", "object")


def answer(name: str, paths: list[str]) -> Any:
    """Return the result of lazynwb."""
    import polars as pl

    import lazynwb

    if name == "spikes":
        lf = lazynwb.scan_nwb(paths, "units").select("unit_id", pl.col("spike_times").list.sum())
        return [list(row) for row in lf.collect().rows()]
    if name == "filtered":
        lf = lazynwb.scan_nwb(paths, "units").filter(pl.col("presence_ratio") > 0.9)
        return [
            list(row) for row in lf.select("unit_id", "presence_ratio").collect(engine="streaming").rows()
        ]
    if name == "waveforms":
        lf = lazynwb.scan_nwb(paths, "units").filter(pl.col("_table_index") == 3)
        return [float(one.to_numpy().sum()) for one in lf.collect()["waveform_mean"]]
    if name == "trials":
        lf = lazynwb.scan_nwb(paths, "trials").group_by("_nwb_path", maintain_order=True)
        return [list(row[1:]) for row in lf.agg(pl.len(), pl.col("start_time").sum()).collect().rows()]
    if name == "text":
        return lazynwb.read_nwb(paths, "trials")["stim_name"].to_list()
    if name == "series":
        return [float(lazynwb.get_timeseries(path, "running_speed").data[:].sum()) for path in paths]
    if name == "session":
        return lazynwb.get_metadata_df(paths, as_polars=True)["identifier"].to_list()
    if name == "sql":
        context = lazynwb.get_sql_context(paths, table_names=["trials"])
        return context.execute("SELECT COUNT(*) AS n FROM trials", eager=True).item()
    return [len(repr(lazynwb.LazyNWB(path))) for path in paths]


def close(one: Any, other: Any) -> bool:
    """Return whether two results are equal; sums may differ in the order of additions."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(close, one, other))
    if isinstance(one, float):
        return isinstance(other, float) and abs(one - other) <= 1e-9 * max(abs(one), 1.0)
    return bool(one == other)


def truth(paths: list[Path]) -> dict[str, Any]:
    """Return the expected result: counts by h5py, and the text of a session at first."""
    known = expected(paths)
    known["sql"] = sum(count for count, _ in known["trials"])
    known["object"] = answer("object", list(map(str, paths)))
    return known


# --- open and close ---------------------------------------------------------------------------------------


def _resources() -> dict[str, int]:
    import gc

    gc.collect()
    time.sleep(0.5)  # threads that only look after a wait notice that it is over
    opened = [_target(entry) for entry in Path("/proc/self/fd").iterdir()]
    return {
        "bytes": process_status("VmRSS"),
        "descriptors": sum(not name.startswith("socket:") for name in opened),
        # A store keeps connections for its next request; how many, depends on how many were at work at once.
        "connections": sum(name.startswith("socket:") for name in opened),
        "threads": process_status("Threads"),
    }


def _target(entry: Path) -> str:
    try:
        return str(entry.readlink())
    except FileNotFoundError:  # the folder itself, which the listing had open
        return ""


def _start_all_threads() -> None:
    """Fill every thread pool, so that its growth is not taken for a leak."""
    from lazynwb.threads import DECODERS, LOADERS, REQUESTS

    for pool in (DECODERS, REQUESTS, LOADERS):
        together = threading.Barrier(pool.size())
        pool.map(lambda _, barrier=together: barrier.wait(60), range(pool.size()))


def open_close(cycles: int, paths: list[str]) -> dict[str, int]:
    """Open and close files in every way, with new objects; return the growth in the second half.

    Of connections, which a store keeps up to a bound, all are given.
    """
    import lazynwb

    lazynwb.config.disable_cache = True
    settled: dict[str, int] = {}
    _start_all_threads()
    for cycle in range(cycles):
        lazynwb.clear_cache()  # so that every one opens files
        path = paths[cycle % len(paths)]
        answer(QUERIES[cycle % len(QUERIES)], [path])
        session = lazynwb.LazyNWB(path)
        assert session.units["presence_ratio"] is not None
        assert session.acquisition
        if cycle == cycles // 2:
            settled = _resources()
    now = _resources()
    return {name: now[name] - settled[name] for name in now} | {"connections": now["connections"]}


def opened_in_a_child(cycles: int) -> dict[str, int]:
    """Do so in a separate process, on local and remote HDF5 files."""
    from range_server import RangeServer

    with tempfile.TemporaryDirectory() as home:
        paths = write_cube(Path(home) / "nwb")
        time.sleep(0.1)
        code = (
            "import json, sys; from long_runs import open_close\n"
            "print(json.dumps(open_close(int(sys.argv[1]), sys.argv[2:])))"
        )
        with RangeServer(Path(home) / "nwb") as server:
            urls = [server.url_of(path.name) for path in paths]
            child = _start(code, Path(home) / "cache", cycles, *paths, *urls)
            out, err = child.communicate(timeout=3600)
        if child.returncode:
            raise RuntimeError(err)
        found: dict[str, int] = json.loads(out.splitlines()[-1])
        return found


# --- concurrency ------------------------------------------------------------------------------------------


def busy(threads: int, seconds: float, known: dict[str, Any], paths: list[str], seed: int) -> dict[str, Any]:
    """Run random queries in threads, each at least twice, occasionally after clearing the cache.

    Return the number of queries and those whose results were wrong.
    """
    import lazynwb

    stop = time.monotonic() + seconds
    counts = [0] * threads
    wrong: list[str] = []

    def work(number: int) -> None:
        choose = random.Random(f"{seed} {number}")  # noqa: S311 - which query
        while (time.monotonic() < stop or counts[number] < 2) and not wrong:
            name = choose.choice(QUERIES)
            if choose.random() < 0.02:
                lazynwb.clear_cache()
            try:
                if not close(known[name], answer(name, paths)):
                    wrong.append(name)
            except Exception as error:  # noqa: BLE001 - whatever it is
                wrong.append(f"{name}: {type(error).__name__}: {error}")
            counts[number] += 1

    running = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return {"queries": sum(counts), "wrong": wrong}


def all_at_once(processes: int, threads: int, seconds: float) -> dict[str, Any]:
    """Run queries on the same files and cache folder in several processes with several threads."""
    with tempfile.TemporaryDirectory() as home:
        paths = write_cube(Path(home) / "nwb")
        time.sleep(0.1)
        known = Path(home) / "known.json"
        known.write_text(json.dumps(truth(paths)))
        cache = Path(home) / "cache"
        code = (
            "import json, sys, pathlib; from long_runs import busy\n"
            "threads, seconds, known, seed, *paths = sys.argv[1:]\n"
            "known = json.loads(pathlib.Path(known).read_text())\n"
            "print(json.dumps(busy(int(threads), float(seconds), known, paths, int(seed))))"
        )
        children = [_start(code, cache, threads, seconds, known, seed, *paths) for seed in range(processes)]
        total: dict[str, Any] = {"queries": 0, "wrong": []}
        for child in children:
            out, err = child.communicate(timeout=seconds + 600)
            if child.returncode:
                total["wrong"].append(err[-500:])
                continue
            found = json.loads(out.splitlines()[-1])
            total["queries"] += found["queries"]
            total["wrong"] += found["wrong"]
        total["left"] = len(list(cache.rglob(".new-*")))
        return total


def _start(code: str, cache: Path, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 - our own code
        [sys.executable, "-c", code, *map(str, arguments)],
        env=child_environment(LAZYNWB_CACHE_DIR=str(cache), LAZYNWB_DISABLE_PROGRESS="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# --- killed processes -------------------------------------------------------------------------------------

#: Writes the cache again and again: whole, and as fast as it can.
WRITER = """
import sys
import lazynwb
from long_runs import answer
print("ready", flush=True)
while True:
    lazynwb.clear_cache()
    for name in ("trials", "text", "session", "waveforms"):
        answer(name, sys.argv[1:])
"""
READER = """
import json, logging, pathlib, sys
logging.basicConfig(level=logging.WARNING)
from long_runs import QUERIES, answer, close
known = json.loads(pathlib.Path(sys.argv[1]).read_text())
print(json.dumps([name for name in QUERIES if not close(known[name], answer(name, sys.argv[2:]))]))
"""


def killed(times: int) -> dict[str, Any]:
    """Kill a process while it writes the cache, then read in another; return errors and remaining files."""
    choose = random.Random(times)  # noqa: S311 - when
    with tempfile.TemporaryDirectory() as home:
        paths = write_cube(Path(home) / "nwb", 3)
        time.sleep(0.1)
        known = Path(home) / "known.json"
        known.write_text(json.dumps(truth(paths)))
        cache = Path(home) / "cache"
        found: dict[str, Any] = {"kills": 0, "wrong": [], "left": 0}
        for _ in range(times):
            writer = _start(WRITER, cache, *paths)
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n", writer.communicate()
            time.sleep(choose.uniform(0, 0.5))
            os.kill(writer.pid, signal.SIGKILL)
            writer.communicate()
            found["kills"] += 1
            reader = _start(READER, cache, known, *paths)
            out, err = reader.communicate(timeout=300)
            if reader.returncode or json.loads(out.splitlines()[-1]) or "damaged" in err:
                found["wrong"].append(out + err)
        found["left"] = len(list(cache.rglob(".new-*")))
        return found
