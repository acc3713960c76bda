"""What a process keeps of remote files: bytes, identities, and the places of assets in the DANDI archive."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lazynwb.storage.source import Source

#: Modules that keep something; those that were not imported keep nothing.
_KEEPERS = (
    *("remote_file", "store_request", "resolve", "dandi.resolver", "stores.dandi_assets"),
    *("objects.metadata_identity", "objects.zip_archive"),
    *("objects.reference_file", "objects.lindi_archive"),
)


def save() -> None:
    """Write the bytes that parsing and small columns needed to the disk cache, for the next process."""
    kept = sys.modules.get("lazynwb.storage.block_cache")
    if kept is not None:
        kept.save_all()


def forget() -> None:
    """Drop everything from memory."""
    for name in _KEEPERS:
        module = sys.modules.get(f"lazynwb.storage.{name}")
        if module is not None:
            module.forget()


def prefetch(sources: Iterable[Source]) -> None:
    """Note sources that will be asked for, where it saves requests to look many of them up at once."""
    assets = [source for source in sources if source.path.startswith("dandi://")]
    if assets:
        from lazynwb.storage.stores.dandi_assets import prepare

        prepare(assets)
