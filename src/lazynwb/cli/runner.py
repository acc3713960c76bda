"""Running of a command: log messages on stderr, errors on one line, closed pipes."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
from typing import TYPE_CHECKING

from lazynwb.cli.app import app
from lazynwb.cli.base import PipeClosedError
from lazynwb.cli.exit_codes import DEBUG, USAGE, explain
from lazynwb.config import config
from lazynwb.terminal_text import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Maximum length of a message, which may list many tables.
_MAX_MESSAGE = 2000


class _OnStderr(logging.Handler):
    """A handler that writes log messages to stderr without breaking a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        lines = record.getMessage().splitlines() or [""]
        text = "\n".join(visible(line, _MAX_MESSAGE) for line in lines)
        with contextlib.suppress(OSError, ValueError):
            from tqdm import tqdm

            tqdm.write(f"{record.levelname.lower()}: {text}", file=sys.stderr)


def run(arguments: Sequence[str]) -> int:
    """Run the command of some arguments and return the exit code."""
    debug = DEBUG in arguments
    _prepare()
    logger = logging.getLogger("lazynwb")
    handler, level = _OnStderr(logging.WARNING), logger.level
    logger.addHandler(handler)
    try:
        code = app(
            args=[one for one in arguments if one != DEBUG], prog_name="lazynwb", standalone_mode=False
        )
        if not arguments:
            return USAGE  # older versions of typer return 0 after the help
        return code if isinstance(code, int) else 0
    except PipeClosedError:
        _stop_writing()
        return 0
    except Exception as error:  # noqa: BLE001 - every error becomes one line
        if debug:
            for line in traceback.format_exc().splitlines():
                sys.stderr.write(visible(line, None) + "\n")
        return _report(error, arguments)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _prepare() -> None:
    """Escape characters that a stream cannot encode, and show progress on terminals only."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    if not sys.stderr.isatty():
        config.disable_progress = True


def _stop_writing() -> None:
    """Discard further output, because the pipe is closed."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _report(error: Exception, arguments: Sequence[str]) -> int:
    """Write the message of an error on one line, and return its exit code."""
    command = next((one for one in arguments if not one.startswith("-")), "")
    code, message = explain(error, command)
    if not message:  # there was no command, and typer has printed the help
        return code
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        sys.stderr.write(f"lazynwb: {visible(message, _MAX_MESSAGE)}\n")
    return code
