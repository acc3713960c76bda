"""Servers that fail, refuse, change files or do not respond; and secrets that must not be revealed."""

import itertools
import logging
import os
import re
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote

import h5py
import numpy as np
import polars as pl
import pytest
from obstore.exceptions import GenericError
from polars.testing import assert_frame_equal

import lazynwb
from builders import Column, table
from checks import assert_ends_at_ctrl_c, child_environment, run_child
from lazynwb.errors import LazyNWBError, NotNWBError, SourceChangedError, SourceNotFoundError
from lazynwb.lookup import catalog_cache
from lazynwb.storage import error_mapping, remote_state
from lazynwb.storage.source import Options, Source
from range_server import CLOSE, RESET, SILENT, WHOLE, Fault, RangeServer, always, cut, first, redirect, refuse
from stores import free_port

config = lazynwb.config


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Shorten pauses and check identities always, except in tests of these."""
    monkeypatch.setattr(error_mapping, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(error_mapping, "BUSY_PAUSE_SECONDS", 0.02)
    config.max_retries, config.request_timeout, config.recheck_seconds = 3, 10, 0


@pytest.fixture
def server(cube):
    with RangeServer() as running:
        running.objects["s.nwb"] = cube[0].read_bytes()
        yield running


@pytest.fixture
def url(server):
    return server.url_of("s.nwb")


@pytest.fixture(scope="module")
def units(cube):
    return lazynwb.read_nwb(cube[0], "/units").drop("_nwb_path")


def read(url, **options):
    frame = lazynwb.read_nwb(url, "/units", **options)
    assert set(frame["_nwb_path"]) == {url}
    return frame.drop("_nwb_path")


def forget():
    """Clear the caches in memory, as in a new process."""
    catalog_cache.clear_memory()
    remote_state.forget()


def error_of(source, kind=LazyNWBError, table="/units", **options):
    """The error of a query; its message names the file."""
    with pytest.raises(kind) as caught:
        lazynwb.read_nwb(source, table, **options)
    assert Source(source).name in str(caught.value)
    return caught.value


# --- transient and persistent faults ------------------------------------------------------------------

BUSY = "the server is busy or failing"
BROKE = "the connection was lost"
LATE = "the server did not respond in time"
FAULTS = {
    "408": (refuse(408), f"{BUSY} .*408"),
    "429": (refuse(429, retry_after=0), f"{BUSY} .*429"),
    "500": (refuse(500, b"<html>status code: 404</html>"), f"{BUSY} .*500"),
    "502": (refuse(502), f"{BUSY} .*502"),
    "503": (refuse(503, retry_after=0), f"{BUSY} .*503"),
    "504": (refuse(504), f"{BUSY} .*504"),
    "reset": (RESET, BROKE),
    "closed": (CLOSE, BROKE),
    "truncated": (cut(1000), BROKE),
    "reset in mid-body": (cut(1000, "reset"), BROKE),
    "too short": (Fault(206, {"Content-Range": "bytes 0-32767/99999"}, b"abc"), "the server sent 3 bytes"),
    "silent": (SILENT, LATE),
    "silent in mid-body": (cut(1000, "stall"), LATE),
}
faults = pytest.mark.parametrize("fault", FAULTS, indirect=True)


@pytest.fixture
def fault(request):
    """The name of a fault; the timeout is short for those without a response only."""
    if "silent" in request.param:
        config.request_timeout = 0.3
    return request.param


def questions(server):
    """Return the number of queries of `Retry-After`."""
    return sum("urllib" in seen.headers["user-agent"] for seen in server.log)  # obstore does not tell


@faults
def test_a_transient_fault_changes_nothing(fault, server, url, units):
    server.faults.append(first(2, FAULTS[fault][0]))
    with lazynwb.profile() as p:
        assert_frame_equal(read(url), units)
    assert p.retries == 2 - questions(server)
    assert p.requests == server.count
    assert (questions(server) > 0) == (fault in {"429", "503"})


@faults
def test_a_persistent_fault_is_an_error_with_the_number_of_tries(fault, server, url):
    kind, what = FAULTS[fault]
    server.faults.append(always(kind))
    with lazynwb.profile() as p:
        error = error_of(url)
    assert re.search(rf"{what}.* \(tried 4 times\)$", str(error))
    assert p.retries == config.max_retries
    assert p.requests == server.count == 4 + questions(server)


def test_a_server_that_fails_every_first_request(server, url, units):
    """Each request fails once; failures are counted per request, not per query."""
    failed = set()

    def stumble(seen):
        known = seen.headers["range"] in failed
        failed.add(seen.headers["range"])
        return None if known else refuse(500)

    server.faults.append(stumble)
    config.max_retries = 1
    assert_frame_equal(read(url), units)


def test_retries_end_after_a_time(server, url):
    server.faults.append(always(refuse(500)))
    config.max_retries, config.retry_seconds = 1000, 0.3
    error_of(url)
    assert 2 < server.count < 10  # not a thousand


def test_retry_delays_follow_typical_retry_after(server, url, units, monkeypatch):
    monkeypatch.setattr(error_mapping, "BUSY_PAUSE_SECONDS", 1.0)
    refused = []

    def refuse_for_a_second(seen):
        refused.append(time.monotonic())
        return refuse(503, retry_after=1) if refused[-1] - refused[0] < 1 else None

    server.faults.append(refuse_for_a_second)
    with lazynwb.profile() as p:
        assert_frame_equal(read(url), units)
    assert p.retries == 1


def test_a_slow_response_is_not_a_timeout(url, server, units):
    """The timeout applies to the time without data, not to the whole response."""
    config.request_timeout = 0.5
    server.faults.append(always(Fault(over=1.5)))
    with lazynwb.profile() as p:
        assert_frame_equal(read(url), units)
    assert p.retries == 0


def test_a_port_without_a_server():
    error = error_of(f"http://127.0.0.1:{free_port()}/s.nwb")
    assert re.search("cannot be reached: .*tried 4 times", str(error))


def test_a_number_in_the_url_is_not_taken_for_a_status(server):
    url = server.url_of("416, 404 TimedOut.nwb")
    server.faults.append(always(CLOSE))
    assert re.search(f"{BROKE}.*tried 4 times", str(error_of(url)))


def test_a_certificate_that_is_not_trusted():
    error = GenericError("error sending request\n\nkind: Connect,\nerror: InvalidCertificate(Expired)")
    failed = error_mapping.explain(Source("https://h/s.nwb"), error)
    assert "certificate" in str(failed.error)
    assert failed.pause is None


# --- refusals -----------------------------------------------------------------------------------------

REFUSALS = {
    404: (SourceNotFoundError, "no such file: .*check the path"),
    410: (SourceNotFoundError, "no such file: .*check the path"),
    403: (LazyNWBError, "access to .* is denied .*check the URL, and the headers in storage_options"),
    401: (LazyNWBError, "access to .* is denied .*check the URL, and the headers in storage_options"),
    400: (LazyNWBError, "cannot be read: the server responds with 400"),
    501: (LazyNWBError, "cannot be read: the server responds with 501"),
}


@pytest.mark.parametrize("status", REFUSALS)
def test_a_refusal_is_an_error_without_retries(status, server, url):
    kind, what = REFUSALS[status]
    server.faults.append(always(refuse(status, b"<html>status code: 500</html>")))
    error = error_of(url, kind)
    assert type(error) is kind
    assert re.search(what, str(error))
    assert str(status) in str(error)
    # What is not there as a file may be a Zarr store: its documents are asked for, and nothing is repeated.
    assert server.count == 1 + 3 * (kind is SourceNotFoundError)


def test_a_404_is_a_source_not_found_error(server):
    assert isinstance(error_of(server.url_of("none.nwb")), FileNotFoundError)
    assert [seen.path for seen in server.log] == [
        *("none.nwb", "none.nwb/.zmetadata", "none.nwb/zarr.json", "none.nwb/.zgroup")
    ]


def test_a_refusal_in_another_encoding(server, url):
    """obstore does not report the status in that case; the response to a HEAD request has no text."""
    server.faults.append(always(refuse(410, "nicht verfügbar".encode("latin-1"))))
    error_of(url, SourceNotFoundError)
    assert [seen.method for seen in server.log] == [
        "GET",
        "HEAD",
    ] * 4  # the file, and three documents of a store


@pytest.mark.parametrize("status", [400, 403])
def test_error_codes_of_object_stores(status, server):
    server.faults.append(always(refuse(status, b"<Error><Code>ExpiredToken</Code></Error>")))
    options = {"endpoint": server.url, "region": "us-east-1", "anon": True}
    assert f"{status}, ExpiredToken" in str(error_of("s3://bucket/s.nwb", storage_options=options))


def test_credentials_that_cannot_be_obtained(server):
    def provide():
        message = SECRETS[0]
        raise RuntimeError(message)

    options = {"endpoint": server.url, "region": "us-east-1", "credential_provider": provide}
    for error in chain(error_of("s3://bucket/s.nwb", storage_options=options)):
        assert "no credentials could be obtained" in str(error)
        assert_silent(error, repr(error))


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        (refuse(302), "redirects without a target"),
        (redirect("/s.nwb"), "redirects in a loop"),
        (Fault(206, {"ETag": '"x"'}, b"abc"), "violate"),
        (Fault(206, {"Content-Range": "bytes 7-9/99", "ETag": '"x"'}, b"abc"), "violate"),
        (Fault(206, {"Content-Range": "bytes 0-2/99", "Last-Modified": "today"}, b"abc"), "violate"),
    ],
)
def test_an_invalid_answer(fault, what, server, url):
    server.faults.append(always(fault))
    assert what in str(error_of(url))
    assert len({seen.path for seen in server.log}) == 1
    # Once more without obstore, where the headers contradict each other: they may only lack a total.
    assert server.count == 1 + (what == "violate") or "loop" in what


# --- servers that do not send parts -------------------------------------------------------------------


@pytest.fixture
def whole(server):
    server.faults.append(always(WHOLE))
    return len(server.objects["s.nwb"])


@pytest.mark.parametrize("allowed", [0, 1000])
def test_a_server_without_ranges(allowed, server, url, whole):
    config.download_bytes = allowed
    with lazynwb.profile() as p:
        error = str(error_of(url))
    assert f"{whole:,} bytes" in error
    assert f"download_bytes ({allowed:,}" in error
    assert p.bytes_read == 0


def test_a_file_is_downloaded_once_if_permitted(server, url, whole, units):
    config.download_bytes = whole
    with lazynwb.profile() as p:
        for _ in range(2):
            assert_frame_equal(read(url), units)
        lazynwb.read_nwb(url, "/intervals/trials")
    assert p.bytes_read == whole
    config.download_bytes = whole + 4
    server.objects["s.nwb"] += b"more"
    with lazynwb.profile() as p:
        assert_frame_equal(read(url), units)
    assert p.bytes_read == whole + 4


def test_threads_wait_for_one_download(server, url, whole):
    config.download_bytes = whole
    tables = list(lazynwb.get_internal_paths(url))[:4]
    remote_state.forget()
    server.faults[:] = [always(Fault(ignore_range=True, over=0.3))]
    with lazynwb.profile() as p, ThreadPoolExecutor(4) as pool:
        frames = list(pool.map(lambda table: lazynwb.read_nwb(url, table), tables))
    assert len(frames) == 4
    assert p.bytes_read == whole


# --- other contents -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [None, WHOLE])
def test_an_empty_object(fault, server, url):
    server.objects["s.nwb"] = b""
    server.faults.append(always(fault))
    assert "is empty" in str(error_of(url, NotNWBError))


@pytest.mark.parametrize("size", [1, 7, 8, 511, 4_000_000])
def test_a_file_of_another_format(size, server, url):
    server.objects["s.nwb"] = b"GIF89a" * (size // 6) + b"x" * (size % 6)
    assert "is not an HDF5 file" in str(error_of(url, NotNWBError))
    assert server.count <= 30


@pytest.mark.parametrize("part", [0.001, 0.1, 0.5, 0.99])
def test_a_truncated_file(part, server, url):
    data = server.objects["s.nwb"]
    server.objects["s.nwb"] = data[: int(len(data) * part)]
    assert "truncated or damaged" in str(error_of(url, NotNWBError))
    assert server.count <= 10


# --- files that change --------------------------------------------------------------------------------


def write_version(path, value, rows=40, names="abc"):
    """Write a table of equal values, in parts of the file that take one request each."""
    with h5py.File(path, "w") as file:
        for at, name in enumerate(names):
            values = np.full((rows, 256), value, "f8")
            columns = list(names[: at + 1])
            table(file, "units", {name: Column(values, {"chunks": (10, 256)})}, rows=rows, colnames=columns)
            file[f"between {name}"] = np.zeros(20_000)
    return path.read_bytes()


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("versions")
    return {
        "old": write_version(folder / "old.nwb", 1),
        "new": write_version(folder / "new.nwb", 2),
        "larger": write_version(folder / "larger.nwb", 2, 60),
        "smaller": write_version(folder / "smaller.nwb", 2, 20, "a"),
        "wider": write_version(folder / "wider.nwb", 2, names="abcd"),
    }


def put(server, data, modified=None):
    """Replace the object, by default with the current date."""
    server.objects["v.nwb"] = data
    if modified is not None:
        server.versions["v.nwb"] = (data, server.find("v.nwb").etag, modified)


def values_of(url, **options):
    """The one value that all columns of a version have."""
    frame = lazynwb.scan_nwb(url, "units", **options).filter(pl.col("a").arr.first() > 0).collect()
    columns = [frame[name] for name in frame.columns if len(name) == 1]
    values = np.unique(np.concatenate([column.drop_nulls().to_numpy().ravel() for column in columns]))
    assert len(values) == 1, "old and new values in one frame"
    return values[0]


IDENTITIES = {
    "a strong tag": ("strong", True, "new"),
    "a weak tag": ("weak", True, "new"),
    "a date": (None, True, "new"),
    "a size": (None, False, "larger"),
    "a smaller size": (None, False, "smaller"),
    "another structure": ("strong", True, "wider"),
}


@pytest.mark.parametrize("identity", IDENTITIES)
@pytest.mark.sample(2)
def test_old_and_new_bytes_are_never_mixed(identity, server, versions):
    """A replacement before any request gives old rows, new rows or an error, and afterwards new rows."""
    server.etag, server.last_modified, new = IDENTITIES[identity]
    url = server.url_of("v.nwb")
    errors = 0
    statuses = set()
    for number in itertools.count(1):
        lazynwb.clear_cache()
        statuses |= {seen.status for seen in server.log}
        server.reset()
        put(server, versions["old"], 1_600_000_000)

        def replace(_, number=number):
            if server.count == number:
                put(server, versions[new], 1_600_000_100)

        server.faults[:] = [replace]
        try:
            values_of(url)
        except SourceChangedError:
            errors += 1
            config.recheck_seconds = 60
        if server.count < number:
            break
        assert values_of(url) == 2
        config.recheck_seconds = 0
    assert number > 5
    assert errors >= 3
    # A strong tag is a condition, so that nothing is sent in vain.
    assert (412 in statuses) == (server.etag == "strong")


def test_a_file_that_changes_with_every_request(server, versions):
    put(server, versions["old"])
    server.faults.append(lambda _: put(server, versions["old"] + server.count.to_bytes(8, "big")))
    with pytest.raises(SourceChangedError):
        values_of(server.url_of("v.nwb"))
    assert server.count <= 10


def test_columns_that_change_between_two_queries(server, versions):
    url = server.url_of("v.nwb")
    put(server, versions["old"])
    lf = lazynwb.scan_nwb(url, "units")
    assert lf.collect()["a"].arr.first().unique().to_list() == [1]
    put(server, versions["wider"])
    assert lazynwb.read_nwb(url, "units")["d"].arr.first().unique().to_list() == [2]
    # A schema that was published is kept, with the new values.
    assert lf.collect().schema == lf.collect_schema()
    assert lf.collect()["a"].arr.first().unique().to_list() == [2]


@pytest.mark.parametrize("fault", [None, WHOLE])
@pytest.mark.parametrize("last_modified", [False, True])
def test_a_server_without_reliable_versions(last_modified, fault, server, versions, cache_dir):
    """Without an ETag, and without a date or within the second of the date, identities expire immediately."""
    config.download_bytes = 10_000_000
    server.faults.append(always(fault))
    server.etag, server.last_modified = None, last_modified
    url = server.url_of("v.nwb")
    now = int(time.time())
    put(server, versions["old"], now)
    assert values_of(url) == 1
    assert not any(path.is_file() for path in cache_dir.rglob("*"))
    put(server, versions["new"], now)
    config.recheck_seconds = 60
    assert values_of(url) == 1
    config.recheck_seconds = 0
    assert values_of(url) == 2
    forget()
    assert values_of(url) == 2


# --- warm queries -------------------------------------------------------------------------------------


def test_a_second_query_requests_one_byte_of_each_file(cube, server):
    for path in cube:
        server.objects[path.name] = path.read_bytes()
    urls = [server.url_of(path.name) for path in cube]

    def query():
        server.reset()
        with lazynwb.profile() as p:
            frame = (
                lazynwb.scan_nwb(urls, "/units").select("unit_id", "presence_ratio", "_nwb_path").collect()
            )
        return frame, p.files_parsed, [seen.range for seen in server.log]

    config.recheck_seconds = 60
    frame, parsed, _ = query()
    assert parsed == len(urls)
    for again, ranges in (
        (lambda: None, []),
        (catalog_cache.clear_memory, []),
        (forget, [(0, 1)] * len(urls)),
    ):
        again()
        found, parsed, asked = query()
        assert_frame_equal(found, frame)
        assert (parsed, asked) == (0, ranges)


@pytest.mark.long
def test_a_change_is_detected_by_a_second_process(server, versions, cache_dir):
    code = """
