"""What it means when a store refuses or fails, in words that its user can act on.

obstore's own messages quote whole URLs, with whatever signatures and tokens are in them: nothing of theirs is
passed on, nor are they chained.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from obstore import exceptions

from lazynwb.errors import LazyNWBError, NotNWBError, SourceChangedError, SourceNotFoundError

if TYPE_CHECKING:
    from lazynwb.storage.source import Source

_STATUS = re.compile(r"status code: (\d{3})")
_REGION = re.compile(r"<Region>([a-z0-9-]+)</Region>")
_CODE = re.compile(r"<Code>(\w{1,40})</Code>")
#: Answers that say: later. A server that asks to be left alone is given more time than one that stumbled: as
#: much as it asks for, where it says so (`lazynwb.storage.store_request`).
_BUSY = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
PAUSE_SECONDS, BUSY_PAUSE_SECONDS = 0.1, 1.0
#: Errors of a server that are no accidents.
_FINAL = frozenset({HTTPStatus.NOT_IMPLEMENTED, HTTPStatus.HTTP_VERSION_NOT_SUPPORTED})
_ABSENT = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE})
_DENIED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
#: What S3 says with the status 400: that it did not wait any longer, or that credentials are of no use now.
_LATER = frozenset({"RequestTimeout", "Throttling", "ThrottlingException", "RequestThrottled"})
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken"})
#: Schemes of servers whose errors may be any text.
_WEB = frozenset({"http", "https", "dandi"})
#: What obstore says of a redirect without an address: of S3, that a bucket is in another region.
_NOWHERE, _ELSEWHERE = "redirect without LOCATION", "AuthorizationHeaderMalformed"
#: What obstore says when it cannot make sense of headers, and when it waited too long.
_MALFORMED = re.compile(r"source: (\w*ContentRange|UnexpectedRange|Header)\b")
_LATE = re.compile(r"kind: Timeout|source: TimedOut")


class Failure(NamedTuple):
    """A request that failed.

    Attributes
    ----------
    error : LazyNWBError
        In the words for its user.
    pause : float or None
        Seconds after which another try may help; None where it cannot.
    elsewhere : bool
        Whether the object may be somewhere else by now.
    region : str or None
        The region that the store names, if it does.
    busy : bool
        Whether the server asks to be left alone for a while.
    """

    error: LazyNWBError
    pause: float | None = None
    elsewhere: bool = False
    region: str | None = None
    busy: bool = False


class WebPageError(NotNWBError):
    """A web server answered with a page rather than a file."""


def web_page(source: Source) -> WebPageError:
    """Return the error of an address that shows a page."""
    return WebPageError(
        f"{source.name} is a web page (HTML), not an NWB file: pass the address that downloads the "
        "file itself, or that of a Zarr store"
    )


def passing(source: Source, what: str) -> Failure:
    """Return a failure that may well be over with the next try."""
    return Failure(LazyNWBError(f"{source.name}: {what}"), PAUSE_SECONDS)


def changed(source: Source, known: str = "", seen: str = "") -> SourceChangedError:
    """Return the error of a file that is another one by now, with its version before and now."""
    what, again = "", ""
    if known:
        what = f" (it was {known}, and is {seen})"
    if _scheme(source) in _WEB:
        again = "; if that does not help, replicas of the server disagree about its ETag: download the file"
    return SourceChangedError(
        f"{source.name} was changed or replaced while it was being read{what}: run the query again{again}"
    )


def empty(source: Source) -> LazyNWBError:
    """Return the error of a file without any bytes."""
    return NotNWBError(f"{source.name} is empty: was the transfer that wrote it interrupted?")


def is_unreadable(error: Exception) -> bool:
    """Return whether a refusal came with bytes that are no text, which hides its status."""
    return "FromUtf8Error" in str(error)


def is_malformed(error: Exception) -> bool:
    """Return whether obstore refused an answer for its headers."""
    return _MALFORMED.search(str(error)) is not None


def explain(source: Source, error: Exception, *, known: bool = False) -> Failure:
    """Say what an error of obstore's means.

    Parameters
    ----------
    source : Source
    error : Exception
    known : bool
        Whether the bytes that were asked for are known to have been there.
    """
    text = str(error)
    if _NOWHERE in text or _ELSEWHERE in text:
        return _somewhere_else(source, text)
    found = _STATUS.search(text)
    status = int(found[1]) if found else _status_of(error)
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or "Wanted range starting at" in text:
        return Failure(changed(source) if known else empty(source))
    word = _word(source, text)
    if _may_pass(status) or (status == HTTPStatus.BAD_REQUEST and word in _LATER):
        named = f", {word}" if word else ""
        message = f"{source.name}: the server is busy or failing (it answers {status}{named})"
        busy = status in _BUSY
        return Failure(LazyNWBError(message), BUSY_PAUSE_SECONDS if busy else PAUSE_SECONDS, busy=busy)
    if status:
        answer = _answer(status, text, word)
        denied = status in _DENIED or (status == HTTPStatus.BAD_REQUEST and word in _EXPIRED)
        return Failure(_refusal(source, status, answer, denied=denied), elsewhere=denied)
    return _without_status(source, error, text)


def _may_pass(status: int) -> bool:
    failing = status >= HTTPStatus.INTERNAL_SERVER_ERROR and status not in _FINAL
    return failing or status in _BUSY or status == HTTPStatus.REQUEST_TIMEOUT


def _word(source: Source, text: str) -> str:
    """Return what an object store calls its error; nothing for web servers, whose errors may be any text."""
    found = _CODE.search(text) if _scheme(source) not in _WEB else None
    return found[1] if found else ""


def _answer(status: int, text: str, word: str) -> str:
    """Say what was answered."""
    if _STATUS.search(text) is None:
        return "no credentials could be had" if status in _DENIED else str(status)
    return f"the server answers {status}" + (f", {word}" if word else "")


def _somewhere_else(source: Source, text: str) -> Failure:
    region = _REGION.search(text)
    what = (
        'the bucket is in another region: pass storage_options={"region": ...}'
        if _scheme(source) in {"s3", "s3a"}
        else "the server redirects without saying where to"
    )
    error = LazyNWBError(f"{source.name}: {what}")
    return Failure(error, elsewhere=True, region=region[1] if region else None)


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


def _refusal(source: Source, status: int, answer: str, *, denied: bool) -> LazyNWBError:
    name = source.name
    if status in _ABSENT:
        return SourceNotFoundError(
            f"no such file: {name} ({answer}): check its name, or whether it was moved"
        )
    if status == HTTPStatus.PRECONDITION_FAILED:
        return changed(source)
    if denied:
        hint = {
            "http": "check the URL, and the headers in storage_options",
            "https": "check the URL (a signed one expires), and the headers in storage_options",
            "dandi": "an embargoed dandiset takes a key in the environment variable DANDI_API_KEY",
        }.get(
            _scheme(source),
            "check its name, and the credentials in storage_options, the environment or the shared "
            'configuration; storage_options={"skip_signature": True} reads public data without any, False '
            "asks the machine that this runs on for its role",
        )
        return LazyNWBError(f"{name} may not be read ({answer}): {hint}")
    return LazyNWBError(f"{name} cannot be read: {answer}")


def _without_status(source: Source, error: Exception, text: str) -> Failure:
    """Say what it means that there was no answer, or none that makes sense."""
    final = ""
    if isinstance(error, ValueError):
        final = "the name of the object is not one that can be asked for"
    elif "InvalidCertificate(" in text:
        final = "the server's certificate is not one to be trusted; it may be for another name, or expired"
    elif "source: TooManyRedirects" in text:
        final = "the server redirects in a circle"
    elif _MALFORMED.search(text):
        final = "the headers of the answer contradict HTTP, or what was asked for: download it"
    if final:
        return Failure(LazyNWBError(f"{source.name}: {final}"))
    if _LATE.search(text):
        return passing(source, "the server did not answer in time (lazynwb.config.request_timeout)")
    if "kind: Connect," in text:
        return passing(source, "the server cannot be reached: check its name, and the network")
    if is_unreadable(error):
        return passing(source, "the server refuses, in bytes that are no text")
    return passing(source, "the connection broke before the answer was complete")
