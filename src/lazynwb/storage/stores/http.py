"""Web servers: `http://` and `https://`, plain, presigned, redirecting."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from obstore.store import HTTPStore

from lazynwb.storage.stores.registry import NO_RETRIES, Location, client_options, is_name, once

if TYPE_CHECKING:
    from lazynwb.storage.source import Options, Source

#: What obstore leaves as it is in a path, beside letters, digits and `-._~`.
_AS_IS = "!$&'()*+,;=:@|^[]/"


def open_store(source: Source) -> Location:
    """Return the server, and the path on it; see `lazynwb.storage.stores.registry`.

    Paths that come out of obstore's encoding as they were share a store, and so its connections. Any other
    URL, and any with a query, is the address of a store of its own, and sent as it is.
    """
    scheme, host, path, query, _ = urlsplit(source.path)
    name = unquote(path).removeprefix("/")
    if query or not is_name(name) or "\\" in name or quote(name, _AS_IS) != quote(path[1:], _AS_IS + "%"):
        return Location(_store(source.path.partition("#")[0], source.options), "")
    return Location(_store(f"{scheme}://{host}", source.options), name)


@once
def _store(url: str, options: Options) -> HTTPStore:
    found = options.as_dict()
    headers = _headers(url, found)
    client = client_options({**found, "headers": headers}, allow_http=url.lower().startswith("http:"))
    client.setdefault("pool_idle_timeout", "15s")  # there may be many, each with connections of its own
    return HTTPStore.from_url(url, client_options=client, retry_config=NO_RETRIES)


def headers_of(source: Source) -> tuple[str, dict[str, str]]:
    """Return the URL that requests for a source are made to, without a login, and the headers they have."""
    url = source.path.partition("#")[0]
    scheme, host, *rest = urlsplit(url)
    plain = urlunsplit((scheme, host.rpartition("@")[2], *rest))
    return plain, _headers(url, source.options.as_dict())


def _headers(url: str, options: dict[str, Any]) -> dict[str, str]:
    return {**_login(url), **_headers_of(options.get("client_kwargs")), **(options.get("headers") or {})}


def _login(url: str) -> dict[str, str]:
    """Return the header for `user:password@` before the host, which obstore leaves out."""
    login, mark, _ = urlsplit(url).netloc.rpartition("@")
    return {"Authorization": f"Basic {b64encode(unquote(login).encode()).decode()}"} if mark else {}


def _headers_of(client_kwargs: Any) -> dict[str, str]:  # noqa: ANN401 - fsspec's option takes many things
    return dict(client_kwargs.get("headers") or {}) if isinstance(client_kwargs, dict) else {}
