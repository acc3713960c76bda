"""Registry of object stores and web servers: the module that opens each URL scheme, and helpers of these."""

from __future__ import annotations

import os
import re
import threading
from functools import lru_cache, wraps
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, Protocol, TypeVar

from lazynwb.config import config
from lazynwb.errors import LazyNWBError
from lazynwb.storage.http_client import is_plain_ascii, is_web_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from obstore.store import ClientConfig, ObjectStore, RetryConfig

    from lazynwb.storage.source import Source

#: The module of this package that opens each scheme.
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
    "dandi": "dandi_assets",
}
SCHEMES = frozenset(_MODULES)

#: Retries are up to the caller, which counts them and distinguishes busy servers from denied access.
NO_RETRIES: RetryConfig = {"max_retries": 0}

#: Maximum duration of a response that arrives without pauses, in multiples of `config.request_timeout`.
_MAX_TIMEOUTS = 20

_BUCKET = re.compile(r"[A-Za-z0-9$][A-Za-z0-9._-]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_UNKNOWN_OPTION = re.compile(r"[Kk]ey: '?(\w+)'?")


class Location(NamedTuple):
    """A store, and the path of an object in it."""

    store: ObjectStore
    path: str


class StoreModule(Protocol):
    """Protocol of the modules of this package; some also define `relocate`, for refused objects."""

    def open_store(self, source: Source) -> Location:
        """Return the store of a source and its path there."""
        ...


class UnusableError(Exception):
    """A source or its options cannot be used; the message contains no secret."""


def locate(source: Source) -> Location:
    """Return the store of a remote source and its path there.

    Raises
    ------
    LazyNWBError
        If the scheme or an option is unknown; the message names it.
    """
    from obstore.exceptions import BaseError

    module = module_of(source)
    if _process.is_stranded:
        raise LazyNWBError(
            f"{source.name}: no remote file can be read in a process that was forked after its parent had "
            'read remote files: use the start method "spawn" or "forkserver", as in '
            'multiprocessing.get_context("spawn")'
        )
    try:
        found = module.open_store(source)
    except LazyNWBError:
        raise  # its message names the source already; some of these are also ValueErrors
    except UnusableError as error:
        message = f"{source.name}: {error}"
    except (BaseError, ValueError, TypeError) as error:
        # The text of these errors may contain the value of an option.
        unknown = _UNKNOWN_OPTION.search(str(error).partition("\n")[0])
        why = f"unknown option {unknown[1]!r}" if unknown else f"{type(error).__name__}, check their values"
        names = ", ".join(name for name, _ in source.options.items) or "none"
        message = f"{source.name}: its store cannot be opened with the given options ({names}): {why}"
    else:
        _process.has_read = True
        return found
    raise LazyNWBError(message)


def module_of(source: Source) -> StoreModule:
    """Return the module that opens a source.

    Raises
    ------
    LazyNWBError
        If the scheme of the URL is not supported.
    """
    scheme = source.path.partition("://")[0].lower()
    if scheme not in _MODULES:
        raise LazyNWBError(
            f"{source.name}: {scheme}:// URLs are not supported; known schemes are "
            f"{', '.join(sorted(SCHEMES))} and file"
        )
    return _module(_MODULES[scheme])


@lru_cache
def _module(name: str) -> StoreModule:
    module: StoreModule = import_module(f"{__package__}.{name}")
    return module


# -- helpers of the modules ---------------------------------------------------------------------------


def bucket_and_name(source: Source) -> tuple[str, str]:
    """Split the URL of an object into bucket and name; the name is empty in the URL of a bucket.

    Raises
    ------
    UnusableError
        If obstore cannot request the object, or would request another one.
    """
    where, _, name = source.path.partition("://")[2].partition("/")
    if _BUCKET.fullmatch(where.partition("@")[0]) is None:
        raise UnusableError("the part before the first slash is not a valid bucket name")
    if name and not is_name(name):
        raise UnusableError(
            'names with "//", "." or ".." between slashes, or control characters, are not supported: check '
            "the URL, or copy the object to another name"
        )
    return where, name


def is_name(text: str) -> bool:
    """Return whether obstore can request an object of this name."""
    return {"", ".", ".."}.isdisjoint(text.split("/")) and not _CONTROL.search(text)


P = ParamSpec("P")
T = TypeVar("T")


def memoize_store(make: Callable[P, T]) -> Callable[P, T]:
    """Cache the stores that a function opens, by its arguments; each store is opened by one thread only.

    A store holds the connections to its server, and many threads request the same store concurrently.
    """

    @lru_cache(maxsize=128)
    def opened(_settings: object, *args: P.args, **kwargs: P.kwargs) -> T:
        return make(*args, **kwargs)

    @wraps(make)
    def get(*args: P.args, **kwargs: P.kwargs) -> T:
        with _process.making:
            return opened((config.request_timeout, config.max_requests), *args, **kwargs)  # type: ignore[arg-type]

    return get


def read_environment(variables: Iterable[str]) -> tuple[str | None, ...]:
    """Return the values of environment variables, as part of the key of a memoized store."""
    return tuple(map(os.environ.get, variables))


def client_options(options: Mapping[str, Any], *, allow_http: bool = False) -> ClientConfig:
    """Return the settings of a store's HTTP client.

    Parameters
    ----------
    options : mapping
        `headers` are sent with every request, `timeout` overrides `config.request_timeout`, and
        `client_options` are passed to obstore.
    allow_http : bool
        Whether the endpoint is without TLS.
    """
    timeout = float(options.get("timeout", config.request_timeout))
    client: dict[str, Any] = {
        # The timeout applies to pauses: a large response may take longer, but not forever.
        "read_timeout": _milliseconds(timeout),
        "timeout": _milliseconds(_MAX_TIMEOUTS * timeout),
        "connect_timeout": _milliseconds(min(10.0, timeout)),
        "pool_max_idle_per_host": str(config.max_requests),
    }
    if allow_http:
        client["allow_http"] = True
    if options.get("headers"):
        client["default_headers"] = dict(options["headers"])
    client.update(options.get("client_options") or {})
    return client  # type: ignore[return-value]


def _milliseconds(seconds: float) -> str:
    return f"{max(int(seconds * 1000), 1)}ms"


def translate_options(
    options: Mapping[str, Any], names: Mapping[str, str], others: tuple[str, ...]
) -> dict[str, Any]:
    """Return options under obstore's names.

    Parameters
    ----------
    options : mapping
        Storage options as the user passes them.
    names : mapping
        Names of obstore by names of fsspec.
    others : tuple of str
        Prefixes of options of other stores, which are ignored: one set of options may serve several kinds of
        sources.

    Raises
    ------
    UnusableError
        If an option has characters that make obstore panic.
    """
    found = {
        names.get(name, name): value.strip() if isinstance(value, str) else value
        for name, value in options.items()
        if not name.startswith(others) and name not in _CLIENT_OPTIONS and value is not None
    }
    for name in _HEADER_OPTIONS & found.keys():
        if isinstance(found[name], str) and not is_plain_ascii(found[name]):
            raise UnusableError(f"option {name!r} contains characters that are not allowed in a request")
    return found


def endpoint_of(found: Mapping[str, Any], option: str, *variables: str) -> str:
    """Return the endpoint in the options or the environment; an empty string if there is none.

    Raises
    ------
    UnusableError
        If the endpoint is not a URL, which makes obstore panic.
    """
    endpoint = found.get(option) or next((os.environ[name] for name in variables if os.environ.get(name)), "")
    if endpoint and not is_web_url(endpoint):
        raise UnusableError(
            'the endpoint must be a URL, such as "https://s3.lab.org" or "http://localhost:9000"'
        )
    return str(endpoint)


def is_true(value: object) -> bool:
    """Return whether the value of an option is true; obstore accepts strings, too."""
    return str(value).lower() in {"true", "1", "yes", "on", "y", "t"}


_HEADER_OPTIONS = frozenset({"access_key_id", "session_token", "region", "bearer_token", "account_name"})
#: Options that are not passed to the store: those of the HTTP client, and those of fsspec's file systems.
_CLIENT_OPTIONS = frozenset(
    {
        *("headers", "timeout", "client_options", "retry_config", "use_ssl"),
        *("asynchronous", "loop", "skip_instance_cache", "use_listings_cache", "listings_expiry_time"),
        *("max_paths", "batch_size", "block_size", "cache_type", "cache_options", "version_aware"),
        *("default_block_size", "default_cache_type", "default_fill_cache", "max_concurrency"),
    }
)


class _ProcessState:
    """State of this process that changes in a forked child.

    The threads that execute obstore's requests do not exist in a forked child, so requests would block
    forever there.
    """

    def __init__(self) -> None:
        self.making = threading.RLock()
        self.has_read = False
        self.is_stranded = False

    def after_fork(self) -> None:
        self.making = threading.RLock()
        self.is_stranded = self.has_read


_process = _ProcessState()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_process.after_fork)
