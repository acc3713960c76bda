"""Groups of a file as mappings, and access by path to tables, series, arrays and values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lazynwb.errors import NotNWBError, TableNotFoundError
from lazynwb.formats.protocols import with_remedy
from lazynwb.lookup.loader import copy_values, load_attributes, load_listing, load_table
from lazynwb.session.tree import Contents, html_tree, text_tree
from lazynwb.storage.remote_state import save
from lazynwb.suggestions import similar_or_existing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lazynwb.catalog.model import Entry
    from lazynwb.storage.source import Source


class File:
    """A file with access to its objects by path; it is not kept open.

    Parameters
    ----------
    source : Source
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._contents: Contents | None = None

    @property
    def contents(self) -> Contents:
        """The current listing of the file."""
        listing = load_listing(self.source)  # cached in memory until the file changes
        if self._contents is None or self._contents.listing is not listing:
            self._contents = Contents(listing)
            save()
        return self._contents

    def attributes(self, path: str) -> dict[str, Any]:
        """Return the attributes of the object at a path."""
        found = load_attributes(self.source, path.lstrip("/"))
        return copy_values(found[""]) if found is not None else {}

    def open(self, path: str, entry: Entry) -> Any:  # noqa: ANN401 - see Container
        """Return the object at a path, with the types of the members of a `Container`.

        Raises
        ------
        NotNWBError
            If the object is a broken link.
        """
        if entry.kind == "broken":
            raise NotNWBError(f"{self.source.name}: {path} cannot be opened: {with_remedy(entry.note)}")
        if entry.kind == "dataset":
            return self._value(path)
        if entry.role == "table":
            from lazynwb.scan import scan_nwb

            return scan_nwb(self.source, path)
        if entry.role == "series":
            from lazynwb.series.timeseries import get_timeseries

            return get_timeseries(self.source, path, exact_path=True)
        return Container(self, path)

    def _value(self, path: str) -> Any:  # noqa: ANN401
        from lazynwb.series.arrays import StoredArray

        group, _, name = path.lstrip("/").rpartition("/")
        table = load_table(self.source, f"{group}/" if group else "general")
        column = table.columns.get(name) if table is not None else None
        if table is None or column is None or column.data is None:
            raise NotNWBError(f"{self.source.name}: {path} cannot be read: its group has an unknown type")
        if not column.length:
            return None  # a null dataspace, which has no value
        array = StoredArray(table, column.data)
        if array.shape:
            return array
        value = array[()]
        return value.item() if hasattr(value, "item") else value


class Container(Mapping[str, Any]):
    """A group of an NWB file: a mapping of names to members, which are also attributes.

    Tables are LazyFrames of `scan_nwb`, series are `TimeSeries`, and other groups are containers. Other
    datasets are values if they are scalars, else arrays that are read when they are sliced. Attributes of the
    group (`description`, ...) are attributes of the container, unless a member has the same name. A key may
    be a path (`"LFP/ElectricalSeries"`). Members are read when they are accessed.

    Parameters
    ----------
    file : File
    path : str
        Path with the leading slash; an empty string for the root group.
    chosen : callable or None
        Function of a name and an entry that returns whether the container includes them; None for all.
    """

    def __init__(self, file: File, path: str, chosen: Callable[[str, Entry], bool] | None = None) -> None:
        self._file = file
        self._path = path
        self._chosen = chosen

    def _entries(self) -> dict[str, Entry]:
        found = self._file.contents.members(self._path)
        if self._chosen is None:
            return found
        return {name: entry for name, entry in found.items() if self._chosen(name, entry)}

    @property
    def path(self) -> str:
        """The path of the group in the file."""
        return self._path or "/"

    @property
    def attrs(self) -> dict[str, Any]:
        """The attributes of the group, as returned by `get_attrs`."""
        return self._file.attributes(self._path)

    @property
    def neurodata_type(self) -> str:
        """The neurodata type of the group, such as "ProcessingModule"; an empty string if it has none."""
        entry = self._file.contents.at(self._path) if self._path else None
        return entry.neurodata_type if entry is not None else ""

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - see above
        """Return a member.

        Raises
        ------
        TableNotFoundError
            If the member does not exist. It is a KeyError; the message lists existing members.
        """
        first, _, rest = name.strip("/").partition("/") if isinstance(name, str) else (name, "", "")
        entry = self._entries().get(first)
        path = f"{self._path}/{first}"
        if entry is not None and rest:
            path = f"{path}/{rest}"
            entry = self._file.contents.at(path)
        if entry is None:
            raise TableNotFoundError(self._unknown(name))
        return self._file.open(path, entry)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        """Return a member, or an attribute of the group.

        Raises
        ------
        AttributeError
            If neither exists; the message suggests similar names.
        """
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self._entries():
            return self[name]
        attributes = self.attrs
        if name in attributes:
            return attributes[name]
        raise AttributeError(self._unknown(name, attributes))

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries())

    def __len__(self) -> int:
        return len(self._entries())

    def __contains__(self, name: object) -> bool:
        return name in self._entries()

    def __eq__(self, other: object) -> bool:
        """Return whether both are the same group of the same file."""
        if not isinstance(other, Container):
            return NotImplemented
        return (self._file.source, self._path) == (other._file.source, other._path)

    def __hash__(self) -> int:
        return hash((self._file.source, self._path))

    def __dir__(self) -> list[str]:
        """Include members and attributes."""
        return sorted({*super().__dir__(), *filter(str.isidentifier, (*self, *self.attrs))})

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def __repr__(self) -> str:
        title = f"{type(self).__name__} {self.path}"
        return text_tree(title, {}, self._file.contents, self._path, self._entries())

    def _repr_html_(self) -> str:
        return html_tree(self.path, {}, self._file.contents, self._path, self._entries())

    def _unknown(self, name: object, attributes: Iterable[str] = ()) -> str:
        existing = [*self, *attributes]
        return (
            f"{self._file.source.name}: {self.path} has no {name!r}{similar_or_existing(str(name), existing)}"
        )
