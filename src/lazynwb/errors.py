"""Errors of the package, which derive from `LazyNWBError`.

Messages name the file, the table and the column, and the next step.
"""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING

from lazynwb.terminal_text import escape_controls

if TYPE_CHECKING:
    from pathlib import Path


class LazyNWBError(Exception):
    """Base class of the errors of this package.

    `str()` escapes control characters of names in files; `args` has the message unchanged.
    """

    def __str__(self) -> str:
        """Return the message with control characters escaped."""
        return escape_controls(super().__str__())


class SourceNotFoundError(LazyNWBError, FileNotFoundError, ValueError):
    """A file does not exist, a folder or pattern has no NWB files, or no source was given.

    Also a ValueError, which existing code expects.
    """


class NotNWBError(LazyNWBError, ValueError):
    """A file cannot be read as NWB: it has another format, or is empty, truncated or damaged."""


class TableNotFoundError(LazyNWBError, KeyError):
    """No file has the table or object; the message lists those that exist."""

    def __str__(self) -> str:
        """Return the message; `KeyError` would return its repr."""
        return escape_controls(str(self.args[0])) if self.args else ""


class BrokenTableLinkError(TableNotFoundError):
    """The table of a file is a broken link; the message names its target."""


class ColumnNotFoundError(LazyNWBError, KeyError):
    """No file has the column, or a frame lacks a required column."""

    def __str__(self) -> str:
        """Return the message; `KeyError` would return its repr."""
        return escape_controls(str(self.args[0])) if self.args else ""


class SchemaError(LazyNWBError, TypeError):
    """The types of a column in two files have no common type, or a cast would lose values."""


class CorruptDataError(LazyNWBError, ValueError):
    """Stored bytes contradict the structure of the file: a checksum, an index or the size of a chunk."""


class NotAscendingError(LazyNWBError, ValueError):
    """Timestamps do not ascend, although the operation requires it."""


class UnsupportedTypeError(LazyNWBError, TypeError):
    """A selected column has a stored type or filter that is not supported."""


class SourceChangedError(LazyNWBError, RuntimeError):
    """A file was replaced or changed while a query read it."""


class MissingPackageError(LazyNWBError, ImportError):
    """A package that an output or a codec needs is not installed; the message names it."""


def may_skip(error: LazyNWBError, *, ignore_errors: bool) -> bool:
    """Return whether `ignore_errors` skips an error; missing packages are always reported."""
    return ignore_errors and not isinstance(error, MissingPackageError)


#: Disk full, over a quota, file too large, read-only file system, input/output error.
_WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_NUMBER = re.compile(r"\(os error (\d+)\)")


def system_error(error: BaseException, path: Path) -> OSError | None:
    """Return the operating system's error behind another one, with the path; None if there is none.

    Polars, xlsxwriter, deltalake and DuckDB raise errors of their own, without its number or the file.
    """
    if isinstance(error, LazyNWBError):
        return None  # an error of reading
    number = error.errno if isinstance(error, OSError) else None
    if number is None:
        text = str(error)
        found = _NUMBER.search(text)
        number = int(found[1]) if found else next((n for n in _WRITE_ERRORS if os.strerror(n) in text), None)
    if number is None or not (isinstance(error, OSError) or number in _WRITE_ERRORS):
        return None
    return OSError(number, os.strerror(number), str(path))
