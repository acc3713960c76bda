"""Description of groups as tables: DynamicTable (hdmf-common), TimeSeries (NWB core), and /general."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from lazynwb.catalog.model import Array, Column, DType, Table
from lazynwb.errors import CorruptDataError
from lazynwb.formats.nwb.columns import (
    Member,
    describe_enum,
    find_indices,
    indexed_names,
    mark_damaged_indices,
)
from lazynwb.formats.nwb.names import OTHER_PATHS, SERIES_MEMBERS, field_ndim, fields_of
from lazynwb.formats.protocols import (
    BrokenLinkError,
    DamagedObjectError,
    NoObjectError,
    UnreachableLinkError,
    broken_table_error,
    member_name,
    with_remedy,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lazynwb.catalog.model import Kind
    from lazynwb.formats.protocols import Node, OpenFile

#: Groups that are one-row tables of the session's metadata, by path.
METADATA_PATHS = ("general", "general/subject")
#: Maximum number of frames, as row numbers have 32 bits.
_MAX_FRAMES = 2**32
#: Maximum number of rows that a column may lack; more indicate a damaged file.
_MAX_PADDED = 1_000_000


def describe_table(file: OpenFile, path: str) -> Table | None:
    """Describe the table at a path.

    Parameters
    ----------
    file : OpenFile
    path : str
        Path without the leading slash; the path of `data` or `timestamps` of a series stands for the series.
        A path that ends in a slash describes the datasets of any group as a row of metadata; "/" is the root
        group.

    Returns
    -------
    Table or None
        None if there is no table, series or metadata at the path. Another group whose datasets all have the
        same number of rows is also a table, although it is not listed. If a file lacks a path such as
        `/intervals/trials`, the alternative path such as `/trials` is used; see `OTHER_PATHS`.

    Raises
    ------
    BrokenTableLinkError
        If a link on the path is broken, or all data of the table is behind broken links.
    """
    table = _describe_at(file, path)
    return _describe_at(file, OTHER_PATHS[path]) if table is None and path in OTHER_PATHS else table


def _describe_at(file: OpenFile, path: str) -> Table | None:
    if path in METADATA_PATHS or path.endswith("/"):  # "/" alone is the root group
        return _describe_metadata(file, path.rstrip("/"))
    parent, _, last = path.rpartition("/")
    try:
        found = file.find(path)
    except NoObjectError:
        return None
    except DamagedObjectError:
        raise
    except BrokenLinkError as error:
        raise broken_table_error(file.name, path, error) from None
    if found.is_dataset and last in SERIES_MEMBERS and parent:
        path = parent
        found = file.find(parent)
    if not found.is_group:
        return None
    role = "table"
    with file.collect_misses():  # request the data of columns before the group is known to be a table
        role = table_role(found)
    if role == "table":
        return _describe_dynamic_table(file, found, path)
    if role == "series":
        return _describe_series(file, found, path)
    return _describe_plain_group(file, found, path)


def table_role(group: Node) -> str:
    """Return "table", "series", or an empty string for other groups.

    A table is a group with `colnames`, or with `id` and the type of a table. A series is a group with `data`
    or `timestamps` of any type, which includes types of extensions.
    """
    if group.has_attribute("colnames"):
        return "table"
    members = set(group.member_names())
    if b"id" in members and _is_table_type(group.text("neurodata_type")):
        return "table"
    has_time = b"timestamps" in members or b"starting_time" in members
    is_series_type = group.text("neurodata_type").endswith("Series")
    if has_time or (b"data" in members and is_series_type):
        for name in (b"data", b"timestamps", b"starting_time"):
            try:
                if name in members and group.child(name).is_dataset:
                    return "series"
            except DamagedObjectError:
                continue
            except BrokenLinkError:
                if is_series_type:
                    return "series"
    return ""


def _is_table_type(neurodata_type: str) -> bool:
    return neurodata_type.endswith(("Table", "Intervals", "Units", "PlaneSegmentation", "Region"))


def _describe_dynamic_table(main: OpenFile, group: Node, path: str) -> Table:
    problems: list[str] = []
    listed: list[str] = []
    categories: list[str] = []
    with main.collect_misses():
        listed = group.names("colnames") or []
        categories = group.names("categories") or []
    members, lost = _members(main, group, path, listed, problems)
    main.raise_if_missing()
    mark_damaged_indices(members, lost, problems)
    indexed, indices = find_indices(group, members, listed, lost.keys(), problems)
    if not any(name in members for name in (*listed, "id")):
        _raise_if_unreachable(main, path, lost)
    rows = _row_count(main, path, members, listed, indexed, id_lost="id" in lost)
    columns = []
    hidden = indices | _enum_elements(group, members, listed)
    for name, member in members.items():
        if name in hidden:
            continue
        column = _column(name, members, indexed)
        if name in listed or name == "id":
            if column.length != rows:
                _check_rows(main, path, name, column.length, rows)
                if name not in indexed and _has_index(members, name):
                    note = f"ragged rows whose index {name}_index belongs to another column"
                    column = replace(column, data=member.unreadable(note).array)
                problems.append(
                    f"column {name!r} has {column.length} rows where the table has {rows}: "
                    + ("padded with nulls" if column.length < rows else "clipped")
                )
        elif column.length != rows or not (member.array.shape or indexed.get(name)):
            continue
        columns.append(column)
    columns += _lost_columns(path, members, lost, rows)
    for name in categories:
        category = _category(main, group, path, name, rows, problems)
        if category is not None:
            columns.append(category)
    present = {column.name for column in columns}
    problems += [
        f"column {name!r} is listed in colnames but absent" for name in listed if name not in present
    ]
    columns.sort(key=lambda column: column.name)
    return Table(path, "table", rows, tuple(columns), tuple(problems), main.depends)


def _describe_plain_group(main: OpenFile, group: Node, path: str) -> Table | None:
    """Describe a group of another type as a table; None if its datasets differ in their number of rows."""
    problems: list[str] = []
    members, lost = _members(main, group, path, [], problems)
    main.raise_if_missing()
    mark_damaged_indices(members, lost, problems)
    indexed, indices = find_indices(group, members, [], lost.keys(), problems)
    columns = [_column(name, members, indexed) for name in sorted(members.keys() - indices)]
    have_rows = all(members[column.name].array.shape or column.name in indexed for column in columns)
    if not columns:
        _raise_if_unreachable(main, path, lost)
    if not have_rows or len({column.length for column in columns}) != 1:
        return None
    rows = columns[0].length
    columns += _lost_columns(path, members, lost, rows)
    return Table(path, "table", rows, tuple(columns), tuple(problems), main.depends)


def _raise_if_unreachable(main: OpenFile, path: str, lost: dict[str, BrokenLinkError]) -> None:
    """Raise BrokenTableLinkError if all data of a table is in files that cannot be opened."""
    for error in lost.values():
        if isinstance(error, UnreachableLinkError):
            raise broken_table_error(main.name, path, error)


def _lost_columns(
    path: str, members: dict[str, Member], lost: dict[str, BrokenLinkError], rows: int
) -> Iterator[Column]:
    """Yield the columns that could not be opened, whose values cannot be read."""
    for name, error in lost.items():
        if not any(stem in members or stem in lost for stem in indexed_names(name)):  # no index
            yield Column(name, _lost_array(f"{path}/{name}", (rows,), error), length=rows)


def _lost_array(path: str, shape: tuple[int, ...], error: BrokenLinkError) -> Array:
    """Describe an array that could not be opened.

    An array in a file that is temporarily unavailable may exist, so it is a column in any case.
    """
    kind: Kind = "unsupported" if isinstance(error, UnreachableLinkError) else "broken"
    return Array(path, shape, DType(kind, 0, note=_reason(error)), "indirect")


def _reason(error: BrokenLinkError) -> str:
    """Return the reason why a column could not be opened, with a remedy."""
    is_link = not isinstance(error, NoObjectError | DamagedObjectError | UnreachableLinkError)
    return with_remedy(str(error)) if is_link else str(error)


def _left_out(what: str, name: str, error: BrokenLinkError, problems: list[str]) -> None:
    """Add an unopened object to the problems of a table, unless it is only temporarily unavailable."""
    if not isinstance(error, UnreachableLinkError):
        problems.append(f"{what} {name!r} was left out: {_reason(error)}")


def _has_index(members: dict[str, Member], name: str) -> bool:
    """Return whether a dataset has the name of a column's index, whatever its target."""
    member = members.get(f"{name}_index")
    return member is not None and member.neurodata_type == "VectorIndex"


