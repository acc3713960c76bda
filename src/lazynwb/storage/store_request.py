"""Requests to object stores and web servers, retried as long as the server asks.

A busy server names in `Retry-After` for how long it wants no requests. obstore does not pass the headers of
refusals on, so one thread asks a web server once more, for a single byte, on behalf of every request that
was refused. Object stores take signed requests only, and hardly ever send the header.
"""

from __future__ import annotations

import http.client
import threading
import time
from typing import TYPE_CHECKING, TypeVar
from urllib.request import Request

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

#: Seconds for which a server that did not say anything is not asked again.
MAX_SILENCE_SECONDS = 1.0


class _Server:
    """When one server was asked, and until when it wants no requests, by the steady clock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.asked = -MAX_SILENCE_SECONDS
        self.until = 0.0


_servers: dict[str, _Server] = {}
_lock = threading.Lock()


def seconds_asked_for(source: Source) -> float:
    """Return for how many seconds the server of a source wants no requests; 0 where it does not say."""
    from lazynwb.storage.stores.http import headers_of

    if not source.path.lower().startswith(("http://", "https://")):
        return 0.0
    url, headers = headers_of(source)
    if not http_client.is_web_url(url):
        return 0.0
    with _lock:
        server = _servers.setdefault(Request(url).host, _Server())  # noqa: S310 - it is one of http(s)
    with server.lock:
        now = time.monotonic()
        if server.until > now:
            return server.until - now
        if now - server.asked < MAX_SILENCE_SECONDS:
            return 0.0
        found = _ask(url, headers)
        server.asked = time.monotonic()
        server.until = server.asked + found
        return found


def forget() -> None:
    """Forget for how long servers want no requests."""
    with _lock:
        _servers.clear()


def _ask(url: str, headers: dict[str, str]) -> float:
    count(requests=1)
    asking = Request(url, headers={**headers, "Range": "bytes=0-0"})  # noqa: S310 - it is one of http(s)
    try:
        with http_client.opener().open(asking, timeout=config.request_timeout) as answer:
            return http_client.retry_after(answer.headers)
    except (OSError, ValueError, http.client.HTTPException):
        return 0.0


def with_retry(source: Source, ask: Callable[[Location], T | Failure]) -> T:
    """Return the answer of a store to a request; see `repeat`.

    Parameters
    ----------
    source : Source
        What is asked for. Where a refused object may be somewhere else by now, it is looked for once.
    ask : callable
        Makes the request. A failure is returned: raised, it would bring obstore's error along as its context.

    Raises
    ------
    LazyNWBError
        If it may not be answered, or the server does not answer as it should, also not when asked again.
    """
    looked_again = False

    def once() -> T | Failure:
        nonlocal looked_again
        answer = _asked(source, ask)
        if isinstance(answer, Failure) and answer.elsewhere and not looked_again:
            looked_again = True
            if _look_again(source, answer):
                return _asked(source, ask)
        return answer

    return repeat(once, lambda _: seconds_asked_for(source))


def _asked(source: Source, ask: Callable[[Location], T | Failure]) -> T | Failure:
    try:
        return ask(locate(source))
    except BaseException as error:
        # A panic of Rust's, as at a line break in a key, is no `Exception`, and its class cannot be imported.
        if type(error).__name__ != "PanicException":
            raise
    message = f"{source.name}: no request can be made of its URL and the credentials: check both"
    return Failure(LazyNWBError(message))


def _look_again(source: Source, failure: Failure) -> bool:
    """Ask where a refused object is now, where that can be asked; return whether it may be found there."""
    look_again = getattr(module_of(source), "look_again", None)
    return look_again is not None and bool(look_again(source, failure.region))
