"""Confirmation of identities without a request: immutable objects, recent listings, recent checks."""

from __future__ import annotations

import re
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from lazynwb.catalog import disk_cache
from lazynwb.config import config
from lazynwb.storage.source import ABSENT
from lazynwb.storage.stores.registry import module_of
from lazynwb.struct_decoders import msgpack_decoder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazynwb.storage.source import Source

_HEX = "[0-9a-f]"
#: A blob of a DANDI archive, named by its UUID below the root of a bucket; other contents get another blob.
_BLOB = (
    rf"(s3a?://[^/]+|https?://[^/]+(/[^/]+)?)/blobs/({_HEX}{{3}})/({_HEX}{{3}})/"
    rf"\3\4{_HEX}{{2}}(-{_HEX}{{4}}){{3}}-{_HEX}{{12}}"
)
#: Query parameters that identify one version of an object, with the servers that support them. The version
#: "null" of S3 belongs to buckets without versioning, and is overwritten.
_VERSIONED = (
    (r"(?i:https?)://", r"versionId=(?!null(&|$))[^&]+"),
    (r"https://storage\.googleapis\.com/", r"generation=\d+"),
    (r"https://[^/]+\.blob\.core\.windows\.net/", r"(versionid|snapshot)=[^&]+"),
)
#: Maximum number of objects whose listing is kept.
_MAX_LISTED = 200_000


class _Listed(NamedTuple):
    """The entry of an object in a listing.

    Attributes
    ----------
    meta : Mapping or None
        Size, entity tag and date; None if the listing does not contain the object.
    when : float
        Time of the listing (`time.monotonic`).
    """

    meta: Mapping[str, Any] | None
    when: float


class _Check(msgspec.Struct, array_like=True, gc=False):
    """The identity of a file that some process observed, and the wall-clock time of the request."""

    key: str
    identity: str
    when: float


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgpack_decoder(_Check)

_listed: dict[Source, _Listed] = {}
_invalidated: set[Source] = set()
_lock = threading.Lock()


def trusted_seconds() -> float:
    """Return the number of seconds for which a process trusts an identity that it has checked."""
    return max(config.recheck_seconds, config.revalidate_seconds)


def confirmed_at(source: Source, known: str) -> float | None:
    """Return the monotonic time at which an identity was last confirmed; None if a request is necessary.

    Parameters
    ----------
    source : Source
    known : str
        Identity of the source in the cache.
    """
    if source in _invalidated or known == ABSENT:
        return None
    now = time.monotonic()
    if is_immutable(source) or _is_content(source, known):
        return now
    listed = _recent_listing(source)
    if listed is not None:
        return listed.when if matches_listing(known, listed.meta) else None
    return checked_at(source, known)


def checked_at(source: Source, known: str) -> float | None:
    """Return the monotonic time at which any process last confirmed an identity.

    Return None if that is unknown, or longer ago than `config.revalidate_seconds`.
    """
    if config.revalidate_seconds <= 0 or source in _invalidated:
        return None
    check = _check_of(source, known)
    if check is None:
        return None
    age = time.time() - check.when
    return time.monotonic() - age if 0 <= age <= config.revalidate_seconds else None


def _is_content(source: Source, known: str) -> bool:
    """Return whether a DANDI asset still refers to the blob that had an identity before."""
    blob = _blob_of(source)
    return blob is not None and _check_of(blob, known) is not None


def _check_of(source: Source, known: str) -> _Check | None:
    """Return the last check of a file by any process; None if it observed another identity."""
    key = _key_of(source)
    check = disk_cache.load(key, _DECODER)
    return check if check is not None and check.key == key and check.identity == known else None


def _blob_of(source: Source) -> Source | None:
    if not source.path.lower().startswith("dandi://"):
        return None
    content_source = getattr(module_of(source), "content_source", None)
    blob: Source | None = content_source(source) if content_source is not None else None
    return blob if blob is not None and is_immutable(blob) else None


def is_immutable(source: Source) -> bool:
    """Return whether the contents of a URL never change: a DANDI blob, or one version of an object."""
    base, _, query = source.path.partition("#")[0].partition("?")
    if re.fullmatch(_BLOB, base):
        return True
    return bool(query) and any(
        re.match(server, base) and any(re.fullmatch(version, part) for part in query.split("&"))
        for server, version in _VERSIONED
    )


def is_listed_absent(source: Source) -> bool:
    """Return whether a recent listing shows that an object does not exist."""
    listed = _recent_listing(source)
    return listed is not None and listed.meta is None and source not in _invalidated


def _recent_listing(source: Source) -> _Listed | None:
    """Return the entry of an object in a listing; None if the listing is too old."""
    listed = _listed.get(source)
    return listed if listed is not None and time.monotonic() - listed.when <= trusted_seconds() else None


def matches_listing(identity: str, meta: Mapping[str, Any] | None) -> bool:
    """Return whether a listed object has an identity; see `range_request.identity_of`.

    Listings contain less metadata than responses: missing values do not count as equal. Azure lists entity
    tags without quotation marks.
    """
    size, _, tag = identity.partition("\t")
    if meta is None or str(meta.get("size")) != size:
        return False
    listed = str(meta.get("e_tag") or "")
    if tag.startswith(("v", "e")):
        known = tag.partition("\t")[2]
        if known.startswith("W/") or listed.startswith("W/"):
            return False
        return known.strip('"') == listed.strip('"') != ""
    modified = meta.get("last_modified")
    if not tag.startswith("m") or listed or modified is None:
        return False
    return float(tag[1:]) == float(modified.timestamp()) > 0


def note_listing(listed: Mapping[Source, Mapping[str, Any] | None]) -> None:
    """Record the entries of a listing; None for objects that do not exist."""
    now = time.monotonic()
    with _lock:
        if len(_listed) + len(listed) > _MAX_LISTED:
            _listed.clear()
        _listed.update((source, _Listed(meta, now)) for source, meta in listed.items())


def note_check(source: Source, identity: str) -> None:
    """Record an identity on disk for other processes, if `config.revalidate_seconds` is positive.

    The blob of a DANDI asset is always recorded.
    """
    sources = [source] if config.revalidate_seconds > 0 else []
    blob = _blob_of(source)
    for one in [*sources, blob] if blob is not None else sources:
        key = _key_of(one)
        disk_cache.save(key, _Check(key, identity, time.time()), _ENCODER)


def invalidate(source: Source) -> None:
    """Stop confirming identities of a source in this process, after a confirmed one was wrong."""
    with _lock:
        _invalidated.add(source)
        _listed.pop(source, None)
    if config.revalidate_seconds > 0:
        disk_cache.remove(_key_of(source))


def forget() -> None:
    """Forget listings and invalidated sources."""
    with _lock:
        _listed.clear()
        _invalidated.clear()


def _key_of(source: Source) -> str:
    return f"checked\0{source.key}"