def _check_rows(main: OpenFile, path: str, name: str, length: int, rows: int) -> None:
    if rows - length > _MAX_PADDED:
        raise CorruptDataError(
            f"{main.name}: /{path}: column {name!r} has {length:,} rows where the table claims {rows:,}: "
            "its `id` is damaged"
        )


def _members(
    main: OpenFile, group: Node, path: str, listed: list[str], problems: list[str]
) -> tuple[dict[str, Member], dict[str, BrokenLinkError]]:
    members: dict[str, Member] = {}
    lost: dict[str, BrokenLinkError] = {}
    fields: Mapping[str, int] = {}
    with main.collect_misses():
        fields = fields_of(group.text("neurodata_type"), path)
    keys = dict(_utf8_members(group, problems))
    names = set(keys.values())
    for key, name in keys.items():
        full = f"{path}/{name}"
        ndim = 1 if name == "id" else fields.get(name)
        may_index = name not in listed and not names.isdisjoint(indexed_names(name))
        try:
            with main.collect_misses():
                described = partial(_member, main, group, key, full, ndim, may_index=may_index)
                member = main.memoize(f"{full}\0{ndim}\0{may_index}", described)
                if member is not None:
                    members[name] = member
                    problems += [f"column {name!r} {member.problem}"] * bool(member.problem)
        except BrokenLinkError as error:
            _left_out("column", name, error, problems)
            lost[name] = error
    return members, lost


