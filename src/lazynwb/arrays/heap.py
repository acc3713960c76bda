"""Variable-length data: HDF5 global heap collections, parsed for many columns and files together.

An element of variable length is stored as 16 bytes: its length, the address of a heap collection (mostly
4 KiB, shared by many elements), and the index of an object in it (HDF5 File Format Specification, III.E and
IV.B). The collections of all columns and files of a batch are read and parsed together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lazynwb.arrays.fetch import Request, fetch
from lazynwb.catalog.model import Array, DType
from lazynwb.errors import CorruptDataError

if TYPE_CHECKING:
    from lazynwb.storage.file import File

_REFERENCE = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])
_HEADER = 16
#: Minimum size of a collection of libhdf5.
_MIN_BYTES = 4096
#: Maximum number of bytes that are read of a collection before its size is known.
_MAX_GUESS = 16 * 1024
#: Number of bits of an address in a 64-bit key of file number and address.
_ADDRESS_BITS = 48
_BYTES = DType("number", 1, "|u1")
#: Maximum number of 8-byte words of collections that are parsed together.
_MAX_WORDS = 256 * 1024


class Slices(NamedTuple):
    """Slices of a buffer: first byte and length of each element."""

    buffer: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray


def referred_bytes(references: np.ndarray, width: int, limit: int) -> int:
    """Return the total size of referenced data, for items of a given size.

    Zero if one reference exceeds the limit: reading it raises an error.
    """
    lengths = _fields(references)["length"]
    if not len(lengths) or int(lengths.max()) * width > limit:
        return 0
    return int(lengths.sum(dtype=np.int64)) * width


class Heap:
    """The heap collections that the elements of a batch refer to.

    Parameters
    ----------
    files : list of File
    bases : list of int
        Base addresses of the files (sizes of their user blocks).
    elements : list of (owners, references)
        File number of each element, and its reference of 16 bytes (shape (n, 16)).
    """

    def __init__(
        self, files: list[File], bases: list[int], elements: list[tuple[np.ndarray, np.ndarray]]
    ) -> None:
        self._files = files
        keys = [_run_starts(_keys(owners, _fields(references))) for owners, references in elements]
        # np.unique would import numpy.ma.
        distinct = _run_starts(np.sort(np.concatenate(keys))) if keys else np.zeros(0, np.uint64)
        self._collections = distinct[distinct & _low(_ADDRESS_BITS) != 0]
        #: Errors of collections by number, which are raised when an element in them is read.
        self._faults: dict[int, str] = {}
        self._buffer, self._first, self._sizes = self._read(bases)
        self._index()

    def find(self, owners: np.ndarray, references: np.ndarray, width: int) -> Slices:
        """Return the bytes of elements; `width` is the size of an item of a sequence.

        Raises
        ------
        CorruptDataError
            If a reference has no target, or the size of its target differs from its length: each object of a
            heap belongs to one element, even for an empty text.
        """
        fields = _fields(references)
        keys = _keys(owners, fields)
        lengths = fields["length"].astype(np.int64) * width
        present = keys & _low(_ADDRESS_BITS) != 0
        lengths[~present] = 0
        starts = np.zeros(len(keys), np.int64)
        if present.any():
            collection = np.searchsorted(self._collections, keys[present])
            index = fields["index"][present].astype(np.int64)
            legal = index <= self._most[collection]
            slot = self._slots[collection] + np.where(legal, index, 0)
            found = self._positions[slot]
            bad = ~legal | (found < 0) | (self._lengths[slot] != lengths[present])
            if bad.any():
                generic = "a reference to variable-length data has no matching object in the heap"
                raise CorruptDataError(self._faults.get(int(collection[bad][0]), generic))
            starts[present] = found
        return Slices(self._buffer, starts, lengths)

    def _read(self, bases: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Read all collections; return a buffer, and the offset and size of each collection in it."""
        owners = (self._collections >> np.uint64(_ADDRESS_BITS)).astype(np.int64)
        addresses = (self._collections & _low(_ADDRESS_BITS)).astype(np.int64)
        if not len(owners):
            return np.zeros(0, np.uint8), addresses, addresses
        addresses += np.array(bases, np.int64)[owners]
        room = (np.array([file.size for file in self._files], np.int64)[owners] - addresses).clip(min=0)
        read = np.minimum(self._guess(owners, addresses), room)
        buffer, first = _read_ranges(self._files, owners, addresses, read)
        words = buffer.view("<u8")
        declared = words[(first >> 3) + 1].astype(np.int64)
        signed = (words[first >> 3] & _low(32)) == int.from_bytes(b"GCOL", "little")
        bad = ~signed | (declared < _HEADER) | (declared > room) | (room < _HEADER)
        for i in np.flatnonzero(bad).tolist():
            self._faults[i] = (
                f"there is no heap collection of variable-length data at byte {int(addresses[i])}"
            )
        sizes = np.where(bad, 0, declared)
        if (sizes > read).any():
            buffer, first = _read_ranges(self._files, owners, addresses, sizes)
        return buffer, first, sizes

    def _guess(self, owners: np.ndarray, addresses: np.ndarray) -> np.ndarray:
        """Return how many bytes to read of each collection, whose size is in its header.

        More of remote files, for which another request takes longer, but not beyond the next collection.
        """
        most = [min(max(file.coalesce_gap // 4, _MIN_BYTES), _MAX_GUESS) for file in self._files]
        distances = np.append(np.diff(self._collections), np.uint64(_MAX_GUESS)).astype(np.int64)
        guess: np.ndarray = np.minimum(np.array(most, np.int64)[owners], distances)
        for i in np.flatnonzero(guess > _MIN_BYTES).tolist():
            if self._files[owners[i]].has(int(addresses[i]), _MIN_BYTES):  # cached
                guess[i] = _MIN_BYTES
        np.maximum(guess, _MIN_BYTES, out=guess)
        return guess

    def _index(self) -> None:
        """Index the objects of all collections, in groups, because it needs several times their size."""
        words = self._sizes >> 3
        large = np.flatnonzero(words > _MAX_WORDS)
        small = np.flatnonzero(words <= _MAX_WORDS)
        groups = np.cumsum(words[small]) // _MAX_WORDS
        borders = np.flatnonzero(groups[1:] != groups[:-1]) + 1
        found = [self._walk(i) for i in large.tolist()]
        found += [self._chains(group) for group in np.split(small, borders)]
        which, index, places, lengths = (np.concatenate(part) for part in zip(*found, strict=True))
        self._most = np.zeros(len(words), np.int64)
        np.maximum.at(self._most, which, index)
        self._slots = np.cumsum(self._most + 1) - (self._most + 1)
        total = int((self._most + 1).sum())
        self._positions = np.full(total, -1, np.int64)
        self._lengths = np.zeros(total, np.int64)
        self._positions[self._slots[which] + index] = (places << 3) + _HEADER
        self._lengths[self._slots[which] + index] = lengths

    def _chains(self, group: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the objects of some collections: collection, index, first word and size of each object.

        The header of an object has its size, and thus the position of the next one. Possible headers are
        found in one pass. All chains of headers are then followed together, with doubling steps.
        """
        words = self._buffer.view("<u8")
        sizes = self._sizes[group] >> 3
        begin = np.cumsum(sizes) - sizes
        owner = np.repeat(np.arange(len(group)), sizes)
        here = np.arange(len(owner))
        place = np.repeat((self._first[group] >> 3) - begin, sizes) + here
        index = (words[place] & _low(16)).astype(np.int64)
        length = words[place + 1].astype(np.int64)
        room = ((begin + sizes)[owner] - here << 3) - _HEADER
        # Object 0 is the free space behind the last one. The upper half of a header's first word is zero.
        may_be = (words[place] >> np.uint64(32) == 0) & (index > 0) & (length >= 0) & (length <= room)
        may_be &= index << 1 <= sizes[owner]
        candidates = here[may_be]
        number = np.full(len(here) + 1, len(candidates))
        number[candidates] = np.arange(len(candidates))
        following = candidates + 2 + (length[may_be] + 7 >> 3)
        jump = np.append(number[following], len(candidates))
        reached = number[(begin + (_HEADER >> 3))[sizes > 2]]  # noqa: PLR2004 - room for a header
        reached = reached[reached < len(candidates)]
        while True:
            further = jump[reached]
            further = further[further < len(candidates)]
            if not len(further):
                break
            reached = np.concatenate([reached, further])
            jump = jump[jump]
        chosen = candidates[reached]
        return group[owner[chosen]], index[chosen], place[chosen], length[chosen]

    def _walk(self, collection: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the objects of one large collection (see `_chains`), object by object, as it has few."""
        words = self._buffer.view("<u8")
        at = (int(self._first[collection]) + _HEADER) >> 3
        size = int(self._sizes[collection])
        end = (int(self._first[collection]) + size) >> 3
        found: list[tuple[int, int, int]] = []
        while at + 1 < end and len(found) <= 0xFFFF:  # noqa: PLR2004 - the maximum index
            head, length = int(words[at]), int(words[at + 1])
            index = head & 0xFFFF
            if head >> 32 or not index or length > (end - at << 3) - _HEADER or index << 4 > size:
                break
            found.append((index, at, length))
            at += 2 + (length + 7 >> 3)
        index_, places, lengths = np.array(found, np.int64).reshape(-1, 3).T
        return np.full(len(found), collection), index_, places, lengths


def _keys(owners: np.ndarray, fields: np.ndarray) -> np.ndarray:
    """Return the file and the address of each element's collection as one number.

    An address of 0 marks an unwritten element, as in libhdf5.
    """
    addresses = fields["address"]
    if len(addresses) and int(addresses.max()) >> _ADDRESS_BITS:
        addresses = np.minimum(addresses, _low(_ADDRESS_BITS))  # beyond any file's end, and stay so
    keys: np.ndarray = owners.astype(np.uint64) << np.uint64(_ADDRESS_BITS) | addresses
    return keys


def _low(bits: int) -> np.uint64:
    return np.uint64((1 << bits) - 1)


def _fields(references: np.ndarray) -> np.ndarray:
    fields: np.ndarray = np.ascontiguousarray(references).view(_REFERENCE).reshape(-1)
    return fields


def _run_starts(keys: np.ndarray) -> np.ndarray:
    """Drop repeats of neighbours: elements of a column mostly follow one another in the same collection."""
    if len(keys) < 2:  # noqa: PLR2004
        return keys
    starts: np.ndarray = keys[np.concatenate([[True], keys[1:] != keys[:-1]])]
    return starts


def _read_ranges(
    files: list[File], owners: np.ndarray, addresses: np.ndarray, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Read byte ranges of several files, each to a place in one buffer that is a multiple of 8."""
    padded = sizes + 7 & ~7
    first = np.concatenate([[0], np.cumsum(padded)])
    buffer = np.zeros(int(first[-1]) + _HEADER, np.uint8)  # so that a look past a short one stays inside
    work: list[tuple[File, list[Request]]] = []
    for number in _run_starts(owners).tolist():  # ascending, because the collections are sorted by file
        requests = []
        for i in np.flatnonzero(owners == number).tolist():
            size, start = int(sizes[i]), int(first[i])
            array = Array("variable-length data", (1,), _BYTES, "contiguous", offset=int(addresses[i]))
            out = buffer[start : start + size].reshape(1, size)
            requests.append(Request(array, None, _ONE_ROW, out))
        work.append((files[number], requests))
    fetch(work)
    return buffer, first[:-1]


_ONE_ROW = np.array([[0, 1]])
