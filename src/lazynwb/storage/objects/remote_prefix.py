"""A store that is the objects below a prefix, in an object store or on a web server."""

from __future__ import annotations

import time
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

from lazynwb.config import config
from lazynwb.errors import LazyNWBError, NotNWBError, SourceNotFoundError
from lazynwb.profile import count
from lazynwb.storage import remote_file
from lazynwb.storage.error_mapping import Failure, explain, passing
from lazynwb.storage.objects.key_validation import checked, folder_of, too_short
from lazynwb.storage.range_request import TURNS, Response, encoding_of, identity_of, refused, request
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
#: A document of Zarr's, which each store has: from its place follows the store's.
_DOCUMENT = "zarr.json"


class RemoteObjects:
    """Objects whose URLs begin alike; see `lazynwb.storage.objects.object_store.Objects`.

    A part of an object costs one request, also from its end; only where the store has no such ranges (Azure)
    its size is asked for first. Nothing of the objects is kept: each is a file of its own, which would have
    to be asked for its version, and that takes as long as to fetch it. Versions of metadata documents come
    with them, and are believed for `config.recheck_seconds`.

    That an object is not there is told from a refusal by the status 404. S3 answers 403 for either, to who
    may not list the bucket: that is an error, because a chunk without data would be read as fill values.

    Parameters
    ----------
    source : Source
        The prefix, as a URL. A query (of a signed URL) goes to each of the objects.
    """

    pool = REQUESTS

    def __init__(self, source: Source) -> None:
        self.source = source
        self._scheme = source.path.partition("://")[0].lower()
        self._versions: dict[str, tuple[str, float]] = {}
        count(files_opened=1)

    def get(self, key: str) -> memoryview | None:
        """Return an object; None if there is none."""
        found = self._whole(key)
        return None if found is None else found.data

    def get_range(self, key: str, start: int, size: int) -> memoryview | None:
        """Return a part of an object; None if there is none."""
        place = self._place(key)
        if not size:
            return memoryview(b"")
        try:
            if start < 0:
                tail = _tail(place, -start)
                if len(tail) != -start:
                    raise too_short(self.source, key, start, size)
                data = tail[:size]
            else:
                data = request(place, start, start + size).data
        except SourceNotFoundError:
            return None
        except NotNWBError:  # there is nothing from there on
            raise too_short(self.source, key, start, size) from None
        if len(data) != size:
            raise too_short(self.source, key, start, size)
        return data

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes | memoryview | None]:
        """Return several objects, asked for at the same time."""
        wanted = list(dict.fromkeys(keys))
        return dict(zip(wanted, self.pool.map(self.get, wanted), strict=True))

    def members(self, prefix: str) -> list[str] | None:
        """Return the names right below a prefix, sorted; None for web servers (and DANDI's assets)."""
        folder = folder_of(self.source, prefix)
        if self._scheme in _WEB or self._scheme == "dandi":
            return None
        place = self._place(f"{folder}/{_DOCUMENT}" if folder else _DOCUMENT)
        return _asked(place, _list)

    def version(self, key: str) -> str:
        """Return the size and entity tag of an object, asked for unless it was fetched lately."""
        seen, when = self._versions.get(key, ("", 0.0))
        if seen and time.monotonic() - when <= config.recheck_seconds:
            return seen
        try:
            return remote_file.identity(self._place(key), known=True)
        except SourceNotFoundError:
            return ABSENT
        except LazyNWBError:
            # Perhaps it sends no parts of a file, or there is none but an empty one. Else it shows again.
            found = self._whole(key)
            return ABSENT if found is None else found.identity

    def _whole(self, key: str) -> Response | None:
        try:
            found = _asked(self._place(key), _get)
        except SourceNotFoundError:
            return None
        name = key.rpartition("/")[2]
        if name.startswith(".") or name == _DOCUMENT:
            self._versions[key] = found.identity, time.monotonic()
        return found

    # -- URLs -----------------------------------------------------------------------------------------

    def _place(self, key: str) -> Source:
        """Return where an object is."""
        checked(self.source, key)
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


def _asked(source: Source, ask: Callable[[Source, Location], T | Failure]) -> T:
    """Return what a store answers; see `lazynwb.storage.range_request.request`."""

    def once(location: Location) -> T | Failure:
        count(requests=1)
        with TURNS:
            return ask(source, location)

    return with_retry(source, once) if is_worker() else wait(REQUESTS.submit(with_retry, source, once))


def _get(source: Source, location: Location, last: int = 0) -> Response | Failure:
    """Ask once for an object, or for the last bytes of it; NotSupportedError where it does not send these."""
    import obstore
    from obstore.exceptions import BaseError, NotSupportedError

    options: GetOptions = {} if not last else {"range": {"suffix": last}}
    try:
        answer = obstore.get(location.store, location.path, options=options)
        encoded = encoding_of(source, answer)
        if encoded is not None:
            return encoded
        meta = answer.meta
        start, stop = answer.range
        data = memoryview(answer.bytes())
    except (BaseError, OSError, ValueError) as error:
        if last and isinstance(error, NotSupportedError):
            raise
        return refused(source, location, error)
    count(bytes_read=len(data))
    if len(data) != stop - start:
        return passing(source, f"the server sent {len(data)} bytes where {stop - start} were asked for")
    return Response(data, identity_of(meta))


def _tail(source: Source, size: int) -> memoryview:
    """Return the last bytes of an object, or the fewer that there are."""
    from obstore.exceptions import NotSupportedError

    def ask(source: Source, location: Location) -> Response | Failure | None:
        try:
            return _get(source, location, size)
        except NotSupportedError:
            return None

    found = _asked(source, ask)
    if found is not None:
        return found.data
    total = _asked(source, _size)
    return request(source, total - size, total).data if total >= size else memoryview(b"")


def _size(source: Source, location: Location) -> int | Failure:
    import obstore
    from obstore.exceptions import BaseError

    try:
        return obstore.head(location.store, location.path)["size"]
    except (BaseError, OSError, ValueError) as error:
        return explain(source, error)


def _list(source: Source, location: Location) -> list[str] | Failure:
    """Ask once for the names beside an object."""
    import obstore
    from obstore.exceptions import BaseError, InvalidPathError

    try:
        found = obstore.list_with_delimiter(location.store, location.path.rpartition("/")[0] or None)
    except InvalidPathError:
        message = (
            f'{source.name}: an object beside it has a name with "//", "." or ".." between slashes, or '
            "control characters, which no listing gets past"
        )
        return Failure(LazyNWBError(message))
    except (BaseError, OSError, ValueError) as error:
        return explain(source, error)
    paths = [*found["common_prefixes"], *(meta["path"] for meta in found["objects"])]
    return sorted({path.rstrip("/").rpartition("/")[2] for path in paths})