def _member(  # noqa: PLR0913 - properties that distinguish columns from indices
    main: OpenFile, group: Node, key: bytes, path: str, ndim: int | None, *, may_index: bool
) -> Member | None:
    found = group.child(key)
    if not found.is_dataset:
        return None
    array = found.describe(path, main)
    # Only integers can be an index or a region; reading attributes is slow.
    integer = array.dtype.is_integer
    named = path.endswith("_index")
    neurodata_type = found.text("neurodata_type") if integer or named else ""
    if neurodata_type == "EnumData":
        array, elements, problem = describe_enum(found, array)
        return Member(array, neurodata_type, None, elements, problem)
    is_index = integer and (neurodata_type == "VectorIndex" or named)
    # A listed column, or a dataset of another type, is not an index.
    as_index = neurodata_type == "VectorIndex" or (is_index and not neurodata_type and may_index)
    is_flat_region = neurodata_type == "DynamicTableRegion" and array.shape[:1] != (1,)
    # A scalar `id` does not determine the number of rows.
    if as_index or is_flat_region or (ndim == 1 and (array.shape or not path.endswith("/id"))):
        # MATLAB stores lists as (n, 1) or (1, n), and a single row as a scalar.
        array = array.with_ndim(1) or array
    return Member(array, neurodata_type, found.target() if is_index else None)


def _utf8_members(group: Node, problems: list[str]) -> Iterator[tuple[bytes, str]]:
    """Yield the members of a group with their names as text; formats may allow any bytes."""
    for key in group.member_names():
        try:
            yield key, member_name(key)
        except DamagedObjectError as error:
            problems.append(f"column {key!r} was left out: {error}")


def _enum_elements(group: Node, members: dict[str, Member], listed: list[str]) -> set[str]:
    """Return the datasets that only contain the elements of an EnumData."""
    addresses = {member.elements for member in members.values()} - {None}
    if not addresses:
        return set()
    return {n for n in members if n not in listed and group.address_of(n.encode()) in addresses}


