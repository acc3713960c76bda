"""HDF5 files through libhdf5: structures and data that `lazynwb.formats.hdf5` does not support."""
