"""Builders of test files: tables, ragged columns, series and sessions, written by h5py.

Each function of the `cases_*` modules writes one file; `CASES` and `PYNWB_CASES` hold them by name.
"""

# ruff: noqa: PLR0913 - a file has many parts

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Builder = Callable[[Path], None]
CASES: dict[str, Builder] = {}
PYNWB_CASES: dict[str, Builder] = {}
VLEN_TEXT = h5py.string_dtype()
GZIP = {"compression": "gzip", "shuffle": True}

try:
    import hdf5plugin
except ImportError:  # the plugin filters are an extra
    hdf5plugin = None


def case(function: Builder) -> Builder:
    CASES[function.__name__] = function
    return function


def pynwb_case(function: Builder) -> Builder:
    def quiet(path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function(path)

    PYNWB_CASES[function.__name__] = quiet
    return quiet


@dataclass
class Column:
    """A dataset with its storage options and attributes."""

    data: Any
    options: dict[str, Any] = field(default_factory=dict)
    attrs: dict[str, Any] = field(default_factory=dict)


@dataclass
class Ragged:
    """Rows of unequal length, `depth` levels deep, over a flat dataset."""

    rows: Sequence[Any]
    dtype: Any = "f8"
    depth: int = 1
    index_dtype: str = "u4"
    options: dict[str, Any] = field(default_factory=dict)
    index_options: dict[str, Any] = field(default_factory=dict)
    inner: tuple[int, ...] = ()
    vector_index: bool = True  # the attributes that hdmf writes
    target: bool = True


def flatten(rows: Sequence[Any], depth: int) -> tuple[list[Any], list[list[int]]]:
    """The flat values and the cumulative ends of each level, innermost first."""
    if depth == 0:
        return list(rows), []
    ends = np.cumsum([len(row) for row in rows], dtype="u8").tolist()
    flat, inner = flatten(list(chain.from_iterable(rows)), depth - 1)
    return flat, [*inner, ends]


def put(group: h5py.Group, name: str, column: Any) -> h5py.Dataset:
    """Write one column, with its indices if it is ragged."""
    if isinstance(column, Ragged):
        values, levels = flatten(column.rows, column.depth)
        data = np.array(values, dtype=column.dtype).reshape((len(values), *column.inner))
        dataset = group.create_dataset(name, data=data, dtype=column.dtype, **column.options)
        dataset.attrs["neurodata_type"] = "VectorData"
        previous = dataset
        for ends in levels:
            name += "_index"
            index = group.create_dataset(
                name, data=np.array(ends, dtype=column.index_dtype), **column.index_options
            )
            if column.vector_index:
                index.attrs["neurodata_type"] = "VectorIndex"
            if column.target:
                index.attrs["target"] = previous.ref
            previous = index
        return dataset
    if not isinstance(column, Column):
        column = Column(column)
    data, options = column.data, dict(column.options)
    fixed = isinstance(data, np.ndarray) and data.dtype.kind == "S"
    if isinstance(data, (list, np.ndarray)) and len(data) and not fixed:
        data = np.array(data, "O") if isinstance(np.ravel(np.array(data, "O"))[0], (str, bytes)) else data
        if np.asarray(data).dtype.kind == "O":
            options = {"dtype": VLEN_TEXT, **options}
    dataset = group.create_dataset(name, data=data, **options)
    for key, value in column.attrs.items():
        dataset.attrs[key] = value
    return dataset


def table(
    parent: h5py.Group,
    path: str,
    columns: Mapping[str, Any],
    *,
    rows: int | None = None,
    kind: str | None = "DynamicTable",
    colnames: Any = ...,
) -> h5py.Group:
    """Write a DynamicTable; `colnames` replaces the correct names, None omits it, `rows=-1` omits `id`."""
    group = parent.require_group(path)
    for name, column in columns.items():
        put(group, name, column)
    if rows is None:
        heights = [
            len(c.rows) if isinstance(c, Ragged) else len(c.data if isinstance(c, Column) else c)
            for c in columns.values()
        ]
        rows = max(heights, default=0)
    if rows >= 0 and "id" not in group:
        group["id"] = np.arange(rows)
        group["id"].attrs["neurodata_type"] = "ElementIdentifiers"
    if colnames is ...:
        colnames = np.array(list(columns), dtype=VLEN_TEXT) if columns else np.zeros(0, "f8")
    if colnames is not None:
        group.attrs["colnames"] = colnames
    if kind is not None:
        group.attrs["neurodata_type"] = kind
    return group


def series(
    parent: h5py.Group,
    path: str,
    data: Any = None,
    timestamps: Any = None,
    *,
    start: float | None = None,
    rate: float = 1.0,
    kind: str = "TimeSeries",
    **options: Any,
) -> h5py.Group:
    """Write a TimeSeries."""
    group = parent.require_group(path)
    group.attrs["neurodata_type"] = kind
    if data is not None:
        group.create_dataset("data", data=data, **options).attrs["unit"] = "V"
    if timestamps is not None:
        group["timestamps"] = timestamps
    if start is not None:
        group["starting_time"] = float(start)
        group["starting_time"].attrs["rate"] = rate
    return group


def nwb_root(
    file: h5py.File, session_id: str = "s0", keywords: Sequence[str] = ("production", "ecephys")
) -> None:
    """Write the objects at the root of every NWB file, and a subject."""
    file.attrs["nwb_version"] = "2.8.0"
    file.attrs["neurodata_type"] = "NWBFile"
    file["identifier"] = f"id-{session_id}"
    file["session_description"] = "a session"
    file["session_start_time"] = "2024-01-02T03:04:05+00:00"
    file["timestamps_reference_time"] = "2024-01-02T03:04:05+00:00"
    file.create_dataset("file_create_date", data=["2024-02-01T00:00:00+00:00"], dtype=VLEN_TEXT)
    general = file.require_group("general")
    general["session_id"] = session_id
    general.create_dataset("keywords", data=list(keywords), dtype=VLEN_TEXT)
    general.create_dataset("experimenter", data=["Doe, Jane", "Müller, Jörg"], dtype=VLEN_TEXT)
    subject = general.require_group("subject")
    subject.attrs["neurodata_type"] = "Subject"
    for name, value in {"subject_id": f"mouse-{session_id}", "sex": "F", "species": "Mus musculus"}.items():
        subject[name] = value


def raw_type(
    group: h5py.Group, name: str, tid: h5py.h5t.TypeID, memory: np.ndarray, **kw: Any
) -> h5py.Dataset:
    """A dataset of an HDF5 type that h5py's high-level interface does not make."""
    space = h5py.h5s.create_simple(memory.shape)
    dataset = h5py.h5d.create(group.id, name.encode(), tid, space, **kw)
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(memory))
    return h5py.Dataset(dataset)


