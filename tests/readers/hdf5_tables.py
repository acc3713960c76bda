"""An independent reader of NWB HDF5 tables: high-level h5py and plain Python, slow, and easy to check by eye.

It says what a table must look like (DESIGN.md, sections 4 and 8); nothing in here knows how lazynwb reads.
"""

# ruff: noqa: C901 - one branch for each kind of type, as in the contract

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

TABLE_TYPES = frozenset(
    [
        "DynamicTable",
        "AlignedDynamicTable",
        "TimeIntervals",
        "Units",
        "PlaneSegmentation",
        "ElectrodesTable",
        "EventsTable",
        "IntracellularRecordingsTable",
        "IntracellularElectrodesTable",
        "IntracellularStimuliTable",
        "IntracellularResponsesTable",
        "SimultaneousRecordingsTable",
        "SequentialRecordingsTable",
        "RepetitionsTable",
        "ExperimentalConditionsTable",
        "SweepTable",
        "FrequencyBandsTable",
        "TimestampVectorData",
        "MeaningsTable",
    ]
)


class CorruptError(ValueError):
    """The file is inconsistent and has no correct result."""


@dataclass
class Table:
    """The expected content of one table: Python values per row, and the name of each column's data type."""

    rows: int = 0
    columns: dict[str, list[Any]] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)
    unsupported: set[str] = field(default_factory=set)
    repaired: set[str] = field(default_factory=set)  # padded or clipped

    def sort(self) -> Table:
        self.columns = dict(sorted(self.columns.items()))
        return self


# --- values -------------------------------------------------------------------------------------------


def text(value: bytes | str) -> str:
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogateescape")
    return bytes(value).split(b"\0", 1)[0].decode("utf-8", "replace")


def unsupported(tid: h5py.h5t.TypeID) -> bool:
    """Region references, opaque, bitfield and long double, alone or as a part of another type."""
    kind = tid.get_class()
    if kind in {h5py.h5t.OPAQUE, h5py.h5t.BITFIELD}:
        return True
    if kind == h5py.h5t.REFERENCE:
        return tid.equal(h5py.h5t.STD_REF_DSETREG)
    if kind == h5py.h5t.FLOAT:
        return tid.get_size() > 8
    if kind == h5py.h5t.COMPOUND:
        return any(unsupported(tid.get_member_type(i)) for i in range(tid.get_nmembers()))
    if kind in {h5py.h5t.ARRAY, h5py.h5t.VLEN}:
        return unsupported(tid.get_super())
    return False


def plain(value: Any, dtype: np.dtype, file: h5py.File) -> Any:
    """One h5py value as plain Python."""
    if dtype.subdtype is not None:
        inner = dtype.subdtype[0]
        return nested(np.asarray(value), inner, file)
    if h5py.check_string_dtype(dtype) is not None:
        return text(value)
    if h5py.check_ref_dtype(dtype) is h5py.Reference:
        return file[value].name if value else None
    if (inner := h5py.check_vlen_dtype(dtype)) is not None:
        array = np.asarray(value)  # big-endian ones come as stored, under a little-endian name
        return nested(array.view(inner) if array.dtype.kind in "iuf" else array, np.dtype(inner), file)
    if (members := h5py.check_enum_dtype(dtype)) is not None:
        found = {int(number): name for name, number in members.items()}.get(int(value))
        return None if found is None else text(found)
    if dtype.names is not None:
        return {name: plain(value[name], dtype[name], file) for name in dtype.names}
    if dtype.kind == "c":
        return {"re": float(value.real), "im": float(value.imag)}
    return value.item() if hasattr(value, "item") else value


def nested(array: np.ndarray, dtype: np.dtype, file: h5py.File) -> list[Any]:
    """An array of values (of the h5py type `dtype`) as nested lists."""
    special = dtype.kind in "OSVc" or dtype.names is not None or h5py.check_enum_dtype(dtype) is not None
    if not special and dtype.subdtype is None:
        return array.tolist()
    if dtype.subdtype is not None:
        dtype = dtype.subdtype[0]  # numpy has moved the inner dimensions into the array already
    if array.ndim > 1:
        return [nested(row, dtype, file) for row in array]
    return [plain(value, dtype, file) for value in array]


