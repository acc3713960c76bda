"""Spikes of units in intervals of their sessions."""

from __future__ import annotations

from lazynwb.spikes.observation_times import INTERVALS_INDEX as INTERVALS_TABLE_INDEX_COLUMN_NAME
from lazynwb.spikes.observation_times import UNITS_INDEX as UNITS_TABLE_INDEX_COLUMN_NAME
from lazynwb.spikes.observation_times import insert_is_observed
from lazynwb.spikes.spike_times import get_spike_times_in_intervals

__all__ = [
    "INTERVALS_TABLE_INDEX_COLUMN_NAME",
    "UNITS_TABLE_INDEX_COLUMN_NAME",
    "get_spike_times_in_intervals",
    "insert_is_observed",
]
