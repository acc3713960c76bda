"""The Polars namespace `nwb`: `frame.nwb.with_columns("spike_times")`, on DataFrame and LazyFrame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from polars._typing import SchemaDict

Frame = TypeVar("Frame")


class _Namespace(Generic[Frame]):
    """Methods of frames with rows of NWB tables."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def with_columns(
        self,
        *names: str | Iterable[str],
        missing_ok: bool = True,
        schema_overrides: SchemaDict | None = None,
        provenance_suffix: str = "",
        storage_options: Mapping[str, Any] | None = None,
        disable_progress: bool = False,
    ) -> Frame:
        """Add columns of the NWB files for the current rows of the frame.

        The rows may have been filtered, joined, sorted or repeated, as long as the frame has `_nwb_path`,
        `_table_path` and `_table_index`. No row of a file is read twice.

        Parameters
        ----------
        *names : str or iterable of str
            Columns of the tables that the rows are from.
        missing_ok : bool
            Whether files may lack a column, whose values are then null in their rows.
        schema_overrides : dict or None
            Types of single columns; values are cast strictly.
        provenance_suffix : str
            Suffix of the three provenance columns, for the right side of a join: `"_right"`. A column that
            the join merged into the left side's is taken from there.
        storage_options : mapping or None
            As for `scan_nwb`, because a frame does not contain them. `config.storage_options` always apply.
        disable_progress : bool
            Whether to hide progress bars.

        Returns
        -------
        DataFrame or LazyFrame
            The frame with the new columns last. Their types are those of `scan_nwb` over the files in the
            frame. Existing columns with these names are replaced in place.

        Raises
        ------
        ColumnNotFoundError
            If the frame lacks one of the three columns, or no file has a column of that name.
        SchemaError
            If the types of a column in two files have no common type.
        LazyNWBError
            If a file cannot be read, or lacks a table or a row of the frame.

        Notes
        -----
        A LazyFrame stays lazy: values are read when the query runs, only for the rows that later filters and
        limits keep, and not at all if a later `select` drops the column. To determine the types, the query is
        run once for `_nwb_path` and `_table_path` only, unless `schema_overrides` has all of the columns. If
        it has no rows, the columns have type Null.

        Examples
        --------
        >>> best = units.sort("presence_ratio").tail(10)  # doctest: +SKIP
        >>> best.nwb.with_columns("spike_times", "waveform_mean")  # doctest: +SKIP
        """
        from lazynwb.frames.late_frames import with_columns

        listed = [name for one in names for name in ([one] if isinstance(one, str) else one)]
        return with_columns(
            self._frame,
            listed,
            missing_ok=missing_ok,
            schema_overrides=schema_overrides,
            provenance_suffix=provenance_suffix,
            storage_options=storage_options,
            disable_progress=disable_progress,
        )


@pl.api.register_dataframe_namespace("nwb")
class DataFrameNamespace(_Namespace[pl.DataFrame]):
    """`DataFrame.nwb`."""


@pl.api.register_lazyframe_namespace("nwb")
class LazyFrameNamespace(_Namespace[pl.LazyFrame]):
    """`LazyFrame.nwb`."""
