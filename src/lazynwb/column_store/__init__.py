"""The column store: decoded small columns of many sessions, kept on disk as Parquet."""
