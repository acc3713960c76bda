"""TimeSeries objects with lazy arrays, which are read when they are sliced."""

from lazynwb.series.timeseries import TimeSeries, get_timeseries

__all__ = ["TimeSeries", "get_timeseries"]
