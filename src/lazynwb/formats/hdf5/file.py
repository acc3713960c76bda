"""An open HDF5 file, and the way from a path to the object that it names.

Links are resolved here rather than by libhdf5, which would follow an external link to any file that the
process may read, and which cannot say where a path left the file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Self

from h5py import h5d, h5f, h5fd, h5g, h5l, h5o, h5p

from lazynwb.config import config
from lazynwb.errors import NotNWBError, SourceNotFoundError
from lazynwb.profile import count
from lazynwb.sources.local import identity_or_absent

if TYPE_CHECKING:
    from types import TracebackType

    from h5py.h5g import GroupID

#: Links that may follow one another before they count as cyclic (libhdf5's own limit is 16).
_MOST_LINKS = 32

#: What libhdf5 says when the process has the file open already, with other flags.
_OPEN_ELSEWHERE = ("file locking flag values", "already open")

_SIGNATURE = b"\x89HDF\r\n\x1a\n"


class BrokenLinkError(Exception):
    """A path that leads nowhere: nothing there, a dangling, cyclic or forbidden link."""


class DamagedObjectError(BrokenLinkError):
    """A link that leads to something which libhdf5 cannot open."""


class Located(NamedTuple):
    """An object and the file that holds it, which an external link may have made another one."""

    id: h5g.GroupID
    file: Hdf5File

    @property
    def is_dataset(self) -> bool:
        """Whether the object is a dataset."""
        return isinstance(self.id, h5d.DatasetID)

    @property
    def is_group(self) -> bool:
        """Whether the object is a group."""
        return isinstance(self.id, h5g.GroupID)


def is_hdf5(path: str) -> bool:
    """Tell whether a file has HDF5's signature where the format allows it: at 0, 512, 1024, 2048, ..."""
    with Path(path).open("rb") as stream:
        position = 0
        while True:
            stream.seek(position)
            head = stream.read(len(_SIGNATURE))
            if head == _SIGNATURE:
                return True
            if len(head) < len(_SIGNATURE):
                return False
            position = position * 2 or 512


class Hdf5File:
    """An HDF5 file opened for its structure; closing it closes every object that was opened in it.

    Parameters
    ----------
    path : str
        Absolute path of a local file.

    Raises
    ------
    SourceNotFoundError
        If there is no such file.
    NotNWBError
        If libhdf5 cannot open it; the message says what it is instead, as far as that can be told.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._linked: dict[str, Hdf5File] = {}
        self._unreadable: set[str] = set()
        self._stream: BinaryIO | None = None
        self.id: h5f.FileID | None = None
        try:
            self.id = self._open()
        except FileNotFoundError:
            message = f"no such file: {path}"
            raise SourceNotFoundError(message) from None
        except (OSError, RuntimeError, ValueError) as error:
            self.close()
            raise NotNWBError(_why_unreadable(path, error)) from None
        count(files_opened=1)
        creation = self.id.get_create_plist()
        self.base: int = creation.get_userblock()
        #: Addresses and lengths are 8 bytes wide in all but exotic files; only those are read directly.
        self.plain_addresses: bool = creation.get_sizes() == (8, 8)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and those that external links led to."""
        for linked in self._linked.values():
            linked.close()
        self._linked.clear()
        if self.id is not None and self.id.valid:
            self.id.close()
        if self._stream is not None:
            self._stream.close()

    def _open(self) -> h5f.FileID:
        access = h5p.create(h5p.FILE_ACCESS)
        # Strong: no object identifier that some traceback still holds keeps the file open.
        access.set_fclose_degree(h5f.CLOSE_STRONG)
        # Readers need no lock, and shared file systems often refuse one.
        access.set_file_locking(use_file_locking=False, ignore_when_disabled=True)
        try:
            return h5f.open(self.path.encode(), flags=h5f.ACC_RDONLY, fapl=access)
        except (OSError, RuntimeError) as error:
            # libhdf5 insists that whoever opens a file twice in one process does it in the same way, and the
            # user's own handle was opened in another. It does not know what a Python object stands for.
            if not any(phrase in str(error) for phrase in _OPEN_ELSEWHERE):
                raise
        self._stream = Path(self.path).open("rb")  # noqa: SIM115 - closed with this file
        access = h5p.create(h5p.FILE_ACCESS)
        access.set_fclose_degree(h5f.CLOSE_STRONG)
        access.set_fileobj_driver(h5fd.fileobj_driver, self._stream)
        return h5f.open(self.path.encode(), flags=h5f.ACC_RDONLY, fapl=access)

    @property
    def depends(self) -> tuple[tuple[str, str], ...]:
        """Path and identity of every other file that links led to so far, readable or not."""
        own = [(path, identity_or_absent(path)) for path in (*self._linked, *self._unreadable)]
        return tuple(own) + tuple(pair for linked in self._linked.values() for pair in linked.depends)

    @property
    def root(self) -> Located:
        """The root group."""
        return Located(h5g.open(self.id, b"/"), self)

    def find(self, path: str) -> Located:
        """Open the object at a path from the root.

        Raises
        ------
        BrokenLinkError
            If the path leads nowhere; the message says at which link.
        """
        return _follow(self.root, path.encode(), 0)

    def external(self, name: bytes) -> Hdf5File:
        """Open the file that an external link names, if the settings allow it."""
        here = Path(self.path).parent
        target = (here / name.decode("utf-8", "surrogateescape")).resolve()
        allowed = config.external_links
        inside = target.is_relative_to(here.resolve())
        if allowed == "never" or (allowed == "folder" and not inside):
            message = (
                f"the external link to {str(target)!r} was not followed "
                f"(lazynwb.config.external_links is {allowed!r})"
            )
            raise BrokenLinkError(message)
        key = str(target)
        if key == str(Path(self.path).resolve()):
            return self
        if key not in self._linked:
            try:
                self._linked[key] = Hdf5File(key)
            except (SourceNotFoundError, NotNWBError) as error:
                self._unreadable.add(key)
                message = f"external link to a file that cannot be read: {error}"
                raise BrokenLinkError(message) from None
        return self._linked[key]


