"""`get_internal_paths`: what one file contains."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lazynwb.errors import LazyNWBError
from lazynwb.formats import is_zarr
from lazynwb.lookup.load import load_listing
from lazynwb.sources.discover import expand

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazynwb.sources.discover import PathOrUrl

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

    def __repr__(self) -> str:
        """Read like h5py's own description of the object, whatever the format."""
        if self.is_group:
            return f'<{self.format} group "{self.path}" ({self.members} members)>'
        name = self.path.rsplit("/", 1)[-1]
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
        (`electrodes`, `control`, `starting_time`, ...), images, ...
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
    found = expand(nwb_path, storage_options)
    if len(found) != 1:
        message = (
            f"get_internal_paths describes one file, not {len(found)}: pass one of them, such as "
            f"{found[0].name}"
        )
        raise LazyNWBError(message)
    roles = set(_DEFAULT_ROLES)
    for role, wanted in (
        ("child", include_child_datasets),
        ("dataset", include_child_datasets),
        ("column", include_table_columns),
        ("metadata", include_metadata),
        ("specification", include_specifications),
    ):
        if wanted:
            roles.add(role)
    kept_in = "Zarr" if is_zarr(found[0]) else "HDF5"
    entries = [entry for entry in load_listing(found[0]).entries if entry.kind != "broken"]
    listed = {e.path for e in entries if e.role in roles and not (e.kind == "group" and e.role != "table")}
    if parents:
        listed |= {
            "/".join(path.split("/")[:depth]) for path in listed for depth in range(2, path.count("/") + 1)
        }
    return {
        e.path: PathInfo(e.path, e.kind == "group", e.members, e.shape, e.dtype, kept_in)
        for e in entries
        if e.path in listed
    }
