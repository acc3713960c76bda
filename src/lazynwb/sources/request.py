"""One request for a range of bytes: repeated while that may help, and answered in plain words when not."""

from __future__ import annotations

import os
import random
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from lazynwb.config import config
from lazynwb.errors import LazyNWBError, SourceChangedError
from lazynwb.profile import count
from lazynwb.sources.failure import Failure, explain
from lazynwb.sources.stores import Location, locate, module_of

if TYPE_CHECKING:
    from obstore import GetOptions

    from lazynwb.sources.source import Source

#: Seconds before a request is repeated for the last time, at most.
_LONGEST_PAUSE = 20.0


class Response(NamedTuple):
    """Bytes of an object, and which version of it they are from.

    Attributes
    ----------
    data : memoryview
        What was asked for.
    identity : str
        See `lazynwb.sources.remote.identity`.
    whole : memoryview or None
        The whole object, where its server has it no other way.
    """

    data: memoryview
    identity: str
    whole: memoryview | None = None


def request(source: Source, start: int, stop: int, expected: str | None = None) -> Response:
    """Return bytes `start` to `stop` of a remote file (fewer where it ends before).

    Parameters
    ----------
    source : Source
    start, stop : int
    expected : str or None
        Identity of the version that is wanted; if the file changed, the server may say so instead of sending.

    Raises
    ------
    SourceNotFoundError
        If there is no such object.
    SourceChangedError
        If it is another version.
    LazyNWBError
        If it may not be read, or the server does not answer as it should, also not when asked again.
    """
    deadline = time.monotonic() + config.retry_seconds
    tries = 0
    looked_again = False
    while True:
        location = locate(source)
        try:
            with _turns:
                response = _get(source, location, start, stop, expected)
        except Failure as failure:
            if failure.elsewhere and not looked_again:
                looked_again = True
                if _look_again(source, failure):
                    continue
            tries += 1
            if failure.pause is None:
                raise failure.error from None
            pause = min(failure.pause * 2 ** (tries - 1), _LONGEST_PAUSE)
            pause *= random.uniform(0.8, 1.2)  # noqa: S311 - so that many clients do not come back together
            if tries > config.max_retries or time.monotonic() + pause > deadline:
                message = f"{failure.error} (tried {tries} time{'s' if tries > 1 else ''})"
                raise type(failure.error)(message) from None
            count(retries=1)
        else:
            if expected is not None and response.identity != expected:
                raise SourceChangedError(_CHANGED.format(source.name))
            return response
        time.sleep(pause)


_CHANGED = "{} was changed or replaced while it was being read: run the query again"


def _get(source: Source, location: Location, start: int, stop: int, expected: str | None) -> Response:
    import obstore
    from obstore.exceptions import BaseError, NotSupportedError

    options: GetOptions = {"range": (start, stop)}
    tag = _strong_tag(expected)
    if tag is not None:
        options["if_match"] = tag
    count(requests=1)
    try:
        answer = obstore.get(location.store, location.path, options=options)
        meta = answer.meta
        data = memoryview(answer.bytes())
    except NotSupportedError as error:
        if not config.download_bytes:
            raise explain(source, error, start) from None
        return _get_whole(source, location, start, stop)
    except (BaseError, OSError, ValueError) as error:
        raise explain(source, error, start) from None
    count(bytes_read=len(data))
    wanted = min(stop, meta["size"]) - start
    if len(data) != wanted:
        msg = f"{source.name}: the server sent {len(data)} bytes where {wanted} were asked for"
        raise Failure.passing(msg)
    return Response(data, _identity(meta))


def _get_whole(source: Source, location: Location, start: int, stop: int) -> Response:
    """Fetch a file from a server that does not send parts, as the settings allow it."""
    import obstore
    from obstore.exceptions import BaseError

    count(requests=1)
    try:
        answer = obstore.get(location.store, location.path)
        meta = answer.meta
        if meta["size"] > config.download_bytes:
            message = (
                f"{source.name}: the server does not send parts of a file, and the whole has "
                f"{meta['size']:,} bytes (lazynwb.config.download_bytes is {config.download_bytes:,}): "
                "download it"
            )
            raise Failure(LazyNWBError(message))
        whole = memoryview(answer.bytes())
    except (BaseError, OSError, ValueError) as error:
        raise explain(source, error, start) from None
    count(bytes_read=len(whole))
    if len(whole) != meta["size"]:
        msg = f"{source.name}: the server sent {len(whole)} of {meta['size']} bytes"
        raise Failure.passing(msg)
    return Response(whole[start:stop], _identity(meta), whole)


def _look_again(source: Source, failure: Failure) -> bool:
    """Ask where a refused object is now, where that can be asked; tell whether it may be found there."""
    look_again = getattr(module_of(source), "look_again", None)
    return look_again is not None and bool(look_again(source, failure.region))


def _identity(meta: Any) -> str:  # noqa: ANN401 - obstore's ObjectMeta, a dictionary
    """Make an identity of what a response says about its object: its size, and a tag for its version."""
    if meta.get("version"):
        tag = f"v{meta['version']}\t{meta.get('e_tag') or ''}"
    elif meta.get("e_tag"):
        tag = f"e\t{meta['e_tag']}"
    else:
        modified = meta["last_modified"].timestamp()
        tag = f"m{modified}" if modified > 0 else "?"  # 1970 stands for a server that does not say
    return f"{meta['size']}\t{tag}"


def _strong_tag(identity: str | None) -> str | None:
    """Return the entity tag of an identity, if it is of the strong kind, which alone can be a condition."""
    tag = identity.rpartition("\t")[2] if identity is not None else ""
    return tag if tag.startswith('"') else None


# -- the global limit ---------------------------------------------------------------------------------


class _Turns:
    """Lets at most `config.max_requests` threads in at a time."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._inside = 0

    def __enter__(self) -> None:
        with self._condition:
            while self._inside >= max(config.max_requests, 1):
                self._condition.wait()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._condition:
            self._inside -= 1
            self._condition.notify()


_turns = _Turns()
if hasattr(os, "register_at_fork"):
    # A forked child has none of the threads that were inside.
    os.register_at_fork(after_in_child=_turns.__init__)  # type: ignore[misc]