import sys, lazynwb
with lazynwb.profile() as p:
    frame = lazynwb.read_nwb(sys.argv[1], "units")
print(frame["a"].arr.first().unique().to_list(), "d" in frame, p.files_parsed)
"""
    outputs = []
    for version in ("old", "wider", "wider"):
        put(server, versions[version])
        outputs.append(run_child(code, server.url_of("v.nwb"), LAZYNWB_CACHE_DIR=str(cache_dir)).strip())
    assert outputs == ["[1.0] False 1", "[2.0] True 1", "[2.0] True 0"]


# --- number and concurrency of requests ---------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 3, 64])
def test_requests_at_the_same_time(most, cube, server):
    config.max_requests = most
    urls = [server.url_of(f"{number}.nwb") for number in range(20)]
    for number in range(20):
        server.objects[f"{number}.nwb"] = cube[number % 6].read_bytes()
    server.latency = 0.03 if most > 1 else 0
    assert lazynwb.read_nwb(urls, "/units").height == 800
    assert min(most, 11) <= server.most_at_once <= most


def test_neighbouring_chunks_are_one_request_and_distant_ones_are_not(tmp_path, server):
    with h5py.File(tmp_path / "v.nwb", "w") as file:
        for name in ("near", "near too"):
            file[f"units/{name}"] = np.zeros((40, 2000))
        file["between"] = np.zeros(50_000)
        table(file, "units", {"far": np.zeros((40, 2000))}, rows=40, colnames=["near", "near too", "far"])
    server.objects["v.nwb"] = (tmp_path / "v.nwb").read_bytes()
    lf = lazynwb.scan_nwb(server.url_of("v.nwb"), "units")
    config.recheck_seconds = 60
    for names, requests in ((["near"], 1), (["near", "near too"], 1), (["near", "far"], 2)):
        server.reset()
        lf.select(names).collect()
        assert server.count == requests


# --- redirects ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", ["s.nwb", "/s.nwb", "{server}/s.nwb", "{other}/s.nwb?id=7"])
def test_redirects(status, location, server, units):
    with RangeServer() as other:
        other.objects["s.nwb"] = server.objects["s.nwb"]
        target = location.format(server=server.url, other=other.url)
        server.faults.append(always(redirect(target, status), path="moved.nwb"))
        assert_frame_equal(read(server.url_of("moved.nwb")), units)
        assert (other.count > 0) == ("other" in location)


def test_credentials_are_not_sent_to_another_server(server):
    """Authorization is dropped after a redirect; obstore sends other headers and a Referer."""
    with RangeServer() as other:
        other.objects["s.nwb"] = server.objects["s.nwb"]
        server.faults.append(always(redirect(f"{other.url}/s.nwb"), path="moved.nwb"))
        headers = {"Authorization": "Bearer of it", "Cookie": "a=b", "X-Own": "seen"}
        read(server.url_of("moved.nwb"), storage_options={"headers": headers})
        read(f"http://somebody:password@127.0.0.1:{server.port}/moved.nwb")
    assert {seen.headers["authorization"] for seen in server.log} == {
        "Bearer of it",
        "Basic c29tZWJvZHk6cGFzc3dvcmQ=",
    }
    assert not any({"authorization", "cookie"} & seen.headers.keys() for seen in other.log)
    assert {seen.headers["referer"] for seen in other.log} == {server.url_of("moved.nwb")}
    assert {seen.headers.get("x-own") for seen in other.log} == {"seen", None}


# --- secrets ------------------------------------------------------------------------------------------

SECRETS = ("s3cret-signature", "s3cret-token", "s3cret-password", "s3cret-header", "s3cret-key")


def secret_url(server, name="s.nwb"):
    return (
        f"http://user:{SECRETS[2]}@127.0.0.1:{server.port}/{name}"
        f"?id=7&X-Amz-Signature={SECRETS[0]}&X-Amz-Date=today&token={SECRETS[1]}"
    )


SECRET_OPTIONS = {"headers": {"Authorization": f"Bearer {SECRETS[3]}", "X-Api-Key": SECRETS[4]}}


def chain(error):
    """An error with its causes and contexts."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def assert_silent(*texts):
    for text in map(str, texts):
        assert not [secret for secret in SECRETS if secret in text], text


