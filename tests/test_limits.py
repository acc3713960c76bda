"""Memory of queries and remaining resources: small versions of the measurements of `limits.py`."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pytest

import lazynwb
import limits
import long_runs
from builders import Ragged, nwb_root, table
from checks import ENGINES, child_environment, count, run_child
from lazynwb.catalog import disk_cache
from lazynwb.errors import system_error

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc: run on Linux")

# --- memory: batches that are cut, whatever the columns ----------------------------------------------------


@pytest.fixture
def written(tmp_path):
    """A file of long texts of unequal length, as a column, as lists, and as sequences of numbers."""
    rng = np.random.default_rng(1)
    path = tmp_path / "long.nwb"
    lengths = np.where(rng.uniform(size=600) < 0.02, 300_000, rng.integers(0, 4000, 600))
    texts = [chr(97 + k % 26) * int(n) for k, n in enumerate(lengths)]
    lists = [texts[k : k + 1 + k % 3] for k in range(600)]
    with h5py.File(path, "w") as file:
        nwb_root(file)
        table(
            file, "t", {"n": np.arange(600), "text": texts, "lists": Ragged(lists, dtype=h5py.string_dtype())}
        )
        numbers = file["t"].create_dataset("numbers", (600,), h5py.vlen_dtype("<i4"))
        for k, length in enumerate(lengths.tolist()):
            numbers[k] = np.arange(length // 8)
    return path, texts, lists


def heights_of(path, columns):
    """The heights of the batches of a scan, before Polars joins them."""
    from lazynwb.engine.batches import run
    from lazynwb.scan import plan_scan
    from lazynwb.storage.resolve import expand

    return [frame.height for frame in run(plan_scan(tuple(expand(path)), "t"), columns, None, None)]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.sample(2)
def test_batches_of_text_are_sized_by_its_length(written, engine):
    """The size of a batch is estimated as 64 bytes per row until references have been read."""
    path, texts, lists = written
    lazynwb.config.batch_bytes = 1024 * 1024
    scan = lazynwb.scan_nwb(path, "t")
    for columns in (["text"], ["lists"], ["numbers"], ["n", "text", "numbers"]):
        heights = heights_of(path, columns)
        assert sum(heights) == 600
        assert len(heights) > 3 or columns == ["numbers"]
    found = scan.filter(pl.col("text").str.len_chars() >= 0, pl.col("n") % 2 == 0).collect(engine=engine)
    assert found["text"].to_list() == texts[::2]
    assert found["lists"].to_list() == lists[::2]
    assert found["n"].to_list() == list(range(0, 600, 2))
    assert scan.collect(engine=engine)["text"].to_list() == texts
    assert scan.head(5).collect(engine=engine)["text"].to_list() == texts[:5]


def test_text_that_fits_into_a_batch_is_read_once(tmp_path, no_store):
    """Batches that fit into the limit are not split."""
    path = tmp_path / "a.nwb"
    with h5py.File(path, "w") as file:
        table(file, "t", {"text": [f"{k} " * 50 for k in range(3000)]})
    time.sleep(0.1)
    counts = []
    for limit in (64, 4096):
        lazynwb.config.batch_bytes = limit * 1024 * 1024
        with lazynwb.profile() as cost:
            lazynwb.scan_nwb(path, "t").select("text").collect()
        counts.append((cost.requests, cost.bytes_read))
    assert counts[0][1] <= counts[1][1]


@pytest.mark.parametrize("bytes_each", [10, 500, 70_000, 3_000_000])
def test_objects_of_heaps_small_and_large(tmp_path, bytes_each):
    """Small collections are read in groups, large ones object by object."""
    path = tmp_path / "a.nwb"
    count = max(6_000_000 // bytes_each, 3) if bytes_each > 10 else 100_000
    texts = [f"{k}".ljust(bytes_each - k % 7, "x") for k in range(count)]
    with h5py.File(path, "w") as file:
        table(file, "t", {"text": texts, "other": texts[::-1]})
    frame = lazynwb.scan_nwb(path, "t").select("text", "other").collect()
    assert frame["text"].to_list() == texts
    assert frame["other"].to_list() == texts[::-1]


@pytest.mark.parametrize("name", ["waveforms", "long texts", "one row"])
@pytest.mark.sample(2)
def test_memory_is_bounded(name, tmp_path):
    """One hundredth of the full measurement, with batches of one hundredth of the size."""
    case, scale = limits.CASES[name], 0.02
    folder = tmp_path / "files"
    folder.mkdir()
    case.make(folder, scale)
    found = limits.measure("batches", folder)
    assert found["passed"] > 5_000_000 * scale
    assert found["peak"] - found["before"] < limits.bound(case, "batches", scale)


# --- remaining resources -----------------------------------------------------------------------------------


@pytest.mark.long
def test_opening_and_closing_leaves_no_open_files():
    found = long_runs.opened_in_a_child(60)
    assert found["descriptors"] <= 0
    assert found["connections"] < 20  # of 30 cycles behind the server
    assert found["threads"] <= 0
    assert found["bytes"] < limits.LEAK


@pytest.mark.long
def test_all_kinds_of_queries_run_concurrently():
    threads = count(3, 8)
    found = long_runs.all_at_once(2, threads, count(1, 5))
    assert found["wrong"] == []
    assert found["queries"] >= 2 * threads * 2


@pytest.mark.long
def test_a_process_that_is_killed_while_it_writes_the_cache():
    kills = count(1, 10)
    found = long_runs.killed(kills)
    assert found["wrong"] == []
    assert found["kills"] == kills


def test_files_of_killed_processes_are_removed_after_an_hour(cube, cache_dir):
    lazynwb.read_nwb(cube, "units")
    shards = [shard for version in cache_dir.glob("v*") for shard in version.iterdir()]
    old, new = ([shard / f".new-{age}" for shard in shards] for age in ("old", "young"))
    for file in (*old, *new):
        file.write_bytes(b"half")
    for file in old:
        os.utime(file, (time.time() - 4000,) * 2)
    for shard in shards:
        disk_cache.prune(shard, 10**9)
    assert not any(file.exists() for file in old)
    assert all(file.exists() for file in new)
    assert all(len(list(shard.iterdir())) > 1 for shard in shards)  # nothing else went
    disk_cache.prune(shards[0], 0)
    assert list(shards[0].iterdir()) == [new[0]]


# --- disk errors -------------------------------------------------------------------------------------------

#: Stands in for a full disk: no file may grow beyond some bytes.
LIMITED = """
import logging, resource, sys
import lazynwb
from lazynwb import cli
logging.basicConfig(level=logging.WARNING)
out, what, most, *paths = sys.argv[1:]
if what == "convert":
    import deltalake, xlsxwriter
