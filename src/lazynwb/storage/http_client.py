"""A minimal HTTP client without redirects, for requests that obstore does not support."""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import urllib.request
    from email.message import Message

#: Maximum delay in seconds, beyond which `Retry-After` has no meaning.
_MAX_RETRY_AFTER = 1e9


@cache
def opener() -> urllib.request.OpenerDirector:
    """Return an opener that uses the environment's proxies and follows no redirects.

    The default opener of `urllib.request.urlopen` would send the user's key to the target of any redirect.
    """
    import urllib.request

    director = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
    ):
        director.add_handler(handler)
    return director


def is_web_url(text: object) -> bool:
    """Return whether a value is an http(s) URL that needs no further encoding."""
    if not isinstance(text, str) or not is_plain_ascii(text):
        return False
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)


def is_plain_ascii(text: str) -> bool:
    """Return whether a string is printable ASCII without spaces, as requests require."""
    return text.isascii() and text.isprintable() and " " not in text


def retry_after(headers: Message) -> float:
    """Return the delay in seconds of a `Retry-After` header, which may be a date (RFC 9110, 10.2.3)."""
    text = headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return min(float(text), _MAX_RETRY_AFTER)
    from email.utils import parsedate_to_datetime

    try:
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return 0.0
