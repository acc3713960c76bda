"""Arguments and options that several commands share."""

import os
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from lazynwb.cli.base import NothingFoundError, UsageError
from lazynwb.cli.project_file import NAME, Project, find

_SOURCE_HELP = (
    "Files, folders, patterns or URLs; - reads a list from stdin, one per line; @NAME is a set of "
    "lazynwb.toml. Default: the sources of lazynwb.toml."
)
#: Characters of a pattern.
_PATTERN = frozenset("*?[")


class Format(StrEnum):
    """Formats of a result: a table, and formats for programs."""

    table = "table"
    json = "json"
    ndjson = "ndjson"
    csv = "csv"
    parquet = "parquet"
    arrow = "arrow"


SourcesArgument = Annotated[list[str] | None, typer.Argument(metavar="SOURCE", help=_SOURCE_HELP)]
SourceArgument = Annotated[
    str | None, typer.Argument(metavar="SOURCE", help="A file or URL; - reads it from stdin.")
]
AndTableArgument = Annotated[
    list[str],
    typer.Argument(metavar="SOURCE... TABLE", help=f"{_SOURCE_HELP} The last argument is the table."),
]
FormatOption = Annotated[
    Format | None,
    typer.Option(
        "--format",
        "-f",
        metavar="FORMAT",
        help="table, json, ndjson, csv, parquet or arrow. Default: table, or the suffix of --output.",
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write the result to a file, atomically."),
]
VerticalOption = Annotated[
    bool,
    typer.Option(
        "--vertical", "-x", help="Print each row as lines of column, type and value, with all columns."
    ),
]
StorageOption = Annotated[
    list[str] | None,
    typer.Option(
        "--storage-option", metavar="NAME=VALUE", help="Option of remote sources, as in scan_nwb; repeatable."
    ),
]
IgnoreErrorsOption = Annotated[
    bool, typer.Option("--ignore-errors", help="Skip files that cannot be read, with a warning.")
]
ExcludeArraysOption = Annotated[
    bool, typer.Option("--exclude-arrays", help="Omit columns of arrays and lists.")
]

LengthsOption = Annotated[
    bool,
    typer.Option("--lengths", help="Add NAME_len for each list column: the number of elements."),
]


class CommandSources(NamedTuple):
    """The sources of a command and their storage options."""

    sources: list[str]
    storage: dict[str, Any]


def sources_of(named: list[str] | None, storage_options: list[str] | None) -> CommandSources:
    """Return the sources of a command, and apply the settings of the project file.

    Raises
    ------
    UsageError
        If there is no source, or no set of the name given.
    ProjectError
        If the project file cannot be used.
    """
    project = find()
    if project is not None:
        project.apply()
    storage = {**(project.storage if project is not None else {}), **_options(storage_options or [])}
    if not named:
        if project is None or not project.paths:
            raise UsageError(f"no sources: pass files, folders, patterns or URLs, or create a {NAME}")
        return CommandSources(list(project.paths), storage)
    found: list[str] = []
    for one in named:
        if one == "-":
            found += _from_stdin()
        elif one.startswith("@"):
            found += _set(one[1:], project)
        else:
            found.append(one)
    return CommandSources(found, storage)


def source_of(named: str | None, storage_options: list[str] | None) -> CommandSources:
    """Return the source of a command that describes one file; see `sources_of`."""
    return sources_of([named] if named is not None else None, storage_options)


def split_table(arguments: list[str], command: str) -> tuple[list[str], str]:
    """Return the sources and the table of a command that ends in one.

    Parameters
    ----------
    arguments : list of str
        The arguments of the command: sources, then the table.
    command : str
        The name of the command, for the error.

    Raises
    ------
    UsageError
        If the table is missing, or comes first.
    """
    *sources, table = arguments
    if not looks_like_a_source(table):
        return sources, table
    if len(sources) == 1 and not looks_like_a_source(sources[0]) and not _PATTERN.intersection(sources[0]):
        raise UsageError(f"the table comes last: lazynwb {command} {shlex.join([table, sources[0]])}")
    if not sources or _is_named_like_a_source(table):
        raise UsageError(
            f"the table is missing: pass it last; lazynwb tables {shlex.join([table])} lists the tables"
        )
    return sources, table


def looks_like_a_source(text: str) -> bool:
    """Return whether an argument is more likely a source than a command or a table."""
    return _is_named_like_a_source(text) or os.path.exists(text)  # noqa: PTH110 - it need not be a path


def _is_named_like_a_source(text: str) -> bool:
    endings = (".nwb", ".zarr", ".h5", ".hdf5", ".json")
    return text == "-" or text.startswith("@") or "://" in text or text.lower().endswith(endings)


def _from_stdin() -> list[str]:
    if sys.stdin.isatty():
        raise UsageError("- reads a list of sources from stdin, such as: ls *.nwb | lazynwb tables -")
    lines = (line.rstrip("\r\n") for line in sys.stdin)
    found = [line for line in lines if line.strip()]
    if not found:
        raise NothingFoundError("the list of sources on stdin is empty")
    return found


def _set(name: str, project: Project | None) -> list[str]:
    if project is None or name not in project.sets:
        if project is None:
            message = f"@{name} is a set of {NAME}, which was not found; pass ./@{name} for a file"
        else:
            known = ", ".join(f"@{one}" for one in project.sets) or "none"
            message = f"{project.file} has no set {name}; sets: {known}"
        raise UsageError(message)
    return list(project.sets[name])


def _options(given: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not (name and equals):
            raise UsageError("--storage-option takes NAME=VALUE, such as region=us-west-2")
        found[name] = {"true": True, "false": False}.get(value.lower(), value)
    return found
