"""Object stores and web servers: each module here knows how to get into one kind, by its URLs' scheme."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from lazynwb.config import config
from lazynwb.errors import LazyNWBError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from obstore.store import ClientConfig, ObjectStore, RetryConfig

    from lazynwb.sources.source import Options, Source

#: Which module of this package opens URLs of a scheme.
_MODULES = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "az": "azure",
    "azure": "azure",
    "abfs": "azure",
    "abfss": "azure",
    "adl": "azure",
    "http": "http",
    "https": "http",
    "dandi": "dandi",
}
SCHEMES = frozenset(_MODULES)

#: Requests are repeated by the caller, who counts them, and tells a busy server from a refusal.
NO_RETRIES: RetryConfig = {"max_retries": 0}


class Location(NamedTuple):
    """A store, and the path of an object in it."""

    store: ObjectStore
    path: str


class StoreModule(Protocol):
    """What a module of this package offers."""

    def open_store(self, source: Source) -> Location:
        """Return the store that a source lies in, and its path there."""
        ...


def locate(source: Source) -> Location:
    """Return the store that a remote source lies in, and its path there.

    Raises
    ------
    LazyNWBError
        If the URL is of an unknown kind, or an option is unknown to its store; the message says which.
    """
    from obstore.exceptions import BaseError

    module = module_of(source)
    try:
        return module.open_store(source)
    except (BaseError, ValueError, TypeError) as error:
        # The text of these errors may hold the value of an option.
        kind = type(error).__name__
        names = ", ".join(name for name, _ in source.options.items) or "none"
        message = f"{source.name}: its store cannot be opened ({kind}); options given: {names}"
        raise LazyNWBError(message) from None


def module_of(source: Source) -> StoreModule:
    """Return the module that opens a source.

    Raises
    ------
    LazyNWBError
        If there is none for the URL's scheme, or the package that all of them need is missing.
    """
    scheme = source.path.partition("://")[0].lower()
    if scheme not in _MODULES:
        message = (
            f"{source.name}: {scheme}:// URLs cannot be read; known are {', '.join(sorted(SCHEMES))} and file"
        )
        raise LazyNWBError(message)
    return _module(_MODULES[scheme])


@lru_cache
def _module(name: str) -> StoreModule:
    module: StoreModule = import_module(f"{__name__}.{name}")
    return module


def client_options(options: Mapping[str, Any], *, allow_http: bool = False) -> ClientConfig:
    """Return the settings of the HTTP client that a store makes its requests with.

    Parameters
    ----------
    options : mapping
        `headers` are sent with every request, `timeout` (seconds) overrides `config.request_timeout`, and
        `client_options` are obstore's own.
    allow_http : bool
        Whether the endpoint is one without TLS.
    """
    timeout = f"{int(float(options.get('timeout', config.request_timeout)) * 1000)}ms"
    client: dict[str, Any] = {
        "timeout": timeout,
        "connect_timeout": f"{min(10, int(config.request_timeout) or 1)}s",
        "pool_max_idle_per_host": str(config.max_requests),
    }
    if allow_http:
        client["allow_http"] = True
    if options.get("headers"):
        client["default_headers"] = dict(options["headers"])
    client.update(options.get("client_options") or {})
    return client  # type: ignore[return-value]


def translated(options: Options, names: Mapping[str, str], prefixes: tuple[str, ...]) -> dict[str, Any]:
    """Return options under obstore's names.

    Parameters
    ----------
    options : Options
    names : mapping
        fsspec's names, and obstore's for the same things.
    prefixes : tuple of str
        What names of other stores' options begin with: one set of options may serve sources of several kinds.
    """
    found = options.as_dict()
    for inner in ("client_kwargs", "config_kwargs"):  # where fsspec's users put what goes to boto
        found.update(found.pop(inner, None) or {})
    return {
        names.get(name, name): value
        for name, value in found.items()
        if not name.startswith(prefixes) and name not in COMMON and value is not None
    }


#: Options that are not a store's own.
COMMON = frozenset(
    {"headers", "timeout", "client_options", "retry_config", "asynchronous", "loop", "use_ssl"}
)
