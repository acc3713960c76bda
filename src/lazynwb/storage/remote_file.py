"""Remote files: identity, and ranges of bytes, in as few requests as can be."""

from __future__ import annotations

import logging
import re
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from lazynwb.errors import CorruptDataError, LazyNWBError, NotNWBError
from lazynwb.profile import count
from lazynwb.storage import placeholders, range_request, revalidation
from lazynwb.storage.block_cache import block_cache_of, clear_block_cache, forget_all, forget_file
from lazynwb.storage.error_mapping import web_page
from lazynwb.storage.range_request import request
from lazynwb.threads import REQUESTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from lazynwb.storage.range_request import Response
    from lazynwb.storage.source import Source

IS_STORE = False

_LOGGER = logging.getLogger("lazynwb")
_PAGE = re.compile(rb"\s*(<!--.*?-->\s*)?<(!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL)
_PAGE_STARTS = (b"<", b"\n", b"\r", b"\t", b" ")
#: Bytes of a file that tell a placeholder.
_POINTER = 1024
#: Where parsing needs bytes, this much is fetched around them.
BLOCK = 16 * 1024
#: Requests closer than this are one: on a slow line it is sooner transferred than another answer begun.
_GAP = 64 * 1024
#: Parsing that comes this near to what it has fetched gets all that lies between.
_NEAR = 128 * 1024
#: How much further it goes, of the length of what it came near to; and at most.
_GROWTH = 1
_MAX_AHEAD = 64 * 1024
#: Requests are merged, and large ones cut, at this size, so that several are under way.
_MERGED = 4 * 1024 * 1024
#: What is asked for in pieces up to this size is kept for later queries.
_SMALL = 64 * 1024

#: A date is whole seconds, and of another clock: what was written within this time of being seen may be
#: written again without a trace.
_UNSETTLED_SECONDS = 60.0


class _Seen(NamedTuple):
    """What a file was found to be, and when: `first` by the calendar, `last` by the steady clock."""

    identity: str
    first: float
    last: float


_seen: dict[Source, _Seen] = {}
_warned: set[str] = set()
_lock = threading.Lock()


def identity(source: Source, *, known: bool | str) -> str:
    """Return a text that changes whenever the object is replaced: its version, entity tag, or date; its size.

    It comes with the first bytes of the file, which parsing needs anyway, so nothing is asked for in vain.
    For `config.recheck_seconds` it is believed without being asked for again.

    Parameters
    ----------
    source : Source
    known : bool or str
        Whether the file is probably in the catalog, so that its first bytes are not needed; or the identity
        that it has there.
    """
    with _lock:
        before = _seen.get(source)
    if before is not None and time.monotonic() - before.last <= revalidation.trusted_seconds():
        return before.identity
    first = time.time()
    if isinstance(known, str) and _is_confirmed(source, known, before, first):
        return known
    response = request(source, 0, 1 if known else BLOCK)
    if bytes(response.data[:1]) in _PAGE_STARTS:  # of a page, or of the user block of an HDF5 file
        response = request(source, 0, BLOCK) if known else response
        known = False
        if _PAGE.match(response.data):
            raise web_page(source)
    found = response.identity
    placeholder = placeholders.describe(source.name, bytes(response.data[:_POINTER]))
    if placeholder and int(found.partition("\t")[0]) <= placeholders.MAX_BYTES:
        raise NotNWBError(placeholder)
    if before is not None and before.identity == found:
        first = before.first
    with _lock:
        _seen[source] = _Seen(found, first, time.monotonic())
    settled = is_version_certain(source, found)
    if settled:
        revalidation.note_check(source, found)
    else:
        clear_block_cache(source, found)  # the file may be another one that only looks the same
        server = source.name.split("/")[2]
        if found.endswith("\t?") and server not in _warned:
            _warned.add(server)
            _LOGGER.warning(
                "%s: its server says neither an ETag nor a date: changes go unnoticed", source.name
            )
    if not known or response.whole is not None:
        data = response.whole if response.whole is not None else response.data
        block_cache_of(source, found, lasting=settled).add(0, data)
    return found


def _is_confirmed(source: Source, known: str, before: _Seen | None, first: float) -> bool:
    """Return whether a file is known to have an identity still, without a request."""
    confirmed = None if source in range_request.disputed else revalidation.confirmed_at(source, known)
    if confirmed is None:
        return False
    if before is not None and before.identity == known:
        first = before.first
    with _lock:
        _seen[source] = _Seen(known, first, confirmed)
    return True


def accept_listing(listed: Mapping[Source, Mapping[str, Any] | None]) -> None:
    """Take what a listing says of files: those that it shows to be others than before are looked at again."""
    revalidation.note_listing(listed)
    now = time.monotonic()
    with _lock:
        for source in listed.keys() & _seen.keys():
            if revalidation.agrees(_seen[source].identity, listed[source]):
                _seen[source] = _seen[source]._replace(last=now)
            else:
                del _seen[source]


def forget() -> None:
    """Drop every identity, and all cached bytes from memory."""
    with _lock:
        _seen.clear()
        _warned.clear()
    range_request.forget()
    revalidation.forget()
    forget_all()


def invalidate(source: Source) -> None:
    """Drop the cached bytes of a file and its identity, whichever signature it was asked for by."""
    revalidation.distrust(source)
    with _lock:
        for other in [other for other in _seen if other.key == source.key]:
            del _seen[other]
    forget_file(source)


def verify(source: Source, expected: str) -> None:
    """Ask nothing: every answer says which version it is from."""


def is_settled(source: Source, known: str, now_ns: int) -> bool:  # noqa: ARG001 - kinds share one signature
    """Return whether a write from now on is certain to change the identity; see `is_version_certain`."""
    return is_version_certain(source, known)


def shows_change(source: Source, known: str) -> bool:
    """Return whether no bytes of a file are cached, so that reading asks its server for some."""
    return not block_cache_of(source, known, lasting=is_version_certain(source, known)).size


def open_file(source: Source, expected: str) -> RemoteFile:
    """Open a remote file; nothing is asked for."""
    return RemoteFile(source, expected)


def is_version_certain(source: Source, identity: str) -> bool:
    """Return whether a write since the file was first seen is certain to have changed its identity."""
    tag = identity.partition("\t")[2]
    if source in range_request.disputed:
        return False
    if tag.startswith("m"):
        with _lock:
            seen = _seen.get(source)
        return seen is not None and seen.first - float(tag[1:]) > _UNSETTLED_SECONDS
    return tag.startswith(("v", "e"))


class RemoteFile:
    """One version of a remote file, whose ranges can be read from several threads at once.

    Parameters
    ----------
    source : Source
    expected : str
        The identity that the catalog was made for. No answer about another version is taken.

    Attributes
    ----------
    name : str
        Of the file, for messages.
    size : int
    """

    pool = REQUESTS
    gap = _GAP
    merged = _MERGED
    parallel = 0

    def __init__(self, source: Source, expected: str) -> None:
        self.source = source
        self.name = source.name
        self.size = int(expected.partition("\t")[0])
        self._expected = expected
        self._kept = block_cache_of(source, expected, lasting=is_version_certain(source, expected))
        count(files_opened=1)

    @contextmanager
    def reading(self) -> Iterator[RemoteFile]:
        """Do nothing: there is nothing to be opened."""
        yield self

    def has(self, offset: int, size: int) -> bool:
        """Return whether a range is cached."""
        return self._kept.get(offset, size) is not None

    def read(self, offset: int, size: int) -> memoryview:
        """Return a range of the file.

        Raises
        ------
        CorruptDataError
            If the file is shorter than that.
        SourceChangedError
            If it is no longer the file that the catalog describes.
        """
        here = self._kept.get(offset, size)
        if here is not None:
            if size <= _SMALL:
                self._kept.use(offset, size)
            return here
        if offset < 0 or offset + size > self.size:
            raise CorruptDataError(
                f"the file has {self.size} bytes, but bytes {offset} to {offset + size} are needed: "
                "it is truncated or damaged"
            )
        data = self._request(offset, offset + size).data
        self.keep(offset, data)
        return data

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with what the file holds from `offset` on; see `read`."""
        buffer[:] = self.read(offset, len(buffer))

    def keep(self, offset: int, data: memoryview) -> None:
        """Keep a small range for later queries."""
        if len(data) <= _SMALL:
            self._kept.add_small(offset, data)

    def peek(self, offset: int, size: int) -> memoryview | None:
        """Return a range if it is here, and note that it was wanted by a parser."""
        found = self._kept.get(offset, size)
        if found is not None:
            self._kept.use(offset, size)
        return found

    def fetch_blocks(self, ranges: Iterable[tuple[int, int]], *, ahead: bool = True) -> None:
        """Fetch the blocks around ranges, all at the same time; and what will be needed next, if `ahead`."""
        spans = [
            (low, min(low + _MERGED, stop))
            for start, stop in self._spans(ranges, ahead=ahead)
            for low in range(start, stop, _MERGED)
        ]
        if len(spans) == 1:
            self._bring(spans[0])
        else:
            REQUESTS.map(self._bring, spans)

    def drop(self, start: int, stop: int) -> None:
        """Let go of the blocks that were fetched for a range."""
        self._kept.drop(start // BLOCK * BLOCK, stop)

    def _bring(self, span: tuple[int, int]) -> None:
        self._kept.add(span[0], self._request(*span).data)

    def _spans(self, ranges: Iterable[tuple[int, int]], *, ahead: bool) -> list[tuple[int, int]]:
        spans: list[tuple[int, int]] = []
        for start, stop in sorted(ranges):
            low, high = start // BLOCK * BLOCK, min(-(-stop // BLOCK) * BLOCK, self.size)
            low, high = self._widened(low, high) if ahead else (low, high)
            if low >= high:  # another thread has brought it
                continue
            if spans and low - spans[-1][1] <= _GAP:
                spans[-1] = (spans[-1][0], max(high, spans[-1][1]))
            else:
                spans.append((low, high))
        return spans

    def _widened(self, low: int, high: int) -> tuple[int, int]:
        """Extend a block to those that are already here, if they are near.

        Who writes a table writes its structure in one go: where parsing needed two blocks, it will need what
        lies between them, and a round costs more than a few blocks.
        """
        before, behind = self._kept.near(low)
        wanted = high
        if before[1] > 0 and 0 <= low - before[1] <= _NEAR:
            low, high = before[1], high + min(_GROWTH * (before[1] - before[0]), _MAX_AHEAD)
        elif low < before[1] < high:
            low = before[1]
        if 0 <= behind[0] - wanted <= _NEAR:
            low, high = low - min(_GROWTH * (behind[1] - behind[0]), _MAX_AHEAD), behind[0]
        return max(low, before[1], 0), min(high, self.size)

    def _request(self, start: int, stop: int) -> Response:
        try:
            response = request(self.source, start, stop, self._expected)
        except LazyNWBError:
            # What the file was found to be may have been no answer of its server's either.
            revalidation.distrust(self.source)
            with _lock:
                _seen.pop(self.source, None)
            raise
        if response.whole is not None:
            self._kept.add(0, response.whole)
        return response
