"""Reader of files through libhdf5, for structures and data that the structure reader does not support."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from lazynwb.errors import LazyNWBError, NotNWBError
from lazynwb.formats.libhdf5.chunk_lookup import chunk_index
from lazynwb.formats.libhdf5.nodes import Hdf5File, resolve_references
from lazynwb.formats.libhdf5.reader import read_indirect
from lazynwb.formats.nwb.reader import StructureReader
from lazynwb.formats.protocols import BrokenLinkError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self

    import numpy as np

    from lazynwb.catalog.model import Array, ChunkIndex, PartialChunkIndex
    from lazynwb.formats.protocols import OpenFile
    from lazynwb.storage.source import Source

#: Errors of h5py for damaged structures.
_DAMAGE = (OSError, RuntimeError, ValueError, KeyError, TypeError, BrokenLinkError, MemoryError)

T = TypeVar("T")


class Libhdf5Reader(StructureReader):
    """A reader of a file opened by libhdf5; see `lazynwb.formats.registry.Reader`."""

    is_thread_safe = False

    def __init__(self, source: Source, version: str) -> None:
        self._file = Hdf5File(source, version)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def chunk_indices(
        self,
        arrays: Sequence[Array],
        numbers: Sequence[np.ndarray | None] = (),
        data: Sequence[tuple[int, int]] = (),
    ) -> list[ChunkIndex | PartialChunkIndex]:
        """Look up the locations of all chunks of arrays, because libhdf5 lists chunks one by one."""
        del numbers, data

        def look_up(_: OpenFile) -> list[ChunkIndex | PartialChunkIndex]:
            found: list[ChunkIndex | PartialChunkIndex] = []
            for array in arrays:
                with self._file.collect_misses():
                    found.append(chunk_index(self._file, array))
            return found

        return self.run_parse(arrays[0].path if len(arrays) == 1 else "", look_up)

    def chunk_indices_here(self, arrays: Sequence[Array]) -> dict[str, ChunkIndex]:
        """Look up the chunks of the arrays, by path, for which no more bytes must be fetched."""
        found = {}
        with self._file.parse_lock():
            for array in arrays:
                try:
                    found[array.path] = chunk_index(self._file, array)
                except (LazyNWBError, *_DAMAGE):
                    self._file.forget_missing()
        return found

    def read_indirect(self, array: Array, ranges: np.ndarray) -> np.ndarray:
        """Read rows of an array that the engine cannot decode."""
        rows = self.run_parse(array.path, lambda _: read_indirect(self._file, array, ranges))
        self._file.drop_prefetched()
        return rows

    def resolve_references(self, addresses: set[int]) -> dict[int, str]:
        """Return the paths of the targets of object references, by address."""
        return self.run_parse("", lambda _: resolve_references(self._file, addresses))

    def run_parse(self, path: str, parse: Callable[[OpenFile], T]) -> T:
        """Run a parse, of a remote file until all required bytes have been fetched.

        Errors of h5py for damage are converted to errors with the file and the object.
        """
        while True:
            try:
                with self._file.parse_lock():
                    result = parse(self._file)
            except LazyNWBError:
                if not self._file.fetch_missing():
                    raise
            except _DAMAGE as error:
                if not self._file.fetch_missing():
                    raise NotNWBError(
                        f"{self._file.name}: the structure of /{path} is damaged: {error}"
                    ) from None
            else:
                if not self._file.fetch_missing():
                    return result
