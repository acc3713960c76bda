"""Resolver of DANDI URLs, such as `dandi://000363/draft/sub-1/a.nwb`, to the URLs of their contents."""

from __future__ import annotations

import re
from collections import defaultdict
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from lazynwb.errors import LazyNWBError, SourceNotFoundError
from lazynwb.storage.dandi import api, asset_listing
from lazynwb.storage.dandi.asset_listing import Address, Entry
from lazynwb.storage.file_names import WILDCARDS, compile_glob, is_nwb_name, literal_prefix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from lazynwb.storage.dandi.web_addresses import ApiAsset

_SCHEME = "dandi://"
_IDENTIFIER = re.compile(r"(?:DANDI:)?(\d{1,6})", re.IGNORECASE)
_ORDERS = ("path", "created", "modified", "-path", "-created", "-modified")


class Asset(NamedTuple):
    """The location of the contents of an asset.

    Attributes
    ----------
    url : str
        URL of a file. For a Zarr store, the prefix to which percent-encoded keys are appended.
    headers : tuple of (str, str)
        Headers of requests to this URL, which no other server may receive; empty for open data.
    expires : bool
        Whether the URL is presigned: the asset must be resolved again once it is refused. A presigned URL
        gives access to anyone, and is valid for GET, not for HEAD.
    """

    url: str
    headers: tuple[tuple[str, str], ...] = ()
    expires: bool = False

    def __repr__(self) -> str:
        """Return a representation without signatures and keys."""
        return f"<Asset: {self.url.partition('?')[0]}>"


def get_dandi_sources(  # noqa: PLR0913 - each narrows the listing in its own way, most of them by name
    dandiset_id: str,
    version: str | None = None,
    order: str = "path",
    *,
    asset_ids: Iterable[str] | None = None,
    asset_filter: Callable[[dict[str, Any]], bool] | None = None,
    max_assets: int | None = None,
) -> list[str]:
    """List the NWB files of a dandiset as sources for `scan_nwb` and the other functions.

    Parameters
    ----------
    dandiset_id : str
        Such as "000363".
    version : str, optional
        Such as "0.231012.2129", or "draft". By default the newest published version, or else the draft.
    asset_ids : iterable of str, optional
        Only these assets, in this order.
    asset_filter : callable, optional
        Receives the metadata of an asset as a dictionary and returns whether to include it. The dictionary
        has the items of the listing ("asset_id", "path", "size", "created", "modified", "blob", "zarr") and
        those of the asset's metadata, such as "wasAttributedTo", which are also under "metadata".
    max_assets : int, optional
        Maximum number of assets; the listing stops there.
    order : {"path", "created", "modified", "-path", "-created", "-modified"}
        Sort order; a minus sign means descending.

    Returns
    -------
    list of str
        URLs `dandi://DANDISET/VERSION/path/in/the/dandiset.nwb`; empty if no asset matches.

    Raises
    ------
    SourceNotFoundError
        If the archive does not have the dandiset, the version, or one of the requested assets.
    LazyNWBError
        If the dandiset is embargoed and the environment variable `DANDI_API_KEY` is not the key of an account
        with access, or the archive does not respond.

    Examples
    --------
    >>> sources = lazynwb.get_dandi_sources("000363", max_assets=10)  # doctest: +SKIP
    >>> lazynwb.scan_nwb(sources, "/units")  # doctest: +SKIP
    """
    if order not in _ORDERS:
        raise ValueError(f"order must be one of {', '.join(_ORDERS)}, not {order!r}")
    if max_assets is not None and max_assets < 0:
        raise ValueError(f"max_assets must not be negative: {max_assets}")
    dandiset = dandiset_number(dandiset_id)
    if version is None:
        version = asset_listing.get_dandiset(dandiset, fresh=True).newest
    elif asset_listing.VERSION.fullmatch(version) is None:
        raise asset_listing.missing_version_error(dandiset, version)
    query = {"order": order, **asset_listing.NWB_ONLY}
    page_size = asset_listing.PAGE
    if asset_filter is not None:
        query |= asset_listing.METADATA
        page_size = asset_listing.METADATA_PAGE
    elif max_assets is not None and asset_ids is None:
        page_size = min(max_assets, page_size)
    query["page_size"] = str(page_size)
    if asset_ids is None:
        assets = asset_listing.list_assets(dandiset, version, query)
    else:
        assets = _require_nwb(asset_listing.find_by_ids(dandiset, version, _lowercase_ids(asset_ids), query))
    urls = (
        _url(Address(dandiset, version, asset["path"]))
        for asset in assets
        if _is_nwb(asset["path"]) and (asset_filter is None or asset_filter(_with_metadata(asset)))
    )
    return list(islice(_distinct(urls), max_assets))