@pytest.fixture
def silence(caplog, recwarn, cache_dir, capfd):
    """Assert that no secret is logged, warned of, printed or written in a test."""
    caplog.set_level(logging.DEBUG)
    yield
    logged = [record.getMessage() for record in caplog.get_records("call")]
    assert_silent(*logged, *(warning.message for warning in recwarn), *capfd.readouterr())
    for path in filter(Path.is_file, cache_dir.rglob("*")):
        assert_silent(path, path.read_bytes().decode("latin-1"))


NO_FILES = {
    "empty": b"",
    "another format": b"GIF89a" * 100,
    "truncated": b"\x89HDF\r\n\x1a\n" * 100,
}


@pytest.mark.parametrize("what", [*FAULTS, *REFUSALS, *NO_FILES, "whole", "circle", "302", "no headers"])
def test_errors_contain_no_secrets(what, server, silence):
    config.max_retries, config.request_timeout = 1, 0.3
    others = {
        "whole": WHOLE,
        "circle": redirect(f"/s.nwb?token={SECRETS[1]}"),
        "302": refuse(302),
        "no headers": refuse(206),
    }
    if what in NO_FILES:
        server.objects["s.nwb"] = NO_FILES[what]
    else:
        kind = FAULTS[what][0] if what in FAULTS else others.get(what) or refuse(what, SECRETS[0].encode())
        server.faults.append(always(kind))
    source = secret_url(server)
    for error in chain(error_of(source, storage_options=SECRET_OPTIONS)):
        assert_silent(error, repr(error), error.args, *traceback.format_exception(error))


