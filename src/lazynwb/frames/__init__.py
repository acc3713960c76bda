"""Frames of Polars or pandas: input, output, and columns added later."""
