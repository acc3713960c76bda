"""The manifest of an output folder: sources and options of each output, to recognize unchanged ones.

It is written under a temporary name and renamed, like the outputs. Outputs that are missing from it, or do
not match it, are converted again: losing the manifest costs time, but never causes wrong output.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import msgspec

from lazynwb.errors import LazyNWBError
from lazynwb.file_lock import exclusive_lock
from lazynwb.struct_decoders import json_decoder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LOGGER = logging.getLogger("lazynwb")
#: Version of the manifest and of its fingerprints.
SCHEMA = 1
#: File name, without a suffix so that a pattern such as `*.json` only matches outputs.
NAME = ".lazynwb-manifest"
_LOCK = ".lazynwb-lock"
_PART = (".lazynwb-", ".part")
#: Maximum fraction of the time spent on saving.
_SHARE = 0.05


class Output(msgspec.Struct):
    """The entry of an output: one table, or the part of a table of one session.

    Attributes
    ----------
    table : str
        Path in the NWB files, with the leading slash.
    kind : str
        Format and layout; the folder may contain outputs of several kinds.
    fingerprint : str
        Hash of everything that the output depends on: identities of sources, schema, options.
    rows : int
        Number of rows.
    size : int or None
        Size in bytes; None for a folder or a table in a database.
    sources : dict of str to str
        Identities of the sources by their paths without secrets.
    """

    table: str
    kind: str
    fingerprint: str
    rows: int
    size: int | None
    sources: dict[str, str]


class _Stored(msgspec.Struct):
    schema: int
    outputs: dict[str, Output] = msgspec.field(default_factory=dict)


class Manifest:
    """Entries of the outputs of a folder, by path in the folder (with `#table` in a database).

    Parameters
    ----------
    folder : Path
        Output folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / NAME
        self._outputs = _load(self._file)
        self._saved, self._cost = time.perf_counter(), 0.0
        self._changed = False

    def get(self, name: str) -> Output | None:
        """Return the entry of an output."""
        return self._outputs.get(name)

    def add(self, name: str, output: Output) -> None:
        """Add a complete output."""
        self._outputs[name] = output
        self._note()

    def forget(self, name: str) -> None:
        """Remove the entry of an output that is about to be replaced, or does not exist any more."""
        if self._outputs.pop(name, None) is not None:
            self._note()

    def single_source_outputs(self) -> list[tuple[str, str, Output]]:
        """Return the outputs of a single source as (name, source, entry)."""
        return [
            (name, next(iter(out.sources)), out)
            for name, out in self._outputs.items()
            if len(out.sources) == 1
        ]

    def _note(self) -> None:
        self._changed = True
        if time.perf_counter() - self._saved > self._cost / _SHARE:
            self.save()

    def save(self) -> None:
        """Write changes to disk."""
        if not self._changed:
            return
        started = time.perf_counter()
        text = msgspec.json.format(msgspec.json.encode(_Stored(SCHEMA, self._outputs)), indent=1)
        with replacing(self._file) as temporary:
            temporary.write_bytes(text)
        self._changed = False
        self._saved = time.perf_counter()
        self._cost = self._saved - started

    def path_of(self, name: str) -> Path | None:
        """Return the path of an output; None if its recorded name leads out of the folder."""
        path = PurePosixPath(name.partition("#")[0])
        if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in name or ":" in name:
            return None
        found = self.folder / path
        return found if found.resolve().is_relative_to(self.folder.resolve()) else None


def _load(file: Path) -> dict[str, Output]:
    try:
        stored = json_decoder(_Stored).decode(file.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError) as error:
        _LOGGER.warning("the record of an earlier conversion was ignored (%s: %s)", file, error)
        return {}
    if stored.schema != SCHEMA:
        _LOGGER.warning(
            "the record of an earlier conversion is of another version (%s) and was ignored", file
        )
        return {}
    return stored.outputs


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; it is renamed to the target, or removed after an error."""
    temporary = target.with_name(os.urandom(8).hex().join(_PART))
    try:
        yield temporary
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def staging_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside a target, on the same file system."""
    temporary = target.with_name(os.urandom(8).hex().join(_PART))
    temporary.mkdir()
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_stale(folders: Iterable[Path]) -> None:
    """Remove temporary files of killed runs; the folder must be locked."""
    for folder in folders:
        with contextlib.suppress(OSError):
            for file in list(folder.iterdir()):
                if file.name.startswith(_PART[0]) and file.name.endswith(_PART[1]):
                    if file.is_dir() and not file.is_symlink():
                        shutil.rmtree(file, ignore_errors=True)
                    else:
                        file.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder for writing; the lock ends with the process at the latest.

    Raises
    ------
    LazyNWBError
        If another conversion has locked it.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive_lock(folder / _LOCK))
        except BlockingIOError:
            raise LazyNWBError(
                f"another conversion is writing into {folder}: wait for it, or choose another folder"
            ) from None
        yield