resource.setrlimit(resource.RLIMIT_FSIZE, (int(most), int(most)))
if what == "command":
    print(cli.main(["query", "SELECT * FROM units", *paths, "-o", out + "/a.csv"]))
elif what == "cache":
    print(lazynwb.read_nwb(paths, "units").height)
else:
    for form in ("parquet", "arrow", "csv", "json", "ndjson", "excel", "delta"):
        try:
            tables = ["performance", "units"]
            lazynwb.convert_nwb_tables(paths, f"{out}/{form}", output_format=form, tables=tables)
        except OSError as error:
            print(form, type(error).__name__, isinstance(error, lazynwb.LazyNWBError), error)
"""


def limited(what, cube, tmp_path, most):
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", LIMITED, str(tmp_path / "out"), what, str(most), *map(str, cube)],
        env=child_environment(LAZYNWB_CACHE_DIR=str(tmp_path / "cache")),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_a_disk_error_of_a_conversion_names_the_file(cube, tmp_path):
    """Disk errors are never ignored; complete outputs are kept, partial ones removed."""
    pytest.importorskip("xlsxwriter")
    pytest.importorskip("deltalake")
    out = tmp_path / "out"
    out.mkdir()
    said = limited("convert", cube, tmp_path, 25_000)[0].splitlines()
    assert len(said) == 7, said
    for line in said:
        form = line.partition(" ")[0]
        assert line.startswith(f"{form} OSError False [Errno 27] File too large: ")
        assert str(out / form / "units") in line
        assert not list((out / form).rglob("*.part"))
        recorded = json.loads((out / form / ".lazynwb-manifest").read_text())["outputs"]
        assert [name for name in recorded if name.startswith("performance")]
        assert not [name for name in recorded if name.startswith("units")]
        assert form == "delta" or not list((out / form).glob("units*"))
    found = lazynwb.convert_nwb_tables(cube, out / "parquet", tables=["performance", "units"])
    assert pl.read_parquet(found["/units"]).height == 240


def test_a_disk_error_of_a_command_is_one_line(cube, tmp_path):
    (tmp_path / "out").mkdir()
    said, told = limited("command", cube, tmp_path, 10_000)
    assert said.strip() == "1"
    assert f"lazynwb: {tmp_path / 'out' / 'a.csv'}: File too large\n" in told
    assert list((tmp_path / "out").iterdir()) == []


def test_a_cache_write_error_is_a_warning(cube, tmp_path):
    (tmp_path / "out").mkdir()
    said, told = limited("cache", cube, tmp_path, 100)
    assert said.strip() == "240"
    assert told.count("the catalog cache cannot be written") == 1
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError(28, "No space left on device"), 28),
        (OSError("No space left on device (os error 28)"), 28),
        (pl.exceptions.ComputeError("parquet: underlying IO error: Disk quota exceeded (os error 122)"), 122),
        (RuntimeError("IO Error: Could not write file: No space left on device"), 28),
        (PermissionError(13, "Permission denied"), 13),
        (pl.exceptions.ComputeError("cannot cast"), None),
        (lazynwb.SourceNotFoundError("no such file"), None),
        (ValueError("(os error 2)"), None),
    ],
)
def test_disk_errors_differ_from_other_errors(error, number):
    found = system_error(error, Path("out.parquet"))
    assert (found.errno if found else None) == number
    assert found is None or "out.parquet" in str(found)


# --- home and cache folders --------------------------------------------------------------------------------

HOMES = {
    "no home": {"HOME": None, "XDG_CACHE_HOME": None},
    "a home that is not there": {"HOME": "/nonexistent/home", "XDG_CACHE_HOME": None},
    "a home that is a file": {"HOME": os.devnull, "XDG_CACHE_HOME": None},
    "a read-only home": {"HOME": "/proc", "XDG_CACHE_HOME": None},
}


@pytest.mark.parametrize("home", HOMES)
@pytest.mark.sample(2)
def test_queries_do_not_need_a_home_folder(home, cube):
    """The cache may be disabled, or in the home folder that the system reports; values are correct."""
    environment = {n: v for n, v in child_environment().items() if n != "LAZYNWB_CACHE_DIR"}
    for name, value in HOMES[home].items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value
    code = (
        "import sys, lazynwb, polars as pl\n"
        "lazynwb.config.disable_cache = lazynwb.config.disable_cache or len(sys.argv) == 1\n"
        "print(lazynwb.scan_nwb(sys.argv[1:], 'units').select(pl.len()).collect().item())"
    )
    if home == "no home":  # the user's own cache is no place for a test
        code = code.replace(
            "import sys,", "import sys, os; os.environ['LAZYNWB_DISABLE_CACHE'] = '1'; import"
        )
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", code, *map(str, cube)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "240"), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(
    getattr(os, "geteuid", lambda: 1)() != 0, reason="run as root, who may act as another user"
)
def test_a_cache_folder_of_another_user(cube):
    """It is neither read nor written, with one warning."""
    with tempfile.TemporaryDirectory() as home:
        folder, files = Path(home) / "theirs", Path(home) / "nwb"
        Path(home).chmod(0o755)
        shutil.copytree(cube[0].parent, files)
        files.chmod(0o755)
        folder.mkdir(mode=0o700)
        code = (
            "import os, sys, logging, lazynwb, polars as pl\n"
            "lazynwb.read_nwb(sys.argv[2:], 'trials')\n"  # what is imported late, others may not read
            "lazynwb.clear_cache()\n"
            "lazynwb.config.cache_dir = sys.argv[1]\n"
            "os.setuid(65534)\n"
            "logging.basicConfig(level=logging.WARNING, stream=sys.stdout)\n"
            "print(lazynwb.scan_nwb(sys.argv[2:], 'units').select(pl.len()).collect().item())"
        )
        said = run_child(
            code, folder, *sorted(files.glob("*.nwb")), LAZYNWB_CACHE_DIR=str(Path(home) / "own")
        )
        assert "240" in said.splitlines()  # the warnings about writes follow
        for what in ("the catalog cache", "the column store"):
            assert said.count(f"{what} cannot be") == 2, said  # read, and written
        assert said.count("WARNING") == 4
        assert f"{folder}: Permission denied" in said
        assert list(folder.iterdir()) == []
