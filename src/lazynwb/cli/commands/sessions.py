"""`lazynwb sessions`: one row for each session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazynwb.cli.output import write
from lazynwb.cli.render import Column, columns_of, count_text, show, show_vertically, size_text, write_remark
from lazynwb.terminal_text import visible

if TYPE_CHECKING:
    import polars as pl

    from lazynwb.cli.options import CommandSources
    from lazynwb.cli.output import Target

_MINUTE, _HOUR = 60, 3600


def list_sessions(
    command_sources: CommandSources, index: str | None, *, exclude_series: bool, ignore_errors: bool
) -> pl.LazyFrame:
    """Return the LazyFrame of `scan_sessions`.

    Raises
    ------
    LazyNWBError
        If a file or the index cannot be read.
    """
    from lazynwb.sessions import scan_sessions

    return scan_sessions(
        command_sources.sources or None,
        index=index,
        exclude_timeseries=exclude_series,
        ignore_errors=ignore_errors,
        storage_options=command_sources.storage,
    )


def show_sessions(sessions: pl.LazyFrame, target: Target) -> None:
    """Print sessions, with the numbers of rows of tables last; or write all columns."""
    if not target.is_table:
        write(sessions, target)
        return
    if target.vertical:
        frame = sessions.collect()
        show_vertically(columns_of(frame))
        write_remark(count_text(frame.height, "session"))
        return
    from polars import selectors

    counts = [name for name in sessions.collect_schema() if name.startswith("n_")]
    names = ["session_id", "subject_id", "session_start_time", "duration", "size", "_nwb_path"]
    frame = sessions.select(selectors.by_name(*names, *counts)).collect()
    rows = frame.rows(named=True)
    starts = [row["session_start_time"] for row in rows]
    sizes = [row["size"] for row in rows]
    # Tables that more sessions have come first.
    counts.sort(key=lambda name: (frame[name].null_count(), name))
    hidden = show(
        [
            Column("file", [visible(row["_nwb_path"], None) for row in rows], tail=True),
            Column("session", [_text(row["session_id"]) for row in rows], tail=True),
            Column("subject", [_text(row["subject_id"]) for row in rows]),
            Column("start (UTC)", [f"{start:%Y-%m-%d %H:%M}" if start else None for start in starts]),
            Column("duration", [_duration(row["duration"]) for row in rows], right=True),
            Column("size", [size_text(size) if size is not None else None for size in sizes], right=True),
            *(
                Column(
                    visible(name.removeprefix("n_"), None),
                    [f"{row[name]:,}" if row[name] is not None else None for row in rows],
                    right=True,
                )
                for name in counts
            ),
        ]
    )
    more = f"; {count_text(len(hidden), 'column')} do not fit: --vertical shows all" if hidden else ""
    write_remark(f"{count_text(len(rows), 'session')}{more}")


def _text(value: object) -> str | None:
    return visible(str(value), None) if value is not None else None


def _duration(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    return f"{seconds / _MINUTE:.1f} min" if seconds < _HOUR else f"{seconds / _HOUR:.2f} h"
