"""What is asked of a file's structure, in the same words whatever its format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, TypeVar

from lazynwb.formats.attributes import describe_attributes
from lazynwb.formats.listing import list_objects
from lazynwb.formats.members import describe_members
from lazynwb.formats.regions import region_tables
from lazynwb.formats.tables import describe_table
from lazynwb.profile import count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lazynwb.catalog.listing import Attributes, Listing
    from lazynwb.catalog.model import Table
    from lazynwb.formats.nodes import OpenFile

T = TypeVar("T")


class Parsing(ABC):
    """The part of a `lazynwb.formats.Reader` that is about structure: it takes but a way to run a parse."""

    @abstractmethod
    def _parse(self, path: str, parse: Callable[[OpenFile], T]) -> T:
        """Run a parse of the object at a path, until all that it needs is here."""

    def describe_table(self, path: str) -> Table | None:
        """Describe the table, series or metadata at a path; None if there is none."""
        count(files_parsed=1)
        return self._parse(path, lambda file: describe_table(file, path))

    def describe_members(self, path: str) -> Table | None:
        """Describe every dataset of the group at a path, whatever it is; None if there is no such group."""
        count(files_parsed=1)
        return self._parse(path, lambda file: describe_members(file, path))

    def list_objects(self) -> Listing:
        """Describe everything that the file contains.

        Of a store that neither lists its members nor has consolidated metadata, what NWB gives a name to.
        """
        count(files_parsed=1)
        return self._parse("", list_objects)

    def attributes(self, path: str) -> Attributes | None:
        """Return the attributes of the object at a path and of its direct members; None if there is none."""
        count(files_parsed=1)
        return self._parse(path, lambda file: describe_attributes(file, path))

    def all_attributes(self, path: str) -> Attributes | None:
        """Return the attributes of the object at a path and of everything below it."""
        count(files_parsed=1)
        return self._parse(path, lambda file: describe_attributes(file, path, deep=True))

    def region_tables(self, paths: Sequence[str]) -> dict[str, str]:
        """Find the tables that DynamicTableRegions refer to, by the regions' paths."""
        return self._parse(paths[0], lambda file: region_tables(file, paths))
