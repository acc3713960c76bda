"""Storage of the arrays of a file: bytes, chunks and compression."""

from __future__ import annotations

import json
import math
import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from lazynwb.terminal_text import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazynwb.catalog.model import Array, Codec, DType, Listing
    from lazynwb.lookup.loader import TableFile
    from lazynwb.storage.source import Source

#: Maximum number of chunks for which sizes are summed.
_MAX_CHUNKS = 200_000


class Stored(NamedTuple):
    """Storage of an array.

    Attributes
    ----------
    type : str
        Name of the type of its elements.
    size : int or None
        Stored bytes; None if unknown, as for variable-length text.
    chunk : tuple of int or None
        Shape of a chunk; None if the array is not chunked.
    codecs : str
        Filters and compression, in the order in which a writer applies them.
    """

    type: str
    size: int | None
    chunk: tuple[int, ...] | None
    codecs: str


def stored_in(source: Source, listing: Listing) -> dict[str, Stored]:
    """Return the storage of the arrays of a file by path.

    Raises
    ------
    LazyNWBError
        If the file cannot be read.
    """
    from lazynwb.lookup.loader import load_table

    names: dict[str, set[str]] = {}
    for entry in listing.entries:
        if entry.kind == "dataset" and entry.role != "specification":
            group, _, name = entry.path.rpartition("/")
            names.setdefault(group, set()).add(name)
    found: dict[str, Stored] = {}
    for group, members in names.items():
        # The datasets of the root group are described with the session's metadata.
        table = load_table(source, f"{group[1:]}/" if group else "general")
        if table is None:
            continue
        arrays = [c.data for c in table.table.columns if c.data is not None and c.name in members]
        _look_up(table, arrays)
        for column in table.table.columns:
            if column.data is not None and column.name in members:
                path = f"{group}/{column.name}"
                array = column.data
                found[path] = Stored(
                    _type_of(array.dtype),
                    _size_of(table, array),
                    array.chunk if array.shape and array.chunk else None,
                    codecs_text(array.codecs),
                )
    return found


def _type_of(dtype: DType) -> str:
    from lazynwb.session.tree import type_name

    if dtype.kind == "number":
        return type_name(dtype.numpy)
    return {"vlen_text": "text", "unsupported": "unreadable"}.get(dtype.kind, dtype.kind)


def _look_up(table: TableFile, arrays: Sequence[Array]) -> None:
    from lazynwb.catalog.model import grid_of

    few = [a for a in arrays if a.layout == "chunked" and math.prod(grid_of(a)) <= _MAX_CHUNKS]
    table.look_up([(array, None) for array in few])


def _size_of(table: TableFile, array: Array) -> int | None:
    from lazynwb.catalog.model import MISSING, ChunkIndex, grid_of, stored_size

    if array.dtype.kind in {"vlen_text", "vlen"}:
        return None  # elements are in heaps that arrays share
    if array.layout == "inline":
        return len(array.inline)
    if array.layout == "contiguous":
        return math.prod(array.shape) * stored_size(array.dtype) if array.offset >= 0 else 0
    if array.layout == "chunked":
        index = table.chunks(array)
        if not isinstance(index, ChunkIndex):
            return None
        chunks = (index.locate(number) for number in range(math.prod(grid_of(array))))
        return sum(size for offset, size, _ in chunks if offset != MISSING)
    if array.keys is not None and array.source is None and os.path.isdir(table.source.path):  # noqa: PTH112
        return _files_below(os.path.join(table.source.path, array.keys.prefix.rstrip("/")))  # noqa: PTH118
    return None


def _files_below(folder: str) -> int:
    """Return the bytes of the chunks in the folder of a Zarr array, without its metadata."""
    total = 0
    for here, _, names in os.walk(folder):
        for name in names:
            if not name.startswith(".z") and name != "zarr.json":
                with suppress(OSError):
                    total += os.path.getsize(os.path.join(here, name))  # noqa: PTH118, PTH202
    return total


def codecs_text(codecs: Sequence[Codec]) -> str:
    """Return a short text of a filter pipeline: "shuffle + zlib 4"."""
    words = []
    for codec in codecs:
        if codec.name == "zarr":
            continue  # the metadata of an array that is read by zarr-python
        name, level = codec.name, ""
        if codec.name in {"zlib", "gzip"} and codec.args:
            level = f" {codec.args[0]}"
        elif codec.config:
            config = json.loads(codec.config)
            name = str(config.get("id") or config.get("name") or name) if isinstance(config, dict) else name
            inner = config.get("cname") if isinstance(config, dict) else None
            level = f" {inner}" if inner else ""
        words.append(visible(name + level))
    return " + ".join(words)
