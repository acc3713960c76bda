"""Listings of a DANDI archive: dandisets, versions and assets, cached for a limited time."""

from __future__ import annotations

import re
import time
from itertools import islice
from os.path import commonprefix
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from lazynwb.errors import SourceNotFoundError
from lazynwb.storage.dandi import api
from lazynwb.storage.http_client import is_web_url
from lazynwb.threads import ForkSafeLock, Pool

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

DRAFT = "draft"
VERSION = re.compile(r"\d+\.\d+\.\d+|draft")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

#: Query parameters of a listing of assets. A page has up to a thousand assets, or fewer with their metadata,
#: which are much longer than the rest.
NWB_ONLY = {"glob": "*.nwb*"}
METADATA = {"metadata": "true"}
PAGE, METADATA_PAGE = 1000, 200
_BY_PATH = {"order": "path", "page_size": str(PAGE)}

#: Up to this many assets are looked up one by one rather than by a listing.
_MAX_SINGLE_LOOKUPS = 4
#: Number of single look-ups that take as long as a page of a listing.
_LOOKUPS_PER_PAGE = 40

#: Maximum number of cached assets, and lifetime in seconds of drafts and of the newest version.
MAX_ASSETS_KEPT = 100_000
_SECONDS = 600.0

LOOKUPS = Pool("dandi", lambda: 8)


class Address(NamedTuple):
    """The address of an asset in the archive."""

    dandiset: str
    version: str
    path: str


class Entry(NamedTuple):
    """The entry of an asset in the archive.

    Attributes
    ----------
    asset_id : str
        Identifier of the asset.
    store_id : str
        Identifier of the blob or the Zarr store, which is unique to its contents.
    is_zarr : bool
        Whether the asset is a Zarr store.
    url : str or None
        URL of the contents, if the listing has it.
    """

    asset_id: str
    store_id: str
    is_zarr: bool
    url: str | None


class Dandiset(NamedTuple):
    """The default version of a dandiset, and whether it is embargoed."""

    newest: str
    embargoed: bool


def get_dandiset(dandiset: str, *, fresh: bool = False) -> Dandiset:
    """Return a dandiset, from the cache unless `fresh`.

    Raises
    ------
    SourceNotFoundError
        If it does not exist.
    """
    place = (api.api_url(), dandiset)
    known, until = _dandisets.get(place, (None, 0.0))
    if known is not None and not fresh and time.monotonic() < until:
        return known
    path = f"dandisets/{dandiset}/"
    try:
        answer = api.get(path)
    except api.AbsentError:
        raise SourceNotFoundError(
            f"the DANDI archive at {api.api_url()} has no dandiset {dandiset}: check its number"
        ) from None
    newest: object = DRAFT
    if (published := answer.get("most_recent_published_version")) is not None:
        newest = published.get("version") if isinstance(published, dict) else None
    if not isinstance(newest, str) or VERSION.fullmatch(newest) is None:
        raise api.unexpected_answer_error(path, "an invalid version")
    found = Dandiset(newest, answer.get("embargo_status", "OPEN") != "OPEN")
    with _lock:
        _trim(_dandisets)
        _dandisets[place] = (found, time.monotonic() + _SECONDS)
    return found


def missing_version_error(dandiset: str, version: str) -> SourceNotFoundError:
    """Return the error for a version that does not exist; raise if the dandiset does not exist either."""
    newest = get_dandiset(dandiset, fresh=True).newest
    published = "none has been published" if newest == DRAFT else f"the newest is {newest!r}"
    return SourceNotFoundError(
        f"dandiset {dandiset} has no version {version!r}: {published}; {DRAFT!r} always exists"
    )


