"""Sources: paths and URLs with storage options, and the operations that all kinds of sources share."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from lazynwb.errors import LazyNWBError, SourceNotFoundError
from lazynwb.threads import LOADERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from lazynwb.storage.file import File

A = TypeVar("A")
T = TypeVar("T")

#: The identity of a file that does not exist, such as the target of a broken external link.
ABSENT = "absent"
#: In the place of the identity of a file that could not be opened for now: it equals no identity, so that
#: nothing is cached that depends on the file.
UNREACHABLE = "unreachable"

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_WEB_USER, _PASSWORD = re.compile(r"(?<=://)[^/]*@"), re.compile(r"(?<=://)[^/]*:[^@]*@")
#: Pattern of option names whose values are secrets.
_SENSITIVE = r"key|secret|token|passw|sas|credential|sign|auth|header|cookie|client"
#: Pattern of query parameters that only authorize access: signatures of Amazon, Google and Azure, and tokens.
_SIGNATURE = (
    r"x-(amz|goog)-.*|signature|sig|expires|policy|key-pair-id|awsaccesskeyid|googleaccessid"
    r"|s[eprvst]|spr|sip|sdd|srt|sk(oid|tid|[estv])|(access_?|auth_?|id_?)?token|jwt"
)


class Kind(Protocol):
    """One kind of source: a local file, a remote file, or a store of many objects; implemented by modules."""

    #: Whether a source of this kind is a store of many objects rather than one file.
    IS_STORE: bool

    def identity(self, source: Source, *, known: bool | str) -> str:
        """Return a string that changes whenever the source is replaced or written to."""
        ...

    def verify(self, source: Source, expected: str) -> None:
        """Raise SourceChangedError if the source no longer has the expected identity."""
        ...

    def is_settled(self, source: Source, known: str, now_ns: int) -> bool:
        """Return whether any later write is certain to change the identity."""
        ...

    def read_reveals_change(self, source: Source, known: str) -> bool:
        """Return whether reading makes requests, whose responses reveal a change."""
        ...

    def invalidate(self, source: Source) -> None:
        """Drop everything that is cached of the source."""
        ...

    def open_file(self, source: Source, expected: str) -> File:
        """Open the source, a single file, for reading."""
        ...


@dataclass(frozen=True, slots=True, repr=False)
class Source:
    """One file or store, local or remote; `lazynwb.storage.resolve.resolve` creates one that knows its kind.

    Attributes
    ----------
    path : str
        Absolute local path, or a URL exactly as it was given: the value of `_nwb_path`.
    options : Options
        Storage options of a remote source, such as credentials and endpoints; empty for a local one.
    """

    path: str
    options: Options = field(default_factory=lambda: NO_OPTIONS)

    def __repr__(self) -> str:
        """Return a representation without secrets."""
        return f"<Source: {self.name}>"

    # -- kind and identity --------------------------------------------------------------------------------

    @property
    def kind(self) -> Kind:
        """The kind of source, determined when it is first needed."""
        raise TypeError(f"{self!r} was not resolved")

    def kind_for(self, identity: str) -> Kind:  # noqa: ARG002 - for subclasses
        """Return the kind of source that an identity belongs to."""
        return self.kind

    @property
    def is_store(self) -> bool:
        """Whether it is a store of many objects (a folder, a prefix) rather than one file."""
        return self.kind.IS_STORE

    def identity(self, *, known: bool | str = False) -> str:
        """Return a string that changes whenever the file is replaced or written to.

        Parameters
        ----------
        known : bool or str
            Whether the file is probably in the catalog cache, so that its contents are not needed; or the
            identity that it has there, which is returned without a request if it can be confirmed (see
            `lazynwb.storage.revalidation`).

        Raises
        ------
        SourceNotFoundError
            If the file does not exist.
        LazyNWBError
            If it cannot be read.
        """
        return self.kind.identity(self, known=known)

    def identity_or_absent(self, known: bool | str = False) -> str:  # noqa: FBT001, FBT002 - as above
        """Return the identity of the file; `ABSENT` if it does not exist or cannot be read.

        It is `UNREACHABLE` if it is remote and was refused, or its server fails. The catalog of a file with a
        link to it is valid while that remains so: only the target is requested again.
        """
        try:
            return self.identity(known=known != UNREACHABLE and known)
        except SourceNotFoundError:
            return ABSENT
        except LazyNWBError:
            return UNREACHABLE if self.is_remote else ABSENT

    def verify(self, expected: str) -> None:
        """Verify that a local file or a store still has the identity that the catalog was built for.

        Remote files need no verification: every response identifies the version that it is from.

        Raises
        ------
        SourceNotFoundError
            If the source no longer exists.
        SourceChangedError
            If it has changed.
        """
        self.kind_for(expected).verify(self, expected)

    def is_settled(self, known: str, now_ns: int) -> bool:
        """Return whether any later write is certain to change the identity; otherwise it is not cached."""
        return known == UNREACHABLE or self.kind_for(known).is_settled(self, known, now_ns)

    def read_reveals_change(self, known: str) -> bool:
        """Return whether reading makes requests, whose responses identify the version of the file.

        Responses of a store only identify the versions of single objects, and cached bytes none at all.
        """
        return self.kind_for(known).read_reveals_change(self, known)

    def invalidate(self) -> None:
        """Drop the cached bytes and the identity of a remote file, after corruption in transit."""
        self.kind.invalidate(self)

    def open(self, expected: str) -> File:
        """Open a file for reading, if it still has the identity that the catalog was built for.

        Raises
        ------
        SourceNotFoundError
            If the file no longer exists; for remote files, on the first read.
        SourceChangedError
            If it has changed; for remote files, on the first read.
        """
        return self.kind_for(expected).open_file(self, expected)

    # -- path and URL -------------------------------------------------------------------------------------

    @property
    def is_remote(self) -> bool:
        """Whether the source is a URL."""
        return is_url(self.path)

    @property
    def name(self) -> str:
        """The path without possible secrets, for messages and logs."""
        return redacted(self.path) if self.is_remote else self.path

    @property
    def public(self) -> str:
        """The path without signatures and passwords, which may be shared with others."""
        if not self.is_remote:
            return self.path
        base, query = _split_query(self.path)
        shared = "&".join(map("".join, _unsigned_pairs(query)))
        return _without_user(base) + (f"?{shared}" if shared else "")

    @property
    def secrets(self) -> list[str]:
        """Names of query parameters in the public path whose values may still be secrets."""
        return [name for name, _, _ in _unsigned_pairs(_split_query(self.path)[1]) if _is_sensitive(name)]

    @property
    def key(self) -> str:
        """The key of the file in the catalog cache.

        Signatures are left out because they change while the file does not, and secrets because the key is
        written to disk.
        """
        if not self.is_remote:
            return self.path
        base, query = _split_query(self.path)
        pairs = _unsigned_pairs(query)
        plain = [(name, repr(value)) for name, value in self.options.items if not _is_sensitive(name)]
        distinct = hashlib.blake2b(repr((pairs, plain)).encode(), digest_size=12).hexdigest()
        return f"{_without_user(base)}\0{distinct if pairs or plain else ''}"

    def resolved(self) -> Self:
        """Return the target of a local symbolic link, with a path as `sibling` returns it."""
        return self if self.is_remote else type(self)(os.path.realpath(self.path))

    def with_path(self, path: str) -> Self:
        """Return the source at another path with the same options."""
        return type(self)(path, self.options)

    def sibling(self, name: str) -> Self | None:
        """Return the file at a path relative to this file's folder; None if it cannot be addressed."""
        if not self.is_remote:
            folder = os.path.dirname(self.path)
            return type(self)(os.path.realpath(os.path.join(folder, name)))
        base, query = _split_query(self.path)
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
        """Return whether this file is in the folder of another one or below it."""
        folder = other.path.rpartition("/")[0] if other.is_remote else os.path.dirname(other.path)
        if self.is_remote:
            return self.path.startswith(folder + "/")
        real = os.path.realpath(folder)
        return self.path == real or self.path.startswith(real.rstrip(os.sep) + os.sep)


