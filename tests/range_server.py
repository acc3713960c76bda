"""An HTTP/1.1 server of byte ranges on loopback that counts requests, with optional delays and faults.

In a test it runs in a thread::

    with RangeServer(folder) as server:
        server.objects["a b.nwb"] = b"..."
        server.faults.append(first(2, refuse(503, retry_after=0)))
        read(server.url_of("a b.nwb"))
        assert server.log[-1].range == (0, 100)

In a benchmark it is a process of its own: `python tests/range_server.py FOLDER --port 8000 --latency 0.03`.
It prints its URL when it listens. `GET /-/stats` there returns, and resets, the counts as JSON.
"""

import argparse
import asyncio
import functools
import hashlib
import json
import os
import re
import socket
import stat
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate, parsedate_to_datetime
from http import HTTPStatus
from math import inf
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote

STATS = "/-/stats"


@dataclass(slots=True)
class Seen:
    """A request and its response."""

    method: str
    target: str  # as it came over the wire: quoted, and with its query
    headers: dict[str, str]  # names in lower case
    range: tuple[int, int] | None = None  # start and stop of the bytes that it asks for, if they exist
    status: int = 0
    bytes_sent: int = 0  # of the body

    @property
    def path(self):
        return unquote(self.target.partition("?")[0]).lstrip("/")


@dataclass(frozen=True)
class Fault:
    """Answer of a request in place of the valid answer."""

    status: int | None = None  # this status, with these headers and this body
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    end: Literal["close", "reset", "stall"] | None = None  # what the connection does
    after: int | None = None  # so many bytes of the body; None is before any answer
    ignore_range: bool = False
    delay: float = 0  # seconds on top of the server's latency
    over: float = 0  # seconds that the body takes to come


RESET = Fault(end="reset")
CLOSE = Fault(end="close")
SILENT = Fault(end="stall")
WHOLE = Fault(ignore_range=True)


def cut(after, end="close"):
    """A body that is truncated after a number of bytes; the headers have the full length."""
    return Fault(end=end, after=after)


def refuse(status, body=b"", **headers):
    """An error response. `retry_after=1` is the header `Retry-After: 1`."""
    return Fault(status, {name.replace("_", "-"): str(value) for name, value in headers.items()}, body)


def redirect(location, status=302):
    return refuse(status, location=location)


def first(count, fault, path=None):
    """Apply a fault to the first `count` requests, of any path or of this one."""
    left = count

    def choose(seen):
        nonlocal left
        if left <= 0 or path not in {None, seen.path}:
            return None
        left -= 1
        return fault

    return choose


def always(fault, path=None):
    return first(inf, fault, path)


@dataclass(frozen=True, slots=True)
class _Content:
    size: int
    etag: str
    modified: int  # seconds since 1970
    read: Callable[[int, int], bytes]