def expand(url: str) -> list[str]:
    """Return the sorted URLs of the NWB assets of a DANDI URL; each includes the version.

    Parameters
    ----------
    url : str
        `dandi://ID[/VERSION][/path]`, where the path is that of an asset, a folder, or a glob pattern. The
        default version is the newest published one, or else the draft.

    Raises
    ------
    SourceNotFoundError
        If there are no such assets.
    """
    address = _parse_url(url)
    dandiset, version, path = address
    pattern = compile_glob(path) if WILDCARDS.intersection(path) else None
    if pattern is None and _is_nwb(path):
        return [_url(address)]
    begin = path if pattern is None else literal_prefix(path)
    query = {"order": "path", "page_size": str(asset_listing.PAGE)}
    if begin:
        query["path"] = begin
    if pattern is not None or not path or path.endswith("/"):
        query |= (
            asset_listing.NWB_ONLY
        )  # else there may be an asset of just this name, which may have any suffix
    found = {asset["path"] for asset in asset_listing.list_assets(dandiset, version, query)}
    if path in found:
        return [_url(address)]
    folder = f"{path.rstrip('/')}/" if path else ""
    chosen = sorted(
        name
        for name in found
        if _is_nwb(name) and (name.startswith(folder) if pattern is None else pattern.fullmatch(name))
    )
    if not chosen:
        what = "no NWB file in" if pattern is None else "no NWB file matches"
        raise SourceNotFoundError(
            f"{what} {url}: lazynwb.get_dandi_sources({dandiset!r}, {version!r}) lists its assets"
        )
    return [_url(Address(dandiset, version, name)) for name in chosen]


def expand_assets(assets: Iterable[ApiAsset]) -> dict[ApiAsset, str]:
    """Return the sources of assets that were given as URLs of the API, with few requests.

    Raises
    ------
    SourceNotFoundError
        If a dandiset lacks one of the assets.
    """
    found: dict[ApiAsset, str] = {}
    by_version: dict[tuple[str, str], list[ApiAsset]] = defaultdict(list)
    for asset in assets:
        by_version[asset.dandiset, asset.version].append(asset)
    unversioned = by_version.pop(("", ""), [])
    for (dandiset, version), own in by_version.items():
        ids = [asset.asset_id for asset in own]
        listed = asset_listing.find_by_ids(dandiset, version, ids, {})
        for asset, entry in zip(own, listed, strict=True):
            found[asset] = _url(Address(dandiset, version, entry["path"]))
    urls = asset_listing.LOOKUPS.map(_content_of, unversioned)
    return found | dict(zip(unversioned, urls, strict=True))


def _content_of(asset: ApiAsset) -> str:
    """Return the URL of the contents of an asset: the download of a file, or the prefix of a Zarr store."""
    with suppress(LazyNWBError):  # the error occurs again when the file is read
        return asset_listing.zarr_url(asset.asset_id) or asset.download
    return asset.download


def resolve(url: str, *, fresh: bool = False) -> Asset:
    """Return the location of the contents of an asset.

    Parameters
    ----------
    url : str
        `dandi://ID[/VERSION]/path`.
    fresh : bool
        Whether to ignore cached listings, because the location that they led to was refused.

    Raises
    ------
    SourceNotFoundError
        If the archive does not have the asset.
    LazyNWBError
        If access is denied, or the archive does not respond.
    """
    address = _parse_url(url)
    if fresh:
        asset_listing.forget(address)
    return resolve_all([_url(address)])[0]


def resolve_all(urls: Sequence[str]) -> list[Asset]:
    """Return the locations of several assets with as few requests as possible; see `resolve`."""
    addresses = [_parse_url(url) for url in urls]
    entries: dict[Address, Entry] = {}
    unknown: dict[tuple[str, str], list[str]] = defaultdict(list)
    for address in dict.fromkeys(addresses):
        entry = asset_listing.cached_entry(address)
        if entry is not None:
            entries[address] = entry
        else:
            unknown[address.dandiset, address.version].append(address.path)
    for (dandiset, version), paths in unknown.items():
        for path, entry in asset_listing.find_by_paths(dandiset, version, paths).items():
            entries[Address(dandiset, version, path)] = entry
    pairs = list(entries.items())
    # The first one may determine the root that the others share.
    opened = [_locate(pair) for pair in pairs[:1]] + asset_listing.LOOKUPS.map(_locate, pairs[1:])
    where = dict(zip(entries, opened, strict=True))
    return [where[address] for address in addresses]


