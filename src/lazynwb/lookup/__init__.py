"""Catalogs on demand: one table of one file, and one schema over many files."""
