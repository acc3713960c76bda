"""Public names of `lazynwb.base` of lazynwb 1.x."""

from __future__ import annotations

from typing import Any

from lazynwb import LazyNWB, get, get_metadata_df
from lazynwb._compatibility import missing

__all__ = ["LazyNWB", "get", "get_metadata_df"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - it only raises
    """Explain names that are not here."""
    raise missing(__name__, name)
