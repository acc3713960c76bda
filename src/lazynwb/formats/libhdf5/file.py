"""HDF5 files opened by libhdf5, local or remote."""

from __future__ import annotations

import os
import re
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar
from weakref import WeakSet

from h5py import h5f, h5fd, h5p
from h5py._objects import phil

from lazynwb.errors import NotNWBError, SourceNotFoundError
from lazynwb.formats.libhdf5.block_stream import SIGNATURE, BlockStream, LocalStream, MissingBytesError
from lazynwb.formats.libhdf5.heap_validation import Heaps
from lazynwb.formats.partial_file import PartialFile
from lazynwb.profile import count
from lazynwb.shutdown import on_exit
from lazynwb.storage import local_file

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator
    from types import TracebackType

    from lazynwb.storage.source import Source

#: Parts of the messages of libhdf5 if the process has opened the file with other flags.
_OPEN_ELSEWHERE = ("file locking flag values", "file close degree", "already open")


T = TypeVar("T")

_parse_locks = [threading.RLock()]  # an external link opens a file within a parse
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _parse_locks.__setitem__(0, threading.RLock()))

#: Files that libhdf5 reads through Python objects. At exit, libhdf5 closes open files, which would crash the
#: process if these objects no longer exist.
_open_objects: WeakSet[LibHdf5File] = WeakSet()


@on_exit
def _close_files() -> None:
    """Close the files of threads that parse ahead, and prevent further parses."""
    if _parse_locks[0].acquire(timeout=10):
        for file in list(_open_objects):
            file.close()
        # Releasing objects of h5py takes its lock, which no thread must hold when it is stopped.
        phil.acquire()


def is_hdf5(path: str) -> bool:
    """Return whether a file has the signature of HDF5 at a valid offset: 0, 512, 1024, 2048, ..."""
    with Path(path).open("rb") as stream:
        position = 0
        while True:
            stream.seek(position)
            head = stream.read(len(SIGNATURE))
            if head == SIGNATURE:
                return True
            if len(head) < len(SIGNATURE):
                return False
            position = position * 2 or 512


class Located(Protocol):
    """An object and its file, which may be the target of an external link."""

    @property
    def id(self) -> Any:  # noqa: ANN401 - h5py has no types
        """The identifier of the object in h5py."""
        ...

    @property
    def file(self) -> LibHdf5File:
        """The file of the object."""
        ...

    @property
    def is_dataset(self) -> bool:
        """Whether the object is a dataset."""
        ...


