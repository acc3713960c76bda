"""`lazynwb paths` and `lazynwb tree`: the contents of one file."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from lazynwb.cli.base import UsageError
from lazynwb.cli.render import (
    TIMES,
    Column,
    console,
    count_text,
    cut,
    screen_width,
    show,
    size_text,
    write_lines,
    write_remark,
)
from lazynwb.terminal_text import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import polars as pl
    from rich.text import Text

    from lazynwb.catalog.model import Entry, Listing
    from lazynwb.cli.options import CommandSources
    from lazynwb.cli.storage_sizes import Stored
    from lazynwb.session.tree import Contents
    from lazynwb.storage.source import Source

_LISTED = frozenset({"table", "series_data"})
_MAX_LINES, _MAX_DEPTH = 20_000, 64


class ObjectDescription(NamedTuple):
    """The objects of a file, and the storage of its arrays by path."""

    source: Source
    listing: Listing
    stored: dict[str, Stored]


def describe(command_sources: CommandSources, *, storage: bool | None) -> ObjectDescription:
    """Describe a file.

    Parameters
    ----------
    command_sources : CommandSources
        One file.
    storage : bool or None
        Whether to look up the storage of arrays; None for local files only.
    """
    from lazynwb.cli.storage_sizes import stored_in
    from lazynwb.lookup.loader import load_listing
    from lazynwb.storage.remote_state import save
    from lazynwb.storage.resolve import expand

    found = expand(command_sources.sources, command_sources.storage)
    if len(found) != 1:
        raise UsageError(
            f"this command takes one file, not {len(found)}: pass one of them, such as {found[0].name}"
        )
    source = found[0]
    listing = load_listing(source)
    with_storage = not source.is_remote if storage is None else storage
    stored = stored_in(source, listing) if with_storage else {}
    save()
    return ObjectDescription(source, listing, stored)


# -- list -------------------------------------------------------------------------------------------------


def frame_of(described: ObjectDescription, *, everything: bool) -> pl.DataFrame:
    """Return a row for each table and each dataset of a series, or for every object."""
    import polars as pl

    entries = [
        entry
        for entry in described.listing.entries
        if everything or (entry.kind != "broken" and entry.role in _LISTED)
    ]
    stored = [described.stored.get(entry.path) for entry in entries]
    return pl.DataFrame(
        {
            "path": [entry.path for entry in entries],
            "kind": [entry.kind if entry.kind == "broken" else entry.role for entry in entries],
            "neurodata_type": [entry.neurodata_type or None for entry in entries],
            "members": [entry.members if entry.kind == "group" else None for entry in entries],
            "shape": [entry.shape for entry in entries],
            "dtype": [entry.dtype or None for entry in entries],
            "bytes": [one.size if one else None for one in stored],
            "chunk": [one.chunk if one else None for one in stored],
            "codecs": [one.codecs or None if one else None for one in stored],
        },
        schema={
            "path": pl.String,
            "kind": pl.String,
            "neurodata_type": pl.String,
            "members": pl.Int64,
            "shape": pl.List(pl.Int64),
            "dtype": pl.String,
            "bytes": pl.Int64,
            "chunk": pl.List(pl.Int64),
            "codecs": pl.String,
        },
        strict=False,
    )


def show_paths(described: ObjectDescription, *, everything: bool) -> None:
    """Print the objects of a file as a table."""
    rows = frame_of(described, everything=everything).rows(named=True)
    types = {entry.path: entry.neurodata_type for entry in described.listing.entries}
    columns = [
        Column("path", [visible(row["path"], None) for row in rows], whole=True),
        Column("shape", [_shape_text(row["shape"], row["members"]) for row in rows], right=True),
        Column("type", [_type_text(row, described) for row in rows]),
        Column("size", [size_text(row["bytes"]) for row in rows], right=True),
        Column("kind", [visible(_kind_of(row, types)) for row in rows], style="cyan"),
        Column("chunk", [_shape_text(row["chunk"], None) for row in rows], right=True),
        Column("codecs", [row["codecs"] for row in rows]),
    ]
    hidden = show([column for column in columns if any(column.cells)])
    if hidden:
        write_remark(f"not shown: {', '.join(hidden)}; see --format csv")
    if not rows:
        write_remark("no tables or series; --all lists everything")


def _kind_of(row: dict[str, Any], types: dict[str, str]) -> str:
    """Return the neurodata type of an object; of the series for a dataset of a series."""
    above = types.get(row["path"].rpartition("/")[0], "") if row["kind"] == "series_data" else ""
    return str(row["neurodata_type"] or above or row["kind"])


def _type_text(row: dict[str, Any], described: ObjectDescription) -> str | None:
    from lazynwb.session.tree import type_name

    stored = described.stored.get(row["path"])
    if stored is not None:
        return stored.type
    return type_name(row["dtype"]) if row["dtype"] else None


def _shape_text(shape: Sequence[int] | None, members: int | None) -> str | None:
    if members is not None:
        return f"{members:,} members" if members != 1 else "1 member"
    return None if shape is None else f" {TIMES} ".join(f"{n:,}" for n in shape) or "scalar"


# -- tree -------------------------------------------------------------------------------------------------


def show_tree(described: ObjectDescription, *, depth: int | None, columns: bool) -> None:
    """Print the objects of a file as a tree.

    Parameters
    ----------
    described : ObjectDescription
        The file.
    depth : int or None
        Number of levels; None for all.
    columns : bool
        Whether to show the columns of tables and the datasets of series.
    """
    from rich.text import Text
    from rich.tree import Tree

    from lazynwb.session.tree import Contents, TreeOptions, walk

    title = cut(visible(described.source.name, None), screen_width(), tail=True)
    root = Tree(Text(title, style="bold"), guide_style="dim")
    contents = Contents(described.listing)
    lines = walk(contents, "", contents.members(""), TreeOptions(columns=columns), depth or _MAX_DEPTH)
    branches = [root]
    for line in islice(lines, _MAX_LINES):
        if line.entry is not None:
            text = _line_text(contents, line.name, line.entry, described.stored.get(line.entry.path))
            branches[line.depth + 1 :] = [branches[line.depth].add(text)]
    if next(lines, None) is not None:
        root.add("…")
    out = console()
    out.print(root, no_wrap=True, overflow="ellipsis", crop=True)
    write_lines(out)
    total = sum(one.size or 0 for one in described.stored.values())
    unknown = sum(one.size is None for one in described.stored.values())
    if described.stored:
        more = f", and {count_text(unknown, 'array')} of text or unknown size" if unknown else ""
        write_remark(f"{count_text(len(described.stored) - unknown, 'array')} with {size_text(total)}{more}")


def _line_text(contents: Contents, name: str, entry: Entry, stored: Stored | None) -> Text:
    from rich.text import Text

    from lazynwb.session.tree import about

    line = Text(visible(name), style="bold" if entry.kind == "group" else "")
    if entry.neurodata_type:
        line.append(f"  {visible(entry.neurodata_type)}", style="not bold cyan")
    shown = about(contents, entry)
    if stored is not None and entry.shape is not None:
        shown = f"{entry.shape} {stored.type}" if entry.shape else stored.type
    line.append(f"  {shown}", style="not bold red" if entry.kind == "broken" else "not bold")
    for words in _storage_words(stored):
        line.append(f"  {words}", style="not bold dim")
    return line


def _storage_words(stored: Stored | None) -> Iterator[str]:
    if stored is None:
        return
    if stored.size is not None:
        yield size_text(stored.size) or ""
    if stored.chunk:
        yield f"chunks {TIMES.join(map(str, stored.chunk))}"
    if stored.codecs:
        yield stored.codecs
