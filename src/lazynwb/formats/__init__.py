"""File formats: each folder here turns the bytes of one format into the catalog's structs."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Protocol, Self

from lazynwb import lifetime
from lazynwb.errors import NotNWBError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    import numpy as np

    from lazynwb.catalog.listing import Listing
    from lazynwb.catalog.model import Array, ChunkIndex, Table


class Reader(Protocol):
    """An open file of some format; everything that is asked of it is answered in the catalog's terms."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def describe_table(self, path: str) -> Table | None:
        """Describe the table, series or metadata at a path; None if there is none."""
        ...

    def list_objects(self) -> Listing:
        """Describe everything that the file contains."""
        ...

    def chunk_index(self, array: Array) -> ChunkIndex:
        """Look up where the chunks of an array are."""
        ...

    def read_indirect(self, array: Array, ranges: np.ndarray) -> np.ndarray:
        """Read rows of an array that the engine cannot decode."""
        ...

    def resolve_references(self, addresses: set[int]) -> dict[int, str]:
        """Find the paths of the objects that object references name."""
        ...


def open_reader(path: str) -> Reader:
    """Open a local file by what it is, not by what it is called.

    Raises
    ------
    NotNWBError
        If it is of no known format.
    SourceNotFoundError
        If there is no such file.
    """
    if os.path.isdir(path):  # noqa: PTH112 - called once per file
        message = f"{path} is a folder; Zarr stores are not read yet by this version of lazynwb"
        raise NotNWBError(message)
    return _hdf5_reader()(path)


@cache
def _hdf5_reader() -> Callable[[str], Reader]:
    # Late: libhdf5 takes a tenth of a second to load, and a query on catalogued files never needs it.
    from lazynwb.formats.hdf5 import Hdf5Reader

    # Before h5py takes itself apart at the end of the process, whoever is still reading is waited for.
    lifetime.wait_before_exit()
    return Hdf5Reader
