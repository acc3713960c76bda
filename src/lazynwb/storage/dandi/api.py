"""Requests to the REST API of a DANDI archive: pages of JSON, and a key for what is embargoed."""

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
from lazynwb.storage.http_client import is_plain, is_web_url, retry_after
from lazynwb.storage.http_client import opener as _opener
from lazynwb.storage.retry import repeat

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from email.message import Message

#: The environment variable that the archive's own client takes its key from, too.
KEY_VARIABLE = "DANDI_API_KEY"

#: Seconds before a request is repeated for the first time.
_FIRST_PAUSE = 0.5
#: A page of a thousand assets with their metadata has a few MiB.
MAX_BYTES = 64 * 1024 * 1024
MAX_PAGES = 10_000
_PIECE = 64 * 1024

_OK, _UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _TOO_MANY, _SERVER_ERROR = 200, 401, 403, 404, 429, 500
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class AbsentError(SourceNotFoundError):
    """The archive has nothing at an address."""


class _Answer(NamedTuple):
    status: int
    headers: Message
    body: bytes


def api_url() -> str:
    """Return the address of the API, without a slash at its end.

    Raises
    ------
    LazyNWBError
        If `config.dandi_api_url` is not the URL of a web server.
    """
    url = config.dandi_api_url.rstrip("/")
    if not is_web_url(url) or "@" in url or "?" in url:
        raise LazyNWBError(
            "lazynwb.config.dandi_api_url is no URL of an API, such as https://api.dandiarchive.org/api"
        )
    return url


def key() -> str:
    """Return the user's key of the archive, or an empty string.

    Raises
    ------
    LazyNWBError
        If it cannot be a key: it would break the request that it is put into.
    """
    found = os.environ.get(KEY_VARIABLE, "").strip()
    if not is_plain(found):
        raise LazyNWBError(
            f"the environment variable {KEY_VARIABLE} holds no key: copy it from the archive's website"
        )
    return found


def authorization() -> tuple[tuple[str, str], ...]:
    """Return the headers that say who is asking; none without a key."""
    found = key()
    return (("Authorization", f"token {found}"),) if found else ()


