"""From a table's name to its schema over many files."""

from __future__ import annotations

import difflib
import logging
from typing import TYPE_CHECKING

from lazynwb.catalog.merge import merge_schemas
from lazynwb.errors import LazyNWBError, TableNotFoundError
from lazynwb.lookup.load import TableFile, load_listing, load_table
from lazynwb.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars as pl

_LOGGER = logging.getLogger("lazynwb")

#: Short names of tables that the NWB schema puts at a fixed path.
TABLE_SHORTCUTS = {
    "trials": "intervals/trials",
    "epochs": "intervals/epochs",
    "invalid_times": "intervals/invalid_times",
    "electrodes": "general/extracellular_ephys/electrodes",
    "session": "general",
    "subject": "general/subject",
}
#: Tables that an error lists.
_LISTED = 20


def normalize_table_path(table_path: str) -> str:
    """Return a table's path without leading slash, shortcuts spelled out.

    Raises
    ------
    TypeError
        If it is not text.
    """
    if not isinstance(table_path, str):
        message = f"table_path is the path of a table inside the file, such as '/units', not {table_path!r}"
        raise TypeError(message)
    path = "/".join(part for part in table_path.split("/") if part)
    return TABLE_SHORTCUTS.get(path, path)


def collect_schema(  # noqa: PLR0913 - the options of a scan
    paths: Sequence[str],
    table: str,
    first: int | None,
    *,
    raise_on_missing: bool,
    ignore_errors: bool,
    disable_progress: bool,
    overrides: Mapping[str, pl.DataType],
) -> tuple[dict[str, pl.DataType], TableFile]:
    """Return the schema over the first n files that have the table, and the first of these files.

    Raises
    ------
    TableNotFoundError
        If no file has the table.
    SchemaError
        If types have no common one and no override.
    """
    found: list[TableFile] = []
    failures: list[str] = []
    with Progress(f"Inferring the schema of /{table}", len(paths), disabled=disable_progress) as progress:
        for path in paths:
            if first is not None and len(found) >= max(first, 1):
                break
            try:
                file = load_table(path, table)
            except LazyNWBError as error:
                if not ignore_errors:
                    raise
                failures.append(str(error))
                continue
            finally:
                progress.update()
            if file is not None:
                found.append(file)
            elif raise_on_missing:
                raise TableNotFoundError(_not_found(table, [path]))
    if not found:
        message = _not_found(table, paths)
        if failures:
            message += f"; {len(failures)} files could not be read: {failures[0]}"
        raise TableNotFoundError(message)
    schema = merge_schemas(found, overrides)
    return schema, found[0]


def _not_found(table: str, paths: Sequence[str]) -> str:
    existing: list[str] = []
    for path in paths:
        try:
            existing = load_listing(path).tables()
        except LazyNWBError:
            continue
        if existing:
            break
    close = difflib.get_close_matches(table, existing, n=3, cutoff=0.5)
    last = {name.rsplit("/", 1)[-1]: name for name in existing}
    close += [
        last[name]
        for name in difflib.get_close_matches(table.rsplit("/", 1)[-1], last, n=3)
        if last[name] not in close
    ]
    where = paths[0] if len(paths) == 1 else f"any of {len(paths)} files (the first is {paths[0]})"
    hint = f"; did you mean {' or '.join('/' + name for name in close[:3])}?" if close else ""
    shown = ", ".join("/" + name for name in existing[:_LISTED]) + (
        ", ..." if len(existing) > _LISTED else ""
    )
    return f"no table /{table} in {where}{hint}; tables there: {shown or 'none'}"
