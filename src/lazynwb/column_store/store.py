"""The column store on disk: parts and their entries in a folder that is shared by processes.

It has neither locks nor a database, because home folders on clusters are network file systems. A part is
written under a temporary name and renamed, and then its entry, so that a reader finds both or none. Errors
are logged and make queries slower, but never change their results.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from lazynwb.catalog.disk_cache import warn_once
from lazynwb.column_store.entries import (
    STORE_VERSION,
    Entry,
    StoredPart,
    decode,
    encode,
)
from lazynwb.column_store.parts import write_part
from lazynwb.config import config
from lazynwb.errors import CorruptDataError
from lazynwb.threads import DeferredWrites

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from lazynwb.column_store.entries import Layout, Session

_ENTRY, _PART, _UNFINISHED, _REMOVED = ".entry", ".parquet", ".new", ".removed"
#: Seconds for which removed and unfinished files are kept, because other processes may use them.
GRACE_SECONDS = 60.0
#: Seconds after which the use of a part is recorded again, for eviction.
_USE_NOTED = 3600.0
_FOLDER = "columns"
#: Writes of columns, which later queries of this process wait for.
COLUMN_WRITES = DeferredWrites("store")


def column_store() -> ColumnStore:
    """Return the column store of the current settings, with all columns of earlier queries."""
    COLUMN_WRITES.finish()
    limit = 0 if config.disable_cache else config.column_cache_bytes
    return ColumnStore(config.cache_path / _FOLDER, limit)


class Block(NamedTuple):
    """Sessions to store, and their rows.

    Attributes
    ----------
    sessions : list of Session
        Sessions, whose `layout` is a position in `layouts`.
    layouts : list of Layout
    frame : DataFrame
        Stored columns of all sessions, in order; the columns `SESSION` and `_table_index` are added when it
        is written.
    """

    sessions: list[Session]
    layouts: list[Layout]
    frame: pl.DataFrame


class ColumnStore:
    """A folder of parts.

    Parameters
    ----------
    root : Path
        Folder, which is created on the first write.
    limit : int
        Maximum size of all parts in bytes; 0 disables the store.
    """

    def __init__(self, root: Path, limit: int) -> None:
        self.root = root
        self.limit = limit
        self._base = root / f"v{STORE_VERSION}"

    def folder_of(self, table: str) -> Path:
        """Return the folder with the parts of a table."""
        digest = hashlib.blake2b(table.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        return self._base / digest

    # -- reading --------------------------------------------------------------------------------------------

    def parts_of(self, table: str) -> list[StoredPart]:
        """Return the published parts of a table, the newest first.

        Parameters
        ----------
        table : str
            Key of the table.
        """
        if not self.limit:
            return []
        folder = self.folder_of(table)
        try:
            names = [name for name in os.listdir(folder) if name.endswith(_ENTRY)]  # noqa: PTH208 - faster
        except FileNotFoundError:
            return []
        except OSError as error:
            warn_once(f"the column store cannot be read ({folder}: {error.strerror or error})")
            return []
        parts = [part for name in names if (part := self._load(folder / name, table)) is not None]
        return sorted(parts, key=lambda part: part.entry.created, reverse=True)

    def _load(self, path: Path, table: str) -> StoredPart | None:
        known = _loaded.get(path)
        if known is not None:
            return known
        try:
            entry = decode(path.read_bytes())
        except OSError:  # removed after it was listed
            return None
        except CorruptDataError as error:
            self.discard(path, str(error))
            return None
        if entry is None or entry.table != table:
            return None
        if len(_loaded) >= _MAX_LOADED:
            _loaded.clear()
        part = _loaded[path] = StoredPart(path, entry)
        return part

    def discard(self, path: Path, reason: str) -> None:
        """Remove a damaged part, by the path of its entry."""
        warn_once(f"a part of the column store is damaged and was removed ({path}: {reason})")
        self.remove(path)

    def note_use(self, part: StoredPart) -> None:
        """Record the use of a part, for the eviction of unused ones."""
        with suppress(OSError):
            if time.time() - part.path.stat().st_mtime > _USE_NOTED:
                os.utime(part.path)

    # -- writing --------------------------------------------------------------------------------------------

    def write(self, table: str, block: Block) -> StoredPart | None:
        """Publish a block as one part; log errors once, and ignore them otherwise."""
        folder = self.folder_of(table)
        path = folder / f"{os.urandom(16).hex()}{_ENTRY}"
        try:
            data, part = write_part(block.frame) if block.frame.width else (b"", None)
            entry = Entry(table, time.time_ns(), tuple(block.sessions), tuple(block.layouts), part)
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if part is not None:
                _write_file(path.with_suffix(_PART), data)
            try:
                _write_file(path, encode(entry))
            except BaseException:
                path.with_suffix(_PART).unlink(missing_ok=True)
                raise
        except (OSError, CorruptDataError, pl.exceptions.PolarsError) as error:
            reason = getattr(error, "strerror", None) or error
            warn_once(f"the column store cannot be written ({self.root}: {reason}); queries run without it")
            return None
        written = _loaded[path] = StoredPart(path, entry)
        return written

    def remove(self, path: Path) -> None:
        """Unpublish a part, by the path of its entry; its files are deleted after a grace period."""
        _loaded.pop(path, None)
        with suppress(OSError):
            removed = path.with_suffix(_REMOVED)
            os.utime(path)
            path.replace(removed)

    # -- housekeeping ---------------------------------------------------------------------------------------

    def _folders(self) -> list[Path]:
        try:
            return [folder for folder in self._base.iterdir() if folder.is_dir()]
        except OSError:
            return []

    def files(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Yield the files of this version of the store; other processes may remove them at any time."""
        for folder in self._folders():
            with suppress(OSError):
                for file in list(folder.iterdir()):
                    with suppress(OSError):
                        yield file, file.stat()

    def all_parts(self) -> Iterator[tuple[StoredPart, int]]:
        """Yield the parts of all tables, each with the size of its files."""
        files = dict(self.files())
        for path, status in files.items():
            if path.suffix == _ENTRY:
                with suppress(OSError, CorruptDataError):
                    entry = decode(path.read_bytes())
                    if entry is not None:
                        part = files.get(path.with_suffix(_PART))
                        size = status.st_size + (part.st_size if part is not None else 0)
                        yield StoredPart(path, entry), size

    def usage(self) -> tuple[int, int]:
        """Return the number of parts, and the total size of the files of the store."""
        files = list(self.files())
        parts = sum(path.suffix == _ENTRY for path, _ in files)
        return parts, sum(status.st_size for _, status in files)

    def sweep(self) -> None:
        """Evict the least recently used parts to keep the size limit, and delete leftovers.

        Leftovers are files of unpublished parts, and of killed writers.
        """
        now = time.time()
        files = dict(self.files())
        for path, status in list(files.items()):
            is_part_of = path.with_suffix(_ENTRY) in files
            is_leftover = path.suffix in {_UNFINISHED, _REMOVED} or (path.suffix == _PART and not is_part_of)
            removed = files.get(path.with_suffix(_REMOVED))
            since = max(status.st_mtime, removed.st_mtime if removed is not None else 0.0)
            if is_leftover and now - since > GRACE_SECONDS:
                with suppress(OSError):
                    path.unlink()
                del files[path]
        entries = sorted((status.st_mtime, path) for path, status in files.items() if path.suffix == _ENTRY)
        parts = {path: files.get(path.with_suffix(_PART)) for _, path in entries}
        sizes = {
            path: files[path].st_size + (part.st_size if part is not None else 0)
            for path, part in parts.items()
        }
        total = sum(sizes.values())
        for _, path in entries:
            if total <= self.limit:
                return
            total -= sizes[path]
            self.remove(path)

    def clear(self) -> None:
        """Remove all parts, of this version and others; other files in the folder are kept."""
        forget_entries()
        for version in list(self.root.glob("v*")):
            with suppress(OSError):  # another process may remove folders at the same time
                for folder in list(version.glob("[0-9a-f]" * 32)):
                    for file in list(folder.iterdir()):
                        if file.suffix in {_ENTRY, _REMOVED, _PART, _UNFINISHED}:
                            with suppress(OSError):
                                file.unlink()
                    with suppress(OSError):
                        folder.rmdir()
            with suppress(OSError):
                version.rmdir()
        with suppress(OSError):
            self.root.rmdir()


#: Maximum number of loaded entries, which never change, and are found by listing their folder.
_loaded: dict[Path, StoredPart] = {}
_MAX_LOADED = 512


def _write_file(path: Path, data: bytes) -> None:
    """Write a file atomically, with read permission for its owner only."""
    temporary = path.with_name(f"{path.stem}-{os.urandom(4).hex()}{_UNFINISHED}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(temporary, flags, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def forget_entries() -> None:
    """Remove all loaded entries from memory."""
    _loaded.clear()


def schemas_fit(one: pl.Schema, other: pl.Schema) -> bool:
    """Return whether the common columns of two frames have equal types."""
    return all(other.get(name, dtype) == dtype for name, dtype in one.items())


def grouped(blocks: Sequence[Block]) -> list[list[Block]]:
    """Return groups of blocks whose frames can be concatenated."""
    groups: list[tuple[dict[str, pl.DataType], list[Block]]] = []
    for block in blocks:
        for schema, listed in groups:
            if schemas_fit(block.frame.schema, pl.Schema(schema)):
                schema.update(block.frame.schema)
                listed.append(block)
                break
        else:
            groups.append((dict(block.frame.schema), [block]))
    return [listed for _, listed in groups]
