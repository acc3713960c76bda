"""Formats that replace a table in one transaction of their own: Delta Lake and DuckDB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import polars as pl

from lazynwb.convert.columns import (
    cast,
    distinct_ignoring_case,
    duckdb_type,
    for_delta,
    for_duckdb,
    quoted,
)
from lazynwb.errors import LazyNWBError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import duckdb

    from lazynwb.convert.files import Content, Options

#: What a batch is called while DuckDB reads it.
_BATCH = "lazynwb_batch"
#: Rows that Delta Lake's writer encodes at a time.
_MOST_AT_ONCE = 1024
#: DuckDB keeps what is not committed in memory, up to this, and the rest in a temporary file.
_DUCKDB_MEMORY = "512MiB"


def write_delta(content: Content, path: Path, options: Options, partitions: Sequence[str] = ()) -> None:
    """Replace a Delta table: readers see the old version until the new one is whole.

    Older versions stay in its folder until they are vacuumed.
    """
    from arro3.core import RecordBatchReader
    from deltalake import WriterProperties, write_deltalake

    renamed = distinct_ignoring_case(list(content.schema))

    def stored(frame: pl.LazyFrame) -> pl.LazyFrame:
        return cast(frame, content.schema, for_delta).rename(renamed)

    arguments = dict(options.arguments)
    arguments = {"schema_mode": "overwrite", **arguments.pop("delta_write_options", {}), **arguments}
    if partitions:
        arguments["partition_by"] = list(partitions)
    properties = WriterProperties(
        # Its writer holds a row group in memory, and takes a million rows for one.
        max_row_group_size=content.group_rows,
        write_batch_size=min(content.group_rows, _MOST_AT_ONCE),
        compression=(options.compression or "zstd").upper(),  # type: ignore[arg-type]
    )
    arguments = {"writer_properties": properties, **arguments}
    raised: list[BaseException] = []

    def batches() -> Iterator[Any]:
        try:
            for batch in content.batches(stored):
                yield from RecordBatchReader.from_arrow(batch)
            content.check()
        except BaseException as error:
            raised.append(error)  # what crosses deltalake comes out as an error of its own
            raise

    schema = RecordBatchReader.from_arrow(pl.DataFrame(schema=stored(content.frame).collect_schema())).schema
    try:
        write_deltalake(
            str(path), RecordBatchReader.from_batches(schema, batches()), mode="overwrite", **arguments
        )
    except BaseException:
        if raised:
            raise raised[0] from None
        raise


def has_delta(path: Path) -> bool:
    """Tell whether there is a Delta table."""
    from deltalake import DeltaTable

    return path.is_dir() and DeltaTable.is_deltatable(str(path))


class DuckDB:
    """Connections to databases, one open at a time: opening takes longer than writing a small table."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._connection: duckdb.DuckDBPyConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = self._path = None

    def _at(self, path: Path) -> duckdb.DuckDBPyConnection:
        import duckdb

        if self._connection is None or self._path != path:
            self._close()
            try:
                self._connection = duckdb.connect(str(path), config={"memory_limit": _DUCKDB_MEMORY})
                self._connection.execute("SET enable_progress_bar = false")  # it would go to stdout
            except duckdb.Error as error:
                message = f"{path} cannot be opened as a DuckDB database: {error}"
                raise LazyNWBError(message) from None
            self._path = path
        return self._connection

    def tables(self, path: Path) -> frozenset[str]:
        """Return the names of a database's tables; none where there is no database."""
        if not path.is_file():
            return frozenset()
        found = self._at(path).execute("SELECT table_name FROM duckdb_tables()").fetchall()
        return frozenset(name for (name,) in found)

    def write(self, content: Content, path: Path, name: str) -> None:
        """Replace a table of a database: readers see the old one until the new one is whole."""
        renamed = distinct_ignoring_case(list(content.schema))
        types = {renamed.get(column, column): for_duckdb(dtype) for column, dtype in content.schema.items()}
        columns = ", ".join(f"{quoted(column)} {duckdb_type(dtype)}" for column, dtype in types.items())

        def stored(frame: pl.LazyFrame) -> pl.LazyFrame:
            return cast(frame, content.schema, for_duckdb).rename(renamed)

        connection = self._at(path)
        connection.begin()
        try:
            connection.execute(f"CREATE OR REPLACE TABLE {quoted(name)} ({columns})")
            for batch in content.batches(stored):
                connection.register(_BATCH, batch)
                connection.execute(f"INSERT INTO {quoted(name)} SELECT * FROM {_BATCH}")  # noqa: S608 - quoted
                connection.unregister(_BATCH)
            content.check()
            connection.commit()
        except BaseException:
            connection.rollback()
            raise

    def drop(self, path: Path, name: str) -> None:
        """Remove a table whose session does not have it any more."""
        if path.is_file():
            self._at(path).execute(f"DROP TABLE IF EXISTS {quoted(name)}")
