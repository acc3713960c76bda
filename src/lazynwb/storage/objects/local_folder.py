"""Stores in local folders."""

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
from lazynwb.storage.objects.key_validation import normalize_prefix, resolve_start, validate_key
from lazynwb.storage.placeholders import describe_link
from lazynwb.storage.source import ABSENT
from lazynwb.threads import DECODERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lazynwb.storage.local_file import Descriptor
    from lazynwb.storage.source import Source

#: Opening must not follow links, and must not block on a pipe.
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_FLAGS = os.O_RDONLY | _NO_FOLLOW
for _name in ("O_BINARY", "O_CLOEXEC", "O_NONBLOCK"):
    _FLAGS |= getattr(os, _name, 0)
_IS_LINK = frozenset({errno.ELOOP, errno.EMLINK})
_NOT_THERE = (FileNotFoundError, NotADirectoryError)
#: Characters that a file system interprets: on Windows, those of separators, drives and streams.
SEPARATORS = frozenset("\\:") if os.name == "nt" else frozenset[str]()
#: Files per task: fewer are not worth a thread.
_BATCH_SIZE = 8


class FolderObjects:
    """The files of a folder, by their relative paths; see `lazynwb.storage.objects.object_store.Objects`.

    Symbolic links of files and folders are followed if their targets are in the folder itself, or anywhere if
    `config.external_links` is "anywhere", as for a dataset whose contents are stored beside it (git-annex,
    DataLad). Any other link raises an error, rather than count as an absent object.

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
        """Return an object; None if it does not exist."""
        with self._opened(key) as opened:
            return memoryview(opened[0].read(0, opened[1])) if opened else None

    def get_range(self, key: str, start: int, size: int) -> memoryview | None:
        """Return a range of an object; None if it does not exist."""
        with self._opened(key) as opened:
            if opened is None:
                return None
            begin = resolve_start(self.source, key, opened[1], start, size)
            return memoryview(opened[0].read(begin, size))

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes | memoryview | None]:
        """Return several objects, read concurrently if there are many."""
        distinct = list(dict.fromkeys(keys))
        parts = [distinct[i : i + _BATCH_SIZE] for i in range(0, len(distinct), _BATCH_SIZE)]
        read = self.pool.map(self._get_batch, parts) if len(parts) > 1 else map(self._get_batch, parts)
        return {key: found for part in read for key, found in part}

    def _get_batch(self, keys: list[str]) -> list[tuple[str, memoryview | None]]:
        return [(key, self.get(key)) for key in keys]

    def members(self, prefix: str) -> list[str]:
        """Return the sorted names of the direct members of a prefix."""
        try:
            return sorted(os.listdir(self._folder(normalize_prefix(self.source, prefix))))
        except _NOT_THERE:
            return []
        except OSError as error:
            raise self._read_error(prefix, error) from None

    def version(self, key: str) -> str:
        """Return the identity of a file; `ABSENT` if it does not exist."""
        path = self._verify_inside(self._resolve_links(self._path(key), key), key)
        return local_file.path_identity(path) if os.path.isfile(path) else ABSENT

    # -- opening files --------------------------------------------------------------------------------

    @contextmanager
    def _opened(self, key: str) -> Iterator[tuple[Descriptor, int] | None]:
        """Open a file for the duration of the `with` block; yield its descriptor and its size."""
        try:
            number = self._open(key)
        except _NOT_THERE:
            yield None
            return
        except (OSError, ValueError) as error:
            raise self._read_error(key, error) from None
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
        return os.open(self._verify_inside(self._resolve_links(path, key), key), _FLAGS)

    def _path(self, key: str) -> str:
        """Return the path of an object in a folder whose links are resolved."""
        prefix, _, name = validate_key(self.source, key).rpartition("/")
        return (
            os.path.join(self._folder(prefix), name) if self._is_name(name) else self._raise_invalid_name(key)
        )

    def _folder(self, prefix: str) -> str:
        found = self._folders.get(prefix)
        if found is None:
            if not self._is_name(validate_key(self.source, prefix)):
                self._raise_invalid_name(prefix)
            above, _, name = prefix.rpartition("/")
            found = self._verify_inside(
                self._resolve_links(os.path.join(self._folder(above), name), prefix), prefix
            )
            self._folders[prefix] = found
        return found

    def _resolve_links(self, path: str, key: str) -> str:
        """Return a path with its links resolved.

        Raises
        ------
        NotNWBError
            If it is a broken link, for example to contents that have not been fetched. An object that was
            never written has no link.
        """
        found = os.path.realpath(path)
        if os.path.islink(path) and not os.path.exists(found):
            what = describe_link(f"{self.source.name}/{key}", os.readlink(path))
            raise NotNWBError(f"{self.source.name} cannot be read: {what}")
        return found

    def _verify_inside(self, path: str, key: str) -> str:
        """Return a path with its links resolved, if it may be read.

        Raises
        ------
        NotNWBError
            If it is outside of the folder, and `config.external_links` does not permit that.
        """
        if path.startswith(self._root.rstrip(os.sep) + os.sep) or config.external_links == "anywhere":
            return path
        raise NotNWBError(
            f"{self.source.name}: {key} is a symbolic link to outside of the folder; it was not followed "
            f"(lazynwb.config.external_links is {config.external_links!r})"
        )

    @staticmethod
    def _is_name(text: str) -> bool:
        return SEPARATORS.isdisjoint(text)

    def _raise_invalid_name(self, key: str) -> str:
        raise CorruptDataError(f"{self.source.name}: {key!r} is not a valid file name on this system")

    def _read_error(self, key: str, error: OSError | ValueError) -> LazyNWBError:
        if isinstance(error, LazyNWBError):
            return error
        why = (isinstance(error, OSError) and error.strerror) or "it is not a valid file name"
        return NotNWBError(f"{self.source.name}: {key!r} cannot be read: {why}")