def _row_count(  # noqa: PLR0913 - properties of a table
    main: OpenFile,
    path: str,
    members: dict[str, Member],
    listed: list[str],
    indexed: dict[str, str],
    *,
    id_lost: bool,
) -> int:
    """Return the number of rows of a table, which is that of `id`, or else of the longest column.

    Raises
    ------
    CorruptDataError
        If `id` cannot be opened, and the columns differ in length.
    """
    if "id" in members and members["id"].array.shape:
        return members["id"].array.shape[0]
    lengths = {_column(name, members, indexed).length for name in listed if name in members}
    if id_lost and len(lengths) > 1:
        raise CorruptDataError(
            f"{main.name}: /{path}: its `id` cannot be opened, and its columns have different lengths"
        )
    return max(lengths, default=0)


def _column(name: str, members: dict[str, Member], indexed: dict[str, str]) -> Column:
    member = members[name]
    indices: list[Array] = []
    last = name
    while last in indexed:
        last = indexed[last]
        indices.insert(0, members[last].array)
    data = member.array
    if indices and (not data.shape or member.neurodata_type == "DynamicTableRegion"):
        data = data.with_ndim(1) or data  # a single element, or row positions that MATLAB stores as (1, n)
    outer = indices[0] if indices else data
    length = outer.rows
    region = member.neurodata_type == "DynamicTableRegion" and member.array.dtype.kind == "number"
    return Column(name, data, tuple(indices), length, region)


def _category(  # noqa: PLR0913, PLR0917 - properties of a category, and output for problems
    main: OpenFile, group: Node, path: str, name: str, rows: int, problems: list[str]
) -> Column | None:
    """Return a category of an AlignedDynamicTable as a column of structs (hdmf-common, section 3)."""
    try:
        found = group.child(name.encode())
    except BrokenLinkError as error:
        _left_out("category", name, error, problems)
        return Column(name, _lost_array(f"{path}/{name}", (rows,), error), length=rows)
    if not found.is_group:
        return None
    table = _describe_dynamic_table(main, found, f"{path}/{name}")
    problems += [f"category {name!r}: {problem}" for problem in table.problems]
    if not table.columns:
        problems.append(f"category {name!r} was left out: it has no columns")
        return None
    if table.rows != rows:
        problems.append(f"category {name!r} has {table.rows} rows where the table has {rows}")
    return Column(name, length=table.rows, children=table.columns)


def _describe_series(main: OpenFile, group: Node, path: str) -> Table:
    problems: list[str] = []
    found, lost = _series_members(group, problems)
    arrays = {
        name: found[name].describe(f"{path}/{name}", main) for name in ("data", "timestamps") if name in found
    }
    if not arrays and lost.keys() & {"data", "timestamps"}:
        raise broken_table_error(main.name, path, "; ".join(map(str, lost.values())), "series")
    if "timestamps" in arrays:
        arrays["timestamps"] = arrays["timestamps"].with_ndim(1) or arrays["timestamps"]
    if "data" in arrays and not arrays["data"].shape:
        arrays["data"] = arrays["data"].with_ndim(1) or arrays["data"]  # a series of one sample
    start, frames = found.get("starting_time"), found.get("num_samples")
    data, stamps = arrays.get("data"), arrays.get("timestamps")
    length = data.rows if data is not None else 0
    stamp_count = stamps.rows if stamps is not None else 0
    # `data` is empty if frames are in a video file: the number of rows is that of timestamps, or else the
    # number of frames (NWB specification, ImageSeries). Without either it is unknown.
    outside = not length and "external_file" in found
    rows = (stamp_count or _count(frames)) if outside else length if data is not None else stamp_count
    columns = [Column("data", data, length=length)] if data is not None else []
    if stamps is not None:
        if stamp_count != rows:
            problems.append(f"{stamp_count} timestamps where the data has {rows} rows")
        columns.append(Column("timestamps", stamps, length=stamp_count))
    elif start is not None:
        regular = start.start_and_rate()
        if regular is None:
            problems.append("column 'timestamps' was left out: starting_time has no valid rate")
        else:
            columns.append(Column("timestamps", length=rows, regular=regular))
    lost_columns = {
        "timestamps" if name == "starting_time" else name: error
        for name, error in lost.items()
        if name in {"data", "timestamps", "starting_time"}
    }
    columns += _lost_columns(path, {}, lost_columns, rows)
    columns.sort(key=lambda column: column.name)
    return Table(path, "series", rows, tuple(columns), tuple(problems), main.depends)


