"""The version, in one place: from which the metadata of the package are built."""

__version__ = "2.0.0.dev0"
