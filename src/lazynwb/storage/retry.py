"""Retry with exponential backoff, for requests of any kind."""

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

#: Maximum backoff in seconds.
_MAX_PAUSE = 20.0
T = TypeVar("T")


def repeat(ask: Callable[[], T | Failure], seconds_to_wait: Callable[[Failure], float]) -> T:
    """Repeat a request until it succeeds or the retries are exhausted.

    Parameters
    ----------
    ask : callable
        Makes one request. It returns a failure rather than raise it, so that the library's error is not its
        context.
    seconds_to_wait : callable
        Returns the delay in seconds that the server requests; called for failures of a busy server.

    Raises
    ------
    LazyNWBError
        The error of the last failure, if it is final, or after `config.max_retries` retries or
        `config.retry_seconds`.
    """
    deadline = 0.0
    tries = 0
    while True:
        result = ask()
        if not isinstance(result, Failure):
            return result
        tries += 1
        if result.pause is None:
            raise result.error
        # Count from the first failure: the first request may have waited for a slot.
        deadline = deadline or time.monotonic() + config.retry_seconds
        pause = min(result.pause * 2 ** (tries - 1), _MAX_PAUSE)
        pause *= random.uniform(1, 1.4)  # noqa: S311 - jitter
        hint = ""
        if result.busy and tries <= config.max_retries:
            delay = seconds_to_wait(result)
            if delay:
                pause = delay * random.uniform(1, 1.1)  # noqa: S311 - jitter
                hint = f"; the server asks to retry after {math.ceil(delay)} s: run the query again then"
        if tries > config.max_retries or time.monotonic() + pause > deadline:
            raise type(result.error)(f"{result.error} (tried {tries} time{'s' if tries > 1 else ''}{hint})")
        count(retries=1)
        time.sleep(pause)
