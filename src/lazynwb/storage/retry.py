"""Retry with backoff, for requests to stores, web servers and the DANDI archive.

A busy server names in `Retry-After` for how long it wants no requests. obstore does not pass headers of
refusals on, so that a web server is asked once more, for a byte: by one thread, on behalf of all that it
turned away.
Object stores take signed requests only, and hardly send the header.
"""

from __future__ import annotations

import http.client
import math
import random
import threading
import time
from typing import TYPE_CHECKING, TypeVar
from urllib.request import Request

from lazynwb.config import config
from lazynwb.errors import LazyNWBError
from lazynwb.profile import count
from lazynwb.storage import http_client
from lazynwb.storage.error_mapping import Failure
from lazynwb.storage.stores.registry import Location, locate, module_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazynwb.storage.source import Source

#: Seconds for which a server that did not say anything is not asked again.
_SILENCE = 1.0


class _Server:
    """When one server was asked, and until when it wants no requests, by the steady clock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.asked = -_SILENCE
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
        if now - server.asked < _SILENCE:
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


#: Seconds before a request is repeated for the last time, at most.
_LONGEST_PAUSE = 20.0
T = TypeVar("T")


def repeat(ask: Callable[[], T | Failure], seconds_to_wait: Callable[[Failure], float]) -> T:
    """Make a request until it succeeds, or has been made often enough.

    Parameters
    ----------
    ask : callable
        Makes the request. A failure is returned: raised, it would bring the library's error as its context.
    seconds_to_wait : callable
        Returns for how long the server wants no requests; called for failures that say it is busy.

    Raises
    ------
    LazyNWBError
        That of the last failure, once it is final, or after `config.max_retries` or `config.retry_seconds`.
    """
    deadline = 0.0
    tries = 0
    while True:
        answer = ask()
        if not isinstance(answer, Failure):
            return answer
        tries += 1
        if answer.pause is None:
            raise answer.error
        # From the first failure on: a request may have had to wait for its turn.
        deadline = deadline or time.monotonic() + config.retry_seconds
        pause = min(answer.pause * 2 ** (tries - 1), _LONGEST_PAUSE)
        pause *= random.uniform(1, 1.4)  # noqa: S311 - so that many clients do not come back together
        later = ""
        if answer.busy and tries <= config.max_retries:
            asked = seconds_to_wait(answer)
            if asked:
                pause = asked * random.uniform(1, 1.1)  # noqa: S311 - the same
                later = f"; it asks to be left alone for {math.ceil(asked)} s: run the query again then"
        if tries > config.max_retries or time.monotonic() + pause > deadline:
            raise type(answer.error)(f"{answer.error} (tried {tries} time{'s' if tries > 1 else ''}{later})")
        count(retries=1)
        time.sleep(pause)


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
