"""An index of sessions: the catalogs of many files as one Parquet dataset."""
