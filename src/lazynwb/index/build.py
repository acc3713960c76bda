"""Building and updating an index of sessions: `build_index` and `update_index`."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from lazynwb.catalog.model import CATALOG_VERSION
from lazynwb.config import config
from lazynwb.distributed.workers import Workers
from lazynwb.errors import CorruptDataError, LazyNWBError, SourceNotFoundError, may_skip
from lazynwb.index.checkpoint import Checkpoint
from lazynwb.index.location import open_folder
from lazynwb.index.manifest import MANIFEST, value_names
from lazynwb.index.model import MAX_SESSIONS, MetadataColumns
from lazynwb.index.part_io import (
    concat_records,
    read_frame,
    read_records,
    records_of,
    sort_records,
    without_sessions,
)
from lazynwb.index.snapshot import Snapshot
from lazynwb.index.source_record import POOL, ChunkLocationRequest
from lazynwb.index.values import ValueWriter, requested_tables
from lazynwb.index.writer import (
    Writer,
    decode_if_found,
    distinct_sources,
    manifest_of,
    part_file_names,
    publish,
    read_records_of,
)
from lazynwb.progress import Progress
from lazynwb.storage.resolve import expand, resolve
from lazynwb.storage.source import Options, Source, is_url

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping
    from concurrent.futures import Executor

    from lazynwb.index.location import Folder, SmallFile
    from lazynwb.index.manifest import Manifest, Part
    from lazynwb.index.part_io import Records
    from lazynwb.index.source_record import SourceRecord
    from lazynwb.storage.resolve import Sources


class IndexChanges(NamedTuple):
    """Result of `build_index` or `update_index`.

    Attributes
    ----------
    sessions : int
        Number of sessions in the index.
    added, changed, removed : int
        Numbers of sessions that were added, indexed again, and removed.
    failed : list of str
        Sources that could not be read, with reasons.
    """

    sessions: int
    added: int
    changed: int
    removed: int
    failed: list[str]


def build_index(  # noqa: PLR0913 - the options of a build
    sources: Sources,
    destination: str | os.PathLike[str],
    *,
    chunk_locations: bool | Iterable[str] = False,
    values: bool | str | Iterable[str] = False,
    executor: Executor | None = None,
    storage_options: Mapping[str, Any] | None = None,
    ignore_errors: bool = True,
    disable_progress: bool = False,
) -> IndexChanges:
    """Write an index of sessions, which can be searched, and which scans are planned from.

    An existing index is replaced atomically; open readers keep the old state. An interrupted build is resumed
    if this build starts with the same sources: its records of sources that have not changed are reused.

    Parameters
    ----------
    sources : path or URL, or iterable of these
        As for `scan_nwb`. The index keeps their order. It does not contain signatures of presigned URLs or
        passwords in URLs.
    destination : path or URL
        A folder, or a prefix in a bucket.
    chunk_locations : bool or iterable of str
        Columns whose chunk locations are stored (`"spike_times"`, `"units/waveform_mean"`); True for all
        columns. The index becomes larger, and scans do not look up chunks in the files.
    values : bool, str or iterable of str
        Tables whose small columns (scalars, text, enumerations, references, short arrays) are stored
        (`"units"`, `"/intervals/trials"`); True for all tables except series; False or "none" for no table.
        See `scan_index` and `Index.value_files`.
    executor : concurrent.futures.Executor or None
        Executor on which the sources are read: Dask, MPI, SLURM, or a process pool.
    storage_options : mapping or None
        As for `scan_nwb`; for the sources and the destination. The index does not contain them.
    ignore_errors : bool
        Whether to record unreadable sources, with reasons, in the index instead of raising an error.
    disable_progress : bool
        Whether to show no progress bar.

    Returns
    -------
    IndexChanges

    Raises
    ------
    LazyNWBError
        If a URL may contain a secret, the destination cannot be written, or no source can be read.
    """
    folder = open_folder(destination, storage_options)
    found = distinct_sources(expand(sources, storage_options), folder)
    locations = ChunkLocationRequest.of(chunk_locations)
    before = folder.find(MANIFEST)
    checkpoint = Checkpoint(folder)
    interrupted = checkpoint.load()
    checked = _resumable_parts(
        folder, interrupted, found, locations, storage_options, ignore_errors=ignore_errors
    )
    if not checked:
        interrupted = None
    old = decode_if_found(before, folder)
    writer = Writer(
        folder, MetadataColumns(interrupted.values if interrupted else ()), ignore_errors=ignore_errors
    )

    def save() -> None:
        manifest = manifest_of(old, writer, locations, [])
        tables = interrupted.table_values if interrupted is not None else ()
        checkpoint.save(msgspec.structs.replace(manifest, table_values=tables))

    writer.use_checkpoint(checkpoint, save)
    with writer, Progress("Indexing NWB", len(found), disabled=disable_progress) as progress:
        done = sum(len(one.paths) for one in checked)
        work = [source for one in checked for source in one.changed] + found[done:]
        progress.update(len(found) - len(work))

        def records_with_progress() -> Iterator[SourceRecord]:
            for one in read_records_of(work, locations, executor):
                yield one
                progress.update()

        stream = records_with_progress()
        for part in checked:
            if part.is_unchanged:
                writer.parts.append(part.part)
            else:
                writer.write(_updated_records(writer, part, stream))
        for one in stream:
            writer.add(one)
        writer.flush()
        if len(writer.failed) == len(found):
            raise LazyNWBError(
                f"none of {len(found)} sources could be read; the first error: {writer.failed[0]}"
            )
        current = {part.token for part in writer.parts}
        unused = [part.token for part in (old.parts if old is not None else ())] + [*checkpoint.tokens]
        dropped = [token for token in dict.fromkeys(unused) if token not in current]
        manifest = manifest_of(old, writer, locations, dropped)
        failed = _publish_with_values(
            folder, before, old, manifest, writer, requested_tables(values), storage_options, executor,
            ignore_errors=ignore_errors, disable_progress=disable_progress, checkpoint=checkpoint,
            values_of=interrupted,
        )  # fmt: skip
    return IndexChanges(sum(p.sessions for p in writer.parts), len(found), 0, 0, writer.failed + failed)


def _resumable_parts(  # noqa: PLR0913 - as `_check_parts`
    folder: Folder,
    interrupted: Manifest | None,
    sources: list[Source],
    locations: ChunkLocationRequest,
    storage_options: Mapping[str, Any] | None,
    *,
    ignore_errors: bool,
) -> list[_CheckedPart]:
    """Return the parts of an interrupted build, if this build starts with the same sources."""
    if interrupted is None:
        return []
    by_path = {source.public: source for source in sources}
    try:
        checked = _check_parts(
            folder, interrupted, by_path, locations, storage_options, ignore_errors=ignore_errors
        )
    except (SourceNotFoundError, CorruptDataError):
        return []  # files of the interrupted build are missing
    known = [path for one in checked for path in one.paths]
    return checked if known == [source.public for source in sources[: len(known)]] else []


def _publish_with_values(  # noqa: PLR0913, PLR0917 - options of a build
    folder: Folder,
    before: SmallFile | None,
    old: Manifest | None,
    manifest: Manifest,
    writer: Writer,
    requested: bool | list[str],  # noqa: FBT001 - as in the manifest
    storage_options: Mapping[str, Any] | None,
    executor: Executor | None,
    *,
    ignore_errors: bool,
    disable_progress: bool,
    values_of: Manifest | None,
    checkpoint: Checkpoint | None = None,
) -> list[str]:
    """Write the values of tables and publish a manifest; return the errors of unreadable tables.

    Values of unchanged sessions are reused from the manifest `values_of`. Files that the previous manifest
    has superseded are removed.
    """
    values = ValueWriter(
        folder,
        Snapshot(folder, manifest),
        Snapshot(folder, values_of) if values_of is not None else None,
        Workers(executor) if executor is not None else None,
        checkpoint,
    )
    try:
        tables = values.write(
            requested,
            storage_options,
            ignore_errors=ignore_errors,
            disable_progress=disable_progress,
            is_update=checkpoint is None,
        )
        published = value_names(tables)
        unused = [*(value_names(old.table_values) if old is not None else ())]
        unused += checkpoint.value_files if checkpoint is not None else []
        manifest = msgspec.structs.replace(
            manifest,
            values_of=requested,
            table_values=tables,
            superseded_files=tuple(name for name in dict.fromkeys(unused) if name not in published),
        )
        publish(folder, before, manifest, writer)
    except BaseException:
        named = set(checkpoint.value_files) if checkpoint is not None else set()
        folder.remove([name for name in values.written if name not in named])
        raise
    if checkpoint is not None:
        checkpoint.drop()
    if old is not None:
        current = {*part_file_names(part.token for part in manifest.parts), *published}
        folder.remove(
            [
                name
                for name in (*part_file_names(old.superseded), *old.superseded_files)
                if name not in current
            ]
        )
    return values.failed


#: Parts with fewer sessions are merged with small neighbors.
SMALL_PART = MAX_SESSIONS // 2
#: Number of local files per task that reads identities.
_FILES_PER_TASK = 256


def update_index(  # noqa: PLR0913 - the options of an update
    destination: str | os.PathLike[str],
    sources: Sources | None = None,
    *,
    chunk_locations: bool | Iterable[str] | None = None,
    executor: Executor | None = None,
    storage_options: Mapping[str, Any] | None = None,
    ignore_errors: bool = True,
    disable_progress: bool = False,
) -> IndexChanges:
    """Update an index: read changed and new sources, and remove missing ones.

    The identity of each source is compared with that in the index. Parts of the index without changes are
    kept. Values (`values=` of `build_index`) are read from changed files only, and only the Parquet files
    that contain them are rewritten. Open readers are not affected; obsolete files are removed by the next
    update.

    Parameters
    ----------
    destination : path or URL
        The index.
    sources : path or URL, or iterable of these, or None
        Sources to add, unless the index has them; also signed URLs of sources that the index has.
    chunk_locations : bool, iterable of str or None
        As for `build_index`; None keeps the setting of the index. If the setting changes, all sources are
        read again.
    executor, storage_options, ignore_errors, disable_progress
        As for `build_index`.

    Returns
    -------
    IndexChanges

    Raises
    ------
    SourceNotFoundError
        If the index does not exist, or none of its sources exists.
    LazyNWBError
        If another process has updated the index at the same time, or the index cannot be written.
    """
    folder = open_folder(destination, storage_options)
    before = folder.find(MANIFEST)
    if before is None:
        raise SourceNotFoundError(
            f"no index of sessions in {folder.name}: build it with lazynwb.build_index or lazynwb index build"
        )
    old = decode_if_found(before, folder)
    assert old is not None  # noqa: S101 - the manifest exists
    locations = ChunkLocationRequest.of(old.chunk_locations if chunk_locations is None else chunk_locations)
    by_path = (
        {one.public: one for one in distinct_sources(expand(sources, storage_options), folder)}
        if sources
        else {}
    )
    checked = _check_parts(folder, old, by_path, locations, storage_options, ignore_errors=ignore_errors)
    removed = sum(len(part.gone) for part in checked)
    known = {path for part in checked for path in part.paths}
    if known and removed == len(known) and not by_path.keys() - known:
        raise SourceNotFoundError(
            f"none of the {len(known)} sources of index {folder.name} was found, for example "
            f"{next(iter(known))}: check that their disk or network share is mounted"
        )
    new = [source for path, source in by_path.items() if path not in known]
    work = [source for part in checked for source in part.changed] + new
    writer = Writer(folder, MetadataColumns(old.values), ignore_errors=ignore_errors)
    with writer, Progress("Indexing NWB", len(work), disabled=disable_progress) as progress:

        def records_with_progress() -> Iterator[SourceRecord]:
            for one in read_records_of(work, locations, executor):
                yield one
                progress.update()

        stream = records_with_progress()
        _rewrite(writer, checked, stream, len(new))
        retained = {part.token for part in writer.parts}
        dropped = [part.token for part in old.parts if part.token not in retained]
        failed: list[str] = []
        if dropped or len(writer.parts) != len(old.parts) or old.superseded:
            failed = _publish_with_values(
                folder, before, old, manifest_of(old, writer, locations, dropped), writer, old.values_of,
                storage_options, executor, ignore_errors=ignore_errors, disable_progress=disable_progress,
                values_of=old,
            )  # fmt: skip
    sessions = sum(part.sessions for part in writer.parts)
    return IndexChanges(sessions, len(new), len(work) - len(new), removed, writer.failed + failed)


class _CheckedPart(NamedTuple):
    """A part of an index, with its changed and missing sources.

    Attributes
    ----------
    part : Part
    paths : list of str
        Paths of all sources, in order.
    changed : list of Source
    gone : list of str
    """

    part: Part
    paths: list[str]
    changed: list[Source]
    gone: list[str]

    @property
    def is_unchanged(self) -> bool:
        return not self.changed and not self.gone

    @property
    def size(self) -> int:
        return len(self.paths) - len(self.gone)


def _check_parts(  # noqa: PLR0913 - options of an update
    folder: Folder,
    old: Manifest,
    by_path: Mapping[str, Source],
    locations: ChunkLocationRequest,
    storage_options: Mapping[str, Any] | None,
    *,
    ignore_errors: bool,
) -> list[_CheckedPart]:
    """Compare the identity of every source of an index with its current one."""
    options = Options({**config.storage_options, **(storage_options or {})})
    is_same = (
        old.catalog_version == CATALOG_VERSION
        and old.external_links == config.external_links
        and ChunkLocationRequest.of(old.chunk_locations) == locations
    )
    checked = []
    for part in old.parts:
        frame = read_frame(folder, part, "sessions", ["path", "identity"])
        paths = frame["path"].to_list()
        sources = [
            by_path.get(path) or resolve(path, options if is_url(path) else Options()) for path in paths
        ]
        now = _identities(sources, ignore_errors=ignore_errors)
        pairs = list(zip(sources, frame["identity"].to_list(), now, strict=True))
        gone = [source.public for source, _, new in pairs if new is _MISSING]
        changed = [
            source
            for source, before, new in pairs
            if new is not _MISSING
            and (not is_same or before is None or (new is not _UNREACHABLE and new != before))
        ]
        checked.append(_CheckedPart(part, paths, changed, gone))
    return checked


_MISSING, _UNREACHABLE = "gone", "unreached"


def _identities(sources: list[Source], *, ignore_errors: bool) -> list[str]:
    """Return the current identities of sources, which are requested concurrently."""

    def read_identities(block: list[Source]) -> list[str]:
        found = []
        for source in block:
            try:
                found.append(source.identity(known=True))
            except SourceNotFoundError:
                found.append(_MISSING)
            except LazyNWBError as error:
                if not may_skip(error, ignore_errors=ignore_errors):
                    raise
                found.append(_UNREACHABLE)  # its catalog may still be valid
        return found

    size = 1 if any(source.is_remote for source in sources) else _FILES_PER_TASK
    blocks = [sources[at : at + size] for at in range(0, len(sources), size)]
    return [one for block in POOL.map(read_identities, blocks) for one in block]


def _rewrite(writer: Writer, checked: list[_CheckedPart], stream: Iterator[SourceRecord], new: int) -> None:
    """Rewrite parts with changes, and merge small parts with their neighbors."""
    for group in _groups(checked, new):
        if len(group) == 1 and group[0] is not None and group[0].is_unchanged:
            writer.parts.append(group[0].part)
            continue
        records = []
        for one in group:
            if one is None:
                records.append(
                    records_of([writer.check_record(d) for d in islice(stream, new)], writer.values)
                )
            else:
                records.append(_updated_records(writer, one, stream))
        writer.write(
            concat_records([part for part in records if len(part.sessions)] or records[:1], writer.values)
        )
    if new >= SMALL_PART:
        for record in stream:
            writer.add(record)
        writer.flush()


def _groups(checked: list[_CheckedPart], new: int) -> list[list[_CheckedPart | None]]:
    """Group small parts; None represents the new sources, if they are few."""
    items: list[tuple[_CheckedPart | None, int]] = [(part, part.size) for part in checked]
    if 0 < new < SMALL_PART:
        items.append((None, new))
    groups: list[list[_CheckedPart | None]] = []
    room = 0
    for item, size in items:
        if groups and size < SMALL_PART and size <= room:
            groups[-1].append(item)
            room -= size
        else:
            groups.append([item])
            room = MAX_SESSIONS - size if size < SMALL_PART else 0
    return groups


def _updated_records(writer: Writer, one: _CheckedPart, stream: Iterator[SourceRecord]) -> Records:
    """Return the current records of a part."""
    records = read_records(writer.folder, one.part, writer.values)
    if one.is_unchanged:
        return records
    renewed = [writer.check_record(d) for d in islice(stream, len(one.changed))]
    rest = without_sessions(records, {*one.gone, *(d.path for d in renewed)})
    fresh = records_of([d for d in renewed if not d.vanished], writer.values)
    both = concat_records([rest, fresh], writer.values)
    return sort_records(both, records.sessions["path"])
