"""A store that is a JSON file of references: LINDI (`.nwb.lindi.json`) and kerchunk's format that it extends.

Each key has its contents in the file itself, as text, as JSON or after `base64:`; or it is a URL, or a list
of a URL, an offset and a size: bytes of another file, as a rule a chunk of an HDF5 file.
"""

from __future__ import annotations

import binascii
import re
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec

from lazynwb.config import config
from lazynwb.errors import CorruptDataError, NotNWBError
from lazynwb.storage.objects.key_validation import bounds, checked, folder_of, is_plain, tree
from lazynwb.storage.source import ABSENT, NO_OPTIONS, Options, is_url, redacted
from lazynwb.struct_decoders import json_decoder
from lazynwb.threads import REQUESTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lazynwb.storage.file import File
    from lazynwb.storage.source import Source

#: More than the references to some million chunks take.
MAX_BYTES = 512 * 1024 * 1024
#: Files of references that are remembered.
_FILES = 4
_NAME = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_BASE64 = "base64:"
#: Whom these ask is for options to say, and not for URLs, unless they name a host behind an `@`.
_CLOUDS = frozenset({"s3", "s3a", "gs", "gcs", "az", "azure", "abfs", "abfss", "adl"})
#: Options that are for the JSON file's own server, if that is a web server.
_FOR_WEB_SERVERS = frozenset({"headers", "client_kwargs", "client_options"})


class Document(msgspec.Struct, gc=False):
    """A file of references as it is written."""

    refs: dict[str, msgspec.Raw]
    templates: dict[str, str] = {}
    gen: list[msgspec.Raw] = []


class Reference(NamedTuple):
    """Some bytes of another file, and that file's identity."""

    file: File
    identity: str
    offset: int
    size: int