class RangeServer:
    """Serve the files of a folder and the bytes in `objects`; both may change at any time.

    Attributes
    ----------
    objects
        Path without a leading slash to bytes. It goes before the folder.
    faults
        Functions of a `Seen` to a `Fault` or None. The first fault that any of them returns is what happens.
    etag, last_modified, latency
        What identifies a version of the content, and seconds until a request is answered. Each may be
        changed at any time.
    tls
        An `SSLContext` with which it serves HTTPS, or None.
    log, count, bytes, most_at_once
        Since the last `reset`: every request, how many, bytes of their bodies, and requests in flight.
    """

    def __init__(self, folder=None, *, port=0, latency=0.0, keep_log=True, tls=None):
        self.folder = None if folder is None else Path(folder).resolve()
        self.objects: dict[str, bytes] = {}
        self.faults: list[Callable[[Seen], Fault | None]] = []
        self.etag: Literal["strong", "weak"] | None = "strong"
        self.last_modified = True
        self.latency = latency
        self.keep_log = keep_log
        self.port = port
        self.tls = tls
        self.connections: set[_Connection] = set()
        self.versions: dict[str, tuple[bytes, str, int]] = {}
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.in_flight = 0
        self.reset()

    def __enter__(self):
        self._thread.start()
        assert self._listening.wait(10), "the server does not start"
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    @property
    def url(self):
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    def url_of(self, path):
        return f"{self.url}/{quote(str(path))}"

    def reset(self):
        """Clear the log; faults remain."""
        self.log: list[Seen] = []
        self.count = self.bytes = 0
        self.most_at_once = self.in_flight

    def serve_forever(self, ready=lambda: None):
        """Listen until the loop is stopped, in the calling thread."""
        asyncio.set_event_loop(self._loop)
        listening = self._loop.run_until_complete(
            self._loop.create_server(
                lambda: _Connection(self), "127.0.0.1", self.port, backlog=4096, ssl=self.tls
            )
        )
        self.port = listening.sockets[0].getsockname()[1]
        ready()
        try:
            self._loop.run_forever()
        finally:
            listening.close()
            for connection in tuple(self.connections):
                connection.transport.abort()
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.close()

    def _run(self):
        self.serve_forever(self._listening.set)

    def find(self, path):
        """The content at a path, or None."""
        data = self.objects.get(path)
        if data is not None:
            known = self.versions.get(path)
            if known is None or known[0] is not data:
                etag = hashlib.sha256(data).hexdigest()[:32]
                known = self.versions[path] = (data, etag, int(time.time()))
            return _Content(len(data), known[1], known[2], lambda start, stop: data[start:stop])
        if self.folder is None or ".." in path.split("/"):
            return None
        file = f"{self.folder}/{path}"
        try:
            info = os.stat(file)  # noqa: PTH116 - called for every request
        except (OSError, ValueError):
            return None
        if not stat.S_ISREG(info.st_mode):
            return None
        etag = f"{info.st_mtime_ns:x}-{info.st_size:x}"
        return _Content(info.st_size, etag, int(info.st_mtime), lambda *part: _read(file, *part))

    def answer(self, seen, fault):
        """Status, headers and body of the answer to a request."""
        content = self.find(seen.path)
        if content is not None:
            seen.range = _parse_range(seen.headers.get("range", ""), content.size)
        if fault is not None and fault.status is not None:
            return fault.status, fault.headers, fault.body
        if seen.method not in {"GET", "HEAD"}:
            return HTTPStatus.METHOD_NOT_ALLOWED, {}, b""
        if content is None:
            return HTTPStatus.NOT_FOUND, {}, b"no such file\n"
        headers = self._identity(content)
        failed = _precondition(seen.headers, headers)
        if failed:
            return failed, headers, b""
        headers |= {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        if "range" not in seen.headers or (fault is not None and fault.ignore_range):
            return HTTPStatus.OK, headers, self._body(seen, content, 0, content.size)
        if seen.range is None:
            headers["Content-Range"] = f"bytes */{content.size}"
            return HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers, b""
        start, stop = seen.range
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{content.size}"
        return HTTPStatus.PARTIAL_CONTENT, headers, self._body(seen, content, start, stop)

    def _identity(self, content):
        headers = {}
        if self.etag is not None:
            headers["ETag"] = f'{"W/" if self.etag == "weak" else ""}"{content.etag}"'
        if self.last_modified:
            headers["Last-Modified"] = _date(content.modified)
        return headers

    @staticmethod
    def _body(seen, content, start, stop):
        """The body; for HEAD only its length."""
        return stop - start if seen.method == "HEAD" else content.read(start, stop)


@functools.lru_cache
def _date(seconds):
    return formatdate(seconds, usegmt=True)


def _read(file, start, stop):
    with open(file, "rb", buffering=0) as opened:  # noqa: PTH123 - called for every request
        return os.pread(opened.fileno(), stop - start, start)


def _parse_range(text, size):
    """Start and stop of `bytes=a-b`, `bytes=a-` or `bytes=-n`; None if the range is not satisfiable."""
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", text)
    if found is None or found[0] == "bytes=-":
        return None
    a, b = found.groups()
    start = int(a) if a else max(0, size - int(b))
    stop = min(int(b) + 1, size) if a and b else size
    return (start, stop) if start < stop else None


def _precondition(asked, headers):
    """The status that ends a conditional request early, or None (RFC 9110, 13.2.2)."""
    etag, modified = headers.get("ETag"), headers.get("Last-Modified")
    if "if-match" in asked and etag is not None:
        if asked["if-match"] != "*" and (etag.startswith("W/") or etag not in _etags(asked["if-match"])):
            return HTTPStatus.PRECONDITION_FAILED
    elif "if-unmodified-since" in asked and modified is not None:
        limit = parsedate_to_datetime(asked["if-unmodified-since"])
        if parsedate_to_datetime(modified) > limit:
            return HTTPStatus.PRECONDITION_FAILED
    if "if-none-match" in asked and etag is not None:
        given = {tag.removeprefix("W/") for tag in _etags(asked["if-none-match"])}
        if given & {"*", etag.removeprefix("W/")}:
            return HTTPStatus.NOT_MODIFIED
    return None


def _etags(text):
    return [tag.strip() for tag in text.split(",")]


class _Connection(asyncio.Protocol):
    """One connection: requests are answered in the order in which they come."""

    def __init__(self, server):
        self.server = server
        self.received = b""
        self.waiting = False  # for the answer to a request

    def connection_made(self, transport):
        self.transport = transport
        self.server.connections.add(self)

    def connection_lost(self, _):
        self.server.connections.discard(self)

    def data_received(self, data):
        self.received += data
        self._next()

    def _next(self):
        if self.waiting or self.transport.is_closing():
            return
        head, end, rest = self.received.partition(b"\r\n\r\n")
        if not end:
            return
        self.received = rest
        line, *lines = head.decode("latin-1").split("\r\n")
        pairs = (text.partition(":") for text in lines)
        method, target, _ = line.split(" ")
        seen = Seen(method, target, {name.lower(): value.strip() for name, _, value in pairs})
        if target == STATS:
            self._send_stats()
            return
        server = self.server
        server.count += 1
        server.in_flight += 1
        server.most_at_once = max(server.most_at_once, server.in_flight)
        if server.keep_log:
            server.log.append(seen)
        fault = next((f for f in (choose(seen) for choose in server.faults) if f is not None), None)
        self.waiting = True
        delay = server.latency + (fault.delay if fault else 0)
        if delay:
            server._loop.call_later(delay, self._answer, seen, fault)
        else:
            self._answer(seen, fault)

    def _answer(self, seen, fault):
        self.server.in_flight -= 1
        if self.transport.is_closing():
            return
        if fault is None or fault.end is None or fault.after is not None:
            status, headers, body = self.server.answer(seen, fault)
            head = _head(status, headers, body if isinstance(body, int) else len(body))
            if isinstance(body, int):
                body = b""
            elif fault is not None and fault.end is not None:
                body = body[: fault.after]
            seen.status, seen.bytes_sent = int(status), len(body)
            self.server.bytes += len(body)
            if fault is not None and fault.over and len(body) > 1:
                self.transport.write(head)
                self._trickle(seen, body, -(-len(body) // 10), fault.over / 10)
                return
            self._write(head, body)
        if fault is not None and fault.end is not None:
            self._break(fault.end)
        else:
            self._done(seen)

    def _done(self, seen):
        if seen.method not in {"GET", "HEAD"} or seen.headers.get("connection", "").lower() == "close":
            self.transport.close()
        else:
            self.waiting = False
            self._next()

    def _trickle(self, seen, body, size, pause):
        self.transport.write(body[:size])
        if len(body) > size and not self.transport.is_closing():
            self.server._loop.call_later(pause, self._trickle, seen, body[size:], size, pause)
        else:
            self._done(seen)

    def _write(self, head, body):
        if len(body) < 1 << 16:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            self.transport.write(body)

    def _break(self, end):
        if end == "close":
            self.transport.close()
        elif end == "reset":
            linger = struct.pack("ii", 1, 0)  # a close that discards, which TCP tells the peer as a reset
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.transport.abort()
        # A stalled connection stays open, and its next request unread, until the server stops.

    def _send_stats(self):
        stats = {"requests": self.server.count, "bytes": self.server.bytes}
        body = json.dumps(stats).encode()
        self.server.reset()
        self._write(_head(HTTPStatus.OK, {"Content-Type": "application/json"}, len(body)), body)
        self._next()


def _head(status, headers, length):
    lines = [f"HTTP/1.1 {int(status)} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if status != HTTPStatus.NOT_MODIFIED:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def main():
    parser = argparse.ArgumentParser(description="Serve byte ranges of the files of a folder.")
    parser.add_argument("folder")
    parser.add_argument("--port", type=int, default=0, help="a free one unless told")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds for each request")
    asked = parser.parse_args()
    server = RangeServer(asked.folder, port=asked.port, latency=asked.latency, keep_log=False)

    def announce():
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()

    with suppress(KeyboardInterrupt):
        server.serve_forever(announce)


if __name__ == "__main__":
    main()
