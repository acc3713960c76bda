"""Provenance of rows: tables and row numbers of the rows of a frame, and schemas of their late columns."""

from __future__ import annotations

import logging
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from lazynwb.catalog.dtypes import INTERNAL, NWB_PATH, TABLE_INDEX, TABLE_PATH
from lazynwb.catalog.merge import merge_schemas
from lazynwb.errors import ColumnNotFoundError, LazyNWBError, TableNotFoundError
from lazynwb.lookup.prefetch import load_tables
from lazynwb.lookup.schema import table_not_found_message
from lazynwb.progress import Progress
from lazynwb.storage.resolve import reopen
from lazynwb.suggestions import did_you_mean, join_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lazynwb.lookup.loader import TableFile

_LOGGER = logging.getLogger("lazynwb")

#: Table number of a row without provenance.
NO_TABLE = -1


class LateOptions(NamedTuple):
    """Options of the late materialization of columns.

    Attributes
    ----------
    missing_ok : bool
        Whether a file may lack a column, which is then null in its rows.
    all_missing_ok : bool
        Whether all files may lack a column, which is then left out.
    overrides : dict of str to DataType
        Types that the user chose.
    storage_options : mapping or None
    disable_progress : bool
    """

    missing_ok: bool = True
    all_missing_ok: bool = False
    overrides: Mapping[str, pl.DataType] = MappingProxyType({})
    storage_options: Mapping[str, Any] | None = None
    disable_progress: bool = False


class Origins(NamedTuple):
    """The table and row number of each row of a frame.

    Attributes
    ----------
    files : list of TableFile
        Distinct tables.
    owners, rows : ndarray of int64
        For each row of the frame, the position of its table in `files`, and the row number in the table; the
        position is `NO_TABLE` if any of the three provenance columns is null.
    """

    files: list[TableFile]
    owners: np.ndarray
    rows: np.ndarray

    def take(self, selection: np.ndarray | slice) -> Origins:
        """Return the origins of some of the rows."""
        return Origins(self.files, self.owners[selection], self.rows[selection])


def provenance_columns(present: Iterable[str], suffix: str) -> dict[str, str]:
    """Return the names of the three provenance columns in a frame.

    Parameters
    ----------
    present : iterable of str
        Columns of the frame.
    suffix : str
        Suffix of the columns on the right side of a join; a column without it belongs to the left side.

    Raises
    ------
    ColumnNotFoundError
        If one of the columns is missing.
    """
    present = set(present)
    found = {name: name + suffix if name + suffix in present else name for name in INTERNAL}
    lacking = [name for name, own in found.items() if own not in present]
    if lacking or (suffix and all(name == own for name, own in found.items())):
        raise ColumnNotFoundError(
            f"the frame has no column {lacking[0] if lacking else TABLE_INDEX + suffix}: keep {NWB_PATH}, "
            f"{TABLE_PATH} and {TABLE_INDEX} in select, join and group_by, because they identify the rows in "
            "their files"
        )
    return found


def find_origins(provenance: pl.DataFrame, options: LateOptions) -> Origins:
    """Find the tables of rows.

    Parameters
    ----------
    provenance : DataFrame
        Frame with the columns `_nwb_path`, `_table_path` and `_table_index`.
    options : LateOptions

    Raises
    ------
    TableNotFoundError
        If a file lacks the table.
    LazyNWBError
        If a file cannot be read.
    """
    index = pl.col(TABLE_INDEX)
    if provenance.schema[TABLE_INDEX].is_float():
        # pandas stores integers with missing values as floats.
        index = index.fill_nan(None)
        if not provenance.select((index == index.floor()).all()).item():
            raise LazyNWBError(f"column {TABLE_INDEX} must have integer row numbers, but has fractions")
    rows = provenance.select(
        pl.col(NWB_PATH).cast(pl.String), pl.col(TABLE_PATH).cast(pl.String), index.cast(pl.Int64)
    )
    tables = distinct_tables(rows)
    files = load_distinct(tables, options)
    numbered = tables.with_columns(pl.Series("owner", np.arange(len(tables)), dtype=pl.Int64))
    joined = rows.join(numbered, on=[NWB_PATH, TABLE_PATH], how="left", maintain_order="left")
    owners = pl.when(pl.col(TABLE_INDEX).is_not_null()).then(pl.col("owner")).fill_null(NO_TABLE)
    return Origins(
        files,
        joined.select(owners).to_series().to_numpy(),
        joined[TABLE_INDEX].fill_null(0).to_numpy(),
    )


def distinct_tables(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the distinct pairs of file and table, in the order of their first rows."""
    return rows.select(NWB_PATH, TABLE_PATH).drop_nulls().unique(maintain_order=True)


def load_distinct(tables: pl.DataFrame, options: LateOptions) -> list[TableFile]:
    """Return the tables of distinct paths, in their order."""
    files: list[TableFile | None] = [None] * len(tables)
    paths = [path.strip("/") or "/" for path in tables[TABLE_PATH].to_list()]
    sources = [reopen(path, options.storage_options) for path in tables[NWB_PATH].to_list()]
    with Progress("Looking up NWB tables", len(tables), disabled=options.disable_progress) as progress:
        for path in dict.fromkeys(paths):
            numbers = [number for number, own in enumerate(paths) if own == path]
            loads = load_tables((sources[number] for number in numbers), path)
            for number, load in zip(numbers, loads, strict=True):
                file = load()
                if file is None:
                    raise TableNotFoundError(table_not_found_message(path, [sources[number]]))
                files[number] = file
                progress.update()
    return [file for file in files if file is not None]


def late_schema(files: Sequence[TableFile], names: list[str], options: LateOptions) -> dict[str, pl.DataType]:
    """Return the types of columns over all files.

    Raises
    ------
    ColumnNotFoundError
        If files lack a required column.
    SchemaError
        If the types of a column in two files have no common type.
    """
    broken: dict[str, str] = {}
    merged = merge_schemas(files, options.overrides, names, broken=broken)
    schema = {}
    for name in names:
        if files and name not in merged:
            reason = broken.get(name) or _missing_column_message(name, files, len(files))
            if not options.all_missing_ok:
                raise ColumnNotFoundError(reason)
            _LOGGER.warning("%s; the column was left out", reason)
            continue
        # Without rows there is no file that determines the type.
        schema[name] = merged.get(name, options.overrides.get(name, pl.Null()))
    check_present(files, schema, options)
    return schema


def check_present(files: Sequence[TableFile], names: Iterable[str], options: LateOptions) -> None:
    """Raise ColumnNotFoundError if a file lacks a column that is required in all files."""
    for name in [] if options.missing_ok else names:
        lacking = [file for file in files if name not in file.columns]
        if lacking:
            raise ColumnNotFoundError(_missing_column_message(name, lacking, len(files)))


def _missing_column_message(name: str, lacking: Sequence[TableFile], count: int) -> str:
    file = lacking[0]
    hint = did_you_mean(name, file.columns)
    more = f" and {count - 1} more" if len(lacking) == count > 1 else ""
    return (
        f"no column {name!r} in /{file.table.path} of {file.name}{more}{hint}; "
        f"available columns: {join_names(file.columns)}"
    )
