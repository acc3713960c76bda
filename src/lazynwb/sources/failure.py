"""What it means when a store refuses or fails, in words that its user can act on.

obstore's own messages quote whole URLs, with whatever signatures and tokens are in them: nothing of theirs is
passed on, nor are they chained.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from obstore import exceptions

from lazynwb.errors import LazyNWBError, SourceChangedError, SourceNotFoundError

if TYPE_CHECKING:
    from lazynwb.sources.source import Source

_STATUS = re.compile(r"status code: (\d{3})")
_REGION = re.compile(r"<Region>([a-z0-9-]+)</Region>")
#: Answers that say: later. A server that asks to be left alone is given more time than one that stumbled; how
#: much it asks for (Retry-After) is not passed on by obstore.
_BUSY = frozenset({429, 503})
_STUMBLED = frozenset({408, 500, 502, 504})
_PAUSE, _BUSY_PAUSE = 0.1, 1.0
#: What obstore says when a bucket is in another region than the one that was asked.
_ELSEWHERE = ("redirect without LOCATION", "AuthorizationHeaderMalformed")
_BEYOND_END = ("Wanted range starting at", "416")


class Failure(Exception):  # noqa: N818 - an error only for the one who asks again
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
    """

    def __init__(
        self,
        error: LazyNWBError,
        pause: float | None = None,
        *,
        elsewhere: bool = False,
        region: str | None = None,
    ) -> None:
        super().__init__(str(error))
        self.error = error
        self.pause = pause
        self.elsewhere = elsewhere
        self.region = region

    @classmethod
    def passing(cls, message: str) -> Failure:
        """Make one that may well be over with the next try."""
        return cls(LazyNWBError(message), _PAUSE)


def explain(source: Source, error: Exception, start: int = 0) -> Failure:
    """Say what an error of obstore's means, for a request for bytes from `start` on."""
    text = str(error)
    found = _STATUS.search(text)
    status = int(found[1]) if found else _status_of(error)
    if any(phrase in text for phrase in _ELSEWHERE):
        region = _REGION.search(text)
        message = f'{source.name}: the bucket is in another region: pass storage_options={{"region": ...}}'
        return Failure(LazyNWBError(message), elsewhere=True, region=region[1] if region else None)
    if any(phrase in text.split("\n", 1)[0] for phrase in _BEYOND_END):
        what = "is empty" if not start else f"has no bytes from {start} on: it is shorter than it was"
        return Failure(LazyNWBError(f"{source.name} {what}"))
    if status in _BUSY | _STUMBLED:
        message = f"{source.name}: the server is busy or failing (it answers {status})"
        return Failure(LazyNWBError(message), _BUSY_PAUSE if status in _BUSY else _PAUSE)
    if status:
        refusal = _refusal(source, status)
        return Failure(refusal, elsewhere=status in {401, 403})
    if isinstance(error, exceptions.NotSupportedError) or "non-partial response" in text:
        message = (
            f"{source.name}: the server does not send parts of a file (no support for ranges): download it, "
            "or set lazynwb.config.download_bytes to the size up to which files may be fetched whole"
        )
        return Failure(LazyNWBError(message))
    if isinstance(error, ValueError):
        return Failure(
            LazyNWBError(f"{source.name}: the name of the object is not one that can be asked for")
        )
    slow = "imed out" in text or "Timeout" in text
    what = "did not answer in time" if slow else "cannot be reached, or the connection broke"
    return Failure.passing(f"{source.name}: the server {what}")


def _status_of(error: Exception) -> int:
    for kind, status in (
        (FileNotFoundError, 404),
        (exceptions.PermissionDeniedError, 403),
        (exceptions.UnauthenticatedError, 401),
        (exceptions.PreconditionError, 412),
    ):
        if isinstance(error, kind):
            return status
    return 0


def _refusal(source: Source, status: int) -> LazyNWBError:
    name = source.name
    if status in {404, 410}:
        return SourceNotFoundError(f"no such file: {name} (the server answers {status})")
    if status == 412:  # noqa: PLR2004
        return SourceChangedError(
            f"{name} was changed or replaced while it was being read: run the query again"
        )
    if status in {401, 403}:
        hint = {
            "http": "check the URL, and the headers in storage_options",
            "https": "check the URL (a signed one expires), and the headers in storage_options",
            "dandi": "an embargoed dandiset takes a key in the environment variable DANDI_API_KEY",
        }.get(
            name.partition("://")[0],
            "check its name, and the credentials in storage_options, the environment or the shared "
            'configuration; storage_options={"skip_signature": True} reads public data without any, False '
            "asks the machine that this runs on for its role",
        )
        return LazyNWBError(f"{name} may not be read (the server answers {status}): {hint}")
    return LazyNWBError(f"{name} cannot be read: the server answers {status}")