def _series_members(group: Node, problems: list[str]) -> tuple[dict[str, Node], dict[str, BrokenLinkError]]:
    """Open the datasets that are columns of a TimeSeries; return also those that cannot be opened."""
    found: dict[str, Node] = {}
    lost: dict[str, BrokenLinkError] = {}
    present = set(group.member_names())
    for name in ("data", "timestamps", "starting_time", "external_file", "num_samples"):
        if name.encode() not in present:
            continue
        try:
            member = group.child(name.encode())
        except BrokenLinkError as error:
            _left_out("column", name, error, problems)
            lost[name] = error
            continue
        if member.is_dataset or name == "external_file":
            found[name] = member
    return found, lost


def _count(dataset: Node | None) -> int:
    number = dataset.number() if dataset is not None else None
    return int(number) if number is not None and 0 <= number < _MAX_FRAMES else 0


def whole_column(name: str, array: Array, ndim: int | None, *, is_null: bool = False) -> Column:
    """Return a column whose only row is a whole dataset.

    Parameters
    ----------
    name : str
    array : Array
    ndim : int or None
        Number of dimensions in the NWB schema: an array of one element is read as a scalar (MatNWB, MIES),
        and a scalar as a list. Several elements are never truncated.
    is_null : bool
        Whether the dataset has a null dataspace (h5py.Empty), and thus a missing value.
    """
    if ndim == 0 and (is_null or 0 in array.shape):
        empty = replace(array, shape=(), chunk=(), shard=(), layout="indirect", offset=-1)
        return Column(name, empty, length=0)
    if ndim in {0, 1} and not is_null and len(array.shape) != ndim:
        array = array.with_ndim(1) or array
        if ndim == 0 and array.shape == (1,):
            return Column(name, array, length=1)  # the only element is the only row
    whole = bool(array.shape) and (ndim == 1 or not is_null)
    return Column(name, array, length=0 if is_null else 1, whole=whole)


def _describe_metadata(  # noqa: C901 - one walk
    main: OpenFile, path: str
) -> Table | None:
    """Describe `/general` or `/general/subject`; the row of the session includes datasets of the root group.

    An empty path is the root group only.
    """
    problems: list[str] = []
    arrays: dict[str, Array] = {}
    empty: set[str] = set()
    kind = ""
    groups = [(path, path)] if path != "general" else [("", "/"), (path, path)]
    found_any = False
    for prefix, where in groups:
        try:
            group = main.find(where)
        except NoObjectError:
            continue
        except DamagedObjectError:
            raise
        except BrokenLinkError as error:
            if len(groups) == 1:
                raise broken_table_error(main.name, path, error) from None
            problems.append(f"group /{where} was left out: {error}")
            continue
        if not group.is_group:
            continue
        found_any = found_any or bool(prefix)
        kind = group.text("neurodata_type")
        for key, name in _utf8_members(group, problems):
            try:
                found = group.child(key)
            except BrokenLinkError as error:
                _left_out("column", name, error, problems)
                arrays[name] = _lost_array(f"{prefix}/{name}", (), error)
                continue
            if found.is_dataset:
                full = f"{prefix}/{name}" if prefix else name
                arrays[name] = found.describe(full, main)
                if found.is_null():
                    empty.add(name)
    if not arrays and not found_any:
        return None
    columns = [
        whole_column(name, array, field_ndim(kind, name, path), is_null=name in empty)
        for name, array in sorted(arrays.items())
    ]
    return Table(path or "/", "metadata", 1, tuple(columns), tuple(problems), main.depends)
