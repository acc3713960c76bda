"""TimeSeries of one file as objects: data and timestamps that are read when they are sliced."""

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

#: Decoded bytes of timestamps that `between` reads once, in a local file and in a remote one.
_MAX_READ_LOCAL, _MAX_READ_REMOTE = 256 * 1024 * 1024, 32 * 1024 * 1024
#: Rows of timestamps that are compared at a time.
_COMPARED_ROWS = 2_000_000


def rows_between(
    file: TableFile, array: Array, start: float, stop: float, *, assume_ascending: bool
) -> tuple[int, int]:
    """Return the first row with `start <= time < stop`, and the row past the last.

    Parameters
    ----------
    file : TableFile
        Of the series.
    array : Array
        All of its stored timestamps, in seconds.
    start, stop : float
        In seconds.
    assume_ascending : bool
        Search timestamps of which no zone map is known.

    Raises
    ------
    NotAscendingError
        If the rows are not consecutive; or if that is not known, and takes reading very many timestamps.
    UnsupportedTypeError
        If they are of a type that cannot be times.
    """
    if array.dtype.kind == "unsupported":
        raise UnsupportedTypeError(f"{file.name}: /{array.path} cannot be read: {array.dtype.note}")
    times = samples_of(file, array)
    if times.dtype.kind not in "iuf" or times.ndim != 1:
        raise UnsupportedTypeError(
            f"{times.file}: {times.path} cannot be times: {times.ndim}-dimensional {times.dtype}"
        )
    window = np.float64(start), np.float64(stop)  # no Python numbers, which NumPy would round to float32
    zones = file.zone_map(array) if array.shape else None
    if zones is None and array.shape and not has_few_zones(array):
        if assume_ascending:
            return _searched(times, array, window)
        if times.nbytes > (_MAX_READ_REMOTE if file.source.is_remote else _MAX_READ_LOCAL):
            raise NotAscendingError(
                f"{times.file}: {times.path}: whether the {len(times):,} timestamps ascend is not known, and "
                f"takes reading {times.nbytes / 2**20:,.0f} MiB: pass assume_ascending=True to search them "
                "as they are, or filter lazynwb.scan_nwb(...) by timestamps, which reads all of them once; "
                "after that, between() is exact and fast"
            )
        zones = make_zone_map(file, array)
    return _matching(times, zones, window)


def _searched(times: LazyArray, array: Array, window: tuple[np.float64, np.float64]) -> tuple[int, int]:
    """Return the rows of a window among timestamps that are taken to ascend."""

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


