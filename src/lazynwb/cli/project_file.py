"""`lazynwb.toml`: sources and settings of a project, for commands in its folder and the folders below.

::

    [sources]
    paths = ["sessions/*.nwb", "s3://bucket/more/"]     # sources of commands without sources

    [sets]
    pilot = ["sessions/700000*.nwb"]                    # `lazynwb tables @pilot`

    [storage]
    region = "us-west-2"                                # of remote sources; no secrets

    [config]
    cache_dir = ".cache"                                # settings of lazynwb.config

Paths are relative to the file. Because it may come with downloaded data, only settings that neither disclose
credentials nor open other files are allowed: see `_STORAGE` and `_SETTINGS`.
"""

from __future__ import annotations

import difflib
import glob
import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lazynwb.config import config
from lazynwb.errors import LazyNWBError

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "lazynwb.toml"
#: Options of stores that disclose no credentials; endpoints would receive them.
_STORAGE = ("anon", "region", "request_payer", "requester_pays", "skip_signature", "timeout")
_SETTINGS: dict[str, type] = {
    "batch_bytes": int,
    "cache_dir": Path,
    "cache_max_bytes": int,
    "column_cache_bytes": int,
    "disable_cache": bool,
    "disable_progress": bool,
    "download_bytes": int,
    "max_requests": int,
    "max_retries": int,
    "max_threads": int,
    "recheck_seconds": float,
    "request_timeout": float,
    "retry_seconds": float,
    "revalidate_seconds": float,
}
_WILDCARDS = frozenset("*?[")


class ProjectError(LazyNWBError):
    """A project file is invalid; the message names the file and the problem."""


@dataclass(frozen=True)
class Project:
    """Contents of a project file.

    Attributes
    ----------
    file : Path
        Path of the file.
    paths : tuple of str
        Absolute paths, patterns and URLs of commands without sources.
    sets : dict of str to tuple of str
        Further paths by the name of their set.
    storage : dict
        Options of remote sources.
    settings : dict
        Settings of `lazynwb.config`.
    """

    file: Path
    paths: tuple[str, ...] = ()
    sets: dict[str, tuple[str, ...]] = field(default_factory=dict)
    storage: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def apply(self) -> None:
        """Apply the settings; environment variables take precedence."""
        for name, value in self.settings.items():
            if f"LAZYNWB_{name.upper()}" not in os.environ:
                setattr(config, name, value)


def find(start: Path | None = None) -> Project | None:
    """Return the nearest project file of a folder and its parents; None if there is none.

    Raises
    ------
    ProjectError
        If the file is invalid.
    """
    here = (start or Path.cwd()).absolute()
    for folder in (here, *here.parents):
        file = folder / NAME
        if file.is_file():
            return read(file)
    return None


def read(file: Path) -> Project:
    """Read a project file.

    Raises
    ------
    ProjectError
        If it is not TOML, or has unknown settings.
    """
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ProjectError(f"{file}: {error}") from error
    known = dict.fromkeys(("sources", "sets", "storage", "config"), dict)
    for name, value in content.items():
        _check(file, "", name, value, known)
    sources = content.get("sources", {})
    for name, value in sources.items():
        _check(file, "sources.", name, value, {"paths": list})
    return Project(
        file,
        _paths(file, "sources.paths", sources.get("paths", [])),
        {name: _paths(file, f"sets.{name}", paths) for name, paths in content.get("sets", {}).items()},
        _storage(file, content.get("storage", {})),
        _settings(file, content.get("config", {})),
    )


def _check(file: Path, where: str, name: str, value: object, known: Mapping[str, type]) -> None:
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        meant = f"did you mean {close[0]}?" if close else f"allowed: {', '.join(known)}"
        raise ProjectError(f"{file}: unknown setting {where}{name}; {meant}")
    kind = known[name]
    fits = isinstance(value, str if kind is Path else (int, float) if kind is float else kind)
    if not fits or (isinstance(value, bool) and kind is not bool):
        what = {dict: "a table", list: "a list of paths", Path: "a path", bool: "true or false"}.get(
            kind, "a number"
        )
        raise ProjectError(f"{file}: {where}{name} must be {what}, not {value!r}")


def _paths(file: Path, where: str, listed: object) -> tuple[str, ...]:
    if not isinstance(listed, list) or not all(isinstance(one, str) and one for one in listed):
        raise ProjectError(f"{file}: {where} must be a list of paths, not {listed!r}")
    return tuple(_absolute(file.parent, one) for one in listed)


def _absolute(folder: Path, path: str) -> str:
    from lazynwb.storage.source import is_url

    if is_url(path):
        return path
    expanded = os.path.expanduser(path)  # noqa: PTH111 - it may be a pattern, not a path
    plain = os.path.join(folder, expanded)  # noqa: PTH118 - the same
    if os.path.isabs(expanded) or not _WILDCARDS.intersection(path) or os.path.exists(plain):  # noqa: PTH117, PTH110
        return plain
    return os.path.join(glob.escape(str(folder)), expanded)  # noqa: PTH118


def _storage(file: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    for name in options:
        if name not in _STORAGE:
            raise ProjectError(
                f"{file}: storage.{name} is not allowed in a project file, only "
                f"{', '.join(_STORAGE)}: use an environment variable or --storage-option"
            )
    return dict(options)


def _settings(file: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, value in settings.items():
        _check(file, "config.", name, value, _SETTINGS)
        found[name] = Path(_absolute(file.parent, value)) if _SETTINGS[name] is Path else value
    return found


def apply_project() -> None:
    """Apply the settings of the project file, if there is one."""
    project = find()
    if project is not None:
        project.apply()
