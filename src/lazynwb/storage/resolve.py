"""Resolve paths, URLs, glob patterns and folders to sources that know their kind."""

from __future__ import annotations

import glob
import logging
import os
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
    ZARR_MARKS,
    is_nwb_name,
    passed_over,
    unusable,
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
    """Return the files that a call's `source` argument means.

    Parameters
    ----------
    sources : path or URL, or iterable of these
        A file, a glob pattern, or a folder, which is searched recursively for NWB files; locally or in an
        object store, where a URL that ends in a slash, or not in a name of an NWB file, means a folder. A
        `dandi://` URL means a dandiset, or a part of one. Anything that is `os.PathLike` or has a local
        `path`, such as a UPath, is taken as a path; a remote UPath brings its storage options.
    storage_options : mapping or None
        Credentials and the like, beside `config.storage_options`, for the remote ones.
    allow_none : bool
        Return an empty list for an empty one.

    Returns
    -------
    list of Source
        In the order given; patterns and folders in sorted order.

    Raises
    ------
    SourceNotFoundError
        If nothing was given, or a pattern or folder has no NWB file.
    LazyNWBError
        If a URL is of a kind that cannot be read.
    """
    listed = (
        [sources]
        if isinstance(sources, str | os.PathLike | Source) or not isinstance(sources, Iterable)
        else sources
    )
    options = Options({**config.storage_options, **(storage_options or {})})
    found = [source for one in _translated(listed) for source in _expand_one(one, options)]
    strange = next((source.path for source in found if not _is_text(source.path)), None)
    if strange is not None:
        raise SourceNotFoundError(
            f"the file name {strange!r} is not valid UTF-8, so no column can hold it: rename the file"
        )
    if not found and not allow_none:
        raise SourceNotFoundError(
            "no source was given: pass the path of an NWB file, several of them, a pattern or a folder"
        )
    return found


def reopen(path: str, storage_options: Mapping[str, Any] | None = None) -> Source:
    """Return the file behind a value of `_nwb_path`: one file, whatever its name looks like.

    Parameters
    ----------
    path : str
    storage_options : mapping or None
        As for `expand`; those that the file was first opened with are not known any more.
    """
    if is_url(path):
        return resolve(path, Options({**config.storage_options, **(storage_options or {})}))
    return resolve(os.path.abspath(path))


class _ResolvedSource(Source):
    """A source that decides once what kind it is: by its path, or where that leaves it open by asking."""

    __slots__ = ("_kind",)

    _kind: Kind

    @property
    def kind(self) -> Kind:
        """What kind of source it is."""
        try:
            return self._kind
        except AttributeError:
            return self._decide(_kind_of(self))

    def kind_for(self, identity: str) -> Kind:
        """Return the kind of source that has an identity."""
        if not self.is_store and identity.startswith(_DOCUMENTS):
            self._decide(_stores())
        return self.kind

    def _decide(self, kind: Kind) -> Kind:
        object.__setattr__(self, "_kind", kind)
        return kind

    def identity(self, *, known: bool | str = False) -> str:
        """Return the identity; see `Source`. A URL that is no file may be a store, whatever its name."""
        try:
            return self.kind.identity(self, known=known)
        except LazyNWBError as error:
            other = _other_kind(self, error) if self.is_remote else None
            if other is None:
                raise
            try:
                found = other.identity(self, known=False)
            except LazyNWBError:
                raise _with_remedy(self, error) from None
        _detected[self] = self._decide(other)
        return found


def resolve(path: str, options: Options = NO_OPTIONS) -> Source:
    """Return the source at an absolute path or a URL; nothing is looked at or asked for yet."""
    return _ResolvedSource(path, options)


#: What every NWB file has at its root, and within how many bytes of its beginning.
_NWB_MARK, _HEAD = b"nwb_version", 64 * 1024
#: Sources whose names say another kind than they are.
_detected: dict[Source, Kind] = {}
#: Names that no folder of a store has.
_SINGLE_FILES = (".h5", ".hdf5", ".zip", ".json", ".tar")
#: What the identities of stores begin with: the document that describes them.
_DOCUMENTS = (".zmetadata\t", "zarr.json\t", ".zgroup\t")


def forget() -> None:
    """Forget which URLs were found to be stores."""
    _detected.clear()


def _kind_of(source: Source) -> Kind:
    if not source.is_remote:
        return _stores() if os.path.isdir(source.path) else local_file
    if source in _detected:
        return _detected[source]
    path = source.path.partition("?")[0].lower()
    is_store = path.endswith((".zarr", "/")) and not web_addresses.is_download(path)
    return _stores() if is_store else _remote_files()


def _other_kind(source: Source, error: LazyNWBError) -> Kind | None:
    """Return the kind that a remote source may be in spite of its name, given an error; None for no other."""
    if source.path.partition("?")[0].lower().endswith(_SINGLE_FILES):
        return None
    if isinstance(error, SourceNotFoundError):
        return _remote_files() if source.is_store else _stores()
    from lazynwb.storage.error_mapping import WebPageError  # late: it loads obstore

    return _stores() if isinstance(error, WebPageError) and not source.is_store else None


