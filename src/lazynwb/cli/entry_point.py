"""The command line: `lazynwb`, or `python -m lazynwb`. Without its extra, it says what to install."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, NoReturn

from lazynwb._version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the process's exit code.

    Parameters
    ----------
    arguments : sequence of str or None
        Without the name of the command; None takes those of the process.

    Returns
    -------
    int
        0; 1 if something failed; 2 if the command was used wrongly; 3 if there is no such file or table;
        130 after Ctrl-C.
    """
    if arguments is not None:
        return _run(arguments)
    sys.unraisablehook = _on_unraisable
    code = _run(sys.argv[1:])
    if code:
        _leave(code)
    return code


def _run(arguments: Sequence[str]) -> int:
    if list(arguments) == [
        "--version"
    ]:  # without the packages of the other commands, which take long to import
        sys.stdout.write(f"lazynwb {__version__}\n")
        return 0
    if any(find_spec(package) is None for package in ("typer", "rich")):
        sys.stderr.write("lazynwb: the command line is an extra: pip install 'lazynwb[cli]'\n")
        return 1
    try:
        from lazynwb.cli.runner import run

        return run(arguments)
    except KeyboardInterrupt:
        return _INTERRUPTED


def _leave(code: int) -> NoReturn:
    """End the process at once, after a command that failed or was interrupted.

    Polars goes on with a query that was interrupted, and calls Python code from its threads. Python may not
    be taken apart under them: the process would abort.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _on_unraisable(error: sys.UnraisableHookArgs) -> None:
    """Leave out Ctrl-C where it comes upon a generator that Polars is closing: the exit code tells of it."""
    if not issubclass(error.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(error)
