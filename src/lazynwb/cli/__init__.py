"""The command line: `lazynwb`, or `python -m lazynwb`."""

from lazynwb.cli.entry_point import main

__all__ = ["main"]
