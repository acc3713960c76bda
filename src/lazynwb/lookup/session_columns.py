"""Session columns: metadata of a file as columns of each of its rows in a scan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from lazynwb.catalog.dtypes import NWB_PATH, RESERVED
from lazynwb.errors import BrokenTableLinkError, SchemaError, TableNotFoundError
from lazynwb.formats.nwb.names import GENERAL, SUBJECT, SUBJECT_FIELDS
from lazynwb.lookup.providers import NOT_CATALOGUED
from lazynwb.lookup.schema import SchemaInference
from lazynwb.suggestions import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lazynwb.lookup.providers import CatalogProvider
    from lazynwb.storage.source import Source


class SessionColumn(NamedTuple):
    """A column of a one-row metadata table, and its name in a scan.

    Attributes
    ----------
    name : str
        Name in the scan.
    table : str
        "general" (which includes the values of the root group) or "general/subject".
    column : str
        Name in the metadata table.
    dtype : DataType
        Type in the scan.
    """

    name: str
    table: str
    column: str
    dtype: pl.DataType


def find_session_columns(  # noqa: PLR0913 - the options of a scan
    sources: Sequence[Source],
    requested: str | Iterable[str] | Mapping[str, str],
    taken: Iterable[str],
    first: int | None,
    *,
    ignore_errors: bool,
    disable_progress: bool,
    catalogs: CatalogProvider | None = None,
) -> tuple[SessionColumn, ...]:
    """Find session metadata by name.

    Parameters
    ----------
    sources : sequence of Source
        Files of the scan.
    requested : str, iterable of str or mapping of str to str
        Names in `/general` or in the root group ("session_id"), or in `/general/subject` ("age",
        "subject/age"); a mapping maps names of columns to these.
    taken : iterable of str
        Names of the columns of the table.
    first : int or None
        Number of files to inspect; None for all.
    ignore_errors, disable_progress : bool
        As for `scan_nwb`.

    Raises
    ------
    SchemaError
        If no file has the metadata, or the table has a column with the same name.
    """
    named = session_names(requested)
    schemas: dict[str, Mapping[str, pl.DataType]] = {}
    conflicts: dict[str, dict[str, str]] = {}

    def schema(table: str) -> Mapping[str, pl.DataType]:
        if table not in schemas:
            try:
                inference = SchemaInference(
                    first=first,
                    ignore_errors=ignore_errors,
                    disable_progress=disable_progress,
                    catalogs=catalogs,
                    conflicts=conflicts.setdefault(table, {}),
                )
                schemas[table], _ = inference.of_table(sources, table)
            except BrokenTableLinkError:
                raise
            except TableNotFoundError:
                schemas[table] = {}
        return schemas[table]

    occupied = {*taken, *RESERVED}
    found = []
    for name, path in named.items():
        column = path.rsplit("/", 1)[-1]
        tables = _candidate_tables(path)
        table = next(
            (table for table in tables if column in schema(table) or column in conflicts[table]), None
        )
        if table is not None and column in conflicts[table]:
            raise SchemaError(conflicts[table][column])
        if table is None:
            raise SchemaError(_unknown_metadata_message(path, [*schema(GENERAL), *schema(SUBJECT)], sources))
        if name in occupied:
            raise SchemaError(
                f"session column {name!r}: the table has a column with this name; choose another name, "
                f'such as session_columns={{"session_{name}": {path!r}}}'
            )
        found.append(SessionColumn(name, table, column, schema(table)[column]))
    return tuple(found)


def session_names(requested: str | Iterable[str] | Mapping[str, str] | None) -> dict[str, str]:
    """Return the requested metadata, by column name.

    Raises
    ------
    SchemaError
        If two columns have the same name.
    TypeError
        If a name is not a string.
    """
    if requested is None:
        return {}
    if isinstance(requested, Mapping):
        pairs = list(requested.items())
    else:
        listed = (
            [requested] if isinstance(requested, str) or not isinstance(requested, Iterable) else requested
        )
        pairs = [(path.rsplit("/", 1)[-1] if isinstance(path, str) else path, path) for path in listed]
    named: dict[str, str] = {}
    for name, path in pairs:
        if not isinstance(name, str) or not isinstance(path, str):
            raise TypeError(f"session_columns must be names of metadata, such as 'subject_id', not {path!r}")
        if named.setdefault(name, path) != path:
            raise SchemaError(
                f"session columns {named[name]!r} and {path!r} have the same column name {name!r}: choose "
                f'names, such as session_columns={{"a": {named[name]!r}, "b": {path!r}}}'
            )
    return named


def _candidate_tables(path: str) -> tuple[str, ...]:
    """Return the tables that may contain a metadata field, in the order of the search."""
    parent, _, name = path.strip("/").rpartition("/")
    if parent:
        return (SUBJECT,) if parent in {"subject", SUBJECT} else (GENERAL,) if parent == GENERAL else ()
    return (SUBJECT, GENERAL) if name in SUBJECT_FIELDS else (GENERAL, SUBJECT)


def _unknown_metadata_message(path: str, names: Sequence[str], sources: Sequence[Source]) -> str:
    hint = did_you_mean(path, names)
    more = f" and {len(sources) - 1} more files" if len(sources) > 1 else ""
    return (
        f"no session metadata {path!r} in {sources[0].name}{more}{hint}; available metadata: "
        f"{', '.join(dict.fromkeys(names)) or 'none'}"
    )


def session_frame(
    sources: Sequence[Source],
    columns: Iterable[SessionColumn],
    scan: Callable[[tuple[Source, ...], str, dict[str, pl.DataType]], Iterator[pl.DataFrame]],
) -> pl.DataFrame:
    """Read the session metadata of files.

    Parameters
    ----------
    sources : sequence of Source
        Files of the scan.
    columns : iterable of SessionColumn
        Columns to read.
    scan : callable
        Generator of the rows of a table of files, with the given columns and `_nwb_path`.

    Returns
    -------
    DataFrame
        One row per source, with `_nwb_path` and the given columns; null where a file lacks the field.
    """
    found = pl.DataFrame({NWB_PATH: pl.Series([source.path for source in sources], dtype=pl.String)})
    selected = list(columns)
    distinct = tuple({source.path: source for source in sources}.values()) if selected else ()
    for table in dict.fromkeys(column.table for column in selected):
        own = [column for column in selected if column.table == table]
        rows = pl.concat(scan(distinct, table, {column.column: column.dtype for column in own}))
        named = [pl.col(column.column).alias(column.name) for column in own]
        found = found.join(rows.select(NWB_PATH, *named), on=NWB_PATH, how="left", maintain_order="left")
    return found


def split_by_catalog(
    sources: tuple[Source, ...], table: str, catalogs: CatalogProvider | None
) -> tuple[tuple[Source, ...], tuple[Source, ...]]:
    """Split files into those with a catalog and those without, which must be read."""
    if catalogs is None:
        return (), sources
    found = list(zip(sources, catalogs.schemas(sources, table), strict=True))
    return tuple(s for s, one in found if one is not NOT_CATALOGUED), tuple(
        s for s, one in found if one is NOT_CATALOGUED
    )
