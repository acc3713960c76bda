"""One column store that many use at once, on bad disks too, while files are replaced: no row is wrong.

    python tests/shared_store.py [--only churn] [--minutes 10] [--processes 16] [--kills 200] [--seed 0]

prints a line for each run, and ends with 1 if a row was wrong. `tests/test_shared_store.py` runs small
versions of the same.

- churn: processes of several threads query, fill, compact, evict and clear one store; some of them have
  another clock, another version's formats, a small limit, or a disk that fails (`faulty_disk.py`).
- kills: a process is killed while it writes or compacts, at a call of the file system or at any moment.
- bytes: each byte of parts and entries is changed, one after the other.
- disks: one process on each kind of bad disk.

Every value says which session, version and row it is of. A query's rows of a session are compared with those
of each version that the file may have had while the query ran: all of them are of one version, or the query
is an error that says that the file has changed.
"""

# ruff: noqa: T201 - lines of a report are what the command is for

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest.mock import patch

import h5py
import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).parent))

import lazynwb
from builders import Ragged, nwb_root, table
from checks import child_environment
from faulty_disk import DISKS, FaultyDisk
from lazynwb.catalog import disk_cache
from lazynwb.column_store import compaction, entries, store
from lazynwb.lookup import catalog_cache
from lazynwb.lookup.stored_tables import store_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SESSIONS = 10
TABLE = "intervals/trials"
COLUMNS = ["number", "real", "text", "flag", "events", "extra"]
#: A time of modification that replaced files share.
_SAME_TIME = 1_600_000_000
#: Seconds after which a file counts as settled; see `is_path_settled`.
_SETTLED = 0.06
#: Sessions of a store of which each byte is changed.
_FEW = 3
#: Of five versions the one without the table.
_LACKING = 4
#: Rows of a limited query: of a session in part, or of several.
_FIRST = 23

# --- files ----------------------------------------------------------------------------------------------


def rows_of(session: int, version: int) -> list[dict[str, Any]]:
    """Return the rows of a version of a session; every second one lacks a column, every fifth the table."""
    found: list[dict[str, Any]] = []
    if version % 5 == _LACKING:
        return found
    for row in range(5 + (7 * session + 3 * version) % 20):
        number = (session * 10_000 + version) * 100 + row
        found.append(
            {
                "number": number,
                "real": number / 8,
                "text": f"{session}/{version}/{row}",
                "flag": number % 3 == 0,
                "events": [float(number)] * (row % 3),
                "extra": 2 * number if version % 2 else None,
            }
        )
    return found


def file_of(session: int, version: int) -> bytes:
    """Return the bytes of a file with a version of a session."""
    rows = rows_of(session, version)
    columns: dict[str, Any] = {
        name: np.array([row[name] for row in rows]) for name in ("number", "real", "flag")
    }
    columns["text"] = [row["text"] for row in rows]
    columns["events"] = Ragged([row["events"] for row in rows])
    if version % 2:
        columns["extra"] = np.array([row["extra"] for row in rows])
    with h5py.File("in memory", "w", driver="core", backing_store=False) as file:
        nwb_root(file, f"{session}")
        if rows:
            table(file, TABLE, columns)
        file.flush()
        return bytes(file.id.get_file_image())


# --- the history of the files ---------------------------------------------------------------------------


class Change(NamedTuple):
    """One change of a file, by the clock that all processes of a machine share.

    Attributes
    ----------
    version : int
    kind : str
        "renamed", "dated" (renamed, with the same time of modification), "overwritten" in place, or "gone"
        for a while and then renamed.
    begin, end : float
        Seconds; an end that is not known yet is infinite.
    """

    version: int
    kind: str
    begin: float
    end: float


KINDS = ("renamed", "dated", "overwritten", "gone")
_RECORD = struct.Struct("<HIBBd")


