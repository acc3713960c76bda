"""Reader of the structure of Zarr stores, versions 2 and 3, without zarr-python."""

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

    from lazynwb.catalog.model import Array, ChunkIndex, PartialChunkIndex
    from lazynwb.formats.protocols import OpenFile
    from lazynwb.storage.objects.object_store import Objects

#: Errors that a parse of damaged metadata may raise.
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, MemoryError)

T = TypeVar("T")


class ZarrReader(StructureReader):
    """Reader of one Zarr store, whose metadata are read on first use; see `lazynwb.formats.registry.Reader`.

    Parameters
    ----------
    objects : Objects
        The store.
    """

    is_thread_safe = True

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
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
            self._opened = ZarrFile(self.objects)
        return self._opened

    def chunk_indices(
        self,
        arrays: Sequence[Array],
        numbers: Sequence[np.ndarray | None] = (),
        data: Sequence[tuple[int, int]] = (),
    ) -> list[ChunkIndex | PartialChunkIndex]:
        """Look up the locations of chunks in shards; other arrays need no look-up."""
        del data
        selected = list(numbers) or [None] * len(arrays)
        return [
            chunk_index(self._holder(array), array, some)
            for array, some in zip(arrays, selected, strict=True)
        ]

    def chunk_indices_here(self, arrays: Sequence[Array]) -> dict[str, ChunkIndex]:
        """Return nothing: indices of shards are not read while metadata are parsed."""
        del arrays
        return {}

    def read_indirect(self, array: Array, ranges: np.ndarray) -> np.ndarray:
        """Read rows of an array that the engine cannot decode, without the metadata of the store."""
        return read_indirect(self._holder(array), array, ranges)

    def resolve_references(self, addresses: set[int]) -> dict[int, str]:
        """Return nothing: references are stored as paths."""
        del addresses
        return {}

    def _holder(self, array: Array) -> Objects:
        """Return the store that contains an array, which may be the target of a link."""
        if array.source is None:
            return self.objects
        if array.source not in self._others:
            self._others[array.source] = open_objects(self.objects.source.with_path(array.source))
        return self._others[array.source]

    def run_parse(self, path: str, parse: Callable[[OpenFile], T]) -> T:
        """Repeat a parse until all required objects have been fetched; ignore errors of incomplete parses."""
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
                        f"{self.objects.source.name}: the structure of /{path} is damaged: {error}"
                    ) from None
            else:
                if not self._file.fetch_missing():
                    return result