def prefetch(urls: Iterable[str]) -> None:
    """Look up assets that will be resolved one by one, with as few requests as possible.

    Errors are ignored: they occur again when an asset is resolved.
    """
    unknown: dict[tuple[str, str], list[str]] = defaultdict(list)
    first: dict[bool, tuple[Address, Entry]] = {}
    with suppress(LazyNWBError):
        addresses = dict.fromkeys(_parse_url(url) for url in urls)
        for address in addresses:
            if asset_listing.cached_entry(address) is None:
                unknown[address.dandiset, address.version].append(address.path)
        for (dandiset, version), paths in unknown.items():
            asset_listing.find_listed_paths(dandiset, version, paths)
        for address in addresses:
            entry = asset_listing.cached_entry(address)
            if entry is not None:
                first.setdefault(entry.is_zarr, (address, entry))
        for address, entry in first.values():
            if not _is_embargoed(address):
                _public_url(entry)


def forget() -> None:
    """Forget all listings and roots."""
    asset_listing.forget()
    _roots.clear()


# -- URLs and names -----------------------------------------------------------------------------------


def _url(address: Address) -> str:
    return f"{_SCHEME}{address.dandiset}/{address.version}/{address.path}"


def _parse_url(url: str) -> Address:
    """Parse a URL, and look up the default version if it has none."""
    if not url.lower().startswith(_SCHEME):
        raise SourceNotFoundError(
            f"{url.partition('?')[0]} is not a DANDI URL such as dandi://000363/draft/path"
        )
    dandiset_id, _, rest = url[len(_SCHEME) :].partition("/")
    dandiset = dandiset_number(dandiset_id)
    version, _, path = rest.partition("/")
    if asset_listing.VERSION.fullmatch(version) is None:
        version, path = asset_listing.get_dandiset(dandiset).newest, rest
    store = path.rstrip("/")  # a Zarr store may have a trailing slash
    return Address(dandiset, version, store if _is_nwb(store) else path)


def dandiset_number(text: str) -> str:
    """Return the six-digit number of a dandiset, such as "000363" for "DANDI:363".

    Raises
    ------
    SourceNotFoundError
        If the text is not the identifier of a dandiset.
    """
    found = _IDENTIFIER.fullmatch(text)
    if found is None:
        raise SourceNotFoundError(
            f"{text!r} is not the identifier of a dandiset, which has six digits, as in dandi://000363/draft/path"
        )
    return found[1].zfill(6)


def _lowercase_ids(asset_ids: Iterable[str]) -> list[str]:
    return [one.lower() for one in ([asset_ids] if isinstance(asset_ids, str) else asset_ids)]


def _is_nwb(path: str) -> bool:
    return is_nwb_name(path.rpartition("/")[2])


def _require_nwb(assets: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield assets; raise SourceNotFoundError for one that is not an NWB file."""
    for asset in assets:
        if not _is_nwb(asset["path"]):
            raise SourceNotFoundError(
                f"asset {asset['asset_id']} is {asset['path']}, which is not an NWB file: leave it out"
            )
        yield asset


def _with_metadata(asset: dict[str, Any]) -> dict[str, Any]:
    metadata = asset.get("metadata")
    return {**metadata, **asset} if isinstance(metadata, dict) else asset


def _distinct(urls: Iterable[str]) -> Iterator[str]:
    """Drop duplicates, which occur if a draft changes between two pages of its listing."""
    seen = set()
    for url in urls:
        if url not in seen:
            seen.add(url)
            yield url


# -- locations of contents ----------------------------------------------------------------------------

#: Root URLs of an archive's buckets, of files and of Zarr stores.
_roots: dict[tuple[str, bool], str] = {}


def _locate(pair: tuple[Address, Entry]) -> Asset:
    address, entry = pair
    if not _is_embargoed(address):
        url = _public_url(entry)
        if url is not None:
            return Asset(url)
    if entry.is_zarr:
        # The archive redirects each request for an object of the store to a presigned URL.
        where = f"{api.api_url()}/zarr/{entry.store_id}/files/?download=true&prefix="
        return Asset(where, api.authorization())
    return Asset(api.redirect(f"assets/{entry.asset_id}/download/"), expires=True)


def _is_embargoed(address: Address) -> bool:
    """Return whether reading requires the key; without a key, listings only contain open data."""
    return bool(api.key()) and asset_listing.get_dandiset(address.dandiset).embargoed


def _public_url(entry: Entry) -> str | None:
    """Return the public URL of an asset.

    The metadata of an asset contain it, but are long. Those of one asset reveal the root of the archive's
    bucket, in which other assets have their identifiers as names. If that does not match, request the
    metadata of each asset.
    """
    if entry.url is not None:
        return entry.url
    name = entry.store_id
    key = f"zarr/{name}/" if entry.is_zarr else f"blobs/{name[:3]}/{name[3:6]}/{name}"
    place = (api.api_url(), entry.is_zarr)
    root = _roots.get(place)
    if root is not None:
        return root + key
    url = asset_listing.content_url(api.get(f"assets/{entry.asset_id}/"))
    if url is not None and url.endswith("/" + key):
        _roots[place] = url.removesuffix(key)
    return url
