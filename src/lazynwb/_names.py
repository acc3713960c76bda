"""The public names that `import lazynwb` imports at once, and the namespace of Polars' frames."""

from __future__ import annotations

from lazynwb import namespace as _namespace  # noqa: F401 - registers itself with Polars
from lazynwb.catalog.provenance import INTERNAL
from lazynwb.catalog.provenance import NWB_PATH as NWB_PATH_COLUMN_NAME
from lazynwb.catalog.provenance import TABLE_INDEX as TABLE_INDEX_COLUMN_NAME
from lazynwb.catalog.provenance import TABLE_PATH as TABLE_PATH_COLUMN_NAME
from lazynwb.lookup.memory import clear_cache
from lazynwb.lookup.schema import TABLE_SHORTCUTS
from lazynwb.paths import get_internal_path_info, get_internal_paths
from lazynwb.scan import get_table_schema, read_nwb, scan_nwb
from lazynwb.sql import get_sql_context

__all__ = [
    "INTERNAL_COLUMN_NAMES",
    "NWB_PATH_COLUMN_NAME",
    "TABLE_INDEX_COLUMN_NAME",
    "TABLE_PATH_COLUMN_NAME",
    "TABLE_SHORTCUTS",
    "clear_cache",
    "get_internal_path_info",
    "get_internal_paths",
    "get_sql_context",
    "get_table_schema",
    "read_nwb",
    "scan_nwb",
]

INTERNAL_COLUMN_NAMES = frozenset(INTERNAL)
