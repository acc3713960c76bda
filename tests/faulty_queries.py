"""Random queries through `faulty_proxy.py`: results equal those of local files, or a LazyNWBError is raised.

A query is drawn, answered from local files, then through the proxy without faults (which counts its
requests), then with faults, and once more without, on whatever caches the faults have left behind. The same
seed draws the same queries and faults; threads decide which request meets which.
"""

import argparse
import logging
import os
import random
import shutil
import sys
import time
import traceback
import zipfile
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import h5py
import numpy as np
import polars as pl

import lazynwb
from builders import GZIP, Column, Ragged, nwb_root, series, table, write_cube
from checks import same
from faulty_proxy import FAULTS, PASSING, FaultyProxy, by_chance, since
from lazynwb.column_store.store import forget_entries
from lazynwb.errors import LazyNWBError, SourceChangedError
from lazynwb.lookup import catalog_cache
from lazynwb.storage import error_mapping, range_request, remote_state, retry, store_request
from lazynwb.storage.objects import remote_prefix as remote_objects
from range_server import RangeServer
from stores import moto
from zarr_twins.make import ARCHIVE, unpack

config = lazynwb.config
SECRETS = ("s3cret-token", "s3cret-header", "s3cret-signature")
#: Sessions of the twins: what makes a structure, and what takes reads beside the data.
TWINS = ("session", "described", "enumerated", "lfp", "regions", "compressed_table", "linked_series")
#: Sessions that are queried together, and the queries that find them by a listing.
CUBE = ("session_00.nwb", "session_01.nwb", "session_02.nwb")
_LISTED = {"scan", "metadata", "schema"}
OLD, NEW = 1_600_000_000, 1_600_000_100
#: Requests that one attempt may take: with the file whole, and with a look at what a busy server asks for.
_PER_ATTEMPT = 3
#: Rounds are few, and each is tried as often as the settings say, for as long as they say.
_MAX_SECONDS = 30
#: Seconds for which a server may be silent: one that fails, and one that may only be slow.
_IMPATIENT, _PATIENT = 0.4, 10


# --- files --------------------------------------------------------------------------------------------


def write_checked(path):
    """Every chunk has a checksum."""
    rng = np.random.default_rng(7)
    checked = {"chunks": (50,), "fletcher32": True, "maxshape": (None,)}
    with h5py.File(path, "w") as file:
        nwb_root(file, "checked", ["a", "b"])
        columns = {
            "a": Column(rng.normal(size=400), checked),
            "b": Column(rng.integers(0, 9, 400), {**checked, **GZIP}),
            "times": Ragged([np.sort(rng.uniform(size=n)) for n in rng.integers(0, 9, 400)], options=checked),
        }
        table(file, "units", columns, kind="Units")
        series(file, "acquisition/s", rng.normal(size=500), start=0.0, chunks=(100,), fletcher32=True)


def checksummed(path, only=None):
    """The byte ranges of checksummed chunks of an HDF5 file or dataset, or of members of a zip file."""
    found = []
    if path.suffix == ".zip":
        data = path.read_bytes()
        for member in zipfile.ZipFile(path).infolist():
            start = member.header_offset
            start += 30 + sum(int.from_bytes(data[start + at : start + at + 2], "little") for at in (26, 28))
            found.append((start, start + member.compress_size))
        return [(low, high) for low, high in found if high > low]

    def look(name, item):
        if isinstance(item, h5py.Dataset) and item.fletcher32 and only in {None, name}:
            for number in range(item.id.get_num_chunks()):
                info = item.id.get_chunk_info(number)
                found.append((info.byte_offset, info.byte_offset + info.size))

    with h5py.File(path) as file:
        file.visititems(look)
    return found


def write_newer(old, new):
    """Write the file with other values in its uncompressed numbers, at the same size."""
    shutil.copyfile(old, new)

    def change(_, item):
        if isinstance(item, h5py.Dataset) and item.dtype.kind == "f" and item.shape and not item.chunks:
            item[...] = item[...] + 1

    with h5py.File(new, "r+") as file:
        file.visititems(change)
    assert new.stat().st_size == old.stat().st_size
    assert new.read_bytes() != old.read_bytes()