def dcpl(*, chunks: tuple[int, ...] | None = None) -> h5py.h5p.PropDCID:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    if chunks:
        plist.set_chunk(chunks)
    return plist


def numbers(*shape: int, dtype: str = "f8") -> np.ndarray:
    """Different, compressible values; NaN among the floating ones."""
    array = (np.arange(int(np.prod(shape))) * 7 % 1009).reshape(shape).astype(dtype)
    if array.dtype.kind == "f" and array.size > 3:
        array.flat[3] = np.nan
    return array


# --- a small cube of sessions -------------------------------------------------------------------------

LOCATIONS = ("CA1", "CA1-so", "VISp", "LP", "CA3")


def write_session(
    path: Path, number: int, *, units: int = 40, performance: bool = True, order: Iterable[str] = ()
) -> Path:
    """A session like those of the notebook, written in a few milliseconds."""
    rng = np.random.default_rng(number)
    with h5py.File(path, "w") as file:
        nwb_root(file, f"s{number}", ["production" if number % 3 else "test", "ecephys"])
        bad = rng.uniform(size=units) < 0.5
        columns: dict[str, Any] = {
            "unit_id": [f"s{number}_{k}" for k in range(units)],
            "location": [LOCATIONS[k] for k in rng.integers(0, len(LOCATIONS), units)],
            "activity_drift": rng.uniform(0, 0.03, units),
            "amplitude_cutoff": np.where(bad, np.nan, rng.uniform(0, 0.3, units)),
            "presence_ratio": rng.uniform(0.4, 1, units),
            "isi_violations_ratio": rng.uniform(0, 1, units),
            "decoder_label": ["noise" if b else "sua" for b in bad],
            "spike_times": Ragged(
                [np.sort(rng.uniform(0, 1000, n)) for n in rng.integers(0, 200, units)],
                options={"chunks": (256,), "maxshape": (None,), **GZIP},
            ),
            "obs_intervals": Ragged(
                [rng.uniform(size=(n, 2)) for n in rng.integers(1, 3, units)], inner=(2,)
            ),
            "waveform_mean": Column(
                rng.normal(size=(units, 21, 8)), {"chunks": (4, 21, 8), "maxshape": (None, 21, 8), **GZIP}
            ),
        }
        for column in columns.values():
            if isinstance(column, Ragged) and column.inner:
                column.rows = [[tuple(pair) for pair in row] for row in column.rows]
        table(file, "units", columns, kind="Units")
        n = 30
        starts = np.cumsum(rng.uniform(3, 8, n))
        trials = {
            "start_time": starts,
            "stop_time": starts + rng.uniform(1, 3, n),
            "stim_name": [["vis1", "vis2", "sound1", "catch"][k] for k in rng.integers(0, 4, n)],
            "is_rewarded": rng.uniform(size=n) < 0.5,
            "block_index": np.arange(n) // 5,
        }
        table(file, "intervals/trials", trials, kind="TimeIntervals")
        if performance:
            blocks = {
                "start_time": np.arange(6) * 600.0,
                "stop_time": np.arange(6) * 600.0 + 590 + rng.uniform(0, 10, 6),
                "block_index": np.arange(6),
                "rewarded_modality": ["vis", "aud"] * 3,
                "signed_cross_modality_dprime": rng.normal(2, 1, 6),
                "is_first_block_aud": np.array([bool(number % 2)] * 6),
            }
            blocks["signed_cross_modality_dprime"][0] = np.nan
            table(file, "intervals/performance", blocks, kind="TimeIntervals")
        stamps = np.sort(rng.uniform(0, 100, 25 + number))
        series(file, "acquisition/lick_sensor_events", rng.normal(size=len(stamps)), stamps)
        series(file, "processing/behavior/running_speed", rng.normal(size=50), start=0.0, rate=60.0)
    return path


def write_cube(folder: Path, count: int = 6, **options: Any) -> list[Path]:
    """Write sessions, of which the fourth lacks `/intervals/performance`; return sorted paths."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        write_session(folder / f"session_{k:02}.nwb", k, performance=k != 3, **options) for k in range(count)
    ]
