"""Value files of an index as parts of the column store, for scans of the indexed files.

A value file and its entry correspond to a part and its entry in the column store, with three differences:
values have the merged types of the table, metadata and `_nwb_path` are also columns, and the files are not
trusted.
"""

from __future__ import annotations

import zlib
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from lazynwb.catalog.dtypes import RESERVED, column_dtype
from lazynwb.catalog.lengths import length_name
from lazynwb.column_store.entries import StoredPart, decode, encode
from lazynwb.column_store.reading import Pick
from lazynwb.errors import CorruptDataError, SourceNotFoundError
from lazynwb.formats.nwb.names import OTHER_PATHS
from lazynwb.index.location import damaged_error
from lazynwb.index.value_files import FolderPart, check_part
from lazynwb.lookup.stored_tables import Cover, StoredTable
from lazynwb.profile import count

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import polars as pl

    from lazynwb.column_store.entries import Entry, Layout
    from lazynwb.column_store.reading import PartLostError
    from lazynwb.index.location import Folder
    from lazynwb.index.manifest import TableValues, ValueFile
    from lazynwb.storage.source import Source

#: Maximum size of the entry of a value file, because an index is not trusted.
MAX_ENTRY_BYTES = 256 * 1024 * 1024
_COMPRESSION_LEVEL = 6


def encode_entry(entry: Entry) -> bytes:
    """Encode and compress an entry, whose paths and identities are similar."""
    return zlib.compress(encode(entry), _COMPRESSION_LEVEL)


def read_entry(folder: Folder, values: TableValues, file: ValueFile) -> Entry | None:
    """Return the entry of a value file; None if it was written by another version of this package.

    Raises
    ------
    SourceNotFoundError
        If the entry does not exist.
    CorruptDataError
        If the entry is damaged.
    """
    name = file.entry_name
    check_part(folder, values, file)
    if file.entry_bytes > MAX_ENTRY_BYTES:
        raise damaged_error(folder, name, "it is too large")
    data = folder.read(name, 0, file.entry_bytes)
    count(bytes_stored=len(data))
    unpacking = zlib.decompressobj()
    try:
        entry = decode(unpacking.decompress(data, MAX_ENTRY_BYTES))
    except (zlib.error, CorruptDataError) as error:
        raise damaged_error(folder, name, error) from None
    if entry is None:
        return None
    if (
        entry.part != file.part
        or entry.table != values.table
        or any(layout.path is None for layout in entry.layouts)
    ):
        raise damaged_error(folder, name, "it does not match its value file")
    return entry


class IndexPart(StoredPart):
    """A value file of an index.

    Parameters
    ----------
    folder : Folder
    file : ValueFile
    entry : Entry
    dtypes : mapping of str to DataType
        Types of its columns.
    """

    __slots__ = ("_bytes", "_dtypes")

    is_trusted = False

    def __init__(
        self, folder: Folder, file: ValueFile, entry: Entry, dtypes: Mapping[str, pl.DataType]
    ) -> None:
        super().__init__(Path(file.name), entry)
        self._bytes = FolderPart(folder, file)
        self._dtypes = dtypes

    @property
    def bytes(self) -> FolderPart:
        """The bytes of the file."""
        return self._bytes

    def dtype(self, ordinal: int, name: str) -> pl.DataType | None:
        """Return the type of a column, which is the same for all sessions."""
        del ordinal
        return self._dtypes.get(name)


class TableParts:
    """The value files of one table of an index.

    Parameters
    ----------
    folder : Folder
    values : TableValues
    identities : mapping of str to str or None
        Identities of the sessions in the index, by path.

    Raises
    ------
    SourceNotFoundError
        If an entry is missing.
    CorruptDataError
        If an entry is damaged.

    Attributes
    ----------
    dtypes : dict of str to DataType
    parts : list of IndexPart
    is_complete : bool
        Whether all files are usable and match the identities of the sessions.
    is_linked, has_problems : bool
        Whether any session has links to other files, and whether any has broken links.
    """

    def __init__(self, folder: Folder, values: TableValues, identities: Mapping[str, str | None]) -> None:
        self.dtypes = values.dtypes
        self.parts: list[IndexPart] = []
        self.is_complete = True
        self.is_linked = self.has_problems = False
        #: The part of each session, and the position in the part.
        self.places: dict[str, tuple[IndexPart, int]] = {}
        for file in values.files:
            entry = read_entry(folder, values, file)
            if entry is None:
                self.is_complete = False
                continue
            part = IndexPart(folder, file, entry, self.dtypes)
            self.parts.append(part)
            sessions = entry.sessions
            problems = any(map(attrgetter("problems"), sessions))
            self.has_problems |= problems
            self.is_linked |= problems or any(map(attrgetter("depends"), sessions))
            known = [identities.get(session.key) for session in sessions]
            if (
                None not in known
                and known == [session.identity for session in sessions]
                and len(part.ordinals) == len(sessions)
                and self.places.keys().isdisjoint(part.ordinals)
            ):
                self.places.update((key, (part, ordinal)) for key, ordinal in part.ordinals.items())
                continue
            self.is_complete = False
            for ordinal, (session, identity) in enumerate(zip(sessions, known, strict=True)):
                if identity is not None and identity == session.identity and session.key not in self.places:
                    self.places[session.key] = part, ordinal
        self.keys = list(self.places)


