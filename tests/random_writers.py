"""Random sessions (`random_files`) as HDF5 files and Zarr stores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from builders import VLEN_TEXT, hdf5plugin
from random_files import OTHER, SERIES, TABLE, Session, Stored, Table
from zarr_stores import CODECS, Writer

if TYPE_CHECKING:
    from pathlib import Path

_SMALL_INDEX = 255
_COMPACT_BYTES = 30_000
_BYTES = frozenset({"number", "bool", "region", "complex"})


def write_hdf5(path: Path, session: Session) -> Path:
    with h5py.File(path, "w", libver=session.libver) as file:
        file.attrs.update({"neurodata_type": "NWBFile", "nwb_version": "2.8.0"})
        for name in ("general/a", "general/größe/b"):
            file.create_group(name)
        for place, values in (("general", session.general), ("general/subject", session.subject)):
            for name, value in (values or {}).items():
                file[f"{place}/{name}"] = np.array(value, "O") if isinstance(value, list) else value
        other = _table(file, OTHER, session.other, None)
        if session.table is not None:
            _table(file, TABLE, session.table, other)
        if session.series is not None:
            group = file.create_group(SERIES)
            group.attrs["neurodata_type"] = "TimeSeries"
            _dataset(group, "data", session.series.data)
            if session.series.timestamps is not None:
                chunked = (
                    {"chunks": (session.series.chunk,), "maxshape": (None,)} if session.series.chunk else {}
                )
                group.create_dataset("timestamps", data=session.series.timestamps, **chunked)
            else:
                group["starting_time"] = session.series.start
                group["starting_time"].attrs["rate"] = session.series.rate
    return path


def write_metadata(path: Path, stored: dict[str, Any]) -> Path:
    """Write a file with nothing but metadata, given by path."""
    with h5py.File(path, "w") as file:
        file.attrs.update({"neurodata_type": "NWBFile", "nwb_version": "2.8.0"})
        for name, value in stored.items():
            file.create_dataset(name, data=value, dtype=VLEN_TEXT if value.dtype == "O" else value.dtype)
    return path


def write_attributes(path: Path, stored: dict[str, dict[str, np.ndarray]], store: str | int) -> Path:
    """Write groups and a dataset with attributes, by path, as HDF5 or as a Zarr store of some version."""
    if store == "HDF5":
        with h5py.File(path, "w") as file:
            for name, attributes in stored.items():
                found = (
                    file.require_dataset(name, (), "f8")
                    if name.endswith("/data")
                    else file.require_group(name or "/")
                )
                for key, value in attributes.items():
                    found.attrs.create(key, value, dtype=VLEN_TEXT if value.dtype == "O" else value.dtype)
        return path
    writer = Writer(int(store), [])
    for name, attributes in stored.items():
        plain = {key: value.tolist() for key, value in attributes.items()}
        if name.endswith("/data"):
            writer.array(name, np.float64(0), (), **plain)
        else:
            writer.group(name, **plain)
    return writer.write(path)


def _table(file: h5py.File, path: str, table: Table, other: h5py.Group | None) -> h5py.Group:
    group = file.create_group(path)
    group.attrs["neurodata_type"] = "DynamicTable"
    group.attrs["colnames"] = np.array([n for n in table.columns if n not in table.hidden] or [""], VLEN_TEXT)
    if table.has_id:
        group["id"] = np.arange(table.rows) * 10
        group["id"].attrs["neurodata_type"] = "ElementIdentifiers"
    for name, stored in table.columns.items():
        dataset = _dataset(group, name, stored)
        if stored.kind.family == "region":
            dataset.attrs["neurodata_type"] = "DynamicTableRegion"
            dataset.attrs["table"] = (group if other is None else other).ref
        for lengths in reversed(stored.lengths):
            name += "_index"  # noqa: PLW2901
            ends = np.cumsum(lengths)
            small = len(ends) and ends[-1] <= _SMALL_INDEX
            chunked = {"chunks": (5,), "maxshape": (None,), "compression": "gzip"} if len(lengths) % 2 else {}
            index = group.create_dataset(name, data=ends.astype("u1" if small else "u4"), **chunked)
            index.attrs.update({"neurodata_type": "VectorIndex", "target": dataset.ref})
            dataset = index
    return group


def _dataset(group: h5py.Group, name: str, stored: Stored) -> h5py.Dataset:
    values, dtype = _in_memory(group, stored)
    dataset = group.create_dataset(name, values.shape, dtype, **_options(stored, dtype.itemsize))
    written = len(values) - stored.unwritten
    if stored.kind.family == "vlen":
        for place, value in enumerate(values):
            dataset[place] = value
    elif written and values.size:
        dataset[:written] = values[:written]
    return dataset


def _in_memory(group: h5py.Group, stored: Stored) -> tuple[np.ndarray, np.dtype]:
    """Return values as h5py takes them, and their type in the file."""
    values = stored.values
    if stored.kind.family == "text":
        return values, VLEN_TEXT
    if stored.kind.family == "vlen":
        return values, h5py.vlen_dtype(np.dtype(stored.kind.dtype))
    if stored.kind.family == "reference":
        references = np.empty(values.shape, "O")
        for place, path in np.ndenumerate(values):
            references[place] = group.file[path].ref if path else h5py.Reference()
        return references, h5py.ref_dtype
    return values, values.dtype


def _options(stored: Stored, size: int) -> dict[str, Any]:
    """Return the arguments of `create_dataset` for the layout."""
    layout, shape = stored.layout, stored.values.shape
    options: dict[str, Any] = {"fillvalue": layout["fill"]} if "fill" in layout else {}
    if layout["how"] == "chunked":
        grows = layout["grows"] if len(stored.values) else "rows"
        of_rest = (None,) * (len(shape) - 1) if grows == "all" else shape[1:]
        options |= _filters(layout["filters"], stored.kind.family, size)
        options |= {"chunks": layout["chunk"], "maxshape": (shape[0] if grows == "no" else None, *of_rest)}
    elif layout["how"] == "compact" and stored.values.size * size < _COMPACT_BYTES:
        options["dcpl"] = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        options["dcpl"].set_layout(h5py.h5d.COMPACT)
    return options


def _filters(wanted: dict[str, Any], family: str, size: int) -> dict[str, Any]:
    """Return the options of h5py for filters, without those that a type cannot have."""
    options = dict(wanted)
    if options.get("compression") == "plugin":
        if hdf5plugin is None or family not in _BYTES:
            return {}
        plugins = {"zstd": hdf5plugin.Zstd, "blosc": hdf5plugin.Blosc, "bitshuffle": hdf5plugin.Bitshuffle}
        return dict(plugins[options["name"]]())
    if family in {"text", "vlen", "reference"}:
        options.pop("fletcher32", None)  # HDF5 has none for references into its heap
    if size == 1 and family == "fixed":
        options.pop("shuffle", None)
    return options


# --- Zarr ---------------------------------------------------------------------------------------------


def write_zarr(folder: Path, session: Session) -> Path:
    layout = session.zarr
    assert layout is not None
    writer = Writer(layout["version"], CODECS[layout["codec"]], layout["shards"])
    writer.group("", neurodata_type="NWBFile", nwb_version="2.8.0")
    for path in ("general", "acquisition"):
        writer.group(path)
    if session.subject is not None:
        writer.group("general/subject", neurodata_type="Subject")
    for place, values in (("general", session.general), ("general/subject", session.subject)):
        for name, value in (values or {}).items():
            _metadata(writer, f"{place}/{name}", value)
    _zarr_table(writer, OTHER, session.other, layout)
    if session.table is not None:
        _zarr_table(writer, TABLE, session.table, layout)
    if session.series is not None:
        writer.group(SERIES, neurodata_type="TimeSeries")
        _array(writer, f"{SERIES}/data", session.series.data, layout)
        if session.series.timestamps is not None:
            writer.array(f"{SERIES}/timestamps", session.series.timestamps, (max(session.series.chunk, 4),))
        else:
            writer.array(
                f"{SERIES}/starting_time", np.float64(session.series.start), (), rate=session.series.rate
            )
    if layout["consolidated"]:
        writer.consolidate()
    return writer.write(folder)


def _metadata(writer: Writer, path: str, value: Any) -> None:
    listed = np.array([*(value if isinstance(value, list) else [value]), None], "O")[:-1]
    if isinstance(value, list):
        writer.array(path, listed, (len(listed),), objects="vlen-utf8")
    elif writer.version == 2:
        writer.array(path, listed, (1,), objects="vlen-utf8", zarr_dtype="scalar")
    else:
        writer.array(path, listed.reshape(()), (), objects="vlen-utf8")


def _reference(version: int, path: str) -> dict[str, Any]:
    said = {"source": ".", "path": path}
    return {"zarr_dtype": "object", "value": said} if version == 2 else {"_REFERENCE": said}


def _zarr_table(writer: Writer, path: str, table: Table, layout: dict[str, Any]) -> None:
    listed = [name for name in table.columns if name not in table.hidden]
    writer.group(path, colnames=listed, neurodata_type="DynamicTable")
    if table.has_id:
        ids = np.arange(table.rows) * 10
        writer.array(f"{path}/id", ids, (max(1, table.rows),), neurodata_type="ElementIdentifiers")
    for name, stored in table.columns.items():
        said: dict[str, Any] = {"neurodata_type": "VectorData"}
        if stored.kind.family == "region":
            to = _reference(layout["version"], "/" + (path if path == OTHER else OTHER))
            said = {"neurodata_type": "DynamicTableRegion", "table": to}
        _array(writer, f"{path}/{name}", stored, layout, **said)
        below = f"{path}/{name}"
        for lengths in reversed(stored.lengths):
            target = _reference(layout["version"], "/" + below)
            below += "_index"
            ends = np.cumsum(lengths).astype("u4")
            writer.array(below, ends, (7,), neurodata_type="VectorIndex", target=target)


def _array(writer: Writer, path: str, stored: Stored, layout: dict[str, Any], **said: Any) -> None:
    values = stored.values
    chunk = stored.layout.get("chunk", tuple(max(1, n) for n in values.shape))
    options: dict[str, Any] = {}
    if stored.kind.family == "text":
        options["objects"] = "vlen-utf8"
    else:
        value = stored.layout.get("fill", False if stored.kind.family == "bool" else 0)
        options |= {"order": layout["order"], "fill": _fill(value, stored.kind.numpy)}
        across = int(np.prod([-(-n // c) for n, c in zip(values.shape[1:], chunk[1:], strict=True)]))
        first = (
            -(-(len(values) - stored.unwritten) // chunk[0])
            if stored.unwritten
            else -(-len(values) // chunk[0])
        )
        options["missing"] = tuple(range(first * across, -(-len(values) // chunk[0]) * across))
    writer.array(path, values, chunk, **options, **said)


def _fill(value: Any, dtype: np.dtype) -> Any:
    """A fill value in JSON; NaN and infinities by name."""
    if dtype.kind != "f" or np.isfinite(value):
        return value
    return "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"
