"""Requests to web servers whose answers obstore refuses: parts without a total, files without a length."""

from __future__ import annotations

import http.client
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urljoin, urlsplit
from urllib.request import Request

from lazynwb.config import config
from lazynwb.profile import count
from lazynwb.storage import http_client
from lazynwb.storage.stores.http import headers_of

if TYPE_CHECKING:
    from email.message import Message

    from lazynwb.storage.source import Source

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 5
_PART = re.compile(r"bytes (\d+)-(\d+)/\*")
_EPOCH = datetime.fromtimestamp(0, UTC)


class Answer(NamedTuple):
    """What a server sent.

    Attributes
    ----------
    data : memoryview
        All of it, unless there is more than was allowed.
    is_part : bool
        Whether it is the range that was asked for.
    tag : dict
        The entity tag and the date of the file, as obstore gives them.
    """

    data: memoryview
    is_part: bool
    tag: dict[str, Any]


def get(source: Source, most: int, span: tuple[int, int] | None = None) -> Answer | None:
    """Return a range of a file, or the file; None if the answer makes no sense either.

    Parameters
    ----------
    source : Source
        A URL of a web server.
    most : int
        No more than one byte beyond so many is read.
    span : (start, stop) or None
        The range.
    """
    url, headers = headers_of(source)
    headers = {**headers, "Accept-Encoding": "identity"}
    if span is not None:
        headers["Range"] = f"bytes={span[0]}-{span[1] - 1}"
    for _ in range(_MAX_REDIRECTS):
        if not http_client.is_web_url(url):
            return None
        count(requests=1)
        try:
            with http_client.opener().open(
                Request(url, headers=headers),  # noqa: S310 - it is one of http(s)
                timeout=config.request_timeout,
            ) as answer:
                if answer.status in _REDIRECTS:
                    there = urljoin(url, answer.headers.get("Location", ""))
                    if urlsplit(there)[:2] != urlsplit(url)[:2]:  # no other server sees the user's headers
                        headers = {k: v for k, v in headers.items() if k in {"Range", "Accept-Encoding"}}
                    url = there
                    continue
                return _read(answer, most, span)
        except (OSError, ValueError, http.client.HTTPException):
            return None
    return None


def _read(answer: http.client.HTTPResponse, most: int, span: tuple[int, int] | None) -> Answer | None:
    is_part = answer.status == http.client.PARTIAL_CONTENT
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        return None
    if is_part:
        part = _PART.fullmatch(answer.headers.get("Content-Range", ""))
        if span is None or part is None or int(part[1]) != span[0] or int(part[2]) >= span[1]:
            return None
        most = int(part[2]) + 1 - span[0]
    elif answer.status != http.client.OK:
        return None
    data = memoryview(answer.read(most + 1))
    count(bytes_read=len(data))
    if is_part and len(data) != most:
        return None
    return Answer(data, is_part, _tag(answer.headers))


def _tag(headers: Message) -> dict[str, Any]:
    try:
        modified = parsedate_to_datetime(headers.get("Last-Modified", ""))
    except (ValueError, TypeError):
        modified = _EPOCH
    return {"e_tag": headers.get("ETag"), "last_modified": modified}
