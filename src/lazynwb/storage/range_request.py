"""One request for a range of bytes: repeated while that may help, and answered in plain words when not."""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from lazynwb.config import config
from lazynwb.errors import LazyNWBError, SourceChangedError
from lazynwb.profile import count
from lazynwb.storage import plain_request
from lazynwb.storage.block_cache import block_cache_of
from lazynwb.storage.error_mapping import (
    Failure,
    changed,
    empty,
    explain,
    is_malformed,
    is_unreadable,
    passing,
)
from lazynwb.storage.store_request import with_retry
from lazynwb.threads import REQUESTS, is_worker, wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from obstore import GetOptions, GetResult

    from lazynwb.storage.source import Source
    from lazynwb.storage.stores.registry import Location


#: Ways to compress an answer. What else objects are labelled with says nothing of their bytes.
_COMPRESSIONS = frozenset({"gzip", "x-gzip", "deflate", "br", "zstd", "compress", "x-compress"})


class Response(NamedTuple):
    """Bytes of an object, and which version of it they are from.

    Attributes
    ----------
    data : memoryview
        What was asked for.
    identity : str
        See `lazynwb.storage.remote_file.identity`.
    whole : memoryview or None
        The whole object, where its server has it no other way.
    modified : float
        When it was last modified, in seconds since 1970; 0 where the server does not say.
    """

    data: memoryview
    identity: str
    whole: memoryview | None = None
    modified: float = 0


class _Version(NamedTuple):
    """What an answer said of the version of a file."""

    identity: str
    modified: float

    def describe(self) -> str:
        """Return it in words."""
        size, _, tag = self.identity.partition("\t")
        date = datetime.fromtimestamp(self.modified, UTC).isoformat() if self.modified > 0 else "none"
        return f"{int(size):,} bytes, ETag {tag.partition(chr(9))[2] or 'none'}, Last-Modified {date}"


#: What web servers first said of files.
_versions: dict[Source, _Version] = {}
#: Files of which replicas of their server give different ETags. Nothing of these is cached for long.
disputed: set[Source] = set()
#: A date says which version a file is of if it was this long ago when the file was first seen.
_SETTLED_SECONDS = 60.0


def forget() -> None:
    """Forget what servers said of the versions of files."""
    _versions.clear()
    disputed.clear()


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

    def ask(location: Location, condition: str | None = expected) -> Response | Failure:
        with TURNS:
            return _get(source, location, start, stop, condition)

    def run(ask: Callable[[Location], Response | Failure]) -> Response:
        # obstore does not heed Ctrl-C: it is a pool's threads that wait for it.
        return with_retry(source, ask) if is_worker() else wait(REQUESTS.submit(with_retry, source, ask))

    try:
        response = run(ask)
    except SourceChangedError:
        if _strong_tag(expected) is None or not _is_on_web(source):
            raise
        response = run(partial(ask, condition=None))  # from a replica that has another ETag
    if not _is_on_web(source):
        if expected is None or response.identity == expected:
            return response
        if not _is_same_content(response.identity, expected):
            raise changed(source)
        return response._replace(identity=expected)
    return _of_version(source, response, expected)


def _of_version(source: Source, response: Response, expected: str | None) -> Response:
    """Return the response of a web server, if it is of the version that is wanted.

    Servers behind one address may give a file different ETags. It is the same where its length and its date
    agree, and the date is not so recent that the file may have been written twice.
    """
    seen = _Version(response.identity, response.modified)
    known = _versions.get(source)
    if expected is not None and response.identity == expected:
        return response
    if known is not None and expected in {None, known.identity} and seen.identity != known.identity:
        sizes = {one.identity.partition("\t")[0] for one in (seen, known)}
        is_settled = seen.modified > 0 and time.time() - seen.modified > _SETTLED_SECONDS
        if len(sizes) == 1 and is_settled and seen.modified == known.modified:
            disputed.add(source)
            return response._replace(identity=known.identity)
    if expected is not None:
        known = known if known is not None and known.identity == expected else _Version(expected, 0)
        raise changed(source, known.describe(), seen.describe())
    _versions[source] = seen
    return response


