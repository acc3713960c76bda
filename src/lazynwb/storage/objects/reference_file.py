"""JSON reference files: LINDI (`.nwb.lindi.json`), and the kerchunk format that it extends.

The value of a key is either its contents, as text, as JSON or as base64 after `base64:`; or a list of a URL
and optionally an offset and a size: a byte range of another file, usually a chunk of an HDF5 file.
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
from lazynwb.storage.objects.key_validation import (
    build_tree,
    is_valid_key,
    normalize_prefix,
    resolve_start,
    validate_key,
)
from lazynwb.storage.source import ABSENT, NO_OPTIONS, Options, is_url, redacted
from lazynwb.struct_decoders import json_decoder
from lazynwb.threads import REQUESTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lazynwb.storage.file import File
    from lazynwb.storage.source import Source

#: Maximum size of a reference file, enough for references to several million chunks.
MAX_BYTES = 512 * 1024 * 1024
#: Maximum number of reference files in the cache.
_FILES = 4
_NAME = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_BASE64 = "base64:"
#: Schemes whose servers are determined by options rather than by the URL, unless it has a host after `@`.
_CLOUDS = frozenset({"s3", "s3a", "gs", "gcs", "az", "azure", "abfs", "abfss", "adl"})
#: Options that are only sent to the server of the JSON file, if that is a web server.
_FOR_WEB_SERVERS = frozenset({"headers", "client_kwargs", "client_options"})


class Document(msgspec.Struct, gc=False):
    """The stored document of a reference file."""

    refs: dict[str, msgspec.Raw]
    templates: dict[str, str] = {}
    gen: list[msgspec.Raw] = []


class Reference(NamedTuple):
    """A byte range of another file, and the identity of that file."""

    file: File
    identity: str
    offset: int
    size: int


class ReferenceObjects:
    """The objects of a reference file; see `lazynwb.storage.objects.object_store.Objects`.

    References may lead to http(s), cloud and DANDI URLs, and to files in the folder of the JSON file or below
    it. They may lead to other local files only if `config.external_links` is "anywhere" and the JSON file is
    local, and to no other file if it is "never".

    The author of the JSON file must not choose the servers that receive credentials. Its storage options are
    only sent to its own server, and to object stores whose server is not part of the URL. A local JSON file
    has no options; object stores then receive those of `config.storage_options`.

    Parameters
    ----------
    source : Source

    Raises
    ------
    SourceNotFoundError
        If the file does not exist.
    NotNWBError
        If it is not a JSON reference file.
    """

    pool = REQUESTS

    def __init__(self, source: Source) -> None:
        self.source = source
        self._identity = source.identity(known=True)
        self._document = self._load_document()
        self._files: dict[str, tuple[File, str]] = {}

    def get(self, key: str) -> bytes | memoryview | None:
        """Return an object; None if it does not exist."""
        found = self._value(key)
        return _read_reference(found, 0, found.size) if isinstance(found, Reference) else found

    def get_range(self, key: str, start: int, size: int) -> bytes | memoryview | None:
        """Return a range of an object; None if it does not exist."""
        found = self._value(key)
        if found is None:
            return None
        if isinstance(found, Reference):
            return _read_reference(found, resolve_start(self.source, key, found.size, start, size), size)
        begin = resolve_start(self.source, key, len(found), start, size)
        return found[begin : begin + size]

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes | memoryview | None]:
        """Return several objects; other files are read concurrently."""
        found = {key: self._value(key) for key in keys}
        references = [(key, one) for key, one in found.items() if isinstance(one, Reference)]
        read = self.pool.map(lambda pair: _read_reference(pair[1], 0, pair[1].size), references)
        data: dict[str, bytes | memoryview | None] = dict(
            zip((key for key, _ in references), read, strict=True)
        )
        return {key: data[key] if isinstance(one, Reference) else one for key, one in found.items()}

    def members(self, prefix: str) -> list[str]:
        """Return the sorted names of the direct members of a prefix."""
        return self._tree.get(normalize_prefix(self.source, prefix), [])

    def version(self, key: str) -> str:
        """Return the identity of the JSON file, and of the file that a key refers to."""
        found = self._value(key)
        if found is None:
            return ABSENT
        return f"{self._identity}\n{found.identity}" if isinstance(found, Reference) else self._identity

    def reference(self, key: str) -> Reference | None:
        """Return the byte range of another file that a key refers to; None if its contents are inline."""
        found = self._value(key)
        return found if isinstance(found, Reference) else None

    @cached_property
    def _tree(self) -> dict[str, list[str]]:
        return build_tree(key for key in self._document.refs if is_valid_key(key))

    # -- references -----------------------------------------------------------------------------------

    def _load_document(self) -> Document:
        return _document(self.source, self._identity)

    def _resolve_reference(self, key: str, url: str, offset: int, size: int | None) -> Reference:
        """Return a reference to a range of another file; without a size, to all of it."""
        file, version = self._open(key, url)
        return Reference(file, version, offset, file.size if size is None else size)

    def _value(self, key: str) -> bytes | Reference | None:
        raw = self._document.refs.get(validate_key(self.source, key))
        if raw is None:
            return None
        try:
            value = msgspec.json.decode(raw)
        except (msgspec.MsgspecError, RecursionError, ValueError):
            raise self._error(key, "is not valid JSON") from None
        if isinstance(value, dict):
            return bytes(raw)
        if isinstance(value, str):
            return self._inline(key, value)
        match value:
            case [str(url)]:
                return self._resolve_reference(key, url, 0, None)
            case [str(url), int(offset), int(size)] if min(offset, size) >= 0 and not (
                isinstance(offset, bool) or isinstance(size, bool)
            ):
                return self._resolve_reference(key, url, offset, size)
        raise self._error(key, "is neither inline contents nor a list of a URL, an offset and a size")

    def _inline(self, key: str, text: str) -> bytes:
        if not text.startswith(_BASE64):
            return text.encode()
        try:
            return binascii.a2b_base64(text[len(_BASE64) :], strict_mode=True)
        except (binascii.Error, ValueError):
            raise self._error(key, "is not valid base64") from None

    def _open(self, key: str, url: str) -> tuple[File, str]:
        found = self._files.get(url)
        if found is None:
            target = self._target(key, self._substitute_templates(key, url))
            version = target.identity(known=True)
            # No lock: all threads of the pool could wait for it, and a second request does no harm.
            found = self._files.setdefault(url, (target.open(version), version))
        return found

    def _substitute_templates(self, key: str, url: str) -> str:
        """Substitute templates in a URL, without evaluating expressions."""
        names = self._document.templates
        found = _NAME.sub(lambda name: names.get(name[1], name[0]), url)
        if "{{" in found:
            raise self._error(key, f"has a URL with an undefined template: {found[:200]!r}")
        return found

    def _target(self, key: str, url: str) -> Source:
        """Return the source at a URL, if `config.external_links` permits it."""
        allowed = config.external_links
        if is_url(url) and not url.lower().startswith("file:"):
            if allowed != "never":
                return type(self.source)(url, self.options_for(key, url))
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

    def options_for(self, key: str, url: str) -> Options:
        """Return the storage options that may be sent to the server of a URL."""
        try:
            there, here = urlsplit(url)[:2], urlsplit(self.source.path)[:2]
        except ValueError:
            raise self._error(key, f"has an invalid URL: {redacted(url)}") from None
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


def _read_reference(found: Reference, start: int, size: int) -> memoryview:
    if start + size > found.size:
        raise CorruptDataError(
            f"{found.file.name}: {size} bytes at offset {start} exceed a range of {found.size}"
        )
    with found.file.reading() as ranges:
        return memoryview(ranges.read(found.offset + start, size))


@lru_cache(maxsize=_FILES)
def _document(source: Source, expected: str) -> Document:
    file = source.open(expected)
    if file.size > MAX_BYTES:
        raise NotNWBError(f"{source.name} has {file.size:,} bytes, which is too large for a reference file")
    with file.reading() as ranges:
        return decode_document(source.name, bytes(ranges.read(0, file.size)))


def decode_document(name: str, data: bytes) -> Document:
    """Return the references in a JSON file; raise NotNWBError if it has none."""
    try:
        found = json_decoder(Document).decode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise NotNWBError(
            f"{name} is not a JSON reference file, as LINDI and kerchunk write them: {why}"
        ) from None
    if found.gen:
        raise NotNWBError(f'{name} has generated references ("gen"), which are not supported: expand them')
    return found


def forget() -> None:
    """Forget reference files."""
    _document.cache_clear()