def read(dataset: h5py.Dataset) -> list[Any]:
    """Every row of a dataset, as plain Python."""
    if dataset.shape is None:
        return []
    return nested(np.asarray(dataset[...]), dataset.dtype, dataset.file)


# --- data types ---------------------------------------------------------------------------------------


def dtype_name(dtype: np.dtype) -> str:
    if dtype.subdtype is not None:
        inner, shape = dtype.subdtype
        return f"Array({dtype_name(inner)}, shape={shape})"
    if h5py.check_string_dtype(dtype) is not None or h5py.check_ref_dtype(dtype) is not None:
        return "String"
    if (inner := h5py.check_vlen_dtype(dtype)) is not None:
        return f"List({dtype_name(np.dtype(inner))})"
    if (members := h5py.check_enum_dtype(dtype)) is not None:
        return f"Enum(categories={[name for name, _ in sorted(members.items(), key=lambda kv: kv[1])]})"
    if dtype.names is not None:
        return "Struct({" + ", ".join(f"'{n}': {dtype_name(dtype[n])}" for n in dtype.names) + "})"
    if dtype.kind == "c":
        part = f"Float{dtype.itemsize * 4}"
        return f"Struct({{'re': {part}, 'im': {part}}})"
    if dtype.kind == "b":
        return "Boolean"
    kind = {"i": "Int", "u": "UInt", "f": "Float"}[dtype.kind]
    return f"{kind}{dtype.itemsize * 8}"


def column_dtype(dataset: h5py.Dataset, depth: int) -> str:
    dtype, shape = dataset.dtype, (dataset.shape or (0,))[1:]
    if dtype.subdtype is not None:
        dtype, shape = dtype.subdtype[0], shape + dtype.subdtype[1]
    name = "Int64" if is_region(dataset) else dtype_name(dtype)
    if texts := meanings_of(dataset):
        name = f"Enum(categories={list(dict.fromkeys(texts))})"
    if shape:
        name = f"Array({name}, shape={shape})"
    for _ in range(depth):
        name = f"List({name})"
    return name


# --- enumerated columns -------------------------------------------------------------------------------


def elements_of(dataset: h5py.Dataset) -> h5py.Dataset | None:
    """The dataset with the texts of an EnumData."""
    reference = dataset.attrs.get("elements")
    if kind_of(dataset) != "EnumData" or not isinstance(reference, h5py.Reference) or not reference:
        return None
    return dataset.file[reference]


def meanings_of(dataset: h5py.Dataset) -> list[str] | None:
    """The texts of codes; None if the dataset is not enumerated, or not by text."""
    elements = elements_of(dataset)
    if elements is None or elements.ndim != 1 or h5py.check_string_dtype(elements.dtype) is None:
        return None
    return [text(value) for value in elements[...]] or None


def decoded(codes: Any, texts: list[str]) -> Any:
    """Replace codes by texts at any depth of lists."""
    return [decoded(code, texts) for code in codes] if isinstance(codes, list) else texts[codes]


# --- members of a group -------------------------------------------------------------------------------


def kind_of(obj: Any) -> str | None:
    value = obj.attrs.get("neurodata_type")
    if isinstance(value, np.ndarray):
        value = value.ravel()[0] if value.size else None
    return None if value is None else text(value)


def is_region(dataset: h5py.Dataset) -> bool:
    return kind_of(dataset) == "DynamicTableRegion" and dataset.dtype.kind in "iu"


def members(group: h5py.Group) -> dict[str, h5py.Dataset | h5py.Group]:
    """Return the readable members, without broken and cyclic links."""
    found = {}
    for name in group:
        with contextlib.suppress(KeyError, OSError, RuntimeError):
            found[name] = group[name]
    return found


def datasets(group: h5py.Group) -> dict[str, h5py.Dataset]:
    return {name: obj for name, obj in members(group).items() if isinstance(obj, h5py.Dataset)}


def names_in(group: h5py.Group, attribute: str) -> list[str]:
    """The names that an attribute lists; it may be an array, one plain string, padded or empty."""
    value = group.attrs.get(attribute)
    if value is None or isinstance(value, h5py.Empty):
        return []
    raw = [value] if isinstance(value, (str, bytes)) else np.ravel(value).tolist()
    names = [text(name) for name in raw]
    names = [name if name in group else name.strip() for name in names]
    return list(dict.fromkeys(name for name in names if name))


