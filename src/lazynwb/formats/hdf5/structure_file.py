"""The structure reader: HDF5 files and objects, parsed without libhdf5; see `lazynwb.formats.protocols`.

Parsing is strict: violations of the format and unsupported features end a parse with an error before any
value is published, and libhdf5 reads the file instead.
"""

from __future__ import annotations

import math
import struct
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

from lazynwb.formats.hdf5.binary import (
    UNDEFINED,
    DamagedStructureError,
    LocalBytes,
    MissingRangesError,
    RemoteBytes,
    UnsupportedStructureError,
)
from lazynwb.formats.hdf5.checksums import Checksums
from lazynwb.formats.hdf5.datatypes import StoredType, decode_datatype
from lazynwb.formats.hdf5.fractal_heap import FractalHeap
from lazynwb.formats.hdf5.global_heap import Collection, read_collection
from lazynwb.formats.hdf5.groups import find_link, read_links
from lazynwb.formats.hdf5.messages import EXTERNAL, HARD, SOFT, Link
from lazynwb.formats.hdf5.object_header import (
    BTREE_K,
    CACHE_IMAGE,
    DATASPACE,
    DATATYPE,
    DRIVER_INFO,
    SHARED_TABLE,
    ObjectHeader,
    is_group,
    read_header,
    shared_address,
    unfetched_group,
)
from lazynwb.formats.hdf5.stored_attributes import (
    StoredAttribute,
    decode_attribute,
    is_too_large,
    plain_value,
    read_attributes,
    text_values,
)
from lazynwb.formats.hdf5.stored_datasets import (
    check_dataset,
    chunked_dataset,
    describe_dataset,
    listed_dtype,
    single_number,
    space_of,
    text_elements,
    type_of,
)
from lazynwb.formats.hdf5.superblock import Superblock, read_superblock
from lazynwb.formats.partial_file import PartialFile, find_paths
from lazynwb.formats.protocols import (
    BrokenLinkError,
    NoObjectError,
    follow,
    link_error,
)
from lazynwb.profile import count

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    import numpy as np

    from lazynwb.catalog.model import Array, ChunkIndex, PartialChunkIndex
    from lazynwb.storage.source import Source

_MAX_TEXT_WIDTH = 4096
#: Maximum number of single lookups in a group before all of its links are read.
_MAX_SINGLE_LINKS = 8
#: Bytes of the B-tree and the local heap of a group that are prefetched with its header.
_LINKS_PREFETCH = 1024
#: Maximum number of cached headers and groups; a walk through a larger file reads some of them again.
_MAX_CACHED = 50_000
_K = struct.Struct("<BHHH")

T = TypeVar("T")


