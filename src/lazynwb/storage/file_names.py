"""Names that NWB files go by, and glob patterns over names in stores."""

from __future__ import annotations

import re

#: Ends of the names of NWB files. A Zarr store is a folder, a zip archive, or a file of references.
NWB_SUFFIXES = (
    *(".nwb", ".nwb.h5", ".nwb.hdf5", ".nwb.zarr", ".nwb.zip", ".nwb.zarr.zip"),
    *(".nwb.lindi.json", ".lindi.json", ".nwb.lindi.tar", ".lindi.tar"),
)
#: Ends of the names of Zarr stores that are a single file.
SINGLE_FILE_STORES = (".zarr.zip", ".nwb.zip", ".lindi.json", ".lindi.tar")
#: Metadata documents of Zarr, one of which is in the root of every store.
ZARR_MARKS = ("zarr.json", ".zgroup", ".zmetadata", ".zattrs")
WILDCARDS = frozenset("*?[")
#: Ends of the names of HDF5 files, which may be NWB or not.
HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")
_PACKED = r"\.nwb(\.\w+)*\.(gz|bz2|xz|zst|7z|rar|tar|tgz)$"
_UNFINISHED = r"\.nwb(\.\w+)*\.(part|partial|filepart|tmp|download|crdownload)$"
#: Names that a message lists.
_LISTED = 5


def is_nwb_name(name: str) -> bool:
    """Return whether a file's name, without its folder, is one that NWB files go by."""
    return not name.startswith(".") and name.lower().endswith(NWB_SUFFIXES)


def unusable(name: str) -> str:
    """Return why a file that is called like an NWB file is none; an empty text for all others."""
    if re.search(_PACKED, name, re.IGNORECASE):
        return "compressed"
    return "a transfer that was not finished" if re.search(_UNFINISHED, name, re.IGNORECASE) else ""


def passed_over(where: str, names: list[str]) -> str:
    """Say that a search of a folder left out what looks like NWB; an empty text if nothing."""
    if not names:
        return ""
    listed = ", ".join(sorted(names)[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
    what = "1 file or folder that looks" if len(names) == 1 else f"{len(names)} files or folders that look"
    return (
        f"{what} like NWB passed over in {where}: {listed}; pass the paths of those that are meant, or a "
        "pattern (*.h5), and unpack what is compressed"
    )


def is_single_file_store(path: str) -> bool:
    """Return whether a path or URL is, by its name, a Zarr store in a single file."""
    return path.partition("?")[0].lower().endswith(SINGLE_FILE_STORES)


def before_wildcard(path: str) -> str:
    """Return the part of a glob pattern that stands for itself."""
    at = min(path.index(character) for character in WILDCARDS if character in path)
    return path[:at]


def pattern_of(path: str) -> re.Pattern[str]:
    """Translate a glob pattern: `*` and `?` stay within a path's part, `**/` spans any number of them."""
    out = []
    for part in re.split(r"(\*\*/|\*\*|\*|\?|\[!?[^\]]+\])", path):
        if part == "**/":
            out.append("(?:[^/]+/)*")
        elif part == "**":
            out.append(".*")
        elif part == "*":
            out.append("[^/]*")
        elif part == "?":
            out.append("[^/]")
        elif part.startswith("[") and part.endswith("]"):
            inner = part[1:-1].replace("\\", "\\\\")
            out.append(f"[^{inner[1:]}]" if inner.startswith("!") else f"[{inner}]")
        else:
            out.append(re.escape(part))
    return re.compile("".join(out))
