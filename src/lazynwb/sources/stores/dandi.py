"""Assets of the DANDI archive: `dandi://dandiset/version/path`."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from lazynwb.sources import dandi
from lazynwb.sources.source import Options, Source
from lazynwb.sources.stores import http

if TYPE_CHECKING:
    from lazynwb.sources.stores import Location

#: Assets whose places are remembered.
_MOST = 20_000

_places: OrderedDict[Source, Source] = OrderedDict()
_lock = threading.Lock()


def open_store(source: Source) -> Location:
    """Return the place that the archive keeps an asset in; see `lazynwb.sources.stores`."""
    with _lock:
        place = _places.get(source)
    if place is None:
        place = _place(source, fresh=False)
    return http.open_store(place)


def look_again(source: Source, region: str | None) -> bool:
    """Ask the archive anew for an asset that was refused: signatures expire. Tell whether that may help."""
    del region
    with _lock:
        known = _places.get(source)
    return _place(source, fresh=True) != known


def _place(source: Source, *, fresh: bool) -> Source:
    asset = dandi.resolve(source.path, fresh=fresh)
    options = source.options.as_dict()
    if asset.headers:
        options["headers"] = {**(options.get("headers") or {}), **dict(asset.headers)}
    place = Source(asset.url, Options(options))
    with _lock:
        _places[source] = place
        while len(_places) > _MOST:
            _places.popitem(last=False)
    return place
