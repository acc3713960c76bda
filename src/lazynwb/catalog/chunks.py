"""Chunks of an array by their numbers, and an index of some of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lazynwb.errors import CorruptDataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazynwb.catalog.model import Array


def grid_of(array: Array) -> tuple[int, ...]:
    """Return how many chunks an array has along each dimension; whoever reads it makes sure that they fit."""
    return tuple(-(-n // max(c, 1)) for n, c in zip(array.shape, array.chunk, strict=False))


class SomeChunks:
    """Where some of the chunks of one array are; see `ChunkIndex`.

    Parameters
    ----------
    places : mapping of int to (offset, size, mask)
        By the chunk's number.
    """

    __slots__ = ("_places",)

    def __init__(self, places: Mapping[int, tuple[int, int, int]]) -> None:
        self._places = dict(places)

    def __len__(self) -> int:
        """Return how many chunks are known."""
        return len(self._places)

    def locate(self, number: int) -> tuple[int, int, int]:
        """Return the offset of a chunk, its size and its filter mask, as `ChunkIndex.locate` does.

        Raises
        ------
        CorruptDataError
            If the chunk was not looked up.
        """
        place = self._places.get(number)
        if place is None:
            message = f"chunk {number} was not looked up"
            raise CorruptDataError(message)
        return place

    def unknown(self, numbers: np.ndarray) -> np.ndarray:
        """Return those of the given chunks that are not known yet."""
        if not self._places:
            return numbers
        return np.array([number for number in numbers.tolist() if number not in self._places], np.int64)

    def with_more(self, other: SomeChunks) -> SomeChunks:
        """Return the chunks of both."""
        return SomeChunks(self._places | other._places)
