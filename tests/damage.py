"""Thousands of damaged files: correct values or an error that names the file; bounded memory, and no crash.

    python tests/damage.py --cases 10000 --seed 0 --format hdf5
    python tests/damage.py --seed 0 --format hdf5 --case 1234 --keep folder    # one of them again
    python tests/damage.py --cases 2000 --format hdf5 --without-libhdf5        # what is read without it

This part knows nothing of any format. `damage_hdf5` and `damage_zarr` build undamaged files, damage copies of
them, and say what an independent reader makes of a damaged copy. Here copies are read by lazynwb in a process
that many cases share, which a crash or a limit ends, and what came out is judged.

Values are allowed to differ from those of the undamaged file only where the independent reader, in a process
of its own, reads the same from the damaged one: then that is what the file says now.
"""

# ruff: noqa: S311 - damage has to be the same again, not hard to guess

from __future__ import annotations

import argparse
import contextlib
import gc
import hashlib
import importlib
import itertools
import logging
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from checks import process_status

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from multiprocessing.connection import Connection

FORMATS = ("hdf5", "zarr")
SECONDS = 10
MAX_BYTES = 2**30
#: Address space on top of that: what threads and allocators reserve and never touch.
_RESERVED = 2**30
#: Values that differ and are compared with the independent reader's, per case.
_MAX_ASKED = 40
_LONGEST = 160
#: What h5py says where it cannot tell a name.
_AT_A_LOSS = ("visitation failed", "Iteration operator failed", "UnicodeDecodeError")
_SLICE = slice(3, 40)


class Format(Protocol):
    """Protocol of the modules `damage_<format>`."""

    def build(self, folder: Path) -> list[Path]:
        """Write the undamaged files, each into a separate folder, in a fixed order."""
        ...

    def damage(self, victim: Path, copy: Path, rng: random.Random) -> str:
        """Write a damaged copy (the folder of `copy` exists, and is empty); name the kind of damage."""
        ...

    def expected(self, path: Path, key: Key) -> Any:
        """Return a part of a file, read by the independent reader, as plain values.

        Whatever it raises means that the reader cannot read it. `ABSENT` if the file has no such part.
        """
        ...


#: A part of a file: ("column", table, column), ("attribute", object, name), ("object", path), ("slice", ...).
Key = tuple[str, ...]
ABSENT = "absent"


class AmbiguousError(Exception):
    """Both results are correct: a group with several paths is listed under one of them."""


def module(name: str) -> Format:
    return importlib.import_module(f"damage_{name}")  # type: ignore[return-value]


def brief(value: Any) -> str:
    """A short text that is equal for equal values; NaN equals NaN, and 1 equals 1.0."""
    text = repr(plain(value))
    return text if len(text) <= _LONGEST else f"{text[:60]}... {hashlib.blake2b(text.encode()).hexdigest()}"


def plain(value: Any) -> Any:
    """A canonical value: whole numbers as integers, arrays as lists."""
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        # What is left of a complex type may be a compound of two numbers to one reader, not to the other.
        complex_ = {"r": "re", "i": "im"} if value.keys() == {"r", "i"} else {}
        return {complex_.get(name, name): plain(item) for name, item in value.items()}
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


# --- reading by lazynwb, in a process of its own -------------------------------------------------------


@dataclass
class Seen:
    """Results of lazynwb for a file."""

    values: dict[Key, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)  # warnings
    seconds: float = 0.0
    peak: int = 0


class _Log(logging.Handler):
    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.said = said

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def look(path: Path, tables: Iterable[str]) -> Seen:
    """Read all objects, attributes, metadata and tables of a file, and slices of its series."""
    import lazynwb

    lazynwb.clear_cache()
    seen = Seen()
    handler = _Log(seen.said)
    logging.getLogger("lazynwb").addHandler(handler)
    try:
        _look(path, sorted({*tables}), seen)
    finally:
        logging.getLogger("lazynwb").removeHandler(handler)
    return seen