def index_target(name: str, data: dict[str, h5py.Dataset], listed: list[str]) -> str | None:
    """The name of the column that dataset `name` indexes; None if it is a column."""
    dataset = data[name]
    target = dataset.attrs.get("target")
    if isinstance(target, h5py.Reference) and target:
        for other, candidate in data.items():
            if other != name and candidate == dataset.file[target]:
                return other
    stem = name.removesuffix("_index")
    if stem == name or stem not in data:
        return None
    if kind_of(dataset) == "VectorIndex":
        return stem
    if name in listed or kind_of(dataset) is not None:
        return None
    return stem if dataset.dtype.kind in "iu" and dataset.ndim == 1 else None


def fold(values: list[Any], ends: list[int]) -> list[list[Any]]:
    """Rows of a ragged column: `ends` are cumulative."""
    starts = [0, *ends][: len(ends)]
    if any(start > end for start, end in zip(starts, ends, strict=True)) or (ends and ends[-1] > len(values)):
        message = "ragged index is not monotonic or runs past the end"
        raise CorruptError(message)
    return [values[start:end] for start, end in zip(starts, ends, strict=True)]


def fit(table: Table, name: str, values: list[Any]) -> list[Any]:
    if len(values) != table.rows:
        table.repaired.add(name)
    return values[: table.rows] + [None] * (table.rows - len(values))


# --- tables -------------------------------------------------------------------------------------------


def dynamic_table(group: h5py.Group) -> Table:
    data, listed, table = datasets(group), names_in(group, "colnames"), Table()
    indices = {name: target for name in data if (target := index_target(name, data, listed))}
    by_target = {target: name for name, target in indices.items()}

    def chain(name: str) -> list[str]:
        """The indices over a column, innermost first."""
        found: list[str] = []
        while (name := by_target.get(name, "")) and name not in found:
            found.append(name)
        return found

    def height(name: str) -> int:
        last = data[([name, *chain(name)])[-1]]
        return len(last) if last.shape else 0

    keys = [found for name in data if (found := elements_of(data[name])) is not None]
    orphans = {n for n in data if kind_of(data[n]) == "VectorIndex" and n not in listed}
    shown = [
        n for n in data if n not in indices and n not in orphans and (n in listed or data[n] not in keys)
    ]
    if "id" in data:
        table.rows = height("id")
    else:
        table.rows = max((height(name) for name in listed if name in shown), default=0)
    for name in shown:
        if name not in listed and name != "id" and (not data[name].shape or height(name) != table.rows):
            continue
        if unsupported(data[name].id.get_type()):
            table.unsupported.add(name)
            continue
        values = read(data[name])
        if texts := meanings_of(data[name]):
            values = decoded(values, texts)
        for index in chain(name):
            values = fold(values, read(data[index]))
        table.columns[name] = fit(table, name, values)
        table.dtypes[name] = column_dtype(data[name], len(chain(name)))
    for name in names_in(group, "categories"):
        if isinstance(group.get(name), h5py.Group):
            part = dynamic_table(group[name]).sort()
            rows = [
                dict(zip(part.columns, row, strict=True)) for row in zip(*part.columns.values(), strict=True)
            ]
            table.columns[name] = fit(table, name, rows)
            table.dtypes[name] = (
                "Struct({" + ", ".join(f"'{n}': {part.dtypes[n]}" for n in part.columns) + "})"
            )
    return table


def series(group: h5py.Group) -> Table:
    data, table = datasets(group), Table()
    values, times, start = data.get("data"), data.get("timestamps"), data.get("starting_time")
    if values is not None and not (values.shape and len(values) == 0 and "external_file" in data):
        table.rows = len(values) if values.shape else 1
    elif times is not None:
        table.rows = len(times)
    for name, dataset in (("data", values), ("timestamps", times)):
        if dataset is not None and unsupported(dataset.id.get_type()):
            table.unsupported.add(name)
        elif dataset is not None:
            table.columns[name] = fit(table, name, read(dataset) if dataset.shape else [read(dataset)])
            table.dtypes[name] = column_dtype(dataset, 0)
    if times is None and start is not None and "rate" in start.attrs:
        first, rate = float(np.ravel(start[()])[0]), float(np.ravel(start.attrs["rate"])[0])
        table.columns["timestamps"] = (first + np.arange(table.rows) / rate).tolist()
        table.dtypes["timestamps"] = "Float64"
    return table


