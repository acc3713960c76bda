"""The manifest of a folder of output: sources and options of each file, so that unchanged ones are kept.

It is written under a temporary name and renamed, as the output itself is. Whatever is missing from it, or
does not fit the files that are there, is converted again: a lost record costs time, never a wrong answer.
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
from lazynwb.file_lock import hold
from lazynwb.struct_decoders import json_decoder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LOGGER = logging.getLogger("lazynwb")
#: Version of the manifest and of its fingerprints.
SCHEMA = 1
#: Without an ending, so that a pattern such as `*.json` finds output alone.
NAME = ".lazynwb-manifest"
_LOCK = ".lazynwb-lock"
_PART = (".lazynwb-", ".part")
#: Saving may take this fraction of the time.
_SHARE = 0.05


class Output(msgspec.Struct):
    """One table, or one session's part of a table, as it was written.

    Attributes
    ----------
    table : str
        Its path in the NWB files, with the leading slash.
    kind : str
        Format and layout; output of another kind may lie in the same folder.
    fingerprint : str
        Of everything that the output depends on: the sources' identities, the schema, the options.
    rows : int
    size : int or None
        Bytes; None for a folder or a table in a database.
    sources : dict of str to str
        The files that it was made from, by what is safe to show of their path, with their identities.
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
    """Entries of a folder's outputs, by path in the folder (with `#table` in a database).

    Parameters
    ----------
    folder : Path
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
        """Remove an output that is about to be replaced, or is gone."""
        if self._outputs.pop(name, None) is not None:
            self._note()

    def single(self) -> list[tuple[str, str, Output]]:
        """Return the outputs that were made from one file alone: name, file, and what is known."""
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

    def inside(self, name: str) -> Path | None:
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
    """Remove temporary files of killed runs; the folder is locked meanwhile."""
    for folder in folders:
        with contextlib.suppress(OSError):
            for file in list(folder.iterdir()):
                if file.name.startswith(_PART[0]) and file.name.endswith(_PART[1]):
                    if file.is_dir() and not file.is_symlink():
                        shutil.rmtree(file, ignore_errors=True)
                    else:
                        file.unlink(missing_ok=True)


@contextlib.contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Hold the right to write into a folder, which ends with the process at the latest.

    Raises
    ------
    LazyNWBError
        If another conversion is writing into it.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(hold(folder / _LOCK))
        except BlockingIOError:
            raise LazyNWBError(
                f"another conversion is writing into {folder}: wait for it, or choose another folder"
            ) from None
        yield
