"""Formats with transactions: Delta Lake and DuckDB."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote

import msgspec
import polars as pl

from lazynwb.convert.manifest import staging_folder
from lazynwb.convert.type_mapping import (
    cast,
    distinct_ignoring_case,
    duckdb_type,
    for_delta,
    for_duckdb,
    literal,
    quoted,
)
from lazynwb.errors import LazyNWBError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import duckdb
    from deltalake.transaction import AddAction

    from lazynwb.convert.file_formats import Content, Options

#: Names of the database and of the rows for it in DuckDB's SQL.
_DATABASE, _ROWS = "lazynwb_output", "lazynwb_rows"
#: Bytes of values per call of Delta Lake's writer, which collects its input.
DELTA_BYTES = 64 * 1024 * 1024
#: Number of rows that the writer encodes at a time.
_MAX_AT_ONCE = 1024
#: Arguments of the Delta table and of its commit, not of its files.
_OF_TABLE = frozenset({"name", "description", "configuration"})
_OF_COMMIT = frozenset({"commit_properties", "post_commithook_properties"})
#: Memory limit of DuckDB in addition to the rows of one vector.
_DUCKDB_BYTES = 512 * 1024 * 1024
#: Rows of a vector, which is the minimum of a row group, and default rows of a row group.
_VECTOR_ROWS, _DUCKDB_GROUP_ROWS = 2048, 122_880
#: Copies of a row group in memory while it is written.
_COPIES = 2


def write_delta(content: Content, path: Path, options: Options, partitions: Sequence[str] = ()) -> None:
    """Replace a Delta table; readers see the old version until the new one is committed.

    Older versions stay in its folder until they are vacuumed. The files are written beside the table, in
    parts because deltalake collects its input, then moved and committed in one transaction.
    """
    from deltalake import DeltaTable
    from deltalake.transaction import create_table_with_add_actions

    arguments = delta_arguments(options.arguments)
    of_table = {name: value for name, value in arguments.items() if name in _OF_TABLE}
    of_commit = {name: arguments.pop(name) for name in _OF_COMMIT & arguments.keys()}
    with staging_folder(path) as staged:
        _stage(content, staged, arguments, options.compression, partitions)
        content.check()
        added = list(_log_entries(staged))
        path.mkdir(exist_ok=True)
        for action in added:
            target = path / action.path
            target.parent.mkdir(exist_ok=True)
            (staged / action.path).replace(target)
        # Moved files stay after an error, which may be raised after the commit. Readers ignore files of no
        # version of the table, and vacuum removes them.
        create_table_with_add_actions(
            str(path),
            DeltaTable(str(staged)).schema(),
            added,
            mode="overwrite",
            partition_by=list(partitions),
            **of_table,
            **of_commit,
        )


def delta_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the user's arguments for deltalake, without those that equal the defaults.

    Raises
    ------
    ValueError
        If they request another mode than the replacement of the table.
    """
    found = dict(arguments)
    found = {**found.pop("delta_write_options", {}), **found}  # as in `write_delta` of Polars
    for name in ("mode", "schema_mode"):
        if found.pop(name, "overwrite") != "overwrite":
            raise ValueError(f"a Delta table is replaced as a whole: leave out {name}")
    for name in ("predicate", "partition_by"):
        if name in found:
            raise ValueError(f"a Delta table is replaced as a whole: leave out {name}")
    return found


def _stage(
    content: Content,
    folder: Path,
    arguments: Mapping[str, Any],
    compression: str | None,
    partitions: Sequence[str],
) -> None:
    """Write the rows as a Delta table in parts."""
    from deltalake import WriterProperties, write_deltalake

    renamed = distinct_ignoring_case(list(content.schema))

    def stored(frame: pl.LazyFrame) -> pl.LazyFrame:
        return cast(frame, content.schema, for_delta).rename(renamed)

    properties = WriterProperties(
        # The writer keeps a row group in memory, which has a million rows by default.
        max_row_group_size=content.group_rows,
        write_batch_size=min(content.group_rows, _MAX_AT_ONCE),
        compression=(compression or "zstd").upper(),  # type: ignore[arg-type]
    )
    how = {"writer_properties": properties, **arguments, "partition_by": list(partitions) or None}
    empty = pl.DataFrame(schema=stored(content.frame).collect_schema())
    write_deltalake(str(folder), empty, mode="append", **how)
    how = {name: value for name, value in how.items() if name not in _OF_TABLE}
    buffered: list[pl.DataFrame] = []
    for batch in content.batches(stored):
        buffered.append(batch)
        while len(buffered) > 1 and sum(part.estimated_size() for part in buffered) > DELTA_BYTES:
            # All but the last one, which may be incomplete.
            write_deltalake(str(folder), pl.concat(buffered[:-1]), mode="append", **how)
            del buffered[:-1]
    if buffered:
        write_deltalake(str(folder), pl.concat(buffered), mode="append", **how)


