"""The HTTP server of the tests, with Python's client."""

import contextlib
import http.client
import json
import os
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

import range_server
from range_server import CLOSE, RESET, SILENT, WHOLE, RangeServer, always, cut, first, redirect, refuse

DATA = bytes(range(256)) * 4


@pytest.fixture
def server(tmp_path):
    (tmp_path / "file.nwb").write_bytes(DATA)
    with RangeServer(tmp_path) as running:
        running.objects["sub/a b.nwb"] = DATA
        yield running


@contextlib.contextmanager
def connected(server, timeout=5):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout)
    with contextlib.closing(connection):
        yield connection


def get(server, target="/file.nwb", method="GET", *, timeout=5, **headers):
    with connected(server, timeout) as connection:
        connection.request(method, target, headers={k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection.getresponse()
        return answer, answer.read()


@pytest.mark.parametrize("target", ["/file.nwb", "/sub/a%20b.nwb?version=1"])
@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [("0-0", 0, 1), ("10-19", 10, 20), ("1000-", 1000, 1024), ("-24", 1000, 1024), ("1000-5000", 1000, 1024)],
)
def test_ranges(server, target, asked, start, stop):
    answer, body = get(server, target, range=f"bytes={asked}")
    assert (answer.status, body) == (206, DATA[start:stop])
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/1024"
    seen = server.log[-1]
    assert (seen.target, seen.range, seen.status, seen.bytes_sent) == (target, (start, stop), 206, len(body))
    assert (server.count, server.bytes) == (1, len(body))
    server.reset()
    assert (server.count, server.bytes, server.log) == (0, 0, [])


def test_requests_for_whole_files(server):
    answer, body = get(server)
    assert (answer.status, body, answer.headers["accept-ranges"]) == (200, DATA, "bytes")
    answer, body = get(server, method="HEAD")
    assert (answer.status, body, answer.headers["content-length"]) == (200, b"", "1024")
    assert urllib.request.urlopen(server.url_of("sub/a b.nwb")).read() == DATA  # noqa: S310 - our own URL


def test_missing_files_and_ranges(server):
    assert get(server, "/missing.nwb")[0].status == 404
    assert get(server, "/../file.nwb")[0].status == 404
    assert get(server, method="PUT")[0].status == 405
    answer, _ = get(server, range="bytes=1024-")
    assert (answer.status, answer.headers["content-range"]) == (416, "bytes */1024")


@pytest.mark.parametrize("path", ["file.nwb", "sub/a b.nwb"])
def test_preconditions(server, tmp_path, path):
    target = server.url_of(path).removeprefix(server.url)
    before, _ = get(server, target)
    etag, date = before.headers["etag"], before.headers["last-modified"]
    assert get(server, target, if_match=etag)[0].status == 200
    assert get(server, target, if_none_match=etag)[0].status == 304
    assert get(server, target, if_unmodified_since=date)[0].status == 200
    assert get(server, target, if_unmodified_since="Wed, 01 Jan 2020 00:00:00 GMT")[0].status == 412
    (tmp_path / "file.nwb").write_bytes(DATA + b"more")
    server.objects["sub/a b.nwb"] = DATA + b"more"
    assert get(server, target, if_match=etag)[0].status == 412
    assert get(server, target, if_none_match=etag)[0].status == 200


def test_weak_identity_and_none(server):
    server.etag = "weak"
    etag = get(server)[0].headers["etag"]
    assert etag.startswith('W/"')
    assert get(server, if_match=etag)[0].status == 412
    assert get(server, if_none_match=etag)[0].status == 304
    server.etag, server.last_modified = None, False
    answer, _ = get(server, if_match=etag)
    assert (answer.status, answer.headers["etag"], answer.headers["last-modified"]) == (200, None, None)


def test_connections_are_kept_alive(server):
    with connected(server) as connection:
        for target in ["/file.nwb", "/missing.nwb", "/file.nwb"]:
            connection.request("GET", target)
            connection.getresponse().read()
        assert len(server.connections) == 1


def test_latency_of_requests_overlaps(server):
    server.latency = 0.2
    began = time.perf_counter()
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: get(server)[1], range(10)))
    assert time.perf_counter() - began >= 0.2
    assert answers == [DATA] * 10
    assert server.most_at_once == 10


def test_the_first_requests_are_refused(server):
    server.faults.append(first(2, refuse(503, b"busy", retry_after=1), "file.nwb"))
    assert get(server, "/sub/a%20b.nwb")[0].status == 200
    answers = [get(server, range="bytes=0-9") for _ in range(3)]
    assert [(a.status, a.headers["retry-after"], body) for a, body in answers] == [
        (503, "1", b"busy"),
        (503, "1", b"busy"),
        (206, None, DATA[:10]),
    ]
    assert [seen.range for seen in server.log[1:]] == [(0, 10)] * 3


@pytest.mark.parametrize("location", ["/sub/a%20b.nwb?x=%2F", "{url}/sub/a%20b.nwb"])
def test_redirects(server, location):
    server.faults.append(always(redirect(location.format(url=server.url)), "file.nwb"))
    assert urllib.request.urlopen(server.url_of("file.nwb")).read() == DATA  # noqa: S310 - our own URL
    assert [seen.status for seen in server.log] == [302, 200]


def test_a_range_that_is_ignored(server):
    server.faults.append(first(1, WHOLE))
    answer, body = get(server, range="bytes=0-9")
    assert (answer.status, body) == (200, DATA)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (RESET, ConnectionResetError),
        (CLOSE, http.client.RemoteDisconnected),
        (SILENT, TimeoutError),
        (cut(10), http.client.IncompleteRead),
        (cut(10, "stall"), TimeoutError),
        (cut(10, "reset"), ConnectionResetError),
    ],
)
def test_broken_connections(server, fault, error):
    server.faults.append(first(1, fault))
    with pytest.raises(error):
        get(server, timeout=0.3)
    assert server.bytes == (fault.after or 0)
    assert get(server)[1] == DATA


def test_a_separate_process(tmp_path):
    (tmp_path / "a.nwb").write_bytes(DATA)
    command = [sys.executable, range_server.__file__, str(tmp_path), "--latency", "0.01"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:  # noqa: S603
        url = process.stdout.readline().strip()
        for _ in range(3):
            assert urllib.request.urlopen(f"{url}/a.nwb").read() == DATA  # noqa: S310 - our own URL
        counts = [json.load(urllib.request.urlopen(f"{url}/-/stats")) for _ in range(2)]  # noqa: S310
        process.terminate()
    assert counts == [{"requests": 3, "bytes": 3072}, {"requests": 0, "bytes": 0}]