def _with_remedy(source: Source, error: LazyNWBError) -> LazyNWBError:
    if not source.path.partition("?")[0].endswith("/"):
        return error
    return SourceNotFoundError(
        f"{source.name}: there is neither a Zarr store nor a file, and web servers do not list folders: pass "
        "the URLs of the files"
    )


def _stores() -> Kind:
    from lazynwb.storage.objects import metadata_identity

    return metadata_identity


def _remote_files() -> Kind:
    # Late: obstore is not loaded for local files.
    from lazynwb.storage import remote_file

    return remote_file


def _is_text(path: str) -> bool:
    """Return whether a path is Unicode; bytes of a file name that are not become lone surrogates."""
    return path.isascii() or not any("\ud800" <= character <= "\udfff" for character in path)


def _translated(sources: Iterable[PathOrUrl]) -> list[PathOrUrl]:
    """Return sources in the place of web addresses that stand for them; assets are looked up together."""
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
    text = _text_of(source)
    if "::" in text and is_url(text.rpartition("::")[2]):
        chain, _, last = text.rpartition("::")
        raise LazyNWBError(f"{redacted(chain)}:: URLs are not read: pass {redacted(last)}")
    if is_url(text) and not text.lower().startswith("file:"):
        from lazynwb.storage.remote_listing import search

        own = getattr(source, "storage_options", None)
        return search(resolve(text, Options({**options.as_dict(), **own}) if own else options))
    return [resolve(path) for path in _expand_local(local_path(text))]


def _expand_local(path: str) -> list[str]:
    if os.path.isdir(path):
        if is_zarr_store(path):
            return [path]
        inside, others = _search(Path(path))
        note = passed_over(path, others)
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
        return sorted(inside)
    if WILDCARDS.intersection(path) and not os.path.exists(path):
        matches = sorted(match for match in glob.glob(path, recursive=True) if _is_wanted(match))
        if not matches:
            raise SourceNotFoundError(f"no file matches {path}")
        return matches
    return [path]


def _is_wanted(path: str) -> bool:
    return not os.path.isdir(path) or is_zarr_store(path)


def local_path(text: str) -> str:
    """Return the absolute path that a path, or a `file://` URL, stands for."""
    if is_url(text):
        parts = urlsplit(text)
        text = unquote(parts.path)
        if os.name == "nt":
            shared = parts.netloc not in {"", "localhost"}
            text = f"//{parts.netloc}{text}" if shared else text.lstrip("/")
    return os.path.abspath(os.path.expanduser(text))  # symbolic links stay as the user wrote them


def _text_of(source: object) -> str:
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
    raise TypeError(f"a source is a path or a URL, not {type(source).__name__}: {source!r}")


def is_zarr_store(path: str) -> bool:
    """Return whether a folder is a Zarr store rather than a folder of files."""
    return any(os.path.exists(os.path.join(path, mark)) for mark in ZARR_MARKS)


def _search(folder: Path) -> tuple[list[str], list[str]]:
    """Return the NWB files below a folder, and what looks like NWB and is none of these, with the reason.

    Names with a leading dot are caches, and the resource forks that macOS leaves on other file systems.
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
            elif not name.startswith(".") and (why := unusable(name) or _other_name(path)):
                note(path, why)
        stores = {name for name in folders if _is_named_store(here, name)}
        found += [os.path.join(here, name) for name in stores]
        folders[:] = [name for name in folders if name not in stores and not name.startswith(".")]
        strange = {name: why for name in folders if (why := _other_folder(os.path.join(here, name)))}
        for name, why in strange.items():
            note(os.path.join(here, name), why)
        folders[:] = [name for name in folders if name not in strange]
    return found, others


def _is_named_store(folder: str, name: str) -> bool:
    """Return whether there is a Zarr store in a folder that is called like one."""
    return name.lower().endswith((".zarr", *NWB_SUFFIXES)) and is_zarr_store(os.path.join(folder, name))


def _other_name(path: str) -> str:
    """Return what an NWB file is whose name is that of any HDF5 file; an empty text for other files."""
    if path.lower().endswith(HDF5_SUFFIXES) and _has(path, b"\x89HDF\r\n\x1a\n", _NWB_MARK):
        return "NWB, by another name"
    return ""


def _other_folder(path: str) -> str:
    """Return why a folder that may hold NWB is not searched; an empty text for those that are."""
    if any(_has(os.path.join(path, mark), b"{", _NWB_MARK) for mark in (".zattrs", "zarr.json")):
        return "a Zarr store, by another name"
    if path.lower().endswith(".nwb.zarr"):
        return "no Zarr store: it has no metadata document"
    if os.path.islink(path) and any(is_nwb_name(name) for _, _, names in os.walk(path) for name in names):
        return "a symbolic link to a folder"
    return ""


def _has(path: str, start: bytes, mark: bytes) -> bool:
    """Return whether a file begins in a way and has a mark near its beginning."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    return head.startswith(start) and mark in head
