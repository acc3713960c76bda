"""Plans: the reusable plan of a scan, and the conjuncts of a query's predicate in order of cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from lazynwb.catalog.dtypes import INTERNAL, NWB_PATH, ROWS, TABLE_PATH, is_array_dtype
from lazynwb.catalog.lengths import LENGTH, length_name, measured_name
from lazynwb.catalog.merge import conflict_message
from lazynwb.engine.length_predicates import on_lengths
from lazynwb.errors import SchemaError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from lazynwb.lookup.providers import CatalogProvider
    from lazynwb.lookup.regions import Region
    from lazynwb.lookup.session_columns import SessionColumn
    from lazynwb.storage.source import Source

#: Number of batches that Polars' streaming engine requests before it can stop.
_BATCHES_AHEAD = 2
_COST_OF_ARRAYS = 1_000_000
_COST_OF_TEXT = 64


class Step(NamedTuple):
    """One or more conjuncts of a predicate that are evaluated together.

    Attributes
    ----------
    expression : Expr
    columns : tuple of str
        Columns of the expression.
    """

    expression: pl.Expr
    columns: tuple[str, ...]


def conjuncts(predicate: pl.Expr) -> list[pl.Expr]:
    """Split a predicate into its conjuncts.

    Polars has no public API to inspect an expression, but it can split one into operands. If these, combined
    with `&`, equal the expression, it is a conjunction.
    """
    try:
        parts = predicate.meta.pop()
        if len(parts) == 2 and (parts[1] & parts[0]).meta.eq(predicate):  # noqa: PLR2004 - a binary operator
            return conjuncts(parts[1]) + conjuncts(parts[0])
    except (pl.exceptions.PolarsError, TypeError, ValueError):
        pass
    return [predicate]


def plan_steps(
    predicate: pl.Expr | None,
    schema: Mapping[str, pl.DataType],
    per_file: frozenset[str] = frozenset({NWB_PATH}),
    *,
    ignore_errors: bool = False,
) -> list[Step]:
    """Return the steps in which a predicate is evaluated, the cheapest first.

    If a conjunct only needs the lengths of lists, its step uses length columns; see
    `lazynwb.catalog.lengths`.

    Parameters
    ----------
    predicate : Expr or None
    schema : mapping of str to DataType
        Columns that are read from tables of files.
    per_file : frozenset of str
        Columns that are constant in a file or a table: conjuncts on these alone are separate steps, because
        they skip whole files and tables.
    ignore_errors : bool
        Whether unreadable rows are null: their nulls do not follow from their lengths.
    """
    if predicate is None:
        return []
    steps: list[Step] = []
    parts = _parts(predicate, schema, ignore_errors=ignore_errors)
    for step in sorted(parts, key=lambda step: _cost(step, schema)):
        cost = _cost(step, schema)
        # Conjuncts of equal cost are read and evaluated together.
        if (
            steps
            and cost <= _COST_OF_TEXT
            and cost == _cost(steps[-1], schema)
            and not any(per_file.issuperset(part.columns) for part in (step, steps[-1]))
        ):
            last = steps.pop()
            columns = tuple(dict.fromkeys((*last.columns, *step.columns)))
            steps.append(Step(last.expression & step.expression, columns))
        else:
            steps.append(step)
    return steps


def _parts(predicate: pl.Expr, schema: Mapping[str, pl.DataType], *, ignore_errors: bool) -> Iterator[Step]:
    def can_measure(name: str) -> bool:
        return is_array_dtype(schema.get(name, pl.Null())) or length_name(name) in schema

    for part in conjuncts(predicate):
        cheapest = None if ignore_errors else on_lengths(part, can_measure)
        if cheapest is None:
            cheapest = part
        yield Step(cheapest, tuple(dict.fromkeys(cheapest.meta.root_names())))


def _cost(step: Step, schema: Mapping[str, pl.DataType]) -> int:
    return max((column_cost(_dtype(name, schema)) for name in step.columns), default=0)


def _dtype(name: str, schema: Mapping[str, pl.DataType]) -> pl.DataType | None:
    return LENGTH if measured_name(name) is not None else schema.get(name)


def column_cost(dtype: pl.DataType | None) -> int:
    """Return the estimated number of bytes to read per row of a column; 0 if it is not stored."""
    if dtype is None:
        return 0
    if isinstance(dtype, pl.List | pl.Array | pl.Struct):
        return _COST_OF_ARRAYS
    if isinstance(dtype, pl.String):
        return _COST_OF_TEXT
    return 8


class Growth:
    """Geometrically growing sizes, so that a query that stops early reads little.

    Polars' streaming engine requests two batches before it can stop after the first (see
    `lazynwb.scan.as_source`). The size therefore stays small until that many batches were yielded; it grows
    immediately if a size has yielded no rows.
    """

    def __init__(self, first: int, limit: int) -> None:
        self._size = first
        self._limit = limit
        self._yielded = 0

    def take(self) -> int:
        """Return the next size."""
        return self._size

    def used(self, batches: int) -> None:
        """Record the number of batches that the last size has yielded."""
        self._yielded += batches
        if not batches or self._yielded >= _BATCHES_AHEAD:
            self._size = min(self._size * 4, self._limit)


class ScanPlan(NamedTuple):
    """A scan as plain values: the arguments of `scan_nwb`, and the schema that it published.

    Attributes
    ----------
    sources : tuple of Source
    table : str
        Without the leading slash.
    schema : dict of str to DataType
        The table's columns, without the internal ones (`_nwb_path`, `_table_path`, `_table_index`).
    origin : str
        The file that the schema was first taken from.
    overridden : frozenset of str
        Columns whose type the user chose.
    raise_on_missing, ignore_errors, disable_progress : bool
    session : tuple of SessionColumn
        Metadata of the files that are columns too.
    optional : bool
        Do not warn about files that lack the table.
    regions : tuple of Region
        Columns that show the rows of other tables instead of their positions.
    catalogs : CatalogProvider or None
        Catalogs that are used without opening the files.
    assume_ascending : bool
        Search timestamps without a zone map, instead of reading all of them once.
    tables : mapping of Source to tuple of str, or None
        The paths of the tables of each file, where `table` is a pattern; else each file has at most the one.
    conflicts : tuple of (name, message)
        Columns over whose types the files disagree. Their type in the schema is Null, and reading them is an
        error.
    broken : tuple of (name, message)
        Columns that are not in the schema, because no file has one that could be opened.
    """

    sources: tuple[Source, ...]
    table: str
    schema: dict[str, pl.DataType]
    origin: str
    overridden: frozenset[str] = frozenset()
    raise_on_missing: bool = False
    ignore_errors: bool = False
    disable_progress: bool = False
    session: tuple[SessionColumn, ...] = ()
    optional: bool = False
    regions: tuple[Region, ...] = ()
    catalogs: CatalogProvider | None = None
    assume_ascending: bool = False
    tables: Mapping[Source, tuple[str, ...]] | None = None
    conflicts: tuple[tuple[str, str], ...] = ()
    broken: tuple[tuple[str, str], ...] = ()

    def check_types(self, names: Iterable[str], predicate: pl.Expr | None = None) -> None:
        """Raise SchemaError if the files disagree over the type of a column that a query reads."""
        if not self.conflicts:
            return
        needed = {*names, *(predicate.meta.root_names() if predicate is not None else ())}
        if found := {name: message for name, message in self.conflicts if name in needed}:
            raise SchemaError(conflict_message(found))

    @property
    def per_file(self) -> frozenset[str]:
        """Columns that are constant in a file."""
        return frozenset({NWB_PATH, *(column.name for column in self.session)})

    @property
    def per_table(self) -> frozenset[str]:
        """Columns that are constant in a table, and known before it is read."""
        return self.per_file if self.tables is None else self.per_file | {TABLE_PATH}

    def tables_of(self, source: Source) -> tuple[str, ...]:
        """Return the paths of the requested tables of a file."""
        return (self.table,) if self.tables is None else self.tables[source]

    def with_lengths(self, names: Iterable[str]) -> ScanPlan:
        """Return the plan with the length columns among some names, for a predicate that needs them."""
        lengths = {name: LENGTH for name in names if measured_name(name) is not None}
        return self._replace(schema=self.schema | lengths) if lengths.keys() - self.schema.keys() else self

    @property
    def all_columns(self) -> dict[str, pl.DataType]:
        """All columns of the scan, in order; the first is internal."""
        session = {column.name: column.dtype for column in self.session}
        return {ROWS: pl.Null(), **self.schema, **session, **INTERNAL}
