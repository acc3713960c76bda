"""Tables of NWB files as data frames of Daft, which reads them on one machine or on a Ray cluster."""

from lazynwb.daft.dataframe import scan_nwb

__all__ = ["scan_nwb"]
