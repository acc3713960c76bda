"""Folders and patterns in object stores and in the DANDI archive."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lazynwb.errors import LazyNWBError, SourceNotFoundError
from lazynwb.profile import count
from lazynwb.storage import remote_file
from lazynwb.storage.dandi.web_addresses import is_download
from lazynwb.storage.file_names import (
    HDF5_SUFFIXES,
    WILDCARDS,
    ZARR_MARKS,
    before_wildcard,
    is_nwb_name,
    passed_over,
    pattern_of,
    unusable,
)
from lazynwb.storage.objects import metadata_identity
from lazynwb.storage.objects.remote_prefix import RemoteObjects
from lazynwb.storage.stores.bucket_urls import bucket_url
from lazynwb.storage.stores.registry import module_of
from lazynwb.threads import REQUESTS, wait

if TYPE_CHECKING:
    from collections.abc import Mapping

    from obstore import ObjectMeta

    from lazynwb.storage.source import Source
    from lazynwb.storage.stores.registry import Location

_LOGGER = logging.getLogger("lazynwb")

#: Names under which an object is taken for a file (or a Zarr store) rather than looked for as a folder. An
#: archive such as DANDI's calls its blobs by their identifiers, which are looked for as stores first.
_FILE = re.compile(r"\.(nwb|h5|hdf5|zarr|json|zip|tar)$", re.IGNORECASE)
_ANY_MARK = "|".join(map(re.escape, ZARR_MARKS))
#: In a folder a Zarr store goes by its name; a pattern finds stores of any name, as it does on disk.
_NAMED_STORE = re.compile(rf"(.+?\.(?:zarr|nwb))/(?:{_ANY_MARK})", re.IGNORECASE)
_STORE = re.compile(rf"(.+?)/(?:{_ANY_MARK})")
#: The documents that a store has one of in its root.
_DOCUMENTS = frozenset({"zarr.json", ".zgroup", ".zmetadata"})
#: Objects that a listing names at a time.
PAGE_ENTRIES = 1000


def search(source: Source) -> list[Source]:
    """Return the files that a URL means: itself, or what a folder or a pattern contains, in sorted order.

    Raises
    ------
    SourceNotFoundError
        If a folder or a pattern has no NWB file.
    LazyNWBError
        If the URL is of an unknown kind, or the store does not list what it contains.
    """
    scheme, _, rest = source.path.partition("://")
    scheme = scheme.lower()
    module_of(source)
    if scheme == "dandi":
        return _in_archive(source)
    if scheme in {"http", "https"}:
        return _on_web(source)
    bucket, _, path = rest.partition("/")
    if WILDCARDS.intersection(path):
        return _listed(source, f"{scheme}://{bucket}", before_wildcard(path), path)
    name = path.rstrip("/")
    if _FILE.search(path) or name.lower().endswith(".zarr"):
        return [source.with_path(f"{scheme}://{bucket}/{name}")]
    store = source.with_path(f"{scheme}://{bucket}/{name}/")
    if name and _is_store(store):
        return [store]
    try:
        return _listed(source, f"{scheme}://{bucket}", f"{name}/" if name else "")
    except LazyNWBError:
        if not path or path.endswith("/") or not _exists(source):
            raise
        return [source]


def _in_archive(source: Source) -> list[Source]:
    from lazynwb.storage.dandi import resolver
    from lazynwb.storage.stores.dandi_assets import prepare

    found = [source.with_path(url) for url in resolver.expand(source.path)]
    prepare(found)
    return found


def _on_web(source: Source) -> list[Source]:
    """Return a URL as it is; list a folder or a pattern in a public bucket by the bucket's protocol."""
    try:
        path = urlsplit(source.path).path
    except ValueError:
        raise LazyNWBError(f"{source.name} is no URL") from None
    is_pattern = "*" in path
    if not (is_pattern or path.endswith("/")):
        return [source]
    if not is_pattern and (is_download(path) or _is_store(source)):
        return [source]
    bucket = bucket_url(source.path)
    if bucket is not None:
        return search(source.with_path(bucket))
    return [source]


def _is_store(folder: Source) -> bool:
    """Return whether there is a Zarr store at a URL that ends in a slash, whatever its name."""
    objects = RemoteObjects(folder)
    try:
        names = objects.members("")
        if names is not None:
            return not _DOCUMENTS.isdisjoint(names)
    except LazyNWBError:
        pass  # perhaps it may be read and not listed
    try:
        folder.identity()
    except LazyNWBError:
        return False
    return folder.is_store


def _exists(source: Source) -> bool:
    try:
        source.identity(known=True)
    except LazyNWBError:
        return False
    return True


