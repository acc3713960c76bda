"""Object stores and web servers: each module here knows how to get into one kind, by its URLs' scheme."""

from __future__ import annotations

import os
import re
import threading
from functools import lru_cache, wraps
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, Protocol, TypeVar

from lazynwb.config import config
from lazynwb.errors import LazyNWBError
from lazynwb.storage.http_client import is_plain, is_web_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from obstore.store import ClientConfig, ObjectStore, RetryConfig

    from lazynwb.storage.source import Source

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
    "dandi": "dandi_assets",
}
SCHEMES = frozenset(_MODULES)

#: Requests are repeated by the caller, who counts them, and tells a busy server from a refusal.
NO_RETRIES: RetryConfig = {"max_retries": 0}

#: How often `config.request_timeout` an answer may take, if it comes without pauses.
_MAX_TIMEOUTS = 20

_BUCKET = re.compile(r"[A-Za-z0-9$][A-Za-z0-9._-]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_UNKNOWN_OPTION = re.compile(r"[Kk]ey: '?(\w+)'?")


class Location(NamedTuple):
    """A store, and the path of an object in it."""

    store: ObjectStore
    path: str


class StoreModule(Protocol):
    """What a module of this package offers; some also `look_again`, for when an object was refused."""

    def open_store(self, source: Source) -> Location:
        """Return the store that a source lies in, and its path there."""
        ...


class UnusableError(Exception):
    """Why a source or its options cannot be used, in words that hold no secret."""


def locate(source: Source) -> Location:
    """Return the store that a remote source lies in, and its path there.

    Raises
    ------
    LazyNWBError
        If the URL is of an unknown kind, or an option is unknown to its store; the message says which.
    """
    from obstore.exceptions import BaseError

    module = module_of(source)
    if _process.is_stranded:
        raise LazyNWBError(
            f"{source.name}: no remote file can be read in a process that was forked from one that has read "
            'remote files: start it by "spawn" or "forkserver", as in multiprocessing.get_context("spawn")'
        )
    try:
        found = module.open_store(source)
    except LazyNWBError:
        raise  # it names the source; some of these are ValueErrors too
    except UnusableError as error:
        message = f"{source.name}: {error}"
    except (BaseError, ValueError, TypeError) as error:
        # The text of these errors may hold the value of an option.
        unknown = _UNKNOWN_OPTION.search(str(error).partition("\n")[0])
        why = f"unknown option {unknown[1]!r}" if unknown else f"{type(error).__name__}, check their values"
        names = ", ".join(name for name, _ in source.options.items) or "none"
        message = f"{source.name}: its store cannot be opened with the options given ({names}): {why}"
    else:
        _process.has_read = True
        return found
    raise LazyNWBError(message)


def module_of(source: Source) -> StoreModule:
    """Return the module that opens a source.

    Raises
    ------
    LazyNWBError
        If there is none for the URL's scheme.
    """
    scheme = source.path.partition("://")[0].lower()
    if scheme not in _MODULES:
        raise LazyNWBError(
            f"{source.name}: {scheme}:// URLs cannot be read; known are {', '.join(sorted(SCHEMES))} and file"
        )
    return _module(_MODULES[scheme])


@lru_cache
def _module(name: str) -> StoreModule:
    module: StoreModule = import_module(f"{__package__}.{name}")
    return module


# -- for the modules ----------------------------------------------------------------------------------


def bucket_and_name(source: Source) -> tuple[str, str]:
    """Take the URL of an object apart; the name is empty in that of a bucket.

    Raises
    ------
    UnusableError
        If obstore could not ask for it, or would ask for another one.
    """
    where, _, name = source.path.partition("://")[2].partition("/")
    if _BUCKET.fullmatch(where.partition("@")[0]) is None:
        raise UnusableError("what stands before the first slash cannot be the name of a bucket")
    if name and not is_name(name):
        raise UnusableError(
            'names with "//", "." or ".." between slashes, or control characters, cannot be asked for: '
            "check the URL, or copy the object to another name"
        )
    return where, name


def is_name(text: str) -> bool:
    """Return whether obstore can ask for an object of this name."""
    return {"", ".", ".."}.isdisjoint(text.split("/")) and not _CONTROL.search(text)


P = ParamSpec("P")
T = TypeVar("T")


def once(make: Callable[P, T]) -> Callable[P, T]:
    """Keep what a function makes, for the latest of its arguments; each is made by one thread only.

    A store holds the connections to its server, and many threads ask for one at the same time.
    """

    @lru_cache(maxsize=128)
    def kept(_settings: object, *args: P.args, **kwargs: P.kwargs) -> T:
        return make(*args, **kwargs)

    @wraps(make)
    def get(*args: P.args, **kwargs: P.kwargs) -> T:
        with _process.making:
            return kept((config.request_timeout, config.max_requests), *args, **kwargs)  # type: ignore[arg-type]

    return get


def environment(variables: Iterable[str]) -> tuple[str | None, ...]:
    """Return the values of variables: once those that a store reads change, it is another one."""
    return tuple(map(os.environ.get, variables))


def client_options(options: Mapping[str, Any], *, allow_http: bool = False) -> ClientConfig:
    """Return the settings of the HTTP client that a store makes its requests with.

    Parameters
    ----------
    options : mapping
        `headers` are sent with every request, `timeout` overrides `config.request_timeout`, and
        `client_options` are obstore's own.
    allow_http : bool
        Whether the endpoint is one without TLS.
    """
    timeout = float(options.get("timeout", config.request_timeout))
    client: dict[str, Any] = {
        # What counts is how long nothing comes: a large answer takes its time, if not for ever.
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


def translated(
    options: Mapping[str, Any], names: Mapping[str, str], others: tuple[str, ...]
) -> dict[str, Any]:
    """Return options under obstore's names.

    Parameters
    ----------
    options : mapping
    names : mapping
        fsspec's names, and obstore's for the same things.
    others : tuple of str
        What names of other stores' options begin with: one set of options may serve sources of several kinds.

    Raises
    ------
    UnusableError
        If an option has characters at which obstore would panic.
    """
    found = {
        names.get(name, name): value.strip() if isinstance(value, str) else value
        for name, value in options.items()
        if not name.startswith(others) and name not in _COMMON and value is not None
    }
    for name in _IN_HEADERS & found.keys():
        if isinstance(found[name], str) and not is_plain(found[name]):
            raise UnusableError(f"option {name!r} has characters that no request can have")
    return found


def endpoint_of(found: Mapping[str, Any], option: str, *variables: str) -> str:
    """Return where a store's server is, by its options or the environment; nothing where neither says so.

    Raises
    ------
    UnusableError
        If that is no URL, at which obstore would panic.
    """
    given = found.get(option) or next((os.environ[name] for name in variables if os.environ.get(name)), "")
    if given and not is_web_url(given):
        raise UnusableError(
            'the endpoint has to be a URL, such as "https://s3.lab.org" or "http://localhost:9000"'
        )
    return str(given)


def is_true(value: object) -> bool:
    """Return whether an option is set; obstore takes words for truth values, too."""
    return str(value).lower() in {"true", "1", "yes", "on", "y", "t"}


_IN_HEADERS = frozenset({"access_key_id", "session_token", "region", "bearer_token", "account_name"})
#: Options that are not a store's own: those of every HTTP client, and what fsspec's file systems take for
#: themselves.
_COMMON = frozenset(
    {
        *("headers", "timeout", "client_options", "retry_config", "use_ssl"),
        *("asynchronous", "loop", "skip_instance_cache", "use_listings_cache", "listings_expiry_time"),
        *("max_paths", "batch_size", "block_size", "cache_type", "cache_options", "version_aware"),
        *("default_block_size", "default_cache_type", "default_fill_cache", "max_concurrency"),
    }
)


class _Process:
    """What is true of this process, and not of one that is forked from it.

    The threads that carry out obstore's requests are not in a forked one, where each request would wait for
    them for ever.
    """

    def __init__(self) -> None:
        self.making = threading.RLock()
        self.has_read = False
        self.is_stranded = False

    def after_fork(self) -> None:
        self.making = threading.RLock()
        self.is_stranded = self.has_read


_process = _Process()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_process.after_fork)