class History:
    """Changes of the files of a folder, in a log that one process writes and others read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._log = folder / "history"
        self._at = 0
        self._changes: dict[int, list[Change]] = {}
        self._lock = threading.Lock()

    def path(self, session: int) -> str:
        """Return the path of a session's file."""
        return str(self.folder / f"s{session:02}.nwb")

    def _note(self, session: int, version: int, kind: str, *, ended: bool) -> None:
        record = _RECORD.pack(session, version, KINDS.index(kind), ended, time.monotonic())
        with self._log.open("ab", buffering=0) as log:
            log.write(record)

    def change(self, session: int, version: int, kind: str) -> None:
        """Replace a file by a version."""
        data = file_of(session, version)
        path = Path(self.path(session))
        new = path.with_suffix(".new")
        if kind != "overwritten":
            new.write_bytes(data)
        if kind == "dated":
            os.utime(new, (_SAME_TIME, _SAME_TIME))
        self._note(session, version, kind, ended=False)
        if kind == "overwritten":
            with path.open("r+b") as file:
                file.write(data)
                file.truncate()
        else:
            if kind == "gone":
                path.unlink()
                time.sleep(0.01)
            new.replace(path)
        self._note(session, version, kind, ended=True)

    def of(self, session: int) -> list[Change]:
        """Return the recorded changes of a session."""
        with self._lock:
            with self._log.open("rb") as log:
                log.seek(self._at)
                data = log.read()
            whole = len(data) - len(data) % _RECORD.size
            self._at += whole
            for number, version, kind, ended, when in _RECORD.iter_unpack(data[:whole]):
                changes = self._changes.setdefault(number, [])
                if ended:
                    changes[-1] = changes[-1]._replace(end=when)
                else:
                    changes.append(Change(version, KINDS[kind], when, float("inf")))
            return list(self._changes[session])

    @property
    def sessions(self) -> list[int]:
        """The existing sessions."""
        self.of(0)
        return sorted(self._changes)

    def between(self, session: int, begin: float, end: float) -> tuple[list[int], list[Change]]:
        """Return the versions of a file within a period, and its changes in that period."""
        changes = self.of(session)
        replaced = [change.end for change in changes[1:]] + [float("inf")]
        versions = [
            change.version
            for change, until in zip(changes, replaced, strict=True)
            if change.begin <= end and until >= begin
        ]
        return versions, [change for change in changes if change.begin <= end and change.end >= begin]


def make(folder: Path) -> History:
    """Write the first version of each session."""
    folder.mkdir(parents=True)
    history = History(folder)
    for session in range(SESSIONS):
        history.change(session, 0, "renamed")
    return history


def replace_files(history: History, choose: random.Random, stop: Callable[[], bool], pause: float) -> int:
    """Replace files until the end of the run; return the number of replacements."""
    versions = dict.fromkeys(range(SESSIONS), 0)
    while not stop():
        # Some are replaced again and again, some rarely.
        session = min(int(choose.expovariate(0.4)), SESSIONS - 1)
        versions[session] += 1
        history.change(session, versions[session], choose.choice(KINDS))
        time.sleep(choose.expovariate(1 / pause))
    return sum(versions.values())


# --- queries and expected results -------------------------------------------------------------------------


class Query(NamedTuple):
    """A query on a scan, and on the rows of one session.

    Attributes
    ----------
    ask : callable
        From a scan and the columns that are wanted.
    expect : callable
        From rows to the values of the session's part of the answer.
    """

    ask: Callable[[pl.LazyFrame, list[str]], pl.LazyFrame]
    expect: Callable[[list[dict[str, Any]], list[str]], list[list[Any]]]


def _plain(rows: list[dict[str, Any]], names: list[str]) -> list[list[Any]]:
    return [[row[name] for name in names] for row in rows]


def _where(passes: Callable[[dict[str, Any]], bool]) -> Callable[[Any, list[str]], list[list[Any]]]:
    return lambda rows, names: _plain([row for row in rows if passes(row)], names)


QUERIES = {
    "columns": Query(lambda lf, names: lf.select("_nwb_path", *names), _plain),
    "number": Query(
        lambda lf, names: lf.filter(pl.col("number") % 2 == 0).select("_nwb_path", *names),
        _where(lambda row: row["number"] % 2 == 0),
    ),
    "text": Query(
        lambda lf, names: lf.filter(pl.col("text").str.ends_with("3") | pl.col("flag")).select(
            "_nwb_path", *names
        ),
        _where(lambda row: row["text"].endswith("3") or row["flag"]),
    ),
    "lengths": Query(
        lambda lf, names: lf.filter(pl.col("events").list.len() > 1).select("_nwb_path", *names),
        _where(lambda row: len(row["events"]) > 1),
    ),
    "count": Query(
        lambda lf, _: lf.group_by("_nwb_path", maintain_order=True).agg(pl.len().alias("n")),
        lambda rows, _: [[len(rows)]] if rows else [],
    ),
    "first": Query(lambda lf, names: lf.select("_nwb_path", *names).head(_FIRST), _plain),
    "sums": Query(
        lambda lf, _: lf.group_by("_nwb_path", maintain_order=True).agg(pl.col("number").sum()),
        lambda rows, _: [[sum(row["number"] for row in rows)]] if rows else [],
    ),
}


