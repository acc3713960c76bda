"""Trees of the contents of a file, as text and as HTML for notebooks.

Names and values of files are not trusted: HTML is escaped, and control characters, including those that
change the order of characters, are made visible.
"""

from __future__ import annotations

import html
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lazynwb.terminal_text import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lazynwb.catalog.model import Entry, Listing

#: Maximum number of lines, members per group, and levels.
_TEXT_LINES, _HTML_LINES = 80, 2000
_TEXT_MEMBERS, _HTML_MEMBERS = 12, 100
_MAX_DEPTH = 24
#: Maximum number of characters of a name and of a value.
_NAME, _VALUE = 80, 300
#: Groups without information about the session, whose members are not shown.
_HIDDEN = frozenset({"specification"})
#: Groups whose values are shown before the tree.
_METADATA = frozenset({"/general", "/general/subject"})


class Contents:
    """The listing of a file, by group.

    Parameters
    ----------
    listing : Listing
    """

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        self._members: dict[str, dict[str, Entry]] = {}
        for entry in listing.entries:
            parent, _, name = entry.path.rpartition("/")
            self._members.setdefault(parent, {})[name] = entry

    def members(self, path: str) -> dict[str, Entry]:
        """Return the members of a group in the order of the file; an empty path is the root group."""
        entry = self.at(path) if path else None
        return self._members.get(_listed_path(entry) if entry is not None else path, {})

    def at(self, path: str) -> Entry | None:
        """Return the entry at a path with its leading slash, following links; None if it does not exist."""
        here, found = "", None
        for name in path.split("/")[1:]:
            found = self._members.get(here, {}).get(name)
            if found is None:
                return None
            here = _listed_path(found)
        return found


def _listed_path(entry: Entry) -> str:
    """Return the path under which an object's members are listed."""
    return entry.target or entry.path


class Line(NamedTuple):
    """One line of a tree.

    Attributes
    ----------
    depth : int
        Level in the tree; 0 for the members of its root.
    name : str
        Stored name of the object; empty for a line with the number of omitted members.
    entry : Entry or None
        Entry of the object; None for a line with the number of omitted members.
    left_out : int
        Number of omitted members.
    has_children : bool
        Whether lines of its members follow.
    """

    depth: int
    name: str
    entry: Entry | None
    left_out: int = 0
    has_children: bool = False


class TreeOptions(NamedTuple):
    """Options of a tree.

    Attributes
    ----------
    columns : bool
        Whether to show the columns of tables and the datasets of series.
    metadata : bool
        Whether to show the values of `/general` and `/general/subject`.
    max_members : int or None
        Maximum number of members per group; None shows all.
    """

    columns: bool
    metadata: bool = True
    max_members: int | None = None


# -- lines ------------------------------------------------------------------------------------------------


def walk(
    contents: Contents, path: str, members: Mapping[str, Entry], options: TreeOptions, levels: int
) -> Iterator[Line]:
    """Yield the lines of a tree from the top down.

    Parameters
    ----------
    contents : Contents
    path : str
        Path of the root of the tree.
    members : mapping of str to Entry
        Members of the root to show.
    options : TreeOptions
        Options of the tree.
    levels : int
        Number of levels to show.
    """
    limit = options.max_members
    stack = [(path, islice(members.items(), limit), len(members))]
    while stack:
        path, rest, total = stack[-1]
        depth = len(stack) - 1
        name, entry = next(rest, ("", None))
        if entry is None:
            stack.pop()
            if limit is not None and total > limit:
                yield Line(depth, "", None, total - limit)
            continue
        full = f"{path}/{name}"
        below = _shown_members(contents, full, entry, options) if depth + 1 < levels else {}
        yield Line(depth, name, entry, has_children=bool(below))
        if below:
            stack.append((full, islice(below.items(), limit), len(below)))


def _shown_members(contents: Contents, path: str, entry: Entry, options: TreeOptions) -> Mapping[str, Entry]:
    # The target of a link is only listed under its own path, because links may form cycles.
    if entry.kind != "group" or entry.role in _HIDDEN or entry.target:
        return {}
    if entry.role in {"table", "series"} and not options.columns:
        return {}
    members = contents.members(path)
    if path in _METADATA and not options.metadata:
        return {name: member for name, member in members.items() if member.kind != "dataset"}
    return members


def _lines(
    contents: Contents, path: str, members: Mapping[str, Entry], options: TreeOptions, limit: int
) -> list[Line]:
    """Return the lines of a tree, with as many levels as fit into `limit` lines, but at least one."""
    lines: list[Line] = []
    for levels in range(1, _MAX_DEPTH + 1):
        found = list(islice(walk(contents, path, members, options, levels), limit + 1))
        if (len(found) > limit and lines) or len(found) == len(lines):
            break
        lines = found
    return lines


def _about(contents: Contents, line: Line) -> str:
    return about(contents, line.entry) if line.entry is not None else f"and {line.left_out:,} more"


def about(contents: Contents, entry: Entry) -> str:
    """Return a description of an object: shape and type, number of members, or the problem."""
    if entry.kind == "broken":
        return f"broken: {visible(entry.note)}"
    if entry.kind == "dataset":
        return _array(entry)
    if entry.target:
        return f"→ {visible(entry.target)}"
    members = contents.members(entry.path)
    if entry.role == "table":
        columns = sum(
            member.role == "column" and name.removesuffix("_index") not in members.keys() - {name}
            for name, member in members.items()
        )
        rows = members["id"].shape if "id" in members else None
        return f"table: {_count(rows[0], 'row')}, {_count(columns, 'column')}" if rows else "table"
    if entry.role == "series":
        data = members.get("data") or members.get("timestamps")
        return f"series: {_array(data)}" if data is not None else "series"
    return _count(entry.members, "member")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' if number != 1 else ''}"


