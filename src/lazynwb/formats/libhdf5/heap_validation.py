"""Validation of heap collections before libhdf5 loads them, because it loops forever on damaged ones.

Variable-length text and sequences are stored in global heap collections (HDF5 File Format Specification,
III.E). When libhdf5 loads a collection, it iterates over its objects by their stored sizes, which never ends
if a size is 0. Blocks that libhdf5 reads through a Python object are validated as they pass (`block_stream`).
Local files are read by libhdf5 itself, which is faster; the collections of an object's attributes are found
in its header (ibid., IV.A) and validated in advance.
"""

from __future__ import annotations

import struct
from io import SEEK_END, FileIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIGNATURE = b"GCOL"
_COLLECTION = struct.Struct("<4sB3xQ")
_OBJECT = struct.Struct("<H6xQ")
_U8 = struct.Struct("<Q")
_OLD_HEADER = struct.Struct("<BxHII4x")
_OLD_MESSAGE = struct.Struct("<HH")  # and flags: 8 bytes in all
_NEW_MESSAGE = struct.Struct("<BH")  # and flags, optionally an order
_ATTRIBUTE = struct.Struct("<BBHHH")
_BLOCK = struct.Struct("<QQ")
_ELEMENT = struct.Struct("<IQI")
#: Types of messages in an object header.
_ATTRIBUTE_MESSAGE, _CONTINUATION, _ATTRIBUTE_INFO = 0x0C, 0x10, 0x15
#: Classes of datatypes: variable length, and those with members.
_VARIABLE, _COMPOUND, _ARRAY = 9, 6, 10
#: Maximum number of blocks of a header; a cycle of blocks is damage.
_MAX_BLOCKS = 1000
#: Size of the first read, which contains most headers.
_FIRST_READ = 768
#: Maximum size of a validated header block or collection; larger ones are left to libhdf5.
_MAX_BYTES = 1 << 26


class DamagedHeapError(OSError):
    """A heap collection that libhdf5 must not load."""


def check_collection(content: bytes | bytearray | memoryview, address: int) -> None:
    """Check that the objects of a collection are contiguous up to its end.

    Raises
    ------
    DamagedHeapError
        If they are not.
    """
    at, end = _COLLECTION.size, len(content)
    unpack, header = _OBJECT.unpack_from, _OBJECT.size
    while at + header <= end:
        index, size = unpack(content, at)
        # Object 0 is the free space, whose size includes its header.
        step = header + (size + 7 & ~7) if index else size
        if not 0 < step <= end - at:
            raise DamagedHeapError(f"the heap of variable-length data at byte {address} is damaged")
        at += step


class Collections:
    """The collections of a file, each of which is validated once.

    Parameters
    ----------
    read : callable
        Returns bytes of the file at a position; fewer at the end of the file.
    """

    def __init__(self, read: Callable[[int, int], bytes]) -> None:
        self._read = read
        self._sound: dict[int, int] = {}

    def check(self, position: int) -> int:
        """Validate the collection at a position, if there is one; return its size, or else 0.

        Raises
        ------
        DamagedHeapError
        """
        if position in self._sound:
            return self._sound[position]
        size = 0
        head = self._read(position, 4096)
        if len(head) >= _COLLECTION.size and head.startswith(SIGNATURE):
            size = int(_COLLECTION.unpack_from(head)[2])
            if size > len(head):
                head = self._read(position, size) if size <= _MAX_BYTES else b""
            # libhdf5 itself detects a collection that is truncated by the end of the file.
            check_collection(head[:size] if len(head) >= size else b"", position)
        self._sound[position] = size
        return size

    def check_passing(self, start: int, passing: bytes) -> None:
        """Validate the collections that begin in a range that was read."""
        at = passing.find(SIGNATURE)
        while at >= 0:
            self.check(start + at)
            at = passing.find(SIGNATURE, at + 1)


