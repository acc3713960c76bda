"""Text that comes from files, made fit for a terminal: nothing in it steers one, or changes what is read."""

from __future__ import annotations

_BREAKS = {"\n": " ", "\t": " ", "\r": " "}


def visible(text: object, limit: int | None = 80) -> str:
    """Return text on one line, of bounded length, without characters that are not printed as themselves.

    Parameters
    ----------
    text : object
        Its `str` is taken.
    limit : int or None
        Characters that are shown of it; None shows all.
    """
    raw = str(text)
    short = raw if limit is None or len(raw) <= limit else raw[: limit - 1] + "…"
    if short.isprintable():
        return short
    return "".join(c if c.isprintable() else _BREAKS.get(c) or escaped(c) for c in short)


def escaped(character: str) -> str:
    """Return a character as Python would write it in a text, with a backslash and its number."""
    return character.encode("unicode_escape", "replace").decode()
