"""The columns that say where a row is from, which every scan has and no file can have."""

from __future__ import annotations

import polars as pl

NWB_PATH = "_nwb_path"
TABLE_PATH = "_table_path"
TABLE_INDEX = "_table_index"
INTERNAL: dict[str, pl.DataType] = {NWB_PATH: pl.String(), TABLE_PATH: pl.String(), TABLE_INDEX: pl.UInt32()}
#: A column that users never see: Polars counts rows by projecting the first column of a source, or the one
#: of the smallest type, and this one is both, and is read from no file.
ROWS = "_lazynwb_rows"
RESERVED = frozenset({*INTERNAL, ROWS})
