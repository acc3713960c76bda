"""Stores of the objects below a prefix, in an object store or on a web server."""

from __future__ import annotations

import sys
import time
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

from lazynwb.config import config
from lazynwb.errors import LazyNWBError, NotNWBError, SourceNotFoundError
from lazynwb.profile import count
from lazynwb.storage import remote_file
from lazynwb.storage.error_mapping import Failure, explain, transient_failure
from lazynwb.storage.objects.key_validation import normalize_prefix, too_short_error, validate_key
from lazynwb.storage.range_request import (
    REQUEST_SLOTS,
    Response,
    download_without_length,
    encoding_failure,
    explain_refusal,
    identity_of,
    request,
)
from lazynwb.storage.source import ABSENT, Options, Source
from lazynwb.storage.store_request import with_retry
from lazynwb.threads import REQUESTS, is_worker, wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from obstore import GetOptions

    from lazynwb.storage.dandi.resolver import Asset
    from lazynwb.storage.stores.registry import Location

T = TypeVar("T")

_WEB = frozenset({"http", "https"})
#: A metadata document of Zarr.
_DOCUMENT = "zarr.json"


class RemoteObjects:
    """The objects below a URL prefix; see `lazynwb.storage.objects.object_store.Objects`.

    A range of an object costs one request, also at its end, except for Azure, which does not support suffix
    ranges, so that the size is requested first. Objects are not cached: each is a file of its own, and
    requesting its version takes as long as fetching it. Versions of metadata documents arrive with the
    documents, and are trusted for `config.recheck_seconds`.

    Only status 404 means that an object does not exist. Without permission to list the bucket, S3 responds
    with 403 to missing objects, too. This raises an error, because a missing chunk is read as fill values.

    Parameters
    ----------
    source : Source
        The prefix, as a URL. Its query (of a signed URL) is sent with each request.
    """

    pool = REQUESTS

    def __init__(self, source: Source) -> None:
        self.source = source
        self._scheme = source.path.partition("://")[0].lower()
        self._versions: dict[str, tuple[str, float]] = {}
        count(files_opened=1)

    def get(self, key: str) -> memoryview | None:
        """Return an object; None if it does not exist."""
        found = self._get_whole(key)
        return None if found is None else found.data

    def get_range(self, key: str, start: int, size: int) -> memoryview | None:
        """Return a range of an object; None if it does not exist."""
        place = self._object_source(key)
        if not size:
            return memoryview(b"")
        try:
            if start < 0:
                tail = _read_tail(place, -start)
                if len(tail) != -start:
                    raise too_short_error(self.source, key, start, size)
                data = tail[:size]
            else:
                data = request(place, start, start + size).data
        except SourceNotFoundError:
            return None
        except NotNWBError:  # the object ends before the range
            raise too_short_error(self.source, key, start, size) from None
        if len(data) != size:
            raise too_short_error(self.source, key, start, size)
        return data

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes | memoryview | None]:
        """Return several objects, requested concurrently."""
        distinct = list(dict.fromkeys(keys))
        return dict(zip(distinct, self.pool.map(self.get, distinct), strict=True))

    def members(self, prefix: str) -> list[str] | None:
        """Return the sorted names of the members of a prefix; None for web servers and DANDI assets."""
        folder = normalize_prefix(self.source, prefix)
        if self._scheme in _WEB or self._scheme == "dandi":
            return None
        place = self._object_source(f"{folder}/{_DOCUMENT}" if folder else _DOCUMENT)
        return _request_with_retry(place, _list_once)

    def version(self, key: str) -> str:
        """Return the size and entity tag of an object, by a request unless it was fetched recently."""
        seen, when = self._versions.get(key, ("", 0.0))
        if seen and time.monotonic() - when <= config.recheck_seconds:
            return seen
        try:
            return remote_file.identity(self._object_source(key), known=True)
        except SourceNotFoundError:
            return ABSENT
        except LazyNWBError:
            # The server may not support ranges, or the object may be empty. Any other error occurs again.
            found = self._get_whole(key)
            return ABSENT if found is None else found.identity

    def _get_whole(self, key: str) -> Response | None:
        try:
            found = _request_with_retry(self._object_source(key), _get_once)
        except SourceNotFoundError:
            return None
        name = key.rpartition("/")[2]
        if name.startswith(".") or name == _DOCUMENT:
            self._versions[key] = found.identity, time.monotonic()
        return found

    # -- URLs -----------------------------------------------------------------------------------------

    def _object_source(self, key: str) -> Source:
        """Return the source of an object."""
        validate_key(self.source, key)
        if self._scheme == "dandi":
            options = self.source.options.as_dict()
            if self._asset.headers:
                options["headers"] = {**(options.get("headers") or {}), **dict(self._asset.headers)}
            return Source(self._asset.url + quote(key), Options(options))
        if self._scheme not in _WEB:
            return self.source.with_path(f"{self.source.path.rstrip('/')}/{key}")
        scheme, host, path, query, _ = urlsplit(self.source.path)
        return self.source.with_path(
            urlunsplit((scheme, host, f"{path.rstrip('/')}/{quote(key)}", query, ""))
        )

    @cached_property
    def _asset(self) -> Asset:
        from lazynwb.storage.dandi import resolver

        return resolver.resolve(self.source.path)


