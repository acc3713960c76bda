"""A file of the structure reader, and its objects: see `lazynwb.formats.protocols`.

Everything is strict: what contradicts the format, or is not known, ends the parse with an error before any
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
    unread_group,
)
from lazynwb.formats.hdf5.stored_attributes import (
    StoredAttribute,
    decode_attribute,
    is_too_large,
    plain_value,
    read_attributes,
    texts,
)
from lazynwb.formats.hdf5.stored_datasets import (
    check_dataset,
    chunked,
    describe_dataset,
    shown_dtype,
    single_number,
    space_of,
    text_elements,
    type_of,
)
from lazynwb.formats.hdf5.superblock import Superblock, read_superblock
from lazynwb.formats.partial_file import PartialFile
from lazynwb.formats.protocols import (
    BrokenLinkError,
    NoObjectError,
    follow,
    link_error,
)
from lazynwb.formats.references import find_paths
from lazynwb.profile import count

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    import numpy as np

    from lazynwb.catalog.model import Array, ChunkIndex, SomeChunks
    from lazynwb.storage.source import Source

_MAX_TEXT_WIDTH = 4096
#: Links of a group that are looked up one by one, before all of them are read.
_MOST_SINGLE_LINKS = 8
#: What is fetched of a group's B-tree and heap together with its header.
_LINKS_AHEAD = 1024
#: Headers, collections and groups that are kept; a walk through a larger file reads some of them again.
_MAX_KEPT = 50_000
_K = struct.Struct("<BHHH")

T = TypeVar("T")


class StructureFile(PartialFile):
    """A file whose structure is read from its bytes.

    Parameters
    ----------
    source : Source
    version : str
        Its identity: of a remote file, no other version is read.
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
        count(files_opened=1)

    def close(self) -> None:
        """Close the file and those that links led to."""
        for linked in self._linked.values():
            linked.close()
        self._linked.clear()
        self.source.close()

    # --- bytes ----------------------------------------------------------------------------------------

    def open(self) -> None:
        """Read the superblock, unless that has been done."""
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
            raise DamagedStructureError("a message of the superblock extension is too short")
        version, chunk, internal, leaf = _K.unpack_from(found[1])
        if version or not (chunk and internal and leaf):
            raise UnsupportedStructureError("a superblock extension of an unknown version")
        return superblock._replace(chunk_k=chunk, group_internal_k=internal, group_leaf_k=leaf)

    def get(self, address: int, size: int, ahead: int = 0) -> bytes:
        """Return bytes from an address on; `ahead` is how much is likely to be needed from there."""
        start = address + self.base
        if start + size > self._end:
            raise DamagedStructureError(f"bytes {start} to {start + size} lie outside of the file")
        return self.source.get(start, size, ahead)

    def verify(self, data: bytes, what: str) -> None:
        """Have the checksum verified that the last four bytes are, before anything of this parse is used."""
        self._checksums.note(data, what)

    def verify_checksums(self) -> None:
        """Raise `DamagedStructureError` if a checksum of what was read does not match; behind links, too."""
        self._checksums.verify()
        for linked in self._linked.values():
            linked.verify_checksums()

    def run(self, parse: Callable[[StructureFile], T]) -> T:
        """Return the result of a parse, or raise its error, once the checksums of what it has read match."""
        try:
            self.open()
            return parse(self)
        finally:
            self.verify_checksums()

    def header(self, address: int) -> ObjectHeader:
        """Return the object header at an address."""
        found = self._headers.get(address)
        if found is None:
            if len(self._headers) >= _MAX_KEPT:
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
        links : (int, int), optional
            Of a group its parent knows where its B-tree and heap are: of a remote file, they come with its
            header, and what they lead to may be noted before it is here.
        """
        if links is not None and self._ranges is not None:
            places = [place + self.base for place in links]
            self._ranges.expect((place, place + _LINKS_AHEAD) for place in places)
            try:
                return StructureNode(self, self.header(address))
            except MissingRangesError as error:
                return StructureNode(self, unread_group(address, links, error))
        return StructureNode(self, self.header(address))

    def links(self, header: ObjectHeader) -> dict[bytes, Link]:
        """Return the links of a group."""
        found = self._links.get(header.address)
        if found is None:
            if len(self._links) >= _MAX_KEPT:
                self._links.clear()
            found = read_links(self, header)
            if header.missing is None:
                self._links[header.address] = found
        return found

    def link(self, header: ObjectHeader, name: bytes) -> Link | None:
        """Return the link of a group that has a name; None if there is none."""
        links = self._links.get(header.address)
        if links is not None:
            return links.get(name)
        if len(self._some_links) >= _MAX_KEPT:
            self._some_links.clear()
        known = self._some_links.setdefault(header.address, {})
        found = known.get(name)
        if found is None and len(known) < _MOST_SINGLE_LINKS:
            found = find_link(self, header, name)
            if found is not None and header.missing is None:
                known[name] = found
        return found if found is not None else self.links(header).get(name)

    def heap_collection(self, address: int) -> Collection:
        """Return the objects of a global heap collection."""
        found = self._collections.get(address)
        if found is None:
            if len(self._collections) >= _MAX_KEPT // 50:
                self._collections.clear()
            found = self._collections[address] = read_collection(self, address)
        return found

    def heap(self, address: int) -> FractalHeap:
        """Return the fractal heap at an address."""
        found = self._heaps.get(address)
        if found is None:
            if len(self._heaps) >= _MAX_KEPT // 50:
                self._heaps.clear()
            found = self._heaps[address] = FractalHeap(self, address)
        return found

    def committed_type(self, body: bytes) -> StoredType:
        """Return the type that a shared datatype message stands for."""
        address = shared_address(body)
        found = self._types.get(address)
        if found is None:
            header = self.header(address)
            if header.missing is not None:
                raise header.missing
            message = header.messages.get(DATATYPE)
            if message is None or message[0] & 2:
                raise DamagedStructureError("a committed datatype that has no type")
            found = self._types[address] = decode_datatype(message[1])
        return found

    # --- lazynwb.formats.protocols.OpenFile ---------------------------------------------------------------

    @property
    def root(self) -> StructureNode:
        """The root group."""
        self.open()
        found = self.opened(self.superblock.root, self.superblock.root_links)
        if not found.is_group:
            raise DamagedStructureError("the root is no group")
        return found

    def find(self, path: str) -> StructureNode:
        """Open the object at a path from the root; BrokenLinkError if the path leads nowhere."""
        parent, _, name = path.rpartition("/")
        if self._last is not None and self._last[0] == parent:
            return follow(self._last[1], name.encode(), 0)
        found = follow(self.root, parent.encode(), 0)
        if found.header.missing is None:
            self._last = parent, found
        return follow(found, name.encode(), 0)

    def paths_of(self, addresses: set[Hashable]) -> dict[Hashable, str]:
        """Find the paths of objects by their addresses, all at once; those that are nowhere are left out."""
        return find_paths(self, addresses, self.resolve_references)

    def resolve_references(self, addresses: set[int]) -> dict[int, str]:
        """Find the paths of the objects at the given addresses, nearest to the root first."""
        root = self.root
        wanted = set(addresses) - {0}
        found: dict[int, str] = {}
        if root.address in wanted:
            found[root.address] = "/"
            wanted.discard(root.address)
        seen = {root.address}
        queue: deque[tuple[str, StructureNode]] = deque([("", root)])
        while queue and wanted:
            prefix, group = queue.popleft()
            with self.collect_misses():
                for key, link in group.links().items():
                    if link.kind != HARD or link.address in seen:
                        continue
                    seen.add(link.address)
                    path = f"{prefix}/{key.decode('utf-8', 'replace')}"
                    if link.address in wanted:
                        wanted.discard(link.address)
                        found[link.address] = path
                    with self.collect_misses():
                        child = group.opened(link)
                        if child.is_group:
                            queue.append((path, child))
        return found

    def external(self, name: bytes) -> StructureFile:
        """Open the file that an external link names, if the settings allow it."""
        text = name.decode("utf-8", "surrogateescape")
        return self._linked_file(self.path, self.path.sibling(text), "the external link to {}", text)

    def _open_linked(self, target: Source) -> StructureFile:
        return StructureFile(target, target.identity())

    # --- chunks ---------------------------------------------------------------------------------------

    def chunk_index(self, array: Array) -> ChunkIndex:
        """Look up where every chunk of an array is."""
        # Late: a schema needs no NumPy, whose import takes as long as the structure of dozens of files.
        from lazynwb.formats.hdf5.chunk_index import read_chunk_index

        found = self.find(array.path)
        return read_chunk_index(found.file, chunked(found.header))

    def some_chunks(self, array: Array, numbers: np.ndarray) -> SomeChunks:
        """Look up where some chunks of an array are, by their numbers in row-major order of the grid."""
        from lazynwb.formats.hdf5.chunk_index import read_some_chunks

        found = self.find(array.path)
        return read_some_chunks(found.file, chunked(found.header), numbers)


def _bytes_of(source: Source, version: str) -> LocalBytes | RemoteBytes:
    if not source.is_remote:
        return LocalBytes(source.path)
    from lazynwb.storage.remote_file import RemoteFile

    return RemoteBytes(RemoteFile(source, version))


class StructureNode:
    """An object and the file that holds it, which an external link may have made another one."""

    __slots__ = ("_attributes", "file", "header", "is_dataset", "is_group")

    def __init__(self, file: StructureFile, header: ObjectHeader) -> None:
        self.file = file
        self.header = header
        self.is_group = is_group(header)
        has_type = DATATYPE in header.messages
        self.is_dataset = has_type and DATASPACE in header.messages and not self.is_group
        if not (self.is_group or has_type):
            raise DamagedStructureError("an object of unknown kind")
        if not (self.is_group or self.is_dataset) and header.missing is None:
            type_of(file, header)  # a damaged group or dataset must not pass for a committed datatype
        self._attributes: dict[bytes, bytes] | None = None

    @property
    def address(self) -> int:
        """Where the object's header is in its file."""
        return self.header.address

    def links(self) -> dict[bytes, Link]:
        """Return the links of a group."""
        return self.file.links(self.header)

    def member_names(self) -> Iterable[bytes]:
        """Return the names of a group's members."""
        return list(self.links())

    def child(self, key: bytes) -> StructureNode:
        """Open one member of a group, following links; BrokenLinkError if the link leads nowhere."""
        if b"/" in key or key == b".":
            return follow(self, key, 0)
        return self.step(key, 0)

    def step(self, name: bytes, hops: int) -> StructureNode:
        """Open a member by its name; `hops` links led here."""
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
        raise BrokenLinkError(f"{shown!r} is a link of an unknown kind")

    def opened(self, link: Link) -> StructureNode:
        """Open what a hard link leads to."""
        return self.file.opened(link.address, link.group)

    def address_of(self, key: bytes) -> int | None:
        """Return the address of what a hard link leads to; None for other links."""
        link = self.links()[key]
        return link.address if link.kind == HARD else None

    def _raise_if_missing(self) -> None:
        """Raise if messages of the object's header are missing: what it seems to lack may be among them."""
        if self.header.missing is not None:
            raise self.header.missing

    def _stored(self) -> dict[bytes, bytes]:
        if self._attributes is None:
            self._attributes = read_attributes(self.file, self.header)
        return self._attributes

    def _attribute(self, name: str) -> StoredAttribute | None:
        """Return an attribute; None if there is none, or it is larger than what is read."""
        body = self._stored().get(name.encode())
        if body is None:
            self._raise_if_missing()
            return None
        found = decode_attribute(self.file, body)
        return None if is_too_large(found) else found

    def has_attribute(self, name: str) -> bool:
        """Return whether there is such an attribute, readable or not."""
        found = name.encode() in self._stored()
        if not found:
            self._raise_if_missing()
        return found

    def text(self, name: str) -> str:
        """Return a text attribute; an empty text if there is none."""
        found = self._attribute(name)
        items = texts(self.file, found) if found is not None else None
        return items[0] if items else ""

    def names(self, name: str) -> list[str] | None:
        """Return an attribute that lists names; None if there is none."""
        found = self._attribute(name)
        if found is None or found.shape is None:
            return None
        items = texts(self.file, found)
        if items is None:
            if found.stored.dtype.kind == "unsupported" or found.stored.name in {"array", "vlen"}:
                raise UnsupportedStructureError("names of an unusual type")
            return []
        stripped = [item.strip(" ") for item in items]
        return list(dict.fromkeys(item for item in stripped if item))

    def attributes(self) -> dict[str, Any]:
        """Return all attributes as plain values, sorted by name."""
        self._raise_if_missing()
        stored = self._stored()
        return {
            name.decode("utf-8", "replace"): plain_value(self.file, decode_attribute(self.file, stored[name]))
            for name in sorted(stored)
        }

    def target(self, name: str = "target") -> int | None:
        """Return the address of the object that an attribute refers to; None where it does not."""
        found = self._attribute(name)
        if found is None or found.stored.name not in {"object", "region"}:
            return None
        if found.shape is None or math.prod(found.shape) != 1:
            return None
        if found.stored.name == "region":
            raise UnsupportedStructureError("a region reference in the place of an object reference")
        return int.from_bytes(found.data[:8], "little") or None

    def referred(self, name: str) -> StructureNode | None:
        """Open the object that an attribute refers to; None where it does not."""
        address = self.target(name)
        return self.file.opened(address) if address is not None else None

    def describe(self, path: str, main: StructureFile) -> Array:
        """Describe a dataset, which an external link may have led to from the file `main`."""
        source = None if self.file is main else self.file.path.path
        return describe_dataset(self.file, self.header, path, source)

    def texts(self, most: int) -> list[str] | None:
        """Return the elements of a list of text; None of any other dataset, or where there are too many."""
        return text_elements(self.file, self.header, most, _MAX_TEXT_WIDTH) if self.is_dataset else None

    def is_null(self) -> bool:
        """Return whether a dataset has no dataspace (h5py.Empty)."""
        return space_of(self.header).shape is None

    def number(self) -> float | None:
        """Return the value of a dataset that is a single number; None of any other."""
        return single_number(self.file, self.header)

    def start_and_rate(self) -> tuple[float, float] | None:
        """Return a `starting_time` dataset's value and its `rate`; None where they are no numbers."""
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
        """Return a dataset's shape and type as a listing shows them."""
        stored = type_of(self.file, self.header)
        check_dataset(self.header, stored)
        return space_of(self.header).shape, shown_dtype(stored)
