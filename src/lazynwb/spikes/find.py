"""`get_spike_times_in_intervals`: what users call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl
from polars.io.plugins import register_io_source

from lazynwb.catalog.provenance import ROWS
from lazynwb.config import config
from lazynwb.frames.given import is_pandas
from lazynwb.spikes.query import Query
from lazynwb.spikes.values import Options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazynwb.frames.given import AnyFrame


def get_spike_times_in_intervals(  # noqa: PLR0913, PLR0917 - as existing code calls it
    filtered_units_df: AnyFrame,
    intervals: Mapping[str, tuple[Any, Any]],
    intervals_df: str | AnyFrame = "/intervals/trials",
    intervals_df_filter: str | pl.Expr | None = None,
    apply_obs_intervals: bool = True,  # noqa: FBT001, FBT002
    as_counts: bool = False,  # noqa: FBT001, FBT002
    keep_only_necessary_cols: bool = False,  # noqa: FBT001, FBT002
    use_process_pool: bool = True,  # noqa: FBT001, FBT002, ARG001
    disable_progress: bool = False,  # noqa: FBT001, FBT002
    as_polars: bool | None = None,  # noqa: FBT001
    align_times: bool = False,  # noqa: FBT001, FBT002
    *,
    align_to: str | pl.Expr | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Any:  # noqa: ANN401 - the kind of frame that was given, or that is asked for
    """Find the spikes of units in intervals: one row for each unit and each interval of its session.

    A unit meets the intervals of its own session only, by `_nwb_path`. An interval holds the spikes with
    start <= time < stop, so that intervals side by side share none; one of zero length holds none. One that
    ends before it begins, or whose bounds are null or NaN, gives null, and so does a unit without
    `spike_times`; a unit with none of them, an empty list, gives empty lists.

    Parameters
    ----------
    filtered_units_df : polars.DataFrame, polars.LazyFrame or pandas.DataFrame
        Units, with `_nwb_path` and `_table_index` (or `_units_table_index`). `spike_times` (seconds) and
        `obs_intervals` are read from the files, for these units alone, if the frame lacks them.
    intervals : dict of str to (start, stop)
        Columns to make, and the bounds of their intervals in seconds: each the name of a column of the
        intervals table, an expression of such columns (evaluated for each session by itself), or a number.
    intervals_df : str or frame
        The path of a table in the files of the units, or a frame with `_nwb_path`.
    intervals_df_filter : str, Expr or None
        Which of its rows to take: an expression, or a condition in SQL.
    apply_obs_intervals : bool
        Give null for an interval that does not lie within the union of the unit's `obs_intervals` (see
        `insert_is_observed`), and add the column `is_observed`.
    as_counts : bool
        Count the spikes instead of listing their times.
    keep_only_necessary_cols : bool
        Leave out `is_observed` and the columns of the two tables.
    use_process_pool : bool
        Accepted for compatibility; no processes are needed.
    disable_progress : bool
        Show no progress bars.
    as_polars : bool or None
        True for Polars, False for pandas; None for the kind of frame that the units are in.
    align_times : bool
        Give times relative to the start of their interval; null where that is not finite.
    align_to : str, Expr or None
        Give times relative to this time of the intervals table instead; null where it is null or not finite.
    storage_options : mapping or None
        As for `scan_nwb`.

    Returns
    -------
    frame
        Units in the order given, and for each its intervals in theirs. `_units_table_index` and
        `_intervals_table_index` (UInt32: the rows of the two tables; of a frame without `_table_index`, the
        row of the frame), `_nwb_path`, the columns asked for (List(Float64), ascending, seconds; or Int64),
        `is_observed` (whether all of the row's intervals lie in observed time), the columns of the intervals
        table (lists and arrays only if a frame was given), and those of the units without `spike_times` and
        `obs_intervals`; a unit's column whose name is taken ends in `_right`. For a LazyFrame of units, a
        LazyFrame: nothing is read until it is collected, then no column that the query does not need, and a
        block of units at a time. (Its columns depend on the intervals table: if that is given as a path,
        asking for the schema finds out which files the units are from.)

    Raises
    ------
    ColumnNotFoundError
        If a frame does not say which session its rows are from, or the intervals table lacks a column.
    SchemaError
        If a bound is no number, or a name of `intervals` is that of another column.
    TableNotFoundError
        If no file has the intervals table.
    ValueError
        If aligned counts are asked for, or no interval.

    Examples
    --------
    >>> good = lazynwb.scan_nwb(paths, "/units").filter(pl.col("location") == "CA1")  # doctest: +SKIP
    >>> lazynwb.get_spike_times_in_intervals(  # doctest: +SKIP
    ...     good,
    ...     {"response": ("stim_start_time", pl.col("stim_start_time") + 0.5)},
    ...     as_counts=True,
    ... ).group_by("_nwb_path", "_units_table_index").agg(pl.col("response").mean())
    """
    if as_counts and (align_times or align_to is not None):
        message = "counts cannot be aligned: leave out as_counts, or align_times and align_to"
        raise ValueError(message)
    if not intervals:
        message = 'no interval was given: pass for instance {"spikes": ("start_time", "stop_time")}'
        raise ValueError(message)
    query = Query(
        filtered_units_df,
        intervals_df,
        intervals_df_filter,
        Options(
            dict(intervals), apply_obs_intervals, as_counts, keep_only_necessary_cols, align_times, align_to
        ),
        storage_options,
        disable_progress=disable_progress,
    )
    lazily = isinstance(filtered_units_df, pl.LazyFrame)
    if lazily and as_polars is not False:
        return register_io_source(query, schema=query.schema_to_count, is_pure=True).select(pl.exclude(ROWS))
    found = query.collect()
    from_pandas = is_pandas(filtered_units_df) and as_polars is None and not config.use_polars
    if as_polars is False or from_pandas:
        from lazynwb.frames.returning import as_frame

        return as_frame(found, as_polars=False)
    return found
