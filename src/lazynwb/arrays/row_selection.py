"""Row selections: rows of files that are read together, and the open files of a window of a scan."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from lazynwb.arrays.fetch import Request, fetch
from lazynwb.lookup.catalog_cache import DAMAGE, invalidate_source
from lazynwb.storage.source import map_concurrently

_LOGGER = logging.getLogger("lazynwb")

if TYPE_CHECKING:
    from types import TracebackType

    from lazynwb.catalog.model import Array
    from lazynwb.formats.registry import Reader
    from lazynwb.lookup.loader import TableFile
    from lazynwb.storage.file import File
    from lazynwb.storage.objects.object_store import Objects
    from lazynwb.storage.source import Source


class Part(NamedTuple):
    """Rows of one file's table.

    Attributes
    ----------
    file : TableFile
    ranges : ndarray of shape (n, 2), int64
        Half-open ranges of rows, which are ascending, disjoint and not empty.
    rows : int
        Number of rows.
    """

    file: TableFile
    ranges: np.ndarray
    rows: int

    @classmethod
    def of_range(cls, file: TableFile, start: int, stop: int) -> Part:
        """Create a part of consecutive rows."""
        return cls(file, np.array([[start, stop]], np.int64)[: stop > start], max(stop - start, 0))

    @classmethod
    def of_ranges(cls, file: TableFile, ranges: np.ndarray) -> Part:
        """Create a part of ranges of rows."""
        return cls(file, ranges, int((ranges[:, 1] - ranges[:, 0]).sum()))

    def indices(self) -> np.ndarray:
        """Return the row numbers."""
        return expand(self.ranges)

    def take(self, selected: np.ndarray) -> Part:
        """Return the rows for which a mask of the part's rows is true."""
        if selected.all():
            return self
        one = len(self.ranges) == 1
        rows = np.flatnonzero(selected) + self.ranges[0, 0] if one else self.indices()[selected]
        return Part(self.file, to_ranges(rows), len(rows))

    def cut(self, start: int, stop: int) -> Part:
        """Return a slice of the part's rows, by position in the part."""
        if start <= 0 and stop >= self.rows:
            return self
        ends = np.cumsum(self.ranges[:, 1] - self.ranges[:, 0])
        shift = self.ranges[:, 1] - ends  # from a position to a row
        low = np.maximum(self.ranges[:, 0], start + shift)
        high = np.minimum(self.ranges[:, 1], stop + shift)
        ranges = np.stack([low, high], axis=1)[low < high]
        return Part(self.file, ranges, min(stop, self.rows) - max(start, 0))


def expand(ranges: np.ndarray, dtype: type[np.integer] = np.int64) -> np.ndarray:
    """Return the numbers in ranges."""
    if len(ranges) == 1:
        return np.arange(ranges[0, 0], ranges[0, 1], dtype=dtype)
    lengths = ranges[:, 1] - ranges[:, 0]
    ends = np.cumsum(lengths)
    places = np.arange(int(ends[-1]) if len(ends) else 0)
    return (np.repeat(ranges[:, 0] - (ends - lengths), lengths) + places).astype(dtype, copy=False)


