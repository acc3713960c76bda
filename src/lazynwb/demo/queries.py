"""Queries of the demonstration, which prints their source before it runs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

import lazynwb

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


@dataclass(frozen=True)
class Query:
    """A query, and the tables and columns that it needs."""

    title: str
    run: Callable[[list[Path]], Any]
    needs: Mapping[str, tuple[str, ...]]


def _internal_paths(nwb_paths: list[Path]) -> Any:  # noqa: ANN401 - any printable object
    return lazynwb.get_internal_paths(nwb_paths[0])


def _units_schema(nwb_paths: list[Path]) -> Any:  # noqa: ANN401
    schema = lazynwb.scan_nwb(nwb_paths, table_path="/units", infer_schema_length=1).collect_schema()
    return {name: dtype for name, dtype in schema.items() if dtype.is_nested() or name.startswith("_")}


def _performance(nwb_paths: list[Path]) -> Any:  # noqa: ANN401
    return (
        lazynwb.scan_nwb(nwb_paths, table_path="/intervals/performance", infer_schema_length=1)
        .join(
            lazynwb.scan_nwb(nwb_paths, table_path="/general", infer_schema_length=1).select(
                "_nwb_path", "keywords", "session_id"
            ),
            on="_nwb_path",
            how="left",
        )
        .join(
            lazynwb.scan_nwb(nwb_paths, table_path="/general/subject", infer_schema_length=1).select(
                "_nwb_path", "subject_id"
            ),
            on="_nwb_path",
            how="left",
        )
        .filter(
            pl.col("keywords").list.contains("production"),
            pl.col("signed_cross_modality_dprime").drop_nans().mean().over("session_id") > 2.0,
        )
        .with_columns((pl.col("stop_time") - pl.col("start_time")).alias("block_duration"))
        .select("block_index", "block_duration", "signed_cross_modality_dprime", "subject_id", "_nwb_path")
        .sort("_nwb_path", "block_index")
        .collect()
    )


def _good_units(nwb_paths: list[Path]) -> Any:  # noqa: ANN401
    return (
        lazynwb.scan_nwb(nwb_paths, table_path="/units", infer_schema_length=1)
        .filter(
            pl.col("location").str.starts_with("CA1"),
            pl.col("activity_drift") <= 0.01,
            pl.col("amplitude_cutoff") <= 0.1,
            pl.col("presence_ratio") >= 0.7,
            pl.col("isi_violations_ratio") <= 0.5,
            pl.col("decoder_label") != "noise",
        )
        .select("unit_id", "location", "spike_times", "_nwb_path")
        .collect()
    )


def _sql(nwb_paths: list[Path]) -> Any:  # noqa: ANN401
    sql_context = lazynwb.get_sql_context(nwb_paths, infer_schema_length=1)
    return sql_context.execute("SELECT * FROM performance", eager=True)


STRUCTURE = (
    Query("What is in one file", _internal_paths, {}),
    Query("The array columns of a table, and the three that lazynwb adds", _units_schema, {"units": ()}),
)

NOTEBOOK = (
    Query(
        "Blocks of production sessions in which the animal did well, with their subjects",
        _performance,
        {
            "intervals/performance": (
                "block_index",
                "signed_cross_modality_dprime",
                "start_time",
                "stop_time",
            ),
            "general": ("keywords", "session_id"),
            "general/subject": ("subject_id",),
        },
    ),
    Query(
        "Spike times of the good CA1 units",
        _good_units,
        {
            "units": (
                "activity_drift",
                "amplitude_cutoff",
                "decoder_label",
                "isi_violations_ratio",
                "location",
                "presence_ratio",
                "spike_times",
                "unit_id",
            ),
        },
    ),
    Query("The same tables in SQL", _sql, {"intervals/performance": ()}),
)