@pytest.mark.parametrize("what", ["changed", "gone", "ignored", "table", "schema"])
def test_errors_of_queries_contain_no_secrets(what, server, versions, silence):
    source = secret_url(server, "v.nwb")
    put(server, versions["old"])
    options = {"storage_options": SECRET_OPTIONS, "ignore_errors": what == "ignored"}
    overrides = {"a": pl.Int8} if what == "schema" else {}
    lf = lazynwb.scan_nwb(source, "units", schema_overrides=overrides, **options)
    lazynwb.clear_cache()
    server.reset()

    def fail(_):
        if server.count == 2 and what == "changed":
            put(server, versions["new"])
        return refuse(404) if server.count == 2 and what in {"gone", "ignored"} else None

    server.faults.append(fail)
    try:
        lazynwb.read_nwb(source, "unit", **options) if what == "table" else lf.collect()
    except LazyNWBError as failed:
        for error in chain(failed):
            assert_silent(error, repr(error), *traceback.format_exception(error))
    else:
        assert what == "ignored"


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": SECRETS[1]},
        {"headers": {"X-Api-Key": f"line\n{SECRETS[4]}"}},
        {"client_options": {SECRETS[4]: SECRETS[4]}},
    ],
)
def test_errors_about_options_do_not_contain_their_values(options, server, silence):
    for error in chain(error_of(secret_url(server), storage_options=options)):
        assert_silent(error, repr(error), *traceback.format_exception(error))


