"""`lazynwb.toml`: the sources and settings of a project, for commands that are run in its folder or below.

::

    [sources]
    paths = ["sessions/*.nwb", "s3://bucket/more/"]     # what commands read if no source is named

    [sets]
    pilot = ["sessions/700000*.nwb"]                    # `lazynwb tables @pilot`

    [storage]
    region = "us-west-2"                                # of remote sources; no secrets

    [config]
    cache_dir = ".cache"                                # settings of lazynwb.config

Paths are relative to the file. It may have come with data that somebody else made, so it can set nothing that
gives away credentials or opens other files than those it names: see `_STORAGE` and `_SETTINGS`.
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
#: Options of stores that tell nobody who is asking. Endpoints are left out: they get to see credentials.
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
    """A project file that cannot be used; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class Project:
    """What a project file says.

    Attributes
    ----------
    file : Path
    paths : tuple of str
        Absolute paths, patterns and URLs that are read where no source is named.
    sets : dict of str to tuple of str
        More of them, by name.
    storage : dict
        Options for remote sources.
    settings : dict
        For `lazynwb.config`.
    """

    file: Path
    paths: tuple[str, ...] = ()
    sets: dict[str, tuple[str, ...]] = field(default_factory=dict)
    storage: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def apply(self) -> None:
        """Put the settings in force; what an environment variable says stays as it is."""
        for name, value in self.settings.items():
            if f"LAZYNWB_{name.upper()}" not in os.environ:
                setattr(config, name, value)


def find(start: Path | None = None) -> Project | None:
    """Return the project of a folder: of the nearest file in it or in those above it; None if there is none.

    Raises
    ------
    ProjectError
        If the file cannot be used.
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
        If it is not TOML, or says what is not known here.
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
        meant = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
        raise ProjectError(f"{file}: {where}{name} is not known; {meant}")
    wanted = known[name]
    fits = isinstance(value, str if wanted is Path else (int, float) if wanted is float else wanted)
    if not fits or (isinstance(value, bool) and wanted is not bool):
        what = {dict: "a table", list: "a list of paths", Path: "a path", bool: "true or false"}.get(
            wanted, "a number"
        )
        raise ProjectError(f"{file}: {where}{name} is {what}, not {value!r}")


def _paths(file: Path, where: str, listed: object) -> tuple[str, ...]:
    if not isinstance(listed, list) or not all(isinstance(one, str) and one for one in listed):
        raise ProjectError(f"{file}: {where} is a list of paths, not {listed!r}")
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
    """Put the settings of the project file in force, if there is one."""
    project = find()
    if project is not None:
        project.apply()
