"""Open files whose structure is parsed in rounds: missing ranges, linked files, and targets of references."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, Self, TypeVar, cast

from lazynwb.errors import LazyNWBError, NotNWBError
from lazynwb.formats.protocols import (
    BrokenLinkError,
    OpenFile,
    link_target_error,
    permitted_target,
    unread_target_identity,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping
    from types import TracebackType

    from lazynwb.storage.remote_file import RemoteFile
    from lazynwb.storage.source import Source

#: Maximum number of fetching rounds per file, as a damaged file could require all of its bytes in small
#: pieces.
MAX_ROUNDS = 2000
#: Targets of most references in attributes; checking them first avoids a walk through the file.
_LIKELY_TARGETS = ("general/extracellular_ephys/electrodes",)

T = TypeVar("T")


class MissingRanges:
    """The ranges of a remote file that a parse missed or will need.

    Parameters
    ----------
    file : RemoteFile

    Attributes
    ----------
    ranges : set of (start, stop)
        Ranges noted since the last fetch.
    data : set of (start, stop)
        Ranges of data that will be read next: they are fetched with the next missing ranges.
    misses : int
        Number of reads of missing bytes, repeated ones included.
    """

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self.ranges: set[tuple[int, int]] = set()
        self.data: set[tuple[int, int]] = set()
        self.misses = 0
        self._rounds = 0

    def miss(self, start: int, stop: int) -> None:
        """Note a range that could not be read."""
        self.misses += 1
        self.ranges.add((start, min(stop, self._file.size)))

    def expect(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Note ranges that will be read, unless they have been fetched."""
        self.ranges |= self._absent(ranges)

    def expect_data(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Note ranges of data to fetch with the next missing ranges, unless they have been fetched."""
        self.data |= self._absent(ranges)

    def _absent(self, ranges: Iterable[tuple[int, int]]) -> set[tuple[int, int]]:
        within = ((start, min(stop, self._file.size)) for start, stop in ranges)
        return {
            (start, stop)
            for start, stop in within
            if 0 <= start < stop and not self._file.has(start, stop - start)
        }

    def fetch(self, *, ahead: bool = True) -> bool:
        """Fetch the noted ranges in one round; return whether there were any.

        Raises
        ------
        NotNWBError
            If the structure does not end.
        """
        ranges, self.ranges = self.ranges, set()
        if not ranges:
            return False
        self._rounds += 1
        if self._rounds > MAX_ROUNDS:
            raise NotNWBError(f"{self._file.name}: the structure of the file does not end: it is damaged")
        data, self.data = self.data, set()
        self._file.fetch_blocks(ranges, ahead=ahead, data=data)
        return True


class PartialFile:
    """A file whose structure is parsed in rounds, and the target files of its links.

    A run of a parse notes missing ranges and continues with other objects; then all of them are fetched, and
    the parse is run again. The results of a run with missing ranges are not used.

    Attributes
    ----------
    name : str
        Name of the file in messages.
    guesses_members : bool
        Whether members of a group were looked up by likely names, because the store cannot list them.
    """

    name: str
    guesses_members = False
    _identity: str
    _ranges: MissingRanges | None = None
    _missing_error: type[Exception]

    def __init__(self) -> None:
        self._known: dict[str, object] = {}
        self._linked: dict[Source, Self] = {}
        self._unreadable: dict[Source, BrokenLinkError] = {}

    # --- missing ranges of this file -----------------------------------------------------------------------

    def _own_missed(self) -> int:
        """Return how many ranges or objects have not been fetched."""
        return len(self._ranges.ranges) if self._ranges is not None else 0

    def _own_misses(self) -> int:
        """Return a number that grows with every miss; -1 if nothing can be missing."""
        return self._ranges.misses if self._ranges is not None else -1

    def _fetch_own(self, *, ahead: bool) -> bool:
        """Fetch what is missing; return whether there was anything."""
        return self._ranges is not None and self._ranges.fetch(ahead=ahead)

    def _open_linked(self, target: Source) -> Self:
        """Open the target file of a link."""
        raise NotImplementedError

    # --- missing ranges, linked files included -------------------------------------------------------------

    @property
    def missed(self) -> int:
        """Number of ranges or objects, of this file and of linked ones, that have not been fetched."""
        own = self._own_missed()
        return own + sum(linked.missed for linked in self._linked.values()) if self._linked else own

    def _misses(self) -> int:
        return self._own_misses() + sum(linked._misses() for linked in self._linked.values())  # noqa: SLF001 - of its own kind

    def memoize(self, path: str, describe: Callable[[], T]) -> T:
        """Return the description of an object, from this or an earlier run of a parse."""
        if self._own_misses() < 0:
            return describe()
        if path in self._known:
            return cast("T", self._known[path])
        before = self._misses()
        found = describe()
        if self._misses() == before:
            self._known[path] = found
        return found

    def collect_misses(self) -> _Misses:
        """Ignore errors after a miss, so that one run collects all missing ranges."""
        return _Misses(self)

    def raise_if_missing(self) -> None:
        """Raise an error if any range is missing, to end a run of a parse early."""
        if self.missed:
            raise self._missing_error("some ranges or objects have not been fetched")

    def expect_data(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetch ranges of data of this file with the next ranges that a parse misses, if it is remote."""
        if self._ranges is not None:
            self._ranges.expect_data(ranges)

    def forget_missing(self) -> None:
        """Drop the record of what is missing."""
        if self._ranges is not None:
            self._ranges.ranges.clear()
        for linked in self._linked.values():
            linked.forget_missing()

    def fetch_missing(self, *, ahead: bool = True) -> bool:
        """Fetch what a parse missed, of this file and of linked ones; return whether there was anything."""
        own = self._fetch_own(ahead=ahead)
        return any([own, *(linked.fetch_missing(ahead=ahead) for linked in self._linked.values())])

    @property
    def depends(self) -> tuple[tuple[str, str], ...]:
        """Paths and identities of the target files of links that have been followed, even if unreadable."""
        own = [(source.path, linked._identity) for source, linked in self._linked.items()]  # noqa: SLF001 - of its own kind
        own += [
            (source.path, unread_target_identity(source, why)) for source, why in self._unreadable.items()
        ]
        return tuple(own) + tuple(pair for linked in self._linked.values() for pair in linked.depends)

    # --- links to other files ------------------------------------------------------------------------------

    def _linked_file(self, here: Source, target: Source | None, what: str, name: str) -> Self:
        """Open the target file of a link, if the settings allow it; see `protocols.permitted_target`."""
        target = permitted_target(here, target, what, name)
        if target in {here, here.resolved()}:
            return self
        if target in self._unreadable:
            raise self._unreadable[target]
        if target not in self._linked:
            try:
                self._linked[target] = self._open_linked(target)
            except LazyNWBError as error:
                target.invalidate()
                self._unreadable[target] = link_target_error(self.name, target, error)
                raise self._unreadable[target] from None
        return self._linked[target]


class _Misses:
    """A context that suppresses errors while anything is missing."""

    __slots__ = ("_file",)

    def __init__(self, file: PartialFile) -> None:
        self._file = file

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return kind is not None and issubclass(kind, Exception) and self._file.missed > 0


class ParsedFile(OpenFile, Protocol):
    """An open file with a count of missing ranges."""

    @property
    def missed(self) -> int:
        """The number of missing ranges so far."""
        ...


def find_paths(
    file: ParsedFile, addresses: set[Hashable], walk: Callable[[set[int]], Mapping[int, str]]
) -> dict[Hashable, str]:
    """Return the paths of objects by their addresses; objects without a path are left out.

    Parameters
    ----------
    file : ParsedFile
        File with the objects.
    addresses : set of Hashable
        Addresses to resolve.
    walk : callable
        Function that walks through the file for the paths of the remaining addresses.
    """
    found: dict[Hashable, str] = {}
    for path in _LIKELY_TARGETS:
        with file.collect_misses(), suppress(BrokenLinkError):
            found[file.find(path).address] = f"/{path}"
    rest = {address for address in addresses if isinstance(address, int)} - found.keys()
    if not rest or file.missed:  # with missing ranges, it is unknown whether a walk is needed
        return found
    return found | dict(walk(rest).items())
