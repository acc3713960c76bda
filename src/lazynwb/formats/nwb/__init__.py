"""The rules of NWB for all file formats: tables, columns and listings."""
