"""Expected scans of several files: values of the oracle for each file, and the common types of the contract.

Like `oracle` it knows nothing of how lazynwb reads: h5py and plain Python; Polars only makes the frames.
"""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import polars as pl

from checks import INTERNAL
from readers import hdf5_tables as oracle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NUMPY = {
    pl.Int8: "i1", pl.Int16: "i2", pl.Int32: "i4", pl.Int64: "i8", pl.UInt8: "u1", pl.UInt16: "u2",
    pl.UInt32: "u4", pl.UInt64: "u8", pl.Float16: "f2", pl.Float32: "f4", pl.Float64: "f8",
}  # fmt: skip
_POLARS = {code: dtype for dtype, code in _NUMPY.items()}


class ClashError(ValueError):
    """Two types have no common type."""


def parsed(name: str) -> pl.DataType:
    """The Polars type of a type name of the oracle."""
    found = eval(name, dict(vars(pl)))  # noqa: S307 - a name of the oracle's
    return _instance(found)


def united(one: pl.DataType, other: pl.DataType) -> pl.DataType:
    """The common type of two types."""
    if one == other:
        return one
    texts = (pl.String, pl.Enum)
    if isinstance(one, texts) and isinstance(other, texts):
        return pl.String()
    if isinstance(one, pl.Struct) and isinstance(other, pl.Struct):
        fields = {field.name: field.dtype for field in one.fields}
        for field in other.fields:
            fields[field.name] = united(*map(_instance, (fields.get(field.name, field.dtype), field.dtype)))
        return pl.Struct(fields)
    nested = (pl.List, pl.Array)
    if isinstance(one, nested) and isinstance(other, nested):
        inner = united(_inner(one), _inner(other))
        same = isinstance(one, pl.Array) and isinstance(other, pl.Array) and one.size == other.size
        return pl.Array(inner, one.size) if same else pl.List(inner)
    for single, several in ((one, other), (other, one)):
        if isinstance(single, texts) and isinstance(several, pl.List) and isinstance(_inner(several), texts):
            return pl.List(pl.String())
    return _number(one, other)


def _number(one: pl.DataType, other: pl.DataType) -> pl.DataType:
    if pl.Int128() in {one, other} and one.is_integer() and other.is_integer():
        return pl.Int128()
    codes = [_NUMPY.get(type(dtype), "f8" if dtype == pl.Int128 else None) for dtype in (one, other)]
    if None in codes:
        message = f"{one} and {other}"
        raise ClashError(message)
    if "u8" in codes and any(str(code).startswith("i") for code in codes):
        return pl.Int128()
    return _POLARS[np.result_type(*map(np.dtype, codes)).str[1:]]()


def _inner(dtype: Any) -> pl.DataType:
    if isinstance(dtype, pl.Array) and len(dtype.shape) > 1:
        return pl.Array(_leaf(dtype), dtype.shape[1:])
    return _instance(dtype.inner)


def _instance(dtype: Any) -> pl.DataType:
    return dtype() if isinstance(dtype, type) else dtype


def _leaf(dtype: Any) -> pl.DataType:
    return _leaf(dtype.inner) if isinstance(dtype, pl.Array) else dtype


def fitted(value: Any, dtype: Any) -> Any:
    """A value in the common type: a single text becomes a list, a missing field null."""
    if value is None:
        return None
    if isinstance(dtype, pl.List | pl.Array):
        listed = value if isinstance(value, list) else [value]
        return [fitted(item, _inner(dtype)) for item in listed]
    if isinstance(dtype, pl.Struct):
        return {field.name: fitted(value.get(field.name), field.dtype) for field in dtype.fields}
    return value


def column(name: str, parts: Sequence[tuple[list[Any], pl.DataType | None]]) -> pl.Series:
    """One column of several files: values and types; a file without it has nulls and no type."""
    dtype = reduce(united, [dtype for _, dtype in parts if dtype is not None])
    values = [fitted(value, dtype) for rows, _ in parts for value in rows]
    return pl.Series(name, values, dtype=dtype, strict=not isinstance(dtype, pl.Float16))


