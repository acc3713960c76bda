"""Parts: immutable Parquet files with the small columns of many sessions, verified before use.

Polars does not verify Parquet files: most flipped bits result in wrong values. A checksum of each column
chunk is therefore stored separately, and Polars scans a verified copy in memory. The copy has the size of the
file, but only requested chunks are filled; unwritten memory pages are not allocated.
"""

from __future__ import annotations

import os
from io import BytesIO
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Protocol

import deflate
import msgspec
import polars as pl
from polars import selectors

from lazynwb.column_store.footer import row_groups
from lazynwb.errors import CorruptDataError
from lazynwb.profile import count

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

#: The column with the position of each row's session in the part; no stored column of a file has this name.
SESSION = "_lazynwb_session"
#: Number of rows of a row group, which a query on a few sessions decodes.
ROW_GROUP_ROWS = 64 * 1024
#: Level of zstd for published parts. Parts of the column store are compressed with lz4: they are 5 % to 10 %
#: larger, but take half of the CPU time to write, and a third to read.
_PUBLISHED_LEVEL = 3
#: Ranges with smaller gaps are coalesced.
_GAP = 16 * 1024
#: Fraction of a part above which the whole file is read.
_WHOLE_SHARE = 0.9
#: Whole parts are read into buffers of multiples of this size. The sizes of parts differ by some bytes: with
#: buffers of just these sizes, freed memory is often too small for the next part, and that of several stays.
_READ_STEP = 1024 * 1024
#: Minimum size of allocations that all C libraries request from the operating system as zero pages, of which
#: only written pages take time and space.
_FRESH_BYTES = 32 * 1024 * 1024 + 1


