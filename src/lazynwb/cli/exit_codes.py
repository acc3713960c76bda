"""How a command ends: exit codes, errors as one line on stderr, closed pipes, Ctrl-C."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shlex
import sys
import traceback
from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand, TyperGroup

from lazynwb.config import config
from lazynwb.errors import LazyNWBError, NotNWBError, SourceNotFoundError, TableNotFoundError
from lazynwb.terminal_text import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

FAILED, USAGE, NOTHING = 1, 2, 3
_DEBUG = "--debug"
#: Commands that can leave out files that cannot be read.
_SKIPPING = frozenset({"tables", "schema", "head", "query", "convert"})
#: Characters of a message: lists of tables in it may be long.
_LONGEST = 2000
_NO_SUCH_COLUMN = re.compile(r'unable to find column "(.*?)"; valid columns: \[(.*)\]', re.DOTALL)
_IN_EXPRESSION = re.compile(r"in the following expression:\s*(.+)")
_QUOTED = re.compile(r'"(.*?)"')


class UsageError(Exception):
    """The command was used wrongly; the message says what to type instead."""


class NothingFoundError(Exception):
    """What was asked for is not there."""


class _PipeClosedError(Exception):
    """Whoever reads the results has had enough."""


def _without_types(parameters: list[Any]) -> list[Any]:
    """Return the parameters of a command such that its help does not show types of Python.

    Flags and arguments show no type, other options the name of their value.
    """
    for one in parameters:
        if one.param_type_name == "argument":
            one.display_type_rich = lambda ctx: None  # noqa: ARG005 - as typer calls it
        elif one.metavar is None:
            one.metavar = "" if one.is_flag or one.is_eager else str(one.name).upper()
    return parameters


class Command(TyperCommand):
    """A command whose help is in words."""

    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401 - as typer declares it
        """Return the parameters, as the help shows them."""
        return _without_types(super().get_params(ctx))


class Group(TyperGroup):
    """The commands; keeps typer from handling what is handled here."""

    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401 - as typer declares it
        """Return the parameters, as the help shows them."""
        return _without_types(super().get_params(ctx))

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - as typer declares it
        """Run a command, and hand all of its results over."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError as error:  # typer would take it for a failure
            raise _PipeClosedError from error
        return result


class _OnStderr(logging.Handler):
    """Writes what the package logs as lines on stderr, beside a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        lines = record.getMessage().splitlines() or [""]
        text = "\n".join(visible(line, _LONGEST) for line in lines)
        with contextlib.suppress(OSError, ValueError):
            from tqdm import tqdm

            tqdm.write(f"{record.levelname.lower()}: {text}", file=sys.stderr)


def run(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name, and return the exit code."""
    from lazynwb.cli.app import app

    given = list(arguments)
    debug = _DEBUG in given
    _prepare()
    logger = logging.getLogger("lazynwb")
    handler, level = _OnStderr(logging.WARNING), logger.level
    logger.addHandler(handler)
    try:
        code = app(args=[one for one in given if one != _DEBUG], prog_name="lazynwb", standalone_mode=False)
        if not given:
            return USAGE  # older versions of typer take the help for an answer
        return code if isinstance(code, int) else 0
    except _PipeClosedError:
        _stop_writing()
        return 0
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told in one line
        if debug:
            for line in traceback.format_exc().splitlines():
                sys.stderr.write(visible(line, None) + "\n")
        return _told(error, given)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _prepare() -> None:
    """Let nothing that is written fail for its characters, and no bar go where nobody looks."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    if not sys.stderr.isatty():
        config.disable_progress = True


def _stop_writing() -> None:
    """Keep Python from complaining, at its end, of what it cannot write any more."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _told(error: Exception, arguments: Sequence[str]) -> int:
    """Write an error as one line, and return the exit code that it means."""
    command = next((one for one in arguments if not one.startswith("-")), "")
    code, message = _explained(error, command)
    if not message:  # nothing was asked for, and typer has shown the help
        return code
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        sys.stderr.write(f"lazynwb: {visible(message, _LONGEST)}\n")
    return code


def _explained(error: Exception, command: str) -> tuple[int, str]:
    format_message = getattr(error, "format_message", None)  # of what typer raises
    if format_message is not None:
        return _usage_of(error, format_message(), command)
    if isinstance(error, UsageError):
        return USAGE, str(error)
    if isinstance(error, NothingFoundError | SourceNotFoundError | TableNotFoundError):
        return NOTHING, f"{error}{_hint_of(error, command)}"
    if isinstance(error, LazyNWBError | ImportError):
        return FAILED, f"{error}{_hint_of(error, command)}"
    if type(error).__module__.startswith("polars"):
        return FAILED, _of_polars(str(error))
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return FAILED, f"{where}{error.strerror or error}"
    return FAILED, f"{type(error).__name__}: {error} ({_DEBUG} shows where)"


def _of_polars(message: str) -> str:
    """Return the part of a message of Polars that is about the query, and of columns the similar ones."""
    first = message.strip().partition("\n\n")[0]
    if "compare string with numeric" in first:
        first += f"{_expression_of(message)}; cast one side: CAST(name AS DOUBLE), CAST(name AS VARCHAR)"
    absent = _NO_SUCH_COLUMN.search(first)
    if absent is None:
        return first
    from lazynwb.session.contents import hint

    return f"there is no column {absent[1]!r}{hint(absent[1], re.findall(_QUOTED, absent[2]))}"


def _expression_of(message: str) -> str:
    """Return the expression that Polars says an error is in, as the end of a sentence."""
    found = _IN_EXPRESSION.search(message)
    return f" in {found[1]}" if found else ""


def _usage_of(error: Exception, message: str, named: str) -> tuple[int, str]:
    from lazynwb.cli.options import looks_like_a_source

    if "such command" in message and f"'{named}'" in message and looks_like_a_source(named):
        return USAGE, f"{named} is not a command: lazynwb tables {shlex.join([named])} lists its tables"
    context = getattr(error, "ctx", None)
    command = getattr(context, "command_path", "lazynwb")
    code = getattr(error, "exit_code", USAGE)
    return code, message and f"{message.rstrip('.')} ({command} --help shows how it is used)"


def _hint_of(error: Exception, command: str) -> str:
    """Return what may help, where the message does not say so."""
    text = str(error)
    if isinstance(error, SourceNotFoundError):
        return "" if " hint" in text or ": " in text[-80:] else " (is the name right, and the disk mounted?)"
    if isinstance(error, LazyNWBError) and not isinstance(error, TableNotFoundError | ImportError):
        if command in _SKIPPING:
            return (
                "" if "ignore_errors" in text else " (--ignore-errors leaves out files that cannot be read)"
            )
        if isinstance(error, NotNWBError):
            return "; an NWB file is an HDF5 file or a Zarr store"
    return ""
