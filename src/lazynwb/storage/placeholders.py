"""Placeholders of Git LFS and git-annex, whose contents are stored elsewhere."""

from __future__ import annotations

import re

#: Maximum size of a placeholder.
MAX_BYTES = 32 * 1024
_LFS = re.compile(rb"version https://(git-lfs\.github\.com|hawser\.github\.com)/")
#: A path into the annex: the contents of an unlocked file, or the target of a link.
_ANNEX = re.compile(rb"\s*(\S*/)?(\.git/)?annex/objects/\S+\s*")


def describe(name: str, head: bytes) -> str:
    """Return a description of the placeholder that begins with `head`; an empty string for other files."""
    if _LFS.match(head):
        return f"{name} is a Git LFS pointer, not the file itself: fetch it (git lfs pull)"
    if _ANNEX.match(head) and len(head) < MAX_BYTES:
        return f"{name} is a git-annex pointer, not the file itself: {_GET}"
    return ""


def describe_link(path: str, target: str) -> str:
    """Return a description of a broken symbolic link."""
    if _ANNEX.match(target.encode(errors="replace")):
        return f"{path} is a git-annex link whose contents are missing: {_GET}"
    return (
        f"no such file: {path} is a symbolic link to {target}, which does not exist: restore the target, or "
        "correct the link"
    )


_GET = "fetch them (git annex get, or datalad get)"
