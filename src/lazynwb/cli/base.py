"""Base classes of the commands, and the exceptions of wrong usage and closed pipes."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from typer.core import TyperCommand, TyperGroup


class UsageError(Exception):
    """A command was used incorrectly; the message shows the correct usage."""


class NothingFoundError(Exception):
    """A file, set or table does not exist."""


class PipeClosedError(Exception):
    """The reader of the results has closed the pipe."""


def _without_types(parameters: list[Any]) -> list[Any]:
    """Hide Python types in the help of parameters: options show the name of their value, others nothing."""
    for one in parameters:
        one._get_number_range_help_str = str  # noqa: SLF001 - typer would add "[x>=0]"
        if one.param_type_name == "argument":
            one.display_type_rich = lambda ctx: None  # noqa: ARG005 - as typer calls it
            one.get_usage_pieces = partial(_usage_pieces, one)
        elif one.metavar is None:
            one.metavar = "" if one.is_flag or one.is_eager else str(one.name).upper()
    return parameters


def _usage_pieces(argument: Any, ctx: Any) -> list[str]:  # noqa: ANN401, ARG001 - as typer calls it
    """Return an argument in the usage line: typer would put required ones in braces."""
    name = argument.metavar or str(argument.name).upper()
    piece = name if argument.required else f"[{name}]"
    return [f"{piece}..." if argument.nargs != 1 and "..." not in name else piece]


class Command(TyperCommand):
    """A command whose help does not show Python types."""

    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401 - as typer declares it
        """Return the parameters without Python types."""
        return _without_types(super().get_params(ctx))


class Group(TyperGroup):
    """A group of commands that reports a closed pipe as `PipeClosedError`."""

    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401 - as typer declares it
        """Return the parameters without Python types."""
        return _without_types(super().get_params(ctx))

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - as typer declares it
        """Run a command and flush its output."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError as error:  # a failure for typer
            raise PipeClosedError from error
        return result
