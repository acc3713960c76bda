"""File names of NWB files, and glob patterns over names in stores."""

from __future__ import annotations

import re

from lazynwb.suggestions import join_names

#: Suffixes of NWB files. A Zarr store is a folder, a zip archive, or a reference file.
NWB_SUFFIXES = (
    *(".nwb", ".nwb.h5", ".nwb.hdf5", ".nwb.zarr", ".nwb.zip", ".nwb.zarr.zip"),
    *(".nwb.lindi.json", ".lindi.json", ".nwb.lindi.tar", ".lindi.tar"),
)
#: Suffixes of Zarr stores in a single file.
SINGLE_FILE_STORES = (".zarr.zip", ".nwb.zip", ".lindi.json", ".lindi.tar")
#: Metadata documents of Zarr; every store has at least one of them in its root.
ZARR_DOCUMENTS = ("zarr.json", ".zgroup", ".zmetadata", ".zattrs")
WILDCARDS = frozenset("*?[")
#: Suffixes of HDF5 files, which may or may not be NWB.
HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")
_COMPRESSED = r"\.nwb(\.\w+)*\.(gz|bz2|xz|zst|7z|rar|tar|tgz)$"
_UNFINISHED = r"\.nwb(\.\w+)*\.(part|partial|filepart|tmp|download|crdownload)$"
#: Maximum number of names in a message.
_MAX_LISTED = 5


def is_nwb_name(name: str) -> bool:
    """Return whether a file name, without its folder, has an NWB suffix."""
    return not name.startswith(".") and name.lower().endswith(NWB_SUFFIXES)


def unusable_reason(name: str) -> str:
    """Return why a file with `.nwb` in its name cannot be read; an empty string for all others."""
    if re.search(_COMPRESSED, name, re.IGNORECASE):
        return "compressed"
    return "an unfinished transfer" if re.search(_UNFINISHED, name, re.IGNORECASE) else ""


def describe_skipped(where: str, names: list[str]) -> str:
    """Return a warning that a search skipped files that look like NWB; an empty string if there are none."""
    if not names:
        return ""
    listed = join_names(sorted(names), _MAX_LISTED)
    what = "1 file or folder that looks" if len(names) == 1 else f"{len(names)} files or folders that look"
    return (
        f"{what} like NWB skipped in {where}: {listed}; to read them, pass their paths or a pattern (*.h5), "
        "and decompress files that are compressed"
    )


def is_single_file_store(path: str) -> bool:
    """Return whether a path or URL has the suffix of a Zarr store in a single file."""
    return path.partition("?")[0].lower().endswith(SINGLE_FILE_STORES)


def literal_prefix(path: str) -> str:
    """Return the part of a glob pattern before its first wildcard."""
    at = min(path.index(character) for character in WILDCARDS if character in path)
    return path[:at]


def compile_glob(path: str) -> re.Pattern[str]:
    """Compile a glob pattern: `*` and `?` match within one part of a path, `**/` any number of parts."""
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
