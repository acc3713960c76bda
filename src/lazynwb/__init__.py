"""One Polars LazyFrame over many NWB files, in place."""

from __future__ import annotations

import importlib
import sys
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from lazynwb._version import __version__
from lazynwb.config import config
from lazynwb.profile import profile

if TYPE_CHECKING:
    from lazynwb.attributes import clear_attrs_cache, consolidate_attrs, get_attrs, get_sub_attrs
    from lazynwb.catalog.dtypes import INTERNAL_COLUMN_NAMES
    from lazynwb.catalog.dtypes import NWB_PATH as NWB_PATH_COLUMN_NAME
    from lazynwb.catalog.dtypes import TABLE_INDEX as TABLE_INDEX_COLUMN_NAME
    from lazynwb.catalog.dtypes import TABLE_PATH as TABLE_PATH_COLUMN_NAME
    from lazynwb.convert.conversion import convert_nwb_tables
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
    from lazynwb.frames.get import get, get_df
    from lazynwb.frames.late_frames import merge_array_column
    from lazynwb.index.build import IndexChanges, build_index, update_index
    from lazynwb.index.reader import Index, open_index
    from lazynwb.interop import to_pynapple, to_xarray
    from lazynwb.lookup.catalog_cache import clear_cache
    from lazynwb.metadata import get_metadata_df
    from lazynwb.paths import get_internal_path_info, get_internal_paths
    from lazynwb.scan import get_table_schema, read_nwb, scan_index, scan_nwb
    from lazynwb.series import TimeSeries, get_timeseries
    from lazynwb.session import LazyNWB
    from lazynwb.sessions import scan_sessions
    from lazynwb.spikes import (
        INTERVALS_TABLE_INDEX_COLUMN_NAME,
        UNITS_TABLE_INDEX_COLUMN_NAME,
        get_spike_times_in_intervals,
        insert_is_observed,
    )
    from lazynwb.sql import get_sql_context
    from lazynwb.storage.dandi.resolver import get_dandi_sources

#: Public names by the module that has them, which is imported with the first of its names.
_MODULES = {
    "attributes": ("clear_attrs_cache", "consolidate_attrs", "get_attrs", "get_sub_attrs"),
    "catalog.dtypes": ("INTERNAL_COLUMN_NAMES",),
    "convert.conversion": ("convert_nwb_tables",),
    "errors": (
        "ColumnNotFoundError",
        "CorruptDataError",
        "LazyNWBError",
        "MissingPackageError",
        "NotAscendingError",
        "NotNWBError",
        "SchemaError",
        "SourceChangedError",
        "SourceNotFoundError",
        "TableNotFoundError",
        "UnsupportedTypeError",
    ),
    "formats.nwb.names": ("TABLE_SHORTCUTS",),
    "frames.get": ("get", "get_df"),
    "frames.late_frames": ("merge_array_column",),
    "index.build": ("IndexChanges", "build_index", "update_index"),
    "index.reader": ("Index", "open_index"),
    "interop": ("to_pynapple", "to_xarray"),
    "lookup.catalog_cache": ("clear_cache",),
    "metadata": ("get_metadata_df",),
    "paths": ("get_internal_path_info", "get_internal_paths"),
    "scan": ("get_table_schema", "read_nwb", "scan_index", "scan_nwb"),
    "series": ("TimeSeries", "get_timeseries"),
    "session": ("LazyNWB",),
    "sessions": ("scan_sessions",),
    "spikes": (
        "INTERVALS_TABLE_INDEX_COLUMN_NAME",
        "UNITS_TABLE_INDEX_COLUMN_NAME",
        "get_spike_times_in_intervals",
        "insert_is_observed",
    ),
    "sql": ("get_sql_context",),
    "storage.dandi.resolver": ("get_dandi_sources",),
}
#: The module and the name in it of every public name that is imported late.
_LATE = {name: (module, name) for module, names in _MODULES.items() for name in names} | {
    "NWB_PATH_COLUMN_NAME": ("catalog.dtypes", "NWB_PATH"),
    "TABLE_INDEX_COLUMN_NAME": ("catalog.dtypes", "TABLE_INDEX"),
    "TABLE_PATH_COLUMN_NAME": ("catalog.dtypes", "TABLE_PATH"),
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


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public object
    """Import a public name when it is first used; explain names that lazynwb 1.x had."""
    if name in _LATE:
        module, attribute = _LATE[name]
        value = getattr(importlib.import_module(f"lazynwb.{module}"), attribute)
        globals()[name] = value
        return value
    from lazynwb._compatibility import find

    return find(name)


def __dir__() -> list[str]:
    """List all public names, imported or not."""
    return sorted({*globals(), *_LATE})


def _is_command_line() -> bool:
    """Return whether this process is the command `lazynwb`, whose `--version` and `--help` need no Polars."""
    script = PurePath(sys.argv[0]).stem if getattr(sys, "argv", None) else ""
    return script == "lazynwb" or sys.orig_argv[1:3] == ["-m", "lazynwb"]


if not _is_command_line():
    # What every query needs is imported here, so that the first one does not pay for it. The modules that
    # read files, and NumPy, are imported with the first file that has to be read.
    from lazynwb.frames import namespace as _namespace  # noqa: F401 - registers itself with Polars
    from lazynwb.scan import get_table_schema, read_nwb, scan_index, scan_nwb
