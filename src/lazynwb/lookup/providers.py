"""The protocol of catalog providers: catalogs made earlier, by an index or by another process."""

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
    """The provider has no catalog of a file's table, and does not know that the file lacks the table."""

    NOT_CATALOGUED = "unknown"


NOT_CATALOGUED = NotCatalogued.NOT_CATALOGUED


class CatalogProvider(Protocol):
    """Catalogs that exist before a scan begins: in an index, or shipped with a task.

    Files without one are looked up in the disk cache, or parsed (`lazynwb.lookup.loader`). A catalog is taken
    as valid until its file is read; then the file's identity is compared with the catalog's.
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
            One for each source; None where the file has no such table.
        """
        ...

    def row_counts(self, sources: Sequence[Source], table: str) -> Sequence[TableFile | NotCatalogued | None]:
        """Return what `tables` returns, where only the number of rows is needed: columns may be left out."""
        return self.tables(sources, table)

    def metadata(
        self, sources: Sequence[Source], table: str, schema: Mapping[str, pl.DataType]
    ) -> pl.DataFrame | None:
        """Return values of session metadata.

        Parameters
        ----------
        sources : sequence of Source
            Files of the scan, each once.
        table : str
            "general" or "general/subject".
        schema : mapping of str to DataType
            Columns and the types in which they are wanted.

        Returns
        -------
        DataFrame or None
            The columns and `_nwb_path`, one row for each file that has the table; None unless the values of
            all files are known.
        """
        del sources, table, schema
        return None

    def schemas(self, sources: Sequence[Source], table: str) -> Sequence[Hashable | NotCatalogued | None]:
        """Return a key for each source that is equal where the columns of a table have equal types.

        Parameters
        ----------
        sources : sequence of Source
            Files of the scan.
        table : str
            Path without the leading slash.

        Returns
        -------
        sequence of Hashable, None or NOT_CATALOGUED
            None where the file has no such table.
        """
        del table
        return [NOT_CATALOGUED] * len(sources)

    def stored_values(
        self, table: str, schema: Mapping[str, pl.DataType], overridden: frozenset[str]
    ) -> StoredValues | None:
        """Return small columns that are kept with the catalogs; None if there are none of the table.

        Parameters
        ----------
        table : str
            Path without the leading slash.
        schema : mapping of str to DataType
            The columns of the scan.
        overridden : frozenset of str
            Those whose types the user chose.
        """
        del table, schema, overridden
        return None

    def table_paths(self) -> list[str]:
        """Return the paths of the tables that any file has, as far as they are known."""
        return []

    def sources_by_table(
        self, sources: Sequence[Source], *, series: bool
    ) -> tuple[dict[str, list[Source]], Sequence[Source]]:
        """Return the files that have each table, by its path, and the files whose tables are not known.

        Parameters
        ----------
        sources : sequence of Source
            Files of the scan.
        series : bool
            Include TimeSeries.
        """
        del series
        return {}, sources
