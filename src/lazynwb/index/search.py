"""`scan_index`: the tables of an index as LazyFrames."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from lazynwb.index.model import KINDS
from lazynwb.index.read import Index, open_index
from lazynwb.scan import source_frame

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    import polars as pl

    from lazynwb.index.model import Kind


def scan_index(
    index: Index | str | os.PathLike[str],
    table: Kind = "sessions",
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> pl.LazyFrame:
    """Scan a table of an index of sessions; no session file is touched.

    Parameters
    ----------
    index : path or URL, or Index
        What `build_index` wrote.
    table : {"sessions", "tables", "columns"}
        `sessions` has a row for each file: `path`, `identity` (null if it cannot be relied upon), `size` in
        bytes, the number of its `tables`, a `problem` if there is one, and the metadata of the session and
        its subject. `tables` has a row for each table and series of each file: `table` (its path), `kind`
        ("table", "series" or "metadata"), `neurodata_type`, `rows`, the number of its `columns`, and what was
        mended in it. `columns` has a row for each of their columns: `dtype` (as Polars calls it), how often
        it is `ragged`, `rows`, the `shape` as stored, decoded `bytes`, `layout` and `codecs`; of timestamps
        that are not stored, `start` (seconds) and `rate` (Hz).
    storage_options : mapping or None
        As for `scan_nwb`.

    Raises
    ------
    SourceNotFoundError
        If there is no index.
    ValueError
        If it has no such table.
    """
    if table not in KINDS:
        message = f"an index has the tables {', '.join(map(repr, KINDS))}, not {table!r}"
        raise ValueError(message)
    opened = open_index(index, storage_options)
    detail = f"{table} of an index of {len(opened)} sessions"
    return source_frame(functools.partial(opened.batches, table), opened.schema(table), detail)
