"""Tables of a file as read by pynwb: plain Python values by row, under the names of lazynwb."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from hdmf.common import AlignedDynamicTable, DynamicTable, DynamicTableRegion, VectorIndex
from hdmf.container import AbstractContainer
from pynwb import NWBHDF5IO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pynwb import NWBFile


class Session:
    """An open file.

    Attributes
    ----------
    nwb : NWBFile
    tables : dict of str to DynamicTable
        By their paths.
    """

    def __init__(self, io: NWBHDF5IO) -> None:
        self._io = io
        self.nwb: NWBFile = io.read()
        self.tables = {self.path(o): o for o in self.nwb.objects.values() if isinstance(o, DynamicTable)}

    def path(self, container: AbstractContainer) -> str:
        """Return the path of an object from the root."""
        return self._io.manager.get_builder(container).path.removeprefix("root")

    def columns(self, table: DynamicTable) -> dict[str, list[Any]]:
        """The columns of a table in alphabetical order; a category is a column of dictionaries."""
        found = {"id": [self.plain(value) for value in table.id[:]]}
        found |= {name: self.rows(table, name) for name in table.colnames}
        if isinstance(table, AlignedDynamicTable):
            for name, category in table.category_tables.items():
                part = self.columns(category)
                found[name] = [dict(zip(part, row, strict=True)) for row in zip(*part.values(), strict=True)]
        return dict(sorted(found.items()))

    def rows(self, table: DynamicTable, name: str) -> list[Any]:
        """One column; of a region the positions."""
        column = table[name]
        options = {"index": True} if isinstance(_innermost(column), DynamicTableRegion) else {}
        return [self.plain(column.get(row, **options)) for row in range(len(table))]

    def plain(self, value: Any) -> Any:
        """Containers are their paths, compounds dictionaries, arrays lists."""
        if isinstance(value, AbstractContainer):
            return self.path(value)
        if hasattr(value, "_asdict"):  # TimeSeriesReference
            return {name: self.plain(part) for name, part in value._asdict().items()}
        if isinstance(value, bytes):
            return value.decode()
        if isinstance(value, np.void):
            return {name: self.plain(value[name]) for name in value.dtype.names}
        if isinstance(value, np.ndarray) and value.dtype.names is None and value.dtype != object:
            return value.tolist()
        if isinstance(value, list | np.ndarray):
            return [self.plain(item) for item in value]
        return value.item() if isinstance(value, np.generic) else value


def _innermost(column: Any) -> Any:
    while isinstance(column, VectorIndex):
        column = column.target
    return column


@contextmanager
def reading(path: Path, **options: Any) -> Iterator[Session]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with NWBHDF5IO(path, "r", **options) as io:
            yield Session(io)
