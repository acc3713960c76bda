"""One session as an object, and its tree."""

from lazynwb.session.session import LazyNWB

__all__ = ["LazyNWB"]
