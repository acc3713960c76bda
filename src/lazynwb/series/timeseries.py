"""TimeSeries objects: lazy data and timestamps of one file, and windows in time."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from lazynwb.arrays.row_selection import expand as expand_ranges
from lazynwb.arrays.row_selection import to_ranges
from lazynwb.arrays.sorted_search import AscendingRows
from lazynwb.config import config
from lazynwb.engine.timestamps import block_rows_of, first_regular, has_few_zones, make_zone_map
from lazynwb.errors import (
    ColumnNotFoundError,
    CorruptDataError,
    LazyNWBError,
    NotAscendingError,
    TableNotFoundError,
    UnsupportedTypeError,
)
from lazynwb.lookup.loader import TableFile, load_listing, load_table
from lazynwb.lookup.names import find_table
from lazynwb.series import conversion
from lazynwb.series.arrays import LazyArray, RegularTimes, ScaledArray, samples_of
from lazynwb.series.info import SeriesInfo
from lazynwb.storage.remote_state import save
from lazynwb.storage.resolve import expand
from lazynwb.terminal_text import visible

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl
    import xarray as xr

    from lazynwb.catalog.model import Array
    from lazynwb.catalog.zone_map import ZoneMap
    from lazynwb.storage.resolve import PathOrUrl
    from lazynwb.storage.source import Source

#: Maximum size of the timestamps that `between` reads as a whole, in local and in remote files.
_MAX_READ_LOCAL, _MAX_READ_REMOTE = 256 * 1024 * 1024, 32 * 1024 * 1024
#: Number of timestamps that are compared at a time.
_COMPARED_ROWS = 2_000_000


def rows_between(
    file: TableFile, array: Array, start: float, stop: float, *, assume_ascending: bool
) -> tuple[int, int]:
    """Return the range of rows (first, stop) with `start <= time < stop`.

    Parameters
    ----------
    file : TableFile
        The series.
    array : Array
        Stored timestamps in seconds.
    start, stop : float
        Window in seconds.
    assume_ascending : bool
        Whether to use binary search for timestamps without a zone map.

    Raises
    ------
    NotAscendingError
        If the rows are not consecutive; or if checking that requires reading too many timestamps.
    UnsupportedTypeError
        If the type of the timestamps is not numeric.
    """
    if array.dtype.kind == "unsupported":
        raise UnsupportedTypeError(f"{file.name}: /{array.path} cannot be read: {array.dtype.note}")
    times = samples_of(file, array)
    if times.dtype.kind not in "iuf" or times.ndim != 1:
        raise UnsupportedTypeError(
            f"{times.file}: {times.path} cannot be times: {times.ndim}-dimensional {times.dtype}"
        )
    window = np.float64(start), np.float64(stop)  # NumPy would round Python numbers to float32
    zones = file.zone_map(array) if array.shape else None
    if zones is None and array.shape and not has_few_zones(array):
        if assume_ascending:
            return _search_window(times, array, window)
        if times.nbytes > (_MAX_READ_REMOTE if file.source.is_remote else _MAX_READ_LOCAL):
            raise NotAscendingError(
                f"{times.file}: {times.path}: it is not known whether the {len(times):,} timestamps ascend, "
                f"and checking requires reading {times.nbytes / 2**20:,.0f} MiB: pass assume_ascending=True "
                "to search them without a check, or filter lazynwb.scan_nwb(...) by timestamps, which reads "
                "all of them once; after that, between() is exact and fast"
            )
        zones = make_zone_map(file, array)
    return _match_window(times, zones, window)


def _search_window(times: LazyArray, array: Array, window: tuple[np.float64, np.float64]) -> tuple[int, int]:
    """Return the rows of a window by binary search, assuming that timestamps ascend."""

    def read(ranges: np.ndarray) -> np.ndarray:
        parts = times[expand_ranges(ranges)] if len(ranges) > 1 else times[ranges[0, 0] : ranges[0, 1]]
        return np.asarray(parts)

    rows = AscendingRows(read, len(times), block_rows_of(array))
    try:
        rows.prefetch(window)
        first, last = (rows.first_where(partial(np.less_equal, edge), edge) for edge in window)
    except NotAscendingError as error:
        raise NotAscendingError(
            f"{times.file}: {times.path}: {error}: leave out assume_ascending, or filter "
            "lazynwb.scan_nwb(...) by timestamps"
        ) from None
    return first, last


def _match_window(
    times: LazyArray, zones: ZoneMap | None, window: tuple[np.float64, np.float64]
) -> tuple[int, int]:
    """Return the rows of a window by comparison with all timestamps; the rows must be consecutive."""
    start, stop = window
    matching = [np.zeros((0, 2), np.int64)]
    undecided = np.array([[0, len(times)]], np.int64)
    before = 0  # number of earlier timestamps: the position of an empty window
    if zones is not None:
        low, high = zones.minimum, zones.maximum
        is_inside = (low >= start) & (high < stop)
        is_outside = (low >= stop) | (high < start)
        matching.append(zones.ranges(is_inside))
        undecided = zones.ranges(~is_inside & ~is_outside)
        earlier = zones.ranges(high < start)
        before = int((earlier[:, 1] - earlier[:, 0]).sum())
    for first, last in undecided.tolist():
        for row in range(first, last, _COMPARED_ROWS):
            values = times[row : min(row + _COMPARED_ROWS, last)]
            matching.append(to_ranges(np.flatnonzero((values >= start) & (values < stop)) + row))
            before += int((values < start).sum())
    found = np.concatenate(matching)
    found = found[np.argsort(found[:, 0])]
    if (found[1:, 0] != found[:-1, 1]).any():
        raise NotAscendingError(
            f"{times.file}: {times.path}: values do not ascend: the rows from {start} to {stop} are not "
            "consecutive; filter lazynwb.scan_nwb(...) by timestamps instead, which returns all of them"
        )
    return (int(found[0, 0]), int(found[-1, 1])) if len(found) else (before, before)


def get_timeseries(
    nwb_path: PathOrUrl,
    search_term: str | None = None,
    exact_path: bool = False,  # noqa: FBT001, FBT002 - positional in existing code
    match_all: bool = False,  # noqa: FBT001, FBT002
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> TimeSeries | dict[str, TimeSeries]:
    """Return a TimeSeries of a file by its path or name, or all that match.

    Only the structure of the file is read; data and timestamps are read when they are sliced.

    Parameters
    ----------
    nwb_path : path or URL
        One file.
    search_term : str or None
        The path of a TimeSeries, with or without the leading slash, or of its `data` or `timestamps`; or the
        end of a path, which must be unique: `"running_speed"`. With `match_all`, any part of the path.
    exact_path : bool
        Whether `search_term` is always a path.
    match_all : bool
        Whether to return every series whose path contains `search_term`; without one, every series of the
        file.
    storage_options : mapping or None
        As for `scan_nwb`.

    Returns
    -------
    TimeSeries or dict of str to TimeSeries
        With `match_all` a dictionary by path (with the leading slash), in the order of the file.

    Raises
    ------
    TableNotFoundError
        If the series does not exist, or several series match a name; the message lists them.
    ValueError
        If neither `search_term` nor `match_all` is given.
    SourceNotFoundError or NotNWBError
        If the file cannot be read.

    Notes
    -----
    NWB core, nwb.base.yaml: TimeSeries, and all types that derive from it. Data have time along the first
    dimension; times are in seconds since the `timestamps_reference_time` of the session.

    Examples
    --------
    >>> speed = lazynwb.get_timeseries("session.nwb", "running_speed")  # doctest: +SKIP
    >>> speed.between(60, 61).data[:]  # doctest: +SKIP
    """
    if search_term is None and not match_all:
        raise ValueError("pass search_term, or match_all=True for every series of the file")
    found = expand(nwb_path, storage_options)
    if len(found) != 1:
        raise LazyNWBError(
            f"get_timeseries reads a single file, not {len(found)}: pass one of them, such as {found[0].name}"
        )
    source = found[0]
    if match_all:
        term = (search_term or "").strip("/")
        paths = load_listing(source).groups({"series"})
        return {f"/{path}": _open(source, path) for path in paths if term in path}
    return _open(source, find_table([source], search_term or "", exact=exact_path, roles={"series"}))


def _open(source: Source, path: str) -> TimeSeries:
    table = load_table(source, path)
    if table is None:
        raise TableNotFoundError(f"{source.name}: /{path} was listed, but cannot be opened")
    save()
    return TimeSeries(table)


class TimeSeries(SeriesInfo):
    """A TimeSeries or a window of one; `get_timeseries` returns it.

    All types that derive from TimeSeries of NWB core are supported. `ts.data` and `ts.timestamps` slice like
    NumPy arrays and read only the chunks of the slice. Attributes are read on first access; missing ones have
    the default value of the NWB schema. No file is kept open.

    Attributes
    ----------
    path : str
        Path in the file, with the leading slash.
    file : str
        Path or URL of the file, without secrets.
    is_scaled : bool
        Whether `data` is in physical units.
    """

    def __init__(
        self, table: TableFile, window: tuple[int, int] | None = None, *, is_scaled: bool = False
    ) -> None:
        super().__init__(table, window)
        self.is_scaled = is_scaled

    def __repr__(self) -> str:
        shape = self.data.shape if self._has("data") else (len(self),)
        window = "" if self._window is None else ", samples {} to {}".format(*self._window)
        rate = self.rate
        stored = "with timestamps" if self._has("timestamps") else "without times"
        timing = stored if rate is None else f"{rate:g} Hz"
        path, file = visible(self.path, None), visible(self.file, None)
        return f"<TimeSeries {path}: shape {shape}, {timing}{window}, in {file}>"

    def __len__(self) -> int:
        """Return the number of samples; for an external ImageSeries, the number of frames with times."""
        first, stop = self._window or (0, self._table.table.rows)
        return stop - first

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the data."""
        return self.data.shape

    # -- samples ------------------------------------------------------------------------------------------

    @property
    def data(self) -> LazyArray:
        """The data with time along the first dimension, as stored or, if `is_scaled`, in physical units.

        Raises
        ------
        ColumnNotFoundError
            If the series has no data.
        """
        return self.scaled if self.is_scaled else self._stored("data")

    @property
    def timestamps(self) -> LazyArray:
        """The times of the samples in seconds since the `timestamps_reference_time` of the session.

        For a series with `starting_time` and `rate` they are computed without file access.

        Raises
        ------
        ColumnNotFoundError
            If the series has neither timestamps nor a starting time with a valid rate.
        """
        regular = self._regular()
        if regular is not None:
            return RegularTimes(self._table, *regular, *(self._window or (0, self._table.table.rows)))
        return self._stored("timestamps")

    @property
    def scaled(self) -> LazyArray:
        """The data in physical units, float64: `data * conversion * channel_conversion + offset`.

        The unit is `unit`; conversion and offset are attributes of TimeSeries.data in NWB core. The channel
        conversion of an ElectricalSeries is a factor for each position along the second dimension.

        Raises
        ------
        UnsupportedTypeError
            If the data are not numeric.
        CorruptDataError
            If the number of channel conversions is not that of the channels.
        """
        raw = self._stored("data")
        factors = self.channel_conversion
        factor = self.conversion
        if factors is not None:
            channels = raw.shape[1] if raw.ndim > 1 else 1
            if factors.shape != (channels,) or factors.dtype.kind not in "iuf":
                raise CorruptDataError(
                    f"{self.file}: {self.path}/channel_conversion has the shape {factors.shape}, but data "
                    f"has {channels} channels: scale `data` yourself"
                )
            if raw.ndim == 1:
                factor, factors = factor * float(factors[0]), None
        return ScaledArray(raw, factor, self.offset, factors)

    def between(
        self,
        start: float,
        stop: float,
        *,
        scaled: bool | None = None,
        assume_ascending: bool | None = None,
    ) -> TimeSeries:
        """Return the samples with `start <= timestamp < stop` as a lazy TimeSeries.

        Stored timestamps are read once, up to 256 MiB in a local file and 32 MiB in a remote one. The minimum
        and maximum of each chunk are cached, so that later only chunks at the ends of the window are read.
        Timestamps may be in any order. Those of a constant rate are computed.

        Parameters
        ----------
        start, stop : float
            Window in seconds; infinite for an open end.
        scaled : bool or None
            Whether `data` of the result is in physical units; None for the same as here.
        assume_ascending : bool or None
            Whether to find both ends by binary search, which reads a few chunks, instead of reading all
            timestamps once. Samples are lost if timestamps do not ascend. None stands for
            `config.assume_ascending`.

        Returns
        -------
        TimeSeries
            A window with the attributes of this series: `timestamps` of shape (samples,) in seconds, `data`
            of shape (samples, ...). It has no samples if none is in the window.

        Raises
        ------
        NotAscendingError
            If the samples are not consecutive, because timestamps do not ascend; or if there are too many
            timestamps to read all of them. The message names the alternatives.
        ValueError
            If `stop` is before `start`, or one of them is NaN.
        TypeError
            If `start` or `stop` is not a number.
        """
        try:
            is_ordered = float(start) <= float(stop)
        except (TypeError, ValueError):
            message = f"between takes two numbers of seconds, not {start!r} and {stop!r}"
            raise TypeError(message) from None
        if not is_ordered:
            raise ValueError(f"between({start}, {stop}): the end is before the start, or not a number")
        regular = self._regular()
        if regular is not None:
            rows = self._table.table.rows
            found = [first_regular(t, *regular, rows) for t in (start, stop)]
        else:
            array = self._array("timestamps")
            search = config.assume_ascending if assume_ascending is None else assume_ascending
            rows = array.rows
            found = list(rows_between(self._table, array, start, stop, assume_ascending=search))
        low, high = self._window or (0, rows)
        first, last = (min(max(row, low), high) for row in found)
        is_scaled = self.is_scaled if scaled is None else scaled
        window = TimeSeries(self._table, (first, last), is_scaled=is_scaled)
        window.share_metadata(self)
        return window

    def _has(self, name: str) -> bool:
        column = self._table.columns.get(name)
        return column is not None and not column.is_broken

    def _array(self, name: str) -> Array:
        column = self._table.columns.get(name)
        if column is None or column.data is None or column.is_broken:
            why = "; ".join(problem for problem in self._table.problems if repr(name) in problem)
            raise ColumnNotFoundError(
                f"{self.file}: the series {self.path} has no {name}" + (f" ({why})" if why else "")
            )
        return column.data

    def _stored(self, name: str) -> LazyArray:
        return self._window_of(samples_of(self._table, self._array(name)))

    # -- conversion ---------------------------------------------------------------------------------------

    def to_polars(self) -> pl.DataFrame:
        """Read all samples as a frame with the columns `timestamps` and `data`."""
        return conversion.to_polars(self, self.data, self.timestamps)

    def to_pynapple(self) -> Any:  # noqa: ANN401 - pynapple has no types
        """Read all samples as a pynapple Tsd, TsdFrame or TsdTensor; see `lazynwb.to_pynapple`."""
        return conversion.to_pynapple(self, self.data, self.timestamps)

    def to_xarray(self) -> xr.DataArray:
        """Read all samples as an xarray DataArray; see `lazynwb.to_xarray`."""
        return conversion.to_xarray(self, self.data, self.timestamps, is_scaled=self.is_scaled)