def _matching(
    times: LazyArray, zones: ZoneMap | None, window: tuple[np.float64, np.float64]
) -> tuple[int, int]:
    """Return the rows of a window, whatever the order of timestamps, as long as they are consecutive."""
    start, stop = window
    matching = [np.zeros((0, 2), np.int64)]
    undecided = np.array([[0, len(times)]], np.int64)
    before = 0  # timestamps before the window: where an empty one is
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
    """Return a TimeSeries of a file by its path or its name, or all that match.

    Nothing but the file's structure is read before the series is sliced.

    Parameters
    ----------
    nwb_path : path or URL
        One file.
    search_term : str or None
        The path of a TimeSeries, with or without the leading slash, its `data` or `timestamps`; or the last
        part, or parts, of a path that no other series ends in: `"running_speed"`. With `match_all`, any
        part of the path.
    exact_path : bool
        Take `search_term` for a path only: nothing is searched for.
    match_all : bool
        Return every series whose path contains `search_term`; without one, every series of the file.
    storage_options : mapping or None
        As for `scan_nwb`.

    Returns
    -------
    TimeSeries or dict of str to TimeSeries
        With `match_all` a dictionary by paths (with the leading slash), in the file's order.

    Raises
    ------
    TableNotFoundError
        If there is no such series, or a name means several; the message lists them.
    ValueError
        If neither `search_term` nor `match_all` is given.
    SourceNotFoundError, NotNWBError
        If the file cannot be read.
    """
    if search_term is None and not match_all:
        raise ValueError("say which series: give search_term, or match_all=True for every one of the file")
    found = expand(nwb_path, storage_options)
    if len(found) != 1:
        raise LazyNWBError(
            f"get_timeseries reads one file, not {len(found)}: pass one of them, such as {found[0].name}"
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
    """A TimeSeries (NWB core, TimeSeries and all types derived from it), or a window of one.

    `ts.data` and `ts.timestamps` slice like NumPy arrays and read only the chunks concerned; attributes are
    read when one is first asked for. What a file leaves out has the value that the NWB schema gives it.
    No file is kept open.

    Parameters
    ----------
    table : TableFile
        See `get_timeseries`, which makes these.
    window : tuple of int or None
        First sample and the one past the last; None for all.
    is_scaled : bool
        Whether `data` is in physical units.

    Attributes
    ----------
    path : str
        Inside the file, with the leading slash.
    file : str
        Path or URL, without secrets.
    is_scaled : bool
        Whether `data` is in physical units.
    """

    def __init__(
        self, table: TableFile, window: tuple[int, int] | None = None, *, is_scaled: bool = False
    ) -> None:
        super().__init__(table, window)
        self.is_scaled = is_scaled

    def __repr__(self) -> str:
        shape = self.data.shape if "data" in self._table.columns else (len(self),)
        window = "" if self._window is None else ", samples {} to {}".format(*self._window)
        rate = self.rate
        stored = "with timestamps" if "timestamps" in self._table.columns else "without times"
        timing = stored if rate is None else f"{rate:g} Hz"
        path, file = visible(self.path, None), visible(self.file, None)
        return f"<TimeSeries {path}: shape {shape}, {timing}{window}, in {file}>"

    def __len__(self) -> int:
        """Return how many samples there are; of an external ImageSeries, how many frames have times."""
        first, stop = self._window or (0, self._table.table.rows)
        return stop - first

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the data."""
        return self.data.shape

    # -- samples ------------------------------------------------------------------------------------------

    @property
    def data(self) -> LazyArray:
        """The data, time along the first dimension: as stored, or in physical units if `is_scaled`.

        Raises
        ------
        ColumnNotFoundError
            If the series has none.
        """
        return self.scaled if self.is_scaled else self._stored("data")

    @property
    def timestamps(self) -> LazyArray:
        """The samples' times in seconds since the session's `timestamps_reference_time`.

        Of a series with `starting_time` and `rate` they are computed: nothing is read.

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

        The unit is `unit`; conversion and offset are those of NWB core's TimeSeries.data. ElectricalSeries
        has a channel conversion as well: a factor for each position along the second dimension.

        Raises
        ------
        UnsupportedTypeError
            If the data are no numbers.
        CorruptDataError
            If there are more or fewer channel conversions than channels.
        """
        raw = self._stored("data")
        factors = self.channel_conversion
        factor = self.conversion
        if factors is not None:
            channels = raw.shape[1] if raw.ndim > 1 else 1
            if factors.shape != (channels,) or factors.dtype.kind not in "iuf":
                raise CorruptDataError(
                    f"{self.file}: {self.path}/channel_conversion has the shape {factors.shape} where the "
                    f"data has {channels} channels; use `data` with a factor of your own"
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
        """Return the samples with `start <= timestamp < stop`, again as a lazy TimeSeries.

        Stored timestamps are read once, up to 256 MiB of them in a local file and 32 MiB in a remote one; the
        least and greatest of each chunk is kept in the catalog cache, and later only the chunks at both ends
        of the window are read. Nothing is assumed about their order. Timestamps of a constant rate are
        computed.

        Parameters
        ----------
        start, stop : float
            In seconds; infinite for an open end.
        scaled : bool or None
            Whether the result's `data` is in physical units; None for as it is here.
        assume_ascending : bool or None
            Search the timestamps for both ends, a few chunks of them, instead of reading all of them once:
            samples are lost where they do not ascend. None stands for `config.assume_ascending`.

        Raises
        ------
        NotAscendingError
            If the samples are not consecutive, because timestamps do not ascend; or if there are more
            timestamps than are read once. The message names the ways on.
        ValueError
            If `stop` is before `start`, or one of them is no number.
        """
        if not start <= stop:
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

    def _array(self, name: str) -> Array:
        column = self._table.columns.get(name)
        if column is None or column.data is None:
            why = "; ".join(problem for problem in self._table.problems if repr(name) in problem)
            raise ColumnNotFoundError(
                f"{self.file}: the series {self.path} has no {name}" + (f" ({why})" if why else "")
            )
        return column.data

    def _stored(self, name: str) -> LazyArray:
        return self._within(samples_of(self._table, self._array(name)))

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
