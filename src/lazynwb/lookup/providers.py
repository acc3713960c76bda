"""The protocol of catalog providers: catalogs from an index or from another process."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    import polars as pl

    from lazynwb.lookup.loader import TableFile
    from lazynwb.lookup.stored_tables import StoredValues
    from lazynwb.storage.source import Source


class NotCatalogued(Enum):
    """Marker of a table without a catalog: the provider has no information on whether the file has it."""

    NOT_CATALOGUED = "unknown"


NOT_CATALOGUED = NotCatalogued.NOT_CATALOGUED


class CatalogProvider(Protocol):
    """Catalogs that exist before a scan starts: in an index, or shipped with a task.

    Catalogs of other files are loaded from the disk cache or parsed (`lazynwb.lookup.loader`). A catalog is
    assumed to be valid until its file is read; then the identity of the file is verified.
    """

    def tables(self, sources: Sequence[Source], table: str) -> Sequence[TableFile | NotCatalogued | None]:
        """Return the catalogs of one table.

        Parameters
        ----------
        sources : sequence of Source
            Files of the scan.
        table : str
            Path without the leading slash.

        Returns
        -------
        sequence of TableFile, None or NOT_CATALOGUED
            One for each source; None if the file lacks the table.
        """
        ...

    def row_counts(self, sources: Sequence[Source], table: str) -> Sequence[TableFile | NotCatalogued | None]:
        """Return the catalogs for counting rows, which may lack columns; otherwise like `tables`."""
        return self.tables(sources, table)

    def metadata(
        self, sources: Sequence[Source], table: str, schema: Mapping[str, pl.DataType]
    ) -> pl.DataFrame | None:
        """Return session metadata.

        Parameters
        ----------
        sources : sequence of Source
            Files of the scan, each once.
        table : str
            "general" or "general/subject".
        schema : mapping of str to DataType
            Required columns and types.

        Returns
        -------
        DataFrame or None
            The columns and `_nwb_path`, with one row per file that has the table; None unless the values of
            all files are known.
        """
        del sources, table, schema
        return None

    def schemas(self, sources: Sequence[Source], table: str) -> Sequence[Hashable | NotCatalogued | None]:
        """Return a key for each source; keys are equal if the columns of a table have equal names and types.

        Parameters
        ----------
        sources : sequence of Source
            Files of the scan.
        table : str
            Path without the leading slash.

        Returns
        -------
        sequence of Hashable, None or NOT_CATALOGUED
            None if the file lacks the table.
        """
        del table
        return [NOT_CATALOGUED] * len(sources)

    def stored_values(
        self, table: str, schema: Mapping[str, pl.DataType], overridden: frozenset[str]
    ) -> StoredValues | None:
        """Return the small columns of a table that are stored with the catalogs; None if there are none.

        Parameters
        ----------
        table : str
            Path without the leading slash.
        schema : mapping of str to DataType
            The columns of the scan.
        overridden : frozenset of str
            Columns whose types the user chose.
        """
        del table, schema, overridden
        return None

    def table_paths(self) -> list[str]:
        """Return the known paths of tables in any file."""
        return []

    def sources_by_table(
        self, sources: Sequence[Source], *, series: bool
    ) -> tuple[dict[str, list[Source]], Sequence[Source]]:
        """Return the files with each table, by its path, and the files whose tables are not known.

        Parameters
        ----------
        sources : sequence of Source
            Files of the scan.
        series : bool
            Whether to include TimeSeries.
        """
        del series
        return {}, sources