class StructureFile(PartialFile):
    """A file whose structure is decoded from its bytes.

    Parameters
    ----------
    source : Source
        Location of the file.
    version : str
        Identity of the file; other versions of a remote file are not read.
    """

    _missing_error = MissingRangesError

    def __init__(self, source: Source, version: str) -> None:
        super().__init__()
        self.path = source
        self.name = source.name
        self._identity = version
        self.source = _bytes_of(source, version)
        self._ranges = self.source.missing if isinstance(self.source, RemoteBytes) else None
        self.superblock = Superblock(0, 0, 0, 0)
        self.base = 0
        self._end = 0
        self._headers: dict[int, ObjectHeader] = {}
        self._links: dict[int, dict[bytes, Link]] = {}
        self._some_links: dict[int, dict[bytes, Link]] = {}
        self._collections: dict[int, Collection] = {}
        self._heaps: dict[int, FractalHeap] = {}
        self._types: dict[int, StoredType] = {}
        self._checksums = Checksums()
        self._last: tuple[str, StructureNode] | None = None
        self._described: dict[str, StructureNode] = {}
        count(files_opened=1)

    def close(self) -> None:
        """Close the file and the target files of its links."""
        for linked in self._linked.values():
            linked.close()
        self._linked.clear()
        self.source.close()

    # --- bytes ----------------------------------------------------------------------------------------

    def open(self) -> None:
        """Read the superblock, unless it has been read."""
        if self._end:
            return
        superblock = read_superblock(self.source)
        self.base, self._end = superblock.base, superblock.end
        self.superblock = superblock
        if superblock.extension != UNDEFINED:
            try:
                self.superblock = self._extended(superblock)
            except MissingRangesError:
                self._end = 0
                raise

    def _extended(self, superblock: Superblock) -> Superblock:
        header = read_header(self, superblock.extension)
        for kind in (SHARED_TABLE, DRIVER_INFO, CACHE_IMAGE):
            if kind in header.messages:
                raise UnsupportedStructureError(f"a superblock extension with messages of type {kind}")
        found = header.messages.get(BTREE_K)
        if found is None:
            return superblock
        if len(found[1]) < _K.size:
            raise DamagedStructureError("a B-tree 'K' values message is too short")
        version, chunk, internal, leaf = _K.unpack_from(found[1])
        if version or not (chunk and internal and leaf):
            raise UnsupportedStructureError("a B-tree 'K' values message of an unknown version")
        return superblock._replace(chunk_k=chunk, group_internal_k=internal, group_leaf_k=leaf)

    def get(self, address: int, size: int, ahead: int = 0) -> bytes:
        """Return bytes at an address; a remote file fetches at least `ahead` bytes from there."""
        start = address + self.base
        if start + size > self._end:
            raise DamagedStructureError(f"bytes {start} to {start + size} are outside the file")
        return self.source.get(start, size, ahead)

    def expect(self, start: int, stop: int) -> None:
        """Fetch bytes between two addresses of a remote file with those that are missing."""
        if self._ranges is not None:
            self._ranges.expect([(start + self.base, stop + self.base)])

    def queue_checksum(self, data: bytes, what: str) -> None:
        """Queue a structure, whose last four bytes are its checksum, for verification after the parse."""
        self._checksums.queue(data, what)

    def verify_checksums(self) -> None:
        """Raise `DamagedStructureError` if a checksum does not match in this file or in linked files."""
        self._checksums.verify()
        for linked in self._linked.values():
            linked.verify_checksums()

    def run(self, parse: Callable[[StructureFile], T]) -> T:
        """Run a parse, and verify the checksums of all structures that it has read."""
        try:
            self.open()
            return parse(self)
        finally:
            self.verify_checksums()

    def header(self, address: int) -> ObjectHeader:
        """Return the object header at an address."""
        found = self._headers.get(address)
        if found is None:
            if len(self._headers) >= _MAX_CACHED:
                self._headers.clear()
            found = read_header(self, address)
            if found.missing is None:
                self._headers[address] = found
        return found

    def opened(self, address: int, links: tuple[int, int] | None = None) -> StructureNode:
        """Open the object at an address.

        Parameters
        ----------
        address : int
            Address of the object header.
        links : (int, int), optional
            Cached addresses of the B-tree and the local heap of a group. In a remote file they are fetched
            together with the header, and the group can be walked before the header has been fetched.
        """
        if links is not None and self._ranges is not None:
            for place in links:
                self.expect(place, place + _LINKS_PREFETCH)
            try:
                return StructureNode(self, self.header(address))
            except MissingRangesError as error:
                return StructureNode(self, unfetched_group(address, links, error))
        return StructureNode(self, self.header(address))

    def links(self, header: ObjectHeader) -> dict[bytes, Link]:
        """Return the links of a group."""
        found = self._links.get(header.address)
        if found is None:
            if len(self._links) >= _MAX_CACHED:
                self._links.clear()
            found = read_links(self, header)
            if header.missing is None:
                self._links[header.address] = found
        return found

    def link(self, header: ObjectHeader, name: bytes) -> Link | None:
        """Return the link of a group by name; None if there is none."""
        links = self._links.get(header.address)
        if links is not None:
            return links.get(name)
        if len(self._some_links) >= _MAX_CACHED:
            self._some_links.clear()
        known = self._some_links.setdefault(header.address, {})
        found = known.get(name)
        if found is None and len(known) < _MAX_SINGLE_LINKS:
            found = find_link(self, header, name)
            if found is not None and header.missing is None:
                known[name] = found
        return found if found is not None else self.links(header).get(name)

    def heap_collection(self, address: int) -> Collection:
        """Return the global heap collection at an address."""
        found = self._collections.get(address)
        if found is None:
            if len(self._collections) >= _MAX_CACHED // 50:
                self._collections.clear()
            found = self._collections[address] = read_collection(self, address)
        return found

    def heap(self, address: int) -> FractalHeap:
        """Return the fractal heap at an address."""
        found = self._heaps.get(address)
        if found is None:
            if len(self._heaps) >= _MAX_CACHED // 50:
                self._heaps.clear()
            found = self._heaps[address] = FractalHeap(self, address)
        return found

    def committed_type(self, body: bytes) -> StoredType:
        """Return the committed datatype that a shared datatype message refers to."""
        address = shared_address(body)
        found = self._types.get(address)
        if found is None:
            header = self.header(address)
            if header.missing is not None:
                raise header.missing
            message = header.messages.get(DATATYPE)
            if message is None or message[0] & 2:
                raise DamagedStructureError("a committed datatype without a datatype message")
            found = self._types[address] = decode_datatype(message[1])
        return found

    # --- lazynwb.formats.protocols.OpenFile ---------------------------------------------------------------

    @property
    def root(self) -> StructureNode:
        """The root group."""
        self.open()
        found = self.opened(self.superblock.root, self.superblock.root_links)
        if not found.is_group:
            raise DamagedStructureError("the root is not a group")
        return found

    def find(self, path: str) -> StructureNode:
        """Open the object at a path from the root; raise BrokenLinkError if it does not exist."""
        parent, _, name = path.rpartition("/")
        if self._last is not None and self._last[0] == parent:
            return follow(self._last[1], name.encode(), 0)
        found = follow(self.root, parent.encode(), 0)
        if found.header.missing is None:
            self._last = parent, found
        return follow(found, name.encode(), 0)

    def paths_of(self, addresses: set[Hashable]) -> dict[Hashable, str]:
        """Return the paths of objects by their addresses, without those that do not exist."""
        return find_paths(self, addresses, self.resolve_references)

    def resolve_references(self, addresses: set[int]) -> dict[int, str]:
        """Return the paths of the objects at addresses, by a breadth-first walk from the root."""
        root = self.root
        unresolved = set(addresses) - {0}
        found: dict[int, str] = {}
        if root.address in unresolved:
            found[root.address] = "/"
            unresolved.discard(root.address)
        seen = {root.address}
        queue: deque[tuple[str, StructureNode]] = deque([("", root)])
        while queue and unresolved:
            prefix, group = queue.popleft()
            with self.collect_misses():
                for key, link in group.links().items():
                    if link.kind != HARD or link.address in seen:
                        continue
                    seen.add(link.address)
                    path = f"{prefix}/{key.decode('utf-8', 'replace')}"
                    if link.address in unresolved:
                        unresolved.discard(link.address)
                        found[link.address] = path
                    with self.collect_misses():
                        child = group.opened(link)
                        if child.is_group:
                            queue.append((path, child))
        return found

    def external(self, name: bytes) -> StructureFile:
        """Open the target file of an external link, if the settings allow it."""
        text = name.decode("utf-8", "surrogateescape")
        return self._linked_file(self.path, self.path.sibling(text), "the external link to {}", text)

    def _open_linked(self, target: Source) -> StructureFile:
        return StructureFile(target, target.identity())

    # --- chunks ---------------------------------------------------------------------------------------

    def note_described(self, path: str, node: StructureNode) -> None:
        """Keep the dataset of a described array for the look-up of its chunks."""
        if len(self._described) >= _MAX_CACHED:
            self._described.clear()
        self._described[path] = node

    def chunk_index(self, array: Array) -> ChunkIndex:
        """Return the locations of all chunks of an array."""
        # Late: schemas need no NumPy, whose import takes as long as parsing dozens of files.
        from lazynwb.formats.hdf5.chunk_index import read_chunk_index

        found = self._described.get(array.path) or self.find(array.path)
        return read_chunk_index(found.file, chunked_dataset(found.header))

    def partial_chunk_index(self, array: Array, numbers: np.ndarray) -> PartialChunkIndex:
        """Return the locations of some chunks of an array, by number in row-major order of the chunk grid."""
        from lazynwb.formats.hdf5.chunk_index import read_partial_chunk_index

        found = self.find(array.path)
        return read_partial_chunk_index(found.file, chunked_dataset(found.header), numbers)


