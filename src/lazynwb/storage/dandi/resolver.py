"""The DANDI archive: what URLs such as `dandi://000363/draft/sub-1/a.nwb` mean, and where their bytes are."""

from __future__ import annotations

import re
from collections import defaultdict
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from lazynwb.errors import LazyNWBError, SourceNotFoundError
from lazynwb.storage.dandi import api, asset_listing
from lazynwb.storage.dandi.asset_listing import Address, Entry
from lazynwb.storage.file_names import WILDCARDS, before_wildcard, is_nwb_name, pattern_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from lazynwb.storage.dandi.web_addresses import ApiAsset

_SCHEME = "dandi://"
_IDENTIFIER = re.compile(r"(?:DANDI:)?(\d{1,6})", re.IGNORECASE)
_ORDERS = ("path", "created", "modified", "-path", "-created", "-modified")


class Asset(NamedTuple):
    """Where the bytes of an asset are.

    Attributes
    ----------
    url : str
        Of a file's bytes. For a Zarr store, what the percent-encoded name of an object in it is appended to.
    headers : tuple of (str, str)
        What requests to it need, and no other server may see; empty for what is open.
    expires : bool
        Whether the URL is signed for some time only: ask again for the asset when it is refused. Anybody who
        knows such a URL gets in, and it is signed for GET, not for HEAD.
    """

    url: str
    headers: tuple[tuple[str, str], ...] = ()
    expires: bool = False

    def __repr__(self) -> str:
        """Leave out signatures and keys."""
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
        Such as "0.231012.2129", or "draft". By default the newest that was published, else the draft.
    asset_ids : iterable of str, optional
        Only these assets, in this order.
    asset_filter : callable, optional
        Takes what the archive says of an asset, as a dictionary, and returns whether it is wanted. It has the
        items of the listing ("asset_id", "path", "size", "created", "modified", "blob", "zarr") and those of
        the asset's metadata, such as "wasAttributedTo", which are under "metadata", too.
    max_assets : int, optional
        No more than this; the listing ends there.
    order : {"path", "created", "modified", "-path", "-created", "-modified"}
        By which the archive sorts; with a minus sign, the last ones come first.

    Returns
    -------
    list of str
        URLs `dandi://DANDISET/VERSION/path/in/the/dandiset.nwb`; empty if no asset is wanted.

    Raises
    ------
    SourceNotFoundError
        If the archive does not have the dandiset, the version, or one of the assets asked for.
    LazyNWBError
        If it is embargoed and the environment variable `DANDI_API_KEY` does not hold the key of an account
        that may read it, or the archive does not answer.

    Examples
    --------
    >>> sources = lazynwb.get_dandi_sources("000363", max_assets=10)  # doctest: +SKIP
    >>> lazynwb.scan_nwb(sources, "/units")  # doctest: +SKIP
    """
    if order not in _ORDERS:
        raise ValueError(f"order is one of {', '.join(_ORDERS)}, not {order!r}")
    if max_assets is not None and max_assets < 0:
        raise ValueError(f"max_assets is a number of assets, not {max_assets}")
    dandiset = dandiset_number(dandiset_id)
    if version is None:
        version = asset_listing.about(dandiset, fresh=True).newest
    elif asset_listing.VERSION.fullmatch(version) is None:
        raise asset_listing.no_version(dandiset, version)
    query = {"order": order, **asset_listing.NWB_ONLY}
    page_size = asset_listing.PAGE
    if asset_filter is not None:
        query |= asset_listing.METADATA
        page_size = asset_listing.METADATA_PAGE
    elif max_assets is not None and asset_ids is None:
        page_size = min(max_assets, page_size)
    query["page_size"] = str(page_size)
    if asset_ids is None:
        assets = asset_listing.listed(dandiset, version, query)
    else:
        assets = _only_nwb(asset_listing.with_ids(dandiset, version, _lowered(asset_ids), query))
    wanted = (
        _url(Address(dandiset, version, asset["path"]))
        for asset in assets
        if _is_nwb(asset["path"]) and (asset_filter is None or asset_filter(_flat(asset)))
    )
    return list(islice(_distinct(wanted), max_assets))


def expand(url: str) -> list[str]:
    """Return the URLs of the NWB assets that a URL means, sorted; each names the version.

    Parameters
    ----------
    url : str
        `dandi://ID[/VERSION][/path]`, where the path is that of an asset, a folder, or a pattern. Without a
        version, the newest that was published is meant, else the draft.

    Raises
    ------
    SourceNotFoundError
        If there is none.
    """
    address = _address(url)
    dandiset, version, path = address
    pattern = pattern_of(path) if WILDCARDS.intersection(path) else None
    if pattern is None and _is_nwb(path):
        return [_url(address)]
    begin = path if pattern is None else before_wildcard(path)
    query = {"order": "path", "page_size": str(asset_listing.PAGE)}
    if begin:
        query["path"] = begin
    if pattern is not None or not path or path.endswith("/"):
        query |= (
            asset_listing.NWB_ONLY
        )  # else there may be an asset of just this name, which may have any suffix
    found = {asset["path"] for asset in asset_listing.listed(dandiset, version, query)}
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
            f"{what} {url}: lazynwb.get_dandi_sources({dandiset!r}, {version!r}) lists what there is"
        )
    return [_url(Address(dandiset, version, name)) for name in chosen]


def expand_assets(assets: Iterable[ApiAsset]) -> dict[ApiAsset, str]:
    """Return the URLs to read assets by that were named by URLs of the API, with few requests.

    Raises
    ------
    SourceNotFoundError
        If a dandiset does not have one of them.
    """
    found: dict[ApiAsset, str] = {}
    apart: dict[tuple[str, str], list[ApiAsset]] = defaultdict(list)
    for asset in assets:
        apart[asset.dandiset, asset.version].append(asset)
    alone = apart.pop(("", ""), [])
    for (dandiset, version), wanted in apart.items():
        ids = [asset.asset_id for asset in wanted]
        listed = asset_listing.with_ids(dandiset, version, ids, {})
        for asset, entry in zip(wanted, listed, strict=True):
            found[asset] = _url(Address(dandiset, version, entry["path"]))
    urls = asset_listing.LOOKUPS.map(_content_of, alone)
    return found | dict(zip(alone, urls, strict=True))


def _content_of(asset: ApiAsset) -> str:
    """Return where an asset is read: a file where it is downloaded, a Zarr store where its objects lie."""
    with suppress(LazyNWBError):  # it shows again, and is explained, when the file is read
        return asset_listing.zarr_url(asset.asset_id) or asset.download
    return asset.download


def resolve(url: str, *, fresh: bool = False) -> Asset:
    """Return where the bytes of an asset are.

    Parameters
    ----------
    url : str
        `dandi://ID[/VERSION]/path`.
    fresh : bool
        Ask the archive even if an earlier listing had the asset: for when what it led to is refused.

    Raises
    ------
    SourceNotFoundError
        If the archive does not have it.
    LazyNWBError
        If it may not be read, or the archive does not answer.
    """
    address = _address(url)
    if fresh:
        asset_listing.forget(address)
    return resolve_all([_url(address)])[0]


def resolve_all(urls: Sequence[str]) -> list[Asset]:
    """Return where the bytes of assets are, with as few requests as there can be; see `resolve`."""
    addresses = [_address(url) for url in urls]
    entries: dict[Address, Entry] = {}
    unknown: dict[tuple[str, str], list[str]] = defaultdict(list)
    for address in dict.fromkeys(addresses):
        entry = asset_listing.remembered(address)
        if entry is not None:
            entries[address] = entry
        else:
            unknown[address.dandiset, address.version].append(address.path)
    for (dandiset, version), paths in unknown.items():
        for path, entry in asset_listing.with_paths(dandiset, version, paths).items():
            entries[Address(dandiset, version, path)] = entry
    pairs = list(entries.items())
    # The first one may find out what holds for the others, too.
    opened = [_opened(pair) for pair in pairs[:1]] + asset_listing.LOOKUPS.map(_opened, pairs[1:])
    where = dict(zip(entries, opened, strict=True))
    return [where[address] for address in addresses]


def look_up(urls: Iterable[str]) -> None:
    """Ask for assets that will be resolved one by one, with as few requests as there can be.

    Nothing is raised: what cannot be had now is asked for again, and explained, when it is needed.
    """
    unknown: dict[tuple[str, str], list[str]] = defaultdict(list)
    first: dict[bool, tuple[Address, Entry]] = {}
    with suppress(LazyNWBError):
        addresses = dict.fromkeys(_address(url) for url in urls)
        for address in addresses:
            if asset_listing.remembered(address) is None:
                unknown[address.dandiset, address.version].append(address.path)
        for (dandiset, version), paths in unknown.items():
            asset_listing.listed_paths(dandiset, version, paths)
        for address in addresses:
            entry = asset_listing.remembered(address)
            if entry is not None:
                first.setdefault(entry.is_zarr, (address, entry))
        for address, entry in first.values():
            if not _is_embargoed(address):
                _open_url(entry)


def forget() -> None:
    """Forget what the archive said."""
    asset_listing.forget()
    _roots.clear()


# -- URLs and names -----------------------------------------------------------------------------------


def _url(address: Address) -> str:
    return f"{_SCHEME}{address.dandiset}/{address.version}/{address.path}"


def _address(url: str) -> Address:
    """Take a URL apart, and look the version up that it may leave open."""
    if not url.lower().startswith(_SCHEME):
        raise SourceNotFoundError(
            f"{url.partition('?')[0]} is no URL of the DANDI archive: these read dandi://000363/draft/path"
        )
    dandiset_id, _, rest = url[len(_SCHEME) :].partition("/")
    dandiset = dandiset_number(dandiset_id)
    version, _, path = rest.partition("/")
    if asset_listing.VERSION.fullmatch(version) is None:
        version, path = asset_listing.about(dandiset).newest, rest
    store = path.rstrip("/")  # a Zarr store may be written like a folder
    return Address(dandiset, version, store if _is_nwb(store) else path)


def dandiset_number(text: str) -> str:
    """Return the six digits of a dandiset, such as "000363" of "DANDI:363".

    Raises
    ------
    SourceNotFoundError
        If the text is no dandiset.
    """
    found = _IDENTIFIER.fullmatch(text)
    if found is None:
        raise SourceNotFoundError(
            f"{text!r} is no dandiset: these have numbers of six digits, as in dandi://000363/draft/path"
        )
    return found[1].zfill(6)


def _lowered(asset_ids: Iterable[str]) -> list[str]:
    return [one.lower() for one in ([asset_ids] if isinstance(asset_ids, str) else asset_ids)]


def _is_nwb(path: str) -> bool:
    return is_nwb_name(path.rpartition("/")[2])


def _only_nwb(assets: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Make sure that assets that somebody asked for are NWB files."""
    for asset in assets:
        if not _is_nwb(asset["path"]):
            raise SourceNotFoundError(
                f"asset {asset['asset_id']} is {asset['path']}, which is no NWB file: leave it out"
            )
        yield asset


