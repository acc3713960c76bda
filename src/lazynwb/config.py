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

#: Environment variables of lazynwb 1.x, and the settings that they stand for.
_OTHER_VARIABLES = {
    "LAZYNWB_ANON": "anon",
    "LAZYNWB_FILE_IO_ANON": "anon",
    "LAZYNWB_FILE_IO_DISABLE_CACHE": "disable_cache",
    "LAZYNWB_FILE_IO_FSSPEC_STORAGE_OPTIONS": "fsspec_storage_options",
    "LAZYNWB_FILE_IO_USE_POLARS": "use_polars",
    "LAZYNWB_FSSPEC_STORAGE_OPTIONS": "fsspec_storage_options",
}
_ONE_READER = "remote files are read in one way only: unset it"
#: Those without effect here, and what to do about them.
_IGNORED_VARIABLES = {
    "LAZYNWB_CATALOG_CACHE_PATH": "the cache is a folder, not a database: set LAZYNWB_CACHE_DIR",
    "LAZYNWB_FILE_IO_USE_OBSTORE": _ONE_READER,
    "LAZYNWB_FILE_IO_USE_REMFILE": _ONE_READER,
    "LAZYNWB_USE_OBSTORE": _ONE_READER,
    "LAZYNWB_USE_REMFILE": _ONE_READER,
}
_warned: set[str] = set()

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off", ""}


def _default_cache_dir() -> Path:
    if sys.platform == "linux":
        # As platformdirs has it, whose import takes as long as a query.
        root = os.environ.get("XDG_CACHE_HOME", "").strip() or os.path.expanduser("~/.cache")  # noqa: PTH111 - no error
        return Path(root, "lazynwb")
    from platformdirs import user_cache_path

    return user_cache_path("lazynwb", appauthor=False)


