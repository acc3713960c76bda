"""Catalogs on demand: tables of files, cached or parsed, and schemas over many files."""