def _get(
    source: Source, location: Location, start: int, stop: int, expected: str | None
) -> Response | Failure:
    """Ask once. A failure is returned: raised, it would bring obstore's error along as its context."""
    import obstore
    from obstore.exceptions import BaseError, NotSupportedError

    options: GetOptions = {"range": (start, stop)}
    tag = _strong_tag(expected)
    if tag is not None:
        options["if_match"] = tag
    count(requests=1)
    try:
        answer = obstore.get(location.store, location.path, options=options)
        encoded = encoding_of(source, answer)
        if encoded is not None:
            return encoded
        meta = answer.meta
        data = memoryview(answer.bytes())
    except NotSupportedError:
        return _get_whole(source, location, start, stop, expected)
    except (BaseError, OSError, ValueError) as error:
        part = _part_without_total(source, location, error, (start, stop), expected)
        return part or refused(source, location, error, known=expected is not None)
    count(bytes_read=len(data))
    wanted = min(stop, meta["size"]) - start
    if len(data) != wanted:
        return passing(source, f"the server sent {len(data)} bytes where {wanted} were asked for")
    return Response(data, identity_of(meta), modified=modified_of(meta))


def _get_whole(
    source: Source, location: Location, start: int, stop: int, expected: str | None
) -> Response | Failure:
    """Fetch a file from a server that does not send parts, as the settings allow it."""
    import obstore
    from obstore.exceptions import BaseError

    count(requests=1)
    try:
        answer = obstore.get(location.store, location.path)
        encoded = encoding_of(source, answer)
        if encoded is not None:
            return encoded
        meta = answer.meta
        size, identity = meta["size"], identity_of(meta)
        if not size:
            return Failure(empty(source))
        if size > max(config.download_bytes, stop):
            return Failure(_too_large(source, size))
        with _downloads[hash(source) % len(_downloads)]:
            kept = block_cache_of(source, identity)
            whole = kept.get(0, size) if identity == expected or _is_certain(identity) else None
            if whole is None:
                whole = memoryview(answer.bytes())
                count(bytes_read=len(whole))
                if len(whole) != size:
                    return passing(source, f"the server sent {len(whole)} of {size} bytes")
                kept.add(0, whole)
    except (BaseError, OSError, ValueError) as error:
        return _whole_without_length(source, error, start, stop) or refused(source, location, error)
    return Response(whole[start:stop], identity, whole, modified_of(meta))


def _part_without_total(
    source: Source, location: Location, error: Exception, span: tuple[int, int], expected: str | None
) -> Response | Failure | None:
    """Ask a web server again that sends a part without the size of the whole (RFC 9110, 14.4: `bytes 0-9/*`).

    The size is that of the catalog, else the length that the server names for the whole; where it names none,
    the file is fetched as a whole, as far as that is allowed. None if that is not what was wrong.
    """
    if not (is_malformed(error) and _is_on_web(source)):
        return None
    import obstore
    from obstore.exceptions import BaseError

    start, stop = span
    answer = plain_request.get(source, stop, span)
    if answer is None or not answer.is_part:
        return None
    if expected is not None:
        size = int(expected.partition("\t")[0])
    else:
        count(requests=1)
        try:
            size = obstore.head(location.store, location.path)["size"]
        except (BaseError, OSError, ValueError):
            return _whole_without_length(source, error, start, stop)
    if len(answer.data) != min(stop, size) - start:
        return None
    return Response(answer.data, identity_of({**answer.tag, "size": size}), None, modified_of(answer.tag))