def test_frames_and_cache_files_contain_no_secrets(server, units, silence, cache_dir):
    url = secret_url(server)
    lf = lazynwb.scan_nwb(url, "/units", storage_options=SECRET_OPTIONS)
    assert lf.collect()["_nwb_path"].unique().to_list() == [url]
    lazynwb.get_internal_paths(url)
    assert any(path.is_file() for path in cache_dir.rglob("*"))
    query = lf.filter(pl.col("unit_id") != "").group_by("location").len()
    assert_silent(repr(query), query.explain(), query.explain(optimized=False), query._repr_html_())


@pytest.mark.parametrize(
    "target",
    [
        "/s.nwb?token=a%2Fb%20c+d%7Ee~f%C3%A9;g=%3D&&X-Amz-Signature=%zz&a=b?c/d",
        "/a%20b%2Fc+d;e~%7E%41%C3%A9(f)'!*$&,=:@%25.nwb",
        "/a//b.nwb",
    ],
)
def test_a_url_is_requested_unchanged(target, server, units):
    server.objects = dict.fromkeys(["s.nwb", unquote(target).lstrip("/")], server.objects["s.nwb"])
    for fragment in ("", "#part"):
        assert_frame_equal(read(server.url + target + fragment), units)
    assert {seen.target for seen in server.log} == {target}


