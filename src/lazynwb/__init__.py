"""One Polars LazyFrame over many NWB files, in place."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lazynwb._version import __version__
from lazynwb.catalog.dtypes import INTERNAL
from lazynwb.catalog.dtypes import NWB_PATH as NWB_PATH_COLUMN_NAME
from lazynwb.catalog.dtypes import TABLE_INDEX as TABLE_INDEX_COLUMN_NAME
from lazynwb.catalog.dtypes import TABLE_PATH as TABLE_PATH_COLUMN_NAME
from lazynwb.config import config
from lazynwb.errors import (
    ColumnNotFoundError,
    CorruptDataError,
    LazyNWBError,
    MissingPackageError,
    NotAscendingError,
    NotNWBError,
    SchemaError,
    SourceChangedError,
    SourceNotFoundError,
    TableNotFoundError,
    UnsupportedTypeError,
)
from lazynwb.formats.nwb.names import TABLE_SHORTCUTS
from lazynwb.frames import namespace as _namespace  # noqa: F401 - registers itself with Polars
from lazynwb.lookup.catalog_cache import clear_cache
from lazynwb.paths import get_internal_path_info, get_internal_paths
from lazynwb.profile import profile
from lazynwb.scan import get_table_schema, read_nwb, scan_nwb
from lazynwb.sql import get_sql_context

if TYPE_CHECKING:
    from lazynwb.attributes import clear_attrs_cache, consolidate_attrs, get_attrs, get_sub_attrs
    from lazynwb.convert.conversion import convert_nwb_tables
    from lazynwb.frames.get import get, get_df
    from lazynwb.frames.late_frames import merge_array_column
    from lazynwb.index.build import IndexChanges, build_index, update_index
    from lazynwb.index.reader import Index, open_index
    from lazynwb.interop import to_pynapple, to_xarray
    from lazynwb.metadata import get_metadata_df
    from lazynwb.scan import scan_index
    from lazynwb.series import TimeSeries, get_timeseries
    from lazynwb.session import LazyNWB
    from lazynwb.sessions import scan_sessions
    from lazynwb.spikes import (
        INTERVALS_TABLE_INDEX_COLUMN_NAME,
        UNITS_TABLE_INDEX_COLUMN_NAME,
        get_spike_times_in_intervals,
        insert_is_observed,
    )
    from lazynwb.storage.dandi.resolver import get_dandi_sources

#: Imported when they are first asked for: what takes long to import, or is not needed for a query.
_LATE = {
    "INTERVALS_TABLE_INDEX_COLUMN_NAME": "spikes",
    "Index": "index.reader",
    "IndexChanges": "index.build",
    "LazyNWB": "session",
    "TimeSeries": "series",
    "UNITS_TABLE_INDEX_COLUMN_NAME": "spikes",
    "build_index": "index.build",
    "clear_attrs_cache": "attributes",
    "consolidate_attrs": "attributes",
    "convert_nwb_tables": "convert",
    "get": "frames.get",
    "get_attrs": "attributes",
    "get_dandi_sources": "storage.dandi.resolver",
    "get_df": "frames.get",
    "get_metadata_df": "metadata",
    "get_spike_times_in_intervals": "spikes",
    "get_sub_attrs": "attributes",
    "get_timeseries": "series",
    "insert_is_observed": "spikes",
    "merge_array_column": "frames.late_frames",
    "open_index": "index.reader",
    "scan_index": "scan",
    "scan_sessions": "sessions",
    "to_pynapple": "interop",
    "to_xarray": "interop",
    "update_index": "index.build",
}

__all__ = [
    "INTERNAL_COLUMN_NAMES",
    "INTERVALS_TABLE_INDEX_COLUMN_NAME",
    "NWB_PATH_COLUMN_NAME",
    "TABLE_INDEX_COLUMN_NAME",
    "TABLE_PATH_COLUMN_NAME",
    "TABLE_SHORTCUTS",
    "UNITS_TABLE_INDEX_COLUMN_NAME",
    "ColumnNotFoundError",
    "CorruptDataError",
    "Index",
    "IndexChanges",
    "LazyNWB",
    "LazyNWBError",
    "MissingPackageError",
    "NotAscendingError",
    "NotNWBError",
    "SchemaError",
    "SourceChangedError",
    "SourceNotFoundError",
    "TableNotFoundError",
    "TimeSeries",
    "UnsupportedTypeError",
    "__version__",
    "build_index",
    "clear_attrs_cache",
    "clear_cache",
    "config",
    "consolidate_attrs",
    "convert_nwb_tables",
    "get",
    "get_attrs",
    "get_dandi_sources",
    "get_df",
    "get_internal_path_info",
    "get_internal_paths",
    "get_metadata_df",
    "get_spike_times_in_intervals",
    "get_sql_context",
    "get_sub_attrs",
    "get_table_schema",
    "get_timeseries",
    "insert_is_observed",
    "merge_array_column",
    "open_index",
    "profile",
    "read_nwb",
    "scan_index",
    "scan_nwb",
    "scan_sessions",
    "to_pynapple",
    "to_xarray",
    "update_index",
]

INTERNAL_COLUMN_NAMES = frozenset(INTERNAL)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever is asked for
    """Import late what is not needed for a query; explain names that lazynwb 1.x had."""
    if name in _LATE:
        value = getattr(importlib.import_module(f"lazynwb.{_LATE[name]}"), name)
        globals()[name] = value
        return value
    from lazynwb._compatibility import find

    return find(name)


def __dir__() -> list[str]:
    """Name what can be had, imported already or not."""
    return sorted({*globals(), *_LATE})
