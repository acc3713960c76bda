"""Call patterns of code for lazynwb 1.x, run on the installed package: `python call_patterns.py FOLDER`.

Prints what each gives as JSON. `DIFFERENT` are those that give something else here on purpose, with words of
the row of `docs/from-lazynwb-1.md` that says so. The tests run them on this package and compare with what
1.0.0 gives, or gave when `call_patterns_1.0.0.json` was written.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl

PATTERNS: dict[str, Any] = {}
#: Pattern to words of the migration page.
DIFFERENT = {
    "scan trials whose types differ": "a column whose types differ between files",
    "scan session": "texts of `/general`",
    "sql select keywords": "texts of `/general`",
    "get_df by a similar name": 'a search term that is no path: `"unitz"`',
    "get_df of a folder": "a folder or a pattern as the source",
    "internal paths": "a series is its `data` and `timestamps`",
    "internal paths with columns": "a series is its `data` and `timestamps`",
    "internal paths with metadata": "a series is its `data` and `timestamps`",
    "path info": "without metadata",
    "sql tables": "`general` as an alias",
    "attrs below units": "`get_sub_attrs`, `consolidate_attrs`",
    "attrs below the root": "`get_sub_attrs`, `consolidate_attrs`",
    "consolidated attrs": "`get_sub_attrs`, `consolidate_attrs`",
    "metadata of the cube": "`get_metadata_df`, `LazyNWB.describe`",
    "LazyNWB units columns": "`LazyNWB(...).units`",
    "LazyNWB epochs": "`LazyNWB(...).epochs`",
    "spike times in intervals": "`get_spike_times_in_intervals`",
    "file_io of a path": "Removed: `FileAccessor`",
    "column metadata": "`get_table_column_metadata`",
}


def pattern(name):
    def register(function):
        PATTERNS[name] = function
        return function

    return register


def simple(name, function):
    PATTERNS[name] = function


UNITS = ["unit_id", "location", "presence_ratio"]

simple("scan units", lambda lz, p, f: lz.scan_nwb(p[0], "units").select(UNITS).collect())
simple("scan with a slash", lambda lz, p, f: lz.scan_nwb(p[0], "/units").select(UNITS).collect())
simple("scan the cube", lambda lz, p, f: lz.scan_nwb(p, "units").select(*UNITS, "_table_index").collect())
simple(
    "scan arrays",
    lambda lz, p, f: lz.scan_nwb(p[0], "units").select("spike_times", "waveform_mean").collect(),
)
simple("scan obs_intervals", lambda lz, p, f: lz.scan_nwb(p[0], "units").select("obs_intervals").collect())
simple(
    "scan with a filter",
    lambda lz, p, f: (
        lz.scan_nwb(p, "trials")
        .filter(pl.col("is_rewarded"))
        .select("start_time")
        .sort("start_time")
        .collect()
    ),
)
simple("scan schema", lambda lz, p, f: dict(lz.scan_nwb(p, "units").collect_schema()))
simple(
    "scan without arrays",
    lambda lz, p, f: lz.scan_nwb(p[0], "units", exclude_array_columns=True).collect().columns,
)
simple("scan a series", lambda lz, p, f: lz.scan_nwb(p[0], "/processing/behavior/running_speed").collect())
simple("scan session", lambda lz, p, f: lz.scan_nwb(p[0], "session").collect())
simple("scan the root", lambda lz, p, f: lz.scan_nwb(p[0], "/").collect())
simple("scan a group of datasets", lambda lz, p, f: lz.scan_nwb(p[0], "/processing/other/plain").collect())
simple("scan of nothing", lambda lz, p, f: lz.scan_nwb([], "units"))
simple("scan an absent table", lambda lz, p, f: lz.scan_nwb(p[0], "/intervals/absent").collect())
simple("scan an absent file", lambda lz, p, f: lz.scan_nwb(f / "absent.nwb", "units").collect())
simple(
    "scan an override that no file has",
    lambda lz, p, f: (
        lz.scan_nwb(p[0], "units", schema_overrides={"depth": pl.Float64}).select("depth").collect()
    ),
)
simple(
    "scan an override",
    lambda lz, p, f: (
        lz.scan_nwb(p[0], "trials", schema_overrides={"block_index": pl.Float64})
        .select("block_index")
        .collect()
    ),
)
simple(
    # Which file's values become null changes from run to run there.
    "scan trials whose types differ",
    lambda lz, p, f: (
        lz.scan_nwb(sorted((f / "mixed").glob("*.nwb")), "/intervals/mixed").select("x").collect().height
    ),
)
simple("read trials", lambda lz, p, f: lz.read_nwb(p[0], "trials").select("stim_name"))
simple("table schema", lambda lz, p, f: dict(lz.get_table_schema(p, "trials")))
simple(
    "table schema, own columns",
    lambda lz, p, f: dict(lz.get_table_schema(p[0], "units", exclude_internal_columns=True)),
)

simple("get_df", lambda lz, p, f: lz.get_df(p[0], "units")[UNITS])
simple("get_df as Polars", lambda lz, p, f: lz.get_df(p[0], "units", as_polars=True).select(UNITS))
simple("get_df kind", lambda lz, p, f: type(lz.get_df(p[0], "units")).__module__.partition(".")[0])
simple("get_df columns", lambda lz, p, f: sorted(lz.get_df(p[0], "units").columns))
simple(
    "get_df with arrays",
    lambda lz, p, f: lz.get_df(p[0], "units", exclude_array_columns=False)[
        ["spike_times", "obs_intervals", "waveform_mean"]
    ],
)
simple(
    "get_df included",
    lambda lz, p, f: lz.get_df(p[0], "units", include_column_names=["location"])[["location"]],
)
simple(
    "get_df excluded",
    lambda lz, p, f: sorted(lz.get_df(p[0], "units", exclude_column_names=["location"]).columns),
)
simple(
    "get_df of the end of a path", lambda lz, p, f: lz.get_df(p[0], "running_speed")[["data", "timestamps"]]
)
simple(
    "get_df rows",
    lambda lz, p, f: lz.get_df(p[0], "units", nwb_path_to_row_indices={p[0]: [0, 2]}, as_polars=True).select(
        UNITS
    ),
)
simple(
    "get_df of an unknown column", lambda lz, p, f: lz.get_df(p[0], "units", include_column_names=["absent"])
)
simple("get_df by a similar name", lambda lz, p, f: list(lz.get_df(p[0], "unitz").columns))
simple("get_df of a folder", lambda lz, p, f: len(lz.get_df(f, "units")))
simple("get_df of nothing", lambda lz, p, f: lz.get_df([], "units"))
simple(
    "pl.DataFrame of get_df",
    lambda lz, p, f: pl.DataFrame(
        lz.get_df(p[0], "units", exclude_array_columns=False)[["obs_intervals", "waveform_mean"]]
    ),
)
simple(
    "merge_array_column",
    lambda lz, p, f: lz.merge_array_column(lz.get_df(p[0], "units", as_polars=True), "spike_times").select(
        "spike_times"
    ),
)
simple("get", lambda lz, p, f: lz.get(p[0], "trials")[["start_time"]])
simple("internal column names", lambda lz, p, f: sorted(lz.INTERNAL_COLUMN_NAMES))

simple("internal paths", lambda lz, p, f: sorted(lz.get_internal_paths(p[0])))
simple(
    "internal paths with columns",
    lambda lz, p, f: sorted(lz.get_internal_paths(p[0], include_table_columns=True)),
)
simple(
    "internal paths with metadata",
    lambda lz, p, f: sorted(lz.get_internal_paths(p[0], include_metadata=True)),
)
simple(
    "groups of series beside their children",
    lambda lz, p, f: [
        name
        for name in sorted(lz.get_internal_paths(p[0], include_child_datasets=True))
        if "running_speed" in name or "lick" in name
    ],
)
simple("path info", lambda lz, p, f: lz.get_internal_path_info(p[0])["/intervals/trials"])

simple("attrs of units", lambda lz, p, f: lz.get_attrs(p[0], "/units"))
simple("attrs of an absent object", lambda lz, p, f: lz.get_attrs(p[0], "/absent"))
simple("attrs below units", lambda lz, p, f: lz.get_sub_attrs(p[0], "/units"))
simple("attrs below the root", lambda lz, p, f: sorted(lz.get_sub_attrs(p[0])))
simple("attrs below nothing", lambda lz, p, f: lz.get_sub_attrs(p[0], "/absent"))
simple("consolidated attrs", lambda lz, p, f: list(lz.consolidate_attrs(p, "/units")))
simple("consolidated attrs of nothing", lambda lz, p, f: lz.consolidate_attrs([], "/units"))

simple("metadata of the cube", lambda lz, p, f: lz.get_metadata_df(p, as_polars=True).sort("session_id"))
simple(
    "session ids",
    lambda lz, p, f: lz.get_metadata_df(p).sort_values("session_id")[
        ["session_id", "subject_id", "identifier"]
    ],
)
simple("metadata of nothing", lambda lz, p, f: len(lz.get_metadata_df([])))
simple("LazyNWB session_id", lambda lz, p, f: lz.LazyNWB(p[0]).session_id)
simple(
    "LazyNWB subject", lambda lz, p, f: [lz.LazyNWB(p[0]).subject.subject_id, lz.LazyNWB(p[0]).subject.sex]
)
simple("LazyNWB trials", lambda lz, p, f: lz.LazyNWB(p[0]).trials[["start_time", "stim_name"]])
simple("LazyNWB units columns", lambda lz, p, f: sorted(lz.LazyNWB(p[0]).units.columns))
simple("LazyNWB epochs", lambda lz, p, f: lz.LazyNWB(p[0]).epochs)

simple("sql tables", lambda lz, p, f: sorted(lz.get_sql_context(p).tables()))
simple(
    "sql tables by path",
    lambda lz, p, f: sorted(lz.get_sql_context(p, full_path=True, rename_general_metadata=True).tables()),
)
simple(
    "sql tables by path, general",
    lambda lz, p, f: sorted(lz.get_sql_context(p, full_path=True, rename_general_metadata=False).tables()),
)
simple(
    "sql select",
    lambda lz, p, f: lz.get_sql_context(p).execute(
        "SELECT location, count(*) AS n FROM units GROUP BY location ORDER BY location", eager=True
    ),
)
simple(
    "sql select keywords",
    lambda lz, p, f: lz.get_sql_context(p).execute("SELECT keywords FROM session", eager=True),
)


@pattern("converted tables")
def _(lz, p, f):
    with tempfile.TemporaryDirectory() as folder:
        written = lz.convert_nwb_tables(p, folder, output_format="parquet", disable_progress=True)
        return sorted(Path(path).name for path in written.values())


@pattern("converted tables of nothing")
def _(lz, p, f):
    with tempfile.TemporaryDirectory() as folder:
        return lz.convert_nwb_tables([], folder, disable_progress=True)


@pattern("a time series")
def _(lz, p, f):
    found = lz.get_timeseries(p[0], "running_speed")
    return [np.asarray(found.data[:5]), np.asarray(found.timestamps[:5]), found.rate]


simple(
    "time series by a part of the name",
    lambda lz, p, f: sorted(lz.get_timeseries(p[0], "lick", match_all=True)),
)


@pattern("spike times in intervals")
def _(lz, p, f):
    units = lz.get_df(p[0], "units", as_polars=True)
    found = lz.get_spike_times_in_intervals(
        units, {"n": (pl.col("start_time"), pl.col("stop_time"))}, "/intervals/trials", as_counts=True
    )
    order = ["_units_table_index", "_intervals_table_index"]
    return found.sort(order) if isinstance(found, pl.DataFrame) else found.sort_values(order)


@pattern("spike counts")
def _(lz, p, f):
    units = lz.scan_nwb(p[0], "units").select("unit_id", "_nwb_path", "_table_path", "_table_index").collect()
    found = lz.get_spike_times_in_intervals(
        units,
        {"n": (pl.col("start_time"), pl.col("stop_time"))},
        "/intervals/trials",
        apply_obs_intervals=False,
        as_counts=True,
        as_polars=True,
        disable_progress=True,
    )
    return found.sort("_units_table_index", "_intervals_table_index")["n"].to_list()


@pattern("errors of 1.x")
def _(lz, p, f):
    import lazynwb.exceptions

    try:
        lz.scan_nwb(p[0], "/intervals/absent").collect()
    except lazynwb.exceptions.InternalPathError:
        return "InternalPathError"


@pattern("modules of 1.x")
def _(lz, p, f):
    import lazynwb.file_io
    import lazynwb.tables
    import lazynwb.utils

    return [
        lazynwb.utils.normalize_internal_file_path("/trials"),
        lazynwb.utils.normalize_internal_file_path("/"),
        lazynwb.tables.get_df(p[0], "trials")[["stim_name"]],
        lazynwb.utils.get_threadpool_executor().submit(len, "abc").result(),
        lazynwb.file_io.config is lz.config,
        type(lz.Config()).__name__,
    ]


simple("file_io of a path", lambda lz, p, f: type(lz.FileAccessor(p[0])).__name__)
simple("column metadata", lambda lz, p, f: len(lz.get_table_column_metadata(p[0], "/units")))


# --- results as JSON ----------------------------------------------------------------------------------

#: Longer results are written down as a digest.
_LONG = 600


def plain(value: Any, folder: str) -> Any:
    """A result in JSON types, with sorted column names and relative paths."""
    if isinstance(value, pl.DataFrame):
        return {name: plain(value[name].to_list(), folder) for name in sorted(value.columns)}
    if isinstance(value, pd.DataFrame):
        return {str(name): plain(value[name].tolist(), folder) for name in sorted(value.columns)}
    if isinstance(value, dict):
        return {str(key): plain(one, folder) for key, one in value.items()}
    if isinstance(value, list | tuple | np.ndarray | pl.Series):
        return [plain(one, folder) for one in value]
    if isinstance(value, np.generic):
        return plain(value.item(), folder)
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if isinstance(value, str):
        return value.replace(folder, "FOLDER")
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def outcome(function: Any, lazynwb: Any, paths: list[str], folder: Path) -> dict[str, Any]:
    """Return the result of one pattern: a value, or the built-in error that it raises."""
    try:
        value = plain(function(lazynwb, paths, folder), str(folder))
    except Exception as error:  # noqa: BLE001 - whatever it is
        own = [kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins"]
        return {"raises": [name for name in own if name not in {"Exception", "BaseException", "object"}]}
    text = json.dumps(value, sort_keys=True)
    return {"digest": hashlib.sha256(text.encode()).hexdigest()} if len(text) > _LONG else {"value": value}


def run(folder: Path) -> dict[str, Any]:
    import lazynwb

    paths = [str(path) for path in sorted(folder.glob("*.nwb"))]
    return {name: outcome(function, lazynwb, paths, folder) for name, function in PATTERNS.items()}


if __name__ == "__main__":
    json.dump(run(Path(sys.argv[1])), sys.stdout, indent=1, sort_keys=True)
