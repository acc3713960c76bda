"""`LazyNWB`: one session as an object, with its tree as text and HTML."""

from lazynwb.session.session import LazyNWB

__all__ = ["LazyNWB"]
