"""Exit codes of the command line, and messages of errors with the next step."""

from __future__ import annotations

import re
import shlex

from lazynwb.cli.base import NothingFoundError, UsageError
from lazynwb.cli.options import looks_like_a_source
from lazynwb.cli.project_file import ProjectError
from lazynwb.errors import (
    ColumnNotFoundError,
    LazyNWBError,
    NotNWBError,
    SourceNotFoundError,
    TableNotFoundError,
)

FAILED, USAGE, NOTHING = 1, 2, 3
DEBUG = "--debug"
#: Commands with the option --ignore-errors.
_SKIPPING = frozenset({"tables", "schema", "head", "query", "convert"})
#: Errors that --ignore-errors does not change.
_NOT_SKIPPED = (ColumnNotFoundError, ProjectError, TableNotFoundError, ImportError)
_NO_SUCH_COLUMN = re.compile(r'unable to find column "(.*?)"; valid columns: \[(.*)\]', re.DOTALL)
_IN_EXPRESSION = re.compile(r"in the following expression:\s*(.+)")
_QUOTED = re.compile(r'"(.*?)"')


def explain(error: Exception, command: str) -> tuple[int, str]:
    """Return the exit code of an error and its message, which is empty if typer has printed one."""
    format_message = getattr(error, "format_message", None)  # errors of typer
    if format_message is not None:
        return _usage_of(error, format_message().replace("Value error, ", ""), command)
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
    return FAILED, f"{type(error).__name__}: {error} ({DEBUG} shows where)"


def _of_polars(message: str) -> str:
    """Return the first paragraph of an error of Polars, with a hint or similar column names."""
    first = message.strip().partition("\n\n")[0]
    if "compare string with numeric" in first:
        first += f"{_expression_of(message)}; cast one side: CAST(name AS DOUBLE), CAST(name AS VARCHAR)"
    absent = _NO_SUCH_COLUMN.search(first)
    if absent is None:
        return first
    from lazynwb.suggestions import similar_or_existing

    return f"no column {absent[1]!r}{similar_or_existing(absent[1], re.findall(_QUOTED, absent[2]))}"


def _expression_of(message: str) -> str:
    """Return the expression that a message of Polars names, as the end of a sentence."""
    found = _IN_EXPRESSION.search(message)
    return f" in {found[1]}" if found else ""


def _usage_of(error: Exception, message: str, named: str) -> tuple[int, str]:
    if "such command" in message and f"'{named}'" in message and looks_like_a_source(named):
        return USAGE, f"{named} is not a command: lazynwb tables {shlex.join([named])} lists its tables"
    context = getattr(error, "ctx", None)
    command = getattr(context, "command_path", "lazynwb")
    code = getattr(error, "exit_code", USAGE)
    return code, message and f"{message.rstrip('.')} (see {command} --help)"


def _hint_of(error: Exception, command: str) -> str:
    """Return a next step, unless the message has one."""
    text = str(error)
    if isinstance(error, SourceNotFoundError):
        return (
            ""
            if " hint" in text or ": " in text[-80:]
            else " (check the name, and whether the disk is mounted)"
        )
    if isinstance(error, LazyNWBError) and not isinstance(error, _NOT_SKIPPED):
        if command in _SKIPPING:
            hint = " (--ignore-errors skips files and values that cannot be read)"
            return "" if "ignore_errors" in text else hint
        if isinstance(error, NotNWBError):
            return "; an NWB file is an HDF5 file or a Zarr store"
    return ""
