"""Resolve paths, URLs, glob patterns and folders to sources that know their kind."""

from __future__ import annotations

import glob
import logging
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from lazynwb.config import config
from lazynwb.errors import LazyNWBError, SourceNotFoundError
from lazynwb.storage import local_file
from lazynwb.storage.dandi import web_addresses
from lazynwb.storage.dandi.web_addresses import ApiAsset
from lazynwb.storage.file_names import (
    HDF5_SUFFIXES,
    NWB_SUFFIXES,
    WILDCARDS,
    ZARR_DOCUMENTS,
    describe_skipped,
    is_nwb_name,
    unusable_reason,
)
from lazynwb.storage.placeholders import describe_link
from lazynwb.storage.source import NO_OPTIONS, Options, Source, is_url, redacted

if TYPE_CHECKING:
    from lazynwb.storage.source import Kind

_LOGGER = logging.getLogger("lazynwb")

PathOrUrl = str | os.PathLike[str] | Source
Sources = PathOrUrl | Iterable[PathOrUrl]


def expand(
    sources: Sources, storage_options: Mapping[str, Any] | None = None, *, allow_none: bool = False
) -> list[Source]:
    """Return the sources that a `source` argument names.

    Parameters
    ----------
    sources : path or URL, or iterable of these
        A file, a glob pattern, or a folder, which is searched recursively for NWB files, locally or in an
        object store. A URL in an object store is a folder if it ends in a slash or has no NWB suffix. A
        `dandi://` URL is a dandiset or a part of one. Objects that are `os.PathLike` or have a local `path`,
        such as a UPath, are paths; a remote UPath supplies its storage options.
    storage_options : mapping or None
        Credentials and similar options of remote sources, in addition to `config.storage_options`.
    allow_none : bool
        Whether to return an empty list for an empty iterable.

    Returns
    -------
    list of Source
        In the given order; the files of a pattern or a folder are sorted.

    Raises
    ------
    SourceNotFoundError
        If no source is given, or a pattern or folder has no NWB file.
    LazyNWBError
        If the scheme of a URL is not supported.
    """
    listed = (
        [sources]
        if isinstance(sources, str | os.PathLike | Source) or not isinstance(sources, Iterable)
        else sources
    )
    options = Options({**config.storage_options, **(storage_options or {})})
    found = [source for one in _translate_web_addresses(listed) for source in _expand_one(one, options)]
    strange = next((source.path for source in found if not _is_unicode(source.path)), None)
    if strange is not None:
        raise SourceNotFoundError(
            f"the file name {strange!r} is not valid UTF-8, so it cannot be a column value: rename the file"
        )
    if not found and not allow_none:
        raise SourceNotFoundError(
            "no source given: pass the path of an NWB file, a list of paths, a glob pattern or a folder"
        )
    return found


def reopen(path: str, storage_options: Mapping[str, Any] | None = None) -> Source:
    """Return the source of a `_nwb_path` value: always a single file, even if its name looks like a pattern.

    Parameters
    ----------
    path : str
    storage_options : mapping or None
        As for `expand`. The value does not contain the options that the file was first opened with.
    """
    if is_url(path):
        return resolve(path, Options({**config.storage_options, **(storage_options or {})}))
    return resolve(os.path.abspath(path))


class _ResolvedSource(Source):
    """A source that determines its kind once: by its path, or by requests if the path is ambiguous."""

    __slots__ = ("_kind",)

    _kind: Kind

    @property
    def kind(self) -> Kind:
        """The kind of source."""
        try:
            return self._kind
        except AttributeError:
            return self.decide(_kind_of(self))

    def kind_for(self, identity: str) -> Kind:
        """Return the kind of source that an identity belongs to."""
        if not self.is_store and identity.startswith(_STORE_IDENTITIES):
            self.decide(_store_kind())
        return self.kind

    def decide(self, kind: Kind) -> Kind:
        """Set the kind of source, and return it."""
        object.__setattr__(self, "_kind", kind)
        return kind

    def identity(self, *, known: bool | str = False) -> str:
        """Return the identity; see `Source`. A URL that is not a file may be a store with any name."""
        try:
            return self.kind.identity(self, known=known)
        except LazyNWBError as error:
            other = _fallback_kind(self, error) if self.is_remote else None
            if other is None:
                raise
            try:
                found = other.identity(self, known=False)
            except SourceNotFoundError:
                raise _with_remedy(self, error) from None
            except LazyNWBError as refusal:  # of a store that may be there, if there is no such file
                raise refusal if isinstance(error, SourceNotFoundError) else error from None
        _detected[self] = self.decide(other)
        return found


def resolve(path: str, options: Options = NO_OPTIONS) -> Source:
    """Return the source at an absolute path or a URL, without file access or requests."""
    return _ResolvedSource(path, options)


