"""Remote files: identities, and ranged reads in as few requests as possible."""

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
from lazynwb.storage.block_cache import (
    block_cache_of,
    clear_block_cache,
    forget_all,
    forget_file,
    merge_ranges,
)
from lazynwb.storage.error_mapping import web_page_error
from lazynwb.storage.range_request import request
from lazynwb.threads import REQUESTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from lazynwb.storage.range_request import Response
    from lazynwb.storage.source import Source

IS_STORE = False

_LOGGER = logging.getLogger("lazynwb")
_HTML_START = re.compile(rb"\s*(<!--.*?-->\s*)?<(!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL)
_HTML_FIRST_BYTES = (b"<", b"\n", b"\r", b"\t", b" ")
#: Bytes of a file that are enough to recognize a placeholder.
_PLACEHOLDER_BYTES = 1024
#: Parsers fetch aligned blocks of this size.
BLOCK = 16 * 1024
#: Bytes that are fetched with the identity of a file. Files written by pynwb begin with their groups, whose
#: structure often ends in the second block.
_FIRST_BYTES = 2 * BLOCK
#: Files up to this size are fetched whole in the first round.
_SMALL_FILE = 256 * 1024
#: Ranges that are closer together than this are coalesced: transferring the gap takes less time than a
#: second request, even on a slow line.
_COALESCE_GAP = 64 * 1024
#: A parser that needs a block this close to cached ones also gets the blocks in between.
_READ_AHEAD_DISTANCE = 128 * 1024
#: Read-ahead in proportion to the length of the cached neighbor, and its maximum.
_READ_AHEAD_FACTOR = 1
_MAX_READ_AHEAD = 64 * 1024
#: Coalesced requests are at most this large, and larger ones are split, so that several run concurrently.
_COALESCE_LIMIT = 4 * 1024 * 1024
#: Ranges up to this size are cached for later queries.
_MAX_CACHED_RANGE = 64 * 1024

#: `Last-Modified` has whole seconds, of the server's clock. An object that was first seen within this time of
#: its last modification may be overwritten without a new date.
_UNSETTLED_SECONDS = 60.0


class _Observation(NamedTuple):
    """An identity and when it was observed: first (wall-clock time) and last (monotonic time)."""

    identity: str
    first: float
    last: float


_observations: dict[Source, _Observation] = {}
_warned: set[str] = set()
_lock = threading.Lock()


def identity(source: Source, *, known: bool | str) -> str:
    """Return a string that changes whenever the object is replaced: its size and its version, ETag or date.

    The request also fetches the first bytes of the file, which parsing needs anyway. The identity is trusted
    without another request for `config.recheck_seconds`.

    Parameters
    ----------
    source : Source
    known : bool or str
        Whether the file is probably in the catalog cache, so that its first bytes are not needed; or the
        identity that it has there.
    """
    with _lock:
        before = _observations.get(source)
    if before is not None and time.monotonic() - before.last <= revalidation.trusted_seconds():
        return before.identity
    first = time.time()
    if isinstance(known, str) and _is_confirmed(source, known, before, first):
        return known
    response = request(source, 0, 1 if known else _FIRST_BYTES)
    if bytes(response.data[:1]) in _HTML_FIRST_BYTES:  # an HTML page, or the user block of an HDF5 file
        response = request(source, 0, _FIRST_BYTES) if known else response
        known = False
        if _HTML_START.match(response.data):
            raise web_page_error(source)
    found = response.identity
    placeholder = placeholders.describe(source.name, bytes(response.data[:_PLACEHOLDER_BYTES]))
    if placeholder and int(found.partition("\t")[0]) <= placeholders.MAX_BYTES:
        raise NotNWBError(placeholder)
    if before is not None and before.identity == found:
        first = before.first
    with _lock:
        _observations[source] = _Observation(found, first, time.monotonic())
    settled = is_version_certain(source, found)
    if settled:
        revalidation.note_check(source, found)
    else:
        clear_block_cache(source, found)  # the file may have changed under the same identity
        server = source.name.split("/")[2]
        if found.endswith("\t?") and server not in _warned:
            _warned.add(server)
            _LOGGER.warning(
                "%s: the server sends neither an ETag nor a date: changes cannot be detected", source.name
            )
    if not known or response.whole is not None:
        data = response.whole if response.whole is not None else response.data
        block_cache_of(source, found, lasting=settled).add(0, data)
    return found


def _is_confirmed(source: Source, known: str, before: _Observation | None, first: float) -> bool:
    """Return whether an identity can be confirmed without a request."""
    confirmed = None if source in range_request.disputed else revalidation.confirmed_at(source, known)
    if confirmed is None:
        return False
    if before is not None and before.identity == known:
        first = before.first
    with _lock:
        _observations[source] = _Observation(known, first, confirmed)
    return True


def accept_listing(listed: Mapping[Source, Mapping[str, Any] | None]) -> None:
    """Use a listing to confirm identities; forget those of files that it shows to have changed."""
    revalidation.note_listing(listed)
    now = time.monotonic()
    with _lock:
        for source in listed.keys() & _observations.keys():
            if revalidation.matches_listing(_observations[source].identity, listed[source]):
                _observations[source] = _observations[source]._replace(last=now)
            else:
                del _observations[source]


def forget() -> None:
    """Drop all identities and cached bytes from memory."""
    with _lock:
        _observations.clear()
        _warned.clear()
    range_request.forget()
    revalidation.forget()
    forget_all()


def invalidate(source: Source) -> None:
    """Drop the cached bytes and the identity of a file, for any signature of its URL."""
    revalidation.invalidate(source)
    with _lock:
        for other in [other for other in _observations if other.key == source.key]:
            del _observations[other]
    forget_file(source)


def verify(source: Source, expected: str) -> None:
    """Do nothing: every response identifies the version that it is from."""


def is_settled(source: Source, known: str, now_ns: int) -> bool:  # noqa: ARG001 - signature of `Kind`
    """Return whether any later write is certain to change the identity; see `is_version_certain`."""
    return is_version_certain(source, known)


def read_reveals_change(source: Source, known: str) -> bool:
    """Return whether no bytes of the file are cached, so that reading it makes requests."""
    return not block_cache_of(source, known, lasting=is_version_certain(source, known)).size


def open_file(source: Source, expected: str) -> RemoteFile:
    """Open a remote file without making a request."""
    return RemoteFile(source, expected)


def is_version_certain(source: Source, identity: str) -> bool:
    """Return whether any write since the file was first seen has certainly changed its identity."""
    tag = identity.partition("\t")[2]
    if source in range_request.disputed:
        return False
    if tag.startswith("m"):
        with _lock:
            seen = _observations.get(source)
        return seen is not None and seen.first - float(tag[1:]) > _UNSETTLED_SECONDS
    return tag.startswith(("v", "e"))


class RemoteFile:
    """One version of a remote file, for ranged reads from several threads at once.

    Parameters
    ----------
    source : Source
    expected : str
        Identity that the catalog was built for. Responses of another version are refused.

    Attributes
    ----------
    name : str
        Name of the file in messages.
    size : int
        Number of bytes.
    """

    pool = REQUESTS
    coalesce_gap = _COALESCE_GAP
    coalesce_limit = _COALESCE_LIMIT
    thread_threshold = 0

    def __init__(self, source: Source, expected: str) -> None:
        self.source = source
        self.name = source.name
        self.size = int(expected.partition("\t")[0])
        self._expected = expected
        self._cache = block_cache_of(source, expected, lasting=is_version_certain(source, expected))
        count(files_opened=1)

    @contextmanager
    def reading(self) -> Iterator[RemoteFile]:
        """Return the file itself: requests need no open handle."""
        yield self

    def has(self, offset: int, size: int) -> bool:
        """Return whether a range is cached."""
        return self.cached(offset, size) is not None

    def read(self, offset: int, size: int) -> memoryview:
        """Return a range of the file.

        Raises
        ------
        CorruptDataError
            If the range extends past the end of the file.
        SourceChangedError
            If the file has changed since the catalog was built.
        """
        here = self._cache.get(offset, size)
        if here is not None:
            if size <= _MAX_CACHED_RANGE:
                self._cache.mark_used(offset, size)
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
        """Fill a buffer with the bytes that start at `offset`; see `read`."""
        buffer[:] = self.read(offset, len(buffer))

    def keep(self, offset: int, data: memoryview) -> None:
        """Cache a small range for later queries."""
        if len(data) <= _MAX_CACHED_RANGE:
            self._cache.add_column_range(offset, data)

    def peek(self, offset: int, size: int) -> memoryview | None:
        """Return a range if it is cached, and mark it as used by a parser."""
        found = self._cache.get(offset, size)
        if found is not None:
            self._cache.mark_used(offset, size)
        return found

    def cached(self, offset: int, size: int) -> memoryview | None:
        """Return a range if it is cached."""
        return self._cache.get(offset, size)

    def mark_used(self, offset: int, size: int) -> None:
        """Mark a range as used by a parser, so that it is written to the catalog cache."""
        self._cache.mark_used(offset, size)

    def fetch_blocks(
        self, ranges: Iterable[tuple[int, int]], *, ahead: bool = True, data: Iterable[tuple[int, int]] = ()
    ) -> None:
        """Fetch ranges of structures and of data concurrently.

        Parameters
        ----------
        ranges : iterable of (int, int)
            Ranges of structures, of which the aligned blocks are fetched.
        ahead : bool
            Whether to fetch also the blocks that are probably next.
        data : iterable of (int, int)
            Ranges of data, which are fetched as they are.
        """
        spans = [
            (low, min(low + _COALESCE_LIMIT, stop))
            for start, stop in self._coalesced_spans(ranges, data, ahead=ahead)
            for low in range(start, stop, _COALESCE_LIMIT)
        ]
        if len(spans) == 1:
            self._fetch_span(spans[0])
        else:
            REQUESTS.map(self._fetch_span, spans)

    def drop(self, start: int, stop: int) -> None:
        """Drop the blocks that were fetched for a range."""
        self._cache.drop(start // BLOCK * BLOCK, stop)

    def _fetch_span(self, span: tuple[int, int]) -> None:
        self._cache.add(span[0], self._request(*span).data)

    def _coalesced_spans(
        self, ranges: Iterable[tuple[int, int]], data: Iterable[tuple[int, int]], *, ahead: bool
    ) -> list[tuple[int, int]]:
        if ahead and self.size <= _SMALL_FILE:
            ranges, data = [(0, self.size)], ()
        wanted = list(data)
        for start, stop in ranges:
            low, high = start // BLOCK * BLOCK, min(-(-stop // BLOCK) * BLOCK, self.size)
            wanted.append(self._extended_span(low, high) if ahead else (low, high))
        # A block is empty if another thread has fetched it.
        return merge_ranges((span for span in wanted if span[0] < span[1]), _COALESCE_GAP)

    def _extended_span(self, low: int, high: int) -> tuple[int, int]:
        """Extend a block up to nearby cached blocks, and read ahead in the same direction.

        Writers lay out the structure of a table in one place. A parser that needed two nearby blocks will
        need those in between, and a round trip costs more than a few blocks.
        """
        preceding, following = self._cache.neighbors(low)
        end = high
        if preceding[1] > 0 and 0 <= low - preceding[1] <= _READ_AHEAD_DISTANCE:
            low, high = (
                preceding[1],
                high + min(_READ_AHEAD_FACTOR * (preceding[1] - preceding[0]), _MAX_READ_AHEAD),
            )
        elif low < preceding[1] < high:
            low = preceding[1]
        if 0 <= following[0] - end <= _READ_AHEAD_DISTANCE:
            low, high = (
                low - min(_READ_AHEAD_FACTOR * (following[1] - following[0]), _MAX_READ_AHEAD),
                following[0],
            )
        return max(low, preceding[1], 0), min(high, self.size)

    def _request(self, start: int, stop: int) -> Response:
        try:
            response = request(self.source, start, stop, self._expected)
        except LazyNWBError:
            # The response that the identity came from may have been wrong, too.
            revalidation.invalidate(self.source)
            with _lock:
                _observations.pop(self.source, None)
            raise
        if response.whole is not None:
            self._cache.add(0, response.whole)
        return response