def write_files(folder):
    """Sessions in HDF5, of which one has links to another; twins in Zarr; and newer ones, in `new`."""
    write_cube(folder, 3)
    write_checked(folder / "checked.nwb")
    with h5py.File(folder / "linked.nwb", "w") as file:
        nwb_root(file, "linked", ["a"])
        table(file, "units", {"own": np.arange(40.0)}, rows=40, colnames=["own", "presence_ratio"])
        file["units/presence_ratio"] = h5py.ExternalLink("session_00.nwb", "/units/presence_ratio")
    unpack(ARCHIVE, folder, [f"{name}." for name in TWINS])
    store = folder / "session.v3.nwb.zarr"
    with zipfile.ZipFile(folder / "zipped.nwb.zarr.zip", "w") as archive:
        for path in sorted(filter(Path.is_file, store.rglob("*"))):
            archive.write(path, path.relative_to(store))
    (folder / "new").mkdir()
    for number in range(3):
        write_newer(folder / f"session_0{number}.nwb", folder / "new" / f"session_0{number}.nwb")
    for path in filter(Path.is_file, folder.rglob("*")):
        moment = NEW if path.parent.name == "new" else OLD
        os.utime(path, (moment, moment))
    return folder


# --- queries ------------------------------------------------------------------------------------------


@dataclass
class Query:
    """A query on some sources; `ask` returns plain values for their paths or URLs."""

    name: str
    sources: list[str]
    ask: object
    words: str


def plain(value):
    """Comparable values, without their source."""
    if isinstance(value, pl.DataFrame):
        frame = value.drop("_nwb_path", strict=False)
        return {"schema": str(frame.schema), "rows": frame.to_dict(as_series=False)}
    if isinstance(value, np.ndarray):
        return {"dtype": str(value.dtype), "values": value.tolist()}
    return value


def _predicate(dice, frame):
    """A predicate on one or two columns that a part of the rows passes."""
    usable = [
        name
        for name, dtype in frame.schema.items()
        if frame.height and name != "_nwb_path" and (dtype.is_numeric() or dtype in {pl.String, pl.Boolean})
    ]
    found = pl.lit(value=True)
    for name in dice.sample(usable, min(len(usable), dice.choice([1, 1, 2]))):
        value = frame[name][dice.randrange(frame.height)]
        one = pl.col(name).is_null() if value is None else pl.col(name)
        if value is not None:
            one = one == value if isinstance(value, bool | str) else dice.choice([one >= value, one < value])
        found &= one
    return found


def _scan(dice, paths, tables):
    where = dice.choice(tables)
    frame = lazynwb.read_nwb(paths, where)
    predicate = _predicate(dice, frame) if dice.random() < 0.7 else None
    names = dice.sample(frame.columns, dice.randint(1, len(frame.columns)))
    limit = dice.choice([None, None, 1, 7])
    engine = dice.choice(["in-memory", "streaming"])

    def ask(sources, options):
        lf = lazynwb.scan_nwb(sources, where, storage_options=options)
        lf = lf if predicate is None else lf.filter(predicate)
        lf = lf.select(names)
        return plain((lf if limit is None else lf.head(limit)).collect(engine=engine))

    return ask, f"{where}: {names} where {predicate}, {limit}"


def _late(dice, paths, tables):
    where = dice.choice([t for t in ("/units", "/intervals/trials") if t in tables] or tables[:1])
    frame = lazynwb.read_nwb(paths, where)
    predicate = _predicate(dice, frame)
    late = dice.choice([name for name in frame.columns if not name.startswith("_")])

    def ask(sources, options, later=None):
        """Run two queries; `later` contains the paths for the second one."""
        lf = lazynwb.scan_nwb(sources, where, storage_options=options)
        rows = lf.filter(predicate).select("_nwb_path", "_table_path", "_table_index").collect()
        if later is not None:
            moved = dict(zip(sources, later, strict=True))
            rows = rows.with_columns(pl.col("_nwb_path").replace(moved))
        return plain(lazynwb.merge_array_column(rows, late, storage_options=options))

    return ask, f"{where}: {late} late, where {predicate}"


