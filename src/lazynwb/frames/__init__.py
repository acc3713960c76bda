"""Frames as users hand them in and want them back: Polars or pandas, with columns that come later."""
