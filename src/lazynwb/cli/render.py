"""Tables on a terminal: columns that fit its width, shortened values, text from files escaped."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from dataclasses import dataclass, field
from io import StringIO
from typing import TYPE_CHECKING, Any

from lazynwb.terminal_text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import polars as pl
    from rich.console import Console
    from rich.text import Text

#: Widths to which cells are shortened, until all columns fit; after the last, columns are omitted.
_WIDTHS = (60, 40, 28, 20, 16)
#: Maximum length of a cell where the width is unlimited; elements shown of a list; depth of nested lists.
_MAX_TEXT, _ELEMENTS, _MAX_DEPTH = 1000, 2, 2
_GAP = 2
_ELLIPSIS = "…"
TIMES = "\N{MULTIPLICATION SIGN}"
#: Width of lines in files and pipes.
_UNBOUNDED = 1_000_000


@dataclass
class Column:
    """A column of a printed table.

    Attributes
    ----------
    title, note : str
        The header, and the line below it.
    cells : list of str or None
        Escaped text; None for an empty cell.
    right : bool
        Align to the right.
    whole : bool
        Neither shorten nor omit.
    tail : bool
        Shorten at the beginning: paths differ at the end.
    style : str
        Style of rich.
    """

    title: str
    cells: list[str | None]
    note: str = ""
    right: bool = False
    whole: bool = False
    tail: bool = False
    style: str = ""
    width: int = field(default=0, init=False)


def console(*, width: int | None = None) -> Console:
    """Return a console that renders for stdout, in colours on a terminal unless they are disabled."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    return Console(
        file=StringIO(),
        force_terminal=terminal and not (os.name == "nt" and Console(file=sys.stdout).legacy_windows),
        width=width or screen_width() or _UNBOUNDED,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=False,
        legacy_windows=False,
    )


