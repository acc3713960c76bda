"""The errors that users see: one small hierarchy, each with what to do next in its message.

What a disk refuses, in whichever library's words: it is the fault of no table, and never ignored.
"""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING

from lazynwb.terminal_text import harmless

if TYPE_CHECKING:
    from pathlib import Path


class LazyNWBError(Exception):
    """Base of every error that this package raises on purpose.

    As text it is harmless to a terminal, whatever the names are that a file has for things; `args` has them.
    """

    def __str__(self) -> str:
        """Return the message, without characters that steer a terminal."""
        return harmless(super().__str__())


class SourceNotFoundError(LazyNWBError, FileNotFoundError, ValueError):
    """A file, folder or pattern does not exist or holds no NWB file, or no source was given at all.

    It is a ValueError, too, as existing code expects.
    """


class NotNWBError(LazyNWBError, ValueError):
    """A file that exists cannot be read as NWB: another format, empty, truncated or damaged."""


class TableNotFoundError(LazyNWBError, KeyError):
    """No file has the table, or another object, that was asked for; the message lists those that exist."""

    def __str__(self) -> str:
        """Return the message itself: `KeyError` alone would show its repr."""
        return harmless(str(self.args[0])) if self.args else ""


class BrokenTableLinkError(TableNotFoundError):
    """A file has a link in the place of a table, and the link leads nowhere; the message says where to."""


class ColumnNotFoundError(LazyNWBError, KeyError):
    """A column that was asked for is in no file, or a frame lacks one that is needed."""

    def __str__(self) -> str:
        """Return the message itself, as `TableNotFoundError` does."""
        return harmless(str(self.args[0])) if self.args else ""


class SchemaError(LazyNWBError, TypeError):
    """Files store a column in types that have no common type, or a cast would lose values."""


class CorruptDataError(LazyNWBError, ValueError):
    """Bytes of a file contradict its own description: a checksum, an index, a chunk's size."""


class NotAscendingError(LazyNWBError, ValueError):
    """Times that should ascend do not: where one is cannot be told without looking at all of them."""


class UnsupportedTypeError(LazyNWBError, TypeError):
    """A selected column has a stored type or filter that cannot be read here."""


class SourceChangedError(LazyNWBError, RuntimeError):
    """A file was replaced or changed while a query was reading it."""


class MissingPackageError(LazyNWBError, ImportError):
    """A package that a result or a codec takes is not installed; the message says which."""


def may_skip(error: LazyNWBError, *, ignore_errors: bool) -> bool:
    """Return whether what cannot be read is left out: under `ignore_errors`, unless a package is missing."""
    return ignore_errors and not isinstance(error, MissingPackageError)


#: Full, over a quota, past a limit on the size of files, read-only, broken.
_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_NUMBER = re.compile(r"\(os error (\d+)\)")


def refusal(error: BaseException, path: Path) -> OSError | None:
    """Return the error of the system that another one passes on, with the path; None where there is none.

    Polars, xlsxwriter, deltalake and DuckDB have errors of their own for what the system says, or leave out
    its number and the file.
    """
    if isinstance(error, LazyNWBError):
        return None  # of what is read
    number = error.errno if isinstance(error, OSError) else None
    if number is None:
        text = str(error)
        found = _NUMBER.search(text)
        number = int(found[1]) if found else next((n for n in _REFUSALS if os.strerror(n) in text), None)
    if number is None or not (isinstance(error, OSError) or number in _REFUSALS):
        return None
    return OSError(number, os.strerror(number), str(path))
