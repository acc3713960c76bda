"""Settings of the process: `lazynwb.config`, with `LAZYNWB_*` environment variables as defaults."""

from __future__ import annotations

import logging
import os
import sys
import typing
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

_LOGGER = logging.getLogger("lazynwb")

#: Environment variables of lazynwb 1.x and their settings.
_OTHER_VARIABLES = {
    "LAZYNWB_ANON": "anon",
    "LAZYNWB_FILE_IO_ANON": "anon",
    "LAZYNWB_FILE_IO_DISABLE_CACHE": "disable_cache",
    "LAZYNWB_FILE_IO_FSSPEC_STORAGE_OPTIONS": "fsspec_storage_options",
    "LAZYNWB_FILE_IO_USE_POLARS": "use_polars",
    "LAZYNWB_FSSPEC_STORAGE_OPTIONS": "fsspec_storage_options",
}
_ONE_READER = "there is only one reader of remote files: unset it"
#: Environment variables without effect, each with a remedy.
_IGNORED_VARIABLES = {
    "LAZYNWB_CATALOG_CACHE_PATH": "the cache is a folder, not a database: set LAZYNWB_CACHE_DIR",
    "LAZYNWB_FILE_IO_USE_OBSTORE": _ONE_READER,
    "LAZYNWB_FILE_IO_USE_REMFILE": _ONE_READER,
    "LAZYNWB_USE_OBSTORE": _ONE_READER,
    "LAZYNWB_USE_REMFILE": _ONE_READER,
}
_warned: set[str] = set()

#: Minimum values of numbers.
_MINIMUMS = {
    **dict.fromkeys(("batch_bytes", "max_requests"), 1),
    **dict.fromkeys(
        ("cache_max_bytes", "column_cache_bytes", "download_bytes", "max_threads", "max_retries"), 0
    ),
    **dict.fromkeys(("retry_seconds", "request_timeout", "recheck_seconds", "revalidate_seconds"), 0),
}
_LINKS = ("folder", "anywhere", "never")
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off", ""}


def _default_cache_dir() -> Path:
    if sys.platform == "linux":
        # The same as platformdirs, whose import takes as long as a query.
        root = os.environ.get("XDG_CACHE_HOME", "").strip() or os.path.expanduser("~/.cache")  # noqa: PTH111 - no error
        return Path(root, "lazynwb")
    from platformdirs import user_cache_path

    return user_cache_path("lazynwb", appauthor=False)