def test_invalid_characters_of_requests_are_quoted(server, units):
    server.objects["a é.nwb"] = server.objects["s.nwb"]
    assert_frame_equal(read(f"{server.url}/a é.nwb?b c=é"), units)
    assert {seen.target for seen in server.log} == {"/a%20%C3%A9.nwb?b%20c=%C3%A9"}


def test_a_url_with_a_new_signature_is_the_same_file(server, units):
    with lazynwb.profile() as p:
        for signature in ("one", "two"):
            query = f"id=7&X-Amz-Signature={signature}&X-Amz-Date={signature}&Expires={signature}"
            assert_frame_equal(read(f"{server.url_of('s.nwb')}?{query}"), units)
    assert p.files_parsed == 1
    assert {"one", "two"} == {seen.target.rpartition("=")[2] for seen in server.log}


@pytest.mark.parametrize("name", ["id", "key", "file", "design", "author", "v"])
def test_urls_with_different_parameters_are_different_files(name):
    one, other = (Source(f"https://h/s?{name}={value}&sig=a", Options()).key for value in (7, 8))
    assert one != other


def test_displayed_names_contain_no_secrets():
    source = Source("http://user:p@ss@h/s.nwb?id=7&token=secret")
    assert source.name == "http://***@h/s.nwb?id=***&token=***"
    assert "secret" not in repr(source)
    assert "p@ss" not in repr(source)


