"""Requests to web servers whose responses obstore refuses: ranges without a total, files without a length."""

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
    """The response of a server.

    Attributes
    ----------
    data : memoryview
        The body; one byte more than the limit if the body exceeds the limit.
    is_part : bool
        Whether the body is the requested range.
    version : dict
        The entity tag and the date of the file, under obstore's names.
    """

    data: memoryview
    is_part: bool
    version: dict[str, Any]


def get(source: Source, max_bytes: int, span: tuple[int, int] | None = None) -> Answer | None:
    """Return a range of a file or the whole file; None if this response is invalid, too.

    Parameters
    ----------
    source : Source
        A URL of a web server.
    max_bytes : int
        Maximum size of a whole file; at most one byte more is read.
    span : (start, stop) or None
        The range; None for the whole file.
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
                Request(url, headers=headers),  # noqa: S310 - only http(s)
                timeout=config.request_timeout,
            ) as answer:
                if answer.status in _REDIRECTS:
                    target = urljoin(url, answer.headers.get("Location", ""))
                    if (
                        urlsplit(target)[:2] != urlsplit(url)[:2]
                    ):  # keep the user's headers from other servers
                        headers = {k: v for k, v in headers.items() if k in {"Range", "Accept-Encoding"}}
                    url = target
                    continue
                return _read(answer, max_bytes, span)
        except (OSError, ValueError, http.client.HTTPException):
            return None
    return None


def _read(answer: http.client.HTTPResponse, max_bytes: int, span: tuple[int, int] | None) -> Answer | None:
    is_part = answer.status == http.client.PARTIAL_CONTENT
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        return None
    if is_part:
        part = _PART.fullmatch(answer.headers.get("Content-Range", ""))
        if span is None or part is None or int(part[1]) != span[0] or int(part[2]) >= span[1]:
            return None
        max_bytes = int(part[2]) + 1 - span[0]
    elif answer.status != http.client.OK:
        return None
    data = memoryview(answer.read(max_bytes + 1))
    count(bytes_read=len(data))
    if is_part and len(data) != max_bytes:
        return None
    return Answer(data, is_part, _version_headers(answer.headers))


def _version_headers(headers: Message) -> dict[str, Any]:
    try:
        modified = parsedate_to_datetime(headers.get("Last-Modified", ""))
    except (ValueError, TypeError):
        modified = _EPOCH
    return {"e_tag": headers.get("ETag"), "last_modified": modified}
