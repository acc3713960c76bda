"""What a scan is: the value that is planned once and run any number of times."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from lazynwb.catalog.provenance import INTERNAL, NWB_PATH, ROWS

if TYPE_CHECKING:
    from lazynwb.lookup.given import Catalogs
    from lazynwb.lookup.regions import Region
    from lazynwb.lookup.sessions import SessionColumn
    from lazynwb.sources.source import Source
    from lazynwb.spread.workers import Workers


class Spec(NamedTuple):
    """A scan, as plain values: what `scan_nwb` was called with, and the schema that it published.

    Attributes
    ----------
    sources : tuple of Source
    table : str
        Without the leading slash.
    schema : dict of str to DataType
        The file's columns, without the three that say where a row is from.
    origin : str
        The file that the schema was first taken from.
    overridden : frozenset of str
        Columns whose type the user chose.
    raise_on_missing, ignore_errors, disable_progress : bool
    session : tuple of SessionColumn
        Metadata of the files that are columns too.
    optional : bool
        A file without the table is nothing to speak of.
    regions : tuple of Region
        Columns that show the rows of other tables in the place of their positions.
    catalogs : Catalogs or None
        What is known of the files without looking at them.
    workers : Workers or None
        Who reads the files.
    """

    sources: tuple[Source, ...]
    table: str
    schema: dict[str, pl.DataType]
    origin: str
    overridden: frozenset[str] = frozenset()
    raise_on_missing: bool = False
    ignore_errors: bool = False
    disable_progress: bool = False
    session: tuple[SessionColumn, ...] = ()
    optional: bool = False
    regions: tuple[Region, ...] = ()
    catalogs: Catalogs | None = None
    workers: Workers | None = None

    @property
    def per_file(self) -> frozenset[str]:
        """Columns whose value is the same in all rows of a file."""
        return frozenset({NWB_PATH, *(column.name for column in self.session)})

    @property
    def all_columns(self) -> dict[str, pl.DataType]:
        """Every column that the scan has, in order, the one that users never see first."""
        session = {column.name: column.dtype for column in self.session}
        return {ROWS: pl.Null(), **self.schema, **session, **INTERNAL}
