"""Expansion of folders and glob patterns in object stores and in the DANDI archive."""

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
    ZARR_DOCUMENTS,
    compile_glob,
    describe_skipped,
    is_nwb_name,
    literal_prefix,
    unusable_reason,
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

#: Suffixes of single files and Zarr stores. Any other URL may be a folder: blobs of the DANDI archive, for
#: example, are named by identifiers without a suffix, so a store with that name is tried first.
_FILE_SUFFIX = re.compile(r"\.(nwb|h5|hdf5|zarr|json|zip|tar)$", re.IGNORECASE)
_ANY_DOCUMENT = "|".join(map(re.escape, ZARR_DOCUMENTS))
#: A folder is searched for Zarr stores by name; a pattern matches stores of any name, as on disk.
_NAMED_STORE = re.compile(rf"(.+?\.(?:zarr|nwb))/(?:{_ANY_DOCUMENT})", re.IGNORECASE)
_STORE = re.compile(rf"(.+?)/(?:{_ANY_DOCUMENT})")
#: Metadata documents, at least one of which is in the root of every store.
_ROOT_DOCUMENTS = frozenset({"zarr.json", ".zgroup", ".zmetadata"})
#: Objects per page of a listing.
PAGE_ENTRIES = 1000


def expand_url(source: Source) -> list[Source]:
    """Return the files of a URL: the URL itself, or the sorted contents of a folder or matches of a pattern.

    Raises
    ------
    SourceNotFoundError
        If a folder contains no NWB file, or a pattern matches none.
    LazyNWBError
        If the scheme of the URL is unknown, or the store cannot be listed.
    """
    scheme, _, rest = source.path.partition("://")
    scheme = scheme.lower()
    module_of(source)
    if scheme == "dandi":
        return _expand_dandi(source)
    if scheme in {"http", "https"}:
        return _expand_web_url(source)
    bucket, _, path = rest.partition("/")
    if WILDCARDS.intersection(path):
        return _list_sources(source, f"{scheme}://{bucket}", literal_prefix(path), path)
    name = path.rstrip("/")
    if _FILE_SUFFIX.search(path) or name.lower().endswith(".zarr"):
        return [source.with_path(f"{scheme}://{bucket}/{name}")]
    store = source.with_path(f"{scheme}://{bucket}/{name}/")
    if name and _is_store(store):
        return [store]
    try:
        return _list_sources(source, f"{scheme}://{bucket}", f"{name}/" if name else "")
    except LazyNWBError:
        if not path or path.endswith("/") or not _exists(source):
            raise
        return [source]


def _expand_dandi(source: Source) -> list[Source]:
    from lazynwb.storage.dandi import resolver
    from lazynwb.storage.stores.dandi_assets import queue_lookups

    found = [source.with_path(url) for url in resolver.expand(source.path)]
    queue_lookups(found)
    return found


def _expand_web_url(source: Source) -> list[Source]:
    """Expand a folder or pattern in a public bucket by the bucket's protocol; return other URLs unchanged."""
    try:
        path = urlsplit(source.path).path
    except ValueError:
        raise LazyNWBError(f"{source.name} is not a valid URL") from None
    if "*" not in path and (is_download(path) or _is_store(source)):
        return [source]
    bucket = bucket_url(source.path)
    if bucket is not None:
        return expand_url(source.with_path(bucket))
    return [source]


def _is_store(folder: Source) -> bool:
    """Return whether a URL that ends in a slash is a Zarr store, regardless of its name."""
    objects = RemoteObjects(folder)
    try:
        names = objects.members("")
        if names is not None:
            return not _ROOT_DOCUMENTS.isdisjoint(names)
    except LazyNWBError:
        pass  # reading may be permitted although listing is not
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


