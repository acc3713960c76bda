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

#: Assets whose places are remembered, and seconds for which they are: drafts change, and signatures expire.
_MAX_PLACES = 20_000
_SECONDS = 600.0


class _Place(NamedTuple):
    """Where an asset was found, whether that expires, and when it was (`time.monotonic`)."""

    source: Source
    expires: bool
    found: float


_places: OrderedDict[tuple[str, Source], _Place] = OrderedDict()
_announced: dict[str, None] = {}
_lock = ForkSafeLock()
#: Held while the archive is asked again, one for many assets: concurrent requests are refused together.
_renewals = tuple(ForkSafeLock() for _ in range(64))
#: Where this thread has just been sent to.
_sent = threading.local()


def prepare(sources: Iterable[Source]) -> None:
    """Note assets that may be asked for: the first that is needed is looked up with all the others."""
    _announced.update((source.path, None) for source in sources if source.path.lower().startswith("dandi://"))


def open_store(source: Source) -> Location:
    """Return the place that the archive keeps an asset in; see `lazynwb.storage.stores.registry`."""
    place = _places.get((api.api_url(), source))
    if place is None or time.monotonic() - place.found > _SECONDS:
        with _lock:  # the others would ask for the same
            if _announced:
                announced = list(_announced)
                _announced.clear()
                resolver.look_up(announced)
        place = _find(source, fresh=False)
    _sent.to = place
    return http.open_store(place.source)


def content_of(source: Source) -> Source | None:
    """Return where the bytes of an asset are now; None if the archive does not say."""
    try:
        open_store(source)
    except LazyNWBError:
        return None  # the request raises the error
    place: _Place = _sent.to
    return place.source


def look_again(source: Source, region: str | None) -> bool:
    """Ask the archive anew for an asset that was refused: signatures expire. Return whether that may help."""
    del region
    refused: _Place = _sent.to
    with _renewals[hash(source) % len(_renewals)]:
        if _places.get((api.api_url(), source), refused).source != refused.source:
            return True  # another thread has asked already
        return _find(source, fresh=not refused.expires).source != refused.source


def forget() -> None:
    """Forget where assets are."""
    _places.clear()
    _announced.clear()


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
