"""The protocol of an open file's structure: bytes, and the decoded parts that objects share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from lazynwb.formats.hdf5.global_heap import CollectionFile
from lazynwb.formats.protocols import ReferenceFile

if TYPE_CHECKING:
    from lazynwb.formats.hdf5.datatypes import StoredType
    from lazynwb.formats.hdf5.fractal_heap import FractalHeap


class Structure(CollectionFile, ReferenceFile, Protocol):
    """The bytes of a file, with its heaps and committed types."""

    def heap(self, address: int) -> FractalHeap:
        """Return the fractal heap at an address."""
        ...

    def committed_type(self, body: bytes) -> StoredType:
        """Return the type that a shared datatype message stands for."""
        ...
