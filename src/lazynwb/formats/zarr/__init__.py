"""Zarr, versions 2 and 3, as hdmf-zarr and LINDI write NWB."""
