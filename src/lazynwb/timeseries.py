"""Public names of `lazynwb.timeseries` of lazynwb 1.x."""

from __future__ import annotations

from typing import Any

from lazynwb import TimeSeries, get_timeseries
from lazynwb._compatibility import missing

__all__ = ["TimeSeries", "get_timeseries"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - it only raises
    """Explain names that are not here."""
    raise missing(__name__, name)
