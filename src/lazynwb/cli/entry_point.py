"""Entry point of the command line: `lazynwb`, or `python -m lazynwb`; reports a missing extra `cli`."""

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
    """Run the command line and return the exit code of the process.

    Parameters
    ----------
    arguments : sequence of str or None
        Arguments without the name of the program; None for those of the process.

    Returns
    -------
    int
        0 for success, 1 for failure, 2 for wrong usage, 3 if a file or table does not exist, 130 after
        Ctrl-C.
    """
    if arguments is not None:
        return _run(arguments)
    sys.unraisablehook = _on_unraisable
    code = _run(sys.argv[1:])
    if code:
        _leave(code)
    return code


def _run(arguments: Sequence[str]) -> int:
    if list(arguments) == ["--version"]:  # without the imports of the other commands
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
    """Exit without finalizing the interpreter, after a command that failed or was interrupted.

    Polars continues an interrupted query and calls Python code from its threads: if the interpreter were
    finalized meanwhile, the process would abort.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _on_unraisable(error: sys.UnraisableHookArgs) -> None:
    """Do not report Ctrl-C in a generator that Polars is closing: the exit code reports it."""
    if not issubclass(error.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(error)
