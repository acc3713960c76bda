"""Escaping of text from files for terminals: control characters and those that change the order of text."""

from __future__ import annotations

import logging
import unicodedata

_BREAKS = {"\n": " ", "\t": " ", "\r": " "}


def visible(text: object, limit: int | None = 80) -> str:
    """Return text on one line with limited length and non-printable characters escaped.

    Parameters
    ----------
    text : object
        An object, which is converted by `str`.
    limit : int or None
        Maximum number of characters; None for all.
    """
    raw = str(text)
    short = raw if limit is None or len(raw) <= limit else raw[: limit - 1] + "…"
    if short.isprintable():
        return short
    return "".join(c if c.isprintable() else _BREAKS.get(c) or escaped(c) for c in short)


def escape_controls(text: str) -> str:
    """Escape characters that control a terminal or change the order of text; line breaks are kept."""
    if text.isprintable():
        return text
    return "".join(c if _is_safe(c) else escaped(c) for c in text)


def _is_safe(character: str) -> bool:
    return character.isprintable() or character in "\n\t" or unicodedata.category(character) == "Zs"


def escaped(character: str) -> str:
    """Return a character as a Python escape sequence."""
    return character.encode("unicode_escape", "replace").decode()


def _escape_record(record: logging.LogRecord) -> bool:
    """Escape a log message, which contains names of files, tables and columns."""
    record.msg, record.args = escape_controls(record.getMessage()), None
    return True


logging.getLogger("lazynwb").addFilter(_escape_record)
