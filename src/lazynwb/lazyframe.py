"""Public names of `lazynwb.lazyframe` of lazynwb 1.x."""

from __future__ import annotations

from typing import Any

from lazynwb import read_nwb, scan_nwb
from lazynwb._compatibility import missing

__all__ = ["read_nwb", "scan_nwb"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - it only raises
    """Explain names that are not here."""
    raise missing(__name__, name)