def _slice(dice, paths, _tables):
    found = lazynwb.get_timeseries(paths[0], match_all=True)
    name = dice.choice(sorted(found))
    length = len(found[name])
    start = dice.randrange(length or 1)
    stop = dice.randint(start, length)

    def ask(sources, options):
        one = lazynwb.get_timeseries(sources[0], name, exact_path=True, storage_options=options)
        return [plain(np.asarray(one.data[start:stop])), plain(np.asarray(one.timestamps[start:stop]))]

    return ask, f"{name}[{start}:{stop}]"


def _paths(_dice, _paths_, _tables):
    def ask(sources, options):
        found = lazynwb.get_internal_path_info(sources[0], storage_options=options)
        return {path: repr(info) for path, info in found.items()}

    return ask, "paths"


def _metadata(_dice, _paths_, _tables):
    def ask(sources, options):
        frame = lazynwb.get_metadata_df(sources, as_polars=True, storage_options=options)
        return plain(frame)

    return ask, "metadata"


def _attributes(dice, _paths_, tables):
    where = dice.choice([*tables, "/"])

    def ask(sources, options):
        return repr(lazynwb.get_sub_attrs(sources[0], where, storage_options=options))

    return ask, f"attributes of {where}"


def _schema(dice, _paths_, tables):
    where = dice.choice(tables)

    def ask(sources, options):
        return str(lazynwb.get_table_schema(sources, where, storage_options=options))

    return ask, f"schema of {where}"


KINDS = {
    "scan": (_scan, 8),
    "late column": (_late, 3),
    "slice": (_slice, 3),
    "paths": (_paths, 1),
    "metadata": (_metadata, 1),
    "attributes": (_attributes, 1),
    "schema": (_schema, 1),
}

_tables: dict[str, list[str]] = {}


def tables_of(path):
    if path not in _tables:
        _tables[path] = [
            where
            for where in sorted(lazynwb.get_internal_paths(path))
            if where.rpartition("/")[2] not in {"data", "timestamps"}
        ] or ["/general"]
    return _tables[path]


def draw(dice, folder, names):
    """A query on one file, or on several of the cube."""
    name = dice.choice(names)
    cube = [n for n in names if n.startswith("session_")]
    chosen = dice.sample(cube, dice.randint(1, len(cube))) if name in cube else [name]
    local = [str(folder / n) for n in chosen]
    kinds = [k for k in KINDS if k != "slice" or lazynwb.get_timeseries(local[0], match_all=True)]
    kind = dice.choices(kinds, [KINDS[k][1] for k in kinds])[0]
    try:
        ask, words = KINDS[kind][0](dice, local, tables_of(local[0]))
    except lazynwb.UnsupportedTypeError:
        return None
    return Query(kind, chosen, ask, words)


# --- runs of queries ----------------------------------------------------------------------------------


@dataclass
class Outcome:
    """Result of a run."""

    queries: int = 0
    answers: int = 0
    errors: Counter = field(default_factory=Counter)
    met: Counter = field(default_factory=Counter)
    requests: int = 0
    retries: int = 0
    stored: int = 0  # queries that met faults and took values from the column store
    validated: int = 0  # of these, queries that made requests all the same
    slowest: float = 0.0
    most_requests: float = 0.0  # in parts of the bound
    wrong: list[str] = field(default_factory=list)

    def __str__(self):
        failed, met = sum(self.errors.values()), sum(self.met.values())
        lines = [
            f"{self.queries} queries: {self.answers} answered, {failed} failed, {len(self.wrong)} wrong",
            f"{self.requests} requests, {self.retries} repeated; {met} met a fault",
            f"{self.stored} took values from the column store, {self.validated} of them after requests",
            f"the slowest took {self.slowest:.1f} s; {self.most_requests:.0%} of the requests that may be",
            f"errors: {', '.join(f'{name} {n}' for name, n in self.errors.most_common())}",
            f"faults: {', '.join(f'{name} {n}' for name, n in sorted(self.met.items()))}",
            *self.wrong,
        ]
        return "\n".join(lines)


