"""Folders of indices: local folders, and prefixes in object stores or on web servers."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from lazynwb.column_store import reading
from lazynwb.config import config
from lazynwb.errors import CorruptDataError, LazyNWBError, SourceNotFoundError
from lazynwb.storage.source import Options, Source, is_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lazynwb.storage.error_mapping import Failure
    from lazynwb.storage.stores.registry import Location

T = TypeVar("T")

#: Maximum size of a manifest.
_MAX_MANIFEST_BYTES = 256 * 1024 * 1024
#: Maximum size of a request.
_MAX_REQUEST = 8 * 1024 * 1024


class Conflict(Exception):  # noqa: N818 - callers decide whether it is an error
    """Another process has replaced a file."""


class RemovedFileError(Exception):
    """A file of a state of the index that has been removed."""


class SmallFile(NamedTuple):
    """A small file, and its version (None if the store has no versions)."""

    data: bytes
    version: dict[str, str | None] | None


class Folder(Protocol):
    """Protocol of the folder of an index.

    Attributes
    ----------
    name : str
        Name in messages.
    is_remote : bool
        Whether the folder is accessed by requests.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def is_remote(self) -> bool: ...  # noqa: D102

    def find(self, name: str) -> SmallFile | None:
        """Return a small file; None if it does not exist."""
        ...

    def read(self, name: str, start: int, stop: int) -> bytes | memoryview:
        """Return a range of a file; raise SourceNotFoundError if the file does not exist."""
        ...

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes | memoryview]:
        """Return several ranges (start, stop) of a file."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write a new file."""
        ...

    def replace(self, name: str, data: bytes, before: SmallFile | None) -> None:
        """Replace a file atomically, or create it if `before` is None.

        Raises
        ------
        Conflict
            If the file is no longer the one in `before`.
        """
        ...

    def remove(self, names: Sequence[str]) -> None:
        """Remove files; missing ones are ignored."""
        ...

    def address(self, name: str) -> str:
        """Return the path or URL of a file."""
        ...


def open_folder(place: str | os.PathLike[str], storage_options: Mapping[str, Any] | None) -> Folder:
    """Return a folder by its path or URL; it need not exist.

    Raises
    ------
    LazyNWBError
        If the URL cannot be a folder.
    """
    text = os.fspath(place)
    if not isinstance(text, str):
        raise TypeError(f"an index must be a path or a URL, not {type(text).__name__}")
    if is_url(text) and not text.lower().startswith("file:"):
        return RemoteFolder(text, Options({**config.storage_options, **(storage_options or {})}))
    from lazynwb.storage.resolve import local_path

    return LocalFolder(local_path(text))


class LocalFolder:
    """A folder of the file system.

    Parameters
    ----------
    path : str
        Absolute.
    """

    is_remote = False

    def __init__(self, path: str) -> None:
        self.name = path
        self._path = Path(path)

    def find(self, name: str) -> SmallFile | None:
        """Return a small file; see `Folder`."""
        try:
            with (self._path / name).open("rb") as file:
                return SmallFile(file.read(_MAX_MANIFEST_BYTES), None)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise LazyNWBError(f"index {self.name} cannot be read: {error.strerror}") from None

    def read(self, name: str, start: int, stop: int) -> bytes:
        """Return a part of a file; see `Folder`."""
        try:
            with (self._path / name).open("rb") as file:
                file.seek(start)
                return file.read(stop - start)
        except FileNotFoundError:
            raise SourceNotFoundError(f"index {self.name}: its file {name} does not exist") from None
        except OSError as error:
            raise LazyNWBError(f"index {self.name} cannot be read: {name}: {error.strerror}") from None

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes | memoryview]:
        """Return several ranges of a file; see `Folder`."""
        return [self.read(name, start, stop) for start, stop in ranges]

    def write(self, name: str, data: bytes) -> None:
        """Write a file; see `Folder`."""
        try:
            path = self._path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                file.write(data)
        except OSError as error:
            raise self._unwritable(error) from None

    def replace(self, name: str, data: bytes, before: SmallFile | None) -> None:
        """Replace a file atomically; see `Folder`. A lock is held from the comparison to the rename."""
        from lazynwb.file_lock import exclusive_lock  # readers do not need it

        temporary = f".{name}-{os.urandom(8).hex()}"
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            with exclusive_lock(self._path / f".{name}-lock"):
                now = self.find(name)
                if (now.data if now else None) != (before.data if before else None):
                    raise Conflict
                self.write(temporary, data)
                (self._path / temporary).replace(self._path / name)
        except BlockingIOError:
            raise Conflict from None
        except OSError as error:
            self.remove([temporary])
            raise self._unwritable(error) from None

    def remove(self, names: Sequence[str]) -> None:
        """Remove files; see `Folder`."""
        for name in names:
            try:
                (self._path / name).unlink()
            except OSError:  # a file of another user, or in use on Windows; an obsolete file is harmless
                continue

    def address(self, name: str) -> str:
        """Return the path of a file."""
        return str(self._path / name)

    def _unwritable(self, error: OSError) -> LazyNWBError:
        return LazyNWBError(f"index {self.name} cannot be written: {error.strerror}")