def list_assets(
    dandiset: str, version: str, query: Mapping[str, str], max_pages: int | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the metadata of each asset of a version, and cache its entry.

    Raises
    ------
    SourceNotFoundError
        If the version does not exist.
    """
    path = f"dandisets/{dandiset}/versions/{version}/assets/"
    try:
        for page in islice(api.pages(path, query), max_pages):
            for found in page:
                _cache_entry(Address(dandiset, version, found.get("path", "")), parse_entry(found, path))
            yield from page
    except api.AbsentError:
        raise missing_version_error(dandiset, version) from None


def find_by_ids(
    dandiset: str, version: str, ids: Sequence[str], query: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Yield the metadata of assets by their identifiers, in the given order.

    Raises
    ------
    SourceNotFoundError
        If the version lacks one of them.
    """
    strange = next((one for one in ids if _UUID.fullmatch(one) is None), None)
    if strange is not None:
        raise SourceNotFoundError(f"{strange!r} is not the identifier of an asset, a UUID such as {_EXAMPLE}")
    found: dict[str, dict[str, Any]] = {}
    if len(ids) > _MAX_SINGLE_LOOKUPS:
        requested = set(ids)
        for asset in list_assets(dandiset, version, query, _max_pages(len(ids))):
            if asset["asset_id"] in requested:
                found[asset["asset_id"]] = asset
                if len(found) == len(requested):
                    break
    others = [one for one in dict.fromkeys(ids) if one not in found]
    looked_up = LOOKUPS.map(lambda one: _find_by_id(dandiset, version, one), others)
    found.update(zip(others, looked_up, strict=True))
    return (found[one] for one in ids)


_EXAMPLE = "2d3d1ab8-1b0c-4b0d-8c0c-6a1d8f7f0c11"


def _find_by_id(dandiset: str, version: str, asset_id: str) -> dict[str, Any]:
    path = f"dandisets/{dandiset}/versions/{version}/assets/{asset_id}/info/"
    try:
        found = api.get(path)
    except api.AbsentError:
        next(list_assets(dandiset, version, {"page_size": "1"}), None)  # raises if the version does not exist
        raise _missing_asset_error(Address(dandiset, version, asset_id)) from None
    _cache_entry(Address(dandiset, version, found.get("path", "")), parse_entry(found, path))
    return found


def zarr_url(asset_id: str) -> str | None:
    """Return the URL of the objects of a Zarr asset; None if the asset is a file.

    Raises
    ------
    LazyNWBError
        If the metadata of the asset cannot be read.
    """
    metadata = api.get(f"assets/{asset_id}/")
    url = content_url(metadata)
    is_zarr = metadata.get("encodingFormat") == "application/x-zarr" or (url is not None and "/zarr/" in url)
    return url if is_zarr else None


def find_by_paths(dandiset: str, version: str, paths: Sequence[str]) -> dict[str, Entry]:
    """Return assets by their paths, from a listing of their common prefix, or one by one if they are few.

    Raises
    ------
    SourceNotFoundError
        If the version lacks one of them.
    """
    found = find_listed_paths(dandiset, version, paths)
    others = [path for path in paths if path not in found]
    looked_up = LOOKUPS.map(lambda path: _find_by_path(Address(dandiset, version, path)), others)
    found.update(zip(others, looked_up, strict=True))
    return found


def find_listed_paths(dandiset: str, version: str, paths: Sequence[str]) -> dict[str, Entry]:
    """Return assets that appear early enough in a listing; none if few are requested."""
    found: dict[str, Entry] = {}
    if len(paths) > _MAX_SINGLE_LOOKUPS:
        requested = set(paths)
        begin = commonprefix(paths)  # noqa: RUF071 - the archive matches prefixes of names, too
        query = {**_BY_PATH, **NWB_ONLY, **({"path": begin} if begin else {})}
        for asset in list_assets(dandiset, version, query, _max_pages(len(paths))):
            if asset["path"] in requested:
                found[asset["path"]] = parse_entry(asset, "")
                if len(found) == len(requested):
                    break
    return found


def _find_by_path(address: Address) -> Entry:
    # Longer names with this prefix follow it in the listing.
    query = {**_BY_PATH, "page_size": "10", "path": address.path, **METADATA}
    for asset in list_assets(address.dandiset, address.version, query, 1) if address.path else ():
        if asset["path"] == address.path:
            return parse_entry(asset, "")
    raise _missing_asset_error(address)


def _missing_asset_error(address: Address) -> SourceNotFoundError:
    dandiset, version, name = address
    return SourceNotFoundError(
        f"dandiset {dandiset} has no asset {name or 'without a path'} in version {version}: "
        f"lazynwb.get_dandi_sources({dandiset!r}, {version!r}) lists its assets"
    )


def _max_pages(assets: int) -> int:
    """Return the number of pages after which single look-ups are faster than a listing."""
    return 1 + assets // _LOOKUPS_PER_PAGE


def parse_entry(found: Mapping[str, Any], path: str) -> Entry:
    """Parse the metadata of an asset.

    Raises
    ------
    LazyNWBError
        If the metadata are invalid; the message names the `path` of the request.
    """
    asset_id, zarr, blob = found.get("asset_id"), found.get("zarr"), found.get("blob")
    store_id = zarr or blob
    for identifier in (asset_id, store_id):
        if not isinstance(identifier, str) or _UUID.fullmatch(identifier) is None:
            raise api.unexpected_answer_error(path, "an asset without identifiers")
    if not isinstance(found.get("path"), str) or not found["path"]:
        raise api.unexpected_answer_error(path, "an asset without a path")
    return Entry(str(asset_id), str(store_id), bool(zarr), content_url(found.get("metadata")))


def content_url(metadata: object) -> str | None:
    """Return the URL of the contents in an asset's metadata, other than that of the API, which redirects."""
    listed_urls = metadata.get("contentUrl") if isinstance(metadata, dict) else None
    for url in listed_urls if isinstance(listed_urls, list) else []:
        if is_web_url(url):
            parts = urlsplit(url)
            if not ("/assets/" in parts.path and parts.path.rstrip("/").endswith("/download")):
                return f"{parts.scheme}://{parts.netloc}{parts.path}"
    return None


# -- cache --------------------------------------------------------------------------------------------

_dandisets: dict[tuple[str, str], tuple[Dandiset, float]] = {}
_assets: dict[tuple[str, Address], tuple[Entry, float]] = {}
_lock = ForkSafeLock()


def _cache_entry(address: Address, entry: Entry) -> None:
    until = time.monotonic() + _SECONDS if address.version == DRAFT else float("inf")
    with _lock:
        _trim(_assets)
        _assets[api.api_url(), address] = (entry, until)


def _trim(cache: dict[Any, Any]) -> None:
    while len(cache) >= MAX_ASSETS_KEPT:
        del cache[next(iter(cache))]


def cached_entry(address: Address) -> Entry | None:
    """Return the cached entry of an asset; None if there is none."""
    entry, until = _assets.get((api.api_url(), address), (None, 0.0))
    return entry if time.monotonic() < until else None


def forget(address: Address | None = None) -> None:
    """Forget the cached entry of one asset, or the whole cache."""
    with _lock:
        if address is not None:
            _assets.pop((api.api_url(), address), None)
        else:
            _assets.clear()
            _dandisets.clear()
