"""What a DANDI archive has: versions, and their assets, as its listings say; remembered for a while."""

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

#: What the archive is asked for in a listing of assets. A page of it has up to a thousand; fewer with their
#: metadata, which are much longer than the rest.
NWB_ONLY = {"glob": "*.nwb*"}
METADATA = {"metadata": "true"}
PAGE, METADATA_PAGE = 1000, 200
_BY_PATH = {"order": "path", "page_size": str(PAGE)}

#: Assets that are looked up one by one rather than by a listing.
_FEW = 4
#: What takes as long as a page of a listing: so many single look-ups.
_LOOKUPS_PER_PAGE = 40

#: Assets that are remembered, and for how long what may change is: drafts, and which version is the newest.
MAX_ASSETS_KEPT = 100_000
_SECONDS = 600.0

LOOKUPS = Pool("dandi", lambda: 8)


class Address(NamedTuple):
    """Where an asset is in the archive."""

    dandiset: str
    version: str
    path: str


class Entry(NamedTuple):
    """What the archive keeps as an asset.

    Attributes
    ----------
    asset_id : str
    store_id : str
        Of the file or the Zarr store that it stands for. Other content has another identifier.
    is_zarr : bool
    url : str or None
        Where the content is, if the listing says so.
    """

    asset_id: str
    store_id: str
    is_zarr: bool
    url: str | None


class About(NamedTuple):
    """Which version of a dandiset is meant if none is named, and whether it is embargoed."""

    newest: str
    embargoed: bool


def about(dandiset: str, *, fresh: bool = False) -> About:
    """Ask for a dandiset, unless it is remembered.

    Raises
    ------
    SourceNotFoundError
        If there is none.
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
        raise api.unexpected(path, "no version")
    found = About(newest, answer.get("embargo_status", "OPEN") != "OPEN")
    with _lock:
        _trim(_dandisets)
        _dandisets[place] = (found, time.monotonic() + _SECONDS)
    return found


def no_version(dandiset: str, version: str) -> SourceNotFoundError:
    """Return the error of a version that does not exist, or raise that of a dandiset that does not."""
    newest = about(dandiset, fresh=True).newest
    published = "none was published" if newest == DRAFT else f"the newest is {newest!r}"
    return SourceNotFoundError(
        f"dandiset {dandiset} has no version {version!r}: {published}, and there is {DRAFT!r}"
    )


def listed(
    dandiset: str, version: str, query: Mapping[str, str], most_pages: int | None = None
) -> Iterator[dict[str, Any]]:
    """Yield what the archive says of each asset of a version, and remember it.

    Raises
    ------
    SourceNotFoundError
        If there is no such version.
    """
    path = f"dandisets/{dandiset}/versions/{version}/assets/"
    try:
        for page in islice(api.pages(path, query), most_pages):
            for found in page:
                _remember(Address(dandiset, version, found.get("path", "")), entry_of(found, path))
            yield from page
    except api.AbsentError:
        raise no_version(dandiset, version) from None


def with_ids(
    dandiset: str, version: str, ids: Sequence[str], query: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Yield what the archive says of some assets, in their order.

    Raises
    ------
    SourceNotFoundError
        If the version does not have one of them.
    """
    strange = next((one for one in ids if _UUID.fullmatch(one) is None), None)
    if strange is not None:
        raise SourceNotFoundError(f"{strange!r} is no asset's identifier: these are UUIDs such as {_EXAMPLE}")
    found: dict[str, dict[str, Any]] = {}
    if len(ids) > _FEW:
        wanted = set(ids)
        for asset in listed(dandiset, version, query, _pages_for(len(ids))):
            if asset["asset_id"] in wanted:
                found[asset["asset_id"]] = asset
                if len(found) == len(wanted):
                    break
    others = [one for one in dict.fromkeys(ids) if one not in found]
    looked_up = LOOKUPS.map(lambda one: _with_id(dandiset, version, one), others)
    found.update(zip(others, looked_up, strict=True))
    return (found[one] for one in ids)


_EXAMPLE = "2d3d1ab8-1b0c-4b0d-8c0c-6a1d8f7f0c11"


def _with_id(dandiset: str, version: str, asset_id: str) -> dict[str, Any]:
    path = f"dandisets/{dandiset}/versions/{version}/assets/{asset_id}/info/"
    try:
        found = api.get(path)
    except api.AbsentError:
        next(listed(dandiset, version, {"page_size": "1"}), None)  # perhaps there is no such version
        raise _no_asset(Address(dandiset, version, asset_id)) from None
    _remember(Address(dandiset, version, found.get("path", "")), entry_of(found, path))
    return found


