"""Files that only stand for the contents that Git LFS or git-annex keep elsewhere."""

from __future__ import annotations

import re

#: The longest placeholder that either writes.
MAX_BYTES = 32 * 1024
_LFS = re.compile(rb"version https://(git-lfs\.github\.com|hawser\.github\.com)/")
#: A path into the annex, as the contents of an unlocked file and as the target of a link.
_ANNEX = re.compile(rb"\s*(\S*/)?(\.git/)?annex/objects/\S+\s*")


def describe(name: str, head: bytes) -> str:
    """Return what a placeholder that begins with `head` is and what to do; nothing for any other file."""
    if _LFS.match(head):
        return f"{name} is a Git LFS pointer, not the file itself: fetch it (git lfs pull)"
    if _ANNEX.match(head) and len(head) < MAX_BYTES:
        return f"{name} is a git-annex pointer, not the file itself: {_GET}"
    return ""


def describe_link(path: str, target: str) -> str:
    """Return what a symbolic link to nothing is, and what to do."""
    if _ANNEX.match(target.encode(errors="replace")):
        return f"{path} is a git-annex link, and its contents are not here: {_GET}"
    return (
        f"no such file: {path} is a symbolic link to {target}, where there is nothing: restore what should "
        "be there, or link to where it is now"
    )


_GET = "fetch them (git annex get, or datalad get)"
