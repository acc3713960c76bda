"""Target tables of DynamicTableRegion columns, and the types of their rows."""

from __future__ import annotations

import logging
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from lazynwb.catalog.dtypes import column_dtype, instance
from lazynwb.catalog.merge import merge_schemas
from lazynwb.config import config
from lazynwb.errors import LazyNWBError, SchemaError, may_skip
from lazynwb.lookup.catalog_cache import CacheEntry, get_entry, invalidate_on_corruption, put_entry
from lazynwb.lookup.prefetch import load_tables
from lazynwb.progress import Progress
from lazynwb.storage.source import map_concurrently

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from lazynwb.lookup.loader import TableFile

_LOGGER = logging.getLogger("lazynwb")
#: Number of files per lookup.
_FILES_PER_LOOKUP = 64


class TargetsEntry(CacheEntry):
    """Cache entry of the target tables of the regions of a table, by the paths of the regions."""

    targets: dict[str, str]
    linked: tuple[tuple[str, str], ...] = ()

    @property
    def depends(self) -> tuple[tuple[str, str], ...]:
        """Targets of external links of the table."""
        return self.linked


class Region(NamedTuple):
    """A column of row positions that a scan replaces by rows of the target table.

    Attributes
    ----------
    name : str
        Name of the column.
    stored : DataType
        Type of the positions: Int64, in as many nested lists as the column is ragged.
    fields : dict of str to DataType
        Columns of the target table.
    origin : str
        File that determined the types of the fields.
    chosen : bool
        Whether the user chose the fields.
    """

    name: str
    stored: pl.DataType
    fields: dict[str, pl.DataType]
    origin: str
    chosen: bool = False

    @property
    def dtype(self) -> pl.DataType:
        """The type of the column in the scan."""
        return _with_leaf(self.stored, pl.Struct(self.fields))


# -- files ------------------------------------------------------------------------------------------------


def load_targets(files: Sequence[TableFile], name: str) -> list[TableFile | None]:
    """Return the target table of a region for each file.

    Parameters
    ----------
    files : sequence of TableFile
    name : str
        Name of the column.

    Returns
    -------
    list of TableFile or None
        None if the file lacks the column, or the column has no target table.

    Raises
    ------
    LazyNWBError
        If a file cannot be read.
    """
    paths = map_concurrently(_target_paths, files, (file.source for file in files))
    targets = []
    for number, (file, known) in enumerate(zip(files, paths, strict=True)):
        column = file.columns.get(name)
        if column is not None and column.data is not None and known.get(column.data.path):
            targets.append((known[column.data.path], file.owning_file(column.data)[0], number))
    found: list[TableFile | None] = [None] * len(files)
    targets.sort(key=lambda item: (item[0], item[2]))
    for path, group in groupby(targets, key=lambda item: item[0]):
        listed = list(group)
        loading = load_tables([source for _, source, _ in listed], path)
        for (_, _, number), load in zip(listed, loading, strict=True):
            table = load()
            found[number] = table if table is not None and table.table.kind == "table" else None
    return found


def _target_paths(file: TableFile) -> dict[str, str]:
    """Return the paths of the target tables of a table's regions, from the cache or from the file."""
    paths = [c.data.path for c in file.columns.values() if c.region and c.data is not None]
    if not paths:
        return {}
    key = f"regions\0{file.source.key}\0{file.table.path}\0{config.external_links}"
    entry, now = get_entry(key, file.source, TargetsEntry)
    if entry is None:
        with invalidate_on_corruption(file.source), file.reader() as reader:
            entry = TargetsEntry(key, now, reader.region_tables(paths), file.table.depends)
            file.source.verify(now)
        put_entry(entry, file.source)
    return entry.targets


# -- types ------------------------------------------------------------------------------------------------


def find_regions(  # noqa: PLR0913 - the options of a scan
    files: Sequence[TableFile],
    schema: Mapping[str, pl.DataType],
    requested: bool | str | Iterable[str],  # noqa: FBT001 - a public parameter
    chosen: Iterable[str],
    conflicts: dict[str, str],
    *,
    ignore_errors: bool,
    disable_progress: bool,
) -> tuple[Region, ...]:
    """Find the regions of a table, and the fields of their target rows.

    Parameters
    ----------
    files : sequence of TableFile
        Files with the table that were inspected for the schema.
    schema : mapping of str to DataType
        Columns of the table.
    requested : bool, str or iterable of str
        True for all regions, or names of columns.
    chosen : iterable of str
        Columns whose type in `schema` the user chose: the fields of this type are read.
    conflicts : dict of str to str
        Columns without a common type, by name, with the message, which are not resolved. Receives regions
        whose target tables have columns without a common type.
    ignore_errors : bool
        Whether to skip files that cannot be read; target columns have the type of the first file.
    disable_progress : bool
        Whether to show no progress bar.

    Raises
    ------
    SchemaError
        If a requested column is not a region.
    """
    if requested is False:
        return ()
    regions = _common_regions(files)
    named = _names(requested)
    set_by_user = set(chosen)
    found = []
    for name in regions if named is None else dict.fromkeys(named):
        if named is None and (name not in schema or name in conflicts):
            continue
        if name not in schema or name not in regions:
            available = ", ".join(regions) or "none"
            raise SchemaError(
                f"resolve_regions: {name!r} is not a DynamicTableRegion column of /{files[0].table.path} in "
                f"{_describe_files(files)}; available regions: {available}"
            )
        if name in set_by_user:
            region = _chosen_region(name, schema[name], files)
        else:
            try:
                region = _region(
                    name,
                    schema[name],
                    files,
                    ignore_errors=ignore_errors,
                    disable_progress=disable_progress,
                )
            except SchemaError as error:
                conflicts[name] = str(error)
                continue
        if region is not None:
            found.append(region)
            continue
        reason = (
            f"resolve_regions: column {name!r} of /{files[0].table.path} cannot be resolved in "
            f"{_describe_files(files)}: its target table is missing or has no supported columns, or its type "
            "is not a Struct with fields"
        )
        if named is not None:
            raise SchemaError(reason)
        _LOGGER.warning("%s; the column has row positions instead", reason)
    if named is None:
        _warn_of_unresolved(files, schema, set(regions))
    return tuple(found)


