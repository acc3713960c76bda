"""Names of output files and folders, which are distinct and safe on every system."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import TYPE_CHECKING

import polars as pl
from polars import selectors

from lazynwb.catalog.dtypes import NWB_PATH
from lazynwb.errors import LazyNWBError
from lazynwb.scan import scan_nwb

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lazynwb.storage.source import Source

#: Allowed characters in addition to letters and digits of any script.
_PLAIN = frozenset("._-+() ")
#: Maximum bytes of a name; file systems allow 255, and suffixes are added.
_MAX_BYTES = 160
#: Names of devices on Windows, with any suffix.
_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))]
)
#: Null in names of hive partitions.
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
#: A truncated percent-encoded byte.
_CUT = re.compile(r"%[0-9A-F]?$")


def safe_name(text: str) -> str:
    """Convert a string to a file name that is neither hidden nor reserved."""
    plain = unicodedata.normalize("NFC", text)
    name = "".join(c if c.isalnum() or c in _PLAIN else "_" for c in plain)
    if name.startswith("."):
        name = "_" + name[1:]
    name = name.strip(" ").rstrip(". ") or "_"
    if name.partition(".")[0].lower() in _DEVICES:
        name = "_" + name
    if len(name.encode()) > _MAX_BYTES:
        name = name.encode()[:_MAX_BYTES].decode(errors="ignore").rstrip(". ") + "-" + digest(text)
    return name


def distinct_names(preferred: Mapping[str, str]) -> dict[str, str]:
    """Return a safe name for each key; names differ by more than case and accents.

    Parameters
    ----------
    preferred : mapping of str to str
        Preferred names by key.
    """
    names = {key: safe_name(text) for key, text in preferred.items()}
    crowded = _shared(names.values())
    # All clashing names get a hash, so that names depend little on the other tables.
    return {key: f"{name}-{digest(key)}" if _folded(name) in crowded else name for key, name in names.items()}


def partition_names(column: str, values: Iterable[str | None]) -> dict[str | None, str]:
    """Return the folder of each value of a hive partition, such as `session=abc`.

    Readers recover the values, unless these are too long for a folder name. Special characters are
    percent-encoded, and so are capitals of values that only differ in case, which some file systems ignore.

    Parameters
    ----------
    column : str
        Name of the partition column.
    values : iterable of str or None
        Values of the column.
    """
    distinct = dict.fromkeys(values)
    encoded = {value: _encoded(value) for value in distinct if value is not None}
    crowded = _shared(encoded.values())
    folders: dict[str | None, str] = {None: f"{column}={_HIVE_NULL}"}
    for value, text in encoded.items():
        name = _encoded(value, capitals=True) if _folded(text) in crowded else text
        if len(name) > _MAX_BYTES:
            name = f"{_CUT.sub('', name[:_MAX_BYTES])}-{digest(value)}"
        folders[value] = f"{column}={name}"
    return {value: folders[value] for value in distinct}


def _encoded(value: str, *, capitals: bool = False) -> str:
    def plain(at: int, character: str) -> bool:
        if character in " ." and at == len(value) - 1:
            return False  # Windows drops it
        return character.isascii() and (
            character.isdigit()
            or character in "_-. "
            or (character.isalpha() and not (capitals and character.isupper()))
        )

    return "".join(
        c if plain(i, c) else "".join(f"%{byte:02X}" for byte in c.encode("utf-8", "surrogatepass"))
        for i, c in enumerate(value)
    )


def file_stem(path: str) -> str:
    """Return the name of a file, local or remote, without its folder and suffix."""
    last = path.partition("?")[0].rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1]
    base = last
    for ending in (".zarr", ".nwb", ".h5", ".hdf5", ".json"):
        base = base.removesuffix(ending)
    return base or last


def digest(text: str) -> str:
    """Return eight characters of the hash of a string."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKD", name).casefold()


def _shared(names: Iterable[str]) -> set[str]:
    seen: set[str] = set()
    shared: set[str] = set()
    for name in map(_folded, names):
        (shared if name in seen else seen).add(name)
    return shared


#: Fields that name a session or subject; the first that is not empty is used.
_PLACES = {
    "session": ("/general", ("session_id", "identifier")),
    "subject": ("/general/subject", ("subject_id",)),
}


def names_of(sources: Sequence[Source], kind: str, *, disable_progress: bool) -> dict[str, str | None]:
    """Return the session or subject of each file, by the path of the file.

    The name of a session is its `session_id` (nwb-schema, /general), or else the `identifier` of the root, or
    else the file name. The name of a subject is its `subject_id`; a file without one has no subject.

    Parameters
    ----------
    sources : sequence of Source
        The files.
    kind : {"session", "subject"}
        Which name to return.
    disable_progress : bool
        Whether to hide progress bars.
    """
    table, columns = _PLACES[kind]
    found: dict[str, str | None] = {source.path: None for source in sources}
    try:
        frame = scan_nwb(list(sources), table, ignore_errors=True, disable_progress=disable_progress)
        have = [name for name in columns if name in frame.collect_schema()]
        rows = frame.select(selectors.by_name(NWB_PATH, *have)).collect()
    except LazyNWBError:
        rows = pl.DataFrame()
    for row in rows.iter_rows(named=True):
        texts = (_text(row[name]) for name in columns if name in row)
        found[row[NWB_PATH]] = next((text for text in texts if text), None)
    if kind == "session":
        return {source.path: found[source.path] or file_stem(source.name) for source in sources}
    return found


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