#: An attribute in the root of every NWB file, and the number of leading bytes that are searched for it.
_NWB_MARK, _HEAD = b"nwb_version", 64 * 1024
#: Kinds of sources whose names suggest another kind.
_detected: dict[Source, Kind] = {}
#: Suffixes that no folder of a store has.
_SINGLE_FILE_SUFFIXES = (".h5", ".hdf5", ".zip", ".json", ".tar")
#: Prefixes of the identities of stores: their metadata document.
_STORE_IDENTITIES = (".zmetadata\t", "zarr.json\t", ".zgroup\t")


def forget() -> None:
    """Forget which URLs were found to be stores."""
    _detected.clear()


def _kind_of(source: Source) -> Kind:
    if not source.is_remote:
        return _store_kind() if os.path.isdir(source.path) else local_file
    if source in _detected:
        return _detected[source]
    path = source.path.partition("?")[0].lower()
    is_store = path.endswith((".zarr", "/")) and not web_addresses.is_download(path)
    return _store_kind() if is_store else _remote_file_kind()


def _fallback_kind(source: Source, error: LazyNWBError) -> Kind | None:
    """Return the kind to try next for a remote source that could not be opened; None if there is none."""
    if source.path.partition("?")[0].lower().endswith(_SINGLE_FILE_SUFFIXES):
        return None
    if isinstance(error, SourceNotFoundError):
        return _remote_file_kind() if source.is_store else _store_kind()
    from lazynwb.storage.error_mapping import WebPageError  # late: it loads obstore

    return _store_kind() if isinstance(error, WebPageError) and not source.is_store else None


def _with_remedy(source: Source, error: LazyNWBError) -> LazyNWBError:
    if not source.path.partition("?")[0].endswith("/"):
        return error
    return SourceNotFoundError(
        f"{source.name} is neither a Zarr store nor a file, and web servers do not list folders: pass the "
        "URLs of the files"
    )


def _store_kind() -> Kind:
    from lazynwb.storage.objects import metadata_identity

    return metadata_identity


def _remote_file_kind() -> Kind:
    # Late: obstore is not loaded for local files.
    from lazynwb.storage import remote_file

    return remote_file


def _is_unicode(path: str) -> bool:
    """Return whether a path is valid Unicode; undecodable bytes of file names become lone surrogates."""
    return path.isascii() or not any("\ud800" <= character <= "\udfff" for character in path)


def _translate_web_addresses(sources: Iterable[PathOrUrl]) -> list[PathOrUrl]:
    """Replace web addresses by the sources that they stand for; look all assets up together."""
    found = [web_addresses.translate(one) if isinstance(one, str) and ":" in one else one for one in sources]
    assets = {one for one in found if isinstance(one, ApiAsset)}
    if not assets:
        return [one for one in found if not isinstance(one, ApiAsset)]
    from lazynwb.storage.dandi.resolver import expand_assets

    urls = expand_assets(assets)
    return [urls[one] if isinstance(one, ApiAsset) else one for one in found]


def _expand_one(source: PathOrUrl, options: Options) -> list[Source]:
    if isinstance(source, Source):
        return [source]
    text = _path_text(source)
    if "::" in text and is_url(text.rpartition("::")[2]):
        chain, _, last = text.rpartition("::")
        raise LazyNWBError(f"{redacted(chain)}:: URLs are not supported: pass {redacted(last)}")
    if is_url(text) and not text.lower().startswith("file:"):
        own = getattr(source, "storage_options", None)
        found = resolve(text, Options({**options.as_dict(), **own}) if own else options)
        if _is_web_file(text):
            return [found]
        from lazynwb.storage.remote_listing import expand_url  # late: most URLs need no expansion

        return expand_url(found)
    return _expand_local(local_path(text))


def _is_web_file(url: str) -> bool:
    """Return whether a URL names one file or store on a web server, not a folder or a pattern."""
    try:
        scheme, _, path, _, _ = urlsplit(url)
    except ValueError:
        return False
    return scheme in {"http", "https"} and "*" not in path and not path.endswith("/")


def _expand_local(path: str) -> list[Source]:
    mode = _mode_of(path)
    if mode is not None and stat.S_ISDIR(mode):
        if is_zarr_store(path):
            return [resolve(path)]
        inside, others = _search_folder(Path(path))
        note = describe_skipped(path, others)
        if not inside:
            for name in ("zarr.json", ".zmetadata", ".zgroup"):
                document = os.path.join(path, name)
                if os.path.islink(document):  # to nothing, or it would be a store
                    raise SourceNotFoundError(describe_link(document, os.readlink(document)))
            names = ", ".join("*" + suffix for suffix in NWB_SUFFIXES)
            raise SourceNotFoundError(
                f"no NWB file ({names}) in folder {path} or below" + (f"; {note}" if note else "")
            )
        if note:
            _LOGGER.warning(note)
        return [resolve(one) for one in sorted(inside)]
    if mode is None and WILDCARDS.intersection(path):
        found = {match: _mode_of(match) for match in sorted(glob.glob(path, recursive=True))}
        folders = {match for match, mode in found.items() if mode is not None and stat.S_ISDIR(mode)}
        stores = {os.path.normpath(folder) for folder in folders if is_zarr_store(folder)}
        matches = [
            _resolved(match, is_file=mode is not None and stat.S_ISREG(mode))
            for match, mode in found.items()
            if (match not in folders or os.path.normpath(match) in stores)
            and stores.isdisjoint(map(str, Path(match).parents))  # members of a store are not sources
        ]
        if not matches:
            raise SourceNotFoundError(f"no file matches {path}")
        return matches
    return [_resolved(path, is_file=mode is not None and stat.S_ISREG(mode))]


