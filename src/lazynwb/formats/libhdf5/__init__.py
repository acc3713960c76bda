"""HDF5 files through libhdf5: what the structure reader of `lazynwb.formats.hdf5` does not know."""
