"""Public names of `lazynwb.attrs` of lazynwb 1.x."""

from __future__ import annotations

from typing import Any

from lazynwb import clear_attrs_cache, consolidate_attrs, get_attrs, get_sub_attrs
from lazynwb._compatibility import missing

__all__ = ["clear_attrs_cache", "consolidate_attrs", "get_attrs", "get_sub_attrs"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - it only raises
    """Explain names that are not here."""
    raise missing(__name__, name)