# -- requests -----------------------------------------------------------------------------------------


def _request_with_retry(source: Source, ask: Callable[[Source, Location], T | Failure]) -> T:
    """Make a request with retries and within the limit of concurrent requests."""

    def once(location: Location) -> T | Failure:
        count(requests=1)
        with REQUEST_SLOTS:
            return ask(source, location)

    return with_retry(source, once) if is_worker() else wait(REQUESTS.submit(with_retry, source, once))


def _get_once(source: Source, location: Location, last: int = 0) -> Response | Failure:
    """Request an object, or its last bytes, once; raise NotSupportedError if it has no suffix ranges."""
    import obstore
    from obstore.exceptions import BaseError, NotSupportedError

    options: GetOptions = {} if not last else {"range": {"suffix": last}}
    try:
        answer = obstore.get(location.store, location.path, options=options)
        encoded = encoding_failure(source, answer)
        if encoded is not None:
            return encoded
        meta = answer.meta
        start, stop = answer.range
        data = memoryview(answer.bytes())
    except (BaseError, OSError, ValueError) as error:
        if last and isinstance(error, NotSupportedError):
            raise
        found = download_without_length(source, error, 0, sys.maxsize)
        if isinstance(found, Response):
            return Response(found.data[-last:], found.identity)
        return found or explain_refusal(source, location, error)
    count(bytes_read=len(data))
    if len(data) != stop - start:
        return transient_failure(
            source, f"the server sent {len(data)} bytes where {stop - start} were requested"
        )
    return Response(data, identity_of(meta))


def _read_tail(source: Source, size: int) -> memoryview:
    """Return the last `size` bytes of an object; fewer if it is smaller."""
    from obstore.exceptions import NotSupportedError

    def ask(source: Source, location: Location) -> Response | Failure | None:
        try:
            return _get_once(source, location, size)
        except NotSupportedError:
            return None

    found = _request_with_retry(source, ask)
    if found is not None:
        return found.data
    total = _request_with_retry(source, _size_once)
    return request(source, total - size, total).data if total >= size else memoryview(b"")


def _size_once(source: Source, location: Location) -> int | Failure:
    import obstore
    from obstore.exceptions import BaseError

    try:
        return obstore.head(location.store, location.path)["size"]
    except (BaseError, OSError, ValueError) as error:
        return explain(source, error)


def _list_once(source: Source, location: Location) -> list[str] | Failure:
    """List the names in the folder of an object once."""
    import obstore
    from obstore.exceptions import BaseError, InvalidPathError

    try:
        found = obstore.list_with_delimiter(location.store, location.path.rpartition("/")[0] or None)
    except InvalidPathError:
        message = (
            f'{source.name}: the name of an object in its folder contains "//", "." or ".." between slashes, '
            "or control characters, so the folder cannot be listed"
        )
        return Failure(LazyNWBError(message))
    except (BaseError, OSError, ValueError) as error:
        return explain(source, error)
    paths = [*found["common_prefixes"], *(meta["path"] for meta in found["objects"])]
    return sorted({path.rstrip("/").rpartition("/")[2] for path in paths})
