"""Public helpers of lazynwb 1.x: executors, and normalization of paths inside files."""

from __future__ import annotations

import concurrent.futures
import functools
import multiprocessing
import os
from typing import Any

from lazynwb._compatibility import missing
from lazynwb.formats.nwb.names import TABLE_SHORTCUTS
from lazynwb.lookup.schema import normalize_table_path

__all__ = [
    "TABLE_SHORTCUTS",
    "get_processpool_executor",
    "get_threadpool_executor",
    "normalize_internal_file_path",
]


@functools.cache
def get_threadpool_executor() -> concurrent.futures.ThreadPoolExecutor:
    """Return the process-wide thread pool; lazynwb itself does not use it."""
    return concurrent.futures.ThreadPoolExecutor()


@functools.cache
def get_processpool_executor() -> concurrent.futures.ProcessPoolExecutor:
    """Return the process-wide pool of processes that do not fork, for `scan_nwb(executor=...)`."""
    method = "spawn" if os.name == "posix" else None
    return concurrent.futures.ProcessPoolExecutor(mp_context=multiprocessing.get_context(method))


def normalize_internal_file_path(path: str) -> str:
    """Return a path without its leading slash, with shortcuts (`trials`) expanded; "/" for the root."""
    return normalize_table_path(path.lstrip("/")) or "/"


def __getattr__(name: str) -> Any:  # noqa: ANN401 - it only raises
    """Explain names that are not here."""
    raise missing(__name__, name)
