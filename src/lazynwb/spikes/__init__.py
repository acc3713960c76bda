"""Spikes of units in intervals of their sessions."""

from __future__ import annotations

from lazynwb.spikes.find import get_spike_times_in_intervals
from lazynwb.spikes.observations import INTERVALS_INDEX as INTERVALS_TABLE_INDEX_COLUMN_NAME
from lazynwb.spikes.observations import UNITS_INDEX as UNITS_TABLE_INDEX_COLUMN_NAME
from lazynwb.spikes.observed import insert_is_observed

__all__ = [
    "INTERVALS_TABLE_INDEX_COLUMN_NAME",
    "UNITS_TABLE_INDEX_COLUMN_NAME",
    "get_spike_times_in_intervals",
    "insert_is_observed",
]
