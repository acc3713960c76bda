"""Names of lazynwb 1.x on PyPI: their modules here, or their replacements."""

from __future__ import annotations

import importlib
import sys
from typing import Any

#: Modules of 1.x that exist here under the same name.
MODULES = frozenset({
    "attrs", "base", "conversion", "dandi", "exceptions", "file_io", "lazyframe", "tables", "timeseries",
    "utils",
})  # fmt: skip

#: Names that are only public in 1.x, and their modules here.
MOVED = {
    "Config": "config",
    "DANDI_API_BASE": "dandi",
    "get_processpool_executor": "utils",
    "get_threadpool_executor": "utils",
    "normalize_internal_file_path": "utils",
}

_ANNOTATION = "it was a type variable for annotations"
_SCHEMA = "use lazynwb.get_table_schema(paths, table), and scan_nwb(...).select(pl.len()) for the row count"
_SOURCE = "pass the path or URL itself to each function, with storage_options=... where it needs any"
#: Names without a counterpart, and their replacements.
REPLACED = {
    "AsyncValueType": _ANNOTATION,
    "ColumnMetadataType": _ANNOTATION,
    "FileAccessor": f"{_SOURCE}; lazynwb.LazyNWB(path) is one file as an object",
    "FrameType": _ANNOTATION,
    "NWBComponent": "use lazynwb.LazyNWB",
    "OutputFormat": "the docstring of lazynwb.convert_nwb_tables lists the formats",
    "RawTableColumnMetadata": _SCHEMA,
    "Subject": "use lazynwb.LazyNWB(path).subject",
    "TableColumnAccessor": _ANNOTATION,
    "from_dandi_asset": "use lazynwb.get_dandi_sources(dandiset_id, asset_ids=[...])",
    "from_pathlike": _SOURCE,
    "get_table_column_metadata": _SCHEMA,
    "get_table_length_from_metadata": _SCHEMA,
    "get_table_schema_from_metadata": _SCHEMA,
    "is_group": "use lazynwb.get_internal_path_info(path)[internal_path]['is_group']",
    "load_dotenv": "a .env file is not read: set the environment variables before the import, "
    "or call load_dotenv of the package python-dotenv",
    "logger": "use logging.getLogger('lazynwb')",
    "process_pool_executor": "use scan_nwb(..., executor=...)",
    "table_metadata": _SCHEMA,
    "thread_pool_executor": "use lazynwb.utils.get_threadpool_executor()",
    "to_dict": "use lazynwb.LazyNWB(path).describe()",
    "types_": "paths are str, os.PathLike or UPath",
}

#: Modules and classes that were in other places in 1.x.
_IMPORTED = {
    "Any": "typing.Any", "Counter": "collections.Counter", "Iterable": "collections.abc.Iterable",
    "Iterator": "collections.abc.Iterator", "Literal": "typing.Literal",
    "Mapping": "collections.abc.Mapping", "MutableMapping": "collections.abc.MutableMapping",
    "Protocol": "typing.Protocol", "Sequence": "collections.abc.Sequence", "TypeVar": "typing.TypeVar",
    "cast": "typing.cast", "np": "numpy", "npt": "numpy.typing", "pa": "pyarrow",
    "pa_compute": "pyarrow.compute", "pd": "pandas", "pl": "polars", "lazynwb": "lazynwb",
    "lazynwb_config": "lazynwb.config",
    **{name: name for name in (
        "asyncio", "bisect", "collections", "concurrent", "contextlib", "dataclasses", "datetime", "difflib",
        "doctest", "dotenv", "enum", "fsspec", "functools", "h5py", "importlib", "inspect", "itertools",
        "json", "logging", "math", "numcodecs", "obstore", "operator", "os", "pathlib", "polars", "pydantic",
        "pydantic_settings", "re", "remfile", "requests", "threading", "time", "tqdm", "typing", "upath",
        "urllib", "warnings", "zarr", "zlib",
    )},
}  # fmt: skip
_INTERNAL = frozenset({
    "catalog_backend", "catalog_models", "catalog_polars", "catalog_schema", "hdf5_range_reader",
    "hdf5_reader", "zarr_reader",
})  # fmt: skip


def find(name: str) -> Any:  # noqa: ANN401 - any object that 1.x had under this name
    """Return the counterpart of `lazynwb.<name>` of 1.x.

    Raises
    ------
    AttributeError
        If it has no counterpart; the message names the replacement.
    """
    if name in MODULES:
        return importlib.import_module(f"lazynwb.{name}")
    if name in MOVED:
        return getattr(importlib.import_module(f"lazynwb.{MOVED[name]}"), name)
    raise missing("lazynwb", name)


def missing(module: str, name: str) -> AttributeError:
    """Return the error for a name that a module lacks, with the replacement of a name of 1.x."""
    if name in REPLACED:
        why = f"{name!r} of lazynwb 1.x: {REPLACED[name]}"
    elif name in _IMPORTED:
        why = f"{name!r}, an import of lazynwb 1.x: use {_IMPORTED[name]} itself"
    elif name in _INTERNAL:
        why = f"{name!r}, an internal module of lazynwb 1.x: use the functions of lazynwb"
    elif module != "lazynwb" and not name.startswith("_"):
        why = f"{name!r}: the public names are in lazynwb itself"
    else:
        why = repr(name)
    return AttributeError(f"module {module!r} has no attribute {why}", name=name, obj=sys.modules.get(module))
