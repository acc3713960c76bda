"""Public names of `lazynwb.tables` of lazynwb 1.x."""

from __future__ import annotations

from typing import Any

from lazynwb import (
    INTERNAL_COLUMN_NAMES,
    INTERVALS_TABLE_INDEX_COLUMN_NAME,
    NWB_PATH_COLUMN_NAME,
    TABLE_INDEX_COLUMN_NAME,
    TABLE_PATH_COLUMN_NAME,
    UNITS_TABLE_INDEX_COLUMN_NAME,
    get_df,
    get_spike_times_in_intervals,
    get_table_schema,
    insert_is_observed,
    merge_array_column,
)
from lazynwb._compatibility import missing

__all__ = [
    "INTERNAL_COLUMN_NAMES",
    "INTERVALS_TABLE_INDEX_COLUMN_NAME",
    "NWB_PATH_COLUMN_NAME",
    "TABLE_INDEX_COLUMN_NAME",
    "TABLE_PATH_COLUMN_NAME",
    "UNITS_TABLE_INDEX_COLUMN_NAME",
    "get_df",
    "get_spike_times_in_intervals",
    "get_table_schema",
    "insert_is_observed",
    "merge_array_column",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - it only raises
    """Explain names that are not here."""
    raise missing(__name__, name)
