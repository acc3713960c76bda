"""Time ten queries against the same rows in Parquet, and against another lazynwb if one is named.

Run it with `make bench`, or see `python benchmarks/run.py --help`. `README.md` beside this file says what
is measured.
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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import polars as pl

TABLES = ("units", "intervals/trials", "intervals/performance", "general", "general/subject")
VARIANTS = ("gzip", "uncompressed")
MB = 1e6

OURS = "lazynwb"
PARQUET = "Parquet"
PEER = "other lazynwb"


# ---------------------------------------------------------------- data


def make_data(folder: Path, sessions: int, units: int) -> None:
    """Write the cubes and the Parquet copy, unless they are there."""
    from lazynwb.demo import write_cube

    makers: dict[str, Callable[[Path], object]] = {
        "gzip": lambda part: write_cube(part, sessions, units, compression="gzip"),
        "uncompressed": lambda part: write_cube(part, sessions, units, compression=None),
        "parquet": lambda part: write_parquet(folder / "gzip", part),
    }
    for name, make in makers.items():
        if not (folder / name).exists():
            print(f"writing {folder / name}", file=sys.stderr)
            part = folder / f"{name}.part"
            shutil.rmtree(part, ignore_errors=True)
            make(part)
            part.rename(folder / name)  # whole or absent


def write_parquet(cube: Path, out: Path) -> None:
    """Copy the tables of a cube, one zstd file per session and table."""
    import h5py
    import polars as pl

    for table in TABLES:
        folder = out / table.replace("/", ".")
        folder.mkdir(parents=True)
        for path in sorted(cube.glob("*.nwb")):
            with h5py.File(path) as file:
                if table in file:
                    columns = read_columns(file[table])
                    frame = pl.DataFrame(columns).with_columns(_nwb_path=pl.lit(str(path)))
                    frame.write_parquet(folder / f"{path.stem}.parquet")


def read_columns(group: Any) -> list[pl.Series]:  # noqa: ANN401 - an h5py.Group, imported late
    """Return the columns of a table, or the scalars and texts of a metadata group."""
    import h5py
    import numpy as np
    import polars as pl

    columns = []
    for name, item in group.items():
        if not isinstance(item, h5py.Dataset) or item.attrs.get("neurodata_type") == "VectorIndex":
            continue
        values = item.asstr()[()] if h5py.check_string_dtype(item.dtype) else item[()]
        if "colnames" not in group.attrs:  # one row: a text, or a list of them
            values = [values] if item.shape == () else [values.tolist()]
        elif f"{name}_index" in group:
            ends = group[f"{name}_index"][:].astype(np.int64)
            values = [pl.Series(part) for part in np.split(values, ends[:-1])]
        elif values.dtype == object:
            values = values.tolist()
        columns.append(pl.Series(name, values))
    return columns


# ---------------------------------------------------------------- queries


def queries(scan: Callable[..., pl.LazyFrame]) -> dict[str, Callable[[], Any]]:
    """Return the queries by name; `scan(table, **options)` gives a table of all sessions."""
    import polars as pl

    col = pl.col
    one = {"infer_schema_length": 1}
    spikes = ["unit_id", "location", "spike_times", "_nwb_path"]
    good = [
        col("location").str.starts_with("CA1"),
        col("activity_drift") <= 0.01,
        col("amplitude_cutoff") <= 0.1,
        col("presence_ratio") >= 0.7,
        col("isi_violations_ratio") <= 0.5,
        col("decoder_label") != "noise",
    ]
    # Areas that a quarter of the sessions and all sessions record from, respectively.
    quarter = [col("location") == "CA3", col("presence_ratio") >= 0.7, col("amplitude_cutoff") <= 0.02]
    many = [col("location") == "VISp", col("presence_ratio") >= 0.9]
    return {
        "good_units_spikes": lambda: scan("units", **one).filter(*good).select(spikes).collect(),
        "quarter_units_spikes": lambda: scan("units", **one).filter(*quarter).select(spikes).collect(),
        "many_units_spikes": lambda: scan("units", **one).filter(*many).select(spikes).collect(),
        "all_spikes": lambda: scan("units", **one).select("unit_id", "spike_times").collect(),
        "few_waveforms": lambda: (
            scan("units", **one)
            .select("unit_id", "waveform_mean")
            .filter(col("unit_id").str.ends_with("-7"))
            .collect()
        ),
        "all_trials": lambda: (
            scan("intervals/trials", **one).drop("_table_path", "_table_index", strict=False).collect()
        ),
        "performance_join": lambda: (
            scan("intervals/performance", **one)
            .join(
                scan("general", **one).select("_nwb_path", "keywords", "session_id"),
                on="_nwb_path",
                how="left",
            )
            .join(
                scan("general/subject", **one).select("_nwb_path", "subject_id"), on="_nwb_path", how="left"
            )
            .filter(
                col("keywords").list.contains("production"),
                col("signed_cross_modality_dprime").drop_nans().mean().over("session_id") > 2.0,
            )
            .with_columns(block_duration=col("stop_time") - col("start_time"))
            .select(
                "block_index", "block_duration", "signed_cross_modality_dprime", "subject_id", "_nwb_path"
            )
            .sort("_nwb_path", "block_index")
            .collect()
        ),
        "first_rows": lambda: (
            scan("units", **one).filter(col("default_qc")).select("unit_id", "spike_times").head(5).collect()
        ),
        "count": lambda: scan("units", **one).select(pl.len()).collect(),
        "schema_all": lambda: scan("units").collect_schema(),
    }


def run_query(contender: str, folder: Path, name: str) -> dict[str, Any]:
    """Run one query in this process; return its cost and a fingerprint of its result."""
    import polars as pl

    if contender == PARQUET:

        def scan(table: str, **_: object) -> pl.LazyFrame:
            return pl.scan_parquet(folder.parent / "parquet" / table.replace("/", ".") / "*.parquet")
    else:
        import lazynwb

        paths = sorted(folder.glob("*.nwb"))

        def scan(table: str, **options: object) -> pl.LazyFrame:
            return lazynwb.scan_nwb(paths, f"/{table}", **options)

    query = queries(scan)[name]
    read = None
    started = time.perf_counter()
    if contender == OURS:
        with lazynwb.profile() as cost:
            result = query()
        read = cost.bytes_read
    else:
        result = query()
    seconds = time.perf_counter() - started
    is_frame = isinstance(result, pl.DataFrame)
    return {
        "seconds": seconds,
        "read": read,
        "memory": peak_memory(),
        "rows": result.height if is_frame else None,
        "size": result.estimated_size() if is_frame else None,
        "content": fingerprint(result) if is_frame else None,
    }


def fingerprint(frame: pl.DataFrame) -> list[str]:
    """Describe every value of a frame, whatever the order of its rows: counts and sums by column."""
    import polars as pl

    out = []
    for name in sorted(c for c in frame.columns if not c.startswith("_")):
        values = frame[name]
        while isinstance(values.dtype, (pl.List, pl.Array)):
            values = values.explode()
        values = values.drop_nulls()
        number = values.str.len_bytes() if values.dtype == pl.String else values.cast(pl.Float64).fill_nan(0)
        out.append(f"{name}: {values.len()} values, sum {float(number.sum()):.8g}")
    return out


def peak_memory() -> int | None:
    """Return the peak resident size of this process in bytes, where the platform tells."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


