"""The on-disk cache of catalog entries: immutable files, one per source and table, shared by all processes.

A file is written under a temporary name and renamed, so a reader sees a complete entry or none; concurrent
writers write equal entries. There is no lock and no database, because home folders on clusters are network
file systems. A failure of the cache causes a log message and a second parse, but never fails a query.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from lazynwb.catalog.model import CATALOG_VERSION
from lazynwb.config import config
from lazynwb.struct_decoders import msgpack_decoder

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOGGER = logging.getLogger("lazynwb")
MAGIC = b"LNWB" + CATALOG_VERSION.to_bytes(2, "little")
_HEADER = len(MAGIC) + 4
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_SHARDS = 256
#: Number of writes after which a write checks the size of its shard.
PRUNE_EVERY = 32
#: Prefix of temporary files, and the seconds after which such a file counts as abandoned.
_TEMPORARY_PREFIX, _ABANDONED_SECONDS = ".new-", 3600.0
#: Starts at the process number, so that many processes with a few writes each also prune now and then.
_writes = itertools.count(os.getpid())
warned: set[str] = set()

T = TypeVar("T")


class _Keyed(msgspec.Struct, array_like=True):
    """The common first field of all kinds of entries."""

    key: str


_KEYED = msgpack_decoder(_Keyed)


def _entry_path(key: str) -> tuple[str, str]:
    """Return the folder and the file of an entry, as strings: making `Path` objects takes longer."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    shard = os.path.join(config.cache_path, f"v{CATALOG_VERSION}", digest[:2])
    return shard, os.path.join(shard, digest[2:])


def load(key: str, decoder: msgspec.msgpack.Decoder[T]) -> T | None:
    """Return the entry of a key; None if it does not exist or is damaged."""
    if config.disable_cache:
        return None
    _, file = _entry_path(key)
    try:
        with open(file, "rb") as stream:
            data = stream.read()
    except FileNotFoundError:
        return None
    except OSError as error:  # unreadable, or a folder in its place
        warn_once(f"the catalog cache cannot be read ({_describe(error)}); continuing without it")
        return None
    body = memoryview(data)[_HEADER:]
    if data[:4] == MAGIC[:4] and data[: len(MAGIC)] != MAGIC:
        return None  # of another version
    try:
        if data[: len(MAGIC)] == MAGIC and int.from_bytes(data[len(MAGIC) : _HEADER], "little") == zlib.crc32(
            body
        ):
            return decoder.decode(body)
        reason = "checksum mismatch"
    except msgspec.MsgspecError as error:
        reason = str(error)
    warn_once(f"an entry of the catalog cache is damaged and was ignored ({file}: {reason})")
    return None


def save(key: str, entry: object, encoder: msgspec.msgpack.Encoder) -> None:
    """Write an entry, replacing an older one; failure is logged once and otherwise ignored."""
    if config.disable_cache:
        return
    shard, file = _entry_path(key)
    body = encoder.encode(entry)
    if len(body) > config.cache_max_bytes // 4:
        return
    temporary = os.path.join(shard, f"{_TEMPORARY_PREFIX}{os.urandom(8).hex()}")
    try:
        try:
            descriptor = os.open(temporary, _CREATE, 0o600)
        except FileNotFoundError:  # the first entry of its shard
            os.makedirs(shard, exist_ok=True)
            descriptor = os.open(temporary, _CREATE, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(MAGIC + zlib.crc32(body).to_bytes(4, "little") + body)
            os.replace(temporary, file)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        if next(_writes) % PRUNE_EVERY == 0:
            prune(Path(shard), config.cache_max_bytes // _SHARDS)
    except OSError as error:
        warn_once(f"the catalog cache cannot be written ({_describe(error)}); continuing without it")


def remove(key: str) -> None:
    """Remove the entry of a key, if there is one."""
    if not config.disable_cache:
        _remove(Path(_entry_path(key)[1]))


def prune(folder: Path, limit: int) -> None:
    """Remove the oldest entries of one shard until it is within its share of the limit.

    Also remove temporary files of killed processes.
    """
    files = sorted(_entries(folder))
    total = sum(size for _, size, _ in files)
    abandoned = time.time() - _ABANDONED_SECONDS
    for written, size, file in files:
        if file.name.startswith(_TEMPORARY_PREFIX) and written < abandoned:
            _remove(file)
            total -= size
    files = [entry for entry in files if not entry[2].name.startswith(_TEMPORARY_PREFIX)]
    for _, size, file in files:
        if total <= limit:
            return
        _remove(file)
        total -= size


def _entries(folder: Path) -> list[tuple[float, int, Path]]:
    """Return time, size and path of the files in a folder, which other processes may be removing."""
    found = []
    try:
        files = list(folder.iterdir())
    except OSError:
        return []
    for file in files:
        try:
            status = file.stat()
        except OSError:
            continue
        found.append((status.st_mtime, status.st_size, file))
    return found


def _remove(file: Path) -> None:
    try:
        file.unlink()
    except OSError:
        return


def usage() -> tuple[int, int]:
    """Return the number of entries of all versions, and their size in bytes."""
    shards = [shard for version in config.cache_path.glob("v*") for shard in version.glob("[0-9a-f][0-9a-f]")]
    sizes = [size for shard in shards for _, size, _ in _entries(shard)]
    return len(sizes), sum(sizes)


def all_entries() -> Iterator[tuple[str, int]]:
    """Yield the keys of the entries of this version, each with the bytes of its file."""
    for shard in (config.cache_path / f"v{CATALOG_VERSION}").glob("[0-9a-f][0-9a-f]"):
        for _, size, file in _entries(shard):
            with suppress(OSError, msgspec.MsgspecError):
                yield _KEYED.decode(memoryview(file.read_bytes())[_HEADER:]).key, size


def clear() -> None:
    """Remove every entry of this package; keep other files in the folder."""
    root = config.cache_path
    for version in root.glob("v*"):
        with suppress(FileNotFoundError):  # another process may have removed the folder
            for shard in version.glob("[0-9a-f][0-9a-f]"):
                for _, _, file in _entries(shard):
                    _remove(file)
                _remove_if_empty(shard)
        _remove_if_empty(version)


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return


def _describe(error: OSError) -> str:
    """Return the message of an error with the folder, so that it is the same for all entries."""
    return f"{config.cache_path}: {error.strerror or error}"


def warn_once(message: str) -> None:
    """Log a warning once per process."""
    if message not in warned:
        warned.add(message)
        _LOGGER.warning(message)
