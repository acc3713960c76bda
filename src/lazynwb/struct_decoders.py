"""Decoders of structs, of which only one is built at a time.

msgspec shares the type information of a struct between its decoders, and publishes it before it is complete,
because structs may be recursive. If two threads build decoders of nested structs at the same time, one of
them may use the incomplete information of the other, and the process crashes.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from lazynwb.threads import ForkSafeLock

T = TypeVar("T")
_building = ForkSafeLock()
_msgpack: dict[Any, msgspec.msgpack.Decoder[Any]] = {}
_json: dict[Any, msgspec.json.Decoder[Any]] = {}


def msgpack_decoder(kind: type[T]) -> msgspec.msgpack.Decoder[T]:
    """Return the decoder of a type in MessagePack."""
    with _building:
        if kind not in _msgpack:
            _msgpack[kind] = msgspec.msgpack.Decoder(kind)
        return _msgpack[kind]


def json_decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    """Return the decoder of a type in JSON."""
    with _building:
        if kind not in _json:
            _json[kind] = msgspec.json.Decoder(kind)
        return _json[kind]
