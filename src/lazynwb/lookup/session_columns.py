"""Session metadata as columns of every row of a scan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from lazynwb.catalog.dtypes import NWB_PATH, RESERVED
from lazynwb.errors import BrokenTableLinkError, SchemaError, TableNotFoundError
from lazynwb.formats.nwb.names import GENERAL, SUBJECT, SUBJECT_FIELDS
from lazynwb.lookup.providers import NOT_CATALOGUED
from lazynwb.lookup.schema import SchemaInference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from lazynwb.lookup.providers import CatalogProvider
    from lazynwb.storage.source import Source


class SessionColumn(NamedTuple):
    """A column of the files' one-row metadata tables, under the name that it has in a scan.

    Attributes
    ----------
    name : str
    table : str
        "general" (which includes the root group's values) or "general/subject".
    column : str
        Name in that table.
    dtype : DataType
    """

    name: str
    table: str
    column: str
    dtype: pl.DataType


def find_session_columns(  # noqa: PLR0913 - the options of a scan
    sources: Sequence[Source],
    wanted: str | Iterable[str] | Mapping[str, str],
    taken: Iterable[str],
    first: int | None,
    *,
    ignore_errors: bool,
    disable_progress: bool,
    catalogs: CatalogProvider | None = None,
) -> tuple[SessionColumn, ...]:
    """Find metadata by name.

    Parameters
    ----------
    sources : sequence of Source
    wanted : str, iterable of str or mapping of str to str
        Names, as in `/general` and in the root group ("session_id"), or in `/general/subject` ("age",
        "subject/age"); a mapping gives each the name that it has as a column.
    taken : iterable of str
        Names of the table's own columns.
    first : int or None
        How many files to look at.
    ignore_errors, disable_progress : bool

    Raises
    ------
    SchemaError
        If there is no such metadata, or the table has a column of that name.
    """
    named = session_names(wanted)
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
        tables = _tables(path)
        table = next(
            (table for table in tables if column in schema(table) or column in conflicts[table]), None
        )
        if table is not None and column in conflicts[table]:
            raise SchemaError(conflicts[table][column])
        if table is None:
            raise SchemaError(_unknown(path, [*schema(GENERAL), *schema(SUBJECT)], sources))
        if name in occupied:
            raise SchemaError(
                f"session column {name!r}: the table has a column of that name; give it another one, as in "
                f'session_columns={{"session_{name}": {path!r}}}'
            )
        found.append(SessionColumn(name, table, column, schema(table)[column]))
    return tuple(found)


def session_names(wanted: str | Iterable[str] | Mapping[str, str] | None) -> dict[str, str]:
    """Return the requested metadata, by name of the column.

    Raises
    ------
    SchemaError
        If two would have the same name.
    TypeError
        If one is no text.
    """
    if wanted is None:
        return {}
    if isinstance(wanted, Mapping):
        pairs = list(wanted.items())
    else:
        listed = [wanted] if isinstance(wanted, str) else wanted
        pairs = [(path.rsplit("/", 1)[-1] if isinstance(path, str) else path, path) for path in listed]
    named: dict[str, str] = {}
    for name, path in pairs:
        if not isinstance(name, str) or not isinstance(path, str):
            raise TypeError(f"session_columns are names of metadata, such as 'subject_id', not {path!r}")
        if named.setdefault(name, path) != path:
            raise SchemaError(
                f"session columns {named[name]!r} and {path!r} would both be called {name!r}: give them "
                f'names, as in session_columns={{"a": {named[name]!r}, "b": {path!r}}}'
            )
    return named


def _tables(path: str) -> tuple[str, ...]:
    """Return the tables that may hold a field of metadata, in order."""
    parent, _, name = path.strip("/").rpartition("/")
    if parent:
        return (SUBJECT,) if parent in {"subject", SUBJECT} else (GENERAL,) if parent == GENERAL else ()
    return (SUBJECT, GENERAL) if name in SUBJECT_FIELDS else (GENERAL, SUBJECT)


def _unknown(path: str, names: Sequence[str], sources: Sequence[Source]) -> str:
    import difflib

    close = difflib.get_close_matches(path.rsplit("/", 1)[-1], names, n=3)
    hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
    more = f" and {len(sources) - 1} more files" if len(sources) > 1 else ""
    return (
        f"no session metadata {path!r} in {sources[0].name}{more}{hint}; there are "
        f"{', '.join(dict.fromkeys(names)) or 'none'}"
    )


def session_frame(
    sources: Sequence[Source],
    columns: Iterable[SessionColumn],
    scan: Callable[[tuple[Source, ...], str, dict[str, pl.DataType]], Iterator[pl.DataFrame]],
) -> pl.DataFrame:
    """Read metadata of files.

    Parameters
    ----------
    sources : sequence of Source
    columns : iterable of SessionColumn
    scan : callable
        Yields the rows of a table of files: the given columns, and `_nwb_path`.

    Returns
    -------
    DataFrame
        A row for each source, with `_nwb_path` and the given columns; null where a file lacks the field.
    """
    found = pl.DataFrame({NWB_PATH: pl.Series([source.path for source in sources], dtype=pl.String)})
    wanted = list(columns)
    distinct = tuple({source.path: source for source in sources}.values()) if wanted else ()
    for table in dict.fromkeys(column.table for column in wanted):
        own = [column for column in wanted if column.table == table]
        rows = pl.concat(scan(distinct, table, {column.column: column.dtype for column in own}))
        named = [pl.col(column.column).alias(column.name) for column in own]
        found = found.join(rows.select(NWB_PATH, *named), on=NWB_PATH, how="left", maintain_order="left")
    return found


def parted(
    sources: tuple[Source, ...], table: str, catalogs: CatalogProvider | None
) -> tuple[tuple[Source, ...], tuple[Source, ...]]:
    """Return the files with a catalog and those without, which alone are read."""
    if catalogs is None:
        return (), sources
    found = list(zip(sources, catalogs.schemas(sources, table), strict=True))
    return tuple(s for s, one in found if one is not NOT_CATALOGUED), tuple(
        s for s, one in found if one is NOT_CATALOGUED
    )
