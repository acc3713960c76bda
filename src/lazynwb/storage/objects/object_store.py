"""The protocol of stores of many objects, and the function that opens one of any kind."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from lazynwb.errors import LazyNWBError, NotNWBError
from lazynwb.storage import local_file

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lazynwb.storage.source import Source
    from lazynwb.threads import Pool


class Objects(Protocol):
    """A read-only store of objects, by keys such as `units/spike_times/0`.

    Do not call `get_many` on one of the pool's own threads, which could all wait for each other.

    Attributes
    ----------
    source : Source
        Location of the store; `source.name` is its name in messages.
    pool : Pool
        Threads that read objects concurrently.
    """

    @property
    def source(self) -> Source: ...  # noqa: D102

    @property
    def pool(self) -> Pool: ...  # noqa: D102

    def get(self, key: str) -> bytes | memoryview | None:
        """Return an object; None if it does not exist.

        Raises
        ------
        LazyNWBError
            If the store cannot be read.
        """
        ...

    def get_range(self, key: str, start: int, size: int) -> bytes | memoryview | None:
        """Return a range of an object, from its end if `start` is negative; None if it does not exist."""
        ...

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes | memoryview | None]:
        """Return several objects, read concurrently if that is faster."""
        ...

    def members(self, prefix: str) -> list[str] | None:
        """Return the names of the objects and folders in a prefix; None if the store cannot be listed."""
        ...

    def version(self, key: str) -> str:
        """Return a string that changes when an object is replaced; `ABSENT` if it does not exist."""
        ...


def open_objects(source: Source) -> Objects:
    """Open a store of any kind: a folder, a zip archive, a LINDI archive, a reference file, or a prefix.

    The kind of local files is detected by their first bytes, that of URLs by their suffixes. Opening a prefix
    makes no request.

    Parameters
    ----------
    source : Source

    Raises
    ------
    SourceNotFoundError
        If the source does not exist; not raised for a prefix.
    NotNWBError
        If it is not a store of a known kind.
    """
    if source.is_remote:
        from lazynwb.storage.objects.remote_prefix import RemoteObjects

        kind = _KINDS.get(_suffix(urlsplit(source.path).path))
        return _open_kind(kind, source) if kind else RemoteObjects(source)
    if os.path.isdir(source.path):
        from lazynwb.storage.objects.local_folder import FolderObjects

        return FolderObjects(source)
    return _open_kind(_local_kind(source.path), source)


_KINDS = {".zip": "archive", ".json": "references", ".tar": "lindi archive"}
#: The magic string of a tar archive, and its offset.
_TAR, _TAR_AT = b"ustar", 257


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _local_kind(path: str) -> str:
    try:
        local_file.path_identity(path)  # raises for a pipe, which would block
        with open(path, "rb") as file:
            data = file.read(512)
    except OSError as error:
        if isinstance(error, LazyNWBError):
            raise
        raise NotNWBError(f"{path} cannot be read: {error.strerror}") from None
    head = data.lstrip()
    if data[_TAR_AT:].startswith(_TAR):
        return "lindi archive"
    if head.startswith(b"PK"):
        return "archive"
    if head.startswith((b"{", b"\xef\xbb\xbf{")):
        return "references"
    placeholder = local_file.describe_placeholder(path)
    if placeholder:
        raise NotNWBError(placeholder)
    raise NotNWBError(
        f"{path} is not a store of objects: neither a folder, a zip archive, a LINDI archive nor a JSON "
        "reference file"
    )


def _open_kind(kind: str, source: Source) -> Objects:
    if kind == "archive":
        from lazynwb.storage.objects.zip_archive import ArchiveObjects

        return ArchiveObjects(source)
    if kind == "lindi archive":
        from lazynwb.storage.objects.lindi_archive import LindiArchiveObjects

        return LindiArchiveObjects(source)
    from lazynwb.storage.objects.reference_file import ReferenceObjects

    return ReferenceObjects(source)