class PartFile(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Locations and checksums of the column chunks of a part.

    Attributes
    ----------
    size : int
        Size of the file in bytes.
    decoded : int
        Decoded size of the rows in bytes.
    columns : tuple of str
        Columns in the order of the file.
    rows : tuple of int
        Number of rows of each row group.
    bounds : tuple of int
        First byte of each chunk, by row group, and the byte past the last chunk; chunks are contiguous.
    checksums : tuple of int
        CRC-32 of each chunk.
    frame_checksum : int
        CRC-32 of the bytes before the first chunk and after the last one (the footer).
    """

    size: int
    decoded: int
    columns: tuple[str, ...]
    rows: tuple[int, ...]
    bounds: tuple[int, ...]
    checksums: tuple[int, ...]
    frame_checksum: int

    def check(self) -> None:
        """Raise CorruptDataError if the description is inconsistent."""
        chunks = len(self.rows) * len(self.columns)
        ends = (0, *self.bounds, self.size)
        if (
            len(self.bounds) != chunks + 1
            or len(self.checksums) != chunks
            or any(start > stop for start, stop in pairwise(ends))
            or min(self.rows, default=0) < 0
        ):
            raise CorruptDataError("the description of a part is inconsistent")


class PartBytes(Protocol):
    """The bytes of a part in any storage."""

    def read(self, size: int) -> bytes:
        """Return the whole file, whose size is given; see `read_into` for errors."""
        ...

    def read_into(self, view: memoryview, ranges: Sequence[tuple[int, int]]) -> None:
        """Read ranges of the file into the same ranges of a view of the size of the file.

        Raises
        ------
        OSError
            If the file cannot be read.
        CorruptDataError
            If the size of the file differs.
        """
        ...


class LocalPart:
    """A part in the file system.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, size: int) -> bytes:
        """Return the whole file; see `PartBytes`."""
        with self._path.open("rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size != size:
                raise CorruptDataError("the size of a part has changed")
            data = file.read(size - size % _READ_STEP + _READ_STEP)
            if len(data) < size:  # a read may be short
                data += file.readall()
        if len(data) != size:
            raise CorruptDataError("the size of a part has changed")
        count(bytes_stored=size)
        return data

    def read_into(self, view: memoryview, ranges: Sequence[tuple[int, int]]) -> None:
        """Read ranges of the file; see `PartBytes`."""
        with self._path.open("rb", buffering=0) as file:
            for start, stop in coalesce(ranges, _GAP):
                file.seek(start)
                _read_into(file, view[start:stop])
                count(bytes_stored=stop - start)
            if file.read(1):
                raise CorruptDataError("the size of a part has increased")


def write_part(frame: pl.DataFrame, *, is_published: bool = False) -> tuple[bytes, PartFile]:
    """Encode rows as a Parquet file in memory, and return its description.

    The stored values are bitwise equal to those of the frame, for all types of columns.

    Parameters
    ----------
    frame : DataFrame
    is_published : bool
        Whether other engines read the file; see `nan_bounds`.
    """
    stream = BytesIO()
    frame.write_parquet(
        stream,
        compression="zstd" if is_published else "lz4",
        compression_level=_PUBLISHED_LEVEL if is_published else None,
        row_group_size=ROW_GROUP_ROWS,
        # Polars does not skip row groups by floating-point columns, so NaN has no effect.
        statistics=True,
    )
    if is_published:
        from lazynwb.column_store.nan_bounds import drop_nan_bounds_of

        drop_nan_bounds_of(stream, frame)
    data = stream.getvalue()
    groups = row_groups(data)
    columns = tuple(frame.columns)
    chunks = [chunk for group in groups for chunk in group.chunks]
    if any(tuple(name for name, _, _ in group.chunks) != columns for group in groups):
        raise CorruptDataError("Parquet columns in another order than written")
    # A gap between chunks is part of the previous chunk.
    bounds = [start for _, start, _ in chunks] + [max((stop for *_, stop in chunks), default=4)]
    view = memoryview(data)
    return data, PartFile(
        len(data),
        int(frame.estimated_size()),
        columns,
        tuple(group.rows for group in groups),
        tuple(bounds),
        tuple(deflate.crc32(view[start:stop]) for start, stop in pairwise(bounds)),
        _frame_checksum(view, bounds[0], bounds[-1]),
    )


def _frame_checksum(view: memoryview, start: int, stop: int) -> int:
    return int(deflate.crc32(bytes(view[:start]) + bytes(view[stop:])))


def scan_part(
    source: PartBytes,
    file: PartFile,
    columns: Collection[str],
    ranges: Sequence[tuple[int, int]],
) -> pl.LazyFrame:
    """Return a scan of some columns of a part, whose bytes have been verified.

    The file is neither open nor mapped afterwards.

    Parameters
    ----------
    source : PartBytes
    file : PartFile
    columns : collection of str
        Columns of the part, at least one.
    ranges : sequence of (start, stop)
        Ascending ranges of rows. All rows of their row groups are returned.

    Raises
    ------
    OSError
        If the file cannot be read.
    CorruptDataError
        If the file is damaged.
    """
    groups = _groups_of(file.rows, ranges)
    names = [name for name in file.columns if name in columns]
    data = read_part(source, file, names, groups)
    # Not by plain names: Polars takes "*" and "^...$" for patterns.
    frame = pl.scan_parquet(data, glob=False, low_memory=False).select(selectors.by_name(*names))
    ends = [0, *accumulate(file.rows)]
    if len(groups) == len(file.rows):
        return frame
    runs = [frame.slice(ends[first], ends[last + 1] - ends[first]) for first, last in _runs(groups)]
    return pl.concat(runs) if runs else frame.clear()


def scan_parts(
    copies: Sequence[bytes], dtypes: Mapping[str, pl.DataType], row_number: str | None = None
) -> pl.LazyFrame:
    """Return one scan of the same columns of several parts, which is faster than separate scans.

    Parameters
    ----------
    copies : sequence of bytes
        Copies of all row groups of parts; see `read_part`.
    dtypes : mapping of str to DataType
        Columns with their types, which are equal in all parts.
    row_number : str or None
        Name of a column with the row number over all parts.
    """
    return pl.scan_parquet(
        list(copies),
        glob=False,
        low_memory=False,
        schema=dict(dtypes),
        extra_columns="ignore",
        row_index_name=row_number,
    )


def _groups_of(rows: Sequence[int], ranges: Sequence[tuple[int, int]]) -> list[int]:
    """Return the numbers of the row groups that overlap with ranges of rows."""
    found = []
    at = 0
    for number, (start, stop) in enumerate(pairwise((0, *accumulate(rows)))):
        while at < len(ranges) and ranges[at][1] <= start:
            at += 1
        if at < len(ranges) and ranges[at][0] < stop:
            found.append(number)
    return found


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last of each run of consecutive numbers."""
    run: tuple[int, int] | None = None
    for number in numbers:
        if run is not None and number == run[1] + 1:
            run = run[0], number
            continue
        if run is not None:
            yield run
        run = number, number
    if run is not None:
        yield run


def read_part(
    source: PartBytes, file: PartFile, columns: Collection[str], groups: Sequence[int] | None = None
) -> bytes:
    """Return a verified copy of a part with the chunks of some columns and row groups, and zeros elsewhere.

    Parameters
    ----------
    source : PartBytes
    file : PartFile
    columns : collection of str
        Columns of the part; names that it lacks are ignored.
    groups : sequence of int or None
        Numbers of row groups; None for all.

    Raises
    ------
    OSError
        If the file cannot be read.
    CorruptDataError
        If the file is damaged.
    """
    width = len(file.columns)
    places = [place for place, name in enumerate(file.columns) if name in columns]
    listed = range(len(file.rows)) if groups is None else groups
    numbers = [group * width + place for group in listed for place in places]
    start, stop = file.bounds[0], file.bounds[-1]
    ranges = [(file.bounds[number], file.bounds[number + 1]) for number in numbers]
    if sum(last - first for first, last in ranges) >= file.size * _WHOLE_SHARE:
        data = source.read(file.size)
        _check(memoryview(data), file, numbers)
        return data
    # The copy is padded with zeros at the start if required: the footer is at the end, and its offsets count
    # from the start of the file.
    stream = BytesIO(bytes(max(file.size, _FRESH_BYTES)))  # the bytes have no other owner and are not copied
    with stream.getbuffer() as whole, whole[: file.size] as view:
        source.read_into(view, [(0, start), *ranges, (stop, file.size)])
        _check(view, file, numbers)
        whole[len(whole) - (file.size - stop) :] = bytes(view[stop:])
    return stream.getvalue()


def _check(view: memoryview, file: PartFile, numbers: Sequence[int]) -> None:
    """Compare the footer of a part and some of its chunks, by their numbers, with their checksums."""
    if _frame_checksum(view, file.bounds[0], file.bounds[-1]) != file.frame_checksum:
        raise CorruptDataError("the checksum of a part's footer does not fit")
    for number in numbers:
        if deflate.crc32(view[file.bounds[number] : file.bounds[number + 1]]) != file.checksums[number]:
            name = file.columns[number % len(file.columns)]
            raise CorruptDataError(f"the checksum of column {name!r} does not fit")


def coalesce(ranges: Sequence[tuple[int, int]], gap: int) -> list[tuple[int, int]]:
    """Merge ascending ranges with gaps of at most some bytes."""
    merged: list[tuple[int, int]] = []
    for start, stop in ranges:
        if merged and start - merged[-1][1] <= gap:
            merged[-1] = merged[-1][0], stop
        else:
            merged.append((start, stop))
    return merged


def _read_into(source: object, view: memoryview) -> None:
    done = 0
    while done < len(view):
        got = source.readinto(view[done:])  # type: ignore[attr-defined]
        if not got:
            raise CorruptDataError("a part is truncated")
        done += got
