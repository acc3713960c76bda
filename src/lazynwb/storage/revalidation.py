"""Identities of remote files confirmed without a request: immutable objects, listings, recent checks."""

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
#: A blob of a DANDI archive, named by its UUID in the root of a bucket: another content is another blob.
_BLOB = re.compile(
    rf"(s3a?://[^/]+|https?://[^/]+(/[^/]+)?)/blobs/({_HEX}{{3}})/({_HEX}{{3}})/"
    rf"\3\4{_HEX}{{2}}(-{_HEX}{{4}}){{3}}-{_HEX}{{12}}"
)
#: Parameters of URLs that name one version of an object, by the servers that know them. The version "null"
#: of S3 is that of a bucket without versions, and is overwritten.
_VERSIONED = (
    (re.compile(r"https?://", re.IGNORECASE), re.compile(r"versionId=(?!null(&|$))[^&]+")),
    (re.compile(r"https://storage\.googleapis\.com/"), re.compile(r"generation=\d+")),
    (re.compile(r"https://[^/]+\.blob\.core\.windows\.net/"), re.compile(r"(versionid|snapshot)=[^&]+")),
)
#: Objects whose listing is remembered.
_MAX_LISTED = 200_000


class _Listed(NamedTuple):
    """What a listing says of an object, and when it was made, by the steady clock.

    Attributes
    ----------
    meta : Mapping or None
        Size, entity tag and date; None if the object is not there.
    when : float
    """

    meta: Mapping[str, Any] | None
    when: float


class _Check(msgspec.Struct, array_like=True, gc=False):
    """What a process found a file to be, and when, by the calendar."""

    key: str
    identity: str
    when: float


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgpack_decoder(_Check)

_listed: dict[Source, _Listed] = {}
_distrusted: set[Source] = set()
_lock = threading.Lock()


def trusted_seconds() -> float:
    """Return for how many seconds an identity is trusted in the process that has checked it."""
    return max(config.recheck_seconds, config.revalidate_seconds)


def confirmed_at(source: Source, known: str) -> float | None:
    """Return when a file was found to have an identity still, by the steady clock; None if a request is due.

    Parameters
    ----------
    source : Source
    known : str
        The identity that the cache has of it.
    """
    if source in _distrusted or known == ABSENT:
        return None
    now = time.monotonic()
    if is_immutable(source) or _is_content(source, known):
        return now
    listed = _recent_listing(source)
    if listed is not None:
        return listed.when if agrees(known, listed.meta) else None
    return checked_at(source, known)


def checked_at(source: Source, known: str) -> float | None:
    """Return when any process last found a file to have an identity, by the steady clock.

    None if a request is due: if that is not known, or longer ago than `config.revalidate_seconds`.
    """
    if config.revalidate_seconds <= 0 or source in _distrusted:
        return None
    check = _check_of(source, known)
    if check is None:
        return None
    age = time.time() - check.when
    return time.monotonic() - age if 0 <= age <= config.revalidate_seconds else None


def _is_content(source: Source, known: str) -> bool:
    """Return whether an asset of a DANDI archive is kept as the blob that had an identity before."""
    blob = _blob_of(source)
    return blob is not None and _check_of(blob, known) is not None


def _check_of(source: Source, known: str) -> _Check | None:
    """Return the last check of a file by any process; None if it found another identity."""
    key = _key_of(source)
    check = disk_cache.load(key, _DECODER)
    return check if check is not None and check.key == key and check.identity == known else None


def _blob_of(source: Source) -> Source | None:
    if not source.path.lower().startswith("dandi://"):
        return None
    content_of = getattr(module_of(source), "content_of", None)
    blob: Source | None = content_of(source) if content_of is not None else None
    return blob if blob is not None and is_immutable(blob) else None


def is_immutable(source: Source) -> bool:
    """Return whether a URL names one content for ever: a DANDI archive's blob, or a version of an object."""
    base, _, query = source.path.partition("#")[0].partition("?")
    if _BLOB.fullmatch(base):
        return True
    return bool(query) and any(
        server.match(base) and any(version.fullmatch(part) for part in query.split("&"))
        for server, version in _VERSIONED
    )


def is_listed_absent(source: Source) -> bool:
    """Return whether a recent listing of where an object would be has none of its name."""
    listed = _recent_listing(source)
    return listed is not None and listed.meta is None and source not in _distrusted


def _recent_listing(source: Source) -> _Listed | None:
    """Return what a listing says of an object; None if it is not to be trusted any more."""
    listed = _listed.get(source)
    return listed if listed is not None and time.monotonic() - listed.when <= trusted_seconds() else None


def agrees(identity: str, meta: Mapping[str, Any] | None) -> bool:
    """Return whether a listed object is the one that has an identity; see `range_request.identity_of`.

    A listing says less than an answer: what it leaves out is not taken to be equal. Azure lists entity tags
    without quotation marks.
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
    """Remember what a listing has just said of objects; None for those that are not there."""
    now = time.monotonic()
    with _lock:
        if len(_listed) + len(listed) > _MAX_LISTED:
            _listed.clear()
        _listed.update((source, _Listed(meta, now)) for source, meta in listed.items())


def note_check(source: Source, identity: str) -> None:
    """Remember the answer of a server for other processes, if `config.revalidate_seconds` says so.

    Of an asset of a DANDI archive they remember which blob it was in any case.
    """
    sources = [source] if config.revalidate_seconds > 0 else []
    blob = _blob_of(source)
    for one in [*sources, blob] if blob is not None else sources:
        key = _key_of(one)
        disk_cache.save(key, _Check(key, identity, time.time()), _ENCODER)


def distrust(source: Source) -> None:
    """Confirm nothing of a source in this process any more: what was confirmed has turned out wrong."""
    with _lock:
        _distrusted.add(source)
        _listed.pop(source, None)
    if config.revalidate_seconds > 0:
        disk_cache.remove(_key_of(source))


def forget() -> None:
    """Forget listings, and what is not to be trusted."""
    with _lock:
        _listed.clear()
        _distrusted.clear()


def _key_of(source: Source) -> str:
    return f"checked\0{source.key}"
