"""Helpers of lazynwb 1.x that its users call: executors, and the form of paths inside files."""

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
    """Return one executor of threads for the process; lazynwb itself does not use it."""
    return concurrent.futures.ThreadPoolExecutor()


@functools.cache
def get_processpool_executor() -> concurrent.futures.ProcessPoolExecutor:
    """Return one executor of processes that do not fork, such as `scan_nwb(executor=...)` takes."""
    method = "spawn" if os.name == "posix" else None
    return concurrent.futures.ProcessPoolExecutor(mp_context=multiprocessing.get_context(method))


def normalize_internal_file_path(path: str) -> str:
    """Return a path without its leading slash, shortcuts such as `trials` spelled out; "/" for the root."""
    return normalize_table_path(path.lstrip("/")) or "/"


def __getattr__(name: str) -> Any:  # noqa: ANN401 - it only raises
    """Explain names that are not here."""
    raise missing(__name__, name)
