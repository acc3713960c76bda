"""The metadata of a session, and its subject."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from lazynwb.catalog.provenance import INTERNAL
from lazynwb.lookup.attributes import copied
from lazynwb.metadata import DATES, parse_time, read_metadata
from lazynwb.session.contents import Container, File

if TYPE_CHECKING:
    from lazynwb.catalog.listing import Listing

_LOGGER = logging.getLogger("lazynwb")


class SessionFile(File):
    """A file with the metadata of its session and subject, kept while the file is the same."""

    _read: tuple[Listing, dict[str, Any], dict[str, Any]] | None = None

    def metadata(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what the file says of the session, and of the subject, times as datetimes."""
        listing = self.contents.listing
        if self._read is None or self._read[0] is not listing:
            found = read_metadata([self.source], disable_progress=True)
            session, subject = (
                {
                    name: self._parsed(name, value)
                    for name, value in frame.row(0, named=True).items()
                    if name not in INTERNAL
                }
                for frame in found
            )
            self._read = listing, session, subject
        return copied(self._read[1]), copied(self._read[2])

    def _parsed(self, name: str, value: Any) -> Any:  # noqa: ANN401 - what the file says
        if name not in DATES or value is None:
            return value
        items = value if isinstance(value, list) else [value]
        times = [parse_time(item) for item in items]
        if None in times:
            _LOGGER.warning("%s: %s is no time in ISO 8601, and None here: %r", self.source.name, name, value)
        return times if isinstance(value, list) else times[0]


class Subject(Container):
    """The subject of a session: its fields, and whatever else the file has in `/general/subject`.

    The fields that the schema defines are None where the file does not say. Values have the types of the
    file; `date_of_birth` is a datetime, with the file's own offset from UTC.
    """

    _file: SessionFile

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - what the file says
        """Return a field, a member of the group, or an attribute of it."""
        if not name.startswith("_"):
            fields = self._file.metadata()[1]
            if name in fields:
                return fields[name]
        return super().__getattr__(name)

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401
        """Return a field that the file has, or another member of the group."""
        fields = self._file.metadata()[1]
        return fields[name] if name in self and name in fields else super().__getitem__(name)

    def __dir__(self) -> list[str]:
        """Name the fields too."""
        return sorted({*super().__dir__(), *filter(str.isidentifier, self._file.metadata()[1])})

    def __repr__(self) -> str:
        from lazynwb.session.tree import text_fields

        said = {name: value for name, value in self._file.metadata()[1].items() if value is not None}
        return "\n".join([f"Subject {self.path}", *text_fields(said)])

    def _repr_html_(self) -> str:
        from lazynwb.session.tree import html_tree

        said = {name: value for name, value in self._file.metadata()[1].items() if value is not None}
        others = {name: entry for name, entry in self._entries().items() if entry.kind != "dataset"}
        return html_tree(self.path, said, self._file.contents, self._path, others, unfolded=True)
