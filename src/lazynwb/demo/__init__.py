"""A demonstration, `python -m lazynwb.demo [SOURCE ...]`, and its synthetic sessions."""

from lazynwb.demo.cube import write_cube

__all__ = ["write_cube"]