def cut_ranges(ranges: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Return the intersection of ranges with the rows from `start` to `stop`."""
    cut: np.ndarray = np.clip(ranges, start, max(start, stop))
    nonempty: np.ndarray = cut[cut[:, 0] < cut[:, 1]]
    return nonempty


def to_ranges(rows: np.ndarray) -> np.ndarray:
    """Return ascending numbers as ranges."""
    if not len(rows):
        return np.zeros((0, 2), np.int64)
    breaks = np.flatnonzero(np.diff(rows) != 1)
    starts = rows[np.concatenate([[0], breaks + 1])]
    stops = rows[np.concatenate([breaks, [len(rows) - 1]])] + 1
    return np.stack([starts, stops], axis=1)


class IndirectRead:
    """A read of an array that only the reader of its format can decode; `rows` is the result."""

    __slots__ = ("array", "file", "ranges", "rows")

    def __init__(self, file: TableFile, array: Array, ranges: np.ndarray) -> None:
        self.file = file
        self.array = array
        self.ranges = ranges
        self.rows = np.zeros(0)


class Handles:
    """The open files of a window of a scan; a context manager that closes them.

    Files are numbered in the order of their first use.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._numbers: dict[Source, int] = {}
        self._holders: list[tuple[Source, str]] = []
        self.files: list[File] = []
        self.bases: list[int] = []
        self._readers: dict[Source, Reader] = {}
        self._stores: dict[Source, Objects] = {}
        self._owners: set[Source] = set()
        #: Index columns by file and path, which are read completely, once per window.
        self.index_columns: dict[tuple[Source, str], np.ndarray] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        # The damaged file among several is not identified here: they are read again one by one.
        if isinstance(value, DAMAGE) and len(self._owners) == 1:
            for source in {*self._owners, *self._numbers, *self._readers, *self._stores}:
                invalidate_source(source)

    def number(self, owner: TableFile, array: Array) -> int:
        """Return the number of the file that contains an array; open it if it is not open."""
        self._owners.add(owner.source)
        holder = owner.owning_file(array)
        number = self._numbers.get(holder[0])
        if number is None:
            self.files.append(holder[0].open(holder[1]))
            number = self._numbers[holder[0]] = len(self.files) - 1
            self._holders.append(holder)
            self.bases.append(array.base)
        return number

    def reader(self, owner: TableFile) -> Reader:
        """Return the open reader of a table's file, for arrays that the engine does not decode."""
        self._owners.add(owner.source)
        if owner.source not in self._readers:
            self._readers[owner.source] = self._stack.enter_context(owner.reader())
        return self._readers[owner.source]

    def read_indirect(self, reads: list[IndirectRead]) -> None:
        """Execute reads by readers of the formats, of several files concurrently."""
        groups: dict[object, list[IndirectRead]] = {}
        for number, read in enumerate(reads):
            reader = self.reader(read.file)
            groups.setdefault(number if reader.is_thread_safe else read.file.source, []).append(read)

        def carry_out(listed: list[IndirectRead]) -> None:
            for read in listed:
                read.rows = self.reader(read.file).read_indirect(read.array, read.ranges)

        map_concurrently(carry_out, list(groups.values()), (read.file.source for read in reads))

    def fetch(self, requests: list[tuple[TableFile, Request]]) -> None:
        """Execute requests of any number of files together."""
        work: dict[tuple[Source, bool], tuple[File | Objects, list[Request]]] = {}
        for owner, request in requests:
            self._owners.add(owner.source)
            source = owner.owning_file(request.array)[0]
            is_object = request.array.layout == "objects"
            if (source, is_object) not in work:
                store = self._store(source) if is_object else self.files[self.number(owner, request.array)]
                work[source, is_object] = store, []
            work[source, is_object][1].append(request)
        fetch(work.values())

    def _store(self, source: Source) -> Objects:
        from lazynwb.storage.objects.object_store import open_objects

        if source not in self._stores:
            self._stores[source] = open_objects(source)
        return self._stores[source]

    def paths_of(self, addresses: dict[int, set[int]]) -> dict[int, dict[int, str]]:
        """Return the target paths of object references, by file; remote files are read concurrently."""

        def look_up(number: int) -> dict[int, str]:
            return dict(_paths_of(*self._holders[number], frozenset(addresses[number])))

        numbers = list(addresses)
        found = map_concurrently(look_up, numbers, (self._holders[number][0] for number in numbers))
        return dict(zip(numbers, found, strict=True))


@lru_cache(maxsize=256)
def _paths_of(source: Source, identity: str, addresses: frozenset[int]) -> tuple[tuple[int, str], ...]:
    from lazynwb.formats.registry import open_reader

    with open_reader(source, identity) as reader:
        found = reader.resolve_references(set(addresses))
    lost = len(addresses - found.keys() - {0})
    if lost:
        _LOGGER.warning("%s: %d object references have no target: their values are null", source.name, lost)
    return tuple(found.items())
