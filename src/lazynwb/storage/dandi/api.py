"""Client of the REST API of a DANDI archive: JSON documents, paginated listings, authorization."""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.request
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode, urljoin, urlsplit

from lazynwb._version import __version__
from lazynwb.config import config
from lazynwb.errors import LazyNWBError, SourceNotFoundError
from lazynwb.profile import count
from lazynwb.storage.error_mapping import Failure
from lazynwb.storage.http_client import is_plain_ascii, is_web_url, opener, retry_after
from lazynwb.storage.retry import repeat

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from email.message import Message

#: The environment variable with the API key, which is also that of the archive's own client.
KEY_VARIABLE = "DANDI_API_KEY"

#: Seconds before the first retry.
_FIRST_PAUSE = 0.5
#: Maximum size of a response; a page of a thousand assets with metadata has a few MiB.
MAX_BYTES = 64 * 1024 * 1024
MAX_PAGES = 10_000
_PIECE = 64 * 1024

_OK, _UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _TOO_MANY, _SERVER_ERROR = 200, 401, 403, 404, 429, 500
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class AbsentError(SourceNotFoundError):
    """The archive has no resource at a path."""


class _Answer(NamedTuple):
    status: int
    headers: Message
    body: bytes


def api_url() -> str:
    """Return the base URL of the API without a trailing slash.

    Raises
    ------
    LazyNWBError
        If `config.dandi_api_url` is not the URL of a web server.
    """
    url = config.dandi_api_url.rstrip("/")
    if not is_web_url(url) or "@" in url or "?" in url:
        raise LazyNWBError(
            "lazynwb.config.dandi_api_url is not the URL of an API, such as https://api.dandiarchive.org/api"
        )
    return url


def key() -> str:
    """Return the user's API key, or an empty string.

    Raises
    ------
    LazyNWBError
        If the value is not a valid key, because it would break the headers of requests.
    """
    found = os.environ.get(KEY_VARIABLE, "").strip()
    if not is_plain_ascii(found):
        raise LazyNWBError(
            f"the environment variable {KEY_VARIABLE} is not a valid key: copy it from the archive's website"
        )
    return found


def authorization() -> tuple[tuple[str, str], ...]:
    """Return the authorization header; nothing without a key."""
    found = key()
    return (("Authorization", f"token {found}"),) if found else ()


