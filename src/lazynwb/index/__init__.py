"""Indices of sessions: catalogs and small columns of many files as Parquet datasets."""