def _mode_of(path: str) -> int | None:
    """Return the mode of a path, as in `stat`; None if it does not exist or cannot be accessed."""
    try:
        return os.stat(path).st_mode
    except (OSError, ValueError):
        return None


def _resolved(path: str, *, is_file: bool) -> Source:
    """Return the source at a local path; of a regular file the kind is not looked up again."""
    source = _ResolvedSource(path, NO_OPTIONS)
    if is_file:
        source.decide(local_file)
    return source


def local_path(text: str) -> str:
    """Return the absolute path of a path or a `file://` URL."""
    if is_url(text):
        parts = urlsplit(text)
        text = unquote(parts.path)
        if os.name == "nt":
            shared = parts.netloc not in {"", "localhost"}
            text = f"//{parts.netloc}{text}" if shared else text.lstrip("/")
    return os.path.abspath(os.path.expanduser(text))  # symbolic links stay as the user wrote them


def _path_text(source: object) -> str:
    if isinstance(source, str):
        return source
    protocol = getattr(source, "protocol", "")
    if protocol not in {"", "file", "local"}:
        return str(source)
    if protocol and hasattr(source, "path"):
        return str(source.path)
    if isinstance(source, os.PathLike):
        path: str = os.fspath(source)
        return path
    raise TypeError(f"a source must be a path or a URL, not {type(source).__name__}: {source!r}")


def is_zarr_store(path: str) -> bool:
    """Return whether a folder is a Zarr store rather than a folder of files."""
    return any(os.path.exists(os.path.join(path, mark)) for mark in ZARR_DOCUMENTS)


def _search_folder(folder: Path) -> tuple[list[str], list[str]]:
    """Return the NWB files below a folder, and skipped files that look like NWB, each with the reason.

    Names with a leading dot are ignored: caches, and resource forks of macOS on other file systems.
    """
    found: list[str] = []
    others: list[str] = []

    def note(path: str, why: str) -> None:
        others.append(f"{os.path.relpath(path, folder)} ({why})")

    def refused(error: OSError) -> None:
        note(str(error.filename), f"{error.strerror}")

    for here, folders, files in os.walk(folder, onerror=refused):
        for name in files:
            path = os.path.join(here, name)
            if is_nwb_name(name):
                found.append(path)
            elif not name.startswith(".") and (why := unusable_reason(name) or _misnamed_reason(path)):
                note(path, why)
        stores = {name for name in folders if _is_named_store(here, name)}
        found += [os.path.join(here, name) for name in stores]
        folders[:] = [name for name in folders if name not in stores and not name.startswith(".")]
        strange = {name: why for name in folders if (why := _skipped_folder_reason(os.path.join(here, name)))}
        for name, why in strange.items():
            note(os.path.join(here, name), why)
        folders[:] = [name for name in folders if name not in strange]
    return found, others


def _is_named_store(folder: str, name: str) -> bool:
    """Return whether a subfolder has the suffix of a Zarr store and is one."""
    return name.lower().endswith((".zarr", *NWB_SUFFIXES)) and is_zarr_store(os.path.join(folder, name))


def _misnamed_reason(path: str) -> str:
    """Return why a file with an HDF5 suffix may be NWB; an empty string for other files."""
    if path.lower().endswith(HDF5_SUFFIXES) and _starts_and_contains(path, b"\x89HDF\r\n\x1a\n", _NWB_MARK):
        return "NWB without an NWB suffix"
    return ""


def _skipped_folder_reason(path: str) -> str:
    """Return why a folder that may contain NWB is not searched; an empty string for folders to search."""
    if any(
        _starts_and_contains(os.path.join(path, mark), b"{", _NWB_MARK) for mark in (".zattrs", "zarr.json")
    ):
        return "a Zarr store without an NWB suffix"
    if path.lower().endswith(".nwb.zarr"):
        return "not a Zarr store: it has no metadata document"
    if os.path.islink(path) and any(is_nwb_name(name) for _, _, names in os.walk(path) for name in names):
        return "a symbolic link to a folder"
    return ""


def _starts_and_contains(path: str, start: bytes, mark: bytes) -> bool:
    """Return whether a file starts with some bytes and has a mark near its beginning."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    return head.startswith(start) and mark in head
