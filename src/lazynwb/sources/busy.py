"""How long a busy web server asks to be left alone: the header `Retry-After`.

obstore does not pass headers of refusals on, so that the server is asked once more, for a byte: by one
thread, on behalf of all that it turned away. Object stores take signed requests only, and hardly send the
header.
"""

from __future__ import annotations

import http.client
import threading
import time
from typing import TYPE_CHECKING
from urllib.request import Request

from lazynwb.config import config
from lazynwb.profile import count
from lazynwb.sources import web

if TYPE_CHECKING:
    from lazynwb.sources.source import Source

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
    from lazynwb.sources.stores.http import headers_of

    if not source.path.lower().startswith(("http://", "https://")):
        return 0.0
    url, headers = headers_of(source)
    if not web.is_web_url(url):
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
    """Forget what servers said."""
    with _lock:
        _servers.clear()


def _ask(url: str, headers: dict[str, str]) -> float:
    count(requests=1)
    asking = Request(url, headers={**headers, "Range": "bytes=0-0"})  # noqa: S310 - it is one of http(s)
    try:
        with web.opener().open(asking, timeout=config.request_timeout) as answer:
            return web.retry_after(answer.headers)
    except (OSError, ValueError, http.client.HTTPException):
        return 0.0