class LibHdf5File(PartialFile):
    """An HDF5 file opened by libhdf5; see `lazynwb.formats.libhdf5.nodes` for its objects.

    Closing the file closes all of its objects.

    Parameters
    ----------
    source : Source
    version : str
        Identity of the file; other versions of a remote file are not read.
    streamed : bool
        Whether libhdf5 reads also a local file through a Python object.

    Raises
    ------
    SourceNotFoundError
        If the file does not exist.
    NotNWBError
        If libhdf5 cannot open the file; the message has the reason, if it is known.
    """

    _missing_error = MissingBytesError

    def __init__(self, source: Source, version: str, *, streamed: bool = False) -> None:
        super().__init__()
        self.source = source
        self._identity = version
        self._streamed = streamed
        self.name = source.name
        self._opened: dict[str, Any] = {}
        self._prefetched: list[tuple[int, int]] = []
        self._stream: LocalStream | None = None
        self.heaps: Heaps | None = None
        self._blocks = _block_stream(source, version)
        self._ranges = self._blocks.missing if self._blocks is not None else None
        _open_objects.add(self)
        self._last: tuple[str, Any] | None = None
        self.id: h5f.FileID | None = None
        try:
            self.id = self._open() if self._blocks is None else self._open_blocks(self._blocks)
        except FileNotFoundError:
            raise SourceNotFoundError(f"no such file: {self.name}") from None
        except (OSError, RuntimeError, ValueError) as error:
            self.close()
            raise NotNWBError(_open_error_reason(source, self._blocks, error)) from None
        count(files_opened=1)
        creation = self.id.get_create_plist()
        self.base: int = creation.get_userblock()
        #: Addresses and lengths are 8 bytes wide in all but exotic files; only those are read directly.
        self.plain_addresses: bool = creation.get_sizes() == (8, 8)
        #: Heaps are validated before libhdf5 reads them; streams validate heaps as they are read.
        self.heaps = None if self.is_streamed or not self.plain_addresses else Heaps(source.path, self.base)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and the targets of external links."""
        with self.parse_lock():
            for linked in self._linked.values():
                linked.close()
            self._linked.clear()
            self._last = None
            self._opened.clear()
            self._known.clear()
            if self.id is not None and self.id.valid:
                with suppress(RuntimeError):  # libhdf5 may fail to close damaged objects
                    self.id.close()
        _open_objects.discard(self)
        for opened in (self._stream, self.heaps):
            if opened is not None:
                opened.close()

    def _open(self) -> h5f.FileID:
        if self._streamed:
            self._stream = LocalStream(self.source.path)
            return _open_object(self._stream, self.name)
        access = h5p.create(h5p.FILE_ACCESS)
        # A strong close degree: objects that tracebacks refer to do not keep the file open.
        access.set_fclose_degree(h5f.CLOSE_STRONG)
        # Readers need no lock, and shared file systems often refuse one.
        access.set_file_locking(use_file_locking=False, ignore_when_disabled=True)
        try:
            return h5f.open(self.source.path.encode(), flags=h5f.ACC_RDONLY, fapl=access)
        except (OSError, RuntimeError) as error:
            # libhdf5 requires equal properties for all handles of a file in a process, and the user has
            # opened it with others. A Python object is not identified with the file.
            if not any(phrase in str(error) for phrase in _OPEN_ELSEWHERE):
                raise
        self._stream = LocalStream(self.source.path)
        return _open_object(self._stream, self.name)

    def _open_blocks(self, blocks: BlockStream) -> h5f.FileID:
        if not blocks.has_signature():
            raise OSError("no signature")
        while True:
            try:
                with self.parse_lock():
                    return _open_object(blocks, self.name)
            except (OSError, RuntimeError, ValueError):
                if not blocks.fetch_missing():
                    raise

    @property
    def is_streamed(self) -> bool:
        """Whether libhdf5 reads through a Python object, which represents all files that it opens."""
        return self._blocks is not None or self._stream is not None

    def reopen(self) -> Self:
        """Open the source again, as a file that libhdf5 does not identify with any open file."""
        return type(self)(self.source, self._identity, streamed=True)

    @contextmanager
    def parse_lock(self) -> Iterator[None]:
        """Prevent other threads from parsing remote files at the same time.

        libhdf5 has a global lock for each call; threads that alternate at each call spend more time on the
        lock than on parsing.
        """
        if self._blocks is None:
            yield
        else:
            with _parse_locks[0]:
                yield

    def _fetch_own(self, *, ahead: bool) -> bool:
        return self._blocks is not None and self._blocks.fetch_missing(ahead=ahead)

    def _open_linked(self, target: Source) -> Self:
        return type(self)(target, target.identity(), streamed=self._streamed)

    def prefetch(self, ranges: list[tuple[int, int]]) -> None:
        """Record ranges that will be read, so that those of a remote file are fetched together."""
        if self._blocks is not None:
            self._blocks.missing.expect(ranges)
            self._prefetched += ranges

    def drop_prefetched(self) -> None:
        """Release fetched data, which is not read again, unlike structure."""
        if self._blocks is not None:
            self._blocks.drop(self._prefetched)
            self._prefetched.clear()
        for linked in self._linked.values():
            linked.drop_prefetched()

    def open_path(self, path: bytes) -> Located:
        """Open the object at a path from the root; raise BrokenLinkError if it does not exist."""
        raise NotImplementedError

    def paths_of(self, addresses: set[Hashable]) -> dict[Hashable, str]:
        """Return the paths of objects by address; see `lazynwb.formats.protocols.ReferenceFile`."""
        raise NotImplementedError

    def keep_open(self, path: str, found: Located) -> None:
        """Keep an object of a remote file open that will be read again soon."""
        if self._blocks is not None:
            self._opened[path] = found

    def external(self, name: bytes) -> Self:
        """Open the target file of an external link, if the settings allow it."""
        text = name.decode("utf-8", "surrogateescape")
        return self._linked_file(self.source, self.source.sibling(text), "the external link to {}", text)


def _block_stream(source: Source, version: str) -> BlockStream | None:
    if not source.is_remote:
        return None
    from lazynwb.storage.remote_file import RemoteFile

    return BlockStream(RemoteFile(source, version))


def _open_object(stream: LocalStream | BlockStream, name: str) -> h5f.FileID:
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_fclose_degree(h5f.CLOSE_STRONG)
    access.set_fileobj_driver(h5fd.fileobj_driver, stream)
    return h5f.open(name.encode(), flags=h5f.ACC_RDONLY, fapl=access)


def _open_error_reason(source: Source, blocks: BlockStream | None, error: Exception) -> str:
    name = source.name
    placeholder = "" if blocks is not None else local_file.describe_placeholder(source.path)
    if placeholder:
        return placeholder
    if blocks is not None:
        known = blocks.has_signature()
    else:
        file = Path(source.path)
        if file.is_dir():
            return f"{name} is a folder, not an HDF5 file"
        try:
            size = file.stat().st_size
            known = bool(size) and is_hdf5(source.path)
        except OSError as denied:
            return f"{name} cannot be opened: {denied.strerror}"
        if not size:
            return f"{name} is empty: its transfer may have been interrupted; copy or download it again"
    if not known:
        return f"{name} is not an HDF5 file (its signature is missing)"
    reason = re.sub(r"\s+", " ", str(error))
    return (
        f"{name} is an HDF5 file that cannot be opened, probably because it is truncated or damaged: "
        f"copy or download it again ({reason})"
    )
