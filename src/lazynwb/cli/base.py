"""Base classes of the commands: help in words, wrong usage, and a closed pipe."""

from __future__ import annotations

import sys
from typing import Any

from typer.core import TyperCommand, TyperGroup


class UsageError(Exception):
    """A command was used wrongly; the message says what to type instead."""


class NothingFoundError(Exception):
    """There is no such file, set or table."""


class PipeClosedError(Exception):
    """The reader of the results has closed the pipe."""


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
            raise PipeClosedError from error
        return result
