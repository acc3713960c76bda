"""From a query to batches of rows: plan what to read, filter, assemble columns over many files."""
