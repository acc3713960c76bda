"""Protocol of a file that decodes object messages: its bytes, heaps, and committed datatypes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from lazynwb.formats.hdf5.global_heap import CollectionFile
from lazynwb.formats.protocols import ReferenceFile

if TYPE_CHECKING:
    from lazynwb.formats.hdf5.datatypes import StoredType
    from lazynwb.formats.hdf5.fractal_heap import FractalHeap


class Structure(CollectionFile, ReferenceFile, Protocol):
    """The bytes of a file, with its heaps and committed datatypes."""

    def expect(self, start: int, stop: int) -> None:
        """Fetch bytes between two addresses of a remote file with those that are missing."""
        ...

    def heap(self, address: int) -> FractalHeap:
        """Return the fractal heap at an address."""
        ...

    def committed_type(self, body: bytes) -> StoredType:
        """Return the committed datatype that a shared datatype message refers to."""
        ...
