"""Lists in messages: suggestions of similar names, existing names, and problems."""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

#: Minimum similarity (difflib) of names that share no word.
_CUTOFF = 0.6
#: Minimum length of a name that may match the beginning of a word.
_MIN_LENGTH = 3

#: Maximum number of suggestions, of existing names, and of problems in a message.
_MAX_SUGGESTED, _MAX_LISTED, _MAX_PROBLEMS = 3, 20, 3


def similar_names(name: str, names: Collection[str]) -> list[str]:
    """Return at most three similar names, the most similar first.

    The last parts of paths are compared without case: first equal names, then plural and singular forms, then
    names with a word that is or begins with the name. Only the best matches are returned: for `trial`,
    `trials` but not `rf_mapping_trials`. Spelling mistakes are only considered if nothing matches.

    Parameters
    ----------
    name : str
        A name, or a path.
    names : collection of str
        Existing names or paths.
    """
    term = _last(name)
    ranked = [(rank, one) for one in names if (rank := _rank(term, _last(one))) is not None]
    if ranked:
        best = min(rank for rank, _ in ranked)
        return [one for rank, one in ranked if rank == best][:_MAX_SUGGESTED]
    by_last: dict[str, list[str]] = {}
    for one in names:
        by_last.setdefault(_last(one), []).append(one)
    import difflib

    close = difflib.get_close_matches(term, by_last, n=_MAX_SUGGESTED, cutoff=_CUTOFF)
    return [one for last in close for one in by_last[last]][:_MAX_SUGGESTED]


def did_you_mean(name: str, names: Collection[str], prefix: str = "") -> str:
    """Return the part of a message that suggests similar names; empty if there are none.

    Parameters
    ----------
    name : str
        The name that does not exist.
    names : collection of str
        Existing names.
    prefix : str
        Prefix of each suggestion, such as a slash; without one, suggestions are quoted.
    """
    found = [prefix + one if prefix else repr(one) for one in similar_names(name, names)]
    return f"; did you mean {' or '.join(found)}?" if found else ""


def join_names(names: Iterable[str], limit: int = _MAX_LISTED, prefix: str = "") -> str:
    """Return names for a message, with an ellipsis in place of those beyond a limit.

    Parameters
    ----------
    names : iterable of str
    limit : int
        Maximum number of names.
    prefix : str
        Prefix of each name, such as a slash.
    """
    listed = list(names)
    return ", ".join(prefix + one for one in listed[:limit]) + (", ..." if len(listed) > limit else "")


def join_problems(problems: Collection[str]) -> str:
    """Return the first problems for a warning, and the number of the others."""
    more = len(problems) - _MAX_PROBLEMS
    return "; ".join(islice(problems, _MAX_PROBLEMS)) + (f"; and {more} more" if more > 0 else "")


def similar_or_existing(name: str, names: Collection[str]) -> str:
    """Return the end of a message that suggests similar names, or else lists the existing ones."""
    suggestion = did_you_mean(name, names)
    if suggestion or not names:
        return suggestion or "; it is empty"
    listed = [one if one.isprintable() else repr(one) for one in names]
    more = f" and {len(listed) - _MAX_LISTED} more" if len(listed) > _MAX_LISTED else ""
    return f"; available: {', '.join(listed[:_MAX_LISTED])}{more}"


def _last(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1].casefold()


def _rank(term: str, name: str) -> int | None:
    """Return the rank of a name as a suggestion, 0 for the best; None if it does not match."""
    if not term:
        return None
    if name == term:
        return 0
    if _stem(name) == _stem(term):
        return 1
    if len(term) < _MIN_LENGTH:
        return None
    words = [word for word in re.split(r"[\W_]+", name) if word]
    if _stem(term) in map(_stem, words):
        return 2
    if name.startswith(term):
        return 3
    return 4 if any(word.startswith(term) for word in words) else None


def _stem(word: str) -> str:
    return word.removesuffix("s")
