"""Writer of an index: parts with the records of sources, and the manifest that publishes them."""

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
from lazynwb.index.manifest import (
    ENTRIES,
    MANIFEST,
    Manifest,
    decode_manifest,
    encode_manifest,
    part_file_name,
)
from lazynwb.index.model import KINDS, MAX_SESSIONS, MetadataColumns
from lazynwb.index.part_io import records_of, write_part
from lazynwb.index.source_record import (
    ENCODER,
    POOL,
    ChunkLocationRequest,
    SourceRecord,
    index_source,
    index_sources,
)
from lazynwb.struct_decoders import msgpack_decoder
from lazynwb.threads import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Executor, Future

    from lazynwb.index.checkpoint import Checkpoint
    from lazynwb.index.location import Folder, SmallFile
    from lazynwb.index.manifest import Part
    from lazynwb.index.part_io import Records
    from lazynwb.storage.source import Source

#: Number of sources per task of an executor, and maximum number of submitted tasks.
_SOURCES_PER_TASK, _MAX_TASKS = 16, 256
#: Number of remote sources that are read ahead.
_MAX_AHEAD = 64
#: Maximum size of the catalog entries of a part, which a build holds in memory.
_MAX_ENTRY_BYTES = 128 * 1024 * 1024
#: Minimum number of sessions of a part that is written for a checkpoint, as small parts are slow to read.
MIN_SESSIONS = 512

_DECODER = msgpack_decoder(list[SourceRecord])


def distinct_sources(found: Iterable[Source], folder: Folder) -> list[Source]:
    """Return the distinct sources; raise LazyNWBError for sources that an index must not contain."""
    by_path = {source.public: source for source in found}
    for source in by_path.values():
        if source.secrets:
            raise LazyNWBError(
                f"{source.name}: the value of {source.secrets[0]!r} may be a secret, which an index must not "
                'contain: pass it in storage_options={"headers": ...}, or leave the source out'
            )
        if folder.is_remote and not source.is_remote:
            raise LazyNWBError(
                f"index {folder.name} is remote and cannot contain the local file {source.name}: pass URLs "
                "of the files, or write the index to a local folder"
            )
    return list(by_path.values())


def index_in_worker(sources: list[Source], locations: ChunkLocationRequest, external_links: str) -> bytes:
    """Return the encoded records of sources; runs in a worker process."""
    config.external_links = external_links  # type: ignore[assignment]
    return ENCODER.encode(index_sources(sources, locations))


def read_records_of(
    sources: Sequence[Source], locations: ChunkLocationRequest, executor: Executor | None
) -> Iterator[SourceRecord]:
    """Yield the records of sources, in order."""
    if executor is not None:
        tasks = [
            list(sources[at : at + _SOURCES_PER_TASK]) for at in range(0, len(sources), _SOURCES_PER_TASK)
        ]

        def submit(task: list[Source]) -> Future[bytes]:
            return executor.submit(index_in_worker, task, locations, config.external_links)

        for packed in _submit_ahead(submit, tasks, _MAX_TASKS):
            yield from _DECODER.decode(packed)
    elif any(source.is_remote for source in sources):
        yield from _submit_ahead(
            lambda source: POOL.submit(index_source, source, locations), sources, _MAX_AHEAD
        )
    else:
        for source in sources:
            yield index_source(source, locations)


def _submit_ahead(submit: Callable[[Any], Future[Any]], items: Iterable[Any], ahead: int) -> Iterator[Any]:
    """Yield the results of tasks in order, with a limited number of tasks submitted ahead."""
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
    """A writer of parts, which collects records; the parts are removed if no manifest is published."""

    def __init__(self, folder: Folder, values: MetadataColumns, *, ignore_errors: bool) -> None:
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

    def use_checkpoint(self, checkpoint: Checkpoint, save: Callable[[], None]) -> None:
        """List written parts in a checkpoint, so that they remain if the build is interrupted."""
        self._checkpoint, self._save = checkpoint, save

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.ispublished:
            named = set(self._checkpoint.tokens) if self._checkpoint is not None else set()
            self._folder.remove(part_file_names(token for token in self._new if token not in named))

    @property
    def folder(self) -> Folder:
        """The folder of the index."""
        return self._folder

    def check_record(self, one: SourceRecord) -> SourceRecord:
        """Return a record, and note the error of an unreadable source.

        Raises
        ------
        LazyNWBError
            If the source cannot be read, unless errors are ignored.
        """
        if one.identity is None and one.problem and not one.tables:
            if not self._ignore_errors:
                raise (SourceNotFoundError if one.vanished else LazyNWBError)(one.problem)
            self.failed.append(one.problem if one.path in one.problem else f"{one.path}: {one.problem}")
        return one

    def add(self, one: SourceRecord) -> None:
        """Append a session."""
        self._waiting.append(self.check_record(one))
        self._bytes += sum(len(found.entry) for found in one.tables)
        is_due = self._checkpoint is not None and self._checkpoint.is_due
        if (
            len(self._waiting) >= MAX_SESSIONS
            or self._bytes >= _MAX_ENTRY_BYTES
            or (is_due and len(self._waiting) >= MIN_SESSIONS)
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
    old: Manifest | None, writer: Writer, locations: ChunkLocationRequest, dropped: list[str]
) -> Manifest:
    """Return the manifest of the parts of a writer."""
    return Manifest(
        token=uuid.uuid4().hex,
        generation=old.generation + 1 if old is not None else 1,
        made=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        made_by=__version__,
        external_links=config.external_links,
        chunk_locations=locations.everything if not locations.names else sorted(locations.names),
        parts=tuple(writer.parts),
        values=tuple(writer.values),
        superseded=tuple(dropped),
    )


def publish(folder: Folder, before: SmallFile | None, manifest: Manifest, writer: Writer) -> None:
    """Publish a manifest.

    Raises
    ------
    LazyNWBError
        If another process has published a manifest since the last one was read.
    """
    try:
        folder.replace(MANIFEST, encode_manifest(manifest), before)
    except Conflict:
        raise LazyNWBError(
            f"index {folder.name} was updated by another process at the same time: run the update again"
        ) from None
    writer.ispublished = True


def decode_if_found(before: SmallFile | None, folder: Folder) -> Manifest | None:
    """Decode a manifest file; return None if there is none."""
    return decode_manifest(before.data, folder.name) if before is not None else None


def part_file_names(tokens: Iterable[str]) -> list[str]:
    """Return the names of all files of parts."""
    return [part_file_name(kind, token) for token in tokens for kind in (*KINDS, ENTRIES)]
