"""Which files a call means: paths, URLs, patterns, folders, or any number of them."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lazynwb.errors import LazyNWBError, SourceNotFoundError

Source = str | os.PathLike[str]
Sources = Source | Iterable[Source]

#: Names that NWB files go by; a Zarr store is a folder.
_SUFFIXES = (".nwb", ".nwb.h5", ".nwb.hdf5", ".nwb.zarr")
_ZARR_SUFFIX = ".zarr"
_ZARR_MARKS = ("zarr.json", ".zgroup", ".zmetadata", ".zattrs")
_WILDCARDS = frozenset("*?[")


def expand(sources: Sources) -> list[str]:
    """Return the absolute paths of the files that a call's `source` argument means.

    Parameters
    ----------
    sources : path, or iterable of paths
        A file, a `file://` URL, a glob pattern, or a folder, which is searched recursively for NWB files.
        Anything that is `os.PathLike` or has a local `path`, such as a UPath, is taken as a path.

    Returns
    -------
    list of str
        In the order given; patterns and folders in sorted order.

    Raises
    ------
    SourceNotFoundError
        If nothing was given, or a pattern or folder has no NWB file.
    LazyNWBError
        If a URL is of a kind that cannot be read.
    """
    listed = (
        [sources] if isinstance(sources, str | os.PathLike) or not isinstance(sources, Iterable) else sources
    )
    found = [path for one in listed for path in _expand_one(one)]
    strange = next((path for path in found if not _is_text(path)), None)
    if strange is not None:
        message = f"the file name {strange!r} is not valid UTF-8, so no column can hold it: rename the file"
        raise SourceNotFoundError(message)
    if not found:
        message = "no source was given: pass the path of an NWB file, several of them, a pattern or a folder"
        raise SourceNotFoundError(message)
    return found


def _is_text(path: str) -> bool:
    """Tell whether a path is Unicode; bytes of a file name that are not become lone surrogates."""
    return path.isascii() or not any("\ud800" <= character <= "\udfff" for character in path)


def _expand_one(source: Source) -> list[str]:
    path = _local_path(source)
    if os.path.isdir(path):
        if is_zarr_store(path):
            return [path]
        inside = sorted(_search(Path(path)))
        if not inside:
            message = (
                f"no NWB file ({', '.join('*' + suffix for suffix in _SUFFIXES)}) in folder {path} or below"
            )
            raise SourceNotFoundError(message)
        return inside
    if _WILDCARDS.intersection(path) and not os.path.exists(path):
        matches = sorted(match for match in glob.glob(path, recursive=True) if _is_wanted(match))
        if not matches:
            message = f"no file matches {path}"
            raise SourceNotFoundError(message)
        return matches
    return [path]


def _is_wanted(path: str) -> bool:
    return not os.path.isdir(path) or is_zarr_store(path)


def _local_path(source: object) -> str:
    text = _text_of(source)
    scheme, separator, _ = text.partition("://")
    if separator and scheme.isalnum() and len(scheme) > 1:
        if scheme.lower() != "file":
            message = (
                f"{scheme}:// sources are not read yet by this version of lazynwb: {_without_query(text)}"
            )
            raise LazyNWBError(message)
        parts = urlsplit(text)
        text = unquote(parts.path)
        if os.name == "nt":
            text = text.lstrip("/")
    return os.path.abspath(os.path.expanduser(text))  # symbolic links stay as the user wrote them


def _text_of(source: object) -> str:
    if isinstance(source, str):
        return source
    protocol = getattr(source, "protocol", "")
    if protocol not in {"", "file", "local"}:
        return str(source)
    if protocol and hasattr(source, "path"):
        return str(source.path)
    if isinstance(source, os.PathLike):
        path: str = os.fspath(source)
        return path
    message = f"a source is a path or a URL, not {type(source).__name__}: {source!r}"
    raise TypeError(message)


def _without_query(url: str) -> str:
    """Drop what may be a signature or a token."""
    return url.partition("?")[0]


def is_zarr_store(path: str) -> bool:
    """Tell whether a folder is a Zarr store rather than a folder of files."""
    return any(os.path.exists(os.path.join(path, mark)) for mark in _ZARR_MARKS)


def _search(folder: Path) -> list[str]:
    found = []
    for here, folders, files in os.walk(folder):
        # Names with a leading dot are caches and the resource forks that macOS leaves on other file systems.
        found += [os.path.join(here, name) for name in files if _is_nwb_name(name)]
        stores = [
            n for n in folders if n.endswith((_ZARR_SUFFIX, ".nwb")) and is_zarr_store(os.path.join(here, n))
        ]
        found += [os.path.join(here, name) for name in stores]
        folders[:] = [name for name in folders if name not in stores and not name.startswith(".")]
    return found


def _is_nwb_name(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(_SUFFIXES)
