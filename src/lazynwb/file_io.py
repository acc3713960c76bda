"""Public names of `lazynwb.file_io` of lazynwb 1.x."""

from __future__ import annotations

from typing import Any

from lazynwb._compatibility import missing
from lazynwb.config import Config, config
from lazynwb.lookup.catalog_cache import clear_cache
from lazynwb.paths import get_internal_path_info, get_internal_paths

__all__ = ["Config", "clear_cache", "config", "get_internal_path_info", "get_internal_paths"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - it only raises
    """Explain names that are not here."""
    raise missing(__name__, name)
