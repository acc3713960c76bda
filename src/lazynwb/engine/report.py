"""Report of the nonfatal problems of a query, which are logged at its end."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from lazynwb.errors import TableNotFoundError
from lazynwb.suggestions import join_problems

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lazynwb.catalog.merge import NamedTable
    from lazynwb.engine.plan import ScanPlan
    from lazynwb.lookup.loader import TableFile
    from lazynwb.storage.source import Source

_LOGGER = logging.getLogger("lazynwb")


class Report:
    """Nonfatal problems of a query, logged once at its end."""

    def __init__(self, table: str, total: int) -> None:
        self._table = table
        self._total = total
        self._missing: list[str] = []
        self._failed: dict[tuple[Source, str], str] = {}
        self._problems: dict[str, None] = {}
        self._unreadable: dict[tuple[str, str, str], str] = {}
        self._outdated: dict[str, None] = {}

    def missing(self, path: str) -> None:
        """Record a file that lacks the table."""
        self._missing.append(path)

    def lacks_table(self, plan: ScanPlan, source: Source) -> None:
        """Record a file that lacks the table of a scan, or raise an error, as the scan requires.

        Raises
        ------
        TableNotFoundError
            With `raise_on_missing`.
        """
        if plan.raise_on_missing:
            raise TableNotFoundError(f"{source.name} has no table /{plan.table} (raise_on_missing=True)")
        if not plan.optional:
            self.missing(source.name)

    def failed(self, source: Source, table: str, error: Exception, first_row: int = 0) -> None:
        """Record a table of a file that cannot be read, or cannot be read from a row on."""
        text = str(error)
        if table != self._table and table not in text:
            text = f"/{table}: {text}"
        if source.name not in text:
            text = f"{source.name}: {text}"
        text = f"{text} (rows from {first_row} on were left out)" if first_row else text
        self._failed[source, table] = text

    def has_failed(self, file: TableFile) -> bool:
        """Return whether a read of a table has failed, in which case later rows are skipped."""
        return file.key in self._failed

    def problems(self, file: NamedTable, problems: Iterable[str]) -> None:
        """Record the problems that were repaired in a file's table."""
        self._problems |= {f"{file.name}: /{file.table.path}: {problem}": None for problem in problems}

    def unreadable(self, file: NamedTable, column: str, error: Exception) -> None:
        """Record a column with unreadable values, which are null."""
        self._unreadable.setdefault((file.name, file.table.path, column), str(error))

    def outdated(self, path: str) -> None:
        """Record a file that has changed since the provider's catalog was created."""
        self._outdated[path] = None

    def add(self, other: Report) -> None:
        """Merge the report of another part of the query."""
        self._missing += other._missing
        self._failed |= other._failed
        self._problems |= other._problems
        self._unreadable = {**other._unreadable, **self._unreadable}
        self._outdated |= other._outdated

    def log(self) -> None:
        """Log one warning for each kind of problem."""
        for listed, phrase in (
            (self._missing, f"no table /{self._table} in"),
            (self._failed.values(), f"table /{self._table} could not be read in"),
        ):
            if listed:
                _LOGGER.warning(
                    "%s %d of %d files, which were skipped: %s",
                    phrase,
                    len(listed),
                    self._total,
                    join_problems(listed),
                )
        if self._outdated:
            _LOGGER.warning(
                "%d of %d files have changed since they were cataloged, and were parsed again; if they are "
                "in an index, update it (lazynwb index update): %s",
                len(self._outdated),
                self._total,
                join_problems(self._outdated),
            )
        if self._unreadable:
            _LOGGER.warning(
                "table /%s was read in part: %s",
                self._table,
                join_problems(
                    [
                        f"{name}: /{path}: column {column!r} is null where it cannot be read: "
                        + _without_place(reason, name, path, column)
                        for (name, path, column), reason in sorted(self._unreadable.items())
                    ]
                ),
            )
        # A column that could not be opened has one warning, as unreadable.
        reported = tuple(
            f"{n}: /{path}: column {column!r} was left out" for n, path, column in self._unreadable
        )
        problems = [problem for problem in self._problems if not problem.startswith(reported)]
        if problems:
            _LOGGER.warning("table /%s was repaired: %s", self._table, join_problems(problems))


def _without_place(reason: str, name: str, path: str, column: str) -> str:
    """Return the reason of an error without the file, table and column at its beginning."""
    for place in (f"{name}: ", f"/{path}/{column}: ", f"/{path}: column {column!r}: "):
        reason = reason.removeprefix(place)
    return reason
