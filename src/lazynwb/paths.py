"""`get_internal_paths` and `get_internal_path_info`: what one file contains."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from lazynwb.errors import LazyNWBError
from lazynwb.formats.registry import is_zarr
from lazynwb.lookup.loader import copied, load_all_attributes, load_listing
from lazynwb.storage.resolve import expand
from lazynwb.terminal_text import visible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazynwb.catalog.model import Entry, Listing
    from lazynwb.storage.resolve import PathOrUrl
    from lazynwb.storage.source import Source

#: Parts that objects play, which are listed by default.
_DEFAULT_ROLES = frozenset({"table", "series_data"})


@dataclass(frozen=True, slots=True)
class PathInfo:
    """A group or a dataset of a file, in a few words.

    Attributes
    ----------
    path : str
        Inside the file, with the leading slash.
    is_group : bool
    members : int
        Of a group.
    shape : tuple of int or None
        Of a dataset; None where it is empty by definition.
    dtype : str
        NumPy's type string of a dataset's elements; "|O" for text and references.
    format : {"HDF5", "Zarr"}
        Of the file.
    """

    path: str
    is_group: bool
    members: int = 0
    shape: tuple[int, ...] | None = None
    dtype: str = ""
    format: str = field(default="HDF5", compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as a dictionary of plain values, such as JSON takes."""
        return asdict(self)

    def __repr__(self) -> str:
        """Read like h5py's own description of the object, whatever the format."""
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
    """List what an NWB file contains: its tables as groups, its series by their datasets.

    Parameters
    ----------
    nwb_path : path or URL
        One file.
    include_child_datasets : bool
        Also the datasets that are no table's column and no series' data: other members of a series
        (`electrodes`, `control`, `starting_time`, ...), images, ...; and the groups of the series beside
        them.
    include_table_columns : bool
        Also the columns of the tables.
    include_metadata : bool
        Also the datasets under `/general` and in the root group.
    include_specifications : bool
        Also the schema's text, where the file caches it under `/specifications`.
    parents : bool
        Also the groups that hold the listed objects.
    storage_options : mapping or None
        As for `scan_nwb`.

    Returns
    -------
    dict of str to PathInfo
        In the file's order; iterating it gives the paths, each good for `scan_nwb` as far as it is a
        table or part of a series.

    Raises
    ------
    SourceNotFoundError, NotNWBError
        If the file cannot be read.
    """
    wanted = _Wanted(
        include_child_datasets, include_table_columns, include_metadata, include_specifications, parents
    )
    source = one_source(nwb_path, storage_options, "get_internal_paths")
    kept_in = "Zarr" if is_zarr(source) else "HDF5"
    return {
        e.path: PathInfo(e.path, e.kind == "group", e.members, e.shape, e.dtype, kept_in)
        for e in _chosen(load_listing(source), wanted, series=include_child_datasets)
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
    """Describe what an NWB file contains: shapes, types and attributes, by path.

    Parameters
    ----------
    nwb_path : path or URL
        One file. The paths are those of `get_internal_paths`, and series are listed as groups, too.
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
        In the file's order: `is_group`, `is_dataset`, `is_timeseries`, `shape` (None for groups), `dtype`
        (NumPy's type string; None for groups) and `attrs`, all attributes as `get_attrs` gives them.

    Raises
    ------
    SourceNotFoundError, NotNWBError
        If the file cannot be read.
    """
    wanted = _Wanted(
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
            "attrs": copied(attributes.get(e.path.lstrip("/"), {})),
        }
        for e in _chosen(load_listing(source), wanted, series=True)
    }


class _Wanted(NamedTuple):
    """Options of a listing beside tables and series."""

    child_datasets: bool
    table_columns: bool
    metadata: bool
    specifications: bool
    parents: bool

    def roles(self) -> set[str]:
        """Return the parts that listed objects play."""
        return {
            *_DEFAULT_ROLES,
            *(("child", "dataset") if self.child_datasets else ()),
            *(("column",) if self.table_columns else ()),
            *(("metadata",) if self.metadata else ()),
            *(("specification",) if self.specifications else ()),
        }


def one_source(path: PathOrUrl, storage_options: Mapping[str, Any] | None, who: str) -> Source:
    """Return the one file that a path stands for.

    Raises
    ------
    LazyNWBError
        If it stands for several.
    """
    found = expand(path, storage_options)
    if len(found) != 1:
        raise LazyNWBError(
            f"{who} takes one file, not {len(found)}: pass one of them, such as {found[0].name}"
        )
    return found[0]


def _chosen(listing: Listing, wanted: _Wanted, *, series: bool = False) -> list[Entry]:
    """Return the entries of a listing that are wanted; `series`: the groups of series too."""
    roles = wanted.roles()
    groups = {"table", "series"} if series else {"table"}
    entries = [entry for entry in listing.entries if entry.kind != "broken"]
    listed = {e.path for e in entries if (e.role in (groups if e.kind == "group" else roles))}
    if wanted.parents:
        listed |= {
            "/".join(path.split("/")[:depth]) for path in listed for depth in range(2, path.count("/") + 1)
        }
    return [entry for entry in entries if entry.path in listed]