def screen_width() -> int | None:
    """Return the width of the terminal; None if stdout is not a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def write_remark(text: str) -> None:
    """Write a remark to stderr, unless warnings are disabled."""
    if not logging.getLogger("lazynwb").isEnabledFor(logging.WARNING):
        return
    from rich.console import Console

    sys.stdout.flush()
    if sys.stderr.isatty():
        Console(file=sys.stderr, highlight=False, markup=False, emoji=False).print(
            visible(text, _MAX_TEXT), style="dim"
        )
    else:
        sys.stderr.write(f"{visible(text, _MAX_TEXT)}\n")


def show(columns: Sequence[Column]) -> list[str]:
    """Write a table to stdout; return the titles of the columns that do not fit."""
    width = screen_width()
    chosen = _fit(columns, width)
    _print_table(chosen)
    shown = {id(column) for column in chosen}
    return [column.title for column in columns if id(column) not in shown]


def show_vertically(columns: Sequence[Column]) -> None:
    """Write each row to stdout as lines of column, type and value, with all columns."""
    width = screen_width() or _UNBOUNDED
    titles: list[str | None] = [cut(column.title, width // 3, tail=False) for column in columns]
    types: list[str | None] = [cut(column.note, width // 4, tail=False) for column in columns]
    for row in range(max((len(column.cells) for column in columns), default=0)):
        named = [Column(f"row {row + 1:,}", titles, whole=True), Column("", types, whole=True, style="dim")]
        _widen(named, _MAX_TEXT)
        room = max(min(width - _width_of(named) - _GAP, _MAX_TEXT), 1)
        values = [column.cells[row] or "null" for column in columns]
        cells = [cut(value, room, tail=column.tail) for value, column in zip(values, columns, strict=True)]
        show([*named, Column("", [*cells], whole=True)])


def _print_table(columns: Sequence[Column]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="")
    for column in columns:
        header = Text(cut(column.title, column.width, tail=False), style="bold")
        if any(one.note for one in columns):
            header.append(f"\n{cut(column.note, column.width, tail=False)}", style="not bold dim")
        table.add_column(
            header, justify="right" if column.right else "left", no_wrap=True, min_width=column.width
        )
    for row in range(max((len(column.cells) for column in columns), default=0)):
        table.add_row(*[_cell(column, row) for column in columns])
    out = console(width=_UNBOUNDED)  # the columns fit already
    out.print(table)
    write_lines(out)


def write_lines(out: Console) -> None:
    """Write the text that a console has rendered, without trailing spaces."""
    file = out.file
    assert isinstance(file, StringIO)  # noqa: S101 - made by `console`
    for line in file.getvalue().splitlines():
        sys.stdout.write(line.rstrip() + "\n")


def _cell(column: Column, row: int) -> Text:
    from rich.text import Text

    value = column.cells[row]
    if value is None:
        return Text("null" if column.note else "", style="dim")
    return Text(cut(value, column.width, tail=column.tail), style=column.style)


def _fit(columns: Sequence[Column], width: int | None) -> list[Column]:
    """Set the widths of columns, and return those that fit."""
    if width is None:
        _widen(columns, _MAX_TEXT)
        return list(columns)
    for limit in _WIDTHS:
        _widen(columns, limit)
        if _width_of(columns) <= width:
            return list(columns)
    chosen = [column for column in columns if column.whole]
    for column in columns:
        if not column.whole:
            if chosen and _width_of([*chosen, column]) > width:
                break
            chosen.append(column)
    shown = [column for column in columns if any(column is one for one in chosen)]
    for limit in _WIDTHS:  # without the omitted columns there may be more room
        _widen(shown, limit)
        if _width_of(shown) <= width:
            break
    for column in shown:
        column.width = min(column.width, width)
    return shown


def _widen(columns: Sequence[Column], limit: int) -> None:
    """Set the widths that columns need, up to a limit."""
    from rich.cells import cell_len

    for column in columns:
        texts = (column.title, column.note, *(cell or "null" for cell in column.cells))
        longest = max(map(cell_len, texts))
        column.width = longest if column.whole else min(longest, max(limit, cell_len(column.title)))


def _width_of(columns: Iterable[Column]) -> int:
    widths = [column.width for column in columns]
    return sum(widths) + _GAP * (len(widths) - 1)


def cut(text: str, width: int | None, *, tail: bool) -> str:
    """Shorten text to a width in terminal columns; `tail` keeps its end."""
    from rich.cells import cell_len, set_cell_size

    if width is None or cell_len(text) <= width:
        return text
    if tail:
        return _ELLIPSIS + set_cell_size(text[::-1], width - 1)[::-1]
    return set_cell_size(text, width - 1).rstrip() + _ELLIPSIS


# -- values -----------------------------------------------------------------------------------------------


def columns_of(frame: pl.DataFrame) -> list[Column]:
    """Return the columns of a frame with their types."""
    from lazynwb.catalog.dtypes import NWB_PATH

    return [
        Column(
            visible(series.name),
            [_shown(series, row) for row in range(series.len())],
            type_name(series.dtype),
            right=series.dtype.is_numeric(),
            tail=series.name == NWB_PATH,
        )
        for series in frame.iter_columns()
    ]


def _shown(series: pl.Series, row: int) -> str | None:
    from lazynwb.catalog.dtypes import NWB_PATH
    from lazynwb.storage.source import is_url, redacted

    value = series[row]
    if series.name == NWB_PATH and isinstance(value, str) and is_url(value):
        value = redacted(value)  # signatures are secrets
    return None if value is None else value_text(value)


def value_text(value: Any, depth: int = 0) -> str:  # noqa: ANN401 - a value of any type
    """Return a short text of a value; lists are shown by their first elements and their length."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}".replace("nan", "NaN")
    if isinstance(value, dict):
        inner = ", ".join(f"{visible(name)}: {value_text(one, depth + 1)}" for name, one in value.items())
        return f"{{{inner}}}"
    if _is_list(value):
        if depth >= _MAX_DEPTH:
            return f"[{_ELLIPSIS}]" if len(value) else "[]"
        few = _ELEMENTS if not len(value) or not _is_list(value[0]) else 1
        first = [value_text(one, depth + 1) for one in value[:few]]
        more = len(value) - len(first)
        text = ", ".join([*first, *([_ELLIPSIS] if more else [])])
        return f"[{text}]" + (f" {len(value):,}" if more and not depth else "")
    return visible(value, _MAX_TEXT)


def _is_list(value: object) -> bool:
    return hasattr(value, "to_list") or isinstance(value, list)


def type_name(dtype: Any) -> str:  # noqa: ANN401 - a type of Polars
    """Return the name of a type as in the headers of Polars' tables: "list[f64]"."""
    import polars as pl

    if isinstance(dtype, pl.List):
        return f"list[{type_name(dtype.inner)}]"
    if isinstance(dtype, pl.Array):
        inner: Any = dtype
        while isinstance(inner, pl.Array):
            inner = inner.inner
        return f"array[{type_name(inner)}, {TIMES.join(map(str, dtype.shape))}]"
    if isinstance(dtype, pl.Struct):
        return f"struct[{len(dtype.fields)}]"
    name = type(dtype).__name__.lower()
    for long, short in (("uint", "u"), ("int", "i"), ("float", "f"), ("boolean", "bool"), ("string", "str")):
        if name.startswith(long):
            return short + name.removeprefix(long)
    return name


def size_text(size: int | None) -> str | None:
    """Return a number of bytes with a unit: "1.5 MB"."""
    if size is None:
        return None
    number = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":  # noqa: PLR2004 - the factor between units
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return None


def count_text(number: int, what: str) -> str:
    """Return a number with its noun: "1 row", "2,000 rows"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
