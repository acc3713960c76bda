"""Frames of Polars and pandas: input, output, and late materialization of columns."""
