"""HDF5: the structure reader parses files; what it refuses, and data of unusual layouts, libhdf5 reads."""

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

    from lazynwb.catalog.model import Array, ChunkIndex, SomeChunks
    from lazynwb.formats.libhdf5.fallback import Libhdf5Reader
    from lazynwb.formats.protocols import OpenFile
    from lazynwb.storage.source import Source

T = TypeVar("T")


class _RefusedError(Exception):
    """The structure reader leaves a parse to libhdf5."""


class Hdf5Reader(StructureReader):
    """The functions of this package on one file: see `lazynwb.formats.registry.Reader`.

    Parameters
    ----------
    source : Source
    version : str
        Its identity: of a remote file, no other version is read.

    Raises
    ------
    SourceNotFoundError
        If there is no such file.
    NotNWBError
        If libhdf5 cannot open it, either.
    """

    reads_apart = False

    def __init__(self, source: Source, version: str) -> None:
        self._source = source
        self._version = version
        self._fallback: Libhdf5Reader | None = None
        self._file: StructureFile | None = None
        try:
            self._file = StructureFile(source, version)
            # Of a remote file the first parse reads the root, with what else that needs.
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
        """Open the file by libhdf5, unless that has been done."""
        if self._fallback is None:
            self._fallback = _libhdf5_reader()(self._source, self._version)
        return self._fallback

    def chunk_indices(
        self, arrays: Sequence[Array], numbers: Sequence[np.ndarray | None] = ()
    ) -> list[ChunkIndex | SomeChunks]:
        """Look up where the chunks of arrays are, or some of them."""
        wanted = list(numbers) or [None] * len(arrays)

        def look_up(file: StructureFile) -> list[ChunkIndex | SomeChunks]:
            found: list[ChunkIndex | SomeChunks] = []
            for array, listed in zip(arrays, wanted, strict=True):
                with file.collect_misses():
                    found.append(
                        file.chunk_index(array) if listed is None else file.some_chunks(array, listed)
                    )
            return found

        if self._file is not None:
            try:
                # The places of single chunks are far apart in an index.
                return self._run(self._file, look_up, ahead=all(listed is None for listed in wanted))
            except _RefusedError:
                pass
        return self._libhdf5().chunk_indices(arrays, numbers)

    def chunk_indices_here(self, arrays: Sequence[Array]) -> dict[str, ChunkIndex]:
        """Look up the chunks of those arrays for which nothing more needs to be fetched, by their paths."""
        if self._file is None:
            return self._libhdf5().chunk_indices_here(arrays)
        found = {}
        for array in arrays:
            with suppress(Exception):  # whoever reads the array looks them up, and gets the error
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
        """Read rows of an array that the engine cannot decode."""
        return self._libhdf5().read_indirect(array, ranges)

    def resolve_references(self, addresses: set[int]) -> dict[int, str]:
        """Find the paths of the objects that object references name."""
        if self._file is not None:
            try:
                return self._run(self._file, lambda file: file.resolve_references(addresses))
            except _RefusedError:
                pass
        return self._libhdf5().resolve_references(addresses)

    def run_parse(self, path: str, parse: Callable[[OpenFile], T]) -> T:
        """Run a parse; what the structure reader refuses is left to libhdf5 as a whole."""
        if self._file is not None:
            try:
                return self._run(self._file, parse)
            except _RefusedError:
                pass
        return self._libhdf5().run_parse(path, parse)

    @staticmethod
    def _run(file: StructureFile, parse: Callable[[StructureFile], T], *, ahead: bool = True) -> T:
        """Run a parse, of a remote file until all the bytes that it needs are here.

        Raises
        ------
        _RefusedError
            If the structure reader does not know something, or the file is damaged: what it means for the
            file's user, and which parts can be read all the same, libhdf5 decides.
        """
        while True:
            error: Exception | None = None
            try:
                result = file.run(parse)
            except Exception as raised:  # noqa: BLE001 - while bytes are missing, it may be because of that
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
    # Late: libhdf5 takes a tenth of a second to load.
    from lazynwb.formats.libhdf5.fallback import Libhdf5Reader

    # Before h5py takes itself apart at the end of the process, whoever is still reading is waited for.
    shutdown.wait_before_exit()
    return Libhdf5Reader
