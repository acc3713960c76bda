"""A proxy that corrupts responses of a real server: by request, at random, or from some request on.

It stands before a web server (`range_server.py`) or an object store (S3, of moto), asks it for what it is
asked for itself, and sends the answer on: whole, in part, late, twice as long, of another range, as another
status, or not at all. In a test::

    with FaultyProxy(server.url) as proxy:
        proxy.choose = first(2, "reset in body")
        read(proxy.url_of("a.nwb"))

`python tests/faulty_proxy.py --queries 1000 --seed 0` runs random queries against random faults
(`faulty_queries.py`), and prints their results.
"""

import gzip
import random
import socket
import socketserver
import struct
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

#: A byte range that is not one of the object's: bytes 0 to 9 stand where others were asked for.
_OTHER = 10
_PHRASES = {200: "OK", 206: "Partial Content", 302: "Found", 307: "Temporary Redirect", 403: "Forbidden"}
_PAGE = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please sign in.</body></html>\n"


@dataclass(frozen=True)
class Asked:
    """A request: `number` counts from 1, and since the last `reset`."""

    number: int
    method: str
    target: str
    headers: dict[str, str]  # names in lower case

    @property
    def path(self):
        return unquote(self.target.partition("?")[0]).lstrip("/")

    @property
    def range(self):
        """Start and stop of the requested range, if it has both."""
        first, _, last = self.headers.get("range", "").removeprefix("bytes=").partition("-")
        return (int(first), int(last) + 1) if first and last else None