def get(path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the JSON object at a path of the API.

    Raises
    ------
    AbsentError
        If there is none.
    LazyNWBError
        If it may not be read, or the archive does not answer as it should.
    """
    return _json(_url(path, query), path)


def pages(path: str, query: Mapping[str, str]) -> Iterator[list[dict[str, Any]]]:
    """Yield the pages of a listing, each when it is asked for; see `get` for what is raised."""
    seen: set[str] = set()
    url: str | None = _url(path, query)
    while url is not None:
        seen.add(url)
        page = _json(url, path)
        results, following = page.get("results"), page.get("next")
        if not isinstance(results, list) or not all(isinstance(entry, dict) for entry in results):
            raise unexpected(path, "no list of results")
        yield results
        url = _following(following, url, path)
        if url is not None and (url in seen or len(seen) >= MAX_PAGES or not results):
            raise unexpected(path, "its pages do not end")


def redirect(path: str) -> str:
    """Return where the API sends those who want what is at a path, without going there.

    The address may let anybody in who knows it: it is not for messages, logs or files.
    """
    answer = _ask(_url(path), path)
    location = answer.headers.get("Location", "")
    if answer.status not in _REDIRECTS or not is_web_url(location):
        raise unexpected(path, f"status {answer.status}, no redirect")
    return location


def unexpected(path: str, what: str) -> LazyNWBError:
    """Return the error of an answer that the API would not give."""
    return LazyNWBError(
        f"{api_url()}/{path} gave an answer that is not the DANDI API's ({what}): "
        "check lazynwb.config.dandi_api_url, or try again later"
    )


def _url(path: str, query: Mapping[str, str] | None = None) -> str:
    return f"{api_url()}/{path}" + (f"?{urlencode(query)}" if query else "")


def _following(link: object, url: str, path: str) -> str | None:
    """Return the next page's URL; one of another server would be sent the user's key."""
    if link is None:
        return None
    joined = urljoin(url, link) if isinstance(link, str) else ""
    if not is_web_url(joined) or urlsplit(joined)[:2] != urlsplit(url)[:2]:
        raise unexpected(path, "its next page is elsewhere")
    return joined


def _json(url: str, path: str) -> dict[str, Any]:
    answer = _ask(url, path)
    if answer.status != _OK:
        raise unexpected(path, f"status {answer.status}")
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        raise unexpected(path, "no JSON") from None
    if not isinstance(found, dict):
        raise unexpected(path, "no JSON object")
    return found


# -- one request --------------------------------------------------------------------------------------


def _ask(url: str, path: str) -> _Answer:
    """Make a request until it is answered, or has been made often enough."""
    headers = {"Accept": "application/json", "Accept-Encoding": "gzip", **dict(authorization())}
    headers["User-Agent"] = f"lazynwb/{__version__}"
    asked_to_wait = 0.0

    def once() -> _Answer | Failure:
        nonlocal asked_to_wait
        try:
            answer = _send(urllib.request.Request(url, headers=headers), path)  # noqa: S310 - http(s), see `api_url`
        except (OSError, http.client.HTTPException, zlib.error) as error:
            return _failed(path, _in_words(error))
        if answer.status != _TOO_MANY and answer.status < _SERVER_ERROR:
            return answer
        asked_to_wait = retry_after(answer.headers)
        return _failed(path, f"status {answer.status}", busy=True)

    return _allowed(repeat(once, lambda _: asked_to_wait), path)


def _failed(path: str, problem: str, *, busy: bool = False) -> Failure:
    error = LazyNWBError(
        f"{api_url()}/{path} cannot be read ({problem}): check the connection, or try again later"
    )
    return Failure(error, _FIRST_PAUSE, busy=busy)


def _allowed(answer: _Answer, path: str) -> _Answer:
    if answer.status == _NOT_FOUND:
        raise AbsentError(f"{api_url()} has no {path}")
    if answer.status not in {_UNAUTHORIZED, _FORBIDDEN}:
        return answer
    if not key():
        hint = (
            f"if it is embargoed, set the environment variable {KEY_VARIABLE} to the key of an account that "
            "may read it"
        )
    elif answer.status == _UNAUTHORIZED:
        hint = (
            f"the key in the environment variable {KEY_VARIABLE} is not accepted: copy it again from the "
            "archive's website, or unset it to read what is open"
        )
    else:
        hint = f"ask its owners to let in the account of the key in the environment variable {KEY_VARIABLE}"
    raise LazyNWBError(f"{api_url()}/{path} may not be read (status {answer.status}): {hint}")


def _send(request: urllib.request.Request, path: str) -> _Answer:
    count(requests=1)
    seconds = config.request_timeout or 1.0
    deadline = time.monotonic() + 2 * seconds
    with _opener().open(request, timeout=seconds) as response:
        body = _body(response, path, deadline) if response.status == _OK else b""
        return _Answer(response.status, response.headers, body)


def _body(response: http.client.HTTPResponse, path: str, deadline: float) -> bytes:
    """Read what came, which may be neither endless nor endlessly slow."""
    if "json" not in response.headers.get("Content-Type", ""):
        return b""
    read = bytearray()
    while piece := response.read1(_PIECE):
        read += piece
        if len(read) > MAX_BYTES:
            raise unexpected(path, "too long")
        if time.monotonic() > deadline:
            raise TimeoutError("timed out")
    if response.length:
        raise http.client.IncompleteRead(bytes(read), response.length)
    if response.headers.get("Content-Encoding", "").lower() != "gzip":
        return bytes(read)
    inflate = zlib.decompressobj(wbits=31)
    plain = inflate.decompress(read, MAX_BYTES)
    if inflate.unconsumed_tail:
        raise unexpected(path, "too long")
    if not inflate.eof:
        raise http.client.IncompleteRead(bytes(read))
    return plain


def _in_words(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, TimeoutError):
        return "no answer in time"
    if isinstance(reason, OSError):
        return reason.strerror or type(reason).__name__
    return "the answer broke off"
