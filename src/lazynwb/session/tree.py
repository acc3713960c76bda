"""The contents of a file as a tree: as text, and as HTML that notebooks show.

Names and values come from files, which are not trusted: text is escaped, and what could steer a terminal, or
change the order of characters, is made visible.
"""

from __future__ import annotations

import html
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lazynwb.terminal_text import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lazynwb.catalog.model import Entry
    from lazynwb.session.contents import Contents

#: Lines of the text, lines of the HTML, members that are shown of one group, levels.
_TEXT_LINES, _HTML_LINES = 80, 2000
_TEXT_MEMBERS, _HTML_MEMBERS = 12, 100
_DEEPEST = 24
#: Characters of a name, and of a value.
_NAME, _VALUE = 80, 300
#: Groups that say nothing of the session: not descended into.
_HIDDEN = frozenset({"specification"})
#: Groups whose values are shown before the tree.
_METADATA = frozenset({"/general", "/general/subject"})


class Line(NamedTuple):
    """One line of a tree.

    Attributes
    ----------
    depth : int
    name : str
    kind : str
        The neurodata type.
    about : str
        Shape and type, number of members, or what is wrong.
    opens : bool
        Whether lines below it follow, one deeper.
    """

    depth: int
    name: str
    kind: str
    about: str
    opens: bool = False


class _Limits(NamedTuple):
    lines: int
    members: int
    columns: bool


# -- lines ------------------------------------------------------------------------------------------------


def _lines(contents: Contents, path: str, members: Mapping[str, Entry], limits: _Limits) -> list[Line]:
    """Return the lines of a tree, as deep as leaves them no more than the limit.

    Every group at the top is there, and of one with many members the first. What is left out is counted.
    """
    lines: list[Line] = []
    for deepest in range(1, _DEEPEST + 1):
        found = list(islice(_walk(contents, path, members, limits, deepest), limits.lines + 1))
        if (len(found) > limits.lines and lines) or len(found) == len(lines):
            break
        lines = found
    return lines


def _walk(
    contents: Contents, path: str, members: Mapping[str, Entry], limits: _Limits, deepest: int
) -> Iterator[Line]:
    stack = [(path, islice(members.items(), limits.members), len(members) - limits.members)]
    while stack:
        path, rest, left = stack[-1]
        depth = len(stack) - 1
        name, entry = next(rest, ("", None))
        if entry is None:
            stack.pop()
            if left > 0:
                yield Line(depth, "", "", f"and {left:,} more")
            continue
        full = f"{path}/{name}"
        below = _shown_members(contents, full, entry, limits) if depth + 1 < deepest else {}
        kind = visible(entry.neurodata_type)
        yield Line(depth, visible(name), kind, about(contents, entry), opens=bool(below))
        if below:
            stack.append((full, islice(below.items(), limits.members), len(below) - limits.members))


def _shown_members(contents: Contents, path: str, entry: Entry, limits: _Limits) -> Mapping[str, Entry]:
    # What a link leads to has its place elsewhere in the tree: links could go in circles.
    if entry.kind != "group" or entry.role in _HIDDEN or entry.target:
        return {}
    if entry.role in {"table", "series"} and not limits.columns:
        return {}
    members = contents.members(path)
    if path in _METADATA:
        return {name: member for name, member in members.items() if member.kind != "dataset"}
    return members


def about(contents: Contents, entry: Entry) -> str:
    """Return what is said of an object: shape and type, number of members, or what is wrong."""
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
    """Return what people call a type: "float64" for "<f8"."""
    try:
        found = np.dtype(dtype)
    except (TypeError, ValueError, SyntaxError):
        return visible(dtype)
    return {"O": "object", "S": "text", "U": "text", "V": "compound"}.get(found.kind, found.name)


# -- text -------------------------------------------------------------------------------------------------


def text_tree(
    title: str, fields: Mapping[str, Any], contents: Contents, path: str, members: Mapping[str, Entry]
) -> str:
    """Return a tree as text, with tables and series as one line each.

    Parameters
    ----------
    title : str
    fields : mapping of str to value
        What is said of the session; shown before the tree.
    contents : Contents
    path : str
        Of the group whose tree it is.
    members : mapping of str to Entry
        Of that group, as far as they are shown.
    """
    limits = _Limits(_TEXT_LINES, _TEXT_MEMBERS, columns=False)
    lines = [visible(title, _VALUE), *text_fields(fields)]
    for line in _lines(contents, path, members, limits):
        words = (line.name, f"[{line.kind}]" if line.kind else "", line.about)
        lines.append("  " * (line.depth + 1) + "  ".join(filter(None, words)))
    return "\n".join(lines)


def text_fields(fields: Mapping[str, Any]) -> list[str]:
    """Return a line of text for each field."""
    return [f"  {visible(name)}: {visible(_said(value), _VALUE)}" for name, value in fields.items()]


# -- HTML -------------------------------------------------------------------------------------------------

# No colours but the notebook's own, lighter or darker: readable whatever its theme is.
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


def html_tree(  # noqa: PLR0913 - what is shown
    title: str,
    fields: Mapping[str, Any],
    contents: Contents,
    path: str,
    members: Mapping[str, Entry],
    *,
    unfolded: bool = False,
) -> str:
    """Return a tree as HTML, folded.

    Parameters
    ----------
    title, fields, contents, path, members
        As for `text_tree`.
    unfolded : bool
        Show the fields without a click.
    """
    parts = [_STYLE, '<div class="lazynwb-tree">', f"<div>{_escaped(title, _VALUE)}</div>"]
    if fields:
        parts.append(f"<details{' open' if unfolded else ''}><summary><b>metadata</b></summary><div>")
        parts += [
            f'<div class="lazynwb-field"><b>{_escaped(name)}</b>: {_escaped(_said(value), _VALUE)}</div>'
            for name, value in fields.items()
        ]
        parts.append("</div></details>")
    depth = 0
    for line in _lines(contents, path, members, _Limits(_HTML_LINES, _HTML_MEMBERS, columns=True)):
        parts += ["</div></details>"] * (depth - line.depth)
        text = _html_line(line)
        if line.opens:
            parts.append(f"<details><summary>{text}</summary><div>")
        else:
            parts.append(f'<div class="lazynwb-leaf">{text}</div>')
        depth = line.depth + line.opens
    parts += ["</div></details>"] * depth
    parts.append("</div>")
    return "\n".join(parts)


def _html_line(line: Line) -> str:
    name = f"<b>{html.escape(line.name)}</b>" if line.opens else html.escape(line.name)
    kind = f'<span class="lazynwb-kind">{html.escape(line.kind)}</span>' if line.kind else ""
    return f'{name}{kind}<span class="lazynwb-about">{html.escape(line.about)}</span>'


def _escaped(text: object, limit: int = _NAME) -> str:
    return html.escape(visible(text, limit))


def _said(value: object) -> str:
    """Return a value of the metadata as text for people."""
    if isinstance(value, list):
        return "; ".join(str(item) for item in value[:_NAME])
    return str(value)