class Truth:
    """Contents of several files, read by h5py.

    Parameters
    ----------
    paths : sequence of Path
        What lazynwb is given.
    twins : sequence of Path
        The same content as HDF5.
    """

    def __init__(self, paths: Sequence[Path], twins: Sequence[Path]) -> None:
        self._files = list(zip(map(str, paths), twins, strict=True))
        self._known: dict[tuple[Path, str], oracle.Table | None] = {}

    def _read(self, twin: Path, table: str) -> oracle.Table | None:
        if (twin, table) not in self._known:
            with h5py.File(twin) as file:
                there = table in file
            self._known[twin, table] = oracle.read_table(twin, table) if there else None
        return self._known[twin, table]

    def union(
        self, *tables: str, session_columns: Mapping[str, str] | None = None, lengths: bool = False
    ) -> pl.DataFrame:
        """Several tables of all files as one, by file, then by table in the order given."""
        return self._frame(
            [
                (path, table, twin, found)
                for path, twin in self._files
                for table in tables
                if (found := self._read(twin, table))
            ],
            session_columns,
            lengths=lengths,
        )

    def frame(
        self,
        table: str,
        session_columns: Mapping[str, str] | None = None,
        *,
        regions_of: str = "",
        lengths: bool = False,
    ) -> pl.DataFrame:
        """A table of all files; `regions_of` names the table whose rows its regions show.

        With `lengths`, each list column has the lengths of its rows beside it.
        """
        files = [
            (path, table, twin, found) for path, twin in self._files if (found := self._read(twin, table))
        ]
        return self._frame(files, session_columns, regions_of, lengths=lengths)

    def _frame(
        self,
        files: list[tuple[str, str, Path, oracle.Table]],
        session_columns: Mapping[str, str] | None = None,
        regions_of: str = "",
        *,
        lengths: bool = False,
    ) -> pl.DataFrame:
        series = []
        for name in sorted({name for *_, found in files for name in found.columns}):
            parts = [
                (found.columns[name], parsed(found.dtypes[name]))
                if name in found.columns
                else ([None] * found.rows, None)
                for *_, found in files
            ]
            series.append(column(name, parts))
        if regions_of:
            series = [self._resolved(one, files[0][1], regions_of) for one in series]
        if lengths:
            series = [found for one in series for found in _with_lengths(one)]
        for name, place in (session_columns or {}).items():
            series.append(self._metadata(name, place, [(twin, found.rows) for _, _, twin, found in files]))
        owners = [(path, table, row) for path, table, _, found in files for row in range(found.rows)]
        return pl.DataFrame(series).with_columns(
            pl.Series(name, [owner[place] for owner in owners], dtype=dtype)
            for place, (name, dtype) in enumerate(INTERNAL.items())
        )

    def sessions(self, tables: Mapping[str, str], metadata: Mapping[str, str]) -> pl.DataFrame:
        """A row for each file: metadata, its size, and the number of rows of tables, by names of columns."""
        columns = [
            self._metadata(n, place, [(twin, 1) for _, twin in self._files]) for n, place in metadata.items()
        ]
        sizes = [Path(path).stat().st_size if Path(path).is_file() else None for path, _ in self._files]
        columns.append(pl.Series("size", sizes, dtype=pl.Int64))
        columns.append(pl.Series("duration", [duration(twin) for _, twin in self._files], dtype=pl.Float64))
        for name, table in tables.items():
            found = [self._read(twin, table) for _, twin in self._files]
            if any(one is not None for one in found):
                counts = [one.rows if one is not None else None for one in found]
                columns.append(pl.Series(name, counts, dtype=pl.Int64))
        return pl.DataFrame([*columns, pl.Series("_nwb_path", [path for path, _ in self._files])])

    def _metadata(self, name: str, place: str, rows: list[tuple[Path, int]]) -> pl.Series:
        table, key = place.rsplit("/", 1)
        kinds = [
            parsed(found.dtypes[key])
            for _, twin in self._files
            if (found := self._read(twin, table)) and key in found.columns
        ]
        values: list[Any] = []
        for twin, count in rows:
            found = self._read(twin, table)
            values += [found.columns[key][0] if found and key in found.columns else None] * count
        return pl.Series(name, values, dtype=reduce(united, kinds))

    def _resolved(self, series: pl.Series, table: str, other: str) -> pl.Series:
        """Replace positions by rows of the target table if the column is a region."""
        holders = []
        for _, twin in self._files:
            with h5py.File(twin) as file:
                dataset = file.get(f"{table}/{series.name}")
                if dataset is not None:
                    holders.append((twin, oracle.is_region(dataset)))
        if not holders or not all(is_region for _, is_region in holders):
            return series
        fields = _scalar_fields([found for twin, _ in holders if (found := self._read(twin, other))])

        def rows(value: Any, found: oracle.Table) -> Any:
            if isinstance(value, list):
                return [rows(item, found) for item in value]
            if value is None or not 0 <= value < found.rows:
                return None
            return {
                n: fitted(found.columns[n][value], dtype) if n in found.columns else None
                for n, dtype in fields.items()
            }

        values: list[Any] = []
        at = series.to_list()
        for _, twin in self._files:
            if (found := self._read(twin, table)) is not None:
                values += [rows(value, self._read(twin, other)) for value in at[: found.rows]]  # type: ignore[arg-type]
                at = at[found.rows :]
        dtype: Any = pl.Struct(fields)
        kind: Any = series.dtype
        while isinstance(kind, pl.List):
            kind, dtype = kind.inner, pl.List(dtype)
        return pl.Series(series.name, values, dtype=dtype)


