"""Files, local and remote, under one set of names: what they are, whether they still are, their bytes."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Protocol, TypeVar

from lazynwb.errors import LazyNWBError
from lazynwb.storage import local_file
from lazynwb.threads import LOADERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager

    from lazynwb.storage.source import Source
    from lazynwb.threads import Pool

A = TypeVar("A")
T = TypeVar("T")

#: The identity of a file that does not exist: what a broken external link depends on.
ABSENT = "absent"


class Ranges(Protocol):
    """What is open for reading."""

    def read(self, offset: int, size: int) -> bytearray | memoryview:
        """Return a range of bytes; CorruptDataError if the file ends before."""
        ...

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a buffer from an offset on."""
        ...


class File(Protocol):
    """One version of one file; reading any other fails.

    Attributes
    ----------
    name : str
        For messages.
    size : int
    pool : Pool
        The threads that read it.
    gap : int
        Ranges closer than this are cheaper read as one.
    merged : int
        Size up to which ranges are merged.
    parallel : int
        Reads of at least this size are worth a thread.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def size(self) -> int: ...  # noqa: D102

    @property
    def pool(self) -> Pool: ...  # noqa: D102

    @property
    def gap(self) -> int: ...  # noqa: D102

    @property
    def merged(self) -> int: ...  # noqa: D102

    @property
    def parallel(self) -> int: ...  # noqa: D102

    def has(self, offset: int, size: int) -> bool:
        """Tell whether a range costs no request."""
        ...

    def keep(self, offset: int, data: memoryview) -> None:
        """Keep a range for later queries, if it is small and costs a request."""
        ...

    def reading(self) -> AbstractContextManager[Ranges]:
        """Open the file for as long as the `with` block lasts."""
        ...


def open_file(source: Source, expected: str) -> File:
    """Return a file for reading, if it is still the one that the catalog describes.

    Raises
    ------
    SourceNotFoundError, SourceChangedError
        If it is gone or another one; for remote files this shows with the first read.
    """
    if source.is_remote:
        from lazynwb.storage.remote_file import RemoteFile

        return RemoteFile(source, expected)
    return local_file.LocalFile(source.path, expected)


def identity(source: Source, *, known: bool = False) -> str:
    """Return a text that changes whenever the file is replaced or written to.

    Parameters
    ----------
    source : Source
    known : bool
        Whether the file is probably in the catalog, so that none of its contents are needed.

    Raises
    ------
    SourceNotFoundError
        If there is no such file.
    LazyNWBError
        If it cannot be read.
    """
    if is_folder(source):
        from lazynwb.storage.objects import metadata_identity

        return metadata_identity.identity(source, known=known)
    if source.is_remote:
        from lazynwb.storage import remote_file

        return remote_file.identity(source, known=known)
    return local_file.identity(source.path)


def is_folder(source: Source) -> bool:
    """Tell whether a source is a store of many objects, rather than one file."""
    if source.is_remote:
        return source.path.partition("?")[0].lower().endswith((".zarr", "/"))
    return os.path.isdir(source.path)


def identity_or_absent(source: Source) -> str:
    """Return the identity of a file, `ABSENT` if there is none (or none that can be read)."""
    try:
        return identity(source)
    except LazyNWBError:
        return ABSENT


def verify_identity(source: Source, expected: str) -> None:
    """Make sure that a local file is still the one that the catalog describes.

    Every answer about a remote file says which version it is from, so nothing is asked here.

    Raises
    ------
    SourceNotFoundError, SourceChangedError
        If it is gone or another one.
    """
    if is_folder(source):
        if identity(source, known=True) != expected:
            raise local_file.changed(source.name)
    elif not source.is_remote:
        local_file.verify_identity(source.path, expected)


def shows_change(source: Source, known: str) -> bool:
    """Tell whether reading a file asks its server for bytes, whose answers say which version they are of.

    Those of a store of objects only say it of single objects; and bytes that are here already say nothing.
    """
    if not source.is_remote or is_folder(source):
        return False
    from lazynwb.storage.block_cache import block_cache_of

    return not block_cache_of(source, known, lasting=is_settled(source, known, 0)).size


def forget() -> None:
    """Forget what is known of remote files: identities, bytes of them, where the DANDI archive keeps them."""
    for name in (
        "remote_file",
        "retry",
        "dandi.resolver",
        "stores.dandi_assets",
        "objects.metadata_identity",
    ):
        module = sys.modules.get(f"lazynwb.storage.{name}")
        if module is not None:
            module.forget()


def invalidate(source: Source) -> None:
    """Forget the bytes that are here of a remote file, and its identity: they were damaged on their way."""
    if not source.is_remote:
        return
    if is_folder(source):
        from lazynwb.storage.objects import metadata_identity

        metadata_identity.invalidate(source)
        return
    from lazynwb.storage import remote_file

    remote_file.invalidate(source)
    for name in ("zip_archive", "reference_file"):
        module = sys.modules.get(f"lazynwb.storage.objects.{name}")
        if module is not None:
            module.forget()


def prefetch(sources: Iterable[Source]) -> None:
    """Note sources that may be asked for, where it saves requests to look many up at once."""
    assets = [source for source in sources if source.path.startswith("dandi://")]
    if assets:
        from lazynwb.storage.stores.dandi_assets import prepare

        prepare(assets)


def save() -> None:
    """Keep on disk what parsing and small columns needed of remote files, for the next process."""
    kept = sys.modules.get("lazynwb.storage.block_cache")
    if kept is not None:
        kept.save_all()


def map_concurrently(work: Callable[[A], T], items: Sequence[A], sources: Iterable[Source]) -> list[T]:
    """Call a function for each item, at the same time if any of the sources that it reads is remote."""
    if len(items) > 1 and any(source.is_remote for source in sources):
        return LOADERS.map(work, items)
    return [work(item) for item in items]


def is_settled(source: Source, known: str, now_ns: int) -> bool:
    """Tell whether a write from now on is certain to change a file's identity; else it is not remembered."""
    if is_folder(source):  # its version is that of the document that describes it
        key, _, known = known.partition("\t")
        source = source.with_path(f"{source.path.rstrip('/')}/{key}")
    if source.is_remote:
        from lazynwb.storage import remote_file

        return remote_file.is_settled(source, known)
    return local_file.is_settled(source.path, now_ns)