class _Log(logging.Handler):
    """Messages of all log records."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.texts = []

    def emit(self, record):
        self.texts.append(self.format(record))


@contextmanager
def impatient(folder):
    """Short pauses and timeouts, a cache of its own."""
    saved = {one.name: getattr(config, one.name) for one in fields(config)}
    patches = {
        error_mapping: {"PAUSE_SECONDS": 0.002, "BUSY_PAUSE_SECONDS": 0.004},
        retry: {"_MAX_PAUSE": 0.02},
    }
    with ExitStack() as stack:
        for module, values in patches.items():
            stack.enter_context(patch.multiple(module, **values))
        config.max_retries, config.request_timeout, config.retry_seconds = 3, _PATIENT, 10
        config.cache_dir, config.disable_progress = Path(folder), True
        try:
            yield
        finally:
            for name, value in saved.items():
                setattr(config, name, value)
            lazynwb.clear_cache()


class Run:
    """Queries through one proxy.

    Parameters
    ----------
    folder : Path
        Of the files.
    proxy : FaultyProxy
    url_of : callable
        Of the name of a file to its URL.
    options : dict
        Storage options.
    names : list of str
        Of the files that may be asked.
    outcome : Outcome
    """

    def __init__(self, folder, proxy, url_of, options, names, outcome):  # noqa: PLR0913, PLR0917
        self.folder, self.proxy, self.url_of, self.options = folder, proxy, url_of, options
        self.names, self.outcome = names, outcome
        self.attempts = 0
        self.origin = None
        self.pattern = None

    def one(self, seed):  # noqa: PLR0915 - one step after the other
        """Draw a query and faults, run them, and record the result."""
        dice = random.Random(seed)  # noqa: S311 - nothing is kept secret
        config.recheck_seconds, config.request_timeout = 60, _PATIENT
        config.revalidate_seconds = dice.choice([0, 0, 60])
        query = draw(dice, self.folder, self.names)
        if query is None:
            return False
        is_listed = self.pattern is not None and query.name in _LISTED and set(query.sources) == set(CUBE)
        if is_listed:
            query.sources.sort()
        local = [str(self.folder / name) for name in query.sources]
        expected = [query.ask(local, None)]
        urls = [self.pattern] if is_listed else [self.url_of(name, dice) for name in query.sources]
        if self.origin is not None:
            self.origin.etag = dice.choice(["strong", "strong", "weak", None])
        self.proxy.newer = {}
        self.proxy.reset()
        lazynwb.clear_cache()
        clean, spent = self._count(lambda: query.ask(urls, self.options))
        self._check(seed, query, "without faults", clean, expected)
        if (state := dice.choice(["cold", "cold", "forgotten", "warm"])) != "warm":
            (lazynwb.clear_cache if state == "cold" else forget)()
        config.recheck_seconds, config.request_timeout = dice.choice([0, 60]), _IMPATIENT
        words, choose = self._schedule(dice, query, expected, spent.requests)
        before = f"{words}, {state}"
        self.proxy.reset(choose)
        begin = time.monotonic()
        result, spent_now = self._count(lambda: self._asked(query, urls))
        took = time.monotonic() - begin
        self._check(seed, query, before, result, expected)
        attempts = self.attempts + is_listed  # a listing is repeated by itself
        # A fault may cost a file's window, of which the files are then read one by one: no more than that.
        bound = (
            _PER_ATTEMPT
            * (1 + config.max_retries)
            * min(attempts, spent.attempts * (2 + len(query.sources)) + 16)
        )
        self.outcome.slowest = max(self.outcome.slowest, took)
        self.outcome.most_requests = max(self.outcome.most_requests, self.proxy.count / max(bound, 1))
        most = attempts * config.max_retries
        if self.proxy.count > bound or took > _MAX_SECONDS or spent_now.retries > most:
            self._wrong(seed, query, before, f"{self.proxy.count} requests, of at most {bound}; {took:.1f} s")
        self.outcome.queries += 1
        self.outcome.requests += self.proxy.count
        self.outcome.retries += spent_now.retries
        self.outcome.met += self.proxy.met
        self.outcome.stored += spent_now.bytes_stored > 0
        self.outcome.validated += spent_now.bytes_stored > 0 and self.proxy.count > 0
        if isinstance(result, LazyNWBError):
            self.outcome.errors[type(result).__name__] += 1
        else:
            self.outcome.answers += 1
        # What is left behind does no harm: the file that is there now is read as it is.
        self.proxy.choose = lambda _: None
        config.request_timeout = _PATIENT
        after = self._asked(query, urls)
        if isinstance(after, SourceChangedError) and "replaced" in words:
            after = self._asked(query, urls)  # it was believed to be the old one
        if isinstance(after, LazyNWBError):
            self._wrong(seed, query, f"after {before}", f"{type(after).__name__}: {after}")
        else:
            self._check(seed, query, f"after {before}", after, expected)
        return True

    def _count(self, ask):
        self.attempts = 0

        def counted(*args):
            self.attempts += 1
            return original(*args)

        original = store_request.with_retry
        with (
            patch.object(range_request, "with_retry", counted),
            patch.object(remote_objects, "with_retry", counted),
            lazynwb.profile() as profile,
        ):
            result = ask()
        profile.attempts = self.attempts
        return result, profile

    def _asked(self, query, urls):
        try:
            return query.ask(urls, self.options)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is looked at
            return error

    def _schedule(self, dice, query, expected, requests):
        """Return the description of a schedule of faults, and the function that selects them."""
        if dice.random() < 0.12 and all(name.startswith("session_") for name in query.sources):
            name = dice.choice(query.sources)
            key = self._key(name)
            self.proxy.newer = {key: self._key(f"new/{name}")}
            local = [str(self.folder / ("new" if n == name else "") / n) for n in query.sources]
            expected.append(query.ask(local, None))
            if query.name == "late column":  # a file may be replaced between its two queries
                before = [str(self.folder / n) for n in query.sources]
                with suppress(LazyNWBError):  # there may be fewer rows than there were
                    expected.append(query.ask(before, None, local))
            at = dice.randint(1, requests + 1)
            once = since(at, "replaced", at + 1)
            return f"{name} replaced at request {at}", once
        names = sorted(FAULTS.keys() - {"replaced"})
        name = dice.choice(names)
        kind = dice.choice(["once", "twice", "always", "a storm", "a storm of one", "a storm that passes"])
        at = dice.randint(1, requests + 1)
        if kind == "once":
            return f"{name} at request {at}", since(at, name, at + 1)
        if kind == "twice":
            return f"{name} at requests {at} and {at + 1}", since(at, name, at + 2)
        if kind == "always":
            return f"{name} from request {at} on", since(at, name)
        share = dice.choice([0.02, 0.1, 0.4])
        chosen = {"a storm": names, "a storm of one": [name], "a storm that passes": sorted(PASSING)}[kind]
        own = random.Random(dice.random())  # noqa: S311 - the same
        return f"{kind} ({share}, {name})", by_chance(own, share, chosen)

    def _key(self, name):
        return f"private/{name}" if self.proxy.dialect == "s3" else name

    def _check(self, seed, query, when, result, expected):
        if not isinstance(result, Exception):
            if not any(same(result, one) for one in expected):
                self._wrong(seed, query, when, f"{str(result)[:400]} where {str(expected[0])[:400]}")
            return
        told = "".join(traceback.format_exception(result)) + repr(result)
        bases = [url.partition("?")[0] for url in map(self.url_of, query.sources)]
        bases += [self.url_of("session_00.nwb"), *filter(None, [self.pattern])]
        if not isinstance(result, LazyNWBError):
            self._wrong(seed, query, when, told)
        elif not any(base in str(result) for base in bases):
            self._wrong(seed, query, when, f"no file is named: {result}")
        for secret in SECRETS:
            if secret in told:
                self._wrong(seed, query, when, f"a secret in: {told}")

    def _wrong(self, seed, query, when, what):
        met = dict(self.proxy.met)
        self.outcome.wrong.append(
            f"WRONG seed {seed!r}, {query.sources}, {query.name} {query.words}; {when}; met {met}: {what}"
        )


def forget():
    """Clear the caches in memory, as in a new process."""
    remote_state.save()
    catalog_cache.clear_memory()
    forget_entries()
    remote_state.forget()


@contextmanager
def over_http(folder, outcome, seed):
    names = sorted(p.name for p in folder.iterdir() if p.name != "new")
    headers = {"Authorization": f"Bearer {SECRETS[1]}"}

    with RangeServer(folder, keep_log=False) as server, FaultyProxy(server.url, seed=seed) as proxy:
        proxy.checksummed = {n: checksummed(folder / n) for n in ("checked.nwb", "zipped.nwb.zarr.zip")}

        def url_of(name, dice=None):
            # What is relative to a URL with a query is nowhere, so that links would not be followed.
            signed = dice is not None and name != "linked.nwb" and dice.random() < 0.5
            query = f"?token={SECRETS[0]}&X-Amz-Signature={SECRETS[2]}"
            return proxy.url_of(name) + (query if signed else "")

        run = Run(folder, proxy, url_of, {"headers": headers}, names, outcome)
        run.origin = server
        yield run


@contextmanager
def over_s3(folder, outcome, seed):
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with moto() as cloud, FaultyProxy(cloud.url, "s3", seed=seed) as proxy:
        names = ["checked.nwb", "linked.nwb", "zipped.nwb.zarr.zip"]
        names += [f"session_0{n}.nwb" for n in range(3)] + [f"described.{v}.nwb.zarr" for v in ("v2", "v3")]
        for name in [*names, *(f"new/session_0{n}.nwb" for n in range(3))]:
            whole = folder / name
            for path in [whole] if whole.is_file() else filter(Path.is_file, whole.rglob("*")):
                cloud.put(f"private/{path.relative_to(folder).as_posix()}", path.read_bytes())
        proxy.checksummed = {f"private/{name}": checksummed(folder / name) for name in (names[0], names[2])}
        options = {**cloud.options, "endpoint": proxy.url, "session_token": SECRETS[0]}
        run = Run(folder, proxy, lambda name, _=None: f"s3://private/{name}", options, names, outcome)
        run.pattern = "s3://private/session_*.nwb"
        yield run


def run(folder, queries, seed, *, s3_share=0.25, told=lambda _: None):
    """Run a number of queries and return their outcome; without moto, none uses S3."""
    outcome = Outcome()
    files_, cache = folder / "files", folder / "cache"
    if not files_.exists():
        files_.mkdir()
        write_files(files_)
    log = _Log()
    logger = logging.getLogger()
    level = logger.level
    with ExitStack() as stack:
        stack.enter_context(impatient(cache))
        ways = [(stack.enter_context(over_http(files_, outcome, seed)), 1 - s3_share)]
        try:
            ways.append((stack.enter_context(over_s3(files_, outcome, seed)), s3_share))
        except ImportError:
            told("moto is not installed: no query is to S3")
        logger.addHandler(log)
        logger.setLevel(logging.DEBUG)
        number = 0
        try:
            while outcome.queries < queries:
                number += 1
                name = f"{seed}/{number}"
                own = random.Random(name)  # noqa: S311 - the same
                way = own.choices(*map(list, zip(*ways, strict=True)))[0]
                way.one(name)
                told(outcome)
                for path in filter(Path.is_file, cache.rglob("*")):
                    text = path.read_bytes().decode("latin-1")
                    if any(secret in text for secret in SECRETS):
                        outcome.wrong.append(f"WRONG seed {name!r}: a secret in the cache")
        finally:
            logger.removeHandler(log)
            logger.setLevel(level)
    for text in log.texts:
        if any(secret in text for secret in SECRETS):
            outcome.wrong.append(f"WRONG: a secret in the log: {text[:300]}")
    return outcome


def main():
    parser = argparse.ArgumentParser(description="Random queries against a store that fails at random.")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    known = [0]

    def tell(outcome):
        if isinstance(outcome, Outcome) and len(outcome.wrong) > known[0]:
            sys.stderr.write("\n".join(outcome.wrong[known[0] :]) + "\n")
            known[0] = len(outcome.wrong)

    with TemporaryDirectory() as folder:
        outcome = run(Path(folder), asked.queries, asked.seed, told=tell)
    sys.stdout.write(f"{outcome}\n")
    sys.exit(bool(outcome.wrong))
