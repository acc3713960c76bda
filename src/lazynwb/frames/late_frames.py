"""Late materialization: columns of the files added to any frame with provenance columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl

from lazynwb.catalog.dtypes import INTERNAL, instance
from lazynwb.engine.late_columns import LateColumns, gather_columns
from lazynwb.errors import ColumnNotFoundError
from lazynwb.frames.coerce import as_lazy, is_pandas
from lazynwb.lookup.provenance import LateOptions, find_origins, late_schema, provenance_columns
from lazynwb.profile import Query, working_for
from lazynwb.scan import source_frame

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd
    from polars._typing import SchemaDict

Frame = TypeVar("Frame")


def merge_array_column(
    df: Frame,
    column_name: str,
    missing_ok: bool = True,  # noqa: FBT001, FBT002 - positional in existing code
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> Frame:
    """Add a column of the NWB files to a frame, for its current rows.

    Parameters
    ----------
    df : polars.DataFrame or polars.LazyFrame or pandas.DataFrame
        A frame with the columns `_nwb_path`, `_table_path` and `_table_index`; see `with_columns`.
    column_name : str
        A column of the tables that the rows are from, such as `"spike_times"` or `"waveform_mean"`.
    missing_ok : bool
        Whether files may lack the column: its values are null in their rows; if no file has it, the frame is
        returned unchanged with a warning.
    storage_options : mapping or None
        As for `scan_nwb`.

    Returns
    -------
    frame
        A frame of the same kind with the same rows (and index), and the new column last. An existing column
        with that name is replaced.

    Raises
    ------
    ColumnNotFoundError
        If the frame lacks one of the three columns, or a file lacks the column and `missing_ok` is false.
    LazyNWBError
        If a file cannot be read, or lacks a table or a row of the frame.
    """
    options = LateOptions(missing_ok, missing_ok, storage_options=storage_options)
    added: Frame = _add(df, [column_name], options)
    return added


def with_columns(  # noqa: PLR0913 - keywords
    df: Frame,
    names: Iterable[str],
    *,
    missing_ok: bool = True,
    schema_overrides: SchemaDict | None = None,
    provenance_suffix: str = "",
    storage_options: Mapping[str, Any] | None = None,
    disable_progress: bool = False,
) -> Frame:
    """Add columns of the NWB files to any frame with the provenance columns.

    This is the function behind `df.nwb.with_columns(...)`, where the parameters are described.
    """
    overrides = {name: instance(dtype) for name, dtype in (schema_overrides or {}).items()}
    options = LateOptions(missing_ok, False, overrides, storage_options, disable_progress)  # noqa: FBT003
    added: Frame = _add(df, list(dict.fromkeys(names)), options, provenance_suffix)
    return added


def _add(df: Any, names: list[str], options: LateOptions, suffix: str = "") -> Any:  # noqa: ANN401 - any kind
    reserved = [name for name in names if name in INTERNAL]
    if reserved:
        raise ColumnNotFoundError(f"{reserved[0]!r} is a provenance column, not a column of the files")
    if isinstance(df, pl.LazyFrame):
        own = provenance_columns(df.collect_schema(), suffix)
        late = LateColumns(df, own, names, options)
        if not late.added:
            return df
        return source_frame(late.run, late.schema, late.detail)
    if isinstance(df, pl.DataFrame):
        own = provenance_columns(df.columns, suffix)
        provenance = df.select(pl.col(existing).alias(name) for name, existing in own.items())
        return df.with_columns(_read(provenance, names, options))
    if is_pandas(df):
        return _add_to_pandas(df, names, options, suffix)
    raise TypeError(f"expected a Polars or pandas frame, not {type(df).__name__}")


def _read(provenance: pl.DataFrame, names: list[str], options: LateOptions) -> list[pl.Series]:
    with working_for(Query(f"{', '.join(names)} of a frame's rows")):
        origins = find_origins(provenance, options)
        schema = late_schema(origins.files, names, options)
        return gather_columns(
            origins, schema, frozenset(options.overrides), disable_progress=options.disable_progress
        )


def _add_to_pandas(df: pd.DataFrame, names: list[str], options: LateOptions, suffix: str) -> pd.DataFrame:
    from lazynwb.frames.pandas_output import pandas_values

    own = provenance_columns(df.columns, suffix)
    rows = as_lazy(df, own.values()).collect()
    provenance = rows.select(pl.col(existing).alias(name) for name, existing in own.items())
    added = df.copy(deep=False)
    for series in _read(provenance, names, options):
        # By position: aligning by the pandas index would give rows with repeated labels wrong values.
        added[series.name] = pandas_values(series)
    return added
