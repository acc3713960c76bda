"""Requests for a range of bytes: retries, checks of the version, and fallbacks for servers without ranges."""

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
from lazynwb.storage.block_cache import block_cache_of
from lazynwb.storage.error_mapping import (
    Failure,
    changed_error,
    empty_error,
    explain,
    has_malformed_headers,
    has_undecodable_body,
    transient_failure,
)
from lazynwb.storage.store_request import with_retry
from lazynwb.threads import REQUESTS, is_worker, wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from obstore import GetOptions, GetResult

    from lazynwb.storage.source import Source
    from lazynwb.storage.stores.registry import Location


#: Values of Content-Encoding that mean a compressed body. Objects may carry other labels without effect.
_COMPRESSED_ENCODINGS = frozenset({"gzip", "x-gzip", "deflate", "br", "zstd", "compress", "x-compress"})


class Response(NamedTuple):
    """Bytes of an object, and the version that they are from.

    Attributes
    ----------
    data : memoryview
        The requested range.
    identity : str
        Identity of the version; see `lazynwb.storage.remote_file.identity`.
    whole : memoryview or None
        The whole object, if the server does not support ranges.
    modified : float
        Time of the last modification in seconds since 1970; 0 if the server does not send it.
    """

    data: memoryview
    identity: str
    whole: memoryview | None = None
    modified: float = 0


class _Version(NamedTuple):
    """The version of a file according to one response."""

    identity: str
    modified: float

    def describe(self) -> str:
        """Return a description for messages."""
        size, _, tag = self.identity.partition("\t")
        date = datetime.fromtimestamp(self.modified, UTC).isoformat() if self.modified > 0 else "none"
        return f"{int(size):,} bytes, ETag {tag.partition(chr(9))[2] or 'none'}, Last-Modified {date}"


#: The version of each file in the first response of its web server.
_versions: dict[Source, _Version] = {}
#: Files for which replicas of a server send different ETags. Their bytes are not cached persistently.
disputed: set[Source] = set()
#: A date identifies a version if it was at least this old when the file was first seen.
_SETTLED_SECONDS = 60.0


def forget() -> None:
    """Forget the versions of all files."""
    _versions.clear()
    disputed.clear()


def request(source: Source, start: int, stop: int, expected: str | None = None) -> Response:
    """Return bytes `start` to `stop` of a remote file, or fewer if the file ends before `stop`.

    Parameters
    ----------
    source : Source
    start, stop : int
    expected : str or None
        Identity of the required version. Its ETag becomes a condition of the request, where possible.

    Raises
    ------
    SourceNotFoundError
        If the object does not exist.
    SourceChangedError
        If the object has another version.
    LazyNWBError
        If access is denied, or all attempts fail.
    """

    def ask(location: Location, condition: str | None = expected) -> Response | Failure:
        with REQUEST_SLOTS:
            return _request_once(source, location, start, stop, condition)

    def run(ask: Callable[[Location], Response | Failure]) -> Response:
        # obstore ignores Ctrl-C, so a pool thread waits for it.
        return with_retry(source, ask) if is_worker() else wait(REQUESTS.submit(with_retry, source, ask))

    try:
        response = run(ask)
    except SourceChangedError:
        if _strong_tag(expected) is None or not _is_on_web(source):
            raise
        response = run(partial(ask, condition=None))  # a replica may have another ETag
    if not _is_on_web(source):
        if expected is None or response.identity == expected:
            return response
        if not _is_same_content(response.identity, expected):
            raise changed_error(source)
        return response._replace(identity=expected)
    return _verify_version(source, response, expected)


