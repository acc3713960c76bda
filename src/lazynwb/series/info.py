"""Attributes and small datasets of a series, other than its data and timestamps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from lazynwb.errors import CorruptDataError
from lazynwb.lookup.loader import copy_values, load_attributes, load_members
from lazynwb.series.arrays import LazyArray, samples_of
from lazynwb.storage.remote_state import save

if TYPE_CHECKING:
    from lazynwb.lookup.loader import TableFile


class SeriesInfo:
    """The attributes and small datasets of a TimeSeries, read on first access.

    Parameters
    ----------
    table : TableFile
        Catalog of the series.
    window : tuple of int or None
        Range of samples (start, stop); None for all.

    Attributes
    ----------
    path : str
        Path in the file, with the leading slash.
    file : str
        Path or URL of the file, without secrets.
    """

    def __init__(self, table: TableFile, window: tuple[int, int] | None) -> None:
        self._table = table
        self._window = window
        self.path = f"/{table.table.path}"
        self.file = table.name
        self._attributes: dict[str, dict[str, Any]] | None = None
        self._members: TableFile | None = None

    def share_metadata(self, other: SeriesInfo) -> None:
        """Reuse the attributes that another window of the same series has read."""
        self._attributes, self._members = other._attributes, other._members

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rsplit("/", 1)[-1]

    def _regular(self) -> tuple[float, float] | None:
        column = self._table.columns.get("timestamps")
        return column.regular if column is not None else None

    def _window_of(self, array: LazyArray) -> LazyArray:
        """Return the rows of an array that are in the window."""
        if self._window is None:
            return array
        first, stop = (min(row, len(array)) for row in self._window)
        return array.rows(first, stop)

    @property
    def attributes(self) -> dict[str, dict[str, Any]]:
        """All attributes: those of the series under an empty string, others by the names of datasets."""
        return copy_values(self._load_attributes())  # type: ignore[no-any-return]

    def _load_attributes(self) -> dict[str, dict[str, Any]]:
        if self._attributes is None:
            self._attributes = load_attributes(self._table.source, self._table.table.path) or {}
            save()
        return self._attributes

    def _attribute(self, member: str, name: str) -> Any:  # noqa: ANN401 - an attribute
        return self._load_attributes().get(member, {}).get(name)

    def _number(self, member: str, name: str, default: float) -> float:
        value = self._attribute(member, name)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if value is None:
            return default
        if not _is_number(value):
            raise CorruptDataError(
                f"{self.file}: {self.path}/{member}: the attribute {name} is not a number: {value!r}"
            )
        return float(value)

    def _text(self, member: str, name: str) -> str | None:
        value = self._attribute(member, name)
        return None if value is None else str(value)

    @property
    def neurodata_type(self) -> str:
        """The name of the type in its schema, such as "TimeSeries" or "ElectricalSeries"."""
        return self._text("", "neurodata_type") or ""

    @property
    def description(self) -> str:
        """The description of the series."""
        text = self._text("", "description")
        return "no description" if text is None else text

    @property
    def comments(self) -> str:
        """The comments of the author."""
        text = self._text("", "comments")
        return "no comments" if text is None else text

    @property
    def unit(self) -> str | None:
        """The unit of the scaled data, such as "volts"; None if the file has none."""
        return self._text("data", "unit")

    @property
    def conversion(self) -> float:
        """The factor that converts stored values to `unit`."""
        return self._number("data", "conversion", 1.0)

    @property
    def offset(self) -> float:
        """The offset in `unit` that is added after the conversion."""
        return self._number("data", "offset", 0.0)

    @property
    def resolution(self) -> float:
        """The smallest meaningful difference between values, in `unit`; -1.0 for unknown."""
        return self._number("data", "resolution", -1.0)

    @property
    def starting_time(self) -> float | None:
        """The time of the first sample of the whole series in seconds; None if timestamps are stored."""
        regular = self._regular()
        return regular[0] if regular is not None else None

    @property
    def rate(self) -> float | None:
        """The sampling rate in hertz; None if timestamps are stored."""
        regular = self._regular()
        return regular[1] if regular is not None else None

    @property
    def timestamps_unit(self) -> str:
        """The unit of timestamps, which is always "seconds" in NWB."""
        member = "timestamps" if "timestamps" in self._load_attributes() else "starting_time"
        return self._text(member, "unit") or "seconds"

    # -- other datasets -----------------------------------------------------------------------------------

    def _member(self, name: str) -> LazyArray | None:
        """Return another dataset of the group; None if it does not exist."""
        if name not in self._load_attributes():
            return None
        if self._members is None:
            self._members = load_members(self._table.source, self._table.table.path)
            save()
        column = self._members.columns.get(name) if self._members is not None else None
        if self._members is None or column is None or column.data is None:
            return None
        return samples_of(self._members, column.data)

    @property
    def channel_conversion(self) -> np.ndarray | None:
        """The factor of each channel in addition to `conversion`, shape (channels,); None if not stored."""
        member = self._member("channel_conversion")
        return None if member is None else np.asarray(member)

    @property
    def electrodes(self) -> np.ndarray | None:
        """The row in the electrodes table of each channel, int64 of shape (channels,); None if not stored."""
        member = self._member("electrodes")
        return None if member is None else np.asarray(member)

    @property
    def control(self) -> LazyArray | None:
        """The control number of each sample, described by `control_description`; None if not stored."""
        member = self._member("control")
        return None if member is None else self._window_of(member)

    @property
    def control_description(self) -> list[str] | None:
        """The description of each number in `control`; None if not stored."""
        member = self._member("control_description")
        return None if member is None else [str(text) for text in np.atleast_1d(np.asarray(member))]

    @property
    def external_file(self) -> list[str] | None:
        """The stored paths of the files of an external ImageSeries; None if there are none."""
        member = self._member("external_file")
        return None if member is None else [str(text) for text in np.atleast_1d(np.asarray(member))]

    @property
    def starting_frame(self) -> np.ndarray | None:
        """The first frame of each external file; None if not stored."""
        value = self._attribute("external_file", "starting_frame")
        return None if value is None else np.atleast_1d(np.asarray(value))


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
