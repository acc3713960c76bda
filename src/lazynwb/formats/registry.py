"""File formats: each folder here turns the bytes of one format into the catalog's structs."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Protocol, Self

from lazynwb.storage.file_names import is_single_file_store
from lazynwb.threads import LOADERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    import numpy as np

    from lazynwb.catalog.model import Array, Attributes, ChunkIndex, Listing, SomeChunks, Table
    from lazynwb.storage.source import Source


class Reader(Protocol):
    """An open file of any format, described in the catalog's structs.

    Attributes
    ----------
    reads_apart : bool
        Whether several threads may call `read_indirect` at the same time.
    """

    reads_apart: bool

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def describe_table(self, path: str) -> Table | None:
        """Describe the table, series or metadata at a path; None if there is none."""
        ...

    def describe_members(self, path: str) -> Table | None:
        """Describe every dataset of the group at a path, whatever it is; None if there is no such group."""
        ...

    def list_objects(self) -> Listing:
        """Describe everything that the file contains."""
        ...

    def attributes(self, path: str) -> Attributes | None:
        """Return the attributes of the object at a path and of its direct members; None if there is none."""
        ...

    def all_attributes(self, path: str) -> Attributes | None:
        """Return the attributes of the object at a path and of everything below it."""
        ...

    def chunk_indices(
        self, arrays: Sequence[Array], numbers: Sequence[np.ndarray | None] = ()
    ) -> list[ChunkIndex | SomeChunks]:
        """Look up where the chunks of arrays are.

        Parameters
        ----------
        arrays : sequence of Array
        numbers : sequence of ndarray of int64 or None
            For each array, the chunks that are wanted, in row-major order of the chunk grid, or None for all;
            nothing for all of every array. More may be found than is wanted.
        """
        ...

    def chunk_indices_here(self, arrays: Sequence[Array]) -> dict[str, ChunkIndex]:
        """Look up the chunks of those arrays for which nothing more needs to be fetched, by their paths."""
        ...

    def read_indirect(self, array: Array, ranges: np.ndarray) -> np.ndarray:
        """Read rows of an array that the engine cannot decode."""
        ...

    def region_tables(self, paths: Sequence[str]) -> dict[str, str]:
        """Find the tables that DynamicTableRegions refer to, by the regions' paths."""
        ...

    def resolve_references(self, addresses: set[int]) -> dict[int, str]:
        """Find the paths of the objects that object references name."""
        ...


def open_reader(source: Source, version: str) -> Reader:
    """Open a file by its content, not by its name.

    Parameters
    ----------
    source : Source
    version : str
        The identity that the file was found to have.

    Raises
    ------
    NotNWBError
        If it is of no known format.
    SourceNotFoundError
        If there is no such file.
    """
    if is_zarr(source):
        from lazynwb.formats.zarr.reader import ZarrReader
        from lazynwb.storage.objects.metadata_identity import opened

        return ZarrReader(opened(source, version))
    return _hdf5_reader()(source, version)


def is_zarr(source: Source) -> bool:
    """Return whether a source is a Zarr store: a folder, a prefix, or a single file that stands for one."""
    return source.is_store or is_single_file_store(source.path)


def prepare(source: Source) -> None:
    """Import what parsing needs while the first requests are under way."""
    if not is_zarr(source):
        LOADERS.submit(_hdf5_reader)


@cache
def _hdf5_reader() -> Callable[[Source, str], Reader]:
    # Late: a query on catalogued files never needs it.
    from lazynwb.formats.hdf5.reader import Hdf5Reader

    return Hdf5Reader