def _flat(asset: dict[str, Any]) -> dict[str, Any]:
    metadata = asset.get("metadata")
    return {**metadata, **asset} if isinstance(metadata, dict) else asset


def _distinct(urls: Iterable[str]) -> Iterator[str]:
    """Drop what comes again: a draft may change between two pages of its listing."""
    seen = set()
    for url in urls:
        if url not in seen:
            seen.add(url)
            yield url


# -- from assets to bytes -----------------------------------------------------------------------------

#: Where an archive's buckets begin, for files and for Zarr stores.
_roots: dict[tuple[str, bool], str] = {}


def _opened(pair: tuple[Address, Entry]) -> Asset:
    address, entry = pair
    if not _is_embargoed(address):
        url = _open_url(entry)
        if url is not None:
            return Asset(url)
    if entry.is_zarr:
        # The archive redirects each request for an object of the store to a URL that is signed for it.
        where = f"{api.api_url()}/zarr/{entry.store_id}/files/?download=true&prefix="
        return Asset(where, api.authorization())
    return Asset(api.redirect(f"assets/{entry.asset_id}/download/"), expires=True)


def _is_embargoed(address: Address) -> bool:
    """Return whether reading takes a key; without one, whatever a listing has is open."""
    return bool(api.key()) and asset_listing.about(address.dandiset).embargoed


def _open_url(entry: Entry) -> str | None:
    """Return where anybody can read an asset.

    Its metadata say so, but they are long. Those of one asset show where the archive's bucket is; in there,
    others are found by their identifiers. Should that look otherwise, each one's metadata are asked for.
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
