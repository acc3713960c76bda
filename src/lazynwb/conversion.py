"""Public names of `lazynwb.conversion` of lazynwb 1.x."""

from __future__ import annotations

from typing import Any

from lazynwb import convert_nwb_tables, get_sql_context
from lazynwb._compatibility import missing

__all__ = ["convert_nwb_tables", "get_sql_context"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - it only raises
    """Explain names that are not here."""
    raise missing(__name__, name)