class ValueParts:
    """The values of one table for a scan; see `lazynwb.lookup.stored_tables.StoredValues`.

    Parameters
    ----------
    table : str
        Path without the leading slash.
    found : TableParts
    schema : mapping of str to DataType
        Columns of the scan.
    overridden : frozenset of str
        Columns whose types the user chose.
    links_as_built : bool
        Whether external links are followed as during the build of the index.
    lacks : callable
        Function that returns whether all of some sources are certain to lack the table.
    on_loss : callable
        Function that is called with the error of a missing or damaged part.
    """

    def __init__(  # noqa: PLR0913 - the parameters of `StoredValues`
        self,
        table: str,
        found: TableParts,
        schema: Mapping[str, pl.DataType],
        overridden: frozenset[str],
        *,
        links_as_built: bool,
        lacks: Callable[[Sequence[Source]], bool],
        on_loss: Callable[[PartLostError], None],
    ) -> None:
        self._table = table
        self._found = found
        self._schema = schema
        self._overridden = overridden
        self._links_as_built = links_as_built
        self._lacks = lacks
        self._on_loss = on_loss
        self._usable: dict[tuple[int, int], tuple[frozenset[str], frozenset[str]]] = {}

    def find(self, sources: Sequence[Source]) -> list[StoredTable | None]:
        """Return the table of each source; None if its values are not in the index."""
        places = self._found.places
        found: list[StoredTable | None] = []
        for source in sources:
            place = places.get(source.public)
            if place is None:
                found.append(None)
                continue
            part, ordinal = place
            session, layout = part.session(ordinal), part.layout(ordinal)
            is_other = self._table in OTHER_PATHS and layout.path != self._table
            if is_other or ((session.depends or session.problems) and not self._links_as_built):
                found.append(None)
            else:
                found.append(StoredTable(source, session, layout))
        return found

    def cover(self, table: StoredTable, names: frozenset[str]) -> Cover:
        """Return the locations of columns of a table."""
        part, ordinal = self._found.places[table.source.public]
        own, usable = self._columns(part, part.session(ordinal).layout)
        taken = names & usable
        return Cover((Pick(part, ordinal, taken),) if taken else (), (names & own) - usable)

    def _columns(self, part: IndexPart, number: int) -> tuple[frozenset[str], frozenset[str]]:
        """Return the columns of a layout, and those whose stored values a scan can use."""
        key = id(part), number
        found = self._usable.get(key)
        if found is None:
            layout = part.entry.layouts[number]
            own = frozenset(column.name for column in layout.columns if column.name not in RESERVED)
            found = self._usable[key] = own.union(map(length_name, own)), self._usable_of(layout)
        return found

    def _usable_of(self, layout: Layout) -> frozenset[str]:
        """Return the columns whose stored values equal those of a scan of the file."""
        dtypes = self._found.dtypes
        usable = []
        for column in layout.columns:
            name = column.name
            if name in layout.stored and name in self._schema and name in dtypes:
                # Stored values have the merged type of the table, and the scan casts them to its own.
                is_own = column_dtype(column) == dtypes[name]
                if is_own or (dtypes[name] == self._schema[name] and name not in self._overridden):
                    usable.append(name)
            length = length_name(name)
            if length in layout.stored and length in self._schema and length in dtypes:
                usable.append(length)
        return frozenset(usable)

    def whole(self, sources: Sequence[Source], names: frozenset[str]) -> list[IndexPart] | None:
        """Return all parts, if they contain the columns of exactly these sources, in order."""
        found = self._found
        if (
            not found.is_complete
            or any(layout.path != self._table for part in found.parts for layout in part.entry.layouts)
            or (found.is_linked and (not self._links_as_built or found.has_problems))
        ):
            return None
        paths = [source.path for source in sources]
        # Paths that are those of the index have nothing that is left out of public ones.
        if paths != found.keys:
            publics = [source.public for source in sources]
            others = [
                source for source, path in zip(sources, publics, strict=True) if path not in found.places
            ]
            inside = [path for path in publics if path in found.places]
            if inside != found.keys or paths != publics or not self._lacks(others):
                return None
        for part in found.parts:
            for number in range(len(part.entry.layouts)):
                own, usable = self._columns(part, number)
                if not names & own <= usable:
                    return None
        return list(found.parts)

    def lost(self, error: PartLostError) -> None:
        """Raise an error if a part is damaged; if it is missing, the files are read."""
        self._on_loss(error)


def is_removed(folder: Folder, name: str) -> bool:
    """Return whether a file of an index has been removed."""
    try:
        folder.read(name, 0, 1)
    except SourceNotFoundError:
        return True
    return False