def _bytes_of(source: Source, version: str) -> LocalBytes | RemoteBytes:
    if not source.is_remote:
        return LocalBytes(source.path)
    from lazynwb.storage.remote_file import RemoteFile

    return RemoteBytes(RemoteFile(source, version))


class StructureNode:
    """An object and its file, which may be the target of an external link."""

    __slots__ = ("_attributes", "file", "header", "is_dataset", "is_group")

    def __init__(self, file: StructureFile, header: ObjectHeader) -> None:
        self.file = file
        self.header = header
        self.is_group = is_group(header)
        has_type = DATATYPE in header.messages
        self.is_dataset = has_type and DATASPACE in header.messages and not self.is_group
        if not (self.is_group or has_type):
            raise DamagedStructureError("an object that is no group, dataset or committed datatype")
        if not (self.is_group or self.is_dataset) and header.missing is None:
            type_of(file, header)  # a damaged group or dataset must not pass for a committed datatype
        self._attributes: dict[bytes, bytes] | None = None

    @property
    def address(self) -> int:
        """Address of the object header in its file."""
        return self.header.address

    def links(self) -> dict[bytes, Link]:
        """Return the links of a group."""
        return self.file.links(self.header)

    def member_names(self) -> Iterable[bytes]:
        """Return the names of the members of a group."""
        return list(self.links())

    def child(self, key: bytes) -> StructureNode:
        """Open a member of a group, following links; raise BrokenLinkError if a link is broken."""
        if b"/" in key or key == b".":
            return follow(self, key, 0)
        return self.step(key, 0)

    def step(self, name: bytes, hops: int) -> StructureNode:
        """Open a member by name, after `hops` links."""
        shown = name.decode("utf-8", "replace")
        if not self.is_group:
            raise NoObjectError(f"{shown!r} was looked up in a dataset")
        link = self.file.link(self.header, name)
        if link is None:
            if self.header.missing is not None:
                raise self.header.missing
            raise NoObjectError(f"there is no {shown!r}")
        if link.kind == HARD:
            return self.opened(link)
        try:
            if link.kind == SOFT:
                return follow(self, link.value, hops + 1)
            if link.kind == EXTERNAL:
                return follow(self.file.external(link.file).root, link.value, hops + 1)
        except BrokenLinkError as error:
            raise link_error(shown, error, hops) from None
        raise BrokenLinkError(f"{shown!r} is a link of an unknown type")

    def opened(self, link: Link) -> StructureNode:
        """Open the target of a hard link."""
        return self.file.opened(link.address, link.group)

    def address_of(self, key: bytes) -> int | None:
        """Return the address of the target of a hard link; None for other links."""
        link = self.links()[key]
        return link.address if link.kind == HARD else None

    def _raise_if_missing(self) -> None:
        """Raise an error if messages of the header have not been fetched."""
        if self.header.missing is not None:
            raise self.header.missing

    def _attribute_messages(self) -> dict[bytes, bytes]:
        if self._attributes is None:
            self._attributes = read_attributes(self.file, self.header)
        return self._attributes

    def _attribute(self, name: str) -> StoredAttribute | None:
        """Return an attribute; None if it does not exist or exceeds the limits of what is read."""
        body = self._attribute_messages().get(name.encode())
        if body is None:
            self._raise_if_missing()
            return None
        found = decode_attribute(self.file, body)
        return None if is_too_large(found) else found

    def has_attribute(self, name: str) -> bool:
        """Return whether an attribute exists, even if it is unreadable."""
        found = name.encode() in self._attribute_messages()
        if not found:
            self._raise_if_missing()
        return found

    def text(self, name: str) -> str:
        """Return a text attribute; an empty string if it does not exist."""
        found = self._attribute(name)
        items = text_values(self.file, found) if found is not None else None
        return items[0] if items else ""

    def names(self, name: str) -> list[str] | None:
        """Return an attribute that is a list of names; None if it does not exist."""
        found = self._attribute(name)
        if found is None or found.shape is None:
            return None
        items = text_values(self.file, found)
        if items is None:
            if found.stored.dtype.kind == "unsupported" or found.stored.name in {"array", "vlen"}:
                raise UnsupportedStructureError("a list of names of an unsupported type")
            return []
        stripped = [item.strip(" ") for item in items]
        return list(dict.fromkeys(item for item in stripped if item))

    def attributes(self) -> dict[str, Any]:
        """Return all attributes as plain values, sorted by name."""
        self._raise_if_missing()
        stored = self._attribute_messages()
        return {
            name.decode("utf-8", "replace"): plain_value(self.file, decode_attribute(self.file, stored[name]))
            for name in sorted(stored)
        }

    def target(self, name: str = "target") -> int | None:
        """Return the address of the object that an attribute refers to; None without such a reference."""
        found = self._attribute(name)
        if found is None or found.stored.name not in {"object", "region"}:
            return None
        if found.shape is None or math.prod(found.shape) != 1:
            return None
        if found.stored.name == "region":
            raise UnsupportedStructureError("a region reference where an object reference is expected")
        return int.from_bytes(found.data[:8], "little") or None

    def referred(self, name: str) -> StructureNode | None:
        """Open the object that an attribute refers to; None without such a reference."""
        address = self.target(name)
        return self.file.opened(address) if address is not None else None

    def describe(self, path: str, main: StructureFile) -> Array:
        """Describe a dataset, which may be the target of a link in the file `main`."""
        source = None if self.file is main else self.file.path.path
        found = describe_dataset(self.file, self.header, path, source)
        main.note_described(path, self)
        return found

    def texts(self, limit: int) -> list[str] | None:
        """Return the elements of a list of text; None for other datasets, and for too many elements."""
        return text_elements(self.file, self.header, limit, _MAX_TEXT_WIDTH) if self.is_dataset else None

    def is_null(self) -> bool:
        """Return whether a dataset has a null dataspace."""
        return space_of(self.header).shape is None

    def number(self) -> float | None:
        """Return the value of a dataset that is a single number; None for other datasets."""
        return single_number(self.file, self.header)

    def start_and_rate(self) -> tuple[float, float] | None:
        """Return the value of a `starting_time` dataset and its `rate`; None if they are not numbers."""
        found = self._attribute("rate")
        first = self.number()
        if found is None or found.shape is None or 0 in found.shape:
            return None
        if found.stored.name not in {"integer", "float"} or not found.stored.direct:
            raise UnsupportedStructureError("a rate that is not a plain number")
        import numpy as np

        value = float(np.frombuffer(found.data, found.stored.dtype.numpy)[0])
        return (first, value) if first is not None and math.isfinite(value) and value > 0 else None

    def shown(self) -> tuple[tuple[int, ...] | None, str]:
        """Return the shape and type of a dataset in a listing."""
        stored = type_of(self.file, self.header)
        check_dataset(self.header, stored)
        return space_of(self.header).shape, listed_dtype(stored)
