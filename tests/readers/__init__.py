"""Independent readers: expected results of lazynwb, without any of its code.

- `hdf5_tables`: the tables of one HDF5 file, by h5py and plain Python.
- `pynwb_session`: the tables of one file, by PyNWB.
- `plain_zarr`: a Zarr store, by the standard library and NumPy.
- `zarr_python`: a Zarr store copied to HDF5, by zarr-python or `plain_zarr`.
- `scans`: the rows of a scan of many files, from `hdf5_tables`.
"""