def open_child(parent: Located, name: bytes) -> Located:
    """Open one member of a group, following links.

    Raises
    ------
    BrokenLinkError
        If the link leads nowhere.
    """
    return _follow(parent, name, 0)


def _follow(start: Located, path: bytes, hops: int) -> Located:
    if hops > _MOST_LINKS:
        message = "links form a cycle"
        raise BrokenLinkError(message)
    here = start.file.root if path.startswith(b"/") else start
    for name in path.split(b"/"):
        if name and name != b".":
            here = _step(here, name, hops)
    return here


def _step(here: Located, name: bytes, hops: int) -> Located:
    shown = name.decode("utf-8", "replace")
    if not here.is_group:
        message = f"{shown!r} was looked up in a dataset"
        raise BrokenLinkError(message)
    try:
        link = here.id.links.get_info(name)
    except (KeyError, RuntimeError, OSError, ValueError) as error:
        raise _why_no_link(here, name, shown, error) from None
    try:
        if link.type == h5l.TYPE_HARD:
            return Located(h5o.open(here.id, name), here.file)
        if link.type == h5l.TYPE_SOFT:
            return _follow(here, here.id.links.get_val(name), hops + 1)
        if link.type == h5l.TYPE_EXTERNAL:
            file_name, target = here.id.links.get_val(name)
            return _follow(here.file.external(file_name).root, target, hops + 1)
    except BrokenLinkError as error:
        message = f"link {shown!r} is broken: {error}"
        raise type(error)(message) from None
    except (KeyError, RuntimeError, OSError, ValueError, TypeError) as error:
        message = f"{shown!r} cannot be opened: {error}"
        raise DamagedObjectError(message) from None
    message = f"{shown!r} is a link of an unknown kind"
    raise BrokenLinkError(message)


def _why_no_link(here: Located, name: bytes, shown: str, error: Exception) -> BrokenLinkError:
    try:
        if name not in here.id:
            return BrokenLinkError(f"there is no {shown!r}")
    except (KeyError, RuntimeError, OSError, ValueError):
        pass
    return DamagedObjectError(f"{shown!r} cannot be looked up: {error}")


def address_of(parent: GroupID, name: bytes) -> int | None:
    """Return the address of what a hard link leads to; None for other links."""
    link = parent.links.get_info(name)
    return int(link.u) if link.type == h5l.TYPE_HARD else None


def _why_unreadable(path: str, error: Exception) -> str:
    file = Path(path)
    if file.is_dir():
        return f"{path} is a folder, not an HDF5 file"
    try:
        size = file.stat().st_size
        known = size and is_hdf5(path)
    except OSError as denied:
        return f"{path} cannot be opened: {denied.strerror}"
    if not size:
        return f"{path} is empty: was the transfer that wrote it interrupted?"
    if not known:
        return f"{path} is not an HDF5 file (its signature is missing)"
    reason = re.sub(r"\s+", " ", str(error))
    return f"{path} is an HDF5 file that cannot be opened; it is probably truncated or damaged: {reason}"
