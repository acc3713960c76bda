"""Folders and patterns in object stores and in the DANDI archive."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lazynwb.errors import LazyNWBError, SourceNotFoundError
from lazynwb.profile import count
from lazynwb.sources.discover import WILDCARDS, is_nwb_name
from lazynwb.sources.stores import locate, module_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lazynwb.sources.source import Source

#: Names under which an object is taken for a file (or a Zarr store) rather than looked for as a folder.
_FILE = re.compile(r"\.(nwb|h5|hdf5|zarr|json|zip)$", re.IGNORECASE)
_ZARR = re.compile(r"^(.+?\.zarr)(/|$)", re.IGNORECASE)


def search(source: Source) -> list[Source]:
    """Return the files that a URL means: itself, or what a folder or a pattern contains, in sorted order.

    Raises
    ------
    SourceNotFoundError
        If a folder or a pattern has no NWB file.
    LazyNWBError
        If the URL is of an unknown kind, or the store does not say what it contains.
    """
    scheme, _, rest = source.path.partition("://")
    scheme = scheme.lower()
    module_of(source)
    if scheme == "dandi":
        from lazynwb.sources import dandi

        return [source.with_path(url) for url in dandi.expand(source.path)]
    if scheme in {"http", "https"}:
        if rest.partition("?")[0].endswith("/"):
            message = f"{source.name}: web servers do not list folders: pass the URLs of the files"
            raise LazyNWBError(message)
        return [source]
    bucket, _, path = rest.partition("/")
    if WILDCARDS.intersection(path):
        return _listed(source, scheme, bucket, before_wildcard(path), pattern_of(path))
    if _FILE.search(path):
        return [source]
    folder = path.rstrip("/")
    return _listed(source, scheme, bucket, f"{folder}/" if folder else "", None)


def _listed(
    source: Source, scheme: str, bucket: str, prefix: str, pattern: re.Pattern[str] | None
) -> list[Source]:
    found = {
        name
        for path in _paths(source.with_path(f"{scheme}://{bucket}/{prefix}"), prefix)
        if (name := _name_of(path, pattern)) is not None
    }
    if not found:
        what = "no object matches" if pattern is not None else "no NWB file in"
        message = f"{what} {source.name}"
        raise SourceNotFoundError(message)
    return [source.with_path(f"{scheme}://{bucket}/{name}") for name in sorted(found)]


def _name_of(path: str, pattern: re.Pattern[str] | None) -> str | None:
    """Return the file that an object is, or the Zarr store that it is a part of; None if it is not wanted."""
    store = _ZARR.match(path)
    name = store[1] if store else path
    last = name.rpartition("/")[2]
    wanted = pattern.fullmatch(name) is not None if pattern is not None else is_nwb_name(last)
    return name if wanted else None


def _paths(source: Source, prefix: str) -> Iterator[str]:
    import obstore
    from obstore.exceptions import BaseError

    location = locate(source)
    folder = prefix.rpartition("/")[0]
    count(requests=1)
    try:
        for batch in obstore.list(location.store, folder or None):
            for meta in batch:
                if meta["path"].startswith(prefix):
                    yield meta["path"]
    except (BaseError, OSError, ValueError) as error:
        from lazynwb.sources.failure import explain

        raise explain(source, error).error from None


def before_wildcard(path: str) -> str:
    """Return the part of a glob pattern that stands for itself."""
    at = min(path.index(character) for character in WILDCARDS if character in path)
    return path[:at]


def pattern_of(path: str) -> re.Pattern[str]:
    """Translate a glob pattern: `*` and `?` stay within a path's part, `**/` spans any number of them."""
    out = []
    for part in re.split(r"(\*\*/|\*\*|\*|\?|\[!?[^\]]+\])", path):
        if part == "**/":
            out.append("(?:[^/]+/)*")
        elif part == "**":
            out.append(".*")
        elif part == "*":
            out.append("[^/]*")
        elif part == "?":
            out.append("[^/]")
        elif part.startswith("[") and part.endswith("]"):
            inner = part[1:-1].replace("\\", "\\\\")
            out.append(f"[^{inner[1:]}]" if inner.startswith("!") else f"[{inner}]")
        else:
            out.append(re.escape(part))
    return re.compile("".join(out))