@dataclass(frozen=True)
class Answer:
    """Bytes of an answer, and the number of bytes, head included, after which `end` happens."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    length: int | None = None  # what Content-Length says, if not the truth
    end: str | None = None  # "close", "reset", "stall"
    after: int = 0
    version: str = "1.1"
    chunked: bool = False

    def header(self, name):
        return next((value for key, value in self.headers.items() if key.lower() == name.lower()), None)

    def without(self, *names):
        lowered = {name.lower() for name in names}
        return replace(self, headers={k: v for k, v in self.headers.items() if k.lower() not in lowered})

    def having(self, **headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return replace(self, headers=self.without(*named).headers | named)

    @property
    def total(self):
        """Size of the object according to Content-Range."""
        end = (self.header("Content-Range") or "").rpartition("/")[2]
        return int(end) if end.isdecimal() else None

    def head(self, *, is_head):
        lines = [f"HTTP/{self.version} {self.status} {_PHRASES.get(self.status, 'Status')}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if self.chunked:
            lines.append("Transfer-Encoding: chunked")
        elif self.version == "1.1" and not (is_head and self.header("Content-Length")):
            lines.append(f"Content-Length: {len(self.body) if self.length is None else self.length}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


# --- faults -------------------------------------------------------------------------------------------

Fault = Callable[["FaultyProxy", Asked, Answer, random.Random], Answer | None]
#: By name; each gives the spoilt answer, or None where it has nothing to spoil.
FAULTS: dict[str, Fault] = {}
#: Those that a query survives if they are gone when it asks again.
PASSING: set[str] = set()
#: What an object store calls its errors, by the status.
_CODES = {
    400: "ExpiredToken",
    401: "InvalidAccessKeyId",
    403: "AccessDenied",
    408: "RequestTimeout",
    429: "TooManyRequests",
    500: "InternalError",
    502: "BadGateway",
    503: "SlowDown",
    504: "GatewayTimeout",
}


def fault(name, *, passing=False):
    def register(function):
        FAULTS[name] = function
        if passing:
            PASSING.add(name)
        return function

    return register


def _broken(end, part):
    def spoil(_proxy, asked, answer, dice):
        head = len(answer.head(is_head=asked.method == "HEAD"))
        if part == "body" and (len(answer.body) < 2 or asked.method == "HEAD"):
            return None
        after = {
            "answer": 0,
            "headers": dice.randrange(1, head - 2),
            "body": head + dice.randrange(len(answer.body) or 1),
        }[part]
        return replace(answer, end=end, after=after)

    return spoil


for _end in ("close", "reset", "stall"):
    for _part in ("answer", "headers", "body"):
        fault(f"{_end} in {_part}", passing=True)(_broken(_end, _part))


def _status(status, code=None, **headers):
    def spoil(proxy, asked, _answer, dice):
        chosen = {name: value(dice) if callable(value) else value for name, value in headers.items()}
        return proxy.refusal(status, asked, code).having(**chosen)

    return spoil


def _dates(dice):
    return dice.choice(["0", "1", "-3", "1.5", "soon", "Wed, 21 Oct 2015 07:28:00 GMT", "9" * 30, ""])


for _number in (408, 429, 500, 502, 503, 504):
    fault(str(_number), passing=True)(_status(_number))
fault("429 with Retry-After", passing=True)(_status(429, Retry_After=_dates))
fault("503 with Retry-After", passing=True)(_status(503, Retry_After=_dates))
fault("403")(_status(403))
fault("401")(_status(401))
fault("400, expired")(_status(400))
fault("400, a timeout")(_status(400, "RequestTimeout"))


@fault("truncated", passing=True)
def _truncated(_proxy, asked, answer, dice):
    """A body that ends before its Content-Length."""
    if not answer.body or asked.method == "HEAD":
        return None
    kept = answer.body[: dice.randrange(len(answer.body))]
    spoilt = replace(answer, body=kept, length=len(answer.body), end="close")
    return replace(spoilt, after=len(spoilt.head(is_head=False)) + len(kept))


@fault("shorter", passing=True)
def _shorter(_proxy, asked, answer, dice):
    """Fewer bytes than requested; all headers except Content-Range agree with it."""
    if len(answer.body) < 2 or asked.method == "HEAD":
        return None
    return replace(answer, body=answer.body[: dice.randrange(1, len(answer.body))])


@fault("shorter, consistently")
def _shorter_range(_proxy, asked, answer, dice):
    """A part of the requested range, with correct headers."""
    if answer.status != 206 or len(answer.body) < 2 or not asked.range:
        return None
    size = dice.randrange(1, len(answer.body))
    start = asked.range[0]
    described = f"bytes {start}-{start + size - 1}/{answer.total}"
    return replace(answer, body=answer.body[:size]).having(Content_Range=described)


@fault("oversized", passing=True)
def _oversized(_proxy, asked, answer, dice):
    if answer.status != 206:
        return None
    return replace(answer, body=answer.body + dice.randbytes(dice.choice([1, 100, 100_000])))


@fault("another range")
def _another_range(proxy, asked, answer, _dice):
    """Another range of the same length, with correct headers."""
    if answer.status != 206 or not asked.range or answer.total is None:
        return None
    start, size = asked.range[0], len(answer.body)
    begin = start - _OTHER if start >= _OTHER else start + _OTHER
    stop = min(begin + size, answer.total)
    if begin >= stop:
        return None
    return proxy.ask(asked, {**asked.headers, "range": f"bytes={begin}-{stop - 1}"})


@fault("a lie about the size")
def _wrong_total(_proxy, asked, answer, dice):
    """Another total size in each response, as of a truncated or longer file."""
    if answer.total is None or not asked.range:
        return None
    start, size = asked.range[0], len(answer.body)
    # Never less than what is sent: that would contradict itself.
    total = max(answer.total + dice.choice([-8, -1, 1, 1000]), start + size)
    if total == answer.total:
        total += 1
    return answer.having(Content_Range=f"bytes {start}-{start + size - 1}/{total}")


@fault("no Content-Range")
def _no_content_range(_proxy, _asked, answer, _dice):
    return answer.without("Content-Range") if answer.status == 206 else None


@fault("the whole file")
def _whole(proxy, asked, answer, _dice):
    """Status 200 and the whole file in response to a range request."""
    if answer.status != 206:
        return None
    return proxy.ask(asked, {k: v for k, v in asked.headers.items() if k not in {"range", "if-match"}})


@fault("a page in its place")
def _page(_proxy, asked, answer, dice):
    """Status 200 and the HTML of a login page, with and without an ETag."""
    if asked.method == "HEAD" or answer.status >= 300:
        return None
    tags = dice.choice([{}, {"ETag": '"page"'}, {"Last-Modified": "Tue, 03 Nov 2020 00:00:00 GMT"}])
    page = _PAGE * dice.choice([1, 1, 300])
    return Answer(200, {"Content-Type": "text/html", **tags}, page)


@fault("a page as the range")
def _page_as_range(_proxy, asked, answer, _dice):
    if answer.status != 206 or len(answer.body) == len(_PAGE):
        return None
    return replace(answer, body=_PAGE).having(Content_Type="text/html")


@fault("an empty answer", passing=True)
def _empty(_proxy, asked, answer, _dice):
    return replace(answer, body=b"") if answer.body and asked.method != "HEAD" else None


@fault("compressed in transit")
def _gzipped(_proxy, asked, answer, _dice):
    """A compressed response that was not requested."""
    if asked.method == "HEAD" or answer.status >= 300:
        return None
    return replace(answer, body=gzip.compress(answer.body)).having(Content_Encoding="gzip")


@fault("a redirect", passing=True)
def _redirect(proxy, asked, _answer, dice):
    """A redirect to another URL of the same file."""
    if proxy.dialect == "s3" or "moved=" in asked.target:
        return None
    mark = "&" if "?" in asked.target else "?"
    location = f"{asked.target}{mark}moved=1"
    return Answer(dice.choice([302, 307]), {"Location": dice.choice(["", proxy.url]) + location})


@fault("a circle of redirects")
def _circle(proxy, asked, _answer, _dice):
    return None if proxy.dialect == "s3" else Answer(302, {"Location": asked.target})


@fault("in chunks")
def _in_chunks(_proxy, asked, answer, _dice):
    """A chunked response without a length."""
    return replace(answer, chunked=True).without("Content-Length") if asked.method != "HEAD" else None


@fault("HTTP/1.0")
def _old(_proxy, asked, answer, _dice):
    """An HTTP/1.0 response without a length, which ends with the connection."""
    spoilt = replace(answer, version="1.0", end="close").without("Content-Length")
    return replace(spoilt, after=1 << 60) if asked.method != "HEAD" else None


@fault("HTTP/1.0, truncated")
def _old_truncated(_proxy, asked, answer, dice):
    """A truncated HTTP/1.0 response, which only Content-Range reveals."""
    if len(answer.body) < 2 or asked.method == "HEAD":
        return None
    spoilt = replace(answer, version="1.0", end="close").without("Content-Length")
    return replace(spoilt, after=len(spoilt.head(is_head=False)) + dice.randrange(len(answer.body)))


@fault("HEAD is forbidden")
def _no_head(proxy, asked, _answer, _dice):
    return proxy.refusal(405, asked) if asked.method == "HEAD" else None


@fault("corrupted where a checksum tells")
def _corrupted(proxy, asked, answer, dice):
    if answer.status not in {200, 206} or asked.method == "HEAD":
        return None
    start = asked.range[0] if asked.range else 0
    inside = [
        (max(low, start), min(high, start + len(answer.body)))
        for low, high in proxy.checksummed.get(asked.path, [])
        if low < start + len(answer.body) and high > start
    ]
    if not inside:
        return None
    low, high = dice.choice(inside)
    body = bytearray(answer.body)
    body[dice.randrange(low, high) - start] ^= 1 << dice.randrange(8)
    return replace(answer, body=bytes(body))


@fault("replaced")
def _replaced(proxy, asked, _answer, _dice):
    """Replace the objects of a folder by those of another from now on."""
    proxy.instead = dict(proxy.newer)
    return proxy.ask(asked) if proxy.newer else None


# --- schedules of faults ------------------------------------------------------------------------------

Choose = Callable[[Asked], str | None]


def first(count, name, path=None):
    """Apply a fault to the first `count` requests, of any path or of this one."""
    left = [count]

    def choose(asked):
        if left[0] <= 0 or path not in {None, asked.path}:
            return None
        left[0] -= 1
        return name

    return choose


def always(name, path=None):
    return lambda asked: name if path in {None, asked.path} else None


def since(number, name, until=1 << 60):
    """Apply a fault to every request from this one on."""
    return lambda asked: name if number <= asked.number < until else None


def by_chance(dice, share, names):
    """Apply random faults to a share of the requests."""
    return lambda _: dice.choice(names) if dice.random() < share else None


# --- the server ---------------------------------------------------------------------------------------


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 256


class FaultyProxy:
    """A proxy in front of a server, in threads of this process.

    Parameters
    ----------
    upstream : str
        URL of the server.
    dialect : {"web", "s3"}
        In what words its errors are.
    seed : int
        Of what is left to chance within a fault.

    Attributes
    ----------
    choose
        Function of an `Asked` to the name of a fault, or None.
    checksummed
        Parts of objects, by path, every bit of which some checksum covers.
    newer
        Paths of objects, and those of their newer versions.
    log, met
        Since the last `reset`: every request, and how often which fault was met.
    """

    def __init__(self, upstream, dialect="web", seed=0):
        self.host = urlsplit(upstream).netloc
        self.dialect = dialect
        self.choose: Choose = lambda _: None
        self.checksummed: dict[str, list[tuple[int, int]]] = {}
        self.newer: dict[str, str] = {}
        self.dice = random.Random(seed)  # noqa: S311 - nothing is kept secret
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._server = _Server(("127.0.0.1", 0), lambda *args: _Handler(self, *args))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.reset()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def url_of(self, path):
        return f"{self.url}/{quote(str(path))}"

    def reset(self, choose=lambda _: None):
        """Clear the log and replacements, and select faults by this function from now on."""
        with self._lock:
            self.choose = choose
            self.instead: dict[str, str] = {}
            self.log: list[Asked] = []
            self.met: Counter[str] = Counter()

    @property
    def count(self):
        return len(self.log)

    def answer(self, method, target, headers, connection):
        """Return a request, and the answer to it."""
        with self._lock:
            asked = Asked(len(self.log) + 1, method, target, headers)
            self.log.append(asked)
            name = self.choose(asked)
            dice = random.Random(self.dice.random())  # noqa: S311 - the same
        answer = self.ask(asked, connection=connection)
        if name is not None:
            spoilt = FAULTS[name](self, asked, answer, dice)
            if spoilt is not None:
                with self._lock:
                    self.met[name] += 1
                return asked, spoilt
        return asked, answer

    def ask(self, asked, headers=None, connection=None):
        """Forward a request to the server."""
        path, mark, query = asked.target.partition("?")
        instead = self.instead.get(unquote(path).lstrip("/"))
        target = path if instead is None else f"/{quote(instead)}"
        own = connection or HTTPConnection(self.host, timeout=30)
        sent = {k: v for k, v in (headers or asked.headers).items() if k != "connection"}
        try:
            own.request(asked.method, target + mark + query, headers=sent)
            found = own.getresponse()
            body = found.read()
        finally:
            if connection is None:
                own.close()
        left_out = {"connection", "transfer-encoding", "keep-alive", "server", "date"}
        if asked.method != "HEAD":
            left_out.add("content-length")
        kept = {k: v for k, v in found.getheaders() if k.lower() not in left_out}
        return Answer(found.status, kept, body)

    def refusal(self, status, asked, code=None):
        """Return an error response in the format of the server."""
        headers = {"Content-Type": "text/plain"}
        body = f"<html>{status}: status code: 404</html>".encode()
        if self.dialect == "s3":
            headers["Content-Type"] = "application/xml"
            word = code or _CODES.get(status, "Error")
            body = (
                f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{word}</Code><Message>No.</Message>'
                f"<Resource>/{asked.path}</Resource><RequestId>4442587FB7D0A2F9</RequestId></Error>"
            ).encode()
        return Answer(status, headers, b"" if asked.method == "HEAD" else body)

    def has_ended(self, seconds):
        return self._ended.wait(seconds)


class _Handler(socketserver.StreamRequestHandler):
    """One connection."""

    def __init__(self, proxy, *args):
        self.proxy = proxy
        super().__init__(*args)

    def handle(self):
        connection = HTTPConnection(self.proxy.host, timeout=30)
        try:
            with suppress(OSError, HTTPException):
                while self._one(connection):
                    pass
        finally:
            connection.close()

    def _one(self, connection):
        line = self.rfile.readline(65536).decode("latin-1").split()
        if len(line) != 3:
            return False
        headers = {}
        while text := self.rfile.readline(65536).decode("latin-1").strip():
            name, _, value = text.partition(":")
            headers[name.lower()] = value.strip()
        self.rfile.read(int(headers.get("content-length", 0)))
        asked, answer = self.proxy.answer(line[0], line[1], headers, connection)
        is_head = asked.method == "HEAD"
        head = answer.head(is_head=is_head)
        body = b"" if is_head else answer.body
        if answer.chunked:
            half = len(body) // 2
            pieces = [piece for piece in (body[:half], body[half:]) if piece]
            body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        data = head + body
        self.wfile.write(data if answer.end is None else data[: answer.after])
        if answer.end is None:
            return headers.get("connection", "").lower() != "close"
        if answer.end == "stall":
            self._wait()
        elif answer.end == "reset":
            # A close that discards, which TCP tells the peer as a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        return False

    def _wait(self):
        """Send nothing until the client disconnects or the proxy ends."""
        self.connection.settimeout(0)
        while not self.proxy.has_ended(0.02):
            with suppress(BlockingIOError):
                if not self.connection.recv(65536):
                    return


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    from faulty_queries import main

    main()