class ReferenceObjects:
    """What the keys of a JSON file stand for; see `lazynwb.storage.objects.object_store.Objects`.

    References lead to http(s), cloud and DANDI URLs, and to files in the JSON file's folder or below; to
    local files elsewhere only where `config.external_links` is "anywhere", from a remote JSON file never; to
    no other file at all where it is "never".

    Whoever wrote the JSON file does not choose who is sent credentials: its options go along to the server
    that it came from, and to object stores whose address is not in the URL; for a local file, which has no
    options, these are sent those of `config.storage_options`.

    Parameters
    ----------
    source : Source

    Raises
    ------
    SourceNotFoundError
        If there is no such file.
    NotNWBError
        If it is not a JSON file of references.
    """

    pool = REQUESTS

    def __init__(self, source: Source) -> None:
        self.source = source
        self._identity = source.identity(known=True)
        self._document = self._references()
        self._files: dict[str, tuple[File, str]] = {}

    def get(self, key: str) -> bytes | memoryview | None:
        """Return what a key stands for; None if there is no such key."""
        found = self._value(key)
        return _read(found, 0, found.size) if isinstance(found, Reference) else found

    def get_range(self, key: str, start: int, size: int) -> bytes | memoryview | None:
        """Return a part of what a key stands for; None if there is no such key."""
        found = self._value(key)
        if found is None:
            return None
        if isinstance(found, Reference):
            return _read(found, bounds(self.source, key, found.size, start, size), size)
        begin = bounds(self.source, key, len(found), start, size)
        return found[begin : begin + size]

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes | memoryview | None]:
        """Return what several keys stand for; other files are read at the same time."""
        found = {key: self._value(key) for key in keys}
        apart = [(key, one) for key, one in found.items() if isinstance(one, Reference)]
        read = self.pool.map(lambda pair: _read(pair[1], 0, pair[1].size), apart)
        data: dict[str, bytes | memoryview | None] = dict(zip((key for key, _ in apart), read, strict=True))
        return {key: data[key] if isinstance(one, Reference) else one for key, one in found.items()}

    def members(self, prefix: str) -> list[str]:
        """Return the names right below a prefix, sorted."""
        return self._tree.get(folder_of(self.source, prefix), [])

    def version(self, key: str) -> str:
        """Return the identity of the JSON file, and of the file that a key refers to."""
        found = self._value(key)
        if found is None:
            return ABSENT
        return f"{self._identity}\n{found.identity}" if isinstance(found, Reference) else self._identity

    def reference(self, key: str) -> Reference | None:
        """Return which bytes of another file a key stands for; None if it has its contents here, or none."""
        found = self._value(key)
        return found if isinstance(found, Reference) else None

    @cached_property
    def _tree(self) -> dict[str, list[str]]:
        return tree(key for key in self._document.refs if is_plain(key))

    # -- references -----------------------------------------------------------------------------------

    def _references(self) -> Document:
        return _document(self.source, self._identity)

    def _refer(self, key: str, url: str, offset: int, size: int | None) -> Reference:
        """Return a part of another file; without a size, all of it."""
        file, version = self._open(key, url)
        return Reference(file, version, offset, file.size if size is None else size)

    def _value(self, key: str) -> bytes | Reference | None:
        raw = self._document.refs.get(checked(self.source, key))
        if raw is None:
            return None
        try:
            value = msgspec.json.decode(raw)
        except (msgspec.MsgspecError, RecursionError, ValueError):
            raise self._error(key, "is no JSON") from None
        if isinstance(value, dict):
            return bytes(raw)
        if isinstance(value, str):
            return self._inline(key, value)
        match value:
            case [str(url)]:
                return self._refer(key, url, 0, None)
            case [str(url), int(offset), int(size)] if min(offset, size) >= 0 and not (
                isinstance(offset, bool) or isinstance(size, bool)
            ):
                return self._refer(key, url, offset, size)
        raise self._error(key, "is neither contents nor a URL, an offset and a size")

    def _inline(self, key: str, text: str) -> bytes:
        if not text.startswith(_BASE64):
            return text.encode()
        try:
            return binascii.a2b_base64(text[len(_BASE64) :], strict_mode=True)
        except (binascii.Error, ValueError):
            raise self._error(key, "has contents that are no base64") from None

    def _open(self, key: str, url: str) -> tuple[File, str]:
        found = self._files.get(url)
        if found is None:
            target = self._target(key, self._substituted(key, url))
            version = target.identity(known=True)
            # Without a lock, which the pool's threads could all wait for: that one asks twice does no harm.
            found = self._files.setdefault(url, (target.open(version), version))
        return found

    def _substituted(self, key: str, url: str) -> str:
        """Put templates in, as they are: nothing is evaluated."""
        names = self._document.templates
        found = _NAME.sub(lambda name: names.get(name[1], name[0]), url)
        if "{{" in found:
            raise self._error(key, f"has a URL with a template that is not defined here: {found[:200]!r}")
        return found

    def _target(self, key: str, url: str) -> Source:
        """Return the file that a URL leads to, if it may."""
        allowed = config.external_links
        if is_url(url) and not url.lower().startswith("file:"):
            if allowed != "never":
                return type(self.source)(url, self._options_for(key, url))
            shown = redacted(url)
        else:
            path = unquote(urlsplit(url).path) if is_url(url) else url
            target = self.source.sibling(path) if path and "\0" not in path else None
            inside = target is not None and target.is_below_folder_of(self.source)
            if target is not None and (allowed == "anywhere" or (inside and allowed == "folder")):
                return target
            shown = path
        raise self._error(
            key, f"is in {shown!r}, which was not followed (lazynwb.config.external_links is {allowed!r})"
        )

    def _options_for(self, key: str, url: str) -> Options:
        """Return the options of the JSON file that may go where a URL leads."""
        try:
            there, here = urlsplit(url)[:2], urlsplit(self.source.path)[:2]
        except ValueError:
            raise self._error(key, f"is at a URL that is none: {redacted(url)}") from None
        options = self.source.options if self.source.is_remote else Options(config.storage_options)
        if self.source.is_remote and there == here:
            return options
        if there[0] not in _CLOUDS or "@" in there[1]:
            return NO_OPTIONS
        if here[0] not in {"http", "https"}:
            return options
        return Options({k: v for k, v in options.items if k not in _FOR_WEB_SERVERS})

    def _error(self, key: str, what: str) -> CorruptDataError:
        return CorruptDataError(f"{self.source.name}: {key} {what}")


def _read(found: Reference, start: int, size: int) -> memoryview:
    if start + size > found.size:
        raise CorruptDataError(f"{found.file.name}: {size} bytes from {start} on are not in {found.size}")
    with found.file.reading() as ranges:
        return memoryview(ranges.read(found.offset + start, size))


@lru_cache(maxsize=_FILES)
def _document(source: Source, expected: str) -> Document:
    file = source.open(expected)
    if file.size > MAX_BYTES:
        raise NotNWBError(f"{source.name} has {file.size:,} bytes, more than a file of references can have")
    with file.reading() as ranges:
        return decode_document(source.name, bytes(ranges.read(0, file.size)))


def decode_document(name: str, data: bytes) -> Document:
    """Return the references in a JSON file; NotNWBError if it has none."""
    try:
        found = json_decoder(Document).decode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise NotNWBError(
            f"{name} is no JSON file of references, as LINDI and kerchunk write them: {why}"
        ) from None
    if found.gen:
        raise NotNWBError(f'{name} has references that are rules ("gen"): write them out, one by one')
    return found


def forget() -> None:
    """Read files of references again."""
    _document.cache_clear()
