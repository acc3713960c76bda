"""Failing stores: results equal those of local files or are errors, and the next query is correct.

`faulty_proxy.py` stands before real servers, `faulty_queries.py` draws queries and faults.
"""

import os
import re
import struct
import subprocess
import sys
import time
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import faulty_queries
import lazynwb
from builders import Column, nwb_root, table
from checks import assert_ends_at_ctrl_c, child_environment, count
from faulty_proxy import FAULTS, PASSING, FaultyProxy, always, first, since
from faulty_queries import checksummed, forget, impatient
from lazynwb.codecs.chunk_codecs import decode_into, unfilter
from lazynwb.errors import CorruptDataError, LazyNWBError
from lazynwb.storage import store_request
from range_server import Fault, RangeServer, refuse
from range_server import always as always_of_server
from stores import moto
from zarr_twins.make import ARCHIVE, unpack

config = lazynwb.config
SECRETS = ("s3cret-token", "s3cret-header")


@pytest.fixture(autouse=True)
def quick(cache_dir, request, monkeypatch):
    """Shorten pauses and timeouts."""
    monkeypatch.setattr(store_request, "QUERY_INTERVAL_SECONDS", 60)
    with impatient(cache_dir):
        config.request_timeout = 0.4 if "stall" in request.node.name else config.request_timeout
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A file whose chunks have checksums, and twins of sessions in Zarr."""
    made = tmp_path_factory.mktemp("stores")
    faulty_queries.write_checked(made / "checked.nwb")
    unpack(
        ARCHIVE,
        made,
        [f"{name}.nwb.zarr/" for name in ("enumerated.v2", "rated_series.v2", "lfp.v2", "session.v3")],
    )
    for path in filter(Path.is_file, made.rglob("*")):
        os.utime(path, (faulty_queries.OLD, faulty_queries.OLD))
    return made


@pytest.fixture
def server(folder):
    with RangeServer(folder) as running:
        yield running


@pytest.fixture
def proxy(server):
    with FaultyProxy(server.url) as running:
        yield running


def units(source, where="/units", **options):
    return lazynwb.read_nwb(source, where, **options).drop("_nwb_path")


def fails(source, kind=LazyNWBError, where="/units", **options):
    """The text of the error of a query, which names the file."""
    with pytest.raises(kind) as caught:
        lazynwb.read_nwb(source, where, **options)
    assert source.partition("?")[0] in str(caught.value)
    return str(caught.value)


# --- random queries and faults ------------------------------------------------------------------------


def check_run(outcome, queries):
    assert outcome.wrong == []
    assert outcome.queries == queries
    # It is a test of faults if they are met, survived and not survived.
    assert len(outcome.met) > min(15, queries // 6)
    assert outcome.retries > 0
    assert min(outcome.answers, sum(outcome.errors.values())) > queries / 20


@pytest.mark.long
def test_random_queries_against_random_faults_give_no_wrong_answer(tmp_path):
    queries = count(40, 120)
    check_run(faulty_queries.run(tmp_path, queries, "quick"), queries)


@pytest.mark.slow
def test_a_thousand_random_queries_with_faults(tmp_path):
    check_run(faulty_queries.run(tmp_path, 1000, "slow"), 1000)


# --- single faults ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["checked.nwb", "lfp.v2.nwb.zarr"])
@pytest.mark.parametrize("fault", sorted(FAULTS.keys() - {"replaced", "HEAD is forbidden"}))
@pytest.mark.sample(5)
def test_every_fault(fault, name, proxy, folder):
    """On the first request or on later ones: correct or an error; correct if the fault is transient."""
    proxy.checksummed = {"checked.nwb": checksummed(folder / "checked.nwb")}
    where = "/units" if name == "checked.nwb" else "/general/extracellular_ephys/electrodes"
    expected = units(folder / name, where)
    url = proxy.url_of(name)
    met = 0
    for number in (1, 3):
        lazynwb.clear_cache()
        proxy.reset(since(number, fault, number + 1))
        with lazynwb.profile() as p:
            try:
                assert_frame_equal(units(url, where), expected)
            except LazyNWBError as error:  # one of two outcomes
                is_told = fault in PASSING and not (name.endswith("zarr") and fault in _CONSISTENT)
                assert not is_told, error  # noqa: PT017
                assert url in str(error)  # noqa: PT017
        assert p.retries <= 1 or "stall" in fault
        met += sum(proxy.met.values())
        proxy.choose = lambda _: None
        assert_frame_equal(units(url, where), expected)
    assert met or fault in {"corrupted where a checksum tells"} | _OF_RANGES


#: What nothing contradicts, where an object is fetched whole, but what is in it.
_CONSISTENT = {"shorter", "an empty answer"}
#: What a store whose objects are fetched whole may not meet.
_OF_RANGES = {
    name
    for name in FAULTS
    if re.search("range|size|oversized|Content-Range|whole file|consistently|a circle", name)
}


@pytest.mark.parametrize("fault", sorted({"503", "reset in body", "403", "stall in headers", "truncated"}))
def test_a_permanent_fault_is_an_error_within_bounds(fault, proxy):
    proxy.reset(always(fault))
    with lazynwb.profile() as p:
        fails(proxy.url_of("checked.nwb"))
    tries = 1 if fault == "403" else 1 + config.max_retries
    assert p.retries == tries - 1
    questions = sum(asked.range == (0, 1) for asked in proxy.log)  # queries of Retry-After
    assert p.requests == proxy.count == tries + questions
    assert (questions > 0) == (fault == "503")


# --- caches after a fault -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("checked.nwb", "a page in its place"),
        ("checked.nwb", "a lie about the size"),
        ("session.v3.nwb.zarr", "a page in its place"),
    ],
)
def test_responses_that_are_not_the_file_are_not_cached(name, fault, proxy, folder):
    """Even if identities are cached for a minute."""
    config.recheck_seconds = 60
    url = proxy.url_of(name)
    for seed in range(4):
        proxy.dice.seed(seed)
        lazynwb.clear_cache()
        proxy.reset(always(fault))
        with pytest.raises(LazyNWBError):
            units(url)
        proxy.reset()
        assert_frame_equal(units(url), units(folder / name))


@pytest.mark.parametrize(
    ("query", "name"), [("scan", "units/b"), ("late", "units/b"), ("slice", "acquisition/s/data")]
)
def test_bytes_with_a_wrong_checksum_are_not_cached(query, name, proxy, folder):
    proxy.checksummed = {"checked.nwb": checksummed(folder / "checked.nwb", name)}
    url, local = proxy.url_of("checked.nwb"), folder / "checked.nwb"
    rows = lazynwb.scan_nwb(url, "/units").select("_nwb_path", "_table_path", "_table_index").collect()

    def ask(source):
        if query == "scan":
            return lazynwb.scan_nwb(source, "/units").filter(pl.col("a") > 0).select("a", "b").collect()
        if query == "late":
            frame = rows.with_columns(_nwb_path=pl.lit(str(source)))
            return lazynwb.merge_array_column(frame, "b")["b"].to_frame()
        found = lazynwb.get_timeseries(source, "acquisition/s")
        return pl.DataFrame({"s": np.asarray(found.data[10:450])})

    expected = ask(local)
    for forgotten in (False, True):
        lazynwb.clear_cache()
        proxy.reset(always("corrupted where a checksum tells"))
        with pytest.raises(CorruptDataError, match="checksum"):
            ask(url)
        assert proxy.met
        proxy.reset()
        if forgotten:
            forget()
        assert_frame_equal(ask(url), expected)


def test_one_damaged_file_does_not_repeat_reads_of_others(folder, server, tmp_path):
    """Only cached data of the inconsistent file is discarded."""
    data = bytearray((folder / "checked.nwb").read_bytes())
    server.objects = {f"{number}.nwb": bytes(data) for number in range(3)}
    low, _ = checksummed(folder / "checked.nwb", "units/a")[0]
    data[low + 5] ^= 1
    server.objects["1.nwb"] = bytes(data)
    for name, content in server.objects.items():
        server.versions[name] = (content, server.find(name).etag, faulty_queries.OLD)
    urls = [server.url_of(name) for name in sorted(server.objects)]
    lf = lazynwb.scan_nwb(urls, "/units", ignore_errors=True).select("a", "b", "times")
    assert lf.collect().height == 1200
    server.reset()
    assert lf.collect().height == 1200
    assert {seen.path for seen in server.log} == {"1.nwb"}


def test_an_error_of_another_query_is_not_reused(server, folder):
    """Loads of a failed query are not reused by the next query."""
    server.objects = {f"{number}.nwb": (folder / "checked.nwb").read_bytes() for number in range(6)}
    urls = [server.url_of(name) for name in server.objects]
    server.faults.append(lambda seen: Fault(403, delay=0.3 if seen.path == "0.nwb" else 2.0))
    with pytest.raises(LazyNWBError, match="403"):
        lazynwb.scan_nwb(urls, "/units")
    assert server.in_flight
    server.faults.clear()
    assert lazynwb.read_nwb(urls, "/units").height == 2400


# --- invalid responses --------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["lz4", "zstd", "blosclz", "zlib"])
@pytest.mark.parametrize("shuffle", [0, 1])
def test_a_blosc_frame_that_was_cut_off_is_damaged(codec, shuffle):
    """Blosc trusts the length in the frame, and reads past the end of the data."""
    numcodecs = pytest.importorskip("numcodecs")
    from lazynwb.catalog.model import Codec

    data = np.arange(4000, dtype="<i4").tobytes()
    frame = bytes(numcodecs.Blosc(codec, 5, shuffle).encode(data))
    assert len(frame) == struct.unpack_from("<I", frame, 12)[0]
    chain = (Codec("blosc"),)
    assert bytes(unfilter(frame, chain, 0, len(data))[0]) == data
    for kept in (*range(17), len(frame) // 2, len(frame) - 1):
        with pytest.raises(CorruptDataError):
            unfilter(frame[:kept], chain, 0, len(data))
        assert not decode_into(frame[:kept], chain, 0, np.empty(len(data), np.uint8))


@contextmanager
def linking(server, folder, *, there=True):
    """A file with a column in another one."""
    rows = 40
    with h5py.File(folder / "other.nwb", "w") as file:
        nwb_root(file, "other", ["a"])
        table(file, "units", {"far": Column(np.arange(40.0))}, rows=rows)
    with h5py.File(folder / "main.nwb", "w") as file:
        nwb_root(file, "main", ["a"])
        table(file, "units", {"own": np.arange(40.0)}, rows=rows, colnames=["own", "far"])
        file["units/far"] = h5py.ExternalLink("other.nwb", "/units/far")
    for name in ("main.nwb", "other.nwb"):
        server.objects[name] = (folder / name).read_bytes()
    if not there:
        del server.objects["other.nwb"]
    yield


@pytest.mark.parametrize("fault", ["403", "500", "a page in its place", "reset in answer", "400, expired"])
def test_a_refused_linked_file_is_not_a_broken_link(fault, server, proxy, tmp_path, caplog):
    """The linked column would be null in every row."""
    with linking(server, tmp_path):
        url = proxy.url_of("main.nwb")
        proxy.reset(always(fault, "other.nwb"))
        error = fails(url)
        assert proxy.url_of("other.nwb") in error
        assert 'external_links = "never"' in error
        scan = lazynwb.scan_nwb(url, "/units", ignore_errors=True)
        assert scan.select("own").collect()["own"].to_list() == list(range(40))
        assert "other.nwb" not in caplog.text
        assert scan.collect()["far"].null_count() == 40
        (warning,) = [r.getMessage() for r in caplog.records if "other.nwb" in r.getMessage()]
        assert "main.nwb: /units: column 'far' is null where it cannot be read" in warning
        proxy.reset()
        assert units(url)["far"].to_list() == list(range(40))
        proxy.reset(always(fault, "other.nwb"))
        config.external_links = "never"
        assert units(url)["own"].to_list() == list(range(40))
        config.external_links = "folder"


def test_a_file_with_an_unreachable_link_is_parsed_once(server, tmp_path):
    """Later scans request only the target of the link, and notice when it can be read."""
    with linking(server, tmp_path):
        url = f"{server.url}/main.nwb"
        server.faults.append(always_of_server(refuse(403), "other.nwb"))

        def scan():
            with lazynwb.profile() as profile:
                found = lazynwb.scan_nwb(url, "/units").select("own").collect()
            assert found["own"].to_list() == list(range(40))
            return profile.files_parsed

        assert scan() > 0
        server.reset()
        assert scan() == 0
        assert any("other.nwb" in seen.path for seen in server.log)
        server.faults.clear()
        assert units(url)["far"].to_list() == list(range(40))


def test_a_truncated_linked_file_is_not_a_broken_link(server, proxy, tmp_path):
    """Errors of libhdf5 for a truncated target are not reported as a broken link."""
    with linking(server, tmp_path):
        url, whole = proxy.url_of("main.nwb"), server.objects["other.nwb"]
        server.objects["other.nwb"] = whole[:-8]
        assert proxy.url_of("other.nwb") in fails(url)
        server.objects["other.nwb"] = whole
        lazynwb.clear_cache()
        assert units(url)["far"].to_list() == list(range(40))


def test_a_missing_linked_file_is_a_broken_link(server, proxy, tmp_path, caplog):
    with linking(server, tmp_path, there=False):
        assert units(proxy.url_of("main.nwb"))["own"].to_list() == list(range(40))
    assert "other.nwb" in caplog.text


def test_a_failed_request_does_not_change_the_identity(server, proxy, tmp_path):
    """The identity of a linked file is that of the version that was opened."""
    with linking(server, tmp_path):
        url = proxy.url_of("main.nwb")
        config.recheck_seconds = 0
        spent = 0
        for number in range(1, 20):
            lazynwb.clear_cache()
            proxy.reset(since(number, "403", number + 1))
            try:
                assert units(url)["far"].to_list() == list(range(40))
            except LazyNWBError:
                spent += 1
        assert spent > 2


@pytest.mark.parametrize("fault", ["500", "403", "shorter", "a page in its place"])
@pytest.mark.parametrize(
    ("name", "kind"), [("enumerated.v2.nwb.zarr", "table"), ("rated_series.v2.nwb.zarr", "series")]
)
@pytest.mark.sample(3)
def test_missing_structure_of_a_table_is_an_error(fault, name, kind, proxy, folder):
    """Without the texts of an enumeration, or the starting time of a series, values would be wrong."""
    url = proxy.url_of(name)
    path = folder / name
    names = lazynwb.get_internal_paths(path)
    tables = [where for where in names if kind == "table" or where.endswith("/data")]
    where = tables[0].removesuffix("/data")
    expected = units(path, where)
    asked = set()
    while True:
        lazynwb.clear_cache()
        proxy.reset()
        units(url, where)
        new = {seen.path for seen in proxy.log if not seen.path.rpartition("/")[2].startswith(".")} - asked
        if not new:
            break
        asked |= new
        for spoilt in new:
            lazynwb.clear_cache()
            proxy.reset(always(fault, spoilt))
            try:
                found = units(url, where)
            except LazyNWBError as error:
                assert url in str(error)  # noqa: PT017 - what was raised is one of two outcomes
            else:
                assert_frame_equal(found, expected)
    assert asked


# --- error codes and Retry-After ----------------------------------------------------------------------


def test_compression_in_transit_is_an_error(proxy):
    proxy.reset(always("compressed in transit"))
    for name in ("checked.nwb", "session.v3.nwb.zarr"):
        assert "compresses the file (Content-Encoding: gzip)" in fails(proxy.url_of(name))


@pytest.fixture
def bucket(folder):
    pytest.importorskip("boto3", reason="pip install 'moto[server]'")
    pytest.importorskip("moto.server", reason="pip install 'moto[server]'")
    with moto() as cloud, FaultyProxy(cloud.url, "s3") as proxy:
        cloud.put("private/checked.nwb", (folder / "checked.nwb").read_bytes())
        proxy.options = {**cloud.options, "endpoint": proxy.url}
        yield proxy


def test_s3_error_codes_with_status_400(bucket, folder):
    url, expected = "s3://private/checked.nwb", units(folder / "checked.nwb")
    for fault, retries in (("400, a timeout", 2), ("503", 2), ("408", 2)):
        lazynwb.clear_cache()
        bucket.reset(first(2, fault))
        with lazynwb.profile() as p:
            assert_frame_equal(units(url, storage_options=bucket.options), expected)
        assert (p.retries, p.requests) == (retries, bucket.count)
    lazynwb.clear_cache()
    bucket.reset(always("503"))
    assert "it answers 503, SlowDown" in fails(url, storage_options=bucket.options)


def test_credentials_that_expire_during_a_query(bucket, folder):
    """An error is raised immediately, and names the cause."""
    url = "s3://private/checked.nwb"
    bucket.reset(since(2, "400, expired"))
    error = fails(url, storage_options=bucket.options)
    assert "is denied (the server responds with 400, ExpiredToken): " in error
    assert "credentials in storage_options" in error
    bucket.reset()
    assert_frame_equal(units(url, storage_options=bucket.options), units(folder / "checked.nwb"))


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("text", ["3600", "date"])
def test_a_long_retry_after_is_respected(status, text, server):
    """If it exceeds the retry period, an error is raised without waiting."""
    config.retry_seconds = 10
    text = formatdate(time.time() + 3600, usegmt=True) if text == "date" else text
    server.faults.append(always_of_server(refuse(status, retry_after=text)))
    error = fails(server.url_of("checked.nwb"))
    assert re.search(rf"answers {status}\) \(tried 1 time; the server asks to retry after 3\d\d\d s: ", error)
    assert server.count == 2
    fails(server.url_of("session.v3.nwb.zarr"))
    assert server.count <= 3 + 2  # what it said is remembered: none of these asked again


@pytest.mark.parametrize("text", ["", "soon", "-3", "1.5", "9" * 40, "0", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_an_invalid_retry_after_is_ignored(text, server, folder):
    config.retry_seconds = 10
    left = [3]

    def refuse_three(_):
        left[0] -= 1
        return refuse(429, retry_after=text) if left[0] >= 0 else None

    server.faults.append(refuse_three)
    if text.startswith("99"):
        fails(server.url_of("checked.nwb"))
        return
    with lazynwb.profile() as p:
        assert_frame_equal(units(server.url_of("checked.nwb")), units(folder / "checked.nwb"))
    assert p.retries == 2  # one of the three was the question how long


def test_retry_after_is_waited_for(server, folder, monkeypatch):
    slept = []
    monkeypatch.setattr("lazynwb.storage.retry.time.sleep", slept.append)
    left = [2]

    def refuse_two(_):
        left[0] -= 1
        return refuse(503, retry_after="7") if left[0] >= 0 else None

    server.faults.append(refuse_two)
    config.retry_seconds = 60
    assert_frame_equal(units(server.url_of("checked.nwb")), units(folder / "checked.nwb"))
    assert len(slept) == 1
    assert 6.5 < slept[0] < 8


def test_the_delay_of_a_busy_server_is_queried_once_for_all_requests(server, folder):
    """Files that are refused at the same time, by a server without Retry-After."""
    for number in range(8):
        server.objects[f"{number}.nwb"] = (folder / "checked.nwb").read_bytes()
    turned_away = set()

    def refuse_each_once(seen):
        if seen.path in turned_away:
            return None
        turned_away.add(seen.path)
        return refuse(503)

    server.faults.append(refuse_each_once)
    with lazynwb.profile() as p:
        urls = [server.url_of(f"{number}.nwb") for number in range(8)]
        assert lazynwb.read_nwb(urls, "/units").height == 3200
    assert p.retries == 8
    assert sum(seen.range == (0, 1) for seen in server.log) == 1


# --- secrets ------------------------------------------------------------------------------------------


def test_retry_after_is_queried_with_the_headers_of_the_request(server, caplog, cache_dir):
    """With the headers and the signature of the request; redirects are not followed."""
    with RangeServer() as other:
        answers = iter([refuse(503), refuse(302, location=f"{other.url}/s.nwb")])
        server.faults.append(lambda _: next(answers, None))
        url = f"http://user:{SECRETS[0]}@127.0.0.1:{server.port}/checked.nwb?sig={SECRETS[0]}"
        units(url, storage_options={"headers": {"X-Api-Key": SECRETS[1]}})
        assert other.count == 0
    first_ones = server.log[:2]
    assert [seen.headers["range"] for seen in first_ones] == ["bytes=0-32767", "bytes=0-0"]
    for seen in first_ones:
        assert seen.headers["x-api-key"] == SECRETS[1]
        assert seen.headers["authorization"].startswith("Basic ")
        assert seen.target == f"/checked.nwb?sig={SECRETS[0]}"
    assert not any(secret in caplog.text for secret in SECRETS)
    for path in filter(Path.is_file, cache_dir.rglob("*")):
        assert not any(secret.encode() in path.read_bytes() for secret in SECRETS)


@pytest.mark.parametrize("fault", sorted(FAULTS.keys() - {"replaced"}))
@pytest.mark.sample(3)
def test_no_fault_reveals_a_secret(fault, proxy, caplog, cache_dir):
    caplog.set_level("DEBUG")
    config.max_retries = 1
    proxy.reset(always(fault))
    url = f"{proxy.url_of('checked.nwb')}?token={SECRETS[0]}"
    try:
        units(url, storage_options={"headers": {"Authorization": f"Bearer {SECRETS[1]}"}})
    except LazyNWBError as error:
        chain = [error, error.__cause__, error.__context__]
        texts = [f"{one} {one!r}" for one in chain]
    else:
        texts = []
    texts.append(caplog.text)
    texts += [path.read_bytes().decode("latin-1") for path in filter(Path.is_file, cache_dir.rglob("*"))]
    assert not [secret for secret in SECRETS for text in texts if secret in text]


# --- interrupts ---------------------------------------------------------------------------------------

LEAVING = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may have ignored it
import lazynwb
import lazynwb.formats.hdf5.reader  # Cython modules, as they load, make Python forget that Ctrl-C ended it
lazynwb.config.recheck_seconds = 0
print("ready", flush=True)
lazynwb.scan_nwb(sys.argv[1], "/units").collect()
"""


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals: run on Linux or macOS")
@pytest.mark.parametrize("what", ["stall in headers", "stall in body", "Retry-After"])
def test_ctrl_c_ends_a_stall_and_a_retry_delay(what, server, proxy):
    if what == "Retry-After":
        server.faults.append(always_of_server(refuse(503, retry_after="30")))
    else:
        proxy.reset(always(what))
    command = [sys.executable, "-X", "faulthandler", "-c", LEAVING, proxy.url_of("checked.nwb")]
    with subprocess.Popen(  # noqa: S603 - our own code
        command, env=child_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout.readline() == b"ready\n"
        while proxy.count < (2 if what == "Retry-After" else 1) and child.poll() is None:
            time.sleep(0.01)
        time.sleep(0.2)
        assert_ends_at_ctrl_c(child)
