"""A store that is a folder on this machine."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lazynwb.config import config
from lazynwb.errors import CorruptDataError, LazyNWBError, NotNWBError
from lazynwb.profile import count
from lazynwb.storage import local_file
from lazynwb.storage.objects.key_validation import bounds, checked, folder_of
from lazynwb.storage.placeholders import describe_link
from lazynwb.storage.source import ABSENT
from lazynwb.threads import DECODERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lazynwb.storage.local_file import Descriptor
    from lazynwb.storage.source import Source

#: Links are told from files when they are opened, and a pipe must not be waited for.
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_FLAGS = os.O_RDONLY | _NO_FOLLOW
for _name in ("O_BINARY", "O_CLOEXEC", "O_NONBLOCK"):
    _FLAGS |= getattr(os, _name, 0)
_IS_LINK = frozenset({errno.ELOOP, errno.EMLINK})
_NOT_THERE = (FileNotFoundError, NotADirectoryError)
#: What a file system makes more of than a name: on Windows, other separators, drives and streams.
SEPARATORS = frozenset("\\:") if os.name == "nt" else frozenset[str]()
#: Fewer files than this are read sooner than handed to threads.
_FEW = 8


class FolderObjects:
    """The files of a folder, by their paths in it; see `lazynwb.storage.objects.object_store.Objects`.

    What is read is in the folder: symbolic links are followed, of files and of folders, but only to places
    in the folder itself. Where `config.external_links` is "anywhere" they may lead out of it, as in a
    dataset whose contents are kept beside it (git-annex, DataLad); for any other link the answer is an
    error, never that there is no such object.

    Parameters
    ----------
    source : Source
    """

    pool = DECODERS

    def __init__(self, source: Source) -> None:
        self.source = source
        self._root = os.path.realpath(source.path)
        self._folders = {"": self._root}
        count(files_opened=1)

    def get(self, key: str) -> memoryview | None:
        """Return an object; None if there is none."""
        with self._reading(key) as opened:
            return memoryview(opened[0].read(0, opened[1])) if opened else None

    def get_range(self, key: str, start: int, size: int) -> memoryview | None:
        """Return a part of an object; None if there is none."""
        with self._reading(key) as opened:
            if opened is None:
                return None
            begin = bounds(self.source, key, opened[1], start, size)
            return memoryview(opened[0].read(begin, size))

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes | memoryview | None]:
        """Return several objects, many of them on threads."""
        wanted = list(dict.fromkeys(keys))
        parts = [wanted[i : i + _FEW] for i in range(0, len(wanted), _FEW)]
        read = self.pool.map(self._several, parts) if len(parts) > 1 else map(self._several, parts)
        return {key: found for part in read for key, found in part}

    def _several(self, keys: list[str]) -> list[tuple[str, memoryview | None]]:
        return [(key, self.get(key)) for key in keys]

    def members(self, prefix: str) -> list[str]:
        """Return the names right below a prefix, sorted."""
        try:
            return sorted(os.listdir(self._folder(folder_of(self.source, prefix))))
        except _NOT_THERE:
            return []
        except OSError as error:
            raise self._refused(prefix, error) from None

    def version(self, key: str) -> str:
        """Return the size, times and number of a file; `ABSENT` if there is none."""
        path = self._inside(self._followed(self._path(key), key), key)
        return local_file.path_identity(path) if os.path.isfile(path) else ABSENT

    # -- ways in --------------------------------------------------------------------------------------

    @contextmanager
    def _reading(self, key: str) -> Iterator[tuple[Descriptor, int] | None]:
        """Open a file for as long as the `with` block lasts: what reads it, and its size."""
        try:
            number = self._open(key)
        except _NOT_THERE:
            yield None
            return
        except (OSError, ValueError) as error:
            raise self._refused(key, error) from None
        try:
            status = os.fstat(number)
            if stat.S_ISDIR(status.st_mode):
                yield None
                return
            if not stat.S_ISREG(status.st_mode):
                raise NotNWBError(f"{self.source.name}: {key} is a device, a pipe or a socket, not a file")
            yield local_file.Descriptor(number, os.path.join(self._root, key), status.st_size), status.st_size
        finally:
            os.close(number)

    def _open(self, key: str) -> int:
        path = self._path(key)
        if _NO_FOLLOW:
            try:
                return os.open(path, _FLAGS)
            except OSError as error:
                if error.errno not in _IS_LINK:
                    raise
        return os.open(self._inside(self._followed(path, key), key), _FLAGS)

    def _path(self, key: str) -> str:
        """Return the path of an object, in a folder that is no link."""
        prefix, _, name = checked(self.source, key).rpartition("/")
        return os.path.join(self._folder(prefix), name) if self._is_name(name) else self._no_name(key)

    def _folder(self, prefix: str) -> str:
        found = self._folders.get(prefix)
        if found is None:
            if not self._is_name(checked(self.source, prefix)):
                self._no_name(prefix)
            above, _, name = prefix.rpartition("/")
            found = self._inside(self._followed(os.path.join(self._folder(above), name), prefix), prefix)
            self._folders[prefix] = found
        return found

    def _followed(self, path: str, key: str) -> str:
        """Return a path without links.

        Raises
        ------
        NotNWBError
            If it is a link to nothing: to contents that have not been fetched, say. What was never written
            has no link.
        """
        found = os.path.realpath(path)
        if os.path.islink(path) and not os.path.exists(found):
            what = describe_link(f"{self.source.name}/{key}", os.readlink(path))
            raise NotNWBError(f"{self.source.name} cannot be read: {what}")
        return found

    def _inside(self, path: str, key: str) -> str:
        """Return a path without links.

        Raises
        ------
        NotNWBError
            If it is not in the folder, and may not be elsewhere.
        """
        if path.startswith(self._root.rstrip(os.sep) + os.sep) or config.external_links == "anywhere":
            return path
        raise NotNWBError(
            f"{self.source.name}: {key} is a symbolic link that leads out of the folder; it was not followed "
            f"(lazynwb.config.external_links is {config.external_links!r})"
        )

    @staticmethod
    def _is_name(text: str) -> bool:
        return SEPARATORS.isdisjoint(text)

    def _no_name(self, key: str) -> str:
        raise CorruptDataError(f"{self.source.name}: {key!r} is no name of a file on this system")

    def _refused(self, key: str, error: OSError | ValueError) -> LazyNWBError:
        if isinstance(error, LazyNWBError):
            return error
        why = (isinstance(error, OSError) and error.strerror) or "it is no name of a file"
        return NotNWBError(f"{self.source.name}: {key!r} cannot be read: {why}")
