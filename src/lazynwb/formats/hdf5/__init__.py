"""HDF5: structure of files and locations of chunks."""
