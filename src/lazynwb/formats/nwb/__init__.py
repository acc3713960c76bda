"""The rules of NWB, the same for every file format: tables, columns, listings."""
