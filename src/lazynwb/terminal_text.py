"""Text that comes from files, made fit for a terminal: nothing in it steers one, or changes what is read."""

from __future__ import annotations

import logging
import unicodedata

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


def harmless(text: str) -> str:
    """Return text as it is, lines included, but for characters that steer a terminal or change the order."""
    if text.isprintable():
        return text
    return "".join(c if _is_harmless(c) else escaped(c) for c in text)


def _is_harmless(character: str) -> bool:
    return character.isprintable() or character in "\n\t" or unicodedata.category(character) == "Zs"


def escaped(character: str) -> str:
    """Return a character as Python would write it in a text, with a backslash and its number."""
    return character.encode("unicode_escape", "replace").decode()


def _make_harmless(record: logging.LogRecord) -> bool:
    """Escape a log message for any handler: it contains names of files, tables and columns."""
    record.msg, record.args = harmless(record.getMessage()), None
    return True


logging.getLogger("lazynwb").addFilter(_make_harmless)
