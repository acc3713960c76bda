"""The Polars namespace `nwb`: `frame.nwb.with_columns("spike_times")`, on DataFrame and LazyFrame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from polars._typing import SchemaDict

Frame = TypeVar("Frame")


class _Namespace(Generic[Frame]):
    """Methods of frames of NWB rows."""

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
        """Add columns of the NWB files, read for the rows that the frame has now.

        Rows may have been filtered, joined, sorted, repeated: as long as `_nwb_path`, `_table_path` and
        `_table_index` are there, every row gets its value. No row of a file is read twice.

        Parameters
        ----------
        *names : str or iterable of str
            Columns of the tables that the rows are from.
        missing_ok : bool
            Rows of a file that lacks a column are null there; with False that is an error.
        schema_overrides : dict or None
            Types of single columns; values are cast to them strictly.
        provenance_suffix : str
            Of the three columns' names, for the right side of a join: `"_right"`. One that the join merged
            into the left side's is taken from there.
        storage_options : mapping or None
            As for `scan_nwb`: a frame does not remember them. (`config.storage_options` are always in force.)
        disable_progress : bool
            Show no progress bars.

        Returns
        -------
        DataFrame or LazyFrame
            The frame with the new columns last, with the types that `scan_nwb` gives them over the files
            that occur in it. Columns of these names are replaced where they are.

        Raises
        ------
        ColumnNotFoundError
            If the frame lacks one of the three columns, or no file has a column of that name.
        SchemaError
            If a column's types in two files have no common type.
        LazyNWBError
            If a file cannot be read, or lacks the table or the row that the frame names.

        Notes
        -----
        A LazyFrame stays lazy: values are read when the query runs, for the rows that later filters and
        limits leave, and not at all if a later `select` drops the column. But types have to be known
        beforehand, so the plan so far is run once for `_nwb_path` and `_table_path` alone, unless
        `schema_overrides` has all of the columns. Without any rows nothing is known, and columns are of type
        Null.

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