def _look(path: Path, tables: list[str], seen: Seen) -> None:  # noqa: C901 - one thing after the other
    import lazynwb

    @contextlib.contextmanager
    def reading(what: str) -> Iterator[None]:
        try:
            yield
        except lazynwb.LazyNWBError as error:
            seen.errors.append(f"{what}: {type(error).__name__}: {error}")
            if path.name not in str(error):
                seen.faults.append(f"unnamed: {what}: {type(error).__name__} does not name the file: {error}")
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - Polars' panics, too, are no errors of ours
            seen.faults.append(f"exception: {what}: {type(error).__name__}: {str(error)[:300]}")

    found: list[str] = []
    options = {
        "include_child_datasets": True,
        "include_table_columns": True,
        "include_metadata": True,
        "include_specifications": True,
        "parents": True,
    }
    with reading("paths"):
        listed = lazynwb.get_internal_paths(path, **options)
        # Groups are shown only where they hold something that is not shown elsewhere.
        seen.values.update(
            {("object", name): brief("") for name, info in listed.items() if not info.is_group}
        )
        groups = [name for name, info in listed.items() if info.is_group]
        series = {name.rpartition("/")[0] for name in listed if name.endswith(("/data", "/timestamps"))}
        found = [*groups, *series]
    with reading("attributes"):
        attributes = lazynwb.get_sub_attrs(path, exclude_private=False, exclude_empty=False)
        seen.values.update(
            {
                ("attribute", name, key): brief(value)
                for name, one in attributes.items()
                for key, value in one.items()
            }
        )
    with reading("session"):
        session = lazynwb.LazyNWB(path)
        repr(session)
        session._repr_html_()
        session.describe()
    with reading("metadata"):
        lazynwb.get_metadata_df(path)
    with reading("context"):
        lazynwb.get_sql_context(path)
    for name in sorted({*tables, *found[:200]}):
        _look_at_table(path, name, name in tables, seen, reading)
    with reading("series"):
        for name, one in lazynwb.get_timeseries(path, match_all=True).items():
            for member in ("data", "timestamps"):
                with reading(f"slice of {name}/{member}"):
                    try:
                        array = getattr(one, member)
                    except lazynwb.ColumnNotFoundError:
                        continue
                    if array.shape:
                        seen.values["slice", name, member] = brief(array[_SLICE].tolist())


def _look_at_table(path: Path, name: str, is_table: bool, seen: Seen, reading: Any) -> None:  # noqa: FBT001
    import lazynwb

    def record(frame: Any) -> None:
        for column in frame.columns:
            if column not in lazynwb.INTERNAL_COLUMN_NAMES:
                seen.values["column", name, column] = brief(frame[column].to_list())

    with reading(f"schema of {name}"):
        try:
            lf = lazynwb.scan_nwb(path, name)
        except lazynwb.TableNotFoundError:
            if is_table:
                raise
            return  # a group that is none
        columns = list(lf.collect_schema())
        errors, faults = len(seen.errors), len(seen.faults)
        with reading(name):
            record(lf.collect())
        if len(seen.errors) > errors or len(seen.faults) > faults:
            for column in columns[:200]:
                with reading(f"{name}, column {column}"):
                    record(lf.select(column).collect())


# --- the processes -------------------------------------------------------------------------------------


class _NoLibhdf5:
    """Refuses to import what reads files through libhdf5, for as long as the process lasts.

    Attributes
    ----------
    path : Path
        The file that is being read: an error has to name it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        assert "lazynwb.formats.libhdf5" not in sys.modules
        sys.meta_path.insert(0, self)  # type: ignore[arg-type]

    def find_spec(self, name: str, *_: Any) -> None:
        """Raise for modules of libhdf5, and leave the others to the next finder."""
        if name.startswith("lazynwb.formats.libhdf5"):
            import lazynwb

            message = f"{self.path}: libhdf5 is not there"
            raise lazynwb.LazyNWBError(message)


def _serve_reader(connection: Connection, warm: Path, cache: Path, has_libhdf5: bool) -> None:  # noqa: FBT001
    """Read one file after the other, within limits."""
    os.environ["LAZYNWB_CACHE_DIR"] = str(cache)
    os.environ["LAZYNWB_DISABLE_PROGRESS"] = "1"
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what libraries say when they crash
    import lazynwb

    lazynwb.config.disable_cache = True
    lazynwb.config.disable_progress = True
    logging.getLogger("lazynwb").propagate = False
    blocked = None if has_libhdf5 else _NoLibhdf5(warm)
    look(warm, ())
    limited = Path("/proc/self/clear_refs").exists()
    if limited:
        most = process_status("VmSize") + MAX_BYTES + _RESERVED
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection.send("ready")
    while True:
        path, tables = connection.recv()
        if blocked is not None:
            blocked.path = path
        gc.collect()
        before = 0
        if limited:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            before = process_status("VmRSS")
        start = time.perf_counter()
        seen = look(path, tables)
        seen.seconds = time.perf_counter() - start
        seen.peak = process_status("VmHWM") - before if limited else 0
        connection.send(seen)


def _serve_oracle(connection: Connection, name: str) -> None:
    """Return results of the independent reader for parts of files."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    expected = module(name).expected
    connection.send("ready")
    while True:
        path, key = connection.recv()
        try:
            answer = ("value", brief(expected(path, key)))
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is no value
            answer = ("error", f"{type(error).__name__}: {str(error)[:200]}")
        connection.send(answer)


