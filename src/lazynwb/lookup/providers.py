"""Catalogs that were made before, by an index or by another process, and are handed over."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    import polars as pl

    from lazynwb.lookup.loader import TableFile
    from lazynwb.storage.source import Source


class NotCatalogued(Enum):
    """Says that nothing is known of a file's table: neither its catalog nor that there is no such table."""

    NOT_CATALOGUED = "unknown"


NOT_CATALOGUED = NotCatalogued.NOT_CATALOGUED


class CatalogProvider(Protocol):
    """What is known of files without looking at them.

    It is believed until a file is read: whoever reads compares the file's identity with the catalog's.
    """

    def tables(self, sources: Sequence[Source], table: str) -> Sequence[TableFile | NotCatalogued | None]:
        """Return the catalogs of one table.

        Parameters
        ----------
        sources : sequence of Source
        table : str
            Without the leading slash.

        Returns
        -------
        sequence of TableFile, None or UNKNOWN
            One for each source; None where the file has no such table.
        """
        ...

    def metadata(
        self, sources: Sequence[Source], table: str, schema: Mapping[str, pl.DataType]
    ) -> pl.DataFrame | None:
        """Return values of the sessions' metadata.

        Parameters
        ----------
        sources : sequence of Source
            Each of them once.
        table : str
            "general" or "general/subject".
        schema : mapping of str to DataType
            The columns that are wanted, in the types that are wanted.

        Returns
        -------
        DataFrame or None
            The columns, and `_nwb_path`, a row for each file that has the table; None unless that is known
            of every one of the files.
        """
        ...


@runtime_checkable
class BulkCatalogProvider(CatalogProvider, Protocol):
    """Catalogs that can say which files' tables are alike without showing them: of very many files."""

    def schemas(self, sources: Sequence[Source], table: str) -> Sequence[Hashable | NotCatalogued | None]:
        """Return something for each source that is the same where a table's columns are of the same types.

        Parameters
        ----------
        sources : sequence of Source
        table : str
            Without the leading slash.

        Returns
        -------
        sequence of Hashable, None or UNKNOWN
            None where the file has no such table.
        """
        ...

    def counted(self, sources: Sequence[Source], table: str) -> Sequence[TableFile | NotCatalogued | None]:
        """Return the same as `tables`; for the sake of the number of rows, so columns may be left out."""
        ...

    def listed(self) -> list[str]:
        """Return the paths of the tables that there are in the files."""
        ...

    def holders(
        self, sources: Sequence[Source], *, series: bool
    ) -> tuple[dict[str, list[Source]], Sequence[Source]]:
        """Return the files that have each table, by its path, and those of which nothing is known.

        Parameters
        ----------
        sources : sequence of Source
        series : bool
            TimeSeries as well.
        """
        ...
