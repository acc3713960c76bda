"""Length columns: the number of elements in each row of a list column, without reading the elements.

Within a scan, the name of a length column is that of the list column with the suffix `/len`, which no stored
column has: names of objects in files contain no slash. Users see `<name>_len`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import polars as pl

from lazynwb.errors import ColumnNotFoundError, LazyNWBError, SchemaError
from lazynwb.suggestions import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lazynwb.catalog.model import Column

#: Type of length columns, which is that of `list.len()`.
LENGTH = pl.UInt32()
_SUFFIX = "/len"
_SHOWN_SUFFIX = "_len"


def length_name(name: str) -> str:
    """Return the name of the length column of a column."""
    return name + _SUFFIX


def measured_name(name: str) -> str | None:
    """Return the list column of a length column; None if the name is not that of a length column."""
    return name.removesuffix(_SUFFIX) if name.endswith(_SUFFIX) else None


def stored_name(name: str) -> str:
    """Return the name of the stored column of a scan's column."""
    measured = measured_name(name)
    return name if measured is None else measured


def shown_name(name: str) -> str:
    """Return the public name of a scan's column."""
    measured = measured_name(name)
    return name if measured is None else measured + _SHOWN_SUFFIX


def with_length_columns(
    schema: Mapping[str, pl.DataType],
    requested: bool | str | Iterable[str],  # noqa: FBT001 - the public option
    table: str,
    *,
    is_lenient: bool = False,
) -> dict[str, pl.DataType]:
    """Return the schema of a scan with each length column after its list column.

    Parameters
    ----------
    schema : mapping of str to DataType
        Columns of the table.
    requested : bool, str or iterable of str
        True for all list columns, or the names of some.
    table : str
        Path of the table in messages, without the leading slash.
    is_lenient : bool
        Whether to leave out length columns that the table cannot have, instead of raising.

    Raises
    ------
    ColumnNotFoundError
        If the table has no column of a given name.
    SchemaError
        If a given column is not a list column, or the name of a length column is taken.
    """
    if isinstance(requested, bool):
        names = {name for name, dtype in schema.items() if requested and isinstance(dtype, pl.List)}
    else:
        names = {requested} if isinstance(requested, str) else set(requested)
    for name in sorted(names):
        dtype = schema.get(name)
        shown = shown_name(length_name(name))
        if dtype is None:
            problem: LazyNWBError = ColumnNotFoundError(
                f"length_columns: /{table} has no column {name!r}{did_you_mean(name, list(schema))}"
            )
        elif not isinstance(dtype, pl.List):
            problem = SchemaError(
                f"length_columns: {name!r} of /{table} is {dtype}: only list columns have length columns"
            )
        elif shown in schema:
            problem = SchemaError(
                f"length_columns: /{table} has a column {shown!r} already: leave out {name!r}, and use "
                f"pl.col({name!r}).list.len() instead"
            )
        else:
            continue
        if not is_lenient:
            raise problem
        names.remove(name)
    columns: dict[str, pl.DataType] = {}
    for name, dtype in schema.items():
        columns[name] = dtype
        if name in names:
            columns[length_name(name)] = LENGTH
    return columns


def find_column(columns: Mapping[str, Column], name: str) -> Column | None:
    """Return a column or a length column by its name in a scan; None if the file lacks it."""
    measured = measured_name(name)
    if measured is None:
        return columns.get(name)
    column = columns.get(measured)
    return None if column is None else msgspec.structs.replace(column, name=name, lengths=True)
