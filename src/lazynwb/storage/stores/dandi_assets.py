"""Assets of the DANDI archive: `dandi://dandiset/version/path`."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from lazynwb.errors import LazyNWBError
from lazynwb.storage.dandi import api, resolver
from lazynwb.storage.source import Options, Source
from lazynwb.storage.stores import http
from lazynwb.threads import ForkSafeLock

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lazynwb.storage.stores.registry import Location

#: Maximum number of cached locations, and their lifetime in seconds: drafts change, and signatures expire.
_MAX_PLACES = 20_000
_SECONDS = 600.0


class _Place(NamedTuple):
    """The location of an asset, whether its URL expires, and the time of the look-up (`time.monotonic`)."""

    source: Source
    expires: bool
    found: float


_places: OrderedDict[tuple[str, Source], _Place] = OrderedDict()
_queued: dict[str, None] = {}
_lock = ForkSafeLock()
#: Held while an asset is looked up again, each for many assets: concurrent requests are refused together.
_renewals = tuple(ForkSafeLock() for _ in range(64))
#: The location that this thread used last.
_last_place = threading.local()


def queue_lookups(sources: Iterable[Source]) -> None:
    """Announce assets that may be read, so that the first look-up includes all of them."""
    _queued.update((source.path, None) for source in sources if source.path.lower().startswith("dandi://"))


def open_store(source: Source) -> Location:
    """Return the location of an asset; see `lazynwb.storage.stores.registry`."""
    place = _places.get((api.api_url(), source))
    if place is None or time.monotonic() - place.found > _SECONDS:
        with _lock:  # concurrent readers would look up the same assets
            if _queued:
                queued = list(_queued)
                _queued.clear()
                resolver.prefetch(queued)
        place = _find(source, fresh=False)
    _last_place.to = place
    return http.open_store(place.source)


def content_source(source: Source) -> Source | None:
    """Return the source of the bytes of an asset; None if the look-up fails."""
    try:
        open_store(source)
    except LazyNWBError:
        return None  # the request raises the error
    place: _Place = _last_place.to
    return place.source


def relocate(source: Source, region: str | None) -> bool:
    """Look a refused asset up again, because signatures expire; return whether it has a new location."""
    del region
    refused: _Place = _last_place.to
    with _renewals[hash(source) % len(_renewals)]:
        if _places.get((api.api_url(), source), refused).source != refused.source:
            return True  # another thread has looked it up already
        return _find(source, fresh=not refused.expires).source != refused.source


def forget() -> None:
    """Forget the locations of assets."""
    _places.clear()
    _queued.clear()


def _find(source: Source, *, fresh: bool) -> _Place:
    asset = resolver.resolve(source.path, fresh=fresh)
    options = source.options.as_dict()
    if asset.headers:
        options["headers"] = {**(options.get("headers") or {}), **dict(asset.headers)}
    place = _Place(Source(asset.url, Options(options)), asset.expires, time.monotonic())
    with _lock:
        _places[api.api_url(), source] = place
        while len(_places) > _MAX_PLACES:
            _places.popitem(last=False)
    return place
