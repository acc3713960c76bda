"""What is asked of a store: repeated while that may help."""

from __future__ import annotations

import math
import random
import time
from typing import TYPE_CHECKING, TypeVar

from lazynwb.config import config
from lazynwb.errors import LazyNWBError
from lazynwb.profile import count
from lazynwb.sources.busy import seconds_asked_for
from lazynwb.sources.failure import Failure
from lazynwb.sources.stores import Location, locate, module_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazynwb.sources.source import Source

#: Seconds before a request is repeated for the last time, at most.
_LONGEST_PAUSE = 20.0

T = TypeVar("T")


def attempt(source: Source, ask: Callable[[Location], T | Failure]) -> T:
    """Return what a store answers, when it does.

    Parameters
    ----------
    source : Source
    ask : callable
        Makes the request. A failure is returned: raised, it would bring obstore's error along as its context.

    Raises
    ------
    LazyNWBError
        If it may not be answered, or the server does not answer as it should, also not when asked again.
    """
    deadline = 0.0
    tries = 0
    looked_again = False
    while True:
        answer = _asked(source, ask)
        if not isinstance(answer, Failure):
            return answer
        if answer.elsewhere and not looked_again:
            looked_again = True
            if _look_again(source, answer):
                continue
        tries += 1
        if answer.pause is None:
            raise answer.error
        # From the first failure on: a request may have had to wait for its turn.
        deadline = deadline or time.monotonic() + config.retry_seconds
        pause = min(answer.pause * 2 ** (tries - 1), _LONGEST_PAUSE)
        pause *= random.uniform(1, 1.4)  # noqa: S311 - so that many clients do not come back together
        later = ""
        if answer.busy and tries <= config.max_retries:
            asked = seconds_asked_for(source)
            if asked:
                pause = asked * random.uniform(1, 1.1)  # noqa: S311 - the same
                later = f"; it asks to be left alone for {math.ceil(asked)} s: run the query again then"
        if tries > config.max_retries or time.monotonic() + pause > deadline:
            message = f"{answer.error} (tried {tries} time{'s' if tries > 1 else ''}{later})"
            raise type(answer.error)(message)
        count(retries=1)
        time.sleep(pause)


def _asked(source: Source, ask: Callable[[Location], T | Failure]) -> T | Failure:
    try:
        return ask(locate(source))
    except BaseException as error:
        # A panic of Rust's, as at a line break in a key, is no `Exception`, and its class cannot be imported.
        if type(error).__name__ != "PanicException":
            raise
    message = f"{source.name}: no request can be made of its URL and the credentials: check both"
    return Failure(LazyNWBError(message))


def _look_again(source: Source, failure: Failure) -> bool:
    """Ask where a refused object is now, where that can be asked; tell whether it may be found there."""
    look_again = getattr(module_of(source), "look_again", None)
    return look_again is not None and bool(look_again(source, failure.region))
