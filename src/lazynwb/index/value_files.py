"""Value files of an index: verified Parquet files with the values of many sessions."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from lazynwb.catalog.dtypes import INTERNAL, ROWS, TABLE_INDEX
from lazynwb.catalog.merge import nulls
from lazynwb.column_store.parts import SESSION, LocalPart, coalesce, read_part, scan_part, scan_parts
from lazynwb.column_store.reading import collect_filtered
from lazynwb.config import config
from lazynwb.errors import CorruptDataError, SourceNotFoundError
from lazynwb.index.location import damaged_error, read_untrusted
from lazynwb.profile import count

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lazynwb.index.location import Folder
    from lazynwb.index.manifest import TableValues, ValueFile

#: Maximum size of a value file, because an index is not trusted.
_MAX_FILE_BYTES = 1024 * 1024 * 1024
#: Number of windows without a filter that are as large as a batch.
_UNFILTERED_WINDOWS = 8
#: Ranges of a remote file with smaller gaps are coalesced.
_COALESCE_GAP = 256 * 1024


def check_part(folder: Folder, values: TableValues, file: ValueFile) -> None:
    """Check the description of a value file in a manifest.

    Raises
    ------
    CorruptDataError
        If the description is inconsistent.
    """
    part = file.part
    try:
        part.check()
    except CorruptDataError as error:
        raise damaged_error(folder, file.name, error) from None
    if (
        part.size > _MAX_FILE_BYTES
        or sum(part.rows) != file.rows
        or not {SESSION, *INTERNAL} <= set(part.columns)
        or part.columns != tuple(name for name, _ in values.schema)
    ):
        raise damaged_error(folder, file.name, "its description in the manifest is inconsistent")


class FolderPart:
    """The bytes of a file of an index; see `lazynwb.column_store.parts.PartBytes`.

    Parameters
    ----------
    folder : Folder
    file : ValueFile
    """

    def __init__(self, folder: Folder, file: ValueFile) -> None:
        self._folder = folder
        self._file = file

    def read(self, size: int) -> bytes:
        """Return the whole file."""
        data = self._folder.read(self._file.name, 0, size)
        if len(data) != size:
            raise CorruptDataError("it is shorter than it was")
        count(bytes_stored=size)
        return bytes(data)

    def read_into(self, view: memoryview, ranges: Sequence[tuple[int, int]]) -> None:
        """Read ranges of the file into the same ranges of a view."""
        if not self._folder.is_remote:
            try:
                LocalPart(Path(self._folder.address(self._file.name))).read_into(view, ranges)
            except FileNotFoundError as error:
                raise SourceNotFoundError(f"index {self._folder.name}: {error}") from None
            return
        spans = coalesce(ranges, _COALESCE_GAP)
        for (start, stop), data in zip(spans, self._folder.read_ranges(self._file.name, spans), strict=True):
            if len(data) != stop - start:
                raise CorruptDataError("it is truncated")
            view[start:stop] = data
            count(bytes_stored=len(data))


class ValueFiles:
    """The value files of one table, as a source of rows.

    Parameters
    ----------
    folder : Folder
    values : TableValues
        Values of the table.
    """

    def __init__(self, folder: Folder, values: TableValues) -> None:
        self._folder = folder
        self._values = values
        self._dtypes = values.dtypes

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """The schema of `batches`, without the first column of the files, which is internal."""
        return {ROWS: pl.Null(), **{name: dtype for name, dtype in self._dtypes.items() if name != SESSION}}

    def batches(
        self, with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None
    ) -> Iterator[pl.DataFrame]:
        """Yield the rows of all files; see `lazynwb.engine.batches.run`, and `rows` for errors."""
        schema = self.schema
        names = list(schema) if with_columns is None else with_columns
        roots = [] if predicate is None else predicate.meta.root_names()
        stored = [name for name in dict.fromkeys((*names, *roots)) if name != ROWS]
        if predicate is not None and not stored:
            stored = [TABLE_INDEX]  # any column provides the number of rows
        rows = sum(file.rows for file in self._values.files)
        limit = rows if n_rows is None else min(rows, n_rows)
        if limit and not stored:
            yield nulls(ROWS, pl.Null(), limit).to_frame()
            return
        is_empty = True
        # The rows that a filter leaves of several files are few. Without a filter, windows are small: Polars
        # aggregates the rows of one, and releases them, before it asks for the next.
        max_bytes = config.batch_bytes // (_UNFILTERED_WINDOWS if predicate is None else 1)
        for files, rows in _windows(self._values.files, len(stored), limit, max_bytes):
            frame = self._read_window(files, stored, rows, predicate)
            if len(frame):
                if ROWS in names:
                    frame = frame.with_columns(nulls(ROWS, pl.Null(), len(frame)))
                yield frame if frame.columns == names else frame[names]
                is_empty = False
        if is_empty:
            yield pl.DataFrame(schema={name: schema[name] for name in names})

    def rows(
        self, file: ValueFile, names: Sequence[str], rows: int, predicate: pl.Expr | None = None
    ) -> pl.DataFrame:
        """Return rows of a file, after verification of the checksums of all bytes read.

        Parameters
        ----------
        file : ValueFile
        names : sequence of str
            Columns to read.
        rows : int
            Number of rows to read from the start of the file.
        predicate : Expr or None
            Filter of these rows.

        Raises
        ------
        SourceNotFoundError
            If the file does not exist.
        CorruptDataError
            If it is damaged.
        """
        check_part(self._folder, self._values, file)
        source = FolderPart(self._folder, file)
        read = partial(read_untrusted, self._folder, file.name)
        try:
            scan = read(lambda: scan_part(source, file.part, names, [(0, rows)]))
        except CorruptDataError as error:
            raise damaged_error(self._folder, file.name, error) from None
        if rows < file.rows:  # a filter is not pushed down past a slice
            scan = scan.head(rows)
        filters = [] if predicate is None else [predicate]
        return collect_filtered(scan, filters, None, read, partial(self._check_types, file))

    def _read_window(
        self, files: Sequence[ValueFile], names: Sequence[str], rows: int, predicate: pl.Expr | None
    ) -> pl.DataFrame:
        """Return rows of several files, which Polars reads at once if they are read whole; see `rows`."""
        if len(files) > 1 and rows == sum(file.rows for file in files):
            try:
                return read_untrusted(
                    self._folder, files[0].name, lambda: self._read_at_once(files, names, predicate)
                )
            except CorruptDataError:
                pass  # in one of the files, or the predicate fails: they are read one by one
        frames = []
        for file in files:
            own = min(rows, file.rows)
            frames.append(self.rows(file, names, own, predicate))
            rows -= own
        return pl.concat(frames) if len(frames) > 1 else frames[0]

    def _read_at_once(
        self, files: Sequence[ValueFile], names: Sequence[str], predicate: pl.Expr | None
    ) -> pl.DataFrame:
        for file in files:
            check_part(self._folder, self._values, file)
        copies = [read_part(FolderPart(self._folder, file), file.part, names) for file in files]
        stored = {name: dtype for name, dtype in self._dtypes.items() if name in names}
        scan = scan_parts(copies, stored)
        frame = (scan if predicate is None else scan.filter(predicate)).collect()
        self._check_types(files[0], frame)
        return frame

    def _check_types(self, file: ValueFile, frame: pl.DataFrame) -> None:
        """Raise CorruptDataError if the types of columns differ from those in the manifest."""
        if any(self._dtypes[name] != dtype for name, dtype in frame.schema.items()):
            reason = "the types of its columns differ from those in the manifest"
            raise damaged_error(self._folder, file.name, reason)


def _windows(
    files: Sequence[ValueFile], width: int, limit: int, max_bytes: int
) -> Iterator[tuple[list[ValueFile], int]]:
    """Divide files into windows of limited size.

    Parameters
    ----------
    files : sequence of ValueFile
    width : int
        Number of columns to read.
    limit : int
        Number of rows to read.
    max_bytes : int
        Maximum decoded size of a window of several files.

    Yields
    ------
    list of ValueFile
    int
        Number of rows to read of them.
    """
    window: list[ValueFile] = []
    rows = weight = 0
    for file in files:
        if rows >= limit:
            break
        own = max(file.part.decoded, file.part.size) * width // max(len(file.part.columns), 1)
        if window and weight + own > max_bytes:
            yield window, rows
            limit -= rows
            window, rows, weight = [], 0, 0
        window.append(file)
        rows += file.rows
        weight += own
    if window:
        yield window, min(rows, limit)
