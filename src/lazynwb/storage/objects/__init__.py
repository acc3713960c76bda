"""Stores of many objects, such as a Zarr store: folders, prefixes, zip archives, reference files."""
