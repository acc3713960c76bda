"""`build_index` and `update_index`: write an index of sessions, and bring it up to date."""

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
from lazynwb.index.model import MANIFEST, MAX_SESSIONS, Values, value_names
from lazynwb.index.part_io import in_order, joined, read_frame, read_records, records_of, without
from lazynwb.index.snapshot import State
from lazynwb.index.source_record import POOL, ChunkLocationRequest
from lazynwb.index.values import ValueWriter, requested_tables
from lazynwb.index.writer import Writer, decoded, described, distinct, files_of, manifest_of, publish
from lazynwb.progress import Progress
from lazynwb.storage.resolve import expand, resolve
from lazynwb.storage.source import Options, Source, is_url

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping
    from concurrent.futures import Executor

    from lazynwb.index.location import Folder, Found
    from lazynwb.index.model import Manifest, Part
    from lazynwb.index.part_io import Records
    from lazynwb.index.source_record import SourceRecord
    from lazynwb.storage.resolve import Sources


class IndexChanges(NamedTuple):
    """Result of `build_index` or `update_index`.

    Attributes
    ----------
    sessions : int
        How many the index has now.
    added, changed, removed : int
        Sessions that it did not have, that were described anew, and that are gone.
    failed : list of str
        Sources that could not be read, with the reasons.
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
    """Write an index of sessions: what their files contain, to be searched, and to plan scans from.

    An existing index is replaced at once; open readers keep the old one. A build that was cut off is gone on
    with: what it had described and read of sources that have not changed since is taken from there, if this
    one begins with the same sources.

    Parameters
    ----------
    sources : path or URL, or iterable of these
        As for `scan_nwb`. The index keeps their order. Signatures of presigned URLs, and passwords in URLs,
        are left out of it.
    destination : path or URL
        A folder, or a prefix in a bucket.
    chunk_locations : bool or iterable of str
        Keep where the chunks of these columns are (`"spike_times"`, `"units/waveform_mean"`), or of all:
        the index gets larger, and scans need not look them up in the files.
    values : bool, str or iterable of str
        Keep the values of small columns (scalars, text, enumerations, references, short arrays), of these
        tables (`"units"`, `"/intervals/trials"`), of all tables that are no series, or of none (False or
        "none"). See `scan_index` and `Index.value_files`.
    executor : concurrent.futures.Executor or None
        Executor that describes the sources and reads their values: Dask, MPI, SLURM, or a process pool.
    storage_options : mapping or None
        As for `scan_nwb`; for the sources and the destination. They are not written down.
    ignore_errors : bool
        Note in the index what cannot be read, and why; else it is an error.
    disable_progress : bool
        Show no progress bar.

    Returns
    -------
    IndexChanges

    Raises
    ------
    LazyNWBError
        If a URL has what may be a secret, the destination cannot be written, or no source can be read.
    """
    folder = open_folder(destination, storage_options)
    found = distinct(expand(sources, storage_options), folder)
    wish = ChunkLocationRequest.of(chunk_locations)
    before = folder.find(MANIFEST)
    checkpoint = Checkpoint(folder)
    begun = checkpoint.load()
    checked = _begun(folder, begun, found, wish, storage_options, ignore_errors=ignore_errors)
    if not checked:
        begun = None
    old = decoded(before, folder)
    writer = Writer(folder, Values(begun.values if begun else ()), ignore_errors=ignore_errors)

    def save() -> None:
        manifest = manifest_of(old, writer, wish, [])
        tables = begun.table_values if begun is not None else ()
        checkpoint.save(msgspec.structs.replace(manifest, table_values=tables))

    writer.keep_in(checkpoint, save)
    with writer, Progress("Describing NWB", len(found), disabled=disable_progress) as progress:
        done = sum(len(one.paths) for one in checked)
        work = [source for one in checked for source in one.changed] + found[done:]
        progress.update(len(found) - len(work))

        def counted() -> Iterator[SourceRecord]:
            for one in described(work, wish, executor):
                yield one
                progress.update()

        stream = counted()
        for part in checked:
            if part.is_as_before:
                writer.parts.append(part.part)
            else:
                writer.write(_renewed(writer, part, stream))
        for one in stream:
            writer.add(one)
        writer.flush()
        if len(writer.failed) == len(found):
            raise LazyNWBError(f"none of {len(found)} sources could be read; the first: {writer.failed[0]}")
        in_force = {part.token for part in writer.parts}
        unused = [part.token for part in (old.parts if old is not None else ())] + [*checkpoint.tokens]
        dropped = [token for token in dict.fromkeys(unused) if token not in in_force]
        manifest = manifest_of(old, writer, wish, dropped)
        failed = _publish_with_values(
            folder, before, old, manifest, writer, requested_tables(values), storage_options, executor,
            ignore_errors=ignore_errors, disable_progress=disable_progress, checkpoint=checkpoint,
            values_of=begun,
        )  # fmt: skip
    return IndexChanges(sum(p.sessions for p in writer.parts), len(found), 0, 0, writer.failed + failed)


def _begun(  # noqa: PLR0913 - as `_check`
    folder: Folder,
    begun: Manifest | None,
    sources: list[Source],
    wish: ChunkLocationRequest,
    storage_options: Mapping[str, Any] | None,
    *,
    ignore_errors: bool,
) -> list[_Checked]:
    """Return the parts of a build that was cut off, if this one begins with the same sources."""
    if begun is None:
        return []
    given = {source.public: source for source in sources}
    try:
        checked = _check(folder, begun, given, wish, storage_options, ignore_errors=ignore_errors)
    except (SourceNotFoundError, CorruptDataError):
        return []  # a file of it is gone
    known = [path for one in checked for path in one.paths]
    return checked if known == [source.public for source in sources[: len(known)]] else []


def _publish_with_values(  # noqa: PLR0913, PLR0917 - what is put in force
    folder: Folder,
    before: Found | None,
    old: Manifest | None,
    manifest: Manifest,
    writer: Writer,
    wanted: bool | list[str],  # noqa: FBT001 - as in the manifest
    storage_options: Mapping[str, Any] | None,
    executor: Executor | None,
    *,
    ignore_errors: bool,
    disable_progress: bool,
    values_of: Manifest | None,
    checkpoint: Checkpoint | None = None,
) -> list[str]:
    """Write the values of tables, and put a manifest in force; return what could not be read.

    Values of sessions that have not changed are taken from the manifest `values_of`. What the one before, and
    that one, have superseded is removed.
    """
    values = ValueWriter(
        folder,
        State(folder, manifest),
        State(folder, values_of) if values_of is not None else None,
        Workers(executor) if executor is not None else None,
        checkpoint,
    )
    try:
        tables = values.write(
            wanted,
            storage_options,
            ignore_errors=ignore_errors,
            disable_progress=disable_progress,
            is_update=checkpoint is None,
        )
        kept = value_names(tables)
        unused = [*(value_names(old.table_values) if old is not None else ())]
        unused += checkpoint.value_files if checkpoint is not None else []
        manifest = msgspec.structs.replace(
            manifest,
            values_of=wanted,
            table_values=tables,
            superseded_files=tuple(name for name in dict.fromkeys(unused) if name not in kept),
        )
        publish(folder, before, manifest, writer)
    except BaseException:
        named = set(checkpoint.value_files) if checkpoint is not None else set()
        folder.remove([name for name in values.written if name not in named])
        raise
    if checkpoint is not None:
        checkpoint.drop()
    if old is not None:
        in_force = {*files_of(part.token for part in manifest.parts), *kept}
        folder.remove(
            [name for name in (*files_of(old.superseded), *old.superseded_files) if name not in in_force]
        )
    return values.failed


#: A part with fewer sessions is joined with its neighbours, if these are small too.
_SMALL = MAX_SESSIONS // 2
#: Local files whose identities are asked for at a time.
_STATS = 256


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
    """Bring an index up to date: describe changed and new sources.

    Of each source that it knows, the identity is asked for. Those that are gone are removed from it. The
    parts of the index without changes stay as they are. Values (`values=` of `build_index`) are read of files
    that have changed, and only the Parquet files that these are in are written anew. Readers are not
    disturbed; files that are no longer in force are removed by the next update.

    Parameters
    ----------
    destination : path or URL
        The index.
    sources : path or URL, or iterable of these, or None
        Sources to add, if it does not have them; also signed URLs for those that it has.
    chunk_locations : bool, iterable of str or None
        As for `build_index`; None is as it was built. If this differs, all is described anew.
    executor, storage_options, ignore_errors, disable_progress
        As for `build_index`.

    Returns
    -------
    IndexChanges

    Raises
    ------
    SourceNotFoundError
        If there is no index, or none of its sources is to be found.
    LazyNWBError
        If another process has updated it meanwhile, or it cannot be written.
    """
    folder = open_folder(destination, storage_options)
    before = folder.find(MANIFEST)
    if before is None:
        raise SourceNotFoundError(f"no index of sessions in {folder.name}: lazynwb.build_index writes one")
    old = decoded(before, folder)
    assert old is not None  # noqa: S101 - there is a manifest
    wish = ChunkLocationRequest.of(old.chunk_locations if chunk_locations is None else chunk_locations)
    given = {one.public: one for one in distinct(expand(sources, storage_options), folder)} if sources else {}
    checked = _check(folder, old, given, wish, storage_options, ignore_errors=ignore_errors)
    removed = sum(len(part.gone) for part in checked)
    known = {path for part in checked for path in part.paths}
    if known and removed == len(known) and not given.keys() - known:
        raise SourceNotFoundError(
            f"none of the {len(known)} sources of index {folder.name} was found, such as "
            f"{next(iter(known))}: is the disk mounted?"
        )
    new = [source for path, source in given.items() if path not in known]
    work = [source for part in checked for source in part.changed] + new
    writer = Writer(folder, Values(old.values), ignore_errors=ignore_errors)
    with writer, Progress("Describing NWB", len(work), disabled=disable_progress) as progress:

        def counted() -> Iterator[SourceRecord]:
            for one in described(work, wish, executor):
                yield one
                progress.update()

        stream = counted()
        _rewrite(writer, checked, stream, len(new))
        kept = {part.token for part in writer.parts}
        dropped = [part.token for part in old.parts if part.token not in kept]
        failed: list[str] = []
        if dropped or len(writer.parts) != len(old.parts) or old.superseded:
            failed = _publish_with_values(
                folder, before, old, manifest_of(old, writer, wish, dropped), writer, old.values_of,
                storage_options, executor, ignore_errors=ignore_errors, disable_progress=disable_progress,
                values_of=old,
            )  # fmt: skip
    sessions = sum(part.sessions for part in writer.parts)
    return IndexChanges(sessions, len(new), len(work) - len(new), removed, writer.failed + failed)


class _Checked(NamedTuple):
    """A part of an index, with its changed and removed sources.

    Attributes
    ----------
    part : Part
    paths : list of str
        Of all, in order.
    changed : list of Source
    gone : list of str
    """

    part: Part
    paths: list[str]
    changed: list[Source]
    gone: list[str]

    @property
    def is_as_before(self) -> bool:
        return not self.changed and not self.gone

    @property
    def size(self) -> int:
        return len(self.paths) - len(self.gone)


def _check(  # noqa: PLR0913 - what is compared with what
    folder: Folder,
    old: Manifest,
    given: Mapping[str, Source],
    wish: ChunkLocationRequest,
    storage_options: Mapping[str, Any] | None,
    *,
    ignore_errors: bool,
) -> list[_Checked]:
    """Ask for the identity of every source that an index knows."""
    options = Options({**config.storage_options, **(storage_options or {})})
    is_same = (
        old.catalog_version == CATALOG_VERSION
        and old.external_links == config.external_links
        and ChunkLocationRequest.of(old.chunk_locations) == wish
    )
    checked = []
    for part in old.parts:
        frame = read_frame(folder, part, "sessions", ["path", "identity"])
        paths = frame["path"].to_list()
        sources = [given.get(path) or resolve(path, options if is_url(path) else Options()) for path in paths]
        now = _identities(sources, ignore_errors=ignore_errors)
        pairs = list(zip(sources, frame["identity"].to_list(), now, strict=True))
        gone = [source.public for source, _, new in pairs if new is _GONE]
        changed = [
            source
            for source, before, new in pairs
            if new is not _GONE
            and (not is_same or before is None or (new is not _UNREACHED and new != before))
        ]
        checked.append(_Checked(part, paths, changed, gone))
    return checked


_GONE, _UNREACHED = "gone", "unreached"


def _identities(sources: list[Source], *, ignore_errors: bool) -> list[str]:
    """Return the identities of sources, asked for at the same time."""

    def ask(block: list[Source]) -> list[str]:
        found = []
        for source in block:
            try:
                found.append(source.identity(known=True))
            except SourceNotFoundError:
                found.append(_GONE)
            except LazyNWBError as error:
                if not may_skip(error, ignore_errors=ignore_errors):
                    raise
                found.append(_UNREACHED)  # its catalog may still be valid
        return found

    size = 1 if any(source.is_remote for source in sources) else _STATS
    blocks = [sources[at : at + size] for at in range(0, len(sources), size)]
    return [one for block in POOL.map(ask, blocks) for one in block]


def _rewrite(writer: Writer, checked: list[_Checked], stream: Iterator[SourceRecord], new: int) -> None:
    """Write parts with changes anew, and small ones together with their neighbours."""
    for group in _groups(checked, new):
        if len(group) == 1 and group[0] is not None and group[0].is_as_before:
            writer.parts.append(group[0].part)
            continue
        records = []
        for one in group:
            if one is None:
                records.append(records_of([writer.take(d) for d in islice(stream, new)], writer.values))
            else:
                records.append(_renewed(writer, one, stream))
        writer.write(joined([part for part in records if len(part.sessions)] or records[:1], writer.values))
    if new >= _SMALL:
        for described in stream:
            writer.add(described)
        writer.flush()


def _groups(checked: list[_Checked], new: int) -> list[list[_Checked | None]]:
    """Put small parts together; None stands for new sources, if they are few."""
    items: list[tuple[_Checked | None, int]] = [(part, part.size) for part in checked]
    if 0 < new < _SMALL:
        items.append((None, new))
    groups: list[list[_Checked | None]] = []
    room = 0
    for item, size in items:
        if groups and size < _SMALL and size <= room:
            groups[-1].append(item)
            room -= size
        else:
            groups.append([item])
            room = MAX_SESSIONS - size if size < _SMALL else 0
    return groups


def _renewed(writer: Writer, one: _Checked, stream: Iterator[SourceRecord]) -> Records:
    """Return a part as it is now."""
    records = read_records(writer.folder, one.part, writer.values)
    if one.is_as_before:
        return records
    described = [writer.take(d) for d in islice(stream, len(one.changed))]
    rest = without(records, {*one.gone, *(d.path for d in described)})
    fresh = records_of([d for d in described if not d.vanished], writer.values)
    both = joined([rest, fresh], writer.values)
    return in_order(both, records.sessions["path"])
