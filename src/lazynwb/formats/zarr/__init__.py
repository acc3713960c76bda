"""Zarr, versions 2 and 3, with the NWB conventions of hdmf-zarr and LINDI."""