class Asked:
    """Queries on the files of a folder, and their results."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.queries = self.changed = self.stored = 0
        self.wrong: list[str] = []

    def one(self, choose: random.Random) -> None:
        """Run a random query and compare its result with the possible ones."""
        name = choose.choice(list(QUERIES))
        there = self.history.sessions
        sessions = sorted(choose.sample(there, choose.randint(1, len(there))))
        wanted = choose.sample(COLUMNS, choose.randint(1, len(COLUMNS)))
        self.ask(name, sessions, wanted, choose.choice(["in-memory", "streaming"]))

    def ask(self, name: str, sessions: list[int], wanted: list[str], engine: str = "in-memory") -> None:
        """Run a query and compare its result with the possible ones."""
        self.queries += 1
        paths = [self.history.path(session) for session in sessions]
        begin = time.monotonic()
        result: pl.DataFrame | Exception
        try:
            with lazynwb.profile() as cost:
                lf = lazynwb.scan_nwb(paths, TABLE)
                known = lf.collect_schema()
                names = [column for column in wanted if column in known]
                result = QUERIES[name].ask(lf, names).collect(engine=engine)  # type: ignore[call-overload]
                self.stored += cost.bytes_stored > 0
        except Exception as error:  # noqa: BLE001 - whatever it is, it is judged
            result = error
        end = time.monotonic()
        reason = self._wrong(name, sessions, result, begin, end)
        if reason:
            self.wrong.append(f"{name} {wanted} of {sessions}, {engine}: {reason}")

    def _wrong(
        self, name: str, sessions: list[int], result: pl.DataFrame | Exception, begin: float, end: float
    ) -> str | None:
        seen = {session: self.history.between(session, begin, end) for session in sessions}
        kinds = {change.kind for _, changes in seen.values() for change in changes}
        if isinstance(result, lazynwb.TableNotFoundError):
            lacking = (any(version % 5 == _LACKING for version in versions) for versions, _ in seen.values())
            return None if "overwritten" in kinds or all(lacking) else f"{result}"
        if isinstance(result, Exception):
            self.changed += 1
            expected = (
                (isinstance(result, lazynwb.SourceChangedError) and kinds)
                or (isinstance(result, lazynwb.SourceNotFoundError) and "gone" in kinds)
                or (isinstance(result, lazynwb.LazyNWBError) and "overwritten" in kinds)
            )
            if expected:
                return None
            trace = "".join(traceback.format_exception(result)[-6:])
            return f"{type(result).__name__}: {result} ({kinds})\n{trace}"
        names = [column for column in result.columns if column != "_nwb_path"]
        groups = {
            path: frame.drop("_nwb_path").rows()
            for (path,), frame in result.partition_by("_nwb_path", as_dict=True, maintain_order=True).items()
        }
        order = [self.history.path(session) for session in sessions]
        if list(groups) != [path for path in order if path in groups]:
            return f"sessions come as {list(groups)}"
        left = _FIRST if name == "first" else None
        for session, (versions, changes) in seen.items():
            if any(change.kind == "overwritten" for change in changes):
                if left is not None:
                    return None  # nor is known how many rows it had
                continue  # it was neither of the two
            found = [list(row) for row in groups.get(self.history.path(session), [])]
            allowed = [QUERIES[name].expect(rows_of(session, version), names) for version in versions]
            if left is not None:
                allowed = [rows[:left] for rows in allowed]
                left -= len(found)
            if found not in allowed:
                of_it = f"versions {versions} have {str(allowed)[:600]}"
                return f"session {session}: {str(found)[:300]}, where {of_it}"
        return None


# --- churn ------------------------------------------------------------------------------------------------

#: What is different about a process, by its number; the others are as usual.
ROLES = ("usual", "small", "clears", "compacts", "behind", "ahead", "newer", "next store", "flaky", "late")


@contextmanager
def role(name: str, root: Path, seed: int) -> Iterator[None]:
    """Configure this process for its role."""
    with ExitStack() as stack:
        if name == "small":
            lazynwb.config.column_cache_bytes = 30_000
            stack.enter_context(patch.object(store, "GRACE_SECONDS", 0.0))
        elif name == "compacts":
            stack.enter_context(patch.object(compaction, "MAX_PARTS", 1))
        elif name in {"behind", "ahead"}:
            shift = 86_400 * (1 if name == "ahead" else -1)
            now, now_ns = time.time, time.time_ns
            stack.enter_context(patch.object(time, "time", lambda: now() + shift))
            stack.enter_context(patch.object(time, "time_ns", lambda: now_ns() + shift * 10**9))
        elif name == "newer":  # another version of the catalog, in the same folder
            stack.enter_context(patch.object(entries, "MAGIC", entries.MAGIC[:-2] + b"\xff\x7f"))
            stack.enter_context(patch.object(disk_cache, "MAGIC", disk_cache.MAGIC[:-2] + b"\xff\x7f"))
        elif name == "next store":
            stack.enter_context(patch.object(store, "STORE_VERSION", 0x7FFF))
            stack.enter_context(patch.object(entries, "MAGIC", b"LNWC\xff\x7f" + entries.MAGIC[6:]))
        elif name in DISKS:
            stack.enter_context(FaultyDisk(root, name, random.Random(seed)))  # noqa: S311 - which calls fail
        yield


def forget() -> None:
    """Clear the caches in memory, as in a new process."""
    store.forget_entries()
    catalog_cache.clear_memory()


def busy(  # noqa: PLR0913 - where, as what, how much
    folder: Path,
    cache: Path,
    what: str,
    *,
    threads: int,
    seed: int,
    seconds: float,
    queries: float = math.inf,
) -> dict[str, Any]:
    """Run random queries in threads, with occasional maintenance; return counts and wrong results.

    Parameters
    ----------
    folder, cache : Path
    what : str
        One of `ROLES`.
    threads, seed : int
    seconds, queries : float
        After which each thread ends.
    """
    logging.getLogger("lazynwb").setLevel(logging.ERROR)
    lazynwb.config.cache_dir = cache
    history = History(folder)
    stop = time.monotonic() + seconds
    asked = [Asked(history) for _ in range(threads)]
    key = store_key(TABLE)
    compactions = [0]

    def work(number: int) -> None:
        choose = random.Random(f"{seed} {number}")  # noqa: S311 - which query
        own = asked[number]
        while time.monotonic() < stop and own.queries < queries and not own.wrong:
            event = choose.random()
            if event < 0.1:
                forget()
            elif event < (0.3 if what == "compacts" else 0.11):
                with suppress(lazynwb.LazyNWBError):
                    compaction.compact(store.column_store(), key)
                    compactions[0] += 1
            elif event < (0.3 if what == "small" else 0.12):
                store.column_store().sweep()
            elif event < (0.2 if what == "clears" else 0.121):
                lazynwb.clear_cache()
            own.one(choose)

    with role(what, cache, seed):
        running = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
    return {
        "queries": sum(one.queries for one in asked),
        "stored": sum(one.stored for one in asked),
        "changed": sum(one.changed for one in asked),
        "compactions": compactions[0],
        "wrong": [f"{what}: {text}" for one in asked for text in one.wrong],
    }


def churn(  # noqa: PLR0913, PLR0917 - how many of what, and for how long
    processes: int, threads: int, seconds: float, seed: int, pause: float = 0.1, other: Path | None = None
) -> dict[str, Any]:
    """Run processes of each role on one store while files are replaced.

    Parameters
    ----------
    processes, threads, seed : int
    seconds, pause : float
        Of the run, and between two changes of files.
    other : Path, optional
        The folder `src` of another version of the package, which every second process runs.
    """
    with tempfile.TemporaryDirectory() as home:
        history = make(Path(home) / "nwb")
        cache = Path(home) / "cache"
        code = (
            "import json, sys; from pathlib import Path; from shared_store import busy\n"
            "folder, cache, what, threads, seconds, seed = sys.argv[1:]\n"
            "counts = {'threads': int(threads), 'seconds': float(seconds), 'seed': int(seed)}\n"
            "print(json.dumps(busy(Path(folder), Path(cache), what, **counts)))"
        )
        children = [
            start(
                code,
                *(history.folder, cache, ROLES[n % len(ROLES)], threads, seconds, seed + n),
                src=other if n % 2 else None,
            )
            for n in range(processes)
        ]
        choose = random.Random(seed)  # noqa: S311 - which file
        replaced = replace_files(
            history, choose, lambda: all(child.poll() is not None for child in children), pause
        )
        total: dict[str, Any] = {"replaced": replaced, "queries": 0, "stored": 0, "changed": 0}
        total |= {"compactions": 0, "wrong": []}
        for child in children:
            out, err = child.communicate()
            if child.returncode:
                total["wrong"].append(f"{child.args[7]}: ended with {child.returncode}: {err[:4000]}")
                continue
            found = json.loads(out.splitlines()[-1])
            for name, value in found.items():
                total[name] += value
        return total


def start(code: str, *arguments: object, src: Path | None = None) -> subprocess.Popen[str]:
    """Start a process with this script, and with the package of another folder if one is given."""
    env = child_environment(LAZYNWB_DISABLE_PROGRESS="1")
    if src is not None:
        env["PYTHONPATH"] = os.pathsep.join([str(src), env["PYTHONPATH"]])
    return subprocess.Popen(  # noqa: S603 - our own code
        [sys.executable, "-X", "faulthandler", "-c", code, *map(str, arguments)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    )


# --- kills ------------------------------------------------------------------------------------------------

#: Starts a process for each line that it is given, and says how it ended. Each fills and merges a store until
#: it is killed: at a call of the file system, or from outside. All have what is imported from the first one,
#: which has started no thread.
WRITERS = """
import os, random, signal, sys
from pathlib import Path
from unittest.mock import patch
import polars as pl
import lazynwb, lazynwb.engine.scan, lazynwb.engine.stored_columns, lazynwb.formats.hdf5.reader
import shared_store
from faulty_disk import FaultyDisk
from shared_store import Asked, History, compaction