def _list_sources(source: Source, bucket: str, prefix: str, pattern: str | None = None) -> list[Source]:
    listed = {
        path: meta for path, meta in _list_objects(source, bucket, prefix).items() if path.startswith(prefix)
    }
    paths = list(listed)
    if pattern in paths:  # an object whose name looks like a pattern
        return [source]
    is_mark = (_NAMED_STORE if pattern is None else _STORE).fullmatch
    stores = _outermost({mark[1] for path in paths if (mark := is_mark(path))})
    note = ""
    names = {*stores, *(path for path in paths if not _is_in(path, stores))}
    if pattern is None:
        found = [n for n in names if n in stores or is_nwb_name(n.rpartition("/")[2])]
        found = [n for n in found if not _is_hidden(n.removeprefix(prefix))]
        note = describe_skipped(source.name, _skipped_names(paths, names.difference(found), stores, prefix))
    else:
        matches = compile_glob(pattern).fullmatch
        found = [n for n in names if matches(n) and (_is_hidden(pattern) or not _is_hidden(n))]
    if not found:
        what = "no object matches" if pattern is not None else "no NWB file in"
        raise SourceNotFoundError(f"{what} {source.path}" + (f"; {note}" if note else ""))
    if note:
        _LOGGER.warning(note)
    sources = {
        name: source.with_path(f"{bucket}/{name}{_store_slash(name, stores)}") for name in sorted(found)
    }
    _note_versions(sources, stores, listed)
    return list(sources.values())


def _note_versions(sources: dict[str, Source], stores: set[str], listed: Mapping[str, ObjectMeta]) -> None:
    """Confirm the identities of files by the versions in a listing."""
    versions: dict[Source, ObjectMeta | None] = {}
    for name, source in sources.items():
        if name not in stores:
            versions[source] = listed[name]
            continue
        metadata_identity.forget_check(source)
        for key in metadata_identity.DOCUMENTS:
            versions[metadata_identity.document_of(source, key)] = listed.get(f"{name}/{key}")
    remote_file.accept_listing(versions)


def _skipped_names(paths: list[str], names: set[str], stores: set[str], prefix: str) -> list[str]:
    """Return skipped files and stores that may be NWB despite their names, each with the reason."""
    strange = _outermost({mark[1] for path in paths if (mark := _STORE.fullmatch(path))})
    found = {n: "a Zarr store without an NWB suffix" for n in strange if not _is_in(f"{n}/", stores)}
    for name in names:
        last = name.rpartition("/")[2]
        why = unusable_reason(last) or (
            "HDF5 without an NWB suffix" if last.lower().endswith(HDF5_SUFFIXES) else ""
        )
        if why and not _is_in(name, strange):
            found[name] = why
    shown = {name.removeprefix(prefix): why for name, why in found.items()}
    return [f"{name} ({why})" for name, why in shown.items() if not _is_hidden(name)]


def _store_slash(name: str, stores: set[str]) -> str:
    """Return the trailing slash that marks a Zarr store whose name has no suffix of one."""
    return "/" if name in stores and not name.lower().endswith(".zarr") else ""


def _outermost(folders: set[str]) -> set[str]:
    return {folder for folder in folders if not _is_in(folder, folders)}


def _is_in(path: str, folders: set[str]) -> bool:
    """Return whether a path is below any of the folders."""
    ends = (at for at, character in enumerate(path) if character == "/")
    return bool(folders) and any(path[:end] in folders for end in ends)


def _is_hidden(path: str) -> bool:
    """Return whether any part of a path has a leading dot, which a pattern must match explicitly."""
    return path.startswith(".") or "/." in path


def _list_objects(source: Source, bucket: str, prefix: str) -> dict[str, ObjectMeta]:
    """Return the objects of a bucket below the folder of a prefix."""
    import obstore
    from obstore.exceptions import BaseError, InvalidPathError

    from lazynwb.storage.error_mapping import Failure, explain
    from lazynwb.storage.store_request import with_retry

    folder = prefix.rpartition("/")[0] or None
    found: dict[str, ObjectMeta] = {}

    def ask(location: Location) -> dict[str, ObjectMeta] | Failure:
        count(requests=1)
        # A retry continues after the last object.
        after = next(reversed(found), None)
        try:
            for page in obstore.list(location.store, folder, offset=after, chunk_size=PAGE_ENTRIES):
                found.update((meta["path"], meta) for meta in page)
        except InvalidPathError:
            message = (
                f'{source.path}: the name of an object there contains "//", "." or ".." between slashes, or '
                "control characters, so it cannot be listed: pass the URLs of the files"
            )
            return Failure(LazyNWBError(message))
        except (BaseError, OSError, ValueError) as error:
            return explain(source, error)
        return found

    # obstore ignores Ctrl-C, so a pool thread waits for it.
    return wait(REQUESTS.submit(with_retry, source.with_path(bucket), ask))
