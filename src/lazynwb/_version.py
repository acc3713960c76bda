"""The version, in one place: the package's metadata is made from it."""

__version__ = "2.0.0.dev0"
