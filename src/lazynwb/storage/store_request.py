"""Requests to object stores and web servers, with retries that respect `Retry-After`.

A busy server announces in `Retry-After` when it accepts requests again. obstore does not expose the headers
of error responses, so one thread repeats the request for a single byte to read the header, on behalf of all
requests that were refused. This is limited to web servers: object stores require signed requests, and rarely
send the header.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, TypeVar

from lazynwb.config import config
from lazynwb.errors import LazyNWBError
from lazynwb.profile import count
from lazynwb.storage import http_client
from lazynwb.storage.error_mapping import Failure
from lazynwb.storage.retry import repeat
from lazynwb.storage.stores.registry import Location, locate, module_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazynwb.storage.source import Source

T = TypeVar("T")

#: Minimum seconds between two queries of the header, if a server did not send it.
QUERY_INTERVAL_SECONDS = 1.0


class _ServerState:
    """When `Retry-After` of a server was last queried, and until when it applies (monotonic time)."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.queried = -QUERY_INTERVAL_SECONDS
        self.until = 0.0


_servers: dict[str, _ServerState] = {}
_lock = threading.Lock()


def requested_delay(source: Source) -> float:
    """Return the delay in seconds that the server of a source requests; 0 if it requests none."""
    from urllib.request import Request  # late, here and below: Python's HTTP client takes long to import

    from lazynwb.storage.stores.http import headers_of

    if not source.path.lower().startswith(("http://", "https://")):
        return 0.0
    url, headers = headers_of(source)
    if not http_client.is_web_url(url):
        return 0.0
    with _lock:
        server = _servers.setdefault(Request(url).host, _ServerState())  # noqa: S310 - only http(s)
    with server.lock:
        now = time.monotonic()
        if server.until > now:
            return server.until - now
        if now - server.queried < QUERY_INTERVAL_SECONDS:
            return 0.0
        found = _query_retry_after(url, headers)
        server.queried = time.monotonic()
        server.until = server.queried + found
        return found


def forget() -> None:
    """Forget the delays that servers requested."""
    with _lock:
        _servers.clear()


def _query_retry_after(url: str, headers: dict[str, str]) -> float:
    import http.client
    from urllib.request import Request

    count(requests=1)
    asking = Request(url, headers={**headers, "Range": "bytes=0-0"})  # noqa: S310 - only http(s)
    try:
        with http_client.opener().open(asking, timeout=config.request_timeout) as answer:
            return http_client.retry_after(answer.headers)
    except (OSError, ValueError, http.client.HTTPException):
        return 0.0


def with_retry(source: Source, ask: Callable[[Location], T | Failure]) -> T:
    """Make a request to the store of a source until it succeeds; see `repeat`.

    Parameters
    ----------
    source : Source
        Object that is requested. If the store refuses it because it may have moved, it is located again once.
    ask : callable
        Makes one request. It returns a failure rather than raise it, so that obstore's error is not its
        context.

    Raises
    ------
    LazyNWBError
        If access is denied, or all attempts fail.
    """
    looked_again = False

    def once() -> T | Failure:
        nonlocal looked_again
        answer = _request_once(source, ask)
        if isinstance(answer, Failure) and answer.may_have_moved and not looked_again:
            looked_again = True
            if _relocate(source, answer):
                return _request_once(source, ask)
        return answer

    return repeat(once, lambda _: requested_delay(source))


def _request_once(source: Source, ask: Callable[[Location], T | Failure]) -> T | Failure:
    try:
        return ask(locate(source))
    except BaseException as error:
        # A Rust panic, as for a line break in a key, is not an `Exception`, and its class is not importable.
        if type(error).__name__ != "PanicException":
            raise
    message = f"{source.name}: its URL or the credentials are invalid: check both"
    return Failure(LazyNWBError(message))


def _relocate(source: Source, failure: Failure) -> bool:
    """Locate a refused object again if its store supports that; return whether it has a new location."""
    relocate = getattr(module_of(source), "relocate", None)
    return relocate is not None and bool(relocate(source, failure.region))