class Heaps(Collections):
    """The collections of a local file, which libhdf5 reads by itself.

    Parameters
    ----------
    path : str
        Path of the file.
    base : int
        Offset of addresses (the size of the user block).
    """

    def __init__(self, path: str, base: int) -> None:
        super().__init__(self._read_file)
        self._path = path
        self._file: FileIO | None = None
        self._size = 0
        self._base = base
        self._seen: set[int] = set()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read_file(self, start: int, size: int) -> bytes:
        if self._file is None:
            self._file = FileIO(self._path)
            self._size = self._file.seek(0, SEEK_END)
        if start >= self._size:
            return b""
        self._file.seek(start)
        return self._file.read(size)

    def check_attributes(self, address: int) -> None:
        """Validate every collection of the attributes of an object.

        Parameters
        ----------
        address : int
            Address of the object header.

        Raises
        ------
        DamagedHeapError
            If one is damaged.
        """
        if address in self._seen:
            return
        for kind, message in self._messages(address + self._base):
            if kind == _ATTRIBUTE_MESSAGE:
                for collection, length in _collections(message):
                    if length > self.check(collection + self._base):
                        # libhdf5 allocates all of it before checking.
                        raise DamagedHeapError(
                            f"an attribute refers to {length} bytes that are not in its heap"
                        )
            elif kind == _ATTRIBUTE_INFO:
                self._check_dense(message)
        self._seen.add(address)

    def _messages(self, position: int) -> Iterator[tuple[int, bytes]]:
        """Yield type and content of each message of a header, up to the first invalid one."""
        head = self._read(position, _FIRST_READ)
        new = head.startswith(b"OHDR")
        if new:
            flags = head[5]
            width = 1 << (flags & 3)
            first = 6 + (16 if flags & 32 else 0) + (4 if flags & 16 else 0)
            size = int.from_bytes(head[first : first + width], "little")
            first += width
            skip = 6 if flags & 4 else 4
        else:
            if len(head) < _OLD_HEADER.size:
                return
            size = _OLD_HEADER.unpack_from(head)[3]
            first, skip = _OLD_HEADER.size, 8
        blocks = [(position, first, size)]
        for start, skipped, length in blocks:
            if length > _MAX_BYTES or len(blocks) > _MAX_BLOCKS:
                return
            block = head if start == position else b""
            if len(block) < skipped + length:
                block = self._read(start, skipped + length)
            block = block[skipped : skipped + length]
            for kind, message in _messages_of(block, _NEW_MESSAGE if new else _OLD_MESSAGE, skip):
                if kind == _CONTINUATION and len(message) >= _BLOCK.size:
                    following, size = _BLOCK.unpack_from(message)
                    # Blocks of the newer format begin with a signature and end with a checksum.
                    blocks.append(
                        (following + self._base, 4 if new else 0, max(size - 8, 0) if new else size)
                    )
                else:
                    yield kind, message

    def _check_dense(self, message: bytes) -> None:
        """Validate the collections of attributes in dense storage, which have a fractal heap.

        Its nested blocks are found by their signatures, and every value in them that may be an address is
        treated as one.
        """
        at = 4 if message[1] & 1 else 2
        if len(message) < at + 8:
            return
        heap = _U8.unpack_from(message, at)[0]
        header = self._read(heap + self._base, 146) if heap < _UNDEFINED else b""
        if not header.startswith(b"FRHP"):
            return
        largest = min(_U8.unpack_from(header, 120)[0], _MAX_BYTES >> 6)
        blocks, seen = [int.from_bytes(header[132:140], "little")], set[int]()
        while blocks and len(seen) < _MAX_BLOCKS:
            address = blocks.pop()
            if address in seen or address >= _UNDEFINED:
                continue
            seen.add(address)
            if self._read(address + self._base, 4) not in {b"FHIB", b"FHDB"}:
                continue
            block = self._read(address + self._base, max(largest, 8 * _MAX_CHILDREN + 64))
            if block.startswith(b"FHIB"):
                first = 13 + (int.from_bytes(header[128:130], "little") + 7) // 8
                blocks += [child for (child,) in _U8.iter_unpack(block[first : first + 8 * _MAX_CHILDREN])]
            else:
                for collection in _any_address(block):
                    if self._read(collection + self._base, 4) == SIGNATURE:
                        self.check(collection + self._base)


#: Addresses from here on are invalid, including the undefined address.
_UNDEFINED = 2**48
_MAX_CHILDREN = 512


def _messages_of(block: bytes, head: struct.Struct, skipped: int) -> list[tuple[int, bytes]]:
    """Return type and content of the relevant messages of a block."""
    found = []
    at, end = 0, len(block)
    while at + skipped <= end:
        kind, size = head.unpack_from(block, at)
        at += skipped
        if kind in _WANTED:
            found.append((kind, block[at : at + size]))
        at += size
    return found


_WANTED = {_ATTRIBUTE_MESSAGE, _CONTINUATION, _ATTRIBUTE_INFO}


def _collections(message: bytes) -> Iterator[tuple[int, int]]:
    """Yield the addresses of the collections of an attribute, and the lengths of its elements in them.

    Raises
    ------
    DamagedHeapError
        If libhdf5 crashes on its datatype.
    """
    if len(message) < _ATTRIBUTE.size:
        return
    version, flags, name, dtype, space = _ATTRIBUTE.unpack_from(message)
    if version == 1:
        name, dtype, space = name + 7 & ~7, dtype + 7 & ~7, space + 7 & ~7
    start = _ATTRIBUTE.size + (version == 3) + name  # noqa: PLR2004 - it has the encoding of the name
    if start >= len(message):
        return
    kind = message[start] & 15
    data = start + dtype + space
    if (version > 1 and flags & 1) or kind in {_COMPOUND, _ARRAY}:
        # The type is shared, or has members.
        yield from ((address, 0) for address in _any_address(message[data:]))
    elif kind == _VARIABLE:
        if message[start + 1] & 15 > 1:
            # Neither a sequence nor text: libhdf5 dereferences a null pointer.
            raise DamagedHeapError("an attribute's type of variable length is damaged")
        known, longest = 0, 0
        stop = data + (len(message) - data) // _ELEMENT.size * _ELEMENT.size
        for length, address, _ in _ELEMENT.iter_unpack(message[data:stop]):
            if (address != known or length > longest) and 0 < address < _UNDEFINED:
                known, longest = address, length
                yield address, length


def _any_address(content: bytes) -> set[int]:
    """Return every value that may be an address, at any offset."""
    found = {_U8.unpack_from(content, at)[0] for at in range(len(content) - 7)}
    return {address for address in found if 0 < address < _UNDEFINED}
