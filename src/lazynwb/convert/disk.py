"""What a disk refuses, in whichever library's words: it is the fault of no table, and never ignored."""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING

from lazynwb.errors import LazyNWBError

if TYPE_CHECKING:
    from pathlib import Path

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