#: Fields that have one dimension in the NWB schema (nwb.file.yaml), whatever shape they are stored with.
LISTS = frozenset(["experimenter", "file_create_date", "keywords", "related_publications"])
#: Fields that are scalars there.
SCALARS = {
    "/general": frozenset(
        [
            "identifier",
            "session_start_time",
            "session_id",
            "session_description",
            "experiment_description",
            "lab",
            "institution",
            "notes",
            "data_collection",
            "surgery",
            "pharmacology",
            "virus",
            "source_script",
            "timestamps_reference_time",
            "protocol",
            "slices",
            "stimulus",
        ]
    ),
    "/general/subject": frozenset(
        "age description genotype sex species subject_id weight strain date_of_birth".split()  # noqa: SIM905
    ),
}


def metadata(path: str, *groups: h5py.Group) -> Table:
    """One row: scalars, arrays as lists; fields of the schema with its dimensions.

    The first group that has a name wins. Several elements are never made a scalar.
    """
    table = Table(rows=1)
    for group in groups:
        for name, dataset in datasets(group).items():
            if name in table.columns:
                continue
            if unsupported(dataset.id.get_type()):
                table.unsupported.add(name)
            elif path == "/general" and name in LISTS:
                scalar = dataset.shape == ()
                values = [plain(dataset[()], dataset.dtype, dataset.file)] if scalar else read(dataset)
                table.columns[name] = [None if dataset.shape is None else values]
                table.dtypes[name] = f"List({dtype_name(dataset.dtype)})"
            elif dataset.shape and name in SCALARS[path] and dataset.size < 2:
                table.columns[name] = np.ravel(read(dataset)).tolist() or [None]
                table.dtypes[name] = dtype_name(dataset.dtype)
            elif dataset.shape is None:
                table.columns[name], table.dtypes[name] = [None], dtype_name(dataset.dtype)
            elif dataset.shape == ():
                value = plain(dataset[()], dataset.dtype, dataset.file)
                table.columns[name], table.dtypes[name] = [value], dtype_name(dataset.dtype)
            else:
                table.columns[name], table.dtypes[name] = [read(dataset)], f"List({column_dtype(dataset, 0)})"
    return table


def is_table(group: h5py.Group) -> bool:
    has_id = isinstance(group.get("id"), h5py.Dataset)
    return "colnames" in group.attrs or (has_id and kind_of(group) in TABLE_TYPES)


def is_series(group: h5py.Group) -> bool:
    kind = kind_of(group)
    if kind is None or is_table(group):
        return False
    found = datasets(group)
    return "timestamps" in found or "starting_time" in found or ("data" in found and kind.endswith("Series"))


def read_table(path: str | Path, table_path: str) -> Table:
    """The table at `table_path` of one file."""
    with h5py.File(path, "r") as file:
        table_path = "/" + table_path.strip("/")
        if table_path == "/general":
            return metadata(table_path, file["/general"], file).sort()
        if table_path == "/general/subject":
            return metadata(table_path, file["/general/subject"]).sort()
        group = file[table_path]
        if isinstance(group, h5py.Dataset):
            group = file[table_path.rsplit("/", 1)[0]]
        return (dynamic_table(group) if is_table(group) else series(group)).sort()


def tables(path: str | Path) -> list[str]:
    """The paths of all tables, series and metadata groups; for a soft link, the path of the link."""
    found: list[str] = []

    def walk(group: h5py.Group, prefix: str, above: tuple[h5py.Group, ...]) -> None:
        for name, child in members(group).items():
            if not isinstance(child, h5py.Group) or child in above:
                continue  # a group inside itself has no end
            here = f"{prefix}/{name}"
            if is_table(child) or is_series(child) or here in {"/general", "/general/subject"}:
                found.append(here)
            if isinstance(group.get(name, getlink=True), h5py.HardLink):
                walk(child, here, (*above, child))

    with h5py.File(path, "r") as file:
        walk(file, "", (file["/"],))
    return sorted(found)
