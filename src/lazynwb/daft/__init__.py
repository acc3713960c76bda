"""Scans of tables as Daft data frames, on one machine or on a Ray cluster."""

from lazynwb.daft.dataframe import scan_nwb

__all__ = ["scan_nwb"]