class EndedError(Exception):
    """A process crashed, or was stopped because it took too long."""


class Server:
    """A process that answers requests; it is restarted after a crash."""

    def __init__(self, serve: Any, *arguments: Any) -> None:
        self._serve, self._arguments = serve, arguments
        self._process: Any = None
        self._connection: Any = None

    def ask(self, question: Any, seconds: float) -> Any:
        """Return the answer; EndedError says how the process ended instead."""
        if self._process is None:
            self._start()
        self._connection.send(question)
        if not self._connection.poll(seconds):
            self.stop()
            message = f"hang: no answer within {seconds} s"
            raise EndedError(message)
        try:
            return self._connection.recv()
        except (EOFError, ConnectionError):
            process = self._process
            process.join()
            self.stop()
            code = process.exitcode
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            message = f"crash: {how}"
            raise EndedError(message) from None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=self._serve, args=(other, *self._arguments), daemon=True)
        self._process.start()
        other.close()
        if not self._connection.poll(120) or self._connection.recv() != "ready":
            message = "a process does not start"
            raise RuntimeError(message)

    def stop(self) -> None:
        """End the process immediately."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
            self._process = None


# --- classification of results -------------------------------------------------------------------------


@dataclass
class Case:
    """A damaged copy, and its result."""

    number: int
    victim: str
    kind: str
    outcome: str  # right, error, changed, unverified or FAULT
    faults: list[str] = field(default_factory=list)
    unverified: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0
    peak: int = 0
    values: int = 0  # columns, attributes, slices and objects that were read
    undamaged: int = 0  # those of the file before


class Bench:
    """Undamaged files of a format, and the processes in which one thread reads damaged copies."""

    def __init__(  # noqa: PLR0913, PLR0917 - what is run, and how
        self,
        name: str,
        seed: int,
        folder: Path,
        victims: list[Path],
        keep: Path | None,
        has_libhdf5: bool = True,  # noqa: FBT001, FBT002
    ) -> None:
        self.name, self.seed, self.folder, self.victims, self.keep = name, seed, folder, victims, keep
        self._format = module(name)
        cache = folder / "cache"
        cache.mkdir(parents=True, exist_ok=True)
        self.reader = Server(_serve_reader, victims[0], cache, has_libhdf5)
        self._oracle = Server(_serve_oracle, name)
        self._known: dict[Path, Seen] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.stop()
        self._oracle.stop()

    def undamaged(self, victim: Path) -> Seen:
        """Return the results for an undamaged file, which other tests verify."""
        if victim not in self._known:
            self._known[victim] = self.reader.ask((victim, ()), 60)
            assert not self._known[victim].faults, (victim, self._known[victim].faults)
        return self._known[victim]

    def run(self, number: int) -> Case:
        """Damage a file, read it, and classify the result."""
        rng = random.Random(f"{self.name} {self.seed} {number}")
        victim = rng.choice(self.victims)
        copies = self.folder / f"case_{number}"
        copies.mkdir(parents=True)
        copy = copies / f"damaged_{number}{victim.suffix}"
        try:
            kind = self._format.damage(victim, copy, rng)
            case = Case(number, victim.parent.name, kind, "right")
            self._judge(case, victim, copy)
            if case.faults and self.keep is not None:
                shutil.copytree(
                    copies,
                    self.keep / self.name / str(number),
                    symlinks=True,
                    dirs_exist_ok=True,
                    ignore=lambda folder, names: [n for n in names if (Path(folder) / n).is_fifo()],
                )
            return case
        finally:
            shutil.rmtree(copies)

    def _judge(self, case: Case, victim: Path, copy: Path) -> None:
        before = self.undamaged(victim)
        tables = sorted({key[1] for key in before.values if key[0] == "column"})
        try:
            seen = self._ask_twice((copy, tables))
        except EndedError as error:
            case.outcome, case.faults = "FAULT", [str(error)]
            return
        case.seconds, case.peak, case.errors = seen.seconds, seen.peak, seen.errors
        case.values, case.undamaged = len(seen.values), len(before.values)
        if seen.peak > MAX_BYTES:
            case.faults.append(f"memory: {seen.peak >> 20} MiB")
        case.faults += seen.faults
        changed = self.compare(case, victim, copy, before, seen)
        if case.faults:
            case.outcome = "FAULT"
        elif case.unverified:
            case.outcome = "unverified"
        elif seen.errors:
            case.outcome = "error"
        elif changed:
            case.outcome = "changed"

    def _ask_twice(self, question: Any) -> Seen:
        try:
            return self.reader.ask(question, SECONDS)
        except EndedError as error:
            if not str(error).startswith("hang"):
                raise
        return self.reader.ask(question, SECONDS)  # the machine may have been busy: not twice

    def compare(  # noqa: C901 - each thing that may be right although it differs
        self, case: Case, victim: Path, copy: Path, before: Seen, seen: Seen
    ) -> bool:
        """Return whether values differ; record those that the independent reader does not confirm."""
        different = [key for key, text in seen.values.items() if before.values.get(key) != text]
        usual = {text.replace(str(victim), str(copy)) for text in before.said}
        if not seen.errors and usual.issuperset(seen.said):
            # What has gone without a word.
            different += [key for key in before.values if key not in seen.values]
        for key in itertools.islice(different, _MAX_ASKED):
            ours = seen.values.get(key, repr(ABSENT))
            if "<unreadable" in ours or any("\N{REPLACEMENT CHARACTER}" in part for part in key):
                continue  # said to be so, or a name that nobody can ask for
            if key[0] == "slice" and ours == "[]":
                continue  # past the end of what is there: nothing was read
            try:
                kind, theirs = self._oracle.ask((copy, key), SECONDS)
            except EndedError as error:
                case.unverified.append(f"{key}: the independent reader: {error}")
                continue
            if (kind, theirs) == ("value", ours):
                continue
            undamaged = self._oracle.ask((victim, key), SECONDS)
            if undamaged != ("value", before.values.get(key, repr(ABSENT))):
                case.unverified.append(
                    f"{key}: the independent reader gives {undamaged} of the undamaged file"
                )
                continue
            if kind == "error" and ("address undefined" in theirs or "AmbiguousError" in theirs):
                continue  # a reference to nothing is null here, and an error there
            if key[0] == "object" and key in seen.values and kind == "error":
                continue  # listed, and broken
            if key[0] == "attribute" and "None" in ours and kind == "error" and "by token" in theirs:
                continue  # so is one to an object that is lost
            if kind == "error" and any(phrase in theirs for phrase in _AT_A_LOSS):
                case.unverified.append(f"{key}: the independent reader finds no name: {theirs}")
                continue
            if _is_said(key, seen.said):
                continue  # not what it was, and the log says why
            verb = "silently absent" if key not in seen.values else "wrong"
            case.faults.append(
                f"{verb}: {key}: {ours}, the independent reader has {kind} {theirs}, "
                f"undamaged {before.values.get(key)}"
            )
        return bool(different)


def _is_said(key: Key, said: list[str]) -> bool:
    """Return whether the log reports an omitted column or a part of one."""
    if key[0] != "column":
        return False
    own = [text for text in said if key[1].strip("/") in text or "have no target" in text]
    lost = ("have no target", "is not UTF-8", repr(key[2]), repr(f"{key[2]}_index"))
    lost += (repr(key[2].removesuffix("_index")),)
    return any(phrase in text for text in own for phrase in lost)


# --- runs ----------------------------------------------------------------------------------------------


def run(  # noqa: PLR0913 - what is run, and how
    name: str,
    seed: int,
    numbers: Iterable[int],
    *,
    jobs: int = 1,
    keep: Path | None = None,
    tell: Any = None,
    has_libhdf5: bool = True,
) -> list[Case]:
    """Run cases of a format; `tell` is called with each. Without libhdf5, what needs it is an error."""
    with tempfile.TemporaryDirectory(prefix="damage_") as temporary:
        folder = Path(temporary)
        victims = module(name).build(folder / "undamaged")
        assert len({victim.parent.name for victim in victims}) == len(victims)
        lock = threading.Lock()
        waiting = iter(numbers)
        done: list[Case] = []

        def work(job: int) -> None:
            with Bench(name, seed, folder / f"job_{job}", victims, keep, has_libhdf5) as bench:
                while True:
                    with lock:
                        number = next(waiting, None)
                    if number is None:
                        return
                    case = bench.run(number)
                    with lock:
                        done.append(case)
                        if tell is not None:
                            tell(case)

        with ThreadPoolExecutor(jobs) as pool:
            for future in [pool.submit(work, job) for job in range(jobs)]:
                future.result()
    return sorted(done, key=lambda case: case.number)


OUTCOMES = ("right", "error", "changed", "unverified", "FAULT")


def summary(name: str, seed: int, cases: list[Case]) -> str:
    """A table of outcomes by kind of damage and by file, and every fault with its reproducer."""
    lines = [f"{name}: {len(cases)} cases, seed {seed}"]
    for title, attribute in (("damage", "kind"), ("file", "victim")):
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for case in cases:
            counts[getattr(case, attribute)][case.outcome] += 1
            counts["all"][case.outcome] += 1
        lines += ["", f"{title:34}" + "".join(f"{outcome:>11}" for outcome in OUTCOMES)]
        for what in [*sorted(counts.keys() - {"all"}), "all"]:
            lines.append(f"{what[:33]:34}" + "".join(f"{counts[what][outcome]:11}" for outcome in OUTCOMES))
    slowest = max(cases, key=lambda case: case.seconds)
    largest = max(cases, key=lambda case: case.peak)
    whole = sum(not case.errors and not case.faults for case in cases)
    values, undamaged = sum(case.values for case in cases), sum(case.undamaged for case in cases)
    lines += ["", f"without an error: {whole} files; {values:,} values, {undamaged:,} before the damage"]
    lines += ["", f"longest: {slowest.seconds:.1f} s (case {slowest.number})"]
    lines += [f"most memory above the baseline: {largest.peak / 2**20:.0f} MiB (case {largest.number})"]
    for case in cases:
        for fault in case.faults[:3]:
            lines.append(f"FAULT case {case.number} ({case.victim}, {case.kind}): {fault[:500]}")
    faults = sum(case.outcome == "FAULT" for case in cases)
    if faults:
        lines.append(
            f"again: python tests/damage.py --format {name} --seed {seed} --case NUMBER --keep FOLDER"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--case", type=int, nargs="+", help="only these cases, with all that they said")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", choices=FORMATS, help="by default each in turn")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="where to keep the files of faults")
    parser.add_argument("--without-libhdf5", action="store_true", help="count what is read without it")
    given = parser.parse_args()
    numbers = given.case or range(given.first, given.first + given.cases)
    faults = 0
    for name in [given.format] if given.format else FORMATS:
        start, ends = time.monotonic(), Counter[str]()

        def tell(case: Case, ends: Counter[str] = ends, start: float = start) -> None:
            ends[case.outcome] += 1
            if case.faults:
                sys.stderr.write(f"case {case.number} {case.victim} {case.kind}: {case.faults[0][:300]}\n")
            if sum(ends.values()) % 250 == 0:
                sys.stderr.write(
                    f"{sum(ends.values())} cases, {time.monotonic() - start:.0f} s: {dict(ends)}\n"
                )

        has = not given.without_libhdf5
        cases = run(name, given.seed, numbers, jobs=given.jobs, keep=given.keep, tell=tell, has_libhdf5=has)
        faults += sum(case.outcome == "FAULT" for case in cases)
        if given.case:
            for case in cases:
                sys.stdout.write(f"{case}\n")
        sys.stdout.write(f"{summary(name, given.seed, cases)}\n")
        sys.stdout.write(f"{time.monotonic() - start:.0f} s with {given.jobs} jobs\n")
    return min(faults, 1)


if __name__ == "__main__":
    raise SystemExit(main())
