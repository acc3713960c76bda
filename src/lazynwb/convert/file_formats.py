"""Formats with one file per table: Parquet, Arrow IPC, CSV, JSON and Excel."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl
from polars import selectors

from lazynwb.column_store.nan_bounds import drop_nan_bounds
from lazynwb.convert.type_mapping import as_text, distinct_ignoring_case
from lazynwb.errors import LazyNWBError, UnsupportedTypeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

#: The limits of a worksheet; one row is the header.
_SHEET_ROWS, _SHEET_COLUMNS, _CELL_CHARACTERS = 1_048_576, 16_384, 32_767
#: The largest integer up to which all integers are exact in Excel, whose numbers are doubles.
_EXACT = 2**53
#: Bytes of values per conversion to text.
_TEXT_BYTES = 8 * 1024 * 1024
_COMPRESSED = {"gzip": ".gz", "zstd": ".zst"}


class Content(NamedTuple):
    """The rows of one output, and the properties that writers require.

    Attributes
    ----------
    label : str
        Name of the table in messages.
    frame : LazyFrame
        The rows.
    schema : mapping of str to DataType
        Schema of the rows.
    rows : int
        Number of rows, if all files can be read.
    group_rows : int
        Number of rows of a row group or record batch.
    row_bytes : int
        Approximate size of a decoded row.
    check : callable
        Raises an error if rows are missing; called before the output is committed.
    tally : callable
        Counts the rows of a frame, and returns the frame.
    """

    label: str
    frame: pl.LazyFrame
    schema: Mapping[str, pl.DataType]
    rows: int
    group_rows: int
    row_bytes: int
    check: Callable[[], None]
    tally: Callable[[pl.DataFrame], pl.DataFrame]

    def counted(self) -> pl.LazyFrame:
        """Return the frame for a sink of Polars, with its rows counted as they pass."""
        return self.frame.map_batches(self.tally, streamable=True, validate_output_schema=False)

    def batches(
        self, change: Callable[[pl.LazyFrame], pl.LazyFrame] = lambda frame: frame
    ) -> Iterator[pl.DataFrame]:
        """Yield the rows in counted batches, with less memory than a sink."""
        for batch in change(self.frame).collect_batches(maintain_order=True):
            yield self.tally(batch)


class Options(NamedTuple):
    """Compression and arguments of the writer."""

    compression: str | None
    arguments: Mapping[str, Any]


class FileFormat(NamedTuple):
    """A file format: suffix, writer, and supported compressions."""

    suffix: str
    write: Callable[[Content, Path, Options], None]
    compressions: frozenset[str]
    endings: Mapping[str, str] = {}
    needs: str | None = None

    def ending(self, compression: str | None) -> str:
        """Return the suffix of files."""
        return self.suffix + self.endings.get(compression or "", "")


def _sink(sink: Callable[..., object], path: Path, how: dict[str, Any], options: Options) -> None:
    sink(path, **{**how, **options.arguments})


def _write_parquet(content: Content, path: Path, options: Options) -> None:
    how = {"compression": options.compression or "zstd", "row_group_size": content.group_rows}
    _sink(content.counted().sink_parquet, path, how, options)
    drop_nan_bounds(path)


def _write_arrow(content: Content, path: Path, options: Options) -> None:
    how = {"compression": options.compression or "uncompressed", "record_batch_size": content.group_rows}
    _sink(content.counted().sink_ipc, path, how, options)


def _write_csv(content: Content, path: Path, options: Options) -> None:
    if options.compression not in {None, "uncompressed"}:
        how = {"compression": options.compression, "check_extension": False}
        _sink(as_text(content.counted(), content.schema).sink_csv, path, how, options)
        return
    later = {"include_header": False, "include_bom": False}
    with path.open("wb") as file:
        pl.DataFrame(schema=content.schema).clear().select(pl.all().cast(pl.String)).write_csv(
            file, **options.arguments
        )
        for part in _parts(content):
            text = as_text(part.lazy(), content.schema).collect()
            text.write_csv(file, **{**options.arguments, **later})


def _write_ndjson(content: Content, path: Path, options: Options) -> None:
    if options.compression not in {None, "uncompressed"}:
        how = {"compression": options.compression, "check_extension": False}
        _sink(content.counted().sink_ndjson, path, how, options)
        return
    with path.open("wb") as file:
        for part in _parts(content):
            part.write_ndjson(file, **options.arguments)


def _write_json(content: Content, path: Path, options: Options) -> None:
    """Write an array of objects."""
    with path.open("wb") as file:
        file.write(b"[")
        for number, part in enumerate(_parts(content)):
            file.write(b",\n" if number else b"")
            file.write(memoryview(part.write_json(**options.arguments).encode())[1:-1])
        file.write(b"]\n")


def _parts(content: Content) -> Iterator[pl.DataFrame]:
    """Yield the rows in parts whose text, which is several times as large, fits into memory."""
    for batch in content.batches():
        count = max(1, -(-int(batch.estimated_size()) // _TEXT_BYTES))
        yield from batch.iter_slices(max(1, -(-batch.height // count)))


def _write_excel(content: Content, path: Path, options: Options) -> None:
    """Write a worksheet.

    Raises
    ------
    LazyNWBError
        If the rows, columns or characters of a cell exceed the limits of Excel.
    """
    if content.rows >= _SHEET_ROWS or len(content.schema) > _SHEET_COLUMNS:
        raise LazyNWBError(
            f"{content.label} has {content.rows} rows and {len(content.schema)} columns, but a worksheet "
            f"has at most {_SHEET_ROWS - 1} rows below its header and {_SHEET_COLUMNS} columns: use "
            "output_format='parquet'"
        )
    frame = as_text(content.counted(), content.schema).collect()
    frame = frame.with_columns(*_exact(frame), selectors.enum().cast(pl.String))
    for column in frame.select(selectors.string()).iter_columns():
        longest = column.str.len_chars().max()
        if isinstance(longest, int) and longest > _CELL_CHARACTERS:
            hint = (
                "exclude_array_columns=True" if content.schema[column.name].is_nested() else "another format"
            )
            raise UnsupportedTypeError(
                f"column {column.name!r} of {content.label} has a value of {longest} characters, but a cell "
                f"of Excel has at most {_CELL_CHARACTERS}: use {hint}"
            )
    from xlsxwriter import Workbook

    plain = {"strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
    frame = frame.rename(distinct_ignoring_case(frame.columns))
    with Workbook(path, {**plain, "nan_inf_to_errors": True}) as workbook:
        frame.write_excel(workbook, **options.arguments)


def _exact(frame: pl.DataFrame) -> list[pl.Expr]:
    """Convert integer columns to text if a double does not represent them exactly."""
    wide = [c for c in frame.iter_columns() if c.dtype in {pl.Int64, pl.UInt64}]
    return [
        selectors.by_name(c.name).cast(pl.String)
        for c in wide
        if c.len() > c.null_count() and (c.max() > _EXACT or c.min() < -_EXACT)  # type: ignore[operator]
    ]


_PARQUET = frozenset({"zstd", "snappy", "gzip", "lz4", "brotli", "uncompressed"})
_ARROW = frozenset({"zstd", "lz4", "uncompressed"})
_TEXT = frozenset({"zstd", "gzip", "uncompressed"})
_NONE = frozenset({"uncompressed"})

FORMATS = {
    "parquet": FileFormat(".parquet", _write_parquet, _PARQUET),
    "arrow": FileFormat(".arrow", _write_arrow, _ARROW),
    "feather": FileFormat(".feather", _write_arrow, _ARROW),
    "csv": FileFormat(".csv", _write_csv, _TEXT, _COMPRESSED),
    "json": FileFormat(".json", _write_json, _NONE),
    "ndjson": FileFormat(".ndjson", _write_ndjson, _TEXT, _COMPRESSED),
    "excel": FileFormat(".xlsx", _write_excel, _NONE, needs="xlsxwriter"),
}


def is_installed(package: str) -> bool:
    """Return whether a package that a format needs can be imported."""
    return importlib.util.find_spec(package) is not None
