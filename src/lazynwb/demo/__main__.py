"""Run the notebook's queries over a small cube that is made for it, or over the files that are named."""

from __future__ import annotations

import argparse
import inspect
import sys
import tempfile
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

import lazynwb
from lazynwb.demo.cube import write_cube
from lazynwb.demo.queries import LOOKING, NOTEBOOK, Query

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MB = 1e6
LINES = 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and run the demonstration; return the process's exit code."""
    parser = argparse.ArgumentParser(prog="python -m lazynwb.demo", description=__doc__)
    parser.add_argument("source", nargs="*", help="NWB files, folders or patterns; a cube is made if none")
    sources = parser.parse_args(arguments).source
    with pl.Config(tbl_rows=6, tbl_width_chars=110, fmt_str_lengths=24):
        try:
            show_files([Path(source).expanduser() for source in sources]) if sources else show_cube()
        except lazynwb.errors.LazyNWBError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


def show_cube() -> None:
    """Write a cube into a temporary folder and run every query over it."""
    with tempfile.TemporaryDirectory(prefix="lazynwb-demo-") as folder:
        # The files go away with the folder, and so should what is remembered about them.
        lazynwb.config.cache_dir = Path(folder, "cache")
        print(f"lazynwb {lazynwb.__version__}, Polars {pl.__version__}")
        started = time.perf_counter()
        nwb_paths = write_cube(Path(folder, "nwb"))
        seconds = time.perf_counter() - started
        print(f"{size(nwb_paths)}, written to a temporary folder in {seconds:.1f} s")
        for query in (*LOOKING, *NOTEBOOK):
            run(query, nwb_paths)


def show_files(sources: list[Path]) -> None:
    """List the tables of the user's files, show the largest ones, and run what queries apply."""
    context = lazynwb.get_sql_context(sources)
    tables = {name: context.execute(f'SELECT * FROM "{name}"') for name in context.tables()}
    # TODO
