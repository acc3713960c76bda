"""Stores of many objects, such as Zarr stores: folders, prefixes, zip archives, reference files."""
