"""Reader of HDF5 files: the structure reader, with libhdf5 as fallback."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from lazynwb import shutdown
from lazynwb.errors import LazyNWBError
from lazynwb.formats.hdf5.binary import DamagedStructureError
from lazynwb.formats.hdf5.structure_file import StructureFile
from lazynwb.formats.nwb.reader import StructureReader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self

    import numpy as np

    from lazynwb.catalog.model import Array, ChunkIndex, PartialChunkIndex
    from lazynwb.formats.libhdf5.fallback import Libhdf5Reader
    from lazynwb.formats.protocols import OpenFile
    from lazynwb.storage.source import Source

T = TypeVar("T")


class _RefusedError(Exception):
    """The structure reader cannot run a parse; libhdf5 may."""


class Hdf5Reader(StructureReader):
    """Reader of one HDF5 file; see `lazynwb.formats.registry.Reader`.

    Parameters
    ----------
    source : Source
        Location of the file.
    version : str
        Identity of the file; other versions of a remote file are not read.

    Raises
    ------
    SourceNotFoundError
        If the file does not exist.
    NotNWBError
        If libhdf5 cannot open the file either.
    """

    is_thread_safe = False

    def __init__(self, source: Source, version: str) -> None:
        self._source = source
        self._version = version
        self._fallback: Libhdf5Reader | None = None
        self._file: StructureFile | None = None
        try:
            self._file = StructureFile(source, version)
            # The first parse of a remote file reads the root, together with its other structures.
            self._run(self._file, lambda file: None if source.is_remote else file.root)
        except (OSError, _RefusedError):
            self._close_structure()
            self._libhdf5()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_structure()
        if self._fallback is not None:
            self._fallback.__exit__(kind, value, trace)

    def _close_structure(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _libhdf5(self) -> Libhdf5Reader:
        """Open the file with libhdf5, unless it is open."""
        if self._fallback is None:
            self._fallback = _libhdf5_reader()(self._source, self._version)
        return self._fallback

    def chunk_indices(
        self,
        arrays: Sequence[Array],
        numbers: Sequence[np.ndarray | None] = (),
        data: Sequence[tuple[int, int]] = (),
    ) -> list[ChunkIndex | PartialChunkIndex]:
        """Return the locations of all or some chunks of arrays; fetch ranges of data in the same requests."""
        selected = list(numbers) or [None] * len(arrays)

        def look_up(file: StructureFile) -> list[ChunkIndex | PartialChunkIndex]:
            found: list[ChunkIndex | PartialChunkIndex] = []
            for array, chunk_numbers in zip(arrays, selected, strict=True):
                with file.collect_misses():
                    found.append(
                        file.chunk_index(array)
                        if chunk_numbers is None
                        else file.partial_chunk_index(array, chunk_numbers)
                    )
            return found

        if self._file is not None:
            self._file.expect_data(data)
            try:
                # Entries of single chunks are far apart in an index.
                return self._run(
                    self._file, look_up, ahead=all(chunk_numbers is None for chunk_numbers in selected)
                )
            except _RefusedError:
                pass
        return self._libhdf5().chunk_indices(arrays, numbers)

    def chunk_indices_here(self, arrays: Sequence[Array]) -> dict[str, ChunkIndex]:
        """Return chunk indices by path for the arrays whose index has been fetched already."""
        if self._file is None:
            return self._libhdf5().chunk_indices_here(arrays)
        found = {}
        for array in arrays:
            with suppress(Exception):  # the error is raised when the array is read
                index = self._file.chunk_index(array)
                if not self._file.missed:
                    found[array.path] = index
            self._file.forget_missing()
        try:
            self._file.verify_checksums()
        except DamagedStructureError:
            return {}
        return found

    def read_indirect(self, array: Array, ranges: np.ndarray) -> np.ndarray:
        """Read rows of an array without a supported layout, with libhdf5."""
        return self._libhdf5().read_indirect(array, ranges)

    def resolve_references(self, addresses: set[int]) -> dict[int, str]:
        """Return the paths of the targets of object references."""
        if self._file is not None:
            try:
                return self._run(self._file, lambda file: file.resolve_references(addresses))
            except _RefusedError:
                pass
        return self._libhdf5().resolve_references(addresses)

    def run_parse(self, path: str, parse: Callable[[OpenFile], T]) -> T:
        """Run a parse; if the structure reader cannot, run all of it with libhdf5."""
        if self._file is not None:
            try:
                return self._run(self._file, parse)
            except _RefusedError:
                pass
        return self._libhdf5().run_parse(path, parse)

    @staticmethod
    def _run(file: StructureFile, parse: Callable[[StructureFile], T], *, ahead: bool = True) -> T:
        """Run a parse; repeat it on a remote file until no range is missing.

        Raises
        ------
        _RefusedError
            If the file has an unsupported feature or is damaged. The fallback to libhdf5 determines which
            parts are readable, and the error.
        """
        while True:
            error: Exception | None = None
            try:
                result = file.run(parse)
            except Exception as raised:  # noqa: BLE001 - it may be a consequence of missing ranges
                error = raised
            if file.fetch_missing(ahead=ahead):
                continue
            if error is None:
                return result
            if isinstance(error, LazyNWBError):
                raise error
            raise _RefusedError from error


@cache
def _libhdf5_reader() -> type[Libhdf5Reader]:
    # Late: loading libhdf5 takes a tenth of a second.
    from lazynwb.formats.libhdf5.fallback import Libhdf5Reader

    # At exit, wait for running reads before h5py is finalized.
    shutdown.wait_before_exit()
    return Libhdf5Reader