def _verify_version(source: Source, response: Response, expected: str | None) -> Response:
    """Return the response of a web server if it has the expected version.

    Replicas behind one address may send different ETags for the same file. Responses with the same size and
    the same date are of one version, unless the date is so recent that the file may have been written twice.
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
        raise changed_error(source, known.describe(), seen.describe())
    _versions[source] = seen
    return response


def _request_once(
    source: Source, location: Location, start: int, stop: int, expected: str | None
) -> Response | Failure:
    """Make one request. Return a failure rather than raise it, so that obstore's error is not its context."""
    import obstore
    from obstore.exceptions import BaseError, NotSupportedError

    options: GetOptions = {"range": (start, stop)}
    tag = _strong_tag(expected)
    if tag is not None:
        options["if_match"] = tag
    count(requests=1)
    try:
        answer = obstore.get(location.store, location.path, options=options)
        encoded = encoding_failure(source, answer)
        if encoded is not None:
            return encoded
        meta = answer.meta
        data = memoryview(answer.bytes())
    except NotSupportedError:
        return _download_whole(source, location, start, stop, expected)
    except (BaseError, OSError, ValueError) as error:
        part = _retry_without_total(source, location, error, (start, stop), expected)
        return part or explain_refusal(source, location, error, known=expected is not None)
    count(bytes_read=len(data))
    expected_size = min(stop, meta["size"]) - start
    if len(data) != expected_size:
        return transient_failure(
            source, f"the server sent {len(data)} bytes where {expected_size} were requested"
        )
    return Response(data, identity_of(meta), modified=modified_of(meta))


def _download_whole(
    source: Source, location: Location, start: int, stop: int, expected: str | None
) -> Response | Failure:
    """Download a whole file from a server without ranges, up to `config.download_bytes`."""
    import obstore
    from obstore.exceptions import BaseError

    count(requests=1)
    try:
        answer = obstore.get(location.store, location.path)
        encoded = encoding_failure(source, answer)
        if encoded is not None:
            return encoded
        meta = answer.meta
        size, identity = meta["size"], identity_of(meta)
        if not size:
            return Failure(empty_error(source))
        if size > max(config.download_bytes, stop):
            return Failure(_too_large_error(source, size))
        with _downloads[hash(source) % len(_downloads)]:
            cache = block_cache_of(source, identity)
            whole = cache.get(0, size) if identity == expected or _is_unique_identity(identity) else None
            if whole is None:
                whole = memoryview(answer.bytes())
                count(bytes_read=len(whole))
                if len(whole) != size:
                    return transient_failure(source, f"the server sent {len(whole)} of {size} bytes")
                cache.add(0, whole)
    except (BaseError, OSError, ValueError) as error:
        return download_without_length(source, error, start, stop) or explain_refusal(source, location, error)
    return Response(whole[start:stop], identity, whole, modified_of(meta))


def _retry_without_total(
    source: Source, location: Location, error: Exception, span: tuple[int, int], expected: str | None
) -> Response | Failure | None:
    """Repeat a request whose response lacks the total size (RFC 9110, section 14.4: `bytes 0-9/*`).

    The total size is that of the catalog, or else the Content-Length of a HEAD response. If that is missing,
    too, download the whole file, up to `config.download_bytes`. Return None if the error has another cause.
    """
    if not (has_malformed_headers(error) and _is_on_web(source)):
        return None
    import obstore
    from obstore.exceptions import BaseError

    from lazynwb.storage import plain_request  # late: Python's HTTP client takes long to import

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
            return download_without_length(source, error, start, stop)
    if len(answer.data) != min(stop, size) - start:
        return None
    return Response(
        answer.data, identity_of({**answer.version, "size": size}), None, modified_of(answer.version)
    )


def download_without_length(
    source: Source, error: Exception, start: int, stop: int
) -> Response | Failure | None:
    """Download a file whose server does not send its length, up to `config.download_bytes`."""
    if not (has_malformed_headers(error) and _is_on_web(source)):
        return None
    from lazynwb.storage import plain_request

    answer = plain_request.get(source, config.download_bytes)
    if answer is None or answer.is_part:
        return None
    size = len(answer.data)
    if size > config.download_bytes:
        return Failure(
            LazyNWBError(
                f"{source.name}: the server does not send the size of the file, which exceeds "
                f"lazynwb.config.download_bytes ({config.download_bytes:,} bytes): download the file, or "
                "raise that limit"
            )
        )
    if not size:
        return Failure(empty_error(source))
    identity = identity_of({**answer.version, "size": size})
    return Response(answer.data[start:stop], identity, answer.data, modified_of(answer.version))