def write(folder, cache, seed, at):
    lazynwb.config.cache_dir = cache
    asked, choose = Asked(History(Path(folder))), random.Random(seed)
    disk = FaultyDisk(Path(cache), "killed", choose, int(at) or None)
    with disk, patch.object(compaction, "MAX_PARTS", 2):
        while not asked.wrong:
            if choose.random() < 0.05:
                lazynwb.clear_cache()
            shared_store.forget()
            asked.one(choose)
    print(asked.wrong, flush=True)

for line in sys.stdin:
    writer = os.fork()
    if not writer:
        write(*sys.argv[1:], *line.split())
        os._exit(1)
    print(writer, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(writer, 0)[1]), flush=True)
"""


def kills(times: int, seed: int) -> dict[str, Any]:
    """Kill a process while it writes or compacts, and read the remaining store; return counts and faults."""
    choose = random.Random(seed)  # noqa: S311 - when
    with tempfile.TemporaryDirectory() as home, role("compacts", Path(home), seed):
        history = make(Path(home) / "nwb")
        cache = Path(home) / "cache"
        lazynwb.config.cache_dir = cache
        asked = Asked(history)
        versions = dict.fromkeys(range(SESSIONS), 0)
        found = {"kills": 0, "at a call": 0}
        writers = start(WRITERS, history.folder, cache)
        assert writers.stdin is not None
        assert writers.stdout is not None
        for number in range(times):
            at = choose.randint(1, 120) if number % 2 else 0
            print(f"{seed}.{number} {at}", file=writers.stdin, flush=True)
            writer = int(writers.stdout.readline())
            if not at:
                time.sleep(choose.expovariate(3))
                os.kill(writer, signal.SIGKILL)
            said = writers.stdout.readline()
            if said.strip() != f"{-signal.SIGKILL}":
                asked.wrong.append(f"a writer ended with {said}")
                writers.kill()
                asked.wrong += writers.communicate()
                break
            found["kills"] += 1
            found["at a call"] += at > 0
            forget()
            for name in choose.sample(list(QUERIES), 3):
                asked.ask(name, list(range(SESSIONS)), COLUMNS)
            session = choose.randrange(SESSIONS)
            versions[session] += 1
            history.change(session, versions[session], choose.choice(KINDS))
        writers.communicate()
        return found | {"queries": asked.queries, "stored": asked.stored, "wrong": asked.wrong}


# --- bytes ------------------------------------------------------------------------------------------------


def flipped(every: int, seed: int) -> dict[str, Any]:
    """Change each byte, or every n-th byte, of the parts and entries of a small store; return counts."""
    choose = random.Random(seed)  # noqa: S311 - which bit
    with tempfile.TemporaryDirectory() as home:
        history = make(Path(home) / "nwb")
        time.sleep(_SETTLED)
        lazynwb.config.cache_dir = Path(home) / "cache"
        asked = Asked(history)
        everything = list(range(_FEW))
        for _ in range(2):
            asked.ask("columns", everything, COLUMNS)
        assert asked.stored == 1, "the second query reads the store"
        kept = {path: path.read_bytes() for path, _ in store.column_store().files()}
        found: dict[str, Any] = {"bytes": 0, "noticed": 0, "without effect": 0}
        for path, data in kept.items():
            for at in range(choose.randrange(every), len(data), every):
                damaged = bytearray(data)
                damaged[at] ^= 1 << choose.randrange(8)
                path.write_bytes(damaged)
                forget()
                before = asked.stored
                asked.ask("columns", everything, COLUMNS)
                # A part that was found to be damaged is published no more.
                is_used = asked.stored > before and path.with_suffix(".entry").exists()
                found["without effect" if is_used else "noticed"] += 1
                found["bytes"] += 1
                for file, _ in list(store.column_store().files()):
                    if file not in kept:
                        file.unlink()
                for file in kept.keys() - {path}:
                    if not file.exists():
                        file.write_bytes(kept[file])
                path.write_bytes(data)
        forget()
        asked.ask("columns", everything, COLUMNS)
        return found | {"wrong": asked.wrong}


# --- disks ------------------------------------------------------------------------------------------------


def disks(queries: int, seed: int) -> dict[str, Any]:
    """Query each kind of failing disk and the remaining store; return counts and wrong results."""
    total: dict[str, Any] = {"disks": 0, "queries": 0, "failed calls": 0, "stored": 0, "wrong": []}
    for kind in sorted(DISKS):
        choose = random.Random(f"{seed} {kind}")  # noqa: S311 - which calls fail
        with tempfile.TemporaryDirectory() as home, patch.object(compaction, "MAX_PARTS", 2):
            history = make(Path(home) / "nwb")
            lazynwb.config.cache_dir = cache = Path(home) / "cache"
            asked = Asked(history)
            versions = dict.fromkeys(range(SESSIONS), 0)
            for _ in range(2):
                time.sleep(_SETTLED)
                asked.ask("columns", list(range(SESSIONS)), COLUMNS)
            with FaultyDisk(cache, kind, choose) as disk:
                for _ in range(queries):
                    if choose.random() < 0.2:
                        session = choose.randrange(SESSIONS)
                        versions[session] += 1
                        history.change(session, versions[session], choose.choice(KINDS))
                    if choose.random() < 0.5:
                        forget()
                    asked.one(choose)
            forget()
            time.sleep(_SETTLED)
            for name in ("columns", "count"):
                asked.ask(name, list(range(SESSIONS)), COLUMNS)
        total["queries"] += asked.queries
        total["failed calls"] += disk.failed
        total["disks"] += disk.failed > 0
        total["stored"] += asked.stored
        total["wrong"] += [f"{kind}: {text}" for text in asked.wrong]
    return total


# --- command line -----------------------------------------------------------------------------------------


@contextmanager
def quiet() -> Iterator[None]:
    """Limit warnings and settings to a run."""
    logger = logging.getLogger("lazynwb")
    level, _ = logger.level, logger.setLevel(logging.ERROR)
    saved = lazynwb.config.cache_dir, lazynwb.config.disable_progress
    lazynwb.config.disable_progress = True
    try:
        yield
    finally:
        logger.setLevel(level)
        lazynwb.config.cache_dir, lazynwb.config.disable_progress = saved
        forget()


def main() -> int:
    """Run the processes; return whether all rows were correct."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--processes", type=int, default=16)
    parser.add_argument("--threads", type=int, default=3)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--other", type=Path, help="src of another version, for every second process of churn"
    )
    given = parser.parse_args()
    runs = {
        "bytes": lambda: flipped(1, given.seed),
        "disks": lambda: disks(given.queries, given.seed),
        "kills": lambda: kills(given.kills, given.seed),
        "churn": lambda: churn(
            given.processes, given.threads, 60 * given.minutes, given.seed, other=given.other
        ),
    }
    wrong = 0
    for name, run in runs.items():
        if given.only not in name:
            continue
        begin = time.monotonic()
        with quiet():
            found = run()
        counts = ", ".join(f"{value:,} {key}" for key, value in found.items() if key != "wrong")
        print(f"{name}: {counts}, {len(found['wrong'])} wrong; {time.monotonic() - begin:.0f} s", flush=True)
        print(*found["wrong"][:10], sep="\n", flush=True, end="\n" if found["wrong"] else "")
        wrong += len(found["wrong"])
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
