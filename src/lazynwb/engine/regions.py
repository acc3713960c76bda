"""Resolution of regions: row positions are replaced by the rows of the target tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import polars as pl

from lazynwb.arrays.arrow import as_lists, offsets_of
from lazynwb.arrays.row_selection import Part
from lazynwb.catalog.merge import with_nulls_of
from lazynwb.engine.columns import read_columns
from lazynwb.errors import SchemaError
from lazynwb.lookup.regions import load_targets

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lazynwb.arrays.row_selection import Handles
    from lazynwb.lookup.loader import TableFile
    from lazynwb.lookup.regions import Region
    from lazynwb.storage.source import Source

    #: Function that reads columns of rows; see `read_columns`.
    Read: TypeAlias = Callable[
        [Handles, list[Part], dict[str, pl.DataType], frozenset[str], str], list[pl.Series]
    ]


class Regions:
    """The regions of one query, with the rows of the target tables of the current files.

    Parameters
    ----------
    regions : sequence of Region
    note : callable
        Function that records problems of a table of a file.
    """

    def __init__(self, regions: Sequence[Region], note: Callable[[TableFile, tuple[str, ...]], None]) -> None:
        self._regions = {region.name: region for region in regions}
        self._note = note
        self._noted: set[tuple[tuple[Source, str], str]] = set()
        self._rows: dict[str, dict[tuple[Source, str], pl.Series | None]] = {}

    @property
    def names(self) -> frozenset[str]:
        """The names of the resolved columns."""
        return frozenset(self._regions)

    def stored(self, schema: dict[str, pl.DataType]) -> dict[str, pl.DataType]:
        """Return the types in which columns are read: regions are read as row positions."""
        return {
            name: self._regions[name].stored if name in self._regions else dtype
            for name, dtype in schema.items()
        }

    def resolved(
        self, handles: Handles, parts: list[Part], series: pl.Series, read: Read = read_columns
    ) -> pl.Series:
        """Return a column of the result: for a region, the rows of the target table.

        Positions outside the target table (in damaged files) and positions without a target table become
        null.

        Parameters
        ----------
        handles : Handles
        parts : list of Part
            Rows of the column.
        series : Series
            Column as read from the files.
        read : callable
            Function that reads the columns of the target table.

        Raises
        ------
        SchemaError
            If the column is not a region in one of the files.
        LazyNWBError
            If a table cannot be read.
        """
        region = self._regions.get(series.name)
        if region is None:
            return series
        parts = [part for part in parts if part.rows]
        known = self._read(handles, region, list({part.file.key: part.file for part in parts}.values()), read)
        tables = [known[part.file.key] for part in parts]
        flat, levels, owners = _flatten_positions(
            series, np.repeat(np.arange(len(parts)), [p.rows for p in parts])
        )
        sizes = np.array([len(table) if table is not None else 0 for table in tables], np.int64)
        positions = flat.fill_null(-1).to_numpy()
        within = (positions >= 0) & (positions < sizes[owners])
        for number in np.unique(owners[~within & flat.is_not_null().to_numpy()]).tolist():
            self._note_once(parts[number].file, region.name, tables[number])
        empty = pl.Series(region.name, [], dtype=pl.Struct(region.fields))
        rows = pl.concat([empty, *(table for table in tables if table is not None)])
        starts = np.cumsum(sizes) - sizes
        places = pl.DataFrame({"row": np.where(within, positions + starts[owners], 0), "within": within})
        found = rows.gather(places.select(pl.when("within").then("row")).to_series())
        if not levels:
            return found
        folded = as_lists(found, (), levels).alias(region.name)
        return with_nulls_of(series, folded)

    def _read(
        self, handles: Handles, region: Region, files: list[TableFile], read: Read
    ) -> dict[tuple[Source, str], pl.Series | None]:
        """Return the rows of the target table of each table; None without a target table."""
        for file in files:
            column = file.columns.get(region.name)
            if column is not None and not column.region:
                raise SchemaError(
                    f"{file.name}: /{file.table.path}: column {region.name!r} is not a DynamicTableRegion in "
                    "this file: leave it out of resolve_regions"
                )
        before = self._rows.get(region.name, {})
        new = [file for file in files if file.key not in before]
        found = dict(zip((file.key for file in new), load_targets(new, region.name), strict=True))
        targets = {key: target for key, target in found.items() if target is not None}
        columns = read(
            handles,
            [Part.of_range(target, 0, target.table.rows) for target in targets.values()],
            region.fields,
            frozenset(region.fields if region.chosen else ()),
            region.origin,
        )
        rows = pl.DataFrame(columns).to_struct(region.name)
        now: dict[tuple[Source, str], pl.Series | None] = {
            file.key: before[file.key] for file in files if file.key in before
        }
        now |= dict.fromkeys(found)
        at = 0
        for key, target in targets.items():
            now[key] = rows[at : at + target.table.rows]
            at += target.table.rows
        self._rows[region.name] = now  # rows of previous files are not needed again
        return now

    def _note_once(self, file: TableFile, name: str, rows: pl.Series | None) -> None:
        if (file.key, name) in self._noted:
            return
        self._noted.add((file.key, name))
        problem = (
            f"column {name!r} is null, because its target table is missing or cannot be read"
            if rows is None
            else f"column {name!r} has positions outside its target table of {len(rows)} rows: these are null"
        )
        self._note(file, (problem,))


def _flatten_positions(
    series: pl.Series, owners: np.ndarray
) -> tuple[pl.Series, list[np.ndarray], np.ndarray]:
    """Flatten nested lists of positions.

    Returns
    -------
    Series
        The flat positions.
    list of ndarray
        Arrow offsets of each level of lists, the outermost first.
    ndarray
        Number of the part of each position.
    """
    levels = []
    while isinstance(series.dtype, pl.List):
        lengths = series.list.len().fill_null(0)
        counts = lengths.to_numpy().astype(np.int64)
        levels.append(offsets_of(counts))
        owners = np.repeat(owners, counts)
        series = series.filter(lengths > 0).explode()
    return series, levels, owners
