"""The checkpoint of a build: the files written so far, from which a later build resumes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from lazynwb.errors import LazyNWBError
from lazynwb.index.location import Conflict
from lazynwb.index.manifest import decode_manifest, encode_manifest, value_names
from lazynwb.index.value_parts import is_removed

if TYPE_CHECKING:
    from lazynwb.index.location import Folder
    from lazynwb.index.manifest import Manifest

#: The checkpoint file: a manifest that is not published.
CHECKPOINT = "building.json"
#: Maximum time between checkpoints, in seconds: the work that an interrupted build loses.
INTERVAL_SECONDS = 300.0


class Checkpoint:
    """The list of files that a build has written, in a file of the index's folder until the build ends.

    Listed files are removed only by an update after another build was published. Builds that resume from the
    same checkpoint therefore do not affect each other; one of them can be published.

    Parameters
    ----------
    folder : Folder

    Attributes
    ----------
    tokens, value_files : dict of str to None
        The parts and value files that were ever listed.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._last = time.monotonic()
        self.tokens: dict[str, None] = {}
        self.value_files: dict[str, None] = {}

    def load(self) -> Manifest | None:
        """Return the checkpoint of an interrupted build; None if there is no usable one."""
        found = self._folder.find(CHECKPOINT)
        if found is None:
            return None
        try:
            manifest = decode_manifest(found.data, self._folder.name)
        except LazyNWBError:
            return None
        tables = [
            msgspec.structs.replace(
                table,
                files=tuple(
                    file
                    for file in table.files
                    if not is_removed(self._folder, file.name)
                    and not is_removed(self._folder, file.entry_name)
                ),
            )
            for table in manifest.table_values
        ]
        manifest = msgspec.structs.replace(manifest, table_values=tuple(tables))
        self._note(manifest)
        return manifest

    @property
    def is_due(self) -> bool:
        """Whether the interval since the last checkpoint has passed."""
        return time.monotonic() - self._last >= INTERVAL_SECONDS

    def save(self, manifest: Manifest) -> None:
        """Write the list of files."""
        self._last = time.monotonic()
        try:
            self._folder.replace(CHECKPOINT, encode_manifest(manifest), self._folder.find(CHECKPOINT))
        except Conflict:  # another build has written its own checkpoint
            return
        self._note(manifest)

    def drop(self) -> None:
        """Remove the checkpoint after publication: listed files are in use or superseded."""
        self._folder.remove([CHECKPOINT])

    def _note(self, manifest: Manifest) -> None:
        self.tokens.update((part.token, None) for part in manifest.parts)
        self.value_files.update(value_names(manifest.table_values))
