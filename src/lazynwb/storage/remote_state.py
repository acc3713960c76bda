"""Process-wide state of remote sources: cached bytes, identities, and locations of DANDI assets."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING

from lazynwb.shutdown import on_exit
from lazynwb.threads import CACHE_WRITES

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
    """Write used blocks of the block cache to disk for the next process; see `DeferredWrites`."""
    block_cache = sys.modules.get("lazynwb.storage.block_cache")
    if block_cache is not None:
        CACHE_WRITES.submit(block_cache.save_all)


@cache
def save_later() -> None:
    """Write used blocks with the next `save`, at the latest when the process exits."""
    on_exit(save)


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
        from lazynwb.storage.stores.dandi_assets import queue_lookups

        queue_lookups(assets)
