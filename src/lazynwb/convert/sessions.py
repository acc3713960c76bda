"""What sessions and subjects are called, for the names of folders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
from polars import selectors

from lazynwb.catalog.provenance import NWB_PATH
from lazynwb.convert.names import file_stem
from lazynwb.errors import LazyNWBError
from lazynwb.scan import scan_nwb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazynwb.sources.source import Source

#: Where a name is looked for; the first that is there and not empty counts.
_PLACES = {
    "session": ("/general", ("session_id", "identifier")),
    "subject": ("/general/subject", ("subject_id",)),
}


def names_of(sources: Sequence[Source], kind: str, *, disable_progress: bool) -> dict[str, str | None]:
    """Return the session or subject of each file, by the file's path.

    A session is called by `session_id` (nwb-schema, /general), else by the root's `identifier`, else by the
    file's name; a subject by `subject_id`, and a file without one has none.

    Parameters
    ----------
    sources : sequence of Source
    kind : {"session", "subject"}
    disable_progress : bool
    """
    table, columns = _PLACES[kind]
    found: dict[str, str | None] = {source.path: None for source in sources}
    try:
        frame = scan_nwb(list(sources), table, ignore_errors=True, disable_progress=disable_progress)
        have = [name for name in columns if name in frame.collect_schema()]
        rows = frame.select(selectors.by_name(NWB_PATH, *have)).collect()
    except LazyNWBError:
        rows = pl.DataFrame()
    for row in rows.iter_rows(named=True):
        texts = (_text(row[name]) for name in columns if name in row)
        found[row[NWB_PATH]] = next((text for text in texts if text), None)
    if kind == "session":
        return {source.path: found[source.path] or file_stem(source.name) for source in sources}
    return found


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