def _listed(source: Source, bucket: str, prefix: str, pattern: str | None = None) -> list[Source]:
    listed = {
        path: meta for path, meta in _objects(source, bucket, prefix).items() if path.startswith(prefix)
    }
    paths = list(listed)
    if pattern in paths:  # a name that looks like a pattern
        return [source]
    is_mark = (_NAMED_STORE if pattern is None else _STORE).fullmatch
    stores = _outermost({mark[1] for path in paths if (mark := is_mark(path))})
    note = ""
    names = {*stores, *(path for path in paths if not _is_in(path, stores))}
    if pattern is None:
        found = [n for n in names if n in stores or is_nwb_name(n.rpartition("/")[2])]
        found = [n for n in found if not _is_hidden(n.removeprefix(prefix))]
        note = passed_over(source.name, _others(paths, names.difference(found), stores, prefix))
    else:
        matches = pattern_of(pattern).fullmatch
        found = [n for n in names if matches(n) and (_is_hidden(pattern) or not _is_hidden(n))]
    if not found:
        what = "no object matches" if pattern is not None else "no NWB file in"
        raise SourceNotFoundError(f"{what} {source.path}" + (f"; {note}" if note else ""))
    if note:
        _LOGGER.warning(note)
    sources = {name: source.with_path(f"{bucket}/{name}{_mark_of(name, stores)}") for name in sorted(found)}
    _accept(sources, stores, listed)
    return list(sources.values())


def _accept(sources: dict[str, Source], stores: set[str], listed: Mapping[str, ObjectMeta]) -> None:
    """Let a listing say which of the files that it names are as they were."""
    versions: dict[Source, ObjectMeta | None] = {}
    for name, source in sources.items():
        if name not in stores:
            versions[source] = listed[name]
            continue
        metadata_identity.recheck(source)
        for key in metadata_identity.DOCUMENTS:
            versions[metadata_identity.document_of(source, key)] = listed.get(f"{name}/{key}")
    remote_file.accept_listing(versions)


def _others(paths: list[str], names: set[str], stores: set[str], prefix: str) -> list[str]:
    """Return what may be NWB and is not called so, with the reason: stores, and HDF5 and compressed files."""
    strange = _outermost({mark[1] for path in paths if (mark := _STORE.fullmatch(path))})
    found = {n: "a Zarr store, by another name" for n in strange if not _is_in(f"{n}/", stores)}
    for name in names:
        last = name.rpartition("/")[2]
        why = unusable(last) or ("HDF5, by another name" if last.lower().endswith(HDF5_SUFFIXES) else "")
        if why and not _is_in(name, strange):
            found[name] = why
    shown = {name.removeprefix(prefix): why for name, why in found.items()}
    return [f"{name} ({why})" for name, why in shown.items() if not _is_hidden(name)]


def _mark_of(name: str, stores: set[str]) -> str:
    """Return the slash that tells a Zarr store from a file, where its name does not."""
    return "/" if name in stores and not name.lower().endswith(".zarr") else ""


def _outermost(folders: set[str]) -> set[str]:
    return {folder for folder in folders if not _is_in(folder, folders)}


def _is_in(path: str, folders: set[str]) -> bool:
    """Return whether a path is below one of some folders."""
    ends = (at for at, character in enumerate(path) if character == "/")
    return bool(folders) and any(path[:end] in folders for end in ends)


def _is_hidden(path: str) -> bool:
    """Return whether a part of a path has a leading dot, which a pattern must spell out."""
    return path.startswith(".") or "/." in path


def _objects(source: Source, bucket: str, prefix: str) -> dict[str, ObjectMeta]:
    """Return the objects of a bucket that are below the folder which a prefix is in."""
    import obstore
    from obstore.exceptions import BaseError, InvalidPathError

    from lazynwb.storage.error_mapping import Failure, explain
    from lazynwb.storage.store_request import with_retry

    folder = prefix.rpartition("/")[0] or None
    found: dict[str, ObjectMeta] = {}

    def ask(location: Location) -> dict[str, ObjectMeta] | Failure:
        count(requests=1)
        # After a fault, from where it was.
        after = next(reversed(found), None)
        try:
            for page in obstore.list(location.store, folder, offset=after, chunk_size=PAGE_ENTRIES):
                found.update((meta["path"], meta) for meta in page)
        except InvalidPathError:
            message = (
                f'{source.path}: an object there has a name with "//", "." or ".." between slashes, or '
                "control characters, which no listing gets past: pass the URLs of the files"
            )
            return Failure(LazyNWBError(message))
        except (BaseError, OSError, ValueError) as error:
            return explain(source, error)
        return found

    # obstore does not heed Ctrl-C: it is a pool's thread that waits for it.
    return wait(REQUESTS.submit(with_retry, source.with_path(bucket), ask))