class RemoteFolder:
    """A prefix in an object store, or a read-only folder on a web server.

    Parameters
    ----------
    url : str
    options : Options
    """

    is_remote = True

    def __init__(self, url: str, options: Options) -> None:
        base, mark, query = url.partition("?") if url.lower().startswith("http") else (url, "", "")
        self._base = base.rstrip("/")
        self._query = mark + query
        self._options = options
        self.name = Source(url).name

    def _source(self, name: str) -> Source:
        return Source(self.address(name), self._options)

    def address(self, name: str) -> str:
        """Return the URL of a file."""
        return f"{self._base}/{name}{self._query}"

    def find(self, name: str) -> SmallFile | None:
        """Return a small file; see `Folder`."""
        from lazynwb.storage.store_request import with_retry
        from lazynwb.threads import REQUESTS, wait

        source = self._source(name)

        def ask(location: Location) -> SmallFile | Failure:
            import obstore
            from obstore.exceptions import BaseError

            from lazynwb.profile import count
            from lazynwb.storage.range_request import explain_refusal

            count(requests=1)
            try:
                answer = obstore.get(location.store, location.path)
                meta = answer.meta
                if meta["size"] > _MAX_MANIFEST_BYTES:
                    raise LazyNWBError(f"index {self.name} is damaged: its {name} is too large")
                data = bytes(answer.bytes())
            except (BaseError, OSError, ValueError) as error:
                return explain_refusal(source, location, error)
            count(bytes_read=len(data))
            return SmallFile(data, {"e_tag": meta.get("e_tag"), "version": meta.get("version")})

        try:
            found: SmallFile = wait(REQUESTS.submit(with_retry, source, ask))
        except SourceNotFoundError:
            return None
        return found

    def read(self, name: str, start: int, stop: int) -> bytes | memoryview:
        """Return a part of a file; see `Folder`."""
        return self.read_ranges(name, [(start, stop)])[0]

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes | memoryview]:
        """Return several ranges of a file, requested concurrently; see `Folder`."""
        from lazynwb.storage.range_request import request
        from lazynwb.threads import REQUESTS

        source = self._source(name)
        if len(ranges) == 1 and ranges[0][1] - ranges[0][0] <= _MAX_REQUEST:
            return [request(source, *ranges[0]).data]
        pieces = [
            (low, min(low + _MAX_REQUEST, stop))
            for start, stop in ranges
            for low in range(start, stop, _MAX_REQUEST)
        ]
        answers = iter(list(REQUESTS.map(lambda span: request(source, *span).data, pieces)))
        return [b"".join(next(answers) for _ in range(start, stop, _MAX_REQUEST)) for start, stop in ranges]

    def write(self, name: str, data: bytes) -> None:
        """Write a file; see `Folder`."""
        self._put(name, data, "overwrite")

    def replace(self, name: str, data: bytes, before: SmallFile | None) -> None:
        """Replace a file atomically; see `Folder`. The store compares versions, if it supports that."""
        from obstore.exceptions import NotSupportedError

        mode: Any = "create" if before is None else {k: v for k, v in (before.version or {}).items() if v}
        try:
            self._put(name, data, mode or "overwrite")
        except (NotSupportedError, NotImplementedError):  # stores without conditional writes
            now = self.find(name)
            if (now.data if now else None) != (before.data if before else None):
                raise Conflict from None
            self._put(name, data, "overwrite")
        except Conflict:
            now = self.find(name)
            # If the first response was lost, the retry finds the file that the first attempt wrote.
            if now is None or now.data != data:
                raise

    def _put(self, name: str, data: bytes, mode: Any) -> None:  # noqa: ANN401 - obstore's PutMode
        from lazynwb.storage.store_request import with_retry
        from lazynwb.threads import REQUESTS, wait

        source = self._source(name)
        if source.path.lower().startswith(("http:", "https:", "dandi:")):
            raise LazyNWBError(
                f"{self.name} cannot be written: web servers are read-only; build the index in a local "
                "folder or a bucket (s3://, gs://, az://), and copy the folder to the web server"
            )

        def ask(location: Location) -> bool | Failure:
            import obstore
            from obstore.exceptions import (
                AlreadyExistsError,
                BaseError,
                NotSupportedError,
                PreconditionError,
            )

            from lazynwb.profile import count
            from lazynwb.storage.range_request import explain_refusal

            count(requests=1)
            try:
                obstore.put(location.store, location.path, data, mode=mode)
            except (AlreadyExistsError, PreconditionError):
                return False
            except (NotSupportedError, NotImplementedError):
                raise
            except (BaseError, OSError, ValueError) as error:
                return explain_refusal(source, location, error)
            return True

        if not wait(REQUESTS.submit(with_retry, source, ask)):
            raise Conflict

    def remove(self, names: Sequence[str]) -> None:
        """Remove files; see `Folder`."""
        import contextlib

        import obstore

        from lazynwb.storage.stores.registry import locate

        for name in names:
            location = locate(self._source(name))
            with contextlib.suppress(Exception):  # an obsolete file is harmless
                obstore.delete(location.store, location.path)


# -- errors ----------------------------------------------------------------------------------------------


def read_untrusted(folder: Folder, name: str, read: Callable[[], T]) -> T:
    """Read an untrusted Parquet file by a function.

    Raises
    ------
    CorruptDataError
        If the file cannot be read.
    """
    return reading.read_untrusted(read, partial(damaged_error, folder, name))


def damaged_error(folder: Folder, name: str, reason: object) -> CorruptDataError:
    """Return the error for a damaged file of an index."""
    return CorruptDataError(
        f"index {folder.name} is damaged: rebuild it with lazynwb.build_index ({name}: {reason})"
    )
