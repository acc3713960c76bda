"""Reader of Zarr stores, versions 2 and 3: structure from JSON documents; the engine reads the chunks.

zarr-python is not used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from lazynwb.errors import LazyNWBError, NotNWBError
from lazynwb.formats.nwb.reader import StructureReader
from lazynwb.formats.protocols import BrokenLinkError
from lazynwb.formats.zarr.nodes import ZarrFile
from lazynwb.formats.zarr.object_arrays import read_indirect
from lazynwb.formats.zarr.shard_index import chunk_index
from lazynwb.formats.zarr.store import MissingObjectsError
from lazynwb.storage.objects.object_store import open_objects

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self

    import numpy as np

    from lazynwb.catalog.model import Array, ChunkIndex, SomeChunks
    from lazynwb.formats.protocols import OpenFile
    from lazynwb.storage.objects.object_store import Objects

#: Errors that a parse of damaged metadata may raise.
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, MemoryError)

T = TypeVar("T")


class ZarrReader(StructureReader):
    """The functions of this package on one store: see `lazynwb.formats.registry.Reader`.

    The metadata is read on first use.

    Parameters
    ----------
    objects : Objects
    """

    reads_apart = True

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._opened: ZarrFile | None = None
        self._others: dict[str, Objects] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened = None
        self._others.clear()

    @property
    def _file(self) -> ZarrFile:
        if self._opened is None:
            self._opened = ZarrFile(self._objects)
        return self._opened

    def chunk_indices(
        self, arrays: Sequence[Array], numbers: Sequence[np.ndarray | None] = ()
    ) -> list[ChunkIndex | SomeChunks]:
        """Look up where the chunks of arrays are in their shards; of others there is nothing to look up."""
        wanted = list(numbers) or [None] * len(arrays)
        return [
            chunk_index(self._holder(array), array, some) for array, some in zip(arrays, wanted, strict=True)
        ]

    def chunk_indices_here(self, arrays: Sequence[Array]) -> dict[str, ChunkIndex]:
        """Return nothing: shards are not looked into while the metadata is parsed."""
        del arrays
        return {}

    def read_indirect(self, array: Array, ranges: np.ndarray) -> np.ndarray:
        """Read rows of an array that the engine cannot decode; the store's metadata is not needed."""
        return read_indirect(self._holder(array), array, ranges)

    def resolve_references(self, addresses: set[int]) -> dict[int, str]:
        """Return nothing: references are read as paths."""
        del addresses
        return {}

    def _holder(self, array: Array) -> Objects:
        """Return the store that holds an array: links lead to others."""
        if array.source is None:
            return self._objects
        if array.source not in self._others:
            self._others[array.source] = open_objects(self._objects.source.with_path(array.source))
        return self._others[array.source]

    def _parse(self, path: str, parse: Callable[[OpenFile], T]) -> T:
        """Repeat a parse until all objects that it needs have been fetched.

        A parse that missed objects is repeated: its errors are ignored.
        """
        while True:
            try:
                result = parse(self._file)
            except MissingObjectsError:
                if not self._file.fetch_missing():
                    raise
            except LazyNWBError:
                if self._opened is None or not self._file.fetch_missing():
                    raise
            except (BrokenLinkError, *_DAMAGE) as error:
                if not self._file.fetch_missing():
                    raise NotNWBError(
                        f"{self._objects.source.name}: the structure of /{path} is damaged: {error}"
                    ) from None
            else:
                if not self._file.fetch_missing():
                    return result
