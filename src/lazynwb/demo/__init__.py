"""A demonstration: `python -m lazynwb.demo [SOURCE ...]`, and the synthetic cube that it runs on."""

from lazynwb.demo.cube import write_cube

__all__ = ["write_cube"]
