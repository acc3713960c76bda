"""Structure reader of all formats: tables, members of groups, listings, attributes, targets of regions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from lazynwb.catalog.model import Table
from lazynwb.formats.nwb.names import field_ndim
from lazynwb.formats.nwb.object_listing import describe_attributes, list_objects
from lazynwb.formats.nwb.tables import describe_table, whole_column
from lazynwb.formats.protocols import BrokenLinkError, DamagedObjectError, member_name
from lazynwb.profile import count

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    from lazynwb.catalog.model import Array, Attributes, Listing
    from lazynwb.formats.protocols import Node, OpenFile


def describe_members(file: OpenFile, path: str) -> Table | None:
    """Describe all datasets of a group, including targets of links.

    Returns
    -------
    Table or None
        A table of one row, with each whole dataset as a column, and the errors of datasets that cannot be
        opened as problems; None if the group does not exist.
    """
    try:
        group = file.find(path)
    except DamagedObjectError:
        raise
    except BrokenLinkError:
        return None
    if not group.is_group:
        return None
    problems: list[str] = []
    columns = []
    for key in group.member_names():
        name = key.decode("utf-8", "replace")
        try:
            full = f"{path}/{member_name(key)}"
            with file.collect_misses():
                array = file.memoize(f"{full}\0member", partial(_describe, file, group, key, full))
                if array is not None:
                    columns.append(whole_column(name, array, field_ndim("TimeSeries", name)))
        except BrokenLinkError as error:
            problems.append(f"{name!r} was left out: {error}")
    columns.sort(key=lambda column: column.name)
    return Table(path, "metadata", 1, tuple(columns), tuple(problems), file.depends)


def _describe(file: OpenFile, group: Node, key: bytes, path: str) -> Array | None:
    found = group.child(key)
    return found.describe(path, file) if found.is_dataset else None


def region_tables(file: OpenFile, paths: Iterable[str]) -> dict[str, str]:
    """Find the tables that the attribute `table` of datasets refers to.

    Parameters
    ----------
    file : OpenFile
    paths : iterable of str
        Paths of DynamicTableRegions, without the leading slash.

    Returns
    -------
    dict of str to str
        Path of the table in the file of the dataset, without the leading slash, by the path of the dataset;
        without datasets that refer to no table.
    """
    by_file: dict[int, tuple[OpenFile, dict[str, Hashable]]] = {}
    for path in paths:
        with file.collect_misses():
            try:
                found = file.find(path)
            except DamagedObjectError:
                raise
            except BrokenLinkError:
                continue
            target = found.target("table")
            if target is not None:
                by_file.setdefault(id(found.file), (found.file, {}))[1][path] = target
    file.raise_if_missing()
    tables = {}
    for holder, targets in by_file.values():
        # In formats that identify objects by their paths, addresses are paths.
        addresses = {target for target in targets.values() if not isinstance(target, str)}
        known = holder.paths_of(addresses) if addresses else {}
        for path, target in targets.items():
            table = target if isinstance(target, str) else known.get(target)
            if table:
                tables[path] = table.strip("/")
    return tables


T = TypeVar("T")


class StructureReader(ABC):
    """The methods of a `Reader` that parse the structure; a format implements the execution of a parse."""

    @abstractmethod
    def run_parse(self, path: str, parse: Callable[[OpenFile], T]) -> T:
        """Run a parse of the object at a path until all required data has been fetched."""

    def describe_table(self, path: str) -> Table | None:
        """Return the catalog of the table, series or metadata at a path; None if there is none."""
        count(files_parsed=1)
        return self.run_parse(path, lambda file: describe_table(file, path))

    def describe_members(self, path: str) -> Table | None:
        """Return the catalog of all datasets of the group at a path; None if the group does not exist."""
        count(files_parsed=1)
        return self.run_parse(path, lambda file: describe_members(file, path))

    def list_objects(self) -> Listing:
        """Return the listing of all objects of the file.

        For a store that neither lists its members nor has consolidated metadata, it has the objects with
        names in the NWB schema.
        """
        count(files_parsed=1)
        return self.run_parse("", list_objects)

    def attributes(self, path: str) -> Attributes | None:
        """Return the attributes of the object at a path and of its direct members; None without an object."""
        count(files_parsed=1)
        return self.run_parse(path, lambda file: describe_attributes(file, path))

    def all_attributes(self, path: str) -> Attributes | None:
        """Return the attributes of the object at a path and of all objects below it."""
        count(files_parsed=1)
        return self.run_parse(path, lambda file: describe_attributes(file, path, deep=True))

    def region_tables(self, paths: Sequence[str]) -> dict[str, str]:
        """Return the paths of the target tables of DynamicTableRegions, by the paths of the regions."""
        return self.run_parse(paths[0], lambda file: region_tables(file, paths))
