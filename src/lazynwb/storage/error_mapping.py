"""Mapping of object-store failures to LazyNWBError with a remedy.

Messages of obstore contain whole URLs with signatures and tokens, so they are neither quoted nor chained.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from obstore import exceptions

from lazynwb.errors import LazyNWBError, NotNWBError, SourceChangedError, SourceNotFoundError

if TYPE_CHECKING:
    from lazynwb.storage.source import Source

# Patterns are compiled by the first error, because queries without errors do not need them.
_STATUS = r"status code: (\d{3})"
_REGION = r"<Region>([a-z0-9-]+)</Region>"
_CODE = r"<Code>(\w{1,40})</Code>"
#: Statuses of a busy server, which is given more time than one that failed: as much as its `Retry-After`
#: header says, if it sends one (`lazynwb.storage.store_request`).
_BUSY = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
PAUSE_SECONDS, BUSY_PAUSE_SECONDS = 0.1, 1.0
#: Server errors that are not transient.
_FINAL = frozenset({HTTPStatus.NOT_IMPLEMENTED, HTTPStatus.HTTP_VERSION_NOT_SUPPORTED})
_ABSENT = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE})
_DENIED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
#: Error codes that S3 sends with status 400: transient ones, and those of expired credentials.
_LATER = frozenset({"RequestTimeout", "Throttling", "ThrottlingException", "RequestThrottled"})
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken"})
#: Schemes of servers whose error bodies are arbitrary text.
_WEB = frozenset({"http", "https", "dandi"})
#: Messages of obstore for a redirect without an address: in S3, a bucket in another region.
_NOWHERE, _ELSEWHERE = "redirect without LOCATION", "AuthorizationHeaderMalformed"
#: Messages of obstore for invalid headers, and for timeouts.
_MALFORMED = r"source: (\w*ContentRange|UnexpectedRange|Header)\b"
_LATE = r"kind: Timeout|source: TimedOut"


class Failure(NamedTuple):
    """A request that failed.

    Attributes
    ----------
    error : LazyNWBError
        Error to raise if the failure is final.
    pause : float or None
        Seconds to wait before a retry; None if a retry cannot help.
    may_have_moved : bool
        Whether the object may have another location by now.
    region : str or None
        Region of the bucket, if the response names one.
    busy : bool
        Whether the server is busy, so that `Retry-After` applies.
    """

    error: LazyNWBError
    pause: float | None = None
    may_have_moved: bool = False
    region: str | None = None
    busy: bool = False


class WebPageError(NotNWBError):
    """A web server sent an HTML page rather than a file."""


def web_page_error(source: Source) -> WebPageError:
    """Return the error for a URL of an HTML page."""
    return WebPageError(
        f"{source.name} is a web page (HTML), not an NWB file: pass the URL that downloads the file itself, "
        "or the URL of a Zarr store"
    )


def transient_failure(source: Source, what: str) -> Failure:
    """Return a failure that a retry may resolve."""
    return Failure(LazyNWBError(f"{source.name}: {what}"), PAUSE_SECONDS)


def changed_error(source: Source, known: str = "", seen: str = "") -> SourceChangedError:
    """Return the error for a file that changed, with descriptions of the old and the new version."""
    what, again = "", ""
    if known:
        what = f" (it was {known}; now it is {seen})"
    if _scheme(source) in _WEB:
        again = "; if the error persists, replicas of the server send different ETags: download the file"
    return SourceChangedError(
        f"{source.name} was changed or replaced while it was being read{what}: run the query again{again}"
    )


def empty_error(source: Source) -> LazyNWBError:
    """Return the error for an empty file."""
    return NotNWBError(f"{source.name} is empty: its transfer may have been interrupted; upload it again")


def has_undecodable_body(error: Exception) -> bool:
    """Return whether the body of an error response is not text, which hides its status."""
    return "FromUtf8Error" in str(error)


def has_malformed_headers(error: Exception) -> bool:
    """Return whether obstore refused a response for its headers."""
    return re.search(_MALFORMED, str(error)) is not None


def explain(source: Source, error: Exception, *, known: bool = False) -> Failure:
    """Return the failure that an error of obstore indicates.

    Parameters
    ----------
    source : Source
    error : Exception
    known : bool
        Whether the requested bytes are known to have existed.
    """
    text = str(error)
    if _NOWHERE in text or _ELSEWHERE in text:
        return _relocation_failure(source, text)
    found = re.search(_STATUS, text)
    status = int(found[1]) if found else _status_of(error)
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or "Wanted range starting at" in text:
        return Failure(changed_error(source) if known else empty_error(source))
    word = _error_code(source, text)
    if _is_transient(status) or (status == HTTPStatus.BAD_REQUEST and word in _LATER):
        named = f", {word}" if word else ""
        message = f"{source.name}: the server is busy or failing (it answers {status}{named})"
        busy = status in _BUSY
        return Failure(LazyNWBError(message), BUSY_PAUSE_SECONDS if busy else PAUSE_SECONDS, busy=busy)
    if status:
        answer = _describe_answer(status, text, word)
        denied = status in _DENIED or (status == HTTPStatus.BAD_REQUEST and word in _EXPIRED)
        return Failure(_refusal_error(source, status, answer, denied=denied), may_have_moved=denied)
    return _connection_failure(source, error, text)


def _is_transient(status: int) -> bool:
    failing = status >= HTTPStatus.INTERNAL_SERVER_ERROR and status not in _FINAL
    return failing or status in _BUSY or status == HTTPStatus.REQUEST_TIMEOUT


def _error_code(source: Source, text: str) -> str:
    """Return the error code of an object store; an empty string for web servers, which have none."""
    found = re.search(_CODE, text) if _scheme(source) not in _WEB else None
    return found[1] if found else ""


def _describe_answer(status: int, text: str, word: str) -> str:
    """Return a description of an error response."""
    if re.search(_STATUS, text) is None:
        return "no credentials could be obtained" if status in _DENIED else str(status)
    return f"the server responds with {status}" + (f", {word}" if word else "")


def _relocation_failure(source: Source, text: str) -> Failure:
    region = re.search(_REGION, text)
    what = (
        'the bucket is in another region: pass storage_options={"region": ...}'
        if _scheme(source) in {"s3", "s3a"}
        else "the server redirects without a target"
    )
    error = LazyNWBError(f"{source.name}: {what}")
    return Failure(error, may_have_moved=True, region=region[1] if region else None)


def _scheme(source: Source) -> str:
    return source.path.partition("://")[0].lower()


def _status_of(error: Exception) -> int:
    for kind, status in (
        (FileNotFoundError, HTTPStatus.NOT_FOUND),
        (exceptions.PermissionDeniedError, HTTPStatus.FORBIDDEN),
        (exceptions.UnauthenticatedError, HTTPStatus.UNAUTHORIZED),
        (exceptions.PreconditionError, HTTPStatus.PRECONDITION_FAILED),
    ):
        if isinstance(error, kind):
            return status
    return 0


def _refusal_error(source: Source, status: int, answer: str, *, denied: bool) -> LazyNWBError:
    name = source.name
    if status in _ABSENT:
        return SourceNotFoundError(
            f"no such file: {name} ({answer}): check the path, and whether the file was moved"
        )
    if status == HTTPStatus.PRECONDITION_FAILED:
        return changed_error(source)
    if denied:
        hint = {
            "http": "check the URL, and the headers in storage_options",
            "https": "check the URL (a signed one expires), and the headers in storage_options",
            "dandi": "an embargoed dandiset requires a key in the environment variable DANDI_API_KEY",
        }.get(
            _scheme(source),
            "check its name, and the credentials in storage_options, the environment or the shared "
            'configuration; storage_options={"skip_signature": True} reads public data without credentials, '
            "False uses the role of the machine",
        )
        return LazyNWBError(f"access to {name} is denied ({answer}): {hint}")
    return LazyNWBError(f"{name} cannot be read: {answer}")


def _connection_failure(source: Source, error: Exception, text: str) -> Failure:
    """Return the failure of a request without a valid response."""
    final = ""
    if isinstance(error, ValueError):
        final = "the name of the object is not valid in a request"
    elif "InvalidCertificate(" in text:
        final = "the server's certificate is not trusted; it may be for another name, or expired"
    elif "source: TooManyRedirects" in text:
        final = "the server redirects in a loop"
    elif re.search(_MALFORMED, text):
        final = "the headers of the response violate HTTP or do not match the request: download the file"
    if final:
        return Failure(LazyNWBError(f"{source.name}: {final}"))
    if re.search(_LATE, text):
        return transient_failure(
            source, "the server did not respond in time (lazynwb.config.request_timeout)"
        )
    if "kind: Connect," in text:
        return transient_failure(source, "the server cannot be reached: check its name and the network")
    if has_undecodable_body(error):
        return transient_failure(source, "the server sent an error that is not text")
    return transient_failure(source, "the connection was lost before the response was complete")