def test_files_that_differ_in_unselected_columns(server, units, caplog):
    """An unreadable file does not affect another one with the same displayed name."""
    server.faults.append(lambda seen: refuse(404) if "id=7" in seen.target else None)
    urls = [f"{server.url_of('s.nwb')}?id={number}" for number in (7, 8)]
    frame = lazynwb.read_nwb(urls, "/units", ignore_errors=True)
    assert_frame_equal(frame.drop("_nwb_path"), units)
    assert "1 of 2 files" in caplog.text


# --- interrupts ---------------------------------------------------------------------------------------

LEAVING = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may have ignored it
import lazynwb
import lazynwb.formats.hdf5.reader  # Cython modules, as they load, make Python forget that Ctrl-C ended it
lazynwb.config.recheck_seconds = 0

def scan(length=None):
    return lazynwb.scan_nwb(sys.argv[1:], "/units", infer_schema_length=length)

def wait():
    print("ready", flush=True)
    sys.stdin.readline()
"""


def start(code, urls):
    """Start a child process that stops at its `wait` until it receives a line of input."""
    child = subprocess.Popen(  # noqa: S603 - our own code
        [sys.executable, "-X", "faulthandler", "-c", LEAVING + code, *urls],
        env=child_environment(),
        **dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE),
    )
    assert child.stdout.readline() == b"ready\n", child.communicate()[1].decode()
    return child


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals: run on Linux or macOS")
@pytest.mark.parametrize(
    ("code", "count", "stalled"),
    [
        ("wait(); scan()", 3, "identity"),
        ("lf = scan(); wait(); lf.collect()", 1, "identity"),
        ("lf = scan(); wait(); lf.collect()", 3, "data"),
        ("lf = scan(); wait(); lf.collect(engine='streaming')", 1, "data"),
        ("lf = scan(); wait(); lf.collect(engine='streaming')", 3, "identity"),
        ("wait(); lazynwb.get_internal_paths(sys.argv[1])", 1, "data"),
    ],
)
@pytest.mark.sample(3)
def test_ctrl_c_ends_the_wait_for_a_silent_server(code, count, stalled, versions, server):
    answered = count if stalled == "data" else 0
    server.objects = {f"{number}.nwb": versions["old"] for number in range(count)}
    with start(code, map(server.url_of, server.objects)) as child:
        server.reset()
        server.faults.append(lambda _: SILENT if server.count > answered else None)
        child.stdin.write(b"\n")
        child.stdin.flush()
        while server.count <= answered and child.poll() is None:
            time.sleep(0.01)
        time.sleep(0.1)
        assert_ends_at_ctrl_c(child)


@pytest.mark.long
@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("scan(1); wait()", 0),
        ("scan(1).head(3).collect(); wait(); sys.exit(3)", 3),
        ("scan(1).head(3).collect(engine='streaming'); wait(); 1 / 0", 1),
    ],
)
def test_pending_loads_do_not_block_other_queries(code, status, cube, server):
    """The schema of the first file does not wait for loads of other files whose server does not respond."""
    server.objects = {f"{number}.nwb": cube[number % 6].read_bytes() for number in range(12)}
    server.faults.append(lambda seen: None if seen.path == "0.nwb" else SILENT)
    with start(code, map(server.url_of, server.objects)) as child:
        error = child.communicate(b"\n", timeout=20)[1].decode()  # the server keeps silent for longer
    assert server.count > 2
    assert child.returncode == status, error