def _array(entry: Entry) -> str:
    if entry.shape is None:
        return "empty"
    return f"{entry.shape} {type_name(entry.dtype)}" if entry.shape else type_name(entry.dtype)


def type_name(dtype: str) -> str:
    """Return the common name of a type, such as "float64" for "<f8"."""
    try:
        found = np.dtype(dtype)
    except (TypeError, ValueError, SyntaxError):
        return visible(dtype)
    return {"O": "object", "S": "text", "U": "text", "V": "compound"}.get(found.kind, found.name)


# -- text -------------------------------------------------------------------------------------------------


def text_tree(
    title: str, fields: Mapping[str, Any], contents: Contents, path: str, members: Mapping[str, Entry]
) -> str:
    """Return a tree as text, with one line per table or series.

    Parameters
    ----------
    title : str
        First line.
    fields : mapping of str to value
        Metadata before the tree.
    contents : Contents
        Listing of the file.
    path : str
        Path of the root of the tree.
    members : mapping of str to Entry
        Members of the root to show.
    """
    lines = [visible(title, _VALUE), *text_fields(fields)]
    options = TreeOptions(columns=False, metadata=False, max_members=_TEXT_MEMBERS)
    for line in _lines(contents, path, members, options, _TEXT_LINES):
        kind = visible(line.entry.neurodata_type) if line.entry is not None else ""
        words = (visible(line.name), f"[{kind}]" if kind else "", _about(contents, line))
        lines.append("  " * (line.depth + 1) + "  ".join(filter(None, words)))
    return "\n".join(lines)


def text_fields(fields: Mapping[str, Any]) -> list[str]:
    """Return a line of text for each field."""
    return [f"  {visible(name)}: {visible(_as_text(value), _VALUE)}" for name, value in fields.items()]


# -- HTML -------------------------------------------------------------------------------------------------

# Only colors of the notebook's theme, with different opacity.
_STYLE = """<style>
.lazynwb-tree {color: inherit; font-size: 0.92em; line-height: 1.5; overflow-x: auto}
.lazynwb-tree > div:first-child {font-weight: 600; overflow-wrap: anywhere}
.lazynwb-tree details > div {margin-left: 0.45em; padding-left: 1em}
.lazynwb-tree details > div {border-left: 1px solid; border-left-color: rgba(128, 128, 128, 0.4)}
.lazynwb-tree summary {cursor: pointer; display: list-item; white-space: nowrap}
.lazynwb-tree .lazynwb-leaf {padding-left: 1em; white-space: nowrap}
.lazynwb-tree .lazynwb-field {padding-left: 1em; white-space: normal}
.lazynwb-tree .lazynwb-kind {opacity: 0.75; font-style: italic; margin-left: 0.6em}
.lazynwb-tree .lazynwb-about {opacity: 0.75; font-family: monospace; font-size: 0.95em; margin-left: 0.6em}
</style>"""


def html_tree(  # noqa: PLR0913 - options of a tree
    title: str,
    fields: Mapping[str, Any],
    contents: Contents,
    path: str,
    members: Mapping[str, Entry],
    *,
    unfolded: bool = False,
) -> str:
    """Return a tree as folded HTML.

    Parameters
    ----------
    title, fields, contents, path, members
        As for `text_tree`.
    unfolded : bool
        Whether the metadata are unfolded.
    """
    parts = [_STYLE, '<div class="lazynwb-tree">', f"<div>{_escaped(title, _VALUE)}</div>"]
    if fields:
        parts.append(f"<details{' open' if unfolded else ''}><summary><b>metadata</b></summary><div>")
        parts += [
            f'<div class="lazynwb-field"><b>{_escaped(name)}</b>: {_escaped(_as_text(value), _VALUE)}</div>'
            for name, value in fields.items()
        ]
        parts.append("</div></details>")
    depth = 0
    options = TreeOptions(columns=True, metadata=False, max_members=_HTML_MEMBERS)
    for line in _lines(contents, path, members, options, _HTML_LINES):
        parts += ["</div></details>"] * (depth - line.depth)
        text = _html_line(contents, line)
        if line.has_children:
            parts.append(f"<details><summary>{text}</summary><div>")
        else:
            parts.append(f'<div class="lazynwb-leaf">{text}</div>')
        depth = line.depth + line.has_children
    parts += ["</div></details>"] * depth
    parts.append("</div>")
    return "\n".join(parts)


def _html_line(contents: Contents, line: Line) -> str:
    name, about_it = _escaped(line.name), html.escape(_about(contents, line))
    kind = _escaped(line.entry.neurodata_type) if line.entry is not None else ""
    name = f"<b>{name}</b>" if line.has_children else name
    kind = f'<span class="lazynwb-kind">{kind}</span>' if kind else ""
    return f'{name}{kind}<span class="lazynwb-about">{about_it}</span>'


def _escaped(text: object, limit: int = _NAME) -> str:
    return html.escape(visible(text, limit))


def _as_text(value: object) -> str:
    """Return a value of the metadata as text."""
    if isinstance(value, list):
        return "; ".join(str(item) for item in value[:_NAME])
    return str(value)
