"""Which files a call means: paths, URLs, patterns, folders, or any number of them."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from lazynwb.config import config
from lazynwb.errors import LazyNWBError, SourceNotFoundError
from lazynwb.storage.source import Options, Source, is_url, redacted

PathOrUrl = str | os.PathLike[str] | Source
Sources = PathOrUrl | Iterable[PathOrUrl]

#: Names that NWB files go by; a Zarr store is a folder.
NWB_SUFFIXES = (".nwb", ".nwb.h5", ".nwb.hdf5", ".nwb.zarr")
_ZARR_SUFFIX = ".zarr"
ZARR_MARKS = ("zarr.json", ".zgroup", ".zmetadata", ".zattrs")
WILDCARDS = frozenset("*?[")


def expand(sources: Sources, storage_options: Mapping[str, Any] | None = None) -> list[Source]:
    """Return the files that a call's `source` argument means.

    Parameters
    ----------
    sources : path or URL, or iterable of these
        A file, a glob pattern, or a folder, which is searched recursively for NWB files; locally or in an
        object store, where a URL that ends in a slash, or not in a name of an NWB file, means a folder. A
        `dandi://` URL means a dandiset, or a part of one. Anything that is `os.PathLike` or has a local
        `path`, such as a UPath, is taken as a path; a remote UPath brings its storage options.
    storage_options : mapping or None
        Credentials and the like, beside `config.storage_options`, for the remote ones.

    Returns
    -------
    list of Source
        In the order given; patterns and folders in sorted order.

    Raises
    ------
    SourceNotFoundError
        If nothing was given, or a pattern or folder has no NWB file.
    LazyNWBError
        If a URL is of a kind that cannot be read.
    """
    listed = (
        [sources]
        if isinstance(sources, str | os.PathLike | Source) or not isinstance(sources, Iterable)
        else sources
    )
    options = Options({**config.storage_options, **(storage_options or {})})
    found = [source for one in listed for source in _expand_one(one, options)]
    strange = next((source.path for source in found if not _is_text(source.path)), None)
    if strange is not None:
        message = f"the file name {strange!r} is not valid UTF-8, so no column can hold it: rename the file"
        raise SourceNotFoundError(message)
    if not found:
        message = "no source was given: pass the path of an NWB file, several of them, a pattern or a folder"
        raise SourceNotFoundError(message)
    return found


def reopen(path: str, storage_options: Mapping[str, Any] | None = None) -> Source:
    """Return the file behind a value of `_nwb_path`: one file, whatever its name looks like.

    Parameters
    ----------
    path : str
    storage_options : mapping or None
        As for `expand`; those that the file was first opened with are not known any more.
    """
    if is_url(path):
        return Source(path, Options({**config.storage_options, **(storage_options or {})}))
    return Source(os.path.abspath(path))


def _is_text(path: str) -> bool:
    """Tell whether a path is Unicode; bytes of a file name that are not become lone surrogates."""
    return path.isascii() or not any("\ud800" <= character <= "\udfff" for character in path)


def _expand_one(source: PathOrUrl, options: Options) -> list[Source]:
    if isinstance(source, Source):
        return [source]
    text = _text_of(source)
    if "::" in text and is_url(text.rpartition("::")[2]):
        chain, _, last = text.rpartition("::")
        message = f"{redacted(chain)}:: URLs are not read: pass {redacted(last)}"
        raise LazyNWBError(message)
    if is_url(text) and not text.lower().startswith("file:"):
        from lazynwb.storage.remote_listing import search

        own = getattr(source, "storage_options", None)
        return search(Source(text, Options({**options.as_dict(), **own}) if own else options))
    return [Source(path) for path in _expand_local(local_path(text))]


def _expand_local(path: str) -> list[str]:
    if os.path.isdir(path):
        if is_zarr_store(path):
            return [path]
        inside = sorted(_search(Path(path)))
        if not inside:
            names = ", ".join("*" + suffix for suffix in NWB_SUFFIXES)
            message = f"no NWB file ({names}) in folder {path} or below"
            raise SourceNotFoundError(message)
        return inside
    if WILDCARDS.intersection(path) and not os.path.exists(path):
        matches = sorted(match for match in glob.glob(path, recursive=True) if _is_wanted(match))
        if not matches:
            message = f"no file matches {path}"
            raise SourceNotFoundError(message)
        return matches
    return [path]


def _is_wanted(path: str) -> bool:
    return not os.path.isdir(path) or is_zarr_store(path)


def local_path(text: str) -> str:
    """Return the absolute path that a path, or a `file://` URL, stands for."""
    if is_url(text):
        text = unquote(urlsplit(text).path)
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


def is_zarr_store(path: str) -> bool:
    """Tell whether a folder is a Zarr store rather than a folder of files."""
    return any(os.path.exists(os.path.join(path, mark)) for mark in ZARR_MARKS)


def _search(folder: Path) -> list[str]:
    found = []
    for here, folders, files in os.walk(folder):
        # Names with a leading dot are caches and the resource forks that macOS leaves on other file systems.
        found += [os.path.join(here, name) for name in files if is_nwb_name(name)]
        stores = [
            n for n in folders if n.endswith((_ZARR_SUFFIX, ".nwb")) and is_zarr_store(os.path.join(here, n))
        ]
        found += [os.path.join(here, name) for name in stores]
        folders[:] = [name for name in folders if name not in stores and not name.startswith(".")]
    return found


def is_nwb_name(name: str) -> bool:
    """Tell whether a file's name, without its folder, is one that NWB files go by."""
    return not name.startswith(".") and name.lower().endswith(NWB_SUFFIXES)