def _warn_of_unresolved(
    files: Sequence[TableFile], schema: Mapping[str, pl.DataType], resolved: Collection[str]
) -> None:
    """Log the regions that are not resolved although all regions were requested, with reasons."""
    reasons: dict[str, str] = {}
    for file in files:
        for name, column in file.columns.items():
            if name not in schema:
                continue
            if column.region and name not in resolved:
                reasons[name] = "it is a DynamicTableRegion in only some of the files"
            inner = sorted(child.name for child in column.children or () if child.region)
            if inner:
                reasons[name] = (
                    f"its regions {', '.join(map(repr, inner))} are columns of a category: scan "
                    f"/{file.table.path}/{name} with resolve_regions"
                )
    for name, reason in reasons.items():
        _LOGGER.warning(
            "resolve_regions: column %r of /%s has row positions: %s", name, files[0].table.path, reason
        )


def _names(requested: bool | str | Iterable[str]) -> list[str] | None:  # noqa: FBT001
    """Return the requested columns; None for all regions."""
    if isinstance(requested, bool):
        return None
    return [requested] if isinstance(requested, str) else list(requested)


def _describe_files(files: Sequence[TableFile]) -> str:
    return files[0].name if len(files) == 1 else f"{len(files)} files (the first is {files[0].name})"


def _common_regions(files: Iterable[TableFile]) -> list[str]:
    """Return the columns that are regions in all files with rows."""
    is_region_by_name: dict[str, bool] = {}
    for file in files:
        for name, column in file.columns.items():
            if (file.table.rows and column_dtype(column) is not None) or column.region:
                is_region_by_name[name] = is_region_by_name.get(name, True) and column.region
    return sorted(name for name, is_region in is_region_by_name.items() if is_region)


def _chosen_region(name: str, dtype: pl.DataType, files: Sequence[TableFile]) -> Region | None:
    leaf = _leaf(dtype)
    if not isinstance(leaf, pl.Struct) or not leaf.fields:
        return None
    fields = {field.name: instance(field.dtype) for field in leaf.fields}
    return Region(name, _with_leaf(dtype, pl.Int64()), fields, files[0].name, chosen=True)


def _region(
    name: str,
    dtype: pl.DataType,
    files: Sequence[TableFile],
    *,
    ignore_errors: bool,
    disable_progress: bool,
) -> Region | None:
    dtype = _as_lists(dtype)  # a region of n dimensions
    if _leaf(dtype) != pl.Int64():
        return None
    targets: list[TableFile] = []
    label = f"Looking up the target tables of {name!r} in /{files[0].table.path}"
    with Progress(label, len(files), disabled=disable_progress) as progress:
        for start in range(0, len(files), _FILES_PER_LOOKUP):
            block = files[start : start + _FILES_PER_LOOKUP]
            found = _targets_of(block, name, ignore_errors=ignore_errors)
            targets += [target for target in found if target is not None]
            progress.update(len(block))
    hidden = {
        column.name: pl.Null()
        for target in targets
        for column in target.columns.values()
        if _is_excluded(column_dtype(column))
    }
    try:
        merged = merge_schemas(targets, hidden, keep_first=ignore_errors)
    except SchemaError as error:
        example = _with_leaf(dtype, pl.Struct({"id": pl.Int64()}))
        raise SchemaError(
            f"resolve_regions: column {name!r}: {error}; or pass schema_overrides={{{name!r}: ...}} with a "
            f"type that has only the required fields, such as {example}"
        ) from None
    fields = {field: inner for field, inner in merged.items() if field not in hidden}
    return Region(name, dtype, fields, targets[0].name) if fields else None


def _targets_of(files: Sequence[TableFile], name: str, *, ignore_errors: bool) -> Sequence[TableFile | None]:
    try:
        return load_targets(files, name)
    except LazyNWBError as error:
        if not may_skip(error, ignore_errors=ignore_errors):
            raise
        if len(files) == 1:
            return []  # the read raises the error
    return [target for file in files for target in _targets_of([file], name, ignore_errors=True)]


def _is_excluded(dtype: pl.DataType | None) -> bool:
    """Return whether a column of the target table is left out: array and unreadable columns are."""
    if isinstance(dtype, pl.Struct):
        return any(_is_excluded(instance(field.dtype)) for field in dtype.fields)
    return dtype is None or isinstance(dtype, pl.List | pl.Array)


def _as_lists(dtype: pl.DataType) -> pl.DataType:
    """Return a type with List in place of Array."""
    if isinstance(dtype, pl.List):
        return pl.List(_as_lists(instance(dtype.inner)))
    if isinstance(dtype, pl.Array):
        inner: pl.DataType = instance(dtype.inner)
        return pl.List(_as_lists(inner))
    return dtype


def _leaf(dtype: pl.DataType) -> pl.DataType:
    while isinstance(dtype, pl.List):
        dtype = instance(dtype.inner)
    return dtype


def _with_leaf(dtype: pl.DataType, leaf: pl.DataType) -> pl.DataType:
    return pl.List(_with_leaf(instance(dtype.inner), leaf)) if isinstance(dtype, pl.List) else leaf
