"""HDF5: libhdf5 parses the structure, the engine reads the chunks."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from lazynwb.errors import LazyNWBError, NotNWBError
from lazynwb.formats.hdf5.chunks import chunk_index
from lazynwb.formats.hdf5.file import BrokenLinkError, Hdf5File
from lazynwb.formats.hdf5.indirect import read_indirect, resolve_references
from lazynwb.formats.hdf5.listing import list_objects
from lazynwb.formats.hdf5.tables import describe_table
from lazynwb.profile import count

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

    import numpy as np

    from lazynwb.catalog.listing import Listing
    from lazynwb.catalog.model import Array, ChunkIndex, Table


class Hdf5Reader:
    """The functions of this package on one open file: see `lazynwb.formats.Reader`."""

    def __init__(self, path: str) -> None:
        self._file = Hdf5File(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def describe_table(self, path: str) -> Table | None:
        """Describe the table, series or metadata at a path; None if there is none."""
        count(files_parsed=1)
        with self._parsing(path):
            return describe_table(self._file, path)

    def list_objects(self) -> Listing:
        """Describe everything that the file contains."""
        count(files_parsed=1)
        with self._parsing(""):
            return list_objects(self._file)

    def chunk_index(self, array: Array) -> ChunkIndex:
        """Look up where the chunks of an array are."""
        with self._parsing(array.path):
            return chunk_index(self._file, array)

    def read_indirect(self, array: Array, ranges: np.ndarray) -> np.ndarray:
        """Read rows of an array that the engine cannot decode."""
        with self._parsing(array.path):
            return read_indirect(self._file, array, ranges)

    def resolve_references(self, addresses: set[int]) -> dict[int, str]:
        """Find the paths of the objects that object references name."""
        with self._parsing(""):
            return resolve_references(self._file, addresses)

    @contextmanager
    def _parsing(self, path: str) -> Iterator[None]:
        """Say which file and object is damaged: h5py reports what libhdf5 meets as any of these."""
        try:
            yield
        except LazyNWBError:
            raise
        except (
            OSError,
            RuntimeError,
            ValueError,
            KeyError,
            TypeError,
            BrokenLinkError,
            MemoryError,
        ) as error:
            message = f"{self._file.path}: the structure of /{path} is damaged: {error}"
            raise NotNWBError(message) from None