@dataclass(slots=True, init=False)
class Config:
    """Settings that every call reads; assign to an attribute of `lazynwb.config` to change one.

    A setting that is not given has the value of its environment variable, `LAZYNWB_` and its name in
    capitals, or else its default. The variables of lazynwb 1.x (`LAZYNWB_ANON`,
    `LAZYNWB_FSSPEC_STORAGE_OPTIONS`, and all of them with `FILE_IO_` in their names) are read, too; those
    without effect here cause one warning.

    Attributes
    ----------
    cache_dir : Path or None
        Folder of the catalog cache; None (the default) is the platform's cache folder for the user.
    cache_max_bytes : int
        Size that the catalog cache on disk is kept under (512 MiB).
    column_cache_bytes : int
        Size that the column store on disk is kept under (2 GiB): small columns that were decoded before.
        With 0 nothing is stored or read there.
    disable_cache : bool
        Neither read nor write the catalog cache and the column store on disk.
    disable_progress : bool
        Show no progress bars (`TQDM_DISABLE` of tqdm does the same).
    external_links : {"folder", "anywhere", "never"}
        Which HDF5 external links are followed: to files in the linking file's folder or below
        (the default), to any file, or none. A file that is not trusted should not get "anywhere".
    batch_bytes : int
        Decoded bytes that one batch of rows may hold (64 MiB): the bound on memory in flight.
        Smaller ones cost re-reading at their borders, larger ones fresh memory from the system each time.
    max_threads : int
        Threads that read and decode; 0 means as many as there are processors, at most 16.
    max_requests : int
        Requests to object stores and web servers that are under way at the same time (64).
    max_retries : int
        Times that a request is repeated after a fault that may pass (6), with growing pauses between them.
    retry_seconds : float
        Seconds after which a request is not repeated any more (60).
    request_timeout : float
        Seconds for which a server may be silent (30); of the stores that are opened after it is set.
    recheck_seconds : float
        Seconds for which a remote file, once asked for its version, is taken not to have changed (60).
        With 0 each query asks. A change in the middle of a query is noticed whatever this says.
    revalidate_seconds : float
        Seconds for which other processes take it not to have changed, too (0: they ask). Of immutable objects
        (blobs of a DANDI archive, URLs with a `versionId`) nothing is asked whatever this says.
    download_bytes : int
        Size up to which a file is fetched whole from a server that does not send parts of files (0: never).
    storage_options : dict
        Options for every remote source, under obstore's or fsspec's names: see `scan_nwb`.
    dandi_api_url : str
        Where the DANDI archive's API is.
    use_polars : bool
        Return Polars rather than pandas frames where a function offers both and `as_polars` is None.
    assume_ascending : bool
        Search the timestamps of series instead of reading all of them once: see `scan_nwb`.
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
        """Make a configuration of settings, environment variables and defaults.

        Raises
        ------
        TypeError
            If there is no such setting.
        ValueError
            If a variable does not hold a value of its setting's type; the message names it.
        """
        hints = typing.get_type_hints(type(self))
        names = [f"LAZYNWB_{setting.name.upper()}" for setting in fields(self) if setting.name[0] != "_"]
        for setting in fields(self):
            default = setting.default_factory() if callable(setting.default_factory) else setting.default
            setattr(self, setting.name, default)
        # Names of lazynwb 1.x come first, so that those of today win.
        for variable in (*_OTHER_VARIABLES, *names):
            text = os.environ.get(variable)
            if text is None:
                continue
            name = _OTHER_VARIABLES.get(variable) or variable.removeprefix("LAZYNWB_").lower()
            hint = {"anon": bool, "fsspec_storage_options": dict[str, Any]}.get(name, hints.get(name))
            try:
                value = _parse(text, hint)
            except ValueError as error:
                shown = "" if hint == dict[str, Any] else f"={text!r}"  # it may hold credentials
                raise ValueError(f"environment variable {variable}{shown}: {error}") from None
            setattr(self, name, {**self.storage_options, **value} if isinstance(value, dict) else value)
        for variable, why in _IGNORED_VARIABLES.items():
            if variable in os.environ and variable not in _warned:
                _warned.add(variable)
                _LOGGER.warning("the environment variable %s of lazynwb 1.x has no effect: %s", variable, why)
        for name, value in settings.items():
            if name.startswith("_") or not hasattr(type(self), name) or name == "cache_path":
                raise TypeError(f"lazynwb.Config has no setting {name!r}")
            setattr(self, name, value)

    @property
    def cache_path(self) -> Path:
        """Folder of the catalog cache that is in force."""
        if self.cache_dir is not None:
            return Path(self.cache_dir)
        if self._cache_root is None:
            self._cache_root = _default_cache_dir()
        return self._cache_root

    # -- names that code for lazynwb 1 has ----------------------------------------------------------------

    @property
    def fsspec_storage_options(self) -> dict[str, Any]:
        """The same as `storage_options`, which understands fsspec's names."""
        return self.storage_options

    @fsspec_storage_options.setter
    def fsspec_storage_options(self, options: dict[str, Any]) -> None:
        self.storage_options = options

    @property
    def anon(self) -> bool | None:
        """Whether requests are not signed: `storage_options["anon"]`; None where nothing was said."""
        return self.storage_options.get("anon")

    @anon.setter
    def anon(self, value: bool | None) -> None:
        others = {name: option for name, option in self.storage_options.items() if name != "anon"}
        self.storage_options = others if value is None else {**others, "anon": value}

    @property
    def use_remfile(self) -> bool:
        """Without effect: there is one way to read remote files."""
        return False

    @use_remfile.setter
    def use_remfile(self, value: bool) -> None:
        pass

    @property
    def use_obstore(self) -> bool:
        """Without effect, as `use_remfile`."""
        return True

    @use_obstore.setter
    def use_obstore(self, value: bool) -> None:
        pass


def _parse(text: str, hint: Any) -> Any:  # noqa: ANN401 - the value's type is what the hint says
    if hint is bool:
        lowered = text.strip().lower()
        if lowered not in _TRUE | _FALSE:
            raise ValueError("expected true or false")
        return lowered in _TRUE
    if hint in {int, float, str}:
        return hint(text)
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
