"""The checkpoint of a build: the files that it has written so far, for a build after it to go on from."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from lazynwb.errors import LazyNWBError
from lazynwb.index.location import Conflict
from lazynwb.index.model import decode, encode, value_names
from lazynwb.index.value_parts import is_gone

if TYPE_CHECKING:
    from lazynwb.index.location import Folder
    from lazynwb.index.model import Manifest

#: The file that names what was written: a manifest that is not in force.
CHECKPOINT = "building.json"
#: Seconds of work that a build that is cut off may lose.
INTERVAL_SECONDS = 300.0


class Checkpoint:
    """What a build has written, named in a file of the index's folder until the build is done.

    Files that it names are removed only by an update after another build was published, so that builds that
    go on from the same checkpoint do not disturb each other: of these, one can be published.

    Parameters
    ----------
    folder : Folder

    Attributes
    ----------
    tokens, value_files : dict of str to None
        The parts and the files with values that it has ever named.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._last = time.monotonic()
        self.tokens: dict[str, None] = {}
        self.value_files: dict[str, None] = {}

    def load(self) -> Manifest | None:
        """Return the checkpoint of a build that was cut off; None if there is none that can be used."""
        found = self._folder.find(CHECKPOINT)
        if found is None:
            return None
        try:
            manifest = decode(found.data, self._folder.name)
        except LazyNWBError:
            return None
        tables = [
            msgspec.structs.replace(
                table,
                files=tuple(
                    file
                    for file in table.files
                    if not is_gone(self._folder, file.name) and not is_gone(self._folder, file.entry_name)
                ),
            )
            for table in manifest.table_values
        ]
        manifest = msgspec.structs.replace(manifest, table_values=tuple(tables))
        self._note(manifest)
        return manifest

    @property
    def is_due(self) -> bool:
        """Whether so much was done since the last one that it should not be lost."""
        return time.monotonic() - self._last >= INTERVAL_SECONDS

    def save(self, manifest: Manifest) -> None:
        """Name what has been written."""
        self._last = time.monotonic()
        try:
            self._folder.replace(CHECKPOINT, encode(manifest), self._folder.find(CHECKPOINT))
        except Conflict:  # of another build, which goes on from its own
            return
        self._note(manifest)

    def drop(self) -> None:
        """Remove the checkpoint: what it names is in force, or superseded."""
        self._folder.remove([CHECKPOINT])

    def _note(self, manifest: Manifest) -> None:
        self.tokens.update((part.token, None) for part in manifest.parts)
        self.value_files.update(value_names(manifest.table_values))