# ---------------------------------------------------------------- measuring


def measure(python: str, task: tuple[str, ...], home: Path, timeout: int) -> dict[str, Any]:
    """Run one query in a fresh process whose caches are below `home`."""
    environment = {
        **os.environ,
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "LAZYNWB_CACHE_DIR": str(home / "cache" / "lazynwb"),
        "TQDM_DISABLE": "1",
    }
    if python != sys.executable:
        environment.pop("PYTHONPATH", None)  # the other interpreter shall find its own lazynwb
    command = [python, __file__, "--child", *task]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"over {timeout} s"}
    answers = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not answers:
        return {"error": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    return dict(json.loads(answers[-1]))


def compare(folder: Path, query: str, pythons: dict[str, str], options: argparse.Namespace) -> dict[str, Any]:
    """Run one query for every contender, interleaved; return medians and the last results."""
    runs: dict[str, list[dict[str, Any]]] = {contender: [] for contender in pythons}
    homes = {contender: Path(tempfile.mkdtemp(prefix="lazynwb-bench-")) for contender in pythons}
    cold = {}
    try:
        # The run before the first counted one fills the page cache and finds its own caches empty.
        for repeat in range(options.runs + 2):
            for contender, python in pythons.items():
                if repeat == 1:
                    shutil.rmtree(homes[contender], ignore_errors=True)
                task = (contender, str(folder), query)
                result = measure(python, task, homes[contender], options.timeout)
                if repeat == 1:
                    cold[contender] = result
                elif repeat > 1:
                    runs[contender].append(result)
    finally:
        for home in homes.values():
            shutil.rmtree(home, ignore_errors=True)
    out = {}
    for contender, results in runs.items():
        failed = next((r for r in [cold[contender], *results] if "error" in r), None)
        out[contender] = failed or {
            **results[-1],
            "seconds": statistics.median(r["seconds"] for r in results),
            "cold": cold[contender]["seconds"],
        }
    return out


def differing(query: str, results: dict[str, dict[str, Any]]) -> list[str]:
    """Return the contenders whose result differs from ours."""
    # Which five rows come first is no promise of the other package.
    excused = {PEER} if query == "first_rows" else set()
    ours = results[OURS].get("content")
    return [c for c, r in results.items() if "error" not in r and c not in excused and r["content"] != ours]


def cell(value: float | None, form: str, scale: float = 1) -> str:
    """Format one number of the table."""
    return "" if value is None else format(value / scale, form)


def table_row(query: str, results: dict[str, dict[str, Any]]) -> str:
    """Return one row of the Markdown table."""
    ours = results[OURS]
    cells = [
        f"`{query}`",
        cell(ours.get("rows"), ",.0f"),
        cell(ours.get("size"), ",.1f", MB),
        cell(ours.get("read"), ",.1f", MB),
        cell(ours.get("memory"), ",.0f", MB),
        cell(ours.get("cold"), ".3f"),
        cell(ours.get("seconds"), ".3f") or ours["error"],
    ]
    for contender, theirs in results.items():
        if contender != OURS:
            cells.append(cell(theirs.get("seconds"), ".3f") or theirs["error"])
            both = "seconds" in theirs and "seconds" in ours
            cells.append(f"**{theirs['seconds'] / ours['seconds']:.2f}**" if both else "")
    return "| " + " | ".join(cells) + " |"


def report(options: argparse.Namespace) -> int:
    """Print the tables; return how many results differ between contenders."""
    folder = options.folder.resolve() / f"{options.sessions}x{options.units}"
    folder.mkdir(parents=True, exist_ok=True)
    make_data(folder, options.sessions, options.units)
    pythons = {OURS: sys.executable, PARQUET: sys.executable}
    if options.peer:
        pythons[PEER] = options.peer
    wrong = 0
    for variant in options.variants:
        sizes = {
            name: sum(f.stat().st_size for f in (folder / name).rglob("*") if f.is_file())
            for name in (variant, "parquet")
        }
        print(
            f"\n{options.sessions} sessions with {options.units} units each, {variant}: "
            f"{sizes[variant] / MB:,.0f} MB as NWB, {sizes['parquet'] / MB:,.0f} MB as Parquet. "
            f"Seconds, median of {options.runs}.\n"
        )
        heads = ["query", "rows", "result, MB", "read, MB", "peak memory, MB", "empty cache", OURS]
        for contender in list(pythons)[1:]:
            heads += [contender, f"{contender} / {OURS}"]
        print("| " + " | ".join(heads) + " |")
        print("|---|" + "---:|" * (len(heads) - 1), flush=True)
        for query in options.queries or queries(lambda: None):
            results = compare(folder / variant, query, pythons, options)
            print(table_row(query, results), flush=True)
            for contender in differing(query, results):
                wrong += 1
                pair = results[OURS].get("content"), results[contender]["content"]
                print(f"{query}: {contender} gives another result: {pair}", file=sys.stderr)
    return wrong


def main() -> int:
    """Read the command line."""
    if sys.argv[1:2] == ["--child"]:
        contender, folder, query = sys.argv[2:]
        print(json.dumps(run_query(contender, Path(folder), query)))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("queries", nargs="*", help="names of queries (default: all)")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parents[1] / ".bench")
    parser.add_argument("--sessions", type=int, default=60)
    parser.add_argument("--units", type=int, default=300, help="units of each session")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--runs", type=int, default=3, help="counted runs of each query and contender")
    parser.add_argument("--timeout", type=int, default=300, help="seconds that one run may take")
    parser.add_argument("--peer", metavar="PYTHON", help="an interpreter that has another lazynwb")
    return 1 if report(parser.parse_args()) else 0


if __name__ == "__main__":
    sys.exit(main())
