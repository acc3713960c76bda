"""Sources: the path or URL of a file with the options that open it, and what can be asked of any of them."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from lazynwb.errors import LazyNWBError
from lazynwb.threads import LOADERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from lazynwb.storage.file import File

A = TypeVar("A")
T = TypeVar("T")

#: The identity of a file that does not exist: what a broken external link depends on.
ABSENT = "absent"
#: In the place of the identity of a file that could not be opened for now: it equals no identity, so that
#: nothing is cached that depends on the file.
UNREACHABLE = "unreachable"

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
#: Names of options whose values are secrets.
_SENSITIVE = r"key|secret|token|passw|sas|credential|sign|auth|header|cookie|client"
#: Parts of a query that only let somebody in, and for how long: of Amazon, Google and Azure, and tokens.
_SIGNATURE = (
    r"x-(amz|goog)-.*|signature|sig|expires|policy|key-pair-id|awsaccesskeyid|googleaccessid"
    r"|s[eprvst]|spr|sip|sdd|srt|sk(oid|tid|[estv])|(access_?|auth_?|id_?)?token|jwt"
)


class Kind(Protocol):
    """One kind of source: a local file, a remote file, or a store of many objects. Modules implement it."""

    #: Whether a source of this kind is a store of many objects rather than one file.
    IS_STORE: bool

    def identity(self, source: Source, *, known: bool | str) -> str:
        """Return a text that changes whenever the source is replaced or written to."""
        ...

    def verify(self, source: Source, expected: str) -> None:
        """Raise if the source is no longer the one that has an identity."""
        ...

    def is_settled(self, source: Source, known: str, now_ns: int) -> bool:
        """Return whether a write from now on is certain to change the identity."""
        ...

    def shows_change(self, source: Source, known: str) -> bool:
        """Return whether reading asks for bytes, whose answers say which version they are of."""
        ...

    def invalidate(self, source: Source) -> None:
        """Drop what is cached of the source."""
        ...

    def open_file(self, source: Source, expected: str) -> File:
        """Open the source, a single file, for reading."""
        ...


@dataclass(frozen=True, slots=True, repr=False)
class Source:
    """One file or store, local or remote; `lazynwb.storage.resolve.resolve` makes one that knows its kind.

    Attributes
    ----------
    path : str
        Absolute local path, or a URL exactly as it was given: the value of `_nwb_path`.
    options : Options
        Credentials, endpoints and the like of a remote file; empty for a local one.
    """

    path: str
    options: Options = field(default_factory=lambda: NO_OPTIONS)

    def __repr__(self) -> str:
        """Show what may be shown."""
        return f"<Source: {self.name}>"

    # -- what it is ---------------------------------------------------------------------------------------

    @property
    def kind(self) -> Kind:
        """What kind of source it is: decided once, when it is first needed."""
        raise TypeError(f"{self!r} was not resolved")

    def kind_for(self, identity: str) -> Kind:  # noqa: ARG002 - for subclasses
        """Return the kind of source that has an identity."""
        return self.kind

    @property
    def is_store(self) -> bool:
        """Whether it is a store of many objects (a folder, a prefix) rather than one file."""
        return self.kind.IS_STORE

    def identity(self, *, known: bool | str = False) -> str:
        """Return a text that changes whenever the file is replaced or written to.

        Parameters
        ----------
        known : bool or str
            Whether the file is probably in the catalog, so that none of its contents are needed; or the
            identity that it has there, which is returned without a request where that is known to be the
            file's still: see `lazynwb.storage.revalidation`.

        Raises
        ------
        SourceNotFoundError
            If there is no such file.
        LazyNWBError
            If it cannot be read.
        """
        return self.kind.identity(self, known=known)

    def identity_or_absent(self, known: bool | str = False) -> str:  # noqa: FBT001, FBT002 - as above
        """Return the identity of a file, `ABSENT` if there is none (or none that can be read)."""
        try:
            return self.identity(known=known != UNREACHABLE and known)
        except LazyNWBError:
            return ABSENT

    def verify(self, expected: str) -> None:
        """Make sure that a local file or a store is still the one that the catalog describes.

        Every answer about a remote file says which version it is from, so no request is made for one.

        Raises
        ------
        SourceNotFoundError, SourceChangedError
            If it is gone or another one.
        """
        self.kind_for(expected).verify(self, expected)

    def is_settled(self, known: str, now_ns: int) -> bool:
        """Return whether a write from now on is certain to change the identity; else it is not cached."""
        return known != UNREACHABLE and self.kind_for(known).is_settled(self, known, now_ns)

    def shows_change(self, known: str) -> bool:
        """Return whether reading asks a server for bytes, whose answers say which version they are of.

        Those of a store only say it of single objects; and cached bytes say nothing.
        """
        return self.kind_for(known).shows_change(self, known)

    def invalidate(self) -> None:
        """Drop the cached bytes of a remote file, and its identity: they were damaged on their way."""
        self.kind.invalidate(self)

    def open(self, expected: str) -> File:
        """Open a file for reading, if it is still the one that the catalog describes.

        Raises
        ------
        SourceNotFoundError, SourceChangedError
            If it is gone or another one; for remote files this shows with the first read.
        """
        return self.kind_for(expected).open_file(self, expected)

    # -- where it is --------------------------------------------------------------------------------------

    @property
    def is_remote(self) -> bool:
        """Whether the bytes come over a network."""
        return is_url(self.path)

    @property
    def name(self) -> str:
        """The path without what could be a secret: for messages and logs."""
        return redacted(self.path) if self.is_remote else self.path

    @property
    def public(self) -> str:
        """The path without what lets somebody in: what others may know the file by."""
        if not self.is_remote:
            return self.path
        base, query = _parts(self.path)
        kept = "&".join(map("".join, _unsigned(query)))
        return _without_user(base) + (f"?{kept}" if kept else "")

    @property
    def secrets(self) -> list[str]:
        """Names in the public path's query whose values may be secrets all the same."""
        return [name for name, _, _ in _unsigned(_parts(self.path)[1]) if _is_sensitive(name)]

    @property
    def key(self) -> str:
        """What the catalog cache knows the file by.

        Signatures come and go while the file stays the same one, so they are no part of it; nor is any
        secret, because the key is written to disk.
        """
        if not self.is_remote:
            return self.path
        base, query = _parts(self.path)
        kept = _unsigned(query)
        plain = [(name, repr(value)) for name, value in self.options.items if not _is_sensitive(name)]
        distinct = hashlib.blake2b(repr((kept, plain)).encode(), digest_size=12).hexdigest()
        return f"{_without_user(base)}\0{distinct if kept or plain else ''}"

    def resolved(self) -> Self:
        """Return the file that a local symbolic link stands for, as `sibling` names it."""
        return self if self.is_remote else type(self)(os.path.realpath(self.path))

    def with_path(self, path: str) -> Self:
        """Return another file that the same options open."""
        return type(self)(path, self.options)

    def sibling(self, name: str) -> Self | None:
        """Return the file that a relative path from this one leads to; None where there is no such notion."""
        if not self.is_remote:
            folder = os.path.dirname(self.path)
            return type(self)(os.path.realpath(os.path.join(folder, name)))
        base, query = _parts(self.path)
        if query or is_url(name) or os.path.isabs(name) or (_is_web(base) and ("?" in name or "#" in name)):
            return None
        scheme, _, rest = base.partition("://")
        steps = rest.split("/")[:-1]
        for step in name.split("/"):
            if step == "..":
                if len(steps) < 2:  # noqa: PLR2004 - the first one is the host or bucket
                    return None
                steps.pop()
            elif step not in {"", "."}:
                steps.append(step)
        return self.with_path(f"{scheme}://{'/'.join(steps)}")

    def is_below_folder_of(self, other: Source) -> bool:
        """Return whether this file lies in another one's folder or below."""
        folder = other.path.rpartition("/")[0] if other.is_remote else os.path.dirname(other.path)
        if self.is_remote:
            return self.path.startswith(folder + "/")
        real = os.path.realpath(folder)
        return self.path == real or self.path.startswith(real.rstrip(os.sep) + os.sep)


