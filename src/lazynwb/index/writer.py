"""Writing an index: descriptions of sources as parts, and the manifest that publishes them."""

from __future__ import annotations

import datetime as dt
import uuid
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

from lazynwb._version import __version__
from lazynwb.config import config
from lazynwb.errors import LazyNWBError, SourceNotFoundError
from lazynwb.index.location import Conflict
from lazynwb.index.model import (
    ENTRIES,
    KINDS,
    MANIFEST,
    MAX_SESSIONS,
    Manifest,
    Values,
    decode,
    encode,
    file_of,
)
from lazynwb.index.part_io import records_of, write_part
from lazynwb.index.source_record import (
    ENCODER,
    POOL,
    ChunkLocationRequest,
    SourceRecord,
    describe,
    describe_all,
)
from lazynwb.struct_decoders import msgpack_decoder
from lazynwb.threads import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Executor, Future

    from lazynwb.index.checkpoint import Checkpoint
    from lazynwb.index.location import Folder, Found
    from lazynwb.index.model import Part
    from lazynwb.index.part_io import Records
    from lazynwb.storage.source import Source

#: Sources that an executor is given at a time, and how many such tasks are under way.
_TASK, _TASKS = 16, 256
#: Remote sources that are looked at ahead of the one that is waited for.
_AHEAD = 64
#: Catalog entries of a part, in bytes: what a build holds in memory.
_MAX_BYTES = 128 * 1024 * 1024
#: Sessions of a part that is written because it is time for a checkpoint: not too few for readers.
_MIN_SESSIONS = 512

_DECODER = msgpack_decoder(list[SourceRecord])


def distinct(found: Iterable[Source], folder: Folder) -> list[Source]:
    """Return sources once each, if an index may name them."""
    distinct = {source.public: source for source in found}
    for source in distinct.values():
        if source.secrets:
            raise LazyNWBError(
                f"{source.name}: the value of {source.secrets[0]!r} may be a secret, and an index is for "
                'others to read: pass it by storage_options={"headers": ...}, or leave the source out'
            )
        if folder.is_remote and not source.is_remote:
            raise LazyNWBError(
                f"index {folder.name} is not on this machine, and could not name {source.name}, which is: "
                "give URLs of the files, or write the index to a local folder"
            )
    return list(distinct.values())


def describe_packed(sources: list[Source], wish: ChunkLocationRequest, external_links: str) -> bytes:
    """Describe sources in another process; the description as bytes."""
    config.external_links = external_links  # type: ignore[assignment]
    return ENCODER.encode(describe_all(sources, wish))


def described(
    sources: Sequence[Source], wish: ChunkLocationRequest, executor: Executor | None
) -> Iterator[SourceRecord]:
    """Yield descriptions of sources, in order."""
    if executor is not None:
        tasks = [list(sources[at : at + _TASK]) for at in range(0, len(sources), _TASK)]

        def submit(task: list[Source]) -> Future[bytes]:
            return executor.submit(describe_packed, task, wish, config.external_links)

        for packed in _in_turn(submit, tasks, _TASKS):
            yield from _DECODER.decode(packed)
    elif any(source.is_remote for source in sources):
        yield from _in_turn(lambda source: POOL.submit(describe, source, wish), sources, _AHEAD)
    else:
        for source in sources:
            yield describe(source, wish)


def _in_turn(submit: Callable[[Any], Future[Any]], items: Iterable[Any], ahead: int) -> Iterator[Any]:
    """Yield the results of work that is begun ahead, in order."""
    left = iter(items)
    begun = deque(submit(item) for item in islice(left, ahead))
    try:
        while begun:
            yield wait(begun.popleft())
            begun.extend(submit(item) for item in islice(left, 1))
    finally:
        for future in begun:
            future.cancel()


# -- parts ------------------------------------------------------------------------------------------------


class Writer:
    """Collects descriptions and writes parts; they are removed again if no manifest is published."""

    def __init__(self, folder: Folder, values: Values, *, ignore_errors: bool) -> None:
        self._folder = folder
        self.values = values
        self._ignore_errors = ignore_errors
        self._waiting: list[SourceRecord] = []
        self._bytes = 0
        self._new: list[str] = []
        self.parts: list[Part] = []
        self.failed: list[str] = []
        self.ispublished = False
        self._checkpoint: Checkpoint | None = None
        self._save: Callable[[], None] | None = None

    def keep_in(self, checkpoint: Checkpoint, save: Callable[[], None]) -> None:
        """Name parts in a checkpoint, by a function that saves it: these stay where a build is cut off."""
        self._checkpoint, self._save = checkpoint, save

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.ispublished:
            named = set(self._checkpoint.tokens) if self._checkpoint is not None else set()
            self._folder.remove(files_of(token for token in self._new if token not in named))

    @property
    def folder(self) -> Folder:
        """Where the index is."""
        return self._folder

    def take(self, one: SourceRecord) -> SourceRecord:
        """Record a failure to read a source.

        Raises
        ------
        LazyNWBError
            If that is an error.
        """
        if one.identity is None and one.problem and not one.tables:
            if not self._ignore_errors:
                raise (SourceNotFoundError if one.vanished else LazyNWBError)(one.problem)
            self.failed.append(one.problem if one.path in one.problem else f"{one.path}: {one.problem}")
        return one

    def add(self, one: SourceRecord) -> None:
        """Append a session."""
        self._waiting.append(self.take(one))
        self._bytes += sum(len(found.entry) for found in one.tables)
        is_due = self._checkpoint is not None and self._checkpoint.is_due
        if (
            len(self._waiting) >= MAX_SESSIONS
            or self._bytes >= _MAX_BYTES
            or (is_due and len(self._waiting) >= _MIN_SESSIONS)
        ):
            self.flush()
            if self._save is not None:
                self._save()

    def flush(self) -> None:
        """Write the collected sessions."""
        if self._waiting:
            self.write(records_of(self._waiting, self.values))
        self._waiting, self._bytes = [], 0

    def write(self, records: Records) -> None:
        """Write a part."""
        if len(records.sessions):
            part = write_part(self._folder, records)
            self._new.append(part.token)
            self.parts.append(part)


def manifest_of(
    old: Manifest | None, writer: Writer, wish: ChunkLocationRequest, dropped: list[str]
) -> Manifest:
    """Return the manifest of the parts of a writer."""
    return Manifest(
        token=uuid.uuid4().hex,
        generation=old.generation + 1 if old is not None else 1,
        made=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        made_by=__version__,
        external_links=config.external_links,
        chunk_locations=wish.everything if not wish.names else sorted(wish.names),
        parts=tuple(writer.parts),
        values=tuple(writer.values),
        superseded=tuple(dropped),
    )


def publish(folder: Folder, before: Found | None, manifest: Manifest, writer: Writer) -> None:
    """Put a manifest in force.

    Raises
    ------
    LazyNWBError
        If another process has published a manifest meanwhile.
    """
    try:
        folder.replace(MANIFEST, encode(manifest), before)
    except Conflict:
        raise LazyNWBError(
            f"index {folder.name} was updated by another process meanwhile: run the update again"
        ) from None
    writer.ispublished = True


def decoded(before: Found | None, folder: Folder) -> Manifest | None:
    """Return the manifest that was found, if any."""
    return decode(before.data, folder.name) if before is not None else None


def files_of(tokens: Iterable[str]) -> list[str]:
    """Return the names of all files of parts."""
    return [file_of(kind, token) for token in tokens for kind in (*KINDS, ENTRIES)]