def _whole_without_length(
    source: Source, error: Exception, start: int, stop: int
) -> Response | Failure | None:
    """Fetch a file whose server does not say how long it is, as far as that is allowed."""
    if not (is_malformed(error) and _is_on_web(source)):
        return None
    answer = plain_request.get(source, config.download_bytes)
    if answer is None or answer.is_part:
        return None
    size = len(answer.data)
    if size > config.download_bytes:
        return Failure(
            LazyNWBError(
                f"{source.name}: the server does not say how large the file is, and it has more than "
                f"{config.download_bytes:,} bytes: download it, or allow for that "
                f"(lazynwb.config.download_bytes is {config.download_bytes:,})"
            )
        )
    if not size:
        return Failure(empty(source))
    identity = identity_of({**answer.tag, "size": size})
    return Response(answer.data[start:stop], identity, answer.data, modified_of(answer.tag))


def _is_on_web(source: Source) -> bool:
    return source.path.lower().startswith(("http://", "https://"))


def _too_large(source: Source, size: int) -> LazyNWBError:
    message = (
        f"{source.name}: the server does not send parts of a file (no support for ranges), and the whole has "
        f"{size:,} bytes: download it, or allow for that (lazynwb.config.download_bytes is "
        f"{config.download_bytes:,})"
    )
    return LazyNWBError(message)


def encoding_of(source: Source, answer: GetResult) -> Failure | None:
    """Return a failure if an answer is compressed for its way, which nobody asked for: see RFC 9110, 8.4.

    Ranges are then those of the compressed bytes, and what comes is another thing than the file.
    """
    encoding = answer.attributes.get("Content-Encoding", "").strip().lower()
    if encoding not in _COMPRESSIONS:
        return None
    message = (
        f"{source.name}: the server sends it compressed (Content-Encoding: {encoding[:20]}): have it sent as "
        "it is stored, or download it"
    )
    return Failure(LazyNWBError(message))


def refused(source: Source, location: Location, error: Exception, *, known: bool = False) -> Failure:
    """Say what an error of obstore's means, asking once more where its text does not say."""
    if is_unreadable(error):
        import obstore
        from obstore.exceptions import BaseError

        count(requests=1)
        try:
            obstore.head(location.store, location.path)  # whose answer has a status and no text
        except (BaseError, OSError, ValueError) as shorter:
            error = shorter
    return explain(source, error, known=known)


def identity_of(meta: Any) -> str:  # noqa: ANN401 - obstore's ObjectMeta, a dictionary
    """Make an identity of what a response says about its object: its size, and a tag for its version."""
    if meta.get("version"):
        tag = f"v{meta['version']}\t{meta.get('e_tag') or ''}"
    elif meta.get("e_tag"):
        tag = f"e\t{meta['e_tag']}"
    else:
        modified = modified_of(meta)
        tag = f"m{modified}" if modified > 0 else "?"
    return f"{meta['size']}\t{tag}"


def modified_of(meta: Any) -> float:  # noqa: ANN401 - as for `identity_of`
    """Return when an object was last modified; 0 (1970) for a server that does not say."""
    return max(float(meta["last_modified"].timestamp()), 0)


def _strong_tag(identity: str | None) -> str | None:
    """Return the entity tag of an identity, if it is of the strong kind, which alone can be a condition."""
    tag = identity.rpartition("\t")[2] if identity is not None else ""
    return tag if tag.startswith('"') else None


def _is_same_content(one: str, other: str) -> bool:
    """Return whether two versions of an object have equal bytes: the same size, and the same strong ETag."""
    tag = _strong_tag(one)
    return (
        tag is not None and tag == _strong_tag(other) and one.partition("\t")[0] == other.partition("\t")[0]
    )


def _is_certain(identity: str) -> bool:
    """Return whether no two versions of a file have an identity like this one; dates are whole seconds."""
    return identity.partition("\t")[2].startswith(("v", "e"))


#: One download of a file at a time, so that whoever waits for it finds it here.
_downloads = tuple(threading.Lock() for _ in range(64))


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


TURNS = _Turns()
if hasattr(os, "register_at_fork"):
    # A forked child has none of the threads that were inside.
    os.register_at_fork(after_in_child=TURNS.__init__)  # type: ignore[misc]
