"""Conversion of tables to formats that other tools read."""

from lazynwb.convert.conversion import convert_nwb_tables

__all__ = ["convert_nwb_tables"]
