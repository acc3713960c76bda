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
    """A path that leads nowhere: nothing there, a dangling, cyclic or forbidden link."""


class NoObjectError(BrokenLinkError):
    """A path at which there is nothing, and no link, either."""


class CyclicLinkError(BrokenLinkError):
    """A link that leads back to itself, directly or by way of others."""


class ForbiddenLinkError(BrokenLinkError):
    """A link to another file that the settings forbid to follow."""


class UnreachableLinkError(BrokenLinkError):
    """A link to a remote file that was refused, or whose server fails: it is not known what is there."""


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
        If the path leads nowhere; the message names the broken link.
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


def broken_at(name: str, error: BrokenLinkError, hops: int) -> BrokenLinkError:
    """Return the error of a link, given that of what it leads to; a cycle is told once, not at each turn.

    Parameters
    ----------
    name : str
        Of the link.
    error : BrokenLinkError
        Why what it leads to cannot be opened.
    hops : int
        Links that led to this one.
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
        File that the link leads to; None if it cannot be followed at all.
    what : str
        The link, for the message, with `{}` in the place of its target.
    name : str
        Target as it is stored.

    Raises
    ------
    ForbiddenLinkError
        If they do not; the message names the setting that does.
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


def unfollowed(name: str, target: Source, error: LazyNWBError) -> BrokenLinkError:
    """Return what it means for a file that another one, to which it has a link, cannot be opened.

    One that is not there makes a broken link. Of a remote one that was refused, or whose server fails, it is
    not known what is there: a column behind the link is not left out, but cannot be read.

    Parameters
    ----------
    name : str
        Of the file with the link.
    target : Source
        The other.
    error : LazyNWBError
        Why not.
    """
    if not target.is_remote or isinstance(error, SourceNotFoundError):
        remedy = ""
        if isinstance(error, SourceNotFoundError):
            remedy = "; put it back there, or write the link anew"
        return BrokenLinkError(f"link to another file that cannot be read: {error}{remedy}")
    return UnreachableLinkError(
        f"{name} has a link to another file that cannot be read: {error} "
        '(lazynwb.config.external_links = "never" does without it)'
    )


def identity_of_unread(target: Source, error: BrokenLinkError) -> str:
    """Return the identity of a file that a link led to, and that could not be opened."""
    return UNREACHABLE if isinstance(error, UnreachableLinkError) else target.identity_or_absent()


def broken_table(name: str, path: str, why: object, what: str = "table") -> BrokenTableLinkError:
    """Return the error of a table behind a broken link.

    Parameters
    ----------
    name : str
        Of the file.
    path : str
        Of the table, without the leading slash.
    why : object
        Why the link is broken, as text.
    what : str
        "table" or "series".
    """
    return BrokenTableLinkError(
        f"{name}: {what} /{path.lstrip('/')} cannot be read: {with_remedy(str(why))}; "
        "ignore_errors=True leaves out such files"
    )


def with_remedy(why: str) -> str:
    """Return why a link is broken, with what to do about it."""
    return why if "anew" in why or "external_links" in why else f"{why}; write the link anew"


class DamagedObjectError(BrokenLinkError):
    """A link that leads to something which its format's library cannot open."""


def tell_damaged(file: OpenFile, path: str, error: BrokenLinkError) -> None:
    """Log that an object is left out."""
    file.raise_if_missing()  # it may be intact when the parse is repeated
    logging.getLogger("lazynwb").warning("%s: %s was left out: %s", file.name, path, error)


class ReferenceFile(Protocol):
    """A file whose objects can be referred to by address."""

    def paths_of(self, addresses: set[Hashable]) -> Mapping[Hashable, str]:
        """Find the paths of objects by their addresses, all at once; those that are nowhere are left out."""
        ...


class OpenFile(ReferenceFile, Protocol):
    """A file whose structure is being parsed.

    The structure of a remote file is fetched in rounds: a parse records missing ranges, continues with the
    other objects, and is repeated when the ranges have been fetched.
    """

    @property
    def name(self) -> str:
        """The file's name for messages."""
        ...

    @property
    def guesses_members(self) -> bool:
        """Whether members of a group were looked for by likely names: the store does not list them."""
        ...

    @property
    def depends(self) -> tuple[tuple[str, str], ...]:
        """Path and identity of every other file that links led to so far."""
        ...

    @property
    def root(self) -> Node:
        """The root group."""
        ...

    def find(self, path: str) -> Node:
        """Open the object at a path from the root; BrokenLinkError if the path leads nowhere."""
        ...

    def once(self, path: str, describe: Callable[[], T]) -> T:
        """Return the description of an object, made by this run of a parse or an earlier one."""
        ...

    def collect_misses(self) -> AbstractContextManager[None]:
        """Ignore errors while anything is missing, so that one run collects everything missing."""
        ...

    def raise_if_missing(self) -> None:
        """Raise if anything is missing: the rest of the parse would be useless."""
        ...


class Node(Protocol):
    """A group or a dataset, and the file that holds it, which a link may have made another one."""

    @property
    def file(self) -> OpenFile:
        """The file that holds it."""
        ...

    @property
    def is_group(self) -> bool:
        """Whether it is a group."""
        ...

    @property
    def is_dataset(self) -> bool:
        """Whether it is a dataset."""
        ...

    @property
    def address(self) -> Hashable:
        """Key of the object among all objects of its file, whichever path leads to it."""
        ...

    def member_names(self) -> Iterable[bytes]:
        """Return the names of a group's members; formats may allow any bytes."""
        ...

    def child(self, key: bytes) -> Node:
        """Open one member of a group, following links; BrokenLinkError if the link leads nowhere."""
        ...

    def address_of(self, key: bytes) -> Hashable | None:
        """Return the address of a member that is stored here; None where a soft or external link leads."""
        ...

    def has_attribute(self, name: str) -> bool:
        """Return whether there is such an attribute, readable or not."""
        ...

    def text(self, name: str) -> str:
        """Return a text attribute; an empty text if there is none."""
        ...

    def names(self, name: str) -> list[str] | None:
        """Return an attribute that lists names; None if there is none."""
        ...

    def attributes(self) -> dict[str, Any]:
        """Return all attributes as plain values, sorted by name.

        Text, bool, int, float, None (no value at all), lists of these, and for compounds dictionaries.
        Object references are `nwb.object_listing.Reference`, or already their targets' paths. What
        cannot be read is a text that says so. What the format keeps beside NWB's own is left out.
        """
        ...

    def target(self, name: str = "target") -> Hashable | None:
        """Return the address of the object that an attribute refers to; None where it does not."""
        ...

    def referred(self, name: str) -> Node | None:
        """Open the object that an attribute refers to; None where it does not."""
        ...

    def describe(self, path: str, main: Any) -> Array:  # noqa: ANN401 - an open file of the same format
        """Describe a dataset, which a link may have led to from the file `main`."""
        ...

    def texts(self, most: int) -> list[str] | None:
        """Return the elements of a list of text; None of any other dataset, or where there are too many."""
        ...

    def is_null(self) -> bool:
        """Return whether a dataset has no value at all, not even an empty array."""
        ...

    def number(self) -> float | None:
        """Return the value of a dataset that is a single number; None of any other."""
        ...

    def start_and_rate(self) -> tuple[float, float] | None:
        """Return a `starting_time` dataset's value and its `rate`; None where they are no numbers."""
        ...

    def shown(self) -> tuple[tuple[int, ...] | None, str]:
        """Return a dataset's shape and type as a listing shows them."""
        ...
