"""Public names of `lazynwb.dandi` of lazynwb 1.x, and private ones that other packages use.

New code should use `get_dandi_sources`, whose `dandi://` URLs need no look-up before a scan.
"""

from __future__ import annotations

from typing import Any

from lazynwb._compatibility import missing
from lazynwb.errors import SourceNotFoundError
from lazynwb.storage.dandi import api, asset_listing
from lazynwb.storage.dandi.resolver import dandiset_number, get_dandi_sources

__all__ = ["DANDI_API_BASE", "get_dandi_sources"]

DANDI_API_BASE = "https://api.dandiarchive.org/api"


def _get_most_recent_dandiset_version(dandiset_id: str) -> str:
    """Return the newest published version of a dandiset, or else "draft"."""
    return asset_listing.get_dandiset(dandiset_number(dandiset_id), fresh=True).newest


def _get_dandiset_assets(
    dandiset_id: str, version: str | None = None, order: str = "path"
) -> list[dict[str, Any]]:
    """Return the archive's listing of all assets of a dandiset, of any kind."""
    version = version or _get_most_recent_dandiset_version(dandiset_id)
    query = {"order": order, "page_size": str(asset_listing.PAGE)}
    return list(asset_listing.list_assets(dandiset_number(dandiset_id), version, query))


def _get_asset_s3_url(dandiset_id: str, asset_id: str, version: str | None = None) -> str:  # noqa: ARG001
    """Return the URL of an asset in the archive's bucket; its identifier is enough to find it."""
    url = asset_listing.content_url(api.get(f"assets/{asset_id}/"))
    if url is None:
        raise SourceNotFoundError(f"the metadata of asset {asset_id} contain no URL of its contents")
    return url


def __getattr__(name: str) -> Any:  # noqa: ANN401 - it only raises
    """Explain names that are not here."""
    raise missing(__name__, name)
