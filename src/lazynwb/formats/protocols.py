"""Protocols of open files and their objects, for all formats: groups, datasets, attributes, links."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, AnyStr, Protocol, TypeVar

from lazynwb.config import config
from lazynwb.errors import BrokenTableLinkError, SourceNotFoundError
from lazynwb.storage.source import UNREACHABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping
    from contextlib import AbstractContextManager

    from lazynwb.catalog.model import Array
    from lazynwb.errors import LazyNWBError
    from lazynwb.storage.source import Source

#: Maximum number of consecutive links; longer chains count as cyclic (the limit of libhdf5 is 16).
MAX_LINKS = 32

N = TypeVar("N")
T = TypeVar("T")


class BrokenLinkError(Exception):
    """A path without an object, or a dangling, cyclic or forbidden link."""


class NoObjectError(BrokenLinkError):
    """A path at which there is neither an object nor a link."""


class CyclicLinkError(BrokenLinkError):
    """A link that leads back to itself, directly or through other links."""


class ForbiddenLinkError(BrokenLinkError):
    """A link to another file that the settings forbid to follow."""


class UnreachableLinkError(BrokenLinkError):
    """A link to a remote file that cannot be accessed, so that its target is unknown."""


def follow(start: N, path: AnyStr, hops: int) -> N:
    """Follow a path from a group, including links; `hops` links have been followed before.

    Parameters
    ----------
    start : Node
        Node of any format with a method `step(name, hops)`, which opens a member.
    path : str or bytes
        Names separated by slashes; absolute if it begins with one.
    hops : int
        Number of links that led here.

    Raises
    ------
    BrokenLinkError
        If the path has no object; the message has the broken link.
    """
    if hops > MAX_LINKS:
        raise CyclicLinkError("links form a cycle")
    separator, here = ("/", ".") if isinstance(path, str) else (b"/", b".")
    found: Any = start
    if path.startswith(separator):
        found = found.file.root
    for name in path.split(separator):
        if name and name != here:
            found = found.step(name, hops)
    reached: N = found
    return reached


def link_error(name: str, error: BrokenLinkError, hops: int) -> BrokenLinkError:
    """Return the error of a link from that of its target; a cycle is reported once, not at each link.

    Parameters
    ----------
    name : str
        Name of the link.
    error : BrokenLinkError
        Error of the target.
    hops : int
        Number of links that have been followed to this one.
    """
    if isinstance(error, CyclicLinkError):
        return error if hops else CyclicLinkError(f"link {name!r} leads back to itself")
    kind = BrokenLinkError if isinstance(error, NoObjectError) else type(error)
    return kind(f"link {name!r} is broken: {error}")


def permitted_target(here: Source, target: Source | None, what: str, name: str) -> Source:
    """Return the target of a link to another file, if the settings allow to follow it.

    Parameters
    ----------
    here : Source
        File with the link.
    target : Source or None
        Target file of the link; None if the link cannot be followed.
    what : str
        Description of the link in the message, with `{}` in place of its target.
    name : str
        Stored name of the target.

    Raises
    ------
    ForbiddenLinkError
        If the settings do not allow it; the message has the required setting.
    """
    allowed = config.external_links
    if target is not None and (
        allowed == "anywhere" or (allowed == "folder" and target.is_below_folder_of(here))
    ):
        return target
    link = what.format(repr(target.name if target is not None else name))
    remedy = '; "anywhere" follows it' if target is not None else ""
    raise ForbiddenLinkError(
        f"{link} was not followed (lazynwb.config.external_links is {allowed!r}{remedy})"
    )


def link_target_error(name: str, target: Source, error: LazyNWBError) -> BrokenLinkError:
    """Return the error of a link whose target file cannot be opened.

    If the file does not exist, the link is broken. If a remote file cannot be accessed, its contents are
    unknown: a column behind the link is not left out, but is unreadable.

    Parameters
    ----------
    name : str
        Name of the file with the link.
    target : Source
        Target file.
    error : LazyNWBError
        Error of the target file.
    """
    if not target.is_remote or isinstance(error, SourceNotFoundError):
        remedy = ""
        if isinstance(error, SourceNotFoundError):
            remedy = "; restore the file, or recreate the link"
        return BrokenLinkError(f"its target is in another file, which cannot be read: {error}{remedy}")
    return UnreachableLinkError(
        f"{name} links to another file, which cannot be read: {error} "
        '(lazynwb.config.external_links = "never" does without it)'
    )


def unread_target_identity(target: Source, error: BrokenLinkError) -> str:
    """Return the identity of the target file of a link that cannot be opened."""
    return UNREACHABLE if isinstance(error, UnreachableLinkError) else target.identity_or_absent()


def broken_table_error(name: str, path: str, why: object, what: str = "table") -> BrokenTableLinkError:
    """Return the error of a table behind a broken link.

    Parameters
    ----------
    name : str
        Name of the file.
    path : str
        Path of the table, without the leading slash.
    why : object
        Reason why the link is broken.
    what : str
        "table" or "series".
    """
    return BrokenTableLinkError(
        f"{name}: {what} /{path.lstrip('/')} cannot be read: {with_remedy(str(why))}; "
        "ignore_errors=True leaves out such files"
    )


def with_remedy(why: str) -> str:
    """Return the reason why an object cannot be opened, with a remedy."""
    if "recreate" in why or "external_links" in why:
        return why
    return f"{why}; recreate the link" if "link" in why else f"{why}; restore the file, or write it again"


class DamagedObjectError(BrokenLinkError):
    """An object that the library of its format cannot open."""


def member_name(key: bytes) -> str:
    """Return the name of a member of a group as text.

    Raises
    ------
    DamagedObjectError
        If it is not UTF-8: a path with replaced characters would not lead to the object, and may be that of
        several.
    """
    try:
        return key.decode()
    except UnicodeDecodeError:
        raise DamagedObjectError("its name is not UTF-8") from None


def log_damaged(file: OpenFile, path: str, error: BrokenLinkError) -> None:
    """Log that a damaged object is left out."""
    file.raise_if_missing()  # it may be intact when the parse is repeated
    logging.getLogger("lazynwb").warning("%s: %s was left out: %s", file.name, path, error)


class ReferenceFile(Protocol):
    """A file whose objects can be referenced by address."""

    def paths_of(self, addresses: set[Hashable]) -> Mapping[Hashable, str]:
        """Return the paths of objects by their addresses, without those that do not exist."""
        ...


class OpenFile(ReferenceFile, Protocol):
    """A file whose structure is being parsed.

    The structure of a remote file is fetched in rounds: a parse records missing ranges, continues with the
    other objects, and is repeated when the ranges have been fetched.
    """

    @property
    def name(self) -> str:
        """The name of the file in messages."""
        ...

    @property
    def guesses_members(self) -> bool:
        """Whether members of a group were looked up by likely names, because the store cannot list them."""
        ...

    @property
    def depends(self) -> tuple[tuple[str, str], ...]:
        """Paths and identities of the target files of links that have been followed."""
        ...

    @property
    def root(self) -> Node:
        """The root group."""
        ...

    def find(self, path: str) -> Node:
        """Open the object at a path from the root; raise BrokenLinkError if it does not exist."""
        ...

    def memoize(self, path: str, describe: Callable[[], T]) -> T:
        """Return the description of an object, from this or an earlier run of a parse."""
        ...

    def collect_misses(self) -> AbstractContextManager[None]:
        """Ignore errors after a miss, so that one run collects all missing ranges."""
        ...

    def raise_if_missing(self) -> None:
        """Raise an error if any range is missing, to end a run of a parse early."""
        ...


class Node(Protocol):
    """A group or a dataset, and its file, which may be the target of a link."""

    @property
    def file(self) -> OpenFile:
        """The file of the object."""
        ...

    @property
    def is_group(self) -> bool:
        """Whether the object is a group."""
        ...

    @property
    def is_dataset(self) -> bool:
        """Whether the object is a dataset."""
        ...

    @property
    def address(self) -> Hashable:
        """Key of the object among all objects of its file, independent of its paths."""
        ...

    def member_names(self) -> Iterable[bytes]:
        """Return the names of the members of a group; formats may allow any bytes."""
        ...

    def child(self, key: bytes) -> Node:
        """Open a member of a group, following links; raise BrokenLinkError if a link is broken."""
        ...

    def address_of(self, key: bytes) -> Hashable | None:
        """Return the address of a member that is stored in the file; None for soft and external links."""
        ...

    def has_attribute(self, name: str) -> bool:
        """Return whether an attribute exists, even if it is unreadable."""
        ...

    def text(self, name: str) -> str:
        """Return a text attribute; an empty string if it does not exist."""
        ...

    def names(self, name: str) -> list[str] | None:
        """Return an attribute that is a list of names; None if it does not exist."""
        ...

    def attributes(self) -> dict[str, Any]:
        """Return all attributes as plain values, sorted by name.

        Values are str, bool, int, float, None (a null dataspace), lists of these, and dictionaries for
        compounds. Object references are `nwb.object_listing.Reference`, or paths of their targets. Unreadable
        values are placeholders. Internal attributes of the format are left out.
        """
        ...

    def target(self, name: str = "target") -> Hashable | None:
        """Return the address of the object that an attribute refers to; None without such a reference."""
        ...

    def referred(self, name: str) -> Node | None:
        """Open the object that an attribute refers to; None without such a reference."""
        ...

    def describe(self, path: str, main: Any) -> Array:  # noqa: ANN401 - an open file of the same format
        """Describe a dataset, which may be the target of a link in the file `main`."""
        ...

    def texts(self, limit: int) -> list[str] | None:
        """Return the elements of a list of text; None for other datasets, and for too many elements."""
        ...

    def is_null(self) -> bool:
        """Return whether a dataset has a null dataspace."""
        ...

    def number(self) -> float | None:
        """Return the value of a dataset that is a single number; None for other datasets."""
        ...

    def start_and_rate(self) -> tuple[float, float] | None:
        """Return the value of a `starting_time` dataset and its `rate`; None if they are not numbers."""
        ...

    def shown(self) -> tuple[tuple[int, ...] | None, str]:
        """Return the shape and type of a dataset in a listing."""
        ...