def duration(path: Path) -> float | None:
    """Return the seconds between the minimum and maximum of first and last times in a file."""
    times: list[float] = []

    def visit(name: str, found: Any) -> None:
        if not isinstance(found, h5py.Dataset):
            return
        last, group = name.rpartition("/")[2], found.parent
        if last == "starting_time":
            first, rate = float(found[()]), float(found.attrs["rate"])
            times.extend([first, first + (len(group["data"]) - 1) / rate] if len(group["data"]) else [])
        elif last in {"timestamps", "start_time", "stop_time"} and f"{last}_index" not in group:
            kind = found.dtype.kind if h5py.check_enum_dtype(found.dtype) is None else "e"
            if found.ndim == 1 and kind in "iuf" and len(found):
                times.extend([float(found[0]), float(found[len(found) - 1])])

    with h5py.File(path) as file:
        file.visititems(visit)
    finite = [time for time in times if np.isfinite(time)]
    return max(finite) - min(finite) if finite else None


def _with_lengths(series: pl.Series) -> list[pl.Series]:
    if not isinstance(series.dtype, pl.List):
        return [series]
    counts = [None if value is None else len(value) for value in series.to_list()]
    return [series, pl.Series(f"{series.name}_len", counts, dtype=pl.UInt32)]


def _scalar_fields(tables: list[oracle.Table]) -> dict[str, pl.DataType]:
    """The columns of tables without arrays, in their common types."""
    fields = {}
    for name in sorted({name for found in tables for name in found.columns}):
        kinds = [parsed(found.dtypes[name]) for found in tables if name in found.columns]
        if not any(map(_has_arrays, kinds)):
            fields[name] = reduce(united, kinds)
    return fields


def _has_arrays(dtype: Any) -> bool:
    if isinstance(dtype, pl.Struct):
        return any(_has_arrays(field.dtype) for field in dtype.fields)
    return isinstance(dtype, pl.List | pl.Array)


def metadata_frame(files: Sequence[tuple[Path, Mapping[str, Any]]], table: str) -> pl.DataFrame:
    """A metadata table of all files that have it, of values by path (`random_files.metadata`)."""
    groups = ("general/subject",) if table == "general/subject" else ("general", "")
    rows = [
        (
            str(path),
            {path.rpartition("/")[2]: v for path, v in values.items() if path.rpartition("/")[0] in groups},
        )
        for path, values in files
    ]
    rows = [(path, found) for path, found in rows if found]
    series = []
    for name in sorted({name for _, found in rows for name in found}):
        values = [found.get(name) for _, found in rows]
        inner = pl.Int64() if any(isinstance(v, int) or v in ([5], [6, 7]) for v in values) else pl.String()
        several = any(isinstance(value, list) for value in values)
        dtype: Any = pl.List(inner) if several else inner
        series.append(pl.Series(name, [fitted(value, dtype) for value in values], dtype=dtype))
    paths = [path for path, _ in rows]
    internal = (paths, [table] * len(rows), [0] * len(rows))
    return pl.DataFrame(series).with_columns(
        pl.Series(name, values, dtype=dtype)
        for (name, dtype), values in zip(INTERNAL.items(), internal, strict=True)
    )