def _log_entries(folder: Path) -> Iterator[AddAction]:
    """Yield the log entries of the files of a Delta table without removals."""
    from deltalake.transaction import AddAction

    for log in sorted((folder / "_delta_log").glob("*.json")):
        for line in log.read_bytes().splitlines():
            add = msgspec.json.decode(line).get("add")
            if add is not None:
                yield AddAction(
                    unquote(add["path"]),
                    add["size"],
                    add["partitionValues"],
                    add["modificationTime"],
                    True,  # noqa: FBT003 - dataChange
                    add["stats"],
                )


def has_delta(path: Path) -> bool:
    """Return whether a folder is a Delta table."""
    from deltalake import DeltaTable

    return path.is_dir() and DeltaTable.is_deltatable(str(path))


class DuckDB:
    """A reusable connection to one database: opening takes longer than writing a small table."""

    def __init__(self) -> None:
        self._opened: tuple[Path, int] | None = None
        self._connection: duckdb.DuckDBPyConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = self._opened = None

    def _at(self, path: Path, group_rows: int | None = None) -> duckdb.DuckDBPyConnection:
        """Return a connection to a database with a given size of new row groups."""
        import duckdb

        opened = self._opened
        if (
            self._connection is None
            or opened is None
            or opened[0] != path
            or group_rows not in {None, opened[1]}
        ):
            self._close()
            rows = group_rows or _DUCKDB_GROUP_ROWS
            # Each additional thread needs memory for its own row groups.
            config: dict[str, Any] = {"threads": 1, "temp_directory": f"{path}.tmp"}
            try:
                self._connection = duckdb.connect(config=config)
                # A progress bar would print to stdout. It is off, and cannot be set, in a notebook without
                # ipywidgets.
                setting = self._connection.execute("SELECT current_setting('enable_progress_bar')").fetchone()
                if setting != (False,):
                    self._connection.execute("SET enable_progress_bar = false")
                self._connection.execute(
                    f"ATTACH {literal(str(path.absolute()))} AS {_DATABASE} (ROW_GROUP_SIZE {rows})"
                )
                self._connection.execute(f"USE {_DATABASE}")
            except duckdb.Error as error:
                self._close()
                raise LazyNWBError(f"{path} cannot be opened as a DuckDB database: {error}") from None
            self._opened = path, rows
        return self._connection

    def tables(self, path: Path) -> frozenset[str]:
        """Return the names of the tables of a database; nothing if it does not exist."""
        if not path.is_file():
            return frozenset()
        found = self._at(path).execute("SELECT table_name FROM duckdb_tables()").fetchall()
        return frozenset(name for (name,) in found)

    def write(self, content: Content, path: Path, name: str) -> None:
        """Replace a table of a database; readers see the old one until the new one is committed.

        All rows are inserted by one statement, so that DuckDB writes row groups to the file as they fill.
        Rows of several statements in a transaction stay in memory until it is committed.
        """
        import duckdb

        renamed = distinct_ignoring_case(list(content.schema))
        types = {renamed.get(column, column): for_duckdb(dtype) for column, dtype in content.schema.items()}
        columns = ", ".join(f"{quoted(column)} {duckdb_type(dtype)}" for column, dtype in types.items())

        def stored(frame: pl.LazyFrame) -> pl.LazyFrame:
            return cast(frame, content.schema, for_duckdb).rename(renamed)

        group_rows = None
        if content.rows > _VECTOR_ROWS:  # fewer rows are a single row group
            group_rows = _DUCKDB_GROUP_ROWS if content.group_rows >= _DUCKDB_GROUP_ROWS else _VECTOR_ROWS
        connection = self._at(path, group_rows)
        vector = content.row_bytes * min(_VECTOR_ROWS, content.rows)
        connection.execute(f"SET memory_limit = '{max(_DUCKDB_BYTES, _COPIES * vector)}B'")
        raised: list[BaseException] = []
        connection.begin()
        try:
            connection.execute(f"CREATE OR REPLACE TABLE {quoted(name)} ({columns})")
            connection.register(_ROWS, _reader(pl.DataFrame(schema=types), content.batches(stored), raised))
            connection.execute(f"INSERT INTO {quoted(name)} SELECT * FROM {_ROWS}")  # noqa: S608 - quoted
            content.check()
            connection.commit()
        except BaseException:
            with suppress(duckdb.Error):  # after a disk error, the transaction no longer exists
                connection.rollback()
            if raised:
                raise raised[0] from None
            raise
        finally:
            connection.unregister(_ROWS)

    def drop(self, path: Path, name: str) -> None:
        """Remove a table that a session no longer has."""
        if path.is_file():
            self._at(path).execute(f"DROP TABLE IF EXISTS {quoted(name)}")


def _reader(empty: pl.DataFrame, batches: Iterator[pl.DataFrame], raised: list[BaseException]) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Return frames as an Arrow stream; append errors to the list, because libraries lose their type."""
    import pyarrow as pa  # type: ignore[import-untyped]

    def parts() -> Iterator[Any]:
        try:
            for batch in batches:
                yield from batch.to_arrow().to_batches()
        except BaseException as error:
            raised.append(error)
            raise

    return pa.RecordBatchReader.from_batches(empty.to_arrow().schema, parts())
