"""One Polars LazyFrame over many NWB files, in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazynwb._version import __version__
from lazynwb.catalog.provenance import NWB_PATH as NWB_PATH_COLUMN_NAME
from lazynwb.catalog.provenance import TABLE_INDEX as TABLE_INDEX_COLUMN_NAME
from lazynwb.catalog.provenance import TABLE_PATH as TABLE_PATH_COLUMN_NAME
from lazynwb.config import config
from lazynwb.errors import (
    CorruptDataError,
    LazyNWBError,
    NotNWBError,
    SchemaError,
    SourceChangedError,
    SourceNotFoundError,
    TableNotFoundError,
    UnsupportedTypeError,
)
from lazynwb.lookup.load import clear_cache
from lazynwb.paths import get_internal_paths
from lazynwb.profile import profile
from lazynwb.scan import get_table_schema, read_nwb, scan_nwb
from lazynwb.sql import get_sql_context

if TYPE_CHECKING:
    from lazynwb.sources.dandi import get_dandi_sources

__all__ = [
    "NWB_PATH_COLUMN_NAME",
    "TABLE_INDEX_COLUMN_NAME",
    "TABLE_PATH_COLUMN_NAME",
    "CorruptDataError",
    "LazyNWBError",
    "NotNWBError",
    "SchemaError",
    "SourceChangedError",
    "SourceNotFoundError",
    "TableNotFoundError",
    "UnsupportedTypeError",
    "__version__",
    "clear_cache",
    "config",
    "get_dandi_sources",
    "get_internal_paths",
    "get_sql_context",
    "get_table_schema",
    "profile",
    "read_nwb",
    "scan_nwb",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever is asked for
    """Import late what takes long and few use."""
    if name == "get_dandi_sources":
        from lazynwb.sources.dandi import get_dandi_sources

        return get_dandi_sources
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
