"""What queries on remote files cost: a range server on loopback, with a delay for every request.

    python benchmarks/remote.py             the four queries of the table in docs/remote.md, cold and warm
    python benchmarks/remote.py --layouts   one file, laid out in four ways: rounds, requests, bytes

Every query runs in a process of its own, with a catalog cache that is empty (cold) or that the same query has
filled before (warm). `--folder` takes NWB files of your own; else twenty sessions of the demonstration's cube
are written.
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
from typing import Any, Self
from urllib.request import urlopen

TESTS = Path(__file__).parent.parent / "tests"
SESSIONS = 20
QUERIES = ("performance", "good units' spikes", "trials")


# ---------------------------------------------------------------- one query, in a process of its own


def query(name: str, paths: list[str]) -> Any:  # noqa: ANN401 - a frame; Polars is imported late
    """Run one of the queries."""
    import polars as pl

    import lazynwb

    if name == "performance":
        return lazynwb.scan_nwb(paths, "/intervals/performance").collect()
    if name == "trials":
        return lazynwb.scan_nwb(paths, "/intervals/trials").collect()
    good = (
        pl.col("location").str.starts_with("CA1"),
        pl.col("activity_drift") <= 0.01,
        pl.col("amplitude_cutoff") <= 0.1,
        pl.col("presence_ratio") >= 0.7,
        pl.col("isi_violations_ratio") <= 0.5,
        pl.col("decoder_label") != "noise",
    )
    units = lazynwb.scan_nwb(paths, "/units", infer_schema_length=1).filter(*good)
    return units.select("unit_id", "location", "spike_times", "_nwb_path").collect()


def work(name: str, paths: list[str]) -> None:
    """Run a query and print what it cost, as JSON."""
    import lazynwb
    from lazynwb.storage import remote_file

    asked: list[tuple[float, float]] = []
    ask = remote_file.request

    def timed(*arguments: Any) -> Any:  # noqa: ANN401 - what the function takes and returns
        begin = time.perf_counter()
        answer = ask(*arguments)
        asked.append((begin, time.perf_counter()))
        return answer

    remote_file.request = timed
    begin = time.perf_counter()
    with lazynwb.profile() as profile:
        rows = query(name, paths).height
    seconds = time.perf_counter() - begin
    print(
        json.dumps(
            {
                "rows": rows,
                "seconds": seconds,
                "requests": profile.requests,
                "bytes": profile.bytes_read,
                "rounds": rounds(asked),
            }
        )
    )


def rounds(asked: list[tuple[float, float]]) -> int:
    """Return the length of the longest chain of requests of which each began after the one before it."""
    depth: list[tuple[float, int]] = []
    for begin, end in sorted(asked):
        depth.append((end, 1 + max((d for done, d in depth if done <= begin), default=0)))
    return max((d for _, d in depth), default=0)


def measure(name: str, paths: list[str], cache: str) -> dict[str, float]:
    """Run a query in a fresh process."""
    environment = {**os.environ, "LAZYNWB_CACHE_DIR": cache, "LAZYNWB_DISABLE_PROGRESS": "1"}
    command = [sys.executable, __file__, "--work", name]
    ran = subprocess.run(
        command, input="\n".join(paths), env=environment, capture_output=True, text=True, check=False
    )
    if ran.returncode:
        sys.exit(ran.stderr)
    return json.loads(ran.stdout)


# ---------------------------------------------------------------- the tables


class Server:
    """The range server of the tests, in a process of its own."""

    def __init__(self, folder: Path, latency: float) -> None:
        command = [sys.executable, str(TESTS / "range_server.py"), str(folder)]
        self._process = subprocess.Popen(
            [*command, "--port", "0", "--latency", str(latency)], stdout=subprocess.PIPE, text=True
        )
        self.url = self._process.stdout.readline().strip()  # type: ignore[union-attr]
        urlopen(f"{self.url}/-/stats").close()  # noqa: S310 - our own

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()


def compare_queries(folder: Path, latency: float, runs: int) -> None:
    """Print the table of queries."""
    names = sorted(path.name for path in folder.glob("*.nwb"))[:SESSIONS]
    print(f"{len(names)} files, {latency * 1000:.0f} ms per request, median of {runs} runs\n")
    print(
        f"{'query':24}{'seconds':>9}{'requests':>10}{'MB':>8}   warm: {'seconds':>9}{'requests':>10}{'MB':>8}"
    )
    with Server(folder, latency) as server:
        paths = [f"{server.url}/{name}" for name in names]
        for name in QUERIES:
            cold, warm = [], []
            for _ in range(runs):
                with tempfile.TemporaryDirectory() as cache:
                    cold.append(measure(name, paths, cache))
                    warm.append(measure(name, paths, cache))
            print(f"{name:24}{_costs(cold)}         {_costs(warm)}")


def _costs(ran: list[dict[str, float]]) -> str:
    seconds = statistics.median(one["seconds"] for one in ran)
    requests = statistics.median(one["requests"] for one in ran)
    megabytes = statistics.median(one["bytes"] for one in ran) / 1e6
    return f"{seconds:9.2f}{requests:10.0f}{megabytes:8.2f}"


def compare_layouts(folder: Path, latency: float) -> None:
    """Print the table of layouts."""
    first = min(folder.glob("*.nwb"))
    print(f"{'layout':18}{'table':24}{'rounds':>8}{'requests':>10}{'MB':>8}")
    with tempfile.TemporaryDirectory() as made:
        sys.path.insert(0, str(TESTS))
        from layouts import write_layouts

        layouts = write_layouts(first, Path(made))
        with Server(Path(made), latency) as server:
            for layout, path in layouts.items():
                for name in QUERIES:
                    with tempfile.TemporaryDirectory() as cache:
                        cost = measure(name, [f"{server.url}/{path.name}"], cache)
                    megabytes = cost["bytes"] / 1e6
                    print(f"{layout:18}{name:24}{cost['rounds']:8}{cost['requests']:10}{megabytes:8.2f}")


def main() -> None:
    """Read the command line, and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="NWB files to serve")
    parser.add_argument("--latency", type=float, default=0.03, help="seconds per request")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--layouts", action="store_true", help="one file in four layouts")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work, sys.stdin.read().split("\n"))
        return
    with tempfile.TemporaryDirectory() as made:
        folder = arguments.folder
        if folder is None:
            from lazynwb.demo import write_cube

            folder = Path(made)
            print(f"writing {SESSIONS} sessions", file=sys.stderr)
            write_cube(folder, SESSIONS, 300)
        if arguments.layouts:
            compare_layouts(folder, arguments.latency)
        else:
            compare_queries(folder, arguments.latency, arguments.runs)


if __name__ == "__main__":
    main()
