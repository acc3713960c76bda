"""Retry with backoff, whatever is asked."""

from __future__ import annotations

import math
import random
import time
from typing import TYPE_CHECKING, TypeVar

from lazynwb.config import config
from lazynwb.profile import count
from lazynwb.storage.error_mapping import Failure

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds before a request is repeated for the last time, at most.
_MAX_PAUSE = 20.0
T = TypeVar("T")


def repeat(ask: Callable[[], T | Failure], seconds_to_wait: Callable[[Failure], float]) -> T:
    """Make a request until it succeeds, or has been made often enough.

    Parameters
    ----------
    ask : callable
        Makes the request. A failure is returned: raised, it would bring the library's error as its context.
    seconds_to_wait : callable
        Returns for how long the server wants no requests; called for failures that say it is busy.

    Raises
    ------
    LazyNWBError
        That of the last failure, once it is final, or after `config.max_retries` or `config.retry_seconds`.
    """
    deadline = 0.0
    tries = 0
    while True:
        answer = ask()
        if not isinstance(answer, Failure):
            return answer
        tries += 1
        if answer.pause is None:
            raise answer.error
        # From the first failure on: a request may have had to wait for its turn.
        deadline = deadline or time.monotonic() + config.retry_seconds
        pause = min(answer.pause * 2 ** (tries - 1), _MAX_PAUSE)
        pause *= random.uniform(1, 1.4)  # noqa: S311 - so that many clients do not come back together
        later = ""
        if answer.busy and tries <= config.max_retries:
            asked = seconds_to_wait(answer)
            if asked:
                pause = asked * random.uniform(1, 1.1)  # noqa: S311 - the same
                later = f"; it asks to be left alone for {math.ceil(asked)} s: run the query again then"
        if tries > config.max_retries or time.monotonic() + pause > deadline:
            raise type(answer.error)(f"{answer.error} (tried {tries} time{'s' if tries > 1 else ''}{later})")
        count(retries=1)
        time.sleep(pause)
