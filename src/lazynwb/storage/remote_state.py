"""Process-wide state of remote sources: cached bytes, identities, and locations of DANDI assets."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lazynwb.storage.source import Source

#: Modules with state; modules that were not imported have none.
_STATEFUL_MODULES = (
    *("remote_file", "store_request", "resolve", "dandi.resolver", "stores.dandi_assets"),
    *("objects.metadata_identity", "objects.zip_archive"),
    *("objects.reference_file", "objects.lindi_archive"),
)


def save() -> None:
    """Write used blocks of the block cache to disk for the next process."""
    block_cache = sys.modules.get("lazynwb.storage.block_cache")
    if block_cache is not None:
        block_cache.save_all()


def forget() -> None:
    """Drop all state from memory."""
    for name in _STATEFUL_MODULES:
        module = sys.modules.get(f"lazynwb.storage.{name}")
        if module is not None:
            module.forget()


def prefetch(sources: Iterable[Source]) -> None:
    """Announce sources that will be read, so that DANDI assets are looked up together."""
    assets = [source for source in sources if source.path.startswith("dandi://")]
    if assets:
        from lazynwb.storage.stores.dandi_assets import announce

        announce(assets)
