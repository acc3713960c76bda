"""Execution of queries: planning, filtering, and assembly of batches of rows over many files."""
