"""Plain requests to web servers, for what is not the bytes of a file."""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import urllib.request
    from email.message import Message

#: Seconds that nobody waits for.
_FOR_EVER = 1e9


@cache
def opener() -> urllib.request.OpenerDirector:
    """Return what makes requests, through the environment's proxies, and no more than that.

    What `urllib.request.urlopen` uses would follow redirects, and take the user's key along to anywhere.
    """
    import urllib.request

    made = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
    ):
        made.add_handler(handler)
    return made


def is_web_url(text: object) -> bool:
    """Return whether something is an http(s) URL that can be asked for as it is."""
    if not isinstance(text, str) or not is_plain(text):
        return False
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)


def is_plain(text: str) -> bool:
    """Return whether a text can stand in a request as it is."""
    return text.isascii() and text.isprintable() and " " not in text


def retry_after(headers: Message) -> float:
    """Return for how many seconds a server asks to be left alone; it may name a date (RFC 9110, 10.2.3)."""
    text = headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return min(float(text), _FOR_EVER)
    from email.utils import parsedate_to_datetime

    try:
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return 0.0
