"""Translation of web addresses of the DANDI archive and of Neurosift to sources."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from lazynwb.config import config

if TYPE_CHECKING:
    from urllib.parse import SplitResult

# Patterns are compiled on first use: paths of local files need none of them.
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_VERSION = r"\d+\.\d+\.\d+|draft"
#: API paths of an asset, with or without its dandiset.
_ASSET = (
    rf"/(?:dandisets/(?P<dandiset>\d{{6}})/versions/(?P<version>{_VERSION})/)?"
    rf"assets/(?P<asset>{_UUID})(?:/(?:download|info))?/?"
)
_DOWNLOAD = rf"/assets/{_UUID}/download/?$"
#: Paths of a dandiset on the archive's website, in its API, and at identifiers.org.
_DANDISET = (
    rf"/(?:dandisets?/)?(?:DANDI:)?(?P<dandiset>\d{{6}})(?:/(?:versions/)?(?P<version>{_VERSION}))?(?:/.*)?"
)
_IDENTIFIER = rf"DANDI:(?P<dandiset>\d{{6}})(?:/(?P<version>{_VERSION}))?/?"
_SITE = r"(?:(?:gui|www|gui-staging)\.)?(?:sandbox\.)?dandiarchive\.org|identifiers\.org"
_API = r"api(?:-staging)?\.(?:sandbox\.)?dandiarchive\.org"
_NEUROSIFT = r"(?:[\w-]+\.)*neurosift\.app|(?:flatironinstitute|magland)\.github\.io"


def is_download(path: str) -> bool:
    """Return whether a URL without its query is a download URL of the API."""
    return re.search(_DOWNLOAD, path, re.IGNORECASE) is not None


class ApiAsset(NamedTuple):
    """An asset in a URL of the API.

    Attributes
    ----------
    download : str
        Download URL of the file.
    asset_id : str
        Identifier of the asset.
    dandiset, version : str
        Dandiset and version; empty if the URL has none.
    """

    download: str
    asset_id: str
    dandiset: str
    version: str


def translate(url: str) -> str | ApiAsset:
    """Translate a web address to a source, without making a request.

    Parameters
    ----------
    url : str
        An identifier such as `DANDI:000363/0.231012.2129`, a page of the archive's website or of Neurosift, a
        URL of the API, or any other URL.

    Returns
    -------
    str or ApiAsset
        An asset of the API; the `dandi://` URL of a dandiset or of a folder in it; any other URL unchanged.
    """
    if (found := re.fullmatch(_IDENTIFIER, url, re.IGNORECASE)) is not None:
        return _dandiset_url(found, "")
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        own = urlsplit(config.dandi_api_url)
    except ValueError:
        return url
    if parts.scheme not in {"http", "https"}:
        return url
    if re.fullmatch(_NEUROSIFT, host):
        return _translate_neurosift(url, parts)
    is_own = parts[:2] == own[:2]
    if re.fullmatch(_API, host) or is_own:
        base = own.path.rstrip("/") if is_own else "/api"
        if not parts.path.startswith(f"{base}/"):
            return url
        path = parts.path.removeprefix(base)
        if (asset := re.fullmatch(_ASSET, path, re.IGNORECASE)) is not None:
            download = f"{parts.scheme}://{parts.netloc}{base}/assets/{asset['asset']}/download/"
            return ApiAsset(download, asset["asset"].lower(), asset["dandiset"] or "", asset["version"] or "")
        found = re.fullmatch(_DANDISET, path, re.IGNORECASE) if path.startswith("/dandisets/") else None
        return url if found is None else _dandiset_url(found, "")
    if re.fullmatch(_SITE, host):
        # Pages of the old website are in the fragment.
        page = urlsplit(parts.fragment) if parts.fragment.startswith("/") else parts
        found = re.fullmatch(_DANDISET, page.path, re.IGNORECASE)
        if found is not None:
            return _dandiset_url(found, dict(parse_qsl(page.query)).get("location", ""))
    return url


def _dandiset_url(found: re.Match[str], location: str) -> str:
    version = f"/{found['version']}" if found["version"] else ""
    return f"dandi://{found['dandiset']}{version}/{location.strip('/')}"


def _translate_neurosift(url: str, parts: SplitResult) -> str | ApiAsset:
    """Return the file or the dandiset of a Neurosift page."""
    query = dict(parse_qsl(parts.query))
    if query.get("url"):
        return translate(query["url"])
    named = re.fullmatch(r"(?:/dandiset/)?(\d{6})/?", query.get("dandisetId") or parts.path)
    if named is None:
        return url
    version = query.get("dandisetVersion")
    return f"dandi://{named[1]}{'/' + version if version else ''}/"
