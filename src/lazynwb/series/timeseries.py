"""The samples of a series that lie within a window of time.

`get_timeseries`: series as objects whose data and timestamps are read when they are sliced.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from lazynwb.engine.row_selection import expand as expand_ranges
from lazynwb.engine.timestamps import FEW_ROWS, UNCHUNKED_ROWS, Blocks, first_regular, first_rows
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
from lazynwb.series.arrays import LazyArray, RegularTimes, ScaledArray, StoredArray
from lazynwb.series.info import SeriesInfo
from lazynwb.storage.remote_state import save
from lazynwb.storage.resolve import expand
from lazynwb.terminal_text import visible

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl
    import xarray as xr

    from lazynwb.storage.resolve import PathOrUrl
    from lazynwb.storage.source import Source

#: Of no more timestamps all are read, rather than searched.
_MOST_READ_WHOLE = UNCHUNKED_ROWS
#: So many timestamps at the beginning of a window are read, to be sure of them: some seconds of a recording.
_MOST_CHECKED = 250_000


def rows_between(times: StoredArray, start: float, stop: float) -> tuple[int, int]:
    """Return the first row of stored timestamps at or after a time, and at or after a later one.

    They are searched as the filters of a scan search them: of many, single chunks are read. Of up to two
    million that are not at a constant rate, all are read, and have to ascend; and of a window, the first
    250,000.

    Parameters
    ----------
    times : StoredArray
        All timestamps of a series, in seconds.
    start, stop : float

    Raises
    ------
    NotAscendingError
        If timestamps that were read do not ascend, or are not numbers.
    UnsupportedTypeError
        If they are of a type that cannot be times.
    """

    def read(ranges: np.ndarray) -> np.ndarray:
        parts = times[expand_ranges(ranges)] if len(ranges) > 1 else times[ranges[0, 0] : ranges[0, 1]]
        return np.asarray(parts)

    if times.dtype.kind not in "iuf" or times.ndim != 1:
        message = f"{times.file}: {times.path} cannot be times: {times.ndim}-dimensional {times.dtype}"
        raise UnsupportedTypeError(message)
    rows, block = len(times), times.chunks[0] if times.chunks else UNCHUNKED_ROWS
    wanted = (np.float64(start), np.float64(stop))  # no Python numbers, which NumPy would round to float32
    try:
        if rows > _MOST_READ_WHOLE and rows > 2 * block:
            tests = [(partial(np.less_equal, t), t) for t in wanted]
            first, last = first_rows(Blocks(read, rows, block), tests, wanted)
            _check(times, first, min(last, first + _MOST_CHECKED), wanted)
            return first, last
        error = NotAscendingError("values do not ascend")
    except NotAscendingError as found:
        error = found
        if rows > FEW_ROWS:
            raise _unsorted(times, error) from None
    values = times[:]
    if not (values[1:] >= values[:-1]).all() or np.isnan(values).any():
        raise _unsorted(times, error)
    first, last = np.searchsorted(values, wanted, side="left").tolist()
    return first, last


def _check(times: StoredArray, first: int, last: int, window: tuple[float, float]) -> None:
    """Make sure of timestamps that the search did not come by: who asks for data alone never sees them."""
    values = times[first:last]
    if not ((values >= window[0]) & (values < window[1])).all() or (values[1:] < values[:-1]).any():
        message = f"values do not ascend from row {first} to row {last}"
        raise NotAscendingError(message)


def _unsorted(times: StoredArray, error: NotAscendingError) -> NotAscendingError:
    message = (
        f"{times.file}: {times.path}: {error}: between() needs them to ascend; filter "
        "lazynwb.scan_nwb(...) by timestamps instead, which looks at all of them"
    )
    return NotAscendingError(message)


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
        message = "say which series: give search_term, or match_all=True for every one of the file"
        raise ValueError(message)
    found = expand(nwb_path, storage_options)
    if len(found) != 1:
        message = (
            f"get_timeseries reads one file, not {len(found)}: pass one of them, such as {found[0].name}"
        )
        raise LazyNWBError(message)
    source = found[0]
    if match_all:
        term = (search_term or "").strip("/")
        paths = load_listing(source).groups({"series"})
        return {f"/{path}": _open(source, path) for path in paths if term in path}
    return _open(source, find_table([source], search_term or "", exact=exact_path, roles={"series"}))


def _open(source: Source, path: str) -> TimeSeries:
    table = load_table(source, path)
    if table is None:
        message = f"{source.name}: /{path} was listed, but cannot be opened"
        raise TableNotFoundError(message)
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
                message = (
                    f"{self.file}: {self.path}/channel_conversion has the shape {factors.shape} where the "
                    f"data has {channels} channels; use `data` with a factor of your own"
                )
                raise CorruptDataError(message)
            if raw.ndim == 1:
                factor, factors = factor * float(factors[0]), None
        return ScaledArray(raw, factor, self.offset, factors)

    def between(self, start: float, stop: float, *, scaled: bool | None = None) -> TimeSeries:
        """Return the samples with `start <= timestamp < stop`, again as a lazy TimeSeries.

        Stored timestamps are searched, one chunk at a time, near where a constant rate would have them. For
        that they have to ascend, as they do in NWB.

        Parameters
        ----------
        start, stop : float
            In seconds; infinite for an open end.
        scaled : bool or None
            Whether the result's `data` is in physical units; None for as it is here.

        Raises
        ------
        NotAscendingError
            If timestamps that were looked at do not ascend.
        ValueError
            If `stop` is before `start`, or one of them is no number.
        """
        if not start <= stop:
            message = f"between({start}, {stop}): the end is before the start, or not a number"
            raise ValueError(message)
        regular = self._regular()
        if regular is not None:
            rows = self._table.table.rows
            found = [first_regular(t, *regular, rows) for t in (start, stop)]
        else:
            whole = self._whole("timestamps")
            rows, found = len(whole), list(rows_between(whole, start, stop))
        low, high = self._window or (0, rows)
        first, last = (min(max(row, low), high) for row in found)
        is_scaled = self.is_scaled if scaled is None else scaled
        window = TimeSeries(self._table, (first, last), is_scaled=is_scaled)
        window.share_metadata(self)
        return window

    def _whole(self, name: str) -> StoredArray:
        column = self._table.columns.get(name)
        if column is None or column.data is None:
            why = "; ".join(problem for problem in self._table.problems if repr(name) in problem)
            message = f"{self.file}: the series {self.path} has no {name}" + (f" ({why})" if why else "")
            raise ColumnNotFoundError(message)
        return StoredArray(self._table, column.data)

    def _stored(self, name: str) -> StoredArray:
        return self._within(self._whole(name))

    # -- in other packages' terms -------------------------------------------------------------------------

    def to_polars(self) -> pl.DataFrame:
        """Read all samples as a frame with the columns `timestamps` and `data`; see `lazynwb.interop`."""
        from lazynwb.interop import to_polars

        return to_polars(self)

    def to_pynapple(self) -> Any:  # noqa: ANN401 - pynapple has no types
        """Read all samples as a pynapple Tsd, TsdFrame or TsdTensor; see `lazynwb.to_pynapple`."""
        from lazynwb.interop import to_pynapple

        return to_pynapple(self)

    def to_xarray(self) -> xr.DataArray:
        """Read all samples as an xarray DataArray; see `lazynwb.to_xarray`."""
        from lazynwb.interop import to_xarray

        return to_xarray(self)