class Options:
    """Storage options by name; hashable, with a representation that hides their values."""

    __slots__ = ("_hash", "items")

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self.items: tuple[tuple[str, Any], ...] = tuple(sorted((values or {}).items()))
        self._hash = hash(repr(self.items))

    def as_dict(self) -> dict[str, Any]:
        """Return a copy as a dictionary."""
        return dict(self.items)

    def __bool__(self) -> bool:
        return bool(self.items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Options) and self.items == other.items

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        """Return a representation of the names only: values may be secrets."""
        return f"<Options: {', '.join(name for name, _ in self.items) or 'none'}>"

    def __reduce__(self) -> tuple[type[Options], tuple[dict[str, Any]]]:
        return Options, (self.as_dict(),)


NO_OPTIONS: Options = Options()


def map_concurrently(work: Callable[[A], T], items: Sequence[A], sources: Iterable[Source]) -> list[T]:
    """Call a function for each item, concurrently if any of the sources that it reads is remote."""
    if len(items) > 1 and any(source.is_remote for source in sources):
        return LOADERS.map(work, items)
    return [work(item) for item in items]


def is_url(text: str) -> bool:
    """Return whether a string is a URL rather than a local path; a Windows drive is one letter."""
    return "://" in text and _URL.match(text) is not None  # of very many paths: most have none


def redacted(url: str) -> str:
    """Return a URL with the values of its query, and a login before its host, masked."""
    base, query = _split_query(url)
    blotted = "&".join(name + "=***" if equals else "***" for name, equals, _ in _query_pairs(query))
    return _without_user(base, "***@") + (f"?{blotted}" if query else "")


def _is_web(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))


def _split_query(url: str) -> tuple[str, str]:
    """Split a web URL into base and query; in object stores a question mark is part of the name."""
    if not _is_web(url):
        return url, ""
    base, _, query = url.partition("#")[0].partition("?")
    return base, query


def _query_pairs(query: str) -> list[tuple[str, str, str]]:
    return [pair.partition("=") for pair in query.split("&")] if query else []


def _is_sensitive(name: str) -> bool:
    return re.search(_SENSITIVE, name, re.IGNORECASE) is not None


def _unsigned_pairs(query: str) -> list[tuple[str, str, str]]:
    return [pair for pair in _query_pairs(query) if not re.fullmatch(_SIGNATURE, pair[0], re.IGNORECASE)]


def _without_user(base: str, instead: str = "") -> str:
    # In object stores the part before "@" is a container, unless it has a password, maybe with slashes.
    return (_WEB_USER if _is_web(base) else _PASSWORD).sub(instead, base) if "@" in base else base
