"""`get_internal_paths` and `get_internal_path_info`: the objects of one file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from lazynwb.errors import LazyNWBError
from lazynwb.formats.registry import is_zarr
from lazynwb.lookup.loader import copy_values, load_all_attributes, load_listing
from lazynwb.storage.resolve import expand
from lazynwb.terminal_text import visible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazynwb.catalog.model import Entry, Listing
    from lazynwb.storage.resolve import PathOrUrl
    from lazynwb.storage.source import Source

#: Roles of objects that are listed by default.
_DEFAULT_ROLES = frozenset({"table", "series_data"})


@dataclass(frozen=True, slots=True)
class PathInfo:
    """Summary of a group or dataset.

    Attributes
    ----------
    path : str
        Path in the file, with the leading slash.
    is_group : bool
        Whether it is a group rather than a dataset.
    members : int
        Number of members of a group.
    shape : tuple of int or None
        Shape of a dataset; None for a group or an empty dataset (HDF5 null dataspace).
    dtype : str
        Type of the elements as NumPy's type string; "|O" for text and references.
    format : {"HDF5", "Zarr"}
        Format of the file.
    """

    path: str
    is_group: bool
    members: int = 0
    shape: tuple[int, ...] | None = None
    dtype: str = ""
    format: str = field(default="HDF5", compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as a dictionary of values that JSON supports."""
        return asdict(self)

    def __repr__(self) -> str:
        """Return a description like that of h5py, for either format."""
        path = visible(self.path, None)
        if self.is_group:
            return f'<{self.format} group "{path}" ({self.members} members)>'
        name = path.rsplit("/", 1)[-1]
        return f'<{self.format} dataset "{name}": shape {self.shape}, type "{self.dtype}">'


def get_internal_paths(  # noqa: PLR0913, PLR0917
    nwb_path: PathOrUrl,
    include_child_datasets: bool = False,  # noqa: FBT001, FBT002 - positional in existing code
    include_table_columns: bool = False,  # noqa: FBT001, FBT002
    include_metadata: bool = False,  # noqa: FBT001, FBT002
    include_specifications: bool = False,  # noqa: FBT001, FBT002
    parents: bool = False,  # noqa: FBT001, FBT002
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> dict[str, PathInfo]:
    """List the tables and series of an NWB file: tables by their group, series by their datasets.

    Only the structure of the file is read. Tables are DynamicTables (hdmf-common), series are the types that
    derive from TimeSeries (NWB core).

    Parameters
    ----------
    nwb_path : path or URL
        One file.
    include_child_datasets : bool
        Whether to include datasets that are neither a column of a table nor data or timestamps of a series
        (`electrodes`, `control`, `starting_time` and so on of series, images), and the groups of series.
    include_table_columns : bool
        Whether to include the columns of tables.
    include_metadata : bool
        Whether to include the datasets in `/general` and in the root group.
    include_specifications : bool
        Whether to include the schema that the file caches in `/specifications`.
    parents : bool
        Whether to include the parent groups of the listed objects.
    storage_options : mapping or None
        As for `scan_nwb`.

    Returns
    -------
    dict of str to PathInfo
        Objects by path, with the leading slash, in the order of the file. `scan_nwb` accepts the paths of
        tables, and of series and their datasets.

    Raises
    ------
    SourceNotFoundError or NotNWBError
        If the file cannot be read.
    """
    filters = _EntryFilter(
        include_child_datasets, include_table_columns, include_metadata, include_specifications, parents
    )
    source = one_source(nwb_path, storage_options, "get_internal_paths")
    format_name = "Zarr" if is_zarr(source) else "HDF5"
    return {
        e.path: PathInfo(e.path, e.kind == "group", e.members, e.shape, e.dtype, format_name)
        for e in _selected_entries(load_listing(source), filters, series=include_child_datasets)
    }


def get_internal_path_info(  # noqa: PLR0913, PLR0917
    nwb_path: PathOrUrl,
    include_child_datasets: bool = False,  # noqa: FBT001, FBT002 - positional in existing code
    include_table_columns: bool = False,  # noqa: FBT001, FBT002
    include_metadata: bool = False,  # noqa: FBT001, FBT002
    include_specifications: bool = False,  # noqa: FBT001, FBT002
    parents: bool = False,  # noqa: FBT001, FBT002
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Describe the objects of an NWB file: shapes, types and attributes by path.

    The paths are those of `get_internal_paths`, and the groups of series.

    Parameters
    ----------
    nwb_path : path or URL
        One file.
    include_child_datasets : bool
        As for `get_internal_paths`.
    include_table_columns : bool
        As for `get_internal_paths`.
    include_metadata : bool
        As for `get_internal_paths`.
    include_specifications : bool
        As for `get_internal_paths`.
    parents : bool
        As for `get_internal_paths`.
    storage_options : mapping or None
        As for `scan_nwb`.

    Returns
    -------
    dict of str to dict
        By path, in the order of the file: `is_group`, `is_dataset`, `is_timeseries` (whether it is the group
        of a series), `shape` (None for groups), `dtype` (NumPy's type string; None for groups) and `attrs`
        (all attributes, as `get_attrs` returns them).

    Raises
    ------
    SourceNotFoundError or NotNWBError
        If the file cannot be read.
    """
    filters = _EntryFilter(
        include_child_datasets, include_table_columns, include_metadata, include_specifications, parents
    )
    source = one_source(nwb_path, storage_options, "get_internal_path_info")
    attributes = load_all_attributes(source, "") or {}
    return {
        e.path: {
            "is_group": e.kind == "group",
            "is_dataset": e.kind == "dataset",
            "is_timeseries": e.kind == "group" and e.role == "series",
            "shape": e.shape,
            "dtype": e.dtype or None,
            "attrs": copy_values(attributes.get(e.path.lstrip("/"), {})),
        }
        for e in _selected_entries(load_listing(source), filters, series=True)
    }


class _EntryFilter(NamedTuple):
    """Objects to list in addition to tables and series."""

    child_datasets: bool
    table_columns: bool
    metadata: bool
    specifications: bool
    parents: bool

    def roles(self) -> set[str]:
        """Return the roles of listed objects."""
        return {
            *_DEFAULT_ROLES,
            *(("child", "dataset") if self.child_datasets else ()),
            *(("column",) if self.table_columns else ()),
            *(("metadata",) if self.metadata else ()),
            *(("specification",) if self.specifications else ()),
        }


def one_source(path: PathOrUrl, storage_options: Mapping[str, Any] | None, who: str) -> Source:
    """Return the only file of a path.

    Raises
    ------
    LazyNWBError
        If there are several.
    """
    found = expand(path, storage_options)
    if len(found) != 1:
        raise LazyNWBError(
            f"{who} takes one file, not {len(found)}: pass one of them, such as {found[0].name}"
        )
    return found[0]


def _selected_entries(listing: Listing, filters: _EntryFilter, *, series: bool = False) -> list[Entry]:
    """Return the selected entries of a listing; with `series` also the groups of series."""
    roles = filters.roles()
    groups = {"table", "series"} if series else {"table"}
    entries = [entry for entry in listing.entries if entry.kind != "broken"]
    listed = {e.path for e in entries if (e.role in (groups if e.kind == "group" else roles))}
    if filters.parents:
        listed |= {
            "/".join(path.split("/")[:depth]) for path in listed for depth in range(2, path.count("/") + 1)
        }
    return [entry for entry in entries if entry.path in listed]