def get(path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the JSON object at a path of the API.

    Raises
    ------
    AbsentError
        If it does not exist.
    LazyNWBError
        If access is denied, or the response is invalid.
    """
    return _json(_url(path, query), path)


def pages(path: str, query: Mapping[str, str]) -> Iterator[list[dict[str, Any]]]:
    """Yield the pages of a listing lazily; raise as `get` does."""
    seen: set[str] = set()
    url: str | None = _url(path, query)
    while url is not None:
        seen.add(url)
        page = _json(url, path)
        results, following = page.get("results"), page.get("next")
        if not isinstance(results, list) or not all(isinstance(entry, dict) for entry in results):
            raise unexpected_answer_error(path, "no list of results")
        yield results
        url = _next_page_url(following, url, path)
        if url is not None and (url in seen or len(seen) >= MAX_PAGES or not results):
            raise unexpected_answer_error(path, "its pages repeat or never end")


def redirect(path: str) -> str:
    """Return the target of a redirect at a path of the API, without following it.

    The URL may be signed, so it must not appear in messages, logs or files.
    """
    answer = _request(_url(path), path)
    location = answer.headers.get("Location", "")
    if answer.status not in _REDIRECTS or not is_web_url(location):
        raise unexpected_answer_error(path, f"status {answer.status}, no redirect")
    return location


def unexpected_answer_error(path: str, what: str) -> LazyNWBError:
    """Return the error for a response that does not conform to the API."""
    return LazyNWBError(
        f"{api_url()}/{path} sent a response that is not of the DANDI API ({what}): "
        "check lazynwb.config.dandi_api_url, or try again later"
    )


def _url(path: str, query: Mapping[str, str] | None = None) -> str:
    return f"{api_url()}/{path}" + (f"?{urlencode(query)}" if query else "")


def _next_page_url(link: object, url: str, path: str) -> str | None:
    """Return the URL of the next page; it must be on the same server, which receives the user's key."""
    if link is None:
        return None
    joined = urljoin(url, link) if isinstance(link, str) else ""
    if not is_web_url(joined) or urlsplit(joined)[:2] != urlsplit(url)[:2]:
        raise unexpected_answer_error(path, "its next page is on another server")
    return joined


def _json(url: str, path: str) -> dict[str, Any]:
    answer = _request(url, path)
    if answer.status != _OK:
        raise unexpected_answer_error(path, f"status {answer.status}")
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        raise unexpected_answer_error(path, "invalid JSON") from None
    if not isinstance(found, dict):
        raise unexpected_answer_error(path, "not a JSON object")
    return found


# -- one request --------------------------------------------------------------------------------------


def _request(url: str, path: str) -> _Answer:
    """Make a request with retries."""
    headers = {"Accept": "application/json", "Accept-Encoding": "gzip", **dict(authorization())}
    headers["User-Agent"] = f"lazynwb/{__version__}"
    asked_to_wait = 0.0

    def once() -> _Answer | Failure:
        nonlocal asked_to_wait
        try:
            answer = _send(urllib.request.Request(url, headers=headers), path)  # noqa: S310 - http(s), see `api_url`
        except (OSError, http.client.HTTPException, zlib.error) as error:
            return _failure(path, _describe(error))
        if answer.status != _TOO_MANY and answer.status < _SERVER_ERROR:
            return answer
        asked_to_wait = retry_after(answer.headers)
        return _failure(path, f"status {answer.status}", busy=True)

    return _check_permission(repeat(once, lambda _: asked_to_wait), path)


def _failure(path: str, problem: str, *, busy: bool = False) -> Failure:
    error = LazyNWBError(
        f"{api_url()}/{path} cannot be read ({problem}): check the connection, or try again later"
    )
    return Failure(error, _FIRST_PAUSE, busy=busy)


def _check_permission(answer: _Answer, path: str) -> _Answer:
    if answer.status == _NOT_FOUND:
        raise AbsentError(f"{api_url()} has no {path}")
    if answer.status not in {_UNAUTHORIZED, _FORBIDDEN}:
        return answer
    if not key():
        hint = (
            f"if it is embargoed, set the environment variable {KEY_VARIABLE} to the key of an account with "
            "access"
        )
    elif answer.status == _UNAUTHORIZED:
        hint = (
            f"the key in the environment variable {KEY_VARIABLE} is invalid: copy it again from the "
            "archive's website, or unset it to read open data"
        )
    else:
        hint = f"ask its owners for access with the account of the key in {KEY_VARIABLE}"
    raise LazyNWBError(f"access to {api_url()}/{path} is denied (status {answer.status}): {hint}")


def _send(request: urllib.request.Request, path: str) -> _Answer:
    count(requests=1)
    seconds = config.request_timeout or 1.0
    deadline = time.monotonic() + 2 * seconds
    with opener().open(request, timeout=seconds) as response:
        body = _read_body(response, path, deadline) if response.status == _OK else b""
        return _Answer(response.status, response.headers, body)


def _read_body(response: http.client.HTTPResponse, path: str, deadline: float) -> bytes:
    """Read the body of a response, with limits of its size and its duration."""
    if "json" not in response.headers.get("Content-Type", ""):
        return b""
    read = bytearray()
    while piece := response.read1(_PIECE):
        read += piece
        if len(read) > MAX_BYTES:
            raise unexpected_answer_error(path, "too long")
        if time.monotonic() > deadline:
            raise TimeoutError("timed out")
    if response.length:
        raise http.client.IncompleteRead(bytes(read), response.length)
    if response.headers.get("Content-Encoding", "").lower() != "gzip":
        return bytes(read)
    inflate = zlib.decompressobj(wbits=31)
    plain = inflate.decompress(read, MAX_BYTES)
    if inflate.unconsumed_tail:
        raise unexpected_answer_error(path, "too long")
    if not inflate.eof:
        raise http.client.IncompleteRead(bytes(read))
    return plain


def _describe(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, TimeoutError):
        return "timeout"
    if isinstance(reason, OSError):
        return reason.strerror or type(reason).__name__
    return "incomplete response"
