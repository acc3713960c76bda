"""The protocol of readers of file formats, and the function that opens a file of any format."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Protocol, Self

from lazynwb.storage.file_names import is_single_file_store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    import numpy as np

    from lazynwb.catalog.model import Array, Attributes, ChunkIndex, Listing, PartialChunkIndex, Table
    from lazynwb.storage.source import Source


class Reader(Protocol):
    """An open file of any format, whose contents are described by the structs of the catalog.

    Attributes
    ----------
    is_thread_safe : bool
        Whether several threads may call `read_indirect` at the same time.
    """

    is_thread_safe: bool

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def describe_table(self, path: str) -> Table | None:
        """Return the catalog of the table, series or metadata at a path; None if there is none."""
        ...

    def describe_members(self, path: str) -> Table | None:
        """Return the catalog of all datasets of the group at a path; None if the group does not exist."""
        ...

    def list_objects(self) -> Listing:
        """Return a listing of all objects of the file."""
        ...

    def attributes(self, path: str) -> Attributes | None:
        """Return the attributes of an object and of its direct members; None if it does not exist."""
        ...

    def all_attributes(self, path: str) -> Attributes | None:
        """Return the attributes of the object at a path and of everything below it."""
        ...

    def chunk_indices(
        self,
        arrays: Sequence[Array],
        numbers: Sequence[np.ndarray | None] = (),
        data: Sequence[tuple[int, int]] = (),
    ) -> list[ChunkIndex | PartialChunkIndex]:
        """Look up the locations of chunks.

        Parameters
        ----------
        arrays : sequence of Array
            Catalogs of the arrays.
        numbers : sequence of ndarray of int64 or None
            Chunks to look up for each array, in row-major order of the chunk grid, or None for all; omitted
            for all chunks of every array. The result may include other chunks.
        data : sequence of (int, int)
            Half-open ranges of bytes of the file that are read next. If the look-up makes requests, they may
            be fetched concurrently.
        """
        ...

    def chunk_indices_here(self, arrays: Sequence[Array]) -> dict[str, ChunkIndex]:
        """Return the chunk indices, by path, of the arrays that need no further requests."""
        ...

    def read_indirect(self, array: Array, ranges: np.ndarray) -> np.ndarray:
        """Read rows of an array that the engine cannot decode."""
        ...

    def region_tables(self, paths: Sequence[str]) -> dict[str, str]:
        """Return the target tables of DynamicTableRegions by the paths of the regions."""
        ...

    def resolve_references(self, addresses: set[int]) -> dict[int, str]:
        """Return the paths of the targets of object references."""
        ...


def open_reader(source: Source, version: str) -> Reader:
    """Open a file by its content, not by its name.

    Parameters
    ----------
    source : Source
        The file or store.
    version : str
        Identity of the file.

    Raises
    ------
    NotNWBError
        If the format is unknown.
    SourceNotFoundError
        If the file does not exist.
    """
    return _reader_of(source)(source, version)


def import_reader(source: Source) -> None:
    """Import the modules that parse a file, without opening it."""
    _reader_of(source)


def _reader_of(source: Source) -> Callable[[Source, str], Reader]:
    """Return the function that opens a file of this format."""
    return _zarr_reader() if is_zarr(source) else _hdf5_reader()


def is_zarr(source: Source) -> bool:
    """Return whether a source is a Zarr store: a folder, a prefix, or a store in a single file."""
    return source.is_store or is_single_file_store(source.path)


# Late: a query on catalogued files needs no reader.
@cache
def _zarr_reader() -> Callable[[Source, str], Reader]:
    from lazynwb.formats.zarr.reader import ZarrReader
    from lazynwb.storage.objects.metadata_identity import open_prefetched

    return lambda source, version: ZarrReader(open_prefetched(source, version))


@cache
def _hdf5_reader() -> Callable[[Source, str], Reader]:
    from lazynwb.formats.hdf5.reader import Hdf5Reader

    return Hdf5Reader