@dataclass(slots=True, init=False)
class Config:
    """Settings of the process; assign to an attribute of `lazynwb.config` to change one.

    The initial value of a setting is that of its environment variable, `LAZYNWB_` followed by its name in
    capitals, or else its default. The variables of lazynwb 1.x (`LAZYNWB_ANON`,
    `LAZYNWB_FSSPEC_STORAGE_OPTIONS`, and those with `FILE_IO_` in their names) are supported, too; one
    warning lists those without effect.

    Attributes
    ----------
    cache_dir : Path or None
        Folder of the catalog cache; None (the default) is the platform's cache folder for the user.
    cache_max_bytes : int
        Maximum size of the catalog cache on disk (512 MiB).
    column_cache_bytes : int
        Maximum size of the column store on disk (2 GiB), which contains small decoded columns; 0 disables it.
    disable_cache : bool
        Whether to disable the catalog cache and the column store on disk.
    disable_progress : bool
        Whether to hide progress bars (also `TQDM_DISABLE` of tqdm).
    external_links : {"folder", "anywhere", "never"}
        Which HDF5 external links are followed: to files in the folder of the linking file or below (the
        default), to any file, or none. Do not use "anywhere" for files that are not trusted.
    batch_bytes : int
        Maximum size of a batch of decoded rows in bytes (64 MiB), which bounds the memory in flight. Smaller
        batches read chunks at their borders twice, larger ones allocate new memory from the system each time.
    max_threads : int
        Number of threads that read and decode; 0 means the number of processors, but at most 16.
    max_requests : int
        Maximum number of concurrent requests to object stores and web servers (64).
    max_retries : int
        Maximum number of retries of a request after a transient failure (6), with exponential backoff.
    retry_seconds : float
        Seconds after which a request is not retried any more (60).
    request_timeout : float
        Timeout in seconds for a server that sends nothing (30); applies to stores that are opened later.
    recheck_seconds : float
        Seconds for which the version of a remote file is trusted (60); 0 requests it for each query. A change
        during a query is detected in any case.
    revalidate_seconds : float
        Seconds for which other processes trust the version, too (0: they request it). The version of
        immutable objects (blobs of a DANDI archive, URLs with a `versionId`) is never requested.
    download_bytes : int
        Maximum size of a file that is downloaded as a whole from a server without range requests (0: never).
    storage_options : dict
        Options of all remote sources, under the names of obstore or fsspec; see `scan_nwb`.
    dandi_api_url : str
        URL of the API of the DANDI archive.
    use_polars : bool
        Whether functions with the option `as_polars` return Polars rather than pandas frames by default.
    assume_ascending : bool
        Whether to use binary search on timestamps of series instead of reading all of them once; see
        `scan_nwb`.
    """

    cache_dir: Path | None = None
    cache_max_bytes: int = 512 * 1024 * 1024
    column_cache_bytes: int = 2 << 30
    disable_cache: bool = False
    disable_progress: bool = False
    external_links: Literal["folder", "anywhere", "never"] = "folder"
    batch_bytes: int = 64 * 1024 * 1024
    max_threads: int = 0
    max_requests: int = 64
    max_retries: int = 6
    retry_seconds: float = 60.0
    request_timeout: float = 30.0
    recheck_seconds: float = 60.0
    revalidate_seconds: float = 0.0
    download_bytes: int = 0
    storage_options: dict[str, Any] = field(default_factory=dict, repr=False)
    dandi_api_url: str = "https://api.dandiarchive.org/api"
    use_polars: bool = False
    assume_ascending: bool = False
    _cache_root: Path | None = field(default=None, repr=False, compare=False)

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - each of its own type
        """Create a configuration from settings, environment variables and defaults.

        Raises
        ------
        TypeError
            If a setting does not exist.
        ValueError
            If the value of a variable does not have the type of its setting; the message names the variable.
        """
        hints = typing.get_type_hints(type(self))
        names = [f"LAZYNWB_{setting.name.upper()}" for setting in fields(self) if setting.name[0] != "_"]
        for setting in fields(self):
            default = setting.default_factory() if callable(setting.default_factory) else setting.default
            setattr(self, setting.name, default)
        # Names of lazynwb 1.x come first, so that the current ones take precedence.
        for variable in (*_OTHER_VARIABLES, *names):
            text = os.environ.get(variable)
            if text is None:
                continue
            name = _OTHER_VARIABLES.get(variable) or variable.removeprefix("LAZYNWB_").lower()
            hint = {"anon": bool, "fsspec_storage_options": dict[str, Any]}.get(name, hints.get(name))
            try:
                value = _parse(text, hint)
                setattr(self, name, {**self.storage_options, **value} if isinstance(value, dict) else value)
            except ValueError as error:
                shown = "" if hint == dict[str, Any] else f"={text!r}"  # it may contain credentials
                raise ValueError(f"environment variable {variable}{shown}: {error}") from None
        for variable, why in _IGNORED_VARIABLES.items():
            if variable in os.environ and variable not in _warned:
                _warned.add(variable)
                _LOGGER.warning("the environment variable %s of lazynwb 1.x has no effect: %s", variable, why)
        for name, value in settings.items():
            if name.startswith("_") or not hasattr(type(self), name) or name == "cache_path":
                raise TypeError(f"lazynwb.Config has no setting {name!r}")
            setattr(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        """Change a setting; an unknown name is an AttributeError, an invalid value a ValueError."""
        if name == "external_links" and value not in _LINKS:
            raise ValueError(
                f"lazynwb.config.external_links must be one of {', '.join(_LINKS)}, not {value!r}"
            )
        if name in _MINIMUMS and not _is_at_least(value, _MINIMUMS[name]):
            raise ValueError(
                f"lazynwb.config.{name} must be a number of at least {_MINIMUMS[name]}, not {value!r}"
            )
        try:
            object.__setattr__(self, name, value)
        except AttributeError:
            from lazynwb.suggestions import did_you_mean

            names = [setting.name for setting in fields(self) if not setting.name.startswith("_")]
            raise AttributeError(
                f"lazynwb.config has no setting {name!r}{did_you_mean(name, names)}"
            ) from None

    @property
    def cache_path(self) -> Path:
        """The folder of the catalog cache."""
        if self.cache_dir is not None:
            return Path(self.cache_dir)
        if self._cache_root is None:
            self._cache_root = _default_cache_dir()
        return self._cache_root

    # -- names of lazynwb 1.x -----------------------------------------------------------------------------

    @property
    def fsspec_storage_options(self) -> dict[str, Any]:
        """An alias of `storage_options`, which supports the names of fsspec."""
        return self.storage_options

    @fsspec_storage_options.setter
    def fsspec_storage_options(self, options: dict[str, Any]) -> None:
        self.storage_options = options

    @property
    def anon(self) -> bool | None:
        """Whether requests are unsigned: `storage_options["anon"]`; None if it is not set."""
        return self.storage_options.get("anon")

    @anon.setter
    def anon(self, value: bool | None) -> None:
        others = {name: option for name, option in self.storage_options.items() if name != "anon"}
        self.storage_options = others if value is None else {**others, "anon": value}

    @property
    def use_remfile(self) -> bool:
        """Without effect: there is only one reader of remote files."""
        return False

    @use_remfile.setter
    def use_remfile(self, value: bool) -> None:
        pass

    @property
    def use_obstore(self) -> bool:
        """Without effect, like `use_remfile`."""
        return True

    @use_obstore.setter
    def use_obstore(self, value: bool) -> None:
        pass


def _is_at_least(value: Any, minimum: float) -> bool:  # noqa: ANN401 - any number
    try:
        return bool(value >= minimum)
    except TypeError:
        return False


def _parse(text: str, hint: Any) -> Any:  # noqa: ANN401 - the type of the hint
    if hint is bool:
        lowered = text.strip().lower()
        if lowered not in _TRUE | _FALSE:
            raise ValueError("expected true or false")
        return lowered in _TRUE
    if hint in {int, float, str}:
        try:
            return hint(text)
        except ValueError:
            raise ValueError("expected an integer" if hint is int else "expected a number") from None
    if typing.get_origin(hint) is dict:
        import json

        found = json.loads(text)
        if not isinstance(found, dict):
            raise ValueError("expected a JSON object")
        return found
    if typing.get_origin(hint) is Literal:
        if text not in typing.get_args(hint):
            raise ValueError(f"expected one of {', '.join(typing.get_args(hint))}")
        return text
    return Path(text) if text else None


config = Config()
