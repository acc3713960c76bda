"""Web servers: `http://` and `https://` URLs, including presigned URLs and redirects."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from obstore.store import HTTPStore

from lazynwb.storage.stores.registry import NO_RETRIES, Location, client_options, is_name, memoize_store

if TYPE_CHECKING:
    from lazynwb.storage.source import Options, Source

#: Characters that obstore does not encode in a path, in addition to letters, digits and `-._~`.
_UNQUOTED = "!$&'()*+,;=:@|^[]/"


def open_store(source: Source) -> Location:
    """Return the server and the path on it; see `lazynwb.storage.stores.registry`.

    Paths that obstore's encoding preserves share a store and its connections. Any other URL, and any URL with
    a query, becomes a store of its own, so that it is sent unchanged.
    """
    scheme, host, path, query, _ = urlsplit(source.path)
    name = unquote(path).removeprefix("/")
    if (
        query
        or not is_name(name)
        or "\\" in name
        or quote(name, _UNQUOTED) != quote(path[1:], _UNQUOTED + "%")
    ):
        return Location(_store(source.path.partition("#")[0], source.options), "")
    return Location(_store(f"{scheme}://{host}", source.options), name)


@memoize_store
def _store(url: str, options: Options) -> HTTPStore:
    found = options.as_dict()
    headers = _headers(url, found)
    client = client_options({**found, "headers": headers}, allow_http=url.lower().startswith("http:"))
    client.setdefault("pool_idle_timeout", "15s")  # there may be many stores, each with its own connections
    return HTTPStore.from_url(url, client_options=client, retry_config=NO_RETRIES)


def headers_of(source: Source) -> tuple[str, dict[str, str]]:
    """Return the URL of a source without its login, and the headers of requests to it."""
    url = source.path.partition("#")[0]
    scheme, host, *rest = urlsplit(url)
    plain = urlunsplit((scheme, host.rpartition("@")[2], *rest))
    return plain, _headers(url, source.options.as_dict())


def _headers(url: str, options: dict[str, Any]) -> dict[str, str]:
    return {**_login(url), **_headers_of(options.get("client_kwargs")), **(options.get("headers") or {})}


def _login(url: str) -> dict[str, str]:
    """Return the header for `user:password@` before the host, which obstore ignores."""
    login, mark, _ = urlsplit(url).netloc.rpartition("@")
    return {"Authorization": f"Basic {b64encode(unquote(login).encode()).decode()}"} if mark else {}


def _headers_of(client_kwargs: Any) -> dict[str, str]:  # noqa: ANN401 - fsspec's option takes many things
    return dict(client_kwargs.get("headers") or {}) if isinstance(client_kwargs, dict) else {}