def _is_on_web(source: Source) -> bool:
    return source.path.lower().startswith(("http://", "https://"))


def _too_large_error(source: Source, size: int) -> LazyNWBError:
    message = (
        f"{source.name}: the server does not support range requests, and the file has {size:,} bytes, more "
        f"than lazynwb.config.download_bytes ({config.download_bytes:,}): download the file, or raise that "
        "limit"
    )
    return LazyNWBError(message)


def encoding_failure(source: Source, answer: GetResult) -> Failure | None:
    """Return a failure if the server compresses the response although it was not requested (RFC 9110, 8.4).

    Ranges then refer to the compressed bytes rather than to those of the file.
    """
    encoding = answer.attributes.get("Content-Encoding", "").strip().lower()
    if encoding not in _COMPRESSED_ENCODINGS:
        return None
    message = (
        f"{source.name}: the server compresses the file (Content-Encoding: {encoding[:20]}): disable "
        "compression on the server, or download the file"
    )
    return Failure(LazyNWBError(message))


def explain_refusal(source: Source, location: Location, error: Exception, *, known: bool = False) -> Failure:
    """Map an error of obstore to a failure; make a HEAD request if its text hides the status."""
    if has_undecodable_body(error):
        import obstore
        from obstore.exceptions import BaseError

        count(requests=1)
        try:
            obstore.head(location.store, location.path)  # a HEAD response has a status and no body
        except (BaseError, OSError, ValueError) as shorter:
            error = shorter
    return explain(source, error, known=known)


def identity_of(meta: Any) -> str:  # noqa: ANN401 - obstore's ObjectMeta, a dictionary
    """Return the identity of an object by the metadata of a response: its size, and a tag of its version."""
    if meta.get("version"):
        tag = f"v{meta['version']}\t{meta.get('e_tag') or ''}"
    elif meta.get("e_tag"):
        tag = f"e\t{meta['e_tag']}"
    else:
        modified = modified_of(meta)
        tag = f"m{modified}" if modified > 0 else "?"
    return f"{meta['size']}\t{tag}"


def modified_of(meta: Any) -> float:  # noqa: ANN401 - as for `identity_of`
    """Return the time of the last modification in seconds since 1970; 0 if the server does not send it."""
    return max(float(meta["last_modified"].timestamp()), 0)


def _strong_tag(identity: str | None) -> str | None:
    """Return the entity tag of an identity if it is a strong one; only these can be conditions."""
    tag = identity.rpartition("\t")[2] if identity is not None else ""
    return tag if tag.startswith('"') else None


def _is_same_content(one: str, other: str) -> bool:
    """Return whether two versions of an object have equal bytes, by their size and strong ETag."""
    tag = _strong_tag(one)
    return (
        tag is not None and tag == _strong_tag(other) and one.partition("\t")[0] == other.partition("\t")[0]
    )


def _is_unique_identity(identity: str) -> bool:
    """Return whether an identity belongs to one version only, which a date in whole seconds may not."""
    return identity.partition("\t")[2].startswith(("v", "e"))


#: Serialize the downloads of a file, so that concurrent readers find it in the block cache.
_downloads = tuple(threading.Lock() for _ in range(64))


# -- limit of concurrent requests ---------------------------------------------------------------------


class _RequestSlots:
    """A semaphore of `config.max_requests` slots, which follows changes of that setting."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._taken = 0

    def __enter__(self) -> None:
        with self._condition:
            while self._taken >= max(config.max_requests, 1):
                self._condition.wait()
            self._taken += 1

    def __exit__(self, *_: object) -> None:
        with self._condition:
            self._taken -= 1
            self._condition.notify()


REQUEST_SLOTS = _RequestSlots()
if hasattr(os, "register_at_fork"):
    # The threads that hold slots do not exist in a forked child.
    os.register_at_fork(after_in_child=REQUEST_SLOTS.__init__)  # type: ignore[misc]