class Options:
    """Options of a store by name; hashable, and silent about their values."""

    __slots__ = ("_hash", "items")

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self.items: tuple[tuple[str, Any], ...] = tuple(sorted((values or {}).items()))
        self._hash = hash(repr(self.items))

    def as_dict(self) -> dict[str, Any]:
        """Return them as a dictionary of its own."""
        return dict(self.items)

    def __bool__(self) -> bool:
        return bool(self.items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Options) and self.items == other.items

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        """Name the options only: values may be secrets."""
        return f"<Options: {', '.join(name for name, _ in self.items) or 'none'}>"

    def __reduce__(self) -> tuple[type[Options], tuple[dict[str, Any]]]:
        return Options, (self.as_dict(),)


NO_OPTIONS: Options = Options()


def map_concurrently(work: Callable[[A], T], items: Sequence[A], sources: Iterable[Source]) -> list[T]:
    """Call a function for each item, at the same time if any of the sources that it reads is remote."""
    if len(items) > 1 and any(source.is_remote for source in sources):
        return LOADERS.map(work, items)
    return [work(item) for item in items]


def is_url(text: str) -> bool:
    """Return whether a text is a URL rather than a local path; a Windows drive is one letter."""
    return _URL.match(text) is not None


def redacted(url: str) -> str:
    """Return a URL with the values of its query, and a password before its host, blotted out."""
    base, query = _parts(url)
    blotted = "&".join(name + "=***" if equals else "***" for name, equals, _ in _pairs(query))
    return _without_user(base, "***@") + (f"?{blotted}" if query else "")


def _is_web(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))


def _parts(url: str) -> tuple[str, str]:
    """Part the query, which only web servers know: in object stores a question mark is part of a name."""
    if not _is_web(url):
        return url, ""
    base, _, query = url.partition("#")[0].partition("?")
    return base, query


def _pairs(query: str) -> list[tuple[str, str, str]]:
    return [pair.partition("=") for pair in query.split("&")] if query else []


def _is_sensitive(name: str) -> bool:
    return re.search(_SENSITIVE, name, re.IGNORECASE) is not None


def _unsigned(query: str) -> list[tuple[str, str, str]]:
    return [pair for pair in _pairs(query) if not re.fullmatch(_SIGNATURE, pair[0], re.IGNORECASE)]


def _without_user(base: str, instead: str = "") -> str:
    # In object stores what stands before an @ is a container, unless it has a password, maybe with slashes.
    return re.sub(r"(?<=://)[^/]*@" if _is_web(base) else r"(?<=://)[^/]*:[^@]*@", instead, base)
