"""Web servers: `http://` and `https://`, plain, presigned, redirecting."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import urlsplit

from obstore.store import HTTPStore

from lazynwb.sources.source import NO_OPTIONS, Options, Source
from lazynwb.sources.stores import NO_RETRIES, Location, client_options

#: Paths that come out of obstore's encoding as they went in: those of one server share a store, and so its
#: connections. Any other URL, and any with a query, is the address of a store of its own, and sent as it is.
_PLAIN = re.compile(r"(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+")


def open_store(source: Source) -> Location:
    """Return the server, and the path on it; see `lazynwb.sources.stores`."""
    scheme, host, path, query, _ = urlsplit(source.path)
    if query or not _PLAIN.fullmatch(path):
        return Location(_store(source.path.partition("#")[0], source.options), "")
    return Location(_store(f"{scheme}://{host}", source.options), path.lstrip("/"))


@lru_cache(maxsize=1024)
def _store(url: str, options: Options) -> HTTPStore:
    client = client_options((options or NO_OPTIONS).as_dict(), allow_http=url.startswith("http:"))
    return HTTPStore.from_url(url, client_options=client, retry_config=NO_RETRIES)
