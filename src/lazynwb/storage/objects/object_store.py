"""Stores of many objects, such as a Zarr store: a folder, a prefix in an object store, a zip archive."""

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

    Several are not asked for from one of the pool's own threads: these could all be waiting for each other.

    Attributes
    ----------
    source : Source
        Where it is; `source.name` is what messages call it.
    pool : Pool
        The threads on which several of its objects are read at the same time.
    """

    @property
    def source(self) -> Source: ...  # noqa: D102

    @property
    def pool(self) -> Pool: ...  # noqa: D102

    def get(self, key: str) -> bytes | memoryview | None:
        """Return an object; None if there is none.

        Raises
        ------
        LazyNWBError
            If the store cannot be read.
        """
        ...

    def get_range(self, key: str, start: int, size: int) -> bytes | memoryview | None:
        """Return a part of an object, from its end if `start` is negative; None if there is no such one."""
        ...

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes | memoryview | None]:
        """Return several objects, read at the same time where that helps."""
        ...

    def members(self, prefix: str) -> list[str] | None:
        """Return the names right below a prefix, objects and folders; None if the store does not list."""
        ...

    def version(self, key: str) -> str:
        """Return a text that changes when an object is replaced; `ABSENT` if there is none."""
        ...


def open_objects(source: Source) -> Objects:
    """Return the store at a place, by what it is: a folder, a zip archive, a file of references, a prefix.

    Local files are told by their first bytes, URLs by how they end; nothing is asked for a prefix.

    Parameters
    ----------
    source : Source

    Raises
    ------
    SourceNotFoundError
        If there is nothing, or a remote archive or file of references is not there.
    NotNWBError
        If it is none of these.
    """
    if source.is_remote:
        from lazynwb.storage.objects.remote_prefix import RemoteObjects

        kind = _KINDS.get(_suffix(urlsplit(source.path).path))
        return _opened(kind, source) if kind else RemoteObjects(source)
    if os.path.isdir(source.path):
        from lazynwb.storage.objects.local_folder import FolderObjects

        return FolderObjects(source)
    return _opened(_local_kind(source.path), source)


_KINDS = {".zip": "archive", ".json": "references", ".tar": "lindi archive"}
#: What a tar archive has in its first header, and where.
_TAR, _TAR_AT = b"ustar", 257


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _local_kind(path: str) -> str:
    try:
        local_file.path_identity(path)  # which tells a pipe, that would be waited for
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
    placeholder = local_file.placeholder(path)
    if placeholder:
        raise NotNWBError(placeholder)
    raise NotNWBError(
        f"{path} is no store of objects: neither a folder, a zip archive, a LINDI archive nor a JSON file of "
        "references"
    )


def _opened(kind: str, source: Source) -> Objects:
    if kind == "archive":
        from lazynwb.storage.objects.zip_archive import ArchiveObjects

        return ArchiveObjects(source)
    if kind == "lindi archive":
        from lazynwb.storage.objects.lindi_archive import LindiArchiveObjects

        return LindiArchiveObjects(source)
    from lazynwb.storage.objects.reference_file import ReferenceObjects

    return ReferenceObjects(source)
