"""Errors under the names of lazynwb 1.x; `lazynwb.errors` has the whole hierarchy."""

from __future__ import annotations

from typing import Any

from lazynwb._compatibility import missing
from lazynwb.errors import ColumnNotFoundError as ColumnError
from lazynwb.errors import TableNotFoundError as InternalPathError
from lazynwb.errors import UnsupportedTypeError as UnsupportedHDF5LayoutError

__all__ = ["ColumnError", "InternalPathError", "UnsupportedHDF5LayoutError"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - it only raises
    """Explain names that are not here."""
    raise missing(__name__, name)