def zarr_url(asset_id: str) -> str | None:
    """Return where the objects of an asset lie that is a Zarr store; None if it is a file.

    Raises
    ------
    LazyNWBError
        If the archive does not say.
    """
    metadata = api.get(f"assets/{asset_id}/")
    url = content_url(metadata)
    is_zarr = metadata.get("encodingFormat") == "application/x-zarr" or (url is not None and "/zarr/" in url)
    return url if is_zarr else None


def with_paths(dandiset: str, version: str, paths: Sequence[str]) -> dict[str, Entry]:
    """Return assets by their paths: by a listing of where they are, or singly if there are few.

    Raises
    ------
    SourceNotFoundError
        If the version does not have one of them.
    """
    found = listed_paths(dandiset, version, paths)
    others = [path for path in paths if path not in found]
    looked_up = LOOKUPS.map(lambda path: _with_path(Address(dandiset, version, path)), others)
    found.update(zip(others, looked_up, strict=True))
    return found


def listed_paths(dandiset: str, version: str, paths: Sequence[str]) -> dict[str, Entry]:
    """Return those of some assets that a listing has soon enough; none if they are few."""
    found: dict[str, Entry] = {}
    if len(paths) > _FEW:
        wanted = set(paths)
        begin = commonprefix(paths)  # noqa: RUF071 - the archive finds names by how they begin, too
        query = {**_BY_PATH, **NWB_ONLY, **({"path": begin} if begin else {})}
        for asset in listed(dandiset, version, query, _pages_for(len(paths))):
            if asset["path"] in wanted:
                found[asset["path"]] = entry_of(asset, "")
                if len(found) == len(wanted):
                    break
    return found


def _with_path(address: Address) -> Entry:
    # The archive sorts names that only begin like this one after it.
    query = {**_BY_PATH, "page_size": "10", "path": address.path, **METADATA}
    for asset in listed(address.dandiset, address.version, query, 1) if address.path else ():
        if asset["path"] == address.path:
            return entry_of(asset, "")
    raise _no_asset(address)


def _no_asset(address: Address) -> SourceNotFoundError:
    dandiset, version, name = address
    return SourceNotFoundError(
        f"dandiset {dandiset} has no asset {name or 'without a path'} in version {version}: "
        f"lazynwb.get_dandi_sources({dandiset!r}, {version!r}) lists what it has"
    )


def _pages_for(assets: int) -> int:
    """Return after how many pages of a listing it is as well to ask for each asset."""
    return 1 + assets // _LOOKUPS_PER_PAGE


def entry_of(found: Mapping[str, Any], path: str) -> Entry:
    """Return what is used of what the archive says of an asset.

    Raises
    ------
    LazyNWBError
        If that is not there; `path` is what the archive was asked for.
    """
    asset_id, zarr, blob = found.get("asset_id"), found.get("zarr"), found.get("blob")
    store_id = zarr or blob
    for identifier in (asset_id, store_id):
        if not isinstance(identifier, str) or _UUID.fullmatch(identifier) is None:
            raise api.unexpected(path, "an asset without identifiers")
    if not isinstance(found.get("path"), str) or not found["path"]:
        raise api.unexpected(path, "an asset without a path")
    return Entry(str(asset_id), str(store_id), bool(zarr), content_url(found.get("metadata")))


def content_url(metadata: object) -> str | None:
    """Return the URL in an asset's metadata that is not the API's own, which would redirect every request."""
    listed_urls = metadata.get("contentUrl") if isinstance(metadata, dict) else None
    for url in listed_urls if isinstance(listed_urls, list) else []:
        if is_web_url(url):
            parts = urlsplit(url)
            if not ("/assets/" in parts.path and parts.path.rstrip("/").endswith("/download")):
                return f"{parts.scheme}://{parts.netloc}{parts.path}"
    return None


# -- what is remembered -------------------------------------------------------------------------------

_dandisets: dict[tuple[str, str], tuple[About, float]] = {}
_assets: dict[tuple[str, Address], tuple[Entry, float]] = {}
_lock = ForkSafeLock()


def _remember(address: Address, entry: Entry) -> None:
    until = time.monotonic() + _SECONDS if address.version == DRAFT else float("inf")
    with _lock:
        _trim(_assets)
        _assets[api.api_url(), address] = (entry, until)


def _trim(kept: dict[Any, Any]) -> None:
    while len(kept) >= MAX_ASSETS_KEPT:
        del kept[next(iter(kept))]


def remembered(address: Address) -> Entry | None:
    """Return an asset that the archive mentioned lately; None if it did not."""
    entry, until = _assets.get((api.api_url(), address), (None, 0.0))
    return entry if time.monotonic() < until else None


def forget(address: Address | None = None) -> None:
    """Forget what the archive said: of one asset, or of all and everything."""
    with _lock:
        if address is not None:
            _assets.pop((api.api_url(), address), None)
        else:
            _assets.clear()
            _dandisets.clear()
