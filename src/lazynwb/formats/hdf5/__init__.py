"""HDF5: libhdf5 parses the structure, the engine reads the chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from lazynwb.errors import LazyNWBError, NotNWBError
from lazynwb.formats.attributes import describe_attributes
from lazynwb.formats.hdf5.chunks import chunk_index
from lazynwb.formats.hdf5.file import Hdf5File
from lazynwb.formats.hdf5.indirect import read_indirect, resolve_references
from lazynwb.formats.hdf5.single import NotSingleError, some_chunks
from lazynwb.formats.listing import list_objects
from lazynwb.formats.members import describe_members
from lazynwb.formats.nodes import BrokenLinkError
from lazynwb.formats.regions import region_tables
from lazynwb.formats.tables import describe_table
from lazynwb.profile import count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self

    import numpy as np

    from lazynwb.catalog.chunks import SomeChunks
    from lazynwb.catalog.listing import Attributes, Listing
    from lazynwb.catalog.model import Array, ChunkIndex, Table
    from lazynwb.formats.hdf5.single import Place
    from lazynwb.sources.source import Source

#: What h5py raises for structures that libhdf5 cannot make sense of.
_DAMAGE = (OSError, RuntimeError, ValueError, KeyError, TypeError, BrokenLinkError, MemoryError)

T = TypeVar("T")


class Hdf5Reader:
    """The functions of this package on one open file: see `lazynwb.formats.Reader`."""

    reads_apart = False

    def __init__(self, source: Source, version: str) -> None:
        self._file = Hdf5File(source, version)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def describe_table(self, path: str) -> Table | None:
        """Describe the table, series or metadata at a path; None if there is none."""
        count(files_parsed=1)
        return self._parse(path, lambda: describe_table(self._file, path))

    def describe_members(self, path: str) -> Table | None:
        """Describe every dataset of the group at a path, whatever it is; None if there is no such group."""
        count(files_parsed=1)
        return self._parse(path, lambda: describe_members(self._file, path))

    def list_objects(self) -> Listing:
        """Describe everything that the file contains."""
        count(files_parsed=1)
        return self._parse("", lambda: list_objects(self._file))

    def attributes(self, path: str) -> Attributes | None:
        """Return the attributes of the object at a path and of its direct members; None if there is none."""
        count(files_parsed=1)
        return self._parse(path, lambda: describe_attributes(self._file, path))

    def all_attributes(self, path: str) -> Attributes | None:
        """Return the attributes of the object at a path and of everything below it."""
        count(files_parsed=1)
        return self._parse(path, lambda: describe_attributes(self._file, path, deep=True))

    def chunk_indices(
        self, arrays: Sequence[Array], numbers: Sequence[np.ndarray | None] = ()
    ) -> list[ChunkIndex | SomeChunks]:
        """Look up where the chunks of arrays are, or some of them."""
        wanted = list(numbers) or [None] * len(arrays)
        some = any(listed is not None for listed in wanted)
        if some and self._file.watch is None:
            self._file = self._file.reopened(watched=True)
        known: list[dict[int, Place]] = [{} for _ in arrays]

        def look_up() -> list[ChunkIndex | SomeChunks]:
            found: list[ChunkIndex | SomeChunks] = []
            for array, listed, places in zip(arrays, wanted, known, strict=True):
                with self._file.going_on():
                    if listed is None:
                        found.append(chunk_index(self._file, array))
                    else:
                        found.append(some_chunks(self._file, array, listed, places))
            return found

        try:
            return self._parse(arrays[0].path if len(arrays) == 1 else "", look_up)
        except NotSingleError as error:
            self._file = self._file.reopened(watched=False)  # libhdf5 may remember what was not read
            rest = [
                None if array.path in error.args else some for array, some in zip(arrays, wanted, strict=True)
            ]
            return self.chunk_indices(arrays, rest)

    def chunk_indices_here(self, arrays: Sequence[Array]) -> dict[str, ChunkIndex]:
        """Look up the chunks of those arrays for which nothing more needs to be fetched, by their paths."""
        found = {}
        with self._file.turn():
            for array in arrays:
                try:
                    found[array.path] = chunk_index(self._file, array)
                except (LazyNWBError, *_DAMAGE):
                    self._file.forget_missing()
        return found

    def read_indirect(self, array: Array, ranges: np.ndarray) -> np.ndarray:
        """Read rows of an array that the engine cannot decode."""
        rows = self._parse(array.path, lambda: read_indirect(self._file, array, ranges))
        self._file.drop_announced()
        return rows

    def region_tables(self, paths: Sequence[str]) -> dict[str, str]:
        """Find the tables that DynamicTableRegions refer to, by the regions' paths."""
        return self._parse(paths[0], lambda: region_tables(self._file, paths))

    def resolve_references(self, addresses: set[int]) -> dict[int, str]:
        """Find the paths of the objects that object references name."""
        return self._parse("", lambda: resolve_references(self._file, addresses))

    def _parse(self, path: str, parse: Callable[[], T]) -> T:
        """Run a parse, of a remote file until all the bytes that it needs are here.

        Errors say which file and object is damaged: h5py reports what libhdf5 meets as any of these.
        """
        while True:
            try:
                with self._file.turn():
                    result = parse()
            except LazyNWBError:
                if not self._file.fetch_missing():
                    raise
            except _DAMAGE as error:
                if not self._file.fetch_missing():
                    message = f"{self._file.name}: the structure of /{path} is damaged: {error}"
                    raise NotNWBError(message) from None
            else:
                if not self._file.fetch_missing():
                    return result
