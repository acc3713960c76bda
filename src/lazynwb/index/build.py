"""`build_index`: an index of sessions, from nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from lazynwb.errors import LazyNWBError
from lazynwb.index.describe import Wish
from lazynwb.index.folder import open_folder
from lazynwb.index.model import MANIFEST, Values
from lazynwb.index.writer import Writer, decoded, described, distinct, publish
from lazynwb.progress import Progress
from lazynwb.sources.discover import expand

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping
    from concurrent.futures import Executor

    from lazynwb.sources.discover import Sources


class IndexChanges(NamedTuple):
    """What `build_index` or `update_index` did.

    Attributes
    ----------
    sessions : int
        How many the index has now.
    added, changed, removed : int
        Sessions that it did not have, that were described anew, and that are gone.
    failed : list of str
        What could not be read, and why.
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
    executor: Executor | None = None,
    storage_options: Mapping[str, Any] | None = None,
    ignore_errors: bool = True,
    disable_progress: bool = False,
) -> IndexChanges:
    """Write an index of sessions: what their files contain, to be searched, and to plan scans from.

    An index that is there already is replaced, all at once; who reads it goes on reading the old one.

    Parameters
    ----------
    sources : path or URL, or iterable of these
        As for `scan_nwb`. The index keeps their order. Signatures of presigned URLs, and passwords in URLs,
        are left out of it.
    destination : path or URL
        A folder, or a prefix in a bucket.
    chunk_locations : bool or iterable of str
        Keep where the chunks of these columns are (`"spike_times"`, `"units/waveform_mean"`), or of all:
        the index gets larger, and nobody has to look them up in the files.
    executor : concurrent.futures.Executor or None
        What describes the sources: of Dask, MPI, SLURM, or of processes of this machine.
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
    wish = Wish.of(chunk_locations)
    before = folder.find(MANIFEST)
    writer = Writer(folder, Values(), ignore_errors=ignore_errors)
    with writer, Progress("Describing NWB", len(found), disabled=disable_progress) as progress:
        for one in described(found, wish, executor):
            writer.add(one)
            progress.update()
        writer.flush()
        if len(writer.failed) == len(found):
            message = f"none of {len(found)} sources could be read; the first: {writer.failed[0]}"
            raise LazyNWBError(message)
        old = decoded(before, folder)
        publish(folder, before, old, writer, wish, [part.token for part in old.parts] if old else [])
    return IndexChanges(sum(p.sessions for p in writer.parts), len(found), 0, 0, writer.failed)
